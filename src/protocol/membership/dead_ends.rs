//! Addresses that led to no peer: those of names, and our own.
//!
//! A name may stand for several addresses, and some of them may answer without being what was
//! looked for: another network, another service, ourselves. Such an address is left out of the next
//! attempts at its name, for [`FAILED_FOR`] or until nothing else is left, so that an attempt never
//! begins where the last one ended. "That is me" is said of a socket address and never of a name,
//! only when our own key was proven there and this process is who has it, and holds for
//! [`OWN_FOR`]: somebody else may live there by then.
//!
//! Tested by: the tests below, `sim::tests::addresses`, `protocol::tests::addresses`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::types::{Endpoint, MonoTime};

/// Time for which an address is left out after it failed.
const FAILED_FOR: Duration = Duration::from_mins(10);
/// Time for which an address counts as our own.
pub(in crate::protocol) const OWN_FOR: Duration = Duration::from_mins(2);
/// Maximum number of names whose addresses are remembered.
pub(in crate::protocol) const MAX_NAMES: usize = 64;
/// Maximum number of addresses remembered of a name.
pub(in crate::protocol) const MAX_ADDRESSES: usize = 32;
/// Maximum number of own addresses remembered.
pub(in crate::protocol) const MAX_OWN: usize = 64;

#[derive(Debug, Default)]
pub(in crate::protocol) struct DeadEnds {
    /// Addresses that failed and when, by name; the oldest first.
    failed: BTreeMap<Endpoint, VecDeque<(SocketAddr, MonoTime)>>,
    /// Own addresses, and when that was last proven.
    own: BTreeMap<SocketAddr, MonoTime>,
}

impl DeadEnds {
    /// An address of a name answered and is not what was looked for.
    pub(super) fn note_failed(&mut self, name: &Endpoint, address: SocketAddr, now: MonoTime) {
        if !self.failed.contains_key(name) && self.failed.len() >= MAX_NAMES {
            let latest = |list: &VecDeque<(_, MonoTime)>| list.back().map(|(_, at)| *at);
            let stalest = self.failed.iter().min_by_key(|(_, list)| latest(list));
            if let Some(stalest) = stalest.map(|(name, _)| name.clone()) {
                self.failed.remove(&stalest);
            }
        }
        let list = self.failed.entry(name.clone()).or_default();
        list.retain(|(failed, _)| *failed != address);
        list.push_back((address, now));
        if list.len() > MAX_ADDRESSES {
            list.pop_front();
        }
    }

    /// An address of a name led to a peer.
    pub(super) fn note_good(&mut self, name: &Endpoint, address: SocketAddr) {
        if let Some(list) = self.failed.get_mut(name) {
            list.retain(|(failed, _)| *failed != address);
            if list.is_empty() {
                self.failed.remove(name);
            }
        }
    }

    /// Gives all addresses of a name another chance.
    pub(super) fn forget(&mut self, name: &Endpoint) {
        self.failed.remove(name);
    }

    /// Returns the addresses of a name that failed lately.
    pub(super) fn failed(
        &self,
        name: &Endpoint,
        now: MonoTime,
    ) -> impl Iterator<Item = SocketAddr> + '_ {
        let lately = move |(_, at): &&(SocketAddr, MonoTime)| now.since(*at) < FAILED_FOR;
        self.failed.get(name).into_iter().flatten().filter(lately).map(|(address, _)| *address)
    }

    /// The transport proved that we ourselves are at an address.
    pub(in crate::protocol) fn note_own(&mut self, address: SocketAddr, now: MonoTime) {
        if !self.own.contains_key(&address) && self.own.len() >= MAX_OWN {
            let oldest = self.own.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address);
            if let Some(oldest) = oldest {
                self.own.remove(&oldest);
            }
        }
        self.own.insert(address, now);
    }

    /// Returns until when an address counts as our own, if it does.
    pub(in crate::protocol) fn own_until(
        &self,
        endpoint: &Endpoint,
        now: MonoTime,
    ) -> Option<MonoTime> {
        let until = *self.own.get(&endpoint.socket_addr()?)? + OWN_FOR;
        (now < until).then_some(until)
    }

    /// Returns the addresses that count as our own.
    pub(super) fn own(&self, now: MonoTime) -> impl Iterator<Item = SocketAddr> + '_ {
        let fresh = move |(_, at): &(&SocketAddr, &MonoTime)| now.since(**at) < OWN_FOR;
        self.own.iter().filter(fresh).map(|(address, _)| *address)
    }

    /// Number of names, the most addresses of one, and own addresses.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn sizes(&self) -> [usize; 3] {
        let most = self.failed.values().map(VecDeque::len).max().unwrap_or(0);
        [self.failed.len(), most, self.own.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_secs(seconds))
    }

    fn address(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], n))
    }

    #[test]
    fn a_failed_address_is_left_out_for_a_while_or_until_it_is_good() {
        let mut ends = DeadEnds::default();
        let name: Endpoint = "peers.example.com:1".parse().unwrap();
        let failed = |ends: &DeadEnds, now| ends.failed(&name, now).collect::<Vec<_>>();
        ends.note_failed(&name, address(1), at(0));
        ends.note_failed(&name, address(2), at(300));
        assert_eq!(failed(&ends, at(301)), [address(1), address(2)]);
        assert_eq!(failed(&ends, at(600)), [address(2)]);
        ends.note_good(&name, address(2));
        assert_eq!(failed(&ends, at(300)), [address(1)]);
        ends.forget(&name);
        assert_eq!(failed(&ends, at(1)), []);
    }

    #[test]
    fn what_is_our_own_is_an_address_and_ends() {
        let mut ends = DeadEnds::default();
        let here: Endpoint = "10.0.0.1:1".parse().unwrap();
        ends.note_own(address(1), at(5));
        assert_eq!(ends.own_until(&here, at(6)), Some(at(125)));
        assert_eq!(ends.own_until(&"10.0.0.1:2".parse().unwrap(), at(6)), None);
        assert_eq!(ends.own_until(&"peers.example.com:1".parse().unwrap(), at(6)), None);
        assert_eq!(ends.own(at(124)).collect::<Vec<_>>(), [address(1)]);
        assert_eq!((ends.own_until(&here, at(125)), ends.own(at(125)).count()), (None, 0));
    }

    #[test]
    fn whatever_is_noted_it_stays_within_its_bounds() {
        let mut ends = DeadEnds::default();
        for n in 1..2000 {
            let name: Endpoint = format!("h{}:1", n % 100).parse().unwrap();
            ends.note_failed(&name, address(n), at(u64::from(n)));
            ends.note_failed(&"h0:1".parse().unwrap(), address(n), at(u64::from(n)));
            ends.note_own(address(n), at(u64::from(n)));
        }
        assert_eq!(ends.sizes(), [MAX_NAMES, MAX_ADDRESSES, MAX_OWN]);
        assert_eq!(ends.own(at(2000)).last(), Some(address(1999)), "the newest is there");
    }
}
