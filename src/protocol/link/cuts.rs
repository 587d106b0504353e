//! Connections that something on the way cuts: after how many bytes or how much time, by endpoint and
//! transport.
//!
//! A stock nginx resets a stream when its request body has had 1 MiB, and other proxies and load
//! balancers when it has lived for so long. Two connections in a row that ended by themselves having
//! sent nearly the same, near a power of two or ten, show the former; two of nearly the same age the
//! latter. Both were to the same process of the peer, since one that ends takes its connections with it.
//! The bound is then kept to for [`KEPT`], one in time for a while of its own, by going over to another
//! connection before it. A wrong guess costs a connection now and then. Of an even flow both may be shown:
//! then the other one is taken as soon as a connection is cut long before the age that was guessed. In a flood
//! nothing else would teach it, since what is on its way when a connection is cut differs much.
//!
//! Tested by: the tests below.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Endpoint, MonoTime, TransportKind};

use super::Why;

/// Maximum number of endpoints with a transport that are remembered.
pub(in crate::protocol) const MAX_PLACES: usize = 64;
/// Time for which a bound is kept to.
const KEPT: Duration = Duration::from_hours(1);
/// Least of that for a bound in time, which is kept to for 64 times its age: a short one may have been
/// two mishaps, and costs much.
const KEPT_AGE: Duration = Duration::from_mins(5);
/// Least and most of what may be a bound.
const BYTES: std::ops::RangeInclusive<u64> = 256 << 10..=1 << 32;
const AGES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=KEPT;
/// Two values within this part of the larger are nearly the same.
const NEARLY: u64 = 8;

/// What connections to an endpoint over a transport may have at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::protocol) struct Bound {
    /// Number of bytes sent before another connection takes over.
    pub(in crate::protocol) bytes: Option<u64>,
    /// Age before that.
    pub(in crate::protocol) age: Option<Duration>,
}

#[derive(Debug)]
struct Place {
    /// Incarnation of the peer, age and bytes, of the latest connection that was cut.
    latest: (u64, Duration, u64),
    at: MonoTime,
    bound: Bound,
    /// Bound in bytes that the cuts which showed a bound in time would have shown too.
    instead: Option<u64>,
}

/// What is known of connections that were cut.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Cuts(BTreeMap<(Endpoint, TransportKind), Place>);

impl Cuts {
    /// Notes that a connection of this age ended by itself, having sent so much; tells of a bound that
    /// this shows.
    pub(in crate::protocol) fn note(
        &mut self,
        way: (Endpoint, TransportKind),
        (incarnation, age, sent): (u64, Duration, u64),
        now: MonoTime,
    ) -> Option<Why> {
        self.0.retain(|_, place| now.since(place.at) < KEPT);
        if !self.0.contains_key(&way) && self.0.len() >= MAX_PLACES {
            let oldest =
                self.0.iter().min_by_key(|(_, place)| place.at).map(|(way, _)| way.clone());
            oldest.and_then(|way| self.0.remove(&way));
        }
        let latest = (incarnation, age, sent);
        let bound = Bound::default();
        let fresh = Place { latest: (0, Duration::ZERO, 0), at: now, bound, instead: None };
        let place = self.0.entry(way).or_insert(fresh);
        let (before, age_before, sent_before) = std::mem::replace(&mut place.latest, latest);
        place.at = now;
        if before != incarnation {
            return None;
        }
        if place.bound.age.is_some_and(|bound| age < bound)
            && let Some(bytes) = place.instead.take()
        {
            place.bound = Bound { bytes: Some(bytes), age: None };
            return Some(Why::BodyLimit);
        }
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let (least, least_age) = (sent.min(sent_before), age.min(age_before));
        let is_size = BYTES.contains(&least) && are_near(sent, sent_before) && is_round(sent);
        let is_age = AGES.contains(&least_age) && are_near(millis(age), millis(age_before));
        // Of an even flow both are nearly the same: what cuts is what differs less.
        let apart =
            |a: u64, b: u64| (u128::from(a.abs_diff(b)) << 64) / u128::from(a.max(b).max(1));
        if is_size
            && (!is_age || apart(sent, sent_before) <= apart(millis(age), millis(age_before)))
        {
            place.bound.bytes = Some(bytes_before(least));
            return Some(Why::BodyLimit);
        }
        if is_age {
            place.bound.age = Some(least_age / 8 * 5);
            place.instead = is_size.then(|| bytes_before(least));
            return Some(Why::TimeLimit);
        }
        None
    }

    /// Returns what a connection may have.
    pub(in crate::protocol) fn bound(
        &self,
        endpoint: &Endpoint,
        rung: TransportKind,
        now: MonoTime,
    ) -> Bound {
        let Some(place) = self.0.get(&(endpoint.clone(), rung)) else { return Bound::default() };
        let since = now.since(place.at);
        Bound {
            bytes: place.bound.bytes.filter(|_| since < KEPT),
            age: place.bound.age.filter(|age| since < (*age * 64).clamp(KEPT_AGE, KEPT)),
        }
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Returns the bytes before which another connection takes over where one is cut after so many.
fn bytes_before(cut: u64) -> u64 {
    cut / 8 * 5
}

fn are_near(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= a.max(b) / NEARLY
}

/// Reports whether a count of bytes is near a power of two or ten. What buffers on the way took of it
/// makes it more than that, what was counted without the words of the transport less.
fn is_round(bytes: u64) -> bool {
    let is_near = |power: u64| bytes >= power / 10 * 9 && bytes <= power / 8 * 9;
    let tens = (0..20).filter_map(|n| 10u64.checked_pow(n));
    tens.chain((0..64).map(|n| 1u64 << n)).any(is_near)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(s: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_secs(s))
    }

    fn way(n: u64) -> (Endpoint, TransportKind) {
        (format!("10.0.0.1:{}", n + 1).parse().unwrap(), TransportKind::GrpcStream)
    }

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn two_connections_cut_after_the_same_bytes_show_a_bound() {
        let mut cuts = Cuts::default();
        let (endpoint, rung) = way(0);
        assert_eq!(cuts.note(way(0), (1, secs(9), MIB + 30_000), at(10)), None, "once is chance");
        assert_eq!(cuts.bound(&endpoint, rung, at(10)), Bound::default());
        assert_eq!(cuts.note(way(0), (1, secs(90), MIB - 8_000), at(99)), Some(Why::BodyLimit));
        let bound = cuts.bound(&endpoint, rung, at(100));
        assert_eq!(bound, Bound { bytes: Some((MIB - 8_000) / 8 * 5), age: None });
        assert_eq!(cuts.bound(&endpoint, TransportKind::WebSocket, at(100)), Bound::default());
        assert_eq!(cuts.bound(&endpoint, rung, at(99 + 3600)), Bound::default(), "for an hour");
    }

    #[test]
    fn two_connections_cut_at_the_same_age_show_a_bound() {
        let mut cuts = Cuts::default();
        let (endpoint, rung) = way(0);
        assert_eq!(cuts.note(way(0), (1, secs(5), 700), at(10)), None);
        assert_eq!(cuts.note(way(0), (1, secs(5), 90_000), at(16)), Some(Why::TimeLimit));
        // An even flow through a proxy that cuts by age sends about the same each time.
        assert_eq!(cuts.note(way(7), (1, secs(5), MIB), at(20)), None);
        assert_eq!(cuts.note(way(7), (1, secs(5), MIB + 9_000), at(26)), Some(Why::TimeLimit));
        let age = Some(Duration::from_millis(3125));
        assert_eq!(cuts.bound(&endpoint, rung, at(16)), Bound { bytes: None, age });
    }

    #[test]
    fn a_cut_long_before_the_age_that_was_guessed_shows_the_bytes_of_an_even_flow() {
        let mut cuts = Cuts::default();
        let (endpoint, rung) = way(0);
        assert_eq!(cuts.note(way(0), (1, secs(16), MIB), at(20)), None);
        assert_eq!(cuts.note(way(0), (1, secs(16), MIB + 9_000), at(36)), Some(Why::TimeLimit));
        // A flood, of which much was on its way.
        let flooded = (1, Duration::from_millis(150), 2 * MIB - 99_000);
        assert_eq!(cuts.note(way(0), flooded, at(40)), Some(Why::BodyLimit));
        let bytes = Some(MIB / 8 * 5);
        assert_eq!(cuts.bound(&endpoint, rung, at(41)), Bound { bytes, age: None });
        // Cuts by age alone leave nothing to fall back on.
        assert_eq!(cuts.note(way(1), (1, secs(5), 700), at(50)), None);
        assert_eq!(cuts.note(way(1), (1, secs(5), 90_000), at(56)), Some(Why::TimeLimit));
        assert_eq!(cuts.note(way(1), (1, secs(1), 2 * MIB), at(58)), None);
    }

    #[test]
    fn what_differs_shows_nothing() {
        let mut cuts = Cuts::default();
        for (n, (age, sent)) in
            [(5, 3 * MIB), (60, MIB), (7, 4 * MIB), (1, 5), (0, 6)].iter().enumerate()
        {
            let found = cuts.note(way(0), (1, secs(*age), *sent), at(100 * n as u64));
            assert_eq!(found, None, "{n}");
        }
        // The peer has restarted.
        assert_eq!(cuts.note(way(2), (1, secs(9), MIB), at(1000)), None);
        assert_eq!(cuts.note(way(2), (2, secs(9), MIB), at(1010)), None);
        assert_eq!(cuts.note(way(2), (2, secs(9), MIB), at(1020)), Some(Why::BodyLimit));
        // The same amount, and none that anybody would configure.
        assert_eq!(cuts.note(way(1), (1, secs(5), 1_500_000), at(1000)), None);
        assert_eq!(cuts.note(way(1), (1, secs(50), 1_500_000), at(1001)), None);
    }

    #[test]
    fn few_places_are_remembered() {
        let mut cuts = Cuts::default();
        for n in 0..1000 {
            cuts.note(way(n), (1, secs(5), 700), at(10 + n / 100));
        }
        assert_eq!(cuts.len(), MAX_PLACES);
    }
}
