//! The host's say about transactions.

use std::fmt;

use async_trait::async_trait;

use crate::types::{PeerId, Transaction, Verdict};

/// Judges every foreign transaction after its hash and signature verified and before it is kept,
/// delivered or forwarded. Called concurrently, a bounded number at once; a call that takes longer
/// than 10 s counts as [`Verdict::Ignore`].
///
/// Wrong ways to implement it: blocking the thread; judging by anything that differs between
/// honest nodes (a node that ignores what others accept will be offered it again).
#[async_trait]
pub trait Validator: fmt::Debug + Send + Sync + 'static {
    /// What to do with `transaction`, which came from the peer `from`.
    async fn validate(&self, transaction: &Transaction, from: &PeerId) -> Verdict;
}

/// Accepts everything: the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct AcceptAll;

#[async_trait]
impl Validator for AcceptAll {
    async fn validate(&self, _: &Transaction, _: &PeerId) -> Verdict {
        Verdict::Accept
    }
}
