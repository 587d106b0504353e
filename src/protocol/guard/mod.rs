//! Who misbehaved, and who is banned.
//!
//! Proof of misbehaviour (a forged record, a payload that does not match its hash, a wrong
//! signature) blocks a peer at once, because honest peers verify before they forward. A validator's
//! reject is weaker evidence: it costs 10 of 80 points, and points come back with a half-life of 10
//! min. Loss, silence and slowness cost nothing: an honest peer is never banned for a bad network.
//!
//! Tested by: the tests below, `sim::tests::hostile`, `protocol::tests::liars`.

mod promises;
mod rate_limits;
mod reputation;
mod strangers;
mod twins;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::io::Output;
use crate::types::{Ban, MonoTime, PeerId, WallTime};

use promises::Promises;
use rate_limits::RateLimits;
use reputation::Reputation;
use strangers::Strangers;
use twins::Twins;

#[cfg(any(test, feature = "sim"))]
pub(super) use promises::MAX_PROMISES;
#[cfg(any(test, feature = "sim"))]
pub(super) use rate_limits::MAX_PEERS;
pub(super) use rate_limits::{OPEN, Work};
#[cfg(any(test, feature = "sim"))]
pub(super) use strangers::MAX_HOSTS;
pub(super) use twins::Finding;
#[cfg(any(test, feature = "sim"))]
pub(super) use twins::MAX_SEEN;

/// Time for which proof of misbehaviour blocks a peer.
const BLOCK: Duration = Duration::from_mins(10);
/// Number of points at which a peer is blocked.
const LIMIT: u32 = 80;
/// Number of points for one reject.
const REJECT: u32 = 10;
/// Time in which points lose half their weight.
const HALF_LIFE: Duration = Duration::from_mins(10);
/// Maximum number of peers whose points are remembered.
pub(super) const MAX_SCORES: usize = 4096;
/// Maximum length of a reason kept with a ban, in characters.
const MAX_REASON: usize = 500;

#[derive(Debug, Default)]
pub(super) struct Guard {
    pub(super) bans: BTreeMap<PeerId, Ban>,
    /// Points and when they were last brought up to date.
    scores: BTreeMap<PeerId, (u32, MonoTime)>,
    pub(super) reputation: Reputation,
    pub(super) rate_limits: RateLimits,
    pub(super) promises: Promises,
    pub(super) twins: Twins,
    pub(super) strangers: Strangers,
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

impl Protocol {
    pub(super) fn expire_bans(&mut self) {
        for peer in self.guard.expire(self.env.corroborated()) {
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
