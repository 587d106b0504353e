//! Which links to have: dial until there are enough, replace what is lost, never give up.
//!
//! `maintain` is called whenever something changed and whenever a back-off ends. It dials while
//! fewer than `dial_target` links are outbound or fewer than `min_links` are up, preferring address
//! groups that no other outbound link is in, else at random. With fewer than `min_healthy_peers`
//! links the bootstrap peers are dialled again, for ever. All delays have full jitter, and double with
//! each failure in a row and with each link in a row that ended soon after it came up.
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
use super::address_book::{Bootstrap, Kind, Known, backoff};

/// Purpose of a dial: on whose behalf it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A peer from the book.
    Peer(PeerId),
    /// A bootstrap peer, by position.
    Bootstrap(usize),
    /// The host asked.
    Host(CallId),
}

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

/// A dial under way, until its link's hello is through.
#[derive(Debug)]
pub(in crate::protocol) struct Dial {
    pub(in crate::protocol) endpoint: Endpoint,
    purpose: Purpose,
    /// Failure of the transport in words, once it failed.
    failure: String,
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
            self.start_dial(env, endpoint, Some(peer), Purpose::Peer(peer));
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
            if *room == 0 || b.dialling || linked || own || b.next > env.now {
                continue;
            }
            if self.book.is_own(&b.endpoint) {
                continue;
            }
            let (endpoint, pin) = (b.endpoint.clone(), b.pin);
            self.book.bootstrap[at].dialling = true;
            // Without a pin the address is what the host trusts, and its peer may have a new key.
            self.start_dial(env, endpoint, pin, Purpose::Bootstrap(at));
            *room -= 1;
            started = true;
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
                self.start_dial(env, endpoint, Some(peer), Purpose::Peer(peer));
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
        let endpoint = known.endpoint()?;
        let may = *peer != env.me
            && !guard.is_banned(peer, env.wall)
            && env.config.network.trust.allows(peer)
            && !self.book.is_own(endpoint);
        may.then_some(endpoint)
    }

    fn outbound_groups(&self, links: &Links) -> BTreeSet<u64> {
        let linked = links.all.values().filter_map(|l| l.endpoint.as_ref());
        linked.chain(self.dials.values().map(|d| &d.endpoint)).map(Endpoint::group).collect()
    }

    fn start_dial(
        &mut self,
        env: &mut Env,
        endpoint: Endpoint,
        expected: Option<PeerId>,
        purpose: Purpose,
    ) {
        self.next_dial += 1;
        let dial = DialId(self.next_dial);
        env.counters.dials_started += 1;
        self.dials
            .insert(dial, Dial { endpoint: endpoint.clone(), purpose, failure: String::new() });
        env.push(Output::Dial { dial, endpoint, expected });
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
        self.start_dial(env, endpoint, pin, Purpose::Host(call));
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
        let Some(d) = self.dials.get_mut(&dial) else { return };
        let address = d.endpoint.to_string();
        d.failure = detail;
        let peer = match d.purpose {
            Purpose::Peer(peer) => peer,
            _ => env.me,
        };
        tracing::debug!(target: "sorcha_peer::overlay", %address, %reason, failure = d.failure, "dial failed");
        env.emit(Event::DialFailed { address, reason });
        self.finish_dial(env, Some(dial), &peer, Err(ConnectFailure::Dial(reason)), Duration::ZERO);
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
        let (dial, remote) = (l.dial, l.remote);
        self.finish_dial(env, dial, &remote, result, Duration::ZERO);
    }

    /// Ends a dial, well or badly; `retry` is how long the peer wants us to stay away.
    pub(in crate::protocol) fn finish_dial(
        &mut self,
        env: &mut Env,
        dial: Option<DialId>,
        remote: &PeerId,
        result: Result<(), ConnectFailure>,
        retry: Duration,
    ) {
        let Some(dial) = dial.and_then(|d| self.dials.remove(&d)) else { return };
        // Replaced: the peer is linked, only not over this connection.
        let result = match result {
            Err(ConnectFailure::Refused(CloseReason::Replaced)) => Ok(()),
            other => other,
        };
        let failed = result.is_err();
        let answered = !matches!(result, Err(ConnectFailure::Dial(_) | ConnectFailure::Closed));
        if failed {
            env.counters.dials_failed += 1;
        }
        self.say_how_it_went(env, &dial, result);
        match dial.purpose {
            Purpose::Host(call) => {
                let result = result.map(|()| *remote);
                env.push(Output::Connected { call, result });
            }
            Purpose::Bootstrap(at) => {
                let count = |b: &Bootstrap| b.failures.saturating_add(b.short_links);
                let failures = self.book.bootstrap.get(at).map_or(0, count);
                let next = next_attempt(env, failures, retry);
                if failed {
                    self.book.note_address_failed(&dial.endpoint, next);
                }
                if let Some(b) = self.book.bootstrap.get_mut(at) {
                    b.dialling = false;
                    if answered {
                        // Also when it was refused: who is there was proven.
                        b.peer = Some(*remote);
                    }
                    b.failures = if failed { failures.saturating_add(1) } else { 0 };
                    b.next = next;
                }
            }
            Purpose::Peer(peer) if failed => {
                let count = |k: &Known| k.failures.saturating_add(k.short_links);
                let failures = self.book.known.get(&peer).map_or(0, count);
                let next = next_attempt(env, failures, retry);
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
            // A list of all nodes may hold this one.
            Err(ConnectFailure::Closed | ConnectFailure::Refused(CloseReason::SelfDial)) => return,
            Ok(()) => return notice.succeed(),
            Err(why) => why,
        };
        // Of peers from the book it is no news that some cannot be reached.
        let is_worth = is_bootstrap
            || self.connection.mode != Mode::Online && matches!(why, ConnectFailure::Refused(_));
        if let Some(failures) = is_worth.then(|| notice.fail(why, env.now)).flatten() {
            tracing::warn!(
                target: "sorcha_peer::overlay",
                address = %dial.endpoint, reason = why.as_str(), failure = dial.failure, failures,
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
