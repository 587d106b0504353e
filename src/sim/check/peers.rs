//! The checkers of peers: their records, their links, and their bans.

use std::collections::BTreeSet;

use super::checker::{Checker, Seen};
use crate::protocol::Output;
use crate::sim::id_map::IdMap;
use crate::types::PeerId;

/// A peer record with a lower sequence number never replaces a higher one.
#[derive(Debug, Default)]
pub struct RecordsMonotone {
    newest: IdMap<(usize, PeerId), u64>,
}

impl Checker for RecordsMonotone {
    fn name(&self) -> &'static str {
        "records_monotone"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        match seen {
            Seen::Started { node, blank: true, .. } => {
                self.newest.retain(|(n, _), _| n != node);
            }
            Seen::Output { node, output: Output::ForgetPeer(peer) } => {
                self.newest.remove(&(*node, *peer));
            }
            Seen::Output { node, output: Output::SavePeer(saved) } => {
                let Some(record) = &saved.record else { return 0 };
                let (peer, seq) = (saved.peer, record.draft.seq);
                let old = self.newest.insert((*node, peer), seq);
                if old.is_some_and(|old| old > seq) {
                    found.push(format!("node {node}: record {seq} of {peer} after {old:?}"));
                }
                return 1;
            }
            _ => {}
        }
        0
    }
}

/// No node has two links to one peer, or one to itself.
#[derive(Debug)]
pub struct OneLinkPerPeer;

impl Checker for OneLinkPerPeer {
    fn name(&self) -> &'static str {
        "one_link_per_peer"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        let Seen::Turn { node, links, .. } = seen else { return 0 };
        let mut peers = BTreeSet::new();
        for link in *links {
            if !peers.insert(link.peer) {
                found.push(format!("node {node} has two links to {}", link.peer));
            }
        }
        1
    }
}

/// Nobody is banned who only lost messages, was slow or was silent.
#[derive(Debug)]
pub struct NoBanForLoss {
    /// Peers whose ban is just.
    pub hostile: BTreeSet<PeerId>,
}

impl Checker for NoBanForLoss {
    fn name(&self) -> &'static str {
        "no_ban_for_loss"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        if let Seen::Hostile { peer } = seen {
            self.hostile.insert(*peer);
        }
        let Seen::Output { node, output } = seen else { return 0 };
        if let Output::SaveBan(ban) = output
            && !self.hostile.contains(&ban.peer)
        {
            found.push(format!("node {node} banned {}: {}", ban.peer, ban.reason));
        }
        u64::from(matches!(output, Output::Close { .. } | Output::SaveBan(_)))
    }
}
