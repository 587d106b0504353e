//! Record in which the node tells others its addresses.
//!
//! Its number rises with every record, over restarts too: the newest one stands in the peer store, as
//! what is known of the node itself, and a start goes on [`RESERVED`] above it, since the last few may
//! not have been written. No clock has a say in it, so none can turn the order round; where nothing is
//! stored, the first number is the time of day, as a guess at what an earlier run may have used. Should
//! others hold a higher one all the same, they say so, and the next number exceeds that.

use std::net::SocketAddr;

use crate::identity::Identity;
use crate::types::{Endpoint, PeerRecord, RecordDraft, StoredPeer, WallTime};

/// Number of records that an earlier run may have signed without them being stored.
const RESERVED: u64 = 1024;

/// Material of the node's own record.
#[derive(Debug)]
pub(in crate::node) struct OwnRecord {
    seq: u64,
    endpoints: Vec<Endpoint>,
}

impl OwnRecord {
    /// Material of a node that listens at `listening` and tells others of `advertise`, whose earlier
    /// run left `stored`. What it listens at counts where that is one address; what else is told of, the
    /// core says later.
    pub(in crate::node) fn new(
        advertise: &[Endpoint],
        listening: Option<SocketAddr>,
        stored: Option<&StoredPeer>,
        now: WallTime,
    ) -> Self {
        // Who must answer there is who signs.
        let mut endpoints: Vec<_> = advertise.iter().map(|e| e.with_pin(None)).collect();
        if let Some(address) = listening.filter(|address| !address.ip().is_unspecified())
            && endpoints.is_empty()
        {
            endpoints.push(Endpoint::from(address));
        }
        let last = stored.and_then(|stored| Some(stored.record.as_ref()?.seq()));
        let seq = last.map_or(now.as_millis(), |last| last.saturating_add(RESERVED));
        Self { seq, endpoints }
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

    /// Takes the addresses that others are to be told, best first; `true` when that makes a new record.
    pub(super) fn set_endpoints(&mut self, endpoints: Vec<Endpoint>) -> bool {
        if endpoints == self.endpoints {
            return false;
        }
        self.endpoints = endpoints;
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
    fn the_first_record_names_what_is_known_and_the_next_ones_what_is_said() {
        let any: SocketAddr = "[::]:7".parse().unwrap();
        let now = WallTime::from_millis(1);
        let shown = |record: &OwnRecord| -> Vec<String> {
            let (_, signed) = record.sign(&Identity::from_seed([1; 32]), now);
            signed.endpoints().iter().map(ToString::to_string).collect()
        };
        let mut record = OwnRecord::new(&[], Some(any), None, now);
        assert_eq!(shown(&record), [""; 0]);
        let endpoints = |texts: &[&str]| -> Vec<Endpoint> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let (a, b) = (endpoints(&["10.0.0.1:7"]), endpoints(&["10.0.0.2:7", "10.0.0.1:7"]));
        assert!(record.set_endpoints(a.clone()) && !record.set_endpoints(a));
        assert!(record.set_endpoints(b));
        assert_eq!(shown(&record), ["10.0.0.2:7", "10.0.0.1:7"]);
        let fixed: SocketAddr = "10.0.0.9:7".parse().unwrap();
        assert_eq!(shown(&OwnRecord::new(&[], Some(fixed), None, now)), ["10.0.0.9:7"]);
        let advertise = endpoints(&["h:1"]);
        assert_eq!(shown(&OwnRecord::new(&advertise, Some(fixed), None, now)), ["h:1"]);
    }
}
