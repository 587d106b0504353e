//! The checkers of reservations: who waits for whose pieces of a large payload.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::{Input, Output};
use crate::types::{LinkId, Message, NewEntry, PeerId, PieceRange, TransactionId};

use super::checker::{Checker, Seen};
use super::handover::{GO_ON, Successions, other_end};

/// A reservation that is not fulfilled.
#[derive(Debug, Clone)]
struct Open {
    peer: PeerId,
    ranges: Vec<PieceRange>,
    /// A position was named: the peer may serve what it has not got itself yet.
    ordered: bool,
    /// The reservation has come to the peer, which has not refused it.
    accepted: bool,
    /// The link is going over to another connection: what takes this back may wait for that one.
    held: bool,
}

/// Reservations of a node of one id, by link.
type Opens = BTreeMap<LinkId, Open>;

/// Reservations of every node, as seen from outside.
///
/// A reservation is on its way, or accepted: only then somebody really waits for somebody. A
/// reservation ends with its link, at whichever end that is noticed first.
#[derive(Debug, Default)]
struct ReservationTable {
    successions: Successions,
    /// Node at an end, and peer at the other.
    ends: BTreeMap<LinkId, (usize, PeerId)>,
    nodes: BTreeMap<PeerId, usize>,
    open: BTreeMap<(usize, TransactionId), Opens>,
    /// Numbers of the pieces that a node has received of an id.
    received_pieces: BTreeMap<(usize, TransactionId), BTreeSet<u32>>,
    /// Taken in the turn that is being looked at, unless the node refuses them before it ends.
    undecided: Vec<(usize, TransactionId, LinkId)>,
}

impl ReservationTable {
    /// Takes note; the reservation that was just made, if one was.
    fn note(&mut self, seen: &Seen<'_>) -> Option<(usize, TransactionId, LinkId)> {
        if let Some((node, from, to)) = self.successions.note(seen) {
            for opens in self.of(node) {
                if let Some(open) = opens.remove(&from) {
                    opens.insert(to, Open { held: false, ..open });
                }
            }
        }
        match seen {
            Seen::Started { node, .. } => {
                let ends = self.ends.iter().filter(|(_, (n, _))| n == node);
                for link in ends.map(|(link, _)| *link).collect::<Vec<_>>() {
                    self.end(*node, link);
                }
                self.open.retain(|(n, _), _| n != node);
                self.received_pieces.retain(|(n, _), _| n != node);
            }
            Seen::Input { node, input: Input::LinkOpened { link, remote, .. } } => {
                self.ends.insert(*link, (*node, *remote));
            }
            Seen::Input { node, input: Input::LinkClosed { link } }
            | Seen::Output { node, output: Output::Close { link } } => self.end(*node, *link),
            Seen::Input { node, input: Input::Received { link, messages, .. } } => {
                for message in messages {
                    self.received(*node, *link, message);
                }
            }
            Seen::Output { node, output: Output::Store { entry, .. } } => {
                self.forget(*node, entry);
            }
            Seen::Output { node, output: Output::StoreOwn { entries, .. } } => {
                for entry in entries {
                    self.forget(*node, entry);
                }
            }
            Seen::Output { node, output: Output::Send { link, message } } => {
                return self.sent(*node, *link, message);
            }
            _ => {}
        }
        None
    }

    /// A node is through with a transaction.
    fn forget(&mut self, node: usize, entry: &NewEntry) {
        let key = (node, entry.transaction.id());
        self.open.remove(&key);
        self.received_pieces.remove(&key);
    }

    /// One end of a link is closed: nothing is reserved on it, and nothing accepted.
    fn end(&mut self, node: usize, link: LinkId) {
        self.ends.remove(&link);
        for open in self.of(node) {
            open.remove(&link);
        }
        let other = other_end(link);
        if let Some((asker, _)) = self.ends.get(&other).copied() {
            for open in self.of(asker).filter_map(|opens| opens.get_mut(&other)) {
                open.accepted = false;
            }
        }
    }

    fn of(&mut self, node: usize) -> impl Iterator<Item = &mut Opens> {
        const LOWEST: TransactionId = TransactionId::from_bytes([0; 32]);
        const HIGHEST: TransactionId = TransactionId::from_bytes([0xff; 32]);
        self.open.range_mut((node, LOWEST)..=(node, HIGHEST)).map(|(_, opens)| opens)
    }

    /// Reservation of the node at the other end of a link.
    fn requested_on(&mut self, link: LinkId, id: &TransactionId) -> Option<(usize, &mut Open)> {
        let (asker, _) = *self.ends.get(&other_end(link))?;
        Some((asker, self.open.get_mut(&(asker, *id))?.get_mut(&other_end(link))?))
    }

    fn received(&mut self, node: usize, link: LinkId, message: &Message) {
        match message {
            Message::Busy(ids) | Message::Missing(ids) => {
                for id in ids {
                    if let Some(open) = self.open.get_mut(&(node, *id)) {
                        open.remove(&link);
                    }
                }
            }
            Message::Piece(piece) => {
                self.received_pieces.entry((node, piece.id)).or_default().insert(piece.index);
            }
            Message::Reserve(r) if !r.ranges.is_empty() => {
                if let Some((asker, open)) = self.requested_on(link, &r.id) {
                    open.accepted = true;
                    self.undecided.push((asker, r.id, other_end(link)));
                }
            }
            _ => {}
        }
    }

    fn sent(
        &mut self,
        node: usize,
        link: LinkId,
        message: &Message,
    ) -> Option<(usize, TransactionId, LinkId)> {
        let held = matches!(message, Message::Switch { step } if *step < GO_ON);
        for open in self.of(node).filter_map(|opens| opens.get_mut(&link)) {
            open.held = held;
        }
        match message {
            Message::Hello(hello) => drop(self.nodes.insert(hello.record.peer(), node)),
            Message::Reserve(r) => {
                let open = self.open.entry((node, r.id)).or_default();
                let accepted = open.remove(&link).is_some_and(|open| open.accepted);
                let (_, peer) = *self.ends.get(&link)?;
                if !r.ranges.is_empty() {
                    let (ranges, ordered) = (r.ranges.clone(), r.place > 0);
                    open.insert(link, Open { peer, ranges, ordered, accepted, held });
                    return Some((node, r.id, link));
                }
            }
            // Who is sent away is not served any more, though it does not know yet.
            Message::Busy(ids) | Message::Missing(ids) => {
                for id in ids {
                    if let Some((_, open)) = self.requested_on(link, id) {
                        open.accepted = false;
                    }
                }
            }
            _ => {}
        }
        None
    }

    /// Says whether some piece is reserved twice and not here yet.
    fn overlap(&self, node: usize, id: &TransactionId, a: &Open, b: &Open) -> bool {
        const MANY: u32 = 100_000;
        let received = self.received_pieces.get(&(node, *id));
        let both = |(a, b): (&PieceRange, &PieceRange)| {
            let end = |r: &PieceRange| r.first.saturating_add(r.count);
            let (first, end) = (a.first.max(b.first), end(a).min(end(b)));
            let here = |piece| received.is_some_and(|received| received.contains(&piece));
            end.saturating_sub(first) > MANY || (first..end).any(|piece| !here(piece))
        };
        a.ranges.iter().flat_map(|a| b.ranges.iter().map(move |b| (a, b))).any(both)
    }

    /// Nodes that a node waits for, for what they may not have themselves.
    fn waits_for(&self, node: usize, id: &TransactionId) -> impl Iterator<Item = usize> {
        let opens = self.open.get(&(node, *id)).into_iter().flat_map(BTreeMap::values);
        let waits = opens.filter(|open| open.ordered && open.accepted);
        waits.filter_map(|open| self.nodes.get(&open.peer).copied())
    }

    /// Says whether a node waits for itself.
    fn is_circular(&self, node: usize, id: &TransactionId) -> bool {
        let mut todo: Vec<usize> = self.waits_for(node, id).collect();
        let mut known = BTreeSet::new();
        while let Some(at) = todo.pop() {
            if at == node {
                return true;
            }
            if known.insert(at) {
                todo.extend(self.waits_for(at, id));
            }
        }
        false
    }
}

/// Checks that each piece has one reservation at most.
#[derive(Debug, Default)]
pub struct OneParent(ReservationTable);

impl Checker for OneParent {
    fn name(&self) -> &'static str {
        "one_parent"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        self.0.undecided.clear();
        let Some((node, id, link)) = self.0.note(seen) else { return 0 };
        let all = &self.0.open[&(node, id)];
        let others = all.iter().filter(|(other, open)| **other != link && !open.held);
        for (_, other) in others {
            if self.0.overlap(node, &id, &all[&link], other) {
                let (a, b) = (all[&link].peer, other.peer);
                found.push(format!("node {node} reserves a piece of {id} from {a} and {b}"));
            }
        }
        1
    }
}

/// Nobody waits for itself: who is accepted by whom, to be served pieces of an id as they come, has
/// no cycle. What is on its way does not count: two who ask each other at once are both refused.
#[derive(Debug, Default)]
pub struct ReservationAcyclic(ReservationTable);

impl Checker for ReservationAcyclic {
    fn name(&self) -> &'static str {
        "reservation_acyclic"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        let mut checks = 0;
        // A turn has ended: what it did not refuse is accepted.
        if !matches!(seen, Seen::Output { .. } | Seen::Turn { .. }) {
            for (node, id, link) in std::mem::take(&mut self.0.undecided) {
                let open = self.0.open.get(&(node, id)).and_then(|opens| opens.get(&link));
                // Without a place only who has all of it answers.
                if open.is_some_and(|open| open.ordered && open.accepted) {
                    checks += 1;
                    if self.0.is_circular(node, &id) {
                        found.push(format!("node {node} waits for itself to send {id}"));
                    }
                }
            }
        }
        self.0.note(seen);
        checks
    }
}
