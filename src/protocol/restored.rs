//! What earlier runs left in the stores.
//!
//! Tested by: `protocol::tests::outbox`, `sim::tests::outbox`.

use std::net::SocketAddr;

use crate::types::{
    Ban, IndexEntry, KeptPartial, StoredPeer, TransactionId, TransportKind, WallTime,
};

/// Content of the stores when the node started, and what it can do.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Peers of earlier runs.
    pub peers: Vec<StoredPeer>,
    /// Bans of earlier runs.
    pub bans: Vec<Ban>,
    /// Retained transactions, in cursor order, or the first of them: see `Protocol::restore`.
    pub index: Vec<IndexEntry>,
    /// Entries that are still in the outbox.
    pub outbox: Vec<Queued>,
    /// Maximum bytes that the store takes, if it has a bound: what shares of origins are of.
    pub max_bytes: Option<u64>,
    /// Partial payloads, oldest first; `None` when the store keeps none.
    pub partials: Option<Vec<KeptPartial>>,
    /// Entries that the stored outbox has room for beyond `max_entries`, for what is published
    /// anew; `None` is without a bound. One entry is tried in any case.
    pub spare_places: Option<usize>,
    /// The host's validator judges payloads before anything of them is passed on.
    pub validating: bool,
    /// Address at which the node listens, where it does.
    pub listening: Option<SocketAddr>,
    /// Transports that peers are dialled with, the best first; none is the gRPC stream alone.
    pub rungs: Vec<TransportKind>,
    /// What earlier runs noted last with `Output::SavePast`: time since which the node was whole.
    pub whole_since: Option<WallTime>,
    /// The same: time until which the node was whole; `None` where it was never linked.
    pub whole_until: Option<WallTime>,
}

/// An own transaction that an earlier run left in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// The id of the entry.
    pub id: TransactionId,
    /// Time when it was published.
    pub created: WallTime,
    /// Rounds without any taker.
    pub attempts: u32,
    /// Reason why the entry is a dead letter, if it is one.
    pub dead: Option<GivenUp>,
    /// The log had no room for the transaction, which comes with [`Input::Relogged`](super::Input::Relogged).
    pub unlogged: bool,
}

/// Reason why an entry was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// Taken by nobody in all rounds.
    NoTaker,
    /// Confirmed by fewer peers than it takes, in the time until expiry.
    Expired,
    /// Payload larger than this node takes by now, of an entry that was to be published anew.
    TooLarge,
    /// Rejected by the validator of every peer that was asked.
    Rejected,
    /// Refused for good by every peer that was asked.
    Refused,
    /// Given up for a reason that an earlier version of this crate says.
    Otherwise,
}

impl GivenUp {
    /// Returns the reason in words, as hosts read it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoTaker => "no linked peer took it",
            Self::Expired => "it expired before enough peers had stored it",
            Self::TooLarge => "it is larger than gossip.max_transaction_size allows by now",
            Self::Rejected => "the validator of every peer that was asked rejected it",
            Self::Refused => "every peer that was asked refused it for good",
            Self::Otherwise => "it was given up in an earlier run",
        }
    }

    /// Reads the reason from its words, as they were stored.
    pub fn of(reason: &str) -> Self {
        let all = [Self::NoTaker, Self::Expired, Self::TooLarge, Self::Rejected, Self::Refused];
        all.into_iter().find(|why| why.reason() == reason).unwrap_or(Self::Otherwise)
    }
}
