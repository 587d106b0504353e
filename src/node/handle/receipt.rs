//! What became of a published transaction.

use std::collections::HashMap;

use futures::{Stream, stream};
use tokio::sync::watch;

use crate::error::ReplicationError;
use crate::types::{PublishState, PublishStatus, TransactionId};

/// What a publish did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The transaction is new, and safe.
    Published,
    /// It had been published before, and is safe: nothing was done.
    AlreadyPublished,
}

/// Proof that `publish` accepted a transaction, and a view of how far it got. Dropping it changes
/// nothing.
#[derive(Debug, Clone)]
pub struct Receipt {
    id: TransactionId,
    outcome: Outcome,
    status: watch::Receiver<PublishStatus>,
}

impl Receipt {
    /// The transaction's id.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// Whether this call published it.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The same receipt, of a call that found it published.
    pub(in crate::node) fn repeated(self) -> Self {
        Self { outcome: Outcome::AlreadyPublished, ..self }
    }

    /// How many other nodes have confirmed that they stored it.
    pub fn copies(&self) -> u32 {
        self.status.borrow().copies
    }

    /// How far it got up to now.
    pub fn status(&self) -> PublishStatus {
        self.status.borrow().clone()
    }

    /// How far it got now, and again whenever that changes; quick changes may be seen as one. Ends
    /// when the node is shut down, and where nothing more is counted.
    pub fn changes(&self) -> impl Stream<Item = PublishStatus> + Send + Unpin + use<> {
        let mut status = self.status.clone();
        status.mark_changed();
        Box::pin(stream::unfold(status, |mut status| async move {
            status.changed().await.ok()?;
            let now = status.borrow_and_update().clone();
            Some((now, status))
        }))
    }

    /// Waits until `copies` other nodes have confirmed that they stored it. Only peers that are
    /// linked to this node confirm, so more than there are links never comes. Cancel safe.
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

/// The driver's side of receipts. Bounded: what nobody watches any more is dropped when it next
/// changes, and all such entries are swept whenever the table has doubled.
#[derive(Debug, Default)]
pub(in crate::node) struct Receipts {
    watched: HashMap<TransactionId, watch::Sender<PublishStatus>>,
    sweep_at: usize,
}

impl Receipts {
    pub(in crate::node) fn watch(&mut self, id: TransactionId) -> Receipt {
        if self.watched.len() >= self.sweep_at.max(1024) {
            self.watched.retain(|_, sender| !sender.is_closed());
            self.sweep_at = self.watched.len() * 2;
        }
        let status = self.watched.entry(id).or_default().subscribe();
        Receipt { id, outcome: Outcome::Published, status }
    }

    /// Of what was published before, and got so far.
    pub(in crate::node) fn watch_again(
        &mut self,
        id: TransactionId,
        known: PublishStatus,
    ) -> Receipt {
        if known.settled {
            let (_, status) = watch::channel(known);
            return Receipt { id, outcome: Outcome::Published, status };
        }
        let receipt = self.watch(id);
        if let Some(sender) = self.watched.get(&id) {
            sender.send_if_modified(|status| {
                let before = std::mem::replace(status, known);
                status.renewed_as = before.renewed_as;
                *status != before
            });
        }
        receipt
    }

    pub(in crate::node) fn copied(&mut self, id: &TransactionId, copies: u32) {
        self.update(id, |status| {
            status.copies = copies;
            if status.state != PublishState::Confirmed {
                // Whoever confirms takes it back from the dead letters.
                status.state = PublishState::Waiting;
            }
        });
    }

    /// Who waits for `old` waits for `new` from now on.
    pub(in crate::node) fn renewed(&mut self, old: &TransactionId, new: TransactionId) {
        if let Some(sender) = self.watched.remove(old) {
            sender.send_modify(|status| status.renewed_as = Some(new));
            self.watched.insert(new, sender);
        }
    }

    /// No more copies are counted: whoever waits for them is told so.
    pub(in crate::node) fn forget(&mut self, id: &TransactionId) {
        if let Some(sender) = self.watched.remove(id) {
            sender.send_if_modified(|status| {
                status.settled = true;
                // Nothing that is shown changes; that the sender is gone wakes them.
                false
            });
        }
    }

    pub(in crate::node) fn set_state(&mut self, id: &TransactionId, state: PublishState) {
        self.update(id, |status| status.state = state);
    }

    fn update(&mut self, id: &TransactionId, change: impl FnOnce(&mut PublishStatus)) {
        let Some(sender) = self.watched.get(id) else { return };
        sender.send_modify(change);
        if sender.is_closed() {
            self.watched.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_receipt_of_what_was_published_before_knows_how_far_it_got() {
        let id = |n| TransactionId::from_bytes([n; 32]);
        let mut receipts = Receipts::default();
        let status =
            |copies, state, settled| PublishStatus { copies, state, settled, renewed_as: None };
        let confirmed = |copies| status(copies, PublishState::Confirmed, false);
        let given_up = PublishState::DeadLetter { reason: "nobody took it".to_owned() };
        let first = receipts.watch_again(id(1), confirmed(2));
        first.replicated(2).await.unwrap();
        receipts.copied(&id(1), 3);
        first.replicated(3).await.unwrap();
        let same = receipts.watch_again(id(1), confirmed(3));
        assert_eq!(first.status(), same.status());
        let dead = receipts.watch_again(id(2), status(0, given_up, false));
        let error = dead.replicated(1).await.unwrap_err();
        assert!(matches!(error, ReplicationError::DeadLetter { .. }), "{error}");
        let old = receipts.watch_again(id(3), status(1, PublishState::Confirmed, true));
        old.replicated(1).await.unwrap();
        let error = old.replicated(2).await.unwrap_err();
        assert!(matches!(error, ReplicationError::NotCounted), "{error}");
        assert_eq!(receipts.watched.len(), 2, "nothing is to come of the third");
        let waiting = first.replicated(4);
        receipts.forget(&id(1));
        let error = waiting.await.unwrap_err();
        assert!(matches!(error, ReplicationError::NotCounted), "{error}");
        let shut_down = receipts.watch(id(4));
        drop(receipts);
        let error = shut_down.replicated(1).await.unwrap_err();
        assert!(matches!(error, ReplicationError::Closed), "{error}");
    }

    #[test]
    fn a_receipt_follows_what_was_published_anew() {
        let id = |n| TransactionId::from_bytes([n; 32]);
        let mut receipts = Receipts::default();
        let receipt = receipts.watch(id(1));
        receipts.renewed(&id(1), id(2));
        let same = receipts.watch(id(2));
        receipts.copied(&id(2), 3);
        assert_eq!((receipt.copies(), same.copies()), (3, 3));
        assert_eq!((receipt.id(), receipt.status().renewed_as), (id(1), Some(id(2))));
        receipts.set_state(&id(1), PublishState::Confirmed);
        assert_eq!(receipt.status().state, PublishState::Waiting, "there is no such entry");
        receipts.renewed(&id(8), id(9));
        assert_eq!(receipts.watched.len(), 1, "nobody waits for it");
    }
}
