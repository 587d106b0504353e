//! Pipes: what two ends of a virtual link know and what is on its way between them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::{LinkId, Message, TransactionId};

/// Bytes that may be on their way in one direction before the sender has to wait, as TCP does.
pub(super) const WINDOW: usize = 1 << 20;
/// Most that one frame carries, beyond its first message.
const FRAME: usize = 256 * 1024;
/// What a frame costs besides its messages: gRPC, HTTP/2, TLS.
const FRAME_OVERHEAD: usize = 40;

/// One end of a pipe.
#[derive(Debug)]
pub(super) struct End {
    pub(super) node: usize,
    pub(super) boot: u64,
    pub(super) link: LinkId,
    /// Whether the node was told of it and has not closed it.
    pub(super) open: bool,
    /// Closed by its node; what is queued still leaves.
    pub(super) closing: bool,
    /// Messages with their weight; `None` for what its node believes to send.
    pub(super) queue: VecDeque<(usize, Option<Message>)>,
    /// Whether it waits for its turn at the uplink.
    pub(super) ready: bool,
    /// Bytes on their way to the other end.
    pub(super) in_flight: usize,
    /// When the latest frame to this end arrives: frames do not overtake each other.
    pub(super) last_arrival: Duration,
    /// What a partition holds back from this end.
    pub(super) held: VecDeque<Arrival>,
}

impl End {
    pub(super) fn new(node: usize, boot: u64, link: LinkId) -> Self {
        Self {
            node,
            boot,
            link,
            open: false,
            closing: false,
            queue: VecDeque::new(),
            ready: false,
            in_flight: 0,
            last_arrival: Duration::ZERO,
            held: VecDeque::new(),
        }
    }

    /// Takes what the next frame carries.
    pub(super) fn next_frame(&mut self, batching: bool) -> Option<Frame> {
        let (mut weight, first) = self.queue.pop_front()?;
        let mut messages: Vec<_> = first.into_iter().collect();
        while batching
            && let Some((next, _)) = self.queue.front()
            && weight + next <= FRAME
            && let Some((next, message)) = self.queue.pop_front()
        {
            weight += next;
            messages.extend(message);
        }
        Some(Frame { messages, weight, bytes: weight + FRAME_OVERHEAD })
    }
}

/// Messages that travel together.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) messages: Vec<Message>,
    pub(super) weight: usize,
    pub(super) bytes: usize,
}

impl Frame {
    /// Payload bytes in it.
    pub(super) fn payload(&self) -> usize {
        self.messages.iter().map(payload_of).sum()
    }
}

fn payload_of(message: &Message) -> usize {
    match message {
        Message::Push { transaction, .. } => transaction.payload().len(),
        Message::Piece(piece) => piece.bytes.len(),
        _ => 0,
    }
}

/// The transaction whose payload a message carries.
pub(super) fn carries(message: &Message) -> Option<TransactionId> {
    match message {
        Message::Push { transaction, .. } => Some(transaction.id()),
        Message::Piece(piece) => Some(piece.id),
        _ => None,
    }
}

/// What comes out at an end.
#[derive(Debug)]
pub(super) enum Arrival {
    Frame(Frame),
    Ended,
}

/// A virtual link; `ends[0]` dialled.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) ends: [End; 2],
    /// Broken: whatever is on its way is lost.
    pub(super) broken: bool,
}
