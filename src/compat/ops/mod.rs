//! Operations that clients of the original ask for, whatever face they come by.
//!
//! Every value of a request may be anything: what an operation cannot use is [`Refusal::Invalid`] with a
//! sentence for the client, and nothing that a client says is an error of this node.

mod communication;
mod discovery;
mod overview;
mod transaction;

pub(super) use self::discovery::{ID_IN_USE, LIST_FULL};
pub(super) use self::overview::Overview;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::types::{Topic, TransactionId, WallTime};

/// Reason why an operation was not done, for the face to say in its own terms. Each text is a sentence
/// for the client, in ASCII and of at most 256 bytes, and shows nothing of what it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A value that cannot be used: `INVALID_ARGUMENT`, 400.
    Invalid(String),
    /// What was asked for is not here: `NOT_FOUND`, 404.
    NotFound(String),
    /// It cannot be done as things are, and trying again does not help: `FAILED_PRECONDITION`, 409.
    Precondition(String),
    /// The client has had its share for now: `RESOURCE_EXHAUSTED` with `retry-after`, 429.
    Busy {
        /// Time after which the client may try again.
        retry_after: Duration,
    },
    /// More bytes than are taken: `RESOURCE_EXHAUSTED`, 413.
    TooLarge {
        /// Number of bytes.
        size: u64,
        /// Number of bytes that are taken.
        limit: u64,
    },
    /// Not for the moment: `UNAVAILABLE`, 503.
    Unavailable(String),
    /// The client may not: `PERMISSION_DENIED`, 403.
    Denied(String),
}

/// Transaction that was looked up.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Id of the transaction.
    pub(crate) id: TransactionId,
    /// Topic of the transaction.
    pub(crate) topic: Topic,
    /// Payload of the transaction.
    pub(crate) payload: Bytes,
    /// Time of the creation of the transaction, by its origin's clock.
    pub(crate) created: WallTime,
}

/// All operations; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Ops(pub(super) Arc<super::Shared>);

impl Ops {
    /// Most bytes of payload that a transaction may have: what a face bounds a body by.
    pub(crate) fn max_transaction_size(&self) -> u64 {
        todo!()
    }

    /// Topic that an empty one stands for.
    pub(crate) fn default_topic(&self) -> &str {
        todo!()
    }

    /// This node's clock.
    pub(crate) fn now(&self) -> WallTime {
        todo!()
    }
}
