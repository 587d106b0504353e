//! Reading of what earlier runs left in the stores, when a node starts.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{StoreError, StoreErrorKind};
use crate::ports::{
    EntryFilter, EntryState, OutboxEntry, PeerStore, TransactionQueue, TransactionStore,
};
use crate::protocol::{GivenUp, Protocol, Queued, Restored};
use crate::types::{Cursor, TransactionId};

use super::clock::wall_now;
use super::past;
use super::workers::log_backfill::own_entry;

/// Maximum number of entries read at once.
const MAX_PAGE: usize = 1024;
/// Maximum number of bytes of payload read at once.
const MAX_PAGE_BYTES: usize = 2 << 20;

/// Stores of a node that starts.
pub(super) struct Stores {
    pub(super) peers: Arc<dyn PeerStore>,
    pub(super) queue: Arc<dyn TransactionQueue>,
    pub(super) log: Arc<dyn TransactionStore>,
    pub(super) retention: Duration,
}

impl Stores {
    /// Reads everything but the index of the log. The second answer is the own transactions for which
    /// the log has no room, in the order of publishing.
    pub(super) async fn restore(&self) -> Result<(Restored, VecDeque<TransactionId>), StoreError> {
        let (peers, bans) = self.peers.load().await?;
        // Nothing expires yet: what time it is the protocol judges, from what is stored and from peers.
        let (outbox, unlogged) = self.restore_outbox().await?;
        let max_bytes = self.log.usage().await?.max_bytes;
        let partials = self.log.partials().await?;
        let (whole_since, whole_until) = past::load(&*self.log).await?;
        let restored = Restored {
            peers,
            bans,
            outbox,
            max_bytes,
            partials,
            whole_since,
            whole_until,
            ..Restored::default()
        };
        Ok((restored, unlogged))
    }

    /// Tells the protocol what is retained, a page at a time: all at once would take more memory for
    /// a moment than the node ever needs.
    pub(super) async fn restore_index(&self, protocol: &mut Protocol) -> Result<(), StoreError> {
        let mut after = Cursor::default();
        loop {
            let page = self.log.index(after, MAX_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.cursor;
            protocol.restore(&page);
        }
    }

    /// Reads the outbox. A log that was lost or lags behind the outbox gets its own transactions
    /// again, in order; those for which it has no room are the second answer. Expired ones are
    /// republished later.
    async fn restore_outbox(&self) -> Result<(Vec<Queued>, VecDeque<TransactionId>), StoreError> {
        let (mut outbox, mut unlogged) = (Vec::new(), VecDeque::new());
        for filter in [EntryFilter::Waiting, EntryFilter::Dead] {
            let mut after = None;
            loop {
                let page = self.queue.load(filter, after, MAX_PAGE, MAX_PAGE_BYTES).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.seq);
                let left_out = match filter {
                    EntryFilter::Waiting => self.log_again(&page, unlogged.is_empty()).await?,
                    _ => Vec::new(),
                };
                let left_set: BTreeSet<_> = left_out.iter().collect();
                outbox.extend(page.iter().map(|entry| {
                    let is_unlogged = left_set.contains(&entry.transaction.id());
                    restored_entry(entry, is_unlogged)
                }));
                unlogged.extend(left_out);
            }
        }
        Ok((outbox, unlogged))
    }

    /// Appends to the log what has not expired, if it `has_room`, and returns what it does not take.
    /// In order: behind an entry that did not fit, none is tried.
    async fn log_again(
        &self,
        page: &[OutboxEntry],
        has_room: bool,
    ) -> Result<Vec<TransactionId>, StoreError> {
        let now = wall_now();
        let entries = page.iter().map(|e| own_entry(e.transaction.clone(), self.retention));
        let entries: Vec<_> = entries.filter(|entry| entry.keep_until > now).collect();
        if has_room && unless_full(self.log.append(&entries).await)?.is_some() {
            return Ok(Vec::new());
        }
        Ok(entries.iter().map(|entry| entry.transaction.id()).collect())
    }
}

/// Turns the error of a full store into `None`: it does not keep a node from starting.
fn unless_full<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Err(error) if error.kind == StoreErrorKind::Full => {
            tracing::warn!(target: "sorcha_peer::store", %error, "started with a full store");
            Ok(None)
        }
        result => result.map(Some),
    }
}

fn restored_entry(entry: &OutboxEntry, is_unlogged: bool) -> Queued {
    let (attempts, dead) = match &entry.state {
        EntryState::Waiting { attempts, .. } => (*attempts, None),
        EntryState::Dead { reason, .. } => (0, Some(GivenUp::of(reason))),
    };
    let (id, created) = (entry.transaction.id(), entry.transaction.header().created);
    Queued { id, created, attempts, dead, unlogged: is_unlogged }
}
