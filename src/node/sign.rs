//! Signing what the host publishes, in bursts.
//!
//! Publishes wait here in the order of their calls. What waits at a moment or is about to come, up
//! to 64, is signed together and handed on together: a burst costs one signature, and a lone publish
//! is signed by itself at once. The order is kept on the way to the driver.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::config::SignaturePolicy;
use crate::identity::Identity;
use crate::protocol::PublishRefusal;
use crate::types::{Header, InvalidTransaction, MAX_BATCH, Signature, Transaction, TransactionId};

use super::lane::gather;
use super::receipt::Receipt;

/// What a publisher waits for: its receipt, and whether the transaction is new.
pub(super) type Published = Result<(Receipt, bool), Unpublished>;

/// Why there is no receipt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unpublished {
    Refused(PublishRefusal),
    /// The node ended before the store had answered.
    Unsettled,
}

impl From<PublishRefusal> for Unpublished {
    fn from(refusal: PublishRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A transaction to be signed and published.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) header: Header,
    pub(super) payload: Bytes,
    /// The entry of the outbox that it takes the place of.
    pub(super) renews: Option<TransactionId>,
    pub(super) reply: oneshot::Sender<Published>,
}

/// A transaction that is ready, and who waits for its publish.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) transaction: Transaction,
    /// The entry of the outbox that it takes the place of.
    pub(super) renews: Option<TransactionId>,
    pub(super) reply: oneshot::Sender<Published>,
}

/// Signs what comes out of `drafts` until it is closed or the driver is gone.
pub(super) async fn run(
    mut drafts: mpsc::Receiver<Draft>,
    identity: Identity,
    policy: SignaturePolicy,
    publishes: mpsc::Sender<Vec<Signed>>,
) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while drafts.recv_many(&mut batch, MAX_BATCH).await > 0 {
        gather(&mut drafts, &mut batch, MAX_BATCH).await;
        // Who gave up before the signature has not published.
        batch.retain(|draft| !draft.reply.is_closed());
        let (replies, parts): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|d| ((d.reply, d.renews), (d.header, d.payload))).unzip();
        let signed = match policy {
            SignaturePolicy::Required => identity.sign_transactions(parts),
            SignaturePolicy::Off => unsigned(parts),
        };
        let Ok(transactions) = signed else {
            // The headers were made of these payloads and name this node.
            tracing::error!(target: "sorcha_peer::node", "a publish could not be signed");
            continue;
        };
        let signed = transactions.into_iter().zip(replies);
        let signed =
            signed.map(|(transaction, (reply, renews))| Signed { transaction, renews, reply });
        if publishes.send(signed.collect()).await.is_err() {
            return;
        }
    }
}

fn unsigned(parts: Vec<(Header, Bytes)>) -> Result<Vec<Transaction>, InvalidTransaction> {
    parts.into_iter().map(|(h, p)| Transaction::new(h, Signature::None, p)).collect()
}
