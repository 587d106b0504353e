//! Bounds of the handshakes from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::types::host_of;

/// Handshakes under way for each address. Holds no address without one.
#[derive(Debug, Default)]
pub(super) struct HandshakeSlots {
    counts: Mutex<HashMap<IpAddr, u32>>,
}

/// Permission for one handshake; given back when dropped.
#[derive(Debug)]
pub(super) struct HandshakeSlot {
    slots: Arc<HandshakeSlots>,
    key: IpAddr,
}

impl HandshakeSlots {
    pub(super) fn enter(this: &Arc<Self>, ip: IpAddr, limit: u32) -> Option<HandshakeSlot> {
        let key = host_of(ip);
        let mut counts = this.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_default();
        if *count >= limit.max(1) {
            return None;
        }
        *count += 1;
        Some(HandshakeSlot { slots: Arc::clone(this), key })
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        let mut counts = self.slots.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_for_each_host_and_given_back() {
        let slots = Arc::new(HandshakeSlots::default());
        let enter = |ip: &str| HandshakeSlots::enter(&slots, ip.parse().unwrap(), 2);
        let both = [enter("1.2.3.4"), enter("::ffff:1.2.3.4")];
        assert!(both.iter().all(Option::is_some));
        assert!(enter("1.2.3.4").is_none());
        let _other = enter("1.2.3.5").unwrap();
        let v6 = [enter("2001:db8::1"), enter("2001:db8::2")];
        assert!(enter("2001:db8:0:0:ffff::3").is_none());
        assert!(enter("2001:db8:0:1::1").is_some());
        drop((both, v6));
        assert!(enter("1.2.3.4").is_some());
        assert_eq!(slots.counts.lock().unwrap().len(), 1);
    }
}
