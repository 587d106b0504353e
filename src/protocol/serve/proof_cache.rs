//! Proofs for peers that ask, the newest in place of the oldest.
//!
//! Tested by: `sim::tests::large`.

use std::collections::{BTreeMap, VecDeque};

use crate::types::{Proofs, TransactionId};

/// Proofs of payloads that peers may ask for.
#[derive(Debug)]
pub(in crate::protocol) struct ProofCache {
    kept: BTreeMap<TransactionId, Proofs>,
    order: VecDeque<TransactionId>,
    bytes: u64,
    /// Maximum of `bytes`: 4 MiB are the proofs of 64 payloads of 10 MiB.
    most: u64,
}

impl ProofCache {
    pub(super) fn new(most: u64) -> Self {
        Self { kept: BTreeMap::new(), order: VecDeque::new(), bytes: 0, most }
    }

    pub(in crate::protocol) fn get(&self, id: &TransactionId) -> Option<Proofs> {
        self.kept.get(id).cloned()
    }

    pub(in crate::protocol) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(in crate::protocol) fn put(&mut self, id: TransactionId, proofs: Proofs) {
        if proofs.pieces() < 2 || self.kept.contains_key(&id) {
            return;
        }
        self.bytes += proofs.bytes() as u64;
        self.kept.insert(id, proofs);
        self.order.push_back(id);
        while self.bytes > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            let gone = self.kept.remove(&oldest).map_or(0, |proofs| proofs.bytes() as u64);
            self.bytes = self.bytes.saturating_sub(gone);
        }
    }
}
