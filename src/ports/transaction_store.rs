//! The retained log: every accepted transaction, in the order of acceptance, until it expires.

use std::fmt;

use async_trait::async_trait;

use crate::error::StoreError;
use crate::types::{Cursor, PeerId, Topic, Transaction, TransactionId, WallTime};

/// A transaction to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// The transaction, verified.
    pub transaction: Transaction,
    /// The peer it came from; `None` for the node's own.
    pub from: Option<PeerId>,
    /// Hops from its origin; 0 for the node's own.
    pub hops: u16,
    /// When every copy may go: the earlier of its own expiry and creation plus retention.
    pub keep_until: WallTime,
}

/// A kept transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place in the log.
    pub cursor: Cursor,
    /// What was appended.
    pub entry: NewEntry,
}

/// What the protocol needs to know of a kept transaction without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its place in the log.
    pub cursor: Cursor,
    /// Which.
    pub id: TransactionId,
    /// Length of its payload in bytes.
    pub size: u64,
    /// Hops from its origin.
    pub hops: u16,
    /// When it was created, by its origin's clock.
    pub created: WallTime,
    /// When it may go.
    pub keep_until: WallTime,
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
