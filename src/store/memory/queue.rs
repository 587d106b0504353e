//! An outbox in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Mutex;

use async_trait::async_trait;

use super::lock::lock;
use super::page::fill;
use crate::error::{StoreError, StoreErrorKind};
use crate::ports::{EntryFilter, EntryState, OutboxEntry, QueueSize, StoreLease, TransactionQueue};
use crate::types::{Transaction, TransactionId, WallTime};

/// An outbox in memory: see [`Storage::memory_queue`](crate::Storage::memory_queue).
#[derive(Debug)]
pub(super) struct MemoryQueue {
    max_entries: usize,
    state: Mutex<Outbox>,
    lease: StoreLease,
}

#[derive(Debug, Default)]
struct Outbox {
    last_seq: u64,
    entries: BTreeMap<u64, OutboxEntry>,
    by_id: HashMap<TransactionId, u64>,
}

impl MemoryQueue {
    pub(super) fn new(max_entries: usize) -> Self {
        Self { max_entries, state: Mutex::default(), lease: StoreLease::default() }
    }
}

#[async_trait]
impl TransactionQueue for MemoryQueue {
    async fn append(&self, transactions: &[Transaction]) -> Result<Vec<u64>, StoreError> {
        let outbox = &mut *lock(&self.state);
        let new: BTreeSet<_> = transactions
            .iter()
            .map(Transaction::id)
            .filter(|id| !outbox.by_id.contains_key(id))
            .collect();
        if outbox.entries.len() + new.len() > self.max_entries {
            let message = format!("the outbox is bounded to {} entries", self.max_entries);
            return Err(StoreError::new(StoreErrorKind::Full, message));
        }
        let mut seqs = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            let seq = *outbox.by_id.entry(transaction.id()).or_insert(outbox.last_seq + 1);
            if seq > outbox.last_seq {
                outbox.last_seq = seq;
                let state = EntryState::Waiting { attempts: 0, due: WallTime::default() };
                let transaction = transaction.clone();
                outbox.entries.insert(seq, OutboxEntry { seq, transaction, state });
            }
            seqs.push(seq);
        }
        Ok(seqs)
    }

    async fn update(&self, states: &[(TransactionId, EntryState)]) -> Result<(), StoreError> {
        let outbox = &mut *lock(&self.state);
        for (id, state) in states {
            let entry = outbox.by_id.get(id).and_then(|seq| outbox.entries.get_mut(seq));
            if let Some(entry) = entry {
                entry.state = state.clone();
            }
        }
        Ok(())
    }

    async fn remove(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        let outbox = &mut *lock(&self.state);
        for id in ids {
            if let Some(seq) = outbox.by_id.remove(id) {
                outbox.entries.remove(&seq);
            }
        }
        Ok(())
    }

    async fn get(&self, id: &TransactionId) -> Result<Option<OutboxEntry>, StoreError> {
        let outbox = lock(&self.state);
        Ok(outbox.by_id.get(id).and_then(|seq| outbox.entries.get(seq)).cloned())
    }

    async fn load(
        &self,
        filter: EntryFilter,
        after: Option<u64>,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let outbox = lock(&self.state);
        let entries = outbox.entries.range((from, Bound::Unbounded)).map(|(_, entry)| entry);
        let wanted =
            entries.filter(|entry| filter == EntryFilter::All || filter == kind(&entry.state));
        let size = |entry: &OutboxEntry| entry.transaction.payload().len();
        Ok(fill(wanted, size, max_entries, max_bytes).0)
    }

    fn lease(&self) -> Option<&StoreLease> {
        Some(&self.lease)
    }

    fn may_hang(&self) -> bool {
        false
    }

    async fn size(&self) -> Result<QueueSize, StoreError> {
        let outbox = lock(&self.state);
        let dead = outbox.entries.values().filter(|e| kind(&e.state) == EntryFilter::Dead).count();
        let waiting = outbox.entries.len() - dead;
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
