//! Answering wants and reservations: whole small transactions, large ones in pieces.
//!
//! What a peer asked for waits in order on its link; what cannot be sent yet, because it is still on
//! its way here or read from the store, is passed over. A piece is queued only when the queue is
//! empty or short enough that no more than one piece waits, so control never stands behind more than
//! that.
//!
//! A payload is served to `MAX_CHILDREN` peers at a time, and a short one to more while all that is owed
//! to peers is little (`ALLOWANCE`, about 130 ms at 50 Mbit/s); the others are told `Busy` and find somebody
//! who has got it from here. Who comes back with `force` is served. What is still on its way here is
//! promised only to peers behind this node in the order of reservations (see `large`).

use crate::types::{
    Head, LinkId, Message, Offer, PIECE_BYTES, Piece, PieceSet, Proofs, Reservation, Transaction,
    TransactionId, piece_len, pieces_of,
};

use crate::protocol::intake::Stage;
use crate::protocol::io::{Output, Ticket};
use crate::protocol::large::is_passed_on;
use crate::protocol::link::{Parts, Serve};
use crate::protocol::log::Record;
use crate::protocol::spread::Lesson;
use crate::protocol::{Protocol, env::Task};

/// Wants of one peer waiting to be served; a peer that asks for more asked for too much at once.
pub(super) const MAX_SERVING: usize = 4096;
/// Peers that one payload is served to at a time, whatever else is owed.
const MAX_CHILDREN: u16 = 3;
/// How far ahead payloads are read from the store for one peer: two lots of small ones, so that one
/// is sent while the next is read.
const READ_AHEAD: usize = 2 * LOT;
/// Small payloads read at once.
const LOT: usize = 128;
/// How far ahead large payloads are read.
const LARGE_AHEAD: usize = 16;
/// Bytes of them, beyond the first.
const LOT_BYTES: u64 = 1 << 20;
/// Payloads whose proofs are being made at once; others wait for their turn.
const MAX_PROVING: usize = 64;
/// Pieces owed to all peers together up to which more of them are served: 1 MiB.
const ALLOWANCE: u64 = 16;
/// Pieces of the largest payload for which that holds: a larger one gets through sooner when few
/// have it first (1 MiB, 100 nodes: 95 of 100 within 1.9 s instead of 3.2 s).
const MAX_LITTLE: u32 = 4;

/// The next thing to do for a link.
enum Step {
    Whole(Transaction),
    Load,
    Prove(Transaction),
    Head(Box<Head>, bool),
    Piece(u32),
    Gone,
}

impl Protocol {
    pub(super) fn on_want(&mut self, link: LinkId, list: &[TransactionId]) {
        self.env.counters.wants_received += list.len() as u64;
        let mut useful = Vec::new();
        for id in list {
            let eager = self.env.config.gossip.eager_limit;
            let size = self.log.find(id).map(|entry| u64::from(entry.size));
            let Some(up) = self.links.up(link) else { return };
            let Some(size) = size.filter(|_| up.serving.len() < MAX_SERVING) else {
                self.answer_missing(link, *id);
                continue;
            };
            if up.serving.iter().take(64).any(|s| s.id == *id) {
                continue;
            }
            let mut serve = Serve::new(*id);
            if size > eager {
                // It is larger than the peer thinks: the header says so.
                serve.parts = Some(Parts::new(PieceSet::full(count_of(size)), true));
                self.fetches.owed.enter(pieces_of(size));
                self.count_child(id, true);
            } else {
                useful.push(*id);
            }
            let Some(up) = self.links.up(link) else { return };
            up.serving.push_back(serve);
            self.outbox.note_wanted(id);
        }
        self.learn(link, &useful, Lesson::Useful);
        self.serve(link);
    }

    /// A peer reserves pieces, or takes that back.
    pub(super) fn on_reserve(&mut self, link: LinkId, r: &Reservation) {
        self.env.counters.wants_received += 1;
        if r.ranges.is_empty() {
            self.on_taken_back(link, &r.id);
            return;
        }
        self.outbox.note_wanted(&r.id);
        let held = self.log.find(&r.id).map(|entry| u64::from(entry.size));
        if held.is_some_and(|size| size <= self.env.config.gossip.eager_limit) {
            self.on_want(link, &[r.id]);
            return;
        }
        let Some(size) = held.or_else(|| self.size_under_way(link, r)) else {
            self.answer_missing(link, r.id);
            return;
        };
        let wanted = PieceSet::from_ranges(count_of(size), &r.ranges);
        let Some(up) = self.links.up(link) else { return };
        if let Some(at) = up.serving.iter().position(|s| s.id == r.id) {
            if let Some(parts) = &mut up.serving[at].parts {
                self.fetches.owed.leave(u64::from(parts.wanted.count()));
                parts.wanted = wanted;
                // What is on its way need not be sent again.
                parts.wanted.remove_all(&parts.sent);
                parts.head |= r.head;
                self.fetches.owed.enter(u64::from(parts.wanted.count()));
                if parts.wanted.is_empty() && !parts.head {
                    self.end_serving(link, at);
                    return;
                }
            }
        } else if r.narrow {
            // It is on its way already.
            return;
        } else {
            let children = self.fetches.children.get(&r.id).copied().unwrap_or(0);
            let little = wanted.len() <= MAX_LITTLE
                && self.fetches.owed.level() + u64::from(wanted.count()) <= ALLOWANCE;
            let full = up.serving.len() >= MAX_SERVING;
            if full || children >= MAX_CHILDREN && !little && !r.force {
                self.answer_busy(link, r.id);
                return;
            }
            let mut serve = Serve::new(r.id);
            self.fetches.owed.enter(u64::from(wanted.count()));
            serve.parts = Some(Parts::new(wanted, r.head));
            up.serving.push_back(serve);
            self.count_child(&r.id, true);
            if let Some(large) = self.pending.get_mut(&r.id).and_then(|p| p.large.as_mut()) {
                large.children.retain(|(child, _)| *child != link);
                large.children.push((link, r.place));
            }
        }
        self.serve(link);
    }

    /// Size of a payload on its way here, if the peer may wait for it: it is behind us in the order.
    fn size_under_way(&mut self, link: LinkId, r: &Reservation) -> Option<u64> {
        let pending = self.pending.get(&r.id)?;
        let large = pending.large.as_ref()?;
        let theirs = (r.place, self.links.peer_of(link)?);
        let behind = (large.place, self.env.me) < theirs;
        let ready = pending.stage == Stage::Heard && is_passed_on(pending) && self.relays_ahead();
        (ready && behind).then_some(pending.size)
    }

    fn on_taken_back(&mut self, link: LinkId, id: &TransactionId) {
        let Some(up) = self.links.up(link) else { return };
        let Some(at) = up.serving.iter().position(|s| s.id == *id && s.parts.is_some()) else {
            return;
        };
        let Some(serve) = up.serving.remove(at) else { return };
        self.note_served_out(link, &serve);
        if serve.parts.is_some_and(|parts| parts.sent.is_empty()) {
            // We said that we have it and did not come to send it.
            self.answer_busy(link, *id);
        }
    }

    /// Sends away who waits for an id and is no longer behind us in the order.
    pub(super) fn send_away(&mut self, id: &TransactionId, place: u32) {
        let Some(large) = self.pending.get(id).and_then(|p| p.large.as_ref()) else { return };
        let before = |(link, theirs): &&(LinkId, u32)| {
            self.links.peer_of(*link).is_none_or(|peer| (*theirs, peer) <= (place, self.env.me))
        };
        let gone = large.children.iter().filter(before).map(|(l, _)| *l).collect();
        self.turn_out(id, gone);
    }

    /// Sends everybody away who waits for an id.
    pub(super) fn send_all_away(&mut self, id: &TransactionId) {
        let Some(large) = self.pending.get(id).and_then(|p| p.large.as_ref()) else { return };
        let all = large.children.iter().map(|(link, _)| *link).collect();
        self.turn_out(id, all);
    }

    fn turn_out(&mut self, id: &TransactionId, gone: Vec<LinkId>) {
        for link in gone {
            let Some(up) = self.links.up(link) else { continue };
            let Some(at) = up.serving.iter().position(|s| s.id == *id) else { continue };
            self.end_serving(link, at);
            self.answer_busy(link, *id);
        }
    }

    fn answer_missing(&mut self, link: LinkId, id: TransactionId) {
        self.env.counters.wants_missed += 1;
        if let Some(batch) = self.links.batch(link) {
            batch.missing.push(id);
        }
    }

    fn answer_busy(&mut self, link: LinkId, id: TransactionId) {
        self.env.counters.wants_refused += 1;
        if let Some(batch) = self.links.batch(link) {
            batch.busy.push(id);
        }
    }

    fn count_child(&mut self, id: &TransactionId, more: bool) {
        let count = self.fetches.children.get(id).copied().unwrap_or(0);
        if more {
            self.fetches.children.insert(*id, count.saturating_add(1));
        } else if count <= 1 {
            self.fetches.children.remove(id);
        } else {
            self.fetches.children.insert(*id, count - 1);
        }
    }

    /// A peer is no longer served something.
    pub(super) fn note_served_out(&mut self, link: LinkId, serve: &Serve) {
        let Some(parts) = &serve.parts else { return };
        self.fetches.owed.leave(u64::from(parts.wanted.count()));
        self.count_child(&serve.id, false);
        if let Some(large) = self.pending.get_mut(&serve.id).and_then(|p| p.large.as_mut()) {
            large.children.retain(|(child, _)| *child != link);
        }
    }

    /// Sends what a peer asked for as far as its queue has room.
    pub(super) fn serve(&mut self, link: LinkId) {
        while self.is_writable(link) {
            let Some((at, step)) = self.next_step(link) else { return };
            match step {
                Step::Gone => {
                    let Some(id) = self.end_serving(link, at) else { return };
                    self.answer_missing(link, id);
                }
                Step::Whole(transaction) => self.serve_whole(link, at, transaction),
                Step::Load => self.load(link, at),
                Step::Prove(transaction) => self.prove(link, at, transaction),
                Step::Head(head, complete) => self.serve_head(link, at, *head, complete),
                Step::Piece(index) => {
                    if !self.serve_piece(link, at, index) {
                        return;
                    }
                }
            }
        }
    }

    /// The first thing on a link's list for which something can be done now.
    fn next_step(&mut self, link: LinkId) -> Option<(usize, Step)> {
        let (log, pending, shelf) = (&mut self.log, &self.pending, &self.fetches.shelf);
        let proving = &self.fetches.proving;
        let up = self.links.up(link)?;
        // Small ones are sent in the order of asking, which is that of their origin's publishing.
        let mut behind = false;
        for (at, serve) in up.serving.iter_mut().enumerate() {
            if serve.loading.is_some() {
                behind |= serve.parts.is_none();
                continue;
            }
            if !log.contains(&serve.id) {
                let on_its_way = pending.get(&serve.id);
                match (on_its_way, &mut serve.parts) {
                    (Some(pending), Some(parts)) => {
                        if let Some(step) = from_assembly(pending, parts) {
                            return Some((at, step));
                        }
                        continue;
                    }
                    // It expired while it waited, or did not come.
                    _ => return Some((at, Step::Gone)),
                }
            }
            let held = serve.payload.clone().or_else(|| log.payload(&serve.id).cloned());
            let Some(transaction) = held else {
                if at >= READ_AHEAD || serve.parts.is_some() && at >= LARGE_AHEAD {
                    behind |= serve.parts.is_none();
                    continue;
                }
                return Some((at, Step::Load));
            };
            let Some(parts) = &mut serve.parts else {
                if behind {
                    continue;
                }
                return Some((at, Step::Whole(transaction)));
            };
            if parts.head {
                return Some((at, Step::Head(Box::new(Head::of(&transaction)), true)));
            }
            if parts.proofs.is_none() {
                parts.proofs = if parts.wanted.len() == 1 {
                    Some(Proofs::collected(vec![bytes::Bytes::new()]))
                } else {
                    shelf.get(&serve.id)
                };
            }
            if parts.proofs.is_none() {
                if proving.len() >= MAX_PROVING && !proving.contains_key(&serve.id) {
                    continue;
                }
                return Some((at, Step::Prove(transaction)));
            }
            serve.payload = Some(transaction);
            return Some((at, parts.wanted.first_of(None).map_or(Step::Gone, Step::Piece)));
        }
        None
    }

    fn serve_whole(&mut self, link: LinkId, at: usize, transaction: Transaction) {
        let Some(slot) = self.links.slot_of(link) else { return };
        let Some(id) = self.end_serving(link, at) else { return };
        self.env.counters.wants_served += 1;
        self.earn_answers(link);
        self.note_owed_served(link);
        let hop = self.log.find(&id).map_or(0, Record::hop);
        self.push(link, slot, transaction, hop);
    }

    fn serve_head(&mut self, link: LinkId, at: usize, head: Head, complete: bool) {
        let id = head.id();
        let here = self.log.find(&id).map(Record::hop);
        let coming = self.pending.get(&id).and_then(|p| p.large.as_ref());
        let (coming, place) = coming.map_or((0, 0), |large| (large.hop, large.place));
        let hop = here.unwrap_or(coming);
        if let Some(parts) = self.parts(link, at) {
            parts.head = false;
        }
        self.send(link, Message::Offer(Box::new(Offer { head, hop, place, complete })));
    }

    /// Sends one piece; `false` when one still waits.
    fn serve_piece(&mut self, link: LinkId, at: usize, index: u32) -> bool {
        let queued = self.links.all.get(&link).map_or(0, |l| l.queued);
        let Some(piece) = self.piece(link, at, index, queued) else { return false };
        let id = piece.id;
        self.env.counters.pieces_sent += 1;
        self.env.counters.payload_bytes_sent += piece.bytes.len() as u64;
        self.note_owed_served(link);
        self.send(link, Message::Piece(piece));
        self.fetches.owed.leave(1);
        let Some(parts) = self.parts(link, at) else { return true };
        parts.wanted.remove(index);
        parts.sent.insert(index);
        if parts.wanted.is_empty() {
            let all = parts.sent.count() == parts.sent.len();
            self.end_serving(link, at);
            self.env.counters.wants_served += 1;
            self.earn_answers(link);
            if all && let Some(slot) = self.links.slot_of(link) {
                self.log.note_known(&id, slot);
            }
        }
        true
    }

    /// A piece with its proof, if there is room for it on the link.
    fn piece(&mut self, link: LinkId, at: usize, index: u32, queued: usize) -> Option<Piece> {
        let pending = &self.pending;
        let serve = self.links.up(link)?.serving.get(at)?;
        let start = index as usize * PIECE_BYTES;
        let fits = |len: usize| queued == 0 || queued + len <= PIECE_BYTES;
        if let Some(transaction) = &serve.payload {
            let payload = transaction.payload();
            let len = piece_len(payload.len() as u64, index);
            let proof = serve.parts.as_ref()?.proofs.as_ref()?.get(index);
            let piece =
                || Piece { id: serve.id, index, bytes: payload.slice(start..start + len), proof };
            return fits(len).then(piece);
        }
        let pending = pending.get(&serve.id)?;
        let assembly = pending.large.as_ref()?.assembly.as_ref()?;
        assembly.piece(serve.id, index).filter(|piece| fits(piece.bytes.len()))
    }

    fn parts(&mut self, link: LinkId, at: usize) -> Option<&mut Parts> {
        self.links.up(link)?.serving.get_mut(at)?.parts.as_mut()
    }

    fn end_serving(&mut self, link: LinkId, at: usize) -> Option<TransactionId> {
        let serve = self.links.up(link)?.serving.remove(at)?;
        self.note_served_out(link, &serve);
        Some(serve.id)
    }

    /// Has what is at `at` read from the store, and what small ones follow with it.
    fn load(&mut self, link: LinkId, at: usize) {
        let (log, loads) = (&self.log, &self.fetches.loads);
        let Some(up) = self.links.up(link) else { return };
        let Some(first) = up.serving.get_mut(at) else { return };
        if let Some(under_way) = loads.get(&first.id) {
            first.loading = Some(*under_way);
            return;
        }
        let single = first.parts.is_some();
        let (mut ids, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
        let lot = if single { 1 } else { LOT };
        for (place, serve) in up.serving.iter().enumerate().skip(at).take(lot) {
            let size = log.find(&serve.id).map_or(0, |entry| u64::from(entry.size));
            let ready = serve.loading.is_some()
                || serve.payload.is_some()
                || log.payload(&serve.id).is_some()
                || loads.contains_key(&serve.id)
                || !log.contains(&serve.id);
            if ready || serve.parts.is_some() != single {
                continue;
            }
            bytes += size;
            if bytes > LOT_BYTES && !ids.is_empty() {
                break;
            }
            ids.push(serve.id);
            places.push(place);
        }
        let ticket = self.env.ticket(Task::Load { ids: ids.clone() });
        for place in places {
            if let Some(serve) = up.serving.get_mut(place) {
                serve.loading = Some(ticket);
            }
        }
        for id in &ids {
            self.fetches.loads.insert(*id, ticket);
        }
        self.env.push(Output::Load { ticket, ids });
    }

    fn set_loading(&mut self, link: LinkId, at: usize, ticket: Ticket) {
        if let Some(serve) = self.links.up(link).and_then(|up| up.serving.get_mut(at)) {
            serve.loading = Some(ticket);
        }
    }

    pub(super) fn on_loaded(&mut self, ticket: Ticket, loaded: &[Option<Transaction>]) {
        let Some(Task::Load { ids }) = self.env.tickets.remove(&ticket) else { return };
        let mut gone = Vec::new();
        for (id, transaction) in ids.iter().zip(loaded) {
            self.fetches.loads.remove(id);
            match transaction {
                Some(transaction) => self.log.cache_again(transaction),
                None => gone.push(*id),
            }
        }
        let read = |id: &TransactionId| {
            ids.iter().position(|i| i == id).and_then(|at| loaded.get(at)?.clone())
        };
        for link in self.links.up_ids() {
            let Some(up) = self.links.up(link) else { continue };
            let waits = |s: &&mut Serve| s.loading == Some(ticket);
            let mut waited = false;
            for serve in up.serving.iter_mut().take(READ_AHEAD + LOT).filter(waits) {
                // Whatever has to leave the cache before it is sent.
                (serve.loading, serve.payload) = (None, read(&serve.id));
                waited = true;
            }
            if waited {
                self.answer_gone(link, &gone);
                self.serve(link);
            }
        }
    }

    /// What cannot be read is not there.
    fn answer_gone(&mut self, link: LinkId, gone: &[TransactionId]) {
        for id in gone {
            let Some(up) = self.links.up(link) else { return };
            if let Some(at) = up.serving.iter().position(|s| s.id == *id) {
                self.end_serving(link, at);
                self.answer_missing(link, *id);
            }
        }
    }

    /// Has the proofs of a payload made, once for all who wait for them.
    fn prove(&mut self, link: LinkId, at: usize, transaction: Transaction) {
        let id = transaction.id();
        let under_way = self.fetches.proving.get(&id).copied();
        let ticket = under_way.unwrap_or_else(|| {
            let ticket = self.env.ticket(Task::Prove { id });
            self.fetches.proving.insert(id, ticket);
            self.env.push(Output::Prove { ticket, transaction });
            ticket
        });
        self.set_loading(link, at, ticket);
    }

    /// Without proofs it cannot be served.
    pub(super) fn on_unproved(&mut self, ticket: Ticket) {
        let Some(Task::Prove { id }) = self.env.tickets.remove(&ticket) else { return };
        self.fetches.proving.remove(&id);
        for link in self.links.up_ids() {
            let serving = self.links.all.get(&link).and_then(|l| l.up.as_ref());
            let waits =
                serving.is_some_and(|up| up.serving.iter().any(|s| s.loading == Some(ticket)));
            if waits {
                self.answer_gone(link, &[id]);
                self.serve(link);
            }
        }
    }

    pub(super) fn on_proved(&mut self, ticket: Ticket, proofs: Proofs) {
        let Some(Task::Prove { id }) = self.env.tickets.remove(&ticket) else { return };
        self.fetches.proving.remove(&id);
        for link in self.links.up_ids() {
            let Some(up) = self.links.up(link) else { continue };
            let waits = |s: &&mut Serve| s.loading == Some(ticket);
            for serve in up.serving.iter_mut().filter(waits) {
                serve.loading = None;
                if let Some(parts) = &mut serve.parts {
                    parts.proofs = Some(proofs.clone());
                }
            }
            self.serve(link);
        }
        self.shelve(id, proofs);
    }
}

/// What can be sent of a payload that is still on its way here.
fn from_assembly(pending: &crate::protocol::intake::Pending, parts: &Parts) -> Option<Step> {
    let large = pending.large.as_ref().filter(|_| is_passed_on(pending))?;
    if parts.head {
        return Some(Step::Head(Box::new(large.head.clone()?), false));
    }
    let have = &large.assembly.as_ref()?.have;
    parts.wanted.first_of(Some(have)).map(Step::Piece)
}

fn count_of(size: u64) -> u32 {
    u32::try_from(pieces_of(size)).unwrap_or(u32::MAX)
}
