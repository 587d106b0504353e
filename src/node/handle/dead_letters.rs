//! Dead letters: entries that the outbox has given up, in the hands of the host.

use tokio::sync::oneshot;

use crate::error::{DeadLetterError, RedeliverError};
use crate::node::messages::{Command, OutboxSettled, Redelivered};
use crate::ports::EntryFilter;
use crate::types::{EntryState, Transaction, TransactionId, WallTime};

use super::peer_node::PeerNode;
use super::receipt::{Outcome, Receipt};

/// Maximum number of bytes of payload in one answer of [`PeerNode::dead_letters`], beyond the first.
const PAGE_BYTES: usize = 16 << 20;

/// Own transaction that no peer took, or too few before it expired. A dead letter stays until it is
/// redelivered or deleted, also over restarts, and counts towards the capacity of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Sequence number in the outbox: rises in the order of publishing, never reused.
    pub seq: u64,
    /// The transaction.
    pub transaction: Transaction,
    /// Reason for which the outbox gave the transaction up.
    pub reason: String,
    /// Time at which the outbox gave the transaction up.
    pub since: WallTime,
}

impl PeerNode {
    /// Dead letters in the order of publishing, those with a [`DeadLetter::seq`] above `after`: at
    /// most `limit`, and fewer where payloads are large (16 MiB in one answer, beyond the first).
    /// Empty means that there are no more. Cancel safe.
    ///
    /// # Errors
    /// [`DeadLetterError::Store`] or [`DeadLetterError::Closed`]; nothing changed.
    pub async fn dead_letters(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DeadLetterError> {
        // A dead letter of which an event has told is to be found.
        self.settle_outbox().await?;
        let page = self.0.queue.load(EntryFilter::Dead, after, limit, PAGE_BYTES).await?;
        let dead = page.into_iter().filter_map(|entry| match entry.state {
            EntryState::Dead { reason, since } => {
                let (seq, transaction) = (entry.seq, entry.transaction);
                Some(DeadLetter { seq, transaction, reason, since })
            }
            EntryState::Waiting { .. } => None,
        });
        Ok(dead.collect())
    }

    /// Takes a dead letter back, as one does when what kept it from spreading is mended: it waits for
    /// copies again, with all its attempts. One that has expired, or was dated
    /// by a clock that was ahead, is published anew, under a new id, which the receipt names; the dead letter is then
    /// deleted. Not cancel safe in one respect: a future dropped before it is ready may have
    /// published anew and not have deleted.
    ///
    /// # Errors
    /// [`RedeliverError`]; it is still a dead letter, unless there was none.
    pub async fn redeliver(&self, id: TransactionId) -> Result<Receipt, RedeliverError> {
        let transaction = self.dead_letter(id).await?;
        let header = transaction.header();
        let (now, config) = (self.0.clock.now(), &self.0.config);
        let retained = header.created.plus(config.gossip.retention);
        let is_due = header.created <= now.plus(config.network.max_clock_skew);
        if is_due && header.expires.min(retained) > now {
            let (reply, answer) = oneshot::channel();
            let revive = Command::Redeliver { id, reply };
            self.command(revive).await?;
            match answer.await.map_err(|_| RedeliverError::Closed)? {
                Redelivered::Waiting(status) => {
                    return Ok(Receipt::new(id, Outcome::Published, status));
                }
                // To publish it anew would have every peer store it twice.
                Redelivered::Gone => return Err(RedeliverError::NotFound { id }),
                Redelivered::Forgotten => {}
            }
        }
        let payload = transaction.payload().clone();
        let receipt = self.publish(header.topic.as_str(), payload).await?;
        if let Err(error) = self.delete_dead_letter(id).await {
            // It was published: to say otherwise would have it published once more.
            tracing::warn!(target: "sorcha_peer::node", %id, %error, "a redelivered dead letter stays");
        }
        Ok(receipt)
    }

    /// Deletes a dead letter for good; when this returns it is gone from the outbox, also for the
    /// next process. Peers that have stored it keep it. A future dropped before it is ready may or may not
    /// have deleted.
    ///
    /// # Errors
    /// [`DeadLetterError`]; it is still a dead letter, unless there was none.
    pub async fn delete_dead_letter(&self, id: TransactionId) -> Result<(), DeadLetterError> {
        self.dead_letter(id).await?;
        let (reply, answer) = oneshot::channel();
        self.command(Command::DropDeadLetter { id, reply }).await?;
        settled(answer.await)
    }

    /// The transaction of a dead letter.
    async fn dead_letter(&self, id: TransactionId) -> Result<Transaction, DeadLetterError> {
        self.settle_outbox().await?;
        match self.0.queue.get(&id).await? {
            Some(entry) if matches!(entry.state, EntryState::Dead { .. }) => Ok(entry.transaction),
            _ => Err(DeadLetterError::NotFound { id }),
        }
    }

    /// Waits until the stored outbox is as the protocol has it now.
    async fn settle_outbox(&self) -> Result<(), DeadLetterError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::SettleOutbox { reply }).await?;
        settled(answer.await)
    }
}

fn settled(answer: Result<OutboxSettled, oneshot::error::RecvError>) -> OutboxSettled {
    answer.unwrap_or(Err(DeadLetterError::Closed))
}
