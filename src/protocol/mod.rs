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

mod dispatch;
mod env;
mod gate;
#[cfg(any(test, feature = "sim"))]
mod gauges;
mod guard;
mod id_map;
mod intake;
mod io;
mod large;
mod lifecycle;
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

use crate::config::Config;
use crate::types::{
    Announcement, Counters, IndexEntry, Mode, MonoTime, PeerId, PeerRecord, Stats, TransactionId,
    WallTime,
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
use lifecycle::EXPIRE_EVERY;
pub use outbox::GivenUp;
#[cfg(feature = "node")]
pub(crate) use outbox::RENEWALS;
use timers::Timer;

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
