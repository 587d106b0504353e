//! A map by transaction id that is quick, bounded in its order's meaning, and deterministic.
//!
//! Ids are BLAKE3 output, but a peer can grind its own transactions until many ids share bits, so
//! the hash is keyed with a secret of this node. The map offers no iteration: nothing can come to
//! depend on its order.

use std::hash::{BuildHasher, Hasher};

use hashbrown::HashMap;

use crate::types::TransactionId;

use super::rng::Rng;

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

    pub(super) fn len(&self) -> usize {
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

    pub(super) fn remove(&mut self, id: &TransactionId) -> Option<V> {
        let removed = self.0.remove(id);
        // Memory follows what is kept, also after a burst.
        if self.0.capacity() > 1024 && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.len() * 2);
        }
        removed
    }
}
