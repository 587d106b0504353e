//! Whole frames.

use std::collections::VecDeque;

use bytes::Bytes;

use super::WireError;
use super::decode;
use super::encode::{self, Body};
use super::fields::Fields;
use crate::types::{
    MAX_FRAME_BYTES, MAX_IDS_PER_MESSAGE, MAX_MESSAGES_PER_FRAME, MAX_RECORDS_PER_MESSAGE, Message,
};

/// Encodes `messages` as one frame, as they are: neither merged nor checked against the limits,
/// which [`FrameEncoder`] does.
pub fn encode_frame(messages: &[Message]) -> Bytes {
    let total = messages.iter().map(|m| encode::field_len(m.len())).sum();
    let mut out = Vec::with_capacity(total);
    for message in messages {
        encode::entry(&mut out, message.len(), message);
    }
    Bytes::from(out)
}

/// Decodes a frame. Payloads and pieces that make up most of the frame share its memory, all else
/// is copied out of it. Unknown fields and message kinds are skipped.
///
/// # Errors
/// [`WireError`] naming the first thing that is wrong; nothing of the frame is usable then.
/// Everything that could be large is checked before memory is taken for it.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a frame is given up: what is decoded shares its memory"
)]
pub fn decode_frame(frame: Bytes) -> Result<Vec<Message>, WireError> {
    WireError::bound("frame (bytes)", frame.len(), MAX_FRAME_BYTES)?;
    let mut count = 0;
    for field in Fields(&frame) {
        count += usize::from(field?.0 == 1);
    }
    WireError::bound("messages", count, MAX_MESSAGES_PER_FRAME)?;
    let mut messages = Vec::with_capacity(count);
    for field in Fields(&frame) {
        if let (1, value) = field? {
            messages.extend(decode::message(&frame, value.bytes("messages")?)?);
        }
    }
    Ok(messages)
}

/// A frame made from the front of a queue.
#[derive(Debug)]
pub struct Encoded {
    /// The frame.
    pub frame: Bytes,
    /// Messages that are no longer in the queue.
    pub messages: usize,
    /// Amount by which the queue's total [`Message::weight`] went down.
    pub weight: usize,
}

/// Makes frames from a queue of messages; keeps its scratch memory between them.
#[derive(Debug, Default)]
pub struct FrameEncoder {
    batch: Vec<Message>,
    lengths: Vec<usize>,
}

impl FrameEncoder {
    /// Makes an encoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes messages from the front of `queue`, in order, until the frame has `budget` bytes (at most
    /// [`RawLink::MAX_FRAME_BYTES`](crate::ports::RawLink::MAX_FRAME_BYTES)) or the queue is empty. At
    /// least one message is taken, however large, as long as it fits a frame at all. Neighbours of one
    /// kind are merged into one message, and a list above its limit is split.
    ///
    /// `None` when the queue is empty.
    ///
    /// # Errors
    /// [`WireError::Limit`] when the first message fits no frame. It is gone from the queue; the
    /// next call goes on behind it.
    pub fn encode_next(
        &mut self,
        queue: &mut VecDeque<Message>,
        budget: usize,
    ) -> Result<Option<Encoded>, WireError> {
        let budget = budget.min(MAX_FRAME_BYTES);
        let (mut messages, mut weight, mut size) = (0, 0, 0);
        while self.batch.len() < MAX_MESSAGES_PER_FRAME
            && let Some(mut message) = queue.pop_front()
        {
            let first = self.batch.is_empty();
            if !first && is_over_limit(&message) {
                // It is split at the start of the next frame, so that a list is never cut twice.
                queue.push_front(message);
                break;
            }
            let before = message.weight();
            let rest = split_excess(&mut message);
            // Merging only makes a frame smaller, so the sum of the parts is on the safe side.
            let length = encode::field_len(message.len());
            if first {
                WireError::bound("frame (bytes)", length, MAX_FRAME_BYTES)?;
            } else if size + length > budget {
                queue.push_front(message);
                break;
            }
            size += length;
            match rest {
                None => {
                    messages += 1;
                    weight += before;
                }
                Some(rest) => {
                    weight += before - rest.weight();
                    queue.push_front(rest);
                }
            }
            let merged = self.batch.last_mut().is_some_and(|last| absorb(last, &mut message));
            if !merged {
                self.batch.push(message);
            }
        }
        if self.batch.is_empty() {
            return Ok(None);
        }
        let frame = self.write();
        Ok(Some(Encoded { frame, messages, weight }))
    }

    fn write(&mut self) -> Bytes {
        self.lengths.clear();
        self.lengths.extend(self.batch.iter().map(Body::len));
        let total = self.lengths.iter().map(|body| encode::field_len(*body)).sum();
        let mut out = Vec::with_capacity(total);
        for (message, body) in self.batch.iter().zip(&self.lengths) {
            encode::entry(&mut out, *body, message);
        }
        debug_assert_eq!(out.len(), total);
        self.batch.clear();
        Bytes::from(out)
    }
}

fn is_over_limit(message: &Message) -> bool {
    match message {
        Message::Peers { records, .. } => records.len() > MAX_RECORDS_PER_MESSAGE,
        Message::Announce(list) => list.len() > MAX_IDS_PER_MESSAGE,
        Message::Want(list)
        | Message::Missing(list)
        | Message::Duplicate(list)
        | Message::Early(list)
        | Message::Stored(list)
        | Message::Busy(list) => list.len() > MAX_IDS_PER_MESSAGE,
        Message::Refused { list, .. } => list.len() > MAX_IDS_PER_MESSAGE,
        _ => false,
    }
}

/// Cuts a list down to its limit; what was beyond it is returned.
fn split_excess(message: &mut Message) -> Option<Message> {
    const IDS: usize = MAX_IDS_PER_MESSAGE;
    if !is_over_limit(message) {
        return None;
    }
    match message {
        Message::Peers { records, relays } => {
            let records = records.split_off(MAX_RECORDS_PER_MESSAGE);
            let most = u32::try_from(MAX_RECORDS_PER_MESSAGE).unwrap_or(u32::MAX);
            let beyond = relays.saturating_sub(most);
            *relays -= beyond;
            Some(Message::Peers { records, relays: beyond })
        }
        Message::Announce(list) => Some(Message::Announce(list.split_off(IDS))),
        Message::Want(list) => Some(Message::Want(list.split_off(IDS))),
        Message::Missing(list) => Some(Message::Missing(list.split_off(IDS))),
        Message::Duplicate(list) => Some(Message::Duplicate(list.split_off(IDS))),
        Message::Early(list) => Some(Message::Early(list.split_off(IDS))),
        Message::Stored(list) => Some(Message::Stored(list.split_off(IDS))),
        Message::Busy(list) => Some(Message::Busy(list.split_off(IDS))),
        Message::Refused { list, clock } => {
            Some(Message::Refused { list: list.split_off(IDS), clock: *clock })
        }
        _ => None,
    }
}

/// Moves the content of `next` into `last`, where they are of one kind and fit one message.
fn absorb(last: &mut Message, next: &mut Message) -> bool {
    fn join<T>(last: &mut Vec<T>, next: &mut Vec<T>) -> bool {
        let fits = last.len() + next.len() <= MAX_IDS_PER_MESSAGE;
        if fits {
            last.append(next);
        }
        fits
    }
    match (last, next) {
        (Message::Announce(last), Message::Announce(next)) => join(last, next),
        (Message::Want(last), Message::Want(next))
        | (Message::Missing(last), Message::Missing(next))
        | (Message::Busy(last), Message::Busy(next))
        | (Message::Duplicate(last), Message::Duplicate(next))
        | (Message::Early(last), Message::Early(next))
        | (Message::Stored(last), Message::Stored(next)) => join(last, next),
        _ => false,
    }
}
