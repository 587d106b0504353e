//! Messages between handles, driver and workers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::error::{
    DeadLetterError, RequestError, StoreError, StoreErrorKind, TestError, TransportError,
};
use crate::ports::{Ban, RawLink};
use crate::protocol::{
    AnswerRefusal, CallId, ConnectFailure, DialId, Input, PublishRefusal, Ticket,
};
#[cfg(feature = "compat")]
use crate::types::WallTime;
use crate::types::{
    Endpoint, Explanation, Header, LinkStatus, Mode, PeerId, PeerTest, PublishStatus,
    ReachabilityReport, Refusal, Stats, TraceContext, Transaction, TransactionId,
};

use super::room::Taken;

/// Peer of the address book: its id, where it is dialled first, when it was linked last, and whether it is a
/// first contact.
#[cfg(feature = "compat")]
pub(super) type BookEntry = (PeerId, Endpoint, Option<WallTime>, bool);

/// Answer to `Command::Redeliver`.
pub(super) enum Redelivered {
    /// It waits for copies again.
    Waiting(watch::Receiver<PublishStatus>),
    /// A peer has taken it meanwhile: it is none any more.
    Gone,
    /// The log, which forgets a little earlier, has it no more.
    Forgotten,
}

/// Request of a handle to the driver.
pub(super) enum Command {
    Connect {
        endpoint: Endpoint,
        reply: oneshot::Sender<Result<PeerId, Unconnected>>,
    },
    TestPeer {
        peer: PeerId,
        reply: oneshot::Sender<Result<PeerTest, TestError>>,
    },
    Request(Box<Ask>),
    /// The caller of a request waits no more.
    CancelRequest {
        call: CallId,
    },
    ResetBreaker {
        peer: PeerId,
    },
    Disconnect {
        peer: PeerId,
    },
    /// Answered once the ban is written, or could not be.
    Ban {
        ban: Ban,
        reply: oneshot::Sender<PeersWritten>,
    },
    /// Answered once the lifted ban is written, or could not be.
    Unban {
        peer: PeerId,
        reply: oneshot::Sender<PeersWritten>,
    },
    /// Answered once the stored outbox is as the protocol has it.
    SettleOutbox {
        reply: oneshot::Sender<OutboxSettled>,
    },
    Redeliver {
        id: TransactionId,
        reply: oneshot::Sender<Redelivered>,
    },
    DropDeadLetter {
        id: TransactionId,
        reply: oneshot::Sender<OutboxSettled>,
    },
    Peers {
        reply: oneshot::Sender<Vec<LinkStatus>>,
    },
    Stats {
        reply: oneshot::Sender<Stats>,
    },
    /// Asks for the peers of the address book.
    #[cfg(feature = "compat")]
    KnownPeers {
        reply: oneshot::Sender<Vec<BookEntry>>,
    },
    /// Asks what is known of a transaction.
    Explain {
        id: TransactionId,
        reply: oneshot::Sender<Explanation>,
    },
    /// Asks for figures and links of one instant.
    Overview {
        reply: oneshot::Sender<(Stats, Vec<LinkStatus>)>,
    },
    /// Asks for what is known of the ways by which others reach the node.
    Reachability {
        reply: oneshot::Sender<ReachabilityReport>,
    },
    /// Asks for the addresses in the node's own record.
    Addresses {
        reply: oneshot::Sender<Vec<Endpoint>>,
    },
    Shutdown {
        deadline: Duration,
    },
}

/// Source of the numbers of calls, one for a node. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(super) struct CallIds(Arc<AtomicU64>);

impl CallIds {
    pub(super) fn next(&self) -> CallId {
        CallId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Request of the host to a peer.
#[derive(Debug)]
pub(super) struct Ask {
    /// Number by which the request can be taken back.
    pub(super) call: CallId,
    pub(super) peer: PeerId,
    pub(super) protocol: String,
    pub(super) body: Bytes,
    pub(super) within: Duration,
    pub(super) trace: Option<TraceContext>,
    pub(super) reply: oneshot::Sender<Result<Bytes, RequestError>>,
}

/// Report of a worker or a link to the driver.
pub(super) enum Completion {
    /// Inputs of the protocol, in order.
    Inputs(Vec<Input>),
    /// Input that a frame of a link is, and room for the frame.
    Frame { input: Input, room: Taken },
    /// A link that a transport opened.
    Linked { raw: RawLink, dial: Option<DialId> },
    /// No link: what the transport said.
    NotDialled { dial: DialId, error: TransportError },
    /// What a handler has answered to a peer's request.
    Handled { ticket: Ticket, result: Result<Bytes, AnswerRefusal> },
    /// Asks for the IP addresses at which known peers are, or come from.
    KnownAddresses { reply: oneshot::Sender<BTreeSet<IpAddr>> },
    /// Results of storing, in order.
    Stored(Vec<(Ticket, Result<(), StoreFailure>)>),
}

/// Reason for which a call of the host opened no link.
#[derive(Debug)]
pub(super) struct Unconnected {
    pub(super) failure: ConnectFailure,
    /// The text of the transport's error, where one was the reason.
    pub(super) reason: Option<String>,
}

/// Error of a store for all whom it concerns.
#[derive(Debug, Clone)]
pub(super) struct StoreFailure {
    pub(super) kind: StoreErrorKind,
    reason: Arc<str>,
}

impl From<&StoreError> for StoreFailure {
    fn from(error: &StoreError) -> Self {
        Self { kind: error.kind, reason: error.reason().into() }
    }
}

impl StoreFailure {
    /// Returns the error again. `consequence` says what it means for who is told.
    pub(super) fn to_error(&self, consequence: &str) -> StoreError {
        StoreError::new(self.kind, format!("{consequence}: {}", self.reason))
    }
}

/// Transactions to be signed and published, all or none.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) parts: Vec<(Header, Bytes)>,
    /// Trace context of all of them.
    pub(super) trace: Option<TraceContext>,
    /// Entry of the outbox whose place the only transaction takes.
    pub(super) renews: Option<TransactionId>,
    pub(super) reply: oneshot::Sender<PublishAnswer>,
    /// Room for the payload, until the protocol has it.
    pub(super) room: Taken,
}

/// Signed transactions to be published, all or none.
#[derive(Debug)]
pub(super) struct SignedDraft {
    pub(super) transactions: Vec<Transaction>,
    /// Entry of the outbox whose place the only transaction takes.
    pub(super) renews: Option<TransactionId>,
    pub(super) reply: oneshot::Sender<PublishAnswer>,
    /// Room for the payload, until the protocol has it.
    pub(super) room: Taken,
}

/// Answer to a publish.
pub(super) type PublishAnswer = Result<Published, Unpublished>;

/// Transactions that outbox and log have.
#[derive(Debug)]
pub(super) struct Published {
    /// True: this call published the transactions. False: one of them was published by an earlier
    /// call, and nothing was done.
    pub(super) is_new: bool,
    /// Each in the order of publishing, with its status.
    pub(super) entries: Vec<(TransactionId, watch::Receiver<PublishStatus>)>,
}

/// Reason for which there is no receipt.
#[derive(Debug)]
pub(super) enum Unpublished {
    Refused(PublishRefusal),
    /// The node's own validator did not accept a transaction.
    NotValid(Refusal),
    /// The store failed, and this is what it said.
    NotStored(StoreFailure),
    /// The store had not answered when the node ended, or counted as stuck.
    Unsettled,
}

impl From<PublishRefusal> for Unpublished {
    fn from(refusal: PublishRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Answers a publish that the protocol has taken. Dropped without an answer, it says
/// [`Unpublished::Unsettled`]: the transaction may be in the hands of the store.
pub(super) struct PublishReply(Option<oneshot::Sender<PublishAnswer>>);

impl PublishReply {
    pub(super) fn new(reply: oneshot::Sender<PublishAnswer>) -> Self {
        Self(Some(reply))
    }

    pub(super) fn send(mut self, answer: PublishAnswer) {
        if let Some(reply) = self.0.take() {
            let _ = reply.send(answer);
        }
    }
}

impl Drop for PublishReply {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            let _ = reply.send(Err(Unpublished::Unsettled));
        }
    }
}

/// Result of an operation on the stored outbox.
pub(super) type OutboxSettled = Result<(), DeadLetterError>;

/// Result of writing peers and bans.
pub(super) type PeersWritten = Result<(), StoreError>;

/// State of the node that changes rarely and is asked for often.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeState {
    pub(super) mode: Option<Mode>,
    pub(super) links: u32,
    /// Number of milliseconds by which the machine's clock is off, while it is.
    pub(super) clock_offset_ms: Option<i64>,
    /// The latest dial or link that failed, for the host to read.
    pub(super) hint: Option<String>,
}
