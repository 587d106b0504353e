//! Checking transactions off the driver: hash and signature, then the host's validator.
//!
//! What waits is checked in batches of up to 64, on blocking threads when it would take long, at
//! most one batch per core. Without a validator of the host's, results come back in the order of
//! arrival, so that what one origin published in order is accepted in order.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use crate::node::messages::Completion;
use crate::ports::Validator;
use crate::protocol::{Input, Judgement, Ticket};
use crate::types::{InvalidTransaction, PeerId, Transaction, Verdict};

use super::known_signatures::KnownSignatures;

/// Maximum number of transactions checked in one go.
const MAX_BATCH: usize = 64;
/// Maximum number of transactions and payload bytes that are checked on the spot: below 0.2 ms together.
const MAX_INLINE: (usize, usize) = (2, 64 * 1024);
/// Maximum number of validator calls under way at once.
const MAX_VALIDATING: usize = 256;
/// Maximum time of a validator call; after it the transaction is judged again later, a few times.
const VALIDATOR_TIMEOUT: Duration = Duration::from_secs(10);
/// Transaction to be checked.
#[derive(Debug)]
pub(in crate::node) struct Job {
    pub(in crate::node) ticket: Ticket,
    pub(in crate::node) transaction: Transaction,
    pub(in crate::node) from: PeerId,
    /// Whether hash and signature were checked before, piece by piece.
    pub(in crate::node) proven: bool,
}

/// Checks what comes out of `jobs` until it is closed.
pub(in crate::node) async fn run(
    mut jobs: mpsc::Receiver<Job>,
    validator: Option<Arc<dyn Validator>>,
    known: Arc<KnownSignatures>,
    require_signature: bool,
    done: mpsc::Sender<Completion>,
) {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let batches = stream::poll_fn(move |cx| {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        jobs.poll_recv_many(cx, &mut batch, MAX_BATCH).map(|n| (n > 0).then_some(batch))
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
        .buffer_unordered(MAX_VALIDATING)
        .for_each(|input| async {
            let _ = done.send(Completion::Inputs(vec![input])).await;
        })
        .await;
}

/// Result of each check; `None` where a check panicked.
type Checked = Vec<(Job, Option<Result<(), InvalidTransaction>>)>;

/// Runs a check; `None` where it panics. Such a bug must cost nothing but the answer.
pub(super) fn catch_panic<T>(check: impl FnOnce() -> T) -> Option<T> {
    let done = std::panic::catch_unwind(AssertUnwindSafe(check));
    if done.is_err() {
        tracing::error!(target: "sorcha_peer::node", "a check panicked");
    }
    done.ok()
}

async fn check_all(batch: Vec<Job>, known: Arc<KnownSignatures>, require: bool) -> Checked {
    let bytes = |job: &Job| if job.proven { 0 } else { job.transaction.payload().len() };
    let bytes: usize = batch.iter().map(bytes).sum();
    let little = batch.len() <= MAX_INLINE.0 && bytes <= MAX_INLINE.1;
    let check = move || -> Checked {
        let one = |job: Job| {
            let origin = job.transaction.origin();
            let check =
                || job.transaction.verify_with(require, |signed| known.check(origin, signed));
            let result = if job.proven { Some(Ok(())) } else { catch_panic(check) };
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
    let judgement = match tokio::time::timeout(VALIDATOR_TIMEOUT, call).await {
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
    use crate::types::{Header, Topic, WallTime};

    fn signed() -> Transaction {
        let identity = Identity::from_seed([1; 32]);
        let (created, expires) = (WallTime::from_millis(1), WallTime::from_millis(2));
        let payload = Bytes::from_static(b"payload");
        let topic = Topic::new("t").unwrap();
        let header = Header::new(topic, identity.peer_id(), created, expires, &payload);
        identity.sign_transaction(header, payload).unwrap()
    }

    #[test]
    fn a_check_that_panics_costs_its_own_answer_only() {
        let transaction = signed();
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
            .map(|(n, check)| format!("{:?}", verdict(&job(n), catch_panic(check))))
            .collect();
        assert_eq!(done.len(), 3);
        assert!(done[0].contains("Accept") && done[2].contains("Signature"), "{done:?}");
        assert_eq!(done[1], "Unchecked { ticket: Ticket(1) }");
    }
}
