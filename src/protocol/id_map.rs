//! A map by transaction id that is quick, bounded in its order's meaning, and deterministic.
//!
//! Ids are BLAKE3 output, but a peer can grind its own transactions until many ids share bits, so
//! the hash is keyed with a secret of this node. Neither map offers iteration: nothing can come to
//! depend on its order.
//!
//! Tested by: `protocol::log::tests`, and the tests of `outbox::entries`.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{HashMap, HashTable};

use crate::protocol::rng::Rng;
use crate::types::TransactionId;

#[derive(Debug, Clone)]
struct Keyed([u64; 2]);

#[derive(Debug)]
struct IdHasher {
    key: [u64; 2],
    state: u64,
}

impl BuildHasher for Keyed {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { key: self.0, state: self.0[0] }
    }
}

impl IdHasher {
    /// Folded multiplication: mixes all 128 product bits into 64.
    fn mix(&mut self, word: u64) {
        let wide = u128::from(self.state ^ word) * u128::from(self.key[1] | 1);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
        let folded = wide as u64 ^ (wide >> 64) as u64;
        self.state = folded;
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_usize(&mut self, _: usize) {
        // The length prefix of an array of fixed length says nothing.
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

/// Values by transaction id.
#[derive(Debug)]
pub(super) struct IdMap<V>(HashMap<TransactionId, V, Keyed>);

impl<V> IdMap<V> {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self(HashMap::with_hasher(Keyed([rng.next_u64(), rng.next_u64()])))
    }

    pub(in crate::protocol) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, id: &TransactionId) -> Option<&V> {
        self.0.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &TransactionId) -> Option<&mut V> {
        self.0.get_mut(id)
    }

    pub(super) fn contains(&self, id: &TransactionId) -> bool {
        self.0.contains_key(id)
    }

    pub(super) fn insert(&mut self, id: TransactionId, value: V) -> Option<V> {
        self.0.insert(id, value)
    }

    pub(in crate::protocol) fn remove(&mut self, id: &TransactionId) -> Option<V> {
        let removed = self.0.remove(id);
        // Memory follows what is kept, also after a burst.
        if self.0.capacity() > 1024 && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.len() * 2);
        }
        removed
    }
}

/// Number of parts of [`Positions`]: each grows by itself, so that growing never takes twice the
/// whole.
const SHARDS: usize = 64;

/// Positions by transaction id, without the ids: those stand where the positions point. About 5
/// bytes for each of the slots, of which between 7/16 and 7/8 are in use.
#[derive(Debug)]
pub(super) struct Positions {
    keyed: Keyed,
    shards: Vec<HashTable<u32>>,
    len: usize,
}

impl Positions {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { keyed: Keyed([rng.next_u64(), rng.next_u64()]), shards: Vec::new(), len: 0 }
    }

    /// The position of `id`; `is` tells whether it stands at a position.
    pub(super) fn find(&self, id: &TransactionId, is: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = self.keyed.hash_one(id);
        self.shards.get(shard(hash))?.find(hash, |at| is(*at)).copied()
    }

    /// Adds an id that is not there; `id_at` tells which id stands at a position.
    pub(super) fn insert(
        &mut self,
        id: &TransactionId,
        at: u32,
        id_at: impl Fn(u32) -> TransactionId,
    ) {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, HashTable::new);
        }
        let hash = self.keyed.hash_one(id);
        let keyed = &self.keyed;
        self.shards[shard(hash)].insert_unique(hash, at, |at| keyed.hash_one(id_at(*at)));
        self.len += 1;
    }

    /// Takes an id out; it still stands at its position.
    pub(in crate::protocol) fn remove(
        &mut self,
        id: &TransactionId,
        at: u32,
        id_at: impl Fn(u32) -> TransactionId,
    ) {
        let hash = self.keyed.hash_one(id);
        let keyed = &self.keyed;
        let Some(table) = self.shards.get_mut(shard(hash)) else { return };
        if let Ok(entry) = table.find_entry(hash, |found| *found == at) {
            entry.remove();
            self.len -= 1;
        }
        if table.capacity() > 1024 && table.len() < table.capacity() / 8 {
            table.shrink_to(table.len() * 2, |at| keyed.hash_one(id_at(*at)));
        }
    }

    /// An id stands somewhere else from now on.
    pub(super) fn relocate(&mut self, id: &TransactionId, from: u32, to: u32) {
        let hash = self.keyed.hash_one(id);
        let Some(table) = self.shards.get_mut(shard(hash)) else { return };
        if let Some(at) = table.find_mut(hash, |at| *at == from) {
            *at = to;
        }
    }

    /// Bytes taken, from capacities.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let table = |t: &HashTable<u32>| t.allocation_size() + size_of::<HashTable<u32>>();
        self.shards.iter().map(table).sum()
    }
}

/// Returns the part for a hash, from bits that the tables themselves do not look at.
fn shard(hash: u64) -> usize {
    usize::try_from(hash >> 40).unwrap_or(0) % SHARDS
}
