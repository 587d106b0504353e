//! Messages between linked peers, as plain values. `wire` turns them into frames and back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Bound, CloseReason, Head, Interest, PeerId, PeerRecord, PieceRange, Reconcile, Refusal,
    TraceContext, Transaction, TransactionId, WallTime,
};

/// Oldest wire version that this node speaks.
pub const WIRE_VERSION_MIN: u32 = 1;

/// Newest wire version that this node speaks.
pub const WIRE_VERSION_MAX: u32 = 1;

/// Set of optional abilities of a node, one bit each. Unknown bits are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Features(pub u64);

impl Features {
    /// Takes requests: messages 30 to 33.
    pub const SERVES_REQUESTS: Self = Self(1);
    /// Takes part in dial-backs: messages 34 to 36.
    pub const DIALS_BACK: Self = Self(2);

    /// Reports whether all of `others` are among these.
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

/// Abilities of this version.
pub const FEATURES: Features = Features(Features::SERVES_REQUESTS.0 | Features::DIALS_BACK.0);

/// Result that the answer to a request begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ResponseStatus {
    /// The body follows.
    Done,
    /// Nobody serves the protocol.
    NotServed,
    /// Too much is under way; no handler saw the request.
    Busy,
    /// The body of the request is above the maximum, which is the reason, in decimal.
    TooLarge,
    /// The handler refused, for the reason that stands there.
    Refused,
    /// The handler failed, or had no answer in time.
    Failed,
}

/// What came of a dial-back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DialBackOutcome {
    /// Nobody dialled: refused, or nobody was there to do so.
    Refused,
    /// The peer answered at its address and proved its key.
    Reached,
    /// The peer was not reached.
    Failed,
}

/// Reports whether a text may be the name of a protocol: 1 to [`super::MAX_PROTOCOL_BYTES`] printable ASCII
/// characters without spaces.
pub fn is_protocol_name(name: &str) -> bool {
    (1..=super::MAX_PROTOCOL_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Hello: the first message on every link, in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The network that the sender belongs to.
    pub network: String,
    /// The oldest wire version that the sender speaks.
    pub version_min: u32,
    /// The newest wire version that the sender speaks.
    pub version_max: u32,
    /// The optional abilities of the sender.
    pub features: Features,
    /// The incarnation: a number that rises with every start of the sender's process.
    pub incarnation: u64,
    /// The largest payload that the sender takes, in bytes.
    pub max_transaction: u64,
    /// The sender's own record.
    pub record: PeerRecord,
    /// The address from which the sender sees the receiver come.
    pub observed: Option<IpAddr>,
    /// The topics that the sender wants; a sender that does not say is a relay.
    pub interest: Interest,
    /// True: the sender's own transactions that wait for copies come next, announced in the order
    /// of publishing, until the sender says [`Message::Flushed`].
    pub owes: bool,
    /// The sender's clock as it reads it, uncorrected; `None` where it does not say.
    pub clock: Option<WallTime>,
    /// The time since which the sender's log has all that it knows of; `None` where it does not say.
    pub complete_since: Option<WallTime>,
    /// True, from who dialled: this connection is to take over from the one that the two have. From
    /// who was dialled: agreed.
    pub takes_over: bool,
    /// Proofs that the sender knows a secret of the network, one for each secret, at most
    /// [`super::MAX_PROOFS`].
    pub proofs: Vec<[u8; 32]>,
    /// The number of the dial-back that this connection is made for, and for nothing else; 0 on every
    /// link.
    pub dial_back: u64,
}

/// Announcement of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// The transaction that is offered.
    pub id: TransactionId,
    /// The length of its payload in bytes.
    pub size: u64,
    /// The number of hops from its origin to the announcer.
    pub hop: u16,
}

/// Header of a large transaction, ahead of its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The header with its signature.
    pub head: Head,
    /// The number of hops from its origin to the sender.
    pub hop: u16,
    /// Rank of the sender in the order of reservations (`place` on the wire).
    pub place: u32,
    /// True: the sender has all of the payload.
    pub complete: bool,
}

/// Reservation of pieces of a large payload. A reservation replaces an earlier one for the same id
/// on the same link; without any range it only takes that back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The transaction asked for.
    pub id: TransactionId,
    /// Rank of the asker in the order of reservations (`place` on the wire); with 0 only a peer
    /// that has all of it answers.
    pub place: u32,
    /// True: the header is wanted first.
    pub head: bool,
    /// True: the answer may not be `Busy`.
    pub force: bool,
    /// True: nothing is asked anew, and what an earlier request named and this one does not is
    /// taken back.
    pub narrow: bool,
    /// The pieces asked for, at most [`super::MAX_RANGES`] runs of them.
    pub ranges: Vec<PieceRange>,
}

/// Piece of a large payload, which can be verified alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Piece {
    /// The transaction it belongs to.
    pub id: TransactionId,
    /// The number of the piece, counted from 0.
    pub index: u32,
    /// The content: 64 KiB, or what is left of the payload.
    pub bytes: Bytes,
    /// The hashes that prove it: those beside its path to the root of the payload's BLAKE3 tree.
    pub proof: Bytes,
}

impl Piece {
    /// Piece number `index` of the payload of `id`.
    pub fn new(id: TransactionId, index: u32, bytes: Bytes, proof: Bytes) -> Self {
        Self { id, index, bytes, proof }
    }
}

/// Message between linked peers. The sender speaks: "I" is the sender, "you" the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Hello: who I am. First on every link.
    Hello(Box<Hello>),
    /// Goodbye: the last message on a link.
    Goodbye {
        /// Reason for which the link ends.
        reason: CloseReason,
        /// The time before which the receiver should not come back.
        retry_after: Duration,
    },
    /// Ping: are you there?
    Ping {
        /// The number that the pong returns.
        nonce: u64,
    },
    /// Pong: I am.
    Pong {
        /// The nonce of the ping.
        nonce: u64,
    },
    /// Question for the peers that the receiver knows.
    PeersRequest {
        /// Maximum number of records in the answer.
        max: u32,
    },
    /// Answer with peers that I know, by their own signed records.
    Peers {
        /// The records, at most [`super::MAX_RECORDS_PER_MESSAGE`].
        records: Vec<PeerRecord>,
        /// Number of the first ones that are relays, as far as I know; 0 also where I know of no difference.
        relays: u32,
    },
    /// Announcement: I have these.
    Announce(Vec<Announcement>),
    /// Request: send me these.
    Want(Vec<TransactionId>),
    /// Refusal of a request: I do not have these.
    Missing(Vec<TransactionId>),
    /// Push of a whole transaction, unasked or as an answer.
    Push {
        /// The pushed transaction.
        transaction: Transaction,
        /// Hops from its origin to the sender.
        hop: u16,
    },
    /// Piece of a large payload, as an answer.
    Piece(Piece),
    /// Feedback: your pushes of these were not needed, I had them.
    Duplicate(Vec<TransactionId>),
    /// Feedback: your announcements of these came before anybody's payload, a push would have helped.
    Early(Vec<TransactionId>),
    /// Confirmation: I have stored these, which you published.
    Stored(Vec<TransactionId>),
    /// Question of a reconciliation: this is what I hold, what do you?
    Ask(Box<Reconcile>),
    /// Answer to [`Message::Ask`]; it may leave the last of its ranges unanswered.
    Answer(Box<Reconcile>),
    /// Hint: you lack more of this range than I would announce, ask me.
    Yours {
        /// The bound at which the range begins.
        lower: Bound,
        /// The bound at which the range ends.
        upper: Bound,
    },
    /// Offer of a large payload by its header: it is here or on its way here.
    Offer(Box<Offer>),
    /// Reservation: send me pieces, as you get them.
    Reserve(Reservation),
    /// Refusal of a reservation for the moment: I serve enough peers with these.
    Busy(Vec<TransactionId>),
    /// Notice: I have the first piece of this.
    Receiving {
        /// Id of the transaction.
        id: TransactionId,
        /// Rank of the sender in the order of reservations, which may have risen since its offer.
        place: u32,
    },
    /// Notice of what I want from now on.
    Interest(Interest),
    /// End of the replay of my outbox: what of mine waited for copies has been announced.
    Flushed,
    /// Refusal of what you published and sent or announced to me, with my clock. A refusal that names
    /// nothing only tells the clock, and asks for yours.
    Refused {
        /// The transactions, at most [`super::MAX_IDS_PER_MESSAGE`], each with the reason.
        list: Vec<(TransactionId, Refusal)>,
        /// The sender's clock as it reads it, uncorrected; `None` where it does not say.
        clock: Option<WallTime>,
    },
    /// Probe: a test of the link, to be answered with [`Message::Probed`]. One with many bytes, either
    /// way, is bulk.
    Probe {
        /// The number that the answer returns.
        nonce: u64,
        /// Bytes that mean nothing, at most [`super::PIECE_BYTES`].
        payload: Bytes,
        /// Number of bytes that the answer is to carry, at most [`super::PIECE_BYTES`].
        wants: u32,
    },
    /// Answer to [`Message::Probe`].
    Probed {
        /// The nonce of the probe.
        nonce: u64,
        /// Number of bytes in the payload of the probe.
        received: u32,
        /// Bytes that mean nothing: as many as the probe wants.
        payload: Bytes,
    },
    /// Step of a handover between two connections: see `protocol::link::handover`.
    Switch {
        /// Number of the step.
        step: u32,
    },
    /// Request to the receiver alone, with the first bytes of its body. The others follow in
    /// [`Message::BodyPart`].
    Request {
        /// Number that the sender has chosen, above 0; it rises with every request while the link lives.
        id: u64,
        /// Name of what is asked for.
        protocol: String,
        /// Length of the whole body in bytes.
        size: u64,
        /// Time that the sender still waits, in milliseconds; 0 where it does not say.
        timeout_ms: u32,
        /// The first bytes of the body, at most [`super::PIECE_BYTES`].
        body: Bytes,
        /// Trace context of the request, where the sender's host gave one.
        trace: Option<TraceContext>,
    },
    /// Answer to [`Message::Request`], with the first bytes of its body.
    Response {
        /// Number of the request.
        id: u64,
        /// Result: whether a body follows.
        status: ResponseStatus,
        /// Length of the whole body in bytes.
        size: u64,
        /// The first bytes of the body, at most [`super::PIECE_BYTES`].
        body: Bytes,
        /// Reason of a refusal, at most [`super::MAX_REASON_BYTES`].
        reason: String,
    },
    /// The next bytes of the body of a request or of an answer.
    BodyPart {
        /// Number of the request.
        id: u64,
        /// True: the bytes belong to the answer.
        of_answer: bool,
        /// The bytes, at most [`super::PIECE_BYTES`].
        data: Bytes,
    },
    /// Notice that the sender does not wait for the answer to a request any more.
    CancelRequest {
        /// Number of the request.
        id: u64,
    },
    /// Request to have me dialled by a third node, at the address from which you see me come.
    DialBack {
        /// Number that the third node says in its hello, and the answer returns.
        nonce: u64,
        /// Port at which I listen.
        port: u16,
    },
    /// Request to dial a peer of mine, once.
    DialBackTask {
        /// Number that the receiver says in its hello, and its answer returns.
        nonce: u64,
        /// Address to be dialled.
        address: SocketAddr,
        /// Peer that must be there.
        peer: PeerId,
    },
    /// Answer to [`Message::DialBack`] and to [`Message::DialBackTask`].
    DialBackResult {
        /// The nonce of the request.
        nonce: u64,
        /// What came of it.
        outcome: DialBackOutcome,
        /// Peer that dialled, in the answer to a request; `None` where nobody did, and from older peers.
        dialler: Option<PeerId>,
    },
}

impl Message {
    /// Name of the kind, for statistics and traces.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Goodbye { .. } => "goodbye",
            Self::Ping { .. } => "ping",
            Self::Pong { .. } => "pong",
            Self::PeersRequest { .. } => "peers_request",
            Self::Peers { .. } => "peers",
            Self::Announce(_) => "announce",
            Self::Want(_) => "want",
            Self::Missing(_) => "missing",
            Self::Push { .. } => "push",
            Self::Piece(_) => "piece",
            Self::Duplicate(_) => "duplicate",
            Self::Early(_) => "early",
            Self::Stored(_) => "stored",
            Self::Ask(_) => "ask",
            Self::Answer(_) => "answer",
            Self::Yours { .. } => "yours",
            Self::Offer(_) => "offer",
            Self::Reserve(_) => "reserve",
            Self::Busy(_) => "busy",
            Self::Receiving { .. } => "receiving",
            Self::Interest(_) => "interest",
            Self::Flushed => "flushed",
            Self::Refused { .. } => "refused",
            Self::Probe { .. } => "probe",
            Self::Probed { .. } => "probed",
            Self::Switch { .. } => "switch",
            Self::Request { .. } => "request",
            Self::Response { .. } => "response",
            Self::BodyPart { .. } => "body_part",
            Self::CancelRequest { .. } => "cancel_request",
            Self::DialBack { .. } => "dial_back",
            Self::DialBackTask { .. } => "dial_back_task",
            Self::DialBackResult { .. } => "dial_back_result",
        }
    }

    /// Number of bytes on the wire, about: what queues are bounded by.
    pub fn weight(&self) -> usize {
        const ID: usize = 34;
        let traced = |trace: Option<TraceContext>| trace.map_or(0, |_| TraceContext::BYTES + 2);
        let topics = |i: &Interest| 8 * i.topics.as_ref().map_or(0, Vec::len);
        8 + match self {
            Self::Hello(hello) => 400 + topics(&hello.interest) + 34 * hello.proofs.len(),
            Self::Interest(interest) => 16 + topics(interest),
            Self::Goodbye { .. }
            | Self::Ping { .. }
            | Self::Pong { .. }
            | Self::PeersRequest { .. }
            | Self::Switch { .. }
            | Self::CancelRequest { .. }
            | Self::DialBack { .. }
            | Self::DialBackResult { .. }
            | Self::Flushed => 12,
            Self::DialBackTask { .. } => 64,
            Self::Request { protocol, body, trace, .. } => {
                32 + protocol.len() + body.len() + traced(*trace)
            }
            Self::Response { reason, body, .. } => 32 + reason.len() + body.len(),
            Self::BodyPart { data, .. } => 20 + data.len(),
            Self::Ask(ranges) | Self::Answer(ranges) => ranges.weight(),
            Self::Yours { .. } => 28,
            Self::Peers { records, .. } => 200 * records.len(),
            Self::Announce(list) => 44 * list.len(),
            Self::Want(ids)
            | Self::Missing(ids)
            | Self::Duplicate(ids)
            | Self::Early(ids)
            | Self::Stored(ids)
            | Self::Busy(ids) => ID * ids.len(),
            Self::Refused { list, .. } => 8 + (ID + 1) * list.len(),
            Self::Receiving { .. } => ID + 4,
            Self::Probe { payload, .. } | Self::Probed { payload, .. } => 20 + payload.len(),
            Self::Offer(offer) => {
                let (header, proof) = (offer.head.header_bytes(), offer.head.signature());
                header.len() + proof.as_bytes().len() + 16 + traced(offer.head.trace())
            }
            Self::Reserve(reservation) => 44 + 4 * reservation.ranges.len(),
            Self::Push { transaction, .. } => {
                let proof = transaction.signature().as_bytes().len();
                let parts = transaction.payload().len() + transaction.header_bytes().len();
                parts + proof + 16 + traced(transaction.trace())
            }
            Self::Piece(piece) => piece.bytes.len() + piece.proof.len() + 60,
        }
    }
}
