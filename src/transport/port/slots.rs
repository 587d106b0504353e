//! Bounds of what goes on, in all and for each host.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::types::host_of;

/// Counts of what goes on for each host. Holds no host with none.
#[derive(Debug, Default)]
pub(super) struct Slots {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: u32,
    of_host: HashMap<IpAddr, u32>,
}

/// Most that may go on at once; at least one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    pub(super) total: u32,
    /// For one host; `None` where it says nothing, since all come from a proxy.
    pub(super) of_host: Option<u32>,
}

/// Bound that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Total(u32),
    OfHost(u32),
}

/// Permission for one; given back when dropped.
#[derive(Debug)]
pub(in crate::transport) struct Slot {
    slots: Arc<Slots>,
    /// The host, where it counts.
    host: Option<IpAddr>,
}

impl Slots {
    /// # Errors
    /// The bound that leaves no room.
    pub(super) fn enter(this: &Arc<Self>, ip: IpAddr, most: Most) -> Result<Slot, Full> {
        let mut counts = this.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= most.total.max(1) {
            return Err(Full::Total(most.total));
        }
        let host = most.of_host.map(|_| host_of(ip));
        if let (Some(host), Some(limit)) = (host, most.of_host) {
            let count = counts.of_host.entry(host).or_default();
            if *count >= limit.max(1) {
                return Err(Full::OfHost(limit));
            }
            *count += 1;
        }
        counts.total += 1;
        Ok(Slot { slots: Arc::clone(this), host })
    }
}

impl Slots {
    /// The host with most, where it has at least two more than another.
    pub(super) fn fullest(&self, than: IpAddr) -> Option<IpAddr> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.of_host.get(&host_of(than)).copied().unwrap_or_default();
        let (host, most) = counts.of_host.iter().max_by_key(|(host, count)| (**count, **host))?;
        (*most >= own + 2).then_some(*host)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.slots.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        let Some(host) = self.host else { return };
        if let Some(count) = counts.of_host.get_mut(&host) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.of_host.remove(&host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_for_each_host_and_given_back() {
        let slots = Arc::new(Slots::default());
        let most = Most { total: 6, of_host: Some(2) };
        let enter = |ip: &str| Slots::enter(&slots, ip.parse().unwrap(), most);
        let both = [enter("1.2.3.4"), enter("::ffff:1.2.3.4")];
        assert!(both.iter().all(Result::is_ok));
        assert_eq!(enter("1.2.3.4").unwrap_err(), Full::OfHost(2));
        let _other = enter("1.2.3.5").unwrap();
        let v6 = [enter("2001:db8::1"), enter("2001:db8::2")];
        assert_eq!(enter("2001:db8:0:0:ffff::3").unwrap_err(), Full::OfHost(2));
        let last = enter("2001:db8:0:1::1").unwrap();
        assert_eq!(enter("1.2.3.6").unwrap_err(), Full::Total(6));
        drop((both, v6, last));
        assert!(enter("1.2.3.4").is_ok());
        let three = [(); 3].map(|()| {
            let most = Most { total: 6, of_host: Some(3) };
            Slots::enter(&slots, "1.2.3.4".parse().unwrap(), most)
        });
        let fullest = |ip: &str| slots.fullest(ip.parse().unwrap());
        assert_eq!(fullest("1.2.3.6"), "1.2.3.4".parse().ok());
        assert_eq!((fullest("1.2.3.4"), three.len()), (None, 3));
        drop(three);
        assert_eq!(fullest("1.2.3.6"), None);
        let unknown = Most { total: 3, of_host: None };
        let proxied = [(); 2].map(|()| Slots::enter(&slots, "1.2.3.7".parse().unwrap(), unknown));
        assert!(proxied.iter().all(Result::is_ok));
        let full = Slots::enter(&slots, "1.2.3.7".parse().unwrap(), unknown).unwrap_err();
        assert_eq!(full, Full::Total(3));
        let counts = slots.counts.lock().unwrap();
        assert_eq!((counts.total, counts.of_host.len()), (3, 1));
    }
}
