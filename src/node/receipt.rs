//! What became of a published transaction.

use std::collections::HashMap;

use futures::{Stream, stream};
use tokio::sync::watch;

use crate::error::ReplicationError;
use crate::protocol::{Place, Reached};
use crate::types::TransactionId;

/// Where a published transaction stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Standing {
    /// In the outbox, until enough other nodes have stored it.
    #[default]
    Waiting,
    /// Out of the outbox: `min_copies` other nodes have stored it, or all that were linked and
    /// well. Also what the host has deleted from the dead letters and publishes once more.
    Confirmed,
    /// Given up for now; listed by [`PeerNode::dead_letters`](super::PeerNode::dead_letters).
    DeadLetter {
        /// Why.
        reason: String,
    },
}

/// How far a published transaction got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// How many other nodes have confirmed that they stored it. Of what left the outbox in an earlier
    /// run, or long ago, one is taken for granted, and no more are counted: a dead letter that the
    /// host deleted then shows one too, though perhaps nobody has it.
    pub copies: u32,
    /// Where it stands.
    pub standing: Standing,
    /// The id under which it was published anew, because it had expired before any other node had
    /// it; the rest of this is about that one then.
    pub renewed_as: Option<TransactionId>,
    /// Whether no more copies are counted.
    forgotten: bool,
}

impl From<Reached> for Progress {
    fn from(Reached { copies, place }: Reached) -> Self {
        let standing = match place {
            Place::Waiting => Standing::Waiting,
            Place::Finished => Standing::Confirmed,
            Place::Dead(why) => Standing::DeadLetter { reason: why.reason().to_owned() },
        };
        let forgotten = copies.is_none();
        Self { copies: copies.unwrap_or(1), standing, renewed_as: None, forgotten }
    }
}

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
    progress: watch::Receiver<Progress>,
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
    pub(super) fn repeated(self) -> Self {
        Self { outcome: Outcome::AlreadyPublished, ..self }
    }

    /// How many other nodes have confirmed that they stored it.
    pub fn copies(&self) -> u32 {
        self.progress.borrow().copies
    }

    /// How far it got up to now.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// How far it got now, and again whenever that changes; quick changes may be seen as one. Ends
    /// when the node is shut down, and where nothing more is counted.
    pub fn changes(&self) -> impl Stream<Item = Progress> + Send + Unpin + use<> {
        let mut progress = self.progress.clone();
        progress.mark_changed();
        Box::pin(stream::unfold(progress, |mut progress| async move {
            progress.changed().await.ok()?;
            let now = progress.borrow_and_update().clone();
            Some((now, progress))
        }))
    }

    /// Waits until `copies` other nodes have confirmed that they stored it. Only peers that are
    /// linked to this node confirm, so more than there are links never comes. Cancel safe.
    ///
    /// # Errors
    /// [`ReplicationError`] when it becomes a dead letter or the node is shut down first, and where
    /// copies are no longer counted.
    pub async fn replicated(&self, copies: u32) -> Result<(), ReplicationError> {
        let settled = |progress: &Progress| {
            progress.copies >= copies || matches!(progress.standing, Standing::DeadLetter { .. })
        };
        let mut progress = self.progress.clone();
        let ended = || {
            let is_forgotten = self.progress.borrow().forgotten;
            if is_forgotten { ReplicationError::NotCounted } else { ReplicationError::Closed }
        };
        let seen = progress.wait_for(settled).await.map_err(|_| ended())?;
        match &seen.standing {
            _ if seen.copies >= copies => Ok(()),
            Standing::DeadLetter { reason } => {
                Err(ReplicationError::DeadLetter { reason: reason.clone() })
            }
            _ => Err(ReplicationError::Closed),
        }
    }
}

/// The driver's side of receipts. Bounded: what nobody watches any more is dropped when it next
/// changes, and all such entries are swept whenever the table has doubled.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    watched: HashMap<TransactionId, watch::Sender<Progress>>,
    sweep_at: usize,
}

impl Receipts {
    pub(super) fn watch(&mut self, id: TransactionId) -> Receipt {
        if self.watched.len() >= self.sweep_at.max(1024) {
            self.watched.retain(|_, sender| !sender.is_closed());
            self.sweep_at = self.watched.len() * 2;
        }
        let progress = self.watched.entry(id).or_default().subscribe();
        Receipt { id, outcome: Outcome::Published, progress }
    }

    /// Of what was published before, and got so far.
    pub(super) fn watch_again(&mut self, id: TransactionId, reached: Reached) -> Receipt {
        let known = Progress::from(reached);
        if reached.copies.is_none() {
            let (_, progress) = watch::channel(known);
            return Receipt { id, outcome: Outcome::Published, progress };
        }
        let receipt = self.watch(id);
        if let Some(sender) = self.watched.get(&id) {
            sender.send_if_modified(|progress| {
                let before = std::mem::replace(progress, known);
                progress.renewed_as = before.renewed_as;
                *progress != before
            });
        }
        receipt
    }

    pub(super) fn copied(&mut self, id: &TransactionId, copies: u32) {
        self.update(id, |progress| {
            progress.copies = copies;
            if progress.standing != Standing::Confirmed {
                // Whoever confirms takes it back from the dead letters.
                progress.standing = Standing::Waiting;
            }
        });
    }

    /// Who waits for `old` waits for `new` from now on.
    pub(super) fn renewed(&mut self, old: &TransactionId, new: TransactionId) {
        if let Some(sender) = self.watched.remove(old) {
            sender.send_modify(|progress| progress.renewed_as = Some(new));
            self.watched.insert(new, sender);
        }
    }

    /// No more copies are counted: whoever waits for them is told so.
    pub(super) fn forget(&mut self, id: &TransactionId) {
        if let Some(sender) = self.watched.remove(id) {
            sender.send_if_modified(|progress| {
                progress.forgotten = true;
                // Nothing that is shown changes; that the sender is gone wakes them.
                false
            });
        }
    }

    pub(super) fn stand(&mut self, id: &TransactionId, standing: Standing) {
        self.update(id, |progress| progress.standing = standing);
    }

    fn update(&mut self, id: &TransactionId, change: impl FnOnce(&mut Progress)) {
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
    use crate::protocol::GivenUp;

    #[tokio::test]
    async fn a_receipt_of_what_was_published_before_knows_how_far_it_got() {
        let id = |n| TransactionId::from_bytes([n; 32]);
        let mut receipts = Receipts::default();
        let reached = |copies, place| Reached { copies, place };
        let first = receipts.watch_again(id(1), reached(Some(2), Place::Finished));
        first.replicated(2).await.unwrap();
        receipts.copied(&id(1), 3);
        first.replicated(3).await.unwrap();
        let same = receipts.watch_again(id(1), reached(Some(3), Place::Finished));
        assert_eq!(first.progress(), same.progress());
        let dead = receipts.watch_again(id(2), reached(Some(0), Place::Dead(GivenUp::NoTaker)));
        let error = dead.replicated(1).await.unwrap_err();
        assert!(matches!(error, ReplicationError::DeadLetter { .. }), "{error}");
        let old = receipts.watch_again(id(3), reached(None, Place::Finished));
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
        assert_eq!((receipt.id(), receipt.progress().renewed_as), (id(1), Some(id(2))));
        receipts.stand(&id(1), Standing::Confirmed);
        assert_eq!(receipt.progress().standing, Standing::Waiting, "there is no such entry");
        receipts.renewed(&id(8), id(9));
        assert_eq!(receipts.watched.len(), 1, "nobody waits for it");
    }
}
