//! What stores keep over the end of a process.

use std::sync::Arc;

use super::stores::{loaded, new_entry, partial, peer_id, same_peers, stored_peer, transaction};
use crate::ports::{
    Ban, EntryFilter, EntryState, KeptPartial, PeerStore, Storage, TransactionQueue,
    TransactionStore,
};
use crate::types::WallTime;

/// Checks what stores that outlive their process do: `open` is called for the same, at first empty,
/// place again and again, and each store is dropped before the next is opened. It may give one store
/// or several; those that it gives are checked, one kind after the other.
///
/// # Panics
/// When a store does otherwise, or there is none.
pub async fn durability<S: Into<Storage>>(open: impl AsyncFn() -> S) {
    let storage: Storage = open().await.into();
    let has = (storage.peers.is_some(), storage.queue.is_some(), storage.transactions.is_some());
    drop(storage);
    assert_ne!(has, (false, false, false), "there is a store");
    if has.0 {
        peers_survive(&open).await;
    }
    if has.1 {
        queue_survives(&open).await;
    }
    if has.2 {
        log_survives(&open).await;
    }
}

const SAME: &str = "the same stores each time";

async fn peers<S: Into<Storage>>(open: &impl AsyncFn() -> S) -> Arc<dyn PeerStore> {
    let storage: Storage = open().await.into();
    storage.peers.expect(SAME)
}

async fn queue<S: Into<Storage>>(open: &impl AsyncFn() -> S) -> Arc<dyn TransactionQueue> {
    let storage: Storage = open().await.into();
    storage.queue.expect(SAME)
}

async fn log<S: Into<Storage>>(open: &impl AsyncFn() -> S) -> Arc<dyn TransactionStore> {
    let storage: Storage = open().await.into();
    storage.transactions.expect(SAME)
}

async fn peers_survive<S: Into<Storage>>(open: &impl AsyncFn() -> S) {
    let kept: Vec<_> = (1..=3).map(stored_peer).collect();
    let ban = Ban { peer: peer_id(9), until: None, reason: "why".to_owned() };
    let store = peers(open).await;
    store.upsert(&kept).await.expect("peers are stored");
    store.put_ban(&ban).await.expect("bans are stored");
    drop(store);
    let store = peers(open).await;
    let (found, bans) = store.load().await.expect("a reopened store loads");
    same_peers(&found, &kept);
    assert_eq!(bans, [ban], "bans survive");
    store.remove(&[peer_id(1)]).await.expect("peers are removed");
    store.remove_ban(&peer_id(9)).await.expect("bans are lifted");
    drop(store);
    let (found, bans) = peers(open).await.load().await.expect("a reopened store loads");
    same_peers(&found, &kept[1..]);
    assert_eq!(bans, [], "what was lifted stays lifted");
}

async fn queue_survives<S: Into<Storage>>(open: &impl AsyncFn() -> S) {
    let [a, b, c] = [1, 2, 3].map(|n| transaction("queue", n));
    let outbox = queue(open).await;
    let seqs = outbox.append(&[a.clone(), b.clone()]).await.expect("entries are appended");
    let state = EntryState::Waiting { attempts: 3, due: WallTime::from_millis(4) };
    outbox.update(&[(a.id(), state.clone())]).await.expect("states change");
    outbox.remove(&[b.id()]).await.expect("entries are removed");
    drop(outbox);
    let outbox = queue(open).await;
    let found = loaded(&*outbox, EntryFilter::All, None, 10).await;
    assert_eq!(found.len(), 1, "what was removed stays removed");
    assert_eq!((found[0].seq, &found[0].transaction), (seqs[0], &a), "entries survive");
    assert_eq!(found[0].state, state, "states survive");
    let next = outbox.append(std::slice::from_ref(&c)).await.expect("entries are appended");
    assert!(next[0] > seqs[1], "a number is never used again, not even after a restart");
    let again = outbox.append(std::slice::from_ref(&a)).await.expect("entries are appended");
    assert_eq!(again, seqs[..1], "what is there keeps its number");
    let dead = EntryState::Dead { reason: "nobody".to_owned(), since: WallTime::from_millis(7) };
    outbox.update(&[(a.id(), dead.clone())]).await.expect("states change");
    outbox.remove(&[c.id()]).await.expect("entries are removed");
    drop(outbox);
    let outbox = queue(open).await;
    let found = loaded(&*outbox, EntryFilter::Dead, None, 10).await;
    assert_eq!((found.len(), &found[0].state), (1, &dead), "dead letters survive");
    let last = outbox.append(&[b]).await.expect("entries are appended");
    assert!(last[0] > next[0], "also where the newest was removed");
}

async fn log_survives<S: Into<Storage>>(open: &impl AsyncFn() -> S) {
    let entries: Vec<_> = (0..5).map(|n| new_entry("kept", n)).collect();
    let store = log(open).await;
    let cursors = store.append(&entries).await.expect("entries are appended");
    drop(store);
    let store = log(open).await;
    assert!(store.newest().await.expect("newest") >= cursors[4], "the newest cursor survives");
    let page = store.read(None, cursors[0], 10, usize::MAX).await.expect("read");
    let found: Vec<_> = page.entries.iter().map(|e| (e.cursor, e.entry.clone())).collect();
    let wanted: Vec<_> = (1..5).map(|n| (cursors[n], entries[n].clone())).collect();
    assert_eq!(found, wanted, "entries survive");
    let again = store.append(&entries).await.expect("repeats are fine");
    assert_eq!(again, cursors, "what is there keeps its cursor");
    let id = entries[2].transaction.id();
    let found = store.get(&id).await.expect("get");
    assert_eq!(found.as_ref(), Some(&entries[2].transaction), "and is found");
    store.save_cursor("name", cursors[1]).await.expect("save");
    store.expire(WallTime::from_millis(u64::MAX)).await.expect("expire");
    let keeps_partials = store.partials().await.expect("partials").is_some();
    let part = partial(1, &[0, 5, 9], 1);
    if keeps_partials {
        store.put_partial(&part, 1000).await.expect("pieces are kept");
    }
    drop(store);
    let store = log(open).await;
    let saved = store.load_cursor("name").await.expect("load");
    assert_eq!(saved, Some(cursors[1]), "named cursors survive");
    if keeps_partials {
        let kept = KeptPartial { id: part.id, keep_until: part.keep_until };
        assert_eq!(store.partials().await.expect("partials"), Some(vec![kept]));
        let pieces = store.get_partial(&part.id).await.expect("pieces");
        assert_eq!(pieces, part.pieces, "partial payloads survive");
    }
    let page = store.read(None, cursors[1], 10, usize::MAX).await.expect("read");
    assert_eq!(page.gap_until, Some(cursors[4]), "a loss is not forgotten");
    let back = store.append(&[new_entry("kept", 9)]).await.expect("entries are appended");
    assert!(back[0] > cursors[4], "a cursor is never used again, not even after a restart");
}
