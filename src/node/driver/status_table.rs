//! Status of publishes, for the receipts that watch it.
//!
//! Bounds: an entry that nobody watches is dropped when it next changes, and all such entries are
//! swept whenever the table has doubled.

use std::collections::HashMap;

use tokio::sync::watch;

use crate::types::{PublishState, PublishStatus, Refusal, TransactionId};

/// Table of the publishes whose status somebody watches.
#[derive(Debug, Default)]
pub(super) struct StatusTable {
    watched: HashMap<TransactionId, watch::Sender<PublishStatus>>,
    sweep_at: usize,
}

impl StatusTable {
    pub(super) fn watch(&mut self, id: TransactionId) -> watch::Receiver<PublishStatus> {
        if self.watched.len() >= self.sweep_at.max(1024) {
            self.watched.retain(|_, sender| !sender.is_closed());
            self.sweep_at = self.watched.len() * 2;
        }
        self.watched.entry(id).or_default().subscribe()
    }

    /// Watches what was published before and has the status `known`.
    pub(super) fn watch_again(
        &mut self,
        id: TransactionId,
        known: PublishStatus,
    ) -> watch::Receiver<PublishStatus> {
        if known.settled {
            let (_, receiver) = watch::channel(known);
            return receiver;
        }
        let receiver = self.watch(id);
        if let Some(sender) = self.watched.get(&id) {
            sender.send_if_modified(|status| {
                let before = std::mem::replace(status, known);
                status.renewed_as = before.renewed_as;
                *status != before
            });
        }
        receiver
    }

    pub(super) fn copied(&mut self, id: &TransactionId, copies: u32) {
        self.update(id, |status| {
            status.copies = copies;
            if status.state != PublishState::Confirmed {
                // Whoever confirms takes it back from the dead letters.
                status.state = PublishState::Waiting;
            }
        });
    }

    pub(super) fn refused(&mut self, id: &TransactionId, reason: Refusal) {
        self.update(id, |status| status.refused = Some(reason));
    }

    /// Moves whoever waits for `old` to `new`.
    pub(super) fn renewed(&mut self, old: &TransactionId, new: TransactionId) {
        if let Some(sender) = self.watched.remove(old) {
            sender.send_modify(|status| (status.renewed_as, status.refused) = (Some(new), None));
            self.watched.insert(new, sender);
        }
    }

    /// Ends the count of copies and tells whoever waits for more.
    pub(super) fn forget(&mut self, id: &TransactionId) {
        if let Some(sender) = self.watched.remove(id) {
            sender.send_if_modified(|status| {
                status.settled = true;
                // Nothing that is shown changes; that the sender is gone wakes them.
                false
            });
        }
    }

    pub(super) fn set_state(&mut self, id: &TransactionId, state: PublishState) {
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
    use crate::error::ReplicationError;
    use crate::node::handle::{Outcome, Receipt};

    fn id(n: u8) -> TransactionId {
        TransactionId::from_bytes([n; 32])
    }

    fn receipt(n: u8, status: watch::Receiver<PublishStatus>) -> Receipt {
        Receipt::new(id(n), Outcome::Published, status)
    }

    #[tokio::test]
    async fn a_receipt_of_what_was_published_before_knows_how_far_it_got() {
        let mut table = StatusTable::default();
        let status =
            |copies, state, settled| PublishStatus { copies, state, settled, ..Default::default() };
        let confirmed = |copies| status(copies, PublishState::Confirmed, false);
        let given_up = PublishState::DeadLetter { reason: "nobody took it".to_owned() };
        let first = receipt(1, table.watch_again(id(1), confirmed(2)));
        first.replicated(2).await.unwrap();
        table.copied(&id(1), 3);
        first.replicated(3).await.unwrap();
        let same = receipt(1, table.watch_again(id(1), confirmed(3)));
        assert_eq!(first.status(), same.status());
        let dead = receipt(2, table.watch_again(id(2), status(0, given_up, false)));
        let error = dead.replicated(1).await.unwrap_err();
        assert!(matches!(error, ReplicationError::DeadLetter { .. }), "{error}");
        let old = receipt(3, table.watch_again(id(3), status(1, PublishState::Confirmed, true)));
        old.replicated(1).await.unwrap();
        let error = old.replicated(2).await.unwrap_err();
        assert!(matches!(error, ReplicationError::NotCounted), "{error}");
        assert_eq!(table.watched.len(), 2, "nothing is to come of the third");
        let waiting = first.replicated(4);
        table.forget(&id(1));
        let error = waiting.await.unwrap_err();
        assert!(matches!(error, ReplicationError::NotCounted), "{error}");
        let shut_down = receipt(4, table.watch(id(4)));
        drop(table);
        let error = shut_down.replicated(1).await.unwrap_err();
        assert!(matches!(error, ReplicationError::Closed), "{error}");
    }

    #[test]
    fn a_receipt_follows_what_was_published_anew() {
        let mut table = StatusTable::default();
        let first = receipt(1, table.watch(id(1)));
        table.renewed(&id(1), id(2));
        let same = receipt(2, table.watch(id(2)));
        table.copied(&id(2), 3);
        assert_eq!((first.copies(), same.copies()), (3, 3));
        assert_eq!((first.id(), first.status().renewed_as), (id(1), Some(id(2))));
        table.set_state(&id(1), PublishState::Confirmed);
        assert_eq!(first.status().state, PublishState::Waiting, "there is no such entry");
        table.renewed(&id(8), id(9));
        assert_eq!(table.watched.len(), 1, "nobody waits for it");
    }
}
