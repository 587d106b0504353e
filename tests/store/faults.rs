//! Stores that fail: accepted stays accepted, the rest is a typed error, and the node says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sorcha_peer::error::{
    BanError, PublishError, ReadyError, StartError, StoreError, StoreErrorKind,
};
use sorcha_peer::ports::{
    Ban, EntryFilter, NewEntry, PeerStore, StoredPeer, TransactionQueue, TransactionStore,
};
use sorcha_peer::transport::MemoryNetwork;
use sorcha_peer::types::{Header, Signature, WallTime};
use sorcha_peer::{
    Config, Cursor, Event, Identity, Outcome, PeerId, PeerNode, Storage, Topic, Transaction,
    TransactionId,
};
use tokio::sync::Notify;

use crate::hooked::{Hooked, Hooks, alone, delivered};
use crate::hooked_queue::{HookedQueue, QueueHooks};

/// Fails when it is told to.
#[derive(Debug, Default)]
struct Fault(AtomicU8);

const NONE: u8 = 0;
const IO: u8 = 1;
const FULL: u8 = 2;
const PANIC: u8 = 3;

impl Fault {
    fn set(&self, fault: u8) {
        self.0.store(fault, Ordering::SeqCst);
    }
}

#[async_trait]
impl Hooks for Fault {
    async fn append(
        &self,
        log: &dyn TransactionStore,
        entries: &[NewEntry],
    ) -> Result<Vec<Cursor>, StoreError> {
        match self.0.load(Ordering::SeqCst) {
            IO => Err(StoreError::new(StoreErrorKind::Io, "told to")),
            FULL => Err(StoreError::new(StoreErrorKind::Full, "told to")),
            PANIC => panic!("told to"),
            _ => log.append(entries).await,
        }
    }
}

async fn refusal(node: &PeerNode) -> StoreErrorKind {
    match node.publish("t", "payload").await {
        Err(PublishError::Store(error)) => error.kind,
        other => panic!("must be refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_failing_log_refuses_says_so_and_recovers() {
    let (log, queue) = (Hooked::new(Fault::default()), Storage::memory_queue(100));
    let identity = Identity::generate().unwrap();
    let builder = alone(&identity).transaction_store(log.clone()).queue(queue.clone());
    let node = builder.start().await.unwrap();
    let mut events = node.events();
    node.publish("t", "before").await.unwrap();
    assert_eq!(node.storage_failure(), None);

    for (fault, kind) in [(IO, StoreErrorKind::Io), (PANIC, StoreErrorKind::Io)] {
        log.hooks.set(fault);
        for _ in 0..3 {
            assert_eq!(refusal(&node).await, kind);
            assert_eq!(node.storage_failure(), Some(kind));
        }
        let waiting = node.wait_ready(0, Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(waiting, ReadyError::Timeout { hint, .. } if hint.contains("storage")));
        let told = loop {
            if let Event::StorageFailed { message, .. } = events.next().await.unwrap() {
                break message;
            }
        };
        assert!(told.contains("told to") || told.contains("panicked"), "{told}");
        let ready = node.wait_ready(0, Duration::from_secs(30));
        let mut ready = std::pin::pin!(ready);
        assert!(futures::poll!(ready.as_mut()).is_pending(), "it waits");
        log.hooks.set(NONE);
        node.publish("t", "again").await.expect("it works again");
        ready.await.expect("and says so");
        assert_eq!(node.storage_failure(), None);
    }
    let left = queue.load(EntryFilter::All, None, 100, usize::MAX).await.unwrap();
    let texts: Vec<_> = left.iter().map(|e| e.transaction.payload().clone()).collect();
    assert_eq!(texts, ["before", "again", "again"], "what was refused is in no store");
    node.shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_full_log_has_failed_when_it_stays_full() {
    let log = Hooked::new(Fault::default());
    let identity = Identity::generate().unwrap();
    let node = alone(&identity).transaction_store(log.clone()).start().await.unwrap();
    log.hooks.set(FULL);
    for count in 1..=4 {
        assert_eq!(refusal(&node).await, StoreErrorKind::Full);
        let failing = (count >= 3).then_some(StoreErrorKind::Full);
        assert_eq!(node.storage_failure(), failing, "after {count}");
    }
    log.hooks.set(NONE);
    node.publish("t", "fits").await.unwrap();
    assert_eq!(node.storage_failure(), None);
    node.shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_log_that_works_again_is_found_to_do_so_while_nobody_publishes() {
    let log = Hooked::new(Fault::default());
    let identity = Identity::generate().unwrap();
    let node = alone(&identity).transaction_store(log.clone()).start().await.unwrap();
    log.hooks.set(IO);
    assert_eq!(refusal(&node).await, StoreErrorKind::Io);
    node.wait_ready(0, Duration::from_mins(5)).await.unwrap_err();
    log.hooks.set(NONE);
    node.wait_ready(0, Duration::from_mins(5)).await.expect("looked after");
    assert_eq!(node.storage_failure(), None);
    node.shutdown(Duration::ZERO).await.unwrap();
}

/// Lets nothing go while it is told to.
#[async_trait]
impl QueueHooks for Fault {
    async fn remove(
        &self,
        queue: &dyn TransactionQueue,
        ids: &[TransactionId],
    ) -> Result<(), StoreError> {
        if self.0.load(Ordering::SeqCst) == IO {
            return Err(StoreError::new(StoreErrorKind::Io, "told to"));
        }
        queue.remove(ids).await
    }
}

#[tokio::test]
async fn a_host_s_store_is_one_node_s_at_a_time_where_it_hands_out_a_lease() {
    let log = Hooked::new(Fault::default());
    let queue = Arc::new(HookedQueue::new(100, Fault::default()));
    let identity = Identity::generate().unwrap();
    let on_log = || alone(&identity).transaction_store(log.clone()).start();
    let node = on_log().await.unwrap();
    match on_log().await {
        Err(StartError::Store(error)) => assert_eq!(error.kind, StoreErrorKind::Locked, "{error}"),
        other => panic!("{other:?}"),
    }
    node.shutdown(Duration::ZERO).await.unwrap();
    on_log().await.unwrap();
    // One without a lease is the host's to keep apart.
    let on_queue = || alone(&identity).queue(queue.clone()).start();
    let (first, second) = (on_queue().await.unwrap(), on_queue().await.unwrap());
    first.shutdown(Duration::ZERO).await.unwrap();
    second.shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn what_was_refused_leaves_the_outbox_as_soon_as_that_lets_it_go() {
    let log = Hooked::new(Fault::default());
    let queue = Arc::new(HookedQueue::new(100, Fault::default()));
    let identity = Identity::generate().unwrap();
    let builder = alone(&identity).transaction_store(log.clone()).queue(queue.clone());
    let node = builder.start().await.unwrap();
    log.hooks.set(IO);
    queue.hooks.set(IO);
    assert_eq!(refusal(&node).await, StoreErrorKind::Io);
    assert_eq!(queue.size().await.unwrap().waiting, 1, "the next process would deliver it");
    log.hooks.set(NONE);
    node.publish("t", "while it is stuck").await.unwrap();
    assert_eq!(queue.size().await.unwrap().waiting, 2);
    queue.hooks.set(NONE);
    node.publish("t", "later").await.unwrap();
    let left = queue.load(EntryFilter::All, None, 100, usize::MAX).await.unwrap();
    let texts: Vec<_> = left.iter().map(|e| e.transaction.payload().clone()).collect();
    assert_eq!(texts, ["while it is stuck", "later"]);
    node.shutdown(Duration::ZERO).await.unwrap();
}

/// Takes what it is given, and never says so.
#[derive(Debug, Default)]
struct Mute(Notify);

#[async_trait]
impl Hooks for Mute {
    async fn append(
        &self,
        log: &dyn TransactionStore,
        entries: &[NewEntry],
    ) -> Result<Vec<Cursor>, StoreError> {
        log.append(entries).await?;
        self.0.notify_one();
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_a_shutdown_overtakes_is_not_said_to_be_refused() {
    let log = Hooked::new(Mute::default());
    let identity = Identity::generate().unwrap();
    let node = alone(&identity).transaction_store(log.clone()).start().await.unwrap();
    let publisher = node.clone();
    let publish = tokio::spawn(async move { publisher.publish("t", "late").await });
    log.hooks.0.notified().await;
    node.shutdown(Duration::ZERO).await.unwrap();
    let answer = publish.await.unwrap();
    assert!(matches!(answer, Err(PublishError::Unsettled)), "{answer:?}");
    assert_eq!(log.usage().await.unwrap().entries, 1, "it was stored");
    let answer = node.publish("t", "later").await;
    assert!(matches!(answer, Err(PublishError::Closed)), "{answer:?}");
}

#[tokio::test]
async fn a_shutdown_may_wait_for_ever() {
    let identity = Identity::generate().unwrap();
    let node = alone(&identity).start().await.unwrap();
    node.publish("t", "kept").await.unwrap();
    let report = node.shutdown(Duration::MAX).await.expect("it ends as any other");
    assert_eq!(report.unconfirmed.len(), 1);
}

/// Lets everything go a day late, when it is asked.
#[derive(Debug)]
struct Late;

#[async_trait]
impl Hooks for Late {
    async fn expire(&self, log: &dyn TransactionStore, now: WallTime) -> Result<u64, StoreError> {
        log.expire(now.plus(Duration::from_hours(24))).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_log_takes_more_when_it_lets_go_while_nothing_else_happens() {
    let log = Hooked::bounded(Late, Some(5000));
    let identity = Identity::generate().unwrap();
    let mut config = Config::default();
    config.gossip.max_origin_share = 100;
    let builder = alone(&identity).config(config).dial_only();
    let node = builder.transaction_store(log.clone()).start().await.unwrap();
    let publish = async || node.publish("t", vec![0; 2000]).await;
    publish().await.unwrap();
    publish().await.unwrap();
    let full = publish().await.unwrap_err();
    assert!(matches!(&full, PublishError::Store(e) if e.kind == StoreErrorKind::Full), "{full}");
    // For the node nothing has expired; the store is asked all the same.
    tokio::time::sleep(Duration::from_secs(30)).await;
    publish().await.expect("there is room again");
    node.shutdown(Duration::ZERO).await.unwrap();
}

/// Has no room for what is large, nor for what is stored together with it.
#[derive(Debug, Default)]
struct Narrow;

#[async_trait]
impl Hooks for Narrow {
    async fn append(
        &self,
        log: &dyn TransactionStore,
        entries: &[NewEntry],
    ) -> Result<Vec<Cursor>, StoreError> {
        if entries.iter().any(|entry| entry.transaction.payload().len() > 1000) {
            return Err(StoreError::new(StoreErrorKind::Full, "told to"));
        }
        log.append(entries).await
    }
}

#[tokio::test]
async fn what_does_not_fit_costs_nobody_else_its_place() {
    let (log, queue) = (Hooked::new(Narrow), Storage::memory_queue(1000));
    let identity = Identity::generate().unwrap();
    let builder = alone(&identity).queue(queue.clone()).transaction_store(log.clone());
    let node = builder.start().await.unwrap();
    let publish = |n: u64| {
        let size = if n % 50 == 7 { 2000 } else { 10 };
        node.publish("t", vec![7; size])
    };
    let results = futures::future::join_all((0..200).map(publish)).await;
    for (n, result) in results.iter().enumerate() {
        match result {
            Ok(_) => assert_ne!(n % 50, 7),
            Err(PublishError::Store(error)) => {
                assert!(n % 50 == 7 && error.kind == StoreErrorKind::Full, "{n}: {error}");
            }
            Err(error) => panic!("{n}: {error}"),
        }
    }
    assert_eq!(queue.size().await.unwrap().waiting, 196, "what was refused has left");
    assert_eq!(node.storage_failure(), None, "it takes what fits");
    node.shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_queue_that_holds_less_than_configured_is_full_earlier() {
    let (identity, queue) = (Identity::generate().unwrap(), Storage::memory_queue(120));
    let node = alone(&identity).queue(queue.clone()).start().await.unwrap();
    let publish = |n: u64| node.publish("t", n.to_le_bytes().to_vec());
    let results = futures::future::join_all((0..150).map(publish)).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((accepted.len(), refused.len()), (119, 31), "one place is for what expires");
    for result in refused {
        let error = result.unwrap_err();
        assert!(matches!(error, PublishError::QueueFull { limit: 119 }), "{error}");
    }
    assert_eq!(node.storage_failure(), None, "a full outbox is no failure");
    node.shutdown(Duration::ZERO).await.unwrap();
}

/// Cannot read some entries.
#[derive(Debug)]
struct Unreadable {
    fault: AtomicU8,
    payload: &'static [u8],
}

#[async_trait]
impl Hooks for Unreadable {
    async fn get(
        &self,
        log: &dyn TransactionStore,
        id: &TransactionId,
    ) -> Result<Option<Transaction>, StoreError> {
        let found = log.get(id).await?;
        let hit = found.as_ref().is_some_and(|t| t.payload().as_ref() == self.payload);
        match self.fault.load(Ordering::SeqCst) {
            IO if hit => Err(StoreError::new(StoreErrorKind::Io, "told to")),
            PANIC if hit => panic!("told to"),
            _ => Ok(found),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_keeps_nothing_else_from_peers() {
    // Another node's, and own that are in the outbox too.
    for (fault, own) in [(IO, false), (PANIC, false), (IO, true), (PANIC, true)] {
        let log = Hooked::new(Unreadable { fault: AtomicU8::new(NONE), payload: b"5" });
        let identities = [1, 2].map(|n| Identity::from_seed([n; 32]));
        let network = MemoryNetwork::new();
        let on = |identity: &Identity| {
            let transport = Arc::new(network.transport(identity.peer_id()));
            PeerNode::builder().transport(transport).identity(identity.clone())
        };
        let queue = Storage::memory_queue(100);
        let node = on(&identities[0]).queue(queue.clone()).transaction_store(log.clone());
        let node = node.listen("10.0.0.1:1").start().await.unwrap();
        for n in 0..20 {
            node.publish("t", n.to_string()).await.unwrap();
        }
        node.shutdown(Duration::ZERO).await.unwrap();
        // Nothing of them is in memory any more.
        log.hooks.fault.store(fault, Ordering::SeqCst);
        let queue = if own { queue } else { Storage::memory_queue(100) };
        let node = on(&identities[0]).queue(queue).transaction_store(log.clone());
        let node = node.listen("10.0.0.1:1").start().await.unwrap();
        let peer = on(&identities[1]).dial_only().start().await.unwrap();
        peer.connect("10.0.0.1:1").await.unwrap();
        let expected: Vec<_> =
            (0..20).filter(|n| own || *n != 5).map(|n: u32| n.to_string()).collect();
        let mut arrived = delivered(&peer, expected.len()).await;
        arrived.sort_unstable_by_key(|text| text.parse::<u32>().unwrap());
        assert_eq!(arrived, expected, "{fault} {own}");
        node.shutdown(Duration::ZERO).await.unwrap();
        peer.shutdown(Duration::ZERO).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_room_in_the_log_stays_when_it_is_published_again() {
    let (log, queue) = (Hooked::new(Fault::default()), Storage::memory_queue(100));
    let identity = Identity::generate().unwrap();
    let node = alone(&identity).queue(queue.clone()).start().await.unwrap();
    let transaction = node.prepare("t", "1").unwrap();
    node.publish_prepared(transaction.clone()).await.unwrap();
    node.shutdown(Duration::ZERO).await.unwrap();
    log.hooks.set(FULL);
    let builder = alone(&identity).queue(queue.clone()).transaction_store(log.clone());
    let node = builder.start().await.unwrap();
    let again = node.publish_prepared(transaction).await.unwrap();
    assert_eq!(again.outcome(), Outcome::AlreadyPublished);
    assert_eq!(queue.size().await.unwrap().waiting, 1);
    log.hooks.set(NONE);
    assert_eq!(delivered(&node, 1).await, ["1"]);
    node.shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_starts_with_a_full_log_and_fills_it_later() {
    let (log, queue) = (Hooked::new(Fault::default()), Storage::memory_queue(100));
    let identity = Identity::generate().unwrap();
    let node = alone(&identity).queue(queue.clone()).start().await.unwrap();
    for text in ["1", "2", "3"] {
        node.publish("t", text).await.unwrap();
    }
    node.shutdown(Duration::ZERO).await.unwrap();

    log.hooks.set(FULL);
    let builder = alone(&identity).queue(queue.clone()).transaction_store(log.clone());
    let node = builder.start().await.expect("a full log is no reason not to start");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(node.storage_failure(), Some(StoreErrorKind::Full));
    assert_eq!(queue.size().await.unwrap().waiting, 3, "nothing is given up");
    let all = delivered(&node, 3);
    log.hooks.set(NONE);
    assert_eq!(all.await, ["1", "2", "3"]);
    node.wait_ready(0, Duration::from_mins(1)).await.unwrap();
    assert_eq!(node.stats().await.unwrap().retained, 3, "they are offered too");
    node.publish("t", "4").await.unwrap();
    assert_eq!(delivered(&node, 4).await[3], "4");
    node.shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_expired_while_the_node_was_down_goes_once_a_peer_confirms_the_time() {
    let (log, queue) = (Hooked::new(Fault::default()), Storage::memory_queue(100));
    let identities = [1, 2].map(|n| Identity::from_seed([n; 32]));
    let (created, expires) = (WallTime::from_millis(1), WallTime::from_millis(2));
    let (topic, payload) = (Topic::new("t").unwrap(), Bytes::from_static(b"old"));
    let header = Header::new(topic, identities[0].peer_id(), created, expires, &payload);
    let old = Transaction::new(header, Signature::None, payload).unwrap();
    queue.append(std::slice::from_ref(&old)).await.unwrap();
    let entry = NewEntry::new(old.clone(), None, 0, expires);
    log.append(&[entry]).await.unwrap();
    let network = MemoryNetwork::new();
    let on = |identity: &Identity| {
        let transport = Arc::new(network.transport(identity.peer_id()));
        PeerNode::builder().transport(transport).identity(identity.clone())
    };
    let node = on(&identities[0]).queue(queue.clone()).transaction_store(log.clone());
    let node = node.dial_only().start().await.unwrap();
    assert_eq!(log.usage().await.unwrap().entries, 1, "one clock alone forgets nothing");
    assert_eq!(node.dead_letters(None, 9).await.unwrap(), []);
    let stats = node.stats().await.unwrap();
    assert_eq!((stats.outbox, stats.dead_letters), (1, 0));
    assert_eq!(queue.size().await.unwrap().waiting, 1, "it is published anew when there is a link");

    let peer = on(&identities[1]).listen("10.0.0.1:1").start().await.unwrap();
    node.connect("10.0.0.1:1").await.unwrap();
    assert_eq!(delivered(&peer, 1).await, ["old"], "under another id");
    // Housekeeping has no event of its own; the time is virtual.
    while log.get(&old.id()).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    node.shutdown(Duration::ZERO).await.unwrap();
    peer.shutdown(Duration::ZERO).await.unwrap();
}

/// Keeps peers and bans, unless it is told not to.
#[derive(Debug)]
struct Peers {
    inner: Arc<dyn PeerStore>,
    fails: AtomicBool,
}

impl Peers {
    fn check(&self) -> Result<&dyn PeerStore, StoreError> {
        let fails = self.fails.load(Ordering::SeqCst);
        if fails { Err(StoreError::new(StoreErrorKind::Io, "told to")) } else { Ok(&*self.inner) }
    }
}

#[async_trait]
impl PeerStore for Peers {
    async fn load(&self) -> Result<(Vec<StoredPeer>, Vec<Ban>), StoreError> {
        self.check()?.load().await
    }
    async fn upsert(&self, peers: &[StoredPeer]) -> Result<(), StoreError> {
        self.check()?.upsert(peers).await
    }
    async fn remove(&self, peers: &[PeerId]) -> Result<(), StoreError> {
        self.check()?.remove(peers).await
    }
    async fn put_ban(&self, ban: &Ban) -> Result<(), StoreError> {
        self.check()?.put_ban(ban).await
    }
    async fn remove_ban(&self, peer: &PeerId) -> Result<(), StoreError> {
        self.check()?.remove_ban(peer).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_ban_that_cannot_be_kept_is_told_and_kept_later() {
    let store = Arc::new(Peers { inner: Storage::memory_peers(), fails: AtomicBool::default() });
    let identity = Identity::generate().unwrap();
    let node = alone(&identity).peer_store(store.clone()).start().await.unwrap();
    let banned = async || {
        let (_, bans) = store.inner.load().await.unwrap();
        bans.into_iter().map(|ban| ban.peer).collect::<Vec<_>>()
    };
    let [a, b, c] = [1, 2, 3].map(|n| PeerId::from_bytes([n; 32]));
    node.ban(a, None, "why").await.unwrap();
    assert_eq!(banned().await, [a], "once that is answered");

    let mut events = node.events();
    store.fails.store(true, Ordering::SeqCst);
    for refused in [node.ban(b, None, "why").await, node.unban(a).await] {
        assert!(matches!(&refused, Err(BanError::Store(e)) if e.kind == StoreErrorKind::Io));
    }
    let told = events.next().await.unwrap();
    assert!(matches!(told, Event::StorageFailed { .. }), "{told:?}");
    assert_eq!(node.storage_failure(), Some(StoreErrorKind::Io));
    node.publish("t", "goes on").await.expect("the other stores work");
    assert_eq!(node.storage_failure(), Some(StoreErrorKind::Io));

    store.fails.store(false, Ordering::SeqCst);
    node.wait_ready(0, Duration::from_mins(1)).await.expect("it is tried again");
    assert_eq!(banned().await, [b], "what was ordered last holds");
    node.ban(c, None, "why").await.unwrap();
    assert_eq!(banned().await, [b, c]);
    node.shutdown(Duration::ZERO).await.unwrap();
}
