//! The retained log: every accepted transaction, in the order of acceptance, until it expires.

use std::fmt;

use async_trait::async_trait;

use crate::error::StoreError;
use crate::types::{Cursor, Topic, Transaction, TransactionId, WallTime};
pub use crate::types::{IndexEntry, NewEntry};

/// A kept transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place in the log.
    pub cursor: Cursor,
    /// What was appended.
    pub entry: NewEntry,
}

/// A stretch of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Matching entries in cursor order.
    pub entries: Vec<LogEntry>,
    /// Everything up to here was looked at: where to go on, also when nothing matched.
    pub next: Cursor,
    /// Entries after the asked-for cursor that are already gone end here; `None` when none are.
    pub lost_until: Option<Cursor>,
}

/// Keeps the log. Cursors rise with every append and are never reused, also not after a restart.
#[async_trait]
pub trait TransactionStore: fmt::Debug + Send + Sync + 'static {
    /// Appends in order, all or none, and returns each entry's cursor. An id that is already
    /// there keeps its cursor.
    async fn append(&self, entries: &[NewEntry]) -> Result<Vec<Cursor>, StoreError>;

    /// One transaction by id, unless it is gone.
    async fn get(&self, id: &TransactionId) -> Result<Option<Transaction>, StoreError>;

    /// Entries after `after`, of one topic or of all, at most `max_entries` and, beyond the first,
    /// at most `max_bytes` of payload.
    async fn read(
        &self,
        topic: Option<&Topic>,
        after: Cursor,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError>;

    /// At most `limit` index entries after `after`, in cursor order; how a restarted node learns
    /// what it has.
    async fn index(&self, after: Cursor, limit: usize) -> Result<Vec<IndexEntry>, StoreError>;

    /// The newest cursor ever given out; the default cursor for an empty log.
    async fn newest(&self) -> Result<Cursor, StoreError>;

    /// Forgets entries that may go at `now`; returns how many. A store may keep entries a little
    /// longer, to drop whole generations at once.
    async fn expire(&self, now: WallTime) -> Result<u64, StoreError>;
}
