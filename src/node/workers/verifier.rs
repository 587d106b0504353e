//! Checks of transactions off the driver: hash and signature, then the host's validator.
//!
//! Waiting transactions are checked in batches of up to 64, on blocking threads where that would
//! take long, at most one batch per core. Without a validator of the host's, results come back in
//! the order of arrival, so that what one origin published in order is accepted in order. So they do
//! from a validator that answers without waiting; one that waits holds up nothing behind it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use tokio::sync::mpsc;

use crate::node::messages::Completion;
use crate::ports::Validator;
use crate::protocol::{Input, Judgement, Ticket};
use crate::types::{InvalidTransaction, PeerId, Transaction, Verdict};

use super::known_signatures::KnownSignatures;

/// Maximum number of transactions checked in one go.
const MAX_BATCH: usize = 64;
/// Maximum number of transactions that are checked on the spot: with their payloads below 0.2 ms.
/// A burst under one signature would take no longer, but what is checked here is checked by one core:
/// from a hub to 16 peers a third fewer came through.
const MAX_INLINE_CHECKS: usize = 2;
/// Maximum number of payload bytes that are checked on the spot.
const MAX_INLINE_BYTES: usize = 64 * 1024;
/// Maximum number of validator calls under way at once.
pub(super) const MAX_VALIDATING: usize = 256;
/// Maximum time of a validator call; after it the transaction is judged again later, a few times.
const VALIDATOR_TIMEOUT: Duration = Duration::from_secs(10);

/// Transaction to be checked.
#[derive(Debug)]
pub(in crate::node) struct TransactionCheck {
    pub(in crate::node) ticket: Ticket,
    pub(in crate::node) transaction: Transaction,
    pub(in crate::node) from: PeerId,
    /// True: hash and signature were checked before, piece by piece.
    pub(in crate::node) proven: bool,
}

/// Checks what comes out of `checks` until it is closed.
pub(in crate::node) async fn run(
    mut checks: mpsc::Receiver<TransactionCheck>,
    validator: Option<Arc<dyn Validator>>,
    known: Arc<KnownSignatures>,
    require_signature: bool,
    done: mpsc::Sender<Completion>,
) {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let batches = stream::poll_fn(move |cx| {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        checks.poll_recv_many(cx, &mut batch, MAX_BATCH).map(|n| (n > 0).then_some(batch))
    });
    let checked = batches
        .map(|batch| check_all(batch, Arc::clone(&known), require_signature))
        .buffered(cores);
    let Some(validator) = validator else {
        checked
            .for_each(|results| async {
                let inputs = results.into_iter().map(|(check, result)| verdict(&check, result));
                let _ = done.send(Completion::Inputs(inputs.collect())).await;
            })
            .await;
        return;
    };
    checked
        .flat_map(stream::iter)
        .map(|(check, result)| validate(Arc::clone(&validator), check, result))
        // Calls are polled first in the order of arrival, so one that is ready then keeps its place.
        .buffer_unordered(MAX_VALIDATING)
        .for_each(|input| async {
            let _ = done.send(Completion::Inputs(vec![input])).await;
        })
        .await;
}

impl TransactionCheck {
    /// Returns the number of bytes to be hashed.
    fn bytes(&self) -> usize {
        if self.proven { 0 } else { self.transaction.payload().len() }
    }

    /// Checks hash and signature.
    fn verify(
        self,
        known: &KnownSignatures,
        require: bool,
    ) -> (Self, Option<Result<(), InvalidTransaction>>) {
        if self.proven {
            return (self, Some(Ok(())));
        }
        let origin = self.transaction.origin();
        let verify = || self.transaction.verify_with(require, |signed| known.check(origin, signed));
        let result = catch_panic(verify);
        (self, result)
    }
}

/// Result of each check; `None` where a check panicked.
type Checked = Vec<(TransactionCheck, Option<Result<(), InvalidTransaction>>)>;

/// Runs a check; `None` where it panics. Such a bug must cost nothing but the answer.
pub(super) fn catch_panic<T>(check: impl FnOnce() -> T) -> Option<T> {
    let done = std::panic::catch_unwind(AssertUnwindSafe(check));
    if done.is_err() {
        tracing::error!(target: "sorcha_peer::node", "a check panicked");
    }
    done.ok()
}

/// Checks a batch, on a blocking thread unless that is hardly worth the way.
async fn check_all(
    batch: Vec<TransactionCheck>,
    known: Arc<KnownSignatures>,
    require: bool,
) -> Checked {
    let bytes: usize = batch.iter().map(TransactionCheck::bytes).sum();
    let is_short = batch.len() <= MAX_INLINE_CHECKS && bytes <= MAX_INLINE_BYTES;
    let check_each =
        move || -> Checked { batch.into_iter().map(|c| c.verify(&known, require)).collect() };
    if is_short {
        return check_each();
    }
    // Nothing comes back only when the runtime goes down.
    tokio::task::spawn_blocking(check_each).await.unwrap_or_default()
}

fn verdict(check: &TransactionCheck, result: Option<Result<(), InvalidTransaction>>) -> Input {
    let judgement = match result {
        Some(Ok(())) => Judgement::Verdict(Verdict::Accept),
        Some(Err(reason)) => Judgement::Invalid(reason),
        None => return Input::Unchecked { ticket: check.ticket },
    };
    Input::Verified { ticket: check.ticket, judgement }
}

async fn validate(
    validator: Arc<dyn Validator>,
    check: TransactionCheck,
    result: Option<Result<(), InvalidTransaction>>,
) -> Input {
    if result != Some(Ok(())) {
        return verdict(&check, result);
    }
    let verdict = ask(&*validator, &check.transaction, &check.from).await;
    let judgement = verdict.map_or(Judgement::TimedOut, Judgement::Verdict);
    Input::Verified { ticket: check.ticket, judgement }
}

/// Asks the validator; `None` where it does not answer in time.
pub(super) async fn ask(
    validator: &dyn Validator,
    transaction: &Transaction,
    from: &PeerId,
) -> Option<Verdict> {
    let call = AssertUnwindSafe(validator.validate(transaction, from)).catch_unwind();
    let answer = tokio::time::timeout(VALIDATOR_TIMEOUT, call).await.ok()?;
    Some(answer.unwrap_or_else(|_| {
        // The host's bug must not end the checking of everything else.
        tracing::error!(target: "sorcha_peer::node", id = %transaction.id(), "the validator panicked");
        Verdict::Ignore
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::identity::Identity;
    use crate::types::{Header, Topic, WallTime};

    #[derive(Debug)]
    struct AcceptAll;

    #[async_trait::async_trait]
    impl Validator for AcceptAll {
        async fn validate(&self, _: &Transaction, _: &PeerId) -> Verdict {
            Verdict::Accept
        }
    }

    fn part(n: u8, size: usize) -> (Header, Bytes) {
        let identity = Identity::from_seed([1; 32]);
        let (created, expires) = (WallTime::from_millis(1), WallTime::from_millis(2));
        let payload = Bytes::from(vec![n; size]);
        let topic = Topic::new("t").unwrap();
        (Header::new(topic, identity.peer_id(), created, expires, &payload), payload)
    }

    fn checks(transactions: Vec<Transaction>) -> Vec<TransactionCheck> {
        let from = PeerId::from_bytes([2; 32]);
        let check = |(n, transaction)| TransactionCheck {
            ticket: Ticket(n),
            transaction,
            from,
            proven: false,
        };
        (0..).zip(transactions).map(check).collect()
    }

    /// Checks a batch; `None` where that takes another thread.
    fn check_in_place(transactions: Vec<Transaction>) -> Option<Checked> {
        check_all(checks(transactions), Arc::default(), true).now_or_never()
    }

    #[tokio::test]
    async fn only_a_short_batch_is_checked_in_place() {
        let identity = Identity::from_seed([1; 32]);
        let signed = |count: u8, size: usize| -> Vec<_> {
            let parts = (0..count).map(|n| part(n, size));
            parts.map(|(h, p)| identity.sign_transaction(h, p).unwrap()).collect()
        };
        let checked = check_in_place(signed(2, 1000)).expect("two small ones");
        assert!(checked.iter().all(|(_, result)| *result == Some(Ok(()))));
        assert!(check_in_place(signed(3, 1000)).is_none(), "many");
        assert!(check_in_place(signed(1, MAX_INLINE_BYTES + 1)).is_none(), "much to hash");
    }

    #[tokio::test]
    async fn results_come_in_the_order_of_the_batch() {
        let identity = Identity::from_seed([1; 32]);
        let transactions = (0..40).map(|n| {
            let (header, payload) = part(n, 10);
            identity.sign_transaction(header, payload).unwrap()
        });
        let checked = check_all(checks(transactions.collect()), Arc::default(), true).await;
        let tickets: Vec<_> = checked.iter().map(|(check, _)| check.ticket.0).collect();
        assert_eq!(tickets, (0..40).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_validator_that_answers_at_once_keeps_the_order_of_arrival() {
        let identity = Identity::from_seed([1; 32]);
        let transactions = (0..1000_u16).map(|n| {
            let (header, payload) = part(n.to_le_bytes()[0], usize::from(n));
            identity.sign_transaction(header, payload).unwrap()
        });
        let (jobs, job_box) = mpsc::channel(1000);
        for check in checks(transactions.collect()) {
            jobs.send(check).await.unwrap();
        }
        drop(jobs);
        let (done, mut completions) = mpsc::channel(1000);
        run(job_box, Some(Arc::new(AcceptAll)), Arc::default(), true, done).await;
        let mut tickets = Vec::new();
        while let Some(Completion::Inputs(inputs)) = completions.recv().await {
            tickets.extend(inputs.into_iter().map(|input| match input {
                Input::Verified { ticket, .. } => ticket.0,
                other => panic!("{other:?}"),
            }));
        }
        assert_eq!(tickets, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_check_that_panics_costs_its_own_answer_only() {
        let (header, payload) = part(1, 10);
        let transaction = Identity::from_seed([1; 32]).sign_transaction(header, payload).unwrap();
        let check = |n| TransactionCheck {
            ticket: Ticket(n),
            ..checks(vec![transaction.clone()]).remove(0)
        };
        let outcomes: [fn() -> Result<(), InvalidTransaction>; 3] =
            [|| Ok(()), || panic!("on purpose"), || Err(InvalidTransaction::Signature)];
        let done: Vec<_> = (0..)
            .zip(outcomes)
            .map(|(n, outcome)| format!("{:?}", verdict(&check(n), catch_panic(outcome))))
            .collect();
        assert_eq!(done.len(), 3);
        assert!(done[0].contains("Accept") && done[2].contains("Signature"), "{done:?}");
        assert_eq!(done[1], "Unchecked { ticket: Ticket(1) }");
    }
}
