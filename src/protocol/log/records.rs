//! What is kept of each retained transaction, in the order of acceptance.
//!
//! Records stand in chunks, found by their sequence number. A chunk whose records are all dead is
//! given back wherever it stands, so a few long-lived transactions do not keep the short-lived ones
//! between them in memory. 56 bytes a record.
//!
//! Tested by: `protocol::log::tests`.

use std::collections::VecDeque;

use crate::types::{Bound, TransactionId, WallTime};

use super::quota::NOBODY;

/// Number that stands for the link that an own transaction came on.
pub(in crate::protocol) const OWN: u8 = 128;
/// Number of records in one chunk: 56 KiB.
const CHUNK: usize = 1024;
const _: () = assert!(size_of::<Record>() == 56, "resident for each retained transaction");

/// Milliseconds by which a transaction may expire before its creation, by a clock that is ahead: half a
/// day, which leaves 49 days for the time after it.
const BEFORE: u32 = 43_200_000;

/// Bit of `Record::mark`, above those of the state: our own store has the transaction.
const STORED: u8 = 8;
/// Bit of `Record::mark`: a peer that is nearer to a relay has the transaction.
const STORED_UPSTREAM: u8 = 16;

/// Number that stands in place of a number of pushes: asked for long after its creation.
const BACKFILL: u8 = u8::MAX;

/// Kind of entry that a record stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum State {
    /// No transaction any more.
    Dead,
    /// A transaction that the validator did not want: neither served nor offered, but counted as
    /// held when sets are compared, so that it is not fetched again in each round.
    Refused,
    /// A transaction whose origin has all it may have: treated as `Refused` until there is room
    /// again.
    OverShare,
    /// A transaction that the store could not keep: treated as `Refused` until the next try.
    Unsaved,
    /// A retained transaction.
    Live,
}

/// Record of one transaction.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocol) struct Record {
    pub(in crate::protocol) id: TransactionId,
    pub(in crate::protocol) created: WallTime,
    /// Milliseconds from `BEFORE` ahead of creation until it may go: 30 days do not fit with a sign.
    life: u32,
    /// Payload bytes; the largest allowed is 1 GiB.
    pub(in crate::protocol) size: u32,
    /// Hops from its origin as far as one byte tells; 0 where this node published it.
    hop: u8,
    /// Origin of the transaction, by the numbers of `quota`.
    pub(in crate::protocol) origin: u16,
    /// Topic of the transaction, by the numbers of `topics`.
    pub(in crate::protocol) topic: u16,
    /// Pushes of it so far, or `BACKFILL`.
    pushes: u8,
    /// The state, `STORED` and `STORED_UPSTREAM`.
    mark: u8,
    /// Slot of the link it came on, or [`OWN`].
    pub(in crate::protocol) ingress: u8,
}

impl Record {
    pub(in crate::protocol) fn new(
        id: TransactionId,
        created: WallTime,
        keep_until: WallTime,
    ) -> Self {
        let life = u64::from(BEFORE).saturating_add(keep_until.as_millis());
        let life = life.saturating_sub(created.as_millis());
        Self {
            id,
            created,
            life: u32::try_from(life).unwrap_or(u32::MAX),
            size: 0,
            hop: 0,
            origin: NOBODY,
            topic: super::topic_table::UNKNOWN,
            pushes: 0,
            mark: State::Live as u8,
            ingress: OWN,
        }
    }

    /// Reports whether the transaction was asked for long after its creation: others are probably
    /// asking for it as well, and it is never pushed.
    pub(in crate::protocol) fn is_backfill(&self) -> bool {
        self.pushes == BACKFILL
    }

    /// Hops from its origin, at most 255.
    pub(in crate::protocol) fn hop(&self) -> u16 {
        u16::from(self.hop)
    }

    pub(in crate::protocol) fn set_hop(&mut self, hop: u16) {
        self.hop = u8::try_from(hop).unwrap_or(u8::MAX);
    }

    pub(in crate::protocol) fn state(&self) -> State {
        match self.mark & 7 {
            0 => State::Dead,
            1 => State::Refused,
            2 => State::OverShare,
            3 => State::Unsaved,
            _ => State::Live,
        }
    }

    pub(super) fn set_state(&mut self, state: State) {
        self.mark = self.mark & !7 | state as u8;
    }

    /// Reports whether our own store has the transaction.
    pub(in crate::protocol) fn is_stored(&self) -> bool {
        self.mark & STORED != 0
    }

    pub(super) fn set_stored(&mut self) {
        self.mark |= STORED;
    }

    /// Reports whether a peer that is nearer to a relay is known to have stored the transaction.
    pub(in crate::protocol) fn is_stored_upstream(&self) -> bool {
        self.mark & STORED_UPSTREAM != 0
    }

    pub(in crate::protocol) fn set_stored_upstream(&mut self) {
        self.mark |= STORED_UPSTREAM;
    }

    /// Reports whether this node published the transaction.
    pub(in crate::protocol) fn is_own(&self) -> bool {
        self.hop == 0
    }

    pub(super) fn set_backfill(&mut self) {
        self.pushes = BACKFILL;
    }

    /// Pushes of it so far.
    pub(in crate::protocol) fn pushes(&self) -> u32 {
        u32::from(self.pushes)
    }

    pub(in crate::protocol) fn note_push(&mut self) {
        self.pushes = self.pushes.saturating_add(1).min(BACKFILL - 1);
    }

    /// Returns the time when the transaction may go.
    pub(in crate::protocol) fn keep_until(&self) -> WallTime {
        let life = i64::from(self.life) - i64::from(BEFORE);
        WallTime::from_millis(self.created.as_millis().saturating_add_signed(life))
    }

    /// Returns the key in the order of reconciliation.
    pub(in crate::protocol) fn key(&self) -> Bound {
        Bound { created: self.created, id: self.id }
    }
}

#[derive(Debug, Default)]
struct Chunk {
    live: usize,
    records: Vec<Record>,
}

/// Table of all records.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Sequence number of the first record of the first chunk; a multiple of `CHUNK`.
    base: u64,
    chunks: VecDeque<Option<Chunk>>,
    head: u64,
}

impl Records {
    /// The oldest sequence number that may still hold a record.
    pub(in crate::protocol) fn base(&self) -> u64 {
        self.base
    }

    /// The sequence number that the next record will have.
    pub(in crate::protocol) fn head(&self) -> u64 {
        self.head
    }

    /// The sequence number of a 32-bit position. Retained records never span more than that.
    pub(in crate::protocol) fn seq(&self, position: u32) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "only the low half is compared")]
        let low = self.base as u32;
        self.base + u64::from(position.wrapping_sub(low))
    }

    pub(in crate::protocol) fn push(&mut self, record: Record) -> u64 {
        if self.head == self.base + (self.chunks.len() * CHUNK) as u64 {
            self.chunks.push_back(Some(Chunk::default()));
        }
        if let Some(Some(chunk)) = self.chunks.back_mut() {
            chunk.live += 1;
            chunk.records.push(record);
        }
        self.head += 1;
        self.head - 1
    }

    pub(in crate::protocol) fn at(&self, seq: u64) -> Option<&Record> {
        let at = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.chunks.get(at / CHUNK)?.as_ref()?.records.get(at % CHUNK)
    }

    pub(in crate::protocol) fn at_mut(&mut self, seq: u64) -> Option<&mut Record> {
        let at = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.chunks.get_mut(at / CHUNK)?.as_mut()?.records.get_mut(at % CHUNK)
    }

    /// Reports whether positions may soon not tell records apart: from the oldest to the newest there
    /// are about as many as have 32 bits.
    pub(super) fn is_spanned(&self) -> bool {
        self.head - self.base >= u64::from(u32::MAX) - (1 << 20)
    }

    /// The record at a position that is known to hold one.
    pub(in crate::protocol) fn record(&self, position: u32) -> Option<&Record> {
        self.at(self.seq(position))
    }

    pub(in crate::protocol) fn id(&self, position: u32) -> TransactionId {
        self.record(position).map_or(TransactionId::from_bytes([0; 32]), |r| r.id)
    }

    pub(in crate::protocol) fn key(&self, position: u32) -> Bound {
        self.record(position).map_or(Bound::MIN, Record::key)
    }

    /// A record means nothing any more.
    pub(super) fn kill(&mut self, seq: u64) {
        let Some(record) = self.at_mut(seq) else { return };
        if record.state() == State::Dead {
            return;
        }
        record.set_state(State::Dead);
        let Ok(at) = usize::try_from(seq - self.base) else { return };
        let Some(slot) = self.chunks.get_mut(at / CHUNK) else { return };
        if let Some(chunk) = slot {
            chunk.live -= 1;
            if chunk.live == 0 && chunk.records.len() == CHUNK {
                *slot = None;
            }
        }
        while matches!(self.chunks.front(), Some(None)) {
            self.chunks.pop_front();
            self.base += CHUNK as u64;
        }
        if self.chunks.capacity() > 64 && self.chunks.len() < self.chunks.capacity() / 8 {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }

    /// Bytes taken, from capacities.
    #[cfg(test)]
    pub(in crate::protocol) fn bytes(&self) -> usize {
        let records: usize = self.chunks.iter().flatten().map(|c| c.records.capacity()).sum();
        records * size_of::<Record>() + self.chunks.capacity() * size_of::<Option<Chunk>>()
    }
}
