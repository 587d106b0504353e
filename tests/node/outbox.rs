//! The outbox in the hands of the host: replayed in order, dead letters listed, taken back and
//! deleted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use sorcha_peer::error::{DeadLetterError, RedeliverError, ReplicationError, StoreError};
use sorcha_peer::ports::{EntryState, OutboxEntry, TransactionQueue};
use sorcha_peer::types::{Header, WallTime};
use sorcha_peer::{
    Event, PeerId, PeerNode, PeerNodeBuilder, PublishState, StartAt, Storage, Topic, Transaction,
    TransactionId, Validator, Verdict,
};
use tokio::sync::Semaphore;

use crate::common::{
    address, builder, config_with, counters, event, identity, next, noise, ready, soon, start,
    start_alone, start_beside, stats, stop, until,
};
use crate::hooked_queue::{HookedQueue, QueueHooks};

/// Takes nothing until it is told to.
#[derive(Debug, Default)]
struct Picky(AtomicBool);

#[async_trait]
impl Validator for Picky {
    async fn validate(&self, _: &Transaction, _: &PeerId) -> Verdict {
        if self.0.load(Ordering::Relaxed) { Verdict::Accept } else { Verdict::Ignore }
    }
}

/// A node whose first round without a taker is the last.
fn impatient() -> PeerNodeBuilder {
    PeerNode::builder().config(config_with(|c| {
        c.outbox.max_retries = 1;
        c.outbox.min_copies = 1;
    }))
}

async fn not_found(node: &PeerNode, id: TransactionId) {
    let error = node.delete_dead_letter(id).await.unwrap_err();
    assert!(matches!(error, DeadLetterError::NotFound { id: told } if told == id), "{error}");
    let error = node.redeliver(id).await.unwrap_err();
    assert!(matches!(error, RedeliverError::NotFound { id: told } if told == id), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_peer_takes_is_listed_and_taken_back_or_deleted() {
    let node = start(impatient()).await;
    let picky = Arc::new(Picky::default());
    let peer = start(builder().validator(picky.clone()).bootstrap([address(&node)])).await;
    ready(&node, 1).await;
    assert_eq!(node.dead_letters(None, 10).await.unwrap(), []);

    let mut events = node.events();
    let mut receipts = Vec::new();
    for n in 0..3 {
        receipts.push(node.publish("t", noise(n, 100)).await.unwrap());
    }
    for _ in &receipts {
        event(&mut events, "a dead letter", |e| match e {
            Event::DeadLettered { .. } => Some(()),
            _ => None,
        })
        .await;
    }
    // At once, in the order of publishing, and in pages.
    let dead = node.dead_letters(None, 10).await.unwrap();
    let listed: Vec<_> = dead.iter().map(|dead| dead.transaction.id()).collect();
    let published: Vec<_> = receipts.iter().map(sorcha_peer::Receipt::id).collect();
    assert_eq!(listed, published);
    assert!(dead.iter().all(|dead| dead.reason.contains("rejected it")), "{dead:?}");
    assert_eq!(node.dead_letters(None, 2).await.unwrap(), dead[..2]);
    assert_eq!(node.dead_letters(Some(dead[1].seq), 2).await.unwrap(), dead[2..]);
    assert_eq!(node.dead_letters(Some(dead[2].seq), 2).await.unwrap(), []);
    let error = receipts[0].replicated(1).await.unwrap_err();
    assert!(matches!(error, ReplicationError::DeadLetter { .. }), "{error}");

    node.delete_dead_letter(published[1]).await.unwrap();
    not_found(&node, published[1]).await;
    assert_eq!(stats(&node).await.dead_letters, 2);

    // The peer has refused these for good; another one takes them.
    let other = start_beside(&node).await;
    // Else all that are linked would refuse it once more.
    ready(&node, 2).await;
    match node.redeliver(published[0]).await {
        Ok(receipt) => {
            assert_eq!(receipt.id(), published[0], "it has not expired");
            soon("a taker", receipt.replicated(1)).await.unwrap();
        }
        // The other one was quicker: it has compared what both hold, and taken it.
        Err(error) => assert!(matches!(error, RedeliverError::NotFound { .. }), "{error}"),
    }
    soon("a taker", receipts[0].replicated(1)).await.unwrap();
    let mut changes = receipts[0].changes();
    while soon("it is through", changes.next()).await.unwrap().state != PublishState::Confirmed {}
    let mut taken = other.subscribe("t", StartAt::Earliest).await.unwrap();
    assert_eq!(next(&mut taken).await.transaction.id(), published[0]);
    not_found(&node, published[0]).await;

    stop(&node).await;
    let error = node.dead_letters(None, 10).await.unwrap_err();
    assert!(matches!(error, DeadLetterError::Closed), "{error}");
    for peer in [peer, other] {
        stop(&peer).await;
    }
}

/// Answers of an entry as it was, when the test says so.
#[derive(Debug)]
struct Late {
    /// Has as many permits as entries were read and not told yet.
    read: Semaphore,
    /// A permit for each answer.
    tell: Semaphore,
}

#[async_trait]
impl QueueHooks for Late {
    async fn get(
        &self,
        queue: &dyn TransactionQueue,
        id: &TransactionId,
    ) -> Result<Option<OutboxEntry>, StoreError> {
        let entry = queue.get(id).await;
        self.read.add_permits(1);
        self.tell.acquire().await.expect("it is never closed").forget();
        entry
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_a_peer_takes_in_this_moment_is_not_published_twice() {
    let (read, tell) = (Semaphore::new(0), Semaphore::new(0));
    let queue = Arc::new(HookedQueue::new(1000, Late { read, tell }));
    let node = start(impatient().queue(queue.clone())).await;
    let peer = start(builder().validator(Arc::new(Picky::default())).bootstrap([address(&node)]));
    let peer = peer.await;
    ready(&node, 1).await;
    let receipt = node.publish("t", noise(1, 100)).await.unwrap();
    until(&node, "a dead letter", |s| s.dead_letters == 1).await;

    let (host, id) = (node.clone(), receipt.id());
    let redelivered = tokio::spawn(async move { host.redeliver(id).await });
    soon("the entry is read", queue.hooks.read.acquire()).await.unwrap().forget();
    let other = start_beside(&node).await;
    until(&node, "another peer takes it", |s| s.dead_letters == 0).await;
    queue.hooks.tell.add_permits(1);
    let error = soon("an answer", redelivered).await.unwrap().unwrap_err();
    assert!(matches!(error, RedeliverError::NotFound { id: told } if told == id), "{error}");
    assert_eq!(counters(&node).await.transactions_published, 1);
    for node in [node, peer, other] {
        stop(&node).await;
    }
}

/// A queue in which `transaction` is a dead letter of an earlier process.
async fn queue_with_dead(transaction: &Transaction) -> Arc<dyn TransactionQueue> {
    let queue = Storage::memory_queue(1000);
    queue.append(std::slice::from_ref(transaction)).await.unwrap();
    let (reason, since) = ("it was long ago".to_owned(), WallTime::from_millis(2000));
    let dead = EntryState::Dead { reason, since };
    queue.update(&[(transaction.id(), dead)]).await.unwrap();
    queue
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_dead_letter_is_published_anew() {
    let owner = identity(1);
    let (created, expires) = (WallTime::from_millis(1000), WallTime::from_millis(2000));
    let payload = noise(1, 100);
    let topic = Topic::new("t").unwrap();
    let header = Header::new(topic, owner.peer_id(), created, expires, &payload);
    let old = owner.sign_transaction(header, payload.clone().into()).unwrap();
    let queue = queue_with_dead(&old).await;
    let node = start(builder().identity(owner).queue(queue.clone())).await;
    let dead = node.dead_letters(None, 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].transaction.id()), (1, old.id()));
    assert_eq!(stats(&node).await.dead_letters, 1);

    let receipt = node.redeliver(old.id()).await.unwrap();
    assert_ne!(receipt.id(), old.id());
    assert_eq!(queue.get(&old.id()).await.unwrap(), None, "its row is gone when this returns");
    let now = stats(&node).await;
    assert_eq!((now.outbox, now.dead_letters), (1, 0));

    let peer = start_beside(&node).await;
    let mut arrived = peer.subscribe("t", StartAt::Earliest).await.unwrap();
    let delivery = next(&mut arrived).await;
    assert_eq!(delivery.transaction.id(), receipt.id());
    assert_eq!(*delivery.transaction.payload(), payload);
    until(&node, "it leaves the outbox", |s| s.outbox == 0).await;
    stop(&peer).await;
    stop(&node).await;
    let size = queue.size().await.unwrap();
    assert_eq!((size.waiting, size.dead), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_where_nothing_is_dead() {
    let node = start_alone().await;
    let receipt = node.publish("t", "waits").await.unwrap();
    not_found(&node, receipt.id()).await;
    not_found(&node, TransactionId::from_bytes([7; 32])).await;
    assert_eq!(receipt.status().state, PublishState::Waiting);
    assert_eq!(node.dead_letters(None, 0).await.unwrap(), []);
    assert_eq!(stop(&node).await.unconfirmed, [receipt.id()]);
}

/// Payloads of a topic at a node, until there are `count`.
async fn arrivals(node: &PeerNode, count: usize) -> Vec<Vec<u8>> {
    let mut inbox = node.subscribe("t", StartAt::Earliest).await.unwrap();
    let mut arrived = Vec::with_capacity(count);
    while arrived.len() < count {
        arrived.push(next(&mut inbox).await.transaction.payload().to_vec());
    }
    arrived
}

/// Two peers that are linked with each other too, so that each hears of everything twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_alone_is_replayed_in_order_to_all_peers() {
    let node = start_alone().await;
    let mut published = Vec::new();
    for n in 0..2000u32 {
        let size = if n == 700 { 300_000 } else { 200 };
        published.push([&n.to_le_bytes()[..], &noise(1, size)].concat());
    }
    for payload in &published {
        node.publish("t", payload.clone()).await.unwrap();
    }
    let first = start(builder().bootstrap([address(&node)])).await;
    let second = start(builder().bootstrap([address(&node), address(&first)])).await;
    let of = |payloads: &[Vec<u8>]| -> Vec<u32> {
        payloads.iter().map(|p| u32::from_le_bytes(p[..4].try_into().unwrap())).collect()
    };
    for peer in [&first, &second] {
        let arrived = arrivals(peer, published.len()).await;
        assert_eq!(of(&arrived), of(&published));
        assert!(arrived == published);
    }
    until(&node, "everything is confirmed", |s| s.outbox == 0).await;
    for node in [&node, &first, &second] {
        stop(node).await;
    }
}
