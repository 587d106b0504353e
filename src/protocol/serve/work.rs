//! Sending what was asked for as far as the queue of a link has room.
//!
//! Tested by: `sim::tests::large`, `sim::tests::spread`.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::protocol::intake::Pending;
use crate::protocol::io::{Output, Ticket};
use crate::protocol::large::is_passed_on;
use crate::protocol::log::Record;
use crate::protocol::serve::{Parts, Serve};
use crate::protocol::timers::Timer;
use crate::protocol::trail::What;
use crate::protocol::{Protocol, env::Task};
use crate::types::{
    Head, LinkId, Message, Offer, PIECE_BYTES, Piece, Proofs, Transaction, TransactionId, piece_len,
};

/// Maximum number of payloads read ahead from the store for one peer: two lots of small ones, so
/// that one is sent while the next is read.
const READ_AHEAD: usize = 2 * LOT;
/// Maximum number of small payloads read at once.
const LOT: usize = 128;
/// Maximum number of large payloads read ahead from the store for one peer: one is read while
/// another is sent.
const LARGE_AHEAD: usize = 2;
/// Maximum bytes of small payloads read at once, beyond the first.
const LOT_BYTES: u64 = 1 << 20;
/// Maximum number of payloads whose proofs are being made at once; others wait for their turn.
const MAX_PROVING: usize = 16;
/// Number of pieces from which on the last is sent as a copy: a slice would keep the whole payload
/// in memory for as long as a slow peer needs to take it.
const COPY_LAST_OF: u32 = 4;

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
    /// Sends what a peer asked for as far as its queue has room.
    pub(in crate::protocol) fn serve(&mut self, link: LinkId) {
        self.serve_while_writable(link);
    }

    /// Serves those that wait for memory, as far as there is some, at the end of a turn.
    pub(in crate::protocol) fn serve_in_line(&mut self) {
        let now = self.env.now;
        let Some(due) = self.serving.held.next_try(now) else { return };
        if due > now {
            return self.env.timers.set_earlier(Timer::Room, due);
        }
        while let Some(link) = self.serving.held.first_in_line() {
            if self.serve_while_writable(link) {
                break;
            }
            // It has found room, or cannot take anything now: others are not kept waiting by that.
            self.serving.held.leave_line(link);
        }
        if let Some(due) = self.serving.held.next_try(now) {
            self.env.timers.set_earlier(Timer::Room, due);
        }
    }

    /// Serves a link; `true` when it waits for memory.
    fn serve_while_writable(&mut self, link: LinkId) -> bool {
        // Whole ones do not wait for a piece that has no room.
        let (mut starved, mut bulk) = (false, true);
        while self.is_writable(link) && (bulk || self.may_pump(link)) {
            let Some((at, step)) = self.next_step(link, !starved, bulk) else { break };
            match step {
                Step::Gone => {
                    let Some(id) = self.end_serving(link, at) else { break };
                    self.answer_missing(link, id);
                }
                Step::Whole(transaction) => self.serve_whole(link, at, transaction),
                Step::Load => starved |= !self.load(link, at),
                Step::Prove(transaction) => self.prove(link, at, transaction),
                Step::Head(head, complete) => self.serve_head(link, at, *head, complete),
                Step::Piece(index) => bulk = self.serve_piece(link, at, index),
            }
        }
        starved
    }

    /// The first thing on a link's list for which something can be done now; without `bulk`, of
    /// what is sent whole.
    fn next_step(&mut self, link: LinkId, may_load: bool, bulk: bool) -> Option<(usize, Step)> {
        let (log, pending, proofs_kept) =
            (&mut self.log, &self.intake.pending, &self.serving.proofs);
        let (proving, held) = (&self.serving.proving, &mut self.serving.held);
        let up = self.links.up(link)?;
        // Small ones are sent in the order of asking, which is that of their origin's publishing.
        let mut blocked = false;
        for (at, serve) in up.serve.entries.iter_mut().enumerate() {
            if !bulk && serve.parts.is_some() {
                continue;
            }
            if serve.loading.is_some() {
                blocked |= serve.parts.is_none();
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
            let payload = held.get(&serve.id).or_else(|| log.payload(&serve.id)).cloned();
            let Some(transaction) = payload else {
                let far = at >= READ_AHEAD || serve.parts.is_some() && at >= LARGE_AHEAD;
                if far || !may_load {
                    blocked |= serve.parts.is_none();
                    continue;
                }
                return Some((at, Step::Load));
            };
            let Some(parts) = &mut serve.parts else {
                if blocked {
                    continue;
                }
                return Some((at, Step::Whole(transaction)));
            };
            if parts.head {
                return Some((at, Step::Head(Box::new(Head::of(&transaction)), true)));
            }
            if parts.proofs.is_none() {
                parts.proofs = if parts.wanted.len() == 1 {
                    Some(Proofs::collected(vec![Bytes::new()]))
                } else {
                    proofs_kept.get(&serve.id)
                };
            }
            if parts.proofs.is_none() {
                if proving.len() >= MAX_PROVING && !proving.contains_key(&serve.id) {
                    continue;
                }
                return Some((at, Step::Prove(transaction)));
            }
            serve.claim = serve.claim.or_else(|| held.join(&serve.id));
            return Some((at, parts.wanted.first_of(None).map_or(Step::Gone, Step::Piece)));
        }
        None
    }

    fn serve_whole(&mut self, link: LinkId, at: usize, transaction: Transaction) {
        let Some(slot) = self.links.slot_of(link) else { return };
        let Some(id) = self.end_serving(link, at) else { return };
        let seq = self.log.seq_of(&id);
        if let Some(seq) = seq {
            self.trail.note(seq, What::Served, Some(slot), self.env.now);
        }
        self.env.counters.wants_served += 1;
        self.earn_answers(link);
        self.note_replay_served(link);
        let hop = seq.and_then(|seq| self.log.at(seq)).map_or(0, Record::hop);
        self.push(link, (slot, seq), transaction, hop);
    }

    fn serve_head(&mut self, link: LinkId, at: usize, head: Head, complete: bool) {
        let id = head.id();
        let here = self.log.find(&id).map(Record::hop);
        let coming = self.intake.pending.get(&id).and_then(|p| p.large.as_ref());
        let (coming, rank) = coming.map_or((0, 0), |large| (large.hop, large.rank));
        let hop = here.unwrap_or(coming);
        if let Some(parts) = self.parts(link, at) {
            parts.head = false;
        }
        self.send(link, Message::Offer(Box::new(Offer { head, hop, place: rank, complete })));
    }

    /// Sends one piece; `false` when one still waits, here or on its way.
    fn serve_piece(&mut self, link: LinkId, at: usize, index: u32) -> bool {
        let queued_bytes = self.links.all.get(&link).map_or(0, |l| l.queued_bytes);
        let Some(piece) = self.piece(link, at, index, queued_bytes) else { return false };
        if !self.takes_piece(link, piece.bytes.len()) {
            return false;
        }
        let id = piece.id;
        self.env.counters.pieces_sent += 1;
        self.env.counters.payload_bytes_sent += piece.bytes.len() as u64;
        self.note_replay_served(link);
        self.send(link, Message::Piece(piece));
        self.serving.reserved.leave(1);
        self.serving.held.note_use(&id, self.env.now);
        let Some(parts) = self.parts(link, at) else { return true };
        parts.wanted.remove(index);
        parts.sent.insert(index);
        if parts.wanted.is_empty() {
            let all = parts.sent.count() == parts.sent.len();
            self.end_serving(link, at);
            self.env.counters.wants_served += 1;
            self.earn_answers(link);
            if all
                && let Some(slot) = self.links.slot_of(link)
                && let Some(seq) = self.log.seq_of(&id)
            {
                self.log.note_known_at(seq, slot);
                self.trail.note(seq, What::Served, Some(slot), self.env.now);
            }
        }
        true
    }

    /// A piece with its proof, if there is room for it on the link.
    fn piece(&mut self, link: LinkId, at: usize, index: u32, queued_bytes: usize) -> Option<Piece> {
        let (pending, log, held) = (&self.intake.pending, &self.log, &self.serving.held);
        let serve = self.links.up(link)?.serve.entries.get(at)?;
        let start = index as usize * PIECE_BYTES;
        let fits = |len: usize| queued_bytes == 0 || queued_bytes + len <= PIECE_BYTES;
        if let Some(transaction) = held.get(&serve.id).or_else(|| log.payload(&serve.id)) {
            let payload = transaction.payload();
            let len = piece_len(payload.len() as u64, index);
            let parts = serve.parts.as_ref()?;
            let proof = parts.proofs.as_ref()?.get(index);
            let is_last = parts.wanted.count() == 1 && parts.wanted.len() >= COPY_LAST_OF;
            let bytes = || {
                let bytes = payload.slice(start..start + len);
                if is_last { Bytes::copy_from_slice(&bytes) } else { bytes }
            };
            return fits(len).then(|| Piece { id: serve.id, index, bytes: bytes(), proof });
        }
        let pending = pending.get(&serve.id)?;
        let assembly = pending.large.as_ref()?.assembly.as_ref()?;
        assembly.piece(serve.id, index).filter(|piece| fits(piece.bytes.len()))
    }

    fn parts(&mut self, link: LinkId, at: usize) -> Option<&mut Parts> {
        self.links.up(link)?.serve.entries.get_mut(at)?.parts.as_mut()
    }

    /// Has what is at `at` read from the store, and what small ones follow with it; `false` when
    /// there is no memory for that now.
    fn load(&mut self, link: LinkId, at: usize) -> bool {
        let (log, loads, held) = (&self.log, &self.serving.loads, &self.serving.held);
        let Some(up) = self.links.up(link) else { return true };
        let Some(first) = up.serve.entries.get_mut(at) else { return true };
        if let Some(under_way) = loads.get(&first.id) {
            first.loading = Some(*under_way);
            return true;
        }
        let single = first.parts.is_some();
        let (mut ids, mut indices, mut sizes, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let lot = if single { 1 } else { LOT };
        for (index, serve) in up.serve.entries.iter().enumerate().skip(at).take(lot) {
            let size = log.find(&serve.id).map_or(0, |entry| u64::from(entry.size));
            let ready = serve.loading.is_some()
                || held.get(&serve.id).is_some()
                || log.payload(&serve.id).is_some()
                || loads.contains_key(&serve.id)
                || !log.contains(&serve.id);
            if ready || serve.parts.is_some() != single {
                continue;
            }
            if bytes + size > LOT_BYTES && !ids.is_empty() {
                break;
            }
            bytes += size;
            ids.push(serve.id);
            indices.push(index);
            sizes.push(size);
        }
        let (share, now) = (self.env.shares.serving, self.env.now);
        if !self.serving.held.make_room(link, bytes, share, now) {
            return false;
        }
        let ticket = self.env.ticket(Task::Load { ids: ids.clone() });
        for index in indices {
            if let Some(serve) = up.serve.entries.get_mut(index) {
                serve.loading = Some(ticket);
            }
        }
        for (id, size) in ids.iter().zip(sizes) {
            self.serving.loads.insert(*id, ticket);
            self.serving.held.begin(*id, size, now);
        }
        self.env.push(Output::Load { ticket, ids });
        true
    }

    fn set_loading(&mut self, link: LinkId, at: usize, ticket: Ticket) {
        if let Some(serve) = self.links.up(link).and_then(|up| up.serve.entries.get_mut(at)) {
            serve.loading = Some(ticket);
        }
    }

    pub(in crate::protocol) fn on_loaded(
        &mut self,
        ticket: Ticket,
        loaded: &[Option<Transaction>],
    ) {
        let Some(Task::Load { ids }) = self.env.tickets.remove(&ticket) else { return };
        let mut missing = Vec::new();
        for (id, transaction) in ids.iter().zip(loaded) {
            self.serving.loads.remove(id);
            match transaction {
                Some(transaction) => self.log.cache_again(transaction),
                None => missing.push(*id),
            }
        }
        let mut users: BTreeMap<TransactionId, usize> = BTreeMap::new();
        let mut waiting = Vec::new();
        for link in self.links.up_ids() {
            let Some(up) = self.links.up(link) else { continue };
            let waits = |s: &&mut Serve| s.loading == Some(ticket);
            let before = users.values().sum::<usize>();
            for serve in up.serve.entries.iter_mut().filter(waits) {
                // Whatever has to leave the cache before it is sent.
                (serve.loading, serve.claim) = (None, self.serving.held.claim(&serve.id));
                *users.entry(serve.id).or_default() += 1;
            }
            if users.values().sum::<usize>() > before {
                waiting.push(link);
            }
        }
        for (id, transaction) in ids.iter().zip(loaded) {
            let users = users.get(id).copied().unwrap_or_default();
            self.serving.held.arrive(*id, transaction.clone(), users, self.env.now);
        }
        for link in waiting {
            self.answer_gone(link, &missing);
            self.serve(link);
        }
    }

    /// Answers that what cannot be read is not there.
    fn answer_gone(&mut self, link: LinkId, missing: &[TransactionId]) {
        for id in missing {
            let Some(up) = self.links.up(link) else { return };
            if let Some(at) = up.serve.entries.iter().position(|s| s.id == *id) {
                self.end_serving(link, at);
                self.answer_missing(link, *id);
            }
        }
    }

    /// Has the proofs of a payload made, once for all who wait for them.
    fn prove(&mut self, link: LinkId, at: usize, transaction: Transaction) {
        let id = transaction.id();
        let under_way = self.serving.proving.get(&id).copied();
        let ticket = under_way.unwrap_or_else(|| {
            let ticket = self.env.ticket(Task::Prove { id });
            self.serving.proving.insert(id, ticket);
            self.env.push(Output::Prove { ticket, transaction });
            ticket
        });
        self.set_loading(link, at, ticket);
    }

    /// Ends the serving of a payload that has no proofs.
    pub(in crate::protocol) fn on_unproved(&mut self, ticket: Ticket) {
        let Some(Task::Prove { id }) = self.env.tickets.remove(&ticket) else { return };
        self.serving.proving.remove(&id);
        for link in self.links.up_ids() {
            let serving = self.links.all.get(&link).and_then(|l| l.up.as_ref());
            let waits = serving
                .is_some_and(|up| up.serve.entries.iter().any(|s| s.loading == Some(ticket)));
            if waits {
                self.answer_gone(link, &[id]);
                self.serve(link);
            }
        }
    }

    pub(in crate::protocol) fn on_proved(&mut self, ticket: Ticket, proofs: Proofs) {
        let Some(Task::Prove { id }) = self.env.tickets.remove(&ticket) else { return };
        self.serving.proving.remove(&id);
        for link in self.links.up_ids() {
            let Some(up) = self.links.up(link) else { continue };
            let waits = |s: &&mut Serve| s.loading == Some(ticket);
            for serve in up.serve.entries.iter_mut().filter(waits) {
                serve.loading = None;
                if let Some(parts) = &mut serve.parts {
                    parts.proofs = Some(proofs.clone());
                }
            }
            self.serve(link);
        }
        self.serving.proofs.put(id, proofs);
    }
}

/// Returns what can be sent of a payload that is still on its way here.
fn from_assembly(pending: &Pending, parts: &Parts) -> Option<Step> {
    let large = pending.large.as_ref().filter(|_| is_passed_on(pending))?;
    if parts.head {
        return Some(Step::Head(Box::new(large.head.clone()?), false));
    }
    let have = &large.assembly.as_ref()?.have;
    parts.wanted.first_of(Some(have)).map(Step::Piece)
}
