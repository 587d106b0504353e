//! Record in which the node tells others its addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::node::clock::wall_now;
use crate::types::{Endpoint, PeerId, RecordDraft, WallTime};

/// Maximum number of own addresses learned from peers that are advertised.
const MAX_LEARNED: usize = 4;

/// Material of the node's own record.
#[derive(Debug)]
pub(in crate::node) struct OwnRecord {
    pub(in crate::node) seq: u64,
    /// Port to combine with addresses that peers report; `None` when the addresses are known.
    pub(in crate::node) learn_port: Option<u16>,
    pub(in crate::node) endpoints: Vec<Endpoint>,
    pub(in crate::node) learned: BTreeSet<IpAddr>,
}

impl OwnRecord {
    pub(in crate::node) fn draft(&self, peer: PeerId, issued: WallTime) -> RecordDraft {
        RecordDraft { peer, seq: self.seq, issued, endpoints: self.endpoints.clone() }
    }

    /// Takes the address under which a peer sees this node; `true` when that makes a new record.
    pub(super) fn learn(&mut self, ip: IpAddr) -> bool {
        let Some(port) = self.learn_port else { return false };
        if self.learned.len() >= MAX_LEARNED || !self.learned.insert(ip) {
            return false;
        }
        self.endpoints.push(Endpoint::from(SocketAddr::new(ip, port)));
        self.renew();
        true
    }

    pub(super) fn renew(&mut self) {
        self.seq = (self.seq + 1).max(wall_now().as_millis());
    }
}
