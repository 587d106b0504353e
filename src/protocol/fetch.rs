//! Getting what was heard of.
//!
//! ```text
//! unknown ──announced──► heard ──wanted, answered──► verifying ──accepted──► log
//!    └───────────────pushed───────────────────────────▲  │
//!                       heard ◄──invalid, other sources──┘
//! ```
//!
//! The first announcement of a small transaction waits about one round trip, because a push may be
//! on its way; a large one is asked for at once. One source is asked at a time; without an answer
//! the next one is, in the order of their announcements, and then again from the first. What one
//! peer is asked at once is bounded; the rest waits in that link's backlog. A large payload comes
//! in pieces of 64 KiB and is resumed at the byte where the last source stopped.
//!
//! Nothing is forwarded, announced or delivered before hash and signature are verified and the
//! validator has accepted. Forged bytes cost their sender the link and the id is fetched elsewhere.
//!
//! Bounds: at most `MAX_PENDING` ids, and at most `MAX_HEARD` of them first heard from one peer, so
//! that one who announces what it never serves leaves room for others. Beyond them an announcement
//! is dropped and its link compared by reconciliation later, so nothing is missed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::{
    Announcement, Event, Header, InvalidTransaction, LinkId, MonoTime, PeerId, Refusal,
    Transaction, TransactionId, Verdict, Want,
};

use super::gossip::Got;
use super::ids::IdMap;
use super::io::{Judgement, Output, Ticket};
use super::links::Up;
use super::pieces::Assembly;
use super::rng::Rng;
use super::timers::Timer;
use super::{Protocol, Task};

/// Ids being fetched at once; at about 250 bytes each, 16 MiB.
pub(super) const MAX_PENDING: usize = 65_536;
/// Ids being fetched at once that were first heard from one peer.
pub(super) const MAX_HEARD: usize = MAX_PENDING / 4;
/// Asked of one peer at once.
pub(super) const MAX_ASKED: usize = 256;
/// Payload bytes asked of one peer at once.
const MAX_ASKED_BYTES: u64 = 4 << 20;
/// An announcement that beats the payload by this much would better have been a push.
const EARLY: Duration = Duration::from_millis(10);
/// Shortest and longest wait for a push after an announcement.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));
/// An answer is overdue after this, or three round trips, plus the time for its bytes.
pub(super) const ANSWER: Duration = Duration::from_millis(500);
/// Slowest transfer that is not overdue, in bytes per second.
const SLOWEST: u64 = 1 << 20;
/// Turns of asking all sources before an id is left to the next announcement.
const MAX_TURNS: u32 = 3;
/// Refused ids remembered, so that they are not fetched once per neighbour.
pub(super) const MAX_REFUSED: usize = 4096;
/// Wait before a validator that did not answer is asked again.
const JUDGE_AGAIN: Duration = Duration::from_secs(10);
/// Wait for room when too many large payloads are being received.
const NO_ROOM: Duration = Duration::from_millis(50);

/// Where a fetch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Somebody has it.
    Heard,
    /// Its bytes are here and being checked.
    Verifying,
    /// It is our own and being stored.
    Storing,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) link: LinkId,
    at: MonoTime,
    tried: bool,
}

/// An id that is not in the log yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) stage: Stage,
    pub(super) size: u64,
    /// Whose share of the table it takes up.
    pub(super) heard_from: Option<LinkId>,
    pub(super) sources: Vec<Source>,
    pub(super) asked: Option<LinkId>,
    pub(super) turns: u32,
    pub(super) assembly: Option<Assembly>,
    /// The bytes being checked came from more than one peer.
    pub(super) mixed: bool,
    /// Not to be resumed from another peer: so it is certain whose bytes are wrong.
    pub(super) whole: bool,
}

impl Pending {
    pub(super) fn new(stage: Stage, size: u64) -> Self {
        Self {
            stage,
            size,
            heard_from: None,
            sources: Vec::new(),
            asked: None,
            turns: 0,
            assembly: None,
            mixed: false,
            whole: false,
        }
    }

    fn add_source(&mut self, link: LinkId, at: MonoTime) {
        if !self.sources.iter().any(|s| s.link == link) {
            self.sources.push(Source { link, at, tried: false });
        }
    }
}

/// What the fetches share.
#[derive(Debug)]
pub(super) struct FetchState {
    /// Bytes of large payloads being received, as announced.
    pub(super) assembling: u64,
    /// Something was not kept since links were last to be compared.
    lost: bool,
    refused: IdMap<()>,
    /// The refused ids, oldest first.
    refused_order: VecDeque<TransactionId>,
}

impl FetchState {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            assembling: 0,
            lost: false,
            refused: IdMap::new(rng),
            refused_order: VecDeque::new(),
        }
    }

    fn refuse(&mut self, id: TransactionId) {
        if self.refused.insert(id, ()).is_some() {
            return;
        }
        self.refused_order.push_back(id);
        if self.refused_order.len() > MAX_REFUSED
            && let Some(oldest) = self.refused_order.pop_front()
        {
            self.refused.remove(&oldest);
        }
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn refused_len(&self) -> usize {
        self.refused_order.len()
    }
}

impl Protocol {
    pub(super) fn on_announce(&mut self, link: LinkId, list: Vec<Announcement>) {
        let Some(slot) = self.links.slot_of(link) else { return };
        self.counters.announcements_received += list.len() as u64;
        for a in list {
            if let Some(stored) = self.log.find(&a.id).map(|entry| entry.stored) {
                // Who announces may not have stored it yet: while we wait for confirmations we go on
                // to offer what is ours.
                if !self.outbox.contains(&a.id) {
                    self.log.note_known(&a.id, slot);
                }
                // From its origin, which may have been restarted and wait for this.
                if a.hop == 0 && stored {
                    self.confirm_to(link, a.id);
                }
            } else {
                self.hear(link, &a);
            }
        }
    }

    pub(super) fn hear(&mut self, link: LinkId, a: &Announcement) {
        let now = self.now;
        if let Some(pending) = self.pending.get_mut(&a.id) {
            pending.add_source(link, now);
            return;
        }
        if self.fetches.refused.contains(&a.id) || self.log.is_refused(&a.id) {
            return;
        }
        if a.size > self.config.gossip.max_transaction_size {
            self.refuse_transaction(link, &a.id, Refusal::TooLarge);
            return;
        }
        let Some(up) = self.links.up(link) else { return };
        if self.pending.len() >= MAX_PENDING || up.heard >= MAX_HEARD {
            self.counters.fetches_shed += 1;
            self.want_repair(link);
            return;
        }
        up.heard += 1;
        let mut pending = Pending::new(Stage::Heard, a.size);
        pending.heard_from = Some(link);
        pending.add_source(link, now);
        self.pending.insert(a.id, pending);
        if a.size > self.config.gossip.eager_limit {
            self.ask(&a.id);
        } else {
            let patience = self.rtt_of(link).clamp(PATIENCE.0, PATIENCE.1);
            self.timers.set(Timer::Fetch(a.id), now + patience);
        }
    }

    /// The wait for a push or an answer is over.
    pub(super) fn on_fetch_due(&mut self, id: &TransactionId) {
        let Some(pending) = self.pending.get_mut(id) else { return };
        if pending.stage != Stage::Heard {
            return;
        }
        if let Some(link) = pending.asked.take() {
            self.counters.wants_timed_out += 1;
            self.forget_asked(link, id);
        }
        self.ask(id);
    }

    /// Asks the next source.
    pub(super) fn ask(&mut self, id: &TransactionId) {
        let Some(pending) = self.pending.get_mut(id) else { return };
        if pending.stage != Stage::Heard || pending.asked.is_some() {
            return;
        }
        let links = &self.links;
        pending.sources.retain(|s| links.slot_of(s.link).is_some());
        if !pending.sources.is_empty() && pending.sources.iter().all(|s| s.tried) {
            pending.turns += 1;
            pending.sources.iter_mut().for_each(|s| s.tried = false);
        }
        let (size, turns) = (pending.size, pending.turns);
        let next = pending.sources.iter().position(|s| !s.tried);
        let Some(next) = next.filter(|_| turns < MAX_TURNS) else {
            self.give_up(id);
            return;
        };
        let starting = pending.assembly.is_none() && size > self.config.gossip.eager_limit;
        let budget = self.config.gossip.max_assembly_bytes;
        if starting && self.fetches.assembling > 0 && self.fetches.assembling + size > budget {
            self.timers.set(Timer::Fetch(*id), self.now + NO_ROOM);
            return;
        }
        let link = pending.sources[next].link;
        let Some(up) = self.links.up(link) else { return };
        let busy = up.asked.len() >= MAX_ASKED || up.asked_bytes + size > MAX_ASKED_BYTES;
        if busy && !up.asked.is_empty() {
            up.backlog.push_back(*id);
            return;
        }
        pending.sources[next].tried = true;
        self.send_want(link, id, size);
    }

    fn send_want(&mut self, link: LinkId, id: &TransactionId, size: u64) {
        let rtt = self.rtt_of(link);
        let Some(pending) = self.pending.get_mut(id) else { return };
        pending.asked = Some(link);
        if pending.whole && pending.assembly.as_ref().is_some_and(|a| a.from != link) {
            self.fetches.assembling = self.fetches.assembling.saturating_sub(pending.size);
            pending.assembly = None;
        }
        let offset = pending.assembly.as_ref().map_or(0, |a| a.bytes.len() as u64);
        let Some(up) = self.links.up(link) else { return };
        up.asked.insert(*id);
        up.asked_bytes += size;
        let transfer = Duration::from_secs(up.asked_bytes) / u32::try_from(SLOWEST).unwrap_or(1);
        // A large payload is watched piece by piece instead.
        let transfer = transfer.min(Duration::from_secs(4));
        if let Some(batch) = self.links.batch(link) {
            batch.want.push(Want { id: *id, offset });
        }
        self.counters.wants_sent += 1;
        self.timers.set(Timer::Fetch(*id), self.now + ANSWER.max(rtt * 3) + transfer);
    }

    /// Takes an id off the list of what a peer was asked; `true` when it was on it.
    pub(super) fn forget_asked(&mut self, link: LinkId, id: &TransactionId) -> bool {
        let size = self.pending.get(id).map_or(0, |p| p.size);
        let Some(up) = self.links.up(link) else { return false };
        if !up.asked.remove(id) {
            return false;
        }
        up.asked_bytes = if up.asked.is_empty() { 0 } else { up.asked_bytes.saturating_sub(size) };
        while let Some(up) = self.links.up(link)
            && up.asked.len() < MAX_ASKED
            && let Some(next) = up.backlog.pop_front()
        {
            let before = up.backlog.len();
            self.ask(&next);
            if self.links.up(link).is_none_or(|up| up.backlog.len() > before) {
                break;
            }
        }
        true
    }

    /// A link is gone: what it was asked is asked elsewhere.
    pub(super) fn ask_others(&mut self, link: LinkId, up: &Up) {
        for id in up.asked.iter().chain(&up.backlog) {
            if let Some(pending) = self.pending.get_mut(id) {
                // What waited in the backlog may have been asked elsewhere meanwhile.
                pending.asked = pending.asked.filter(|asked| *asked != link);
                self.ask(id);
            }
        }
    }

    /// No source is left, or all failed several times: the next announcement starts anew.
    fn give_up(&mut self, id: &TransactionId) {
        let Some(pending) = self.remove_pending(id) else { return };
        for source in pending.sources {
            self.want_repair(source.link);
        }
    }

    /// Something that was taken could not be kept: it has to be offered again, by anybody.
    pub(super) fn lost_some(&mut self) {
        self.fetches.lost = true;
    }

    /// Once in a while, so that a full disk does not make us ask everybody all the time.
    pub(super) fn repair_after_loss(&mut self) {
        if std::mem::take(&mut self.fetches.lost) {
            for link in self.links.up_ids() {
                self.want_repair(link);
            }
        }
    }

    pub(super) fn remove_pending(&mut self, id: &TransactionId) -> Option<Pending> {
        self.timers.cancel(Timer::Fetch(*id));
        if let Some(link) = self.pending.get(id)?.asked {
            self.forget_asked(link, id);
        }
        let mut pending = self.pending.remove(id)?;
        if let Some(up) = pending.heard_from.and_then(|link| self.links.up(link)) {
            up.heard = up.heard.saturating_sub(1);
        }
        self.drop_assembly(&mut pending);
        Some(pending)
    }

    pub(super) fn drop_assembly(&mut self, pending: &mut Pending) {
        if pending.assembly.take().is_some() {
            self.fetches.assembling = self.fetches.assembling.saturating_sub(pending.size);
        }
    }

    pub(super) fn on_missing(&mut self, link: LinkId, ids: &[TransactionId]) {
        for id in ids {
            if !self.forget_asked(link, id) {
                continue;
            }
            if let Some(pending) = self.pending.get_mut(id) {
                pending.sources.retain(|s| s.link != link);
                pending.asked = None;
                self.ask(id);
            }
        }
    }

    /// A whole transaction came.
    pub(super) fn on_push(&mut self, link: LinkId, transaction: Transaction, hop: u16) {
        let id = transaction.id();
        let asked = self.forget_asked(link, &id);
        self.counters.payload_bytes_received += transaction.header().payload_len;
        let Some(slot) = self.links.slot_of(link) else { return };
        let known = match (self.log.find(&id), self.pending.get_mut(&id)) {
            (Some(_), _) => {
                self.log.note_known(&id, slot);
                true
            }
            (None, Some(pending)) if pending.stage != Stage::Heard => {
                pending.add_source(link, self.now);
                true
            }
            _ => false,
        };
        if known {
            self.counters.duplicates_received += 1;
            if !asked && let Some(batch) = self.links.batch(link) {
                batch.duplicate.push(id);
            }
            if hop == 0 && self.log.find(&id).is_some_and(|entry| entry.stored) {
                self.confirm_to(link, id);
            }
            return;
        }
        self.counters.payloads_received += 1;
        self.note_early(link, &id);
        self.verify(link, transaction, hop);
    }

    /// Tells the first announcer that its push would have come first.
    fn note_early(&mut self, link: LinkId, id: &TransactionId) {
        let Some(pending) = self.pending.get(id) else { return };
        let Some(first) = pending.sources.first() else { return };
        let late = self.now.since(first.at) > EARLY;
        let (first, asked) = (first.link, pending.asked.is_some() || pending.turns > 0);
        if first != link
            && late
            && !asked
            && let Some(batch) = self.links.batch(first)
        {
            batch.early.push(*id);
        }
    }

    /// Has complete bytes checked, unless the header alone says no.
    pub(super) fn verify(&mut self, link: LinkId, transaction: Transaction, hop: u16) {
        let id = transaction.id();
        if let Some(reason) = self.inadmissible(transaction.header()) {
            self.remove_pending(&id);
            self.refuse_transaction(link, &id, reason);
            if reason == Refusal::Skewed {
                self.want_later(link, transaction.header().created);
            }
            return;
        }
        let Some(from) = self.links.all.get(&link).map(|l| l.remote) else { return };
        if !self.pending.contains(&id) {
            let size = transaction.header().payload_len;
            self.pending.insert(id, Pending::new(Stage::Heard, size));
        }
        let now = self.now;
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.stage = Stage::Verifying;
            pending.add_source(link, now);
        }
        self.timers.cancel(Timer::Fetch(id));
        self.verifying_bytes += transaction.header().payload_len;
        self.verifying += 1;
        let task = Task::Verify { link, from, transaction: transaction.clone(), hop };
        let ticket = self.ticket(task);
        self.out.push_back(Output::Verify { ticket, transaction, from });
    }

    fn inadmissible(&self, header: &Header) -> Option<Refusal> {
        let gossip = &self.config.gossip;
        let keep_until = header.expires.min(header.created.plus(gossip.retention));
        if header.payload_len > gossip.max_transaction_size {
            Some(Refusal::TooLarge)
        } else if header.created > self.wall.plus(self.config.network.max_clock_skew) {
            Some(Refusal::Skewed)
        } else if keep_until <= self.wall {
            Some(Refusal::Expired)
        } else {
            None
        }
    }

    pub(super) fn on_verified(&mut self, ticket: Ticket, judgement: Judgement) {
        let Some(Task::Verify { link, from, transaction, hop }) = self.tickets.remove(&ticket)
        else {
            return;
        };
        self.verifying -= 1;
        self.verifying_bytes -= transaction.header().payload_len;
        let id = transaction.id();
        // Published by this node meanwhile: the store decides.
        let superseded = self.pending.get(&id).is_none_or(|p| p.stage != Stage::Verifying);
        let refusal = match judgement {
            Judgement::Verdict(_) | Judgement::TimedOut if superseded => return,
            Judgement::Verdict(Verdict::Accept) => {
                self.accept_foreign(from, &transaction, hop);
                return;
            }
            Judgement::Verdict(Verdict::Ignore) => Refusal::Ignored,
            Judgement::Verdict(Verdict::Reject) => Refusal::Rejected,
            Judgement::TimedOut => {
                self.counters.validations_timed_out += 1;
                self.refuse_transaction(link, &id, Refusal::Ignored);
                self.try_later(&id);
                return;
            }
            Judgement::Invalid(reason) => {
                self.on_forged(link, &from, &id, reason);
                return;
            }
        };
        self.remove_pending(&id);
        self.fetches.refuse(id);
        let keep_until = self.keep_until(&transaction);
        self.log.refuse(id, transaction.header().created, keep_until);
        self.refuse_transaction(link, &id, refusal);
        if refusal == Refusal::Rejected {
            self.note_reject(link, &from);
        }
    }

    /// The validator did not answer: the transaction is fetched and judged again, a few times.
    fn try_later(&mut self, id: &TransactionId) {
        if let Some(pending) = self.pending.get_mut(id) {
            pending.stage = Stage::Heard;
            pending.turns += 1;
            self.timers.set(Timer::Fetch(*id), self.now + JUDGE_AGAIN);
        }
    }

    /// The bytes are not what the origin published: somebody lied, and the id may still be good.
    fn on_forged(&mut self, l: LinkId, from: &PeerId, id: &TransactionId, why: InvalidTransaction) {
        let reason = match why {
            InvalidTransaction::Unsigned | InvalidTransaction::Signature => Refusal::WrongSignature,
            _ => Refusal::WrongHash,
        };
        self.refuse_transaction(l, id, reason);
        let Some(pending) = self.pending.get_mut(id).filter(|p| p.stage == Stage::Verifying) else {
            self.punish(l, from, "forged transaction");
            return;
        };
        pending.stage = Stage::Heard;
        // Pieces of several peers: nobody knows whose was wrong. The next one sends all of it.
        let mixed = std::mem::take(&mut pending.mixed);
        pending.whole |= mixed;
        if !mixed {
            pending.sources.retain(|s| s.link != l);
        }
        if let Some(asked) = pending.asked.take() {
            self.forget_asked(asked, id);
        }
        if !mixed {
            self.punish(l, from, "forged transaction");
        }
        self.ask(id);
    }

    fn accept_foreign(&mut self, from: PeerId, transaction: &Transaction, hop: u16) {
        let id = transaction.id();
        let pending = self.remove_pending(&id);
        let asked = pending.as_ref().is_some_and(|p| p.asked.is_some());
        let sources = pending.map(|p| p.sources).unwrap_or_default();
        let slots = sources.iter().filter_map(|s| self.links.slot_of(s.link));
        let known = slots.fold(0, |mask, slot| mask | 1 << slot);
        let hop = hop.saturating_add(1);
        self.counters.transactions_accepted += 1;
        self.accept(transaction, hop, Some(Got { known, asked }));
        self.store_foreign(from, transaction, hop);
    }

    fn refuse_transaction(&mut self, link: LinkId, id: &TransactionId, reason: Refusal) {
        let counters = &mut self.counters;
        match reason {
            Refusal::TooLarge => counters.refused_too_large += 1,
            Refusal::Skewed => counters.refused_skewed += 1,
            Refusal::Expired => counters.refused_expired += 1,
            Refusal::WrongHash => counters.refused_wrong_hash += 1,
            Refusal::WrongSignature => counters.refused_wrong_signature += 1,
            Refusal::Rejected => counters.refused_rejected += 1,
            _ => counters.refused_ignored += 1,
        }
        let peer = self.links.all.get(&link).map(|l| l.remote);
        tracing::debug!(target: "sorcha_peer::gossip", %id, ?peer, ?reason, "transaction refused");
        let event = Event::Refused { peer, address: None, reason, id: Some(*id) };
        self.out.push_back(Output::Emit(event));
    }
}
