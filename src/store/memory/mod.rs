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

use std::sync::Arc;

use crate::ports::{PeerStore, Storage, TransactionQueue, TransactionStore};

use self::log::MemoryTransactionStore;
use self::peer_store::MemoryPeerStore;
use self::queue::MemoryQueue;

/// Stores in memory: for tests, and for nodes that may forget with their process.
impl Storage {
    /// Peers and bans in memory; as many as the node hands over, which is bounded by
    /// `discovery.max_peers`.
    pub fn memory_peers() -> Arc<dyn PeerStore> {
        Arc::new(MemoryPeerStore::default())
    }

    /// An outbox in memory for at most `max_entries`, waiting and dead together: what was published and
    /// not yet confirmed is lost with the process.
    pub fn memory_queue(max_entries: usize) -> Arc<dyn TransactionQueue> {
        Arc::new(MemoryQueue::new(max_entries))
    }

    /// A retained log in memory for at most `max_bytes` of headers and payloads; `None` is as much as
    /// the retention time brings. Payloads are shared with whoever handed them in.
    ///
    /// Cursors must rise over restarts too, or a subscriber would wait at a cursor of an earlier run.
    /// So the first cursor is the time of creation (milliseconds since 1970, shifted left by 12 bits,
    /// which stays below 2^53 for JSON) plus one: the clock is read once, here. Cursors of a restarted
    /// process rise as long as the earlier one took no more than 4096 transactions a millisecond.
    /// Reading after a cursor of an earlier run reports all up to the creation as lost.
    ///
    /// Partial payloads that make room for others move here too, up to 64 MiB of them: that is room
    /// for those who wait, not less memory.
    pub fn memory_transactions(max_bytes: Option<u64>) -> Arc<dyn TransactionStore> {
        Arc::new(MemoryTransactionStore::new(max_bytes))
    }
}
