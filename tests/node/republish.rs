//! What was published while its node was alone for longer than transactions live, and what is
//! published again on purpose.

use std::time::Duration;

use bytes::Bytes;
use sorcha_peer::error::{InvalidTransaction, PublishError};
use sorcha_peer::types::{Header, WallTime};
use sorcha_peer::{Event, Identity, Outcome, SqliteStorage, StartAt, Storage, Topic, Transaction};

use crate::common::{
    address, builder, event, identity, next, noise, ready, soon, start, start_alone, stats, stop,
    until,
};

/// A transaction of long ago.
fn stale(identity: &Identity, n: u64) -> Transaction {
    let created = WallTime::from_millis(1_700_000_000_000 + n / 10);
    let payload = Bytes::from(n.to_le_bytes().to_vec());
    let expires = created.plus(Duration::from_hours(1) + Duration::from_millis(n));
    let topic = Topic::new("orders").unwrap();
    let header = Header::new(topic, identity.peer_id(), created, expires, &payload);
    identity.sign_transaction(header, payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_in_the_outbox_is_published_anew_in_order_once_somebody_is_there() {
    const COUNT: u64 = 600;
    let (dir, key) = (tempfile::tempdir().unwrap(), identity(1));
    let storage = SqliteStorage::open(dir.path()).await.unwrap();
    let left: Vec<_> = (0..COUNT).map(|n| stale(&key, n)).collect();
    storage.queue().append(&left).await.unwrap();

    let node = start(builder().identity(key).storage(storage.clone())).await;
    assert_eq!(stats(&node).await.outbox, COUNT, "it waits, however old it is");
    assert_eq!(node.dead_letters(None, 1).await.unwrap(), []);
    let mut events = node.events();
    let peer = start(builder().bootstrap([address(&node)])).await;
    let mut orders = peer.subscribe("orders", StartAt::Earliest).await.unwrap();
    for (n, old) in (0..COUNT).zip(&left) {
        let delivery = next(&mut orders).await;
        assert_eq!(delivery.transaction.payload(), &Bytes::from(n.to_le_bytes().to_vec()));
        assert_ne!(delivery.transaction.id(), old.id());
    }
    let first = event(&mut events, "a renewal", |e| match e {
        Event::Renewed { id, .. } => Some(*id),
        _ => None,
    })
    .await;
    assert_eq!(first, left[0].id());
    until(&node, "everything is confirmed", |stats| stats.outbox == 0).await;
    assert_eq!(stats(&node).await.counters.transactions_renewed, COUNT);
    stop(&node).await;
    assert_eq!(storage.queue().size().await.unwrap().waiting, 0);
    storage.close().await;
    stop(&peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_in_a_full_outbox_is_published_anew_too() {
    let (key, queue) = (identity(1), Storage::memory_queue(200));
    // As many as a node puts into it.
    let left: Vec<_> = (0..198).map(|n| stale(&key, n)).collect();
    queue.append(&left).await.unwrap();
    let node = start(builder().identity(key).queue(queue)).await;
    let error = node.publish("orders", "more").await.unwrap_err();
    assert!(matches!(error, PublishError::QueueFull { limit: 198 }), "{error}");
    let peer = start(builder().bootstrap([address(&node)])).await;
    let mut orders = peer.subscribe("orders", StartAt::Earliest).await.unwrap();
    for n in 0..198u64 {
        let delivery = next(&mut orders).await;
        assert_eq!(delivery.transaction.payload(), &Bytes::from(n.to_le_bytes().to_vec()));
    }
    until(&node, "everything is confirmed", |stats| stats.outbox == 0).await;
    assert_eq!(node.storage_failure(), None);
    for node in [node, peer] {
        stop(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_is_published_once_however_often_it_is_handed_over() {
    let node = start_alone().await;
    let mut orders = node.subscribe("orders", StartAt::Now).await.unwrap();
    let transaction = node.prepare("orders", noise(1, 100)).unwrap();
    assert_eq!(stats(&node).await.counters.transactions_published, 0);
    // Also at the same time.
    let twice = [transaction.clone(), transaction.clone()].map(|t| node.publish_prepared(t));
    let receipts = soon("both answers", futures::future::try_join_all(twice)).await.unwrap();
    let mut outcomes: Vec<_> = receipts.iter().map(sorcha_peer::Receipt::outcome).collect();
    outcomes.sort_unstable_by_key(|outcome| *outcome == Outcome::AlreadyPublished);
    assert_eq!(outcomes, [Outcome::Published, Outcome::AlreadyPublished]);
    let again = node.publish_prepared(transaction.clone()).await.unwrap();
    assert_eq!((again.outcome(), again.id()), (Outcome::AlreadyPublished, transaction.id()));

    let peer = start(builder().bootstrap([address(&node)])).await;
    ready(&peer, 1).await;
    soon("the same copies for all", again.replicated(1)).await.unwrap();
    assert_eq!(again.copies(), receipts[0].copies());
    until(&node, "it is confirmed", |stats| stats.outbox == 0).await;
    let late = node.publish_prepared(transaction.clone()).await.unwrap();
    assert_eq!(late.outcome(), Outcome::AlreadyPublished, "also when it has left the outbox");

    let last = node.publish("orders", "the end").await.unwrap();
    assert_eq!(last.outcome(), Outcome::Published);
    assert_eq!(next(&mut orders).await.transaction.id(), transaction.id());
    assert_eq!(next(&mut orders).await.transaction.id(), last.id(), "delivered once");

    // What this node has not made, or not lately.
    let foreign = peer.prepare("orders", "x").unwrap();
    let error = node.publish_prepared(foreign).await.unwrap_err();
    assert!(matches!(error, PublishError::Invalid(InvalidTransaction::Signature)), "{error}");
    let (key, own) = (identity(7), start(builder().identity(identity(7))).await);
    let error = own.publish_prepared(stale(&key, 0)).await.unwrap_err();
    assert!(matches!(error, PublishError::Expired { .. }), "{error}");
    assert_eq!(stats(&own).await.counters.transactions_published, 0);
    for node in [node, peer, own] {
        stop(&node).await;
    }
}
