//! What happens: events become inputs, outputs become effects.

use std::time::Duration;

use crate::error::StoreErrorKind;
use crate::protocol::{Input, Judgement, Output, PartialOp, Ticket};
use crate::types::{
    Head, InvalidTransaction, NewEntry, PeerRecord, Piece, Proofs, Transaction, TransactionId,
    Verdict, verify_piece,
};

use super::event::{DialTarget, Event};
use super::node::{Deferred, Delivery};
use super::pipe::Arrival;
use super::{LIFETIME, MAX_WATCHED, World};
use crate::sim::check::Seen;
use crate::sim::config::Verification;

/// Number of turns of a node after which sizes are looked at; more of them the larger the world is:
/// sizes cost more than a turn does.
const GAUGE_EVERY: u64 = 32;

impl World {
    pub(super) fn dispatch(&mut self, event: Event) {
        match event {
            Event::Wake { node, boot } => {
                let due = self.nodes[node].wake == Some(self.now);
                if due && self.is_running(node, boot) {
                    self.nodes[node].wake = None;
                    self.feed(node, Input::Timeout);
                }
            }
            Event::Dialled { node, boot, dial, to } => {
                self.on_dialled(node, boot, dial, &to);
            }
            Event::DialFailed { node, boot, dial, reason } => {
                if self.is_running(node, boot) {
                    self.fail_dial(node, dial, reason);
                }
            }
            Event::Opened { pipe, side, dial } => self.on_opened(pipe, side, dial),
            Event::Uplink { node, boot } => {
                if self.nodes[node].boot == boot {
                    self.nodes[node].uplink_timer = false;
                    self.transmit(node);
                }
            }
            Event::Sent { node, boot, link, weight, bytes } => {
                self.feed_run(node, boot, Input::Sent { link, weight, bytes });
            }
            Event::Arrived { pipe, side, frame } => {
                self.arrive(pipe, side, Arrival::Frame(frame));
            }
            Event::Cut { pipe } => self.cut(pipe),
            Event::Ended { pipe, side } => self.arrive(pipe, side, Arrival::Ended),
            Event::Verified { node, boot, ticket, judgement } => {
                self.feed_run(node, boot, Input::Verified { ticket, judgement });
            }
            Event::Completed { node, boot, input } => self.feed_run(node, boot, *input),
            Event::Stored { node, boot, ticket, entries } => {
                if self.is_running(node, boot) {
                    self.on_stored(node, ticket, entries);
                }
            }
            Event::Partial { node, boot, op } => {
                if self.is_running(node, boot) {
                    self.on_partial(node, *op);
                }
            }
            Event::Resume { node, boot } => {
                if self.is_running(node, boot) {
                    self.resume(node);
                }
            }
            Event::Renewed { node, boot, above } => {
                if self.is_running(node, boot) {
                    let n = &mut self.nodes[node];
                    n.record_seq = n.record_seq.max(above);
                    let record = self.nodes[node].sign_record(self.now);
                    self.feed(node, Input::Record(record));
                }
            }
            Event::Loaded { node, boot, ticket, ids } => {
                let store = &self.nodes[node].store;
                let transactions = ids.iter().map(|id| store.get(id).cloned()).collect();
                self.feed_run(node, boot, Input::Loaded { ticket, transactions });
            }
        }
    }

    pub(super) fn is_running(&self, node: usize, boot: u64) -> bool {
        let n = &self.nodes[node];
        n.boot == boot && n.protocol.is_some()
    }

    pub(super) fn feed_run(&mut self, node: usize, boot: u64, input: Input) {
        if self.is_running(node, boot) {
            self.feed(node, input);
        }
    }

    /// Gives a node one input and carries out all that follows from it.
    pub(super) fn feed(&mut self, node: usize, input: Input) {
        if self.nodes[node].protocol.is_none() {
            return;
        }
        self.digest_event(node, &input);
        let watched = self.is_watched(node);
        if watched {
            self.show(&Seen::Time { now: self.now });
            self.show(&Seen::Input { node, input: &input });
        }
        let n = &mut self.nodes[node];
        let (mono, wall) = (n.mono(self.now), n.wall(self.now));
        let Some(protocol) = &mut n.protocol else { return };
        protocol.handle(mono, wall, input);
        // One list for all turns; a turn within a turn (a deferred frame) makes its own.
        let mut outputs = std::mem::take(&mut self.outputs);
        while let Some(output) = protocol.poll_output() {
            outputs.push(output);
        }
        for output in outputs.drain(..) {
            self.digest_event(node, &output);
            if watched {
                self.show(&Seen::Output { node, output: &output });
            }
            self.perform(node, output);
        }
        self.outputs = outputs;
        self.after_turn(node);
        self.transmit(node);
    }

    pub(super) fn after_turn(&mut self, node: usize) {
        let watched = self.is_watched(node);
        let n = &mut self.nodes[node];
        n.turns += 1;
        let Some(protocol) = &n.protocol else { return };
        // Of as many as are watched at most.
        let looked_at = self.config.nodes.min(MAX_WATCHED) as u64;
        let (turns, every) = (n.turns, GAUGE_EVERY * (1 + looked_at / 256));
        if turns.is_multiple_of(every) && watched {
            let (links, gauges) = (protocol.links(), protocol.gauges());
            self.show(&Seen::Turn { node, links: &links, gauges: &gauges });
        }
        let n = &mut self.nodes[node];
        let Some(protocol) = &n.protocol else { return };
        if let Some(at) = protocol.poll_timeout() {
            let at = (n.started + at.as_duration()).max(self.now);
            if n.wake.is_none_or(|old| at < old) {
                n.wake = Some(at);
                let boot = n.boot;
                self.schedule(at, Event::Wake { node, boot });
            }
        }
        let n = &self.nodes[node];
        if !n.deferred.is_empty() {
            self.due_now.push_back(Event::Resume { node, boot: n.boot });
        }
    }

    /// Takes one of the frames that a full node left waiting.
    fn resume(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if n.protocol.as_ref().is_some_and(crate::protocol::Protocol::has_room)
            && let Some(Deferred { pipe, side, frame }) = n.deferred.pop_front()
        {
            self.take_frame(pipe, side, frame);
        }
    }

    fn perform(&mut self, node: usize, output: Output) {
        let boot = self.nodes[node].boot;
        match output {
            Output::Dial { dial, endpoint, rung, expected, avoid } => {
                let to = self.addresses.get(&endpoint).copied().unwrap_or(node);
                let at = self.now + self.travel(node, to);
                let to = Box::new(DialTarget { endpoint, rung, expected, avoid });
                self.nodes[node].dials.insert(dial);
                self.schedule(at, Event::Dialled { node, boot, dial, to });
            }
            Output::CancelDial { dial } => {
                self.nodes[node].dials.remove(&dial);
            }
            Output::Send { link, message } => self.send(node, link, message),
            Output::Measure { link } => self.measure(node, link),
            Output::Close { link } => self.close(node, link),
            Output::Verify { ticket, transaction, proven, .. } => {
                let judgement = self.judge(&transaction, proven);
                let at = self.now + self.config.verify_delay;
                self.schedule(at, Event::Verified { node, boot, ticket, judgement });
            }
            Output::VerifyHead { ticket, head } => {
                let result = self.judge_head(&head);
                self.complete_later(node, Input::HeadVerified { ticket, result });
            }
            Output::VerifyPiece { ticket, root, len, piece } => {
                let trusted = self.config.verification == Verification::Trusted;
                let valid =
                    trusted || verify_piece(&root, len, piece.index, &piece.bytes, &piece.proof);
                self.complete_later(node, Input::PieceVerified { ticket, valid });
            }
            Output::Prove { ticket, transaction } => {
                let proofs = Proofs::of(transaction.payload());
                self.complete_later(node, Input::Proved { ticket, proofs });
            }
            Output::VerifyRecords { ticket, records } => {
                let all = records.len();
                let valid: Vec<_> = records.into_iter().filter(|r| self.is_genuine(r)).collect();
                let forged = all - valid.len();
                self.complete_later(node, Input::RecordsVerified { ticket, valid, forged });
            }
            Output::Store { ticket, entry, .. } => {
                let at = self.after_store(node);
                self.schedule(at, Event::Stored { node, boot, ticket, entries: vec![entry] });
            }
            Output::StoreOwn { ticket, entries } => {
                let at = self.after_store(node);
                self.schedule(at, Event::Stored { node, boot, ticket, entries });
            }
            Output::Load { ticket, ids } => {
                let at = self.now + self.config.store_delay;
                self.schedule(at, Event::Loaded { node, boot, ticket, ids });
            }
            Output::Renew { id } => self.renew(node, id),
            Output::Renewed { id, .. } => {
                self.nodes[node].store.confirm(&[id]);
                self.coverage.withdrawn(&id);
            }
            Output::Partial(op) => {
                let at = self.after_store(node);
                self.schedule(at, Event::Partial { node, boot, op: Box::new(op) });
            }
            Output::UpdateOutbox { states } => self.nodes[node].store.update(&states),
            Output::Confirmed { ids, .. } => self.nodes[node].store.confirm(&ids),
            Output::Expire { now } => {
                for id in self.nodes[node].store.expire(now) {
                    self.coverage.removed(&id, node);
                }
            }
            Output::CorrectClock { correction_ms } => {
                self.nodes[node].correction_ms = correction_ms;
            }
            Output::OwnEndpoints { endpoints } if self.nodes[node].options.learns => {
                self.nodes[node].told = endpoints;
                self.renew_record(node, 0);
            }
            Output::RenewRecord { above } => self.renew_record(node, above),
            Output::SavePast { since, until } => {
                self.nodes[node].store.save_past(since, until);
            }
            Output::SavePeer(peer) => self.nodes[node].store.save_peer(*peer),
            Output::ForgetPeer(peer) => self.nodes[node].store.forget_peer(&peer),
            Output::SaveBan(ban) => self.nodes[node].store.save_ban(ban),
            Output::LiftBan(peer) => self.nodes[node].store.lift_ban(&peer),
            Output::Requested { ticket, body, .. } => self.handle_request(node, ticket, &body),
            Output::Answered { call, result } => {
                self.nodes[node].host.answers.insert(call, result);
            }
            Output::RequestCancelled { .. }
            | Output::Published { .. }
            | Output::Copied { .. }
            | Output::Connected { .. }
            | Output::Tested { .. }
            | Output::OwnEndpoints { .. }
            | Output::Shun { .. }
            | Output::Emit(_) => {}
        }
    }

    /// Has a node sign its record anew after as long as a check takes.
    fn renew_record(&mut self, node: usize, above: u64) {
        let (at, boot) = (self.now + self.config.verify_delay, self.nodes[node].boot);
        self.schedule(at, Event::Renewed { node, boot, above });
    }

    /// Publishes anew what a node has in its outbox.
    fn renew(&mut self, node: usize, id: TransactionId) {
        let n = &self.nodes[node];
        let Some(old) = n.store.queued(&id) else {
            return self.complete_later(node, Input::NotRenewed { id, removed: true });
        };
        let (topic, payload) = (old.topic().as_str().to_owned(), old.payload().clone());
        let wall = n.dated(self.now);
        // Transactions of one moment differ in when they expire.
        let expires = wall.plus(LIFETIME + Duration::from_millis(n.next_call % 1000));
        let transaction = self.transaction(node, &topic, &payload, wall, expires);
        self.coverage.published(&transaction, self.now);
        let n = &mut self.nodes[node];
        n.next_call += 1;
        let call = crate::protocol::CallId(n.next_call);
        let transactions = vec![transaction];
        self.complete_later(node, Input::Publish { call, transactions, renews: Some(id) });
    }

    /// Time at which a node's store is through with what it has to do and one thing more.
    fn after_store(&mut self, node: usize) -> std::time::Duration {
        let n = &mut self.nodes[node];
        n.store_free = n.store_free.max(self.now) + self.config.store_delay;
        n.store_free
    }

    fn on_partial(&mut self, node: usize, op: PartialOp) {
        let trusted = self.config.verification == Verification::Trusted;
        let n = &mut self.nodes[node];
        match op {
            PartialOp::Spill { ticket, partial, max_bytes } => {
                let is_kept = n.store_error.is_none();
                if is_kept {
                    n.store.put_partial(partial, max_bytes);
                }
                self.feed(node, Input::Spilled { ticket, kept: is_kept });
            }
            PartialOp::Unspill { ticket, id, root, len } => {
                let mut pieces = n.store.partial(&id);
                let right = |p: &Piece| verify_piece(&root, len, p.index, &p.bytes, &p.proof);
                pieces.retain(|piece| trusted || right(piece));
                self.feed(node, Input::Unspilled { ticket, pieces });
            }
            PartialOp::Drop { ids } => n.store.drop_partials(&ids),
        }
    }

    /// Feeds in `input` after as long as a check takes.
    fn complete_later(&mut self, node: usize, input: Input) {
        let (at, boot) = (self.now + self.config.verify_delay, self.nodes[node].boot);
        self.schedule(at, Event::Completed { node, boot, input: Box::new(input) });
    }

    fn judge(&mut self, transaction: &Transaction, proven: bool) -> Judgement {
        let accept = Judgement::Verdict(Verdict::Accept);
        if self.forged.contains(&transaction.id()) {
            return Judgement::Invalid(InvalidTransaction::Signature);
        }
        if self.config.verification == Verification::Trusted || proven {
            return accept;
        }
        if let Err(why) = transaction.verify_payload() {
            return Judgement::Invalid(why);
        }
        match self.judge_head(&Head::of(transaction)) {
            Ok(()) => accept,
            Err(why) => Judgement::Invalid(why),
        }
    }

    fn judge_head(&mut self, head: &Head) -> Result<(), InvalidTransaction> {
        if self.forged.contains(&head.id()) {
            return Err(InvalidTransaction::Signature);
        }
        if self.config.verification == Verification::Trusted {
            return Ok(());
        }
        let Some(signed) = head.signature().signed(&head.id()) else {
            return Err(InvalidTransaction::Unsigned);
        };
        // What is signed is part of the question: the same signature over something else is
        // another.
        let mut key = signed.signature;
        let message = blake3::hash(signed.message());
        key.iter_mut().zip(message.as_bytes()).for_each(|(k, m)| *k ^= m);
        let good = *self.checked.entry(key).or_insert_with(|| head.verify(true).is_ok());
        if good { Ok(()) } else { Err(InvalidTransaction::Signature) }
    }

    fn is_genuine(&mut self, record: &PeerRecord) -> bool {
        if self.config.verification == Verification::Trusted {
            return true;
        }
        let mut key = record.signature;
        let draft = blake3::hash(&record.draft.to_bytes());
        key.iter_mut().zip(draft.as_bytes()).for_each(|(k, d)| *k ^= d);
        *self.checked.entry(key).or_insert_with(|| record.verify())
    }

    fn on_stored(&mut self, node: usize, ticket: Ticket, entries: Vec<NewEntry>) {
        let n = &mut self.nodes[node];
        let size: u64 = entries.iter().map(|e| e.transaction.header().payload_len).sum();
        let full = n.options.store_bytes.filter(|most| n.store.bytes(None) + size > *most);
        if let Some(kind) = n.store_error.or(full.map(|_| StoreErrorKind::Full)) {
            self.faults.stores_failed += 1;
            self.feed(node, Input::Stored { ticket, result: Err(kind) });
            return;
        }
        for entry in entries {
            self.keep(node, entry);
        }
        self.feed(node, Input::Stored { ticket, result: Ok(()) });
    }

    /// Puts an entry into a node's store.
    fn keep(&mut self, node: usize, mut entry: NewEntry) {
        let n = &mut self.nodes[node];
        let (id, size) = (entry.transaction.id(), entry.transaction.header().payload_len);
        let (from, hops, keep_until) = (entry.from, entry.hops, entry.keep_until);
        let own = from.is_none();
        if own {
            n.promised.insert(id);
            self.figures.published += 1;
        }
        self.coverage.share(&mut entry.transaction);
        if let Some(cursor) = n.store.append(entry, own) {
            let aside = n.aside;
            n.deliveries.push(Delivery { cursor, id, from, hops, at: self.now });
            if from.is_some() {
                let since = self.coverage.published_at(&id).unwrap_or(self.now);
                let since = self.now.saturating_sub(since);
                self.figures.delivered(aside, since, hops, size);
            }
            self.coverage.stored(id, size, keep_until, node);
        }
    }
}
