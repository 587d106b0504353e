//! Places on the same LAN where a node of this network may be, as somebody announces there. A place is a
//! candidate and nothing more: who is there shows in the hello.
//!
//! ```text
//!   told ──► waits ──links are missing──► dialled ──hello accepted──► the address book knows the peer
//!              ▲                             │
//!              └──────────back-off───────────┴──`discovery.forget_after` failures in a row──► forgotten
//! ```
//!
//! Contract: only private and loopback addresses are taken, whatever the policy on addresses is, and
//! none where that wants public ones alone. At most [`MAX_PLACES`] are remembered; with all taken, a
//! new one comes instead of the one that failed most, or of one whose peer is known, or is shed. At
//! most [`MAX_AT_ONCE`] are dialled at once and [`WALKS_A_MINUTE`] in a minute, beside what else is
//! dialled and taking nothing of its room: so whoever announces places by the thousand neither makes a
//! scanner of this node nor keeps it from its peers. A place has a breaker like every address of which
//! nobody knows who is there. It is never stored and never told to others. Where the address book knows
//! a peer that did not fail, the book alone sees to it.
//!
//! Tested by: the tests below, `protocol::tests::nearby`, `sim::tests::nearby`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::AddressPolicy;
use crate::protocol::env::Env;
use crate::protocol::guard::Guard;
use crate::protocol::link::{Link, Links};
use crate::types::{AddressScope, Endpoint, MonoTime, PeerId};

use super::Membership;
use super::address_book::Known;
use super::breaker::Key;
use super::dials::Purpose;
use super::ladder::{Route, Walk};
use super::outcome::next_attempt;
use super::overlay::are_bootstraps_wanted;

/// Maximum number of places that are remembered.
pub(in crate::protocol) const MAX_PLACES: usize = 64;
/// Maximum number of places that are dialled at once.
pub(in crate::protocol) const MAX_AT_ONCE: usize = 6;
/// Maximum number of walks to places that begin in a minute.
pub(in crate::protocol) const WALKS_A_MINUTE: u32 = 60;

const MINUTE: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
struct Place {
    /// Failures in a row.
    failures: u32,
    /// Earliest time of the next dial.
    next: MonoTime,
    dialling: bool,
    /// Peer that answered there last.
    peer: Option<PeerId>,
}

/// All places that are remembered.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Nearby {
    places: BTreeMap<Endpoint, Place>,
    /// Start of the minute that walks are counted in, and their number.
    minute: MonoTime,
    begun: u32,
}

impl Nearby {
    /// Remembers a place that may be dialled from `now` on; `false` when there is no room.
    fn note(&mut self, endpoint: Endpoint, now: MonoTime) -> bool {
        if self.places.contains_key(&endpoint) {
            return true;
        }
        if self.places.len() >= MAX_PLACES && !self.make_room() {
            return false;
        }
        self.places.insert(endpoint, Place { next: now, ..Place::default() });
        true
    }

    fn make_room(&mut self) -> bool {
        let is_spare = |place: &Place| place.failures > 0 || place.peer.is_some();
        let spare = self.places.iter().filter(|(_, place)| !place.dialling && is_spare(place));
        let worst = spare.max_by_key(|(_, place)| (place.peer.is_none(), place.failures));
        let Some(worst) = worst.map(|(endpoint, _)| endpoint.clone()) else { return false };
        self.places.remove(&worst);
        true
    }

    /// Number of places that are being dialled.
    fn dialling(&self) -> usize {
        self.places.values().filter(|place| place.dialling).count()
    }

    /// Returns the time from which another walk may begin.
    fn next_turn(&self, now: MonoTime) -> MonoTime {
        let is_spent = self.begun >= WALKS_A_MINUTE && now < self.minute + MINUTE;
        if is_spent { self.minute + MINUTE } else { now }
    }

    /// Notes that a walk begins.
    fn begin(&mut self, endpoint: &Endpoint, now: MonoTime) {
        if now >= self.minute + MINUTE {
            (self.minute, self.begun) = (now, 0);
        }
        self.begun += 1;
        if let Some(place) = self.places.get_mut(endpoint) {
            place.dialling = true;
        }
    }

    /// Notes that a walk has ended, and when the next may be; a place that fails `limit` times in a row
    /// is forgotten.
    fn end(&mut self, endpoint: &Endpoint, result: Result<(), u32>, next: MonoTime) {
        let Some(place) = self.places.get_mut(endpoint) else { return };
        (place.dialling, place.next) = (false, next);
        place.failures = if result.is_ok() { 0 } else { place.failures.saturating_add(1) };
        if result.is_err_and(|limit| place.failures >= limit) {
            self.places.remove(endpoint);
        }
    }

    /// Returns the next time at which a place may be dialled that may not be dialled now.
    pub(super) fn wakeup(&self, now: MonoTime) -> Option<MonoTime> {
        let turn = self.next_turn(now);
        let waiting = self.places.values().filter(|place| !place.dialling);
        waiting.map(|place| place.next.max(turn)).filter(|at| *at > now).min()
    }

    /// Number of places.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.places.len()
    }
}

impl Membership {
    /// Nodes of this network may be at these endpoints.
    pub(in crate::protocol) fn on_nearby(
        &mut self,
        env: &mut Env,
        links: &Links,
        guard: &Guard,
        endpoints: Vec<Endpoint>,
    ) {
        env.counters.nearby_received += endpoints.len() as u64;
        for endpoint in endpoints {
            let endpoint = endpoint.to_canonical().with_pin(None);
            if !is_taken(env.config.discovery.addresses, &endpoint) {
                env.counters.nearby_ignored += 1;
            } else if !self.nearby.note(endpoint, env.now) {
                env.counters.nearby_shed += 1;
            }
        }
        self.maintain(env, links, guard);
    }

    /// Dials places, while links are missing.
    pub(super) fn dial_nearby(&mut self, env: &mut Env, links: &Links) {
        let room = MAX_AT_ONCE.saturating_sub(self.nearby.dialling());
        if room == 0 || self.nearby.places.is_empty() {
            return;
        }
        let is_due = |(endpoint, place): &(&Endpoint, &Place)| {
            !place.dialling
                && place.next <= env.now
                && self.is_worth_a_look(env, links, endpoint, place)
        };
        let due = self.nearby.places.iter().filter(is_due);
        let mut due: Vec<_> = due.map(|(at, place)| (place.failures, at.clone())).collect();
        env.rng.shuffle(&mut due);
        // Who has just come is not kept waiting by what failed before.
        due.sort_by_key(|(failures, _)| *failures);
        for (_, endpoint) in due.into_iter().take(room) {
            if self.nearby.next_turn(env.now) > env.now {
                return;
            }
            self.nearby.begin(&endpoint, env.now);
            let route = Route { endpoints: vec![endpoint], ..Route::default() };
            self.walk(env, Purpose::Nearby, route, None);
        }
    }

    /// Reports whether somebody may be at a place who is not linked, or seen to otherwise.
    fn is_worth_a_look(
        &self,
        env: &Env,
        links: &Links,
        endpoint: &Endpoint,
        place: &Place,
    ) -> bool {
        let is_there =
            |l: &Link| Some(l.remote) == place.peer || l.endpoint.as_ref() == Some(endpoint);
        let is_linked = links.all.values().any(is_there);
        let is_in_book = || {
            let sees_to = |(peer, known): (&PeerId, &Known)| {
                known.is_at(endpoint) && (known.failures == 0 || links.by_peer.contains_key(peer))
            };
            self.book.known.iter().any(sees_to)
        };
        let is_needy = are_bootstraps_wanted(env, links);
        let breaker = Key::Place(endpoint.clone());
        !is_linked
            && self.breakers.admit(&breaker, env.now, is_needy).is_ok()
            && self.dead_ends.own_until(endpoint, env.now).is_none()
            && !self.walks.values().any(|walk| walk.route.endpoints.contains(endpoint))
            && !is_in_book()
    }

    /// Draws the consequences for a place of a walk that led to `remote`, or failed there.
    pub(super) fn end_nearby(
        &mut self,
        env: &mut Env,
        walk: &Walk,
        failed: bool,
        remote: Option<PeerId>,
    ) -> MonoTime {
        let Some(endpoint) = walk.endpoint() else { return env.now };
        let place = self.nearby.places.get_mut(endpoint);
        let failures = place.as_ref().map_or(0, |place| place.failures);
        if let Some(place) = place {
            // Also when it was refused: who is there was proven.
            place.peer = remote.or(place.peer);
        }
        let next = next_attempt(env, failures, walk.retry);
        let limit = env.config.discovery.forget_after;
        self.nearby.end(endpoint, if failed { Err(limit) } else { Ok(()) }, next);
        next
    }
}

/// Reports whether an address that somebody announces on the LAN may be dialled for that.
fn is_taken(policy: AddressPolicy, endpoint: &Endpoint) -> bool {
    policy != AddressPolicy::Public
        && endpoint.port() != 0
        && endpoint.socket_addr().is_some()
        && matches!(endpoint.scope(), AddressScope::Private | AddressScope::Loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_secs(seconds))
    }

    fn place(n: usize) -> Endpoint {
        format!("10.1.{}.{}:5001", n / 250, n % 250).parse().unwrap()
    }

    #[test]
    fn only_addresses_of_the_lan_and_of_this_machine_are_taken() {
        use AddressPolicy as P;
        for (text, is_near) in [
            ("10.0.0.1:1", true),
            ("192.168.7.9:5001", true),
            ("127.0.0.1:1", true),
            ("[fd00::1]:1", true),
            ("[::1]:1", true),
            ("8.8.8.8:53", false),
            ("[2001:4860::8]:53", false),
            ("169.254.1.1:1", false),
            ("[fe80::1]:1", false),
            ("224.0.0.251:5353", false),
            ("255.255.255.255:1", false),
            ("0.0.0.0:1", false),
            ("printer.local:1", false),
            ("localhost:1", false),
            ("http://10.0.0.1", false),
            ("https://10.0.0.1", false),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(is_taken(P::Auto, &endpoint), is_near, "{text}");
            assert_eq!(is_taken(P::Any, &endpoint), is_near, "{text}");
            assert!(!is_taken(P::Public, &endpoint), "{text}");
        }
        let no_port = Endpoint::from(std::net::SocketAddr::from(([10, 0, 0, 1], 0)));
        assert!(!is_taken(P::Auto, &no_port));
    }

    #[test]
    fn whatever_is_told_it_stays_within_its_bound_and_what_failed_makes_room() {
        let mut nearby = Nearby::default();
        let kept = (0..5000).filter(|n| nearby.note(place(*n), at(0))).count();
        assert_eq!((kept, nearby.len()), (MAX_PLACES, MAX_PLACES));
        assert!(nearby.note(place(3), at(9)), "known already");
        nearby.begin(&place(3), at(0));
        assert!(!nearby.note(place(6000), at(0)), "what is being dialled stays");
        nearby.end(&place(3), Err(5), at(60));
        assert!(nearby.note(place(6000), at(0)));
        assert!(!nearby.places.contains_key(&place(3)), "it failed");
        nearby.places.get_mut(&place(5)).unwrap().peer = Some(PeerId::from_bytes([1; 32]));
        assert!(nearby.note(place(6001), at(0)));
        assert!(!nearby.places.contains_key(&place(5)), "the book knows who is there");
        assert!(!nearby.note(place(6002), at(0)));
    }

    #[test]
    fn a_place_that_fails_is_forgotten_and_one_that_answers_is_not() {
        let mut nearby = Nearby::default();
        nearby.note(place(1), at(0));
        for _ in 0..2 {
            for _ in 0..4 {
                nearby.end(&place(1), Err(5), at(1));
            }
            nearby.end(&place(1), Ok(()), at(1));
        }
        assert_eq!(nearby.len(), 1);
        for _ in 0..5 {
            nearby.end(&place(1), Err(5), at(1));
        }
        assert_eq!(nearby.len(), 0);
    }

    #[test]
    fn walks_of_a_minute_are_counted() {
        let mut nearby = Nearby::default();
        nearby.note(place(1), at(100));
        for _ in 0..WALKS_A_MINUTE {
            assert_eq!(nearby.next_turn(at(100)), at(100));
            nearby.begin(&place(2), at(100));
        }
        assert_eq!(nearby.next_turn(at(159)), at(160));
        assert_eq!(nearby.wakeup(at(159)), Some(at(160)));
        assert_eq!(nearby.next_turn(at(160)), at(160));
        assert_eq!(nearby.wakeup(at(160)), None);
    }
}
