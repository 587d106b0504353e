//! Addresses that strangers come from.
//!
//! A stranger who may not join costs a handshake to find out. So each refusal counts against the
//! address that it came from, and an address with more than 32 at once, or 30 a minute for long, is
//! *shunned* for a minute: what comes from there meanwhile is refused before any handshake, by
//! transports that can. Links that are up stay. What counts as one host is what `host_of` says.
//!
//! Tested by: the tests below, `protocol::tests::members`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::types::{MonoTime, host_of};

/// Time in which one refusal is forgotten.
const FORGET_ONE: Duration = Duration::from_secs(2);
/// Time that refusals may take to be forgotten before their host is shunned.
const MAX_DEBT: Duration = Duration::from_secs(64);
/// Time for which a host is shunned.
const SHUN: Duration = Duration::from_mins(1);
/// Maximum number of hosts that are remembered.
pub(in crate::protocol) const MAX_HOSTS: usize = 4096;
/// Minimum time between two warnings.
const WARN_EVERY: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(in crate::protocol) struct Strangers {
    /// Time when all refusals of a host are forgotten, and until when it is shunned.
    hosts: BTreeMap<IpAddr, (MonoTime, MonoTime)>,
    warned: Option<MonoTime>,
    /// Strangers since the last warning.
    unsaid: u64,
}

impl Strangers {
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Notes that a stranger came from `ip`; returns for how long its host is to be shunned from now
    /// on, if this was once too often.
    pub(in crate::protocol) fn note(&mut self, ip: IpAddr, now: MonoTime) -> Option<Duration> {
        let host = host_of(ip);
        if self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(&host) {
            self.make_room(now);
        }
        let (forgotten, shunned) = self.hosts.entry(host).or_insert((now, MonoTime::ZERO));
        *forgotten = (*forgotten).max(now) + FORGET_ONE;
        if forgotten.since(now) <= MAX_DEBT || *shunned > now {
            return None;
        }
        *shunned = now + SHUN;
        Some(SHUN)
    }

    pub(in crate::protocol) fn is_shunned(&self, ip: IpAddr, now: MonoTime) -> bool {
        self.hosts.get(&host_of(ip)).is_some_and(|(_, shunned)| *shunned > now)
    }

    /// Counts one more stranger; returns how many to warn of, where the last warning is
    /// long enough ago.
    pub(in crate::protocol) fn warning(&mut self, now: MonoTime) -> Option<u64> {
        self.unsaid += 1;
        if self.warned.is_some_and(|at| now.since(at) < WARN_EVERY) {
            return None;
        }
        self.warned = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    fn make_room(&mut self, now: MonoTime) {
        self.hosts.retain(|_, (forgotten, shunned)| (*forgotten).max(*shunned) > now);
        if self.hosts.len() >= MAX_HOSTS {
            let first = self.hosts.iter().min_by_key(|(_, until)| **until).map(|(host, _)| *host);
            if let Some(first) = first {
                self.hosts.remove(&first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn a_few_refusals_are_forgiven_and_a_flood_is_shunned() {
        let mut strangers = Strangers::default();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        // A member with a wrong secret, who comes again every few seconds, for ever.
        for n in 0..1000 {
            assert_eq!(strangers.note(ip, at(3 * n)), None);
        }
        let shuns = (0..40).filter(|_| strangers.note(ip, at(5000)).is_some()).count();
        assert_eq!(shuns, 1, "said once");
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(strangers.is_shunned(mapped, at(5059)) && !strangers.is_shunned(ip, at(5060)));
        assert!(!strangers.is_shunned("192.0.2.2".parse().unwrap(), at(5001)));
    }

    #[test]
    fn an_ipv6_host_has_all_of_its_64() {
        let mut strangers = Strangers::default();
        let ip = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]);
        let shunned = (0..33).any(|n| strangers.note(ip(n), at(1)).is_some());
        assert!(shunned && strangers.is_shunned(ip(999), at(2)));
        assert!(!strangers.is_shunned([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1].into(), at(2)));
        let local = |n: u16| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, n]);
        assert!((0..33).any(|_| strangers.note(local(1), at(1)).is_some()));
        assert!(!strangers.is_shunned(local(2), at(2)));
    }

    #[test]
    fn hosts_are_bounded_and_the_oldest_go() {
        let mut strangers = Strangers::default();
        for n in 0..2 * u32::try_from(MAX_HOSTS).unwrap() {
            strangers.note(IpAddr::from(n.to_be_bytes()), at(1));
        }
        assert_eq!(strangers.len(), MAX_HOSTS);
        strangers.note("192.0.2.1".parse().unwrap(), at(100));
        assert_eq!(strangers.len(), 1, "the others are forgotten");
    }

    #[test]
    fn warnings_are_rare_and_count() {
        let mut strangers = Strangers::default();
        assert_eq!(strangers.warning(at(1)), Some(1));
        assert!((0..10_000).all(|_| strangers.warning(at(60)).is_none()));
        assert_eq!(strangers.warning(at(61)), Some(10_001));
    }
}
