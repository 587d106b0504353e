//! A peer that speaks frames by hand, and so can say what no node would.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use sorcha_peer::error::TransportError;
use sorcha_peer::ports::{Piece, RawLink, Transport};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::types::unstable::{
    FEATURES, Head, Hello, Interest, Message, Offer, PIECE_BYTES, PieceRange, Proofs, RecordDraft,
    WIRE_VERSION_MAX, WIRE_VERSION_MIN,
};
use sorcha_peer::types::{CloseReason, Header, Signature, WallTime};
use sorcha_peer::wire::{decode_frame, encode_frame};
use sorcha_peer::{Endpoint, Identity, PeerId, PeerNode, Topic, Transaction};

use super::{identity, noise, soon};

pub(crate) struct RawPeer {
    pub(crate) identity: Identity,
    link: RawLink,
    inbox: VecDeque<Message>,
}

impl RawPeer {
    /// An authenticated connection, before any hello.
    pub(crate) async fn dial(identity: Identity, node: &PeerNode) -> Self {
        Self::try_dial(identity, node).await.expect("a node that accepts connections")
    }

    pub(crate) async fn try_dial(
        identity: Identity,
        node: &PeerNode,
    ) -> Result<Self, TransportError> {
        let transport = GrpcTransport::new(identity.clone(), GrpcOptions::default())?;
        let endpoint = Endpoint::from(node.listen_addr().expect("a listening node"));
        let link = soon("a connection", transport.dial(&endpoint, None)).await?;
        Ok(Self { identity, link, inbox: VecDeque::new() })
    }

    /// A connection that came in by other means.
    pub(crate) fn on(identity: Identity, link: RawLink) -> Self {
        Self { identity, link, inbox: VecDeque::new() }
    }

    /// A link whose hello is through.
    pub(crate) async fn join(identity: Identity, node: &PeerNode) -> Self {
        let greeting = hello(&identity);
        Self::join_as(identity, node, greeting).await
    }

    pub(crate) async fn join_as(identity: Identity, node: &PeerNode, greeting: Hello) -> Self {
        let mut peer = Self::dial(identity, node).await;
        peer.send(&[Message::Hello(Box::new(greeting))]).await;
        // The node asks for peers once the link is up, and not before.
        peer.expect("the link is up", |m| matches!(m, Message::PeersRequest { .. })).await;
        peer
    }

    pub(crate) fn id(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// Sends one frame; a link that the node has closed swallows it.
    pub(crate) async fn send(&mut self, messages: &[Message]) {
        self.send_bytes(encode_frame(messages)).await;
    }

    pub(crate) async fn send_bytes(&mut self, frame: Bytes) {
        let _ = self.try_send(frame).await;
    }

    pub(crate) async fn try_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        soon("a frame leaves", self.link.sink.send(frame)).await
    }

    /// The next message; `None` once the node has closed the link. Pings are answered: bulk comes
    /// as its arrival is confirmed.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        while self.inbox.is_empty() {
            let frame = soon("a frame", self.link.stream.next()).await?.ok()?;
            self.inbox.extend(decode_frame(frame).expect("a node's frame"));
        }
        let message = self.inbox.pop_front();
        if let Some(Message::Ping { nonce }) = message {
            self.send(&[Message::Pong { nonce }]).await;
        }
        message
    }

    /// The first message that `is_it`; what comes before is skipped.
    pub(crate) async fn expect(&mut self, what: &str, is_it: impl Fn(&Message) -> bool) -> Message {
        loop {
            match self.next().await {
                Some(message) if is_it(&message) => return message,
                Some(Message::Goodbye { reason, .. }) => panic!("goodbye ({reason}) before {what}"),
                Some(_) => {}
                None => panic!("the link ended before {what}"),
            }
        }
    }

    /// Says that it has all of a large payload; returns what the node asks of it.
    pub(crate) async fn offer(&mut self, transaction: &Transaction) -> Vec<PieceRange> {
        let head = Head::of(transaction);
        let offer = Offer { head, hop: 0, place: 0, complete: true };
        self.send(&[Message::Offer(Box::new(offer))]).await;
        self.asked_for(transaction).await
    }

    /// Returns what the node asks of this peer of a large payload.
    pub(crate) async fn asked_for(&mut self, transaction: &Transaction) -> Vec<PieceRange> {
        loop {
            let message = self.expect("a reservation", |m| matches!(m, Message::Reserve(_))).await;
            if let Message::Reserve(asked) = message
                && asked.id == transaction.id()
            {
                return asked.ranges;
            }
        }
    }

    pub(crate) async fn send_pieces(&mut self, transaction: &Transaction, pieces: Range<u32>) {
        let proofs = Proofs::of(transaction.payload());
        for index in pieces {
            let start = index as usize * PIECE_BYTES;
            let bytes = transaction.payload().slice(start..start + PIECE_BYTES);
            let piece = Piece::new(transaction.id(), index, bytes, proofs.get(index));
            self.send(&[Message::Piece(piece)]).await;
        }
    }

    /// Returns the reason why the node closes the link; `None` when it does so without a word.
    pub(crate) async fn goodbye(&mut self) -> Option<CloseReason> {
        while let Some(message) = self.next().await {
            if let Message::Goodbye { reason, .. } = message {
                return Some(reason);
            }
        }
        None
    }
}

/// Makes what a well-behaved peer would say first.
pub(crate) fn hello(identity: &Identity) -> Hello {
    let draft = RecordDraft {
        peer: identity.peer_id(),
        seq: now().as_millis(),
        issued: now(),
        endpoints: Vec::new(),
    };
    Hello {
        network: "sorcha".to_owned(),
        version_min: WIRE_VERSION_MIN,
        version_max: WIRE_VERSION_MAX,
        features: FEATURES,
        incarnation: 1,
        max_transaction: u64::MAX,
        record: draft.sign_with(|message| identity.sign(message)),
        observed: None,
        interest: Interest::default(),
        owes: false,
        clock: None,
        complete_since: None,
        takes_over: false,
        proofs: Vec::new(),
        dial_back: 0,
    }
}

#[expect(clippy::disallowed_methods, reason = "raw peers have no driver")]
pub(crate) fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    WallTime::from_millis(
        since.as_millis().try_into().expect("a clock before the year 500 000 000"),
    )
}

/// The header of a transaction of `origin` that is as it should be.
pub(crate) fn header(origin: &Identity, payload: &[u8]) -> Header {
    let topic = Topic::new("raw").expect("a topic");
    let expires = now().plus(std::time::Duration::from_mins(10));
    Header::new(topic, origin.peer_id(), now(), expires, payload)
}

/// The transaction of a header, signed right.
pub(crate) fn signed(origin: &Identity, header: &Header, payload: &[u8]) -> Transaction {
    let id = blake3::hash(&header.to_bytes());
    let signature = Signature::Ed25519(origin.sign(id.as_bytes()));
    let payload = Bytes::copy_from_slice(payload);
    Transaction::from_parts(header.to_bytes(), signature, payload).expect("the lengths agree")
}

/// A right transaction whose payload has so many pieces.
pub(crate) fn large(seed: u8, pieces: u32) -> Transaction {
    let payload = noise(u64::from(seed), pieces as usize * PIECE_BYTES);
    let origin = identity(seed);
    signed(&origin, &header(&origin, &payload), &payload)
}

pub(crate) fn push(transaction: Transaction) -> Message {
    Message::Push { transaction, hop: 0 }
}
