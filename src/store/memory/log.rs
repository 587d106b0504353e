//! A retained log in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use super::lock::lock;
use super::page::fill;
use super::partials::Partials;
use super::removed::Removed;
use crate::error::{StoreError, StoreErrorKind};
use crate::ports::{
    IndexEntry, KeptPartial, LogEntry, NewEntry, Page, Partial, StoreLease, TransactionStore, Usage,
};
use crate::store::gap_index::GapIndex;
use crate::store::limits::{stored_size, too_many_cursors};
use crate::types::{Cursor, Piece, Topic, TopicKey, Transaction, TransactionId, WallTime};

/// Maximum number of bytes of partial payloads in memory, whatever the node would let a store keep.
const MAX_PARTIAL_BYTES: u64 = 64 << 20;

/// A retained log in memory: see [`Storage::memory_transactions`](crate::Storage::memory_transactions).
#[derive(Debug)]
pub(super) struct MemoryTransactionStore {
    max_bytes: Option<u64>,
    /// Highest cursor that an earlier run may have given out.
    base: u64,
    state: Mutex<Log>,
    lease: StoreLease,
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
    removed: Removed,
    gaps: GapIndex,
    cursors: BTreeMap<String, Cursor>,
    partials: Partials,
}

impl MemoryTransactionStore {
    /// An empty log. Reads the system clock, once.
    #[expect(clippy::disallowed_methods, reason = "cursors must rise over restarts")]
    pub(super) fn new(max_bytes: Option<u64>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX >> 12);
        Self {
            max_bytes,
            base: millis << 12,
            state: Mutex::default(),
            lease: StoreLease::default(),
        }
    }
}

#[async_trait]
impl TransactionStore for MemoryTransactionStore {
    async fn append(&self, entries: &[NewEntry]) -> Result<Vec<Cursor>, StoreError> {
        let log = &mut *lock(&self.state);
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
        let log = lock(&self.state);
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
        let log = lock(&self.state);
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
            topic.map_or(next.0, |topic| log.gaps.of(Some(TopicKey::of(topic).0)).min(next.0));
        let mut gap_until = log.removed.last_within(after.0, last);
        if (1..self.base).contains(&after.0) {
            gap_until = gap_until.max(Some(Cursor(self.base)));
        }
        Ok(Page { entries, next, gap_until, damaged_until: None })
    }

    async fn index(&self, after: Cursor, limit: usize) -> Result<Vec<IndexEntry>, StoreError> {
        let log = lock(&self.state);
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
        Ok(Cursor(lock(&self.state).newest.unwrap_or(0)))
    }

    async fn expire(&self, now: WallTime) -> Result<u64, StoreError> {
        let log = &mut *lock(&self.state);
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

    fn lease(&self) -> Option<&StoreLease> {
        Some(&self.lease)
    }

    fn may_hang(&self) -> bool {
        false
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let log = lock(&self.state);
        let entries = log.entries.len() as u64;
        Ok(Usage { entries, bytes: log.bytes, max_bytes: self.max_bytes })
    }

    async fn load_cursor(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        Ok(lock(&self.state).cursors.get(name).copied())
    }

    async fn save_cursor(&self, name: &str, cursor: Cursor) -> Result<(), StoreError> {
        let log = &mut *lock(&self.state);
        if let Some(saved) = log.cursors.get_mut(name) {
            *saved = cursor.max(*saved);
        } else if log.cursors.len() < Page::MAX_CURSORS {
            log.cursors.insert(name.to_owned(), cursor);
        } else {
            return Err(too_many_cursors());
        }
        Ok(())
    }

    async fn remove_cursor(&self, name: &str) -> Result<(), StoreError> {
        lock(&self.state).cursors.remove(name);
        Ok(())
    }

    async fn partials(&self) -> Result<Option<Vec<KeptPartial>>, StoreError> {
        Ok(Some(lock(&self.state).partials.list()))
    }

    async fn put_partial(&self, partial: &Partial, max_bytes: u64) -> Result<(), StoreError> {
        lock(&self.state).partials.put(partial, max_bytes.min(MAX_PARTIAL_BYTES))
    }

    async fn get_partial(&self, id: &TransactionId) -> Result<Vec<Piece>, StoreError> {
        Ok(lock(&self.state).partials.get(id))
    }

    async fn remove_partials(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        let log = &mut *lock(&self.state);
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
        self.bytes = self.bytes.saturating_sub(stored_size(&entry.transaction));
        self.by_id.remove(&entry.transaction.id());
        let topic = entry.transaction.topic();
        if let Some(cursors) = self.by_topic.get_mut(topic) {
            cursors.remove(&cursor);
            if cursors.is_empty() {
                self.by_topic.remove(topic);
            }
        }
        self.removed.insert(cursor);
        self.gaps.note(TopicKey::of(topic).0, cursor);
    }

    fn after(&self, after: Cursor) -> impl Iterator<Item = (&u64, &LogEntry)> {
        self.entries.range(beyond(after))
    }
}

fn payload(entry: &LogEntry) -> usize {
    entry.entry.transaction.payload().len()
}

fn beyond(after: Cursor) -> (Bound<u64>, Bound<u64>) {
    (Bound::Excluded(after.0), Bound::Unbounded)
}
