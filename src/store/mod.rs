//! Stores that come with the crate: in memory, and (feature `sqlite`) in files.

mod gap_index;
mod memory;
mod partials;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use memory::{MemoryPeerStore, MemoryQueue, MemoryTransactionStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStorage};

use crate::error::{StoreError, StoreErrorKind};
use crate::ports::{Ban, MAX_CURSORS};
use crate::types::Transaction;

/// Longest reason of a ban that is kept, in characters.
const MAX_REASON_CHARS: usize = 500;

/// The reason of a ban as it is kept.
fn kept_reason(ban: &Ban) -> &str {
    let reason = ban.reason.as_str();
    reason.char_indices().nth(MAX_REASON_CHARS).map_or(reason, |(end, _)| &reason[..end])
}

fn too_many_cursors() -> StoreError {
    let message = format!("{MAX_CURSORS} named cursors are kept already");
    StoreError::new(StoreErrorKind::Full, message)
}

fn partial_too_large(most: u64) -> StoreError {
    let message = format!("partial payloads are bounded to {most} bytes together");
    StoreError::new(StoreErrorKind::Full, message)
}

/// Bytes of a transaction that count against a log's bound.
fn stored_size(transaction: &Transaction) -> u64 {
    (transaction.header_bytes().len() + transaction.payload().len()) as u64
}
