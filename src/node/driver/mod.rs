//! Loop that owns the protocol.
//!
//! Biased: what waits for the store writer comes before completions of effects, those before the host's
//! commands, those before publishes and frames from peers, and time last (due timers fire with any
//! input). Local work is finished before new work is taken: while the protocol or the workers have no
//! room, neither publishes nor frames are read. Handling is synchronous; the select is the only await.

mod dials;
mod effects;
mod link;
mod own_record;
mod perform;
mod requests;
mod stall;
mod status_table;
mod store_queue;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::{DeadLetterError, RequestError, ShutdownReport, TestError};
use crate::identity::Identity;
use crate::ports::RawLink;
use crate::protocol::{Assurance, CallId, DialId, Input, LinkView, Protocol, PublishRefusal};
use crate::types::{
    LinkId, LinkState, LinkStatus, MonoTime, PeerId, PeerTest, Stats, Transaction, TransactionId,
};

use super::clock::wall_now;
use super::messages::{
    CallIds, Command, Completion, NodeState, PublishAnswer, PublishReply, SignedDraft,
    StoreFailure, Unconnected, Unpublished,
};
use super::subscribed_topics::TopicCounts;
use link::{CarriedBytes, LinkHandle};
use status_table::StatusTable;

pub(super) use dials::Dials;
pub(super) use effects::{Effects, Inbound};
pub(super) use own_record::OwnRecord;
pub(super) use requests::HandlerTasks;
pub(super) use stall::StallWatch;
pub(super) use store_queue::StoreQueue;

/// Maximum number of completions taken in one go before the select is asked again.
const MAX_BURST: usize = 64;
/// Maximum deadline of a shutdown: for ever.
const MAX_DEADLINE: Duration = Duration::from_hours(24 * 365 * 30);
/// Maximum time for publishes to be answered after the host's deadline, and once more for goodbyes and
/// storage to finish.
const WIND_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time from the host's deadline to the end of the node.
pub(super) const MAX_WIND_UP: Duration = WIND_UP_TIMEOUT.saturating_mul(2);

/// Call that waits for the protocol's answer.
enum Call {
    Publish(Vec<TransactionId>, PublishReply),
    Connect(oneshot::Sender<Result<PeerId, Unconnected>>),
    Test(oneshot::Sender<Result<PeerTest, TestError>>),
    Request(oneshot::Sender<Result<Bytes, RequestError>>),
}

/// Errors behind the input that is being handled. The protocol decides by their kind; whom it refuses
/// something for it is told the rest too.
#[derive(Debug, Default)]
struct Causes {
    dial: Option<String>,
    store: Option<StoreFailure>,
}

/// The receiving ends of the driver's channels.
pub(super) struct Mailboxes {
    pub(super) completions: mpsc::Receiver<Completion>,
    /// Commands, which are always taken.
    pub(super) commands: mpsc::Receiver<Command>,
    /// Publishes, which are taken while there is room.
    pub(super) publishes: mpsc::Receiver<Vec<SignedDraft>>,
    /// Topics that the host subscribes to.
    pub(super) subscribed: watch::Receiver<TopicCounts>,
    pub(super) inbound: mpsc::Receiver<Completion>,
}

pub(super) struct Driver {
    identity: Identity,
    protocol: Protocol,
    started: Instant,
    state: watch::Sender<NodeState>,
    effects: Effects,
    links: HashMap<LinkId, LinkHandle>,
    carried: CarriedBytes,
    closing: JoinSet<()>,
    calls: HashMap<CallId, Call>,
    statuses: StatusTable,
    /// Answers to publishes. Answers of one commit are sent together: the publishers come back
    /// together then, and are signed and committed together again.
    answers: Vec<(PublishReply, PublishAnswer)>,
    /// Inputs that come of what the protocol asked for, such as refusals. They are handled when its
    /// outputs are done.
    follow_ups: VecDeque<Input>,
    /// Number of checks that no verifier took since there was last room for some.
    refused_checks: u64,
    causes: Causes,
    next_link: u64,
    call_ids: CallIds,
    /// Time when a shutdown that was asked for stops waiting.
    stop_at: Option<Instant>,
    /// Report of the shutdown, set when it is through.
    ended: watch::Sender<Option<ShutdownReport>>,
}

impl Driver {
    pub(super) fn new(
        identity: Identity,
        protocol: Protocol,
        state: watch::Sender<NodeState>,
        effects: Effects,
        call_ids: CallIds,
        ended: watch::Sender<Option<ShutdownReport>>,
    ) -> Self {
        Self {
            identity,
            protocol,
            started: Instant::now(),
            state,
            effects,
            links: HashMap::new(),
            carried: CarriedBytes::default(),
            closing: JoinSet::new(),
            calls: HashMap::new(),
            statuses: StatusTable::default(),
            answers: Vec::new(),
            follow_ups: VecDeque::new(),
            refused_checks: 0,
            causes: Causes::default(),
            next_link: 0,
            call_ids,
            stop_at: None,
            ended,
        }
    }

    /// Runs until the node is shut down or the last handle is dropped.
    pub(super) async fn run(mut self, mut mail: Mailboxes) {
        let timer = tokio::time::sleep_until(self.started);
        tokio::pin!(timer);
        loop {
            self.carry_out();
            self.answer();
            if self.effects.stall.begins() {
                // Dropped, they say that the transaction may be stored.
                self.calls.retain(|_, call| !matches!(call, Call::Publish(..)));
            }
            if self.effects.has_room() {
                self.note_room();
            }
            if self.is_done() {
                break;
            }
            let due = self.next_wakeup();
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            let room = self.has_room();
            // Where the stores are stuck there is no room, and publishes are to be refused.
            let publishes = room || self.effects.stall.is_stuck();
            tokio::select! {
                biased;
                () = self.effects.store.can_flush(), if self.effects.store.is_waiting() => {
                    self.effects.store.flush();
                }
                Some(completion) = mail.completions.recv() => {
                    self.complete(completion);
                    self.burst(&mut mail.completions, &mail.commands, false);
                }
                command = mail.commands.recv() => match command {
                    Some(command) => self.command(command),
                    // The last handle is gone.
                    None => self.stop(Duration::ZERO),
                },
                Ok(()) = mail.subscribed.changed() => {
                    let topics = mail.subscribed.borrow_and_update().topics();
                    self.feed(Input::Subscribed { topics });
                }
                Some(batch) = mail.publishes.recv(), if publishes => {
                    for signed in batch {
                        self.publish(signed);
                    }
                }
                Some(frames) = mail.inbound.recv(), if room => {
                    self.complete(frames);
                    self.burst(&mut mail.inbound, &mail.commands, true);
                }
                () = &mut timer => self.feed(Input::Timeout),
            }
        }
        Box::pin(self.wind_up(mail)).await;
    }

    /// Returns whether new work may be taken; completions and time always are.
    fn has_room(&self) -> bool {
        self.protocol.has_room() && self.effects.has_room()
    }

    /// Takes more completions that wait, without asking the select each time, until a command waits.
    fn burst(
        &mut self,
        from: &mut mpsc::Receiver<Completion>,
        commands: &mpsc::Receiver<Command>,
        needs_room: bool,
    ) {
        for _ in 0..MAX_BURST {
            if !commands.is_empty() || needs_room && !self.has_room() {
                return;
            }
            let Ok(completion) = from.try_recv() else { return };
            self.complete(completion);
        }
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Inputs(inputs) => {
                for input in inputs {
                    if let Input::LinkClosed { link } = input
                        && let Some(handle) = self.links.remove(&link)
                    {
                        handle.abort(&self.carried);
                    }
                    self.feed(input);
                }
                self.answer();
            }
            Completion::Frame { input, room: _room } => {
                self.note_handlers();
                self.feed(input);
                self.answer();
            }
            Completion::Linked { raw, dial } => {
                if dial.is_none_or(|dial| self.effects.dials.finish(dial)) {
                    self.open(raw, dial);
                }
            }
            Completion::NotDialled { dial, error } => {
                if !self.effects.dials.finish(dial) {
                    return;
                }
                let detail = error.to_string();
                self.causes.dial = Some(detail.clone());
                self.feed(Input::DialFailed { dial, reason: error.kind, detail });
                self.causes.dial = None;
            }
            Completion::KnownAddresses { reply } => {
                let _ = reply.send(self.protocol.known_addresses());
            }
            Completion::Handled { ticket, result } => self.handled(ticket, result),
            Completion::Stored(results) => {
                self.effects.stall.note_results(results.len());
                for (ticket, result) in results {
                    self.causes.store = result.err();
                    let result = self.causes.store.as_ref().map_or(Ok(()), |e| Err(e.kind));
                    self.feed(Input::Stored { ticket, result });
                }
                self.causes.store = None;
                self.answer();
            }
        }
    }

    /// Sends the answers to publishes.
    fn answer(&mut self) {
        for (reply, answer) in self.answers.drain(..) {
            reply.send(answer);
        }
    }

    fn open(&mut self, raw: RawLink, dial: Option<DialId>) {
        self.next_link += 1;
        let link = LinkId(self.next_link);
        let (remote, kind, address) = (raw.remote, raw.kind, raw.address);
        let assurance = Assurance { binding: raw.binding, certified: raw.certified };
        let (inbound, done) = self.effects.link_channels();
        self.links.insert(link, LinkHandle::spawn(link, raw, inbound, done));
        self.feed(Input::LinkOpened { link, remote, kind, address, dial, assurance });
    }

    /// Handles one input, then does everything that comes of it.
    fn feed(&mut self, input: Input) {
        self.handle(input);
        self.carry_out();
    }

    fn handle(&mut self, input: Input) {
        let now = MonoTime::from_duration(self.started.elapsed());
        self.protocol.handle(now, wall_now(), input);
    }

    fn publish(&mut self, signed: SignedDraft) {
        // The room is given back at the end, when the protocol counts the payloads.
        let SignedDraft { transactions, renews, reply, room: _room } = signed;
        if self.stop_at.is_some() {
            let _ = reply.send(Err(PublishRefusal::Closed.into()));
            return;
        }
        if let Some(failure) = self.effects.stall.refusal() {
            let _ = reply.send(Err(Unpublished::NotStored(failure)));
            return;
        }
        let reply = PublishReply::new(reply);
        let ids = transactions.iter().map(Transaction::id).collect();
        let call = self.enter(Call::Publish(ids, reply));
        self.feed(Input::Publish { call, transactions, renews });
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Connect { endpoint, reply } => {
                let call = self.enter(Call::Connect(reply));
                self.feed(Input::Connect { call, endpoint });
            }
            Command::TestPeer { peer, reply } => {
                let call = self.enter(Call::Test(reply));
                self.feed(Input::TestPeer { call, peer });
            }
            Command::Request(ask) => self.ask(*ask),
            Command::CancelRequest { call } => self.cancel_request(call),
            Command::ResetBreaker { peer } => self.feed(Input::ResetBreaker { peer }),
            Command::Disconnect { peer } => self.feed(Input::Disconnect { peer }),
            Command::Ban { ban, reply } => {
                self.feed(Input::Ban(ban));
                self.effects.peers.settle(reply);
            }
            Command::Unban { peer, reply } => {
                self.feed(Input::Unban(peer));
                self.effects.peers.settle(reply);
            }
            Command::SettleOutbox { reply } => self.settle_outbox(None, reply),
            Command::Redeliver { id, reply } => {
                let _ = reply.send(self.redeliver(id));
            }
            Command::DropDeadLetter { id, reply } if self.protocol.is_unconfirmed(&id) => {
                // A peer has confirmed it in this moment.
                let _ = reply.send(Err(DeadLetterError::NotFound { id }));
            }
            Command::DropDeadLetter { id, reply } => {
                self.feed(Input::DropDeadLetter(id));
                self.settle_outbox(Some(id), reply);
            }
            Command::Peers { reply } => {
                let _ = reply.send(self.peers());
            }
            Command::Stats { reply } => {
                let _ = reply.send(self.stats());
            }
            Command::Explain { id, reply } => {
                let _ = reply.send(self.protocol.explain(&id));
            }
            Command::Overview { reply } => {
                let _ = reply.send((self.stats(), self.peers()));
            }
            #[cfg(feature = "compat")]
            Command::KnownPeers { reply } => {
                let _ = reply.send(self.protocol.known_peers());
            }
            Command::Reachability { reply } => {
                let _ = reply.send(self.protocol.reachability());
            }
            Command::Addresses { reply } => {
                let _ = reply.send(self.effects.record.endpoints().to_vec());
            }
            Command::Shutdown { deadline } => self.stop(deadline),
        }
    }

    fn enter(&mut self, waiting: Call) -> CallId {
        let call = self.call_ids.next();
        self.calls.insert(call, waiting);
        call
    }

    fn stats(&self) -> Stats {
        // Since the core's last input an idle node has grown older.
        let now = MonoTime::from_duration(self.started.elapsed());
        let mut stats = self.protocol.stats_at(now);
        self.effects.add_memory(&mut stats);
        let open = self.links.values().map(LinkHandle::traffic);
        let sum = |a: (u64, u64), b: (u64, u64)| (a.0 + b.0, a.1 + b.1);
        let (received, sent) = open.fold(self.carried.read(), sum);
        stats.counters.link_bytes_received = received;
        stats.counters.link_bytes_sent = sent;
        stats
    }

    fn peers(&self) -> Vec<LinkStatus> {
        let status = |view: LinkView| LinkStatus {
            peer: view.peer,
            transport: view.kind,
            address: view.address,
            direction: view.direction,
            state: if view.suspect { LinkState::Suspect } else { LinkState::Up },
            rtt_us: view.rtt.map_or(0, |rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            jitter_us: u64::try_from(view.jitter.as_micros()).unwrap_or(u64::MAX),
            quality: view.score.unwrap_or(0),
            served_percent: view.served_percent,
            first_percent: view.first_percent,
            connected_s: view.age.as_secs(),
            queued_bytes: view.queued_bytes as u64,
            under_way_bytes: view.under_way_bytes,
            bytes_per_second: view.rate.unwrap_or(0),
            incoming_bytes_per_second: view.inflow.unwrap_or(0),
            lag: view.lag,
            in_debt: view.in_debt,
            depth: view.depth,
            relay: view.relay,
            clock_offset_ms: view.clock_offset_ms,
        };
        self.protocol.links().into_iter().map(status).collect()
    }

    fn stop(&mut self, deadline: Duration) {
        self.effects.is_running.send_replace(false);
        let until = Instant::now() + deadline.min(MAX_DEADLINE);
        self.stop_at = Some(self.stop_at.map_or(until, |earlier| earlier.min(until)));
        self.close_requests();
    }

    /// Returns whether a shutdown may go on: everything has left and is confirmed, nobody is there to
    /// send it to, or the time is up.
    fn is_done(&self) -> bool {
        let Some(until) = self.stop_at else { return false };
        let quiet = self.protocol.is_idle() && self.calls.is_empty();
        let settled = quiet && !self.protocol.awaits_copies();
        settled || Instant::now() >= until
    }

    fn next_wakeup(&self) -> Instant {
        let far = Duration::from_hours(1);
        let due = self.protocol.poll_timeout().map_or(far, MonoTime::as_duration);
        let due = self.started + due;
        let due = self.stop_at.map_or(due, |until| due.min(until));
        self.effects.stall.deadline().map_or(due, |stuck| due.min(stuck))
    }

    /// Waits for the answers to publishes whose transaction is being stored. A publisher without one
    /// by the end is told that the transaction may have been stored.
    async fn settle_publishes(&mut self, completions: &mut mpsc::Receiver<Completion>) {
        let until = Instant::now() + WIND_UP_TIMEOUT;
        while self.calls.values().any(|w| matches!(w, Call::Publish(..))) {
            match tokio::time::timeout_at(until, completions.recv()).await {
                Ok(Some(completion)) => self.complete(completion),
                _ => return,
            }
        }
    }

    /// Ends the node: goodbyes, then storage, then answers.
    async fn wind_up(mut self, mut mail: Mailboxes) {
        let undrained = self
            .protocol
            .links()
            .into_iter()
            .filter(|l| l.queued_bytes > 0 || l.lag > 0 || l.in_debt);
        let undrained = undrained.map(|l| l.peer).collect();
        self.effects.stop_listening().await;
        let handlers = self.effects.handlers.end();
        if tokio::time::timeout(WIND_UP_TIMEOUT, handlers).await.is_err() {
            tracing::warn!(target: "sorcha_peer::node", "a handler of requests blocks its thread");
        }
        self.settle_publishes(&mut mail.completions).await;
        let report = ShutdownReport { undrained, unconfirmed: self.protocol.unconfirmed() };
        self.feed(Input::Shutdown);
        self.answer();
        let Self { effects, links, carried, mut closing, ended, identity, .. } = self;
        for handle in links.into_values() {
            handle.abort(&carried);
        }
        // Receivers stay open until the writers are done, so that no answer of theirs is refused.
        let Mailboxes { mut completions, commands, publishes, inbound, .. } = mail;
        drop((commands, publishes, inbound));
        let rest = async {
            while closing.join_next().await.is_some() {}
            effects.finish().await;
        };
        let drain = async { while completions.recv().await.is_some() {} };
        let both = async { tokio::join!(rest, drain) };
        if tokio::time::timeout(WIND_UP_TIMEOUT, both).await.is_err() {
            tracing::warn!(target: "sorcha_peer::node", peer = %identity.peer_id(), "storage did not finish in time");
        }
        ended.send_replace(Some(report));
        tracing::info!(target: "sorcha_peer::node", peer = %identity.peer_id(), "node stopped");
    }
}
