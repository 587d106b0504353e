//! Which ids the outbox has, in memory.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::store::sqlite::codec;
use crate::types::TransactionId;

/// Keys and sequence numbers of all entries. A key may stand for several ids, so what is found is a
/// candidate. Nobody gains by ids that share one: each costs a look into the file.
#[derive(Debug, Default)]
pub(super) struct KnownIds {
    entries: HashTable<(u64, u64)>,
    keyed: RandomState,
}

impl KnownIds {
    pub(super) fn insert(&mut self, id: &TransactionId, seq: u64) {
        let (key, keyed) = (codec::key_of(id), &self.keyed);
        self.entries.insert_unique(keyed.hash_one(key), (key, seq), |(key, _)| keyed.hash_one(key));
    }

    /// Takes out what stands under the key of an id, as far as it is in a sorted list.
    pub(super) fn remove(&mut self, id: &TransactionId, seqs: &[u64]) {
        let (key, keyed) = (codec::key_of(id), &self.keyed);
        let is_listed =
            |(found, seq): &(u64, u64)| *found == key && seqs.binary_search(seq).is_ok();
        while let Ok(entry) = self.entries.find_entry(keyed.hash_one(key), is_listed) {
            entry.remove();
        }
        // Memory follows what is kept, also after a burst.
        if self.entries.capacity() > 1024 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2, |(key, _)| keyed.hash_one(key));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Sequence numbers under which an id may stand.
    pub(super) fn candidates(&self, id: TransactionId) -> impl Iterator<Item = u64> {
        let key = codec::key_of(&id);
        let found = self.entries.iter_hash(self.keyed.hash_one(key));
        found.filter(move |(found, _)| *found == key).map(|(_, seq)| *seq)
    }
}
