//! Messages from clients, single and in streams.
//!
//! Contract: a message of a type that carries a message of the transaction package is that operation; one
//! of another type goes to the host's handler of `sorcha.message.` and its number, 0 for a type that nobody
//! knows. Nothing is passed on to others.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::{Ops, Refusal, is_id};
use crate::compat::HandlerFailure;
use crate::compat::registry::seconds;
use crate::transport::Visitor;
use crate::types::PeerId;
use crate::wire::generated::communication::{MessageAck, MessageType, PeerMessage};
use crate::wire::generated::transaction::{
    TransactionNotification, TransactionRequest, TransactionResponse,
};

/// Time that a handler has.
const HANDLER_TIME: Duration = Duration::from_secs(30);

/// What became of a message.
enum Taken {
    /// Somebody made use of it; an answer where there is one.
    Used(Option<Bytes>),
    /// Nobody did.
    Unused,
}

impl Ops {
    /// Takes a message, and says whether anybody made use of it.
    pub(crate) async fn send_message(
        &self,
        visitor: &Visitor,
        message: PeerMessage,
    ) -> Result<MessageAck, Refusal> {
        let taken = self.take_message(visitor, &message, false).await?;
        let received = matches!(taken, Taken::Used(_));
        Ok(MessageAck { received, timestamp: seconds(self.now()) })
    }

    /// Takes a message of a stream; what comes back, if anything, is sent on the stream.
    pub(crate) async fn on_stream_message(
        &self,
        visitor: &Visitor,
        message: PeerMessage,
    ) -> Result<Option<PeerMessage>, Refusal> {
        let Taken::Used(answer) = self.take_message(visitor, &message, true).await? else {
            return Ok(None);
        };
        let message_type = match MessageType::try_from(message.message_type) {
            Ok(MessageType::TransactionRequest) => MessageType::TransactionResponse.into(),
            _ => message.message_type,
        };
        Ok(answer.map(|payload| PeerMessage {
            sender_peer_id: self.peer_id().to_string(),
            recipient_peer_id: message.sender_peer_id,
            message_type,
            payload,
            timestamp: seconds(self.now()),
        }))
    }

    async fn take_message(
        &self,
        visitor: &Visitor,
        message: &PeerMessage,
        is_answered: bool,
    ) -> Result<Taken, Refusal> {
        self.check_parties(message).await?;
        self.0.count(|c| c.compat_messages += 1);
        self.touch(visitor, &message.sender_peer_id);
        let payload = &message.payload[..];
        let kind = MessageType::try_from(message.message_type).unwrap_or(MessageType::Unknown);
        match kind {
            MessageType::TransactionNotification => {
                let mut notification: TransactionNotification = decoded(payload)?;
                if notification.sender_peer_id.is_empty() {
                    notification.sender_peer_id.clone_from(&message.sender_peer_id);
                }
                self.notify(visitor, notification).await?;
                Ok(Taken::Used(None))
            }
            MessageType::TransactionRequest => {
                let request: TransactionRequest = decoded(payload)?;
                if !is_answered {
                    self.acknowledge(visitor, &request).await?;
                    return Ok(Taken::Used(None));
                }
                let answer = self.answer(request).await?;
                Ok(Taken::Used(Some(answer.encode_to_vec().into())))
            }
            MessageType::TransactionResponse => {
                let response: TransactionResponse = decoded(payload)?;
                if response.found {
                    let payload = response.transaction_data;
                    self.take(visitor, &response.transaction_hash, payload).await?;
                }
                Ok(Taken::Used(None))
            }
            MessageType::Heartbeat => Ok(Taken::Used(Some(message.payload.clone()))),
            MessageType::PeerStatusUpdate | MessageType::Unknown => {
                self.hand_over(visitor, kind, message).await
            }
        }
    }

    /// Checks who a message is from and for.
    async fn check_parties(&self, message: &PeerMessage) -> Result<(), Refusal> {
        let (sender, recipient) = (&message.sender_peer_id, &message.recipient_peer_id);
        if !is_id(sender) {
            let message = "sender_peer_id is not 1 to 64 characters without control characters";
            return Err(Refusal::Invalid(message.to_owned()));
        }
        if sender.parse::<PeerId>().is_ok() {
            // 64 hex digits are a proven peer wherever the host sees them.
            return Err(Refusal::Invalid("sender_peer_id has the form of a peer's id".to_owned()));
        }
        Self::check_caller(recipient, "recipient_peer_id")?;
        if recipient.is_empty() || recipient.parse() == Ok(self.peer_id()) {
            return Ok(());
        }
        if self.0.registry().contains(recipient) || self.native(recipient).await.is_some() {
            return Err(Refusal::Precondition("this node does not relay".to_owned()));
        }
        Err(Refusal::NotFound("the recipient is not known".to_owned()))
    }

    /// Answers a request for a transaction.
    pub(crate) async fn answer(
        &self,
        request: TransactionRequest,
    ) -> Result<TransactionResponse, Refusal> {
        let TransactionRequest { transaction_hash, requesting_peer_id, register_id } = request;
        Self::check_caller(&requesting_peer_id, "requesting_peer_id")?;
        let found = self.find(&transaction_hash, Some(&register_id)).await?;
        let is_found = found.is_some();
        let transaction_data = found.map_or_else(Bytes::new, |found| found.payload);
        Ok(TransactionResponse { transaction_hash, transaction_data, found: is_found })
    }

    /// Hands a message to the host's handler, if there is one.
    async fn hand_over(
        &self,
        visitor: &Visitor,
        kind: MessageType,
        message: &PeerMessage,
    ) -> Result<Taken, Refusal> {
        let _place = self.0.limits.handling(visitor)?;
        let protocol = format!("sorcha.message.{}", i32::from(kind));
        let body = message.payload.clone();
        let size = body.len() as u64;
        let caller = &message.sender_peer_id;
        match self.0.backend.request(&protocol, body, caller, HANDLER_TIME).await {
            Ok(answer) => Ok(Taken::Used(Some(answer))),
            Err(HandlerFailure::NotServed | HandlerFailure::Failed) => Ok(Taken::Unused),
            Err(HandlerFailure::TooLarge { limit }) => Err(Refusal::TooLarge { size, limit }),
            Err(HandlerFailure::Closed) => {
                Err(Refusal::Unavailable("the node is shutting down".to_owned()))
            }
        }
    }
}

fn decoded<T: Message + Default>(payload: &[u8]) -> Result<T, Refusal> {
    T::decode(payload).map_err(|_| {
        Refusal::Invalid("payload is no message of the type that message_type says".to_owned())
    })
}
