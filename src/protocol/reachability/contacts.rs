//! Hosts that there was a connection with until lately, or a dial to.
//!
//! What a node has sent packets to may be let in by its NAT or its firewall, and nobody else: so whoever is
//! in here can prove nothing. Counted is by IPv4 address and by /64 of IPv6.
//!
//! Tested by: the tests below, `protocol::tests::reachability`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::types::{MonoTime, host_of};

/// Time for which a host counts after its last connection ended, or the last dial to it began.
const REMEMBERED: Duration = Duration::from_mins(10);
/// Maximum number of hosts; the one that is gone longest is forgotten first.
pub(in crate::protocol) const MAX_CONTACTS: usize = 1024;

#[derive(Debug, Default)]
pub(in crate::protocol) struct Contacts(BTreeMap<IpAddr, MonoTime>);

impl Contacts {
    /// A connection with a host has ended, or a dial to it begins.
    pub(super) fn note(&mut self, ip: IpAddr, now: MonoTime) {
        let host = host_of(ip);
        if self.0.len() >= MAX_CONTACTS && !self.0.contains_key(&host) {
            self.0.retain(|_, ended| now.since(*ended) < REMEMBERED);
            let oldest = self.0.iter().min_by_key(|(_, ended)| **ended).map(|(host, _)| *host);
            if let Some(oldest) = oldest.filter(|_| self.0.len() >= MAX_CONTACTS) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(host, now);
    }

    /// Reports whether there was a connection with the host until lately, or a dial to it.
    pub(super) fn has(&self, ip: IpAddr, now: MonoTime) -> bool {
        self.0.get(&host_of(ip)).is_some_and(|ended| now.since(*ended) < REMEMBERED)
    }

    /// Number of hosts remembered.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn a_host_is_remembered_for_ten_minutes_and_a_prefix_counts_as_one() {
        let mut contacts = Contacts::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        contacts.note(ip("192.0.2.1"), at(0));
        contacts.note(ip("2001:db8::1"), at(0));
        assert!(contacts.has(ip("::ffff:192.0.2.1"), at(599)));
        assert!(contacts.has(ip("2001:db8::ffff"), at(599)));
        assert!(!contacts.has(ip("192.0.2.2"), at(0)) && !contacts.has(ip("192.0.2.1"), at(600)));
    }

    #[test]
    fn nobody_fills_the_table() {
        let mut contacts = Contacts::default();
        for n in 0..5000u32 {
            contacts.note(IpAddr::from(n.to_be_bytes()), at(u64::from(n / 100)));
            assert!(contacts.len() <= MAX_CONTACTS);
        }
        assert!(contacts.has(IpAddr::from(4999u32.to_be_bytes()), at(50)));
    }
}
