//! What every store of this crate bounds, and how it says so.

use crate::error::{StoreError, StoreErrorKind};
use crate::ports::{Ban, Page};
use crate::types::Transaction;

/// Maximum length of the reason of a ban, in characters.
const MAX_REASON_CHARS: usize = 500;

/// The reason of a ban as it is stored.
pub(super) fn truncated_reason(ban: &Ban) -> &str {
    let reason = ban.reason.as_str();
    reason.char_indices().nth(MAX_REASON_CHARS).map_or(reason, |(end, _)| &reason[..end])
}

pub(super) fn too_many_cursors() -> StoreError {
    let message = format!("{} named cursors are kept already", Page::MAX_CURSORS);
    StoreError::new(StoreErrorKind::Full, message)
}

pub(super) fn partial_too_large(most: u64) -> StoreError {
    let message = format!("partial payloads are bounded to {most} bytes together");
    StoreError::new(StoreErrorKind::Full, message)
}

/// Bytes of a transaction that count against a log's bound.
pub(super) fn stored_size(transaction: &Transaction) -> u64 {
    (transaction.header_bytes().len() + transaction.payload().len()) as u64
}
