//! Errors of requests to one peer.

use std::time::Duration;

/// Reason why a request to a peer has no answer, or why a protocol cannot be served. A request is sent at most
/// once: the node never repeats one by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No peer of this id is known. Nothing was sent; a retry is of use once the node has heard of the peer.
    #[error("no peer of this id is known")]
    UnknownPeer,
    /// There is no link to the peer, and none could be made. Nothing was sent; a retry later may help.
    #[error("no way to the peer: {reason}")]
    NoWay {
        /// Reason, in words.
        reason: String,
    },
    /// The peer has no handler for this protocol, or its version knows no requests. The peer did
    /// nothing; a retry helps once it serves the protocol.
    #[error("the peer does not serve {protocol:?}")]
    NotServed {
        /// Name of the protocol.
        protocol: String,
    },
    /// Too much is under way, here or at the peer. No handler saw the request; a retry later helps.
    #[error("too many requests are under way, here or at the peer")]
    Busy,
    /// A body is above a maximum: that of the request above this node's or the peer's, or that of
    /// the answer above this node's. In the last case the peer has done what it was asked. No retry helps.
    #[error("a body of {size} bytes is above the maximum of {limit} (messages.max_bytes)")]
    TooLarge {
        /// Number of bytes in the body.
        size: u64,
        /// Maximum that it is above.
        limit: u64,
    },
    /// There was no answer in time. The peer may have done what it was asked, or part of it; it has been
    /// told that the answer is not waited for any more.
    #[error("no answer within {after:?}")]
    TimedOut {
        /// Time that was waited.
        after: Duration,
    },
    /// The link ended before the answer was here.
    #[error(
        "the link to the peer was lost {}",
        if *sent { "after the request was sent" } else { "before the request was sent" }
    )]
    LinkLost {
        /// False: nothing of the request was sent, and a retry is as good as the first try. True: the
        /// peer may have done what it was asked.
        sent: bool,
    },
    /// The peer's handler refused.
    #[error("the peer refused: {reason}")]
    Refused {
        /// Reason that the handler gave, at most 256 bytes.
        reason: String,
    },
    /// The peer's handler failed, or had no answer in time. A retry may help.
    #[error("the peer's handler failed")]
    Failed,
    /// The peer is the node itself. Nothing was sent; no retry helps.
    #[error("a node cannot send requests to itself")]
    ToSelf,
    /// A protocol has a name of 1 to 128 printable ASCII characters without spaces; no retry helps.
    #[error("a protocol has a name of 1 to 128 printable ASCII characters without spaces")]
    InvalidProtocol,
    /// The text is no `traceparent` of W3C. Nothing was sent; no retry helps.
    #[error(
        "a traceparent is a version, 32, 16 and 2 hexadecimal digits in lower case, joined by dashes"
    )]
    InvalidTraceparent,
    /// The protocol has a handler already, which stays; a retry helps once that is taken away. Or the name is
    /// the node's own, since it begins with `sorcha.`; no retry helps then.
    #[error("the protocol {protocol:?} has a handler already")]
    ProtocolTaken {
        /// Name of the protocol.
        protocol: String,
    },
    /// The node is shut down; no retry helps.
    #[error("the node is shut down")]
    Closed,
}
