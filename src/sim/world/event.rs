//! What happens in a world, one thing after the other.

use std::net::SocketAddr;

use super::pipe::Frame;
use crate::protocol::{DialId, Input, Judgement, PartialOp, Ticket};
use crate::types::{Endpoint, FailureKind, LinkId, NewEntry, PeerId, TransactionId, TransportKind};

/// Place that a node dials, and whom it expects there.
#[derive(Debug)]
pub(super) struct DialTarget {
    pub(super) endpoint: Endpoint,
    pub(super) rung: TransportKind,
    pub(super) expected: Option<PeerId>,
    pub(super) avoid: Vec<SocketAddr>,
}

/// Event in the future of a world; what is rare or large is boxed, since events are moved often.
#[derive(Debug)]
pub(super) enum Event {
    Wake { node: usize, boot: u64 },
    Dialled { node: usize, boot: u64, dial: DialId, to: Box<DialTarget> },
    DialFailed { node: usize, boot: u64, dial: DialId, reason: FailureKind },
    Opened { pipe: u64, side: usize, dial: Option<DialId> },
    Uplink { node: usize, boot: u64 },
    Sent { node: usize, boot: u64, link: LinkId, weight: usize, bytes: usize },
    Arrived { pipe: u64, side: usize, frame: Frame },
    Ended { pipe: u64, side: usize },
    Cut { pipe: u64 },
    Verified { node: usize, boot: u64, ticket: Ticket, judgement: Judgement },
    Stored { node: usize, boot: u64, ticket: Ticket, entries: Vec<NewEntry> },
    Loaded { node: usize, boot: u64, ticket: Ticket, ids: Vec<TransactionId> },
    Renewed { node: usize, boot: u64, above: u64 },
    Partial { node: usize, boot: u64, op: Box<PartialOp> },
    Completed { node: usize, boot: u64, input: Box<Input> },
    Resume { node: usize, boot: u64 },
}
