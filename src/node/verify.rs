//! Checking transactions off the driver: hash and signature, then the host's validator.
//!
//! What waits is checked in batches of up to 64, on blocking threads when it would take long, at
//! most one batch per core. Without a validator of the host's, results come back in the order of
//! arrival, so that what one origin published in order is accepted in order.
//!
//! The signature of a batch is checked once: its root is remembered, and the other transactions of
//! the batch cost hashes only.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use futures::stream;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use crate::ports::Validator;
use crate::protocol::{Input, Judgement, Ticket};
use crate::types::{InvalidTransaction, PeerId, Signed, Transaction, Verdict, verify_signed};

use super::driver::Completion;

/// Transactions checked in one go.
const BATCH: usize = 64;
/// Transactions and payload bytes that are checked on the spot: below 0.2 ms together.
const INLINE: (usize, usize) = (2, 64 * 1024);
/// Validator calls under way at once.
const VALIDATING: usize = 256;
/// Longest validator call; after it the transaction is ignored.
const PATIENCE: Duration = Duration::from_secs(10);
/// Origins whose parsed key is remembered (parsing costs a tenth of a check).
const MAX_KEYS: usize = 4096;
/// Roots of batches remembered; the transactions of one arrive within seconds of each other.
const MAX_ROOTS: usize = 4096;

/// A transaction to be checked.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) transaction: Transaction,
    pub(super) from: PeerId,
    /// Hash and signature were checked before, piece by piece.
    pub(super) proven: bool,
}

/// What was learnt from earlier checks.
#[derive(Debug, Default)]
pub(super) struct Known {
    keys: Mutex<HashMap<PeerId, VerifyingKey>>,
    roots: Mutex<Roots>,
}

impl Known {
    /// Whether `origin` signed this.
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

/// Checks what comes out of `jobs` until it is closed.
pub(super) async fn run(
    mut jobs: mpsc::Receiver<Job>,
    validator: Option<Arc<dyn Validator>>,
    known: Arc<Known>,
    require_signature: bool,
    done: mpsc::Sender<Completion>,
) {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let batches = stream::poll_fn(move |cx| {
        let mut batch = Vec::with_capacity(BATCH);
        jobs.poll_recv_many(cx, &mut batch, BATCH).map(|n| (n > 0).then_some(batch))
    });
    let checked = batches
        .map(|batch| check_all(batch, Arc::clone(&known), require_signature))
        .buffered(cores);
    let Some(validator) = validator else {
        checked
            .for_each(|results| async {
                let inputs = results.into_iter().map(|(job, result)| verdict(&job, result));
                let _ = done.send(Completion::Inputs(inputs.collect())).await;
            })
            .await;
        return;
    };
    checked
        .flat_map(stream::iter)
        .map(|(job, result)| validate(Arc::clone(&validator), job, result))
        .buffer_unordered(VALIDATING)
        .for_each(|input| async {
            let _ = done.send(Completion::Inputs(vec![input])).await;
        })
        .await;
}

/// What came of each check; `None` where it broke off.
type Checked = Vec<(Job, Option<Result<(), InvalidTransaction>>)>;

/// Runs a check. That it panics would be a bug in it, which must cost nothing but its answer.
pub(super) fn attempt<T>(check: impl FnOnce() -> T) -> Option<T> {
    let done = std::panic::catch_unwind(AssertUnwindSafe(check));
    if done.is_err() {
        tracing::error!(target: "sorcha_peer::node", "a check panicked");
    }
    done.ok()
}

async fn check_all(batch: Vec<Job>, known: Arc<Known>, require: bool) -> Checked {
    let bytes = |job: &Job| if job.proven { 0 } else { job.transaction.payload().len() };
    let bytes: usize = batch.iter().map(bytes).sum();
    let little = batch.len() <= INLINE.0 && bytes <= INLINE.1;
    let check = move || -> Checked {
        let one = |job: Job| {
            let origin = job.transaction.origin();
            let check =
                || job.transaction.verify_with(require, |signed| known.check(origin, signed));
            let result = if job.proven { Some(Ok(())) } else { attempt(check) };
            (job, result)
        };
        batch.into_iter().map(one).collect()
    };
    if little {
        return check();
    }
    // Nothing comes back only when the runtime goes down.
    tokio::task::spawn_blocking(check).await.unwrap_or_default()
}

fn verdict(job: &Job, result: Option<Result<(), InvalidTransaction>>) -> Input {
    let judgement = match result {
        Some(Ok(())) => Judgement::Verdict(Verdict::Accept),
        Some(Err(reason)) => Judgement::Invalid(reason),
        None => return Input::Unchecked { ticket: job.ticket },
    };
    Input::Verified { ticket: job.ticket, judgement }
}

async fn validate(
    validator: Arc<dyn Validator>,
    job: Job,
    result: Option<Result<(), InvalidTransaction>>,
) -> Input {
    if result != Some(Ok(())) {
        return verdict(&job, result);
    }
    let call = AssertUnwindSafe(validator.validate(&job.transaction, &job.from)).catch_unwind();
    let judgement = match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(verdict)) => Judgement::Verdict(verdict),
        Ok(Err(_)) => {
            // The host's bug must not end the checking of everything else.
            tracing::error!(target: "sorcha_peer::node", id = %job.transaction.id(), "the validator panicked");
            Judgement::Verdict(Verdict::Ignore)
        }
        Err(_) => Judgement::TimedOut,
    };
    Input::Verified { ticket: job.ticket, judgement }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::identity::Identity;
    use crate::types::{Header, Signature, Topic, WallTime};

    fn batch(identity: &Identity, count: u8) -> Vec<Transaction> {
        let part = |n| {
            let payload = Bytes::from(vec![n; 10]);
            let (created, expires) = (WallTime::from_millis(1), WallTime::from_millis(2));
            let topic = Topic::new("t").unwrap();
            (Header::new(topic, identity.peer_id(), created, expires, &payload), payload)
        };
        identity.sign_transactions((0..count).map(part).collect()).unwrap()
    }

    fn verify(known: &Known, t: &Transaction) -> Result<(), InvalidTransaction> {
        t.verify_with(true, |signed| known.check(t.origin(), signed))
    }

    #[test]
    fn a_check_that_panics_costs_its_own_answer_only() {
        let transaction = batch(&Identity::from_seed([1; 32]), 1).remove(0);
        let job = |n| Job {
            ticket: Ticket(n),
            transaction: transaction.clone(),
            from: PeerId::from_bytes([2; 32]),
            proven: false,
        };
        let checks: [fn() -> Result<(), InvalidTransaction>; 3] =
            [|| Ok(()), || panic!("on purpose"), || Err(InvalidTransaction::Signature)];
        let done: Vec<_> = (0..)
            .zip(checks)
            .map(|(n, check)| format!("{:?}", verdict(&job(n), attempt(check))))
            .collect();
        assert_eq!(done.len(), 3);
        assert!(done[0].contains("Accept") && done[2].contains("Signature"), "{done:?}");
        assert_eq!(done[1], "Unchecked { ticket: Ticket(1) }");
    }

    #[test]
    fn a_remembered_root_vouches_for_its_own_transactions_only() {
        let known = Known::default();
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
