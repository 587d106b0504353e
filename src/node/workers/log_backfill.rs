//! Own transactions of an earlier run that the log had no room for when the node started.
//!
//! They are safe in the outbox and count there. Each is delivered and spread once the log has it,
//! in the order of publishing; until then the node says that its storage fails.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::error::StoreError;
use crate::node::messages::Completion;
use crate::ports::{TransactionQueue, TransactionStore};
use crate::protocol::Input;
use crate::types::{Cursor, EntryState, NewEntry, Transaction, TransactionId};

use super::store_health::{Health, Store, guarded};

/// Before a log that refused is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What it takes to bring them into the log.
pub(in crate::node) struct LogBackfill {
    pub(in crate::node) ids: VecDeque<TransactionId>,
    pub(in crate::node) retention: Duration,
    pub(in crate::node) queue: Arc<dyn TransactionQueue>,
    pub(in crate::node) log: Arc<dyn TransactionStore>,
    pub(in crate::node) newest: watch::Sender<Cursor>,
    pub(in crate::node) health: Arc<Health>,
    pub(in crate::node) done: mpsc::Sender<Completion>,
}

impl LogBackfill {
    /// Runs until the log has all of them.
    pub(in crate::node) async fn run(mut self) {
        while let Some(id) = self.ids.front().copied() {
            let result = guarded(self.bring(id)).await;
            self.health.note(Store::Log, &result);
            if result.is_ok() {
                self.ids.pop_front();
            } else {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn bring(&self, id: TransactionId) -> Result<(), StoreError> {
        // Who is gone was confirmed: a peer has kept it from the earlier run.
        let Some(entry) = self.queue.get(&id).await? else { return Ok(()) };
        if matches!(entry.state, EntryState::Dead { .. }) {
            return Ok(());
        }
        let transaction = entry.transaction.clone();
        let cursors = self.log.append(&[own(entry.transaction, self.retention)]).await?;
        let last = cursors.into_iter().max().unwrap_or_default();
        self.newest.send_if_modified(|newest| {
            let newer = last > *newest;
            *newest = last.max(*newest);
            newer
        });
        let logged = Completion::Inputs(vec![Input::Relogged(transaction)]);
        let _ = self.done.send(logged).await;
        Ok(())
    }
}

/// An own transaction as the log has it.
pub(in crate::node) fn own(transaction: Transaction, retention: Duration) -> NewEntry {
    let header = transaction.header();
    let keep_until = header.expires.min(header.created.plus(retention));
    NewEntry { transaction, from: None, hops: 0, keep_until }
}
