//! The index of everything retained, in the order of acceptance.
//!
//! Every link reads this log with a cursor of its own (see `spread`), so that "what does this peer
//! still have to be told" is one number however slow the peer is. Beside the records stand an index
//! by id, the order that reconciliation compares, and the payloads that are in memory. Who is known
//! to have what is kept only for the entries that some cursor still has to pass.
//!
//! Invariants: an id stands in it at most once; sequence numbers are never reused; `index` and
//! `order` find exactly the records that are not dead; payloads in memory never exceed `cache_limit`
//! by more than one; `recent` ends at the head.
//!
//! Resident are at most 80 bytes an entry at a million entries (a test counts them), payloads apart.
//!
//! Tested by: `protocol::log::tests`.

mod quota;
mod range_index;
mod records;
#[cfg(test)]
mod tests;
mod topic_table;

use std::collections::VecDeque;
use std::time::Duration;

use crate::protocol::id_map::{IdMap, Positions};
use crate::protocol::rng::Rng;
use crate::types::{
    Bound, Header, MonoTime, PeerId, Refusal, TopicKey, Transaction, TransactionId, WallTime,
};

use range_index::{RangeIndex, Sum};
use records::Records;
use topic_table::TopicTable;

pub(super) use quota::{Bounds, Quota};
pub(super) use quota::{Excess, cost};
pub(super) use records::{OWN, Record, State};
pub(super) use topic_table::Scope;

/// Number of bytes that a payload in memory takes beside its own: header, signature, bookkeeping.
const OVERHEAD: u64 = 384;
/// Maximum number of transactions remembered that are not kept: unwanted, over a share, not saved.
pub(super) const MAX_REFUSED: usize = 65_536;

/// A transaction to be retained.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: TransactionId,
    pub(super) origin: PeerId,
    pub(super) topic: TopicKey,
    pub(super) size: u64,
    /// Hops from its origin; 0 where this node published it.
    pub(super) hop: u16,
    /// True: our own store has the transaction.
    pub(super) stored: bool,
    /// True: asked for long after its creation.
    pub(super) is_backfill: bool,
    /// True: the transaction came from a peer that is nearer to a relay.
    pub(super) stored_upstream: bool,
    pub(super) created: WallTime,
    pub(super) keep_until: WallTime,
    /// Link slots whose peer is known to have it.
    pub(super) known: u128,
    /// Slot of the link it came on, or `OWN`.
    pub(super) ingress: u8,
    /// The payload, while it is in memory.
    pub(super) cached: Option<Transaction>,
}

/// State of an entry that some link has yet to pass.
#[derive(Debug, Clone, Copy)]
struct Recent {
    /// Link slots whose peer is known to have it.
    known: u128,
    accepted: MonoTime,
}

#[derive(Debug)]
pub(super) struct Log {
    records: Records,
    index: Positions,
    ranges: RangeIndex,
    live: usize,
    /// Number of bytes of the payloads of entries retained.
    live_bytes: u64,
    refused: usize,
    /// Number of refused entries that the store could not keep.
    unsaved: usize,
    /// Own entries that expired and were not asked for since.
    expired_own: Vec<TransactionId>,
    pub(super) quota: Quota,
    pub(super) topics: TopicTable,
    recent: VecDeque<Recent>,
    cached: IdMap<Transaction>,
    /// Sequence numbers of cached payloads, oldest first; may name what is gone.
    cache_order: VecDeque<u64>,
    cached_bytes: u64,
    cache_limit: u64,
}

impl Log {
    pub(super) fn new(rng: &mut Rng, cache_limit: u64, quota: Quota) -> Self {
        Self {
            records: Records::default(),
            index: Positions::new(rng),
            ranges: RangeIndex::default(),
            live: 0,
            live_bytes: 0,
            refused: 0,
            unsaved: 0,
            expired_own: Vec::new(),
            quota,
            topics: TopicTable::default(),
            recent: VecDeque::new(),
            cached: IdMap::new(rng),
            cache_order: VecDeque::new(),
            cached_bytes: 0,
            cache_limit,
        }
    }

    /// Returns the number of entries retained.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Returns the number of bytes of their payloads.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Reports whether nothing more can be told apart until the oldest entry goes.
    pub(super) fn is_full(&self) -> bool {
        self.records.is_spanned()
    }

    /// The oldest sequence number that may still hold an entry.
    pub(super) fn base(&self) -> u64 {
        self.records.base()
    }

    /// The sequence number that the next entry will have.
    pub(super) fn head(&self) -> u64 {
        self.records.head()
    }

    pub(super) fn contains(&self, id: &TransactionId) -> bool {
        self.seq_of(id).is_some()
    }

    /// Reports whether this one is not wanted, or not now.
    pub(super) fn is_refused(&self, id: &TransactionId) -> bool {
        let record = self.position(id).and_then(|at| self.records.record(at));
        record.is_some_and(|r| !matches!(r.state(), State::Live | State::Dead))
    }

    /// Returns the state of one that is retained or remembered.
    pub(super) fn state_of(&self, id: &TransactionId) -> Option<State> {
        self.records.record(self.position(id)?).map(Record::state)
    }

    /// Returns why an id that is remembered is not kept, as far as that concerns its origin.
    pub(super) fn refusal(&self, id: &TransactionId) -> Option<Refusal> {
        match self.position(id).and_then(|at| self.records.record(at))?.state() {
            State::Refused => Some(Refusal::Ignored),
            State::OverShare => Some(Refusal::OverShare),
            State::Unsaved | State::Live | State::Dead => None,
        }
    }

    pub(super) fn at(&self, seq: u64) -> Option<&Record> {
        self.records.at(seq).filter(|r| r.state() == State::Live)
    }

    pub(super) fn at_mut(&mut self, seq: u64) -> Option<&mut Record> {
        self.records.at_mut(seq).filter(|r| r.state() == State::Live)
    }

    pub(super) fn seq_of(&self, id: &TransactionId) -> Option<u64> {
        let seq = self.records.seq(self.position(id)?);
        self.at(seq).map(|_| seq)
    }

    pub(super) fn find(&self, id: &TransactionId) -> Option<&Record> {
        self.at(self.seq_of(id)?)
    }

    pub(super) fn find_mut(&mut self, id: &TransactionId) -> Option<&mut Record> {
        self.at_mut(self.seq_of(id)?)
    }

    /// The payload, if it is in memory.
    pub(super) fn payload(&self, id: &TransactionId) -> Option<&Transaction> {
        self.cached.get(id)
    }

    fn position(&self, id: &TransactionId) -> Option<u32> {
        self.index.find(id, |at| self.records.record(at).is_some_and(|r| r.id == *id))
    }

    /// Appends an entry, unless its id is there.
    pub(super) fn append(&mut self, entry: Entry, now: MonoTime) -> u64 {
        if let Some(at) = self.position(&entry.id) {
            if let Some(State::Live) = self.records.record(at).map(Record::state) {
                return self.records.seq(at);
            }
            // Published by the host itself, which knows better than its validator.
            self.forget(&entry.id);
        }
        let mut record = Record::new(entry.id, entry.created, entry.keep_until);
        record.size = u32::try_from(entry.size).unwrap_or(u32::MAX);
        record.set_hop(entry.hop);
        if entry.stored {
            record.set_stored();
        }
        if entry.stored_upstream {
            record.set_stored_upstream();
        }
        if entry.is_backfill {
            record.set_backfill();
        }
        record.ingress = entry.ingress;
        record.topic = self.topics.enter(entry.topic);
        record.origin = self.quota.enter(&entry.origin);
        self.quota.charge(record.origin, record.size);
        let seq = self.insert(record, Recent { known: entry.known, accepted: now });
        self.live += 1;
        self.live_bytes += u64::from(record.size);
        if let Some(transaction) = entry.cached {
            self.cache(seq, transaction);
        }
        seq
    }

    /// Remembers that the validator did not want a transaction, as far as there is room.
    pub(super) fn refuse(
        &mut self,
        id: TransactionId,
        header: &Header,
        keep_until: WallTime,
        now: MonoTime,
    ) {
        if self.refused < MAX_REFUSED && self.position(&id).is_none() {
            let mut record = Record::new(id, header.created, keep_until);
            record.set_state(State::Refused);
            record.topic = self.topics.enter(TopicKey::of(&header.topic));
            self.insert(record, Recent { known: u128::MAX, accepted: now });
            self.refused += 1;
        }
    }

    /// Remembers that a transaction's origin had all it may have, as far as there is room.
    pub(super) fn turn_away(
        &mut self,
        id: TransactionId,
        header: &Header,
        keep_until: WallTime,
        now: MonoTime,
    ) {
        if self.refused < MAX_REFUSED && self.position(&id).is_none() {
            let mut record = Record::new(id, header.created, keep_until);
            record.set_state(State::OverShare);
            record.size = u32::try_from(header.payload_len).unwrap_or(u32::MAX);
            record.topic = self.topics.enter(TopicKey::of(&header.topic));
            record.origin = self.quota.enter(&header.origin);
            self.quota.turn_away(record.origin, true);
            self.insert(record, Recent { known: u128::MAX, accepted: now });
            self.refused += 1;
        }
    }

    /// An entry could not be stored: it is not kept, and not asked for until it is let go.
    pub(super) fn note_unsaved(&mut self, id: &TransactionId) {
        if self.set_aside(id, State::Unsaved) {
            self.unsaved += 1;
        }
    }

    /// An own entry is published under another id: it is neither offered nor taken back.
    pub(super) fn withdraw(&mut self, id: &TransactionId) {
        self.set_aside(id, State::Refused);
    }

    /// Only remembers an entry from now on, or not even that where too many are; whether it does.
    fn set_aside(&mut self, id: &TransactionId, state: State) -> bool {
        if self.refused >= MAX_REFUSED {
            self.remove(id);
            return false;
        }
        let Some(record) = self.find_mut(id) else { return false };
        record.set_state(state);
        let (origin, size) = (record.origin, record.size);
        self.quota.refund(origin, size);
        self.live -= 1;
        self.live_bytes -= u64::from(size);
        self.refused += 1;
        self.drop_payload(id);
        self.trim_cache();
        true
    }

    /// Lets one be taken again that could not be stored; whether it is one.
    pub(super) fn forget_unsaved(&mut self, id: &TransactionId) -> bool {
        let record = self.position(id).and_then(|at| self.records.record(at));
        let unsaved = record.is_some_and(|r| r.state() == State::Unsaved);
        if unsaved {
            self.forget(id);
        }
        unsaved
    }

    /// Lets all be taken again that could not be stored.
    pub(super) fn forget_all_unsaved(&mut self) {
        if self.unsaved > 0 {
            self.forget_where(|_, record| record.state() == State::Unsaved);
        }
    }

    /// Lets be taken again what was turned away of origins that have room now; whether there is any.
    pub(super) fn forget_turned_away(&mut self) -> bool {
        let numbers = self.quota.with_room();
        if numbers.is_empty() {
            return false;
        }
        let has_room = |log: &Self, r: &Record| {
            let waits = r.state() == State::OverShare && numbers.binary_search(&r.origin).is_ok();
            waits && log.quota.has_room_for(r.origin, r.size)
        };
        self.forget_where(has_room) > 0
    }

    fn forget_where(&mut self, chosen: impl Fn(&Self, &Record) -> bool) -> usize {
        let seqs = self.base()..self.head();
        let records = seqs.filter_map(|seq| self.records.at(seq)).filter(|r| chosen(self, r));
        let ids: Vec<_> = records.map(|r| r.id).collect();
        for id in &ids {
            self.forget(id);
        }
        ids.len()
    }

    fn insert(&mut self, record: Record, recent: Recent) -> u64 {
        let seq = self.records.push(record);
        let position = low(seq);
        let records = &self.records;
        self.index.insert(&record.id, position, |at| records.id(at));
        self.ranges.insert(position, record.keep_until(), records);
        self.recent.push_back(recent);
        seq
    }

    /// The store has an entry of another origin. A payload that is larger than the cache was in it
    /// until now.
    /// Returns its sequence number and its size.
    pub(super) fn note_stored(&mut self, id: &TransactionId) -> Option<(u64, u64)> {
        let seq = self.seq_of(id)?;
        let record = self.at_mut(seq)?;
        record.set_stored();
        let size = u64::from(record.size);
        if size + OVERHEAD > self.cache_limit {
            self.drop_payload(id);
            self.trim_cache();
        }
        Some((seq, size))
    }

    /// Puts a payload into memory that was read from the store, unless it is larger than the cache.
    pub(super) fn cache_again(&mut self, transaction: &Transaction) {
        if transaction.header().payload_len + OVERHEAD <= self.cache_limit
            && let Some(seq) = self.seq_of(&transaction.id())
        {
            self.cache(seq, transaction.clone());
        }
    }

    /// Returns the number of bytes of payloads in memory.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    /// Puts the payload of an entry into memory.
    fn cache(&mut self, seq: u64, transaction: Transaction) {
        let bytes = transaction.header().payload_len + OVERHEAD;
        if self.cached.insert(transaction.id(), transaction).is_some() {
            return;
        }
        self.cache_order.push_back(seq);
        self.cached_bytes += bytes;
        while self.cached_bytes > self.cache_limit && self.cached.len() > 1 {
            let Some(oldest) = self.cache_order.pop_front() else { break };
            if let Some(id) = self.at(oldest).map(|r| r.id) {
                self.drop_payload(&id);
            }
        }
    }

    fn drop_payload(&mut self, id: &TransactionId) {
        if let Some(transaction) = self.cached.remove(id) {
            self.cached_bytes -= transaction.header().payload_len + OVERHEAD;
        }
    }

    /// Forgets one entry, for instance because it could not be stored.
    pub(super) fn remove(&mut self, id: &TransactionId) {
        if self.contains(id) {
            self.forget(id);
            self.trim_cache();
        }
    }

    fn forget(&mut self, id: &TransactionId) {
        let Some(position) = self.position(id) else { return };
        self.ranges.remove(position, &self.records);
        self.bury(position);
    }

    /// Takes a record that is in no order any more out of all else.
    fn bury(&mut self, position: u32) {
        let Some(record) = self.records.record(position).copied() else { return };
        self.drop_payload(&record.id);
        let records = &self.records;
        self.index.remove(&record.id, position, |at| records.id(at));
        match record.state() {
            State::Live => {
                self.live -= 1;
                self.live_bytes -= u64::from(record.size);
            }
            State::Refused | State::OverShare | State::Unsaved => self.refused -= 1,
            State::Dead => return,
        }
        match record.state() {
            State::Live => self.quota.refund(record.origin, record.size),
            State::OverShare => self.quota.turn_away(record.origin, false),
            State::Unsaved => self.unsaved -= 1,
            State::Refused | State::Dead => {}
        }
        self.quota.leave(record.origin);
        self.topics.leave(record.topic);
        self.records.kill(self.records.seq(position));
    }

    /// Forgets everything that may go at `now`; returns how many entries that were.
    pub(super) fn expire(&mut self, now: WallTime) -> u64 {
        let mut expired = 0;
        let mut seqs: Vec<u64> = Vec::new();
        for position in self.ranges.expire(now, &self.records) {
            seqs.push(self.records.seq(position));
        }
        // In the order of acceptance, for who publishes anew what was its own.
        seqs.sort_unstable();
        // Burying moves the base, against which positions are understood.
        for seq in seqs {
            if let Some(record) = self.at(seq) {
                expired += 1;
                if record.is_own() {
                    self.expired_own.push(record.id);
                }
            }
            self.bury(low(seq));
        }
        self.trim_cache();
        expired
    }

    /// Takes the own entries that have expired since they were last asked for, in the order of
    /// acceptance.
    pub(super) fn take_expired_own(&mut self) -> Vec<TransactionId> {
        std::mem::take(&mut self.expired_own)
    }

    fn trim_cache(&mut self) {
        while let Some(seq) = self.cache_order.front()
            && self.at(*seq).is_none()
        {
            self.cache_order.pop_front();
        }
        if self.cache_order.len() > 2 * self.cached.len() + 1024 {
            let records = &self.records;
            self.cache_order
                .retain(|seq| records.at(*seq).is_some_and(|r| r.state() == State::Live));
        }
    }

    /// The peer at `slot` has this.
    pub(super) fn note_known(&mut self, id: &TransactionId, slot: u8) {
        if let Some(seq) = self.seq_of(id) {
            self.note_known_at(seq, slot);
        }
    }

    /// The peer at `slot` has the entry of this number.
    pub(super) fn note_known_at(&mut self, seq: u64, slot: u8) {
        if let Some(recent) = self.recent_mut(seq) {
            recent.known |= 1 << slot;
        }
    }

    /// Reports whether the peer at `slot` is known to have an entry that it was not offered.
    pub(super) fn is_known(&self, seq: u64, slot: u8) -> bool {
        self.recent_at(seq).is_some_and(|r| r.known & 1 << slot != 0)
    }

    /// Returns for how long an entry that some link has yet to pass has been there.
    pub(super) fn age(&self, seq: u64, now: MonoTime) -> Duration {
        self.recent_at(seq).map_or(Duration::ZERO, |r| now.since(r.accepted))
    }

    fn recent_at(&self, seq: u64) -> Option<&Recent> {
        let from = self.head() - self.recent.len() as u64;
        self.recent.get(usize::try_from(seq.checked_sub(from)?).ok()?)
    }

    fn recent_mut(&mut self, seq: u64) -> Option<&mut Recent> {
        let from = self.head() - self.recent.len() as u64;
        self.recent.get_mut(usize::try_from(seq.checked_sub(from)?).ok()?)
    }

    /// Notes that all links have passed what stands before `seq`.
    pub(super) fn passed(&mut self, seq: u64) {
        let keep = usize::try_from(self.head().saturating_sub(seq)).unwrap_or(usize::MAX);
        let excess = self.recent.len().saturating_sub(keep);
        self.recent.drain(..excess);
        if self.recent.capacity() > 4096 && self.recent.len() < self.recent.capacity() / 8 {
            self.recent.shrink_to(self.recent.len() * 2);
        }
    }

    /// A link slot has a new owner: nothing is known of that peer.
    pub(super) fn clear_slot(&mut self, slot: u8) {
        let keep = !(1u128 << slot);
        for recent in &mut self.recent {
            recent.known &= keep;
        }
    }

    /// Entries that some link has yet to pass.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn recent_len(&self) -> usize {
        self.recent.len()
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn refused_len(&self) -> usize {
        self.refused
    }

    /// Number and sum of what counts as held in a range. Within a scope that is not everything it
    /// costs a look at each entry.
    pub(super) fn measure(&self, lower: Bound, upper: Bound, scope: &Scope) -> Sum {
        if scope.is_all() {
            self.ranges.measure(lower, upper, &self.records)
        } else {
            self.ranges.measure_within(lower, upper, scope, &self.records)
        }
    }

    /// Cuts a range into parts of about equal numbers.
    pub(super) fn split(
        &self,
        lower: Bound,
        upper: Bound,
        ways: u64,
        scope: &Scope,
    ) -> Vec<(Bound, Sum)> {
        if scope.is_all() {
            self.ranges.split(lower, upper, ways, &self.records)
        } else {
            self.ranges.split_within(lower, upper, ways, scope, &self.records)
        }
    }

    /// The live entries of a range, in the order of reconciliation.
    pub(super) fn range<'a>(
        &'a self,
        lower: Bound,
        upper: Bound,
        scope: &'a Scope,
    ) -> impl Iterator<Item = &'a Record> {
        let records = self.ranges.range(lower, upper, &self.records);
        let records = records.filter_map(|at| self.records.record(at));
        records.filter(|r| r.state() == State::Live && scope.takes(r.topic))
    }

    /// Bytes taken by all but payloads, from capacities.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let recent = self.recent.capacity() * size_of::<Recent>();
        let cache = self.cache_order.capacity() * size_of::<u64>();
        self.records.bytes() + self.index.bytes() + self.ranges.bytes() + recent + cache
    }
}

/// The 32-bit position of a sequence number.
fn low(seq: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "positions are understood from the base")]
    let position = seq as u32;
    position
}
