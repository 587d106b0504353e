//! Where peers and bans survive a restart.

use std::fmt;

use crate::error::StoreError;
use crate::types::{Ban, PeerId, StoredPeer};
use async_trait::async_trait;

/// Keeps peers and bans. All operations are idempotent; the last write wins.
#[async_trait]
pub trait PeerStore: fmt::Debug + Send + Sync + 'static {
    /// Everything that is kept, most recently up first.
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
