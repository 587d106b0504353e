//! Signing of publishes, in bursts.
//!
//! Publishes wait in the order of their calls. Those that wait at a moment or are about to come, up to
//! 64, are signed together and handed on together: a burst costs one signature, and a lone publish is
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
        let (replies, parts): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|d| ((d.reply, d.renews, d.room), (d.header, d.payload))).unzip();
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
        let signed = signed.map(|(transaction, (reply, renews, room))| SignedDraft {
            transaction,
            renews,
            reply,
            room,
        });
        if publishes.send(signed.collect()).await.is_err() {
            return;
        }
    }
}

fn unsigned(parts: Vec<(Header, Bytes)>) -> Result<Vec<Transaction>, InvalidTransaction> {
    parts.into_iter().map(|(h, p)| Transaction::new(h, Signature::None, p)).collect()
}
