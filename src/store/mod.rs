//! Stores that come with the crate: in memory, and (feature `sqlite`) in files.

mod gap_index;
mod limits;
mod memory;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

pub use memory::{MemoryPeerStore, MemoryQueue, MemoryTransactionStore};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteOptions;
