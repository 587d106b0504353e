//! The index of everything retained, in the order of acceptance.
//!
//! Every link reads this log with a cursor of its own (see `gossip`), so that "what does this peer
//! still have to be told" is one number however slow the peer is.
//!
//! Invariants: an id stands in it at most once; sequence numbers are never reused; `index` finds
//! exactly the live entries; payloads in memory never exceed `cache_limit` by more than one.

use std::collections::VecDeque;

use crate::types::{Transaction, TransactionId, WallTime};

use super::ids::IdMap;
use super::rng::Rng;

/// One retained transaction.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: TransactionId,
    pub(super) size: u64,
    pub(super) hop: u16,
    /// Pushes of it so far.
    pub(super) pushes: u8,
    /// Whether this node published it.
    pub(super) own: bool,
    /// Whether our own store has it.
    pub(super) stored: bool,
    pub(super) keep_until: WallTime,
    /// Link slots whose peer is known to have it.
    pub(super) known: u64,
    /// The payload, while it is in memory.
    pub(super) cached: Option<Transaction>,
}

#[derive(Debug)]
pub(super) struct Log {
    /// Sequence number of the first slot.
    base: u64,
    /// `None` once forgotten.
    entries: VecDeque<Option<Entry>>,
    index: IdMap<u64>,
    cache: VecDeque<u64>,
    cached_bytes: u64,
    cache_limit: u64,
}

impl Log {
    pub(super) fn new(rng: &mut Rng, cache_limit: u64) -> Self {
        Self {
            base: 0,
            entries: VecDeque::new(),
            index: IdMap::new(rng),
            cache: VecDeque::new(),
            cached_bytes: 0,
            cache_limit,
        }
    }

    /// Entries retained.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The oldest sequence number that may still hold an entry.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The sequence number that the next entry will have.
    pub(super) fn head(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    pub(super) fn contains(&self, id: &TransactionId) -> bool {
        self.index.contains(id)
    }

    pub(super) fn at(&mut self, seq: u64) -> Option<&mut Entry> {
        let at = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.entries.get_mut(at)?.as_mut()
    }

    pub(super) fn find(&mut self, id: &TransactionId) -> Option<&mut Entry> {
        let seq = *self.index.get(id)?;
        self.at(seq)
    }

    /// Appends an entry; the caller has checked that its id is new.
    pub(super) fn append(&mut self, entry: Entry) -> u64 {
        let seq = self.head();
        self.index.insert(entry.id, seq);
        let cached = entry.cached.as_ref().map(|_| entry.size);
        self.entries.push_back(Some(entry));
        if let Some(size) = cached {
            self.note_cached(seq, size);
        }
        seq
    }

    /// Puts a payload that was read from the store back into memory.
    pub(super) fn cache(&mut self, transaction: &Transaction) {
        let Some(seq) = self.index.get(&transaction.id()).copied() else { return };
        let Some(entry) = self.at(seq) else { return };
        if entry.cached.is_none() {
            let size = entry.size;
            entry.cached = Some(transaction.clone());
            self.note_cached(seq, size);
        }
    }

    fn note_cached(&mut self, seq: u64, size: u64) {
        self.cache.push_back(seq);
        self.cached_bytes += size;
        while self.cached_bytes > self.cache_limit && self.cache.len() > 1 {
            let Some(oldest) = self.cache.pop_front() else { break };
            self.drop_payload(oldest);
        }
    }

    fn drop_payload(&mut self, seq: u64) {
        if let Some(entry) = self.at(seq)
            && entry.cached.take().is_some()
        {
            let size = entry.size;
            self.cached_bytes -= size;
        }
    }

    /// Forgets one entry, for instance because it could not be stored.
    pub(super) fn remove(&mut self, id: &TransactionId) -> Option<Entry> {
        let seq = *self.index.get(id)?;
        self.drop_payload(seq);
        self.index.remove(id);
        let at = usize::try_from(seq - self.base).ok()?;
        let removed = self.entries.get_mut(at)?.take();
        self.trim();
        removed
    }

    /// Forgets everything that may go at `now`; returns how many and which of them were our own.
    pub(super) fn expire(&mut self, now: WallTime) -> (u64, Vec<TransactionId>) {
        let mut gone = 0;
        let mut own = Vec::new();
        for at in 0..self.entries.len() {
            let Some(entry) = &self.entries[at] else { continue };
            if entry.keep_until > now {
                continue;
            }
            let (id, is_own) = (entry.id, entry.own);
            self.drop_payload(self.base + at as u64);
            self.index.remove(&id);
            self.entries[at] = None;
            gone += 1;
            if is_own {
                own.push(id);
            }
        }
        self.trim();
        (gone, own)
    }

    fn trim(&mut self) {
        while matches!(self.entries.front(), Some(None)) {
            self.entries.pop_front();
            self.base += 1;
        }
        let base = self.base;
        self.cache.retain(|seq| *seq >= base);
        if self.entries.capacity() > 4096 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// A link slot has a new owner: nothing is known of that peer.
    pub(super) fn clear_slot(&mut self, slot: u8) {
        let keep = !(1u64 << slot);
        for entry in self.entries.iter_mut().flatten() {
            entry.known &= keep;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8, keep_until: u64) -> Entry {
        Entry {
            id: TransactionId::from_bytes([n; 32]),
            size: 1,
            hop: 0,
            pushes: 0,
            own: n.is_multiple_of(2),
            stored: true,
            keep_until: WallTime::from_millis(keep_until),
            known: u64::MAX,
            cached: None,
        }
    }

    #[test]
    fn sequence_numbers_survive_expiry_in_any_order() {
        let mut log = Log::new(&mut Rng::new([0; 32]), 10);
        assert_eq!(log.append(entry(1, 30)), 0);
        assert_eq!(log.append(entry(2, 10)), 1);
        assert_eq!(log.append(entry(3, 20)), 2);
        assert_eq!(
            log.expire(WallTime::from_millis(10)),
            (1, vec![TransactionId::from_bytes([2; 32])])
        );
        assert_eq!((log.base(), log.head(), log.len()), (0, 3, 2));
        assert!(log.at(1).is_none() && log.at(2).is_some());
        assert_eq!(log.expire(WallTime::from_millis(30)).0, 2);
        assert_eq!((log.base(), log.head(), log.len()), (3, 3, 0));
        assert_eq!(log.append(entry(4, 40)), 3);
        assert!(log.find(&TransactionId::from_bytes([4; 32])).is_some());
        assert!(log.find(&TransactionId::from_bytes([1; 32])).is_none());
    }

    #[test]
    fn a_reused_slot_knows_nothing() {
        let mut log = Log::new(&mut Rng::new([0; 32]), 10);
        log.append(entry(1, 30));
        log.clear_slot(5);
        assert_eq!(log.at(0).unwrap().known, !(1 << 5));
    }
}
