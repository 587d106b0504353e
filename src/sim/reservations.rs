//! The checkers of reservations: who waits for whose pieces of a large payload.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::{Input, Output};
use crate::types::{LinkId, Message, PeerId, PieceRange, TransactionId};

use super::check::{Checker, Seen};

/// A reservation that is not fulfilled.
#[derive(Debug, Clone)]
struct Open {
    peer: PeerId,
    ranges: Vec<PieceRange>,
    /// Its place was named: the peer may serve what it has not got itself yet.
    ordered: bool,
}

/// What every node has reserved, as seen from outside.
#[derive(Debug, Default)]
struct Book {
    /// Who is behind a link.
    remotes: BTreeMap<(usize, LinkId), PeerId>,
    nodes: BTreeMap<PeerId, usize>,
    open: BTreeMap<(usize, TransactionId), BTreeMap<LinkId, Open>>,
    /// Pieces received.
    got: BTreeMap<(usize, TransactionId), BTreeSet<u32>>,
}

impl Book {
    /// Takes note; the reservation that was just made, if one was.
    fn note(&mut self, seen: &Seen<'_>) -> Option<(usize, TransactionId, LinkId)> {
        match seen {
            Seen::Started { node, .. } => {
                self.remotes.retain(|(n, _), _| n != node);
                self.open.retain(|(n, _), _| n != node);
                self.got.retain(|(n, _), _| n != node);
            }
            Seen::Input { node, input: Input::LinkOpened { link, remote, .. } } => {
                self.remotes.insert((*node, *link), *remote);
            }
            Seen::Input { node, input: Input::LinkClosed { link } }
            | Seen::Output { node, output: Output::Close { link } } => {
                self.remotes.remove(&(*node, *link));
                let theirs = self.open.range_mut((*node, LOWEST)..=(*node, HIGHEST));
                for (_, open) in theirs {
                    open.remove(link);
                }
            }
            Seen::Input { node, input: Input::Received { link, messages, .. } } => {
                for message in messages {
                    self.received(*node, *link, message);
                }
            }
            Seen::Output { node, output: Output::Store { entry, .. } } => {
                let key = (*node, entry.transaction.id());
                self.open.remove(&key);
                self.got.remove(&key);
            }
            Seen::Output { node, output: Output::Send { link, message } } => {
                return self.sent(*node, *link, message);
            }
            _ => {}
        }
        None
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
                self.got.entry((node, piece.id)).or_default().insert(piece.index);
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
        match message {
            Message::Hello(hello) => drop(self.nodes.insert(hello.record.peer(), node)),
            Message::Reserve(r) => {
                let open = self.open.entry((node, r.id)).or_default();
                open.remove(&link);
                let peer = *self.remotes.get(&(node, link))?;
                if !r.ranges.is_empty() {
                    let ordered = r.place > 0;
                    open.insert(link, Open { peer, ranges: r.ranges.clone(), ordered });
                    return Some((node, r.id, link));
                }
            }
            // Who is sent away is not served any more, though it does not know yet.
            Message::Busy(ids) | Message::Missing(ids) => {
                let asker = self.remotes.get(&(node, link)).and_then(|peer| self.nodes.get(peer));
                let me = self.nodes.iter().find(|(_, n)| **n == node).map(|(peer, _)| *peer);
                for id in ids {
                    let open = asker.and_then(|asker| self.open.get_mut(&(*asker, *id)));
                    if let Some(open) = open {
                        open.retain(|_, open| Some(open.peer) != me);
                    }
                }
            }
            _ => {}
        }
        None
    }

    /// Whether some piece is reserved twice and not here yet.
    fn overlap(&self, node: usize, id: &TransactionId, a: &Open, b: &Open) -> bool {
        const MANY: u32 = 100_000;
        let got = self.got.get(&(node, *id));
        let both = |(a, b): (&PieceRange, &PieceRange)| {
            let end = |r: &PieceRange| r.first.saturating_add(r.count);
            let (first, end) = (a.first.max(b.first), end(a).min(end(b)));
            let here = |piece| got.is_some_and(|got| got.contains(&piece));
            end.saturating_sub(first) > MANY || (first..end).any(|piece| !here(piece))
        };
        a.ranges.iter().flat_map(|a| b.ranges.iter().map(move |b| (a, b))).any(both)
    }
}

const LOWEST: TransactionId = TransactionId::from_bytes([0; 32]);
const HIGHEST: TransactionId = TransactionId::from_bytes([0xff; 32]);

/// Of each piece there is one reservation at most.
#[derive(Debug, Default)]
pub struct OneParent(Book);

impl Checker for OneParent {
    fn name(&self) -> &'static str {
        "one_parent"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        let Some((node, id, link)) = self.0.note(seen) else { return 0 };
        let all = &self.0.open[&(node, id)];
        let others = all.iter().filter(|(other, _)| **other != link);
        for (_, other) in others {
            if self.0.overlap(node, &id, &all[&link], other) {
                let (a, b) = (all[&link].peer, other.peer);
                found.push(format!("node {node} reserves a piece of {id} from {a} and {b}"));
            }
        }
        1
    }
}

/// Nobody waits for itself: who reserves pieces of an id from whom has no cycle.
#[derive(Debug, Default)]
pub struct ReservationAcyclic(Book);

impl Checker for ReservationAcyclic {
    fn name(&self) -> &'static str {
        "reservation_acyclic"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        let Some((node, id, link)) = self.0.note(seen) else { return 0 };
        let first = &self.0.open[&(node, id)][&link];
        if !first.ordered {
            // Only who has all of it answers.
            return 1;
        }
        let mut todo = vec![first.peer];
        let mut known = BTreeSet::new();
        while let Some(peer) = todo.pop() {
            let Some(at) = self.0.nodes.get(&peer).copied().filter(|at| known.insert(*at)) else {
                continue;
            };
            if at == node {
                found.push(format!("node {node} waits for itself to send {id}"));
                break;
            }
            let next = self.0.open.get(&(at, id));
            todo.extend(
                next.into_iter().flat_map(BTreeMap::values).filter(|o| o.ordered).map(|o| o.peer),
            );
        }
        1
    }
}
