//! Two processes with one identity, as after a data directory was copied: each takes the other's links
//! over, for ever, and nothing is lost but peace.
//!
//! A peer that sees both knows: an incarnation rises with each start, so one that was followed by
//! another and is back belongs to a process that never stopped. A restart shows each incarnation
//! once. One of the two knows by its links: peers replace them, and none of its own has taken their
//! place. And when the two meet each other, their hellos tell: one key, two incarnations.
//!
//! Bounds: `MAX_SEEN` peers, the one that was silent longest is forgotten first; `MAX_EARLIER`
//! incarnations of each.
//!
//! Tested by: the tests below, `sim::tests::twins`, `protocol::tests::admission`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::types::{MonoTime, PeerId};

/// Maximum number of peers whose incarnations are remembered.
pub(in crate::protocol) const MAX_SEEN: usize = 1024;
/// Maximum number of earlier incarnations remembered of a peer.
const MAX_EARLIER: usize = 4;
/// Number of returns of an earlier incarnation that make sure: one may have been on its way for long.
const RETURNS: u32 = 2;
/// Number of own links taken over that make sure, within `WINDOW`.
const TAKEN_OVER: usize = 3;
/// Time after which what was seen counts no more.
const WINDOW: Duration = Duration::from_mins(10);
/// Minimum time between two tellings of the same identity.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// Finding about an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Finding {
    /// Nothing that a single process would not do.
    Single,
    /// Two processes have it, as was told a moment ago.
    Twins,
    /// Two processes have it, and it is time to say so.
    Tell,
}

#[derive(Debug, Default)]
struct Incarnations {
    latest: u64,
    earlier: VecDeque<u64>,
    returns: u32,
    touched: MonoTime,
    told: Option<MonoTime>,
}

/// Incarnations that peers came with, and the own links that were taken over.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Twins {
    seen: BTreeMap<PeerId, Incarnations>,
    taken_over: VecDeque<MonoTime>,
    told: Option<MonoTime>,
}

impl Twins {
    /// A link with a peer came up.
    pub(in crate::protocol) fn note_up(
        &mut self,
        peer: PeerId,
        incarnation: u64,
        now: MonoTime,
    ) -> Finding {
        self.make_room(&peer);
        let first = Incarnations { latest: incarnation, touched: now, ..Incarnations::default() };
        let seen = self.seen.entry(peer).or_insert(first);
        if now.since(std::mem::replace(&mut seen.touched, now)) >= WINDOW {
            seen.returns = 0;
        }
        if seen.latest == incarnation {
            return Finding::Single;
        }
        let is_back = seen.earlier.contains(&incarnation);
        seen.earlier.retain(|earlier| *earlier != incarnation);
        if seen.earlier.len() >= MAX_EARLIER {
            seen.earlier.pop_front();
        }
        seen.earlier.push_back(std::mem::replace(&mut seen.latest, incarnation));
        seen.returns = seen.returns.saturating_add(u32::from(is_back));
        if !is_back || seen.returns < RETURNS {
            return Finding::Single;
        }
        tell(&mut seen.told, now)
    }

    /// A peer replaced an own link, and none of this process has taken its place.
    pub(in crate::protocol) fn note_taken_over(&mut self, now: MonoTime) -> Finding {
        self.taken_over.retain(|at| now.since(*at) < WINDOW);
        if self.taken_over.len() >= TAKEN_OVER {
            self.taken_over.pop_front();
        }
        self.taken_over.push_back(now);
        if self.taken_over.len() < TAKEN_OVER {
            return Finding::Single;
        }
        tell(&mut self.told, now)
    }

    /// Another process with our own key was met.
    pub(in crate::protocol) fn note_met(&mut self, now: MonoTime) -> Finding {
        tell(&mut self.told, now)
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn seen(&self) -> usize {
        self.seen.len()
    }

    fn make_room(&mut self, peer: &PeerId) {
        if self.seen.len() >= MAX_SEEN && !self.seen.contains_key(peer) {
            let oldest = self.seen.iter().min_by_key(|(_, seen)| seen.touched).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.seen.remove(&oldest);
            }
        }
    }
}

fn tell(told: &mut Option<MonoTime>, now: MonoTime) -> Finding {
    if told.is_some_and(|at| now.since(at) < TELL_EVERY) {
        return Finding::Twins;
    }
    *told = Some(now);
    Finding::Tell
}

#[cfg(test)]
mod tests {
    use super::Finding::{Single, Tell, Twins as Known};
    use super::*;

    fn at(s: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_secs(s))
    }

    #[test]
    fn restarts_are_single_and_returns_are_twins() {
        let peer = PeerId::from_bytes([1; 32]);
        let mut twins = Twins::default();
        for n in 0..100 {
            for again in 0..3 {
                assert_eq!(twins.note_up(peer, n, at(3 * n + again)), Finding::Single);
            }
        }
        // Another process, with the directory of the last.
        let found = [200, 99, 200, 99, 200].map(|n| twins.note_up(peer, n, at(400)));
        assert_eq!(found, [Single, Single, Tell, Known, Known]);
        assert_eq!(twins.note_up(peer, 99, at(459)), Known, "once a minute");
        assert_eq!(twins.note_up(peer, 200, at(460)), Tell);
        assert_eq!(twins.note_up(peer, 99, at(2000)), Single, "one return after a long time");
    }

    #[test]
    fn links_taken_over_now_and_then_mean_nothing() {
        let mut twins = Twins::default();
        for n in 0..20 {
            assert_eq!(twins.note_taken_over(at(301 * n)), Finding::Single);
        }
        let found = [0, 1, 2, 62].map(|s| twins.note_taken_over(at(9000 + s)));
        assert_eq!(found, [Single, Single, Tell, Tell]);
        assert_eq!(twins.taken_over.len(), TAKEN_OVER);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut twins = Twins::default();
        for n in 0..3000u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            twins.note_up(PeerId::from_bytes(id), n, at(n));
        }
        assert_eq!(twins.seen(), MAX_SEEN);
        let peer = PeerId::from_bytes([7; 32]);
        for n in 0..100 {
            twins.note_up(peer, n, at(5000));
        }
        assert_eq!(twins.seen[&peer].earlier.len(), MAX_EARLIER);
    }
}
