//! Who misbehaved, and who is banned.
//!
//! Proof of misbehaviour (a forged record, a payload that does not match its hash, a wrong
//! signature) blocks a peer at once, because honest peers verify before they forward. A validator's
//! reject is weaker evidence: it costs 10 of 80 points, and points come back with a half-life of 10
//! min. Loss, silence and slowness cost nothing: an honest peer is never banned for a bad network.

mod promises;
mod rate_limits;

use promises::Promises;
use rate_limits::RateLimits;

#[cfg(any(test, feature = "sim"))]
pub(super) use promises::MAX_PROMISES;
#[cfg(any(test, feature = "sim"))]
pub(super) use rate_limits::MAX_PEERS;
pub(super) use rate_limits::{OPEN, Work};

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Ban, MonoTime, PeerId, WallTime};

use crate::protocol::Protocol;
use crate::protocol::io::Output;

/// How long proof of misbehaviour blocks a peer.
const BLOCK: Duration = Duration::from_mins(10);
/// Points after which a peer is blocked.
const LIMIT: u32 = 80;
/// Points for one reject.
const REJECT: u32 = 10;
/// Half-life of points.
const HALF_LIFE: Duration = Duration::from_mins(10);
/// Standing: what a broken promise costs, what a payload served earns, and the most that can be
/// earned.
const BROKEN: i32 = 5;
const SERVED: i32 = 1;
const MAX_CREDIT: i32 = 40;
/// How long a peer that let somebody wait is asked after others: until a promise is broken.
const DOUBT: Duration = Duration::from_secs(10);
/// Peers with points that are remembered.
pub(super) const MAX_SCORES: usize = 4096;
/// Longest reason kept with a ban, in characters.
const MAX_REASON: usize = 500;

#[derive(Debug, Default)]
pub(super) struct Guard {
    pub(super) bans: BTreeMap<PeerId, Ban>,
    /// Points and when they were last brought up to date.
    pub(super) scores: BTreeMap<PeerId, (u32, MonoTime)>,
    /// Who serves what it announces: decides who is asked first and nothing else, so that loss and
    /// slowness never cost a link.
    reputation: BTreeMap<PeerId, (i32, MonoTime)>,
    /// Who let somebody wait a moment ago, and until when others are asked first.
    doubted: BTreeMap<PeerId, MonoTime>,
    pub(super) rate_limits: RateLimits,
    pub(super) promises: Promises,
}

impl Guard {
    pub(super) fn new(bans: Vec<Ban>) -> Self {
        let bans = bans.into_iter().map(|ban| (ban.peer, ban)).collect();
        Self { bans, ..Self::default() }
    }

    pub(super) fn is_banned(&self, peer: &PeerId, now: WallTime) -> bool {
        self.bans.get(peer).is_some_and(|ban| ban.until.is_none_or(|until| now < until))
    }

    pub(super) fn banned_count(&self, now: WallTime) -> usize {
        self.bans.keys().filter(|peer| self.is_banned(peer, now)).count()
    }

    /// Whether a peer may be the first to be asked.
    pub(super) fn is_reliable(&self, peer: &PeerId, now: MonoTime) -> bool {
        self.reputation
            .get(peer)
            .is_none_or(|(reputation, at)| faded(*reputation, now.since(*at)) >= 0)
    }

    /// A peer announced what it did not serve.
    fn note_broken(&mut self, peer: &PeerId, now: MonoTime) {
        self.change_reputation(peer, -BROKEN, now);
    }

    /// A peer served a payload that was new.
    pub(super) fn note_served(&mut self, peer: &PeerId, now: MonoTime) {
        self.trust(peer);
        self.change_reputation(peer, SERVED, now);
    }

    /// A peer was asked for what it announced, and somebody else had to be asked: until it is known
    /// whether it keeps its promises, it is asked after others.
    pub(super) fn doubt(&mut self, peer: PeerId, now: MonoTime) {
        if self.doubted.len() >= MAX_SCORES {
            self.doubted.retain(|_, until| *until > now);
        }
        if self.doubted.len() < MAX_SCORES {
            self.doubted.insert(peer, now + DOUBT);
        }
    }

    /// It serves.
    pub(super) fn trust(&mut self, peer: &PeerId) {
        self.doubted.remove(peer);
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn doubted(&self) -> usize {
        self.doubted.len()
    }

    pub(super) fn is_doubted(&self, peer: &PeerId, now: MonoTime) -> bool {
        self.doubted.get(peer).is_some_and(|until| now < *until)
    }

    fn change_reputation(&mut self, peer: &PeerId, by: i32, now: MonoTime) {
        if self.reputation.len() >= MAX_SCORES && !self.reputation.contains_key(peer) {
            let oldest = self.reputation.iter().min_by_key(|(_, (_, at))| *at).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.reputation.remove(&oldest);
            }
        }
        let (reputation, at) = self.reputation.entry(*peer).or_insert((0, now));
        let kept = faded(*reputation, now.since(*at));
        if kept != *reputation {
            *at = now;
        }
        *reputation = (kept + by).clamp(-100, MAX_CREDIT);
    }

    /// Notes a ban of the host's, and returns it as it is kept.
    pub(super) fn ban(&mut self, mut ban: Ban) -> Ban {
        if let Some((cut, _)) = ban.reason.char_indices().nth(MAX_REASON) {
            ban.reason.truncate(cut);
        }
        self.bans.insert(ban.peer, ban.clone());
        ban
    }

    pub(super) fn unban(&mut self, peer: &PeerId) {
        self.bans.remove(peer);
        self.scores.remove(peer);
    }

    /// Bans a peer for a while, unless it is banned for longer.
    pub(super) fn block(&mut self, peer: &PeerId, reason: &str, now: WallTime) -> Option<Ban> {
        let until = Some(now.plus(BLOCK));
        if self.bans.get(peer).is_some_and(|b| b.until.is_none() || b.until > until) {
            return None;
        }
        Some(self.ban(Ban { peer: *peer, until, reason: reason.to_owned() }))
    }

    /// The host's validator rejected what a peer sent; `true` when that was once too often.
    pub(super) fn note_reject(&mut self, peer: &PeerId, now: MonoTime) -> bool {
        self.add(peer, REJECT, now)
    }

    /// Adds points; `true` when the peer has too many.
    pub(super) fn add(&mut self, peer: &PeerId, points: u32, now: MonoTime) -> bool {
        if self.scores.len() >= MAX_SCORES && !self.scores.contains_key(peer) {
            let oldest = self.scores.iter().min_by_key(|(_, (_, at))| *at).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.scores.remove(&oldest);
            }
        }
        let (score, at) = self.scores.entry(*peer).or_insert((0, now));
        let halvings = now.since(*at).as_secs() / HALF_LIFE.as_secs();
        if halvings > 0 {
            *score = score.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0);
            *at = now;
        }
        *score = score.saturating_add(points);
        *score >= LIMIT
    }

    fn expire(&mut self, now: WallTime) -> Vec<PeerId> {
        let over = |ban: &&Ban| ban.until.is_some_and(|until| until <= now);
        let ended: Vec<_> = self.bans.values().filter(over).map(|ban| ban.peer).collect();
        for peer in &ended {
            self.bans.remove(peer);
        }
        ended
    }
}

/// What is left of a reputation after a while.
fn faded(reputation: i32, since: Duration) -> i32 {
    let halvings = u32::try_from(since.as_secs() / HALF_LIFE.as_secs()).unwrap_or(u32::MAX);
    reputation.checked_div(1i32.checked_shl(halvings.min(30)).unwrap_or(i32::MAX)).unwrap_or(0)
}

impl Protocol {
    pub(super) fn expire_bans(&mut self) {
        for peer in self.guard.expire(self.env.wall) {
            self.env.push(Output::LiftBan(peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_add_up_and_fade() {
        let peer = PeerId::from_bytes([1; 32]);
        let mut guard = Guard::default();
        let at = |s| MonoTime::from_duration(Duration::from_secs(s));
        for _ in 0..7 {
            assert!(!guard.add(&peer, REJECT, at(0)));
        }
        assert!(!guard.add(&peer, REJECT, at(700)), "half is forgiven");
        assert!(guard.add(&peer, 40, at(700)));
        assert!(!guard.add(&peer, REJECT, at(1_000_000_000)));
    }

    #[test]
    fn a_broken_promise_counts_more_than_a_kept_one_and_fades() {
        let peer = PeerId::from_bytes([1; 32]);
        let mut guard = Guard::default();
        let at = |s| MonoTime::from_duration(Duration::from_secs(s));
        assert!(guard.is_reliable(&peer, at(0)), "unknown");
        guard.note_broken(&peer, at(0));
        assert!(!guard.is_reliable(&peer, at(0)));
        (0..5).for_each(|_| guard.note_served(&peer, at(1)));
        assert!(guard.is_reliable(&peer, at(1)), "made up for");
        (0..100).for_each(|_| guard.note_served(&peer, at(2)));
        (0..9).for_each(|_| guard.note_broken(&peer, at(2)));
        assert!(!guard.is_reliable(&peer, at(2)), "credit is limited");
        assert!(guard.is_reliable(&peer, at(4000)), "forgiven");
    }

    #[test]
    fn bans_end_when_they_say() {
        let peer = PeerId::from_bytes([1; 32]);
        let ban = |until| Ban { peer, until, reason: String::new() };
        let at = WallTime::from_millis;
        let timed = Guard::new(vec![ban(Some(at(10)))]);
        assert!(timed.is_banned(&peer, at(9)) && !timed.is_banned(&peer, at(10)));
        let for_good = Guard::new(vec![ban(None)]);
        assert!(for_good.is_banned(&peer, at(u64::MAX)));
    }

    #[test]
    fn scores_are_bounded() {
        let mut guard = Guard::default();
        for n in 0..5000u16 {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_le_bytes());
            guard.add(&PeerId::from_bytes(id), 1, MonoTime::ZERO);
        }
        assert_eq!(guard.scores.len(), MAX_SCORES);
    }
}
