//! Which accepted link gives way to a newcomer where there is no room.
//!
//! Places are not first come, first served for ever: a node that nobody can dial lives on the places
//! of those that it can dial, so each gets a turn. A crowd gains nothing by knocking:
//! - At most one link gives way in `EVICT_EVERY`, and none in its first `GRACE`, in which its peer
//!   gets what it lacks and hands over what it has. Who gave way waits as long until another one does
//!   so for it: else it would be back before those who waited longer, and so knock less often.
//! - Links that we dialled stay: those were our choice.
//! - The quarter that has lived longest stays, so that nobody can bring about a whole new set.
//! - Of the rest the most crowded address group gives way, the newcomer counted: k groups never push
//!   out more than they would get in an even share.
//! - Within these a link whose peer replays its outbox stays if others are there.
//! - So does the link of a bootstrap peer.
//! - Then the link goes that was least useful lately (transactions that it was the first to bring), of
//!   equals the one of the lowest quality in steps of 20, then the slower one, then the younger one.
//!
//! Tested by: the tests below, `sim::tests::full_hubs`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::types::{LinkId, MonoTime, PeerId};

/// Minimum time between two links that give way.
const EVICT_EVERY: Duration = Duration::from_secs(2);
/// Time that a link has before it may have to give way, and that a peer waits that had to.
const GRACE: Duration = Duration::from_secs(30);
/// One link in so many stays for its age.
const ELDERS: usize = 4;
/// Round-trip times of one step count as equal.
const RTT_STEP: Duration = Duration::from_millis(50);
/// Scores of one step count as equal.
const SCORE_STEP: u8 = 20;
/// Time in which what a peer has brought loses half its weight.
const HALF_LIFE: Duration = Duration::from_mins(5);

/// An accepted link, as it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) struct Candidate {
    pub(in crate::protocol) link: LinkId,
    /// Address group of the peer.
    pub(in crate::protocol) group: u64,
    /// Time since the hello.
    pub(in crate::protocol) age: Duration,
    /// Weight of what the peer was the first to bring lately.
    pub(in crate::protocol) merit: u32,
    /// Smoothed round-trip time, once measured.
    pub(in crate::protocol) rtt: Option<Duration>,
    /// Score of the link, once measured.
    pub(in crate::protocol) score: Option<u8>,
    /// True: the peer is replaying its outbox.
    pub(in crate::protocol) is_replaying: bool,
    /// True: the peer is one of those that this node joins by.
    pub(in crate::protocol) is_bootstrap: bool,
}

/// Chooses the link that gives way to a newcomer from `group`; `None` where each has a right to stay.
pub(in crate::protocol) fn choose(candidates: &[Candidate], group: u64) -> Option<LinkId> {
    let mut by_age: Vec<_> = candidates.iter().collect();
    by_age.sort_by_key(|c| (Reverse(c.age), c.link));
    let rest = by_age.split_off(candidates.len() / ELDERS);
    let mut crowds = BTreeMap::from([(group, 1usize)]);
    for candidate in candidates {
        *crowds.entry(candidate.group).or_default() += 1;
    }
    let largest = crowds.values().max().copied().unwrap_or_default();
    let is_crowded = |c: &&Candidate| crowds.get(&c.group) == Some(&largest);
    let mut eligible: Vec<_> =
        rest.into_iter().filter(|c| c.age >= GRACE).filter(is_crowded).collect();
    for stays in [|c: &Candidate| c.is_bootstrap, |c: &Candidate| c.is_replaying] {
        if eligible.iter().any(|c| !stays(c)) {
            eligible.retain(|c| !stays(c));
        }
    }
    let steps = |c: &Candidate| c.score.unwrap_or(0) / SCORE_STEP;
    let slowness = |c: &Candidate| {
        let rtt = c.rtt.unwrap_or(Duration::MAX);
        rtt.as_millis() / RTT_STEP.as_millis()
    };
    let order = |c: &&Candidate| (c.merit, steps(c), Reverse(slowness(c)), c.age, c.link);
    let worst = eligible.into_iter().min_by_key(order);
    worst.map(|c| c.link)
}

/// Links that gave way lately, the latest last: as many as may in `GRACE`.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Evictions(VecDeque<(MonoTime, PeerId)>);

impl Evictions {
    /// Reports whether a link may give way now, to this peer.
    pub(in crate::protocol) fn may_evict_for(&mut self, newcomer: &PeerId, now: MonoTime) -> bool {
        self.0.retain(|(at, _)| now.since(*at) < GRACE);
        let is_too_soon = self.0.back().is_some_and(|(at, _)| now.since(*at) < EVICT_EVERY);
        !is_too_soon && self.0.iter().all(|(_, peer)| peer != newcomer)
    }

    /// Notes that the link of a peer gave way.
    pub(in crate::protocol) fn note(&mut self, peer: PeerId, now: MonoTime) {
        self.0.push_back((now, peer));
    }
}

/// Count of transactions that a peer was the first to bring: each counts less the longer ago it was.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocol) struct Merit {
    points: u32,
    at: MonoTime,
}

impl Merit {
    pub(in crate::protocol) fn new(now: MonoTime) -> Self {
        Self { points: 0, at: now }
    }

    /// Notes one transaction.
    pub(in crate::protocol) fn note(&mut self, now: MonoTime) {
        self.points = self.points(now).saturating_add(1);
        self.at = self.at + HALF_LIFE * self.halvings(now);
    }

    /// Returns what is left of the points now.
    pub(in crate::protocol) fn points(&self, now: MonoTime) -> u32 {
        self.points.checked_shr(self.halvings(now)).unwrap_or(0)
    }

    fn halvings(&self, now: MonoTime) -> u32 {
        u32::try_from(now.since(self.at).as_secs() / HALF_LIFE.as_secs()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    /// Links of one group each, all equal and old enough.
    fn links(count: u64) -> Vec<Candidate> {
        let link = |n| Candidate {
            link: LinkId(n),
            group: n,
            age: Duration::from_secs(HOUR),
            merit: 5,
            rtt: Some(Duration::from_millis(20)),
            score: Some(75),
            is_replaying: false,
            is_bootstrap: false,
        };
        (0..count).map(link).collect()
    }

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn the_young_and_the_oldest_quarter_stay() {
        let mut all = links(8);
        for (n, link) in all.iter_mut().enumerate() {
            link.age = secs(100 - 10 * n as u64);
        }
        // The two oldest are the least useful.
        (all[0].merit, all[1].merit) = (0, 0);
        assert_eq!(choose(&all, 99), Some(LinkId(7)), "the youngest of equals");
        all[7].age = secs(29);
        assert_eq!(choose(&all, 99), Some(LinkId(6)), "one in its grace stays");
        all[3].merit = 4;
        assert_eq!(choose(&all, 99), Some(LinkId(3)), "the least useful of the rest");
        for link in &mut all {
            link.age = secs(10);
        }
        assert_eq!(choose(&all, 99), None, "all of them have just come");
        assert_eq!(choose(&[], 99), None);
        assert_eq!(choose(&links(1), 99), Some(LinkId(0)), "a single place rotates as well");
    }

    #[test]
    fn the_most_crowded_group_gives_way_with_the_newcomer_counted() {
        let mut all = links(12);
        // Links 8 to 11 are of one group and the most useful.
        for link in &mut all[8..] {
            (link.group, link.merit) = (50, 100);
        }
        let group_of = |all: &[Candidate], newcomer| {
            choose(all, newcomer).and_then(|id| all.iter().find(|c| c.link == id)).map(|c| c.group)
        };
        assert_eq!(group_of(&all, 99), Some(50));
        assert_eq!(group_of(&all, 50), Some(50), "a crowd takes places from itself");
        // Nobody is crowded, and one who has a link brings no second one at another's cost.
        let apart = links(12);
        assert_eq!(group_of(&apart, 5), Some(5));
        assert!(group_of(&apart, 99).is_some());
        // Its only link is one of the oldest: a second one has to wait.
        let mut old = links(12);
        old[5].age = secs(2 * HOUR);
        assert_eq!(choose(&old, 5), None);
    }

    #[test]
    fn a_replay_is_not_cut_short_if_others_are_there() {
        let mut all = links(4);
        for link in &mut all {
            link.is_replaying = true;
        }
        assert!(choose(&all, 99).is_some(), "all say so");
        all[2].is_replaying = false;
        all[2].merit = 1000;
        assert_eq!(choose(&all, 99), Some(LinkId(2)));
    }

    #[test]
    fn a_bootstrap_peer_is_the_last_to_go() {
        let mut all = links(4);
        for link in &mut all[..3] {
            link.is_replaying = true;
        }
        all[3].is_bootstrap = true;
        assert_eq!(choose(&all, 99), Some(LinkId(1)), "rather one that replays");
        all[1..3].iter_mut().for_each(|link| link.is_bootstrap = true);
        assert_eq!(choose(&all, 99), Some(LinkId(3)), "all that may go are of that kind");
    }

    #[test]
    fn of_equals_the_poorer_link_goes() {
        let mut all = links(8);
        all[4].score = Some(62);
        assert_eq!(choose(&all, 99), Some(LinkId(2)), "of one step");
        all[4].score = Some(59);
        all[5].rtt = Some(Duration::from_millis(300));
        assert_eq!(choose(&all, 99), Some(LinkId(4)));
        all[4].merit = 6;
        assert_eq!(choose(&all, 99), Some(LinkId(5)), "a useful one stays");
    }

    #[test]
    fn of_equals_the_slower_link_goes() {
        let mut all = links(8);
        all[5].rtt = Some(Duration::from_millis(300));
        assert_eq!(choose(&all, 99), Some(LinkId(5)));
        all[6].rtt = None;
        assert_eq!(choose(&all, 99), Some(LinkId(6)), "one that never answered");
        all[6].merit = 6;
        assert_eq!(choose(&all, 99), Some(LinkId(5)));
    }

    #[test]
    fn links_give_way_one_after_the_other_and_who_did_waits() {
        let at = |s| MonoTime::from_duration(secs(s));
        let peer = |n| PeerId::from_bytes([n; 32]);
        let mut evictions = Evictions::default();
        let mut evicted = Vec::new();
        for second in 0..100 {
            if evictions.may_evict_for(&peer(0), at(second)) {
                evictions.note(peer(1), at(second));
                evicted.push(second);
            }
            assert!(!evictions.may_evict_for(&peer(1), at(second)));
        }
        assert!(evicted.windows(2).all(|pair| pair[1] - pair[0] == 2), "{evicted:?}");
        assert!(evictions.0.len() <= 15, "{}", evictions.0.len());
        assert!(evictions.may_evict_for(&peer(1), at(130)));
    }

    #[test]
    fn merit_fades_also_while_it_is_earned() {
        let at = |s| MonoTime::from_duration(secs(s));
        let mut merit = Merit::new(at(0));
        (0..100).for_each(|_| merit.note(at(1)));
        assert_eq!(
            (merit.points(at(1)), merit.points(at(301)), merit.points(at(601))),
            (100, 50, 25)
        );
        (0..60).for_each(|n| merit.note(at(10 * n)));
        assert!(merit.points(at(600)) < 100, "{}", merit.points(at(600)));
        assert_eq!(merit.points(at(u64::MAX / 2_000_000_000)), 0);
    }
}
