//! Operations that clients of the original ask for, whatever face they come by.
//!
//! Every value of a request may be anything: what an operation cannot use is [`Refusal::Invalid`] with a
//! sentence for the client, and nothing that a client says is an error of this node.

mod communication;
pub(super) mod discovery;
mod overview;
mod transaction;

pub(super) use self::overview::Overview;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::types::{PeerId, TransactionId, WallTime};

/// Maximum number of characters of a client's id.
const MAX_ID_CHARS: usize = 64;

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
}

/// Transaction that was looked up.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Id of the transaction.
    pub(crate) id: TransactionId,
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
        self.0.settings.max_transaction_size
    }

    /// Topic that an empty one stands for where something is published.
    pub(crate) fn default_topic(&self) -> &str {
        &self.0.settings.compat.default_topic
    }

    /// Time by the node's clock.
    pub(crate) fn now(&self) -> WallTime {
        self.0.backend.now()
    }

    /// Id of the node.
    pub(crate) fn peer_id(&self) -> PeerId {
        self.0.backend.peer_id()
    }

    /// Id of a peer of this network, or of this node.
    async fn native(&self, id: &str) -> Option<PeerId> {
        let id: PeerId = id.parse().ok()?;
        let is_native =
            id == self.peer_id() || self.0.peers().await.iter().any(|peer| peer.peer == id);
        is_native.then_some(id)
    }

    /// Checks an id by which a client calls itself, where it does.
    fn check_caller(id: &str, field: &str) -> Result<(), Refusal> {
        if id.is_empty() || is_id(id) {
            return Ok(());
        }
        Err(Refusal::Invalid(format!(
            "{field} is not 1 to 64 characters without control characters"
        )))
    }
}

/// Reports whether a text may be the id of a client.
fn is_id(text: &str) -> bool {
    is_plain(text, MAX_ID_CHARS) && !text.is_empty()
}

/// Reports whether a text has at most so many characters, none of them a control character.
fn is_plain(text: &str, most: usize) -> bool {
    text.len() <= 4 * most && text.chars().count() <= most && !text.chars().any(char::is_control)
}
