//! Memory of earlier checks of signatures.
//!
//! The signature of a batch is checked once: its root is remembered, and the other transactions of
//! the batch cost hashes only.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ed25519_dalek::VerifyingKey;

use crate::types::{PeerId, Signed, verify_signed};

/// Maximum number of origins whose parsed key is remembered (parsing costs a tenth of a check).
const MAX_KEYS: usize = 4096;
/// Maximum number of batch roots remembered; the transactions of one batch arrive within seconds of
/// each other.
const MAX_ROOTS: usize = 4096;

/// Keys and batch roots that earlier checks have shown to be good.
#[derive(Debug, Default)]
pub(in crate::node) struct KnownSignatures {
    keys: Mutex<HashMap<PeerId, VerifyingKey>>,
    roots: Mutex<Roots>,
}

impl KnownSignatures {
    /// Returns whether `origin` made the signature.
    pub(super) fn check(&self, origin: PeerId, signed: &Signed) -> bool {
        if !signed.is_shared() {
            return self.key(origin).is_some_and(|key| verify_signed(&key, signed));
        }
        let root = Roots::name(origin, signed);
        if lock(&self.roots).contains(&root) {
            return true;
        }
        let good = self.key(origin).is_some_and(|key| verify_signed(&key, signed));
        if good {
            lock(&self.roots).insert(root);
        }
        good
    }

    fn key(&self, peer: PeerId) -> Option<VerifyingKey> {
        let mut known = lock(&self.keys);
        if let Some(key) = known.get(&peer) {
            return Some(*key);
        }
        let key = VerifyingKey::from_bytes(peer.as_bytes()).ok()?;
        if known.len() >= MAX_KEYS {
            known.clear();
        }
        known.insert(peer, key);
        Some(key)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Roots of batches whose signature is right: the newer and the older half of those remembered.
#[derive(Debug, Default)]
struct Roots {
    newer: HashSet<[u8; 32]>,
    older: HashSet<[u8; 32]>,
}

impl Roots {
    fn name(origin: PeerId, signed: &Signed) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        hash.update(origin.as_bytes());
        hash.update(&signed.signature);
        hash.update(signed.message());
        *hash.finalize().as_bytes()
    }

    fn contains(&self, root: &[u8; 32]) -> bool {
        self.newer.contains(root) || self.older.contains(root)
    }

    fn insert(&mut self, root: [u8; 32]) {
        if self.newer.len() >= MAX_ROOTS / 2 {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(root);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::identity::Identity;
    use crate::types::{Header, InvalidTransaction, Signature, Topic, Transaction, WallTime};

    fn batch(identity: &Identity, count: u8) -> Vec<Transaction> {
        let part = |n| {
            let payload = Bytes::from(vec![n; 10]);
            let (created, expires) = (WallTime::from_millis(1), WallTime::from_millis(2));
            let topic = Topic::new("t").unwrap();
            (Header::new(topic, identity.peer_id(), created, expires, &payload), payload)
        };
        identity.sign_transactions((0..count).map(part).collect()).unwrap()
    }

    fn verify(known: &KnownSignatures, t: &Transaction) -> Result<(), InvalidTransaction> {
        t.verify_with(true, |signed| known.check(t.origin(), signed))
    }

    #[test]
    fn a_remembered_root_vouches_for_its_own_transactions_only() {
        let known = KnownSignatures::default();
        let ours = batch(&Identity::from_seed([1; 32]), 5);
        for t in &ours {
            assert_eq!((verify(&known, t), t.verify(true)), (Ok(()), Ok(())));
        }
        assert_eq!(lock(&known.roots).newer.len(), 1);
        let swap = |of: &Transaction, signature: &Signature| {
            let (header, payload) = (of.header_bytes().clone(), of.payload().clone());
            Transaction::from_parts(header, signature.clone(), payload).unwrap()
        };
        let wrong = Err(InvalidTransaction::Signature);
        // Another place in the same batch, and the same place in another origin's.
        assert_eq!(verify(&known, &swap(&ours[0], ours[1].signature())), wrong);
        let theirs = batch(&Identity::from_seed([2; 32]), 5);
        assert_eq!(verify(&known, &swap(&theirs[0], ours[0].signature())), wrong);
        let mut forged = ours[0].signature().as_bytes().to_vec();
        forged[3] ^= 1;
        let forged = swap(&ours[0], &Signature::from_bytes(&forged).unwrap());
        assert_eq!((verify(&known, &forged), forged.verify(true)), (wrong, wrong));
        assert_eq!(lock(&known.roots).newer.len(), 1, "what is wrong is not remembered");
    }

    #[test]
    fn roots_are_forgotten_by_halves() {
        let mut roots = Roots::default();
        let name = |n: usize| *blake3::hash(&n.to_le_bytes()).as_bytes();
        for n in 0..MAX_ROOTS * 2 {
            roots.insert(name(n));
            assert!(roots.contains(&name(n)));
        }
        assert!(roots.newer.len() + roots.older.len() <= MAX_ROOTS);
        assert!(roots.contains(&name(MAX_ROOTS * 2 - MAX_ROOTS / 2)) && !roots.contains(&name(0)));
    }
}
