//! Proofs for peers that ask, the newest in place of the oldest.
//!
//! Tested by: `sim::tests::large`.

use std::collections::{BTreeMap, VecDeque};

use crate::types::{Proofs, TransactionId};

/// Proofs of payloads that peers may ask for.
#[derive(Debug, Default)]
pub(in crate::protocol) struct ProofCache {
    kept: BTreeMap<TransactionId, Proofs>,
    order: VecDeque<TransactionId>,
    bytes: usize,
}

/// Maximum bytes of proofs that are kept: those of 4 GiB of payloads in pieces of 10 MiB.
pub(in crate::protocol) const MAX_PROOF_CACHE: usize = 32 << 20;

impl ProofCache {
    pub(in crate::protocol) fn get(&self, id: &TransactionId) -> Option<Proofs> {
        self.kept.get(id).cloned()
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::protocol) fn put(&mut self, id: TransactionId, proofs: Proofs) {
        if proofs.pieces() < 2 || self.kept.contains_key(&id) {
            return;
        }
        self.bytes += proofs.bytes();
        self.kept.insert(id, proofs);
        self.order.push_back(id);
        while self.bytes > MAX_PROOF_CACHE
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.kept.remove(&oldest).map_or(0, |proofs| proofs.bytes());
        }
    }
}
