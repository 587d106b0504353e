//! The validator's say about the node's own publishes, between the signer and the driver.
//!
//! Publishes that are judged without waiting keep their order; one that waits holds up nothing behind
//! it. Of those that are published together each is judged, and one that is not accepted refuses all.
//! What is republished was judged when it was published first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, mpsc};

use crate::node::messages::{SignedDraft, Unpublished};
use crate::ports::Validator;
use crate::types::{PeerId, Refusal, Transaction, Verdict};

use super::verifier::{MAX_VALIDATING, ask};

/// Maximum number of publishes that are handed on together.
const MAX_HANDED_ON: usize = 64;

/// Judge of own publishes.
pub(in crate::node) struct OwnValidator {
    pub(in crate::node) validator: Arc<dyn Validator>,
    /// This node: what its validator is told that own publishes come from.
    pub(in crate::node) origin: PeerId,
    /// Maximum length of the payloads that are judged; `None` is any.
    pub(in crate::node) max_len: Option<u64>,
    /// Number of transactions that were refused.
    pub(in crate::node) refused: Arc<AtomicU64>,
}

impl OwnValidator {
    /// Judges what comes out of `drafts` until it is closed or the driver is gone.
    pub(in crate::node) async fn run(
        self,
        mut drafts: mpsc::Receiver<Vec<SignedDraft>>,
        publishes: mpsc::Sender<Vec<SignedDraft>>,
    ) {
        let calls = Semaphore::new(MAX_VALIDATING);
        let drafts = stream::poll_fn(move |cx| drafts.poll_recv(cx)).flat_map(stream::iter);
        let accepted = drafts
            .map(|draft| self.judge(draft, &calls))
            // Polled first in the order of arrival, so one that is ready then keeps its place.
            .buffer_unordered(MAX_VALIDATING)
            .filter_map(async |accepted| accepted)
            .ready_chunks(MAX_HANDED_ON);
        let mut accepted = std::pin::pin!(accepted);
        while let Some(accepted) = accepted.next().await {
            if publishes.send(accepted).await.is_err() {
                return;
            }
        }
    }

    /// Returns a publish that is accepted, and answers one that is not.
    async fn judge(&self, draft: SignedDraft, calls: &Semaphore) -> Option<SignedDraft> {
        if draft.renews.is_some() {
            return Some(draft);
        }
        let is_judged =
            |t: &&Transaction| self.max_len.is_none_or(|max_len| t.header().payload_len <= max_len);
        let judged = draft.transactions.iter().filter(is_judged).cloned();
        let judged = stream::iter(judged.collect::<Vec<_>>())
            .map(|transaction| self.verdict(transaction, calls))
            .buffered(MAX_VALIDATING)
            .try_collect::<()>();
        let Err(reason) = judged.await else { return Some(draft) };
        self.refused.fetch_add(draft.transactions.len() as u64, Ordering::Relaxed);
        let _ = draft.reply.send(Err(Unpublished::NotValid(reason)));
        None
    }

    async fn verdict(&self, transaction: Transaction, calls: &Semaphore) -> Result<(), Refusal> {
        // Never closed.
        let _call = calls.acquire().await;
        match ask(&*self.validator, &transaction, &self.origin).await {
            Some(Verdict::Accept) => Ok(()),
            Some(Verdict::Reject) => Err(Refusal::Rejected),
            Some(Verdict::Ignore) | None => Err(Refusal::Ignored),
        }
    }
}
