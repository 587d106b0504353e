//! What peers say that do not take our transactions.
//!
//! A refusal is hearsay of one peer. For now (a clock, a share, a rate, a topic) it keeps the entry
//! waiting, so all that a liar reaches by it is to be asked again, at most every five minutes in the
//! end. For good (a validator, a limit) it speaks for that peer alone: the entry is given up when every
//! linked peer that takes its topic has said so, and one that lies has others overrule it. Neither
//! makes anything be published anew: that goes by the time on which peers agree (`republish`).
//!
//! Bounds: as many peers an entry as there are links; a refusal of what is not in the outbox changes nothing.
//!
//! Tested by: `sim::tests::clocks`, `protocol::tests::refusals`.

use crate::protocol::Protocol;
use crate::protocol::io::Output;
use crate::protocol::restored::GivenUp;
use crate::types::{EntryState, Event, LinkId, PeerId, Refusal, TransactionId};

use super::Outbox;

/// Reports whether a peer will not take later what it refuses now.
fn is_for_good(reason: Refusal) -> bool {
    match reason {
        Refusal::Skewed
        | Refusal::Expired
        | Refusal::OverShare
        | Refusal::OverRate
        | Refusal::Unwanted => false,
        Refusal::WrongHash
        | Refusal::WrongSignature
        | Refusal::TooLarge
        | Refusal::Rejected
        | Refusal::Ignored => true,
    }
}

impl Outbox {
    /// Notes a refusal; whether its reason is news, or `None` where nothing waits to be taken.
    fn note_refused(&mut self, id: &TransactionId, peer: PeerId, reason: Refusal) -> Option<bool> {
        let entry = self.entries.get_mut(id).filter(|entry| entry.has_round())?;
        // Once for good is enough, whatever it says later.
        if entry.peers().contains(&peer) || entry.refusing().contains(&peer) {
            return None;
        }
        Some(entry.note_refused(peer, reason, is_for_good(reason)))
    }

    /// Returns the peers that refused an entry for good.
    pub(super) fn refusing(&self, id: &TransactionId) -> &[PeerId] {
        self.entries.get(id).map_or(&[], super::Entry::refusing)
    }

    /// Returns how much longer the next round of an entry is, as a number of doublings.
    pub(super) fn doublings(&self, id: &TransactionId) -> u32 {
        let entry = self.entries.get(id);
        entry.map_or(0, |entry| u32::from(entry.attempts) + u32::from(entry.put_offs()))
    }

    /// Lets what was put off be offered again within `FIRST_ROUND`.
    pub(super) fn end_put_offs(&mut self, online: std::time::Duration) {
        let put_off = |entry: &&super::Entry| entry.put_offs() > 0 && entry.has_round();
        let ids: Vec<_> = self.entries.iter().filter(put_off).map(|entry| *entry.id()).collect();
        for id in ids {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.forget_refusals();
            }
            self.wait(&id, online + super::FIRST_ROUND / 5);
        }
    }
}

impl Protocol {
    /// A peer does not take these of ours.
    pub(in crate::protocol) fn on_publishes_refused(
        &mut self,
        link: LinkId,
        list: &[(TransactionId, Refusal)],
    ) {
        let Some(peer) = self.links.peer_of(link) else { return };
        let alike = self.needed_of_all();
        let (mut done, mut states) = (Vec::new(), Vec::new());
        for (id, reason) in list {
            let Some(is_news) = self.outbox.note_refused(id, peer, *reason) else { continue };
            self.env.counters.refusals_received += 1;
            let slot = self.links.slot_of(link);
            self.trail.note_refused_by(id, slot, *reason, self.env.now);
            if is_news {
                self.env.emit(Event::PublishRefused { id: *id, peer, reason: *reason });
            }
            if !is_for_good(*reason) {
                continue;
            }
            let copies = self.outbox.copies(id);
            if copies > 0 && copies >= self.copies_needed(id, alike) {
                self.outbox.finish(id);
                done.push(*id);
            } else if let Some(state) = self.bury_refused(id) {
                states.push((*id, state));
            }
        }
        self.leave_outbox(done);
        if !states.is_empty() {
            self.env.push(Output::UpdateOutbox { states });
        }
        self.arm_outbox();
        let ids: Vec<_> = list.iter().map(|(id, _)| *id).collect();
        self.note_replay_stored(link, &ids);
    }

    /// Buries as a dead letter what nobody has and every linked peer that takes its topic has refused
    /// for good.
    pub(super) fn bury_refused(&mut self, id: &TransactionId) -> Option<EntryState> {
        let refusing = self.outbox.refusing(id);
        if refusing.is_empty() || self.outbox.has_copies(id) {
            return None;
        }
        let record = self.log.find(id)?;
        let takers = self.links.up_ids().into_iter().filter(|link| {
            let up = self.links.all.get(link).and_then(|l| l.up.as_ref());
            let fits = up.is_some_and(|up| up.max_transaction >= u64::from(record.size));
            fits && self.takes(*link, record)
        });
        let mut peers = takers.filter_map(|link| self.links.peer_of(link)).peekable();
        peers.peek()?;
        if !peers.all(|peer| refusing.contains(&peer)) {
            return None;
        }
        let by_validator = matches!(
            self.outbox.entries.get(id).and_then(super::Entry::refusal),
            Some(Refusal::Rejected | Refusal::Ignored)
        );
        Some(self.bury(id, if by_validator { GivenUp::Rejected } else { GivenUp::Refused }))
    }
}
