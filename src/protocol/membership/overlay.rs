//! Which links to have: dial until there are enough, replace what is lost, never give up.
//!
//! `maintain` is called whenever something changed and whenever a back-off ends. It dials while
//! fewer than `dial_target` links are outbound or fewer than `min_links` are up, preferring address
//! groups that no other outbound link is in, else at random. With fewer than `min_healthy_peers`
//! links the bootstrap peers are dialled again, for ever. All delays have full jitter, and double with
//! each failure in a row and with each link in a row that ended soon after it came up. A bootstrap name
//! that leads to a linked peer is dialled for further ones: it may be all that several parts of a network
//! have in common.
//!
//! A peer whose link broke is dialled again for ever, one at a time, also when there are enough links
//! by then: halves of a network that were apart for long have refilled their links from within, and
//! nobody else would join them. The latest `MAX_DROPPED` are remembered, and while there are twice as many
//! links as wanted nobody is dialled for it.
//!
//! Where there are edges (`spread::interest`), only links to relays count towards those numbers, so that
//! relays stay linked with each other and edges find relays; known relays are dialled first, and known
//! edges only as far as links of any kind are missing. Peer exchange says which of its records are
//! relays, so they find each other also where only edges link them. A quarter of the inbound links is
//! kept free of edges.
//!
//! Tested by: `sim::tests::faults`, `sim::tests::topics`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::env::Env;
use crate::protocol::guard::Guard;
use crate::protocol::io::{CallId, ConnectFailure, DialId, Output};
use crate::protocol::link::{CloseCause, Link, Links};
use crate::protocol::timers::Timer;
use crate::types::{
    CloseReason, Direction, Endpoint, Event, FailureKind, LinkId, Mode, MonoTime, PeerId,
};

use super::Membership;
use super::address_book::{Kind, Known, backoff};
use super::dead_ends::OWN_FOR;
use super::dials::{Dial, Purpose, Walk};

/// Maximum number of peers remembered whose link broke.
const MAX_DROPPED: usize = 32;
/// Maximum number of dialled links to peers that turned out to be edges, beyond `dial_target`,
/// while relays are sought.
const SPARE: usize = 4;

/// Number of links that a node lacks.
#[derive(Debug, Clone, Copy)]
struct Missing {
    /// Links to relays.
    relays: usize,
    /// Links to any peer.
    any: usize,
    /// Links to peers that may be relays.
    spare: usize,
}

impl Membership {
    /// Dials what is missing.
    pub(in crate::protocol) fn maintain(&mut self, env: &mut Env, links: &Links, guard: &Guard) {
        if env.shutting_down {
            return;
        }
        self.update_mode(env, links, guard);
        let mut room =
            (env.config.discovery.max_concurrent as usize).saturating_sub(self.dials.len());
        self.maintain_bootstrap(env, links, &mut room);
        let missing = self.missing_links(env, links);
        if missing.relays > 0 {
            let dialled = self.dial_known(env, links, guard, missing, room);
            if dialled < missing.relays {
                self.arm_needy(env, links);
            }
        } else if room > 0 {
            self.dial_dropped(env, links, guard);
        }
        self.arm_overlay(env);
    }

    /// Dials one of those whose link broke.
    fn dial_dropped(&mut self, env: &mut Env, links: &Links, guard: &Guard) {
        let overlay = &env.config.overlay;
        let enough = 2 * overlay.dial_target.max(overlay.min_links) as usize;
        let was_dropped = |peer: &PeerId| self.dropped_peers.contains(peer);
        let under_way = |d: &Dial| matches!(d.purpose, Purpose::Peer(peer) if was_dropped(&peer));
        if self.dropped_peers.is_empty()
            || links.up_count() >= enough
            || self.dials.values().any(under_way)
        {
            return;
        }
        let mut candidates = self.candidates(env, links, guard);
        candidates.retain(|(peer, _)| was_dropped(peer));
        if !candidates.is_empty() {
            let (peer, endpoint) = candidates.swap_remove(env.rng.below(candidates.len()));
            self.attempt(env, endpoint, Purpose::Peer(peer), Walk::default());
        }
    }

    /// A link broke, and its peer did not mean it to.
    fn note_dropped(&mut self, peer: &PeerId) {
        let edge = self.book.known.get(peer).is_some_and(|k| k.kind == Kind::Edge);
        if !edge && !self.dropped_peers.contains(peer) {
            self.dropped_peers.push_back(*peer);
            if self.dropped_peers.len() > MAX_DROPPED {
                self.dropped_peers.pop_front();
            }
        }
    }

    fn missing_links(&self, env: &Env, links: &Links) -> Missing {
        let overlay = &env.config.overlay;
        let (target, least) = (overlay.dial_target as usize, overlay.min_links as usize);
        let dials = self.dials.len();
        let relays = |up: &&Link| up.up.as_ref().is_some_and(|up| up.interest.theirs.is_relay());
        let ups = || links.all.values().filter(|l| l.up.is_some());
        let outbound = |l: &&Link| l.direction == Direction::Outbound;
        let missing = |outbound: usize, total: usize| {
            target.saturating_sub(outbound + dials).max(least.saturating_sub(total + dials))
        };
        let dialled = ups().filter(outbound).count();
        Missing {
            relays: missing(
                ups().filter(relays).filter(outbound).count(),
                ups().filter(relays).count(),
            ),
            any: missing(dialled, ups().count()),
            spare: (target + SPARE).saturating_sub(dialled + dials),
        }
    }

    fn maintain_bootstrap(&mut self, env: &mut Env, links: &Links, room: &mut usize) {
        if !are_bootstraps_wanted(env, links) {
            return;
        }
        let mut started = false;
        for at in 0..self.book.bootstrap.len() {
            let b = &self.book.bootstrap[at];
            let linked = b.pin.or(b.peer).is_some_and(|p| links.by_peer.contains_key(&p));
            let own = b.pin == Some(env.me);
            let may_lead_further = linked && b.endpoint.is_name() && b.pin.is_none();
            let is_done = linked && !may_lead_further;
            if *room == 0 || b.dialling || is_done || own || b.next > env.now {
                continue;
            }
            if let Some(until) = self.dead_ends.own_until(&b.endpoint, env.now) {
                self.book.bootstrap[at].next = until;
                continue;
            }
            let (endpoint, pin) = (b.endpoint.clone(), b.pin);
            let linked = may_lead_further.then(|| self.linked_addresses(links));
            self.book.bootstrap[at].dialling = true;
            // Without a pin the address is what the host trusts, and its peer may have a new key.
            let walk = Walk { pin, linked, ..Walk::default() };
            self.attempt(env, endpoint, Purpose::Bootstrap(at), walk);
            *room -= 1;
            started |= !may_lead_further;
        }
        if started {
            env.counters.bootstraps_started += 1;
        }
    }

    /// Dials up to `room` peers from the book, as far as such are missing; returns how many.
    fn dial_known(
        &mut self,
        env: &mut Env,
        links: &Links,
        guard: &Guard,
        missing: Missing,
        room: usize,
    ) -> usize {
        let mut candidates = self.candidates(env, links, guard);
        env.rng.shuffle(&mut candidates);
        let mut groups = self.outbound_groups(links);
        let (fresh, rest): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|(_, endpoint)| groups.insert(endpoint.group()));
        let kind = |peer: &PeerId| self.book.known.get(peer).map_or(Kind::Unknown, |k| k.kind);
        let mut ranked: Vec<_> =
            fresh.into_iter().chain(rest).map(|(peer, at)| (kind(&peer), peer, at)).collect();
        if self.book.is_mixed() {
            ranked.sort_by_key(|(kind, ..)| *kind);
        }
        let mut dialled = 0;
        for (kind, peer, endpoint) in ranked {
            let most = match kind {
                Kind::Relay | Kind::Hearsay => missing.relays,
                Kind::Unknown => missing.any.max(missing.spare),
                Kind::Edge => missing.any,
            };
            if dialled < most.min(missing.relays).min(room) {
                self.attempt(env, endpoint, Purpose::Peer(peer), Walk::default());
                dialled += 1;
            }
        }
        dialled
    }

    fn candidates(&self, env: &Env, links: &Links, guard: &Guard) -> Vec<(PeerId, Endpoint)> {
        let dialling: BTreeSet<PeerId> = self
            .dials
            .values()
            .filter_map(|d| match d.purpose {
                Purpose::Peer(peer) => Some(peer),
                Purpose::Bootstrap(at) => self.book.bootstrap.get(at)?.peer,
                Purpose::Host(_) => None,
            })
            .chain(links.all.values().map(|l| l.remote))
            .collect();
        // A bootstrap peer is dialled as that, and not once more as a peer of the book.
        let as_bootstrap = |endpoint: &Endpoint| {
            are_bootstraps_wanted(env, links)
                && self.book.bootstrap.iter().any(|b| b.endpoint == *endpoint)
        };
        let eligible = |(peer, known): (&PeerId, &Known)| {
            let endpoint = self.may_dial(env, guard, peer, known)?;
            let free = known.next <= env.now
                && !dialling.contains(peer)
                && !as_bootstrap(endpoint)
                && !self.dials.values().any(|d| d.endpoint == *endpoint);
            free.then(|| (*peer, endpoint.clone()))
        };
        self.book.known.iter().filter_map(eligible).collect()
    }

    /// Returns where a known peer is to be dialled next, if it may be dialled at all.
    pub(super) fn may_dial<'a>(
        &self,
        env: &Env,
        guard: &Guard,
        peer: &PeerId,
        known: &'a Known,
    ) -> Option<&'a Endpoint> {
        let is_other = |e: &Endpoint| self.dead_ends.own_until(e, env.now).is_none();
        let endpoint = known.endpoint(is_other)?;
        let may = *peer != env.me
            && !guard.is_banned(peer, env.corroborated())
            && env.config.network.trust.allows(peer);
        may.then_some(endpoint)
    }

    fn outbound_groups(&self, links: &Links) -> BTreeSet<u64> {
        let linked = links.all.values().filter_map(|l| l.endpoint.as_ref());
        linked.chain(self.dials.values().map(|d| &d.endpoint)).map(Endpoint::group).collect()
    }

    /// The host wants a link.
    pub(in crate::protocol) fn on_connect(
        &mut self,
        env: &mut Env,
        call: CallId,
        endpoint: Endpoint,
    ) {
        if env.shutting_down {
            let result = Err(ConnectFailure::Closed);
            env.push(Output::Connected { call, result });
            return;
        }
        let pin = env.config.discovery.pins.get(&endpoint).copied();
        self.attempt(env, endpoint, Purpose::Host(call), Walk { pin, ..Walk::default() });
    }

    pub(in crate::protocol) fn on_dial_failed(
        &mut self,
        env: &mut Env,
        links: &Links,
        guard: &Guard,
        dial: DialId,
        reason: FailureKind,
        detail: String,
    ) {
        let Some(mut d) = self.dials.remove(&dial) else { return };
        let is_wanted = !d.walk.seeks_further() && !env.shutting_down;
        if d.walk.skips_failed && d.walk.tried.is_empty() && is_wanted {
            // What failed at an earlier time may be well by now.
            self.dead_ends.forget(&d.endpoint);
            self.attempt(env, d.endpoint, d.purpose, d.walk);
            return;
        }
        d.failure = detail;
        // What led astray was told when it did, and that there is nobody else is no failure.
        if d.walk.refused.is_none() && reason != FailureKind::NoneLeft && !d.walk.seeks_further() {
            let address = d.endpoint.to_string();
            tracing::debug!(target: "sorcha_peer::overlay", %address, %reason, failure = d.shown_failure(), "dial failed");
            env.emit(Event::DialFailed { address, reason });
        }
        let failure = d.walk.refused.map_or(ConnectFailure::Dial(reason), ConnectFailure::Refused);
        self.end_dial(env, &d, None, Err(failure));
        self.maintain(env, links, guard);
    }

    /// A link's dial has done its work.
    pub(in crate::protocol) fn finish_dial_of(
        &mut self,
        env: &mut Env,
        links: &Links,
        link: LinkId,
        result: Result<(), ConnectFailure>,
    ) {
        let Some(l) = links.all.get(&link) else { return };
        let (dial, remote, address) = (l.dial, l.remote, l.address);
        self.finish_dial(env, dial, &remote, address, result, Duration::ZERO);
    }

    /// Ends a dial whose link led to `remote`, well or badly, unless there are other addresses to be
    /// tried; `retry` is how long the peer wants us to stay away.
    pub(in crate::protocol) fn finish_dial(
        &mut self,
        env: &mut Env,
        dial: Option<DialId>,
        remote: &PeerId,
        address: Option<SocketAddr>,
        result: Result<(), ConnectFailure>,
        retry: Duration,
    ) {
        let Some(mut dial) = dial.and_then(|d| self.dials.remove(&d)) else { return };
        let name = dial.endpoint.is_name().then_some(&dial.endpoint);
        match (&result, address, name) {
            (Ok(()), Some(address), Some(name)) => self.dead_ends.note_good(name, address),
            (Err(ConnectFailure::Refused(reason)), Some(address), Some(name)) => {
                let further = dial.walk.seeks_further() && *reason == CloseReason::Replaced;
                let astray = further || Self::leads_astray(&dial, *reason);
                if astray {
                    self.dead_ends.note_failed(name, address, env.now);
                }
                if astray && dial.walk.leave(address, *reason, retry) && !env.shutting_down {
                    self.attempt(env, dial.endpoint, dial.purpose, dial.walk);
                    return;
                }
            }
            _ => {}
        }
        dial.walk.retry = dial.walk.retry.max(retry);
        // Replaced: the peer is linked, only not over this connection.
        let result = match result {
            Err(ConnectFailure::Refused(CloseReason::Replaced)) => Ok(()),
            other => other,
        };
        self.end_dial(env, &dial, Some(*remote), result);
    }

    /// Draws the consequences of a dial that has ended; `remote` is the peer that its link led to.
    fn end_dial(
        &mut self,
        env: &mut Env,
        dial: &Dial,
        remote: Option<PeerId>,
        result: Result<(), ConnectFailure>,
    ) {
        let (failed, further) = (result.is_err(), dial.walk.seeks_further());
        let is_own =
            result == Err(ConnectFailure::Refused(CloseReason::SelfDial)) && remote == Some(env.me);
        if failed && !further {
            env.counters.dials_failed += 1;
        }
        self.say_how_it_went(env, dial, result);
        match dial.purpose {
            Purpose::Host(call) => {
                // Without a peer it failed.
                let result = result.map(|()| remote.unwrap_or(env.me));
                env.push(Output::Connected { call, result });
            }
            Purpose::Bootstrap(at) => {
                let (failures, short_links) =
                    self.book.bootstrap.get(at).map_or((0, 0), |b| (b.failures, b.short_links));
                let next = if further {
                    // There is a link: no hurry.
                    let pause = env.config.overlay.redial_max;
                    env.now + pause / 2 + env.rng.jitter(pause)
                } else if is_own && !dial.endpoint.is_name() {
                    env.now + OWN_FOR
                } else {
                    next_attempt(env, failures.saturating_add(short_links), dial.walk.retry)
                };
                if failed && !further {
                    self.book.note_address_failed(&dial.endpoint, next);
                }
                if let Some(b) = self.book.bootstrap.get_mut(at) {
                    b.dialling = false;
                    if let Some(remote) = remote.filter(|_| !(further && failed)) {
                        // Also when it was refused: who is there was proven.
                        b.peer = Some(remote);
                    }
                    if !further {
                        b.failures = if failed { failures.saturating_add(1) } else { 0 };
                    }
                    b.next = next;
                }
            }
            Purpose::Peer(peer) if failed => {
                let count = |k: &Known| k.failures.saturating_add(k.short_links);
                let failures = self.book.known.get(&peer).map_or(0, count);
                let next = next_attempt(env, failures, dial.walk.retry);
                self.book.note_failure(&peer, next);
                self.forget_hopeless(env, &peer);
            }
            Purpose::Peer(_) => {}
        }
    }

    /// Says that a bootstrap peer cannot be linked with, or nobody else while links are missing: at
    /// once, and then rarely. What a host configured wrong must not look like an empty network.
    fn say_how_it_went(&mut self, env: &Env, dial: &Dial, result: Result<(), ConnectFailure>) {
        let is_bootstrap = matches!(dial.purpose, Purpose::Bootstrap(_));
        let notice = match dial.purpose {
            Purpose::Bootstrap(at) => self.book.bootstrap.get_mut(at).map(|b| &mut b.notice),
            Purpose::Peer(_) => Some(&mut self.refusals),
            Purpose::Host(_) => None,
        };
        let Some(notice) = notice else { return };
        let why = match result {
            // Beyond the peer that is linked there need be nobody.
            _ if dial.walk.seeks_further() => return,
            // A list of all nodes may hold this one.
            Err(
                ConnectFailure::Closed
                | ConnectFailure::Refused(CloseReason::SelfDial)
                | ConnectFailure::Dial(FailureKind::NoneLeft),
            ) => return,
            Ok(()) => return notice.succeed(),
            Err(why) => why,
        };
        // Of peers from the book it is no news that some cannot be reached.
        let is_worth = is_bootstrap
            || self.connection.mode != Mode::Online && matches!(why, ConnectFailure::Refused(_));
        if let Some(failures) = is_worth.then(|| notice.fail(why, env.now)).flatten() {
            tracing::warn!(
                target: "sorcha_peer::overlay",
                address = %dial.endpoint, reason = why.as_str(), failure = dial.shown_failure(), failures,
                "{}",
                if is_bootstrap { "no link with a bootstrap peer" } else { "a peer refuses the link" }
            );
        }
    }

    /// Drops a peer that failed too often, but only while we are well connected: when we are the
    /// ones who are cut off, everybody fails, and nobody may be forgotten.
    fn forget_hopeless(&mut self, env: &mut Env, peer: &PeerId) {
        let limit = env.config.discovery.forget_after;
        let hopeless = self.book.known.get(peer).is_some_and(|k| k.failures >= limit);
        let bootstrap = self.book.bootstrap.iter().any(|b| b.peer == Some(*peer));
        let spared = bootstrap || self.dropped_peers.contains(peer);
        if hopeless && !spared && self.connection.has(env.config.discovery.min_healthy_peers) {
            self.book.known.remove(peer);
            env.push(Output::ForgetPeer(*peer));
        }
    }

    pub(in crate::protocol) fn note_peer_up(
        &mut self,
        env: &mut Env,
        links: &Links,
        link: LinkId,
        peer: &PeerId,
    ) {
        let endpoint = links.all.get(&link).and_then(|l| l.endpoint.clone());
        self.book.note_up(*peer, endpoint.as_ref(), env.wall);
        self.dropped_peers.retain(|dropped| dropped != peer);
        self.save_peer(env, peer);
    }

    /// Another connection carries a link: that way works.
    pub(in crate::protocol) fn note_moved(&mut self, env: &mut Env, links: &Links, link: LinkId) {
        let Some(l) = links.all.get(&link) else { return };
        self.book.note_up(l.remote, l.endpoint.as_ref(), env.wall);
        self.save_peer(env, &l.remote);
    }

    /// The peer of a link said what it carries.
    pub(in crate::protocol) fn note_kind(&mut self, links: &Links, link: LinkId) {
        let Some(l) = links.all.get(&link) else { return };
        if let Some(up) = &l.up {
            self.book.note_kind(&l.remote, up.interest.theirs.is_relay());
        }
    }

    pub(in crate::protocol) fn note_peer_down(
        &mut self,
        env: &mut Env,
        peer: &PeerId,
        lived: Duration,
        cause: CloseCause,
    ) {
        let short_links = self.book.note_down(peer, lived, env.now);
        let next = next_attempt(env, short_links.saturating_sub(1), cause.retry());
        self.book.postpone(peer, next);
        self.own_addresses.note_down(peer, env.now);
        if matches!(cause, CloseCause::Transport | CloseCause::Ours(CloseReason::Unresponsive)) {
            self.note_dropped(peer);
        }
        for at in 0..self.book.bootstrap.len() {
            if self.book.bootstrap[at].peer == Some(*peer) {
                self.book.bootstrap[at].next = next;
            }
        }
    }

    pub(super) fn save_peer(&mut self, env: &mut Env, peer: &PeerId) {
        for evicted in self.book.take_evicted() {
            env.push(Output::ForgetPeer(evicted));
        }
        if let Some(known) = self.book.known.get(peer) {
            env.push(Output::SavePeer(Box::new(known.to_stored(*peer))));
        }
    }

    /// Wakes up when the next back-off ends.
    fn arm_overlay(&mut self, env: &mut Env) {
        let now = env.now;
        let known = self.book.known.values().map(|k| k.next);
        let bootstrap = self.book.bootstrap.iter().filter(|b| !b.dialling).map(|b| b.next);
        if let Some(next) = known.chain(bootstrap).filter(|at| *at > now).min() {
            env.timers.set_earlier(Timer::Overlay, next);
        }
    }
}

/// Reports whether there are so few links that bootstrap peers are dialled.
fn are_bootstraps_wanted(env: &Env, links: &Links) -> bool {
    links.up_count() < env.config.discovery.min_healthy_peers as usize
}

/// Returns when to dial again after so many failures in a row.
fn next_attempt(env: &mut Env, failures: u32, at_least: Duration) -> MonoTime {
    let overlay = &env.config.overlay;
    let ceiling = backoff(failures, overlay.redial_min, overlay.redial_max);
    // A floor of a tenth keeps a refused connection from being repeated in a busy loop.
    env.now + at_least + ceiling / 10 + env.rng.jitter(ceiling)
}
