//! Putting large payloads together from their pieces.
//!
//! A piece is taken from who was asked for it, and from those asked before, who may only have been
//! slow; anything else is counted and dropped. Each is checked by itself, off the core, against the
//! payload hash in the header: so it is certain who sent a wrong one, and it costs that peer and
//! nobody else the link. Only what was checked is kept, counted as progress and passed on. Only the
//! last piece may be short, so that crumbs do not pass for progress.
//!
//! Tested by: `sim::tests::large`, `protocol::tests::liars`, `protocol::tests::budget`.

use bytes::Bytes;

use crate::protocol::intake::Stage;
use crate::protocol::io::{Output, Ticket};
use crate::protocol::{Protocol, env::Task};
use crate::types::{
    LinkId, Message, MonoTime, Piece, PieceSet, Proofs, Refusal, TransactionId, payload_buffer,
    piece_len, pieces_of,
};

/// The payload as far as it is here.
#[derive(Debug)]
pub(in crate::protocol) struct Assembly {
    /// Pieces as they came, so that passing one on copies nothing; empty where `have` has none.
    pieces: Vec<Bytes>,
    pub(in crate::protocol) have: PieceSet,
    pub(super) checking: PieceSet,
    pub(in crate::protocol) proofs: Vec<Bytes>,
    /// Time when the payload was last up to the pace (see `spill`); at first, when the buffer was
    /// made.
    pub(in crate::protocol) paced: MonoTime,
}

impl Assembly {
    pub(in crate::protocol) fn new(size: u64, now: MonoTime) -> Self {
        let count = u32::try_from(pieces_of(size)).unwrap_or(u32::MAX);
        Self {
            pieces: vec![Bytes::new(); count as usize],
            have: PieceSet::empty(count),
            checking: PieceSet::empty(count),
            proofs: vec![Bytes::new(); count as usize],
            paced: now,
        }
    }

    /// Takes a piece that was checked; whether it is new.
    pub(in crate::protocol) fn insert(&mut self, piece: Piece) -> bool {
        let at = piece.index as usize;
        let (Some(slot), Some(proof)) = (self.pieces.get_mut(at), self.proofs.get_mut(at)) else {
            return false;
        };
        if !self.have.insert(piece.index) {
            return false;
        }
        (*slot, *proof) = (piece.bytes, piece.proof);
        true
    }

    /// A piece with its proof, if it is here.
    pub(in crate::protocol) fn piece(&self, id: TransactionId, index: u32) -> Option<Piece> {
        let bytes = self.pieces.get(index as usize).filter(|_| self.have.contains(index))?.clone();
        let proof = self.proofs.get(index as usize)?.clone();
        Some(Piece { id, index, bytes, proof })
    }

    /// The whole payload, once all pieces are here, and its proofs. Each piece goes as soon as it is
    /// copied, so that there is never much more than one payload.
    fn into_payload(self) -> (Bytes, Vec<Bytes>) {
        let mut payload = payload_buffer(self.pieces.iter().map(Bytes::len).sum());
        for piece in self.pieces {
            payload.extend_from_slice(&piece);
        }
        (payload.into(), self.proofs)
    }
}

impl Protocol {
    /// Part of a large payload came.
    pub(in crate::protocol) fn on_piece(&mut self, link: LinkId, piece: Piece) {
        self.env.counters.pieces_received += 1;
        self.env.counters.payload_bytes_received += piece.bytes.len() as u64;
        let id = piece.id;
        let Some(root) = self.expects_piece(link, &piece) else {
            self.env.counters.pieces_unexpected += 1;
            return;
        };
        let Some(from) = self.links.all.get(&link).map(|l| l.remote) else { return };
        self.note_progress(link, &id, piece.bytes.len());
        let Some(pending) = self.intake.pending.get_mut(&id) else { return };
        let len = pending.size;
        let Some(large) = &mut pending.large else { return };
        if let Some(assembly) = &mut large.assembly {
            assembly.checking.insert(piece.index);
        }
        let mut spared = None;
        for parent in &mut large.parents {
            let removed = parent.wanted.as_mut().is_some_and(|w| w.remove(piece.index));
            if removed && parent.link != link {
                spared = Some(parent.link);
            }
        }
        if let Some(other) = spared {
            // Late, from who was asked before: the other need not send it any more.
            self.say_narrowed(other, &id);
        }
        self.env.verifying.enter(1);
        self.env.verifying_bytes.enter(piece.bytes.len() as u64);
        let task = Task::Piece { link, from, piece: piece.clone() };
        let ticket = self.env.ticket(task);
        self.env.push(Output::VerifyPiece { ticket, root, len, piece });
        self.end_fulfilled(&id);
    }

    /// The payload hash that a piece has to fit, if it is one that is needed.
    fn expects_piece(&self, link: LinkId, piece: &Piece) -> Option<[u8; 32]> {
        let pending = self.intake.pending.get(&piece.id).filter(|p| p.stage == Stage::Heard)?;
        let large = pending.large.as_ref()?;
        let assembly = large.assembly.as_ref()?;
        let known =
            large.parents.iter().any(|p| p.link == link) || large.former_parents.contains(&link);
        let new = !assembly.have.contains(piece.index) && !assembly.checking.contains(piece.index);
        let whole = piece.index < assembly.have.len()
            && piece.bytes.len() == piece_len(pending.size, piece.index);
        let root = large.head.as_ref()?.header().payload_hash;
        (known && new && whole).then_some(root)
    }

    /// Frees parents that owe nothing more for other work.
    fn end_fulfilled(&mut self, id: &TransactionId) {
        let Some(large) = self.intake.pending.get(id).and_then(|p| p.large.as_ref()) else {
            return;
        };
        let done =
            large.parents.iter().filter(|p| p.wanted.as_ref().is_some_and(PieceSet::is_empty));
        let done: Vec<LinkId> = done.map(|p| p.link).collect();
        if done.is_empty() {
            return;
        }
        for link in done {
            self.end_parent(link, id, false);
            if let Some(up) = self.links.up(link).filter(|up| up.requests.in_flight.is_empty()) {
                up.pieces.idle();
            }
        }
        self.drive(id);
    }

    pub(in crate::protocol) fn on_piece_verified(&mut self, ticket: Ticket, valid: bool) {
        let Some(Task::Piece { link, from, piece }) = self.env.tickets.remove(&ticket) else {
            return;
        };
        self.env.verifying.leave(1);
        self.env.verifying_bytes.leave(piece.bytes.len() as u64);
        let id = piece.id;
        if valid {
            self.keep_piece(link, piece);
            return;
        }
        self.refuse_transaction(link, &id, Refusal::WrongHash);
        if let Some(pending) = self.intake.pending.get_mut(&id) {
            pending.sources.retain(|s| s.link != link);
            if let Some(assembly) = pending.large.as_mut().and_then(|l| l.assembly.as_mut()) {
                assembly.checking.remove(piece.index);
            }
        }
        self.punish(&from, "forged transaction");
        self.drive(&id);
    }

    fn keep_piece(&mut self, link: LinkId, piece: Piece) {
        let id = piece.id;
        let Some(pending) = self.intake.pending.get_mut(&id) else { return };
        let Some(large) = &mut pending.large else { return };
        let Some(assembly) = &mut large.assembly else { return };
        assembly.checking.remove(piece.index);
        if !assembly.insert(piece) {
            return;
        }
        self.assemblies.spills.progress(id, &mut assembly.paced, self.env.now);
        let first = assembly.have.count() == 1 && assembly.have.len() > 1;
        let children: Vec<LinkId> = large.children.iter().map(|(link, _)| *link).collect();
        let trusted = large.trusted;
        self.note_inflow_progress(&id);
        if first && trusted {
            self.say_receiving(&id, link);
        }
        for child in children {
            self.serve(child);
        }
        self.finish_assembly(&id);
    }

    /// Tells the neighbours that pieces can be had here.
    pub(super) fn say_receiving(&mut self, id: &TransactionId, from: LinkId) {
        if !self.env.relays_ahead() {
            return;
        }
        let Some(large) = self.intake.pending.get(id).and_then(|p| p.large.as_ref()) else {
            return;
        };
        let (id, rank) = (*id, large.rank);
        let Some(topic) = large.head.as_ref().map(|head| head.header().topic.clone()) else {
            return;
        };
        for link in self.links.up_ids() {
            if link != from && self.is_writable(link) && self.takes_topic(link, &topic) {
                self.send(link, Message::Receiving { id, place: rank });
            }
        }
    }

    /// Hands on a payload that is complete and whose signature is known to be right.
    pub(super) fn finish_assembly(&mut self, id: &TransactionId) {
        let Some(pending) = self.intake.pending.get_mut(id).filter(|p| p.stage == Stage::Heard)
        else {
            return;
        };
        let Some(large) = &pending.large else { return };
        let complete = |a: &Assembly| a.have.count() == a.have.len();
        if !large.trusted || !large.assembly.as_ref().is_some_and(complete) {
            return;
        }
        let (hop, link) = (large.hop.saturating_sub(1), large.former_parents.last().copied());
        let (Some(head), Some(assembly)) = (large.head.clone(), self.take_assembly(id)) else {
            return;
        };
        self.env.counters.payloads_received += 1;
        let (payload, proofs) = assembly.into_payload();
        self.serving.proofs.put(*id, Proofs::collected(proofs));
        let from = link.and_then(|link| self.links.all.get(&link)).map(|l| l.remote);
        let origin = head.header().origin;
        let Ok(transaction) = head.with_payload(payload) else { return };
        // A link that ended since brought the last piece.
        let from = from.unwrap_or(origin);
        if self.env.validating {
            self.validate(link, from, transaction, hop, true);
        } else if let Some(reason) = self.inadmissible(transaction.header()) {
            let pending = self.remove_pending(id);
            self.refuse_transaction(link, id, reason);
            self.trail.describe(id, transaction.header());
            if reason.is_for_now() {
                self.absolve(pending.as_ref());
                self.turn_away(*id, transaction.header());
            }
        } else {
            self.guard.reputation.note_served(&from, self.env.now);
            if !self.defer(from, &transaction, hop) {
                self.accept(from, &transaction, hop);
            }
        }
    }

    /// Takes memory for a payload whose header is here; `false` when there is no room for it, or
    /// part of it is still to come from the store.
    pub(super) fn start_assembly(&mut self, id: &TransactionId) -> bool {
        let Some(pending) = self.intake.pending.get_mut(id) else { return false };
        let size = pending.size;
        let Some(large) = pending.large.as_mut().filter(|l| l.head.is_some()) else { return false };
        if large.assembly.is_some() || large.coming.is_some() {
            return large.coming.is_none();
        }
        let assembling = self.assemblies.bytes;
        let has_room = assembling.has_room(size, self.env.shares.assemblies);
        if !has_room || !self.env.may_assemble(size, assembling.level()) {
            if !std::mem::replace(&mut large.waiting, true) {
                self.assemblies.waiting.push_back(*id);
            }
            self.abandon_parents(id);
            return false;
        }
        if self.assemblies.spills.has(id) {
            self.bring_back(id);
            return false;
        }
        self.assemblies.bytes.enter(size);
        self.assemblies.spills.begin(*id, self.env.now);
        let assembly = Assembly::new(size, self.env.now);
        for parent in &mut large.parents {
            parent.wanted.get_or_insert_with(|| PieceSet::full(assembly.have.len()));
        }
        large.assembly = Some(assembly);
        true
    }

    pub(in crate::protocol) fn drop_assembly(&mut self, id: &TransactionId) {
        self.take_assembly(id);
        self.forget_coming(id);
    }

    /// Takes out what is here of a payload; its memory is free for others.
    pub(super) fn take_assembly(&mut self, id: &TransactionId) -> Option<Assembly> {
        let pending = self.intake.pending.get_mut(id)?;
        let assembly = pending.large.as_mut()?.assembly.take()?;
        self.assemblies.bytes.leave(pending.size);
        self.assemblies.spills.end(*id, assembly.paced);
        Some(assembly)
    }

    /// Lets in what waits for room, at the end of a turn; who makes no progress makes way.
    pub(in crate::protocol) fn admit_waiting(&mut self) {
        let budget = self.env.shares.assemblies;
        while let Some(id) = self.assemblies.waiting.front().copied() {
            let Some(pending) = self.intake.pending.get_mut(&id) else {
                self.assemblies.waiting.pop_front();
                continue;
            };
            let (size, assembling) = (pending.size, self.assemblies.bytes);
            // Before the store is waited for: buffers count there too, and it empties none of them.
            if !assembling.has_room(size, budget) {
                if !self.make_room(size) {
                    return;
                }
                continue;
            }
            if !self.env.may_assemble(size, assembling.level()) {
                // For the store.
                return;
            }
            self.assemblies.waiting.pop_front();
            if let Some(large) = &mut pending.large {
                large.waiting = false;
            }
            self.drive(&id);
        }
    }
}
