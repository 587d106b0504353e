//! Rounds of offering: who confirmed, who is asked again, and what is given up.
//!
//! Tested by: `sim::tests::outbox`, `protocol::tests::outbox`, `protocol::tests::gates`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::io::Output;
use crate::protocol::link::Established;
use crate::protocol::restored::GivenUp;
use crate::protocol::timers::Timer;
use crate::protocol::trail::What;
use crate::types::{
    Announcement, EntryState, Event, LinkId, PublishStatus, TransactionId, WallTime,
};

use super::FIRST_ROUND;

/// Maximum length of a round.
const LONGEST_ROUND: Duration = Duration::from_mins(5);
/// Maximum number of entries looked at in one turn, and delay until the next: what is announced can
/// leave between.
const TURN: (usize, Duration) = (1024, Duration::from_millis(1));

/// Maximum number of payloads owed to a peer among which an entry is looked for.
const LOOK: usize = 64;

impl Protocol {
    /// A peer has stored these of ours.
    pub(in crate::protocol) fn on_confirmed(&mut self, link: LinkId, ids: &[TransactionId]) {
        let Some(l) = self.links.all.get(&link) else { return };
        let (peer, slot) = (l.remote, self.links.slot_of(link));
        let (stored_upstream, alike) = (self.is_uphill(link), self.needed_of_all());
        let online = self.outbox.clock.at(self.env.now);
        let (mut done, mut revived) = (Vec::new(), Vec::new());
        for id in ids {
            let seq = self.log.seq_of(id);
            if stored_upstream && let Some(record) = seq.and_then(|seq| self.log.at_mut(seq)) {
                record.set_stored_upstream();
            }
            let Some(peers) = self.outbox.confirm(id, peer) else { continue };
            if let Some(seq) = seq.or_else(|| self.trail.seq_of(id)) {
                self.trail.note(seq, What::Confirmed, slot, self.env.now);
            }
            let needed = self.copies_needed(id, alike);
            if self.outbox.contains(id) {
                self.env.emit(Event::Replicated { id: *id, peers });
            } else {
                self.env.push(Output::Copied { id: *id, peers });
            }
            if let Some((slot, seq)) = slot.zip(seq) {
                self.log.note_known_at(seq, slot);
            }
            if (peers >= needed || self.outbox.is_stale(id)) && self.outbox.finish(id) {
                done.push(*id);
            } else if self.outbox.revive(id, online + FIRST_ROUND) {
                revived.push(*id);
            }
        }
        self.leave_outbox(done);
        self.note_revived(&revived);
        self.arm_outbox();
        self.note_replay_stored(link, ids);
    }

    /// Returns how many peers have to confirm an entry: as many of those that are well as take its
    /// topic.
    pub(super) fn copies_needed(&self, id: &TransactionId, of_all: Option<u32>) -> u32 {
        let refusing = self.outbox.refusing(id);
        if let Some(needed) = of_all.filter(|_| refusing.is_empty()) {
            return needed;
        }
        let record = self.log.find(id);
        let takes = |link: &LinkId| {
            record.is_none_or(|record| self.takes(*link, record))
                && self.links.peer_of(*link).is_none_or(|peer| !refusing.contains(&peer))
        };
        self.enough(self.links.well(self.env.now).filter(takes).count())
    }

    /// Reports whether an own transaction waits for copies that a linked peer may make.
    pub(in crate::protocol) fn waits_for_taker(&self) -> bool {
        let links = self.links.up_ids();
        if links.is_empty() || self.peers_take_all() {
            return !links.is_empty() && self.outbox.entries.waiting() > 0;
        }
        let taken = |id: &TransactionId| {
            let record = self.log.find(id);
            record.is_some_and(|record| links.iter().any(|link| self.takes(*link, record)))
        };
        let mut entries = self.outbox.entries.iter();
        entries.any(|entry| entry.has_round() && taken(entry.id()))
    }

    /// Returns how many have to confirm any entry, where every linked peer takes every topic.
    pub(super) fn needed_of_all(&self) -> Option<u32> {
        self.peers_take_all().then(|| self.enough(self.links.well(self.env.now).count()))
    }

    /// Reports whether every linked peer takes every topic.
    fn peers_take_all(&self) -> bool {
        let mut ups = self.links.all.values().filter_map(|l| l.up.as_ref());
        ups.all(|up| up.interest.theirs.topics.is_none())
    }

    fn enough(&self, takers: usize) -> u32 {
        let takers = u32::try_from(takers).unwrap_or(u32::MAX);
        self.env.config.outbox.min_copies.min(takers.max(1))
    }

    pub(super) fn leave_outbox(&mut self, ids: Vec<TransactionId>) {
        if !ids.is_empty() {
            self.env.counters.transactions_replicated += ids.len() as u64;
            let forgotten = std::mem::take(&mut self.outbox.forgotten);
            self.env.push(Output::Confirmed { ids, forgotten });
        }
    }

    /// Links came or went, are no longer well, or want something else: fewer takers may mean that
    /// fewer copies are enough, and without any link time stands still.
    pub(in crate::protocol) fn recheck_outbox(&mut self) {
        let needed = self.enough(self.links.well(self.env.now).count());
        let fewer = std::mem::replace(&mut self.outbox.copies_wanted, needed) > needed;
        let online = self.links.up_count() > 0;
        let alike = self.needed_of_all();
        if online && (fewer || alike.is_none()) {
            let mut done = self.outbox.confirmed();
            done.retain(|(id, copies)| *copies >= self.copies_needed(id, alike));
            let done: Vec<_> = done.into_iter().map(|(id, _)| id).collect();
            for id in &done {
                self.outbox.finish(id);
            }
            self.leave_outbox(done);
        }
        self.outbox.clock.run(self.env.now, online);
        self.arm_outbox();
        self.renew_stale();
    }

    /// An entry was added: somebody should have confirmed it when its first round is over.
    pub(super) fn watch_outbox(&mut self, id: TransactionId, created: WallTime) {
        let due = self.outbox.clock.at(self.env.now) + FIRST_ROUND;
        self.outbox.insert(id, created, due);
        self.arm_outbox();
    }

    pub(super) fn arm_outbox(&mut self) {
        let (Some(due), true) = (self.outbox.next_due(), self.outbox.clock.is_running()) else {
            self.env.timers.cancel(Timer::Outbox);
            return;
        };
        let wait = due.saturating_sub(self.outbox.clock.at(self.env.now));
        self.env.timers.set(Timer::Outbox, self.env.now + wait);
    }

    /// Goes through the entries whose round is over.
    pub(in crate::protocol) fn on_outbox_due(&mut self) {
        self.recheck_outbox();
        let online = self.outbox.clock.at(self.env.now);
        let mut states = Vec::new();
        let due = self.outbox.take_due(online, TURN.0);
        let more = due.len() == TURN.0;
        for id in due {
            if let Some(state) = self.bury_refused(&id) {
                states.push((id, state));
                continue;
            }
            let offered = self.offer_again(&id);
            let retries = self.env.config.outbox.max_retries;
            let attempts = self.outbox.count_round(&id, offered);
            if attempts >= retries {
                states.push((id, self.bury(&id, GivenUp::NoTaker)));
                continue;
            }
            let doublings = self.outbox.doublings(&id).min(16);
            let longest = FIRST_ROUND.saturating_mul(1 << doublings).min(LONGEST_ROUND);
            // Never at once: what was offered a moment ago may be on its way.
            let delay = FIRST_ROUND / 5 + self.env.rng.jitter(longest);
            self.outbox.wait(&id, online + delay);
            if offered {
                if let Some(seq) = self.log.seq_of(&id) {
                    self.trail.note_retry(seq, attempts, self.env.now);
                }
                let due = self.env.wall.plus(delay);
                states.push((id, EntryState::Waiting { attempts, due }));
            }
        }
        if !states.is_empty() {
            self.env.push(Output::UpdateOutbox { states });
        }
        self.arm_outbox();
        if more && self.outbox.clock.is_running() {
            self.env.timers.set(Timer::Outbox, self.env.now + TURN.1);
        }
    }

    /// Announces an entry to whoever has not confirmed it; whether anybody could be told.
    fn offer_again(&mut self, id: &TransactionId) -> bool {
        let Some(seq) = self.log.seq_of(id) else { return false };
        let Some(entry) = self.log.at(seq).copied() else { return false };
        let announcement = Announcement { id: *id, size: u64::from(entry.size), hop: 0 };
        let mut offered = false;
        for link in self.links.up_ids() {
            let Some(l) = self.links.all.get(&link) else { continue };
            let takes = l.up.as_ref().is_some_and(|up| up.max_transaction >= announcement.size)
                && self.takes(link, &entry);
            let replay = l.up.as_ref().and_then(|up| up.feed.replay.as_ref());
            let coming = replay.is_some_and(|replay| replay.covers(seq));
            // Who has asked for it gets it, however long that takes on a thin link.
            let asked = |up: &Established| up.serve.entries.iter().take(LOOK).any(|s| s.id == *id);
            // A slow peer is not told twice: its cursor comes to it.
            let answered = self.outbox.has_confirmed(id, &l.remote)
                || self.outbox.refusing(id).contains(&l.remote);
            let told = answered || coming;
            if !takes || told || l.up.as_ref().is_some_and(asked) || !self.may_pump(link) {
                continue;
            }
            if let Some(batch) = self.links.batch(link) {
                batch.announce.push(announcement);
                offered = true;
                self.trail.note(seq, What::Announced, self.links.slot_of(link), self.env.now);
            }
        }
        if offered {
            self.env.counters.outbox_retries += 1;
        }
        offered
    }

    pub(super) fn bury(&mut self, id: &TransactionId, why: GivenUp) -> EntryState {
        self.outbox.bury(id, why);
        self.trail.note_buried(id, why, self.env.now);
        self.env.counters.dead_letters += 1;
        let reason = why.reason().to_owned();
        self.env.emit(Event::DeadLettered { id: *id, reason: reason.clone() });
        EntryState::Dead { reason, since: self.env.wall }
    }

    /// Buries what of our own expired without enough copies as a dead letter, and publishes anew
    /// what expired without any.
    pub(in crate::protocol) fn bury_expired(&mut self, own: &[TransactionId]) {
        let left = own.iter().filter(|id| self.outbox.is_waiting(id) && !self.outbox.is_stale(id));
        let (taken, untaken): (Vec<_>, Vec<_>) = left.partition(|id| self.outbox.has_copies(id));
        for id in untaken {
            self.outbox.set_stale(id);
        }
        let states: Vec<_> =
            taken.into_iter().map(|id| (*id, self.bury(id, GivenUp::Expired))).collect();
        if !states.is_empty() {
            self.env.push(Output::UpdateOutbox { states });
            self.arm_outbox();
        }
    }

    /// Buries as a dead letter what expired before anybody had it, and is now more than this node
    /// takes: so it keeps those behind it waiting no longer.
    pub(super) fn bury_too_large(&mut self, id: TransactionId) {
        if self.outbox.end_stale(&id) {
            let states = vec![(id, self.bury(&id, GivenUp::TooLarge))];
            self.env.push(Output::UpdateOutbox { states });
        }
    }

    /// The host wants a dead letter to be offered again.
    pub(in crate::protocol) fn on_redeliver(&mut self, id: TransactionId) {
        // Offered at once, and its first round is over later: else it would be without a taker.
        let due = self.outbox.clock.at(self.env.now) + FIRST_ROUND;
        if self.log.contains(&id) && self.outbox.revive(&id, due) {
            self.trail.note_dead(&id, What::Redelivered, self.env.now);
            self.offer_again(&id);
            self.note_revived(&[id]);
            self.arm_outbox();
        }
    }

    fn note_revived(&mut self, ids: &[TransactionId]) {
        if ids.is_empty() {
            return;
        }
        let state = EntryState::Waiting { attempts: 0, due: self.env.wall };
        let states = ids.iter().map(|id| (*id, state.clone())).collect();
        self.env.push(Output::UpdateOutbox { states });
    }

    /// The host deletes a dead letter; its row is the caller's to remove.
    pub(in crate::protocol) fn on_drop_dead(&mut self, id: &TransactionId) {
        if self.outbox.is_dead(id) {
            // Who publishes it once more is to know that nobody need have it.
            self.outbox.finish(id);
            self.trail.note_dead(id, What::Deleted, self.env.now);
        }
    }

    /// Returns how far a transaction got that this node has published.
    pub fn publish_status(&self, id: &TransactionId) -> PublishStatus {
        self.outbox.status(id)
    }
}
