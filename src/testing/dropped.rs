//! Checks of calls that are dropped half-way, as a node does that ends without the time for all: what they
//! were to change is changed as a whole or not at all.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use crate::ports::{NewEntry, PeerStore, StoredPeer, TransactionQueue, TransactionStore};
use crate::types::{Transaction, TransactionId};

use super::transports::yield_now;

/// Numbers of times that a call is polled before it is dropped.
const POLLS: [u64; 6] = [1, 2, 3, 5, 10, 50];

/// Polls `call` that often, unless it ends before, and drops it.
pub(super) async fn drop_after(polls: u64, call: impl Future) {
    let mut call = pin!(call);
    for _ in 0..polls {
        if poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await.is_ready() {
            return;
        }
        yield_now().await;
    }
}

/// Appends to an outbox with room for three, of which `make` makes one of any number.
pub(super) async fn outbox_appends(
    queue: &dyn TransactionQueue,
    make: impl Fn(u64) -> Transaction,
) {
    for polls in POLLS {
        let three = [0, 1, 2].map(|n| make(3 * polls + n));
        drop_after(polls, queue.append(&three)).await;
        let ids = three.map(|transaction| transaction.id());
        let mut found = 0;
        for id in &ids {
            found += usize::from(queue.get(id).await.expect("get").is_some());
        }
        all_or_none(found, "an append to the outbox");
        queue.remove(&ids).await.expect("entries are removed");
    }
}

/// Appends to a log.
pub(super) async fn log_appends(store: &dyn TransactionStore, make: impl Fn(u64) -> NewEntry) {
    for polls in POLLS {
        let three = [0, 1, 2].map(|n| make(3 * polls + n));
        drop_after(polls, store.append(&three)).await;
        let ids: Vec<TransactionId> = three.iter().map(|entry| entry.transaction.id()).collect();
        let found = store.get_many(&ids).await.expect("get_many");
        all_or_none(found.iter().flatten().count(), "an append to the log");
    }
}

/// Upserts of three peers that the store does not have.
pub(super) async fn upserts(store: &dyn PeerStore, three: [StoredPeer; 3]) {
    let ids = three.each_ref().map(|peer| peer.peer);
    for polls in POLLS {
        drop_after(polls, store.upsert(&three)).await;
        let (peers, _) = store.load().await.expect("peers load");
        let found = peers.iter().filter(|peer| ids.contains(&peer.peer)).count();
        all_or_none(found, "an upsert");
        store.remove(&ids).await.expect("peers are removed");
    }
}

fn all_or_none(found: usize, call: &str) {
    assert!([0, 3].contains(&found), "{call} that was dropped did {found} of 3");
}
