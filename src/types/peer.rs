//! What is remembered of peers.

use serde::{Deserialize, Serialize};

use super::{Endpoint, PeerId, PeerRecord, WallTime};

/// What is remembered of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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

impl StoredPeer {
    /// A peer of which nothing is known but its id. Its fields are public: set what else is known.
    pub fn new(peer: PeerId) -> Self {
        Self { peer, record: None, verified: None, last_up: None, failures: 0 }
    }
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ban {
    /// Who.
    pub peer: PeerId,
    /// Until when; `None` is for good.
    pub until: Option<WallTime>,
    /// Why, for people. At most 500 characters are kept.
    pub reason: String,
}

impl Ban {
    /// A ban of `peer`: until a time, or for good.
    pub fn new(peer: PeerId, until: Option<WallTime>, reason: impl Into<String>) -> Self {
        Self { peer, until, reason: reason.into() }
    }
}
