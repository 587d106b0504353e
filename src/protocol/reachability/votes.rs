//! Own addresses, as peers see them.
//!
//! Each linked peer says once, in its hello, from where it sees the node come or where it dialled it. That is
//! one vote, the latest of each peer, and it counts for as long as its link is up and for
//! [`VOTE_AFTER_LINK`] after. Votes of peers that this node dialled count before those of peers that dialled
//! it, since those choose themselves. Addresses that linked peers vote for come first, those that peers of more
//! address groups see before others, then those with most votes, and the newest before older ones; then those
//! of links that have ended, the newest first. So a node that roams names its present address first, and its
//! earlier ones vanish. While no vote is left, as when the node is cut off, the last answer stays: nothing
//! says that it is wrong.
//!
//! A vote proves nothing: it makes an address a candidate.
//!
//! Tested by: the tests below, `protocol::tests::addresses`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::types::{AddressScope, Direction, Endpoint, MonoTime, PeerId};

/// Maximum number of addresses that are named.
const MAX_NAMED: usize = 4;
/// Maximum number of peers whose vote is remembered: half as many as there may be links.
pub(in crate::protocol) const MAX_VOTES: usize = 64;
/// Time for which a vote counts after its link has ended.
const VOTE_AFTER_LINK: Duration = Duration::from_mins(5);

#[derive(Debug)]
struct Vote {
    address: IpAddr,
    /// Where the peer is.
    voter: SocketAddr,
    /// Side that dialled.
    direction: Direction,
    /// Time when the peer first said so.
    since: MonoTime,
    /// End of the vote; `None` while its link is up.
    until: Option<MonoTime>,
}

/// Address that peers see, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) ip: IpAddr,
    /// Number of address groups that the voters are in.
    pub(super) groups: u32,
    /// True: peers that this node dialled see it.
    pub(super) is_seen: bool,
    /// True: such peers of this site do.
    pub(super) is_seen_inside: bool,
}

#[derive(Debug, Default)]
pub(in crate::protocol) struct Votes {
    votes: BTreeMap<PeerId, Vote>,
    /// The latest answer.
    named: Vec<Named>,
}

/// Standing of one address.
#[derive(Debug, Default)]
struct Standing {
    groups: BTreeSet<u64>,
    /// Groups, and number, of the linked voters that were dialled, and of those that dialled.
    dialled: (BTreeSet<u64>, usize),
    accepted: (BTreeSet<u64>, usize),
    newest: MonoTime,
    is_seen: bool,
    is_seen_inside: bool,
}

impl Standing {
    fn add(&mut self, vote: &Vote) {
        let group = Endpoint::from(vote.voter).group();
        let is_dialled = vote.direction == Direction::Outbound;
        self.groups.insert(group);
        if vote.until.is_none() {
            let side = if is_dialled { &mut self.dialled } else { &mut self.accepted };
            side.0.insert(group);
            side.1 += 1;
        }
        self.newest = self.newest.max(vote.since);
        self.is_seen |= is_dialled;
        self.is_seen_inside |=
            is_dialled && AddressScope::of(vote.voter.ip()) < AddressScope::Public;
    }

    /// Returns what it is ranked by, the least first.
    fn rank(&self) -> impl Ord + use<> {
        let side = |side: &(BTreeSet<u64>, usize)| (side.0.len(), side.1);
        Reverse((side(&self.dialled), side(&self.accepted), self.newest))
    }
}

impl Votes {
    /// A peer at `voter`, of a link that is up, says where it sees or dialled us.
    pub(super) fn note_vote(
        &mut self,
        peer: PeerId,
        (voter, direction): (SocketAddr, Direction),
        address: IpAddr,
        now: MonoTime,
    ) {
        if AddressScope::of(address) == AddressScope::Unusable {
            return;
        }
        let before = self.votes.remove(&peer).filter(|vote| vote.address == address);
        let since = before.map_or(now, |vote| vote.since);
        if self.votes.len() >= MAX_VOTES {
            let end = |(_, vote): &(&PeerId, &Vote)| {
                let is_dialled = vote.direction == Direction::Outbound;
                (vote.until.is_none(), is_dialled, vote.until, vote.since)
            };
            if let Some(first) = self.votes.iter().min_by_key(end).map(|(peer, _)| *peer) {
                self.votes.remove(&first);
            }
        }
        self.votes.insert(peer, Vote { address, voter, direction, since, until: None });
    }

    /// The link with a peer has ended.
    pub(super) fn note_down(&mut self, peer: &PeerId, now: MonoTime) {
        if let Some(vote) = self.votes.get_mut(peer) {
            vote.until = Some(now + VOTE_AFTER_LINK);
        }
    }

    /// Counts the votes.
    pub(super) fn settle(&mut self, now: MonoTime) {
        self.votes.retain(|_, vote| vote.until.is_none_or(|until| now < until));
        if self.votes.is_empty() {
            return;
        }
        let mut standings: BTreeMap<IpAddr, Standing> = BTreeMap::new();
        for vote in self.votes.values() {
            standings.entry(vote.address).or_default().add(vote);
        }
        let mut ranked: Vec<_> = standings.into_iter().collect();
        ranked.sort_by_key(|(_, standing)| standing.rank());
        let named = ranked.into_iter().take(MAX_NAMED).map(|(ip, standing)| Named {
            ip,
            groups: u32::try_from(standing.groups.len()).unwrap_or(u32::MAX),
            is_seen: standing.is_seen,
            is_seen_inside: standing.is_seen_inside,
        });
        self.named = named.collect();
    }

    /// Returns the addresses as they were counted last, best first.
    pub(super) fn named(&self) -> &[Named] {
        &self.named
    }

    /// Number of votes.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.votes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_secs(seconds))
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    /// A vote of the `n`-th peer, which is in an address group of its own.
    fn vote(votes: &mut Votes, n: u8, address: IpAddr, now: MonoTime) {
        let voter = (SocketAddr::from(([10, n, 0, 1], 5001)), Direction::Outbound);
        votes.note_vote(peer(n), voter, address, now);
    }

    fn named(votes: &mut Votes, now: MonoTime) -> Vec<IpAddr> {
        votes.settle(now);
        votes.named().iter().map(|named| named.ip).collect()
    }

    #[test]
    fn a_roaming_node_names_where_it_is_first_and_the_rest_vanishes() {
        let mut votes = Votes::default();
        for place in 1..=6 {
            let now = at(u64::from(place) * 30);
            for n in 1..=3 {
                votes.note_down(&peer(n), now);
            }
            vote(&mut votes, 1, ip(place), now);
            let named = named(&mut votes, now);
            assert_eq!(named[0], ip(place));
            assert!(named.len() <= MAX_NAMED);
            // The others come back later.
            vote(&mut votes, 2, ip(place), now);
            vote(&mut votes, 3, ip(place), now);
        }
        vote(&mut votes, 9, ip(9), at(181));
        assert_eq!(named(&mut votes, at(181)), [ip(6), ip(9)], "three votes against one");
        votes.note_down(&peer(9), at(182));
        assert_eq!(named(&mut votes, at(481)), [ip(6), ip(9)]);
        assert_eq!(named(&mut votes, at(482)), [ip(6)], "a vote ends");
    }

    #[test]
    fn many_of_one_group_count_less_than_a_few_of_several() {
        let mut votes = Votes::default();
        for n in 1..=2 {
            vote(&mut votes, n, ip(1), at(0));
        }
        for n in 10..30 {
            let voter = (SocketAddr::from(([172, 16, 0, n], 5001)), Direction::Outbound);
            votes.note_vote(peer(n), voter, ip(2), at(1));
        }
        assert_eq!(named(&mut votes, at(2)), [ip(1), ip(2)]);
        assert_eq!((votes.named()[0].groups, votes.named()[1].groups), (2, 1));
    }

    #[test]
    fn who_dialled_us_has_a_say_after_those_whom_we_dialled() {
        let mut votes = Votes::default();
        for n in 10..40 {
            let voter = (SocketAddr::from(([60, n, 0, 1], 5001)), Direction::Inbound);
            votes.note_vote(peer(n), voter, ip(2), at(1));
        }
        assert_eq!(named(&mut votes, at(1)), [ip(2)]);
        assert!(!votes.named()[0].is_seen);
        vote(&mut votes, 1, ip(1), at(0));
        assert_eq!(named(&mut votes, at(2)), [ip(1), ip(2)]);
    }

    #[test]
    fn what_peers_last_said_stays_while_nobody_says_more() {
        let mut votes = Votes::default();
        vote(&mut votes, 1, ip(1), at(0));
        assert_eq!(named(&mut votes, at(0)), [ip(1)]);
        votes.note_down(&peer(1), at(1));
        assert_eq!((named(&mut votes, at(9999)), votes.len()), (vec![ip(1)], 0));
        vote(&mut votes, 1, ip(2), at(10_000));
        assert_eq!(named(&mut votes, at(10_000)), [ip(2)]);
    }

    #[test]
    fn nobody_fills_the_table_and_nonsense_is_no_vote() {
        let mut votes = Votes::default();
        for n in 0..200 {
            vote(&mut votes, n, ip(n), at(u64::from(n)));
        }
        assert_eq!(votes.len(), MAX_VOTES);
        for bad in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "fe80::1"] {
            vote(&mut votes, 201, bad.parse().unwrap(), at(201));
        }
        assert_eq!(named(&mut votes, at(202)), [ip(199), ip(198), ip(197), ip(196)]);
    }

    #[test]
    fn only_voters_of_the_site_see_an_address_of_the_site() {
        let mut votes = Votes::default();
        let afar = SocketAddr::from(([198, 51, 100, 1], 5001));
        votes.note_vote(peer(1), (afar, Direction::Outbound), ip(1), at(0));
        let near = SocketAddr::from(([10, 7, 0, 1], 5001));
        votes.note_vote(peer(3), (near, Direction::Inbound), ip(1), at(0));
        votes.settle(at(0));
        assert!(votes.named()[0].is_seen && !votes.named()[0].is_seen_inside);
        vote(&mut votes, 2, ip(1), at(0));
        votes.settle(at(0));
        assert!(votes.named()[0].is_seen_inside);
    }
}
