//! Peers and bans over restarts.

use std::fmt;

use crate::error::StoreError;
use crate::types::{Ban, PeerId, StoredPeer};
use async_trait::async_trait;

/// Store of peers and bans. All operations are idempotent; the last write wins.
///
/// The node loads once, when it starts, and then writes one call after the other, what has gathered
/// since the last. Among the peers is the node itself, under its own id, with the newest record
/// that it signed: the next run's records come after that one. There is no time limit. What could
/// not be written is tried again, together with what has come since. Who loses peers starts from
/// its bootstrap peers; who loses bans lets those peers in again.
///
/// An implementation checks itself with the crate's suite:
///
/// ```
/// use sorcha_peer::{Storage, testing};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// testing::peer_store(&*Storage::memory_peers()).await; // panics with what is wrong
/// # }
/// ```
#[async_trait]
pub trait PeerStore: fmt::Debug + Send + Sync + 'static {
    /// Peers and bans that are kept; of the peers, those that were up most recently first.
    async fn load(&self) -> Result<(Vec<StoredPeer>, Vec<Ban>), StoreError>;

    /// Inserts or replaces, all or none.
    async fn upsert(&self, peers: &[StoredPeer]) -> Result<(), StoreError>;

    /// Forgets peers; unknown ids are no error.
    async fn remove(&self, peers: &[PeerId]) -> Result<(), StoreError>;

    /// Inserts or replaces a ban.
    async fn put_ban(&self, ban: &Ban) -> Result<(), StoreError>;

    /// Lifts a ban; an unknown id is no error.
    async fn remove_ban(&self, peer: &PeerId) -> Result<(), StoreError>;
}
