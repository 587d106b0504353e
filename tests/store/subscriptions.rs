//! Subscriptions by cursor: names whose place the store keeps, gaps, cursors of elsewhere, stores
//! whose pages end early.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sorcha_peer::error::{AckError, StoreError, StoreErrorKind, SubscribeError};
use sorcha_peer::ports::{LogEntry, NewEntry, Page, TransactionStore};
use sorcha_peer::transport::MemoryNetwork;
use sorcha_peer::types::WallTime;
use sorcha_peer::{
    Cursor, Delivery, DurableSubscription, Identity, Item, PeerNode, SqliteStorage, StartAt,
    Storage, Subscription, Topic,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::hooked::{Hooked, Hooks, alone};

const HANG: Duration = Duration::from_mins(2);

async fn on_log(log: Arc<dyn TransactionStore>) -> PeerNode {
    let identity = Identity::generate().unwrap();
    alone(&identity).transaction_store(log).start().await.unwrap()
}

async fn on_disk(dir: &Path, identity: &Identity) -> (PeerNode, SqliteStorage) {
    let storage = SqliteStorage::open(dir).await.unwrap();
    (alone(identity).storage(storage.clone()).start().await.unwrap(), storage)
}

async fn stop(node: PeerNode, storage: SqliteStorage) {
    node.shutdown(Duration::ZERO).await.unwrap();
    storage.close().await;
}

async fn item(items: &mut DurableSubscription) -> Item {
    tokio::time::timeout(HANG, items.next()).await.expect("an item in time").expect("an item")
}

async fn next(items: &mut DurableSubscription) -> Delivery {
    match item(items).await {
        Item::Delivery(delivery) => delivery,
        other => panic!("no delivery: {other:?}"),
    }
}

async fn payloads(items: &mut DurableSubscription, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        let delivery = next(items).await;
        found.push(String::from_utf8(delivery.transaction.payload().to_vec()).unwrap());
    }
    found
}

async fn publish(node: &PeerNode, topic: &str, names: &[&'static str]) {
    for name in names {
        node.publish(topic, *name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_subscription_goes_on_after_what_was_acknowledged() {
    let (dir, identity) = (tempfile::tempdir().unwrap(), Identity::generate().unwrap());
    let (node, storage) = on_disk(dir.path(), &identity).await;
    publish(&node, "t", &["1", "2"]).await;
    publish(&node, "other", &["not this"]).await;
    publish(&node, "t", &["3", "4", "5"]).await;
    let mut items = node.subscribe_durable("bills", "t", StartAt::Earliest).await.unwrap();
    assert_eq!(payloads(&mut items, 2).await, ["1", "2"]);
    let third = next(&mut items).await.cursor;
    items.ack(third).await.unwrap();
    assert_eq!(payloads(&mut items, 2).await, ["4", "5"], "no ack is waited for");
    drop(items);
    let mut items = node.subscribe_durable("bills", "t", StartAt::Earliest).await.unwrap();
    assert_eq!(payloads(&mut items, 1).await, ["4"], "within the run");
    drop(items);
    stop(node, storage).await;

    let (node, storage) = on_disk(dir.path(), &identity).await;
    let mut items = node.subscribe_durable("bills", "t", StartAt::Now).await.unwrap();
    assert_eq!(payloads(&mut items, 2).await, ["4", "5"], "the place counts, not `new`");
    publish(&node, "t", &["6"]).await;
    let sixth = next(&mut items).await.cursor;
    items.ack(sixth).await.unwrap();
    items.ack(third).await.expect("an earlier one changes nothing");
    drop(items);
    stop(node, storage).await;

    let (node, storage) = on_disk(dir.path(), &identity).await;
    let mut items = node.subscribe_durable("bills", "t", StartAt::Earliest).await.unwrap();
    publish(&node, "t", &["7"]).await;
    assert_eq!(payloads(&mut items, 1).await, ["7"], "what was acknowledged never comes again");
    drop(items);
    node.remove_subscription("bills").await.unwrap();
    node.remove_subscription("bills").await.expect("an unknown name is no error");
    let mut items = node.subscribe_durable_all("bills", StartAt::Earliest).await.unwrap();
    assert_eq!(payloads(&mut items, 3).await, ["1", "2", "not this"], "forgotten");
    drop(items);
    stop(node, storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_keeps_its_place_before_anything_is_acknowledged() {
    let (dir, identity) = (tempfile::tempdir().unwrap(), Identity::generate().unwrap());
    let (node, storage) = on_disk(dir.path(), &identity).await;
    drop(node.subscribe_durable("early", "t", StartAt::Earliest).await.unwrap());
    publish(&node, "t", &["before"]).await;
    drop(node.subscribe_durable("now", "t", StartAt::Now).await.unwrap());
    stop(node, storage).await;

    let (node, storage) = on_disk(dir.path(), &identity).await;
    publish(&node, "t", &["missed"]).await;
    let mut now = node.subscribe_durable("now", "t", StartAt::Now).await.unwrap();
    assert_eq!(payloads(&mut now, 1).await, ["missed"]);
    let mut early = node.subscribe_durable("early", "t", StartAt::Now).await.unwrap();
    assert_eq!(payloads(&mut early, 2).await, ["before", "missed"]);
    drop((now, early));
    stop(node, storage).await;
}

#[tokio::test]
async fn a_name_is_used_once_at_a_time_and_what_does_not_fit_is_refused() {
    let node = on_log(Storage::memory_transactions(None)).await;
    publish(&node, "t", &["1"]).await;
    let mut items = node.subscribe_durable("a", "t", StartAt::Earliest).await.unwrap();
    let refused = node.subscribe_durable_all("a", StartAt::Now).await.unwrap_err();
    assert!(matches!(refused, SubscribeError::InUse { ref name } if name == "a"), "{refused}");
    let refused = node.remove_subscription("a").await.unwrap_err();
    assert!(matches!(refused, SubscribeError::InUse { .. }), "{refused}");
    let long = "x".repeat(256);
    for (name, bytes) in [("", 0), (long.as_str(), 256)] {
        let refused = node.subscribe_durable(name, "t", StartAt::Now).await.unwrap_err();
        let SubscribeError::Name { length, max: 255 } = refused else { panic!("{refused}") };
        assert_eq!(length, bytes);
    }
    let cursor = next(&mut items).await.cursor;
    let ahead = items.ack(Cursor(cursor.0 + 1)).await.unwrap_err();
    let AckError::NotDelivered { delivered, .. } = ahead else { panic!("{ahead}") };
    assert_eq!(delivered, cursor);
    let other = node.subscribe_durable("b", "t", StartAt::Now).await.expect("another name");
    drop((items, other));
    node.remove_subscription("a").await.expect("free again");
    node.subscribe_durable("a", "t", StartAt::Now).await.expect("free again");
}

#[tokio::test]
async fn a_cursor_that_was_not_given_out_is_refused() {
    let node = on_log(Storage::memory_transactions(None)).await;
    let mut virgin = node.subscribe_all(StartAt::After(Cursor(u64::MAX >> 11))).await.unwrap();
    publish(&node, "t", &["1"]).await;
    let first = tokio::time::timeout(HANG, virgin.next()).await.expect("not waited in vain");
    let Some(Item::Delivery(first)) = first else { panic!("{first:?}") };
    assert_eq!(first.transaction.payload().as_ref(), b"1", "all of an empty log is new");
    let ahead = Cursor(first.cursor.0 + 1);
    let refused = node.subscribe_all(StartAt::After(ahead)).await.unwrap_err();
    let SubscribeError::Cursor { cursor, newest } = refused else { panic!("{refused}") };
    assert_eq!((cursor, newest), (ahead, first.cursor));
    let refused = node.subscribe_durable("a", "t", StartAt::After(ahead)).await.unwrap_err();
    assert!(matches!(refused, SubscribeError::Cursor { .. }), "{refused}");
    node.subscribe_durable("a", "t", StartAt::Now).await.expect("the name was not taken");
}

#[tokio::test]
async fn a_gap_is_told_under_a_name_and_acknowledging_it_skips_nothing() {
    let log = Storage::memory_transactions(None);
    let node = on_log(log.clone()).await;
    publish(&node, "t", &["1", "2", "3"]).await;
    let mut items = node.subscribe_durable("a", "t", StartAt::Earliest).await.unwrap();
    let first = next(&mut items).await.cursor;
    items.ack(first).await.unwrap();
    drop(items);
    log.expire(WallTime::from_millis(u64::MAX)).await.unwrap();
    publish(&node, "t", &["4"]).await;
    let mut items = node.subscribe_durable("a", "t", StartAt::Earliest).await.unwrap();
    let Item::Gap { after, until, span: None, .. } = item(&mut items).await else {
        panic!("no gap")
    };
    assert_eq!((after, until), (first, Cursor(first.0 + 2)));
    items.ack(until).await.unwrap();
    drop(items);
    let mut items = node.subscribe_durable("a", "t", StartAt::Earliest).await.unwrap();
    assert_eq!(payloads(&mut items, 1).await, ["4"], "and the gap is not told again");
}

#[tokio::test]
async fn a_new_name_is_told_of_no_gap_before_it() {
    let log = Hooked::new(Terse::default());
    let node = on_log(log.clone()).await;
    publish(&node, "t", &["1", "2"]).await;
    log.expire(WallTime::from_millis(u64::MAX)).await.unwrap();
    drop(node.subscribe_durable("a", "t", StartAt::Earliest).await.unwrap());
    let mut items = node.subscribe_durable("a", "t", StartAt::Earliest).await.unwrap();
    publish(&node, "t", &["3"]).await;
    assert_eq!(payloads(&mut items, 1).await, ["3"]);
}

#[tokio::test]
async fn a_cursor_of_a_log_that_was_lost_is_forgotten_with_the_first_acknowledgement() {
    let node = on_log(Hooked::new(Terse::default())).await;
    let lost = StartAt::After(Cursor(u64::MAX));
    let mut items = node.subscribe_durable("a", "t", lost).await.unwrap();
    publish(&node, "t", &["1", "2"]).await;
    let first = next(&mut items).await.cursor;
    items.ack(first).await.unwrap();
    drop(items);
    let mut items = node.subscribe_durable("a", "t", lost).await.unwrap();
    assert_eq!(payloads(&mut items, 1).await, ["2"]);
}

/// Looks at one entry in a call, and stays where it is when nothing is left.
#[derive(Debug, Default)]
struct Terse {
    reads: AtomicU64,
}

#[async_trait]
impl Hooks for Terse {
    async fn read(
        &self,
        log: &dyn TransactionStore,
        topic: Option<&Topic>,
        after: Cursor,
        _: (usize, usize),
    ) -> Result<Page, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut page = log.read(None, after, 1, 1).await?;
        page.next = page.entries.last().map_or(after, |entry| entry.cursor);
        page.entries.retain(|e| topic.is_none_or(|t| t == e.entry.transaction.topic()));
        Ok(page)
    }
}

#[tokio::test]
async fn pages_that_end_early_are_read_on_and_one_that_stands_still_is_the_end() {
    let log = Hooked::new(Terse::default());
    let node = on_log(log.clone()).await;
    publish(&node, "busy", &["1", "2", "3", "4", "5"]).await;
    publish(&node, "rare", &["6"]).await;
    let mut rare = node.subscribe_durable("a", "rare", StartAt::Earliest).await.unwrap();
    assert_eq!(payloads(&mut rare, 1).await, ["6"]);
    // All is gone: the store stands still before the newest cursor, far from the first.
    log.inner.expire(WallTime::from_millis(u64::MAX)).await.unwrap();
    let mut all = node.subscribe_all(StartAt::Earliest).await.unwrap();
    log.hooks.reads.store(0, Ordering::SeqCst);
    let waiting = tokio::spawn(async move { all.next().await });
    while log.hooks.reads.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    publish(&node, "busy", &["7"]).await;
    let seventh = tokio::time::timeout(HANG, waiting).await.expect("in time").unwrap();
    let Some(Item::Delivery(seventh)) = seventh else { panic!("{seventh:?}") };
    assert_eq!(seventh.transaction.payload().as_ref(), b"7");
    let reads = log.hooks.reads.load(Ordering::SeqCst);
    assert!(reads <= 3, "{reads} reads");
}

/// Reads that fail when they are told to, and always where a damaged entry is on the page.
#[derive(Debug, Default)]
struct Failing {
    kind: Mutex<Option<StoreErrorKind>>,
    reads: AtomicU64,
}

#[async_trait]
impl Hooks for Failing {
    async fn read(
        &self,
        log: &dyn TransactionStore,
        topic: Option<&Topic>,
        after: Cursor,
        room: (usize, usize),
    ) -> Result<Page, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let page = log.read(topic, after, room.0, room.1).await?;
        let damaged = |e: &LogEntry| e.entry.transaction.payload().as_ref() == b"damaged";
        let damaged = page.entries.iter().any(damaged).then_some(StoreErrorKind::Corrupt);
        match self.kind.lock().unwrap().or(damaged) {
            Some(kind) => Err(StoreError::new(kind, "told to")),
            None => Ok(page),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_is_told_once_a_second_and_a_closed_log_is_the_end() {
    let log = Hooked::new(Failing::default());
    let node = on_log(log.clone()).await;
    publish(&node, "t", &["1", "2"]).await;
    let mut items = node.subscribe_durable("a", "t", StartAt::Earliest).await.unwrap();
    *log.hooks.kind.lock().unwrap() = Some(StoreErrorKind::Io);
    let start = Instant::now();
    for round in 0..5 {
        let Item::Failed(error) = item(&mut items).await else { panic!("it fails") };
        assert_eq!(error.kind, StoreErrorKind::Io);
        assert!(start.elapsed() >= Duration::from_secs(round), "not at once again");
    }
    assert_eq!(log.hooks.reads.load(Ordering::SeqCst), 5);
    *log.hooks.kind.lock().unwrap() = None;
    assert_eq!(payloads(&mut items, 2).await, ["1", "2"], "it goes on");
    publish(&node, "t", &["3"]).await;
    *log.hooks.kind.lock().unwrap() = Some(StoreErrorKind::Closed);
    assert!(matches!(item(&mut items).await, Item::Failed(_)));
    for _ in 0..2 {
        assert!(items.next().await.is_none(), "what is closed stays so");
    }
}

#[tokio::test(start_paused = true)]
async fn damage_is_told_skipped_and_does_not_stop_a_subscriber() {
    let log = Hooked::new(Failing::default());
    let node = on_log(log.clone()).await;
    publish(&node, "t", &["1", "2", "damaged", "3", "damaged"]).await;
    let mut items = node.subscribe_durable("a", "t", StartAt::Earliest).await.unwrap();
    assert_eq!(payloads(&mut items, 2).await, ["1", "2"]);
    let gap = async |items: &mut DurableSubscription| {
        let Item::Failed(error) = item(items).await else { panic!("damage is told") };
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
        let Item::Gap { after, until, .. } = item(items).await else { panic!("and skipped") };
        assert_eq!(until, Cursor(after.0 + 1));
        until
    };
    gap(&mut items).await;
    assert_eq!(payloads(&mut items, 1).await, ["3"]);
    let until = gap(&mut items).await;
    items.ack(until).await.unwrap();
    publish(&node, "t", &["4"]).await;
    assert_eq!(payloads(&mut items, 1).await, ["4"]);
}

/// Keeps the answer to an append that is done back, when it is told to.
#[derive(Debug, Default)]
struct SlowAnswer {
    is_due: AtomicBool,
    stored: Notify,
    go_on: Notify,
}

#[async_trait]
impl Hooks for SlowAnswer {
    async fn append(
        &self,
        log: &dyn TransactionStore,
        entries: &[NewEntry],
    ) -> Result<Vec<Cursor>, StoreError> {
        let cursors = log.append(entries).await?;
        if !entries.is_empty() && self.is_due.swap(false, Ordering::SeqCst) {
            self.stored.notify_one();
            self.go_on.notified().await;
        }
        Ok(cursors)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn news_that_looks_old_is_delivered_when_it_is_read_before_the_node_knows_that_it_is_stored()
{
    let log = Hooked::new(SlowAnswer::default());
    let network = MemoryNetwork::new();
    let on = |n: u8| {
        let identity = Identity::from_seed([n; 32]);
        let transport = Arc::new(network.transport(identity.peer_id()));
        PeerNode::builder().transport(transport).identity(identity)
    };
    let node = on(1).transaction_store(log.clone()).listen("10.0.0.1:1").start().await.unwrap();
    let origin = on(2).dial_only().start().await.unwrap();
    origin.connect("10.0.0.1:1").await.unwrap();
    // Behind what the two compare when they meet.
    let mut all = node.subscribe_all(StartAt::Earliest).await.unwrap();
    origin.publish("t", "0").await.unwrap();
    let text = async |items: &mut Subscription| {
        let item = tokio::time::timeout(HANG, items.next()).await.expect("an item in time");
        let Some(Item::Delivery(d)) = item else { panic!("no delivery: {item:?}") };
        String::from_utf8(d.transaction.payload().to_vec()).unwrap()
    };
    assert_eq!(text(&mut all).await, "0");
    // As from a slow clock: dated before the subscriptions and published after they began.
    let news = ["1", "2", "3"].map(|name| origin.prepare("t", name).unwrap());
    let late = news[2].header().created.plus(Duration::from_millis(20));
    while origin.prepare("t", "").unwrap().header().created < late {
        tokio::task::yield_now().await;
    }
    let [mut early, mut items] = [
        node.subscribe("t", StartAt::Now).await.unwrap(),
        node.subscribe("t", StartAt::Now).await.unwrap(),
    ];
    let [first, second, third] = news;
    origin.publish_prepared(first).await.unwrap();
    assert_eq!(text(&mut early).await, "1");
    log.hooks.is_due.store(true, Ordering::SeqCst);
    origin.publish_prepared(second).await.unwrap();
    tokio::time::timeout(HANG, log.hooks.stored.notified()).await.expect("stored in time");
    assert_eq!(text(&mut items).await, "1", "read while the second was there");
    log.hooks.go_on.notify_one();
    origin.publish_prepared(third).await.unwrap();
    assert_eq!(text(&mut items).await, "2");
    assert_eq!(text(&mut items).await, "3");
}
