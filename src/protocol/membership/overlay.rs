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
//! While links are missing, places on the LAN are dialled too (`nearby`).
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
use crate::protocol::io::{CallId, Output};
use crate::protocol::link::{CloseCause, Link, Links};
use crate::protocol::refusal::ConnectFailure;
use crate::protocol::timers::Timer;
use crate::types::{CloseReason, Direction, Endpoint, LinkId, PeerId};

use super::Membership;
use super::address_book::{Kind, Known, STEADY};
use super::breaker::Key;
use super::dials::Purpose;
use super::ladder::{Route, Walk};
use super::outcome::{key_of, next_attempt};

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
            (env.config.discovery.max_concurrent as usize).saturating_sub(self.dialling());
        self.maintain_bootstrap(env, links, &mut room);
        let missing = self.missing_links(env, links);
        if missing.relays > 0 {
            self.dial_nearby(env, links);
            let dialled = self.dial_known(env, links, guard, missing, room);
            if dialled < missing.relays {
                self.arm_needy(env, links);
            }
        } else if room > 0 {
            self.dial_dropped(env, links, guard);
        }
        self.arm_overlay(env, links);
    }

    /// Dials one of those whose link broke.
    fn dial_dropped(&mut self, env: &mut Env, links: &Links, guard: &Guard) {
        let overlay = &env.config.overlay;
        let enough = 2 * overlay.dial_target.max(overlay.min_links) as usize;
        let was_dropped = |peer: &PeerId| self.dropped_peers.contains(peer);
        let under_way = |w: &Walk| matches!(w.purpose, Purpose::Peer(peer) if was_dropped(&peer));
        if self.dropped_peers.is_empty()
            || links.up_count() >= enough
            || self.walks.values().any(under_way)
        {
            return;
        }
        let mut candidates = self.candidates(env, links, guard);
        candidates.retain(|(peer, _)| was_dropped(peer));
        if !candidates.is_empty() {
            let (peer, _) = candidates.swap_remove(env.rng.below(candidates.len()));
            self.walk_to(env, peer);
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
        let dials = self.dialling();
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
            // Without a pin the address is what the host trusts, and its peer may have a new key.
            let route = Route {
                worked: self.book.worked_at(&endpoint).map(|rung| (endpoint.clone(), rung)),
                endpoints: vec![endpoint],
                pin,
                linked: may_lead_further.then(|| self.linked_addresses(links)),
            };
            if !self.may_walk(env, links, Purpose::Bootstrap(at), &route) {
                continue;
            }
            self.book.bootstrap[at].dialling = true;
            self.walk(env, Purpose::Bootstrap(at), route, None);
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
            fresh.into_iter().chain(rest).map(|(peer, _)| (kind(&peer), peer)).collect();
        if self.book.is_mixed() {
            ranked.sort_by_key(|(kind, ..)| *kind);
        }
        let mut dialled = 0;
        for (kind, peer) in ranked {
            let most = match kind {
                Kind::Relay | Kind::Hearsay => missing.relays,
                Kind::Unknown => missing.any.max(missing.spare),
                Kind::Edge => missing.any,
            };
            if dialled < most.min(missing.relays).min(room) {
                self.walk_to(env, peer);
                dialled += 1;
            }
        }
        dialled
    }

    fn candidates(&self, env: &Env, links: &Links, guard: &Guard) -> Vec<(PeerId, Endpoint)> {
        let dialling: BTreeSet<PeerId> = self
            .walks
            .values()
            .filter_map(|w| match w.purpose {
                Purpose::Peer(peer) => Some(peer),
                Purpose::Bootstrap(at) => self.book.bootstrap.get(at)?.peer,
                Purpose::Host | Purpose::Nearby => None,
            })
            .chain(links.all.values().map(|l| l.remote))
            .collect();
        let is_needy = are_bootstraps_wanted(env, links);
        // A bootstrap peer is dialled as that, and not once more as a peer of the book.
        let as_bootstrap = |endpoint: &Endpoint| {
            is_needy && self.book.bootstrap.iter().any(|b| b.endpoint == *endpoint)
        };
        let eligible = |(peer, known): (&PeerId, &Known)| {
            let endpoint = self.may_dial(env, guard, peer, known)?;
            let free = known.next <= env.now
                && !dialling.contains(peer)
                && !as_bootstrap(endpoint)
                && !self.walks.values().any(|w| w.route.endpoints.contains(endpoint))
                && self.breakers.admit(&Key::Peer(*peer), env.now, is_needy).is_ok();
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
        let endpoint = known.endpoint(|e| self.is_worth_dialling(env, peer, e))?;
        let may = *peer != env.me
            && !guard.is_banned(peer, env.corroborated())
            && env.config.network.trust.allows(peer);
        may.then_some(endpoint)
    }

    /// Reports whether an endpoint may lead to a peer, as far as is known, and by some rung.
    fn is_worth_dialling(&self, env: &Env, peer: &PeerId, endpoint: &Endpoint) -> bool {
        self.dead_ends.own_until(endpoint, env.now).is_none()
            && self.rungs.iter().any(|rung| endpoint.carries(*rung))
            && endpoint.pin().is_none_or(|pin| pin == *peer)
    }

    /// Begins a walk to a peer from the book, at all its endpoints.
    pub(super) fn walk_to(&mut self, env: &mut Env, peer: PeerId) {
        let Some(known) = self.book.known.get(&peer) else { return };
        let is_worth = |e: &Endpoint| self.is_worth_dialling(env, &peer, e);
        let route = Route {
            endpoints: known.endpoints(is_worth).into_iter().cloned().collect(),
            worked: known.worked(),
            ..Route::default()
        };
        self.walk(env, Purpose::Peer(peer), route, None);
    }

    /// Reports whether a walk's breaker lets it through.
    fn may_walk(&self, env: &Env, links: &Links, purpose: Purpose, route: &Route) -> bool {
        let is_needy = are_bootstraps_wanted(env, links);
        let key = key_of(purpose, route);
        key.is_none_or(|key| self.breakers.admit(&key, env.now, is_needy).is_ok())
    }

    fn outbound_groups(&self, links: &Links) -> BTreeSet<u64> {
        let linked = links.all.values().filter_map(|l| l.endpoint.as_ref());
        linked.chain(self.walks.values().filter_map(Walk::endpoint)).map(Endpoint::group).collect()
    }

    /// The host wants a link. Of calls for one address all have the answer of one walk.
    pub(in crate::protocol) fn on_connect(
        &mut self,
        env: &mut Env,
        links: &Links,
        call: CallId,
        endpoint: Endpoint,
    ) {
        let refuse = |env: &mut Env, why| {
            env.push(Output::Connected { call, result: Err(why), detail: String::new() });
        };
        if env.shutting_down {
            return refuse(env, ConnectFailure::Closed);
        }
        let (endpoint, pin) = endpoint.split_pin();
        let pin = pin.or_else(|| self.book.pin_at(&endpoint));
        let wanted = |w: &&mut Walk| {
            w.purpose == Purpose::Host && w.endpoint() == Some(&endpoint) && w.route.pin == pin
        };
        if let Some(walk) = self.walks.values_mut().find(wanted) {
            walk.callers.push(call);
            return;
        }
        let route = Route {
            pin,
            worked: self.book.worked_at(&endpoint).map(|rung| (endpoint.clone(), rung)),
            endpoints: vec![endpoint],
            linked: None,
        };
        let is_needy = are_bootstraps_wanted(env, links);
        let key = key_of(Purpose::Host, &route);
        let admitted = key.map_or(Ok(()), |key| self.breakers.admit(&key, env.now, is_needy));
        match admitted {
            Ok(()) => self.walk(env, Purpose::Host, route, Some(call)),
            Err(left) => {
                env.counters.connects_refused_breaker += 1;
                refuse(env, ConnectFailure::BreakerOpen { left });
            }
        }
    }

    /// The host says that a peer may be there again, whatever its breaker says.
    pub(in crate::protocol) fn on_reset_breaker(&mut self, env: &mut Env, peer: &PeerId) {
        self.close_breakers_of(env, peer);
        self.book.postpone(peer, env.now);
        for b in self.book.bootstrap.iter_mut().filter(|b| b.pin.or(b.peer) == Some(*peer)) {
            b.next = env.now;
        }
    }

    pub(in crate::protocol) fn note_peer_up(
        &mut self,
        env: &mut Env,
        links: &Links,
        link: LinkId,
        peer: &PeerId,
    ) {
        let Some(l) = links.all.get(&link) else { return };
        self.book.note_up(*peer, l.endpoint.as_ref().map(|e| (e, l.kind)), env.wall);
        self.close_breakers_of(env, peer);
        self.end_walks_to(env, peer, l.dial);
        self.dropped_peers.retain(|dropped| dropped != peer);
        self.save_peer(env, peer);
    }

    /// Another connection carries a link: that way works.
    pub(in crate::protocol) fn note_moved(&mut self, env: &mut Env, links: &Links, link: LinkId) {
        let Some(l) = links.all.get(&link) else { return };
        self.book.note_up(l.remote, l.endpoint.as_ref().map(|e| (e, l.kind)), env.wall);
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
        // What was to be closed says nothing of the peer, unless that is so again and again.
        let is_due = cause == CloseCause::Left && lived >= env.config.overlay.redial_min;
        let lived = if is_due { lived.max(STEADY) } else { lived };
        let short_links = self.book.note_down(peer, lived, env.now);
        let next = if is_due {
            env.now
        } else {
            next_attempt(env, short_links.saturating_sub(1), cause.retry())
        };
        self.book.postpone(peer, next);
        if matches!(
            cause,
            CloseCause::Transport | CloseCause::Left | CloseCause::Ours(CloseReason::Unresponsive)
        ) {
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
    fn arm_overlay(&mut self, env: &mut Env, links: &Links) {
        let now = env.now;
        let breakers = self.breakers.next(now, are_bootstraps_wanted(env, links));
        let known = self.book.known.values().map(|k| k.next);
        let bootstrap = self.book.bootstrap.iter().filter(|b| !b.dialling).map(|b| b.next);
        let all = known.chain(bootstrap).chain(breakers).chain(self.nearby.wakeup(now));
        if let Some(next) = all.filter(|at| *at > now).min() {
            env.timers.set_earlier(Timer::Overlay, next);
        }
    }
}

/// Reports whether there are so few links that bootstrap peers are dialled.
pub(super) fn are_bootstraps_wanted(env: &Env, links: &Links) -> bool {
    links.up_count() < env.config.discovery.min_healthy_peers as usize
}
