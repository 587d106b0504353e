//! The core: a deterministic state machine that cannot reach the world.
//!
//! [`Protocol::handle`] takes one input with the times at which it happened; afterwards
//! [`Protocol::poll_output`] is drained to `None` and each output is carried out in that order, and
//! [`Protocol::poll_timeout`] says when to come back with [`Input::Timeout`] at the latest. Equal
//! configuration, seed, restored state and inputs give equal outputs, byte for byte, in every
//! process. There is no clock, socket, file, task, lock or unordered map in here.
//!
//! Order is meaning: an output that stores stands before the one that promises. Completions
//! (`Stored`, `Verified`, `Loaded`, …) carry the ticket of their output; an unknown ticket is
//! ignored.
//!
//! The parts, each with its contract at the top of its file: `session` (hello, links), `overlay`
//! (which links), `discovery` (which peers), `liveness` (who is there), `gossip` (push, announce),
//! `reconcile` (repair), `fetch` (want; `asks`), `judge` (verify, accept), `large`, `reserve`,
//! `promises`, `stripe` and `pieces` (large payloads), `spill` (their way to the store and back),
//! `interest` (topics), `serve` (answer), `publish` (store), `outbox` (copies; `renew`), `flush` (their
//! order), `guard` (bans; `limits`), `log` (what is retained; `slab`, `order`, `topics`, `ids`).

mod env;
mod gate;
#[cfg(any(test, feature = "sim"))]
mod gauges;
mod guard;
mod id_map;
mod intake;
mod io;
mod large;
mod link;
mod log;
mod membership;
mod outbox;
mod reconcile;
mod rng;
mod serve;
mod spread;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::config::Config;
use crate::types::{
    Announcement, CloseReason, Counters, IndexEntry, LinkId, Message, Mode, MonoTime, PeerId,
    PeerRecord, Stats, TransactionId, WallTime,
};

use env::Env;
use gate::Gate;
#[cfg(any(test, feature = "sim"))]
#[doc(hidden)]
pub use gauges::Gauge;
use id_map::IdMap;
use intake::{FetchState, Pending};
pub use io::{
    CallId, ConnectFailure, DialId, Input, Judgement, LinkView, Output, PartialOp, PublishRefusal,
    Queued, Restored, Ticket,
};
pub use outbox::GivenUp;
#[cfg(feature = "node")]
pub(crate) use outbox::RENEWALS;
use timers::Timer;

/// How often expired transactions and bans are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// The whole protocol state of one node.
#[derive(Debug)]
pub struct Protocol {
    env: Env,
    record: PeerRecord,
    links: link::Links,
    book: membership::Book,
    dials: BTreeMap<DialId, membership::Dial>,
    next_dial: u64,
    /// Peers whose link broke, the latest last.
    lost: VecDeque<PeerId>,
    log: log::Log,
    /// Its head when it was last told what all links have passed.
    forgot_at: u64,
    carrying: spread::Carrying,
    learned: spread::Learned,
    repairs: reconcile::Repairs,
    pending: IdMap<Pending>,
    fetches: FetchState,
    publishing: BTreeMap<TransactionId, Vec<CallId>>,
    /// What they will take up.
    publishing_bytes: u64,
    outbox: outbox::Outbox,
    /// Entries of it that are being published anew.
    renewing: usize,
    /// As many of them as may be under way.
    renewals: usize,
    /// Entries of it that wait since before the start, until it is known which the log has.
    restored: Vec<TransactionId>,
    flushes: outbox::Flushes,
    copies_wanted: u32,
    guard: guard::Guard,
    limits: guard::Limits,
    mode: Mode,
    needy_turns: u32,
    /// Answers whose signatures are being checked.
    checking_records: Gate,
}

impl Protocol {
    /// The state of a node that starts now. `seed` decides every random choice; `incarnation` must
    /// be higher than in every earlier run of this identity; `record` is the node's own, signed.
    pub fn new(
        config: &Config,
        incarnation: u64,
        record: PeerRecord,
        seed: [u8; 32],
        restored: Restored,
    ) -> Self {
        let mut rng = rng::Rng::new(seed);
        let shares = log::Shares::new(bounds(restored.max_bytes, config));
        let mut log = log::Log::new(&mut rng, config.gossip.cache_bytes, shares);
        restore(&mut log, &restored.index);
        let waiting =
            restored.outbox.iter().filter(|q| q.dead.is_none() && !q.late).map(|q| q.id).collect();
        let outbox = outbox::Outbox::restore(restored.outbox, &mut rng);
        let discovery = &config.discovery;
        let book = membership::Book::new(&discovery.bootstrap, discovery.max_peers, restored.peers);
        let pending = IdMap::new(&mut rng);
        let fetches = FetchState::new(&mut rng, restored.partials);
        let refresh = rng.about(discovery.refresh_interval);
        let mut env = Env::new(config, record.peer(), incarnation, rng);
        env.validating = restored.validating;
        env.timers.set(Timer::Overlay, MonoTime::ZERO);
        env.timers.set(Timer::Expire, MonoTime::ZERO + EXPIRE_EVERY);
        env.timers.set(Timer::Refresh, MonoTime::ZERO + refresh);
        Self {
            env,
            record,
            links: link::Links::default(),
            book,
            dials: BTreeMap::new(),
            next_dial: 0,
            lost: VecDeque::new(),
            log,
            forgot_at: 0,
            carrying: spread::Carrying::new(&config.gossip),
            learned: spread::Learned::new(),
            repairs: reconcile::Repairs::default(),
            pending,
            fetches,
            publishing: BTreeMap::new(),
            publishing_bytes: 0,
            outbox,
            renewing: 0,
            renewals: restored.spare_places.unwrap_or(outbox::RENEWALS).clamp(1, outbox::RENEWALS),
            restored: waiting,
            flushes: outbox::Flushes::default(),
            copies_wanted: config.outbox.min_copies,
            guard: guard::Guard::new(restored.bans),
            limits: guard::Limits::default(),
            mode: Mode::Offline,
            needy_turns: 0,
            checking_records: Gate::default(),
        }
    }

    /// More of what was retained when the node started, in cursor order; before any input.
    pub fn restore(&mut self, index: &[IndexEntry]) {
        restore(&mut self.log, index);
    }

    /// Takes one input. `now` never goes back (an earlier one counts as the latest seen); `wall`
    /// may jump.
    pub fn handle(&mut self, now: MonoTime, wall: WallTime, input: Input) {
        let first = self.env.is_first();
        self.env.note_time(now, wall);
        if first {
            self.check_restored();
        }
        self.route(input);
        loop {
            self.advance_inflows();
            let Some(timer) = self.env.timers.pop(self.env.now) else { break };
            self.fire(timer);
        }
        loop {
            self.admit_waiting();
            self.say_interest();
            self.flush_dirty();
            if !self.close_overfull() {
                break;
            }
            // What was asked there is asked elsewhere, and leaves in this turn too.
            self.advance_inflows();
        }
    }

    /// What waits in the outbox since an earlier run and is not retained has expired.
    fn check_restored(&mut self) {
        for id in std::mem::take(&mut self.restored) {
            if !self.log.contains(&id) {
                self.outbox.set_stale(&id);
            }
        }
    }

    /// The next thing to do; drain to `None` after every [`Protocol::handle`].
    pub fn poll_output(&mut self) -> Option<Output> {
        self.env.out.pop_front()
    }

    /// When to come back with [`Input::Timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        self.env.timers.next()
    }

    /// Whether frames and publishes should be fed in now. While this is `false`, only completions
    /// and time should be: that is how checks and disks slow down peers instead of filling memory.
    pub fn has_room(&self) -> bool {
        self.env.has_room()
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.env.counters
    }

    /// Whether this id is accepted and retained.
    pub fn contains(&self, id: &TransactionId) -> bool {
        self.log.contains(id)
    }

    /// Whether this is a dead letter of the outbox.
    pub fn is_dead_letter(&self, id: &TransactionId) -> bool {
        self.outbox.is_dead(id)
    }

    /// Whether this own transaction waits for copies.
    pub fn is_unconfirmed(&self, id: &TransactionId) -> bool {
        self.outbox.is_waiting(id)
    }

    /// Own transactions that wait for copies.
    pub fn unconfirmed(&self) -> Vec<TransactionId> {
        self.outbox.waiting().copied().collect()
    }

    /// Whether any own transaction waits for copies.
    pub fn has_unconfirmed(&self) -> bool {
        self.outbox.len() > self.outbox.dead()
    }

    /// Whether an own transaction waits for copies that a linked peer may make: one that takes its
    /// topic.
    pub fn awaits_copies(&self) -> bool {
        self.waits_for_taker()
    }

    /// Whether nothing waits to be sent, checked, stored or fetched.
    pub fn is_idle(&self) -> bool {
        let quiet = |l: &link::Link| {
            l.queued == 0
                && l.up.as_ref().is_none_or(|up| {
                    up.cursor >= self.log.head()
                        && up.serving.is_empty()
                        && up.backlog.is_empty()
                        && up.debt.is_none()
                })
        };
        self.env.verifying.is_empty()
            && self.env.storing.is_empty()
            && self.repairs.running.is_empty()
            && self.pending.len() == 0
            && self.links.all.values().all(quiet)
    }

    /// The links that are up.
    pub fn links(&self) -> Vec<LinkView> {
        let view = |l: &link::Link| {
            let up = l.up.as_ref()?;
            Some(LinkView {
                link: l.id,
                peer: l.remote,
                kind: l.kind,
                address: l.shown_address(),
                direction: l.direction,
                suspect: up.ping.missed > 0,
                rtt: up.rtt,
                age: self.env.now.since(up.since),
                queued: l.queued,
                behind: self.log.head().saturating_sub(up.cursor),
                in_debt: up.debt.is_some(),
                depth: up.theirs.depth,
                relay: up.theirs.is_relay(),
            })
        };
        self.links.all.values().filter_map(view).collect()
    }

    /// A snapshot of everything that is counted.
    pub fn stats(&self) -> Stats {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Stats {
            peer_id: self.env.me,
            mode: self.mode,
            uptime_s: self.env.now.as_duration().as_secs(),
            links: count(self.links.up_count()),
            handshakes: count(self.links.hello_count()),
            known_peers: count(self.book.known.len()),
            banned_peers: count(self.guard.banned_count(self.env.wall)),
            retained: self.log.len() as u64,
            outbox: (self.outbox.len() - self.outbox.dead()) as u64,
            dead_letters: self.outbox.dead() as u64,
            fetching: self.pending.len() as u64,
            carries_all: self.carrying.ours().topics.is_none(),
            topics_carried: count(self.carrying.ours().topics.as_ref().map_or(0, Vec::len)),
            stands_in: self.carrying.stands_in(),
            counters: self.env.counters.clone(),
        }
    }

    fn route(&mut self, input: Input) {
        match input {
            Input::Timeout => {}
            Input::Record(record) => self.on_record(record),
            Input::LinkOpened { link, remote, kind, address, dial } => {
                self.on_link_opened(link, remote, kind, address, dial);
            }
            Input::DialFailed { dial, reason } => self.on_dial_failed(dial, reason),
            Input::HandshakeFailed { address, reason } => self.on_handshake_failed(address, reason),
            Input::LinkClosed { link } => self.on_link_closed(link),
            Input::Received { link, messages, bytes } => self.on_received(link, messages, bytes),
            Input::Malformed { link } => self.violation(link),
            Input::Overrun { link } => self.close(link, CloseReason::SlowPeer),
            Input::Sent { link, weight, bytes } => self.on_sent(link, weight, bytes),
            Input::Publish { call, transaction, renews } => {
                self.on_publish(call, transaction, renews);
            }
            Input::NotRenewed { id, gone } => self.on_not_renewed(id, gone),
            Input::Stored { ticket, result } => self.on_stored(ticket, result),
            Input::Verified { ticket, judgement } => {
                self.on_verified(ticket, judgement);
                self.resume_sessions();
            }
            Input::RecordsVerified { ticket, valid, forged } => {
                self.on_records_verified(ticket, valid, forged);
            }
            Input::Relogged(transaction) => self.on_relogged(&transaction),
            Input::Loaded { ticket, transactions } => self.on_loaded(ticket, &transactions),
            Input::HeadVerified { ticket, result } => self.on_head_verified(ticket, result),
            Input::PieceVerified { ticket, valid } => self.on_piece_verified(ticket, valid),
            Input::Proved { ticket, proofs } => self.on_proved(ticket, proofs),
            Input::Unchecked { ticket } => self.on_unchecked(ticket),
            Input::Spilled { ticket, kept } => self.on_spilled(ticket, kept),
            Input::Unspilled { ticket, pieces } => self.on_unspilled(ticket, pieces),
            Input::Connect { call, endpoint } => self.on_connect(call, endpoint),
            Input::Disconnect { peer } => {
                if let Some(link) = self.links.by_peer.get(&peer).copied() {
                    self.close(link, CloseReason::Requested);
                }
            }
            Input::Subscribed { topics } => self.on_subscribed(topics),
            Input::Redeliver(id) => self.on_redeliver(id),
            Input::DropDeadLetter(id) => self.on_drop_dead(&id),
            Input::Ban(ban) => self.on_ban(ban),
            Input::Unban(peer) => self.on_unban(peer),
            Input::Shutdown => self.on_shutdown(),
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Hello(link) => self.on_hello_timeout(link),
            Timer::Ping(link) => self.on_ping_due(link),
            Timer::Pong(link) => self.on_pong_overdue(link),
            Timer::Flush(link) => self.flush(link),
            Timer::Fetch(id) => self.on_fetch_due(&id),
            Timer::Owed(link) => self.on_owed_due(link),
            Timer::Inflow(peer) => self.on_inflow_due(peer),
            // What waits is looked at after every turn.
            Timer::Room => {}
            Timer::Overlay => self.maintain(),
            Timer::Needy => self.on_needy(),
            Timer::Refresh => self.on_refresh(),
            Timer::Reconcile => self.on_reconcile_due(),
            Timer::Expire => self.on_expire(),
            Timer::Outbox => self.on_outbox_due(),
            Timer::Interest => self.on_interest_due(),
        }
    }

    fn on_received(&mut self, link: LinkId, messages: Vec<Message>, bytes: usize) {
        self.env.counters.frames_received += 1;
        self.env.counters.frame_bytes_received += bytes as u64;
        let now = self.env.now;
        for message in messages {
            // An earlier message of the frame may have closed the link.
            let Some(l) = self.links.all.get_mut(&link) else { return };
            l.heard = now;
            if l.up.is_some() {
                self.on_message(link, message);
            } else {
                self.on_first_message(link, message);
            }
        }
    }

    fn on_message(&mut self, link: LinkId, message: Message) {
        match message {
            Message::Hello(_) => self.violation(link),
            Message::Goodbye { reason, retry_after } => self.on_goodbye(link, reason, retry_after),
            Message::Ping { nonce } => self.send(link, Message::Pong { nonce }),
            Message::Pong { nonce } => self.on_pong(link, nonce),
            Message::PeersRequest { max } => self.on_peers_request(link, max),
            Message::Peers { records, relays } => self.on_peers(link, records, relays),
            Message::Announce(list) => self.on_announce(link, list),
            Message::Want(list) => self.on_want(link, &list),
            Message::Missing(ids) => self.on_missing(link, &ids),
            Message::Push { transaction, hop } => self.on_push(link, transaction, hop),
            Message::Piece(piece) => self.on_piece(link, piece),
            Message::Duplicate(ids) => self.on_duplicate(link, &ids),
            Message::Early(ids) => self.on_early(link, &ids),
            Message::Stored(ids) => self.on_confirmed(link, &ids),
            Message::Ask(ask) => self.on_ask(link, ask),
            Message::Answer(answer) => self.on_answer(link, &answer),
            Message::Yours { lower, upper } => self.on_yours(link, lower, upper),
            Message::Offer(offer) => self.on_offer(link, *offer),
            Message::Reserve(reservation) => self.on_reserve(link, &reservation),
            Message::Busy(ids) => self.on_busy(link, &ids),
            Message::Receiving { id, place } => self.on_receiving(link, &id, place),
            Message::Interest(interest) => self.on_interest(link, interest),
            Message::Flushed => self.on_flushed(link),
        }
    }

    /// Our addresses changed: linked peers are told at once, others by peer exchange.
    fn on_record(&mut self, record: PeerRecord) {
        // What a peer says is our address is no proof of it: only a dial that ends at ourselves is.
        self.record = record;
        for link in self.links.up_ids() {
            let records = vec![self.record.clone()];
            self.send(link, Message::Peers { records, relays: 0 });
        }
    }

    fn on_expire(&mut self) {
        self.expire_log();
        let own = self.log.take_expired_own();
        self.bury_expired(&own);
        self.expire_bans();
        self.renew_stale();
        self.expire_partials();
        self.settle_promises();
        self.repair_after_loss();
        self.owe_again();
        self.env.timers.set(Timer::Expire, self.env.now + EXPIRE_EVERY);
    }

    fn on_shutdown(&mut self) {
        self.env.shutting_down = true;
        for link in self.links.all.keys().copied().collect::<Vec<_>>() {
            self.close(link, CloseReason::Shutdown);
        }
    }
}

fn restore(log: &mut log::Log, index: &[IndexEntry]) {
    for entry in index {
        let entry = log::Entry {
            id: entry.id,
            origin: entry.origin,
            topic: entry.topic,
            size: entry.size,
            hop: entry.hops,
            stored: true,
            late: false,
            ashore: false,
            created: entry.created,
            keep_until: entry.keep_until,
            known: 0,
            ingress: spread::OWN,
            cached: None,
        };
        log.append(entry, MonoTime::ZERO);
        log.passed(log.head());
    }
}

/// What one origin may have in a store of `max_bytes`.
fn bounds(max_bytes: Option<u64>, config: &Config) -> log::Bounds {
    let gossip = &config.gossip;
    let percent = Some(u64::from(gossip.max_origin_share)).filter(|percent| *percent < 100);
    let bytes = percent.and_then(|percent| Some(max_bytes? / 100 * percent));
    let rate = Some(u64::from(gossip.max_origin_rate)).filter(|rate| *rate > 0);
    let entries = rate.map(|rate| rate.saturating_mul(gossip.retention.as_secs()) / 60);
    log::Bounds { bytes, entries }
}
