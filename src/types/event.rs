//! What a node tells its host, in the past tense.

use serde::{Deserialize, Serialize};

use super::{
    CloseReason, Direction, FailureKind, PeerId, Reachability, TransactionId, TransportKind,
    WallTime,
};

/// Connection of the node to its network. Exhaustive on purpose: a node is in one of these modes,
/// and a match needs no other arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// No link at all.
    Offline,
    /// Fewer links than `min_healthy_peers`, and there are peers that this node is not linked with.
    Degraded,
    /// At least `min_healthy_peers` links, or links with all peers there are: those that can be dialled,
    /// or were linked in the last 10 minutes. A node that knows few peers is online 5 s after it is
    /// linked with them.
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
    /// A transaction whose origin has its share of the store; taken when there is room again.
    OverShare,
    /// A transaction whose origin has published as much as its rate allows; taken when earlier ones
    /// have expired.
    OverRate,
    /// A transaction whose topic nobody here or behind this edge wants.
    Unwanted,
    /// The host's validator rejected it.
    Rejected,
    /// The host's validator ignored it.
    Ignored,
}

impl Refusal {
    /// Name of the reason, as in serde.
    #[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(dead_code))]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::WrongHash => "wrong_hash",
            Self::WrongSignature => "wrong_signature",
            Self::TooLarge => "too_large",
            Self::Skewed => "skewed",
            Self::Expired => "expired",
            Self::OverShare => "over_share",
            Self::OverRate => "over_rate",
            Self::Unwanted => "unwanted",
            Self::Rejected => "rejected",
            Self::Ignored => "ignored",
        }
    }

    /// A transaction that is taken once its origin has room again.
    pub(crate) fn is_for_now(self) -> bool {
        matches!(self, Self::OverShare | Self::OverRate)
    }
}

/// Event of a node, told in the order in which things happened. A host that reads more than 4096 events
/// too late gets [`Event::Lagged`] instead of what it missed.
///
/// Events and their fields become more with new versions: match with `..` and a last arm for all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A link completed its hello.
    #[non_exhaustive]
    PeerUp {
        /// The peer, as the handshake proved it.
        peer: PeerId,
        /// The transport that carries the link.
        transport: TransportKind,
        /// The address of the peer, as `host:port`, where the transport has one.
        address: Option<String>,
        /// The side that dialled.
        direction: Direction,
    },
    /// The last link to a peer ended. The node tries to come back to it on its own.
    #[non_exhaustive]
    PeerDown {
        /// The peer that is gone.
        peer: PeerId,
        /// Cause that ended the link.
        reason: CloseReason,
    },
    /// A link goes on over another connection, with all that it had.
    #[non_exhaustive]
    TransportChanged {
        /// The peer at its other end.
        peer: PeerId,
        /// The transport that carried it.
        from: TransportKind,
        /// The transport that carries it now; the same where only the connection is another one.
        to: TransportKind,
        /// Reason in words: `upgrade`, `max link age`, `proxy body limit`, `proxy time limit`, `closing`
        /// where the connection is about to be closed, or `peer` where that has the reason.
        reason: String,
    },
    /// A peer missed an answer; one more and it is down.
    #[non_exhaustive]
    PeerSuspected {
        /// The peer that did not answer.
        peer: PeerId,
    },
    /// An inbound connection ended before TLS and the transport's own handshake were through: who
    /// it was is not known.
    #[non_exhaustive]
    HandshakeRefused {
        /// The remote socket address, as `ip:port`, where the transport has one.
        address: Option<String>,
        /// Kind of the failure.
        reason: FailureKind,
    },
    /// A link was refused, by this node or by the peer, before its hello was through. A peer that has no
    /// room (`TooManyLinks`) is tried again: each gets a turn.
    #[non_exhaustive]
    LinkRefused {
        /// The peer that the handshake proved.
        peer: PeerId,
        /// The address that was dialled or that the peer came from, where known.
        address: Option<String>,
        /// Side that opened the link.
        direction: Direction,
        /// Reason for which either side closed the link.
        reason: CloseReason,
    },
    /// Two processes use one identity, as after a data directory was copied: their links replace each
    /// other. Told of the node's own and of peers', at most once a minute for each.
    #[non_exhaustive]
    IdentityInUse {
        /// The id that both prove: the node's own, or that of a peer.
        peer: PeerId,
        /// The address of the link that showed it, as `host:port`: where the peer came from or was
        /// dialled, or the peer at which the node's own link was taken over.
        address: Option<String>,
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
        /// The peer that it came from, unless the link is gone by now.
        peer: Option<PeerId>,
        /// Reason of the refusal.
        reason: Refusal,
    },
    /// A dial attempt failed: another transport or address is tried, and all of them again with
    /// back-off. Told once for each attempt.
    #[non_exhaustive]
    DialFailed {
        /// The address that was dialled, as `host:port`.
        address: String,
        /// The transport that was tried.
        transport: TransportKind,
        /// Kind of the failure.
        reason: FailureKind,
    },
    /// A peer, or whoever is at an address, could not be reached by any transport
    /// `connection.breaker_threshold` times in a row, or once more by the probe: nothing is dialled there
    /// for a while.
    #[non_exhaustive]
    BreakerOpened {
        /// The peer, where it is known.
        peer: Option<PeerId>,
        /// The address, where the breaker is that of an address.
        address: Option<String>,
        /// Number of failures in a row.
        failures: u32,
        /// Number of seconds until it is probed, at the latest.
        reset_s: u64,
    },
    /// The one probe of an open circuit breaker is under way.
    #[non_exhaustive]
    BreakerHalfOpen {
        /// The peer, where it is known.
        peer: Option<PeerId>,
        /// The address, where the breaker is that of an address.
        address: Option<String>,
    },
    /// A peer answered or dialled this node, or the host said so: it is dialled as any other.
    #[non_exhaustive]
    BreakerClosed {
        /// The peer, where it is known.
        peer: Option<PeerId>,
        /// The address, where the breaker is that of an address.
        address: Option<String>,
    },
    /// The mode changed.
    #[non_exhaustive]
    ModeChanged {
        /// The new mode.
        mode: Mode,
    },
    /// Tells that this edge began to stand in for a relay because it knew no way to one, or knows
    /// one again.
    #[non_exhaustive]
    StandInChanged {
        /// True: the edge carries every topic from now on.
        stands_in: bool,
    },
    /// One of the node's own transactions is now stored by one other node more. Told until enough
    /// have it (`outbox.min_copies`) and it leaves the outbox; further copies are counted by its
    /// `Receipt`.
    #[non_exhaustive]
    Replicated {
        /// Id of the transaction.
        id: TransactionId,
        /// Number of other nodes that have confirmed it up to now.
        peers: u32,
    },
    /// One of the node's own transactions was given up for now. The dead letter is kept, and taken
    /// back when a peer confirms it.
    #[non_exhaustive]
    DeadLettered {
        /// Id of the transaction.
        id: TransactionId,
        /// Reason why the transaction did not spread, in words.
        reason: String,
    },
    /// One of the node's own transactions expired before any other node had it, as after a long time
    /// offline, and was published anew under another id.
    #[non_exhaustive]
    Renewed {
        /// The id that is no more.
        id: TransactionId,
        /// The id under which it goes on.
        renewed_as: TransactionId,
    },
    /// The node was linked with nobody for so long that what others published meanwhile is gone
    /// everywhere, as far as its peers know: what was created in this span may be missing here for good.
    /// Each subscription gets an `Item::Gap` with the span. Told once for each absence, some 30 s after
    /// the first link came up.
    #[non_exhaustive]
    HistoryMissed {
        /// Time when the absence began, or up to a minute before where the node was killed.
        from: WallTime,
        /// Time from which on everything that is retained is here.
        until: WallTime,
    },
    /// A peer refused one of the node's own transactions, which stays in the outbox. Told once for each
    /// transaction and reason.
    #[non_exhaustive]
    PublishRefused {
        /// Id of the transaction.
        id: TransactionId,
        /// The peer that refused it.
        peer: PeerId,
        /// Reason that the peer gives.
        reason: Refusal,
    },
    /// The clock of this machine is off: most peers, of different address groups, agree on a time that is
    /// further than `max_clock_skew` from it. The node goes by their time until its clock is right.
    #[non_exhaustive]
    ClockOff {
        /// Number of milliseconds from this machine's clock to the peers' time.
        offset_ms: i64,
        /// Number of votes: groups of addresses, or peers where all are of one group.
        peers: u32,
    },
    /// The clock of this machine was off, and is right again.
    ClockRight,
    /// Whether others can dial the node is known, or known otherwise than before.
    #[non_exhaustive]
    ReachabilityChanged {
        /// The new state, with the endpoint where there is one.
        #[serde(flatten)]
        state: Reachability,
    },
    /// A NAT prober saw the node under this address, which is a candidate from then on.
    #[non_exhaustive]
    AddressObserved {
        /// The address, as `ip:port`.
        address: String,
        /// The name of the prober.
        prober: String,
    },
    /// A storage operation failed. Told once when storage begins to fail, not for each operation.
    #[non_exhaustive]
    StorageFailed {
        /// Operation that was tried and how it failed, in words.
        message: String,
    },
    /// Events were missed because the host read too slowly.
    #[non_exhaustive]
    Lagged {
        /// Number of events missed.
        missed: u64,
    },
}
