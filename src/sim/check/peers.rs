//! The checkers of peers: their records, their links, and their bans.

use std::collections::{BTreeMap, BTreeSet};

use super::checker::{Checker, Seen};
use crate::protocol::{Input, Output};
use crate::sim::id_map::IdMap;
use crate::types::{LinkId, Message, PeerId};

/// A peer record with a lower sequence number never replaces a higher one, unless the peer itself
/// sent it on a link of its own. What was ever the highest still bounds what comes from others.
#[derive(Debug, Default)]
pub struct RecordsMonotone {
    newest: IdMap<(usize, PeerId), u64>,
    /// Peers at the other ends of links.
    remotes: BTreeMap<(usize, LinkId), PeerId>,
    /// Numbers that peers themselves said on their links, by the node that they said it to.
    said: BTreeSet<(usize, PeerId, u64)>,
}

impl RecordsMonotone {
    fn note_said(&mut self, node: usize, link: LinkId, message: &Message) {
        let Some(remote) = self.remotes.get(&(node, link)) else { return };
        let records = match message {
            Message::Hello(hello) => std::slice::from_ref(&hello.record),
            Message::Peers { records, .. } => records,
            _ => return,
        };
        for own in records.iter().filter(|record| record.peer() == *remote) {
            self.said.insert((node, *remote, own.seq()));
        }
    }
}

impl Checker for RecordsMonotone {
    fn name(&self) -> &'static str {
        "records_monotone"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        match seen {
            Seen::Started { node, blank, .. } => {
                self.remotes.retain(|(n, _), _| n != node);
                self.said.retain(|(n, ..)| n != node);
                if *blank {
                    self.newest.retain(|(n, _), _| n != node);
                }
            }
            Seen::Input { node, input: Input::LinkOpened { link, remote, .. } } => {
                self.remotes.insert((*node, *link), *remote);
            }
            Seen::Input { node, input: Input::Received { link, messages, .. } } => {
                for message in messages {
                    self.note_said(*node, *link, message);
                }
            }
            Seen::Output { node, output: Output::ForgetPeer(peer) } => {
                self.newest.remove(&(*node, *peer));
            }
            Seen::Output { node, output: Output::SavePeer(saved) } => {
                let Some(record) = &saved.record else { return 0 };
                let (peer, seq) = (saved.peer, record.draft.seq);
                let newest = self.newest.entry((*node, peer)).or_insert(seq);
                if seq < *newest && !self.said.contains(&(*node, peer, seq)) {
                    found.push(format!("node {node}: record {seq} of {peer} after {newest}"));
                }
                *newest = seq.max(*newest);
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
