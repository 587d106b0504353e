//! Receipts of published transactions.

use futures::{Stream, stream};
use tokio::sync::watch;

use crate::error::ReplicationError;
use crate::types::{PublishState, PublishStatus, TransactionId};

/// Outcome of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Published by this call: outbox and log have the transaction.
    Published,
    /// Published before: outbox and log have the transaction, and nothing was done.
    AlreadyPublished,
}

/// Proof that `publish` accepted a transaction, and a view of how far it got. Dropping it changes
/// nothing.
///
/// ```
/// use std::time::Duration;
/// use sorcha_peer::{PeerNode, PublishState};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = PeerNode::builder().listen("127.0.0.1:0").start().await?;
/// let receipt = node.publish("orders", "one widget").await?;
/// println!("{} is safe here", receipt.id());
///
/// // Wait for two other nodes to store it, but not for ever.
/// match tokio::time::timeout(Duration::from_millis(10), receipt.replicated(2)).await {
///     Ok(Ok(())) => println!("two others have it"),
///     Ok(Err(error)) => eprintln!("it did not spread: {error}"),
///     Err(_) => println!("{} others have it so far; the node goes on", receipt.copies()),
/// }
/// assert_eq!(receipt.status().state, PublishState::Waiting);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Receipt {
    id: TransactionId,
    outcome: Outcome,
    status: watch::Receiver<PublishStatus>,
    clock_offset_ms: Option<i64>,
}

impl Receipt {
    pub(in crate::node) fn new(
        id: TransactionId,
        outcome: Outcome,
        status: watch::Receiver<PublishStatus>,
    ) -> Self {
        Self { id, outcome, status, clock_offset_ms: None }
    }

    /// The clock of this machine was found off by so much when the transaction was dated.
    pub(in crate::node) fn dated_off(self, clock_offset_ms: Option<i64>) -> Self {
        Self { clock_offset_ms, ..self }
    }

    /// Id of the transaction.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// Outcome of the call: tells whether it published the transaction.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Number of milliseconds from this machine's clock to the peers' time, if the clock was found off when
    /// the transaction was published: it was dated by the peers' time. See
    /// [`PeerNode::clock_offset_ms`](super::PeerNode::clock_offset_ms).
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.clock_offset_ms
    }

    /// Number of other nodes that have confirmed that they stored the transaction.
    pub fn copies(&self) -> u32 {
        self.status.borrow().copies
    }

    /// Status of the transaction now.
    pub fn status(&self) -> PublishStatus {
        self.status.borrow().clone()
    }

    /// Yields the status now, and again whenever it changes; quick changes may be seen as one. Ends
    /// when the node is shut down, and where no more copies are counted.
    pub fn changes(&self) -> impl Stream<Item = PublishStatus> + Send + Unpin + use<> {
        let mut status = self.status.clone();
        status.mark_changed();
        Box::pin(stream::unfold(status, |mut status| async move {
            status.changed().await.ok()?;
            let now = status.borrow_and_update().clone();
            Some((now, status))
        }))
    }

    /// Waits until `copies` other nodes have confirmed that they stored the transaction. Only peers
    /// that are linked to this node confirm, so more than there are links never comes. Cancel safe.
    ///
    /// # Errors
    /// [`ReplicationError`] when it becomes a dead letter or the node is shut down first, and where
    /// copies are no longer counted.
    pub async fn replicated(&self, copies: u32) -> Result<(), ReplicationError> {
        let is_decided = |status: &PublishStatus| {
            status.copies >= copies || matches!(status.state, PublishState::DeadLetter { .. })
        };
        let mut status = self.status.clone();
        let ended = || {
            let is_settled = self.status.borrow().settled;
            if is_settled { ReplicationError::NotCounted } else { ReplicationError::Closed }
        };
        let seen = status.wait_for(is_decided).await.map_err(|_| ended())?;
        match &seen.state {
            _ if seen.copies >= copies => Ok(()),
            PublishState::DeadLetter { reason } => {
                Err(ReplicationError::DeadLetter { reason: reason.clone() })
            }
            _ => Err(ReplicationError::Closed),
        }
    }
}
