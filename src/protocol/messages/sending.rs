//! Bodies on their way out: part by part, each in turn, as the link takes them.
//!
//! Tested by: `protocol::tests::messages`, `sim::tests::messages`.

use std::time::Duration;

use bytes::Bytes;

use crate::protocol::Protocol;
use crate::types::{LinkId, Message, PIECE_BYTES, ResponseStatus};

/// A body that is being sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) id: u64,
    /// True: it is the answer to a request of the peer.
    pub(super) of_answer: bool,
    body: Bytes,
    /// Number of bytes that were handed out; `None` before the message that begins it was.
    sent: Option<usize>,
}

impl Sending {
    pub(super) fn new(id: u64, of_answer: bool, body: Bytes) -> Self {
        Self { id, of_answer, body, sent: None }
    }

    /// Takes the next part; the flag says that it is the first.
    fn next(&mut self) -> (Bytes, bool) {
        let (at, len) = (self.sent.unwrap_or(0), self.next_len());
        let is_first = self.sent.is_none();
        self.sent = Some(at + len);
        (self.body.slice(at..at + len), is_first)
    }

    fn next_len(&self) -> usize {
        (self.body.len() - self.sent.unwrap_or(0)).min(PIECE_BYTES)
    }

    fn is_over(&self) -> bool {
        self.sent == Some(self.body.len())
    }
}

impl Protocol {
    /// Sends bodies that wait on a link, as far as there is room; `true` when some was handed out.
    pub(in crate::protocol) fn send_bodies(&mut self, link: LinkId) -> bool {
        let mut some = false;
        while let Some(bytes) = self.next_part(link) {
            if !self.has_room_for_part(link, bytes) {
                break;
            }
            self.send_part(link);
            some = true;
        }
        some
    }

    fn next_part(&mut self, link: LinkId) -> Option<usize> {
        self.links.up(link)?.messages.queue.front().map(Sending::next_len)
    }

    fn has_room_for_part(&mut self, link: LinkId, bytes: usize) -> bool {
        let queued = self.links.all.get(&link).map_or(0, |l| l.queued_bytes);
        (queued == 0 || queued + bytes <= PIECE_BYTES) && self.takes_piece(link, bytes)
    }

    /// Sends the next part of the body whose turn it is.
    fn send_part(&mut self, link: LinkId) {
        let Some(up) = self.links.up(link) else { return };
        let Some(mut sending) = up.messages.queue.pop_front() else { return };
        let (part, is_first) = sending.next();
        let (id, of_answer, size) = (sending.id, sending.of_answer, sending.body.len() as u64);
        let is_over = sending.is_over();
        if !is_over {
            up.messages.queue.push_back(sending);
        }
        let message = match (is_first, of_answer) {
            (false, _) => Message::BodyPart { id, of_answer, data: part },
            (true, true) => {
                let (status, reason) = (ResponseStatus::Done, String::new());
                Message::Response { id, status, size, body: part, reason }
            }
            (true, false) => {
                let Some((protocol, trace, left)) = self.note_sent(link, id) else { return };
                let timeout_ms = millis(left);
                Message::Request { id, protocol, size, timeout_ms, body: part, trace }
            }
        };
        self.send(link, message);
        if is_over && of_answer {
            self.forget_received((link, id));
        } else if is_over {
            self.note_body_sent(link, id, size);
        }
    }

    /// Takes a body that is no longer wanted out of what is being sent on a link.
    pub(super) fn stop_sending(&mut self, link: LinkId, id: u64, of_answer: bool) {
        if let Some(up) = self.links.up(link) {
            up.messages.queue.retain(|s| (s.id, s.of_answer) != (id, of_answer));
        }
    }
}

/// Returns a time in whole milliseconds, none of them 0: that is what says nothing.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}
