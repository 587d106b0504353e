//! Messages from clients, single and in streams.

use super::{Ops, Refusal};
use crate::transport::Visitor;
use crate::wire::generated::communication::{MessageAck, PeerMessage};

impl Ops {
    /// Takes a message, and says whether anybody made use of it.
    pub(crate) async fn send_message(
        &self,
        visitor: &Visitor,
        message: PeerMessage,
    ) -> Result<MessageAck, Refusal> {
        todo!()
    }

    /// Takes a message of a stream; what comes back, if anything, is sent on the stream.
    pub(crate) async fn on_stream_message(
        &self,
        visitor: &Visitor,
        message: PeerMessage,
    ) -> Result<Option<PeerMessage>, Refusal> {
        todo!()
    }
}
