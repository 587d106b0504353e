//! Where peers and bans survive a restart.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::types::{Endpoint, PeerId, PeerRecord, WallTime};

/// What is remembered of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPeer {
    /// Who.
    pub peer: PeerId,
    /// Its newest signed record, if one was ever seen.
    pub record: Option<PeerRecord>,
    /// The address at which it last answered, if it was ever dialled.
    pub verified: Option<Endpoint>,
    /// When a link to it was last up.
    pub last_up: Option<WallTime>,
    /// Dials that failed since.
    pub failures: u32,
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Who.
    pub peer: PeerId,
    /// Until when; `None` is for good.
    pub until: Option<WallTime>,
    /// Why, for people. At most 500 characters are kept.
    pub reason: String,
}

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
