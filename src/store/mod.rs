//! Stores that come with the crate: in memory, and (feature `sqlite`) in files.

mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use memory::{MemoryPeerStore, MemoryQueue, MemoryTransactionStore};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStorage;

use crate::ports::Ban;

/// Longest reason of a ban that is kept, in characters.
const MAX_REASON_CHARS: usize = 500;

/// The reason of a ban as it is kept.
fn kept_reason(ban: &Ban) -> &str {
    let reason = ban.reason.as_str();
    reason.char_indices().nth(MAX_REASON_CHARS).map_or(reason, |(end, _)| &reason[..end])
}
