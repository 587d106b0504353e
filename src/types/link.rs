//! Links: ids, directions, and why they end.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of an open link, given by the local node. Never reused within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkId(pub u64);

/// Side that opened a link. Exhaustive on purpose: a link has two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Dialled by this node.
    Outbound,
    /// The peer dialled.
    Inbound,
}

impl Direction {
    /// Name of the side in events, logs and statistics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Reason why a link or its hello ended, as told to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CloseReason {
    /// The node that says it is shutting down.
    Shutdown,
    /// The application asked for it.
    Requested,
    /// A newer connection of the same peer took over.
    Replaced,
    /// The peer belongs to another network.
    WrongNetwork,
    /// No wire version is spoken by both.
    WrongVersion,
    /// The peer is not on the allow-list.
    NotAllowed,
    /// The peer did not prove that it is a member: it knows no secret of the network, or has no
    /// certificate of its CA.
    NotMember,
    /// The peer is banned.
    Banned,
    /// A node dialled its own address.
    SelfDial,
    /// Another process has the identity of the node that says it.
    IdentityInUse,
    /// The link goes on over another connection of the same peer.
    Moved,
    /// No room for another link; other peers are named in peer exchange. Also said to a peer whose
    /// link gives way to that of another.
    TooManyLinks,
    /// The hello did not come in time, or was not the first message.
    HandshakeTimeout,
    /// The peer sent something malformed, forged or out of order.
    Violation,
    /// No answer to pings.
    Unresponsive,
    /// The peer did not take what was sent for too long.
    SlowPeer,
    /// The transport broke or the peer closed without a word.
    TransportClosed,
}

impl CloseReason {
    /// Name of the reason in events, logs and statistics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Requested => "requested",
            Self::Replaced => "replaced",
            Self::WrongNetwork => "wrong_network",
            Self::WrongVersion => "wrong_version",
            Self::NotAllowed => "not_allowed",
            Self::NotMember => "not_member",
            Self::Banned => "banned",
            Self::SelfDial => "self_dial",
            Self::IdentityInUse => "identity_in_use",
            Self::Moved => "moved",
            Self::TooManyLinks => "too_many_links",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Violation => "violation",
            Self::Unresponsive => "unresponsive",
            Self::SlowPeer => "slow_peer",
            Self::TransportClosed => "transport_closed",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Kind of failure of a transport: what the node decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The name or address does not resolve, or nothing listens there.
    Unreachable,
    /// No answer within the time allowed.
    Timeout,
    /// TLS failed, or the remote proved another identity than expected; by way of a proxy also where that
    /// answers in the remote's place.
    Identity,
    /// The remote speaks something else (plaintext against TLS, another protocol).
    Protocol,
    /// A frame above the limit, or one that does not parse.
    Malformed,
    /// The remote refused: too many handshakes or connections; or a proxy before it did.
    Refused,
    /// The link was closed by either side.
    Closed,
    /// Refused: the transport cannot do what was asked.
    Unsupported,
    /// The local operating system refused (port in use, no file descriptors).
    Local,
    /// The name stands for no other addresses than those that were to be left out.
    NoneLeft,
}

impl FailureKind {
    /// The name used in events, logs and statistics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Identity => "identity",
            Self::Protocol => "protocol",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::Unsupported => "unsupported",
            Self::Local => "local",
            Self::NoneLeft => "none_left",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Verdict of a validator on a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Keep it, deliver it and pass it on.
    Accept,
    /// Drop it without blame: it may be right for others.
    Ignore,
    /// Drop it and hold it against the peer that sent it.
    Reject,
}
