//! Two processes with one identity, as after a data directory was copied: each takes the other's links
//! over, for ever, and nothing is lost but peace.
//!
//! A peer that sees both knows: an incarnation rises with each start, so one that was followed by
//! another and is back belongs to a process that never stopped. A restart shows each incarnation
//! once. One of the two knows by its links: peers replace them, and none of its own has taken their
//! place. The word of one peer is not enough for that while there are others to say so too.
//! And when the two meet each other, their hellos tell: one key, two incarnations.
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

/// An own link that was taken over, as its peer says.
#[derive(Debug)]
struct TakenOver {
    at: MonoTime,
    peer: PeerId,
    /// No other peer was linked then.
    is_only: bool,
}

/// Incarnations that peers came with, and the own links that were taken over.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Twins {
    seen: BTreeMap<PeerId, Incarnations>,
    taken_over: VecDeque<TakenOver>,
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

    /// A peer replaced an own link, and none of this process has taken its place. `is_only`: no other
    /// peer is linked.
    pub(in crate::protocol) fn note_taken_over(
        &mut self,
        peer: PeerId,
        is_only: bool,
        now: MonoTime,
    ) -> Finding {
        self.taken_over.retain(|one| now.since(one.at) < WINDOW);
        if self.taken_over.len() >= TAKEN_OVER {
            self.taken_over.pop_front();
        }
        self.taken_over.push_back(TakenOver { at: now, peer, is_only });
        if self.taken_over.len() < TAKEN_OVER || !self.is_agreed(&peer, now) {
            return Finding::Single;
        }
        tell(&mut self.told, now)
    }

    /// Another process with our own key was met.
    pub(in crate::protocol) fn note_met(&mut self, now: MonoTime) -> Finding {
        tell(&mut self.told, now)
    }

    /// Reports whether a second peer says what `peer` says, or there was none that could.
    fn is_agreed(&self, peer: &PeerId, now: MonoTime) -> bool {
        let is_other_seen = || {
            let is_recent = |seen: &Incarnations| now.since(seen.touched) < WINDOW;
            self.seen.iter().any(|(other, seen)| other != peer && is_recent(seen))
        };
        self.taken_over.iter().any(|one| one.peer != *peer)
            || self.taken_over.iter().all(|one| one.is_only) && !is_other_seen()
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
        let peer = PeerId::from_bytes([1; 32]);
        let mut twins = Twins::default();
        for n in 0..20 {
            assert_eq!(twins.note_taken_over(peer, true, at(301 * n)), Finding::Single);
        }
        let found = [0, 1, 2, 62].map(|s| twins.note_taken_over(peer, true, at(9000 + s)));
        assert_eq!(found, [Single, Single, Tell, Tell]);
        assert_eq!(twins.taken_over.len(), TAKEN_OVER);
    }

    #[test]
    fn one_peer_among_others_is_not_believed_alone() {
        let [liar, other] = [1, 2].map(|n| PeerId::from_bytes([n; 32]));
        // Another peer is linked, at least once.
        for linked in [[false; 3], [false, true, true], [true, true, false]] {
            let mut twins = Twins::default();
            let found = [0, 1, 2].map(|n| twins.note_taken_over(liar, linked[n], at(n as u64)));
            assert_eq!(found, [Single; 3]);
            assert_eq!(twins.note_taken_over(other, false, at(3)), Tell, "two say so");
        }
        // Another one came a while ago, and is gone.
        let mut twins = Twins::default();
        twins.note_up(other, 1, at(0));
        twins.note_up(liar, 1, at(0));
        let found = [597, 598, 599].map(|s| twins.note_taken_over(liar, true, at(s)));
        assert_eq!(found, [Single; 3]);
        assert_eq!(
            twins.note_taken_over(liar, true, at(600)),
            Tell,
            "nobody else is left to say so"
        );
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
