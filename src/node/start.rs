//! Starting a node: reading its stores, listening, and setting its tasks going.

use std::collections::{BTreeSet, VecDeque};
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
use crate::types::{Cursor, Endpoint, Event, TransactionId};

use super::clock::{PublishClock, wall_now};
use super::driver::{Driver, Effects, MAX_CHECKS, MAX_STORE_OPS, Mailboxes, OwnRecord};
use super::handle::{DurableNames, Inner, MAX_EVENTS_BEHIND, PeerNode};
use super::messages::{Completion, Draft, NodeState};
use super::store_lease::Claim;
use super::subscribed_topics::SubscribedTopics;
use super::workers::known_signatures::KnownSignatures;
use super::workers::log_backfill::{self, LogBackfill};
use super::workers::peer_writer::PeerWriter;
use super::workers::republisher::Republisher;
use super::workers::store_health::{Health, run_to_end};
use super::workers::store_writer::StoreWriter;
use super::workers::{piece_verifier, signer, verifier};

const MAX_COMPLETIONS: usize = 1024;
const MAX_COMMANDS: usize = 1024;
const MAX_INBOUND: usize = 128;
/// Maximum number of batches of publishes on their way to the driver; more publishes wait before them.
const MAX_BATCHES: usize = 16;
/// Maximum number of entries restored at once.
const MAX_PAGE: usize = 1024;
/// Maximum number of bytes of payload restored at once.
const MAX_PAGE_BYTES: usize = 16 << 20;
/// Maximum time of one NAT probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A node whose every part is decided.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) identity: Identity,
    pub(super) transports: Vec<Arc<dyn Transport>>,
    pub(super) peers: Arc<dyn PeerStore>,
    pub(super) queue: Arc<dyn TransactionQueue>,
    pub(super) log: Arc<dyn TransactionStore>,
    pub(super) probers: Vec<Arc<dyn NatProber>>,
    pub(super) validator: Option<Arc<dyn Validator>>,
    pub(super) seed: [u8; 32],
}

impl Parts {
    pub(super) async fn start(mut self) -> Result<PeerNode, StartError> {
        let (claim, handles) = Claim::new(&self.queue, &self.log).await?;
        let spare = self.divide_queue().await?;
        let (restored, backfill) = self.restore().await?;
        let newest = self.log.newest().await?;
        let (listeners, listening) = self.listen().await?;
        let record = self.record_source(listening);
        let me = self.identity.peer_id();
        let mut protocol =
            self.protocol(&record, Restored { spare_places: Some(spare), ..restored });
        self.restore_index(&mut protocol).await?;

        let (done, completions) = mpsc::channel(MAX_COMPLETIONS);
        let (commands, command_box) = mpsc::channel(MAX_COMMANDS);
        let (drafts, draft_box) = mpsc::channel(MAX_COMMANDS);
        let (publishes, publish_box) = mpsc::channel(MAX_BATCHES);
        let (inbound, inbound_box) = mpsc::channel(MAX_INBOUND);
        let (events, _) = broadcast::channel(MAX_EVENTS_BEHIND);
        let (jobs, job_box) = mpsc::channel(MAX_CHECKS);
        let (checks, check_box) = mpsc::channel(MAX_CHECKS);
        let (store, store_box) = mpsc::channel(MAX_STORE_OPS);
        let newest = watch::Sender::new(newest);
        let state = watch::Sender::new(NodeState::default());
        let ended = watch::Sender::new(None);
        let health = Arc::new(Health::new(events.clone()));
        let failing = health.watch();
        let clock = Arc::new(PublishClock::default());
        let (renewals, renewal_box) = mpsc::channel(RENEWALS);
        let republisher = self.republisher(Arc::clone(&clock), drafts.clone(), done.clone());
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
            subscribed: SubscribedTopics::default(),
            names: DurableNames::default(),
            failing: failing.subscribe(),
            state: state.subscribe(),
            ended: ended.subscribe(),
        };

        let span =
            tracing::info_span!(target: "sorcha_peer::node", "peer_node", peer = %me.short());
        let mut workers = JoinSet::new();
        self.spawn_checks(&mut workers, &span, job_box, check_box, &done);
        let (writer, backfill) = self.writer(newest, backfill, &health, &done);
        workers.spawn(
            run_to_end(writer.run(store_box), failing, events.clone()).instrument(span.clone()),
        );
        let peers = Arc::new(PeerWriter::default());
        workers.spawn(Arc::clone(&peers).run(self.peers, health).instrument(span.clone()));
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
            sources: JoinSet::new(),
            workers,
            record,
            _claim: claim,
        };
        for listener in listeners {
            effects.accept_from(listener);
        }
        let signer = signer::run(
            draft_box,
            self.identity.clone(),
            self.config.network.signatures,
            publishes,
        );
        effects.sources.spawn(signer.instrument(span.clone()));
        effects.sources.spawn(republisher.run(renewal_box).instrument(span.clone()));
        effects.sources.spawn(backfill.run().instrument(span.clone()));
        ask_probers(self.probers, &mut effects);
        let driver = Driver::new(self.identity, protocol, state, effects, ended);
        let mail = Mailboxes {
            completions,
            commands: command_box,
            publishes: publish_box,
            inbound: inbound_box,
            subscribed: inner.subscribed.watch(),
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

    fn republisher(
        &self,
        clock: Arc<PublishClock>,
        drafts: mpsc::Sender<Draft>,
        done: mpsc::Sender<Completion>,
    ) -> Republisher {
        let (queue, retention) = (Arc::clone(&self.queue), self.config.gossip.retention);
        let origin = self.identity.peer_id();
        Republisher { origin, queue, clock, retention, drafts, done }
    }

    fn protocol(&self, record: &OwnRecord, restored: Restored) -> Protocol {
        let now = wall_now();
        let signed = self.identity.sign_record(record.draft(self.identity.peer_id(), now));
        let validating = self.validator.as_ref().is_some_and(|v| v.judges_large());
        let restored = Restored { validating, ..restored };
        Protocol::new(&self.config, now.as_millis(), signed, self.seed, restored)
    }

    /// Makes the store writer, and the backfill of what the log had no room for.
    fn writer(
        &self,
        newest: watch::Sender<Cursor>,
        ids: VecDeque<TransactionId>,
        health: &Arc<Health>,
        done: &mpsc::Sender<Completion>,
    ) -> (StoreWriter, LogBackfill) {
        let (queue, log) = (Arc::clone(&self.queue), Arc::clone(&self.log));
        let backfill = LogBackfill {
            ids,
            retention: self.config.gossip.retention,
            queue: Arc::clone(&queue),
            log: Arc::clone(&log),
            newest: newest.clone(),
            health: Arc::clone(health),
            done: done.clone(),
        };
        let (health, done) = (Arc::clone(health), done.clone());
        (StoreWriter { queue, log, newest, health, done, refused: Mutex::default() }, backfill)
    }

    /// What checks transactions, headers and pieces off the driver.
    fn spawn_checks(
        &self,
        workers: &mut JoinSet<()>,
        span: &tracing::Span,
        jobs: mpsc::Receiver<verifier::Job>,
        checks: mpsc::Receiver<piece_verifier::Check>,
        done: &mpsc::Sender<Completion>,
    ) {
        let require = self.config.network.signatures == SignaturePolicy::Required;
        let known = Arc::new(KnownSignatures::default());
        let validator = self.validator.clone();
        let verifier = verifier::run(jobs, validator, Arc::clone(&known), require, done.clone());
        workers.spawn(verifier.instrument(span.clone()));
        let checker = piece_verifier::run(checks, known, require, done.clone());
        workers.spawn(checker.instrument(span.clone()));
    }

    /// What earlier runs left in the stores, and what of it the log has no room for.
    async fn restore(&self) -> Result<(Restored, VecDeque<TransactionId>), StoreError> {
        let (peers, bans) = self.peers.load().await?;
        // Makes room for what follows.
        unless_full(self.log.expire(wall_now()).await)?;
        let (outbox, backfill) = self.restore_outbox().await?;
        let max_bytes = self.log.usage().await?.max_bytes;
        let partials = self.log.partials().await?;
        Ok((Restored { peers, bans, outbox, max_bytes, partials, ..Restored::default() }, backfill))
    }

    /// Tells the protocol what is retained, a page at a time: all at once would take more memory for
    /// a moment than the node ever needs.
    async fn restore_index(&self, protocol: &mut Protocol) -> Result<(), StoreError> {
        let mut after = Cursor::default();
        loop {
            let page = self.log.index(after, MAX_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.cursor;
            protocol.restore(&page);
        }
    }

    /// A log that was lost or lags behind the outbox gets its own transactions again, in order; those
    /// that it has no room for are the second answer. What has expired is published anew.
    async fn restore_outbox(&self) -> Result<(Vec<Queued>, VecDeque<TransactionId>), StoreError> {
        let (mut outbox, mut backfill) = (Vec::new(), VecDeque::new());
        let (now, retention) = (wall_now(), self.config.gossip.retention);
        for filter in [EntryFilter::Waiting, EntryFilter::Dead] {
            let mut after = None;
            loop {
                let page = self.queue.load(filter, after, MAX_PAGE, MAX_PAGE_BYTES).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.seq);
                if filter == EntryFilter::Dead {
                    outbox.extend(page.iter().map(restored_entry));
                    continue;
                }
                let entries = page
                    .iter()
                    .map(|entry| log_backfill::own_entry(entry.transaction.clone(), retention));
                let entries: Vec<_> = entries.filter(|entry| entry.keep_until > now).collect();
                // In order: behind one that did not fit, none is tried.
                let full =
                    !backfill.is_empty() || unless_full(self.log.append(&entries).await)?.is_none();
                let waits = |id| full && entries.iter().any(|e| e.transaction.id() == id);
                outbox.extend(
                    page.iter()
                        .map(|e| Queued { late: waits(e.transaction.id()), ..restored_entry(e) }),
                );
                if full {
                    backfill.extend(entries.iter().map(|entry| entry.transaction.id()));
                }
            }
        }
        Ok((outbox, backfill))
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

    fn record_source(&self, listening: Option<SocketAddr>) -> OwnRecord {
        let advertise = &self.config.listen.advertise;
        let (endpoints, learn_port) = match listening {
            _ if !advertise.is_empty() => (advertise.clone(), None),
            Some(address) if address.ip().is_unspecified() => (Vec::new(), Some(address.port())),
            Some(address) => (vec![Endpoint::from(address)], None),
            None => (Vec::new(), None),
        };
        let seq = wall_now().as_millis();
        OwnRecord { seq, learn_port, endpoints, learned: BTreeSet::new() }
    }
}

fn ask_probers(probers: Vec<Arc<dyn NatProber>>, effects: &mut Effects) {
    for prober in probers {
        effects.sources.spawn(probe(prober, effects.events.clone()));
    }
}

async fn probe(prober: Arc<dyn NatProber>, events: broadcast::Sender<Event>) {
    let name = prober.name().to_owned();
    match tokio::time::timeout(PROBE_TIMEOUT, prober.probe()).await {
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

fn restored_entry(entry: &OutboxEntry) -> Queued {
    let (attempts, dead) = match &entry.state {
        EntryState::Waiting { attempts, .. } => (*attempts, None),
        EntryState::Dead { reason, .. } => (0, Some(GivenUp::of(reason))),
    };
    Queued { id: entry.transaction.id(), attempts, dead, late: false }
}
