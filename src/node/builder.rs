//! Describing and starting a node.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::config::{Config, SignaturePolicy};
use crate::error::{FailureKind, StartError, StoreError, StoreErrorKind};
use crate::identity::Identity;
use crate::ports::{
    EntryFilter, EntryState, Listener, NatProber, OutboxEntry, PeerStore, TransactionQueue,
    TransactionStore, Transport, Validator,
};
use crate::protocol::{GivenUp, Protocol, Queued, RENEWALS, Restored};
use crate::store::{MemoryPeerStore, MemoryQueue, MemoryTransactionStore};
use crate::types::{Cursor, Endpoint, Event, TransactionId};

use super::claim::Claim;
use super::driver::{Completion, Driver, Mailboxes, wall_now};
use super::durable::Names;
use super::effects::{Effects, RecordSource};
use super::handle::{Inner, PeerNode, State};
use super::lane::{Health, StoreLane, run_to_end};
use super::late::{self, Late};
use super::peer_lane::PeerLane;
use super::publish::PublishClock;
use super::renew::Renewer;
use super::sign::Draft;
use super::wants::Wants;
use super::{events, pieces, sign, verify};

/// Room for everything that the protocol may have under way, and as much again: the driver stops
/// taking input long before these are full.
pub(super) const JOBS: usize = 16_384;
pub(super) const STORE_OPS: usize = 32_768;
const COMPLETIONS: usize = 1024;
const COMMANDS: usize = 1024;
const INBOUND: usize = 128;
/// Headers and payloads kept where no transaction store is given: 1 GiB, and what the headers of two
/// large payloads take that fill the half which one origin may have. When it is full, new transactions
/// are refused until old ones expire; nothing accepted is dropped.
const MEMORY_LOG: u64 = (1 << 30) + (1 << 20);
/// Batches of publishes on their way to the driver; the publishes themselves wait before them.
const BATCHES: usize = 16;
/// Entries restored at once.
const PAGE: usize = 1024;
/// Bytes of payload restored at once.
const PAGE_BYTES: usize = 16 << 20;
/// Longest time for one NAT probe.
const PROBE: Duration = Duration::from_secs(10);

/// The stores of a node; what is `None` is kept in memory.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Storage {
    /// Peers and bans.
    pub peers: Option<Arc<dyn PeerStore>>,
    /// The outbox.
    pub queue: Option<Arc<dyn TransactionQueue>>,
    /// The retained log.
    pub transactions: Option<Arc<dyn TransactionStore>>,
}

#[cfg(feature = "sqlite")]
impl From<crate::store::SqliteStorage> for Storage {
    fn from(storage: crate::store::SqliteStorage) -> Self {
        Self {
            peers: Some(storage.peer_store()),
            queue: Some(storage.queue()),
            transactions: Some(storage.transaction_store()),
        }
    }
}

/// Describes a node. What is not set has a default; nothing panics for being unset, and what does
/// not parse is an error of [`PeerNodeBuilder::start`].
pub struct PeerNodeBuilder {
    config: Config,
    identity: Option<Identity>,
    transports: Vec<Arc<dyn Transport>>,
    storage: Storage,
    probers: Vec<Arc<dyn NatProber>>,
    validator: Option<Arc<dyn Validator>>,
    seed: Option<[u8; 32]>,
    /// The first thing that was given and does not parse.
    error: Option<StartError>,
}

impl PeerNodeBuilder {
    pub(super) fn new() -> Self {
        Self {
            config: Config::default(),
            identity: None,
            transports: Vec::new(),
            storage: Storage::default(),
            probers: Vec::new(),
            validator: None,
            seed: None,
            error: None,
        }
    }

    /// Replaces the whole configuration; call it before the setters below.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The node's key. Default: a new one, forgotten with the node.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The network's name. Default `"sorcha"`.
    #[must_use]
    pub fn network(mut self, name: impl Into<String>) -> Self {
        self.config.network.name = name.into();
        self
    }

    /// Where to listen, as `ip:port`; port 0 picks a free one. Default `0.0.0.0:5001`.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        match address.parse::<SocketAddr>() {
            Ok(address) => self.config.listen.address = Some(address),
            Err(_) => self.refuse(address, crate::error::EndpointError::Host(address.to_owned())),
        }
        self
    }

    /// Dials out only.
    #[must_use]
    pub fn dial_only(mut self) -> Self {
        self.config.listen.address = None;
        self
    }

    /// An address under which others reach this node; repeatable, best first.
    #[must_use]
    pub fn advertise(mut self, address: &str) -> Self {
        match address.parse() {
            Ok(endpoint) => self.config.listen.advertise.push(endpoint),
            Err(source) => self.refuse(address, source),
        }
        self
    }

    /// First contacts; repeatable. DNS names resolve to all their addresses, again at every attempt.
    #[must_use]
    pub fn bootstrap<I>(mut self, addresses: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        for address in addresses {
            match address.as_ref().parse::<Endpoint>() {
                Ok(endpoint) => self.config.discovery.bootstrap.push(endpoint),
                Err(source) => self.refuse(address.as_ref(), source),
            }
        }
        self
    }

    /// Several stores at once, for instance `SqliteStorage`.
    #[must_use]
    pub fn storage(mut self, storage: impl Into<Storage>) -> Self {
        let storage = storage.into();
        self.storage.peers = storage.peers.or(self.storage.peers);
        self.storage.queue = storage.queue.or(self.storage.queue);
        self.storage.transactions = storage.transactions.or(self.storage.transactions);
        self
    }

    /// Where peers and bans are kept. Default: in memory.
    #[must_use]
    pub fn peer_store(mut self, store: Arc<dyn PeerStore>) -> Self {
        self.storage.peers = Some(store);
        self
    }

    /// Where own transactions wait for copies. Default: in memory.
    #[must_use]
    pub fn queue(mut self, queue: Arc<dyn TransactionQueue>) -> Self {
        self.storage.queue = Some(queue);
        self
    }

    /// Where transactions are retained. Default: in memory, at most 1 GiB; when that is full,
    /// `publish` fails with a store error until old transactions expire.
    #[must_use]
    pub fn transaction_store(mut self, store: Arc<dyn TransactionStore>) -> Self {
        self.storage.transactions = Some(store);
        self
    }

    /// A way to reach peers; repeatable, in the order of preference. Default: gRPC streams over
    /// mutual TLS.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transports.push(transport);
        self
    }

    /// A way to learn the node's outside address; repeatable.
    #[must_use]
    pub fn nat_prober(mut self, prober: Arc<dyn NatProber>) -> Self {
        self.probers.push(prober);
        self
    }

    /// The host's say about foreign transactions. Default: accept all.
    #[must_use]
    pub fn validator(mut self, validator: Arc<dyn Validator>) -> Self {
        self.validator = Some(validator);
        self
    }

    /// The seed of every random choice of the protocol. Default: from the operating system.
    #[must_use]
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the node in the current tokio runtime: reads the stores, listens, and begins to dial.
    /// An outbox or a log that another node of this process has is refused
    /// ([`StoreErrorKind::Locked`](crate::error::StoreErrorKind::Locked)); once the last handle to
    /// that one is gone, its end is waited for.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running.
    pub async fn start(self) -> Result<PeerNode, StartError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        self.config.validate()?;
        let identity = self.identity.map_or_else(Identity::generate, Ok)?;
        let seed = self.seed.map_or_else(random_seed, Ok)?;
        let parts = Parts {
            transports: transports(self.transports, &identity, &self.config)?,
            peers: self.storage.peers.unwrap_or_else(|| Arc::new(MemoryPeerStore::new())),
            queue: self.storage.queue.unwrap_or_else(|| {
                // The protocol keeps to the bound; what is published anew stands beside the old.
                Arc::new(MemoryQueue::new(self.config.outbox.max_entries as usize + RENEWALS))
            }),
            log: self
                .storage
                .transactions
                .unwrap_or_else(|| Arc::new(MemoryTransactionStore::new(Some(MEMORY_LOG)))),
            probers: self.probers,
            validator: self.validator,
            config: self.config,
            identity,
            seed,
        };
        parts.start().await
    }

    fn refuse(&mut self, text: &str, source: crate::error::EndpointError) {
        self.error.get_or_insert(StartError::Address { text: text.to_owned(), source });
    }
}

impl fmt::Debug for PeerNodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerNodeBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

fn random_seed() -> Result<[u8; 32], StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| StartError::Random)?;
    Ok(seed)
}

fn transports(
    given: Vec<Arc<dyn Transport>>,
    identity: &Identity,
    config: &Config,
) -> Result<Vec<Arc<dyn Transport>>, StartError> {
    if !given.is_empty() {
        return Ok(given);
    }
    #[cfg(feature = "grpc")]
    {
        use crate::transport::{GrpcOptions, GrpcTransport};
        let options = GrpcOptions::from_config(config);
        let transport = GrpcTransport::new(identity.clone(), options)
            .map_err(|source| StartError::Transport { source })?;
        Ok(vec![Arc::new(transport)])
    }
    #[cfg(not(feature = "grpc"))]
    {
        let _ = (identity, config);
        Err(StartError::NoTransport)
    }
}

/// A node whose every part is decided.
struct Parts {
    config: Config,
    identity: Identity,
    transports: Vec<Arc<dyn Transport>>,
    peers: Arc<dyn PeerStore>,
    queue: Arc<dyn TransactionQueue>,
    log: Arc<dyn TransactionStore>,
    probers: Vec<Arc<dyn NatProber>>,
    validator: Option<Arc<dyn Validator>>,
    seed: [u8; 32],
}

impl Parts {
    async fn start(mut self) -> Result<PeerNode, StartError> {
        let (claim, handles) = Claim::new(&self.queue, &self.log).await?;
        let spare = self.divide_queue().await?;
        let (restored, late) = self.restore().await?;
        let newest = self.log.newest().await?;
        let (listeners, listening) = self.listen().await?;
        let record = self.record_source(listening);
        let me = self.identity.peer_id();
        let mut protocol = self.protocol(&record, restored);
        protocol.set_spare_places(spare);
        self.restore_index(&mut protocol).await?;

        let (done, completions) = mpsc::channel(COMPLETIONS);
        let (commands, command_box) = mpsc::channel(COMMANDS);
        let (drafts, draft_box) = mpsc::channel(COMMANDS);
        let (publishes, publish_box) = mpsc::channel(BATCHES);
        let (inbound, inbound_box) = mpsc::channel(INBOUND);
        let (events, _) = broadcast::channel(events::CAPACITY);
        let (jobs, job_box) = mpsc::channel(JOBS);
        let (checks, check_box) = mpsc::channel(JOBS);
        let (store, store_box) = mpsc::channel(STORE_OPS);
        let newest = watch::Sender::new(newest);
        let state = watch::Sender::new(State::default());
        let ended = watch::Sender::new(None);
        let health = Arc::new(Health::new(events.clone()));
        let failing = health.watch();
        let clock = Arc::new(PublishClock::default());
        let (renewals, renewal_box) = mpsc::channel(RENEWALS);
        let renewer = self.renewer(Arc::clone(&clock), drafts.clone(), done.clone());
        let inner = Inner {
            identity: self.identity.clone(),
            config: self.config.clone(),
            listening,
            clock,
            publishes: publishes.clone(),
            commands,
            drafts,
            events: events.downgrade(),
            _handles: handles,
            lagged: Arc::default(),
            queue: Arc::clone(&self.queue),
            log: Arc::clone(&self.log),
            newest: newest.subscribe(),
            wants: Wants::default(),
            names: Names::default(),
            failing: failing.subscribe(),
            state: state.subscribe(),
            ended: ended.subscribe(),
        };

        let span =
            tracing::info_span!(target: "sorcha_peer::node", "peer_node", peer = %me.short());
        let mut lanes = JoinSet::new();
        self.spawn_checks(&mut lanes, &span, job_box, check_box, &done);
        let (lane, late) = self.storage(newest, late, &health, &done);
        lanes.spawn(
            run_to_end(lane.run(store_box), failing, events.clone()).instrument(span.clone()),
        );
        let peers = Arc::new(PeerLane::default());
        lanes.spawn(Arc::clone(&peers).run(self.peers, health).instrument(span.clone()));
        let connection = &self.config.connection;
        let mut effects = Effects {
            dial_timeout: connection.connect_timeout + connection.handshake_timeout,
            transports: self.transports,
            log: self.log,
            queue: self.queue,
            events,
            jobs,
            checks,
            store,
            renewals,
            peers,
            done,
            inbound,
            tasks: JoinSet::new(),
            listeners: JoinSet::new(),
            lanes,
            record,
            _claim: claim,
        };
        for listener in listeners {
            effects.accept_from(listener);
        }
        let signer =
            sign::run(draft_box, self.identity.clone(), self.config.network.signatures, publishes);
        effects.listeners.spawn(signer.instrument(span.clone()));
        effects.listeners.spawn(renewer.run(renewal_box).instrument(span.clone()));
        effects.listeners.spawn(late.run().instrument(span.clone()));
        ask_probers(self.probers, &mut effects);
        let driver = Driver::new(self.identity, protocol, state, effects, ended);
        let mail = Mailboxes {
            completions,
            commands: command_box,
            publishes: publish_box,
            inbound: inbound_box,
            wants: inner.wants.watch(),
        };
        tracing::info!(target: "sorcha_peer::node", parent: &span, peer = %me, ?listening, "node started");
        tokio::spawn(driver.run(mail).instrument(span));
        Ok(PeerNode(Arc::new(inner)))
    }

    /// What does not fit into the queue is refused before it is tried. What has expired in it is
    /// published anew, and both entries are in it for a moment: the answer is how many places there are
    /// for that, since in a queue without any it would stay for ever.
    async fn divide_queue(&mut self) -> Result<usize, StoreError> {
        let capacity = self.queue.size().await?.capacity;
        let usable = capacity - (capacity / 100).min(RENEWALS as u64);
        let entries = &mut self.config.outbox.max_entries;
        *entries = u32::try_from(usable).unwrap_or(u32::MAX).min(*entries);
        Ok(usize::try_from(capacity - u64::from(*entries)).unwrap_or(usize::MAX))
    }

    fn renewer(
        &self,
        clock: Arc<PublishClock>,
        drafts: mpsc::Sender<Draft>,
        done: mpsc::Sender<Completion>,
    ) -> Renewer {
        let (queue, retention) = (Arc::clone(&self.queue), self.config.gossip.retention);
        let origin = self.identity.peer_id();
        Renewer { origin, queue, clock, retention, drafts, done }
    }

    fn protocol(&self, record: &RecordSource, restored: Restored) -> Protocol {
        let now = wall_now();
        let signed = self.identity.sign_record(record.draft(self.identity.peer_id(), now));
        let mut protocol =
            Protocol::new(&self.config, now.as_millis(), signed, self.seed, restored);
        protocol.set_validating(self.validator.is_some());
        protocol
    }

    /// The storage lane, and what brings into the log what it had no room for.
    fn storage(
        &self,
        newest: watch::Sender<Cursor>,
        ids: VecDeque<TransactionId>,
        health: &Arc<Health>,
        done: &mpsc::Sender<Completion>,
    ) -> (StoreLane, Late) {
        let (queue, log) = (Arc::clone(&self.queue), Arc::clone(&self.log));
        let late = Late {
            ids,
            retention: self.config.gossip.retention,
            queue: Arc::clone(&queue),
            log: Arc::clone(&log),
            newest: newest.clone(),
            health: Arc::clone(health),
            done: done.clone(),
        };
        let (health, done) = (Arc::clone(health), done.clone());
        (StoreLane { queue, log, newest, health, done, refused: Mutex::default() }, late)
    }

    /// What checks transactions, headers and pieces off the driver.
    fn spawn_checks(
        &self,
        lanes: &mut JoinSet<()>,
        span: &tracing::Span,
        jobs: mpsc::Receiver<verify::Job>,
        checks: mpsc::Receiver<pieces::Check>,
        done: &mpsc::Sender<Completion>,
    ) {
        let require = self.config.network.signatures == SignaturePolicy::Required;
        let known = Arc::new(verify::Known::default());
        let validator = self.validator.clone();
        let verifier = verify::run(jobs, validator, Arc::clone(&known), require, done.clone());
        lanes.spawn(verifier.instrument(span.clone()));
        let checker = pieces::run(checks, known, require, done.clone());
        lanes.spawn(checker.instrument(span.clone()));
    }

    /// What earlier runs left in the stores, and what of it the log has no room for.
    async fn restore(&self) -> Result<(Restored, VecDeque<TransactionId>), StoreError> {
        let (peers, bans) = self.peers.load().await?;
        // Makes room for what follows.
        unless_full(self.log.expire(wall_now()).await)?;
        let (outbox, late) = self.restore_outbox().await?;
        let max_bytes = self.log.usage().await?.max_bytes;
        let partials = self.log.partials().await?;
        Ok((Restored { peers, bans, outbox, max_bytes, partials, ..Restored::default() }, late))
    }

    /// Tells the protocol what is retained, a page at a time: all at once would take more memory for
    /// a moment than the node ever needs.
    async fn restore_index(&self, protocol: &mut Protocol) -> Result<(), StoreError> {
        let mut after = Cursor::default();
        loop {
            let page = self.log.index(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.cursor;
            protocol.restore(&page);
        }
    }

    /// A log that was lost or lags behind the outbox gets its own transactions again, in order; those
    /// that it has no room for are the second answer. What has expired is published anew.
    async fn restore_outbox(&self) -> Result<(Vec<Queued>, VecDeque<TransactionId>), StoreError> {
        let (mut outbox, mut late) = (Vec::new(), VecDeque::new());
        let (now, retention) = (wall_now(), self.config.gossip.retention);
        for filter in [EntryFilter::Waiting, EntryFilter::Dead] {
            let mut after = None;
            loop {
                let page = self.queue.load(filter, after, PAGE, PAGE_BYTES).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.seq);
                if filter == EntryFilter::Dead {
                    outbox.extend(page.iter().map(queued));
                    continue;
                }
                let entries =
                    page.iter().map(|entry| late::own(entry.transaction.clone(), retention));
                let entries: Vec<_> = entries.filter(|entry| entry.keep_until > now).collect();
                // In order: behind one that did not fit, none is tried.
                let full =
                    !late.is_empty() || unless_full(self.log.append(&entries).await)?.is_none();
                let waits = |id| full && entries.iter().any(|e| e.transaction.id() == id);
                outbox.extend(
                    page.iter().map(|e| Queued { late: waits(e.transaction.id()), ..queued(e) }),
                );
                if full {
                    late.extend(entries.iter().map(|entry| entry.transaction.id()));
                }
            }
        }
        Ok((outbox, late))
    }

    /// Listens with every transport that can; the first address found is the node's.
    async fn listen(&self) -> Result<(Vec<Box<dyn Listener>>, Option<SocketAddr>), StartError> {
        let Some(mut address) = self.config.listen.address else { return Ok((Vec::new(), None)) };
        let mut listeners: Vec<Box<dyn Listener>> = Vec::new();
        for transport in &self.transports {
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

    fn record_source(&self, listening: Option<SocketAddr>) -> RecordSource {
        let advertise = &self.config.listen.advertise;
        let (endpoints, learn_port) = match listening {
            _ if !advertise.is_empty() => (advertise.clone(), None),
            Some(address) if address.ip().is_unspecified() => (Vec::new(), Some(address.port())),
            Some(address) => (vec![Endpoint::from(address)], None),
            None => (Vec::new(), None),
        };
        let seq = wall_now().as_millis();
        RecordSource { seq, learn_port, endpoints, learned: BTreeSet::new() }
    }
}

fn ask_probers(probers: Vec<Arc<dyn NatProber>>, effects: &mut Effects) {
    for prober in probers {
        effects.listeners.spawn(probe(prober, effects.events.clone()));
    }
}

async fn probe(prober: Arc<dyn NatProber>, events: broadcast::Sender<Event>) {
    let name = prober.name().to_owned();
    match tokio::time::timeout(PROBE, prober.probe()).await {
        Ok(Ok(address)) => {
            tracing::info!(target: "sorcha_peer::nat", prober = %name, %address, "address observed");
            let address = address.to_string();
            let _ = events.send(Event::AddressObserved { address, prober: name });
        }
        Ok(Err(error)) => {
            tracing::warn!(target: "sorcha_peer::nat", prober = %name, %error, "probe failed");
        }
        Err(_) => tracing::warn!(target: "sorcha_peer::nat", prober = %name, "probe timed out"),
    }
}

/// A full store does not keep a node from starting.
fn unless_full<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Err(error) if error.kind == StoreErrorKind::Full => {
            tracing::warn!(target: "sorcha_peer::store", %error, "started with a full store");
            Ok(None)
        }
        result => result.map(Some),
    }
}

fn queued(entry: &OutboxEntry) -> Queued {
    let (attempts, dead) = match &entry.state {
        EntryState::Waiting { attempts, .. } => (*attempts, None),
        EntryState::Dead { reason, .. } => (0, Some(GivenUp::of(reason))),
    };
    Queued { id: entry.transaction.id(), attempts, dead, late: false }
}
