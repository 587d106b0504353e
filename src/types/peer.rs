//! What is remembered of peers.

use serde::{Deserialize, Serialize};

use super::{Endpoint, PeerId, PeerRecord, TransportKind, WallTime};

/// Peer as it is remembered over restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredPeer {
    /// The id of the peer.
    pub peer: PeerId,
    /// The newest signed record of the peer, if one was ever seen.
    pub record: Option<PeerRecord>,
    /// The address at which the peer last answered, if it was ever dialled.
    pub verified: Option<Endpoint>,
    /// The transport by which it answered there.
    pub rung: Option<TransportKind>,
    /// The time at which a link to the peer was last up.
    pub last_up: Option<WallTime>,
    /// Number of dials that failed since.
    pub failures: u32,
}

impl StoredPeer {
    /// Makes the entry of a peer of which nothing is known but its id. The fields are public: set
    /// what else is known.
    pub fn new(peer: PeerId) -> Self {
        Self { peer, record: None, verified: None, rung: None, last_up: None, failures: 0 }
    }
}

/// Ban of a peer, on every path: inbound, outbound, and in what others tell of peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ban {
    /// The id of the peer.
    pub peer: PeerId,
    /// The end of the ban; `None` is for good.
    pub until: Option<WallTime>,
    /// The reason, for people. At most 500 characters are kept.
    pub reason: String,
}

impl Ban {
    /// A ban of `peer`: until a time, or for good.
    pub fn new(peer: PeerId, until: Option<WallTime>, reason: impl Into<String>) -> Self {
        Self { peer, until, reason: reason.into() }
    }
}
