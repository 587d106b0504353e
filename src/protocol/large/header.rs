//! Large transactions: the header travels ahead of the payload.
//!
//! ```text
//! offer ──signature checked──► relayed to everybody, reserved from one ──pieces──► complete ──► log
//!   └──wrong: costs its sender the link                    │  ▲
//!                                        stalled, busy, gone  another source
//! ```
//!
//! A node that hears a header with a good signature relays it at once and reserves the payload from
//! one source (`reserve`); pieces are checked one by one and passed on as they come (`pieces`,
//! `serve`). Headers outrun payloads, so that reservations of a whole path overlap. Where nobody
//! vouches for a header (signatures off) or the host judges payloads first (a validator), nothing is
//! said ahead: a node announces what it holds, and the header comes with the answer.
//!
//! **Order of reservations.** A node has a rank for each id that it fetches, (number, peer id): at
//! first `STEP` above that of the offer from which it took the header. Pieces are reserved only from
//! a peer that has all of them, or from one whose rank is lower than the own. To get in line behind
//! a peer that is receiving, a node may rise above it; who waits for itself and would not be above
//! its new rank any more is sent away. It never sinks. So a peer that has everything waits for
//! nobody, and every other reservation that was taken leads strictly downwards at any time: the graph
//! of who waits for whom has no cycle, whatever is lost or late. Both sides keep the rule: the asker
//! names its rank, and who is asked compares it with its own of that moment, which may have risen
//! since it was told, and then refuses. So two who lose their sources and ask each other at once may
//! both be refused, and never wait for each other. Of each piece
//! there is one reservation at most: what several parents are asked for is disjoint, and what is
//! asked elsewhere was taken back before on the same link.
//!
//! Bounds: buffers of payloads on their way in take at most `Shares::assemblies` together, and with
//! what is being stored little more (one larger payload alone may exceed that); what finds no room
//! waits in a queue of ids, and who makes no progress meanwhile makes way (`large::spill`). Each
//! payload is put together in one buffer of its final size.
//!
//! Tested by: `sim::tests::large`, `protocol::tests::liars`.

use crate::config::Auto;
use crate::protocol::guard::Work;
use crate::protocol::intake::{Arrival, Holds, Pending, Stage};
use crate::protocol::io::{Output, Ticket};
use crate::protocol::{Protocol, env::Task};
use crate::types::{
    Head, InvalidTransaction, LinkId, Message, MonoTime, Offer, PeerId, PieceSet, Refusal,
    TransactionId,
};

use super::assembly::Assembly;

/// Number of ranks between a node and the peer that hears of a payload from it: room to rise.
const STEP: u32 = 256;
/// Maximum number of peers that were asked before and whose late pieces are still taken.
const MAX_FORMER_PARENTS: usize = 16;

/// A large transaction on its way in.
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
#[derive(Debug, Default)]
pub(in crate::protocol) struct Large {
    pub(in crate::protocol) head: Option<Head>,
    /// The own hop and rank (`place` on the wire), which count once there is a header.
    pub(in crate::protocol) hop: u16,
    pub(in crate::protocol) rank: u32,
    /// True: the signature is right.
    pub(in crate::protocol) trusted: bool,
    /// Another signature for the same header, should the first be wrong.
    spare: Option<(LinkId, Offer)>,
    pub(in crate::protocol) assembly: Option<Assembly>,
    pub(super) parents: Vec<Parent>,
    /// Peers asked before, and perhaps only slow: their pieces are still taken.
    pub(super) former_parents: Vec<LinkId>,
    /// Peers asked though they did not announce the payload.
    pub(in crate::protocol) asked_unannounced: Vec<LinkId>,
    /// Peers that wait for pieces from us, with their ranks.
    pub(in crate::protocol) children: Vec<(LinkId, u32)>,
    /// True: found by comparison, so that others have had the payload for a while, and probably all
    /// peers do.
    pub(in crate::protocol) found: bool,
    /// Links in whose backlog the payload stands.
    pub(in crate::protocol) backlogged_on: Vec<LinkId>,
    /// True: the payload is in the queue for room.
    pub(in crate::protocol) waiting: bool,
    /// True: nobody is left to ask, and the payload is kept for a while in case somebody comes
    /// back.
    pub(in crate::protocol) parked: bool,
    /// The store is being asked for what it has of the payload.
    pub(in crate::protocol) coming: Option<Ticket>,
}

/// Peer from whom pieces are reserved.
#[derive(Debug)]
pub(super) struct Parent {
    pub(in crate::protocol) link: LinkId,
    /// Pieces asked for and not here; everything while there is no header.
    pub(in crate::protocol) wanted: Option<PieceSet>,
    /// Time when the parent was asked or last sent a piece.
    pub(in crate::protocol) last: MonoTime,
    /// The same, whatever time it was given since.
    pub(super) since: MonoTime,
    /// True: the parent has sent a piece.
    pub(super) served: bool,
    /// True: the parent was given more time only because nobody else has more.
    pub(super) overdue: bool,
    /// True: the parent had everything when it was asked, and sends as fast as it can.
    pub(super) whole: bool,
}

impl Parent {
    pub(in crate::protocol) fn new(
        link: LinkId,
        wanted: Option<PieceSet>,
        now: MonoTime,
        whole: bool,
    ) -> Self {
        Self { link, wanted, last: now, since: now, served: false, overdue: false, whole }
    }
}

impl Large {
    /// Returns the pieces that nobody is asked for.
    pub(in crate::protocol) fn missing(&self) -> Option<PieceSet> {
        let assembly = self.assembly.as_ref()?;
        let mut missing = PieceSet::full(assembly.have.len());
        missing.remove_all(&assembly.have);
        missing.remove_all(&assembly.checking);
        for wanted in self.parents.iter().filter_map(|p| p.wanted.as_ref()) {
            missing.remove_all(wanted);
        }
        Some(missing)
    }

    pub(super) fn note_former_parent(&mut self, link: LinkId) {
        if !self.former_parents.contains(&link) {
            if self.former_parents.len() >= MAX_FORMER_PARENTS {
                self.former_parents.remove(0);
            }
            self.former_parents.push(link);
        }
    }
}

impl Protocol {
    pub(in crate::protocol) fn on_offer(&mut self, link: LinkId, offer: Offer) {
        let Some(slot) = self.links.slot_of(link) else { return };
        self.env.counters.announcements_received += 1;
        let id = offer.head.id();
        if let Some(record) = self.log.find(&id).copied() {
            if offer.complete && !self.outbox.contains(&id) {
                self.log.note_known(&id, slot);
            }
            if record.is_stored() && self.waits_for_word(link, offer.hop, &record) {
                self.confirm_to(link, id);
            }
            return;
        }
        if offer.hop == 0 {
            self.try_again_for_origin(&id);
        }
        if self.is_refused(&id) {
            if offer.hop == 0 {
                self.repeat_refusal(link, &id);
            }
            return;
        }
        // What is refused for now is remembered, so it has to be real: its signature comes first.
        let inadmissible = self.inadmissible(offer.head.header());
        if let Some(reason) = inadmissible.filter(|reason| !reason.is_for_now()) {
            self.drop_inadmissible(link, offer.hop, &id, reason);
            if reason == Refusal::Skewed {
                self.want_retry();
            }
            return;
        }
        if !self.is_welcome(link, &id, offer.head.header()) {
            self.intake.unwanted.add(id, Refusal::Unwanted);
            self.drop_inadmissible(link, offer.hop, &id, Refusal::Unwanted);
            return;
        }
        let size = offer.head.header().payload_len;
        let asked = self
            .intake
            .pending
            .get(&id)
            .is_some_and(|p| p.large.is_some() || p.asked_of == Some(link));
        if !self.make_pending(link, id, size) {
            return;
        }
        let now = self.env.now;
        let Some(pending) = self.intake.pending.get_mut(&id) else { return };
        let holds = if offer.complete { Holds::All } else { Holds::Nothing };
        pending.add_source(link, now, Some(offer.place), holds);
        if !asked {
            pending.note_arrival(Arrival::Announced);
        }
        let heard = pending.stage == Stage::Heard;
        if offer.hop == 0 {
            self.join_inflow(link, &id);
        }
        if !heard {
            return;
        }
        if !asked && size <= self.env.config.gossip.eager_limit {
            self.wait_for_push(link, &id);
            return;
        }
        self.take_head(link, &id, offer);
    }

    /// Turns a header away that is one more than its peer may have checked: the peer does not count
    /// as a source.
    fn turn_head_away(&mut self, link: LinkId, id: &TransactionId) {
        self.want_repair(link);
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        pending.sources.retain(|s| s.link != link);
        let parents = pending.large.as_ref().is_some_and(|large| !large.parents.is_empty());
        if pending.sources.is_empty() && !parents && pending.asked_of.is_none() {
            self.remove_pending(id);
        }
    }

    /// Notes the header of a fetch and has its signature checked, unless it has one.
    fn take_head(&mut self, link: LinkId, id: &TransactionId, offer: Offer) {
        self.revive(id);
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        pending.size = offer.head.header().payload_len;
        // It was asked for as a small one: the answer says that it is not.
        let asked = pending.asked_of.take();
        let now = self.env.now;
        let large = pending.large.get_or_insert_default();
        if let Some(asked) = asked {
            large.parents.push(Parent::new(asked, None, now, true));
        }
        if let Some(head) = &large.head {
            // Honest relays pass on what they got, so another signature is worth a look.
            if head.signature() != offer.head.signature() {
                if !large.trusted {
                    // The first: who sends many may be the one who sent the wrong one.
                    large.spare.get_or_insert((link, offer));
                } else if self.allow(link, Work::Head, 1) {
                    self.check_head(link, offer.head);
                }
            }
            self.drive(id);
            return;
        }
        if !self.allow(link, Work::Head, 1) {
            return self.turn_head_away(link, id);
        }
        let Some(large) = self.intake.pending.get_mut(id).and_then(|p| p.large.as_mut()) else {
            return;
        };
        large.hop = offer.hop.saturating_add(1);
        large.rank = offer.place.saturating_add(STEP);
        large.head = Some(offer.head.clone());
        if self.inadmissible(offer.head.header()).is_some() {
            self.abandon_parents(id);
        } else {
            self.start_assembly(id);
        }
        self.check_head(link, offer.head);
        self.set_watch(id);
    }

    fn check_head(&mut self, link: LinkId, head: Head) {
        let Some(from) = self.links.all.get(&link).map(|l| l.remote) else { return };
        self.env.verifying.enter(1);
        let (id, signature) = (head.id(), head.signature().clone());
        let ticket = self.env.ticket(Task::Head { link, from, id, signature });
        self.env.push(Output::VerifyHead { ticket, head });
    }

    pub(in crate::protocol) fn on_head_verified(
        &mut self,
        ticket: Ticket,
        result: Result<(), InvalidTransaction>,
    ) {
        let Some(Task::Head { link, from, id, signature }) = self.env.tickets.remove(&ticket)
        else {
            return;
        };
        self.env.verifying.leave(1);
        let large = self.intake.pending.get(&id).and_then(|p| p.large.as_ref());
        let large_hop = large.map_or(u16::MAX, |large| large.hop);
        let checked = large.and_then(|l| l.head.as_ref()).filter(|h| *h.signature() == signature);
        let Some(head) = checked.cloned() else {
            // Of a fetch that has ended, or begun anew with another header.
            if result.is_err() {
                self.refuse_transaction(link, &id, Refusal::WrongSignature);
                self.punish(&from, "forged transaction");
            }
            return;
        };
        if result.is_err() {
            self.on_false_head(link, &from, &id);
            return;
        }
        if let Some(reason) = self.inadmissible(head.header()) {
            let hop = large_hop.saturating_sub(1);
            self.drop_inadmissible(link, hop, &id, reason);
            self.trail.describe(&id, head.header());
            if reason.is_for_now() {
                self.give_back(&from, Work::Head, 1);
                self.turn_away(id, head.header());
            }
            return;
        }
        let Some(large) = self.intake.pending.get_mut(&id).and_then(|p| p.large.as_mut()) else {
            return;
        };
        if std::mem::replace(&mut large.trusted, true) {
            return;
        }
        if let Some((link, offer)) = large.spare.take()
            && self.allow(link, Work::Head, 1)
        {
            self.check_head(link, offer.head);
        }
        self.give_back(&from, Work::Head, 1);
        self.relay_head(&id);
        if self.has_pieces(&id) {
            // They were here before it was known to be worth telling.
            self.say_receiving(&id, link);
        }
        self.finish_assembly(&id);
        self.drive(&id);
    }

    fn has_pieces(&self, id: &TransactionId) -> bool {
        let large = self.intake.pending.get(id).and_then(|p| p.large.as_ref());
        let assembly = large.and_then(|large| large.assembly.as_ref());
        assembly.is_some_and(|a| a.have.len() > 1 && !a.have.is_empty())
    }

    /// A header that is not taken here because of what it says, which is what its id commits to.
    fn drop_inadmissible(&mut self, link: LinkId, hop: u16, id: &TransactionId, reason: Refusal) {
        if self.intake.pending.get(id).is_some_and(|p| p.stage == Stage::Heard) {
            let pending = self.remove_pending(id);
            self.absolve(pending.as_ref().filter(|_| reason.is_for_now()));
        }
        self.refuse_publish_of(link, hop, id, reason);
    }

    /// Undoes what a header began whose sender vouched for a wrong signature.
    fn on_false_head(&mut self, link: LinkId, from: &PeerId, id: &TransactionId) {
        self.refuse_transaction(link, id, Refusal::WrongSignature);
        self.abandon_parents(id);
        let mut spare = None;
        if let Some(pending) = self.intake.pending.get_mut(id) {
            pending.sources.retain(|s| s.link != link);
            self.drop_assembly(id);
            if let Some(large) = self.intake.pending.get_mut(id).and_then(|p| p.large.as_mut()) {
                large.head = None;
                spare = large.spare.take();
            }
        }
        self.punish(from, "forged transaction");
        match spare.filter(|(link, ..)| self.links.slot_of(*link).is_some()) {
            Some((link, offer)) => self.take_head(link, id, offer),
            None => self.drive(id),
        }
    }

    /// Says a checked header to everybody who has not said it to us.
    fn relay_head(&mut self, id: &TransactionId) {
        let most = match self.env.config.gossip.ttl {
            Auto::Auto => u32::MAX,
            Auto::Fixed(ttl) => ttl,
        };
        let Some(pending) = self.intake.pending.get(id) else { return };
        let Some(large) = &pending.large else { return };
        let Some(head) = large.head.clone() else { return };
        if !self.env.relays_ahead() || u32::from(large.hop) >= most {
            return;
        }
        let (hop, rank, size) = (large.hop, large.rank, pending.size);
        let heard: Vec<LinkId> = pending.sources.iter().map(|s| s.link).collect();
        let offer = Box::new(Offer { head, hop, place: rank, complete: false });
        for link in self.links.up_ids() {
            let fits = self.links.up(link).is_some_and(|up| up.max_transaction >= size)
                && self.takes_topic(link, &offer.head.header().topic);
            if fits && !heard.contains(&link) && self.is_writable(link) {
                self.env.counters.announcements_sent += 1;
                self.send(link, Message::Offer(offer.clone()));
            }
        }
    }

    pub(super) fn is_parked(&self, id: &TransactionId) -> bool {
        self.intake.pending.get(id).and_then(|p| p.large.as_ref()).is_some_and(|large| large.parked)
    }
}

/// Reports whether `pending` has a header that may be passed on.
pub(in crate::protocol) fn is_passed_on(pending: &Pending) -> bool {
    pending.large.as_ref().is_some_and(|large| large.head.is_some() && large.trusted)
}
