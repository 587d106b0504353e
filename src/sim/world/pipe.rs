//! Pipes: what two ends of a virtual link know and what is on its way between them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sim::config::Rung;
use crate::types::{LinkId, Message};

/// Number of bytes from which on a part of a body travels alone.
const BULK: usize = 16 * 1024;

/// Maximum number of bytes on their way in one direction; then the sender waits, as TCP does.
pub(super) const WINDOW: usize = 1 << 20;
/// Maximum number of bytes of a frame of more than one message.
const MAX_FRAME_WEIGHT: usize = 64 * 1024;

/// One end of a pipe.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub(super) struct End {
    pub(super) node: usize,
    pub(super) boot: u64,
    pub(super) link: LinkId,
    /// True: the node was told of this end and has not closed it.
    pub(super) open: bool,
    /// The node is still to be told of it, or that nothing came of it.
    pub(super) opening: bool,
    /// Closed by its node; what is queued still leaves.
    pub(super) closing: bool,
    /// The machine vanished: what is sent here is never acknowledged.
    pub(super) void: bool,
    /// Messages with their weight; `None` for what its node believes to send.
    pub(super) queue: VecDeque<(usize, Option<Message>)>,
    /// Weight at the front of the queue that its node believes to have left.
    buffered: usize,
    /// Weight behind that.
    waiting: usize,
    /// True: the end waits for its turn at the uplink.
    pub(super) ready: bool,
    /// Bytes on their way to the other end.
    pub(super) in_flight: usize,
    /// Bytes of frames that have arrived here, and of those that have left from here.
    pub(super) received: u64,
    pub(super) taken: u64,
    /// Time at which the latest frame to this end arrives: frames do not overtake each other.
    pub(super) last_arrival: Duration,
    /// Arrivals that a partition holds back from this end.
    pub(super) held_back: VecDeque<Arrival>,
}

impl End {
    pub(super) fn new(node: usize, boot: u64, link: LinkId) -> Self {
        Self {
            node,
            boot,
            link,
            open: false,
            opening: true,
            closing: false,
            void: false,
            queue: VecDeque::new(),
            buffered: 0,
            waiting: 0,
            ready: false,
            in_flight: 0,
            received: 0,
            taken: 0,
            last_arrival: Duration::ZERO,
            held_back: VecDeque::new(),
        }
    }

    /// Puts a message into the queue; `None` for what its node believes to send.
    pub(super) fn push(&mut self, weight: usize, message: Option<Message>) {
        self.queue.push_back((weight, message));
        self.waiting += weight;
    }

    /// Takes what fits into buffers of this size; returns its weight.
    pub(super) fn buffer(&mut self, size: usize) -> usize {
        let fits = self.waiting.min(size.saturating_sub(self.buffered));
        self.buffered += fits;
        self.waiting -= fits;
        fits
    }

    /// So much has left; returns the weight that its node does not know of.
    pub(super) fn left(&mut self, weight: usize) -> usize {
        let known = self.buffered.min(weight);
        self.buffered -= known;
        self.waiting -= self.waiting.min(weight - known);
        weight - known
    }

    /// Says whether a piece of a large payload is next.
    pub(super) fn bulk_is_next(&self) -> bool {
        let body = match self.queue.front() {
            Some((_, Some(Message::Piece(_)))) => return true,
            Some((_, Some(Message::Request { body, .. } | Message::Response { body, .. }))) => body,
            Some((_, Some(Message::BodyPart { data, .. }))) => data,
            _ => return false,
        };
        body.len() >= BULK
    }

    /// Takes what the next frame carries. A piece travels alone, so that nothing small has to wait
    /// for the rest of its frame.
    pub(super) fn next_frame(&mut self, batching: bool, overhead: usize) -> Option<Frame> {
        let bulk = self.bulk_is_next();
        let (mut weight, first) = self.queue.pop_front()?;
        let mut messages: Vec<_> = first.into_iter().collect();
        while batching
            && !bulk
            && !self.bulk_is_next()
            && let Some((next, _)) = self.queue.front()
            && weight + next <= MAX_FRAME_WEIGHT
            && let Some((next, message)) = self.queue.pop_front()
        {
            weight += next;
            messages.extend(message);
        }
        Some(Frame { messages, weight, bytes: weight + overhead })
    }
}

/// Messages that travel together.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) messages: Vec<Message>,
    pub(super) weight: usize,
    pub(super) bytes: usize,
}

/// Payload bytes in a message.
pub(super) fn payload_of(message: &Message) -> usize {
    match message {
        Message::Push { transaction, .. } => transaction.payload().len(),
        Message::Piece(piece) => piece.bytes.len(),
        _ => 0,
    }
}

/// Says whether a message opens or closes its link.
pub(super) fn is_framing(message: &Message) -> bool {
    matches!(message, Message::Hello(_) | Message::Goodbye { .. })
}

/// Frame, or start or end of a link, that comes out at an end.
#[derive(Debug)]
pub(super) enum Arrival {
    Frame(Frame),
    Ended,
}

/// A virtual link; `ends[0]` dialled.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) ends: [End; 2],
    pub(super) rung: Rung,
    /// Something in between takes what is sent and passes nothing on.
    pub(super) silent: bool,
    /// Broken: whatever is on its way is lost.
    pub(super) broken: bool,
}

/// All pipes, by number. Numbers start at 1 and are not used again.
#[derive(Debug, Default)]
pub(super) struct Pipes(Vec<Option<Box<Pipe>>>);

impl Pipes {
    /// The number that the next pipe will have.
    pub(super) fn next(&self) -> u64 {
        self.0.len() as u64 + 1
    }

    /// The number of the latest pipe.
    pub(super) fn last(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn add(&mut self, pipe: Pipe) {
        self.0.push(Some(Box::new(pipe)));
    }

    pub(super) fn get(&self, pipe: u64) -> Option<&Pipe> {
        self.0.get(index(pipe)?)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, pipe: u64) -> Option<&mut Pipe> {
        self.0.get_mut(index(pipe)?)?.as_deref_mut()
    }

    pub(super) fn remove(&mut self, pipe: u64) {
        if let Some(slot) = index(pipe).and_then(|at| self.0.get_mut(at)) {
            *slot = None;
        }
    }

    /// Pipes that are there, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Pipe)> {
        let numbered = (1..).zip(&self.0);
        numbered.filter_map(|(number, pipe)| Some((number, pipe.as_deref()?)))
    }
}

fn index(pipe: u64) -> Option<usize> {
    usize::try_from(pipe.checked_sub(1)?).ok()
}
