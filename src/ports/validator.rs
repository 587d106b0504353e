//! The host's say about transactions.

use std::fmt;

use async_trait::async_trait;

use crate::types::{PeerId, Transaction, Verdict};

/// Judges transactions, of others after hash and signature verified, and before anything is kept,
/// delivered or forwarded.
///
/// The node's own are judged as well, signed, before `publish` takes them: one that is not accepted
/// fails with [`PublishError::NotValid`](crate::error::PublishError::NotValid), and so does one about which
/// the call does not answer within 10 s or panics. What is published anew under a new id, because it
/// had expired in the outbox, is not judged again.
///
/// Up to 256 calls run at the same time, on the node's runtime. Calls that answer without waiting end in
/// the order of arrival, all others in any order: with a validator that waits, transactions of one origin
/// may be accepted in another order than they were published in.
///
/// A call that has not answered after 10 s is dropped, and counted in `validations_timed_out`; the event
/// says `Refusal::Ignored`. The transaction is fetched and judged again after 10 s, three times in all; then
/// it is left until a peer announces it again. A call
/// that panics counts as [`Verdict::Ignore`] at once. What was ignored or rejected is remembered until it
/// expires, in memory and within bounds, and not fetched again.
///
/// Wrong ways to implement it: blocking the thread; judging by anything that differs between
/// honest nodes (a node that ignores what others accept will be offered it again).
///
/// ```
/// use async_trait::async_trait;
/// use sorcha_peer::{PeerId, Transaction, Validator, Verdict};
///
/// /// Accepts text, up to a size.
/// #[derive(Debug)]
/// struct ShortText {
///     max_bytes: usize,
/// }
///
/// #[async_trait]
/// impl Validator for ShortText {
///     async fn validate(&self, transaction: &Transaction, _from: &PeerId) -> Verdict {
///         let payload = transaction.payload();
///         let is_good = payload.len() <= self.max_bytes && std::str::from_utf8(payload).is_ok();
///         if is_good { Verdict::Accept } else { Verdict::Reject }
///     }
/// }
/// # #[cfg(feature = "node")]
/// let builder = sorcha_peer::PeerNode::builder()
///     .validator(std::sync::Arc::new(ShortText { max_bytes: 1000 }));
/// ```
#[async_trait]
pub trait Validator: fmt::Debug + Send + Sync + 'static {
    /// Says what to do with `transaction`, which came from the peer `from`; this node's own id for
    /// what it publishes itself.
    ///
    /// Cancel safe: after 10 s, and when the node shuts down, the call is dropped where it stands.
    async fn validate(&self, transaction: &Transaction, from: &PeerId) -> Verdict;

    /// Says whether transactions with a payload above `[gossip] eager_limit` (16 KiB) are
    /// validated. Asked once, when the node starts.
    ///
    /// `true`, the default, keeps such a payload here until all of it has come and was accepted: each
    /// node on its way waits for the whole before the next one gets the first byte. With `false` pieces
    /// are passed on as they come, each verified, and [`Validator::validate`] need not be asked about
    /// such a transaction.
    fn judges_large(&self) -> bool {
        true
    }
}
