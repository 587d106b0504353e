//! Publishing, once or repeatably.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::config::SignaturePolicy;
use crate::error::{PublishError, StoreError};
use crate::node::clock::wall_now;
use crate::node::hashing::hash;
use crate::node::messages::{Draft, Published, SignedDraft, Unpublished};
use crate::protocol::PublishRefusal;
use crate::types::{Header, InvalidTransaction, Signature, Topic, Transaction};

use super::peer_node::PeerNode;
use super::receipt::{Outcome, Receipt};

impl PeerNode {
    /// Publishes a payload under a topic, a name of at most 255 bytes; the payload may have up to
    /// `gossip.max_transaction_size` bytes (10 MiB by default), or none. `Ok` means that the node's outbox and
    /// log have it; it is delivered to this node's own subscribers too, and to every other node sooner or
    /// later. Works offline.
    ///
    /// Publishing takes as long as the store takes to make the transaction durable; publishes that
    /// run at the same time share that, so have many under way rather than one after the other
    /// where they are many.
    ///
    /// Two publishes of the same bytes are two transactions. A payload above 256 KiB is hashed on
    /// another thread, so of publishes that run at the same time a small one may come before an
    /// earlier large one; publishes that are awaited one after the other keep their order. Not
    /// cancel safe in one respect: a future dropped before it is ready may or may not have
    /// published.
    ///
    /// # Errors
    /// [`PublishError`]; nothing was stored or sent, except where it is
    /// [`PublishError::Unsettled`].
    pub async fn publish(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Receipt, PublishError> {
        let payload = payload.into();
        let make_header = self.header(topic, &payload)?;
        let hashed = hash(&self.0.runtime, payload.len(), make_header).await;
        let mut header = hashed.ok_or(PublishError::Closed)?;
        loop {
            let (reply, answer) = oneshot::channel();
            let (payload, renews) = (payload.clone(), None);
            let draft = Draft { header: header.clone(), payload, renews, reply };
            self.0.drafts.send(draft).await.map_err(|_| PublishError::Closed)?;
            match answer.await.map_err(|_| PublishError::Closed)? {
                Ok(Published { id, is_new: true, status }) => {
                    let receipt = Receipt::new(id, Outcome::Published, status);
                    return Ok(receipt.dated_off(self.clock_offset_ms()));
                }
                // An earlier process of this identity published the same bytes at the same time.
                Ok(Published { is_new: false, .. }) => {
                    header.expires = header.expires.plus(Duration::from_millis(1));
                }
                Err(unpublished) => return Err(publish_error(unpublished)),
            }
        }
    }

    /// Makes and signs a transaction without publishing it. A host that keeps it, as
    /// [`Transaction::to_bytes`], until [`PeerNode::publish_prepared`] has answered may publish it again after
    /// a crash, without publishing the same thing twice. It lives for `gossip.retention` from now on.
    ///
    /// Hashes the payload on the calling thread, at 2 to 11 GB a second: call it on a blocking thread
    /// where payloads are large.
    ///
    /// ```
    /// use sorcha_peer::{Outcome, PeerNode, Transaction};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = PeerNode::builder().listen("127.0.0.1:0").start().await?;
    /// let transaction = node.prepare("orders", "one widget")?;
    /// let kept = transaction.to_bytes(); // … write them down beside the order, then:
    /// let receipt = node.publish_prepared(transaction).await?;
    /// assert_eq!(receipt.outcome(), Outcome::Published);
    ///
    /// // After a crash:
    /// let again = node.publish_prepared(Transaction::from_bytes(kept)?).await?;
    /// assert_eq!(again.outcome(), Outcome::AlreadyPublished);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], [`PublishError::Topic`].
    pub fn prepare(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Transaction, PublishError> {
        let payload = payload.into();
        let header = self.header(topic, &payload)?();
        match self.0.config.network.signatures {
            SignaturePolicy::Required => self.0.identity.sign_transaction(header, payload),
            SignaturePolicy::Off => Transaction::new(header, Signature::None, payload),
        }
        .map_err(PublishError::Invalid)
    }

    /// Publishes what [`PeerNode::prepare`] made, as [`PeerNode::publish`] does. As often as it is
    /// called while the transaction lives, it is published once:
    /// [`Receipt::outcome`] tells whether by this call. Not cancel safe in the same respect.
    ///
    /// # Errors
    /// Those of [`PeerNode::publish`]; [`PublishError::Invalid`] for what is not of
    /// this node, [`PublishError::Expired`].
    pub async fn publish_prepared(
        &self,
        transaction: Transaction,
    ) -> Result<Receipt, PublishError> {
        self.check_prepared(&transaction).await?;
        let (reply, answer) = oneshot::channel();
        let signed = SignedDraft { transaction, renews: None, reply };
        self.0.publishes.send(vec![signed]).await.map_err(|_| PublishError::Closed)?;
        match answer.await.map_err(|_| PublishError::Closed)? {
            Ok(Published { id, is_new, status }) => {
                let outcome = if is_new { Outcome::Published } else { Outcome::AlreadyPublished };
                Ok(Receipt::new(id, outcome, status))
            }
            Err(unpublished) => Err(publish_error(unpublished)),
        }
    }

    async fn check_prepared(&self, transaction: &Transaction) -> Result<(), PublishError> {
        let config = &self.0.config;
        let header = transaction.header();
        if header.origin != self.peer_id() {
            return Err(PublishError::Invalid(InvalidTransaction::Signature));
        }
        let required = config.network.signatures == SignaturePolicy::Required;
        let checked = transaction.clone();
        let check = move || checked.verify(required);
        let valid = hash(&self.0.runtime, transaction.payload().len(), check).await;
        valid.ok_or(PublishError::Closed)?.map_err(PublishError::Invalid)?;
        let now = self.0.clock.now();
        let end = header.expires.min(header.created.plus(config.gossip.retention));
        if end <= now || header.created > now.plus(config.network.max_clock_skew) {
            return Err(PublishError::Expired { expires: end });
        }
        Ok(())
    }

    /// Checks what a new transaction is to be made of, and returns what makes its header: that hashes
    /// the payload.
    fn header(
        &self,
        topic: &str,
        payload: &Bytes,
    ) -> Result<impl FnOnce() -> Header + Send + use<>, PublishError> {
        let topic = Topic::new(topic)?;
        let (size, limit) = (payload.len() as u64, self.0.config.gossip.max_transaction_size);
        if size > limit {
            return Err(PublishError::TooLarge { size, limit });
        }
        let retention = self.0.config.gossip.retention;
        let (created, expires) = self.0.clock.times(wall_now(), retention);
        let (origin, payload) = (self.peer_id(), payload.clone());
        Ok(move || Header::new(topic, origin, created, expires, &payload))
    }
}

fn publish_error(unpublished: Unpublished) -> PublishError {
    let Unpublished::Refused(refusal) = unpublished else { return PublishError::Unsettled };
    match refusal {
        PublishRefusal::TooLarge { size, limit } => PublishError::TooLarge { size, limit },
        PublishRefusal::QueueFull { limit } => PublishError::QueueFull { limit },
        PublishRefusal::OverShare { used, limit } => PublishError::OverShare { used, limit },
        PublishRefusal::OverRate { used, limit } => PublishError::OverRate { used, limit },
        PublishRefusal::Store(kind) => {
            PublishError::Store(StoreError::new(kind, "the transaction was not stored"))
        }
        PublishRefusal::Closed => PublishError::Closed,
    }
}
