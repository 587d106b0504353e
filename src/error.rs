//! Every public error. One enum per operation; each variant says what happened, whether any state
//! changed, and whether a retry is of use.
//!
//! The text of an error is whole: `{error}` says what failed and then each cause, from the outermost
//! to the innermost, joined by `: `, and each once. So `cannot listen on 0.0.0.0:80: Permission denied
//! (os error 13)` is what a host sees that prints the error and nothing else. In return
//! [`Error::source`] of these errors gives nothing: a reporter that walks the chain would say a cause
//! twice. A cause that a program wants to look at stands in the public field `source`, as the
//! [`std::io::Error`] in [`IdentityError::Io`] and the box in [`StoreError`].
//!
//! ```
//! use std::error::Error;
//! use sorcha_peer::error::{StoreError, StoreErrorKind};
//!
//! let cause = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
//! let error = StoreError::with_source(StoreErrorKind::Io, "cannot open data/LOCK", cause);
//! assert_eq!(error.to_string(), "storage io: cannot open data/LOCK: permission denied");
//! assert!(error.source().is_none());
//! let cause = error.source.as_ref().and_then(|source| source.downcast_ref::<std::io::Error>());
//! assert_eq!(cause.map(|cause| cause.kind()), Some(std::io::ErrorKind::PermissionDenied));
//! ```

mod peer_test;
mod request;
mod start;

use std::error::Error;
use std::fmt;
use std::time::Duration;

pub use self::peer_test::TestError;
pub use self::request::RequestError;
pub use self::start::{ConfigError, IdentityError, StartError};
pub use crate::types::errors::{EndpointError, FailureKind, InvalidTransaction, ParseIdError};
use crate::types::{Cursor, PeerId, Refusal, TransactionId, WallTime};

/// Maximum number of characters that one cause takes up in the text of an error.
const MAX_CAUSE_CHARS: usize = 1024;

/// Cause of an error of a port: whatever the adapter had.
#[cfg(feature = "sqlite")]
pub(crate) type Source = Box<dyn Error + Send + Sync>;

/// Reason why a transport operation failed.
#[derive(Debug, thiserror::Error)]
#[error("{}", whole(message, cause(r#source.as_deref())))]
#[non_exhaustive]
pub struct TransportError {
    /// The kind of failure: what the node decides by.
    pub kind: FailureKind,
    /// The description of what happened, for people, without its cause.
    pub message: String,
    /// The cause, where there is one.
    pub r#source: Option<Box<dyn Error + Send + Sync>>,
}

impl TransportError {
    /// An error without a source.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// An error with what lay under it.
    pub fn with_source(
        kind: FailureKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }
}

/// Kind of a failure of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The disk or quota is full. Nothing was stored; a retry helps once there is room.
    Full,
    /// The file is damaged and was left as it is; a retry is of no use.
    Corrupt,
    /// Another process holds the store. Nothing was changed.
    Locked,
    /// The file was written by a newer version, and was left as it is.
    Version,
    /// Anything else the operating system or database said. Nothing was stored.
    Io,
    /// The store was closed.
    Closed,
}

impl StoreErrorKind {
    /// The name used in events, logs and statistics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Corrupt => "corrupt",
            Self::Locked => "locked",
            Self::Version => "version",
            Self::Io => "io",
            Self::Closed => "closed",
        }
    }
}

/// Reason why a storage operation failed. The operation had no effect.
#[derive(Debug, thiserror::Error)]
#[error("storage {}: {}", kind.as_str(), self.reason())]
#[non_exhaustive]
pub struct StoreError {
    /// The kind of failure: what the node decides by.
    pub kind: StoreErrorKind,
    /// The description of what happened, for people, without its cause.
    pub message: String,
    /// The cause, where there is one.
    pub r#source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error without a source.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// An error with what lay under it.
    pub fn with_source(
        kind: StoreErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// Returns what happened and its causes, without the kind.
    pub(crate) fn reason(&self) -> String {
        whole(&self.message, cause(self.source.as_deref()))
    }
}

/// Reason why a prober has no answer. A retry later may help.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct ProbeError {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The description of what happened and why, for people.
    pub message: String,
}

impl ProbeError {
    /// An error of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Reason why a transaction was not accepted. Nothing was stored or sent, except where a variant says
/// otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The payload is above the configured maximum; no retry helps.
    #[error(
        "payload of {size} bytes is above the maximum of {limit} (gossip.max_transaction_size)"
    )]
    TooLarge {
        /// Number of bytes in the payload.
        size: u64,
        /// Configured maximum, in bytes.
        limit: u64,
    },
    /// The topic name is not acceptable; no retry helps.
    #[error(transparent)]
    Topic(#[from] ParseIdError),
    /// The text is no `traceparent` of W3C; no retry helps.
    #[error(
        "a traceparent is a version, 32, 16 and 2 hexadecimal digits in lower case, joined by dashes"
    )]
    InvalidTraceparent,
    /// A prepared transaction that is not of this node, or was changed; no retry helps.
    #[error("not a transaction of this node: {0}")]
    Invalid(InvalidTransaction),
    /// A prepared transaction that lives no more, or not yet by this node's clock; prepare it anew.
    #[error("it expired at {expires}")]
    Expired {
        /// The end of its life, by its header and the retention.
        expires: WallTime,
    },
    /// More payloads at once than `PeerNode::publish_many` takes; hand them over
    /// in parts.
    #[error("more than {max_count} payloads at once, or more than {max_bytes} bytes together")]
    TooMany {
        /// Maximum number of payloads.
        max_count: usize,
        /// Maximum number of bytes of all payloads together.
        max_bytes: usize,
    },
    /// The node's own validator did not accept the transaction, or one of those that were published
    /// together. A retry helps where the validator would decide differently by then.
    #[error("the node's own validator {}", if *reason == Refusal::Rejected { "rejected it" } else { "ignored it" })]
    NotValid {
        /// [`Refusal::Rejected`], or [`Refusal::Ignored`]: also where the validator did not answer
        /// within 10 s, or panicked.
        reason: Refusal,
    },
    /// Too many own transactions wait for copies or are dead letters; a retry helps once some are
    /// confirmed, or dead letters were deleted. Of those that were published together all count.
    #[error(
        "the outbox is full: {limit} transactions (outbox.max_entries) wait for copies or are dead \
         letters"
    )]
    QueueFull {
        /// Configured capacity, in entries.
        limit: u32,
    },
    /// Own transactions have their share of the store (`gossip.max_origin_share`); a retry helps
    /// once some have expired.
    #[error(
        "own transactions take up {used} bytes of the store, their share is {limit} \
         (gossip.max_origin_share)"
    )]
    OverShare {
        /// Bytes that they take up.
        used: u64,
        /// Bytes that they may.
        limit: u64,
    },
    /// Own transactions are as many as `gossip.max_origin_rate` allows; a retry helps once some
    /// have expired.
    #[error(
        "{used} own transactions are retained, the rate allows {limit} (gossip.max_origin_rate)"
    )]
    OverRate {
        /// Own transactions that are retained.
        used: u64,
        /// Number that may be: what the rate makes in the retention.
        limit: u64,
    },
    /// The store refused; see its kind.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node is shutting down or gone; no retry helps.
    #[error("the node is shut down")]
    Closed,
    /// The store had the transaction and did not answer: the node ended, or no step of the store has
    /// ended for 4 s, as on a disk that hangs. The transaction may be stored; then it is delivered and
    /// spread once the store goes on, or by the next start. Publishing the same again may make two of it,
    /// except with `PeerNode::publish_prepared`.
    #[error("the store has not answered in time; the transaction may have been stored")]
    Unsettled,
}

/// Reason why a published transaction was not confirmed as often as was waited for. The transaction
/// stays accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicationError {
    /// The transaction is a dead letter now, listed by `dead_letters`; waiting again helps once it
    /// was redelivered.
    #[error("given up: {reason}")]
    DeadLetter {
        /// Reason why the transaction did not spread, in words.
        reason: String,
    },
    /// The transaction was confirmed in an earlier run, or long ago, and copies beyond the first
    /// are no longer counted; no retry helps.
    #[error("confirmed long ago: at least one other node has stored it, more are not counted")]
    NotCounted,
    /// The node is shut down; the transaction stays in its outbox.
    #[error("the node is shut down")]
    Closed,
}

/// Reason why dead letters were not listed, or one was not deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// There is no dead letter of this id: it was never one, was deleted, or was taken back by the
    /// host or by a peer that confirmed it. Nothing changed; no retry helps.
    #[error("no dead letter {id}")]
    NotFound {
        /// Id that was asked for.
        id: TransactionId,
    },
    /// The outbox could not be read or written; see its kind. Nothing changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node is shut down; dead letters stay in its outbox.
    #[error("the node is shut down")]
    Closed,
}

/// Reason why a dead letter was not redelivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedeliverError {
    /// There is no dead letter of this id. Nothing changed; no retry helps.
    #[error("no dead letter {id}")]
    NotFound {
        /// Id that was asked for.
        id: TransactionId,
    },
    /// The dead letter has expired and could not be published anew; a full outbox, for instance,
    /// counts its dead letters too. The transaction is still a dead letter.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The outbox could not be read; see its kind. Nothing changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node is shut down; dead letters stay in its outbox.
    #[error("the node is shut down")]
    Closed,
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<StoreError> for BanError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<NodeClosed> for DeadLetterError {
    fn from(_: NodeClosed) -> Self {
        Self::Closed
    }
}

impl From<NodeClosed> for RedeliverError {
    fn from(_: NodeClosed) -> Self {
        Self::Closed
    }
}

impl From<DeadLetterError> for RedeliverError {
    fn from(error: DeadLetterError) -> Self {
        match error {
            DeadLetterError::NotFound { id } => Self::NotFound { id },
            DeadLetterError::Store(error) => Self::Store(error),
            DeadLetterError::Closed => Self::Closed,
        }
    }
}

/// Reason why a subscription was not made or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The topic name is not acceptable; no retry helps.
    #[error(transparent)]
    Topic(#[from] ParseIdError),
    /// The cursor was not given out by this node's log: it is another node's, or the log was
    /// replaced. Nothing changed; no retry helps.
    #[error("cursor {cursor} was not given out here; the newest is {newest}")]
    Cursor {
        /// The cursor asked for, or kept under the name.
        cursor: Cursor,
        /// The newest of this log.
        newest: Cursor,
    },
    /// The name of a durable subscription is empty or too long; no retry helps.
    #[error("a subscription's name has {length} bytes, allowed is 1 to {max}")]
    Name {
        /// Number of bytes in the name.
        length: usize,
        /// Maximum number of bytes.
        max: usize,
    },
    /// Another subscription of this node has the name; a retry helps once it is dropped.
    #[error("the durable subscription {name:?} is in use")]
    InUse {
        /// Name of the durable subscription.
        name: String,
    },
    /// The store could not be read; a retry may help.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node is shut down.
    #[error("the node is shut down")]
    Closed,
}

/// Reason why a delivery was not acknowledged. Nothing was saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// Cursor beyond what was delivered; no retry helps.
    #[error("cursor {cursor} was not delivered yet; the last is {delivered}")]
    NotDelivered {
        /// The cursor to be acknowledged.
        cursor: Cursor,
        /// The last that was delivered.
        delivered: Cursor,
    },
    /// The store failed; a retry may help.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reason why a ban, or that one was lifted, was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BanError {
    /// The ban could not be written; see the kind of the error. The ban holds in this process, and
    /// is written as soon as that works; a restart before then forgets it.
    #[error("not kept for the next start: {0}")]
    Store(StoreError),
    /// The id is that of the node itself; nothing changed, and no retry helps.
    #[error("a node cannot ban itself")]
    Itself,
    /// The node is shut down; the ban may have been kept.
    #[error("the node is shut down")]
    Closed,
}

/// Reason why a peer could not be connected. Nothing changed, and the address is not remembered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address does not parse; no retry helps.
    #[error(transparent)]
    Address(#[from] EndpointError),
    /// The transport failed; see its kind.
    #[error("{}", naming(&format!("cannot reach {address}"), address, reason))]
    Dial {
        /// The address that was dialled.
        address: String,
        /// The kind of failure.
        kind: FailureKind,
        /// The text of the transport's error, for people.
        reason: String,
    },
    /// The link was refused by one side.
    #[error("refused: {0}")]
    Refused(crate::types::CloseReason),
    /// Nothing was dialled: nobody answered there `connection.breaker_threshold` times in a row, by any
    /// transport. It is tried again later; `PeerNode::reset_breaker` lets it be tried at once.
    #[error("{address} did not answer lately; it is tried again in {} s", retry_in.as_secs() + 1)]
    BreakerOpen {
        /// The address that was to be dialled.
        address: String,
        /// Time until a call dials again, as far as is known.
        retry_in: Duration,
    },
    /// The node is shut down.
    #[error("the node is shut down")]
    Closed,
}

/// Reason why the node is not ready, or cannot invite. The node goes on trying.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// Too few links in the time allowed.
    #[error("{links} of {wanted} links after {waited:?}; {hint}")]
    Timeout {
        /// Number of links that are up.
        links: u32,
        /// Number of links asked for.
        wanted: u32,
        /// Time that was waited.
        waited: Duration,
        /// The most recent thing that went wrong, or what to configure.
        hint: String,
    },
    /// The node listens nowhere and advertises nothing, so that an invite would name no address.
    #[error("nobody can dial this node: listen, or set listen.advertise")]
    NoAddress,
    /// The node is shut down.
    #[error("the node is shut down")]
    Closed,
}

/// Error of a call on a node that is shut down. What was published stays in its outbox; no retry helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is shut down")]
pub struct NodeClosed;

/// Report of a shutdown: what it left undone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Own transactions that fewer than `min_copies` peers confirmed. The outbox has them, and they
    /// go on from there with the next start, where the outbox outlives the process.
    pub unconfirmed: Vec<TransactionId>,
    /// Peers that had not taken all that waited for them when the deadline came; they fetch it from others,
    /// or when this node is back.
    pub undrained: Vec<PeerId>,
}

/// Returns `message` and every cause from `first` on, joined by `: `. A cause whose words stand there
/// already is left out: many errors say what their own source says.
fn whole(message: &str, first: Option<&(dyn Error + 'static)>) -> String {
    let mut text = message.to_owned();
    for cause in std::iter::successors(first, |cause| (*cause).source()) {
        let words = printable(&cause.to_string());
        if !text.contains(&words) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&words);
        }
    }
    text
}

/// Returns the words of a cause as one line of bounded length: some of them come from a peer.
fn printable(words: &str) -> String {
    let mut line = String::new();
    for (at, character) in words.chars().enumerate() {
        if at == MAX_CAUSE_CHARS {
            line.push('…');
            break;
        }
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

fn cause<'a>(
    source: Option<&'a (dyn Error + Send + Sync + 'static)>,
) -> Option<&'a (dyn Error + 'static)> {
    source.map(|source| source as _)
}

/// Returns `reason` where it names the address by itself, and what failed and the reason elsewhere:
/// transports of the host's own say what they like.
pub(crate) fn naming(
    failed: &str,
    address: &impl fmt::Display,
    reason: &impl fmt::Display,
) -> String {
    let reason = reason.to_string();
    if reason.contains(&address.to_string()) { reason } else { format!("{failed}: {reason}") }
}

#[cfg(test)]
mod tests;
