//! Partial payloads that give their room to others: from memory into the store, and back.
//!
//! ```text
//! in memory ──room is needed──► on its way ──kept──► in the store ──there is room──► coming ──► in memory
//! ```
//!
//! When something waits for room, who makes no progress goes: first what is parked, which leaves the
//! fetch table too (and does so at the latest when its time is over), then what got no piece for
//! `QUIET` or comes more slowly than a piece in `PACE`, the longest first, which queues for room
//! again: nobody keeps others waiting with payloads that trickle. A payload comes back when it is its
//! turn or somebody announces it again, also after a restart, and its fetch goes on from the pieces
//! that are there: these were checked before they went, and are checked once more when they come,
//! because disks lie. The store keeps a payload until it is complete, refused or expired, so that
//! going again costs what is new.
//!
//! Bounds: a buffer counts as memory until the store has it and from when it is asked for; at most
//! `MAX_WRITES` are on their way and `MAX_KEPT` in the store, in `gossip.max_spill_bytes`. Where the
//! store keeps no partial payloads, what is parked is dropped and the rest stays.
//!
//! Ranks in the order of reservations stay as they are: what has left memory asks nobody, and who
//! waited for its pieces is told that it is busy.
//!
//! Tested by: `sim::tests::spill`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::protocol::gate::Gate;
use crate::protocol::io::{Output, PartialOp, Ticket};
use crate::protocol::timers::Timer;
use crate::protocol::{Protocol, env::Task};
use crate::types::{
    KeptPartial, MonoTime, Partial, Piece, PieceSet, TransactionId, WallTime, piece_len,
};

use super::assembly::Assembly;

/// Time without a piece after which a payload may have to leave memory.
const QUIET: Duration = Duration::from_secs(5);
/// Time in memory that a piece earns, up to `QUIET` from then: a pace of 32 KiB a second.
const PACE: Duration = Duration::from_secs(2);
/// Maximum number of payloads on their way to the store at once.
pub(in crate::protocol) const MAX_WRITES: u64 = 16;
/// Maximum number of partial payloads in the store.
pub(in crate::protocol) const MAX_KEPT: usize = 4096;
/// Delay before a store that failed is asked again.
const TRY_AGAIN: Duration = Duration::from_mins(1);

/// Part of a payload that the store has.
#[derive(Debug)]
struct Kept {
    until: WallTime,
    /// Pieces in the store, if they are known.
    pieces: Option<PieceSet>,
    /// Number by age: the oldest has the lowest.
    number: u64,
}

/// Partial payloads, by where they are.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Spills {
    /// True: the store keeps partial payloads.
    supported: bool,
    not_before: MonoTime,
    kept: BTreeMap<TransactionId, Kept>,
    last_number: u64,
    /// Payloads on their way to the store and the bytes of their buffers.
    writes: Gate,
    leaving: Gate,
    /// Payloads in memory, by the time when they were last up to the pace.
    quiet: BTreeSet<(MonoTime, TransactionId)>,
}

impl Spills {
    /// Makes the state from what an earlier run left, oldest first; `None` where the store keeps
    /// none.
    pub(in crate::protocol) fn restored(left: Option<Vec<KeptPartial>>) -> Self {
        let mut spills = Self { supported: left.is_some(), ..Self::default() };
        let left = left.unwrap_or_default();
        for partial in &left[left.len().saturating_sub(MAX_KEPT)..] {
            spills.note_kept(partial.id, partial.keep_until, None);
        }
        spills
    }

    fn note_kept(&mut self, id: TransactionId, until: WallTime, pieces: Option<PieceSet>) {
        self.last_number += 1;
        let number = self.last_number;
        self.kept.insert(id, Kept { until, pieces, number });
    }

    /// Takes the oldest off the list when there are too many.
    fn take_excess(&mut self) -> Option<TransactionId> {
        if self.kept.len() <= MAX_KEPT {
            return None;
        }
        let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.number).map(|(id, _)| *id)?;
        self.kept.remove(&oldest);
        Some(oldest)
    }

    /// A buffer is in memory from now on.
    pub(super) fn begin(&mut self, id: TransactionId, at: MonoTime) {
        self.quiet.insert((at, id));
    }

    /// A piece came, where it was last up to the pace then.
    pub(in crate::protocol) fn progress(
        &mut self,
        id: TransactionId,
        then: &mut MonoTime,
        now: MonoTime,
    ) {
        self.quiet.remove(&(*then, id));
        *then = (*then + PACE).min(now);
        self.quiet.insert((*then, id));
    }

    /// A buffer is no longer in memory.
    pub(in crate::protocol) fn end(&mut self, id: TransactionId, then: MonoTime) {
        self.quiet.remove(&(then, id));
    }

    /// Reports whether the store has part of a payload.
    pub(super) fn has(&self, id: &TransactionId) -> bool {
        self.kept.contains_key(id)
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn sizes(&self) -> [usize; 2] {
        [usize::try_from(self.writes.level()).unwrap_or(usize::MAX), self.kept.len()]
    }
}

impl Protocol {
    fn can_spill(&self) -> bool {
        let spills = &self.assemblies.spills;
        let bytes = self.env.config.gossip.max_spill_bytes;
        spills.supported && bytes > 0 && spills.not_before <= self.env.now
    }

    /// Makes room for `size` bytes; `true` when there may be some now.
    pub(in crate::protocol) fn make_room(&mut self, size: u64) -> bool {
        if !self.can_spill() {
            let Some(parked) = self.assemblies.parked.pop_front() else { return false };
            if self.is_parked(&parked) {
                self.remove_pending(&parked);
            }
            return true;
        }
        let (spills, budget) = (&self.assemblies.spills, self.env.shares.assemblies);
        let staying = self.assemblies.bytes.level().saturating_sub(spills.leaving.level());
        let enough = staying == 0 || staying.saturating_add(size) <= budget;
        if enough || spills.writes.level() >= MAX_WRITES {
            // For what is on its way to the store.
            return false;
        }
        let Some(id) = self.next_to_leave() else { return false };
        if self.is_parked(&id) {
            self.end_parked(&id);
        } else {
            self.spill(&id);
        }
        true
    }

    /// Returns the payload that leaves memory next: one that makes no progress.
    fn next_to_leave(&mut self) -> Option<TransactionId> {
        while let Some(parked) = self.assemblies.parked.pop_front() {
            if self.is_parked(&parked) {
                return Some(parked);
            }
        }
        let (since, id) = *self.assemblies.spills.quiet.first()?;
        let due = since + QUIET;
        if due > self.env.now {
            self.env.timers.set_earlier(Timer::Room, due);
            return None;
        }
        Some(id)
    }

    /// Ends what is parked for good; the store keeps what is here of it.
    pub(super) fn end_parked(&mut self, id: &TransactionId) {
        if self.can_spill() && self.assemblies.spills.writes.level() < MAX_WRITES {
            self.spill(id);
        }
        self.remove_pending(id);
    }

    /// Moves a partial payload out of memory.
    fn spill(&mut self, id: &TransactionId) {
        self.send_all_away(id);
        self.abandon_parents(id);
        let Some(assembly) = self.take_assembly(id) else { return };
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        let size = pending.size;
        let Some(large) = &mut pending.large else { return };
        if !large.parked && !std::mem::replace(&mut large.waiting, true) {
            self.assemblies.waiting.push_back(*id);
        }
        let Some(head) = &large.head else { return };
        let until = self.env.keep_until(head.header());
        let spills = &mut self.assemblies.spills;
        let there = spills.kept.get(id).and_then(|kept| kept.pieces.as_ref());
        let mut new = assembly.have.clone();
        if let Some(there) = there {
            new.remove_all(there);
        }
        if new.is_empty() {
            return;
        }
        spills.note_kept(*id, until, Some(assembly.have.clone()));
        spills.writes.enter(1);
        spills.leaving.enter(size);
        self.assemblies.bytes.enter(size);
        self.env.counters.partials_spilled += 1;
        let which = (0..new.len()).filter(|index| new.contains(*index));
        let pieces = which.filter_map(|index| assembly.piece(*id, index)).collect();
        let ticket = self.env.ticket(Task::Spill { id: *id, size });
        let partial = Partial { id: *id, keep_until: until, pieces };
        let max_bytes = self.env.config.gossip.max_spill_bytes;
        self.env.push(Output::Partial(PartialOp::Spill { ticket, partial, max_bytes }));
        if let Some(oldest) = self.assemblies.spills.take_excess() {
            self.drop_partials(vec![oldest]);
        }
    }

    pub(in crate::protocol) fn on_spilled(&mut self, ticket: Ticket, kept: bool) {
        let Some(Task::Spill { id, size }) = self.env.tickets.remove(&ticket) else { return };
        let spills = &mut self.assemblies.spills;
        spills.writes.leave(1);
        spills.leaving.leave(size);
        self.assemblies.bytes.leave(size);
        if !kept {
            self.env.counters.storage_failures += 1;
            spills.not_before = self.env.now + TRY_AGAIN;
            // What it has is seen when it is asked for.
            if let Some(kept) = spills.kept.get_mut(&id) {
                kept.pieces = None;
            }
        }
    }

    /// Asks the store for what it has of a payload for which there is room.
    pub(super) fn bring_back(&mut self, id: &TransactionId) {
        let ticket = self.env.ticket(Task::Unspill { id: *id });
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        let Some(large) = &mut pending.large else { return };
        let Some(head) = &large.head else { return };
        let (root, len) = (head.header().payload_hash, pending.size);
        large.coming = Some(ticket);
        self.assemblies.bytes.enter(len);
        self.abandon_parents(id);
        let id = *id;
        self.env.push(Output::Partial(PartialOp::Unspill { ticket, id, root, len }));
    }

    pub(in crate::protocol) fn on_unspilled(&mut self, ticket: Ticket, pieces: Vec<Piece>) {
        let Some(Task::Unspill { id }) = self.env.tickets.remove(&ticket) else { return };
        let Some(pending) = self.intake.pending.get_mut(&id) else { return };
        let size = pending.size;
        let Some(large) = pending.large.as_mut().filter(|l| l.coming == Some(ticket)) else {
            return;
        };
        large.coming = None;
        let mut assembly = Assembly::new(size, self.env.now);
        for piece in pieces {
            let is_one = piece.index < assembly.have.len();
            if is_one && piece.bytes.len() == piece_len(size, piece.index) {
                assembly.insert(piece);
            }
        }
        self.env.counters.partials_resumed += u64::from(!assembly.have.is_empty());
        if let Some(kept) = self.assemblies.spills.kept.get_mut(&id) {
            kept.pieces = Some(assembly.have.clone());
        }
        self.assemblies.spills.begin(id, self.env.now);
        large.assembly = Some(assembly);
        self.finish_assembly(&id);
        self.drive(&id);
    }

    /// A fetch ends while the store is asked for its payload.
    pub(super) fn forget_coming(&mut self, id: &TransactionId) {
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        if pending.large.as_mut().is_some_and(|large| large.coming.take().is_some()) {
            self.assemblies.bytes.leave(pending.size);
        }
    }

    /// A payload is complete or refused: what the store has of it is no longer needed.
    pub(in crate::protocol) fn forget_partial(&mut self, id: &TransactionId) {
        if self.assemblies.spills.kept.remove(id).is_some() {
            self.drop_partials(vec![*id]);
        }
    }

    pub(in crate::protocol) fn expire_partials(&mut self) {
        let settled = self.env.settled();
        let kept = &mut self.assemblies.spills.kept;
        let expired: Vec<_> =
            kept.extract_if(.., |_, k| k.until <= settled).map(|(id, _)| id).collect();
        if !expired.is_empty() {
            self.drop_partials(expired);
        }
    }

    fn drop_partials(&mut self, ids: Vec<TransactionId>) {
        self.env.push(Output::Partial(PartialOp::Drop { ids }));
    }
}
