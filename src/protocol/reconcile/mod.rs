//! Repair: two peers find out what one of them lacks, and it is fetched.
//!
//! Range-based set reconciliation (A. Meyer, "Range-Based Set Reconciliation", SRDS 2023; the
//! fingerprint is that of negentropy) over the order (created, id):
//!
//! ```text
//! opener                                      responder (keeps nothing between questions)
//!   Ask: ranges with a print or a list  ───►  for each range
//!        (a print while it holds many,          print equal            → Skip
//!         a list of all where few)              few held               → All: its list
//!                                               many held              → 16 parts with prints
//!   for each part                       ◄───    list given             → hears what it lacks,
//!     print equal → done                                                 Rest: what was not listed
//!     else        → asked in its turn
//!     list        → hears what it lacks, announces what the other lacks
//! ```
//!
//! An answer is cut at 60 kB and then ends early; what it did not reach is asked again. So lists
//! of any length flow at the pace of the opener, who asks only while there is room to fetch: a late
//! joiner pays 34 bytes for each id, once, and holds a bounded number of them. What the other side
//! lacks is announced if it is little; if it is much, `Yours` tells it to open a session itself, so
//! large differences are always pulled by who lacks them.
//!
//! On a link with an edge only topics that both sides said they want are compared (`interest`). Both
//! sides work out that scope for each message from what was said before it on the link, so they may
//! differ while something is changing: then something is listed for nothing, or a session is opened
//! again, because whoever wants more needs everything anew. Within a scope a fingerprint costs a look
//! at each entry of its range.
//!
//! A *need* is a window of which something may be missing on either side of a link. Needs arise
//! on connect (everything; the side that dialled opens at once, the other one later, unless it has
//! been found equal by then), when a debt is to be repaid, when announcements were dropped or given
//! up, by `Yours`, and when this node wants more topics. Of the sessions that serve needs one runs at
//! a time while it makes progress, so that the first neighbour of a late joiner lists everything and
//! the others little; one that stalls lets the next one begin beside it. Apart from needs, every
//! `reconcile_interval` one random link is compared over the last `reconcile_hot_window` (without the
//! last 2 s, which are still on their way), and every `reconcile_full_interval` one over everything.
//!
//! Invariant, together with `gossip`: for each up link and each live entry, the peer is known to
//! have it, or was offered it on this link, or the entry is at or after the link's cursor, or it is
//! inside the link's debt, or inside the window of a need or session of this link on one of both
//! sides. A session that fails gives the rest of its window back to the need.
//!
//! Bounds: one own session a link and two in all; 512 ranges and 8 ids of state in each; a question
//! has at most 32 ranges, its lists at most 32 ids each; depth 12; 1 MiB a session beyond what it
//! found useful, and a minute beyond what it earns by payloads. Of a peer's questions one waits,
//! sessions are opened once in 5 s on average, and answers beyond 1 MiB a minute are earned by
//! fetching; within a scope each 64 entries looked at count as a byte. Sessions that bring nothing
//! though the sets differ (an oversized transaction, another validator, a liar) come ever more
//! rarely, up to 10 min.

mod initiator;
mod responder;

use std::time::Duration;

use crate::types::{
    Announcement, Bound, LinkId, MonoTime, Range, RangeContent, Reconcile, TransactionId, WallTime,
};

use crate::protocol::Protocol;
use crate::protocol::gate::Gate;
use crate::protocol::io::Output;
use crate::protocol::log::Record;
use crate::protocol::log::Scope;
use crate::protocol::timers::Timer;
use initiator::Session;
use responder::PeerSession;

/// Parts that a range is cut into.
const WAYS: u64 = 16;
/// Entries up to which a range is listed instead of cut.
const LIST: u64 = 32;
/// Bytes of one message, about.
const FRAME: usize = 60_000;
/// Ids that may come with one answer.
const MAX_LISTED: usize = 2048;
/// What is younger may still be on its way.
const IN_FLIGHT: Duration = Duration::from_secs(2);
/// What goes sooner than this is not worth fetching.
const FADING: Duration = Duration::from_secs(5);
/// Old entries go at intervals and by clocks that differ: the oldest are left out.
const GUARD: Duration = Duration::from_secs(15);
/// Own sessions at once.
pub(super) const MAX_RUNNING: u64 = 2;
/// Ranges in the state of one session at most.
#[cfg(any(test, feature = "sim"))]
pub(super) const MAX_RANGES: usize = initiator::MAX_TODO + initiator::MAX_ASKED;
/// A session without progress for this long does not keep another from starting.
const STALL: Duration = Duration::from_secs(3);
/// How often running sessions are looked after.
const TICK: Duration = Duration::from_millis(250);
/// Time before the next session with a peer, after one that failed or brought nothing. Doubles.
const RETRY: Duration = Duration::from_secs(5);
/// Longest such time.
const RETRY_MOST: Duration = Duration::from_mins(10);
/// Time between two routine sessions on one link, on average, and how many may be opened in a row: a
/// peer takes one in 5 s, and eight in a row with those that are needed.
const ROUTINE: Duration = Duration::from_secs(6);
const IN_A_ROW: u32 = 4;
/// Least time between two sessions with one peer.
const PAUSE: Duration = Duration::from_secs(1);
/// The side that was dialled opens a session after this long, and up to twice, if the other has not.
const PATIENCE: Duration = Duration::from_secs(15);

/// A window of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) struct Window {
    pub(super) lower: Bound,
    pub(super) upper: Bound,
}

impl Window {
    fn hull(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self { lower: self.lower.min(other.lower), upper: self.upper.max(other.upper) }
    }
}

/// The state of repair on one link.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Something in here may be missing on one side.
    need: Option<Window>,
    /// It is the peer that lacks it, because we skipped it.
    owed: bool,
    /// A question of the peer does not settle it, only a session of our own that comes to its end: the
    /// peer may not have known yet what we want.
    firm: bool,
    not_before: MonoTime,
    /// When the last session came to an end.
    ended: Option<MonoTime>,
    /// Sessions in a row that failed or brought nothing though the sets differ.
    fruitless: u32,
    /// No routine before this.
    quiet_until: MonoTime,
    /// When the routine sessions opened up to now would be over at the pace that a peer takes.
    paced: MonoTime,
    session: Option<Session>,
    peer_session: PeerSession,
}

impl Repair {
    pub(super) fn is_running(&self) -> bool {
        self.session.is_some()
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn ranges(&self) -> usize {
        self.session.as_ref().map_or(0, Session::ranges)
    }

    fn backoff(&self) -> Duration {
        (RETRY * 2u32.saturating_pow(self.fruitless.min(10))).min(RETRY_MOST)
    }
}

/// What the links share.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Own sessions.
    pub(super) running: Gate,
    /// Numbers given to sessions.
    sessions: u32,
    hot: MonoTime,
    full: MonoTime,
    /// The last routine comparison that was due was left out.
    left_out: bool,
    expired: MonoTime,
}

impl Protocol {
    /// The first comparison with a new peer. The side that dialled begins.
    pub(super) fn need_everything(&mut self, link: LinkId, dialled: bool) {
        let patience =
            if dialled { Duration::ZERO } else { PATIENCE + self.env.rng.jitter(PATIENCE) };
        let at = self.env.now + patience;
        if self.links.up_count() == 1 {
            // Nobody was there to compare with until now.
            self.repairs.hot = self.env.now + self.soon(self.env.config.gossip.reconcile_interval);
            self.repairs.full =
                self.env.now + self.soon(self.env.config.gossip.reconcile_full_interval);
        }
        let window = self.everything();
        if let Some(up) = self.links.up(link) {
            up.repair.need = Some(window);
            up.repair.not_before = at;
        }
        self.env.timers.set_earlier(Timer::Reconcile, at);
    }

    /// Something that this peer has or had may be missing here.
    pub(super) fn want_repair(&mut self, link: LinkId) {
        let (now, window) = (self.env.now, self.everything());
        let Some(up) = self.links.up(link) else { return };
        if up.repair.need.is_none() {
            up.repair.not_before = up.repair.not_before.max(now + up.repair.backoff());
        }
        up.repair.need = Some(window.hull(up.repair.need));
        let at = up.repair.not_before;
        self.env.timers.set_earlier(Timer::Reconcile, at);
    }

    /// This node wants more than before, which this peer has perhaps.
    pub(super) fn need_more(&mut self, link: LinkId) {
        let (now, everything) = (self.env.now, self.everything());
        let Some(up) = self.links.up(link) else { return };
        up.repair.need = Some(everything.hull(up.repair.need));
        up.repair.firm = true;
        if up.repair.fruitless == 0 {
            // Whoever waits for the other side waits no longer.
            up.repair.not_before = up.repair.not_before.min(now);
        }
        // A turn that ends with this has no more timers to fire.
        let at = up.repair.not_before.max(now + PAUSE / 100);
        self.env.timers.set_earlier(Timer::Reconcile, at);
    }

    /// Something from the future was refused: the peer is asked again when it will be admissible.
    /// From a further future, it is found by routine when its time has come.
    pub(super) fn want_later(&mut self, link: LinkId, created: WallTime) {
        let skew = self.env.config.network.max_clock_skew;
        let early = created.minus(skew).as_millis().saturating_sub(self.env.wall.as_millis());
        let at = self.env.now + Duration::from_millis(early) + PAUSE;
        if Duration::from_millis(early) > skew {
            return;
        }
        let Some(up) = self.links.up(link) else { return };
        if up.repair.need.is_none() {
            up.repair.need = Some(Window { lower: Bound::at(created), upper: Bound::MAX });
            up.repair.not_before = up.repair.not_before.max(at);
            let at = up.repair.not_before;
            self.env.timers.set_earlier(Timer::Reconcile, at);
        }
    }

    /// Whether an entry is going to be compared with this peer anyway.
    pub(super) fn is_needed(&self, link: LinkId, key: Bound) -> bool {
        let up = self.links.all.get(&link).and_then(|l| l.up.as_ref());
        let need = up.and_then(|up| up.repair.need);
        need.is_some_and(|need| need.lower <= key && key < need.upper)
    }

    /// What was skipped for a slow peer is to be repaid: it takes frames again.
    pub(super) fn repay(&mut self, link: LinkId, oldest: Bound) {
        let now = self.env.now;
        if oldest == Bound::MAX {
            // All that it was skipped for is gone, and an empty question would be a violation.
            return;
        }
        let Some(up) = self.links.up(link) else { return };
        let window = Window { lower: oldest, upper: Bound::MAX };
        up.repair.need = Some(window.hull(up.repair.need));
        up.repair.owed = true;
        let at = up.repair.not_before.max(now);
        self.env.timers.set_earlier(Timer::Reconcile, at);
    }

    /// A peer found that we lack more than it would announce.
    pub(super) fn on_yours(&mut self, link: LinkId, lower: Bound, upper: Bound) {
        let (now, everything) = (self.env.now, self.everything());
        let lower = lower.max(everything.lower);
        if lower >= upper {
            return;
        }
        let Some(up) = self.links.up(link) else { return };
        up.repair.need = Some(Window { lower, upper }.hull(up.repair.need));
        if up.repair.fruitless == 0 {
            // Whoever waits for the other side waits no longer, but for the pause between sessions.
            let at = up.repair.ended.map_or(now, |ended| ended + PAUSE).max(now);
            up.repair.not_before = up.repair.not_before.min(at);
        }
        let at = up.repair.not_before.max(now);
        self.env.timers.set_earlier(Timer::Reconcile, at);
    }

    /// There may be room for more, in the fetch table or in a queue.
    pub(super) fn resume_sessions(&mut self) {
        if self.repairs.running.is_empty() {
            return;
        }
        for link in self.links.up_ids() {
            self.resume_session(link);
        }
    }

    /// Looks after running sessions, and starts what is due.
    pub(super) fn on_reconcile_due(&mut self) {
        for link in self.links.up_ids() {
            self.watch_session(link);
        }
        self.start_needed();
        self.start_routine();
        if let Some(at) = self.next_repair() {
            self.env.timers.set(Timer::Reconcile, at.max(self.env.now + PAUSE / 100));
        }
    }

    fn next_repair(&self) -> Option<MonoTime> {
        if self.links.up_count() == 0 {
            return None;
        }
        let ups = || self.links.all.values().filter_map(|l| l.up.as_ref());
        let routine = self.repairs.hot.min(self.repairs.full);
        if !self.repairs.running.is_empty() {
            return Some(routine.min(self.env.now + TICK));
        }
        let needs = ups().filter(|up| up.repair.need.is_some()).map(|up| up.repair.not_before);
        // One that is due and could not start waits for a queue or a debt.
        let needs = needs.map(|at| if at <= self.env.now { self.env.now + TICK } else { at });
        Some(needs.min().map_or(routine, |at| at.min(routine)))
    }

    /// Starts sessions that somebody needs, one at a time as far as they bring something.
    fn start_needed(&mut self) {
        let now = self.env.now;
        while self.repairs.running.level() < MAX_RUNNING {
            let busy = self.is_pulling();
            let ready = |l: &&crate::protocol::link::Link| {
                l.queued_bytes < crate::protocol::link::HIGH_WATER
                    && !self.is_replaying(l)
                    && l.up.as_ref().is_some_and(|up| {
                        let repair = &up.repair;
                        repair.need.is_some()
                            && repair.session.is_none()
                            && repair.not_before <= now
                            && up.feed.debt.is_none()
                            && (repair.owed || !busy)
                    })
            };
            let ready: Vec<_> = self.links.all.values().filter(ready).map(|l| l.id).collect();
            if ready.is_empty() {
                return;
            }
            let link = ready[self.env.rng.below(ready.len())];
            let Some(up) = self.links.up(link) else { return };
            up.repair.owed = false;
            let Some(window) = up.repair.need.take() else { return };
            self.open(link, window, true);
        }
    }

    /// Whether a session that somebody needs brings something: another would hear the same.
    fn is_pulling(&self) -> bool {
        let mut ups = self.links.all.values().filter_map(|l| l.up.as_ref());
        ups.any(|up| up.repair.session.as_ref().is_some_and(|s| s.is_pulling(self.env.now, STALL)))
    }

    /// Compares with one random peer what is recent, and from time to time everything.
    fn start_routine(&mut self) {
        let now = self.env.now;
        if self.repairs.hot.min(self.repairs.full) > now {
            return;
        }
        // Once, and not again: what goes on for so long is not trusted to bring everything.
        self.repairs.left_out = !self.repairs.left_out && self.is_pulling();
        if self.repairs.left_out {
            self.repairs.hot = now + self.soon(self.env.config.gossip.reconcile_interval);
            self.repairs.full = self.repairs.full.max(self.repairs.hot);
            return;
        }
        let gossip = &self.env.config.gossip;
        let (interval, full) = (gossip.reconcile_interval, gossip.reconcile_full_interval);
        let upper = Bound::at(self.env.wall.minus(IN_FLIGHT));
        let lower = if self.repairs.full <= now {
            self.repairs.full = now + self.soon(full);
            self.everything().lower
        } else if self.repairs.hot <= now {
            let from = Bound::at(self.env.wall.minus(self.env.config.gossip.reconcile_hot_window));
            from.max(self.everything().lower)
        } else {
            return;
        };
        self.repairs.hot = now + self.soon(interval);
        let idle = |l: &&crate::protocol::link::Link| {
            l.queued_bytes < crate::protocol::link::HIGH_WATER
                && !self.is_replaying(l)
                && l.up.as_ref().is_some_and(|up| {
                    let repair = &up.repair;
                    repair.session.is_none()
                        && repair.quiet_until <= now
                        && repair.paced.since(now) <= ROUTINE * (IN_A_ROW - 1)
                        && up.feed.debt.is_none()
                })
        };
        let idle: Vec<_> = self.links.all.values().filter(idle).map(|l| l.id).collect();
        if self.repairs.running.level() < MAX_RUNNING && lower < upper && !idle.is_empty() {
            let link = idle[self.env.rng.below(idle.len())];
            if let Some(up) = self.links.up(link) {
                up.repair.paced = up.repair.paced.max(now) + ROUTINE;
            }
            self.open(link, Window { lower, upper }, false);
        }
    }

    /// `span` give or take 30 %.
    fn soon(&mut self, span: Duration) -> Duration {
        span / 10 * 7 + self.env.rng.jitter(span / 10 * 6)
    }

    /// All that is retained, but what is about to go.
    fn everything(&self) -> Window {
        Window { lower: self.horizon(GUARD), upper: Bound::MAX }
    }

    /// Below it entries count as gone.
    fn horizon(&self, guard: Duration) -> Bound {
        Bound::at(self.env.wall.minus(self.env.config.gossip.retention).plus(guard))
    }

    /// Forgets what is over before it is compared.
    fn tidy(&mut self) {
        if self.env.now.since(self.repairs.expired) >= PAUSE {
            self.repairs.expired = self.env.now;
            self.expire_log();
        }
    }

    /// Forgets what has expired. What of it was our own is left to whoever looks after the outbox.
    pub(super) fn expire_log(&mut self) {
        if self.env.is_time_doubtful() {
            return;
        }
        self.env.counters.transactions_expired += self.log.expire(self.env.wall);
        // Also when nothing went here: a store may keep entries longer, and lets them go later.
        self.env.push(Output::Expire { now: self.env.wall });
        if self.log.forget_turned_away() {
            self.repair_everywhere();
        }
    }

    /// Whether a peer should be told of an entry.
    fn is_worth_listing(&self, record: &Record, limit: u64) -> bool {
        record.keep_until() > self.env.wall.plus(FADING) && u64::from(record.size) <= limit
    }

    /// What is compared on a link: what both sides said they want.
    fn scope(&self, link: LinkId) -> Scope {
        self.sides(link).map_or(Scope::ALL, |(ours, theirs)| self.log.topics.scope(ours, theirs))
    }

    /// Our own list of a short range.
    fn list(&self, window: Window, limit: u64, scope: &Scope) -> Vec<(TransactionId, u64)> {
        let records = self.log.range(window.lower, window.upper, scope);
        let worth = records.filter(|r| self.is_worth_listing(r, limit));
        worth.map(|r| (r.id, u64::from(r.size))).collect()
    }

    /// Whether all the ids of one more answer can be taken.
    fn can_hear(&self, link: LinkId) -> bool {
        self.links.peer_of(link).is_some_and(|peer| self.room_to_hear(&peer) >= MAX_LISTED)
    }

    /// Takes the ids of a list that are missing here; returns those.
    fn hear_listed(
        &mut self,
        link: LinkId,
        list: &[(TransactionId, u64)],
        upper: Bound,
    ) -> Vec<TransactionId> {
        let Some(slot) = self.links.slot_of(link) else { return Vec::new() };
        // What may be on its way is waited for, like after an announcement.
        let settled = upper.created <= self.env.wall.minus(IN_FLIGHT);
        let mut missing = Vec::new();
        for (id, size) in list {
            if self.log.contains(id) {
                self.log.note_known(id, slot);
            } else if *size <= self.env.config.gossip.max_transaction_size
                && !self.log.is_refused(id)
            {
                let new = !self.intake.pending.contains(id);
                self.hear(link, &Announcement { id: *id, size: *size, hop: 1 });
                if let Some(pending) = self.intake.pending.get_mut(id) {
                    if let Some(large) = &mut pending.large {
                        large.found = true;
                    }
                    missing.push(*id);
                    // What was announced before is asked for in the order of that.
                    if settled && new {
                        self.ask(id);
                    }
                }
            }
        }
        self.env.counters.reconcile_missing_here += missing.len() as u64;
        missing
    }

    /// Something that anybody may have is missing here.
    pub(in crate::protocol) fn repair_everywhere(&mut self) {
        for link in self.links.up_ids() {
            self.want_repair(link);
        }
    }
}

/// Ranges of one message as they are put together.
#[derive(Debug)]
struct Draft {
    lower: Bound,
    ranges: Vec<Range>,
    weight: usize,
}

impl Draft {
    fn new(lower: Bound) -> Self {
        Self { lower, ranges: Vec::new(), weight: 0 }
    }

    /// Adds a range; neighbours to be skipped become one.
    fn push(&mut self, upper: Bound, content: RangeContent) {
        let start = self.ranges.last().map_or(self.lower, |range| range.upper);
        if upper <= start {
            return;
        }
        if let (Some(last), RangeContent::Skip) = (self.ranges.last_mut(), &content)
            && last.content == RangeContent::Skip
        {
            last.upper = upper;
            return;
        }
        let range = Range { upper, content };
        self.weight += range.weight();
        self.ranges.push(range);
    }

    fn finish(self, session: u32) -> Reconcile {
        Reconcile { session, lower: self.lower, ranges: self.ranges }
    }
}
