//! From complete bytes to the log: hash and signature, then the validator's verdict.
//!
//! Nothing is delivered or announced as held before hash and signature are verified and the
//! validator has accepted. Forged bytes cost their sender the link and the id is fetched elsewhere.
//!
//! Tested by: `protocol::tests::liars`, `sim::tests::hostile`.

use std::time::Duration;

use crate::protocol::io::{Judgement, Output, Ticket};
use crate::protocol::timers::Timer;
use crate::protocol::{Protocol, env::Task};
use crate::types::{
    Event, Header, InvalidTransaction, LinkId, PeerId, Refusal, Transaction, TransactionId, Verdict,
};

use super::table::{Holds, Pending, Stage};

/// Delay before a validator that did not answer is asked again.
const VALIDATE_AGAIN: Duration = Duration::from_secs(10);
/// Number of times that the validator is asked about one transaction without an answer before that
/// transaction is left to the next announcement.
const MAX_TIMED_OUT: u8 = 3;

impl Protocol {
    /// Has complete bytes checked, unless the header alone says no.
    pub(super) fn verify(&mut self, link: LinkId, transaction: Transaction, hop: u16) {
        let id = transaction.id();
        // What has no room is remembered, so it has to be real: `take` looks after the signature.
        let inadmissible = self.inadmissible(transaction.header());
        if let Some(reason) = inadmissible.filter(|reason| !reason.is_for_now()) {
            self.remove_pending(&id);
            self.refuse_publish_of(link, hop, &id, reason);
            self.trail.describe(&id, transaction.header());
            if reason == Refusal::Skewed {
                self.want_later(link, transaction.header().created);
            }
            return;
        }
        if !self.is_welcome(link, &id, transaction.header()) {
            self.remove_pending(&id);
            self.intake.unwanted.add(id, Refusal::Unwanted);
            self.refuse_publish_of(link, hop, &id, Refusal::Unwanted);
            self.trail.describe(&id, transaction.header());
            return;
        }
        let Some(from) = self.links.all.get(&link).map(|l| l.remote) else { return };
        self.validate(Some(link), from, transaction, hop, false);
    }

    /// Has the validator asked about a payload, and before that hash and signature checked unless
    /// they are `proven`.
    pub(in crate::protocol) fn validate(
        &mut self,
        link: Option<LinkId>,
        from: PeerId,
        transaction: Transaction,
        hop: u16,
        proven: bool,
    ) {
        let id = transaction.id();
        if !self.intake.pending.contains(&id) {
            let size = transaction.header().payload_len;
            self.intake.pending.insert(id, Pending::new(Stage::Heard, size, self.env.now));
        }
        self.revive(&id);
        let now = self.env.now;
        if let Some(pending) = self.intake.pending.get_mut(&id) {
            pending.stage = Stage::Verifying;
            if let Some(link) = link {
                pending.add_source(link, now, None, Holds::All);
            }
        }
        self.env.timers.cancel(Timer::Fetch(id));
        self.abandon_parents(&id);
        self.drop_assembly(&id);
        self.env.verifying_bytes.enter(transaction.header().payload_len);
        self.env.verifying.enter(1);
        let task = Task::Verify { link, from, transaction: transaction.clone(), hop };
        let ticket = self.env.ticket(task);
        self.env.push(Output::Verify { ticket, transaction, from, proven });
    }

    pub(in crate::protocol) fn inadmissible(&self, header: &Header) -> Option<Refusal> {
        let gossip = &self.env.config.gossip;
        if header.payload_len > gossip.max_transaction_size {
            Some(Refusal::TooLarge)
        } else if header.created > self.env.wall.plus(self.env.config.network.max_clock_skew) {
            Some(Refusal::Skewed)
        } else if self.env.keep_until(header) <= self.env.wall {
            Some(Refusal::Expired)
        } else {
            self.over_bounds(header)
        }
    }

    pub(in crate::protocol) fn on_verified(&mut self, ticket: Ticket, judgement: Judgement) {
        let Some(Task::Verify { link, from, transaction, hop }) = self.env.tickets.remove(&ticket)
        else {
            return;
        };
        self.env.verifying.leave(1);
        self.env.verifying_bytes.leave(transaction.header().payload_len);
        let id = transaction.id();
        // Published by this node meanwhile: the store decides.
        let superseded = self.intake.pending.get(&id).is_none_or(|p| p.stage != Stage::Verifying);
        let refusal = match judgement {
            Judgement::Verdict(_) | Judgement::TimedOut if superseded => return,
            Judgement::Verdict(Verdict::Accept) => {
                self.guard.reputation.note_served(&from, self.env.now);
                if !self.defer(from, &transaction, hop) {
                    self.accept(from, &transaction, hop);
                }
                return;
            }
            Judgement::Verdict(Verdict::Ignore) => Refusal::Ignored,
            Judgement::Verdict(Verdict::Reject) => Refusal::Rejected,
            Judgement::TimedOut => {
                self.env.counters.validations_timed_out += 1;
                self.refuse_transaction(link, &id, Refusal::Ignored);
                self.trail.describe(&id, transaction.header());
                self.try_later(&id);
                return;
            }
            Judgement::Invalid(reason) => {
                self.on_forged(link, &from, &id, reason);
                return;
            }
        };
        let pending = self.remove_pending(&id);
        self.absolve(pending.as_ref().filter(|_| refusal == Refusal::Ignored));
        self.forget_partial(&id);
        self.intake.refused.add(id, refusal);
        let keep_until = self.env.keep_until(transaction.header());
        self.log.refuse(id, transaction.header(), keep_until, self.env.now);
        self.forget_passed();
        self.refuse_publish_of(link, hop, &id, refusal);
        self.trail.describe(&id, transaction.header());
        if refusal == Refusal::Rejected {
            self.note_reject(&from);
        }
    }

    /// A check broke off, which says nothing about what was checked.
    pub(in crate::protocol) fn on_unchecked(&mut self, ticket: Ticket) {
        let (id, bytes, whole) = match self.env.tickets.get(&ticket) {
            Some(Task::Verify { transaction, .. }) => {
                (transaction.id(), transaction.header().payload_len, true)
            }
            Some(Task::Head { id, .. }) => (*id, 0, false),
            Some(Task::Piece { piece, .. }) => (piece.id, piece.bytes.len() as u64, false),
            Some(Task::Prove { .. }) => return self.on_unproved(ticket),
            _ => return,
        };
        self.env.tickets.remove(&ticket);
        self.env.verifying.leave(1);
        self.env.verifying_bytes.leave(bytes);
        // What this node published meanwhile is not being checked any more.
        let stage = self.intake.pending.get(&id).map(|pending| pending.stage);
        if !whole || stage == Some(Stage::Verifying) {
            self.give_up(&id);
        }
    }

    /// The validator did not answer: the transaction is fetched and judged again, a few times.
    fn try_later(&mut self, id: &TransactionId) {
        if let Some(pending) = self.intake.pending.get_mut(id) {
            pending.stage = Stage::Heard;
            pending.timed_out += 1;
            if pending.timed_out >= MAX_TIMED_OUT {
                self.give_up(id);
                return;
            }
            if let Some(asked) = pending.asked_of.take() {
                // Answered, and no fault of whoever did.
                self.forget_request(asked, id);
            }
            self.env.timers.set(Timer::Fetch(*id), self.env.now + VALIDATE_AGAIN);
        }
    }

    /// The bytes are not what the origin published: their sender lied, and the id may still be good.
    fn on_forged(
        &mut self,
        l: Option<LinkId>,
        from: &PeerId,
        id: &TransactionId,
        why: InvalidTransaction,
    ) {
        let reason = match why {
            InvalidTransaction::Unsigned | InvalidTransaction::Signature => Refusal::WrongSignature,
            _ => Refusal::WrongHash,
        };
        self.refuse_transaction(l, id, reason);
        if let Some(pending) =
            self.intake.pending.get_mut(id).filter(|p| p.stage == Stage::Verifying)
        {
            pending.stage = Stage::Heard;
            pending.sources.retain(|s| Some(s.link) != l);
            if let Some(asked) = pending.asked_of.take() {
                self.forget_request(asked, id);
            }
        }
        self.punish(from, "forged transaction");
        self.ask(id);
    }

    /// Refuses a transaction, and tells the peer why if it is the one that published it.
    pub(in crate::protocol) fn refuse_publish_of(
        &mut self,
        link: impl Into<Option<LinkId>>,
        hop: u16,
        id: &TransactionId,
        reason: Refusal,
    ) {
        let link = link.into();
        self.refuse_transaction(link, id, reason);
        if let Some(link) = link.filter(|_| hop == 0) {
            self.tell_refused(link, *id, reason);
        }
    }

    /// Tells who published a transaction, and offers it again, why it was refused before.
    pub(in crate::protocol) fn repeat_refusal(&mut self, link: LinkId, id: &TransactionId) {
        let reason = self.intake.refused.reason(id).or_else(|| self.log.refusal(id));
        if let Some(reason) = reason {
            self.tell_refused(link, *id, reason);
        }
    }

    pub(in crate::protocol) fn refuse_transaction(
        &mut self,
        link: impl Into<Option<LinkId>>,
        id: &TransactionId,
        reason: Refusal,
    ) {
        let counters = &mut self.env.counters;
        match reason {
            Refusal::TooLarge => counters.refused_too_large += 1,
            Refusal::Skewed => counters.refused_skewed += 1,
            Refusal::Expired => counters.refused_expired += 1,
            Refusal::WrongHash => counters.refused_wrong_hash += 1,
            Refusal::WrongSignature => counters.refused_wrong_signature += 1,
            Refusal::Rejected => counters.refused_rejected += 1,
            Refusal::OverShare => counters.refused_over_share += 1,
            Refusal::OverRate => counters.refused_over_rate += 1,
            Refusal::Unwanted => counters.refused_unwanted += 1,
            _ => counters.refused_ignored += 1,
        }
        let link: Option<LinkId> = link.into();
        let slot = link.and_then(|link| self.links.slot_of(link));
        self.trail.refuse(id, slot, reason, self.env.now);
        let peer = link.and_then(|link| self.links.all.get(&link)).map(|l| l.remote);
        tracing::debug!(target: "sorcha_peer::gossip", %id, ?peer, ?reason, "transaction refused");
        let event = Event::TransactionRefused { id: *id, peer, reason };
        self.env.emit(event);
    }
}
