//! Stores that come together.

use std::sync::Arc;

use super::{PeerStore, TransactionQueue, TransactionStore};

/// Stores of a node; what is `None` is kept in memory and gone with the node.
///
/// A store that comes with several at once is made into this, as `SqliteStorage` is. To take some of
/// them, set the others back or give the stores to the builder one by one:
///
/// ```
/// use sorcha_peer::Storage;
///
/// let mut storage = Storage::default();
/// storage.queue = Some(Storage::memory_queue(1_000)); // room for 1,000 own transactions
/// # #[cfg(feature = "node")]
/// let builder = sorcha_peer::PeerNode::builder().storage(storage);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Storage {
    /// Peers and bans.
    pub peers: Option<Arc<dyn PeerStore>>,
    /// The outbox.
    pub queue: Option<Arc<dyn TransactionQueue>>,
    /// The retained log.
    pub transactions: Option<Arc<dyn TransactionStore>>,
}

impl From<Arc<dyn PeerStore>> for Storage {
    fn from(peers: Arc<dyn PeerStore>) -> Self {
        Self { peers: Some(peers), ..Self::default() }
    }
}

impl From<Arc<dyn TransactionQueue>> for Storage {
    fn from(queue: Arc<dyn TransactionQueue>) -> Self {
        Self { queue: Some(queue), ..Self::default() }
    }
}

impl From<Arc<dyn TransactionStore>> for Storage {
    fn from(transactions: Arc<dyn TransactionStore>) -> Self {
        Self { transactions: Some(transactions), ..Self::default() }
    }
}
