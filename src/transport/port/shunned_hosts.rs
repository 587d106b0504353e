//! Hosts that the node asked to leave alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::types::host_of;

/// Maximum number of hosts that are remembered; the node knows no more.
const MAX_HOSTS: usize = 4096;

/// Hosts whose connections are refused unread, each until some time.
#[derive(Debug, Default)]
pub(in crate::transport) struct ShunnedHosts {
    until: Mutex<HashMap<IpAddr, Instant>>,
}

impl ShunnedHosts {
    pub(in crate::transport) fn add(&self, ip: IpAddr, time: Duration) {
        let now = Instant::now();
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= MAX_HOSTS {
            until.retain(|_, end| *end > now);
        }
        if until.len() < MAX_HOSTS
            && let Some(end) = now.checked_add(time)
        {
            until.insert(host_of(ip), end);
        }
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let host = host_of(ip);
        match until.get(&host) {
            None => false,
            Some(end) if *end > Instant::now() => true,
            Some(_) => {
                until.remove(&host);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_is_shunned_for_its_time() {
        let hosts = ShunnedHosts::default();
        let ip = |text: &str| text.parse().unwrap();
        hosts.add(ip("192.0.2.1"), Duration::from_mins(1));
        assert!(hosts.contains(ip("::ffff:192.0.2.1")) && !hosts.contains(ip("192.0.2.2")));
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(!hosts.contains(ip("192.0.2.1")));
        assert!(hosts.until.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_are_bounded() {
        let hosts = ShunnedHosts::default();
        for n in 0..2 * u32::try_from(MAX_HOSTS).unwrap() {
            hosts.add(IpAddr::from(n.to_be_bytes()), Duration::from_mins(1));
        }
        assert_eq!(hosts.until.lock().unwrap().len(), MAX_HOSTS);
        tokio::time::advance(Duration::from_mins(1)).await;
        hosts.add("192.0.2.1".parse().unwrap(), Duration::MAX);
        hosts.add("192.0.2.2".parse().unwrap(), Duration::from_mins(1));
        assert!(hosts.contains("192.0.2.2".parse().unwrap()));
    }
}
