//! Who serves what it announces. That decides who is asked first and nothing else, so that loss and
//! slowness never cost a link.
//!
//! Tested by: the tests below, `protocol::tests::liars`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{MonoTime, PeerId};

use super::{HALF_LIFE, MAX_SCORES};

/// Number of points that a broken promise costs.
const BROKEN: i32 = 5;
/// Number of points that a payload served earns.
const SERVED: i32 = 1;
/// Maximum number of points that can be earned.
const MAX_CREDIT: i32 = 40;
/// Time for which a peer that let somebody wait is asked after others: until a promise is broken.
const DOUBT: Duration = Duration::from_secs(10);

/// Record of how peers keep their promises.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Reputation {
    /// Reputation of each peer, by whether it serves what it announces: decides who is asked first
    /// and nothing else, so that loss and slowness never cost a link.
    earned: BTreeMap<PeerId, (i32, MonoTime)>,
    /// Peers that let somebody wait a moment ago, and the times until which others are asked first.
    doubted: BTreeMap<PeerId, MonoTime>,
}

impl Reputation {
    /// Reports whether a peer may be the first to be asked.
    pub(in crate::protocol) fn is_reliable(&self, peer: &PeerId, now: MonoTime) -> bool {
        self.earned.get(peer).is_none_or(|(reputation, at)| faded(*reputation, now.since(*at)) >= 0)
    }

    /// A peer announced what it did not serve.
    pub(super) fn note_broken(&mut self, peer: &PeerId, now: MonoTime) {
        self.change(peer, -BROKEN, now);
    }

    /// A peer served a payload that was new.
    pub(in crate::protocol) fn note_served(&mut self, peer: &PeerId, now: MonoTime) {
        self.trust(peer);
        self.change(peer, SERVED, now);
    }

    /// A peer was asked for what it announced, and somebody else had to be asked: until it is known
    /// whether it keeps its promises, it is asked after others.
    pub(in crate::protocol) fn doubt(&mut self, peer: PeerId, now: MonoTime) {
        if self.doubted.len() >= MAX_SCORES {
            self.doubted.retain(|_, until| *until > now);
        }
        if self.doubted.len() < MAX_SCORES {
            self.doubted.insert(peer, now + DOUBT);
        }
    }

    /// Trusts a peer again, because it serves.
    pub(in crate::protocol) fn trust(&mut self, peer: &PeerId) {
        self.doubted.remove(peer);
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn doubted(&self) -> usize {
        self.doubted.len()
    }

    pub(in crate::protocol) fn is_doubted(&self, peer: &PeerId, now: MonoTime) -> bool {
        self.doubted.get(peer).is_some_and(|until| now < *until)
    }

    fn change(&mut self, peer: &PeerId, by: i32, now: MonoTime) {
        if self.earned.len() >= MAX_SCORES && !self.earned.contains_key(peer) {
            let oldest = self.earned.iter().min_by_key(|(_, (_, at))| *at).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.earned.remove(&oldest);
            }
        }
        let (reputation, at) = self.earned.entry(*peer).or_insert((0, now));
        let kept = faded(*reputation, now.since(*at));
        if kept != *reputation {
            *at = now;
        }
        *reputation = (kept + by).clamp(-100, MAX_CREDIT);
    }
}

/// Returns what is left of a reputation after a while.
fn faded(reputation: i32, since: Duration) -> i32 {
    let halvings = u32::try_from(since.as_secs() / HALF_LIFE.as_secs()).unwrap_or(u32::MAX);
    reputation.checked_div(1i32.checked_shl(halvings.min(30)).unwrap_or(i32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_counts_more_than_a_kept_one_and_fades() {
        let peer = PeerId::from_bytes([1; 32]);
        let mut peers = Reputation::default();
        let at = |s| MonoTime::from_duration(Duration::from_secs(s));
        assert!(peers.is_reliable(&peer, at(0)), "unknown");
        peers.note_broken(&peer, at(0));
        assert!(!peers.is_reliable(&peer, at(0)));
        (0..5).for_each(|_| peers.note_served(&peer, at(1)));
        assert!(peers.is_reliable(&peer, at(1)), "made up for");
        (0..100).for_each(|_| peers.note_served(&peer, at(2)));
        (0..9).for_each(|_| peers.note_broken(&peer, at(2)));
        assert!(!peers.is_reliable(&peer, at(2)), "credit is limited");
        assert!(peers.is_reliable(&peer, at(4000)), "forgiven");
    }
}
