//! One origin does not fill a bounded store, also not over a restart.

use sorcha_peer::error::PublishError;
use sorcha_peer::store::SqliteOptions;
use sorcha_peer::types::Refusal;
use sorcha_peer::{Event, PeerNode, SqliteStorage, Storage};
use std::path::Path;

use crate::common::{address, builder, config_with, event, identity, ready, start, stop, until};

const STORE: u64 = 1 << 20;
const SIZE: usize = 16 << 10;

fn payload(n: u8) -> Vec<u8> {
    vec![n; SIZE]
}

async fn on_disk(dir: &Path, contact: &PeerNode) -> (PeerNode, SqliteStorage) {
    let options = SqliteOptions::default().max_log_bytes(STORE);
    let storage = SqliteStorage::open_with(dir, options).await.unwrap();
    let described = builder().identity(identity(2)).bootstrap([address(contact)]);
    (start(described.storage(storage.clone())).await, storage)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_origin_has_on_disk_counts_after_a_restart() {
    // It publishes what it likes: its own store has no bound.
    let log = Storage::memory_transactions(None);
    let flood = start(builder().identity(identity(1)).transaction_store(log)).await;
    let dir = tempfile::tempdir().unwrap();
    let (node, storage) = on_disk(dir.path(), &flood).await;
    ready(&node, 1).await;
    for n in 0..20 {
        flood.publish("t", payload(n)).await.unwrap();
    }
    until(&node, "all that fits", |s| s.counters.transactions_accepted == 20).await;
    stop(&node).await;
    storage.close().await;

    let (node, storage) = on_disk(dir.path(), &flood).await;
    let mut events = node.events();
    ready(&node, 1).await;
    for n in 20..60 {
        flood.publish("t", payload(n)).await.unwrap();
    }
    let refused = event(&mut events, "a refusal", |event| match event {
        Event::TransactionRefused { reason: Refusal::OverShare, peer, .. } => *peer,
        _ => None,
    });
    assert_eq!(refused.await, flood.peer_id());
    // 31 of them and their headers are half of the store.
    let fits = STORE / 2 / (SIZE as u64 + 128);
    let seen = until(&node, "the rest is refused", |s| {
        s.counters.refused_over_share >= 60 - fits && s.retained == fits
    });
    let seen = seen.await;
    assert_eq!((seen.links, seen.counters.storage_failures), (1, 0), "nobody is blamed");
    node.publish("t", payload(99)).await.expect("others have room");
    // Stored in order: what was accepted before this one is on disk as well.
    let usage = storage.transaction_store().usage().await.unwrap();
    assert_eq!(usage.entries, fits + 1);
    stop(&node).await;
    storage.close().await;
    stop(&flood).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_transactions_above_the_share_are_refused_with_figures() {
    let bounded = || Storage::memory_transactions(Some(STORE));
    let node = start(builder().transaction_store(bounded())).await;
    let fits = STORE / 2 / (SIZE as u64 + 128);
    for n in 0..fits {
        node.publish("t", payload(u8::try_from(n).unwrap())).await.unwrap();
    }
    let refused = node.publish("t", payload(200)).await.unwrap_err();
    let PublishError::OverShare { used, limit } = refused else { panic!("{refused}") };
    assert_eq!(used, fits * (SIZE as u64 + 128));
    assert_eq!(limit, STORE / 100 * 50);
    stop(&node).await;

    let all = config_with(|c| c.gossip.max_origin_share = 100);
    let node = start(PeerNode::builder().config(all).transaction_store(bounded())).await;
    for n in 0..=fits {
        node.publish("t", payload(u8::try_from(n).unwrap())).await.expect("no share, no limit");
    }
    stop(&node).await;
}
