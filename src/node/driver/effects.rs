//! Work that the driver sets going: loads, checks of records, and the channels to the workers.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use crate::node::clock::PublishClock;
use crate::node::messages::Completion;
use crate::node::recent_traces::RecentTraces;
use crate::node::room::Room;
use crate::node::store_lease::HeldLeases;
use crate::node::workers::peer_writer::PeerWriter;
use crate::node::workers::piece_verifier::PieceCheck;
use crate::node::workers::store_health::guarded;
use crate::node::workers::verifier::TransactionCheck;
use crate::ports::{Accepted, Listener, TransactionQueue, TransactionStore};
use crate::protocol::{Input, Ticket};
use crate::types::{Event, PeerRecord, Stats, Transaction, TransactionId};

use super::dials::Dials;
use super::own_record::OwnRecord;
use super::requests::HandlerTasks;
use super::stall::StallWatch;
use super::store_queue::StoreQueue;

/// Channel to the driver for what comes from peers, bounded by number and by bytes.
#[derive(Clone)]
pub(in crate::node) struct Inbound {
    pub(in crate::node) channel: mpsc::Sender<Completion>,
    /// Room for frames that were read and not handled.
    pub(in crate::node) room: Room,
}

/// Channels and tasks of the driver's effects.
pub(in crate::node) struct Effects {
    pub(in crate::node) dials: Dials,
    pub(in crate::node) log: Arc<dyn TransactionStore>,
    pub(in crate::node) queue: Arc<dyn TransactionQueue>,
    pub(in crate::node) events: broadcast::Sender<Event>,
    pub(in crate::node) checks: mpsc::Sender<TransactionCheck>,
    pub(in crate::node) piece_checks: mpsc::Sender<PieceCheck>,
    pub(in crate::node) store: StoreQueue,
    pub(in crate::node) stall: StallWatch,
    /// Entries of the outbox to be published anew.
    pub(in crate::node) renewals: mpsc::Sender<TransactionId>,
    pub(in crate::node) peers: Arc<PeerWriter>,
    pub(in crate::node) done: mpsc::Sender<Completion>,
    pub(in crate::node) inbound: Inbound,
    /// Room for payloads that are being published.
    pub(in crate::node) publish_room: Room,
    /// Number of bytes that the stores may hold.
    pub(in crate::node) store_memory: u64,
    pub(in crate::node) traces: Arc<RecentTraces>,
    pub(in crate::node) handlers: HandlerTasks,
    /// Loads and record checks under way.
    pub(in crate::node) tasks: JoinSet<()>,
    /// Tasks that bring in new work: accepting, probing, signing, republishing, and the backfill of the
    /// log. Ended first.
    pub(in crate::node) sources: JoinSet<()>,
    /// Verifiers and writers. Ended last, when they have done everything.
    pub(in crate::node) workers: JoinSet<()>,
    pub(in crate::node) clock: Arc<PublishClock>,
    pub(in crate::node) record: OwnRecord,
    /// Whether the node runs, and is not about to end.
    pub(in crate::node) is_running: watch::Sender<bool>,
    /// Leases, given up when the writers are through.
    pub(in crate::node) _leases: HeldLeases,
}

impl Effects {
    pub(in crate::node) fn link_channels(&self) -> (Inbound, mpsc::Sender<Completion>) {
        (self.inbound.clone(), self.done.clone())
    }

    /// Adds the memory that is held outside the protocol.
    pub(in crate::node) fn add_memory(&self, stats: &mut Stats) {
        let (publishes, inbound) = (&self.publish_room, &self.inbound.room);
        let stores = self.log.memory().saturating_add(self.queue.memory());
        for (owner, held, most) in [
            ("publishes", publishes.taken(), publishes.size()),
            ("inbound", inbound.taken(), inbound.size()),
            ("stores", stores, self.store_memory),
        ] {
            stats.memory.insert(owner.to_owned(), held);
            stats.memory_limits.insert(owner.to_owned(), most);
        }
    }

    /// Returns whether writer and verifiers have taken most of what they were given.
    pub(in crate::node) fn has_room(&self) -> bool {
        fn is_half_empty<T>(channel: &mpsc::Sender<T>) -> bool {
            channel.capacity() > channel.max_capacity() / 2
        }
        self.store.has_room() && is_half_empty(&self.checks) && is_half_empty(&self.piece_checks)
    }

    /// Ends dials and listeners; their ports are free when this returns.
    pub(in crate::node) async fn stop_listening(&mut self) {
        self.dials.abort_all();
        self.tasks.abort_all();
        self.sources.shutdown().await;
    }

    /// Waits until the writers have done everything that they were given.
    pub(in crate::node) async fn finish(self) {
        let Self { checks, piece_checks, store, peers, done, inbound, mut workers, .. } = self;
        peers.close();
        drop((checks, piece_checks, done, inbound));
        store.finish().await;
        while workers.join_next().await.is_some() {}
    }

    /// Spawns a task, and reaps finished ones: the set holds only what is under way.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }

    pub(super) fn load(&mut self, ticket: Ticket, ids: Vec<TransactionId>) {
        let (log, queue, done) =
            (Arc::clone(&self.log), Arc::clone(&self.queue), self.done.clone());
        let traces = Arc::clone(&self.traces);
        self.spawn(async move {
            let mut transactions = load_each(&*log, &ids).await;
            for (id, found) in ids.iter().zip(&mut transactions) {
                if found.is_none() {
                    // The outbox has its own copy of what nobody else has yet.
                    let entry = guarded(queue.get(id)).await.unwrap_or_default();
                    *found = entry.map(|entry| entry.transaction);
                }
            }
            traces.give_back(transactions.iter_mut().flatten());
            let loaded = Input::Loaded { ticket, transactions };
            let _ = done.send(Completion::Inputs(vec![loaded])).await;
        });
    }

    pub(super) fn verify_records(&mut self, ticket: Ticket, records: Vec<PeerRecord>) {
        let done = self.done.clone();
        self.spawn(async move {
            let check = move || records.into_iter().partition(PeerRecord::verify);
            // A few dozen checks at about 40 us each.
            let (valid, bad): (Vec<_>, Vec<_>) =
                tokio::task::spawn_blocking(check).await.unwrap_or_default();
            let checked = Input::RecordsVerified { ticket, valid, forged: bad.len() };
            let _ = done.send(Completion::Inputs(vec![checked])).await;
        });
    }

    pub(super) fn emit(&self, event: Event) {
        // Nobody listening is no failure.
        let _ = self.events.send(event);
    }

    /// Hands over what listeners accept, until they close.
    pub(in crate::node) fn accept_from(&mut self, mut listener: Box<dyn Listener>) {
        let inbound = self.inbound.channel.clone();
        self.sources.spawn(async move {
            loop {
                let completion = match listener.accept().await {
                    Accepted::Link(raw) => Completion::Linked { raw, dial: None },
                    Accepted::Failed { address, error } => {
                        tracing::debug!(target: "sorcha_peer::transport", ?address, %error, "handshake failed");
                        let reason = error.kind;
                        Completion::Inputs(vec![Input::HandshakeFailed { address, reason }])
                    }
                    Accepted::Closed => return,
                };
                if inbound.send(completion).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Reads transactions together, or one by one where that fails: a damaged one must not keep the others
/// from being served.
async fn load_each(log: &dyn TransactionStore, ids: &[TransactionId]) -> Vec<Option<Transaction>> {
    let error = match guarded(log.get_many(ids)).await {
        Ok(found) => return found,
        Err(error) => error,
    };
    tracing::error!(target: "sorcha_peer::store", %error, "cannot read");
    if ids.len() < 2 {
        return vec![None; ids.len()];
    }
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.push(guarded(log.get(id)).await.unwrap_or_default());
    }
    found
}
