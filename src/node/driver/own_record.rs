//! Record in which the node tells others its addresses.
//!
//! Its number rises with every record, over restarts too: the newest one stands in the peer store, as
//! what is known of the node itself, and a start goes on [`RESERVED`] above it, since the last few may
//! not have been written. No clock has a say in it, so none can turn the order round; where nothing is
//! stored, the first number is the time of day, as a guess at what an earlier run may have used. Should
//! others hold a higher one all the same, they say so, and the next number exceeds that.

use std::net::{IpAddr, SocketAddr};

use crate::identity::Identity;
use crate::types::{Endpoint, PeerRecord, RecordDraft, StoredPeer, WallTime};

/// Number of records that an earlier run may have signed without them being stored.
const RESERVED: u64 = 1024;

/// Material of the node's own record.
#[derive(Debug)]
pub(in crate::node) struct OwnRecord {
    seq: u64,
    /// Port to combine with addresses that peers report; `None` when the addresses are known.
    learn_port: Option<u16>,
    endpoints: Vec<Endpoint>,
}

impl OwnRecord {
    /// Material of a node that listens at `listening` and tells others of `advertise`, whose earlier
    /// run left `stored`.
    pub(in crate::node) fn new(
        advertise: &[Endpoint],
        listening: Option<SocketAddr>,
        stored: Option<&StoredPeer>,
        now: WallTime,
    ) -> Self {
        let (endpoints, learn_port) = match listening {
            // Who must answer there is who signs.
            _ if !advertise.is_empty() => {
                (advertise.iter().map(|endpoint| endpoint.with_pin(None)).collect(), None)
            }
            Some(address) if address.ip().is_unspecified() => (Vec::new(), Some(address.port())),
            Some(address) => (vec![Endpoint::from(address)], None),
            None => (Vec::new(), None),
        };
        let last = stored.and_then(|stored| Some(stored.record.as_ref()?.seq()));
        let seq = last.map_or(now.as_millis(), |last| last.saturating_add(RESERVED));
        Self { seq, learn_port, endpoints }
    }

    /// Signs the record; the first answer is what the peer store keeps of it.
    pub(in crate::node) fn sign(
        &self,
        identity: &Identity,
        now: WallTime,
    ) -> (StoredPeer, PeerRecord) {
        let (peer, endpoints) = (identity.peer_id(), self.endpoints.clone());
        let draft = RecordDraft { peer, seq: self.seq, issued: now, endpoints };
        let record = identity.sign_record(draft);
        // Up now, as far as that can be said of oneself: so it is the last that a store lets go.
        let (kept, last_up) = (Some(record.clone()), Some(now));
        (StoredPeer { record: kept, last_up, ..StoredPeer::new(peer) }, record)
    }

    /// The addresses at which others are told to dial, best first.
    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Takes the addresses under which peers see this node, best first; `true` when that makes a new
    /// record.
    pub(super) fn learn(&mut self, addresses: &[IpAddr]) -> bool {
        let Some(port) = self.learn_port else { return false };
        let learned = addresses.iter().map(|ip| Endpoint::from(SocketAddr::new(*ip, port)));
        let learned: Vec<_> = learned.collect();
        if learned == self.endpoints {
            return false;
        }
        self.endpoints = learned;
        self.renew(self.seq);
        true
    }

    /// Lets the next record exceed `above` and all earlier ones. At the end of the numbers it stays
    /// there, and others keep what they have.
    pub(super) fn renew(&mut self, above: u64) {
        self.seq = self.seq.max(above).saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_over_restarts_whatever_the_clock_says() {
        let identity = Identity::from_seed([1; 32]);
        let ahead = WallTime::from_millis(1_800_000_000_000);
        let right = WallTime::from_millis(1_700_000_000_000);
        let seq = |record: &OwnRecord| record.sign(&identity, right).1.seq();
        let first = OwnRecord::new(&[], None, None, ahead);
        assert_eq!(seq(&first), ahead.as_millis());
        let (stored, _) = first.sign(&identity, ahead);
        let mut second = OwnRecord::new(&[], None, Some(&stored), right);
        assert!(seq(&second) > seq(&first));
        second.renew(seq(&first) + 5000);
        assert_eq!(seq(&second), seq(&first) + 5001);
        second.renew(u64::MAX);
        second.renew(0);
        assert_eq!(seq(&second), u64::MAX);
        let (stored, _) = second.sign(&identity, right);
        let again = OwnRecord::new(&[], None, Some(&stored), right);
        assert_eq!(seq(&again), u64::MAX, "and no panic");
    }

    #[test]
    fn learned_addresses_replace_each_other_and_configured_ones_stay() {
        let any: SocketAddr = "[::]:7".parse().unwrap();
        let now = WallTime::from_millis(1);
        let mut record = OwnRecord::new(&[], Some(any), None, now);
        let (a, b): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "::ffff:10.0.0.2".parse().unwrap());
        assert!(record.learn(&[a]) && !record.learn(&[a]) && record.learn(&[b, a]));
        let (_, signed) = record.sign(&Identity::from_seed([1; 32]), now);
        let texts: Vec<_> = signed.endpoints().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.2:7", "10.0.0.1:7"]);
        let advertise = ["h:1".parse().unwrap()];
        assert!(!OwnRecord::new(&advertise, Some(any), None, now).learn(&[a]));
        let fixed = "10.0.0.9:7".parse().unwrap();
        assert!(!OwnRecord::new(&[], Some(fixed), None, now).learn(&[a]));
    }
}
