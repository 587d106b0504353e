//! The core: a deterministic state machine that cannot reach the world. Public with the feature
//! `unstable-core` only, and not covered by semver.
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
//! Each folder is a part with a state of its own; its contract stands at the top of its files.
//!
//! ```text
//!            input ──► dispatch ──► the part that it is for      lifecycle: what concerns all parts
//!
//!   membership  whom to know and dial      link    hello, batches, pings, what waits for a peer
//!   guard       bans, reputation, limits   log     what is retained, in two orders
//!
//!   peers ──► intake ◄──► large            an announcement becomes an entry of the log
//!              │            ▲
//!              ▼            │
//!             log ──► spread ──► peers     what is new, pushed or announced
//!              │
//!              ├──► serve ──► peers        what they ask for
//!              ├──► reconcile ◄──► peers   what one of two lacks
//!              └──► outbox ──► peers       own entries until enough others have them
//!
//!   messages ◄──► peers                    what one asks another, and no one else
//!   reachability ◄──► peers                whether others can dial this node, and what they are told
//!   trail                                  what happened to each, for people: nothing depends on it
//! ```
//!
//! Who may call whom is a table in `tests/repo/calls.rs`.
//!
//! Tested by: `protocol::tests::property`, `sim::tests::replay`.

mod clock;
mod deliveries;
mod dispatch;
mod env;
mod explain;
mod gate;
#[cfg(any(test, feature = "sim"))]
mod gauges;
mod guard;
mod id_map;
mod intake;
mod interner;
mod io;
mod large;
mod lifecycle;
mod link;
mod log;
mod membership;
mod memory;
mod messages;
mod outbox;
mod reachability;
mod reconcile;
mod refusal;
mod restored;
mod rng;
mod serve;
mod spread;
#[cfg(test)]
mod tests;
mod timers;
mod trail;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::Config;
use crate::types::{
    Counters, Endpoint, Host, IndexEntry, LinkId, MonoTime, PeerId, PeerRecord, Stats,
    TransactionId, WallTime, rating_of,
};

use env::Env;
use guard::Guard;
use intake::Intake;
use large::Assemblies;
use lifecycle::EXPIRE_EVERY;
use link::Links;
use log::{Log, Quota};
use membership::{AddressBook, Membership};
use messages::Messages;
use outbox::{Outbox, Replays};
use reachability::OwnReach;
use reconcile::Repairs;
use rng::Rng;
use serve::Serving;
use spread::Spread;
use timers::Timer;
use trail::Trails;

#[cfg(any(test, feature = "sim"))]
#[doc(hidden)]
pub use gauges::Gauge;
pub use io::{Assurance, CallId, DialId, Input, Judgement, Output, PartialOp, Ticket};
pub use link::LinkView;
#[cfg(feature = "node")]
pub(crate) use outbox::RENEWALS;
pub use refusal::{AnswerRefusal, ConnectFailure, PublishRefusal};
pub use restored::{GivenUp, Queued, Restored};

/// The whole protocol state of one node.
#[derive(Debug)]
pub struct Protocol {
    env: Env,
    links: Links,
    membership: Membership,
    guard: Guard,
    log: Log,
    spread: Spread,
    intake: Intake,
    assemblies: Assemblies,
    serving: Serving,
    outbox: Outbox,
    replays: Replays,
    repairs: Repairs,
    messages: Messages,
    reachability: OwnReach,
    trail: Trails,
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
        let mut rng = Rng::new(seed);
        // Of its own, since what is remembered for people is to change nothing.
        let mut apart = Rng::new(seed.map(|byte| !byte));
        let quota = Quota::new(bounds(restored.max_bytes, config));
        let mut log = Log::new(&mut rng, config.shares().cache, quota);
        restore(&mut log, &restored.index);
        let (least, spare) = (config.outbox.min_copies, restored.spare_places);
        let outbox = Outbox::restore(restored.outbox, least, spare, &mut rng);
        let discovery = &config.discovery;
        let book = AddressBook::new(&discovery.bootstrap, discovery.max_peers, restored.peers);
        let shares = config.shares();
        let (intake, serving) = (Intake::new(&mut rng), Serving::new(&mut rng, shares.proofs));
        let refresh = rng.about(discovery.refresh_interval);
        let mut env = Env::new(config, record.peer(), incarnation, rng);
        env.validating = restored.validating;
        env.store_max_bytes = restored.max_bytes;
        note_stored(&mut env, &restored.index);
        env.timers.set(Timer::Overlay, MonoTime::ZERO);
        env.timers.set(Timer::Expire, MonoTime::ZERO + EXPIRE_EVERY);
        env.timers.set(Timer::Refresh, MonoTime::ZERO + refresh);
        Self {
            env,
            links: Links::default(),
            membership: Membership::new(record, book, restored.rungs),
            guard: Guard::new(restored.bans),
            log,
            spread: Spread::new(&config.gossip),
            intake,
            assemblies: Assemblies::new(restored.partials),
            serving,
            outbox,
            replays: Replays::default(),
            repairs: Repairs::restored(restored.whole_since, restored.whole_until),
            messages: Messages::new(&config.messages, shares.requests),
            reachability: OwnReach::new(&config.listen.advertise, restored.listening),
            trail: Trails::new(&mut apart, shares.trails),
        }
    }

    /// Takes in more of what was retained when the node started, in cursor order; before any input.
    pub fn restore(&mut self, index: &[IndexEntry]) {
        note_stored(&mut self.env, index);
        restore(&mut self.log, index);
    }

    /// Takes one input. `now` never goes back (an earlier one counts as the latest seen); `wall`
    /// may jump.
    pub fn handle(&mut self, now: MonoTime, wall: WallTime, input: Input) {
        let first = self.env.is_first();
        if self.env.note_time(now, wall) {
            self.on_clock_leapt();
        }
        if first {
            self.begin_past();
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
            self.serve_in_line();
            self.settle_waiting();
            self.say_interest();
            self.drain_dirty();
            if !self.close_overfull() {
                break;
            }
            // What was asked there is asked elsewhere, and leaves in this turn too.
            self.advance_inflows();
        }
    }

    /// Expires what waits in the outbox since an earlier run and is not retained.
    fn check_restored(&mut self) {
        for id in std::mem::take(&mut self.outbox.restored) {
            if !self.log.contains(&id) {
                self.outbox.set_stale(&id);
            }
        }
    }

    /// The next thing to do; drain to `None` after every [`Protocol::handle`].
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.env.out.pop_front();
        if let Some(Output::Dial { endpoint, .. }) = &output {
            self.note_dialled(endpoint);
        }
        output
    }

    /// Returns the latest time to come back with [`Input::Timeout`].
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        self.env.timers.next()
    }

    /// Reports whether frames and publishes should be fed in now. While this is `false`, only
    /// completions and time should be: that is how checks and disks slow down peers instead of
    /// filling memory.
    pub fn has_room(&self) -> bool {
        self.env.has_room(self.assemblies.bytes.level())
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.env.counters
    }

    /// Reports whether this id is accepted and retained.
    pub fn contains(&self, id: &TransactionId) -> bool {
        self.log.contains(id)
    }

    /// Reports whether this is a dead letter of the outbox.
    pub fn is_dead_letter(&self, id: &TransactionId) -> bool {
        self.outbox.is_dead(id)
    }

    /// Reports whether this own transaction waits for copies.
    pub fn is_unconfirmed(&self, id: &TransactionId) -> bool {
        self.outbox.is_waiting(id)
    }

    /// Returns the own transactions that wait for copies.
    pub fn unconfirmed(&self) -> Vec<TransactionId> {
        self.outbox.waiting().copied().collect()
    }

    /// Reports whether any own transaction waits for copies.
    pub fn has_unconfirmed(&self) -> bool {
        self.outbox.len() > self.outbox.dead()
    }

    /// Reports whether an own transaction waits for copies that a linked peer may make: one that
    /// takes its topic.
    pub fn awaits_copies(&self) -> bool {
        self.waits_for_taker()
    }

    /// Reports whether nothing waits to be sent, checked, stored or fetched.
    pub fn is_idle(&self) -> bool {
        let quiet = |l: &link::Link| {
            l.queued_bytes == 0
                && l.up.as_ref().is_none_or(|up| {
                    up.feed.cursor >= self.log.head()
                        && up.serve.entries.is_empty()
                        && !up.messages.is_sending()
                        && up.requests.backlog.is_empty()
                        && up.feed.debt.is_none()
                })
        };
        self.env.verifying.is_empty()
            && self.env.storing.is_empty()
            && self.repairs.running.is_empty()
            && self.intake.pending.len() == 0
            && self.links.all.values().all(quiet)
    }

    /// The links that are up.
    pub fn links(&self) -> Vec<LinkView> {
        let now = self.env.now;
        let view = |(id, l): (&LinkId, &link::Link)| {
            let up = l.up.as_ref()?;
            Some(LinkView {
                link: l.wire,
                peer: l.remote,
                kind: l.kind,
                address: l.shown_address(),
                direction: l.direction,
                suspect: up.pinger.missed > 0,
                rtt: up.pinger.rtt,
                jitter: up.quality.jitter(),
                score: up.score(now),
                served_percent: up.quality.served_percent(now),
                first_percent: up.quality.first_percent(now),
                age: now.since(up.since),
                queued_bytes: l.queued_bytes,
                under_way_bytes: up.budget.under_way(),
                rate: up.budget.rate(),
                inflow: up.quality.inflow().max(up.pieces.measured()),
                lag: self.log.head().saturating_sub(up.feed.cursor),
                in_debt: up.feed.debt.is_some(),
                depth: up.interest.theirs.depth,
                relay: up.interest.theirs.is_relay(),
                clock_offset_ms: self.env.clock.offset_of(*id),
            })
        };
        self.links.all.iter().filter_map(view).collect()
    }

    /// Lists the peers of the address book with where each is dialled first, when it was linked last, and
    /// whether it is a first contact.
    pub fn known_peers(&self) -> Vec<(PeerId, Endpoint, Option<WallTime>, bool)> {
        let book = &self.membership.book;
        let known = book.known.iter().filter_map(|(peer, known)| {
            let endpoint = known.endpoint(|_| true)?.clone();
            Some((*peer, endpoint, known.last_up(), book.is_bootstrap(peer)))
        });
        known.collect()
    }

    /// Lists the IP addresses at which known peers can be dialled, and those from which linked ones come.
    pub fn known_addresses(&self) -> BTreeSet<IpAddr> {
        let known = self.membership.book.known.values();
        let recorded = known.filter_map(|known| known.record.as_ref());
        let hosts = recorded.flat_map(|record| record.endpoints().iter().map(Endpoint::host));
        let dialled = hosts.filter_map(|host| match host {
            Host::Ip(ip) => Some(*ip),
            Host::Name(_) => None,
        });
        let links = self.links.all.values();
        dialled.chain(links.filter_map(|link| Some(link.address?.ip()))).collect()
    }

    /// Returns the number of links of each rating.
    fn ratings(&self) -> BTreeMap<String, u32> {
        let mut ratings = BTreeMap::new();
        let ups = self.links.all.values().filter_map(|l| l.up.as_ref());
        for score in ups.filter_map(|up| up.score(self.env.now)) {
            *ratings.entry(rating_of(score).to_owned()).or_default() += 1;
        }
        ratings
    }

    /// Returns the number of links of each kind that `kind` tells.
    fn links_by(&self, kind: impl Fn(&link::Link) -> &'static str) -> BTreeMap<String, u32> {
        let mut kinds = BTreeMap::<_, u32>::new();
        for link in self.links.all.values().filter(|l| l.up.is_some()) {
            *kinds.entry(kind(link)).or_default() += 1;
        }
        kinds.into_iter().map(|(kind, links)| (kind.to_owned(), links)).collect()
    }

    /// A snapshot of everything that is counted, at the time of the last input.
    pub fn stats(&self) -> Stats {
        self.stats_at(self.env.now)
    }

    /// A snapshot of everything that is counted, with ages as they are at `now`.
    pub fn stats_at(&self, now: MonoTime) -> Stats {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let wall = self.env.wall.plus(now.since(self.env.now));
        let age_ms = |since: WallTime| wall.as_millis().saturating_sub(since.as_millis());
        let [memory, memory_limits] = self.memory_maps();
        let deliveries = &self.env.deliveries;
        Stats {
            peer_id: self.env.me,
            at_ms: wall.as_millis(),
            mode: self.membership.connection.mode,
            uptime_s: now.as_duration().as_secs(),
            links: count(self.links.up_count()),
            handshakes: count(self.links.hello_count()),
            known_peers: count(self.membership.book.known.len()),
            open_breakers: count(self.membership.open_breakers()),
            half_open_breakers: count(self.membership.half_open_breakers()),
            banned_peers: count(self.guard.banned_count(self.env.corroborated())),
            links_by_transport: self.links_by(|link| link.kind.as_str()),
            links_by_direction: self.links_by(|link| link.direction.as_str()),
            retained: self.log.len() as u64,
            retained_bytes: self.log.live_bytes(),
            store_max_bytes: self.env.store_max_bytes,
            outbox: (self.outbox.len() - self.outbox.dead()) as u64,
            dead_letters: self.outbox.dead() as u64,
            outbox_limit: u64::from(self.env.config.outbox.max_entries),
            outbox_attempts: self.outbox.attempts(),
            outbox_oldest_age_ms: self.outbox.oldest().map(age_ms),
            fetching: self.intake.pending.len() as u64,
            delivery_hops: deliveries.hops.to_vec(),
            delivery_latency: deliveries.latency.to_vec(),
            delivery_latency_sum_us: deliveries.latency_sum_us,
            carries_all: self.spread.carrying.ours().topics.is_none(),
            topics_carried: count(self.spread.carrying.ours().topics.as_ref().map_or(0, Vec::len)),
            stands_in: self.spread.carrying.stands_in(),
            clock_off: self.env.clock.standing() == clock::Standing::Off,
            clock_offset_ms: self.env.clock.distance().map_or(0, |(offset, _)| offset),
            clock_votes: count(self.env.clock.distance().map_or(0, |(_, votes)| votes)),
            ratings: self.ratings(),
            memory,
            memory_limits,
            advertised: self
                .membership
                .record
                .endpoints()
                .iter()
                .map(Endpoint::to_string)
                .collect(),
            reachability: self.reachability.state.clone(),
            observed: self.reachability.observed().map(|ip| ip.to_string()).collect(),
            // Known outside the core.
            storage_failing: false,
            listen: Vec::new(),
            compat_peers: 0,
            compat_hashes: 0,
            counters: self.env.counters.clone(),
        }
    }
}

/// Learns from what is stored what time it was.
fn note_stored(env: &mut Env, index: &[IndexEntry]) {
    for entry in index {
        env.clock.note_stored(entry.created, entry.hops == 0);
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
            is_backfill: false,
            stored_upstream: false,
            created: entry.created,
            keep_until: entry.keep_until,
            known: 0,
            ingress: log::OWN,
            cached: None,
        };
        log.append(entry, MonoTime::ZERO);
        log.passed(log.head());
    }
}

/// Returns what one origin may have in a store of `max_bytes`.
fn bounds(max_bytes: Option<u64>, config: &Config) -> log::Bounds {
    let gossip = &config.gossip;
    let percent = Some(u64::from(gossip.max_origin_share)).filter(|percent| *percent < 100);
    let bytes = percent.and_then(|percent| Some(max_bytes? / 100 * percent));
    let rate = Some(u64::from(gossip.max_origin_rate)).filter(|rate| *rate > 0);
    let entries = rate.map(|rate| rate.saturating_mul(gossip.retention.as_secs()) / 60);
    log::Bounds { bytes, entries }
}
