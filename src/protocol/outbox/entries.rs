//! What the outbox keeps of each entry, and which of their rounds end next.
//!
//! Entries stand in chunks without a gap: when one leaves, the last takes its slot, so memory
//! follows what is kept also after a burst. They are found by id through an index that holds their
//! slots alone. A heap of slots orders those that wait by when their round is over; each knows
//! where it stands in the heap, so that it can be moved and taken out.
//!
//! Invariants: `index` finds exactly the entries that there are; an entry is in the heap if, and
//! only if, it has a `due`; no entry in the heap is due before the one above it.
//!
//! Resident are at most 80 bytes an entry beside what peers said of it (a test counts them).
//!
//! Tested by: the tests below.

use std::time::Duration;

use crate::protocol::id_map::Positions;
use crate::protocol::restored::GivenUp;
use crate::protocol::rng::Rng;
use crate::types::{PeerId, Refusal, TransactionId, WallTime};

/// Number of entries in one chunk: 64 KiB.
const CHUNK: usize = 1024;
const _: () = assert!(size_of::<Entry>() == 64, "resident for each entry");
/// Maximum number of peers remembered that refused an entry for good: as many as there are links.
const MAX_REFUSING: usize = crate::protocol::link::MAX_SLOTS as usize;
/// Number that stands for no slot in the heap.
const NOWHERE: u32 = u32::MAX;

/// Status of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryStatus {
    Open,
    /// Expired before anybody had the transaction.
    Stale,
    Dead(GivenUp),
}

/// One entry of the outbox.
#[derive(Debug)]
pub(in crate::protocol) struct Entry {
    id: TransactionId,
    /// Time when the transaction was published.
    pub(super) created: WallTime,
    /// End of the round, in nanoseconds, while the entry is in the heap.
    due: u64,
    heap: u32,
    /// Rounds without any taker.
    pub(in crate::protocol) attempts: u8,
    /// Rounds that did not count because a peer had asked for it.
    pub(super) excused: u8,
    /// True: a peer asked for the transaction in this round.
    pub(in crate::protocol) wanted: bool,
    pub(super) status: EntryStatus,
    /// What peers said; most entries wait for the first word.
    feedback: Option<Box<Feedback>>,
}

/// What peers said of an entry.
#[derive(Debug, Default)]
struct Feedback {
    /// Peers that confirmed.
    confirmed: Vec<PeerId>,
    /// Peers that refused it for good, the latest last.
    refused: Vec<PeerId>,
    /// The latest reason of a refusal.
    reason: Option<Refusal>,
    /// True: refused for now in this round.
    is_put_off: bool,
    /// Rounds in which it was.
    put_offs: u8,
}

impl Entry {
    fn new(id: TransactionId, created: WallTime) -> Self {
        Self {
            id,
            created,
            due: 0,
            heap: NOWHERE,
            attempts: 0,
            excused: 0,
            wanted: false,
            status: EntryStatus::Open,
            feedback: None,
        }
    }

    pub(in crate::protocol) fn id(&self) -> &TransactionId {
        &self.id
    }

    /// Reports whether the entry waits for a round to be over.
    pub(super) fn has_round(&self) -> bool {
        self.heap != NOWHERE
    }

    /// Reports whether the entry is given up: waiting for no round, and not to be published anew.
    pub(in crate::protocol) fn is_dead(&self) -> bool {
        matches!(self.status, EntryStatus::Dead(_))
    }

    pub(super) fn is_stale(&self) -> bool {
        self.status == EntryStatus::Stale
    }

    /// Returns the peers that confirmed.
    pub(in crate::protocol) fn peers(&self) -> &[PeerId] {
        self.feedback.as_ref().map_or(&[], |feedback| &feedback.confirmed)
    }

    pub(super) fn into_peers(self) -> Vec<PeerId> {
        self.feedback.map(|feedback| feedback.confirmed).unwrap_or_default()
    }

    /// Returns the peers that refused it for good.
    pub(super) fn refusing(&self) -> &[PeerId] {
        self.feedback.as_ref().map_or(&[], |feedback| &feedback.refused)
    }

    /// Returns the latest reason of a refusal.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.feedback.as_ref()?.reason
    }

    /// Notes a confirmation; `false` for one that is not new.
    pub(super) fn note_confirmed(&mut self, peer: PeerId) -> bool {
        let feedback = self.feedback.get_or_insert_default();
        feedback.refused.retain(|refusing| *refusing != peer);
        let is_new = !feedback.confirmed.contains(&peer);
        if is_new {
            feedback.confirmed.push(peer);
        }
        is_new
    }

    /// Notes a refusal, for good or for now; `true` when its reason is another than the latest.
    pub(super) fn note_refused(&mut self, peer: PeerId, reason: Refusal, for_good: bool) -> bool {
        let feedback = self.feedback.get_or_insert_default();
        if !for_good {
            feedback.is_put_off = true;
        } else if !feedback.refused.contains(&peer) {
            if feedback.refused.len() >= MAX_REFUSING {
                feedback.refused.remove(0);
            }
            feedback.refused.push(peer);
        }
        feedback.reason.replace(reason) != Some(reason)
    }

    /// Ends a round; whether it does not count because a peer refused the entry for now.
    pub(super) fn take_put_off(&mut self) -> bool {
        let Some(feedback) = &mut self.feedback else { return false };
        let is_put_off = std::mem::take(&mut feedback.is_put_off);
        if is_put_off {
            feedback.put_offs = feedback.put_offs.saturating_add(1);
        }
        is_put_off
    }

    /// Returns how many rounds it was put off.
    pub(super) fn put_offs(&self) -> u8 {
        self.feedback.as_ref().map_or(0, |feedback| feedback.put_offs)
    }

    /// Forgets who refused it: it is to be offered as for the first time.
    pub(super) fn forget_refusals(&mut self) {
        if let Some(feedback) = &mut self.feedback {
            feedback.refused.clear();
            (feedback.is_put_off, feedback.put_offs, feedback.reason) = (false, 0, None);
        }
    }
}

/// Table of all entries.
#[derive(Debug)]
pub(in crate::protocol) struct Entries {
    index: Positions,
    chunks: Vec<Vec<Entry>>,
    len: usize,
    /// Places of those that wait for the end of a round; the earliest is at the top.
    heap: Vec<u32>,
}

impl Entries {
    pub(in crate::protocol) fn new(rng: &mut Rng) -> Self {
        Self { index: Positions::new(rng), chunks: Vec::new(), len: 0, heap: Vec::new() }
    }

    pub(in crate::protocol) fn len(&self) -> usize {
        self.len
    }

    /// Returns how many entries wait for the end of a round.
    pub(in crate::protocol) fn waiting(&self) -> usize {
        self.heap.len()
    }

    /// Iterates over all entries, in no order that means anything.
    pub(in crate::protocol) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flatten()
    }

    pub(in crate::protocol) fn get(&self, id: &TransactionId) -> Option<&Entry> {
        self.at(self.position(id)?)
    }

    pub(in crate::protocol) fn get_mut(&mut self, id: &TransactionId) -> Option<&mut Entry> {
        let at = self.position(id)?;
        self.at_mut(at)
    }

    /// Adds an entry, unless it is there.
    pub(in crate::protocol) fn insert(&mut self, id: TransactionId, created: WallTime) {
        let Ok(at) = u32::try_from(self.len) else { return };
        if self.position(&id).is_some() {
            return;
        }
        if self.len == self.chunks.len() * CHUNK {
            self.chunks.push(Vec::new());
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(Entry::new(id, created));
            self.len += 1;
        }
        let chunks = &self.chunks;
        self.index.insert(&id, at, |at| id_at(chunks, at));
    }

    pub(in crate::protocol) fn remove(&mut self, id: &TransactionId) -> Option<Entry> {
        let at = self.position(id)?;
        self.rest(id);
        let chunks = &self.chunks;
        self.index.remove(id, at, |at| id_at(chunks, at));
        let chunk = self.chunks.last_mut()?;
        let last = chunk.pop()?;
        if chunk.is_empty() {
            self.chunks.pop();
        }
        self.len -= 1;
        let Some(slot) = self.at_mut(at) else { return Some(last) };
        let (from, heap) = (last.id, usize::try_from(last.heap).unwrap_or(usize::MAX));
        let removed = std::mem::replace(slot, last);
        let before = u32::try_from(self.len).unwrap_or(u32::MAX);
        self.index.relocate(&from, before, at);
        if let Some(slot) = self.heap.get_mut(heap) {
            *slot = at;
        }
        Some(removed)
    }

    /// An entry waits for the end of a round.
    pub(in crate::protocol) fn wait(&mut self, id: &TransactionId, due: Duration) {
        let Some(at) = self.position(id) else { return };
        let end = self.heap.len();
        let Some(entry) = self.at_mut(at) else { return };
        entry.due = nanos(due);
        let from = usize::try_from(entry.heap).unwrap_or(usize::MAX);
        if from < end {
            self.sift(from);
        } else if let Ok(heap) = u32::try_from(end) {
            entry.heap = heap;
            self.heap.push(at);
            self.sift(end);
        }
    }

    /// An entry waits for no round any more.
    pub(in crate::protocol) fn rest(&mut self, id: &TransactionId) {
        let Some(entry) = self.get_mut(id) else { return };
        let from = usize::try_from(std::mem::replace(&mut entry.heap, NOWHERE));
        let Some(from) = from.ok().filter(|from| *from < self.heap.len()) else { return };
        self.heap.swap_remove(from);
        if from < self.heap.len() {
            self.settle(from);
            self.sift(from);
        }
        if self.heap.capacity() > 1024 && self.heap.len() < self.heap.capacity() / 8 {
            self.heap.shrink_to(self.heap.len() * 2);
        }
    }

    /// Returns the time when the next round is over.
    pub(super) fn next_due(&self) -> Option<Duration> {
        (!self.heap.is_empty()).then(|| Duration::from_nanos(self.due(0)))
    }

    /// Returns at most `limit` entries whose round is over at `now`.
    pub(super) fn over(&self, now: Duration, limit: usize) -> Vec<TransactionId> {
        let now = nanos(now);
        let is_over = |at: &usize| *at < self.heap.len() && self.due(*at) <= now;
        let mut slots: Vec<_> = Some(0).filter(is_over).into_iter().collect();
        let mut looked_at = 0;
        // Below one whose round is not over there is none.
        while looked_at < slots.len() && slots.len() < limit {
            let below = slots[looked_at] * 2 + 1;
            slots.extend([below, below + 1].into_iter().filter(is_over));
            looked_at += 1;
        }
        slots.truncate(limit);
        slots.into_iter().map(|slot| id_at(&self.chunks, self.heap[slot])).collect()
    }

    fn position(&self, id: &TransactionId) -> Option<u32> {
        self.index.find(id, |at| self.at(at).is_some_and(|entry| entry.id == *id))
    }

    fn at(&self, at: u32) -> Option<&Entry> {
        at_of(&self.chunks, at)
    }

    fn at_mut(&mut self, at: u32) -> Option<&mut Entry> {
        let at = usize::try_from(at).ok()?;
        self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)
    }

    /// Returns the time when the entry at a slot of the heap is due.
    fn due(&self, slot: usize) -> u64 {
        self.at(self.heap[slot]).map_or(u64::MAX, |entry| entry.due)
    }

    /// Moves what stands at a slot of the heap to where it belongs.
    fn sift(&mut self, mut slot: usize) {
        while slot > 0 && self.due(slot) < self.due((slot - 1) / 2) {
            self.swap(slot, (slot - 1) / 2);
            slot = (slot - 1) / 2;
        }
        loop {
            let below = [slot * 2 + 1, slot * 2 + 2].into_iter().filter(|p| *p < self.heap.len());
            let Some(first) = below.min_by_key(|slot| self.due(*slot)) else { return };
            if self.due(slot) <= self.due(first) {
                return;
            }
            self.swap(slot, first);
            slot = first;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.settle(a);
        self.settle(b);
    }

    /// Tells an entry where it stands in the heap.
    fn settle(&mut self, slot: usize) {
        if let Some(entry) = self.at_mut(self.heap[slot]) {
            entry.heap = u32::try_from(slot).unwrap_or(NOWHERE);
        }
    }

    /// Bytes taken, from capacities.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let entries: usize = self.chunks.iter().map(Vec::capacity).sum();
        let chunks = self.chunks.capacity() * size_of::<Vec<Entry>>();
        entries * size_of::<Entry>() + chunks + self.heap.capacity() * 4 + self.index.bytes()
    }
}

fn at_of(chunks: &[Vec<Entry>], at: u32) -> Option<&Entry> {
    let at = usize::try_from(at).ok()?;
    chunks.get(at / CHUNK)?.get(at % CHUNK)
}

fn id_at(chunks: &[Vec<Entry>], at: u32) -> TransactionId {
    at_of(chunks, at).map_or(TransactionId::from_bytes([0; 32]), |entry| entry.id)
}

/// Enough for five centuries of being online.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Duration, Entries, TransactionId, WallTime};
    use crate::protocol::rng::Rng;
    use crate::testing::cases::for_all;

    fn id(n: u32) -> TransactionId {
        TransactionId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    fn entries() -> Entries {
        Entries::new(&mut Rng::new([0; 32]))
    }

    #[test]
    fn an_entry_costs_at_most_eighty_bytes_also_after_a_burst() {
        let (mut entries, at) = (entries(), |n| Duration::from_nanos(u64::from(n) * 7919 % 1000));
        for n in 0..100_000 {
            entries.insert(id(n), WallTime::default());
            entries.wait(&id(n), at(n));
        }
        let each = entries.bytes() as f64 / 100_000.0;
        assert!(each <= 80.0, "{each}");
        for n in 0..99_000 {
            entries.remove(&id(n));
        }
        // The index keeps some room in each of its parts.
        let bytes = entries.bytes();
        assert!(entries.len() == 1000 && bytes < 400_000, "{bytes} of 8,000,000");
    }

    /// Against the plainest model: a map.
    #[test]
    fn entries_and_their_rounds_are_those_of_a_map() {
        for_all(24, |random| {
            let steps = random.list(1..6000, |random| {
                (random.within(0..3000), random.within(0..50), random.within::<u8>(0..5))
            });
            let (mut entries, mut model) = (entries(), BTreeMap::new());
            for (n, due, what) in steps {
                let there = model.get_mut(&id(n));
                let found = entries.get(&id(n)).map(|entry| entry.id);
                assert_eq!(found, there.is_some().then(|| id(n)));
                match (what, there) {
                    (0, _) => {
                        let removed = entries.remove(&id(n)).map(|entry| entry.id);
                        assert_eq!(removed, model.remove(&id(n)).map(|_| id(n)));
                    }
                    (1, Some(rests)) => {
                        entries.rest(&id(n));
                        *rests = None;
                    }
                    (2.., Some(waits)) => {
                        entries.wait(&id(n), Duration::from_nanos(due));
                        *waits = Some(due);
                    }
                    (1.., None) => {
                        entries.insert(id(n), WallTime::default());
                        model.insert(id(n), None);
                    }
                }
                let first = model.values().flatten().min().map(|due| Duration::from_nanos(*due));
                assert_eq!(entries.next_due(), first);
            }
            let dues =
                |below| model.iter().filter(move |(_, due)| due.is_some_and(|due| due <= below));
            for below in [0, 10, 49] {
                let over = |limit| entries.over(Duration::from_nanos(below), limit);
                let mut all = over(usize::MAX);
                all.sort_unstable();
                assert!(all.iter().eq(dues(below).map(|(id, _)| id)));
                assert_eq!(over(7).len(), all.len().min(7));
            }
            let mut all: Vec<_> = entries.iter().map(|entry| entry.id).collect();
            all.sort_unstable();
            assert!(all.iter().eq(model.keys()));
            assert_eq!((entries.len(), entries.waiting()), (model.len(), dues(u64::MAX).count()));
        });
    }
}
