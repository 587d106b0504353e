//! The checkers: invariants of the protocol, each a named type that looks at everything a node is
//! given and does. Each has a test that shows it a violation and sees it bite.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

pub use crate::protocol::Gauge;
use crate::protocol::{CallId, Input, Judgement, LinkView, Output, Ticket};
use crate::types::{
    Message, PIECE_BYTES, PeerId, RangeContent, Reconcile, TransactionId, Verdict, pieces_of,
};

use super::ids::{FastMap, NodeSet};
use super::per_link::PerLink;

/// What one running node holds when nothing is under way any more.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// Which node.
    pub node: usize,
    /// Nodes of the same number are connected over links.
    pub group: usize,
    /// Unexpired transactions in its store.
    pub held: BTreeSet<TransactionId>,
    /// Live transactions of topics that it does not carry.
    pub spared: BTreeSet<TransactionId>,
    /// Unexpired transactions whose publish it answered with Ok and whose disk was not lost since.
    pub promised: BTreeSet<TransactionId>,
}

/// Something a checker gets to see.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Seen<'a> {
    /// A node starts with these transactions on its disk.
    Started {
        /// Which node.
        node: usize,
        /// What its store holds.
        kept: &'a [TransactionId],
        /// Whether its disk is empty because it is new or was lost.
        blank: bool,
    },
    /// A node is given something.
    Input {
        /// Which node.
        node: usize,
        /// What.
        input: &'a Input,
    },
    /// A node does something.
    Output {
        /// Which node.
        node: usize,
        /// What.
        output: &'a Output,
    },
    /// A node has dealt with an input.
    Turn {
        /// Which node.
        node: usize,
        /// Its links.
        links: &'a [LinkView],
        /// Its sizes.
        gauges: &'a [Gauge],
    },
    /// A peer misbehaves from now on: banning it is just.
    Hostile {
        /// Who.
        peer: PeerId,
    },
    /// Nothing is under way.
    Calm {
        /// All running nodes.
        nodes: &'a [Holdings],
    },
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which checker.
    pub checker: &'static str,
    /// When, in simulated time.
    pub at: Duration,
    /// What it saw.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}: {}", self.checker, self.at, self.what)
    }
}

/// Pairs of node and transaction, one bit each.
#[derive(Debug, Default)]
struct Marks(FastMap<TransactionId, NodeSet>);

impl Marks {
    fn insert(&mut self, node: usize, id: TransactionId) -> bool {
        self.0.entry(id).or_default().insert(node)
    }

    fn remove(&mut self, node: usize, id: &TransactionId) {
        if let Some(nodes) = self.0.get_mut(id) {
            nodes.remove(node);
        }
    }

    fn contains(&self, node: usize, id: &TransactionId) -> bool {
        self.0.get(id).is_some_and(|nodes| nodes.contains(node))
    }

    /// A node starts with these and no others.
    fn restart(&mut self, node: usize, kept: &[TransactionId]) {
        self.0.values_mut().for_each(|nodes| {
            nodes.remove(node);
        });
        for id in kept {
            self.insert(node, *id);
        }
    }
}

/// What completions will come back for.
type Waiting = FastMap<(usize, Ticket), TransactionId>;

/// An invariant.
pub trait Checker: fmt::Debug {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Looks at something; adds to `found` what must not be, and returns how many checks it made.
    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64;
}

/// All checkers of this module; `hostile` are the peers that may be banned.
pub fn all(hostile: BTreeSet<PeerId>) -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(NoLoss),
        Box::new(AtMostOnce::default()),
        Box::new(StoreBeforePublished::default()),
        Box::new(VerifyBeforeForward::default()),
        Box::new(super::reservations::ReservationAcyclic::default()),
        Box::new(super::reservations::OneParent::default()),
        Box::new(Bounded),
        Box::new(ControlFirst::default()),
        Box::new(RecordsMonotone::default()),
        Box::new(OneLinkPerPeer),
        Box::new(NoBanForLoss { hostile }),
        Box::new(super::unwanted::Unwanted::default()),
        Box::new(super::flushed::OneFlush::default()),
    ]
}

/// What is accepted and unexpired is at every node that is connected to a holder and carries its
/// topic, and what was promised is somewhere.
#[derive(Debug)]
pub struct NoLoss;

impl Checker for NoLoss {
    fn name(&self) -> &'static str {
        "no_loss"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        let Seen::Calm { nodes } = seen else { return 0 };
        let mut groups: BTreeMap<usize, BTreeSet<TransactionId>> = BTreeMap::new();
        for node in *nodes {
            groups.entry(node.group).or_default().extend(&node.held);
        }
        for node in *nodes {
            let missing = groups[&node.group].difference(&node.held);
            let missing: Vec<_> = missing.filter(|id| !node.spared.contains(*id)).collect();
            if let Some(first) = missing.first() {
                let count = missing.len();
                found.push(format!("node {} misses {count}, for instance {first}", node.node));
            }
            if let Some(first) = node.promised.difference(&node.held).next() {
                found.push(format!("node {} promised {first} and has it no more", node.node));
            }
        }
        nodes.len() as u64
    }
}

/// Each id is put into a node's log at most once.
#[derive(Debug, Default)]
pub struct AtMostOnce {
    under_way: Waiting,
    /// Stored or about to be.
    taken: Marks,
}

impl Checker for AtMostOnce {
    fn name(&self) -> &'static str {
        "at_most_once"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        match seen {
            Seen::Started { node, kept, .. } => {
                self.under_way.retain(|(n, _), _| n != node);
                self.taken.restart(*node, kept);
                0
            }
            Seen::Output { node, output: Output::Store { ticket, entry, own } } => {
                let id = entry.transaction.id();
                // Publishing what also came back from peers is stored again to be in the outbox.
                if !self.taken.insert(*node, id) && !own {
                    found.push(format!("node {node} stores {id} again"));
                }
                self.under_way.insert((*node, *ticket), id);
                1
            }
            Seen::Input { node, input: Input::Stored { ticket, result } } => {
                if let Some(id) = self.under_way.remove(&(*node, *ticket))
                    && result.is_err()
                {
                    self.taken.remove(*node, &id);
                }
                0
            }
            _ => 0,
        }
    }
}

/// `publish` is answered with Ok only for what the store has; what it was refused is not stored.
#[derive(Debug, Default)]
pub struct StoreBeforePublished {
    calls: FastMap<(usize, CallId), TransactionId>,
    under_way: Waiting,
    stored: Marks,
}

impl Checker for StoreBeforePublished {
    fn name(&self) -> &'static str {
        "store_before_published"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        match seen {
            Seen::Started { node, kept, .. } => {
                self.calls.retain(|(n, _), _| n != node);
                self.under_way.retain(|(n, _), _| n != node);
                self.stored.restart(*node, kept);
            }
            Seen::Input { node, input: Input::Publish { call, transaction, .. } } => {
                self.calls.insert((*node, *call), transaction.id());
            }
            Seen::Output { node, output: Output::Store { ticket, entry, .. } } => {
                self.under_way.insert((*node, *ticket), entry.transaction.id());
            }
            Seen::Input { node, input: Input::Stored { ticket, result } } => {
                if let Some(id) = self.under_way.remove(&(*node, *ticket))
                    && result.is_ok()
                {
                    self.stored.insert(*node, id);
                }
            }
            Seen::Output { node, output: Output::Published { call, result } } => {
                let Some(id) = self.calls.remove(&(*node, *call)) else {
                    found.push(format!("node {node} answers {call:?}, which nobody asked"));
                    return 1;
                };
                if result.is_ok() && !self.stored.contains(*node, &id) {
                    found.push(format!("node {node} said Ok to {id}, which is not stored"));
                }
                return 1;
            }
            _ => {}
        }
        0
    }
}

/// Ids that a reconciliation message lists.
pub(super) fn listed(ranges: &Reconcile) -> Vec<TransactionId> {
    let ids = ranges.ranges.iter().filter_map(|range| match &range.content {
        RangeContent::All(ids) | RangeContent::Rest(ids) => Some(ids),
        _ => None,
    });
    ids.flatten().map(|(id, _)| *id).collect()
}

/// Nothing is forwarded or announced before it is verified, or stored if it is the node's own.
#[derive(Debug, Default)]
pub struct VerifyBeforeForward {
    verifying: Waiting,
    heads: Waiting,
    /// Ids whose header is known to be signed.
    signed: Marks,
    /// Pieces being checked: id, number, and how many there are.
    pieces: FastMap<(usize, Ticket), (TransactionId, u32, u64)>,
    /// Pieces that were found right, of what is not whole yet.
    right: FastMap<(usize, TransactionId), BTreeSet<u32>>,
    /// How many pieces each payload has.
    counts: FastMap<TransactionId, u64>,
    storing: Waiting,
    good: Marks,
}

impl Checker for VerifyBeforeForward {
    fn name(&self) -> &'static str {
        "verify_before_forward"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        match seen {
            Seen::Started { node, kept, .. } => {
                self.verifying.retain(|(n, _), _| n != node);
                self.storing.retain(|(n, _), _| n != node);
                self.heads.retain(|(n, _), _| n != node);
                self.pieces.retain(|(n, _), _| n != node);
                self.right.retain(|(n, _), _| n != node);
                self.signed.restart(*node, &[]);
                self.good.restart(*node, kept);
            }
            Seen::Output { node, output: Output::Verify { ticket, transaction, .. } } => {
                self.verifying.insert((*node, *ticket), transaction.id());
            }
            Seen::Output { node, output: Output::VerifyHead { ticket, head } } => {
                self.heads.insert((*node, *ticket), head.id());
            }
            Seen::Input { node, input: Input::HeadVerified { ticket, result: Ok(()) } } => {
                if let Some(id) = self.heads.remove(&(*node, *ticket)) {
                    self.signed.insert(*node, id);
                    self.note_whole(*node, id, u64::MAX);
                }
            }
            Seen::Output { node, output: Output::VerifyPiece { ticket, len, piece, .. } } => {
                let all = pieces_of(*len);
                self.pieces.insert((*node, *ticket), (piece.id, piece.index, all));
            }
            Seen::Input { node, input: Input::PieceVerified { ticket, valid: true } } => {
                if let Some((id, index, all)) = self.pieces.remove(&(*node, *ticket)) {
                    self.right.entry((*node, id)).or_default().insert(index);
                    self.note_whole(*node, id, all);
                }
            }
            // Checked again, by whoever reads them.
            Seen::Input { node, input: Input::Unspilled { pieces, .. } } => {
                for piece in pieces {
                    self.right.entry((*node, piece.id)).or_default().insert(piece.index);
                    self.note_whole(*node, piece.id, u64::MAX);
                }
            }
            Seen::Output { node, output: Output::Store { ticket, entry, own: true } } => {
                self.storing.insert((*node, *ticket), entry.transaction.id());
            }
            Seen::Input { node, input: Input::Verified { ticket, judgement } } => {
                if let Some(id) = self.verifying.remove(&(*node, *ticket))
                    && *judgement == Judgement::Verdict(Verdict::Accept)
                {
                    self.good.insert(*node, id);
                }
            }
            Seen::Input { node, input: Input::Stored { ticket, result: Ok(()) } } => {
                if let Some(id) = self.storing.remove(&(*node, *ticket)) {
                    self.good.insert(*node, id);
                }
            }
            Seen::Output { node, output: Output::Send { message, .. } } => {
                let mut check = |id: &TransactionId| {
                    if !self.good.contains(*node, id) {
                        found.push(format!("node {node} sends {id} ({})", message.kind()));
                    }
                };
                match message {
                    Message::Push { transaction, .. } => check(&transaction.id()),
                    Message::Piece(piece) => {
                        let right = self.right.get(&(*node, piece.id));
                        let checked = right.is_some_and(|right| right.contains(&piece.index));
                        if !checked || !self.signed.contains(*node, &piece.id) {
                            check(&piece.id);
                        }
                    }
                    Message::Offer(offer) => {
                        let id = offer.head.id();
                        if offer.complete || !self.signed.contains(*node, &id) {
                            check(&id);
                        }
                    }
                    Message::Announce(list) => {
                        for announcement in list {
                            check(&announcement.id);
                        }
                        return list.len() as u64;
                    }
                    Message::Ask(ranges) | Message::Answer(ranges) => {
                        let ids = listed(ranges);
                        for id in &ids {
                            check(id);
                        }
                        return ids.len() as u64;
                    }
                    _ => return 0,
                }
                return 1;
            }
            _ => {}
        }
        0
    }
}

impl VerifyBeforeForward {
    /// Checked piece by piece, and signed: as good as checked in one go.
    fn note_whole(&mut self, node: usize, id: TransactionId, all: u64) {
        let all = *self.counts.entry(id).and_modify(|n| *n = all.min(*n)).or_insert(all);
        let right = self.right.get(&(node, id)).map_or(0, BTreeSet::len);
        if right as u64 == all && self.signed.contains(node, &id) {
            self.right.remove(&(node, id));
            self.good.insert(node, id);
        }
    }
}

/// Every queue and table stays within its bound.
#[derive(Debug)]
pub struct Bounded;

impl Checker for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        let Seen::Turn { node, gauges, .. } = seen else { return 0 };
        for g in gauges.iter().filter(|g| g.value > g.bound) {
            found.push(format!("node {node}: {} is {}, bound {}", g.name, g.value, g.bound));
        }
        gauges.len() as u64
    }
}

/// On no link do more bulk bytes wait than one piece.
#[derive(Debug, Default)]
pub struct ControlFirst {
    queues: PerLink<Waits>,
}

/// What waits on a link, by weight since it opened.
#[derive(Debug, Default)]
struct Waits {
    queued: usize,
    sent: usize,
    /// For each message with bulk: what must have been sent for it to be gone, and its bulk.
    bulk: VecDeque<(usize, usize)>,
}

impl Checker for ControlFirst {
    fn name(&self) -> &'static str {
        "control_first"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        self.queues.follow(seen);
        match seen {
            Seen::Output { node, output: Output::Send { link, message } } => {
                let Some(waits) = self.queues.get_mut(*node, *link) else { return 0 };
                waits.queued += message.weight();
                if let Message::Piece(piece) = message {
                    waits.bulk.push_back((waits.queued, piece.bytes.len()));
                    let bulk: usize = waits.bulk.iter().map(|(_, bulk)| bulk).sum();
                    if bulk > PIECE_BYTES {
                        found.push(format!("node {node}: {bulk} bytes of bulk wait on {link:?}"));
                    }
                }
                return 1;
            }
            Seen::Input { node, input: Input::Sent { link, weight, .. } } => {
                let Some(waits) = self.queues.get_mut(*node, *link) else { return 0 };
                waits.sent = (waits.sent + weight).min(waits.queued);
                while waits.bulk.front().is_some_and(|(end, _)| *end <= waits.sent) {
                    waits.bulk.pop_front();
                }
            }
            _ => {}
        }
        0
    }
}

/// A peer record with a lower sequence number never replaces a higher one.
#[derive(Debug, Default)]
pub struct RecordsMonotone {
    newest: FastMap<(usize, PeerId), u64>,
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
