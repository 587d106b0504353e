//! Stores that forget with the process: for tests, and for nodes that only relay.
//!
//! They need no runtime: every operation is done when its future is first polled, under a lock
//! that is held for moments only.

mod lock;
mod log;
mod page;
mod partials;
mod peer_store;
mod queue;
mod removed;

pub use log::MemoryTransactionStore;
pub use peer_store::MemoryPeerStore;
pub use queue::MemoryQueue;
