//! Transactions: told of, looked up, published.

use bytes::Bytes;

use super::{Found, Ops, Refusal};
use crate::transport::Visitor;
use crate::types::TransactionId;
use crate::wire::generated::transaction::{NotificationAck, TransactionNotification};

impl Ops {
    /// Hears that the sender has a transaction; a promise to fetch it is kept.
    pub(crate) async fn notify(
        &self,
        visitor: &Visitor,
        notification: TransactionNotification,
    ) -> Result<NotificationAck, Refusal> {
        todo!()
    }

    /// Looks a transaction up by its id in hex, or by the SHA-256 of its payload in hex or Base64;
    /// `None` for one that is not here, or that is of another topic than the one asked for. An empty
    /// topic is any topic.
    pub(crate) async fn find(&self, hash: &str, topic: Option<&str>) -> Result<Option<Found>, Refusal> {
        todo!()
    }

    /// Publishes a payload under this node's name. An empty topic is the default topic.
    pub(crate) async fn publish(
        &self,
        visitor: &Visitor,
        topic: &str,
        payload: Bytes,
    ) -> Result<TransactionId, Refusal> {
        todo!()
    }
}
