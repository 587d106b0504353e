//! Signing of publishes, in bursts.
//!
//! Publishes wait in the order of their calls. Those that wait at a moment or are about to come, up to
//! 64 calls, are signed together, 64 transactions under one signature, and handed on
//! together: a burst costs one signature, and a lone publish is
//! signed by itself at once. The order stays the same on the way to the driver.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::config::SignaturePolicy;
use crate::identity::Identity;
use crate::node::messages::{Draft, SignedDraft};
use crate::types::{Header, InvalidTransaction, MAX_BATCH, Signature, Transaction};

use super::gather::gather;

/// Signs what comes out of `drafts` until it is closed or the driver is gone.
pub(in crate::node) async fn run(
    mut drafts: mpsc::Receiver<Draft>,
    identity: Identity,
    policy: SignaturePolicy,
    publishes: mpsc::Sender<Vec<SignedDraft>>,
) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while drafts.recv_many(&mut batch, MAX_BATCH).await > 0 {
        gather(&mut drafts, &mut batch, MAX_BATCH).await;
        // Who gave up before the signature has not published.
        batch.retain(|draft| !draft.reply.is_closed());
        let (mut replies, mut parts) = (Vec::with_capacity(batch.len()), Vec::new());
        for draft in batch.drain(..) {
            let Draft { parts: some, trace, renews, reply, room } = draft;
            replies.push((some.len(), trace, renews, reply, room));
            parts.extend(some);
        }
        let Some(transactions) = sign_all(&identity, policy, parts).await else {
            // The headers were made of these payloads and name this node.
            tracing::error!(target: "sorcha_peer::node", "a publish could not be signed");
            continue;
        };
        let mut transactions = transactions.into_iter();
        let signed = replies.into_iter().map(|(count, trace, renews, reply, room)| {
            let transactions = transactions.by_ref().take(count);
            let transactions = transactions.map(|t| t.with_trace(trace)).collect();
            SignedDraft { transactions, renews, reply, room }
        });
        if publishes.send(signed.collect()).await.is_err() {
            return;
        }
    }
}

/// Signs parts, with one signature for each 64: in place where they are no more than that, and on
/// a blocking thread otherwise. `None` where they cannot be signed.
async fn sign_all(
    identity: &Identity,
    policy: SignaturePolicy,
    parts: Vec<(Header, Bytes)>,
) -> Option<Vec<Transaction>> {
    if parts.len() <= MAX_BATCH {
        return sign(identity, policy, parts).ok();
    }
    let identity = identity.clone();
    let sign_each = move || {
        let mut signed = Vec::with_capacity(parts.len());
        let mut parts = parts.into_iter();
        loop {
            let some: Vec<_> = parts.by_ref().take(MAX_BATCH).collect();
            if some.is_empty() {
                return Some(signed);
            }
            signed.extend(sign(&identity, policy, some).ok()?);
        }
    };
    tokio::task::spawn_blocking(sign_each).await.ok()?
}

fn sign(
    identity: &Identity,
    policy: SignaturePolicy,
    parts: Vec<(Header, Bytes)>,
) -> Result<Vec<Transaction>, InvalidTransaction> {
    match policy {
        SignaturePolicy::Required => identity.sign_transactions(parts),
        SignaturePolicy::Off => unsigned(parts),
    }
}

fn unsigned(parts: Vec<(Header, Bytes)>) -> Result<Vec<Transaction>, InvalidTransaction> {
    parts.into_iter().map(|(h, p)| Transaction::new(h, Signature::None, p)).collect()
}
