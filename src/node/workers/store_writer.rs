//! Writing of transactions to outbox and log, in order.
//!
//! The writer takes what waits, up to a bound, and stores neighbours together: group commit without
//! added delay. Own transactions go to the outbox first and to the log then, and only afterwards is
//! anybody told that they are safe. Each operation is stored whole or not at all: a store that has
//! no room for all that waits is given one operation after the other. The outbox takes one batch
//! while the log takes an earlier one and one more may wait between them; results come in order.
//!
//! A store that fails or panics costs the operation, never the writer: whoever waits is told, the
//! node says so once ([`Event::StorageFailed`](crate::types::Event::StorageFailed)), and it tries
//! again with the next operation.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{DeadLetterError, StoreError};
use crate::node::late_news::LateNews;
use crate::node::messages::{Completion, OutboxSettled, StoreFailure};
use crate::node::past::{self, AllMissed};
use crate::node::recent_traces::RecentTraces;
use crate::ports::{TransactionQueue, TransactionStore};
use crate::protocol::{Input, PartialOp, Ticket};
use crate::types::{Cursor, EntryState, NewEntry, Piece, TransactionId, WallTime, verify_piece};

use super::gather::gather;
use super::split_on_full::SplitOnFull;
use super::store_health::{Health, StoreName, guarded};

/// Maximum number of operations taken at once: enough that the cost of a commit is small beside that
/// of its rows, few enough that outbox, log and publishers have something to do at the same time.
const MAX_BATCH: usize = 256;

/// Operation on stored transactions.
#[derive(Debug)]
pub(in crate::node) enum StoreOp {
    /// Stores all of the entries or none.
    Store {
        ticket: Ticket,
        entries: Vec<NewEntry>,
        source: Source,
    },
    Confirmed {
        ids: Vec<TransactionId>,
    },
    UpdateOutbox {
        states: Vec<(TransactionId, EntryState)>,
    },
    Expire {
        now: WallTime,
    },
    /// Notes since when and until when the node is whole.
    SavePast {
        since: WallTime,
        until: Option<WallTime>,
    },
    /// Notes and tells a span that was missed.
    Missed {
        span: Range<WallTime>,
    },
    Partial(PartialOp),
    /// Answered when everything before it is done to the outbox, and `remove` is removed from it.
    Settle {
        remove: Option<TransactionId>,
        reply: oneshot::Sender<OutboxSettled>,
    },
}

/// Source of what is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Source {
    /// This node: into the outbox, and then into the log.
    Own,
    /// A peer, which offered it as news, or had it for longer.
    Peer { is_news: bool },
}

/// Writer of transactions.
pub(in crate::node) struct StoreWriter {
    pub(in crate::node) queue: Arc<dyn TransactionQueue>,
    pub(in crate::node) log: Arc<dyn TransactionStore>,
    pub(in crate::node) newest: watch::Sender<Cursor>,
    pub(in crate::node) late_news: Arc<LateNews>,
    pub(in crate::node) traces: Arc<RecentTraces>,
    pub(in crate::node) missed: watch::Sender<AllMissed>,
    pub(in crate::node) health: Arc<Health>,
    pub(in crate::node) done: mpsc::Sender<Completion>,
    /// Maximum number of payload bytes in one commit, beyond the first.
    pub(in crate::node) most_bytes: usize,
    /// Transactions that were refused because the log failed, and are still in the outbox because that
    /// failed too.
    pub(in crate::node) refused: Mutex<BTreeSet<TransactionId>>,
}

/// Operations that a store refused, each with the reason.
type Refused = HashMap<Ticket, StoreFailure>;

/// Batch that the outbox has taken, apart from what it refused, and the log has not yet.
type Enqueued = (Batch, Refused);

/// Entries to be stored, all or none.
#[derive(Debug)]
struct ToStore {
    ticket: Ticket,
    entries: Vec<NewEntry>,
    source: Source,
}

impl ToStore {
    fn is_own(&self) -> bool {
        self.source == Source::Own
    }

    fn ids(&self) -> impl Iterator<Item = TransactionId> {
        self.entries.iter().map(|entry| entry.transaction.id())
    }
}

/// Operations that are done together.
#[derive(Debug, Default)]
struct Batch {
    stores: Vec<ToStore>,
    bytes: usize,
    confirmed: Vec<TransactionId>,
    states: Vec<(TransactionId, EntryState)>,
    expire: Option<WallTime>,
    partials: Vec<PartialOp>,
    past: Option<(WallTime, Option<WallTime>)>,
    missed: Vec<Range<WallTime>>,
    settle: Vec<(Option<TransactionId>, oneshot::Sender<OutboxSettled>)>,
}

impl Batch {
    /// Takes operations while they fit.
    fn fill(&mut self, ops: &mut VecDeque<StoreOp>, most_bytes: usize) {
        while let Some(op) = ops.pop_front() {
            match op {
                StoreOp::Store { ticket, entries, source } => {
                    self.bytes +=
                        entries.iter().map(|e| e.transaction.payload().len()).sum::<usize>();
                    self.stores.push(ToStore { ticket, entries, source });
                    if self.bytes > most_bytes {
                        return;
                    }
                }
                StoreOp::Confirmed { ids } => self.confirmed.extend(ids),
                StoreOp::UpdateOutbox { states } => self.states.extend(states),
                StoreOp::SavePast { since, until } => self.past = Some((since, until)),
                StoreOp::Missed { span } => self.missed.push(span),
                StoreOp::Expire { now } => self.expire = self.expire.max(Some(now)),
                StoreOp::Partial(op) => {
                    if let PartialOp::Spill { partial, .. } = &op {
                        self.bytes += partial.pieces.iter().map(|p| p.bytes.len()).sum::<usize>();
                    }
                    self.partials.push(op);
                    if self.bytes > most_bytes {
                        return;
                    }
                }
                StoreOp::Settle { remove, reply } => self.settle.push((remove, reply)),
            }
        }
    }

    /// Returns whether there is nothing in the batch for the log.
    fn is_done(&self) -> bool {
        self.stores.is_empty()
            && self.expire.is_none()
            && self.partials.is_empty()
            && self.past.is_none()
            && self.missed.is_empty()
    }

    fn own(&self) -> impl Iterator<Item = &ToStore> {
        self.stores.iter().filter(|to_store| to_store.is_own())
    }

    fn has_own(&self, id: &TransactionId) -> bool {
        self.own().any(|own| own.ids().any(|own| own == *id))
    }
}

impl StoreWriter {
    /// Runs until `ops` is closed and everything in it is done.
    pub(in crate::node) async fn run(self, ops: mpsc::Receiver<StoreOp>) {
        // Neither store waits for the other where one takes long over a batch.
        let (to_log, mut enqueued) = mpsc::channel(1);
        let log_half = async {
            while let Some((batch, refused)) = enqueued.recv().await {
                self.append_all(batch, refused).await;
            }
        };
        futures::future::join(self.run_outbox(ops, to_log), log_half).await;
    }

    /// Does one step of a store, whose end shows that the store is not stuck.
    async fn step<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = guarded(operation).await;
        self.health.note_step();
        result
    }

    /// Does all that is for the outbox, and hands on what is for the log.
    async fn run_outbox(&self, mut ops: mpsc::Receiver<StoreOp>, to_log: mpsc::Sender<Enqueued>) {
        let mut taken = Vec::with_capacity(MAX_BATCH);
        let mut left = VecDeque::new();
        while !left.is_empty() || ops.recv_many(&mut taken, MAX_BATCH).await > 0 {
            if left.is_empty() {
                gather(&mut ops, &mut taken, MAX_BATCH).await;
                left.extend(taken.drain(..));
            }
            let mut batch = Batch::default();
            batch.fill(&mut left, self.most_bytes);
            let settle = std::mem::take(&mut batch.settle);
            // Removals first: they make room for what comes.
            self.update(&batch.states).await;
            let _ = self.remove(&batch.confirmed).await;
            self.remove_refused(&batch).await;
            if batch.expire.is_some() {
                self.probe(StoreName::Queue, self.queue.probe()).await;
            }
            let refused = self.enqueue(&batch).await;
            // What the host has published again, and is taken this time, is to stay.
            let taken = batch.own().filter(|own| !refused.contains_key(&own.ticket));
            let taken: BTreeSet<_> = taken.flat_map(ToStore::ids).collect();
            self.refused().retain(|id| !taken.contains(id));
            self.settle(settle).await;
            if !batch.is_done() {
                // It is taken for as long as there is anything.
                let _ = to_log.send((batch, refused)).await;
            }
        }
    }

    /// Appends own transactions to the outbox.
    async fn enqueue(&self, batch: &Batch) -> Refused {
        let own: Vec<_> = batch.own().collect();
        let mut split = SplitOnFull::new(own.len());
        while let Some(some) = split.next() {
            let entries = own[some].iter().flat_map(|own| &own.entries);
            let transactions: Vec<_> = entries.map(|entry| entry.transaction.clone()).collect();
            let result = self.step(self.queue.append(&transactions)).await.map(drop);
            if split.note(&result) {
                self.health.note(StoreName::Queue, &result);
            }
        }
        split.refused().into_iter().map(|(at, failure)| (own[at].ticket, failure)).collect()
    }

    /// Removes transactions from the outbox; one that stays is sent once more after a restart.
    async fn remove(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let result = self.step(self.queue.remove(ids)).await;
        self.health.note(StoreName::Queue, &result);
        result
    }

    /// Removes from the outbox what was refused because the log failed, and could not be removed
    /// then: the next process would deliver it. What the host publishes again just now stays.
    async fn remove_refused(&self, batch: &Batch) {
        let ids: Vec<_> = {
            let refused = self.refused();
            if refused.is_empty() {
                return;
            }
            refused.iter().copied().filter(|id| !batch.has_own(id)).collect()
        };
        if self.remove(&ids).await.is_ok() {
            self.refused().retain(|id| !ids.contains(id));
        }
    }

    fn refused(&self) -> MutexGuard<'_, BTreeSet<TransactionId>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what the host deletes, and answers.
    async fn settle(&self, settle: Vec<(Option<TransactionId>, oneshot::Sender<OutboxSettled>)>) {
        for (remove, reply) in settle {
            let result = self.remove(remove.as_slice()).await;
            let _ = reply.send(result.map_err(DeadLetterError::Store));
        }
    }

    /// Writes the states of outbox entries; a state that is not written costs one attempt more.
    async fn update(&self, states: &[(TransactionId, EntryState)]) {
        if !states.is_empty() {
            let result = self.step(self.queue.update(states)).await;
            self.health.note(StoreName::Queue, &result);
        }
    }

    /// Puts a batch into the log and tells who waits.
    async fn append_all(&self, batch: Batch, refused: Refused) {
        // A full or broken outbox refuses own transactions; others' are still stored.
        let wanted = batch.stores.iter().filter(|to_store| !refused.contains_key(&to_store.ticket));
        let unlogged = self.append(&wanted.collect::<Vec<_>>()).await;
        if !unlogged.is_empty() {
            let own = batch.own().filter(|own| unlogged.contains_key(&own.ticket));
            let ids: Vec<_> = own.flat_map(ToStore::ids).collect();
            if self.remove(&ids).await.is_err() {
                self.refused().extend(ids);
            }
        }
        let stored = |&ToStore { ticket, .. }: &ToStore| {
            let reason = refused.get(&ticket).or_else(|| unlogged.get(&ticket));
            (ticket, reason.map_or(Ok(()), |failure| Err(failure.clone())))
        };
        if !batch.stores.is_empty() {
            let results = batch.stores.iter().map(stored).collect();
            let _ = self.done.send(Completion::Stored(results)).await;
        }
        for op in batch.partials {
            self.partial(op).await;
        }
        for span in batch.missed {
            self.note_missed(span).await;
        }
        if let Some((since, until)) = batch.past {
            note_unsaved(&self.step(past::save(&*self.log, since, until)).await);
        }
        if let Some(now) = batch.expire {
            let result = self.step(self.log.expire(now)).await;
            // That there was nothing to drop does not show that the log works.
            if !matches!(result, Ok(0)) {
                self.health.note(StoreName::Log, &result);
            }
            self.probe(StoreName::Log, self.log.probe()).await;
        }
    }

    /// Tells subscriptions of a span that was missed.
    async fn note_missed(&self, span: Range<WallTime>) {
        let at = *self.newest.borrow();
        note_unsaved(&self.step(past::save_missed(&*self.log, at, &span)).await);
        self.missed.send_modify(|all| past::add_missed(all, at, span));
    }

    /// Finds out whether a store that failed works again. A host that waits for the node to be ready
    /// publishes nothing by which that would be seen.
    async fn probe(&self, store: StoreName, probe: impl Future<Output = Result<bool, StoreError>>) {
        if self.health.is_failing(store) {
            let result = self.step(probe).await;
            if !matches!(result, Ok(false)) {
                self.health.note(store, &result);
            }
        }
    }

    /// Does an operation on partial payloads. A failure costs a fetch its progress and nothing that
    /// was accepted.
    async fn partial(&self, op: PartialOp) {
        let (input, result) = match op {
            PartialOp::Spill { ticket, partial, max_bytes } => {
                let result = self.step(self.log.put_partial(&partial, max_bytes)).await;
                (Some(Input::Spilled { ticket, kept: result.is_ok() }), result)
            }
            PartialOp::Unspill { ticket, id, root, len } => {
                match self.step(self.log.get_partial(&id)).await {
                    Ok(pieces) => {
                        let pieces = drop_damaged(pieces, root, len).await;
                        (Some(Input::Unspilled { ticket, pieces }), Ok(()))
                    }
                    Err(e) => (Some(Input::Unspilled { ticket, pieces: Vec::new() }), Err(e)),
                }
            }
            PartialOp::Drop { ids } => (None, self.step(self.log.remove_partials(&ids)).await),
        };
        if let Err(error) = result {
            tracing::warn!(target: "sorcha_peer::store", %error, "partial payloads are not kept");
        }
        if let Some(input) = input {
            let _ = self.done.send(Completion::Inputs(vec![input])).await;
        }
    }

    /// Puts entries into the log.
    async fn append(&self, stores: &[&ToStore]) -> Refused {
        let mut split = SplitOnFull::new(stores.len());
        while let Some(some) = split.next() {
            let some = &stores[some];
            let entries = some.iter().flat_map(|to_store| &to_store.entries).cloned();
            let entries: Vec<_> = entries.collect();
            self.traces.keep(entries.iter().map(|entry| &entry.transaction));
            let result = self.step(self.log.append(&entries)).await;
            let last = result.as_ref().ok().and_then(|cursors| cursors.iter().max().copied());
            // Before anybody reads them.
            self.note_late_news(some, result.as_deref().unwrap_or_default());
            let result = result.map(drop);
            if split.note(&result) {
                self.health.note(StoreName::Log, &result);
            }
            if let Some(last) = last {
                self.newest.send_if_modified(|newest| {
                    let newer = last > *newest;
                    *newest = last.max(*newest);
                    newer
                });
            }
        }
        split.refused().into_iter().map(|(at, failure)| (stores[at].ticket, failure)).collect()
    }

    /// Notes the cursors of news, for subscriptions that would take it for history.
    fn note_late_news(&self, stores: &[&ToStore], cursors: &[Cursor]) {
        let entries = stores.iter().flat_map(|s| s.entries.iter().map(|entry| (s.source, entry)));
        for ((source, entry), cursor) in entries.zip(cursors) {
            if source == (Source::Peer { is_news: true }) {
                self.late_news.note(entry.transaction.header().created, *cursor);
            }
        }
    }
}

/// Logs that a note of the past was not kept: after a restart the node knows less of what it missed.
fn note_unsaved(result: &Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::warn!(target: "sorcha_peer::store", %error, "a note of the past is not kept");
    }
}

/// Drops pieces that are not as they were before the disk had them. About 30 us each, on another
/// thread.
async fn drop_damaged(mut pieces: Vec<Piece>, root: [u8; 32], len: u64) -> Vec<Piece> {
    let check = move || {
        pieces.retain(|p| verify_piece(&root, len, p.index, &p.bytes, &p.proof));
        pieces
    };
    tokio::task::spawn_blocking(check).await.unwrap_or_default()
}
