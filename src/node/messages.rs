//! Messages between handles, driver and workers.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::error::{DeadLetterError, StoreError};
use crate::ports::{Ban, RawLink};
use crate::protocol::{ConnectFailure, DialId, Input, PublishRefusal};
use crate::types::{
    Endpoint, Header, LinkStatus, Mode, PeerId, PublishStatus, Stats, Transaction, TransactionId,
};

/// Request of a handle to the driver.
pub(super) enum Command {
    Connect {
        endpoint: Endpoint,
        reply: oneshot::Sender<Result<PeerId, ConnectFailure>>,
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
    /// Answered with `None` where the dead letter cannot be taken back as it is.
    Redeliver {
        id: TransactionId,
        reply: oneshot::Sender<Option<watch::Receiver<PublishStatus>>>,
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
    Shutdown {
        deadline: Duration,
    },
}

/// Report of a worker or a link to the driver.
pub(super) enum Completion {
    /// Inputs of the protocol, in order.
    Inputs(Vec<Input>),
    /// A link that a transport opened.
    Linked { raw: RawLink, dial: Option<DialId> },
}

/// Transaction to be signed and published.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) header: Header,
    pub(super) payload: Bytes,
    /// Entry of the outbox whose place this transaction takes.
    pub(super) renews: Option<TransactionId>,
    pub(super) reply: oneshot::Sender<PublishAnswer>,
}

/// Signed transaction to be published.
#[derive(Debug)]
pub(super) struct SignedDraft {
    pub(super) transaction: Transaction,
    /// Entry of the outbox whose place this transaction takes.
    pub(super) renews: Option<TransactionId>,
    pub(super) reply: oneshot::Sender<PublishAnswer>,
}

/// Answer to a publish.
pub(super) type PublishAnswer = Result<Published, Unpublished>;

/// A transaction that outbox and log have.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) id: TransactionId,
    /// True: this call published the transaction, and not an earlier one.
    pub(super) is_new: bool,
    pub(super) status: watch::Receiver<PublishStatus>,
}

/// Reason for which there is no receipt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unpublished {
    Refused(PublishRefusal),
    /// The node ended before the store had answered.
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
