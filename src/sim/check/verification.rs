//! The checker of verification: nothing is passed on unchecked.

use std::collections::BTreeSet;

use super::checker::{Checker, Seen};
use super::marks::{Marks, Storing, Waiting, ids_of, listed};
use crate::protocol::{Input, Judgement, Output, Ticket};
use crate::sim::id_map::IdMap;
use crate::types::{Message, TransactionId, Verdict, pieces_of};

/// Nothing is forwarded or announced before it is verified, or stored if it is the node's own.
#[derive(Debug, Default)]
pub struct VerifyBeforeForward {
    verifying: Waiting,
    verifying_heads: Waiting,
    /// Ids whose header is known to be signed.
    signed: Marks,
    /// Pieces being checked: id, number, and how many there are.
    pieces: IdMap<(usize, Ticket), (TransactionId, u32, u64)>,
    /// Pieces that were found right, of what is not whole yet.
    right: IdMap<(usize, TransactionId), BTreeSet<u32>>,
    /// Number of pieces of each payload.
    counts: IdMap<TransactionId, u64>,
    storing: Storing,
    good: Marks,
}

impl Checker for VerifyBeforeForward {
    fn name(&self) -> &'static str {
        "verify_before_forward"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        match seen {
            Seen::Started { node, stored, .. } => {
                self.verifying.retain(|(n, _), _| n != node);
                self.storing.retain(|(n, _), _| n != node);
                self.verifying_heads.retain(|(n, _), _| n != node);
                self.pieces.retain(|(n, _), _| n != node);
                self.right.retain(|(n, _), _| n != node);
                self.signed.restart(*node, &[]);
                self.good.restart(*node, stored);
            }
            Seen::Output { node, output: Output::Verify { ticket, transaction, .. } } => {
                self.verifying.insert((*node, *ticket), transaction.id());
            }
            Seen::Output { node, output: Output::VerifyHead { ticket, head } } => {
                self.verifying_heads.insert((*node, *ticket), head.id());
            }
            Seen::Input { node, input: Input::HeadVerified { ticket, result: Ok(()) } } => {
                if let Some(id) = self.verifying_heads.remove(&(*node, *ticket)) {
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
            Seen::Output { node, output: Output::StoreOwn { ticket, entries } } => {
                self.storing.insert((*node, *ticket), ids_of(entries));
            }
            Seen::Input { node, input: Input::Verified { ticket, judgement } } => {
                if let Some(id) = self.verifying.remove(&(*node, *ticket))
                    && *judgement == Judgement::Verdict(Verdict::Accept)
                {
                    self.good.insert(*node, id);
                }
            }
            Seen::Input { node, input: Input::Stored { ticket, result: Ok(()) } } => {
                for id in self.storing.remove(&(*node, *ticket)).unwrap_or_default() {
                    self.good.insert(*node, id);
                }
            }
            Seen::Output { node, output: Output::Send { message, .. } } => {
                return self.check(*node, message, found);
            }
            _ => {}
        }
        0
    }
}

impl VerifyBeforeForward {
    /// Checks what a node sends; how many ids that were.
    fn check(&self, node: usize, message: &Message, found: &mut Vec<String>) -> u64 {
        let ids = match message {
            Message::Push { transaction, .. } => vec![transaction.id()],
            Message::Announce(list) => list.iter().map(|announcement| announcement.id).collect(),
            Message::Ask(ranges) | Message::Answer(ranges) => listed(ranges),
            Message::Piece(piece) => {
                let right = self.right.get(&(node, piece.id));
                let is_right = right.is_some_and(|right| right.contains(&piece.index));
                if is_right && self.signed.contains(node, &piece.id) {
                    return 1;
                }
                vec![piece.id]
            }
            Message::Offer(offer) => {
                let id = offer.head.id();
                if !offer.complete && self.signed.contains(node, &id) {
                    return 1;
                }
                vec![id]
            }
            _ => return 0,
        };
        for id in ids.iter().filter(|id| !self.good.contains(node, id)) {
            found.push(format!("node {node} sends {id} ({})", message.kind()));
        }
        ids.len() as u64
    }

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
