//! Publishing anew what expired in the outbox before any other node had it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::node::clock::{PublishClock, wall_now};
use crate::node::messages::{Completion, Draft, Published};
use crate::ports::TransactionQueue;
use crate::protocol::{Input, RENEWALS};
use crate::types::{Header, PeerId, TransactionId};

use super::store_health::guarded;

/// What renewals are made with.
pub(in crate::node) struct Republisher {
    /// Whose they are from now on: a directory may have been another identity's.
    pub(in crate::node) origin: PeerId,
    pub(in crate::node) queue: Arc<dyn TransactionQueue>,
    pub(in crate::node) clock: Arc<PublishClock>,
    pub(in crate::node) retention: Duration,
    pub(in crate::node) drafts: mpsc::Sender<Draft>,
    pub(in crate::node) done: mpsc::Sender<Completion>,
}

/// Why one was not published anew.
enum Failure {
    /// The outbox does not have it.
    Gone,
    Later,
}

impl Republisher {
    /// Publishes anew what comes, in that order, until the node ends.
    pub(in crate::node) async fn run(self, mut ids: mpsc::Receiver<TransactionId>) {
        let mut taken = Vec::with_capacity(RENEWALS);
        while ids.recv_many(&mut taken, RENEWALS).await > 0 {
            let mut answers = Vec::with_capacity(taken.len());
            for id in taken.drain(..) {
                answers.push((id, self.draft(id).await));
            }
            let mut failed = Vec::new();
            for (id, answer) in answers {
                let gone = matches!(answer, Err(Failure::Gone));
                // Of what was refused the protocol knows.
                let answered = match answer {
                    Ok(answer) => answer.await.is_ok(),
                    Err(_) => false,
                };
                if !answered {
                    tracing::debug!(target: "sorcha_peer::node", %id, gone, "not published anew");
                    failed.push(Input::NotRenewed { id, gone });
                }
            }
            if !failed.is_empty() && self.done.send(Completion::Inputs(failed)).await.is_err() {
                return;
            }
        }
    }

    /// Hands the new transaction to the signer.
    async fn draft(&self, id: TransactionId) -> Result<oneshot::Receiver<Published>, Failure> {
        let old = match guarded(self.queue.get(&id)).await {
            Ok(Some(entry)) => entry.transaction,
            Ok(None) => return Err(Failure::Gone),
            Err(error) => {
                tracing::error!(target: "sorcha_peer::store", %id, %error, "cannot read the outbox");
                return Err(Failure::Later);
            }
        };
        let (created, expires) = self.clock.times(wall_now(), self.retention);
        let (topic, payload) = (old.header().topic.clone(), old.payload().clone());
        let header = Header::new(topic, self.origin, created, expires, &payload);
        let (reply, answer) = oneshot::channel();
        let draft = Draft { header, payload, renews: Some(id), reply };
        self.drafts.send(draft).await.map_err(|_| Failure::Later)?;
        Ok(answer)
    }
}
