//! Checking transactions off the driver: hash and signature, then the host's validator.
//!
//! What waits is checked in batches of up to 64, on blocking threads when it would take long, at
//! most one batch per core. Without a validator of the host's, results come back in the order of
//! arrival, so that what one origin published in order is accepted in order.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use futures::stream;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use crate::ports::Validator;
use crate::protocol::{Input, Judgement, Ticket};
use crate::types::{InvalidTransaction, PeerId, Transaction, Verdict};

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

/// A transaction to be checked.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) transaction: Transaction,
    pub(super) from: PeerId,
    /// Hash and signature were checked before, piece by piece.
    pub(super) proven: bool,
}

/// Parsed keys of origins.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<HashMap<PeerId, VerifyingKey>>);

impl Keys {
    pub(super) fn get(&self, peer: PeerId) -> Option<VerifyingKey> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Checks what comes out of `jobs` until it is closed.
pub(super) async fn run(
    mut jobs: mpsc::Receiver<Job>,
    validator: Option<Arc<dyn Validator>>,
    require_signature: bool,
    done: mpsc::Sender<Completion>,
) {
    let keys = Arc::new(Keys::default());
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let batches = stream::poll_fn(move |cx| {
        let mut batch = Vec::with_capacity(BATCH);
        jobs.poll_recv_many(cx, &mut batch, BATCH).map(|n| (n > 0).then_some(batch))
    });
    let checked =
        batches.map(|batch| check_all(batch, Arc::clone(&keys), require_signature)).buffered(cores);
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

type Checked = Vec<(Job, Result<(), InvalidTransaction>)>;

async fn check_all(batch: Vec<Job>, keys: Arc<Keys>, require: bool) -> Checked {
    let bytes = |job: &Job| if job.proven { 0 } else { job.transaction.payload().len() };
    let bytes: usize = batch.iter().map(bytes).sum();
    let little = batch.len() <= INLINE.0 && bytes <= INLINE.1;
    let check = move || -> Checked {
        let one = |job: Job| {
            let check = || job.transaction.verify_with(require, |origin| keys.get(origin));
            let result = if job.proven { Ok(()) } else { check() };
            (job, result)
        };
        batch.into_iter().map(one).collect()
    };
    if little {
        return check();
    }
    // A panic in here would be a bug in the check itself; the driver sees the closed channel.
    tokio::task::spawn_blocking(check).await.unwrap_or_default()
}

fn verdict(job: &Job, result: Result<(), InvalidTransaction>) -> Input {
    let judgement = match result {
        Ok(()) => Judgement::Verdict(Verdict::Accept),
        Err(reason) => Judgement::Invalid(reason),
    };
    Input::Verified { ticket: job.ticket, judgement }
}

async fn validate(
    validator: Arc<dyn Validator>,
    job: Job,
    result: Result<(), InvalidTransaction>,
) -> Input {
    if result.is_err() {
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
