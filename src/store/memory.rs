//! Stores that forget with the process: for tests, and for nodes that only relay.
//!
//! They need no runtime: every operation is done when its future is first polled, under a lock
//! that is held for moments only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use super::gap_index::GapIndex;
use super::partials::Partials;
use super::{kept_reason, stored_size, too_many_cursors};
use crate::error::{StoreError, StoreErrorKind};
use crate::ports::{
    Ban, EntryFilter, EntryState, IndexEntry, KeptPartial, LogEntry, MAX_CURSORS, NewEntry,
    OutboxEntry, Page, Partial, PeerStore, QueueSize, StoredPeer, TransactionQueue,
    TransactionStore, Usage,
};
use crate::types::{Cursor, PeerId, Piece, Topic, TopicKey, Transaction, TransactionId, WallTime};

/// Bytes of partial payloads in memory at most, whatever the node would let a store keep.
const MAX_PARTIAL_BYTES: u64 = 64 << 20;

/// Keeps peers and bans in memory; as many as the node hands it, which is bounded by
/// `discovery.max_peers`.
#[derive(Debug, Default)]
pub struct MemoryPeerStore {
    kept: Mutex<Peers>,
}

#[derive(Debug, Default)]
struct Peers {
    peers: BTreeMap<PeerId, StoredPeer>,
    bans: BTreeMap<PeerId, Ban>,
}

impl MemoryPeerStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl PeerStore for MemoryPeerStore {
    async fn load(&self) -> Result<(Vec<StoredPeer>, Vec<Ban>), StoreError> {
        let kept = lock(&self.kept);
        let mut peers: Vec<_> = kept.peers.values().cloned().collect();
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.last_up));
        Ok((peers, kept.bans.values().cloned().collect()))
    }

    async fn upsert(&self, peers: &[StoredPeer]) -> Result<(), StoreError> {
        let mut kept = lock(&self.kept);
        kept.peers.extend(peers.iter().map(|peer| (peer.peer, peer.clone())));
        Ok(())
    }

    async fn remove(&self, peers: &[PeerId]) -> Result<(), StoreError> {
        let mut kept = lock(&self.kept);
        for peer in peers {
            kept.peers.remove(peer);
        }
        Ok(())
    }

    async fn put_ban(&self, ban: &Ban) -> Result<(), StoreError> {
        let ban = Ban { reason: kept_reason(ban).to_owned(), ..*ban };
        lock(&self.kept).bans.insert(ban.peer, ban);
        Ok(())
    }

    async fn remove_ban(&self, peer: &PeerId) -> Result<(), StoreError> {
        lock(&self.kept).bans.remove(peer);
        Ok(())
    }
}

/// An outbox in memory: what was published and not yet confirmed is lost with the process.
#[derive(Debug)]
pub struct MemoryQueue {
    max_entries: usize,
    kept: Mutex<Outbox>,
}

#[derive(Debug, Default)]
struct Outbox {
    last_seq: u64,
    entries: BTreeMap<u64, OutboxEntry>,
    by_id: HashMap<TransactionId, u64>,
}

impl MemoryQueue {
    /// An empty outbox for at most `max_entries`, waiting and dead together.
    pub fn new(max_entries: usize) -> Self {
        Self { max_entries, kept: Mutex::default() }
    }
}

#[async_trait]
impl TransactionQueue for MemoryQueue {
    async fn append(&self, transactions: &[Transaction]) -> Result<Vec<u64>, StoreError> {
        let kept = &mut *lock(&self.kept);
        let new: BTreeSet<_> = transactions
            .iter()
            .map(Transaction::id)
            .filter(|id| !kept.by_id.contains_key(id))
            .collect();
        if kept.entries.len() + new.len() > self.max_entries {
            let message = format!("the outbox is bounded to {} entries", self.max_entries);
            return Err(StoreError::new(StoreErrorKind::Full, message));
        }
        let mut seqs = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            let seq = *kept.by_id.entry(transaction.id()).or_insert(kept.last_seq + 1);
            if seq > kept.last_seq {
                kept.last_seq = seq;
                let state = EntryState::Waiting { attempts: 0, due: WallTime::default() };
                let transaction = transaction.clone();
                kept.entries.insert(seq, OutboxEntry { seq, transaction, state });
            }
            seqs.push(seq);
        }
        Ok(seqs)
    }

    async fn update(&self, states: &[(TransactionId, EntryState)]) -> Result<(), StoreError> {
        let kept = &mut *lock(&self.kept);
        for (id, state) in states {
            let entry = kept.by_id.get(id).and_then(|seq| kept.entries.get_mut(seq));
            if let Some(entry) = entry {
                entry.state = state.clone();
            }
        }
        Ok(())
    }

    async fn remove(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        let kept = &mut *lock(&self.kept);
        for id in ids {
            if let Some(seq) = kept.by_id.remove(id) {
                kept.entries.remove(&seq);
            }
        }
        Ok(())
    }

    async fn get(&self, id: &TransactionId) -> Result<Option<OutboxEntry>, StoreError> {
        let kept = lock(&self.kept);
        Ok(kept.by_id.get(id).and_then(|seq| kept.entries.get(seq)).cloned())
    }

    async fn load(
        &self,
        filter: EntryFilter,
        after: Option<u64>,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let kept = lock(&self.kept);
        let entries = kept.entries.range((from, Bound::Unbounded)).map(|(_, entry)| entry);
        let wanted =
            entries.filter(|entry| filter == EntryFilter::All || filter == kind(&entry.state));
        let size = |entry: &OutboxEntry| entry.transaction.payload().len();
        Ok(fill(wanted, size, max_entries, max_bytes).0)
    }

    async fn size(&self) -> Result<QueueSize, StoreError> {
        let kept = lock(&self.kept);
        let dead = kept.entries.values().filter(|e| kind(&e.state) == EntryFilter::Dead).count();
        let waiting = kept.entries.len() - dead;
        let capacity = self.max_entries as u64;
        Ok(QueueSize { waiting: waiting as u64, dead: dead as u64, capacity })
    }
}

fn kind(state: &EntryState) -> EntryFilter {
    match state {
        EntryState::Waiting { .. } => EntryFilter::Waiting,
        EntryState::Dead { .. } => EntryFilter::Dead,
    }
}

/// A retained log in memory. Payloads are shared with whoever handed them in.
///
/// Cursors must rise over restarts too, or a subscriber would wait at a cursor of an earlier run.
/// So the first cursor is the time of creation (milliseconds since 1970, shifted left by 12 bits,
/// which stays below 2^53 for JSON) plus one: the clock is read once, in
/// [`MemoryTransactionStore::new`]. Cursors of a restarted process rise as long as the earlier one
/// took no more than 4096 transactions a millisecond. Reading after a cursor of an earlier run
/// reports all up to the creation as lost.
///
/// Partial payloads that make room for others move here too, up to 64 MiB of them: that is room for
/// those who wait, not less memory.
#[derive(Debug)]
pub struct MemoryTransactionStore {
    max_bytes: Option<u64>,
    /// What an earlier run may have given out ends here.
    base: u64,
    kept: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    newest: Option<u64>,
    /// Bytes of all headers and payloads.
    bytes: u64,
    entries: BTreeMap<u64, LogEntry>,
    by_id: HashMap<TransactionId, u64>,
    by_topic: HashMap<Topic, BTreeSet<u64>>,
    by_end: BTreeSet<(WallTime, u64)>,
    gone: Ranges,
    losses: GapIndex,
    cursors: BTreeMap<String, Cursor>,
    partials: Partials,
}

impl MemoryTransactionStore {
    /// An empty log for at most `max_bytes` of headers and payloads; `None` is as much as the
    /// retention time brings. Reads the system clock, once.
    #[expect(clippy::disallowed_methods, reason = "cursors must rise over restarts")]
    pub fn new(max_bytes: Option<u64>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX >> 12);
        Self { max_bytes, base: millis << 12, kept: Mutex::default() }
    }
}

#[async_trait]
impl TransactionStore for MemoryTransactionStore {
    async fn append(&self, entries: &[NewEntry]) -> Result<Vec<Cursor>, StoreError> {
        let log = &mut *lock(&self.kept);
        if let Some(limit) = self.max_bytes {
            let new: BTreeMap<_, _> = entries
                .iter()
                .map(|entry| (entry.transaction.id(), stored_size(&entry.transaction)))
                .filter(|(id, _)| !log.by_id.contains_key(id))
                .collect();
            if log.bytes.saturating_add(new.values().sum()) > limit {
                let message = format!("the log is bounded to {limit} bytes");
                return Err(StoreError::new(StoreErrorKind::Full, message));
            }
        }
        let mut cursors = Vec::with_capacity(entries.len());
        for entry in entries {
            let next = log.newest.unwrap_or(self.base) + 1;
            let cursor = *log.by_id.entry(entry.transaction.id()).or_insert(next);
            if cursor == next {
                log.insert(cursor, entry);
            }
            cursors.push(Cursor(cursor));
        }
        Ok(cursors)
    }

    async fn get(&self, id: &TransactionId) -> Result<Option<Transaction>, StoreError> {
        let log = lock(&self.kept);
        let entry = log.by_id.get(id).and_then(|cursor| log.entries.get(cursor));
        Ok(entry.map(|entry| entry.entry.transaction.clone()))
    }

    async fn read(
        &self,
        topic: Option<&Topic>,
        after: Cursor,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        let log = lock(&self.kept);
        let (entries, complete) = match topic {
            None => fill(log.after(after).map(|(_, entry)| entry), payload, max_entries, max_bytes),
            Some(topic) => {
                let cursors = log.by_topic.get(topic).into_iter();
                let cursors = cursors.flat_map(|set| set.range(beyond(after)));
                let entries = cursors.filter_map(|c| log.entries.get(c));
                fill(entries, payload, max_entries, max_bytes)
            }
        };
        let next = if complete {
            after.max(Cursor(log.newest.unwrap_or(0)))
        } else {
            entries.last().map_or(after, |last| last.cursor)
        };
        // Cursors of other topics are no loss of this one.
        let last =
            topic.map_or(next.0, |topic| log.losses.of(Some(TopicKey::of(topic).0)).min(next.0));
        let mut lost_until = log.gone.last_within(after.0, last);
        if (1..self.base).contains(&after.0) {
            lost_until = lost_until.max(Some(Cursor(self.base)));
        }
        Ok(Page { entries, next, lost_until, damaged_until: None })
    }

    async fn index(&self, after: Cursor, limit: usize) -> Result<Vec<IndexEntry>, StoreError> {
        let log = lock(&self.kept);
        let show = |(_, LogEntry { cursor, entry }): (_, &LogEntry)| IndexEntry {
            cursor: *cursor,
            id: entry.transaction.id(),
            origin: entry.transaction.origin(),
            topic: TopicKey::of(entry.transaction.topic()),
            size: entry.transaction.header().payload_len,
            hops: entry.hops,
            created: entry.transaction.header().created,
            keep_until: entry.keep_until,
        };
        Ok(log.after(after).take(limit).map(show).collect())
    }

    async fn newest(&self) -> Result<Cursor, StoreError> {
        Ok(Cursor(lock(&self.kept).newest.unwrap_or(0)))
    }

    async fn expire(&self, now: WallTime) -> Result<u64, StoreError> {
        let log = &mut *lock(&self.kept);
        let mut count = 0;
        while let Some(&(keep_until, cursor)) = log.by_end.first()
            && keep_until <= now
        {
            log.by_end.pop_first();
            log.remove(cursor);
            count += 1;
        }
        log.partials.expire(now);
        Ok(count)
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let log = lock(&self.kept);
        let entries = log.entries.len() as u64;
        Ok(Usage { entries, bytes: log.bytes, max_bytes: self.max_bytes })
    }

    async fn load_cursor(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        Ok(lock(&self.kept).cursors.get(name).copied())
    }

    async fn save_cursor(&self, name: &str, cursor: Cursor) -> Result<(), StoreError> {
        let log = &mut *lock(&self.kept);
        if let Some(kept) = log.cursors.get_mut(name) {
            *kept = cursor.max(*kept);
        } else if log.cursors.len() < MAX_CURSORS {
            log.cursors.insert(name.to_owned(), cursor);
        } else {
            return Err(too_many_cursors());
        }
        Ok(())
    }

    async fn remove_cursor(&self, name: &str) -> Result<(), StoreError> {
        lock(&self.kept).cursors.remove(name);
        Ok(())
    }

    async fn partials(&self) -> Result<Option<Vec<KeptPartial>>, StoreError> {
        Ok(Some(lock(&self.kept).partials.list()))
    }

    async fn put_partial(&self, partial: &Partial, max_bytes: u64) -> Result<(), StoreError> {
        lock(&self.kept).partials.put(partial, max_bytes.min(MAX_PARTIAL_BYTES))
    }

    async fn get_partial(&self, id: &TransactionId) -> Result<Vec<Piece>, StoreError> {
        Ok(lock(&self.kept).partials.get(id))
    }

    async fn remove_partials(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        let log = &mut *lock(&self.kept);
        for id in ids {
            log.partials.remove(id);
        }
        Ok(())
    }
}

impl Log {
    fn insert(&mut self, cursor: u64, entry: &NewEntry) {
        self.newest = Some(cursor);
        self.bytes += stored_size(&entry.transaction);
        self.by_topic.entry(entry.transaction.topic().clone()).or_default().insert(cursor);
        self.by_end.insert((entry.keep_until, cursor));
        self.entries.insert(cursor, LogEntry { cursor: Cursor(cursor), entry: entry.clone() });
    }

    /// Removes an entry from all but `by_end`.
    fn remove(&mut self, cursor: u64) {
        let Some(LogEntry { entry, .. }) = self.entries.remove(&cursor) else { return };
        self.bytes -= stored_size(&entry.transaction);
        self.by_id.remove(&entry.transaction.id());
        let topic = entry.transaction.topic();
        if let Some(cursors) = self.by_topic.get_mut(topic) {
            cursors.remove(&cursor);
            if cursors.is_empty() {
                self.by_topic.remove(topic);
            }
        }
        self.gone.insert(cursor);
        self.losses.note(TopicKey::of(topic).0, cursor);
    }

    fn after(&self, after: Cursor) -> impl Iterator<Item = (&u64, &LogEntry)> {
        self.entries.range(beyond(after))
    }
}

/// Takes entries while they fit a page; also tells whether all did.
fn fill<'a, T: Clone + 'a>(
    entries: impl Iterator<Item = &'a T>,
    size: impl Fn(&T) -> usize,
    max_entries: usize,
    max_bytes: usize,
) -> (Vec<T>, bool) {
    let mut page = Vec::new();
    let mut bytes = 0usize;
    for entry in entries {
        bytes = bytes.saturating_add(size(entry));
        if page.len() >= max_entries || (bytes > max_bytes && !page.is_empty()) {
            return (page, false);
        }
        page.push(entry.clone());
    }
    (page, true)
}

fn payload(entry: &LogEntry) -> usize {
    entry.entry.transaction.payload().len()
}

/// Cursors that are gone, as ranges. Between two ranges stands an entry that is still there, so
/// there are never more of them than entries, and one.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn insert(&mut self, cursor: u64) {
        let end = self.0.remove(&(cursor + 1)).unwrap_or(cursor);
        match self.0.range_mut(..cursor).next_back() {
            Some((_, before)) if *before + 1 == cursor => *before = end,
            _ => {
                self.0.insert(cursor, end);
            }
        }
    }

    /// The highest cursor that is gone above `after` and up to `until`.
    fn last_within(&self, after: u64, until: u64) -> Option<Cursor> {
        let (_, end) = self.0.range(..=until).next_back()?;
        let last = (*end).min(until);
        (last > after).then_some(Cursor(last))
    }
}

fn beyond(after: Cursor) -> (Bound<u64>, Bound<u64>) {
    (Bound::Excluded(after.0), Bound::Unbounded)
}

/// A panic elsewhere leaves these maps whole: they are only changed by code that does not panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
