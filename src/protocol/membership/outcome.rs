//! Consequences of a walk that has ended: when the next one is, what its breaker makes of it, and who is
//! told.
//!
//! Tested by: `protocol::tests::ladder`, `sim::tests::faults`.

use std::time::Duration;

use crate::protocol::env::Env;
use crate::protocol::io::Output;
use crate::protocol::refusal::ConnectFailure;
use crate::types::{CloseReason, Event, FailureKind, Mode, MonoTime, PeerId};

use super::Membership;
use super::address_book::{Known, backoff};
use super::breaker::Key;
use super::dead_ends::OWN_FOR;
use super::dials::Purpose;
use super::ladder::{Failure, Route, Walk, WalkId, is_verdict};

impl Membership {
    /// Draws the consequences of a walk that led to a peer, or failed.
    pub(super) fn end_walk(
        &mut self,
        env: &mut Env,
        id: WalkId,
        walk: &Walk,
        result: Result<PeerId, Failure>,
    ) {
        self.has_moved = true;
        let (failed, further) = (result.is_err(), walk.seeks_further());
        let remote = result.as_ref().map_or_else(|failure| failure.remote, |peer| Some(*peer));
        let why = result.as_ref().err().map(|failure| failure.why);
        let is_own =
            why == Some(ConnectFailure::Refused(CloseReason::SelfDial)) && remote == Some(env.me);
        env.counters.walks_failed += u64::from(failed && !further);
        self.say_how_it_went(env, walk, &result);
        let next = match walk.purpose {
            Purpose::Host => {
                let detail = result.as_ref().map_or_else(|f| f.detail.clone(), |_| String::new());
                let result = result.map_err(|failure| failure.why);
                for call in walk.callers.iter().copied() {
                    env.push(Output::Connected { call, result, detail: detail.clone() });
                }
                if failed { next_attempt(env, u32::MAX, Duration::ZERO) } else { env.now }
            }
            Purpose::Bootstrap(at) => {
                let is_own_address = is_own && walk.endpoint().is_some_and(|e| !e.is_name());
                self.end_bootstrap(env, at, walk, (failed, remote, is_own_address))
            }
            Purpose::Peer(peer) if failed => {
                if let Err(failure) = &result {
                    self.note_unreached(peer, failure);
                }
                let count = |k: &Known| k.failures.saturating_add(k.short_links);
                let failures = self.book.known.get(&peer).map_or(0, count);
                let next = next_attempt(env, failures, walk.retry);
                self.book.note_failure(&peer, next);
                self.forget_hopeless(env, &peer);
                next
            }
            Purpose::Peer(_) => env.now,
            Purpose::Nearby => self.end_nearby(env, walk, failed, remote),
        };
        self.settle_breaker(env, id, walk, why.filter(|_| !further), next);
    }

    fn end_bootstrap(
        &mut self,
        env: &mut Env,
        at: usize,
        walk: &Walk,
        (failed, remote, is_own_address): (bool, Option<PeerId>, bool),
    ) -> MonoTime {
        let further = walk.seeks_further();
        let (failures, short_links) =
            self.book.bootstrap.get(at).map_or((0, 0), |b| (b.failures, b.short_links));
        let next = if further {
            // There is a link: no hurry.
            let pause = env.config.overlay.redial_max;
            env.now + pause / 2 + env.rng.jitter(pause)
        } else if is_own_address {
            env.now + OWN_FOR
        } else {
            next_attempt(env, failures.saturating_add(short_links), walk.retry)
        };
        if let Some(endpoint) = walk.endpoint().filter(|_| failed && !further) {
            self.book.note_address_failed(endpoint, next);
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
        next
    }

    /// Tells a walk's breaker how it went; `why` it failed, if it did; `next` is when the next one would
    /// be if there were no breakers.
    fn settle_breaker(
        &mut self,
        env: &mut Env,
        id: WalkId,
        walk: &Walk,
        why: Option<ConnectFailure>,
        next: MonoTime,
    ) {
        let Some(key) = key_of(walk.purpose, &walk.route) else { return };
        match why {
            // Nobody was asked, or nobody is to blame.
            _ if env.shutting_down => self.breakers.give_up(&key, id, env.now),
            Some(
                ConnectFailure::Closed
                | ConnectFailure::BreakerOpen { .. }
                | ConnectFailure::Refused(CloseReason::SelfDial)
                | ConnectFailure::Dial(
                    FailureKind::NoneLeft | FailureKind::Local | FailureKind::Unsupported,
                ),
            ) => self.breakers.give_up(&key, id, env.now),
            Some(ConnectFailure::Refused(reason)) if is_verdict(reason) => {
                // It answers, and says itself when to come again.
                self.close_breaker(env, &key);
            }
            None => self.close_breaker(env, &key),
            Some(_) => {
                let config = &env.config.connection;
                let (threshold, reset) = (config.breaker_threshold, config.breaker_reset);
                let until = env.now + reset;
                let opened = self.breakers.fail(&key, id, threshold, (until, next.min(until)));
                if let Some(failures) = opened {
                    env.counters.breakers_opened += 1;
                    let (peer, address) = self.shown(&key);
                    tracing::info!(target: "sorcha_peer::overlay", peer = peer.map(tracing::field::display), address = address.as_deref(), failures, "breaker opened");
                    env.emit(Event::BreakerOpened {
                        peer,
                        address,
                        failures,
                        reset_s: reset.as_secs(),
                    });
                }
            }
        }
    }

    /// Returns the peer and the address that a breaker is for, as far as they are known.
    pub(super) fn shown(&self, key: &Key) -> (Option<PeerId>, Option<String>) {
        match key {
            Key::Peer(peer) => (Some(*peer), None),
            Key::Place(endpoint) => {
                let there = self.book.bootstrap.iter().find(|b| b.endpoint == *endpoint);
                (there.and_then(|b| b.peer), Some(endpoint.to_string()))
            }
        }
    }

    pub(super) fn close_breaker(&mut self, env: &mut Env, key: &Key) {
        if self.breakers.close(key) {
            env.counters.breakers_closed += 1;
            let (peer, address) = self.shown(key);
            env.emit(Event::BreakerClosed { peer, address });
        }
    }

    /// Closes the breakers of a peer: it is there, or the host says that it may be.
    pub(super) fn close_breakers_of(&mut self, env: &mut Env, peer: &PeerId) {
        let mut keys = vec![Key::Peer(*peer)];
        let known = self.book.known.get(peer);
        let theirs = |endpoint: &&_| {
            let at_bootstrap = |b: &super::address_book::Bootstrap| {
                b.peer == Some(*peer) && b.endpoint == **endpoint
            };
            known.is_some_and(|known| known.is_at(endpoint))
                || self.book.bootstrap.iter().any(at_bootstrap)
        };
        keys.extend(self.breakers.places().filter(theirs).cloned().map(Key::Place));
        for key in &keys {
            self.close_breaker(env, key);
        }
    }

    /// Says that a bootstrap peer cannot be linked with, or nobody else while links are missing: at
    /// once, and then rarely. What a host configured wrong must not look like an empty network.
    fn say_how_it_went(&mut self, env: &Env, walk: &Walk, result: &Result<PeerId, Failure>) {
        let is_bootstrap = matches!(walk.purpose, Purpose::Bootstrap(_));
        let notice = match walk.purpose {
            Purpose::Bootstrap(at) => self.book.bootstrap.get_mut(at).map(|b| &mut b.notice),
            Purpose::Peer(_) => Some(&mut self.refusals),
            Purpose::Host | Purpose::Nearby => None,
        };
        let Some(notice) = notice else { return };
        let failure = match result {
            // Beyond the peer that is linked there need be nobody.
            _ if walk.seeks_further() => return,
            Ok(_) => return notice.succeed(),
            Err(failure) => failure,
        };
        // A list of all nodes may hold this one.
        if let ConnectFailure::Closed
        | ConnectFailure::Refused(CloseReason::SelfDial)
        | ConnectFailure::Dial(FailureKind::NoneLeft) = failure.why
        {
            return;
        }
        // Of peers from the book it is no news that some cannot be reached.
        let is_refusal = matches!(failure.why, ConnectFailure::Refused(_));
        let is_worth = is_bootstrap || self.connection.mode != Mode::Online && is_refusal;
        let failures = is_worth.then(|| notice.fail(failure.why, env.now)).flatten();
        if let Some(failures) = failures {
            let address = walk.endpoint().map(tracing::field::display);
            let words = Some(failure.detail.as_str()).filter(|words| !words.is_empty());
            tracing::warn!(
                target: "sorcha_peer::overlay",
                address, reason = failure.why.as_str(), failure = words, failures,
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
}

/// Returns when to dial again after so many failures in a row.
pub(super) fn next_attempt(env: &mut Env, failures: u32, at_least: Duration) -> MonoTime {
    let overlay = &env.config.overlay;
    let ceiling = backoff(failures, overlay.redial_min, overlay.redial_max);
    // A floor of a tenth keeps a refused connection from being repeated in a busy loop.
    env.now + at_least + ceiling / 10 + env.rng.jitter(ceiling)
}

/// Returns whose breaker a walk is subject to.
pub(super) fn key_of(purpose: Purpose, route: &Route) -> Option<Key> {
    let place = || route.endpoints.first().cloned().map(Key::Place);
    match purpose {
        Purpose::Peer(peer) => Some(Key::Peer(peer)),
        Purpose::Bootstrap(_) | Purpose::Host | Purpose::Nearby => {
            route.pin.map(Key::Peer).or_else(place)
        }
    }
}
