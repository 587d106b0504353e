//! What a node tells its host, in the past tense.

use serde::{Deserialize, Serialize};

use super::{CloseReason, Direction, FailureKind, PeerId, TransactionId, TransportKind};

/// How well the node is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// No link at all.
    Offline,
    /// Fewer links than `min_healthy_peers`.
    Degraded,
    /// Enough links.
    Online,
}

/// Reason why a transaction was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// A transaction whose payload does not match its hash.
    WrongHash,
    /// A transaction that its origin did not sign.
    WrongSignature,
    /// A transaction above the size limit.
    TooLarge,
    /// A transaction created too far from now.
    Skewed,
    /// A transaction that had already expired.
    Expired,
    /// A transaction whose origin has its share of the store. It is taken when there is room again.
    OverShare,
    /// A transaction whose origin has published as much as its rate allows. It is taken when earlier
    /// ones have expired.
    OverRate,
    /// A transaction whose topic nobody here or behind this edge wants.
    Unwanted,
    /// The host's validator rejected it.
    Rejected,
    /// The host's validator ignored it.
    Ignored,
}

impl Refusal {
    /// A transaction that is taken once its origin has room again.
    pub(crate) fn is_for_now(self) -> bool {
        matches!(self, Self::OverShare | Self::OverRate)
    }
}

/// Something that happened. Delivered in order; a host that reads too slowly gets
/// [`Event::Lagged`] instead of what it missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A link completed its hello.
    #[non_exhaustive]
    PeerUp {
        /// Who.
        peer: PeerId,
        /// Over which transport.
        transport: TransportKind,
        /// Its address, where the transport has one.
        address: Option<String>,
        /// Who dialled.
        direction: Direction,
    },
    /// The last link to a peer ended.
    #[non_exhaustive]
    PeerDown {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: CloseReason,
    },
    /// A peer missed an answer; one more and it is down.
    #[non_exhaustive]
    PeerSuspected {
        /// Who.
        peer: PeerId,
    },
    /// An inbound connection ended before TLS and the transport's own handshake were through: who
    /// it was is not known.
    #[non_exhaustive]
    HandshakeRefused {
        /// The remote socket address, as `ip:port`, where the transport has one.
        address: Option<String>,
        /// What went wrong.
        reason: FailureKind,
    },
    /// A link was refused, by this node or by the peer, before its hello was through.
    #[non_exhaustive]
    LinkRefused {
        /// The peer that the handshake proved.
        peer: PeerId,
        /// The address that was dialled or that it came from, where known.
        address: Option<String>,
        /// What either side closed it for.
        reason: CloseReason,
    },
    /// A peer passed on peer records that their subjects have not signed.
    #[non_exhaustive]
    RecordRefused {
        /// The peer that sent them.
        peer: PeerId,
    },
    /// A transaction, or its announcement, was refused.
    #[non_exhaustive]
    TransactionRefused {
        /// The id that it was offered under.
        id: TransactionId,
        /// The peer that it came from, unless its link is gone by now.
        peer: Option<PeerId>,
        /// What was wrong with it.
        reason: Refusal,
    },
    /// A dial attempt failed; it will be repeated with back-off.
    #[non_exhaustive]
    DialFailed {
        /// Where.
        address: String,
        /// Why.
        reason: FailureKind,
    },
    /// The mode changed.
    #[non_exhaustive]
    ModeChanged {
        /// The new mode.
        mode: Mode,
    },
    /// This edge began to stand in for a relay because it knew no way to one, or knows one again.
    #[non_exhaustive]
    StandInChanged {
        /// Whether it carries every topic from now on.
        stands_in: bool,
    },
    /// One of the node's own transactions is now stored by this many other nodes.
    #[non_exhaustive]
    Replicated {
        /// Which.
        id: TransactionId,
        /// How many confirmed.
        peers: u32,
    },
    /// One of the node's own transactions was given up for now. It is kept, and taken back when a
    /// peer confirms it.
    #[non_exhaustive]
    DeadLettered {
        /// Which.
        id: TransactionId,
        /// Why.
        reason: String,
    },
    /// One of the node's own transactions expired before any other node had it, as after a long time
    /// offline, and was published anew under another id.
    #[non_exhaustive]
    Renewed {
        /// Which.
        id: TransactionId,
        /// The id under which it goes on.
        renewed_as: TransactionId,
    },
    /// What a NAT prober saw.
    #[non_exhaustive]
    AddressObserved {
        /// The address, as `ip:port`.
        address: String,
        /// Which prober.
        prober: String,
    },
    /// A storage operation failed.
    #[non_exhaustive]
    StorageFailed {
        /// What was tried and what went wrong.
        message: String,
    },
    /// Events were missed because the host read too slowly.
    #[non_exhaustive]
    Lagged {
        /// How many.
        missed: u64,
    },
}
