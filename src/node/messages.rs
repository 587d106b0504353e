//! What handles, driver and workers say to each other.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::{DeadLetterError, StoreError};
use crate::ports::{Ban, RawLink};
use crate::protocol::{ConnectFailure, DialId, Input, PublishRefusal};
use crate::types::{Endpoint, Header, LinkStatus, Mode, PeerId, Stats, Transaction, TransactionId};

use super::handle::Receipt;

/// What a handle asks for.
pub(super) enum Command {
    Connect {
        endpoint: Endpoint,
        reply: oneshot::Sender<Result<PeerId, ConnectFailure>>,
    },
    Disconnect {
        peer: PeerId,
    },
    /// Answered once it is written, or could not be.
    Ban {
        ban: Ban,
        reply: oneshot::Sender<Kept>,
    },
    /// As [`Command::Ban`].
    Unban {
        peer: PeerId,
        reply: oneshot::Sender<Kept>,
    },
    /// Answered once the stored outbox is as the protocol has it.
    SettleOutbox {
        reply: oneshot::Sender<Settled>,
    },
    /// Answered with nothing where it cannot be taken back as it is.
    Redeliver {
        id: TransactionId,
        reply: oneshot::Sender<Option<Receipt>>,
    },
    DropDeadLetter {
        id: TransactionId,
        reply: oneshot::Sender<Settled>,
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

/// What an effect reports.
pub(super) enum Completion {
    /// Inputs, in order.
    Inputs(Vec<Input>),
    /// A transport opened a link.
    Linked { raw: RawLink, dial: Option<DialId> },
}

/// What a publisher waits for: its receipt, and whether the transaction is new.
pub(super) type Published = Result<(Receipt, bool), Unpublished>;

/// Why there is no receipt.
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

/// A transaction to be signed and published.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) header: Header,
    pub(super) payload: Bytes,
    /// The entry of the outbox that it takes the place of.
    pub(super) renews: Option<TransactionId>,
    pub(super) reply: oneshot::Sender<Published>,
}

/// A transaction that is ready, and who waits for its publish.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) transaction: Transaction,
    /// The entry of the outbox that it takes the place of.
    pub(super) renews: Option<TransactionId>,
    pub(super) reply: oneshot::Sender<Published>,
}

/// The answer to a publish that the protocol has taken. Dropped without one, it says that nobody
/// knows: the transaction may be in the hands of the store.
pub(super) struct PublishReply(Option<oneshot::Sender<Published>>);

impl PublishReply {
    pub(super) fn new(reply: oneshot::Sender<Published>) -> Self {
        Self(Some(reply))
    }

    pub(super) fn send(mut self, answer: Published) {
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

/// What became of an operation on the stored outbox.
pub(super) type Settled = Result<(), DeadLetterError>;

/// Whether what the host wants kept is kept.
pub(super) type Kept = Result<(), StoreError>;

/// What changes rarely and is asked often.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) mode: Option<Mode>,
    pub(super) links: u32,
    /// The latest thing that went wrong with a dial.
    pub(super) hint: Option<String>,
}
