//! How much one peer may have us do for nothing.
//!
//! A bucket of tokens for each kind of work. Work costs a token, and what turns out to be good gives
//! it back: so whoever serves what it announces is never held up, however fast it is, and whoever
//! does not is held to the pace at which the bucket fills. What is turned away for want of a token is
//! counted (`refused_rate`) and its link compared later, so nothing is missed.
//!
//! The bucket is the peer's and not the link's: a new link does not fill it. It is given back what is
//! still being fetched when a link ends, since that is nobody's fault.
//!
//! Bounds: `MAX_PEERS` peers; the fullest bucket is forgotten first.
//!
//! Tested by: the tests below, `protocol::tests::greedy`.

use std::collections::BTreeMap;

use crate::protocol::Protocol;
use crate::protocol::env::Env;
use crate::protocol::intake::{MAX_HEARD, Pending};
use crate::protocol::link::Links;
use crate::types::{LinkId, MonoTime, PeerId};

use super::Guard;

/// Maximum number of peers whose buckets are not full.
pub(in crate::protocol) const MAX_PEERS: usize = 4096;
/// Number of parts of a token: refills are counted in milliseconds.
const PARTS: u64 = 1000;

/// Work that a token pays for.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocol) enum Work {
    /// Room in the fetch table for an id that was new.
    Id,
    /// The check of a header's signature (about 34 us).
    Head,
    /// The check of a peer record's signature.
    Record,
    /// Walk over the log that follows when a peer wants something else.
    Interest,
    /// A part of a comparison that the peer opens; see `OPEN`.
    Session,
    /// A byte of answers in such comparisons.
    Answer,
    /// A KiB of probes and of answers to them.
    Probe,
    /// A request that no handler of the host answers: one that is refused, or given up.
    Request,
}

/// Number of tokens that opening a comparison costs.
pub(in crate::protocol) const OPEN: u64 = 5;

impl Work {
    const ALL: [Self; 8] = [
        Self::Id,
        Self::Head,
        Self::Record,
        Self::Interest,
        Self::Session,
        Self::Answer,
        Self::Probe,
        Self::Request,
    ];

    /// Tokens in a full bucket, and how many come in a second.
    const fn rate(self) -> (u64, u64) {
        match self {
            // All that may be under way at once, and then what a small node publishes.
            Self::Id => (MAX_HEARD as u64, 200),
            Self::Head => (2048, 100),
            // A peer tells 32 now and then.
            Self::Record => (1024, 10),
            // Honest ones say so once in a second.
            Self::Interest => (64, 2),
            // Eight in a row, and then one in 5 s.
            Self::Session => (8 * OPEN, 1),
            // 1 MiB a minute.
            Self::Answer => (2 << 20, (1 << 20) / 60),
            // Two tests in a row, and then one in 9 s.
            Self::Probe => (1200, 64),
            // As many as may be open, and what a caller does that gives up now and then.
            Self::Request => (2048, 128),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    parts: u64,
    pub(in crate::protocol) at: MonoTime,
}

impl Bucket {
    fn refill(&mut self, work: Work, now: MonoTime) {
        let (burst, rate) = work.rate();
        let millis = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.parts = self.parts.saturating_add(millis.saturating_mul(rate)).min(burst * PARTS);
        self.at = now;
    }
}

/// The buckets of all peers.
#[derive(Debug, Default)]
pub(in crate::protocol) struct RateLimits {
    peers: BTreeMap<PeerId, [Bucket; Work::ALL.len()]>,
}

impl RateLimits {
    /// Takes tokens out of a peer's bucket, all or none; whether they were there.
    pub(in crate::protocol) fn take(
        &mut self,
        peer: PeerId,
        work: Work,
        count: u64,
        now: MonoTime,
    ) -> bool {
        let bucket = self.bucket(peer, work, now);
        let left = bucket.parts.checked_sub(count.saturating_mul(PARTS));
        bucket.parts = left.unwrap_or(bucket.parts);
        left.is_some()
    }

    /// Takes as many of these tokens as there are.
    pub(in crate::protocol) fn spend(
        &mut self,
        peer: PeerId,
        work: Work,
        count: u64,
        now: MonoTime,
    ) {
        let bucket = self.bucket(peer, work, now);
        bucket.parts = bucket.parts.saturating_sub(count.saturating_mul(PARTS));
    }

    /// Whole tokens that are there.
    pub(in crate::protocol) fn left(&mut self, peer: PeerId, work: Work, now: MonoTime) -> u64 {
        self.bucket(peer, work, now).parts / PARTS
    }

    fn bucket(&mut self, peer: PeerId, work: Work, now: MonoTime) -> &mut Bucket {
        if !self.peers.contains_key(&peer) {
            self.make_room();
        }
        let full = |work: Work| Bucket { parts: work.rate().0 * PARTS, at: now };
        let new = || Work::ALL.map(full);
        let bucket = &mut self.peers.entry(peer).or_insert_with(new)[work as usize];
        bucket.refill(work, now);
        bucket
    }

    pub(in crate::protocol) fn give_back(&mut self, peer: &PeerId, work: Work, count: u64) {
        if let Some(buckets) = self.peers.get_mut(peer) {
            let bucket = &mut buckets[work as usize];
            bucket.parts =
                bucket.parts.saturating_add(count.saturating_mul(PARTS)).min(work.rate().0 * PARTS);
        }
    }

    fn make_room(&mut self) {
        if self.peers.len() < MAX_PEERS {
            return;
        }
        // By the emptiest of its buckets, in thousandths.
        let left = |buckets: &[Bucket; Work::ALL.len()]| {
            Work::ALL.map(|work| buckets[work as usize].parts / work.rate().0).into_iter().min()
        };
        let fullest = self.peers.iter().max_by_key(|(_, buckets)| left(buckets));
        if let Some(fullest) = fullest.map(|(peer, _)| *peer) {
            self.peers.remove(&fullest);
        }
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.peers.len()
    }
}

impl Guard {
    /// Reports whether the peer of a link may have us do this; what it may not is counted.
    pub(in crate::protocol) fn allow(
        &mut self,
        env: &mut Env,
        links: &Links,
        link: LinkId,
        work: Work,
        count: usize,
    ) -> bool {
        // Also before the hello: who is sent away for want of room is told of others.
        let Some(peer) = links.all.get(&link).map(|l| l.remote) else { return false };
        let allowed = self.rate_limits.take(peer, work, count as u64, env.now);
        if !allowed {
            env.counters.refused_rate += count as u64;
        }
        allowed
    }
}

impl Protocol {
    /// Reports whether a peer may have us do this; what it may not is counted.
    pub(in crate::protocol) fn allow(&mut self, link: LinkId, work: Work, count: usize) -> bool {
        self.guard.allow(&mut self.env, &self.links, link, work, count)
    }

    /// Gives tokens back for what was good, or bad by no fault of the peer.
    pub(in crate::protocol) fn give_back(&mut self, peer: &PeerId, work: Work, count: usize) {
        self.guard.rate_limits.give_back(peer, work, count as u64);
    }

    /// Gives the token of an id back that has left the fetch table.
    pub(in crate::protocol) fn absolve(&mut self, pending: Option<&Pending>) {
        if let Some(peer) = pending.and_then(|pending| pending.heard_from) {
            self.give_back(&peer, Work::Id, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(n: u16) -> PeerId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_le_bytes());
        PeerId::from_bytes(id)
    }

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_millis(ms))
    }

    #[test]
    fn what_is_good_costs_nothing_and_the_rest_comes_at_a_pace() {
        let mut limits = RateLimits::default();
        for n in 0..1_000_000 {
            assert!(limits.take(peer(1), Work::Head, 1, at(n / 1000)), "{n}");
            limits.give_back(&peer(1), Work::Head, 1);
        }
        let taken = (0..10_000).filter(|_| limits.take(peer(1), Work::Head, 1, at(1000))).count();
        assert_eq!(taken, 2048);
        let later = (0..10_000).filter(|_| limits.take(peer(1), Work::Head, 1, at(1500))).count();
        assert_eq!(later, 50);
        assert!(limits.take(peer(1), Work::Record, 1024, at(1500)), "of its own");
        assert!(!limits.take(peer(1), Work::Record, 1, at(1500)), "all or none");
        assert!(limits.take(peer(2), Work::Head, 2048, at(1500)), "another peer's");
    }

    #[test]
    fn what_is_given_back_never_wraps() {
        let mut limits = RateLimits::default();
        assert!(limits.take(peer(1), Work::Head, 1, at(0)));
        limits.give_back(&peer(1), Work::Head, u64::MAX);
        let full = Work::Head.rate().0;
        assert!(limits.take(peer(1), Work::Head, full, at(0)), "as full as it may be");
        assert!(!limits.take(peer(1), Work::Head, 1, at(0)), "and no fuller");
    }

    #[test]
    fn who_is_held_up_is_not_forgotten_by_a_crowd() {
        for work in Work::ALL {
            let mut limits = RateLimits::default();
            assert!(limits.take(peer(0), work, work.rate().0, at(0)));
            for n in 1..4500 {
                assert!(limits.take(peer(n), Work::Id, 1, at(0)));
            }
            assert!(!limits.take(peer(0), work, 1, at(0)), "{work:?}");
            assert!(limits.len() <= MAX_PEERS);
        }
    }
}
