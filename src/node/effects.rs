//! Carrying out what the protocol asks for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::error::{FailureKind, StoreErrorKind, TransportError};
use crate::ports::{Accepted, Listener, RawLink, TransactionQueue, TransactionStore, Transport};
use crate::protocol::{DialId, Input, Output, PartialOp, Ticket};
use crate::types::{
    Endpoint, Event, PeerId, PeerRecord, PublishState, RecordDraft, Transaction, TransactionId,
    WallTime,
};

use super::builder::{JOBS, STORE_OPS};
use super::claim::Claim;
use super::dead_letters::Settled;
use super::driver::{Completion, Driver, Waiting, wall_now};
use super::handle::State;
use super::lane::{StoreOp, guarded};
use super::peer_lane::PeerLane;
use super::pieces::Check;
use super::verify::Job;

/// Own addresses learned from peers that are advertised.
const MAX_LEARNED: usize = 4;

/// Everything that the driver sets in motion.
pub(super) struct Effects {
    pub(super) transports: Vec<Arc<dyn Transport>>,
    pub(super) dial_timeout: Duration,
    pub(super) log: Arc<dyn TransactionStore>,
    pub(super) queue: Arc<dyn TransactionQueue>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) checks: mpsc::Sender<Check>,
    pub(super) store: mpsc::Sender<StoreOp>,
    /// Entries of the outbox to be published anew.
    pub(super) renewals: mpsc::Sender<TransactionId>,
    pub(super) peers: Arc<PeerLane>,
    pub(super) done: mpsc::Sender<Completion>,
    pub(super) inbound: mpsc::Sender<Completion>,
    /// Dials, loads and record checks under way.
    pub(super) tasks: JoinSet<()>,
    /// What brings in new work: accepting, probing, signing; ended first.
    pub(super) listeners: JoinSet<()>,
    /// Storage lanes; ended last, when they have done everything.
    pub(super) lanes: JoinSet<()>,
    pub(super) record: RecordSource,
    /// Given up when those lanes are through.
    pub(super) _claim: Claim,
}

/// What the node's own record is made of.
#[derive(Debug)]
pub(super) struct RecordSource {
    pub(super) seq: u64,
    /// The port to combine with addresses that peers report; `None` when the addresses are known.
    pub(super) learn_port: Option<u16>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) learned: BTreeSet<IpAddr>,
}

impl RecordSource {
    pub(super) fn draft(&self, peer: PeerId, issued: WallTime) -> RecordDraft {
        RecordDraft { peer, seq: self.seq, issued, endpoints: self.endpoints.clone() }
    }

    /// Takes an address that a peer sees us at; `true` when that makes a new record.
    fn learn(&mut self, ip: IpAddr) -> bool {
        let Some(port) = self.learn_port else { return false };
        if self.learned.len() >= MAX_LEARNED || !self.learned.insert(ip) {
            return false;
        }
        self.endpoints.push(Endpoint::from(std::net::SocketAddr::new(ip, port)));
        self.renew();
        true
    }

    fn renew(&mut self) {
        self.seq = (self.seq + 1).max(wall_now().as_millis());
    }
}

impl Effects {
    pub(super) fn link_channels(&self) -> (mpsc::Sender<Completion>, mpsc::Sender<Completion>) {
        (self.inbound.clone(), self.done.clone())
    }

    /// Whether the storage lane and the checks have taken in most of what they were given.
    pub(super) fn has_room(&self) -> bool {
        self.store.capacity() > STORE_OPS / 2
            && self.jobs.capacity() > JOBS / 2
            && self.checks.capacity() > JOBS / 2
    }

    /// Ends dials and listeners; their ports are free when this returns.
    pub(super) async fn stop_listening(&mut self) {
        self.tasks.abort_all();
        self.listeners.shutdown().await;
    }

    /// Waits for storage to do everything it was given.
    pub(super) async fn finish(self) {
        let Self { jobs, checks, store, peers, done, inbound, mut lanes, .. } = self;
        peers.close();
        drop((jobs, checks, store, done, inbound));
        while lanes.join_next().await.is_some() {}
    }

    /// Reaps finished tasks, so that the set holds only what is under way.
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }

    fn dial(&mut self, dial: DialId, endpoint: Endpoint, expected: Option<PeerId>) {
        let transports = self.transports.clone();
        let (done, timeout) = (self.done.clone(), self.dial_timeout);
        self.spawn(async move {
            let walk = walk_ladder(&transports, &endpoint, expected);
            let completion = match tokio::time::timeout(timeout, walk).await {
                Ok(Ok(raw)) => Completion::Linked { raw, dial: Some(dial) },
                Ok(Err(error)) => {
                    tracing::debug!(target: "sorcha_peer::overlay", %endpoint, %error, "dial failed");
                    Completion::Inputs(vec![Input::DialFailed { dial, reason: error.kind }])
                }
                Err(_) => Completion::Inputs(vec![Input::DialFailed {
                    dial,
                    reason: FailureKind::Timeout,
                }]),
            };
            let _ = done.send(completion).await;
        });
    }

    fn load(&mut self, ticket: Ticket, ids: Vec<TransactionId>) {
        let (log, queue, done) =
            (Arc::clone(&self.log), Arc::clone(&self.queue), self.done.clone());
        self.spawn(async move {
            let mut transactions = load_each(&*log, &ids).await;
            for (id, found) in ids.iter().zip(&mut transactions) {
                if found.is_none() {
                    // The outbox has its own copy of what nobody else has yet.
                    let kept = guarded(queue.get(id)).await.unwrap_or_default();
                    *found = kept.map(|entry| entry.transaction);
                }
            }
            let loaded = Input::Loaded { ticket, transactions };
            let _ = done.send(Completion::Inputs(vec![loaded])).await;
        });
    }

    fn verify_records(&mut self, ticket: Ticket, records: Vec<PeerRecord>) {
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

    fn emit(&self, event: Event) {
        // Nobody listening is no failure.
        let _ = self.events.send(event);
    }

    /// Hands over what listeners accept, until they close.
    pub(super) fn accept_from(&mut self, mut listener: Box<dyn Listener>) {
        let inbound = self.inbound.clone();
        self.listeners.spawn(async move {
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

/// Reads together what can be read: one that cannot must not keep the others from being served.
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

/// Tries the transports in the order of preference.
async fn walk_ladder(
    transports: &[Arc<dyn Transport>],
    endpoint: &Endpoint,
    expected: Option<PeerId>,
) -> Result<RawLink, TransportError> {
    let mut last = TransportError::new(FailureKind::Unsupported, "no transport can dial this");
    for transport in transports {
        match transport.dial(endpoint, expected).await {
            Ok(raw) => return Ok(raw),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Driver {
    /// Carries out everything that the protocol has asked for.
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.protocol.poll_output() {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { dial, endpoint, expected } => {
                self.effects.dial(dial, endpoint, expected);
            }
            Output::Send { link, message } => {
                let refused = self.links.get(&link).is_some_and(|l| !l.send(message));
                if refused && let Some(handle) = self.links.remove(&link) {
                    handle.abort();
                    self.feed(Input::Overrun { link });
                }
            }
            Output::Close { link } => {
                while self.closing.try_join_next().is_some() {}
                if let Some(handle) = self.links.remove(&link) {
                    handle.close(&mut self.closing);
                }
            }
            Output::Verify { ticket, transaction, from, proven } => {
                // The protocol never has more under way than the channel holds.
                let sent = self.effects.jobs.try_send(Job { ticket, transaction, from, proven });
                debug_assert!(sent.is_ok(), "verification queue overrun");
            }
            Output::VerifyHead { ticket, head } => self.check(Check::Head { ticket, head }),
            Output::VerifyPiece { ticket, root, len, piece } => {
                self.check(Check::Piece { ticket, root, len, piece });
            }
            Output::Prove { ticket, transaction } => {
                self.check(Check::Prove { ticket, transaction });
            }
            Output::VerifyRecords { ticket, records } => {
                self.effects.verify_records(ticket, records);
            }
            Output::Store { ticket, entry, own } => {
                self.store(StoreOp::Store { ticket, entry, own });
            }
            Output::Confirmed { ids, forgotten } => {
                for id in &ids {
                    self.receipts.set_state(id, PublishState::Confirmed);
                }
                for id in &forgotten {
                    self.receipts.forget(id);
                }
                self.store(StoreOp::Confirmed { ids });
            }
            Output::Renew { id } => {
                // As many as may be under way fit; when the renewer has ended, so does the node.
                let _ = self.effects.renewals.try_send(id);
            }
            Output::Renewed { id, renewed_as } => {
                self.receipts.renewed(&id, renewed_as);
                self.store(StoreOp::Confirmed { ids: vec![id] });
            }
            Output::UpdateOutbox { states } => self.store(StoreOp::UpdateOutbox { states }),
            Output::Partial(op) => self.store(StoreOp::Partial(op)),
            Output::Expire { now } => self.store(StoreOp::Expire { now }),
            Output::Load { ticket, ids } => self.effects.load(ticket, ids),
            Output::SavePeer(peer) => self.effects.peers.save(peer),
            Output::ForgetPeer(peer) => self.effects.peers.forget(peer),
            Output::SaveBan(ban) => self.effects.peers.set_ban(ban.peer, Some(ban)),
            Output::LiftBan(peer) => self.effects.peers.set_ban(peer, None),
            Output::Published { call, result } => {
                if let Some(Waiting::Publish(id, reply)) = self.waiting.remove(&call) {
                    let answer = match result {
                        Ok(true) => Ok((self.receipts.watch(id), true)),
                        Ok(false) => {
                            let status = self.protocol.publish_status(&id);
                            Ok((self.receipts.watch_again(id, status), false))
                        }
                        Err(refusal) => Err(refusal.into()),
                    };
                    self.answers.push((reply, answer));
                }
            }
            Output::Connected { call, result } => {
                if let Some(Waiting::Connect(reply)) = self.waiting.remove(&call) {
                    let _ = reply.send(result);
                }
            }
            Output::Observed { address } => self.observe(address),
            Output::RenewRecord => {
                self.effects.record.renew();
                self.sign_record();
            }
            Output::Emit(event) => self.emit(event),
        }
    }

    fn check(&mut self, check: Check) {
        // As for transactions: never more under way than the channel holds.
        let sent = self.effects.checks.try_send(check);
        debug_assert!(sent.is_ok(), "check queue overrun");
    }

    fn store(&mut self, op: StoreOp) {
        let Err(refused) = self.effects.store.try_send(op) else { return };
        let ended = matches!(refused, mpsc::error::TrySendError::Closed(_));
        debug_assert!(ended, "storage queue overrun");
        // The lane is gone: nothing is stored any more, and whoever waits is told.
        match refused.into_inner() {
            StoreOp::Store { ticket, .. } => {
                self.feed(Input::Stored { ticket, result: Err(StoreErrorKind::Closed) });
            }
            StoreOp::Partial(PartialOp::Spill { ticket, .. }) => {
                self.feed(Input::Spilled { ticket, kept: false });
            }
            StoreOp::Partial(PartialOp::Unspill { ticket, .. }) => {
                self.feed(Input::Unspilled { ticket, pieces: Vec::new() });
            }
            _ => {}
        }
    }

    /// Answers once all that was done to the stored outbox up to now is done, and `remove` is gone
    /// from it. A dropped `reply` is an answer too: the node ends.
    pub(super) fn settle_outbox(
        &mut self,
        remove: Option<TransactionId>,
        reply: oneshot::Sender<Settled>,
    ) {
        let settle = StoreOp::Settle { remove, reply };
        if let Err(mpsc::error::TrySendError::Full(settle)) = self.effects.store.try_send(settle) {
            // Many hosts' questions at once: this one waits for its turn.
            let store = self.effects.store.clone();
            self.effects.spawn(async move {
                let _ = store.send(settle).await;
            });
        }
    }

    fn emit(&mut self, event: Event) {
        match &event {
            Event::Replicated { id, peers } => self.receipts.copied(id, *peers),
            Event::DeadLettered { id, reason } => {
                self.receipts.set_state(id, PublishState::DeadLetter { reason: reason.clone() });
            }
            Event::PeerUp { .. }
            | Event::PeerDown { .. }
            | Event::ModeChanged { .. }
            | Event::DialFailed { .. }
            | Event::LinkRefused { .. }
            | Event::RecordRefused { .. } => self.refresh_state(&event),
            _ => {}
        }
        self.effects.emit(event);
    }

    fn refresh_state(&self, event: &Event) {
        let stats = self.protocol.stats();
        self.state.send_modify(|state: &mut State| {
            state.mode = Some(stats.mode);
            state.links = stats.links;
            match event {
                Event::DialFailed { address, reason } => {
                    state.hint = Some(format!("dialling {address} failed: {reason}"));
                }
                Event::LinkRefused { address, reason, .. } => {
                    let address = address.as_deref().unwrap_or("a peer");
                    state.hint = Some(format!("the link with {address} was refused: {reason}"));
                }
                _ => {}
            }
        });
    }

    fn observe(&mut self, address: IpAddr) {
        if self.effects.record.learn(address) {
            self.sign_record();
        }
    }

    fn sign_record(&mut self) {
        let draft = self.effects.record.draft(self.identity.peer_id(), wall_now());
        let record = self.identity.sign_record(draft);
        self.feed(Input::Record(record));
    }
}
