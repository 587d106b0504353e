//! Taking wants and reservations, and their ends.
//!
//! Tested by: `protocol::tests::liars`, `sim::tests::large`.

use crate::protocol::Protocol;
use crate::protocol::intake::Stage;
use crate::protocol::large::is_passed_on;
use crate::protocol::spread::Lesson;
use crate::protocol::trail::What;
use crate::types::{LinkId, PieceSet, Reservation, TransactionId, pieces_of};

use super::{Parts, Serve};

/// Maximum number of wants of one peer waiting to be served; a peer that asks for more asked for
/// too much at once.
pub(in crate::protocol) const MAX_SERVING: usize = 4096;
/// Maximum number of peers that one payload is served to at a time, whatever else is owed.
const MAX_CHILDREN: u16 = 3;
/// Number of pieces owed to all peers together up to which a payload is served to more of them: 1
/// MiB.
const ALLOWANCE: u64 = 16;
/// Maximum number of pieces of a payload to which `ALLOWANCE` applies: a larger one gets through
/// sooner when few have it first (1 MiB, 100 nodes: 95 of 100 within 1.9 s instead of 3.2 s).
const MAX_LITTLE: u32 = 4;

impl Protocol {
    pub(in crate::protocol) fn on_want(&mut self, link: LinkId, list: &[TransactionId]) {
        self.env.counters.wants_received += list.len() as u64;
        let mut useful = Vec::new();
        for id in list {
            let eager = self.env.config.gossip.eager_limit;
            let size = self.log.find(id).map(|entry| u64::from(entry.size));
            let Some(up) = self.links.up(link) else { return };
            let Some(size) = size.filter(|_| up.serve.entries.len() < MAX_SERVING) else {
                self.answer_missing(link, *id);
                continue;
            };
            let is_coming = up.budget.coming(id).any(|piece| piece.is_none());
            if is_coming || up.serve.entries.iter().take(64).any(|s| s.id == *id) {
                continue;
            }
            let mut serve = Serve::new(*id);
            if size > eager {
                // It is larger than the peer thinks: the header says so.
                serve.parts = Some(Parts::new(PieceSet::full(count_of(size)), true));
                self.serving.reserved.enter(pieces_of(size));
                self.count_child(id, true);
            } else {
                useful.push(*id);
            }
            let Some(up) = self.links.up(link) else { return };
            let slot = up.slot;
            up.serve.entries.push_back(serve);
            if let Some(seq) = self.log.seq_of(id) {
                self.trail.note(seq, What::Wanted, Some(slot), self.env.now);
            }
            self.outbox.note_wanted(id);
        }
        self.learn(link, &useful, Lesson::Useful);
        self.serve(link);
    }

    /// A peer reserves pieces, or takes that back.
    pub(in crate::protocol) fn on_reserve(&mut self, link: LinkId, r: &Reservation) {
        self.env.counters.wants_received += 1;
        if r.ranges.is_empty() {
            self.on_taken_back(link, &r.id);
            return;
        }
        self.outbox.note_wanted(&r.id);
        let stored = self.log.find(&r.id).map(|entry| u64::from(entry.size));
        if stored.is_some_and(|size| size <= self.env.config.gossip.eager_limit) {
            self.on_want(link, &[r.id]);
            return;
        }
        let Some(size) = stored.or_else(|| self.size_under_way(link, r)) else {
            self.answer_missing(link, r.id);
            return;
        };
        let wanted = PieceSet::from_ranges(count_of(size), &r.ranges);
        let Some(up) = self.links.up(link) else { return };
        if let Some(at) = up.serve.entries.iter().position(|s| s.id == r.id) {
            if let Some(parts) = up.serve.entries.get_mut(at).and_then(|s| s.parts.as_mut()) {
                self.serving.reserved.leave(u64::from(parts.wanted.count()));
                parts.wanted = wanted;
                // What is on its way need not be sent again.
                parts.wanted.remove_all(&parts.sent);
                parts.head |= r.head;
                self.serving.reserved.enter(u64::from(parts.wanted.count()));
                if parts.wanted.is_empty() && !parts.head {
                    self.end_serving(link, at);
                    return;
                }
            }
        } else if r.narrow {
            // It is on its way already.
            return;
        } else {
            let mut parts = Parts::new(wanted, r.head);
            for index in up.budget.coming(&r.id).flatten() {
                parts.wanted.remove(index);
                parts.sent.insert(index);
            }
            let wanted = &parts.wanted;
            if wanted.is_empty() && !r.head {
                // It was taken back and asked for again while all of it is under way.
                return;
            }
            let children = self.serving.children.get(&r.id).copied().unwrap_or(0);
            let little = wanted.len() <= MAX_LITTLE
                && self.serving.reserved.level() + u64::from(wanted.count()) <= ALLOWANCE;
            let full = up.serve.entries.len() >= MAX_SERVING;
            if full || children >= MAX_CHILDREN && !little && !r.force {
                self.answer_busy(link, r.id);
                return;
            }
            let mut serve = Serve::new(r.id);
            self.serving.reserved.enter(u64::from(wanted.count()));
            serve.parts = Some(parts);
            let slot = up.slot;
            up.serve.entries.push_back(serve);
            if let Some(seq) = self.log.seq_of(&r.id) {
                self.trail.note(seq, What::Wanted, Some(slot), self.env.now);
            }
            self.count_child(&r.id, true);
            if let Some(large) = self.intake.pending.get_mut(&r.id).and_then(|p| p.large.as_mut()) {
                large.children.retain(|(child, _)| *child != link);
                large.children.push((link, r.place));
            }
        }
        self.serve(link);
    }

    /// Size of a payload on its way here, if the peer may wait for it: its rank is above ours.
    fn size_under_way(&mut self, link: LinkId, r: &Reservation) -> Option<u64> {
        let pending = self.intake.pending.get(&r.id)?;
        let large = pending.large.as_ref()?;
        let theirs = (r.place, self.links.peer_of(link)?);
        let downstream = (large.rank, self.env.me) < theirs;
        let ready =
            pending.stage == Stage::Heard && is_passed_on(pending) && self.env.relays_ahead();
        (ready && downstream).then_some(pending.size)
    }

    fn on_taken_back(&mut self, link: LinkId, id: &TransactionId) {
        let Some(up) = self.links.up(link) else { return };
        let Some(at) = up.serve.entries.iter().position(|s| s.id == *id && s.parts.is_some())
        else {
            return;
        };
        let Some(serve) = up.serve.entries.remove(at) else { return };
        self.note_served_out(link, &serve);
        if serve.parts.is_some_and(|parts| parts.sent.is_empty()) {
            // We said that we have it and did not come to send it.
            self.answer_busy(link, *id);
        }
    }

    /// Sends away who waits for an id and no longer has a rank above ours.
    pub(in crate::protocol) fn send_away(&mut self, id: &TransactionId, rank: u32) {
        let Some(large) = self.intake.pending.get(id).and_then(|p| p.large.as_ref()) else {
            return;
        };
        let before = |(link, theirs): &&(LinkId, u32)| {
            self.links.peer_of(*link).is_none_or(|peer| (*theirs, peer) <= (rank, self.env.me))
        };
        let away = large.children.iter().filter(before).map(|(l, _)| *l).collect();
        self.turn_out(id, away);
    }

    /// Sends everybody away who waits for an id.
    pub(in crate::protocol) fn send_all_away(&mut self, id: &TransactionId) {
        let Some(large) = self.intake.pending.get(id).and_then(|p| p.large.as_ref()) else {
            return;
        };
        let all = large.children.iter().map(|(link, _)| *link).collect();
        self.turn_out(id, all);
    }

    fn turn_out(&mut self, id: &TransactionId, away: Vec<LinkId>) {
        for link in away {
            let Some(up) = self.links.up(link) else { continue };
            let Some(at) = up.serve.entries.iter().position(|s| s.id == *id) else { continue };
            self.end_serving(link, at);
            self.answer_busy(link, *id);
        }
    }

    pub(super) fn answer_missing(&mut self, link: LinkId, id: TransactionId) {
        self.env.counters.wants_missed += 1;
        if let Some(batch) = self.links.batch(link) {
            batch.missing.push(id);
        }
    }

    fn answer_busy(&mut self, link: LinkId, id: TransactionId) {
        self.env.counters.wants_refused += 1;
        if let Some(batch) = self.links.batch(link) {
            batch.busy.push(id);
        }
    }

    fn count_child(&mut self, id: &TransactionId, more: bool) {
        let count = self.serving.children.get(id).copied().unwrap_or(0);
        if more {
            self.serving.children.insert(*id, count.saturating_add(1));
        } else if count <= 1 {
            self.serving.children.remove(id);
        } else {
            self.serving.children.insert(*id, count - 1);
        }
    }

    /// A peer is no longer served something.
    pub(in crate::protocol) fn note_served_out(&mut self, link: LinkId, serve: &Serve) {
        if let Some(claim) = serve.claim {
            self.serving.held.release(&serve.id, claim);
        }
        let Some(parts) = &serve.parts else { return };
        self.serving.reserved.leave(u64::from(parts.wanted.count()));
        self.count_child(&serve.id, false);
        if let Some(large) = self.intake.pending.get_mut(&serve.id).and_then(|p| p.large.as_mut()) {
            large.children.retain(|(child, _)| *child != link);
        }
    }

    pub(super) fn end_serving(&mut self, link: LinkId, at: usize) -> Option<TransactionId> {
        let serve = self.links.up(link)?.serve.entries.remove(at)?;
        self.note_served_out(link, &serve);
        Some(serve.id)
    }
}

fn count_of(size: u64) -> u32 {
    u32::try_from(pieces_of(size)).unwrap_or(u32::MAX)
}
