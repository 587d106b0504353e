//! Suites for the ports that keep or judge things.

use std::time::Duration;

use bytes::Bytes;

use crate::error::StoreErrorKind;
use crate::identity::Identity;
use crate::ports::{
    Ban, EntryFilter, EntryState, KeptPartial, LogEntry, NatProber, NewEntry, OutboxEntry, Page,
    Partial, PeerStore, StoredPeer, TransactionQueue, TransactionStore, Validator,
};
use crate::types::{
    Cursor, Endpoint, Header, PeerId, Piece, RecordDraft, Signature, Topic, TopicKey, Transaction,
    TransportKind, WallTime,
};

use super::dropped;

/// Checks what every [`PeerStore`] does. `store` must be empty.
///
/// # Panics
/// When `store` does otherwise.
pub async fn peer_store(store: &dyn PeerStore) {
    let (peers, bans) = store.load().await.expect("an empty store loads");
    assert!(peers.is_empty() && bans.is_empty(), "the store is not empty: {peers:?} {bans:?}");
    store.upsert(&[]).await.expect("storing nothing is no error");
    store.remove(&[peer_id(1)]).await.expect("removing an unknown peer is no error");
    store.remove_ban(&peer_id(1)).await.expect("lifting an unknown ban is no error");

    // More than any chunk that a store may write in, each different from the others.
    let many: Vec<_> = (1..=200).map(stored_peer).collect();
    store.upsert(&many).await.expect("peers are stored");
    store.upsert(&many[..7]).await.expect("storing again is no error");
    let mut expected = many.clone();
    expected.sort_by_key(|peer| std::cmp::Reverse(peer.last_up));
    let (found, _) = store.load().await.expect("peers load");
    let times = |peers: &[StoredPeer]| peers.iter().map(|p| p.last_up).collect::<Vec<_>>();
    assert_eq!(times(&found), times(&expected), "peers must come most recently up first");
    same_peers(&found, &expected);

    let bare = StoredPeer { failures: 9, ..StoredPeer::new(many[0].peer) };
    let twice = [stored_peer(2), bare.clone(), StoredPeer { failures: 5, ..stored_peer(2) }];
    store.upsert(&twice).await.expect("one peer twice is no error");
    expected.retain(|peer| ![peer_id(1), peer_id(2)].contains(&peer.peer));
    expected.extend([bare, StoredPeer { failures: 5, ..stored_peer(2) }]);
    same_peers(&store.load().await.expect("peers load").0, &expected);

    let gone: Vec<_> = (3..=150).map(peer_id).collect();
    store.remove(&gone).await.expect("peers are removed");
    store.remove(&gone).await.expect("removing again is no error");
    expected.retain(|peer| !gone.contains(&peer.peer));
    same_peers(&store.load().await.expect("peers load").0, &expected);
    dropped::upserts(store, [3, 4, 5].map(stored_peer)).await;
    bans_of(store).await;
    same_peers(&store.load().await.expect("peers load").0, &expected);
}

async fn bans_of(store: &dyn PeerStore) {
    let until = Some(WallTime::from_millis(u64::MAX));
    let first = Ban { peer: peer_id(1), until, reason: "too loud".to_owned() };
    let second = Ban { peer: peer_id(250), until: None, reason: "é".repeat(501) };
    for ban in [&first, &second, &first] {
        store.put_ban(ban).await.expect("bans are stored");
    }
    let kept = Ban { reason: "é".repeat(500), ..second };
    let sorted = |mut bans: Vec<Ban>| {
        bans.sort_by_key(|ban| ban.peer);
        bans
    };
    let bans = sorted(store.load().await.expect("bans load").1);
    assert_eq!(bans, sorted(vec![first.clone(), kept.clone()]), "reasons end after 500 characters");
    let longer = Ban { until: None, reason: String::new(), ..first };
    store.put_ban(&longer).await.expect("bans are replaced");
    let bans = sorted(store.load().await.expect("bans load").1);
    assert_eq!(bans, sorted(vec![longer.clone(), kept.clone()]), "the last ban wins");
    store.remove_ban(&longer.peer).await.expect("bans are lifted");
    assert_eq!(store.load().await.expect("bans load").1, [kept], "one ban was lifted");
}

/// Checks what every [`TransactionQueue`] does. `queue` must be empty and bounded to `max_entries`,
/// which must be at least 4.
///
/// # Panics
/// When `queue` does otherwise.
pub async fn transaction_queue(queue: &dyn TransactionQueue, max_entries: usize) {
    let found = loaded(queue, EntryFilter::All, None, 10).await;
    assert_eq!(found, [], "the queue is not empty");
    let size = queue.size().await.expect("size");
    assert_eq!((size.waiting, size.dead, size.capacity), (0, 0, max_entries as u64));
    dropped::outbox_appends(queue, |n| transaction("dropped", n)).await;
    let [a, b, c] = [1, 2, 3].map(|n| transaction("queue", n));
    queue.remove(&[a.id()]).await.expect("removing an unknown id is no error");
    queue.probe().await.expect("nothing keeps it from taking an entry");
    let dead = EntryState::Dead { reason: "nobody".to_owned(), since: WallTime::from_millis(7) };
    queue.update(&[(a.id(), dead.clone())]).await.expect("an unknown id is no error");

    let seqs = queue.append(&[a.clone(), b.clone()]).await.expect("entries are appended");
    assert!(seqs.len() == 2 && seqs[0] < seqs[1], "numbers rise in order: {seqs:?}");
    let waiting = EntryState::Waiting { attempts: 2, due: WallTime::from_millis(5) };
    let changes = [(a.id(), waiting.clone()), (b.id(), dead.clone())];
    queue.update(&changes).await.expect("states change");
    let again = queue.append(&[c.clone(), b.clone(), c.clone()]).await.expect("repeats are fine");
    assert_eq!((again[1], again[2]), (seqs[1], again[0]), "a repeated id keeps its number");
    assert!(again[0] > seqs[1], "numbers rise over calls");

    let all = loaded(queue, EntryFilter::All, None, 10).await;
    let ids: Vec<_> = all.iter().map(|entry| entry.transaction.id()).collect();
    assert_eq!(ids, [a.id(), b.id(), c.id()], "entries come in order, each once");
    assert_eq!(all[0].transaction, a, "the whole transaction is kept");
    assert_eq!((&all[0].state, &all[1].state), (&waiting, &dead), "states are kept");
    let first = EntryState::Waiting { attempts: 0, due: WallTime::default() };
    assert_eq!(all[2].state, first, "a new entry waits and is due at once");
    let part = loaded(queue, EntryFilter::All, Some(all[0].seq), 1).await;
    assert_eq!(part, all[1..2], "at most `max_entries`, after `after`");
    kinds_of_entries(queue, &all).await;

    let rest: Vec<_> = (10..).take(max_entries - 4).map(|n| transaction("queue", n)).collect();
    queue.append(&rest).await.expect("there is room up to the bound");
    let [fits, over] = [4, 5].map(|n| transaction("queue", n));
    let error = queue.append(&[fits.clone(), over.clone()]).await.expect_err("the bound holds");
    assert_eq!(error.kind, StoreErrorKind::Full, "the error says so: {error}");
    assert_eq!(
        queue.get(&fits.id()).await.expect("get"),
        None,
        "refused is refused, in all its parts"
    );
    queue.append(&[fits]).await.expect("one place is left");
    let error = queue.append(&[a.clone(), over]).await.expect_err("the bound holds");
    assert_eq!(error.kind, StoreErrorKind::Full, "the error says so: {error}");
    queue.append(std::slice::from_ref(&a)).await.expect("what is there needs no room");
    queue.remove(&[a.id(), a.id()]).await.expect("entries are removed");
    let left = loaded(queue, EntryFilter::All, None, max_entries + 1).await;
    assert_eq!(left.len(), max_entries - 1, "refused is refused, removed is removed");
    let newest = left.iter().map(|entry| entry.seq).max().expect("entries are left");
    let back = queue.append(&[a]).await.expect("there is room again");
    assert!(back[0] > newest, "a number is never used again");
}

/// Entries by kind and one by one, and states in bulk; `all` are two waiting ones around a dead one.
async fn kinds_of_entries(queue: &dyn TransactionQueue, all: &[OutboxEntry]) {
    let [a, b, c] = all else { panic!("three entries: {all:?}") };
    let only = |entry: &OutboxEntry| vec![entry.clone()];
    assert_eq!(loaded(queue, EntryFilter::Dead, None, 10).await, only(b), "the dead letters");
    for after in [b.seq, u64::MAX] {
        assert_eq!(loaded(queue, EntryFilter::Dead, Some(after), 10).await, [], "all were listed");
    }
    assert_eq!(loaded(queue, EntryFilter::Waiting, None, 1).await, only(a));
    assert_eq!(loaded(queue, EntryFilter::Waiting, Some(a.seq), 10).await, only(c), "in pages");
    let size = queue.size().await.expect("size");
    assert_eq!((size.waiting, size.dead), (2, 1), "both kinds are counted");
    for entry in all {
        let found = queue.get(&entry.transaction.id()).await.expect("get");
        assert_eq!(found.as_ref(), Some(entry), "one entry by its id");
    }
    let unknown = transaction("queue", 999).id();
    assert_eq!(queue.get(&unknown).await.expect("get"), None, "an unknown id is no error");
    let bytes = a.transaction.payload().len() + b.transaction.payload().len();
    let pages = [(0, 1), (bytes - 1, 1), (bytes, 2), (usize::MAX, 3)];
    for (max_bytes, count) in pages {
        let page = queue.load(EntryFilter::All, None, 10, max_bytes).await.expect("entries load");
        assert_eq!(page, all[..count], "at most {max_bytes} bytes beyond the first");
    }
    assert_eq!(loaded(queue, EntryFilter::All, None, 0).await, [], "no room");

    // The last state of an id counts, and a dead letter may wait again.
    let wait = |n| EntryState::Waiting { attempts: n, due: WallTime::from_millis(u64::from(n)) };
    let id = b.transaction.id();
    let changes = [(id, wait(1)), (unknown, wait(2)), (id, wait(u32::MAX))];
    queue.update(&changes).await.expect("states change");
    let found = queue.get(&id).await.expect("get").expect("the entry");
    assert_eq!((found.seq, found.state), (b.seq, wait(u32::MAX)), "its place stays");
    queue.update(&[(id, b.state.clone())]).await.expect("states change");
    queue.update(&[]).await.expect("no change is no error");
    queue.remove(&[]).await.expect("removing nothing is no error");
    assert_eq!(loaded(queue, EntryFilter::All, None, 10).await, all);
}

pub(super) async fn loaded(
    queue: &dyn TransactionQueue,
    filter: EntryFilter,
    after: Option<u64>,
    max_entries: usize,
) -> Vec<OutboxEntry> {
    queue.load(filter, after, max_entries, usize::MAX).await.expect("entries load")
}

/// Checks what every [`TransactionStore`] does. `store` must be empty and have room for some hundred
/// small transactions. `grace` is how long it may keep an entry beyond its time: zero for a store
/// that expires to the millisecond, the span of a generation for one that drops these.
///
/// # Panics
/// When `store` does otherwise.
pub async fn transaction_store(store: &dyn TransactionStore, grace: Duration) {
    let start = Cursor::default();
    assert_eq!(store.newest().await.expect("newest"), start, "the log is empty");
    let empty = store.read(None, start, 10, usize::MAX).await.expect("an empty log reads");
    assert!(empty.entries.is_empty() && empty.gap_until.is_none(), "nothing was lost: {empty:?}");

    store.probe().await.expect("nothing keeps it from taking an entry");
    let apart = grace + Duration::from_millis(1);
    let keep = |entry: NewEntry, n: u32| NewEntry { keep_until: ends(n, apart), ..entry };
    let name = |n: u32| if n.is_multiple_of(10) { "rare" } else { "busy" };
    let entry = |n: u32| keep(new_entry(name(n), u64::from(n)), n);
    let entries: Vec<_> = (0..40).map(entry).collect();
    let cursors = store.append(&entries).await.expect("entries are appended");
    assert!(cursors.is_sorted_by(|a, b| a < b), "cursors rise: {cursors:?}");
    let last = keep(new_entry("busy", 40), 40);
    let repeat = [entries[5].clone(), last.clone(), entries[6].clone(), last.clone()];
    let again = store.append(&repeat).await.expect("repeats are fine");
    assert_eq!((again[0], again[2]), (cursors[5], cursors[6]), "a repeated id keeps its cursor");
    assert_eq!(again[1], again[3], "also within one call");
    assert!(again[1] > cursors[39], "cursors rise over calls");
    assert_eq!(store.newest().await.expect("newest"), again[1], "the newest cursor is known");

    let id = entries[3].transaction.id();
    let found = store.get(&id).await.expect("get");
    assert_eq!(found.as_ref(), Some(&entries[3].transaction), "a transaction by its id");
    let unknown = transaction("none", 99).id();
    assert_eq!(store.get(&unknown).await.expect("get"), None, "an unknown id is no error");
    let ids = [30, 3, 3, 12].map(|n| entries[n].transaction.id());
    let ids = [&ids[..2], &[unknown], &ids[2..]].concat();
    let found = store.get_many(&ids).await.expect("get_many");
    let found: Vec<_> = found.iter().map(|t| t.as_ref().map(Transaction::id)).collect();
    let wanted: Vec<_> = ids.iter().map(|id| Some(*id).filter(|id| *id != unknown)).collect();
    assert_eq!(found, wanted, "one for each id, in their order");
    assert_eq!(store.get_many(&[]).await.expect("get_many"), [], "nothing of nothing");

    let index = store.index(cursors[9], 3).await.expect("index");
    let shown: Vec<_> = index.iter().map(|entry| (entry.cursor, entry.id, entry.size)).collect();
    let wanted: Vec<_> = (10..13)
        .map(|n| (cursors[n], entries[n].transaction.id(), entries[n].transaction.payload().len()))
        .map(|(cursor, id, size)| (cursor, id, size as u64))
        .collect();
    assert_eq!(shown, wanted, "the index goes on after a cursor");
    let (header, entry) = (entries[10].transaction.header(), &entries[10]);
    let meta = (index[0].created, index[0].origin, index[0].hops, index[0].keep_until);
    let wanted = (header.created, header.origin, entry.hops, entry.keep_until);
    assert_eq!(index[0].topic, TopicKey::of(&header.topic), "the index knows topics");
    assert_eq!(meta, wanted, "the index is complete");

    let all: Vec<LogEntry> = (cursors.iter().copied().chain([again[1]]))
        .zip(entries.iter().cloned().chain([last]))
        .map(|(cursor, entry)| LogEntry { cursor, entry })
        .collect();
    let usage = store.usage().await.expect("usage");
    let bytes = |e: &LogEntry| {
        e.entry.transaction.header_bytes().len() + e.entry.transaction.payload().len()
    };
    let bytes = all.iter().map(bytes).sum::<usize>() as u64;
    assert_eq!((usage.entries, usage.bytes), (all.len() as u64, bytes), "it knows how full it is");
    read_pages(store, &all).await;
    named_cursors(store).await;
    partial_payloads(store).await;
    expiry(store, &all, apart).await;
    dropped::log_appends(store, |n| new_entry("dropped", n)).await;
}

async fn named_cursors(store: &dyn TransactionStore) {
    assert_eq!(store.load_cursor("a").await.expect("load"), None, "an unknown name");
    store.remove_cursor("a").await.expect("an unknown name is no error");
    for (save, kept) in [(5, 5), (7, 7), (6, 7)] {
        store.save_cursor("a", Cursor(save)).await.expect("save");
        let found = store.load_cursor("a").await.expect("load");
        assert_eq!(found, Some(Cursor(kept)), "cursors only move forward");
    }
    for save in [u64::MAX, 8] {
        store.save_cursor("a", Cursor(save)).await.expect("save");
        let found = store.load_cursor("a").await.expect("load");
        assert!(found > Some(Cursor(1 << 62)), "however large: {found:?}");
    }
    store.save_cursor("b", Cursor(1)).await.expect("save");
    store.remove_cursor("a").await.expect("remove");
    assert_eq!(store.load_cursor("a").await.expect("load"), None, "what is removed is gone");
    assert_eq!(store.load_cursor("b").await.expect("load"), Some(Cursor(1)), "others stay");
    for n in 1..Page::MAX_CURSORS {
        store.save_cursor(&format!("name {n}"), Cursor(1)).await.expect("there is room");
    }
    let error = store.save_cursor("one more", Cursor(1)).await.expect_err("the bound holds");
    assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    store.save_cursor("b", Cursor(2)).await.expect("a known name needs no room");
}

/// Pieces of a partial payload, of 100 bytes with their proofs.
pub(super) fn partial(n: u64, pieces: &[u32], keep_until: u64) -> Partial {
    let id = transaction("partial", n).id();
    let piece = |index: &u32| Piece {
        id,
        index: *index,
        bytes: Bytes::from(format!("{n:030}{index:030}")),
        proof: Bytes::from(format!("{index:040}")),
    };
    let pieces = pieces.iter().map(piece).collect();
    Partial { id, keep_until: WallTime::from_millis(keep_until), pieces }
}

/// Checks what a store that keeps partial payloads does with them; others are left alone.
async fn partial_payloads(store: &dyn TransactionStore) {
    let list = async || store.partials().await.expect("partial payloads are listed");
    let Some(none) = list().await else { return };
    assert_eq!(none, [], "the store is not empty");
    let kept = |p: &Partial| KeptPartial { id: p.id, keep_until: p.keep_until };
    let pieces = async |p: &Partial| store.get_partial(&p.id).await.expect("pieces");
    let put = async |p: &Partial, max| store.put_partial(p, max).await;

    // More than any chunk that a store may write in.
    let many: Vec<_> = (0..150).rev().collect();
    let (a, b) = (partial(1, &many, 5), partial(2, &[7, 3], 7));
    assert_eq!(pieces(&a).await, [], "an unknown id is no error");
    for p in [&a, &b] {
        put(p, 1 << 20).await.expect("pieces are kept");
    }
    assert_eq!(list().await, Some(vec![kept(&a), kept(&b)]), "the oldest first");
    let in_order = partial(1, &(0..150).collect::<Vec<_>>(), 0).pieces;
    assert_eq!(pieces(&a).await, in_order, "in the order of their numbers");
    let more = partial(1, &[150, 3], 6);
    put(&more, 1 << 20).await.expect("pieces are added");
    assert_eq!(pieces(&a).await, partial(1, &(0..=150).collect::<Vec<_>>(), 0).pieces);
    assert_eq!(list().await, Some(vec![kept(&b), kept(&more)]), "it is the newest then");
    assert_eq!(pieces(&b).await, partial(2, &[3, 7], 0).pieces, "others are as they were");

    let c = partial(3, &[0], 8);
    put(&c, 15_200).await.expect("the oldest makes room");
    assert_eq!(list().await, Some(vec![kept(&more), kept(&c)]));
    assert_eq!(pieces(&b).await, [], "and is gone as a whole");
    for (large, most) in [(partial(4, &many, 8), 14_999), (partial(3, &[1, 2], 8), 299)] {
        let error = put(&large, most).await.expect_err("the bound holds");
        assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    }
    assert_eq!(list().await, Some(vec![kept(&more), kept(&c)]), "nothing changed");

    store.remove_partials(&[b.id, c.id]).await.expect("an unknown id is no error");
    assert_eq!(list().await, Some(vec![kept(&more)]));
    let expire = async |at| store.expire(WallTime::from_millis(at)).await.expect("expire");
    put(&b, 1 << 20).await.expect("pieces are kept");
    assert_eq!((expire(5).await, expire(6).await), (0, 0), "they are not counted");
    assert_eq!(list().await, Some(vec![kept(&b)]), "what may go is gone");
    store.remove_partials(&[b.id]).await.expect("they are removed");
}

/// Entry n may go at this time: apart enough that a store can drop one without the next.
fn ends(n: u32, apart: Duration) -> WallTime {
    WallTime::from_millis(0).plus(apart * 2 * (n + 10))
}

async fn read_pages(store: &dyn TransactionStore, all: &[LogEntry]) {
    for topic in [None, Some("busy"), Some("rare"), Some("never")] {
        let topic = topic.map(|name| Topic::new(name).expect("a short name"));
        let matches =
            |e: &&LogEntry| topic.as_ref().is_none_or(|t| t == e.entry.transaction.topic());
        for limit in [1, 7, 1000] {
            let mut found = Vec::new();
            let mut at = Cursor::default();
            loop {
                let page = store.read(topic.as_ref(), at, limit, usize::MAX).await.expect("read");
                assert!(page.entries.len() <= limit, "at most {limit} on a page");
                assert_eq!(page.gap_until, None, "nothing is gone");
                assert!(page.next >= at, "`next` never goes back");
                let last = page.entries.last().map_or(at, |entry| entry.cursor);
                assert!(page.next >= last, "`next` is not before what was read");
                if page.next == at {
                    break;
                }
                found.extend(page.entries);
                at = page.next;
            }
            let wanted: Vec<_> = all.iter().filter(matches).cloned().collect();
            assert_eq!(found, wanted, "topic {topic:?} in pages of {limit}");
            let newest = all.last().expect("entries").cursor;
            assert_eq!(at, newest, "a quiet topic is looked through once, then skipped");
        }
    }
    let start = Cursor::default();
    let size = all[0].entry.transaction.payload().len();
    let page = store.read(None, start, 1000, 0).await.expect("read");
    assert_eq!(page.entries, all[..1], "one entry always fits");
    assert_eq!(page.next, all[0].cursor, "the rest is still to come");
    let page = store.read(None, start, 1000, 3 * size).await.expect("read");
    assert_eq!(page.entries, all[..3], "at most `max_bytes` of payload");
    let page = store.read(None, start, 0, 1000).await.expect("read");
    assert_eq!((page.entries.len(), page.next), (0, start), "no room, no progress");
}

async fn expiry(store: &dyn TransactionStore, all: &[LogEntry], apart: Duration) {
    let moment = Duration::from_millis(1);
    let early = store.expire(ends(0, apart).minus(moment)).await.expect("expire");
    assert_eq!(early, 0, "nothing goes before its time");
    // As late as a store may be.
    let at = ends(4, apart).plus(apart).minus(moment);
    assert_eq!(store.expire(at).await.expect("expire"), 5, "entries go when they may");
    assert_eq!(store.expire(at).await.expect("expire"), 0, "and only once");
    let gone = all[2].entry.transaction.id();
    assert_eq!(store.get(&gone).await.expect("get"), None, "an expired entry is gone");
    let page = store.read(None, Cursor::default(), 1000, usize::MAX).await.expect("read");
    assert_eq!(page.entries, all[5..], "the others stay");
    assert_eq!(page.gap_until, Some(all[4].cursor), "the loss is reported");
    let [rare, busy, never] =
        ["rare", "busy", "never"].map(|name| Topic::new(name).expect("a short name"));
    // Entry 0 is the only rare one that went, entries 1 to 4 are busy.
    for (topic, lost) in
        [(&rare, Some(all[0].cursor)), (&busy, Some(all[4].cursor)), (&never, None)]
    {
        let page =
            store.read(Some(topic), Cursor::default(), 1000, usize::MAX).await.expect("read");
        assert_eq!(page.gap_until, lost, "the loss of {topic} and no other");
    }
    let page = store.read(Some(&rare), all[0].cursor, 1000, usize::MAX).await.expect("read");
    assert_eq!(page.gap_until, None, "what other topics lost is no gap");
    let page = store.read(None, all[4].cursor, 1000, usize::MAX).await.expect("read");
    assert_eq!(page.gap_until, None, "behind the loss there is none");
    assert_eq!(store.index(Cursor::default(), 1).await.expect("index")[0].cursor, all[5].cursor);

    let newest = store.newest().await.expect("newest");
    let count = store.expire(WallTime::from_millis(u64::MAX)).await.expect("expire");
    assert_eq!(count, all.len() as u64 - 5, "all go in the end");
    assert_eq!(store.newest().await.expect("newest"), newest, "`newest` survives its entry");
    assert_eq!(store.usage().await.expect("usage").entries, 0, "there is room again");
    let page = store.read(Some(&rare), all[5].cursor, 9, usize::MAX).await.expect("read");
    assert_eq!(
        (page.entries.len(), page.gap_until),
        (0, Some(all[30].cursor)),
        "all rare are lost"
    );
    let back = store.append(&[all[0].entry.clone()]).await.expect("entries are appended");
    assert!(back[0] > newest, "a cursor is never used again");
    late_ones_first(store, back[0], apart).await;
}

/// Checks that what was appended last may go first: what is still there before it is no gap.
async fn late_ones_first(store: &dyn TransactionStore, after: Cursor, apart: Duration) {
    let topic = Topic::new("back").expect("a short name");
    let mut cursors = Vec::new();
    for n in 0..8 {
        let entry = NewEntry { keep_until: ends(100 - n, apart), ..new_entry("back", n.into()) };
        cursors.extend(store.append(&[entry]).await.expect("an entry is appended"));
    }
    let at = ends(96, apart).plus(apart).minus(Duration::from_millis(1));
    store.expire(at).await.expect("expire");
    for topic in [None, Some(&topic)] {
        let page = store.read(topic, after, 2, usize::MAX).await.expect("read");
        assert_eq!((page.entries.len(), page.gap_until), (2, None), "nothing is lost before them");
        let page = store.read(topic, page.next, 9, usize::MAX).await.expect("read");
        assert_eq!((page.entries.len(), page.gap_until), (2, Some(cursors[7])), "the rest is");
    }
}

/// Checks what every [`NatProber`] with a reachable server does.
///
/// # Panics
/// When `prober` does otherwise.
pub async fn nat_prober(prober: &dyn NatProber) {
    assert!(!prober.name().is_empty(), "a prober has a name");
    dropped::drop_after(1, prober.probe()).await;
    let first = prober.probe().await.expect("a reachable server answers");
    assert!(!first.ip().is_unspecified() && first.port() != 0, "{first} is no address");
    let (a, b) = futures::future::join(prober.probe(), prober.probe()).await;
    let (a, b) = (a.expect("concurrent probes"), b.expect("concurrent probes"));
    assert_eq!((a.ip(), b.ip()), (first.ip(), first.ip()), "the address is the same each time");
}

/// Checks what every [`Validator`] does: judge the same transaction the same way, also concurrently
/// and whoever sent it. `transaction` is one that the host expects.
///
/// # Panics
/// When `validator` does otherwise.
pub async fn validator(validator: &dyn Validator, transaction: &Transaction) {
    let (a, b) = (peer_id(1), peer_id(2));
    let first = validator.validate(transaction, &a).await;
    let more = [&a, &b, &a, &b].map(|from| validator.validate(transaction, from));
    for verdict in futures::future::join_all(more).await {
        assert_eq!(verdict, first, "honest nodes must come to one verdict");
    }
}

pub(super) fn peer_id(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

/// A peer like no other; every third was never up and every fourth never dialled.
pub(super) fn stored_peer(n: u8) -> StoredPeer {
    let name: Endpoint =
        format!("peer{n}.example.com:{}", 5000 + u16::from(n)).parse().expect("valid");
    let ip: Endpoint = format!("[2001:db8::{n:x}]:7").parse().expect("valid");
    let draft = RecordDraft {
        peer: peer_id(n),
        seq: u64::MAX - u64::from(n),
        issued: WallTime::from_millis(1 << 40),
        endpoints: [name, ip.clone()].into_iter().take(usize::from(n % 3)).collect(),
    };
    let mut record = Identity::from_seed([1; 32]).sign_record(draft);
    record.draft.peer = peer_id(n);
    StoredPeer {
        peer: peer_id(n),
        record: Some(record),
        verified: (!n.is_multiple_of(4)).then_some(ip),
        rung: [None, Some(TransportKind::WebSocket), Some(TransportKind::Rest)][usize::from(n % 3)],
        last_up: (!n.is_multiple_of(3))
            .then(|| WallTime::from_millis(u64::from(n) * 37 % 101 * 256 + u64::from(n))),
        failures: u32::from(n),
    }
}

#[track_caller]
pub(super) fn same_peers(found: &[StoredPeer], expected: &[StoredPeer]) {
    let sorted = |peers: &[StoredPeer]| {
        let mut peers = peers.to_vec();
        peers.sort_by_key(|peer| peer.peer);
        peers
    };
    assert_eq!(sorted(found), sorted(expected), "peers are kept as they were stored");
}

pub(super) fn transaction(topic: &str, n: u64) -> Transaction {
    let payload = Bytes::from(format!("payload {n:04}"));
    let (created, expires) = (WallTime::from_millis(1000 + n), WallTime::from_millis(10_000 + n));
    let topic = Topic::new(topic).expect("a short name");
    let header = Header::new(topic, peer_id(3), created, expires, &payload);
    Transaction::new(header, Signature::Ed25519([5; 64]), payload).expect("the header's payload")
}

pub(super) fn new_entry(topic: &str, n: u64) -> NewEntry {
    NewEntry {
        transaction: transaction(topic, n),
        from: n.is_multiple_of(2).then(|| peer_id(4)),
        hops: u16::try_from(n).unwrap_or(u16::MAX),
        keep_until: WallTime::from_millis(10_000 + n),
    }
}
