//! What became of a published transaction.

use std::collections::HashMap;

use tokio::sync::watch;

use crate::error::NodeClosed;
use crate::types::TransactionId;

/// Proof that `publish` accepted a transaction, and a view of how far it got. Dropping it changes
/// nothing.
#[derive(Debug, Clone)]
pub struct Receipt {
    id: TransactionId,
    copies: watch::Receiver<u32>,
}

impl Receipt {
    /// The transaction's id.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// How many other nodes have confirmed that they stored it.
    pub fn copies(&self) -> u32 {
        *self.copies.borrow()
    }

    /// Waits until `copies` other nodes have confirmed that they stored it. Only peers that are
    /// linked to this node confirm, so more than there are links never comes. Cancel safe.
    ///
    /// # Errors
    /// [`NodeClosed`] when the node is shut down first.
    pub async fn replicated(&self, copies: u32) -> Result<(), NodeClosed> {
        let mut seen = self.copies.clone();
        seen.wait_for(|have| *have >= copies).await.map(|_| ()).map_err(|_| NodeClosed)
    }
}

/// The driver's side of receipts. Bounded: what nobody watches any more is dropped when it next
/// changes, and all such entries are swept whenever the table has doubled.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    watched: HashMap<TransactionId, watch::Sender<u32>>,
    sweep_at: usize,
}

impl Receipts {
    pub(super) fn watch(&mut self, id: TransactionId) -> Receipt {
        if self.watched.len() >= self.sweep_at.max(1024) {
            self.watched.retain(|_, sender| !sender.is_closed());
            self.sweep_at = self.watched.len() * 2;
        }
        let sender = self.watched.entry(id).or_insert_with(|| watch::Sender::new(0));
        Receipt { id, copies: sender.subscribe() }
    }

    pub(super) fn update(&mut self, id: &TransactionId, copies: u32) {
        let Some(sender) = self.watched.get(id) else { return };
        sender.send_replace(copies);
        if sender.is_closed() {
            self.watched.remove(id);
        }
    }
}
