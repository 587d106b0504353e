//! Backfill of the log: own transactions of an earlier run for which the log had no room when the node
//! started.
//!
//! Such a transaction is safe in the outbox and counts there. It is delivered and spread once the log
//! has it, in the order of publishing; until then the node says that its storage fails.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::error::StoreError;
use crate::node::messages::Completion;
use crate::ports::{TransactionQueue, TransactionStore};
use crate::protocol::Input;
use crate::types::{Cursor, EntryState, NewEntry, Transaction, TransactionId};

use super::store_health::{Health, StoreName, guarded};

/// Delay before a log that refused is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// Transactions that the log lacks, in the order of publishing.
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
            let result = guarded(self.append(id)).await;
            self.health.note(StoreName::Log, &result);
            if result.is_ok() {
                self.ids.pop_front();
            } else {
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    async fn append(&self, id: TransactionId) -> Result<(), StoreError> {
        // Missing means confirmed: a peer has kept the transaction from the earlier run.
        let Some(entry) = self.queue.get(&id).await? else { return Ok(()) };
        if matches!(entry.state, EntryState::Dead { .. }) {
            return Ok(());
        }
        let transaction = entry.transaction.clone();
        let cursors = self.log.append(&[own_entry(entry.transaction, self.retention)]).await?;
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

/// Makes the log's entry of an own transaction.
pub(in crate::node) fn own_entry(transaction: Transaction, retention: Duration) -> NewEntry {
    let header = transaction.header();
    let keep_until = header.expires.min(header.created.plus(retention));
    NewEntry { transaction, from: None, hops: 0, keep_until }
}
