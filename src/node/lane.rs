//! Storage: one ordered lane for transactions, one coalescing lane for peers.
//!
//! The transaction lane takes what waits, up to 512 operations, and stores neighbours together:
//! group commit without added delay. Own transactions go to the outbox first and to the log then,
//! and only afterwards is anybody told that they are safe.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, broadcast, mpsc, watch};

use crate::error::StoreError;
use crate::ports::{PeerStore, TransactionQueue, TransactionStore};
use crate::protocol::{Input, Ticket};
use crate::types::{
    Ban, Cursor, EntryState, Event, NewEntry, PeerId, StoredPeer, Transaction, TransactionId,
    WallTime,
};

use super::driver::Completion;

/// Operations taken at once.
const BATCH: usize = 512;

/// One operation on transactions.
#[derive(Debug)]
pub(super) enum StoreOp {
    Store { ticket: Ticket, entry: NewEntry, own: bool },
    Confirmed { ids: Vec<TransactionId> },
    UpdateOutbox { states: Vec<(TransactionId, EntryState)> },
    Expire { now: WallTime },
}

/// The transaction lane.
pub(super) struct StoreLane {
    pub(super) queue: Arc<dyn TransactionQueue>,
    pub(super) log: Arc<dyn TransactionStore>,
    pub(super) newest: watch::Sender<Cursor>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) done: mpsc::Sender<Completion>,
}

type Waiting = Vec<(Ticket, NewEntry, bool)>;

impl StoreLane {
    /// Runs until `ops` is closed and everything in it is done.
    pub(super) async fn run(self, mut ops: mpsc::Receiver<StoreOp>) {
        let mut batch = Vec::with_capacity(BATCH);
        while ops.recv_many(&mut batch, BATCH).await > 0 {
            let mut waiting = Waiting::new();
            for op in batch.drain(..) {
                if let StoreOp::Store { ticket, entry, own } = op {
                    waiting.push((ticket, entry, own));
                    continue;
                }
                self.store(std::mem::take(&mut waiting)).await;
                let result = match op {
                    StoreOp::Confirmed { ids } => self.queue.remove(&ids).await,
                    StoreOp::UpdateOutbox { states } => self.queue.update(&states).await,
                    StoreOp::Expire { now } => self.log.expire(now).await.map(|_| ()),
                    StoreOp::Store { .. } => Ok(()),
                };
                self.report(result);
            }
            self.store(waiting).await;
        }
    }

    async fn store(&self, waiting: Waiting) {
        if waiting.is_empty() {
            return;
        }
        let own: Vec<Transaction> = waiting
            .iter()
            .filter(|(_, _, own)| *own)
            .map(|(_, entry, _)| entry.transaction.clone())
            .collect();
        let queued =
            if own.is_empty() { Ok(()) } else { self.queue.append(&own).await.map(|_| ()) };
        // A full or broken outbox refuses own transactions; others' are still kept.
        let kept = |own: bool| queued.is_ok() || !own;
        let entries: Vec<_> =
            waiting.iter().filter(|w| kept(w.2)).map(|(_, entry, _)| entry.clone()).collect();
        let logged = self.append(&entries).await;
        if logged.is_err() && queued.is_ok() && !own.is_empty() {
            let ids: Vec<_> = own.iter().map(Transaction::id).collect();
            self.report(self.queue.remove(&ids).await);
        }
        let outcome = |own: bool| match (&queued, &logged) {
            (Err(e), _) if own => Err(e.kind),
            (_, Err(e)) => Err(e.kind),
            _ => Ok(()),
        };
        let inputs = waiting
            .iter()
            .map(|(ticket, _, own)| Input::Stored { ticket: *ticket, result: outcome(*own) })
            .collect();
        self.report(queued);
        self.report(logged);
        let _ = self.done.send(Completion::Inputs(inputs)).await;
    }

    async fn append(&self, entries: &[NewEntry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let cursors = self.log.append(entries).await?;
        if let Some(last) = cursors.into_iter().max() {
            self.newest.send_if_modified(|newest| {
                let newer = last > *newest;
                *newest = last.max(*newest);
                newer
            });
        }
        Ok(())
    }

    fn report(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::error!(target: "sorcha_peer::store", %error, "storage failed");
            let _ = self.events.send(Event::StorageFailed { message: error.to_string() });
        }
    }
}

/// What is to be done to a peer's record; the latest counts.
#[derive(Debug)]
enum PeerOp {
    Save(Box<StoredPeer>),
    Forget,
}

#[derive(Debug, Default)]
struct PeerOps {
    peers: BTreeMap<PeerId, PeerOp>,
    /// `None` lifts the ban.
    bans: BTreeMap<PeerId, Option<Ban>>,
    closed: bool,
}

/// The peer lane: bounded by the number of peers, since operations on one peer coalesce.
#[derive(Debug, Default)]
pub(super) struct PeerLane {
    ops: Mutex<PeerOps>,
    wake: Notify,
}

impl PeerLane {
    fn with(&self, change: impl FnOnce(&mut PeerOps)) {
        change(&mut self.ops.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    pub(super) fn save(&self, peer: Box<StoredPeer>) {
        self.with(|ops| {
            ops.peers.insert(peer.peer, PeerOp::Save(peer));
        });
    }

    pub(super) fn forget(&self, peer: PeerId) {
        self.with(|ops| {
            ops.peers.insert(peer, PeerOp::Forget);
        });
    }

    pub(super) fn set_ban(&self, peer: PeerId, ban: Option<Ban>) {
        self.with(|ops| {
            ops.bans.insert(peer, ban);
        });
    }

    /// Lets [`PeerLane::run`] end once everything is written.
    pub(super) fn close(&self) {
        self.with(|ops| ops.closed = true);
    }

    /// Writes until it is closed.
    pub(super) async fn run(self: Arc<Self>, store: Arc<dyn PeerStore>) {
        loop {
            let ops = {
                let mut ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
                let closed = ops.closed;
                std::mem::replace(&mut *ops, PeerOps { closed, ..PeerOps::default() })
            };
            if ops.peers.is_empty() && ops.bans.is_empty() {
                if ops.closed {
                    return;
                }
                self.wake.notified().await;
                continue;
            }
            if let Err(error) = write(&*store, ops).await {
                // Peers are found again; only the host's bans would be missed after a restart.
                tracing::error!(target: "sorcha_peer::store", %error, "peer store failed");
            }
        }
    }
}

async fn write(store: &dyn PeerStore, ops: PeerOps) -> Result<(), StoreError> {
    let (mut saves, mut forgets) = (Vec::new(), Vec::new());
    for (peer, op) in ops.peers {
        match op {
            PeerOp::Save(stored) => saves.push(*stored),
            PeerOp::Forget => forgets.push(peer),
        }
    }
    if !saves.is_empty() {
        store.upsert(&saves).await?;
    }
    if !forgets.is_empty() {
        store.remove(&forgets).await?;
    }
    for (peer, ban) in ops.bans {
        match ban {
            Some(ban) => store.put_ban(&ban).await?,
            None => store.remove_ban(&peer).await?,
        }
    }
    Ok(())
}
