//! Circuit breakers: whoever cannot be reached is not walked to for a while.
//!
//! One for each peer over all its endpoints and rungs; where an address is dialled and nobody said who
//! must be there, the address has one. What counts are whole walks.
//!
//! ```text
//!          threshold walks in a row failed            reset is over, or early
//!  closed ────────────────────────────────► open ────────────────────────────► half-open
//!    ▲                                     ▲ ▲                                   │ │ │
//!    │                                     │ └────────the probe was given up─────┘ │ │
//!    │                                     └──────────────the probe failed─────────┘ │
//!    └──────────────the peer answered, or dialled us, or the host says so────────────┘
//! ```
//!
//! Half-open is one walk, the probe, and no other is begun meanwhile. A probe that is given up counts
//! as nothing and frees its place at once. A node with fewer links than `min_healthy_peers` probes early,
//! as soon as the back-off of its dials ends: no breaker may keep it from joining. A walk that was under
//! way when the breaker opened changes nothing, unless the peer answers it.
//!
//! Tested by: the tests below, `protocol::tests::ladder`, `sim::tests::ladder`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Endpoint, MonoTime, PeerId};

use super::ladder::WalkId;

/// Maximum number of breakers that are remembered.
pub(in crate::protocol) const MAX_BREAKERS: usize = 2048;

/// Whom a breaker is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Peer(PeerId),
    /// Whoever is at an address.
    Place(Endpoint),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// Open until the first time; until the second where links are missing.
    Open(MonoTime, MonoTime),
    /// One walk probes; without a result of it the breaker is open as it was.
    HalfOpen(WalkId, MonoTime),
}

#[derive(Debug)]
struct Breaker {
    /// Walks that failed in a row.
    failures: u32,
    state: State,
}

/// All breakers that are not closed for good.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Breakers(BTreeMap<Key, Breaker>);

impl Breakers {
    /// Reports whether a walk may begin; else how long it will be before one may, as far as is known.
    pub(super) fn admit(&self, key: &Key, now: MonoTime, is_needy: bool) -> Result<(), Duration> {
        let Some(breaker) = self.0.get(key) else { return Ok(()) };
        match breaker.state {
            State::Closed => Ok(()),
            State::Open(until, early) => {
                let at = if is_needy { until.min(early) } else { until };
                if now < at { Err(at.since(now)) } else { Ok(()) }
            }
            State::HalfOpen(_, until) => Err(until.since(now)),
        }
    }

    /// A walk that was admitted begins; `true` when it is the probe of a breaker that was open.
    pub(super) fn begin(&mut self, key: &Key, walk: WalkId, until: MonoTime) -> bool {
        let Some(breaker) = self.0.get_mut(key) else { return false };
        let is_open = matches!(breaker.state, State::Open(..));
        if is_open {
            breaker.state = State::HalfOpen(walk, until);
        }
        is_open
    }

    /// A walk failed; the number of failures in a row, if that opens the breaker: until `until`, or until
    /// `early` where links are missing.
    pub(super) fn fail(
        &mut self,
        key: &Key,
        walk: WalkId,
        threshold: u32,
        (until, early): (MonoTime, MonoTime),
    ) -> Option<u32> {
        if !self.0.contains_key(key) {
            self.make_room();
        }
        let fresh = Breaker { failures: 0, state: State::Closed };
        let breaker = self.0.entry(key.clone()).or_insert(fresh);
        let is_probe = match breaker.state {
            State::Closed => false,
            State::HalfOpen(probe, _) if probe == walk => true,
            _ => return None,
        };
        breaker.failures = breaker.failures.saturating_add(1);
        if !is_probe && breaker.failures < threshold {
            return None;
        }
        breaker.state = State::Open(until, early);
        Some(breaker.failures)
    }

    /// A walk ended without a result.
    pub(super) fn give_up(&mut self, key: &Key, walk: WalkId, now: MonoTime) {
        if let Some(breaker) = self.0.get_mut(key)
            && matches!(breaker.state, State::HalfOpen(probe, _) if probe == walk)
        {
            breaker.state = State::Open(now, now);
        }
    }

    /// Closes a breaker; `true` when it was not closed.
    pub(super) fn close(&mut self, key: &Key) -> bool {
        self.0.remove(key).is_some_and(|breaker| breaker.state != State::Closed)
    }

    /// Returns the addresses that have a breaker.
    pub(super) fn places(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.keys().filter_map(|key| match key {
            Key::Place(endpoint) => Some(endpoint),
            Key::Peer(_) => None,
        })
    }

    /// Returns the next time at which a walk may begin that may not begin now.
    pub(super) fn next(&self, now: MonoTime, is_needy: bool) -> Option<MonoTime> {
        let at = |breaker: &Breaker| match breaker.state {
            State::Open(until, early) => Some(if is_needy { until.min(early) } else { until }),
            State::Closed | State::HalfOpen(..) => None,
        };
        self.0.values().filter_map(at).filter(|at| *at > now).min()
    }

    /// Number of breakers that are open or half-open.
    pub(in crate::protocol) fn open(&self) -> usize {
        self.0.values().filter(|breaker| breaker.state != State::Closed).count()
    }

    /// Number of breakers that are half-open.
    pub(super) fn half_open(&self) -> usize {
        self.0.values().filter(|breaker| matches!(breaker.state, State::HalfOpen(..))).count()
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets one where there are too many: one that is closed, or else that is to be probed next.
    fn make_room(&mut self) {
        if self.0.len() < MAX_BREAKERS {
            return;
        }
        let rank = |breaker: &Breaker| match breaker.state {
            State::Closed => (0, MonoTime::ZERO, breaker.failures),
            State::Open(until, _) => (1, until, 0),
            State::HalfOpen(_, until) => (2, until, 0),
        };
        let first = self.0.iter().min_by_key(|(_, breaker)| rank(breaker));
        if let Some(first) = first.map(|(key, _)| key.clone()) {
            self.0.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: WalkId = WalkId(1);

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_secs(seconds))
    }

    fn key(n: u16) -> Key {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        Key::Peer(PeerId::from_bytes(id))
    }

    fn opened() -> Breakers {
        let mut breakers = Breakers::default();
        let until = (at(300), at(10));
        let opens: Vec<_> = (0..3).map(|_| breakers.fail(&key(1), ONE, 3, until)).collect();
        assert_eq!(opens, [None, None, Some(3)]);
        breakers
    }

    #[test]
    fn an_open_breaker_lets_one_probe_through_and_only_when_it_is_time() {
        let mut breakers = opened();
        assert_eq!(breakers.admit(&key(1), at(9), true), Err(Duration::from_secs(1)));
        assert_eq!(breakers.admit(&key(1), at(299), false), Err(Duration::from_secs(1)));
        assert_eq!(breakers.admit(&key(1), at(10), true), Ok(()), "early");
        assert_eq!(breakers.admit(&key(1), at(300), false), Ok(()));
        assert_eq!(breakers.admit(&key(2), at(0), false), Ok(()), "another peer");
        assert_eq!((breakers.open(), breakers.half_open()), (1, 0));
        assert!(breakers.begin(&key(1), WalkId(7), at(340)));
        assert_eq!((breakers.open(), breakers.half_open()), (1, 1));
        assert_eq!(breakers.admit(&key(1), at(300), true), Err(Duration::from_secs(40)));
        assert!(!breakers.begin(&key(1), WalkId(8), at(340)), "no second one");
    }

    #[test]
    fn only_the_probe_decides_and_who_is_given_up_counts_as_nothing() {
        let mut breakers = opened();
        assert_eq!(breakers.fail(&key(1), WalkId(2), 3, (at(900), at(900))), None, "a late one");
        assert_eq!(breakers.admit(&key(1), at(300), false), Ok(()));
        breakers.begin(&key(1), WalkId(7), at(340));
        breakers.give_up(&key(1), WalkId(2), at(301));
        assert!(breakers.admit(&key(1), at(301), false).is_err(), "another walk's end");
        breakers.give_up(&key(1), WalkId(7), at(302));
        assert_eq!(breakers.admit(&key(1), at(302), false), Ok(()), "the place is free");
        breakers.begin(&key(1), WalkId(8), at(342));
        assert_eq!(breakers.fail(&key(1), WalkId(8), 3, (at(700), at(400))), Some(4));
        assert_eq!(breakers.next(at(303), false), Some(at(700)));
        assert_eq!(breakers.next(at(303), true), Some(at(400)));
        assert!(breakers.close(&key(1)));
        assert!(!breakers.close(&key(1)));
        assert_eq!(breakers.fail(&key(1), ONE, 3, (at(1), at(1))), None, "it begins anew");
    }

    #[test]
    fn whoever_fails_their_number_is_bounded_and_the_open_ones_stay_longest() {
        let mut breakers = opened();
        for n in 2..5000 {
            breakers.fail(&key(n), ONE, 3, (at(1), at(1)));
        }
        assert_eq!(breakers.len(), MAX_BREAKERS);
        assert!(breakers.admit(&key(1), at(9), true).is_err());
        assert_eq!(breakers.open(), 1);
    }
}
