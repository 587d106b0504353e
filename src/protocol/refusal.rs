//! Reasons why something that the host or a peer asked for was not done.
//!
//! Tested by: `protocol::tests::ladder`, `protocol::tests::messages`, `protocol::tests::outbox`.

use std::time::Duration;

use crate::error::StoreErrorKind;
use crate::types::{CloseReason, FailureKind};

/// Reason why a handler has no answer to a peer's request, in the core's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerRefusal {
    /// No handler of the protocol is left.
    NotServed,
    /// Too many handlers run; none has seen the request.
    Busy,
    /// The handler refused for this reason, of which the first 256 bytes are told.
    Refused(String),
    /// The handler failed, or had no answer in time.
    Failed,
}

/// Reason why `publish` was refused, in the core's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishRefusal {
    /// Payload above the configured maximum.
    TooLarge {
        /// Bytes in the payload.
        size: u64,
        /// Maximum bytes in a payload.
        limit: u64,
    },
    /// The outbox is full.
    QueueFull {
        /// Capacity of the outbox.
        limit: u32,
    },
    /// Own transactions have their share of the store.
    OverShare {
        /// Bytes that own transactions take up.
        used: u64,
        /// Bytes that own transactions may take up.
        limit: u64,
    },
    /// Own transactions are as many as the rate allows.
    OverRate {
        /// Number of own transactions that are retained.
        used: u64,
        /// Number that may be retained.
        limit: u64,
    },
    /// The store refused.
    Store(StoreErrorKind),
    /// The node is going down.
    Closed,
}

/// Reason why a `connect` failed, in the core's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The transport failed.
    Dial(FailureKind),
    /// The link was refused by one side.
    Refused(CloseReason),
    /// The breaker is open: nothing was dialled, since lately nothing answered.
    BreakerOpen {
        /// Time until it is worth another try.
        left: Duration,
    },
    /// The node is going down.
    Closed,
}

impl ConnectFailure {
    /// Returns the name of the reason, as in events and logs.
    pub(in crate::protocol) fn as_str(self) -> &'static str {
        match self {
            Self::Dial(kind) => kind.as_str(),
            Self::Refused(reason) => reason.as_str(),
            Self::BreakerOpen { .. } => "breaker_open",
            Self::Closed => "closed",
        }
    }
}
