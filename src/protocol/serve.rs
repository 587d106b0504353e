//! Answering wants: whole small transactions, large ones in pieces.
//!
//! What a peer asked for waits in order on its link. A piece is queued only when the queue is empty
//! or short enough that no more than one piece waits, so control never stands behind more than that.

use crate::types::{LinkId, Message, PIECE_BYTES, Piece, Transaction, TransactionId, Want};

use super::io::{Output, Ticket};
use super::learn::Lesson;
use super::links::Serve;
use super::{Protocol, Task};

/// The most of a large payload that may be on its way to a peer: four pieces.
const IN_FLIGHT: u64 = 4 * PIECE_BYTES as u64;
/// Wants of one peer waiting to be served; a peer that asks for more asked for too much at once.
pub(super) const MAX_SERVING: usize = 4096;

impl Protocol {
    pub(super) fn on_want(&mut self, link: LinkId, list: Vec<Want>) {
        self.counters.wants_received += list.len() as u64;
        let mut useful = Vec::new();
        for want in list {
            let eager = self.config.gossip.eager_limit;
            let size = self.log.find(&want.id).map(|entry| u64::from(entry.size));
            let Some(up) = self.links.up(link) else { return };
            let Some(size) = size.filter(|_| up.serving.len() < MAX_SERVING) else {
                self.answer_missing(link, want.id);
                continue;
            };
            if want.offset > size {
                continue;
            }
            if let Some(serve) = up.serving.iter_mut().take(64).find(|s| s.id == want.id) {
                // Asked again. What is on its way still counts there, so only a peer that has got
                // further elsewhere, or has to begin anew, changes where we are.
                let anew = want.offset == 0 && serve.offset > IN_FLIGHT;
                if want.offset > serve.offset || anew {
                    serve.offset = want.offset;
                    serve.payload = serve.payload.take().filter(|_| want.offset > 0);
                }
                continue;
            }
            let serve = Serve { id: want.id, offset: want.offset, payload: None, loading: None };
            up.serving.push_back(serve);
            if size <= eager {
                useful.push(want.id);
            }
        }
        self.learn(link, &useful, Lesson::Useful);
        self.serve(link);
    }

    fn answer_missing(&mut self, link: LinkId, id: TransactionId) {
        self.counters.wants_missed += 1;
        if let Some(batch) = self.links.batch(link) {
            batch.missing.push(id);
        }
    }

    /// Sends what a peer asked for as far as its queue has room.
    pub(super) fn serve(&mut self, link: LinkId) {
        while self.is_writable(link) {
            let Some(up) = self.links.up(link) else { return };
            let Some(front) = up.serving.front() else { return };
            if front.loading.is_some() {
                return;
            }
            let (id, offset, held) = (front.id, front.offset, front.payload.clone());
            let slot = up.slot;
            let cached = held.or_else(|| self.log.payload(&id).cloned());
            let Some(transaction) = cached else {
                self.load(link, id);
                return;
            };
            if transaction.header().payload_len <= self.config.gossip.eager_limit && offset == 0 {
                self.pop_serving(link);
                self.counters.wants_served += 1;
                self.earn_answers(link);
                let hop = self.log.find(&id).map_or(0, |entry| entry.hop);
                self.push(link, slot, transaction, hop);
            } else if !self.serve_piece(link, slot, transaction, offset) {
                return;
            }
        }
    }

    /// Sends one piece; `false` when one still waits.
    fn serve_piece(&mut self, link: LinkId, slot: u8, t: Transaction, offset: u64) -> bool {
        let id = t.id();
        let hop = self.log.find(&id).map_or(0, |entry| entry.hop);
        let size = t.payload().len();
        let start = usize::try_from(offset).unwrap_or(size).min(size);
        let end = (start + PIECE_BYTES).min(size);
        let queued = self.links.all.get(&link).map_or(0, |l| l.queued);
        if queued > 0 && queued + (end - start) > PIECE_BYTES {
            return false;
        }
        let first = self
            .links
            .up(link)
            .and_then(|up| up.serving.front())
            .is_some_and(|serve| serve.payload.is_none());
        let head = first.then(|| (t.header_bytes().clone(), t.signature(), hop));
        let piece = Piece { id, offset, bytes: t.payload().slice(start..end), head };
        self.counters.pieces_sent += 1;
        self.counters.payload_bytes_sent += piece.bytes.len() as u64;
        self.send(link, Message::Piece(piece));
        if end == size {
            self.pop_serving(link);
            self.counters.wants_served += 1;
            self.earn_answers(link);
            self.log.note_known(&id, slot);
        } else if let Some(serve) = self.links.up(link).and_then(|up| up.serving.front_mut()) {
            serve.offset = end as u64;
            serve.payload = Some(t);
        }
        true
    }

    fn pop_serving(&mut self, link: LinkId) {
        if let Some(up) = self.links.up(link) {
            up.serving.pop_front();
        }
    }

    fn load(&mut self, link: LinkId, id: TransactionId) {
        if !self.log.contains(&id) {
            // It expired while it waited.
            self.pop_serving(link);
            self.answer_missing(link, id);
            return;
        }
        let ticket = self.ticket(Task::Load { link, id });
        if let Some(serve) = self.links.up(link).and_then(|up| up.serving.front_mut()) {
            serve.loading = Some(ticket);
        }
        self.out.push_back(Output::Load { ticket, id });
    }

    pub(super) fn on_loaded(&mut self, ticket: Ticket, transaction: Option<Transaction>) {
        let Some(Task::Load { link, id }) = self.tickets.remove(&ticket) else { return };
        let Some(up) = self.links.up(link) else { return };
        let Some(front) = up.serving.front_mut().filter(|s| s.loading == Some(ticket)) else {
            return;
        };
        front.loading = None;
        if let Some(transaction) = transaction {
            self.log.cache(&transaction);
        } else {
            self.pop_serving(link);
            self.answer_missing(link, id);
        }
        self.serve(link);
    }
}
