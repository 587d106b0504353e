//! Getting what was heard of.
//!
//! ```text
//! unknown ──announced──► heard ──wanted, answered──► verifying ──accepted──► log
//!    └───────────────pushed───────────────────────────▲  │ │                 ▲
//!                       heard ◄──invalid, other sources──┘ └──► held ────────┘
//! ```
//!
//! The first announcement of a small transaction waits about one round trip, because a push may be
//! on its way; a large one is asked for at once (`large`, `reserve`). One source is asked at a time;
//! without an answer the next one is, those in good standing first, in the order of their
//! announcements, and then again from the first. What one peer is asked at once is bounded; the rest
//! waits in that link's backlog.
//!
//! Bounds: at most `MAX_PENDING` ids, and at most `MAX_HEARD` of them first heard from one peer and no
//! more than half of what is free, so that those who announce what they never serve leave room for
//! others. They are the peer's, over all its links. Beyond them an announcement
//! is dropped and its link compared by reconciliation later, so nothing is missed. Who announces much
//! that comes to nothing is held to a pace (`limits`).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::types::{
    Announcement, KeptPartial, LinkId, MonoTime, PeerId, Refusal, Transaction, TransactionId,
};

use crate::protocol::Protocol;
use crate::protocol::gate::Gate;
use crate::protocol::guard::Work;
use crate::protocol::id_map::IdMap;
use crate::protocol::io::Ticket;
use crate::protocol::large::Spills;
use crate::protocol::large::{Large, Shelf};
use crate::protocol::outbox::Held;
use crate::protocol::rng::Rng;
use crate::protocol::timers::Timer;

/// Ids being fetched at once; at about 250 bytes each, 16 MiB.
pub(in crate::protocol) const MAX_PENDING: usize = 65_536;
/// Ids being fetched at once that were first heard from one peer.
pub(in crate::protocol) const MAX_HEARD: usize = MAX_PENDING / 4;
/// An announcement that beats the payload by this much would better have been a push.
const EARLY: Duration = Duration::from_millis(10);
/// Shortest and longest wait for a push after an announcement.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));
/// An answer is overdue after this, or three round trips, plus the time for its bytes.
pub(in crate::protocol) const ANSWER: Duration = Duration::from_millis(500);
/// First and longest wait before what could not be stored is taken again; doubles.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(10));
/// Such tries, out of turn, for peers that say they are the origin: so many in 10 s.
const FAVOURS: u32 = 64;
/// Refused ids remembered, so that they are not fetched once per neighbour.
pub(in crate::protocol) const MAX_REFUSED: usize = 4096;

/// Where a fetch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Stage {
    /// Somebody has it.
    Heard,
    /// Its bytes are here and being checked.
    Verifying,
    /// They are good, and those of others of its origin come first.
    Held,
    /// It is our own and being stored.
    Storing,
}

/// How much of a payload a source says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::protocol) enum Holds {
    /// The header.
    Nothing,
    /// The first piece, and more as they come.
    Some,
    /// Everything.
    All,
}

#[derive(Debug)]
pub(in crate::protocol) struct Source {
    pub(in crate::protocol) link: LinkId,
    at: MonoTime,
    pub(in crate::protocol) tried: bool,
    /// Its place in the order of reservations, if it said so.
    pub(in crate::protocol) place: Option<u32>,
    pub(in crate::protocol) holds: Holds,
    /// It serves others until then.
    pub(in crate::protocol) busy: Option<MonoTime>,
    /// It did not say so: it probably has what has been about for a while.
    pub(super) guessed: bool,
}

/// An id that is not in the log yet.
#[derive(Debug)]
pub(in crate::protocol) struct Pending {
    pub(in crate::protocol) stage: Stage,
    pub(in crate::protocol) size: u64,
    pub(in crate::protocol) heard_at: MonoTime,
    /// Whose share of the table it takes up.
    pub(in crate::protocol) heard_from: Option<PeerId>,
    pub(in crate::protocol) sources: Vec<Source>,
    /// Who was asked for it as a small one.
    pub(in crate::protocol) asked: Option<LinkId>,
    /// Which in the row of what that link was asked.
    pub(super) asked_no: u64,
    pub(in crate::protocol) turns: u32,
    /// How often the validator did not answer.
    pub(super) judged: u8,
    pub(in crate::protocol) large: Option<Box<Large>>,
    /// The link in whose flush it has its turn.
    pub(in crate::protocol) ordered: Option<LinkId>,
    /// Set while it waits for that.
    pub(in crate::protocol) held: Option<Box<Held>>,
}

impl Pending {
    pub(in crate::protocol) fn new(stage: Stage, size: u64, now: MonoTime) -> Self {
        Self {
            stage,
            size,
            heard_at: now,
            heard_from: None,
            sources: Vec::new(),
            asked: None,
            asked_no: 0,
            turns: 0,
            judged: 0,
            large: None,
            ordered: None,
            held: None,
        }
    }

    /// Whose it is, as far as that is known and not only said.
    pub(in crate::protocol) fn origin(&self) -> Option<PeerId> {
        let held = self.held.as_ref().map(|held| held.transaction.origin());
        let head = || self.large.as_ref().filter(|large| large.trusted)?.head.as_ref();
        held.or_else(|| head().map(|head| head.header().origin))
    }

    /// A peer that said nothing, but probably has all of it.
    pub(in crate::protocol) fn guess_source(&mut self, link: LinkId, at: MonoTime) {
        if self.sources.iter().all(|s| s.link != link) {
            self.add_source(link, at, None, Holds::All);
            if let Some(source) = self.sources.last_mut() {
                source.guessed = true;
            }
        }
    }

    /// Notes what a source says; what it said before still counts.
    pub(in crate::protocol) fn add_source(
        &mut self,
        link: LinkId,
        at: MonoTime,
        place: Option<u32>,
        holds: Holds,
    ) {
        if let Some(source) = self.sources.iter_mut().find(|s| s.link == link) {
            source.holds = source.holds.max(holds);
            source.place = source.place.max(place);
            source.guessed = false;
            // It has more than when it failed or was busy.
            if holds == Holds::All && self.large.is_some() {
                (source.busy, source.tried) = (None, false);
            }
            return;
        }
        let guessed = false;
        self.sources.push(Source { link, at, tried: false, place, holds, busy: None, guessed });
    }
}

/// What was taken and could not be kept, and when links are to be compared because of it.
#[derive(Debug)]
pub(in crate::protocol) struct Lost {
    some: bool,
    not_before: MonoTime,
    wait: Duration,
    /// Payload bytes of the smallest that the store did not take.
    smallest: u64,
    /// Tries that are left for who says that it is the origin.
    favours: u32,
}

impl Default for Lost {
    fn default() -> Self {
        Self {
            some: false,
            not_before: MonoTime::ZERO,
            wait: TRY_AGAIN.0,
            smallest: u64::MAX,
            favours: FAVOURS,
        }
    }
}

impl Lost {
    pub(in crate::protocol) fn note_failed(&mut self, size: u64) {
        self.some = true;
        self.smallest = self.smallest.min(size);
    }

    /// The store took something: the next try is soon, unless what failed was larger.
    pub(in crate::protocol) fn note_saved(&mut self, size: u64, now: MonoTime) {
        if size >= self.smallest {
            self.smallest = u64::MAX;
            self.wait = TRY_AGAIN.0;
            self.not_before = self.not_before.min(now + TRY_AGAIN.0);
        }
    }

    /// Whether it is time for another try; each puts off the next.
    fn is_due(&mut self, now: MonoTime) -> bool {
        let due = self.some && self.not_before <= now;
        if due {
            self.some = false;
            self.not_before = now + self.wait;
            self.wait = (self.wait * 2).min(TRY_AGAIN.1);
        }
        due
    }
}

/// What the fetches share.
#[derive(Debug)]
pub(in crate::protocol) struct FetchState {
    /// Ids being fetched, by the peer that each was first heard from.
    heard: BTreeMap<PeerId, usize>,
    /// Bytes of the buffers of large payloads on their way in.
    pub(in crate::protocol) assembling: Gate,
    /// What waits for room for its buffer.
    pub(in crate::protocol) waiting: VecDeque<TransactionId>,
    /// Partial payloads that nobody serves.
    pub(in crate::protocol) parked: VecDeque<TransactionId>,
    pub(in crate::protocol) spills: Spills,
    /// Peers that were asked for what they said they have, and by when they have to serve.
    pub(in crate::protocol) promises: BTreeMap<(PeerId, TransactionId), MonoTime>,
    /// Proofs for peers that ask.
    pub(in crate::protocol) shelf: Shelf,
    /// Whose proofs are being made.
    pub(in crate::protocol) proving: BTreeMap<TransactionId, Ticket>,
    /// What is being read from the store for peers that asked.
    pub(in crate::protocol) loads: BTreeMap<TransactionId, Ticket>,
    /// How many peers are being served pieces of an id.
    pub(in crate::protocol) children: IdMap<u16>,
    /// Pieces that peers reserved and did not get yet.
    pub(in crate::protocol) owed: Gate,
    pub(in crate::protocol) lost: Lost,
    refused: Few,
    /// Of topics that are not wanted; those behind may send them all the same.
    pub(in crate::protocol) unwanted: Few,
}

/// The latest few ids of some kind.
#[derive(Debug)]
pub(in crate::protocol) struct Few {
    ids: IdMap<()>,
    /// The oldest first.
    order: VecDeque<TransactionId>,
}

impl Few {
    fn new(rng: &mut Rng) -> Self {
        Self { ids: IdMap::new(rng), order: VecDeque::new() }
    }

    pub(in crate::protocol) fn add(&mut self, id: TransactionId) {
        if self.ids.insert(id, ()).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_REFUSED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(in crate::protocol) fn clear(&mut self) {
        for id in self.order.drain(..) {
            self.ids.remove(&id);
        }
    }
}

impl FetchState {
    pub(in crate::protocol) fn new(rng: &mut Rng, partials: Option<Vec<KeptPartial>>) -> Self {
        Self {
            heard: BTreeMap::new(),
            assembling: Gate::default(),
            waiting: VecDeque::new(),
            parked: VecDeque::new(),
            spills: Spills::restored(partials),
            promises: BTreeMap::new(),
            shelf: Shelf::default(),
            proving: BTreeMap::new(),
            loads: BTreeMap::new(),
            children: IdMap::new(rng),
            owed: Gate::default(),
            lost: Lost::default(),
            refused: Few::new(rng),
            unwanted: Few::new(rng),
        }
    }

    /// Whether a payload of `size` bytes may be put together now.
    pub(in crate::protocol) fn has_room(&self, size: u64, budget: u64) -> bool {
        self.assembling.has_room(size, budget)
    }

    pub(in crate::protocol) fn refuse(&mut self, id: TransactionId) {
        self.refused.add(id);
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn refused_len(&self) -> usize {
        self.refused.order.len().max(self.unwanted.order.len())
    }
}

impl Protocol {
    pub(in crate::protocol) fn on_announce(&mut self, link: LinkId, list: Vec<Announcement>) {
        let Some(slot) = self.links.slot_of(link) else { return };
        self.env.counters.announcements_received += list.len() as u64;
        for a in list {
            if let Some(record) = self.log.find(&a.id).copied() {
                // Who announces may not have stored it yet: while we wait for confirmations we go on
                // to offer what is ours.
                if !self.outbox.contains(&a.id) {
                    self.log.note_known(&a.id, slot);
                }
                // From its origin, which may have been restarted and wait for this.
                if record.is_stored() && self.waits_for_word(link, a.hop, &record) {
                    self.confirm_to(link, a.id);
                }
            } else {
                if a.hop == 0 {
                    self.try_again_for_origin(&a.id);
                }
                self.hear(link, &a);
                if a.hop == 0 {
                    self.join_inflow(link, &a.id);
                }
            }
        }
    }

    pub(in crate::protocol) fn hear(&mut self, link: LinkId, a: &Announcement) {
        let unwanted = self.fetches.unwanted.ids.contains(&a.id) && !self.is_behind(link);
        if unwanted || self.is_refused(&a.id) {
            return;
        }
        if a.size > self.env.config.gossip.max_transaction_size {
            self.refuse_transaction(link, &a.id, Refusal::TooLarge);
            return;
        }
        if !self.make_pending(link, a.id, a.size) {
            return;
        }
        let (now, eager) = (self.env.now, self.env.config.gossip.eager_limit);
        let Some(pending) = self.pending.get_mut(&a.id) else { return };
        let fresh = pending.sources.is_empty();
        pending.add_source(link, now, None, Holds::All);
        if a.size > eager && fresh && pending.stage == Stage::Heard {
            pending.large.get_or_insert_default();
        }
        if pending.large.is_some() {
            self.revive(&a.id);
            self.drive(&a.id);
        } else if fresh && a.hop == 0 && self.is_flushed(link) {
            self.ask(&a.id);
        } else if fresh {
            self.wait_for_push(link, &a.id);
        }
    }

    pub(in crate::protocol) fn is_refused(&self, id: &TransactionId) -> bool {
        self.fetches.refused.ids.contains(id) || self.log.is_refused(id)
    }

    /// Makes a place in the table for an id heard of on a link; `false` when there is none.
    pub(in crate::protocol) fn make_pending(
        &mut self,
        link: LinkId,
        id: TransactionId,
        size: u64,
    ) -> bool {
        if self.pending.contains(&id) {
            return true;
        }
        let now = self.env.now;
        let Some(peer) = self.links.peer_of(link) else { return false };
        if self.room_to_hear(&peer) == 0 {
            self.env.counters.fetches_shed += 1;
            self.want_repair(link);
            return false;
        }
        if !self.allow(link, Work::Id, 1) {
            self.want_repair(link);
            return false;
        }
        *self.fetches.heard.entry(peer).or_default() += 1;
        let mut pending = Pending::new(Stage::Heard, size, now);
        pending.heard_from = Some(peer);
        self.pending.insert(id, pending);
        true
    }

    /// Ids being fetched that were first heard of from a peer, over this link or an earlier one.
    pub(in crate::protocol) fn heard_of(&self, peer: &PeerId) -> usize {
        self.fetches.heard.get(peer).copied().unwrap_or(0)
    }

    /// Places in the table for more ids from a peer: a quarter of all in total, and never more than
    /// half of those that are free, so that there are always some for the next.
    pub(in crate::protocol) fn room_to_hear(&self, peer: &PeerId) -> usize {
        let most = (MAX_PENDING.saturating_sub(self.pending.len()) / 2).min(MAX_HEARD);
        most.saturating_sub(self.heard_of(peer))
    }

    /// A push may be on its way.
    pub(in crate::protocol) fn wait_for_push(&mut self, link: LinkId, id: &TransactionId) {
        if self.pending.get(id).is_some_and(|p| p.sources.len() == 1) {
            let patience = self.rtt_of(link).clamp(PATIENCE.0, PATIENCE.1);
            // In the order of announcing, also if the round trip was thought to be longer before.
            let mut at = self.env.now + patience;
            if let Some(up) = self.links.up(link) {
                at = at.max(up.patient_until + Duration::from_nanos(1));
                up.patient_until = at;
            }
            self.env.timers.set(Timer::Fetch(*id), at);
        }
    }

    /// No source is left, or all failed several times: the next announcement starts anew.
    pub(super) fn give_up(&mut self, id: &TransactionId) {
        let Some(pending) = self.remove_pending(id) else { return };
        for source in pending.sources {
            self.want_repair(source.link);
        }
    }

    /// Something that was taken could not be kept: it has to be offered again, by anybody.
    pub(in crate::protocol) fn lost_some(&mut self) {
        self.fetches.lost.some = true;
    }

    /// An origin needs copies of what could not be kept: worth a try, a few times, since anybody may
    /// say that it is the origin.
    pub(in crate::protocol) fn try_again_for_origin(&mut self, id: &TransactionId) {
        let lost = &mut self.fetches.lost;
        if lost.favours > 0 && self.log.forget_unsaved(id) {
            lost.favours -= 1;
        }
    }

    /// Ever less often, so that a full disk does not make us fetch the same all the time.
    pub(in crate::protocol) fn repair_after_loss(&mut self) {
        self.fetches.lost.favours = FAVOURS;
        if self.fetches.lost.is_due(self.env.now) {
            self.log.forget_all_unsaved();
            self.repair_everywhere();
        }
    }

    /// Something that anybody may have is missing here.
    pub(in crate::protocol) fn repair_everywhere(&mut self) {
        for link in self.links.up_ids() {
            self.want_repair(link);
        }
    }

    pub(in crate::protocol) fn remove_pending(&mut self, id: &TransactionId) -> Option<Pending> {
        self.env.timers.cancel(Timer::Fetch(*id));
        if let Some(link) = self.pending.get(id)?.asked {
            self.forget_promise(link, id);
            self.forget_asked(link, id);
        }
        self.abandon_parents(id);
        self.drop_assembly(id);
        let pending = self.pending.remove(id)?;
        if pending.ordered.is_some() || pending.held.is_some() {
            self.flushes.note_settled(pending.held.as_deref());
        }
        if let Some(peer) = pending.heard_from
            && let Entry::Occupied(mut heard) = self.fetches.heard.entry(peer)
        {
            *heard.get_mut() -= 1;
            if *heard.get() == 0 {
                heard.remove();
            }
        }
        if pending.large.as_ref().is_some_and(|large| large.parked) {
            self.fetches.parked.retain(|parked| parked != id);
        }
        Some(pending)
    }

    pub(in crate::protocol) fn on_missing(&mut self, link: LinkId, ids: &[TransactionId]) {
        for id in ids {
            self.forget_promise(link, id);
            self.note_answer(link, id, 0);
            if !self.end_parent(link, id, false) && !self.forget_asked(link, id) {
                continue;
            }
            if let Some(pending) = self.pending.get_mut(id) {
                let blind = pending.large.as_ref().is_some_and(|l| l.blind.contains(&link));
                if !blind {
                    pending.sources.retain(|s| s.link != link);
                }
                pending.asked = None;
                if !blind && pending.sources.is_empty() {
                    // Its cursor has passed: what it could not read now comes by comparison.
                    self.want_repair(link);
                }
                self.ask(id);
            }
        }
    }

    /// A whole transaction came.
    pub(in crate::protocol) fn on_push(
        &mut self,
        link: LinkId,
        transaction: Transaction,
        hop: u16,
    ) {
        let id = transaction.id();
        self.forget_promise(link, &id);
        self.note_answer(link, &id, transaction.header().payload_len);
        let asked = self.end_parent(link, &id, false) || self.forget_asked(link, &id);
        self.env.counters.payload_bytes_received += transaction.header().payload_len;
        let Some(slot) = self.links.slot_of(link) else { return };
        let known = match (self.log.find(&id), self.pending.get_mut(&id)) {
            (Some(_), _) => {
                self.log.note_known(&id, slot);
                true
            }
            (None, Some(pending)) if pending.stage != Stage::Heard => {
                pending.add_source(link, self.env.now, None, Holds::All);
                true
            }
            _ => false,
        };
        if known {
            if hop == 0 {
                self.join_inflow(link, &id);
            }
            self.env.counters.duplicates_received += 1;
            if !asked && let Some(batch) = self.links.batch(link) {
                batch.duplicate.push(id);
            }
            if let Some(record) = self.log.find(&id).copied()
                && record.is_stored()
                && self.waits_for_word(link, hop, &record)
            {
                self.confirm_to(link, id);
            }
            return;
        }
        self.env.counters.payloads_received += 1;
        self.note_early(link, &id);
        self.verify(link, transaction, hop);
        if hop == 0 {
            self.join_inflow(link, &id);
        }
    }

    /// Tells the first announcer that its push would have come first.
    fn note_early(&mut self, link: LinkId, id: &TransactionId) {
        let Some(pending) = self.pending.get(id) else { return };
        let Some(first) = pending.sources.first() else { return };
        let late = self.env.now.since(first.at) > EARLY;
        let (first, asked) = (first.link, pending.asked.is_some() || pending.turns > 0);
        if first != link
            && late
            && !asked
            && let Some(batch) = self.links.batch(first)
        {
            batch.early.push(*id);
        }
    }
}
