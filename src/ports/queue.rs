//! The outbox: own transactions until enough others have stored them.

use std::fmt;

use async_trait::async_trait;

use crate::error::StoreError;
pub use crate::types::EntryState;
use crate::types::{Transaction, TransactionId};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Rises in the order of appending; never reused.
    pub seq: u64,
    /// The transaction.
    pub transaction: Transaction,
    /// Where it stands.
    pub state: EntryState,
}

/// The durable queue behind `publish`.
///
/// Wrong ways to implement it: returning from `append` before the entries would survive a crash;
/// dropping old entries to make room; treating a repeated id as an error.
#[async_trait]
pub trait TransactionQueue: fmt::Debug + Send + Sync + 'static {
    /// Appends in order, all or none, and returns each entry's sequence number once all would
    /// survive a crash. An id that is already there keeps its number and state.
    ///
    /// # Errors
    /// [`StoreErrorKind::Full`](crate::error::StoreErrorKind::Full) when the bound would be
    /// exceeded; nothing was appended.
    async fn append(&self, transactions: &[Transaction]) -> Result<Vec<u64>, StoreError>;

    /// Sets where entries stand; unknown ids are no error.
    async fn update(&self, states: &[(TransactionId, EntryState)]) -> Result<(), StoreError>;

    /// Removes entries; unknown ids are no error.
    async fn remove(&self, ids: &[TransactionId]) -> Result<(), StoreError>;

    /// At most `limit` entries with a sequence number above `after`, in order.
    async fn load(&self, after: Option<u64>, limit: usize) -> Result<Vec<OutboxEntry>, StoreError>;
}
