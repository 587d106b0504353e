//! Stores that come with the crate: in memory ([`Storage::memory_queue`](crate::Storage::memory_queue) and
//! its like), and (feature `sqlite`) in files.

mod gap_index;
mod limits;
mod memory;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

#[cfg(feature = "sqlite")]
pub use sqlite::SqliteOptions;
