//! When to compare with whom: needs first, then routine.
//!
//! Tested by: `sim::tests::repair`, `protocol::tests::gates`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::io::Output;
use crate::protocol::link::Link;
use crate::protocol::timers::Timer;
use crate::types::{Bound, LinkId, MonoTime, WallTime};

use super::{
    GUARD, IN_A_ROW, IN_FLIGHT, MAX_RUNNING, PATIENCE, PAUSE, ROUTINE, STALL, TICK, Window,
};

impl Protocol {
    /// The first comparison with a new peer. The side that dialled begins.
    pub(in crate::protocol) fn need_everything(&mut self, link: LinkId, dialled: bool) {
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

    /// Notes that something that this peer has or had may be missing here.
    pub(in crate::protocol) fn want_repair(&mut self, link: LinkId) {
        let (now, window) = (self.env.now, self.everything());
        let Some(up) = self.links.up(link) else { return };
        if up.repair.need.is_none() {
            up.repair.not_before = up.repair.not_before.max(now + up.repair.backoff());
        }
        up.repair.need = Some(window.hull(up.repair.need));
        let at = up.repair.not_before;
        self.env.timers.set_earlier(Timer::Reconcile, at);
    }

    /// Notes that this node wants more than before, which this peer has perhaps.
    pub(in crate::protocol) fn need_more(&mut self, link: LinkId) {
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

    /// Asks the peer again when something from the future, refused now, will be admissible. What is
    /// from a further future is found by routine when its time has come.
    pub(in crate::protocol) fn want_later(&mut self, link: LinkId, created: WallTime) {
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

    /// Reports whether an entry is going to be compared with this peer anyway.
    pub(in crate::protocol) fn is_needed(&self, link: LinkId, key: Bound) -> bool {
        let up = self.links.all.get(&link).and_then(|l| l.up.as_ref());
        let need = up.and_then(|up| up.repair.need);
        need.is_some_and(|need| need.lower <= key && key < need.upper)
    }

    /// Repays what was skipped for a slow peer, which takes frames again.
    pub(in crate::protocol) fn repay(&mut self, link: LinkId, oldest: Bound) {
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
    pub(in crate::protocol) fn on_yours(&mut self, link: LinkId, lower: Bound, upper: Bound) {
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

    /// Goes on with sessions when there may be room for more, in the fetch table or in a queue.
    pub(in crate::protocol) fn resume_sessions(&mut self) {
        if self.repairs.running.is_empty() {
            return;
        }
        for link in self.links.up_ids() {
            self.resume_session(link);
        }
    }

    /// Looks after running sessions, and starts what is due.
    pub(in crate::protocol) fn on_reconcile_due(&mut self) {
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
            let ready = |l: &&Link| {
                l.is_writable(now)
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
            let mut ready: Vec<_> = self.links.all.values().filter(ready).map(|l| l.id).collect();
            // Those over poor links wait their turn. What is routine goes to all alike, so that nobody
            // is left out for good.
            let sound = |link: &LinkId| !self.links.is_poor(*link, now);
            if ready.iter().any(sound) {
                ready.retain(sound);
            }
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

    /// Reports whether a session that somebody needs brings something: another would hear the same.
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
        let idle = |l: &&Link| {
            l.is_writable(now)
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

    /// Returns the window of all that is retained, but what is about to go.
    fn everything(&self) -> Window {
        Window { lower: self.horizon(GUARD), upper: Bound::MAX }
    }

    /// Returns the bound below which entries count as gone.
    pub(super) fn horizon(&self, guard: Duration) -> Bound {
        Bound::at(self.env.wall.minus(self.env.config.gossip.retention).plus(guard))
    }

    /// Forgets what is over before it is compared.
    pub(super) fn tidy(&mut self) {
        if self.env.now.since(self.repairs.expired) >= PAUSE {
            self.repairs.expired = self.env.now;
            self.forget_expired();
            self.make_use_of_expired();
        }
    }

    /// Forgets what has expired. What of it was our own waits for `lifecycle::on_expire`, so that a
    /// comparison gives nothing of the outbox up.
    pub(in crate::protocol) fn forget_expired(&mut self) {
        self.env.counters.transactions_expired += self.log.expire(self.env.settled());
    }

    /// Has the store forget what has expired, and asks again for what there is room for now.
    pub(in crate::protocol) fn make_use_of_expired(&mut self) {
        // Also when nothing went here: a store may keep entries longer, and lets them go later.
        self.env.push(Output::Expire { now: self.env.settled() });
        if self.log.forget_turned_away() {
            self.repair_everywhere();
        }
    }

    /// Notes that something that anybody may have is missing here.
    pub(in crate::protocol) fn repair_everywhere(&mut self) {
        for link in self.links.up_ids() {
            self.want_repair(link);
        }
    }
}
