//! Transactions: told of, looked up, published.

use bytes::Bytes;

use super::discovery::teller;
use super::{Found, Ops, Refusal};
use crate::compat::client::Wanted;
use crate::compat::fetch::{Source, compact};
use crate::compat::hashes::{self, Name};
use crate::compat::registry::Owner;
use crate::error::{PublishError, StoreError};
use crate::transport::Visitor;
use crate::types::{Topic, Transaction, TransactionId};
use crate::wire::generated::transaction::{
    NotificationAck, TransactionNotification, TransactionRequest,
};

const BAD_HASH: &str = "transaction_hash is neither 64 hex digits nor the Base64 of a SHA-256";
const BUILDING: &str = "the index of hashes is still being built";

impl Ops {
    /// Hears that the sender has a transaction; a promise to fetch it is kept.
    pub(crate) async fn notify(
        &self,
        visitor: &Visitor,
        notification: TransactionNotification,
    ) -> Result<NotificationAck, Refusal> {
        let TransactionNotification {
            transaction_hash,
            sender_peer_id: sender,
            transaction_size,
            register_id,
            timestamp: _,
        } = notification;
        let name = name(&transaction_hash)?;
        if sender.is_empty() {
            return Err(Refusal::Invalid("sender_peer_id is empty".to_owned()));
        }
        Self::check_caller(&sender, "sender_peer_id")?;
        let size = u64::try_from(transaction_size)
            .map_err(|_| Refusal::Invalid("transaction_size is negative".to_owned()))?;
        let topic = self.topic(&register_id)?;
        self.0.count(|c| c.compat_notifications_received += 1);
        self.touch(visitor, &sender);
        if self.is_here(visitor, &name, None).await? {
            return Ok(NotificationAck { already_known: true, will_request: false });
        }
        let owner = {
            let registry = self.0.registry();
            registry.answering(&sender).and_then(|_| registry.owner(&sender))
        };
        // Anybody may say the id of another, whose share is not spent by that.
        let owner = owner.map(|owner| teller(visitor).map_or(owner, Owner::Caller));
        let Some(owner) = owner.filter(|_| size <= self.max_transaction_size()) else {
            return Ok(NotificationAck { already_known: false, will_request: false });
        };
        if !self.0.fetches.contains(&name) {
            self.0.limits.transaction(visitor)?;
        }
        let wanted = Wanted {
            hash: transaction_hash,
            register: register_id,
            size: Some(size).filter(|size| *size > 0),
        };
        let source = Source { id: sender, owner, wanted, topic: topic.to_string() };
        let will_request = self.0.fetches.want(&name, source);
        Ok(NotificationAck { already_known: false, will_request })
    }

    /// Looks a transaction up by its id in hex, or by the SHA-256 of its payload in hex or Base64;
    /// `None` for one that is not here, or that is of another topic than the one asked for. An empty
    /// topic is any topic.
    pub(crate) async fn find(
        &self,
        hash: &str,
        topic: Option<&str>,
    ) -> Result<Option<Found>, Refusal> {
        let name = name(hash)?;
        let topic = match topic {
            None | Some("") => None,
            Some(topic) => Some(self.topic(topic)?),
        };
        let found = self.lookup(&name, topic.as_ref()).await?;
        Ok(found.map(|transaction| {
            let header = transaction.header();
            Found {
                id: transaction.id(),
                payload: transaction.payload().clone(),
                created: header.created,
            }
        }))
    }

    /// Publishes a payload under this node's name. An empty topic is the default topic.
    pub(crate) async fn publish(
        &self,
        visitor: &Visitor,
        topic: &str,
        payload: Bytes,
    ) -> Result<TransactionId, Refusal> {
        let topic = self.topic(topic)?;
        let (size, limit) = (payload.len() as u64, self.max_transaction_size());
        if size > limit {
            return Err(Refusal::TooLarge { size, limit });
        }
        self.0.limits.transaction(visitor)?;
        let sha = hashes::sha256(&payload).await;
        let published = self.0.backend.publish(topic.as_str(), compact(payload)).await;
        let id = published.map_err(unpublished)?;
        self.0.hashes().learn(sha, id, Vec::new());
        self.0.count(|c| c.compat_published += 1);
        Ok(id)
    }

    /// Takes a request for a transaction that is not answered with it.
    pub(super) async fn acknowledge(
        &self,
        visitor: &Visitor,
        request: &TransactionRequest,
    ) -> Result<(), Refusal> {
        Self::check_caller(&request.requesting_peer_id, "requesting_peer_id")?;
        let name = name(&request.transaction_hash)?;
        let topic = Some(&request.register_id[..]).filter(|name| !name.is_empty());
        let topic = topic.map(|topic| self.topic(topic)).transpose()?;
        self.is_here(visitor, &name, topic.as_ref()).await.map(drop)
    }

    /// Takes a payload that a client says has this name; one that is known is no error.
    pub(super) async fn take(
        &self,
        visitor: &Visitor,
        hash: &str,
        payload: Bytes,
    ) -> Result<(), Refusal> {
        let name = name(hash)?;
        if let Some(known) = self.lookup(&name, None).await?
            && *known.payload() == payload
        {
            return Ok(());
        }
        if hashes::sha256(&payload).await != *name.bytes() {
            let message = "transaction_hash is not the SHA-256 of transaction_data";
            return Err(Refusal::Invalid(message.to_owned()));
        }
        self.publish(visitor, "", payload).await.map(drop)
    }

    /// Topic of a register; an empty one is the default topic.
    fn topic(&self, register: &str) -> Result<Topic, Refusal> {
        let name = if register.is_empty() { self.default_topic() } else { register };
        let bad = || Refusal::Invalid("the topic is longer than 255 bytes".to_owned());
        Topic::new(name).map_err(|_| bad())
    }

    /// Reports whether a transaction is here. What was read for that counts for the visitor.
    async fn is_here(
        &self,
        visitor: &Visitor,
        name: &Name,
        topic: Option<&Topic>,
    ) -> Result<bool, Refusal> {
        let Some(found) = self.lookup(name, topic).await? else { return Ok(false) };
        self.0.limits.read(visitor, found.header().payload_len)?;
        Ok(true)
    }

    async fn lookup(
        &self,
        name: &Name,
        topic: Option<&Topic>,
    ) -> Result<Option<Transaction>, Refusal> {
        if let Name::Hex(bytes) = name {
            let id = TransactionId::from_bytes(*bytes);
            if let Some(found) = self.0.backend.get(id).await.map_err(unread)? {
                let is_other = topic.is_some_and(|topic| found.header().topic != *topic);
                return Ok(Some(found).filter(|_| !is_other));
            }
        }
        // Asked before the log: what is entered meanwhile is found.
        let is_built = self.0.hashes().is_built();
        match hashes::find(&self.0, name.bytes(), topic).await.map_err(unread)? {
            None if !is_built => Err(Refusal::Unavailable(BUILDING.to_owned())),
            found => Ok(found),
        }
    }
}

fn name(text: &str) -> Result<Name, Refusal> {
    Name::parse(text).ok_or_else(|| Refusal::Invalid(BAD_HASH.to_owned()))
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` wants it")]
fn unread(error: StoreError) -> Refusal {
    tracing::warn!(target: "sorcha_peer::compat", %error, "the log cannot be read");
    Refusal::Unavailable("the log cannot be read".to_owned())
}

/// What a client is told of a transaction that was not published.
fn unpublished(error: PublishError) -> Refusal {
    let unavailable = |text: &str| Refusal::Unavailable(text.to_owned());
    match error {
        PublishError::TooLarge { size, limit } => Refusal::TooLarge { size, limit },
        PublishError::QueueFull { .. } => unavailable("the outbox is full"),
        PublishError::OverShare { .. } => unavailable("the node's share of the store is used up"),
        PublishError::OverRate { .. } => unavailable("the node has published as much as it may"),
        PublishError::NotValid { .. } => {
            Refusal::Precondition("the node's validator does not accept the transaction".to_owned())
        }
        PublishError::Closed => unavailable("the node is shutting down"),
        PublishError::Unsettled => {
            unavailable("the store has not answered; the transaction may have been stored")
        }
        PublishError::Topic(_) => Refusal::Invalid("the topic is not acceptable".to_owned()),
        error => {
            tracing::warn!(target: "sorcha_peer::compat", %error, "a client's transaction was not published");
            unavailable("the transaction was not stored")
        }
    }
}
