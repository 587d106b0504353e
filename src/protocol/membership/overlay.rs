//! Which links to have: dial until there are enough, replace what is lost, never give up.
//!
//! `maintain` is called whenever something changed and whenever a back-off ends. It dials while
//! fewer than `dial_target` links are outbound or fewer than `min_links` are up, preferring address
//! groups that no other outbound link is in, else at random. With fewer than `min_healthy_peers`
//! links the bootstrap peers are dialled again, for ever. All delays have full jitter.
//!
//! A peer whose link broke is dialled again for ever, one at a time, also when there are enough links
//! by then: halves of a network that were apart for long have refilled their links from within, and
//! nobody else would join them. The latest `MAX_LOST` are remembered, and while there are twice as many
//! links as wanted nobody is dialled for it.
//!
//! Where there are edges (`interest`), only links to relays count towards those numbers, so that
//! relays stay linked with each other and edges find relays; known relays are dialled first, and known
//! edges only as far as links of any kind are missing. Peer exchange says which of its records are
//! relays, so they find each other also where only edges link them. A quarter of the inbound links is
//! kept free of edges.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::types::{
    CloseReason, Direction, Endpoint, Event, FailureKind, LinkId, Mode, MonoTime, PeerId,
};

use super::address_book::{Kind, backoff};
use crate::protocol::Protocol;
use crate::protocol::io::{CallId, ConnectFailure, DialId, Output};
use crate::protocol::link::Ending;
use crate::protocol::link::Link;
use crate::protocol::timers::Timer;

/// On whose behalf a dial is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A peer from the book.
    Peer(PeerId),
    /// A bootstrap peer, by position.
    Bootstrap(usize),
    /// The host asked.
    Host(CallId),
}

/// Peers remembered whose link broke.
const MAX_LOST: usize = 32;
/// Dialled links to peers that turned out to be edges, beyond `dial_target`, while relays are sought.
const SPARE: usize = 4;

/// How many links a node lacks.
#[derive(Debug, Clone, Copy)]
struct Missing {
    /// To relays.
    relays: usize,
    /// To anybody.
    any: usize,
    /// To somebody who may be a relay.
    spare: usize,
}

/// A dial under way, until its link's hello is through.
#[derive(Debug)]
pub(in crate::protocol) struct Dial {
    pub(in crate::protocol) endpoint: Endpoint,
    purpose: Purpose,
}

impl Protocol {
    /// Dials what is missing.
    pub(in crate::protocol) fn maintain(&mut self) {
        if self.env.shutting_down {
            return;
        }
        let mut room = (self.env.config.discovery.max_concurrent as usize)
            .saturating_sub(self.membership.dials.len());
        self.maintain_bootstrap(&mut room);
        let missing = self.missing_links();
        if missing.relays > 0 {
            let dialled = self.dial_known(missing, room);
            if dialled < missing.relays {
                self.arm_needy();
            }
        } else if room > 0 {
            self.dial_lost();
        }
        self.arm_overlay();
    }

    /// Dials one of those whose link broke.
    fn dial_lost(&mut self) {
        let overlay = &self.env.config.overlay;
        let enough = 2 * overlay.dial_target.max(overlay.min_links) as usize;
        let is_lost = |peer: &PeerId| self.membership.dropped_peers.contains(peer);
        let under_way = |d: &Dial| matches!(d.purpose, Purpose::Peer(peer) if is_lost(&peer));
        if self.membership.dropped_peers.is_empty()
            || self.links.up_count() >= enough
            || self.membership.dials.values().any(under_way)
        {
            return;
        }
        let mut candidates = self.candidates();
        candidates.retain(|(peer, _)| is_lost(peer));
        if !candidates.is_empty() {
            let (peer, endpoint) = candidates.swap_remove(self.env.rng.below(candidates.len()));
            self.start_dial(endpoint, Some(peer), Purpose::Peer(peer));
        }
    }

    /// A link broke, and its peer did not mean it to.
    fn note_lost(&mut self, peer: &PeerId) {
        let edge = self.membership.book.known.get(peer).is_some_and(|k| k.kind == Kind::Edge);
        if !edge && !self.membership.dropped_peers.contains(peer) {
            self.membership.dropped_peers.push_back(*peer);
            if self.membership.dropped_peers.len() > MAX_LOST {
                self.membership.dropped_peers.pop_front();
            }
        }
    }

    fn missing_links(&self) -> Missing {
        let overlay = &self.env.config.overlay;
        let (target, least) = (overlay.dial_target as usize, overlay.min_links as usize);
        let dials = self.membership.dials.len();
        let relays = |up: &&Link| up.up.as_ref().is_some_and(|up| up.interest.theirs.is_relay());
        let ups = || self.links.all.values().filter(|l| l.up.is_some());
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

    fn maintain_bootstrap(&mut self, room: &mut usize) {
        let wanted = self.links.up_count() < self.env.config.discovery.min_healthy_peers as usize;
        if !wanted {
            return;
        }
        let mut started = false;
        for at in 0..self.membership.book.bootstrap.len() {
            let b = &self.membership.book.bootstrap[at];
            let linked = b.peer.is_some_and(|p| self.links.by_peer.contains_key(&p));
            if *room == 0 || b.dialling || linked || b.next > self.env.now {
                continue;
            }
            if self.membership.book.is_own(&b.endpoint) {
                continue;
            }
            let endpoint = b.endpoint.clone();
            self.membership.book.bootstrap[at].dialling = true;
            // No id is pinned: the address is what the host trusts, and its peer may have a new key.
            self.start_dial(endpoint, None, Purpose::Bootstrap(at));
            *room -= 1;
            started = true;
        }
        if started {
            self.env.counters.bootstraps_started += 1;
        }
    }

    /// Dials up to `room` peers from the book, as far as such are missing; returns how many.
    fn dial_known(&mut self, missing: Missing, room: usize) -> usize {
        let mut candidates = self.candidates();
        self.env.rng.shuffle(&mut candidates);
        let mut groups = self.outbound_groups();
        let (fresh, rest): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|(_, endpoint)| groups.insert(endpoint.group()));
        let kind =
            |peer: &PeerId| self.membership.book.known.get(peer).map_or(Kind::Unknown, |k| k.kind);
        let mut ranked: Vec<_> =
            fresh.into_iter().chain(rest).map(|(peer, at)| (kind(&peer), peer, at)).collect();
        if self.membership.book.is_mixed() {
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
                self.start_dial(endpoint, Some(peer), Purpose::Peer(peer));
                dialled += 1;
            }
        }
        dialled
    }

    fn candidates(&self) -> Vec<(PeerId, Endpoint)> {
        let dialling: BTreeSet<PeerId> = self
            .membership
            .dials
            .values()
            .filter_map(|d| match d.purpose {
                Purpose::Peer(peer) => Some(peer),
                Purpose::Bootstrap(at) => self.membership.book.bootstrap.get(at)?.peer,
                Purpose::Host(_) => None,
            })
            .chain(self.links.all.values().map(|l| l.remote))
            .collect();
        let eligible = |(peer, known): (&PeerId, &super::address_book::Known)| {
            let endpoint = known.endpoint()?;
            let free = *peer != self.env.me
                && known.next <= self.env.now
                && !dialling.contains(peer)
                && !self.guard.is_banned(peer, self.env.wall)
                && self.env.config.network.trust.allows(peer)
                && !self.membership.book.is_own(endpoint)
                && !self.membership.dials.values().any(|d| d.endpoint == *endpoint);
            free.then(|| (*peer, endpoint.clone()))
        };
        self.membership.book.known.iter().filter_map(eligible).collect()
    }

    fn outbound_groups(&self) -> BTreeSet<u64> {
        let linked = self.links.all.values().filter_map(|l| l.endpoint.as_ref());
        linked
            .chain(self.membership.dials.values().map(|d| &d.endpoint))
            .map(Endpoint::group)
            .collect()
    }

    fn start_dial(&mut self, endpoint: Endpoint, expected: Option<PeerId>, purpose: Purpose) {
        self.membership.next_dial += 1;
        let dial = DialId(self.membership.next_dial);
        self.env.counters.dials_started += 1;
        self.membership.dials.insert(dial, Dial { endpoint: endpoint.clone(), purpose });
        self.env.push(Output::Dial { dial, endpoint, expected });
    }

    /// The host wants a link.
    pub(in crate::protocol) fn on_connect(&mut self, call: CallId, endpoint: Endpoint) {
        if self.env.shutting_down {
            let result = Err(ConnectFailure::Closed);
            self.env.push(Output::Connected { call, result });
            return;
        }
        self.start_dial(endpoint, None, Purpose::Host(call));
    }

    pub(in crate::protocol) fn on_dial_failed(&mut self, dial: DialId, reason: FailureKind) {
        let Some(d) = self.membership.dials.get(&dial) else { return };
        let address = d.endpoint.to_string();
        let peer = match d.purpose {
            Purpose::Peer(peer) => peer,
            _ => self.env.me,
        };
        tracing::debug!(target: "sorcha_peer::overlay", %address, %reason, "dial failed");
        self.env.emit(Event::DialFailed { address, reason });
        self.finish_dial(Some(dial), &peer, Err(ConnectFailure::Dial(reason)), Duration::ZERO);
        self.maintain();
    }

    /// A link's dial has done its work.
    pub(in crate::protocol) fn finish_dial_of(
        &mut self,
        link: LinkId,
        result: Result<(), ConnectFailure>,
    ) {
        let Some(l) = self.links.all.get(&link) else { return };
        let (dial, remote) = (l.dial, l.remote);
        self.finish_dial(dial, &remote, result, Duration::ZERO);
    }

    /// Ends a dial, well or badly; `retry` is how long the peer wants us to stay away.
    pub(in crate::protocol) fn finish_dial(
        &mut self,
        dial: Option<DialId>,
        remote: &PeerId,
        result: Result<(), ConnectFailure>,
        retry: Duration,
    ) {
        let Some(dial) = dial.and_then(|d| self.membership.dials.remove(&d)) else { return };
        // Replaced: the peer is linked, only not over this connection.
        let result = match result {
            Err(ConnectFailure::Refused(CloseReason::Replaced)) => Ok(()),
            other => other,
        };
        let failed = result.is_err();
        let answered = !matches!(result, Err(ConnectFailure::Dial(_) | ConnectFailure::Closed));
        if failed {
            self.env.counters.dials_failed += 1;
        }
        match dial.purpose {
            Purpose::Host(call) => {
                let result = result.map(|()| *remote);
                self.env.push(Output::Connected { call, result });
            }
            Purpose::Bootstrap(at) => {
                let failures = self.membership.book.bootstrap.get(at).map_or(0, |b| b.failures);
                let next = self.next_attempt(failures, retry);
                if let Some(b) = self.membership.book.bootstrap.get_mut(at) {
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
                let failures = self.membership.book.known.get(&peer).map_or(0, |k| k.failures);
                let next = self.next_attempt(failures, retry);
                self.membership.book.note_failure(&peer, next);
                self.forget_hopeless(&peer);
            }
            Purpose::Peer(_) => {}
        }
    }

    fn next_attempt(&mut self, failures: u32, at_least: Duration) -> MonoTime {
        let overlay = &self.env.config.overlay;
        let ceiling = backoff(failures, overlay.redial_min, overlay.redial_max);
        // A floor of a tenth keeps a refused connection from being repeated in a busy loop.
        self.env.now + at_least + ceiling / 10 + self.env.rng.jitter(ceiling)
    }

    /// Drops a peer that failed too often, but only while we are well connected: when we are the
    /// ones who are cut off, everybody fails, and nobody may be forgotten.
    fn forget_hopeless(&mut self, peer: &PeerId) {
        let limit = self.env.config.discovery.forget_after;
        let hopeless = self.membership.book.known.get(peer).is_some_and(|k| k.failures >= limit);
        let bootstrap = self.membership.book.bootstrap.iter().any(|b| b.peer == Some(*peer));
        let spared = bootstrap || self.membership.dropped_peers.contains(peer);
        if hopeless && !spared && self.membership.mode == Mode::Online {
            self.membership.book.known.remove(peer);
            self.env.push(Output::ForgetPeer(*peer));
        }
    }

    pub(in crate::protocol) fn note_peer_up(&mut self, link: LinkId, peer: &PeerId) {
        let endpoint = self.links.all.get(&link).and_then(|l| l.endpoint.clone());
        self.membership.book.note_up(*peer, endpoint.as_ref(), self.env.wall);
        self.membership.dropped_peers.retain(|lost| lost != peer);
        self.save_peer(peer);
    }

    /// The peer of a link said what it carries.
    pub(in crate::protocol) fn note_kind(&mut self, link: LinkId) {
        let Some(l) = self.links.all.get(&link) else { return };
        if let Some(up) = &l.up {
            self.membership.book.note_kind(&l.remote, up.interest.theirs.is_relay());
        }
    }

    pub(in crate::protocol) fn note_peer_down(&mut self, peer: &PeerId, ending: Ending) {
        let next = self.next_attempt(0, ending.retry());
        self.membership.book.postpone(peer, next);
        if matches!(ending, Ending::Lost | Ending::Ours(CloseReason::Unresponsive)) {
            self.note_lost(peer);
        }
        for at in 0..self.membership.book.bootstrap.len() {
            if self.membership.book.bootstrap[at].peer == Some(*peer) {
                self.membership.book.bootstrap[at].next = next;
            }
        }
    }

    pub(super) fn save_peer(&mut self, peer: &PeerId) {
        for evicted in self.membership.book.take_evicted() {
            self.env.push(Output::ForgetPeer(evicted));
        }
        if let Some(known) = self.membership.book.known.get(peer) {
            self.env.push(Output::SavePeer(Box::new(known.to_stored(*peer))));
        }
    }

    /// Wakes up when the next back-off ends.
    fn arm_overlay(&mut self) {
        let now = self.env.now;
        let known = self.membership.book.known.values().map(|k| k.next);
        let bootstrap =
            self.membership.book.bootstrap.iter().filter(|b| !b.dialling).map(|b| b.next);
        if let Some(next) = known.chain(bootstrap).filter(|at| *at > now).min() {
            self.env.timers.set_earlier(Timer::Overlay, next);
        }
    }
}
