//! Republishing of transactions that expired in the outbox before any other node had them.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::node::clock::{PublishClock, wall_now};
use crate::node::hashing::hash;
use crate::node::messages::{Completion, Draft, PublishAnswer};
use crate::node::room::Room;
use crate::ports::TransactionQueue;
use crate::protocol::{Input, RENEWALS};
use crate::types::{Header, PeerId, TransactionId};

use super::store_health::guarded;

/// Republisher of expired entries of the outbox.
pub(in crate::node) struct Republisher {
    /// Origin of what is republished: a directory may have been another identity's.
    pub(in crate::node) origin: PeerId,
    pub(in crate::node) queue: Arc<dyn TransactionQueue>,
    pub(in crate::node) clock: Arc<PublishClock>,
    pub(in crate::node) retention: Duration,
    pub(in crate::node) drafts: mpsc::Sender<Draft>,
    /// Room for payloads that are being published.
    pub(in crate::node) room: Room,
    pub(in crate::node) done: mpsc::Sender<Completion>,
}

/// Reason for which an entry was not republished.
enum Failure {
    /// The outbox does not have the entry.
    Missing,
    Later,
}

impl Republisher {
    /// Republishes entries in the order of `ids`, until the node ends.
    pub(in crate::node) async fn run(self, mut ids: mpsc::Receiver<TransactionId>) {
        let mut taken = Vec::with_capacity(RENEWALS);
        while ids.recv_many(&mut taken, RENEWALS).await > 0 {
            let mut answers = Vec::with_capacity(taken.len());
            // One after the other, also the hashing: drafts reach the signer in the order of the outbox.
            for id in taken.drain(..) {
                answers.push((id, self.draft(id).await));
            }
            let mut failed = Vec::new();
            for (id, answer) in answers {
                let is_missing = matches!(answer, Err(Failure::Missing));
                // The protocol knows of what was refused.
                let answered = match answer {
                    Ok(answer) => answer.await.is_ok(),
                    Err(_) => false,
                };
                if !answered {
                    tracing::debug!(target: "sorcha_peer::node", %id, is_missing, "not published anew");
                    failed.push(Input::NotRenewed { id, removed: is_missing });
                }
            }
            if !failed.is_empty() && self.done.send(Completion::Inputs(failed)).await.is_err() {
                return;
            }
        }
    }

    /// Hands the new transaction to the signer.
    async fn draft(&self, id: TransactionId) -> Result<oneshot::Receiver<PublishAnswer>, Failure> {
        let old = match guarded(self.queue.get(&id)).await {
            Ok(Some(entry)) => entry.transaction,
            Ok(None) => return Err(Failure::Missing),
            Err(error) => {
                tracing::error!(target: "sorcha_peer::store", %id, %error, "cannot read the outbox");
                return Err(Failure::Later);
            }
        };
        let (created, expires) = self.clock.times(wall_now(), self.retention);
        let room = self.room.take(old.payload().len()).await;
        let (topic, payload) = (old.header().topic.clone(), old.payload().clone());
        let (origin, hashed) = (self.origin, payload.clone());
        let make_header = move || Header::new(topic, origin, created, expires, &hashed);
        let header = hash(&Handle::current(), payload.len(), make_header).await;
        let header = header.ok_or(Failure::Later)?;
        let (reply, answer) = oneshot::channel();
        let (parts, trace) = (vec![(header, payload)], old.trace());
        let draft = Draft { parts, trace, renews: Some(id), reply, room };
        self.drafts.send(draft).await.map_err(|_| Failure::Later)?;
        Ok(answer)
    }
}
