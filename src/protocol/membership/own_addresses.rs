//! Own addresses, as peers see them.
//!
//! Each peer that this node dialled says once, in its hello, from where it sees the node come. That is
//! one vote, the latest of each peer, and it counts for as long as its link is up and for
//! [`VOTE_AFTER_LINK`] after. Addresses that linked peers vote for come first, those with most votes
//! before others and the newest before older ones; then those of links that have ended, the newest
//! first. So a node that roams names its present address first, and its earlier ones vanish. While no
//! vote is left, as when the node is cut off, the last answer stays: nothing says that it is wrong.
//!
//! A vote proves nothing. Who lies can add an address behind those that more peers see, and a dial
//! there ends at whoever cannot prove this node's key.
//!
//! Tested by: the tests below, `protocol::tests::addresses`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::types::{AddressScope, MonoTime, PeerId};

/// Maximum number of addresses that are named.
const MAX_NAMED: usize = 4;
/// Maximum number of peers whose vote is remembered: as many as there may be links.
pub(in crate::protocol) const MAX_VOTES: usize = 64;
/// Time for which a vote counts after its link has ended.
const VOTE_AFTER_LINK: Duration = Duration::from_mins(5);

#[derive(Debug)]
struct Vote {
    address: IpAddr,
    /// Time when the peer first said so.
    since: MonoTime,
    /// End of the vote; `None` while its link is up.
    until: Option<MonoTime>,
}

#[derive(Debug, Default)]
pub(in crate::protocol) struct OwnAddresses {
    votes: BTreeMap<PeerId, Vote>,
    /// The latest answer.
    named: Vec<IpAddr>,
}

/// Standing of one address.
#[derive(Debug, Default)]
struct Standing {
    linked: usize,
    newest: MonoTime,
}

impl OwnAddresses {
    /// A peer of a link that is up says where it sees us come from.
    pub(super) fn note_vote(&mut self, peer: PeerId, address: IpAddr, now: MonoTime) {
        if AddressScope::of(address) == AddressScope::Unusable {
            return;
        }
        let before = self.votes.remove(&peer).filter(|vote| vote.address == address);
        let since = before.map_or(now, |vote| vote.since);
        if self.votes.len() >= MAX_VOTES {
            let end = |(_, vote): &(&PeerId, &Vote)| (vote.until.is_none(), vote.until, vote.since);
            if let Some(first) = self.votes.iter().min_by_key(end).map(|(peer, _)| *peer) {
                self.votes.remove(&first);
            }
        }
        self.votes.insert(peer, Vote { address, since, until: None });
    }

    /// The link with a peer has ended.
    pub(super) fn note_down(&mut self, peer: &PeerId, now: MonoTime) {
        if let Some(vote) = self.votes.get_mut(peer) {
            vote.until = Some(now + VOTE_AFTER_LINK);
        }
    }

    /// Returns the addresses, best first, if they are not what was returned last.
    pub(super) fn changed(&mut self, now: MonoTime) -> Option<Vec<IpAddr>> {
        self.votes.retain(|_, vote| vote.until.is_none_or(|until| now < until));
        if self.votes.is_empty() {
            return None;
        }
        let mut standings: BTreeMap<IpAddr, Standing> = BTreeMap::new();
        for vote in self.votes.values() {
            let standing = standings.entry(vote.address).or_default();
            standing.linked += usize::from(vote.until.is_none());
            standing.newest = standing.newest.max(vote.since);
        }
        let mut ranked: Vec<_> = standings.into_iter().collect();
        ranked.sort_by_key(|(_, standing)| Reverse((standing.linked, standing.newest)));
        let named: Vec<_> = ranked.into_iter().take(MAX_NAMED).map(|(ip, _)| ip).collect();
        if named == self.named {
            return None;
        }
        self.named.clone_from(&named);
        Some(named)
    }

    /// Returns the addresses as they were named last, best first.
    pub(in crate::protocol) fn named(&self) -> impl Iterator<Item = &IpAddr> {
        self.named.iter()
    }

    /// Number of votes.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn votes(&self) -> usize {
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

    #[test]
    fn a_roaming_node_names_where_it_is_first_and_the_rest_vanishes() {
        let mut own = OwnAddresses::default();
        for place in 1..=6 {
            let now = at(u64::from(place) * 30);
            for n in 1..=3 {
                own.note_down(&peer(n), now);
            }
            own.note_vote(peer(1), ip(place), now);
            let named = own.changed(now).unwrap();
            assert_eq!(named[0], ip(place));
            assert!(named.len() <= MAX_NAMED);
            // The others come back later.
            own.note_vote(peer(2), ip(place), now);
            own.note_vote(peer(3), ip(place), now);
            let _ = own.changed(now);
        }
        assert_eq!(own.changed(at(180)), None);
        own.note_vote(peer(9), ip(9), at(181));
        assert_eq!(own.changed(at(181)), Some(vec![ip(6), ip(9)]), "three votes against one");
        own.note_down(&peer(9), at(182));
        assert_eq!(own.changed(at(481)), None);
        assert_eq!(own.changed(at(482)), Some(vec![ip(6)]), "a vote ends");
    }

    #[test]
    fn what_peers_last_said_stays_while_nobody_says_more() {
        let mut own = OwnAddresses::default();
        own.note_vote(peer(1), ip(1), at(0));
        assert_eq!(own.changed(at(0)), Some(vec![ip(1)]));
        own.note_down(&peer(1), at(1));
        assert_eq!((own.changed(at(9999)), own.votes()), (None, 0));
        own.note_vote(peer(1), ip(2), at(10_000));
        assert_eq!(own.changed(at(10_000)), Some(vec![ip(2)]));
    }

    #[test]
    fn nobody_fills_the_table_and_nonsense_is_no_vote() {
        let mut own = OwnAddresses::default();
        for n in 0..200 {
            own.note_vote(peer(n), ip(n), at(u64::from(n)));
        }
        assert_eq!(own.votes(), MAX_VOTES);
        for bad in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "fe80::1"] {
            own.note_vote(peer(201), bad.parse().unwrap(), at(201));
        }
        let named = own.changed(at(202)).unwrap();
        assert_eq!(named, [ip(199), ip(198), ip(197), ip(196)]);
    }
}
