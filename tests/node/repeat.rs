//! What is handed over again: the same transaction, the same directory, a node that has stopped.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use sorcha_peer::error::{PublishError, ReadyError, ReplicationError, SubscribeError};
use sorcha_peer::ports::EntryState;
use sorcha_peer::types::{Header, WallTime};
use sorcha_peer::{
    Identity, Outcome, PeerNode, PublishState, Receipt, SqliteStorage, StartAt, Storage, Topic,
    Transaction,
};

use crate::common::{
    builder, identity, next, noise, ready, soon, start, start_beside, stats, stop, until,
};

async fn on_disk(dir: &Path, key: &Identity) -> (PeerNode, SqliteStorage) {
    let storage = SqliteStorage::open(dir).await.unwrap();
    (start(builder().identity(key.clone()).storage(storage.clone())).await, storage)
}

async fn repeat(node: &PeerNode, transaction: &Transaction) -> Receipt {
    let receipt = node.publish_prepared(transaction.clone()).await.unwrap();
    assert_eq!(receipt.outcome(), Outcome::AlreadyPublished);
    receipt
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receipt_of_a_repeated_publish_knows_how_far_it_got() {
    let (dir, key) = (tempfile::tempdir().unwrap(), identity(1));
    let (node, storage) = on_disk(dir.path(), &key).await;
    let peer = start_beside(&node).await;
    ready(&node, 1).await;
    let transaction = node.prepare("orders", noise(1, 100)).unwrap();
    let first = node.publish_prepared(transaction.clone()).await.unwrap();
    soon("a copy", first.replicated(1)).await.unwrap();
    until(&node, "it is confirmed", |stats| stats.outbox == 0).await;
    drop(first);
    let again = repeat(&node, &transaction).await;
    assert_eq!((again.copies(), again.status().state), (1, PublishState::Confirmed));
    soon("what is known", again.replicated(1)).await.unwrap();
    stop(&node).await;
    let closed = again.replicated(2).await.unwrap_err();
    assert!(matches!(closed, ReplicationError::Closed), "{closed}");
    storage.close().await;

    let (node, storage) = on_disk(dir.path(), &key).await;
    let again = repeat(&node, &transaction).await;
    assert_eq!(again.status().state, PublishState::Confirmed);
    soon("what an earlier run knew", again.replicated(1)).await.unwrap();
    let error = soon("no more is counted", again.replicated(2)).await.unwrap_err();
    assert!(matches!(error, ReplicationError::NotCounted), "{error}");
    assert_eq!(stats(&node).await.outbox, 0, "nothing was done");
    stop(&node).await;
    storage.close().await;
    stop(&peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_published_again_is_one_still() {
    let key = identity(1);
    let payload = Bytes::from(noise(1, 100));
    let created = WallTime::from_millis(sorcha_now());
    let expires = created.plus(Duration::from_hours(1));
    let header = Header::new(Topic::new("t").unwrap(), key.peer_id(), created, expires, &payload);
    let transaction = key.sign_transaction(header, payload).unwrap();
    let queue = Storage::memory_queue(100);
    queue.append(std::slice::from_ref(&transaction)).await.unwrap();
    let reason = "no linked peer took it".to_owned();
    let dead = EntryState::Dead { reason: reason.clone(), since: created };
    queue.update(&[(transaction.id(), dead)]).await.unwrap();
    // Its log was lost.
    let node = start(builder().identity(key).queue(queue.clone())).await;
    let again = repeat(&node, &transaction).await;
    let state = again.status().state;
    assert!(matches!(&state, PublishState::DeadLetter { reason: r } if *r == reason), "{state:?}");
    let error = again.replicated(1).await.unwrap_err();
    assert!(matches!(error, ReplicationError::DeadLetter { .. }), "{error}");
    assert_eq!(node.dead_letters(None, 9).await.unwrap().len(), 1);

    node.redeliver(transaction.id()).await.unwrap();
    let peer = start_beside(&node).await;
    let mut arrived = peer.subscribe("t", StartAt::Earliest).await.unwrap();
    assert_eq!(next(&mut arrived).await.transaction.payload(), transaction.payload());
    stop(&node).await;
    stop(&peer).await;
}

#[expect(clippy::disallowed_methods, reason = "a transaction of this moment")]
fn sorcha_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_identity_is_emptied_under_the_new_one() {
    let (dir, old, new) = (tempfile::tempdir().unwrap(), identity(1), identity(2));
    let storage = SqliteStorage::open(dir.path()).await.unwrap();
    let left: Vec<_> = (0..100u64)
        .map(|n| {
            let created = WallTime::from_millis(1_700_000_000_000 + n);
            let payload = Bytes::from(n.to_le_bytes().to_vec());
            let topic = Topic::new("t").unwrap();
            let expires = created.plus(Duration::from_hours(1));
            let header = Header::new(topic, old.peer_id(), created, expires, &payload);
            old.sign_transaction(header, payload).unwrap()
        })
        .collect();
    storage.queue().append(&left).await.unwrap();
    storage.close().await;

    let (node, storage) = on_disk(dir.path(), &new).await;
    let peer = start_beside(&node).await;
    let mut arrived = peer.subscribe("t", StartAt::Earliest).await.unwrap();
    for old in &left {
        // Beside them, not instead of them.
        node.publish("other", noise(1, 10)).await.unwrap();
        let delivery = next(&mut arrived).await;
        assert_eq!(delivery.transaction.payload(), old.payload());
        assert_eq!(delivery.transaction.origin(), new.peer_id());
    }
    until(&node, "nothing is left", |stats| stats.outbox == 0).await;
    stop(&node).await;
    storage.close().await;
    stop(&peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shutdown_overtakes_is_in_its_report() {
    let node = start(builder()).await;
    let publish = |n: u64| {
        let node = node.clone();
        tokio::spawn(async move { node.publish("t", n.to_le_bytes().to_vec()).await })
    };
    let publishes: Vec<_> = (0..2000).map(publish).collect();
    let report = node.shutdown(Duration::ZERO).await.unwrap();
    let mut accepted = 0;
    for publish in publishes {
        match publish.await.unwrap() {
            Ok(receipt) => {
                accepted += 1;
                assert!(report.unconfirmed.contains(&receipt.id()), "one is not in the report");
            }
            Err(PublishError::Closed | PublishError::Unsettled) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(report.unconfirmed.len() >= accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_stopped_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (node, storage) = on_disk(dir.path(), &identity(1)).await;
    node.publish("t", "1").await.unwrap();
    stop(&node).await;
    let ready = node.wait_ready(0, Duration::from_secs(1)).await;
    assert!(matches!(ready, Err(ReadyError::Closed)), "{ready:?}");
    let error = node.subscribe("t", StartAt::Earliest).await.unwrap_err();
    assert!(matches!(error, SubscribeError::Closed), "{error}");
    let error = node.subscribe_durable("a", "t", StartAt::Earliest).await.unwrap_err();
    assert!(matches!(error, SubscribeError::Closed), "{error}");
    storage.close().await;
    SqliteStorage::open(dir.path()).await.expect("the directory is free");
}
