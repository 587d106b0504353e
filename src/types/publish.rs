//! How far a published transaction got.

use super::{Refusal, TransactionId};

/// Status of a transaction that this node has published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PublishStatus {
    /// Number of other nodes that have confirmed that they stored it. Of what left the outbox in an
    /// earlier run, or long ago, one is taken for granted: a dead letter that the host deleted then
    /// shows one too, though perhaps nobody has it.
    pub copies: u32,
    /// State of its entry in the outbox.
    pub state: PublishState,
    /// True: `copies` is final because this node no longer counts; the transaction left the outbox
    /// in an earlier run, or long ago.
    pub settled: bool,
    /// Reason that a peer gave most recently for not taking it, while it waits or is a dead letter. A
    /// peer may take later what it refuses for a clock, a share or a rate.
    pub refused: Option<Refusal>,
    /// The id under which it was published anew, because it had expired before any other node had
    /// it; the rest of the status is about that one then.
    pub renewed_as: Option<TransactionId>,
}

/// State of a published transaction in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PublishState {
    /// Waiting in the outbox until enough other nodes have stored the transaction.
    #[default]
    Waiting,
    /// Out of the outbox: `min_copies` other nodes have stored it, or all that were linked and
    /// well. Also what the host has deleted from the dead letters and publishes once more.
    Confirmed,
    /// Given up for now; listed by `PeerNode::dead_letters`.
    DeadLetter {
        /// Reason why the transaction did not spread, in words.
        reason: String,
    },
}
