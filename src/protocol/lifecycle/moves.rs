//! When a link goes over to another connection: to a better transport once that works, and before the
//! one it has is cut or too old.
//!
//! Only who dialled a link sees to that: it knows a way that works. A link over a transport that others
//! are preferred to is *upgraded*: the ways that may be better are tried one at a time, first soon
//! ([`SOON`]) after it came up, then every `connection.upgrade_interval`. One that fails is left alone for
//! longer each time. A link is *rotated* when its connection is as old as `connection.max_link_age` allows,
//! or near a bound that earlier ones were cut at (`link::cuts`); a transport with a bound of bytes ranks
//! behind the next one. So it is at once when its connection is about to be closed, and again after as long as
//! that has been known where it fails: who says goodbye may let the link go on for hours. A goodbye before
//! the link has come up says no more than that the connection is for one request.
//!
//! Tested by: `protocol::tests::handover`, `sim::tests::handover`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::link::{Attempt, CloseCause, Link, Plan, Why};
use crate::protocol::timers::Timer;
use crate::types::{Direction, Endpoint, LinkId, MonoTime, TransportKind};

use super::handover::HANDOVER_EVERY;

/// Time after which better transports are tried, when a link came up without them.
const SOON: Duration = Duration::from_secs(30);
/// Time after which a handover that cannot be now is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Protocol {
    /// Plans when to look for another connection for a link that has a new one.
    pub(super) fn plan_moves(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(l) = self.links.all.get(&link) else { return };
        let Some(endpoint) = l.endpoint.clone().filter(|_| l.direction == Direction::Outbound)
        else {
            return;
        };
        let (kind, since) = (l.kind, l.connected);
        let bound = self.membership.cuts.bound(&endpoint, kind, now);
        let aged = self.env.config.connection.max_link_age;
        let aged = aged.map(|age| (since + age / 5 * 4 + self.env.rng.jitter(age / 5), Why::Age));
        let cut = bound.age.map(|age| (since + age, Why::TimeLimit));
        let upgrade = if self.is_best(kind, &endpoint) {
            None
        } else {
            let soon = SOON.min(self.env.config.connection.upgrade_interval);
            Some(now + self.env.rng.about(soon))
        };
        let plan = Plan {
            upgrade,
            rotate: aged.into_iter().chain(cut).min_by_key(|(at, _)| *at),
            bytes: bound.bytes,
            spent: None,
        };
        self.adopt_plan(link, plan);
    }

    fn adopt_plan(&mut self, link: LinkId, plan: Plan) {
        let Some(l) = self.links.all.get_mut(&link) else { return };
        l.plan = plan;
        match plan.next() {
            Some(at) => self.env.timers.set(Timer::Handover(link), at.max(self.env.now)),
            None => self.env.timers.cancel(Timer::Handover(link)),
        }
    }

    /// Counts what a connection has sent, and replaces it before it is cut for that. Until then data waits, for a
    /// while: what a flood brings meanwhile would be too much.
    pub(super) fn note_wire_bytes(&mut self, link: LinkId, bytes: usize) {
        let now = self.env.now;
        let Some(l) = self.links.all.get_mut(&link) else { return };
        l.wire_bytes = l.wire_bytes.saturating_add(bytes as u64);
        if l.plan.bytes.is_some_and(|most| l.wire_bytes >= most) {
            let due = l.succession.moved.map_or(now, |at| now.max(at + HANDOVER_EVERY));
            (l.plan.bytes, l.plan.spent) = (None, Some(now));
            l.plan.rotate = Some((due, Why::BodyLimit));
            self.env.timers.set(Timer::Handover(link), due);
        }
    }

    /// The connection of a link is about to be closed.
    pub(in crate::protocol) fn on_leaving(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(l) = self.links.all.get_mut(&link).filter(|l| l.up.is_some()) else { return };
        if l.leaving.is_some() {
            return;
        }
        l.leaving = Some(now);
        self.env.counters.connections_leaving += 1;
        if l.direction == Direction::Outbound {
            l.plan.rotate = Some((now, Why::Leaving));
            self.env.timers.set(Timer::Handover(link), now);
        }
    }

    /// Looks for another connection for a link, if that is due.
    pub(super) fn look_for_better(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(l) = self.links.all.get(&link).filter(|l| l.up.is_some()) else { return };
        let leaving = l.leaving;
        let (Some(endpoint), kind, mut plan) = (l.endpoint.clone(), l.kind, l.plan) else { return };
        if plan.spent.is_some() && !plan.holds(now) {
            // It waits no longer.
            plan.spent = None;
            self.adopt_plan(link, plan);
            self.resume(link);
        }
        let is_due = |at: &MonoTime| *at <= now;
        let rotates = plan.rotate.filter(|(at, _)| is_due(at));
        if rotates.is_none() && !plan.upgrade.as_ref().is_some_and(is_due) {
            self.adopt_plan(link, plan);
            return;
        }
        let may = self.may_hand_over(link);
        let better = may.then(|| self.better_way(link)).flatten();
        let interval = self.env.config.connection.upgrade_interval;
        if let Some((_, why)) = rotates {
            plan.rotate = Some((now + pause_of(why, leaving, now), why));
        }
        if plan.upgrade.as_ref().is_some_and(is_due) {
            plan.upgrade = Some(now + if may { self.env.rng.about(interval) } else { RETRY });
        }
        self.adopt_plan(link, plan);
        let same = rotates.map(|(_, why)| ((endpoint, kind), why));
        let way = better.map(|way| (way, rotates.map_or(Why::Upgrade, |(_, why)| why))).or(same);
        if let Some(((endpoint, rung), why)) = way.filter(|_| may) {
            self.dial_heir(Attempt { link, endpoint, rung, why });
        }
    }

    /// Returns how far down the ladder a way is.
    fn rank(&self, rung: TransportKind, endpoint: &Endpoint) -> Option<usize> {
        self.membership.rank(rung, endpoint, self.env.now)
    }

    /// Reports whether no other transport is preferred to this one.
    fn is_best(&self, rung: TransportKind, endpoint: &Endpoint) -> bool {
        let rank = self.rank(rung, endpoint);
        let others = || self.membership.rungs.iter().filter_map(|r| self.rank(*r, endpoint));
        rank.is_none_or(|rank| others().all(|other| rank <= other))
    }

    /// Returns the best way to the peer of a link that is better than the one it has, and has not failed
    /// lately.
    fn better_way(&self, link: LinkId) -> Option<(Endpoint, TransportKind)> {
        let l = self.links.all.get(&link)?;
        let own = l.endpoint.as_ref()?;
        let now = self.rank(l.kind, own)?;
        let places = || [own].into_iter().chain(self.membership.book.places(&l.remote));
        let at = |rung: TransportKind| {
            places().filter(move |e| e.carries(rung)).map(move |e| (e.clone(), rung))
        };
        let ways = self.membership.rungs.iter().flat_map(|rung| at(*rung));
        let ranked = ways.filter_map(|way| Some((self.rank(way.1, &way.0)?, way)));
        let better = ranked
            .filter(|(rank, way)| *rank < now && self.links.failed_ways.may_try(way, self.env.now));
        better.min_by_key(|(rank, _)| *rank).map(|(_, way)| way)
    }

    /// A connection that was to take over a link could not be had.
    pub(super) fn note_way_failed(&mut self, endpoint: Endpoint, rung: TransportKind) {
        let interval = self.env.config.connection.upgrade_interval;
        self.env.counters.handovers_failed += 1;
        self.links.failed_ways.note((endpoint, rung), interval, self.env.now);
    }

    /// A link that this node dialled has ended: learns at what connections are cut.
    pub(super) fn note_cut(&mut self, l: &Link, cause: CloseCause) {
        let now = self.env.now;
        let Some(endpoint) = l.endpoint.as_ref().filter(|_| l.direction == Direction::Outbound)
        else {
            return;
        };
        let Some(up) = l.up.as_ref().filter(|_| cause == CloseCause::Transport) else { return };
        // What was handed out may wait in buffers of this side still.
        let taken = up.pinger.taken();
        let sent = if taken > 0 { taken } else { l.wire_bytes };
        let (age, kind) = (now.since(l.connected), l.kind);
        let shown = (up.incarnation, age, sent);
        let found = self.membership.cuts.note((endpoint.clone(), kind), shown, now);
        if let Some(why) = found {
            self.env.counters.link_limits_found += 1;
            tracing::warn!(
                target: "sorcha_peer::link",
                address = %endpoint, transport = %kind, sent, ?age, reason = why.as_str(),
                "connections are cut on the way: another one takes over before that from now on"
            );
        }
    }
}

/// Returns the time between two tries to rotate a link.
fn pause_of(why: Why, leaving: Option<MonoTime>, now: MonoTime) -> Duration {
    match (why, leaving) {
        (Why::Age, _) => SOON,
        (Why::Leaving, Some(since)) => now.since(since).clamp(RETRY, SOON),
        _ => RETRY,
    }
}
