//! Start of a node: reads its stores, listens, and sets its tasks going.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{Instrument, Span};

use crate::config::{Config, SignaturePolicy, Trust};
use crate::error::{FailureKind, StartError, StoreError};
use crate::identity::Identity;
#[cfg(feature = "admin")]
use crate::monitor::admin::Admin;
use crate::ports::{Listener, PeerStore, TransactionQueue, TransactionStore, Transport, Validator};
use crate::protocol::{Protocol, RENEWALS, Restored};
use crate::types::{Cursor, Event, PeerRecord, TransactionId};

use super::clock::{PublishClock, wall_now};
use super::driver::{
    Dials, Driver, Effects, HandlerTasks, Inbound, Mailboxes, OwnRecord, StallWatch, StoreQueue,
};
use super::handle::{DurableNames, Inner, LogNews, MAX_EVENTS_BEHIND, PeerNode, explain};
use super::handlers::Handlers;
use super::late_news::LateNews;
use super::messages::{CallIds, Completion, Draft, NodeState, SignedDraft};
use super::past::{self, AllMissed};
use super::reachability::{Learned, Outside, Tasks, Ways};
use super::recent_traces::RecentTraces;
use super::restore::Stores;
use super::room::Room;
use super::store_lease::HeldLeases;
use super::subscribed_topics::SubscribedTopics;
use super::workers::known_signatures::KnownSignatures;
use super::workers::log_backfill::LogBackfill;
#[cfg(feature = "mdns")]
use super::workers::nearby::{self, FindNearby};
use super::workers::own_validator::OwnValidator;
use super::workers::peer_writer::PeerWriter;
use super::workers::republisher::Republisher;
use super::workers::store_health::{Health, guarded, run_to_end};
use super::workers::store_writer::{StoreOp, StoreWriter};
use super::workers::{piece_verifier, signer, verifier};

const MAX_COMPLETIONS: usize = 1024;
const MAX_COMMANDS: usize = 1024;
const MAX_INBOUND: usize = 128;
/// Maximum number of batches of publishes on their way to the driver; more publishes wait before them.
const MAX_BATCHES: usize = 16;

/// Node whose every part is decided.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) identity: Identity,
    /// Transports to dial with, the best first.
    pub(super) transports: Vec<Arc<dyn Transport>>,
    /// Transports to listen with.
    pub(super) listening: Vec<Arc<dyn Transport>>,
    pub(super) peers: Arc<dyn PeerStore>,
    pub(super) queue: Arc<dyn TransactionQueue>,
    pub(super) log: Arc<dyn TransactionStore>,
    /// Whom the host named to learn the node's addresses from.
    pub(super) outside: Outside,
    /// Finds nodes on the LAN, where that is asked for.
    #[cfg(feature = "mdns")]
    pub(super) nearby: Option<FindNearby>,
    pub(super) validator: Option<Arc<dyn Validator>>,
    pub(super) seed: [u8; 32],
    /// Where it is told whether the node runs: from its start to the beginning of its shutdown.
    pub(super) is_running: watch::Sender<bool>,
    pub(super) capacities: Capacities,
    /// Service for clients of the original, where it is asked for.
    #[cfg(feature = "compat")]
    pub(super) compat: Option<Compat>,
}

/// Service for clients of the original, and the node as it sees it.
#[cfg(feature = "compat")]
pub(super) struct Compat {
    pub(super) ops: crate::compat::Ops,
    pub(super) backend: Arc<super::compat::NodeBackend>,
}

/// Capacities of the channels to the workers: all that the protocol may have under way, and as much
/// again. The driver stops taking input long before one is full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacities {
    pub(super) checks: usize,
    pub(super) store_ops: usize,
}

impl Default for Capacities {
    fn default() -> Self {
        Self { checks: 16_384, store_ops: 32_768 }
    }
}

/// Node whose stores are read and whose sockets are open.
struct Opened {
    leases: HeldLeases,
    /// Shared by the handles: shows whether there are any.
    handles: Arc<()>,
    protocol: Protocol,
    record: OwnRecord,
    listeners: Vec<Box<dyn Listener>>,
    listening: Option<SocketAddr>,
    listening_admin: Option<SocketAddr>,
    #[cfg(feature = "admin")]
    admin: Option<Admin>,
    newest: Cursor,
    missed: AllMissed,
    /// Own transactions for which the log had no room.
    unlogged: VecDeque<TransactionId>,
}

/// Channels and state that driver, workers and handles share.
struct Shared {
    span: Span,
    done: mpsc::Sender<Completion>,
    drafts: mpsc::Sender<Draft>,
    /// Room for payloads that are being published.
    publish_room: Room,
    events: broadcast::Sender<Event>,
    newest: watch::Sender<Cursor>,
    late_news: Arc<LateNews>,
    traces: Arc<RecentTraces>,
    missed: watch::Sender<AllMissed>,
    health: Arc<Health>,
    clock: Arc<PublishClock>,
}

impl Shared {
    fn news(&self) -> LogNews {
        let (newest, missed) = (self.newest.subscribe(), self.missed.subscribe());
        LogNews { newest, missed, traces: Arc::clone(&self.traces) }
    }
}

/// Sending ends of the channels to the workers.
struct JobSenders {
    checks: mpsc::Sender<verifier::TransactionCheck>,
    piece_checks: mpsc::Sender<piece_verifier::PieceCheck>,
    store: mpsc::Sender<StoreOp>,
}

impl Capacities {
    fn channels(self) -> (JobSenders, Jobs) {
        let (checks, check_box) = mpsc::channel(self.checks);
        let (piece_checks, piece_check_box) = mpsc::channel(self.checks);
        let (store, store_box) = mpsc::channel(self.store_ops);
        let jobs = Jobs { checks: check_box, piece_checks: piece_check_box, store: store_box };
        (JobSenders { checks, piece_checks, store }, jobs)
    }
}

/// Receiving ends of the channels to the workers.
struct Jobs {
    checks: mpsc::Receiver<verifier::TransactionCheck>,
    piece_checks: mpsc::Receiver<piece_verifier::PieceCheck>,
    store: mpsc::Receiver<StoreOp>,
}

/// Drafts on their way to the validator, and from there to the driver.
type JudgedDrafts = (mpsc::Receiver<Vec<SignedDraft>>, mpsc::Sender<Vec<SignedDraft>>);

/// Receiving ends of the channels to the tasks that bring in new work.
struct Sources {
    drafts: mpsc::Receiver<Draft>,
    publishes: mpsc::Sender<Vec<SignedDraft>>,
    /// Own publishes for the validator, and its way to the driver.
    judged: Option<JudgedDrafts>,
    refused_publishes: Arc<AtomicU64>,
    renewals: mpsc::Receiver<TransactionId>,
    unlogged: VecDeque<TransactionId>,
    listeners: Vec<Box<dyn Listener>>,
    /// Tasks that learn the node's addresses.
    addresses: Tasks,
}

impl Parts {
    pub(super) async fn start(mut self) -> Result<PeerNode, StartError> {
        let (leases, handles) = HeldLeases::take(&*self.queue, &*self.log).await?;
        let spare = self.divide_queue().await?;
        self.limit_stores().await;
        let stores = self.stores();
        let (mut restored, unlogged) = stores.restore().await?;
        let newest = self.log.newest().await?;
        let missed = past::load_missed(&*self.log).await?;
        let (listeners, listening) = self.listen().await?;
        #[cfg(feature = "admin")]
        let admin = Admin::bind(&self.config.listen)?;
        self.warn_of_openness(listening);
        let (record, signed) = self.own_record(listening, &mut restored).await;
        let restored = Restored { spare_places: Some(spare), ..restored };
        let mut protocol = self.protocol(signed, Restored { listening, ..restored });
        stores.restore_index(&mut protocol).await?;
        Ok(self.assemble(Opened {
            leases,
            handles,
            protocol,
            record,
            listeners,
            listening,
            #[cfg(feature = "admin")]
            listening_admin: admin.as_ref().map(Admin::address),
            #[cfg(not(feature = "admin"))]
            listening_admin: None,
            #[cfg(feature = "admin")]
            admin,
            newest,
            missed,
            unlogged,
        }))
    }

    fn stores(&self) -> Stores {
        Stores {
            peers: Arc::clone(&self.peers),
            queue: Arc::clone(&self.queue),
            log: Arc::clone(&self.log),
            retention: self.config.gossip.retention,
        }
    }

    /// Keeps the outbox of the configuration to what the queue holds: what does not fit is refused
    /// before it is tried. Returns the number of places that are left for republishing: an expired
    /// entry and its successor are both in the queue for a moment, and without a place the entry
    /// would stay for ever.
    async fn divide_queue(&mut self) -> Result<usize, StoreError> {
        let capacity = self.queue.size().await?.capacity;
        let usable = capacity - (capacity / 100).min(RENEWALS as u64);
        let entries = &mut self.config.outbox.max_entries;
        *entries = u32::try_from(usable).unwrap_or(u32::MAX).min(*entries);
        Ok(usize::try_from(capacity - u64::from(*entries)).unwrap_or(usize::MAX))
    }

    /// Tells the stores what memory they may hold. The log has more to hold than the outbox.
    async fn limit_stores(&self) {
        let memory = self.config.shares().stores;
        self.log.limit_memory(memory / 4 * 3).await;
        self.queue.limit_memory(memory / 4).await;
    }

    /// Listens with every transport that can; the first address is the node's.
    async fn listen(&self) -> Result<(Vec<Box<dyn Listener>>, Option<SocketAddr>), StartError> {
        let Some(mut address) = self.config.listen.address else { return Ok((Vec::new(), None)) };
        let mut listeners: Vec<Box<dyn Listener>> = Vec::new();
        for transport in &self.listening {
            match transport.listen(address).await {
                Ok(listener) => {
                    address = listener.local_addr();
                    listeners.push(listener);
                }
                Err(error) if error.kind == FailureKind::Unsupported => {}
                Err(source) => return Err(StartError::Listen { address, source }),
            }
        }
        let listening = listeners.first().map(|listener| listener.local_addr());
        Ok((listeners, listening))
    }

    /// Says once that anybody may join, where more than this machine could.
    fn warn_of_openness(&self, listening: Option<SocketAddr>) {
        let network = &self.config.network;
        if let (Trust::Open, Some(address)) = (&network.trust, listening)
            && !address.ip().is_loopback()
        {
            tracing::warn!(
                target: "sorcha_peer::node", %address, network = network.name,
                "open: anybody who can reach this address and knows the network's name may join, \
                 read and publish; set network.trust, for instance to a secret"
            );
        }
    }

    /// Signs the node's own record above that of the earlier run, and notes that it did.
    async fn own_record(
        &self,
        listening: Option<SocketAddr>,
        restored: &mut Restored,
    ) -> (OwnRecord, PeerRecord) {
        let (me, now) = (self.identity.peer_id(), wall_now());
        let at = restored.peers.iter().position(|stored| stored.peer == me);
        let earlier = at.map(|at| restored.peers.remove(at));
        let advertise = &self.config.listen.advertise;
        let record = OwnRecord::new(advertise, listening, earlier.as_ref(), now);
        let (stored, signed) = record.sign(&self.identity, now);
        if let Err(error) = guarded(self.peers.upsert(&[stored])).await {
            // The next record is stored in any case, and others say what they have.
            tracing::warn!(target: "sorcha_peer::store", %error, "the own record was not written");
        }
        (record, signed)
    }

    fn protocol(&self, record: PeerRecord, restored: Restored) -> Protocol {
        let now = wall_now();
        let validating = self.validator.as_ref().is_some_and(|v| v.judges_large());
        let rungs = self.transports.iter().map(|t| t.kind()).collect();
        let restored = Restored { validating, rungs, ..restored };
        // It rises with each start, and of two that start in one millisecond it differs.
        let [low, high, ..] = self.seed;
        let incarnation = now.as_millis() << 16 | u64::from(u16::from_le_bytes([low, high]));
        Protocol::new(&self.config, incarnation, record, self.seed, restored)
    }

    /// Sets the tasks going.
    #[expect(clippy::too_many_lines, reason = "one list of what is wired to what")]
    fn assemble(mut self, opened: Opened) -> PeerNode {
        let listening = opened.listening;
        let (done, completions) = mpsc::channel(MAX_COMPLETIONS);
        let (drafts, draft_box) = mpsc::channel(MAX_COMMANDS);
        let shared = self.share(done, drafts, opened.newest, opened.missed);
        let (commands, command_box) = mpsc::channel(MAX_COMMANDS);
        let (publishes, publish_box) = mpsc::channel(MAX_BATCHES);
        let (to_judge, judged) = self.judging(&publishes);
        let refused_publishes = Arc::default();
        let (inbound, inbound_box) = mpsc::channel(MAX_INBOUND);
        let (JobSenders { checks, piece_checks, store }, jobs) = self.capacities.channels();
        let (renewals, renewal_box) = mpsc::channel(RENEWALS);
        let (state, ended) = (watch::Sender::new(NodeState::default()), watch::Sender::new(None));
        let relay_drops = self.outside.relay_drops();
        let (addresses, learned) = self.learning(listening, &state, &shared);
        let shares = self.config.shares();
        let (call_ids, handlers) = (CallIds::default(), Arc::<Handlers>::default());
        let inner = Inner {
            identity: self.identity.clone(),
            config: self.config.clone(),
            listening,
            listening_http: opened.listeners.iter().find_map(|listener| listener.http_addr()),
            listening_admin: opened.listening_admin,
            runtime: Handle::current(),
            clock: Arc::clone(&shared.clock),
            publishes: to_judge.clone(),
            commands,
            call_ids: call_ids.clone(),
            handlers: Arc::clone(&handlers),
            drafts: shared.drafts.clone(),
            publish_room: shared.publish_room.clone(),
            events: shared.events.downgrade(),
            _handles: opened.handles,
            lagged: Arc::default(),
            refused_publishes: Arc::clone(&refused_publishes),
            relay_drops,
            queue: Arc::clone(&self.queue),
            log: Arc::clone(&self.log),
            news: shared.news(),
            late_news: Arc::clone(&shared.late_news),
            subscribed: SubscribedTopics::default(),
            names: DurableNames::default(),
            failing: shared.health.watch().subscribe(),
            state: state.subscribe(),
            learned,
            ended: ended.subscribe(),
            #[cfg(feature = "compat")]
            compat: self.compat.as_ref().map(|compat| compat.ops.clone()),
        };
        let (workers, peers) = self.spawn_workers(&shared, jobs);
        let mut effects = Effects {
            dials: self.dials(&shared),
            log: Arc::clone(&self.log),
            queue: Arc::clone(&self.queue),
            events: shared.events.clone(),
            checks,
            piece_checks,
            store: StoreQueue::new(store),
            stall: self.stall_watch(&shared),
            renewals,
            peers,
            done: shared.done.clone(),
            inbound: Inbound { channel: inbound, room: Room::new(shares.inbound) },
            publish_room: shared.publish_room.clone(),
            store_memory: shares.stores,
            traces: Arc::clone(&shared.traces),
            handlers: HandlerTasks::new(handlers, shared.done.clone()),
            tasks: JoinSet::new(),
            sources: JoinSet::new(),
            workers,
            clock: Arc::clone(&shared.clock),
            record: opened.record,
            is_running: self.is_running.clone(),
            _leases: opened.leases,
        };
        let sources = Sources {
            drafts: draft_box,
            publishes: to_judge,
            judged: judged.map(|judged| (judged, publishes)),
            refused_publishes,
            renewals: renewal_box,
            unlogged: opened.unlogged,
            listeners: opened.listeners,
            addresses,
        };
        self.spawn_sources(&shared, sources, &mut effects);
        #[cfg(feature = "mdns")]
        look_around(self.nearby.take(), listening, &shared, &mut effects);
        let mail = Mailboxes {
            completions,
            commands: command_box,
            publishes: publish_box,
            inbound: inbound_box,
            subscribed: inner.subscribed.watch(),
        };
        let node = PeerNode(Arc::new(inner));
        explain::serve(&node);
        #[cfg(feature = "compat")]
        serve_clients(self.compat, &node, &shared, &mut effects);
        #[cfg(feature = "admin")]
        serve_operators(opened.admin, &node, &shared, &mut effects);
        let (span, peer) = (shared.span, self.identity.peer_id());
        tracing::info!(target: "sorcha_peer::node", parent: &span, %peer, ?listening, "node started");
        self.is_running.send_replace(true);
        let driver = Driver::new(self.identity, opened.protocol, state, effects, call_ids, ended);
        tokio::spawn(driver.run(mail).instrument(span));
        node
    }

    /// Where own publishes go, and where they are taken from to be judged: with a validator it stands in between.
    fn judging(
        &self,
        publishes: &mpsc::Sender<Vec<SignedDraft>>,
    ) -> (mpsc::Sender<Vec<SignedDraft>>, Option<mpsc::Receiver<Vec<SignedDraft>>>) {
        if self.validator.is_none() {
            return (publishes.clone(), None);
        }
        let (to_judge, judged) = mpsc::channel(MAX_BATCHES);
        (to_judge, Some(judged))
    }

    /// Tasks that learn the node's addresses, and where it is read what was learned.
    fn learning(
        &mut self,
        listening: Option<SocketAddr>,
        state: &watch::Sender<NodeState>,
        shared: &Shared,
    ) -> (Tasks, watch::Receiver<Learned>) {
        let (learned, known) = watch::channel(Learned::default());
        let state = state.subscribe();
        let (events, done) = (shared.events.clone(), shared.done.clone());
        let ways = Ways { state, events, done, learned };
        let is_running = self.is_running.subscribe();
        (std::mem::take(&mut self.outside).tasks(listening, is_running, ways), known)
    }

    fn dials(&self, shared: &Shared) -> Dials {
        Dials::new(self.transports.clone(), &self.config.connection, shared.done.clone())
    }

    fn stall_watch(&self, shared: &Shared) -> StallWatch {
        let may_hang = self.queue.may_hang() || self.log.may_hang();
        StallWatch::new(Arc::clone(&shared.health), may_hang)
    }

    /// Makes what driver, workers and handles share.
    fn share(
        &self,
        done: mpsc::Sender<Completion>,
        drafts: mpsc::Sender<Draft>,
        newest: Cursor,
        missed: AllMissed,
    ) -> Shared {
        let peer = self.identity.peer_id().short();
        let (events, _) = broadcast::channel(MAX_EVENTS_BEHIND);
        Shared {
            span: tracing::info_span!(target: "sorcha_peer::node", "peer_node", %peer),
            done,
            drafts,
            publish_room: Room::new(self.config.shares().publishes),
            newest: watch::Sender::new(newest),
            late_news: Arc::default(),
            traces: Arc::default(),
            missed: watch::Sender::new(missed),
            health: Arc::new(Health::new(events.clone())),
            events,
            clock: Arc::default(),
        }
    }

    /// Spawns verifiers and writers.
    fn spawn_workers(&self, shared: &Shared, jobs: Jobs) -> (JoinSet<()>, Arc<PeerWriter>) {
        let mut workers = JoinSet::new();
        let mut spawn = |task: BoxFuture<'static, ()>| {
            workers.spawn(task.instrument(shared.span.clone()));
        };
        let require = self.config.network.signatures == SignaturePolicy::Required;
        let known = Arc::new(KnownSignatures::default());
        let done = || shared.done.clone();
        let validator = self.validator.clone();
        spawn(verifier::run(jobs.checks, validator, Arc::clone(&known), require, done()).boxed());
        spawn(piece_verifier::run(jobs.piece_checks, known, require, done()).boxed());
        let writer = StoreWriter {
            queue: Arc::clone(&self.queue),
            log: Arc::clone(&self.log),
            newest: shared.newest.clone(),
            late_news: Arc::clone(&shared.late_news),
            traces: Arc::clone(&shared.traces),
            missed: shared.missed.clone(),
            health: Arc::clone(&shared.health),
            done: done(),
            most_bytes: usize::try_from(self.config.shares().storing / 4).unwrap_or(usize::MAX),
            refused: Mutex::default(),
        };
        let failing = shared.health.watch();
        spawn(run_to_end(writer.run(jobs.store), failing, shared.events.clone()).boxed());
        let peers = Arc::new(PeerWriter::default());
        let peer_store = Arc::clone(&self.peers);
        spawn(Arc::clone(&peers).run(peer_store, Arc::clone(&shared.health)).boxed());
        (workers, peers)
    }

    /// Spawns the tasks that bring in new work.
    fn spawn_sources(&self, shared: &Shared, sources: Sources, effects: &mut Effects) {
        for listener in sources.listeners {
            effects.accept_from(listener);
        }
        let mut spawn = |task: BoxFuture<'static, ()>| {
            effects.sources.spawn(task.instrument(shared.span.clone()));
        };
        let (identity, policy) = (self.identity.clone(), self.config.network.signatures);
        spawn(signer::run(sources.drafts, identity, policy, sources.publishes).boxed());
        for task in sources.addresses.sources {
            spawn(task);
        }
        for keeper in sources.addresses.keepers {
            effects.workers.spawn(keeper.instrument(shared.span.clone()));
        }
        if let Some(validator) = self.validator.clone()
            && let Some((judged, to_driver)) = sources.judged
        {
            let max_len = Some(self.config.gossip.eager_limit);
            let own = OwnValidator {
                max_len: max_len.filter(|_| !validator.judges_large()),
                validator,
                origin: self.identity.peer_id(),
                refused: sources.refused_publishes,
            };
            spawn(own.run(judged, to_driver).boxed());
        }
        let retention = self.config.gossip.retention;
        let republisher = Republisher {
            origin: self.identity.peer_id(),
            queue: Arc::clone(&self.queue),
            clock: Arc::clone(&shared.clock),
            retention,
            drafts: shared.drafts.clone(),
            room: shared.publish_room.clone(),
            done: shared.done.clone(),
        };
        spawn(republisher.run(sources.renewals).boxed());
        let backfill = LogBackfill {
            ids: sources.unlogged,
            retention,
            queue: Arc::clone(&self.queue),
            log: Arc::clone(&self.log),
            newest: shared.newest.clone(),
            health: Arc::clone(&shared.health),
            done: shared.done.clone(),
        };
        spawn(backfill.run().boxed());
    }
}

/// Has nodes of the LAN found, until the node ends.
#[cfg(feature = "mdns")]
fn look_around(
    find: Option<FindNearby>,
    listening: Option<SocketAddr>,
    shared: &Shared,
    effects: &mut Effects,
) {
    if let Some(find) = find {
        let running = effects.is_running.subscribe();
        let looking = nearby::run(find, listening, running, shared.done.clone());
        effects.workers.spawn(looking.instrument(shared.span.clone()));
    }
}

/// Has clients of the original see the node, until it ends.
#[cfg(feature = "compat")]
fn serve_clients(compat: Option<Compat>, node: &PeerNode, shared: &Shared, effects: &mut Effects) {
    if let Some(compat) = compat {
        compat.backend.attach(node);
        effects.sources.spawn(compat.ops.run().instrument(shared.span.clone()));
    }
}

/// Has operators see the node, until it ends.
#[cfg(feature = "admin")]
fn serve_operators(admin: Option<Admin>, node: &PeerNode, shared: &Shared, effects: &mut Effects) {
    if let Some(admin) = admin {
        let serving = admin.run(node, effects.is_running.subscribe());
        effects.sources.spawn(serving.instrument(shared.span.clone()));
    }
}
