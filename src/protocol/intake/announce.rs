//! Getting what was heard of.
//!
//! ```text
//! unknown ──announced──► heard ──wanted, answered──► verifying ──accepted──► log
//!    └───────────────pushed───────────────────────────▲  │ │                 ▲
//!                       heard ◄──invalid, other sources──┘ └──► deferred ────┘
//! ```
//!
//! The first announcement of a small transaction waits about one round trip, because a push may be
//! on its way; a large one is asked for at once (`large`, `reserve`). One source is asked at a time;
//! without an answer the next one is, those of good reputation first, in the order of their
//! announcements, and then again from the first. What one peer is asked at once is bounded; the rest
//! waits in that link's backlog.
//!
//! Bounds: at most `MAX_PENDING` ids, and at most `MAX_HEARD` of them first heard from one peer and no
//! more than half of what is free, so that those who announce what they never serve leave room for
//! others. They are the peer's, over all its links. Beyond them an announcement
//! is dropped and its link compared by reconciliation later, so nothing is missed. Who announces much
//! that comes to nothing is held to a pace (`guard::rate_limits`).
//!
//! Tested by: `protocol::tests::liars`, `protocol::tests::greedy`, `sim::tests::spread`.

use std::collections::btree_map::Entry;
use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::guard::Work;
use crate::protocol::log::State;
use crate::protocol::timers::Timer;
use crate::types::{Announcement, LinkId, PeerId, Refusal, Transaction, TransactionId};

use super::table::{Arrival, Holds, Pending, Stage};

/// Maximum number of ids being fetched at once; at about 250 bytes each, 16 MiB.
pub(in crate::protocol) const MAX_PENDING: usize = 65_536;
/// Maximum number of ids being fetched at once that were first heard from one peer.
pub(in crate::protocol) const MAX_HEARD: usize = MAX_PENDING / 4;
/// Minimum time by which an announcement beats the payload that would better have been a push.
const EARLY: Duration = Duration::from_millis(10);
/// Minimum and maximum wait for a push after an announcement.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));
/// Minimum time after which an answer is overdue; three round trips if that is longer, plus the
/// time for the bytes.
pub(in crate::protocol) const ANSWER: Duration = Duration::from_millis(500);

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
                let is_replay = a.hop == 0 && self.is_replayed(link);
                if !is_replay && let Some(pending) = self.intake.pending.get_mut(&a.id) {
                    pending.note_arrival(Arrival::Announced);
                }
                if a.hop == 0 {
                    self.join_inflow(link, &a.id);
                    self.repeat_refusal(link, &a.id);
                }
            }
        }
    }

    pub(in crate::protocol) fn hear(&mut self, link: LinkId, a: &Announcement) {
        let unwanted = self.intake.unwanted.contains(&a.id) && !self.is_downstream(link);
        if unwanted || self.is_refused(&a.id) {
            return;
        }
        if a.size > self.env.config.gossip.max_transaction_size {
            self.refuse_publish_of(link, a.hop, &a.id, Refusal::TooLarge);
            return;
        }
        if !self.make_pending(link, a.id, a.size) {
            return;
        }
        let (now, eager) = (self.env.now, self.env.config.gossip.eager_limit);
        let Some(pending) = self.intake.pending.get_mut(&a.id) else { return };
        let fresh = pending.sources.is_empty();
        pending.add_source(link, now, None, Holds::All);
        if a.size > eager && fresh && pending.stage == Stage::Heard {
            pending.large.get_or_insert_default();
        }
        if pending.large.is_some() {
            self.revive(&a.id);
            self.drive(&a.id);
        } else if fresh && a.hop == 0 && self.is_replayed(link) {
            self.ask(&a.id);
        } else if fresh {
            self.wait_for_push(link, &a.id);
        }
    }

    pub(in crate::protocol) fn is_refused(&self, id: &TransactionId) -> bool {
        self.intake.refused.contains(id) || self.log.is_refused(id)
    }

    /// Makes room in the table for an id heard of on a link; `false` when there is none.
    pub(in crate::protocol) fn make_pending(
        &mut self,
        link: LinkId,
        id: TransactionId,
        size: u64,
    ) -> bool {
        if self.intake.pending.contains(&id) {
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
        *self.intake.heard.entry(peer).or_default() += 1;
        let mut pending = Pending::new(Stage::Heard, size, now);
        pending.heard_from = Some(peer);
        self.intake.pending.insert(id, pending);
        true
    }

    /// Ids being fetched that were first heard of from a peer, over this link or an earlier one.
    pub(in crate::protocol) fn heard_of(&self, peer: &PeerId) -> usize {
        self.intake.heard.get(peer).copied().unwrap_or(0)
    }

    /// Places in the table for more ids from a peer: a quarter of all in total, and never more than
    /// half of those that are free, so that there are always some for the next.
    pub(in crate::protocol) fn room_to_hear(&self, peer: &PeerId) -> usize {
        let most = (MAX_PENDING.saturating_sub(self.intake.pending.len()) / 2).min(MAX_HEARD);
        most.saturating_sub(self.heard_of(peer))
    }

    /// A push may be on its way.
    pub(in crate::protocol) fn wait_for_push(&mut self, link: LinkId, id: &TransactionId) {
        if self.intake.pending.get(id).is_some_and(|p| p.sources.len() == 1) {
            let patience = self.rtt_of(link).clamp(PATIENCE.0, PATIENCE.1);
            // In the order of announcing, also if the round trip was thought to be longer before.
            let mut at = self.env.now + patience;
            if let Some(up) = self.links.up(link) {
                at = at.max(up.requests.patient_until + Duration::from_nanos(1));
                up.requests.patient_until = at;
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

    pub(in crate::protocol) fn remove_pending(&mut self, id: &TransactionId) -> Option<Pending> {
        self.env.timers.cancel(Timer::Fetch(*id));
        if let Some(link) = self.intake.pending.get(id)?.asked_of {
            self.forget_promise(link, id);
            self.forget_request(link, id);
        }
        self.abandon_parents(id);
        self.drop_assembly(id);
        let pending = self.intake.pending.remove(id)?;
        if pending.ordered.is_some() || pending.deferred.is_some() {
            self.replays.note_settled(pending.deferred.as_deref());
        }
        if let Some(peer) = pending.heard_from
            && let Entry::Occupied(mut heard) = self.intake.heard.entry(peer)
        {
            *heard.get_mut() = heard.get().saturating_sub(1);
            if *heard.get() == 0 {
                heard.remove();
            }
        }
        if pending.large.as_ref().is_some_and(|large| large.parked) {
            self.assemblies.parked.retain(|parked| parked != id);
        }
        Some(pending)
    }

    pub(in crate::protocol) fn on_missing(&mut self, link: LinkId, ids: &[TransactionId]) {
        for id in ids {
            self.forget_promise(link, id);
            self.note_answer(link, id, 0);
            if !self.end_refused(link, id) && !self.forget_request(link, id) {
                continue;
            }
            if let Some(pending) = self.intake.pending.get_mut(id) {
                let unannounced =
                    pending.large.as_ref().is_some_and(|l| l.asked_unannounced.contains(&link));
                if !unannounced {
                    self.links.note_service(link, false, self.env.now);
                    pending.sources.retain(|s| s.link != link);
                }
                pending.asked_of = None;
                if !unannounced && pending.sources.is_empty() {
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
        let asked = self.end_parent(link, &id, false) || self.forget_request(link, &id);
        if asked {
            self.links.note_service(link, true, self.env.now);
        }
        self.env.counters.payload_bytes_received += transaction.header().payload_len;
        let Some(slot) = self.links.slot_of(link) else { return };
        let state = self.log.state_of(&id);
        let (known, refused) = match (state, self.intake.pending.get_mut(&id)) {
            (Some(State::Live), _) => {
                self.log.note_known(&id, slot);
                (true, false)
            }
            (_, Some(pending)) if pending.stage != Stage::Heard => {
                pending.add_source(link, self.env.now, None, Holds::All);
                (true, false)
            }
            (_, Some(_)) => (false, false),
            (Some(State::Refused), None) => (false, true),
            (_, None) => (false, self.intake.refused.contains(&id)),
        };
        if known || refused {
            if hop == 0 {
                self.join_inflow(link, &id);
            }
            self.env.counters.duplicates_received += 1;
            if !asked {
                self.links.note_payload(link, false, self.env.now);
            }
            if !asked && let Some(batch) = self.links.batch(link) {
                batch.duplicate.push(id);
            }
            if refused {
                self.on_refused_again(link, hop, &id);
            } else if let Some(record) = self.log.find(&id).copied()
                && record.is_stored()
                && self.waits_for_word(link, hop, &record)
            {
                self.confirm_to(link, id);
            }
            return;
        }
        self.env.counters.payloads_received += 1;
        self.links.note_payload(link, true, self.env.now);
        self.note_early(link, &id);
        // One that was asked for may answer late.
        let never_asked = |p: &Pending| p.asked_of.is_none() && p.turns == 0;
        let is_unasked = !asked && self.intake.pending.get(&id).is_none_or(never_asked);
        self.verify(link, transaction, hop);
        if is_unasked && let Some(pending) = self.intake.pending.get_mut(&id) {
            pending.note_arrival(Arrival::Pushed);
        }
        if hop == 0 {
            self.join_inflow(link, &id);
        }
    }

    /// What was refused before came once more: it is not judged again, and held against who sent it as
    /// before.
    fn on_refused_again(&mut self, link: LinkId, hop: u16, id: &TransactionId) {
        if hop == 0 {
            self.repeat_refusal(link, id);
        }
        if self.intake.refused.reason(id) == Some(Refusal::Rejected)
            && let Some(peer) = self.links.peer_of(link)
        {
            self.note_reject(&peer);
        }
    }

    /// Tells the first announcer that its push would have come first.
    fn note_early(&mut self, link: LinkId, id: &TransactionId) {
        let Some(pending) = self.intake.pending.get(id) else { return };
        let Some(first) = pending.sources.first() else { return };
        let long_after = self.env.now.since(first.at) > EARLY;
        let (first, asked) = (first.link, pending.asked_of.is_some() || pending.turns > 0);
        if first != link
            && long_after
            && !asked
            && let Some(batch) = self.links.batch(first)
        {
            batch.early.push(*id);
        }
    }
}
