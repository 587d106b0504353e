//! The stream of messages both ways.
//!
//! Contract: messages are taken in order and answered in that order; at most [`MAX_UNANSWERED`] at
//! a time, and, beyond the first, of [`MAX_UNANSWERED_BYTES`] in all. Each is answered in a task of
//! its own, at most [`MAX_AT_ONCE`] of them, since a body that the client does not read is not
//! polled and whatever it had begun would hold what others wait for. Answers wait for the client to
//! read them, and while those hold as much, none but the next is begun. Nothing is read while the
//! client does not read, and none while others of its address leave no room, as long as there is
//! one to be answered. A message or an answer that is refused ends the stream with the status of
//! that refusal, and so do ten minutes without one. After the last message the answers are sent
//! that are due.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::FutureExt;
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::incoming::{Admission, Incoming, malformed};
use super::outgoing::{Deadline, Messages, encode};
use super::status::status_of;
use super::{MAX_IDLE, too_late, too_quiet};
use crate::compat::limits::Permit;
use crate::compat::ops::{Ops, Refusal};
use crate::transport::Visitor;
use crate::wire::generated::communication::PeerMessage;

/// Maximum number of messages that are not answered yet.
pub(super) const MAX_UNANSWERED: usize = 64;
/// Maximum number of messages that are being answered.
const MAX_AT_ONCE: usize = 4;
/// Maximum number of bytes of those, beyond the first.
const MAX_UNANSWERED_BYTES: usize = 1024 * 1024;

/// Answers of a stream.
pub(super) struct Conversation {
    ops: Ops,
    visitor: Visitor,
    /// None after the last message.
    incoming: Option<Incoming>,
    unanswered: VecDeque<Work>,
    /// Place of the message that is coming.
    coming: Option<Permit>,
    /// Number of bytes of messages that are not answered.
    bytes: usize,
    /// Number of bytes of answers that are not read.
    made: usize,
    idle: Pin<Box<Sleep>>,
    deadline: Deadline,
    _permit: Permit,
}

/// A message that is not answered yet.
struct Work {
    bytes: usize,
    answer: Answering,
}

/// Result of a message: the answer if there is one, and its place, which is kept until the client reads the answer.
type Answered = (Result<Option<Bytes>, Status>, Option<Permit>);

enum Answering {
    Waiting(Box<PeerMessage>, Option<Permit>),
    Begun(Task),
    Done(Answered),
}

/// Task that ends with what waits for it.
struct Task(JoinHandle<Answered>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Work {
    /// Number of bytes of an answer that is there.
    fn made(&self) -> usize {
        match &self.answer {
            Answering::Done((Ok(Some(answer)), _)) => answer.len(),
            _ => 0,
        }
    }
}

/// Lets the messages of a stream in, each with a place of its own.
struct EachApart<'a> {
    ops: &'a Ops,
    visitor: Visitor,
    coming: &'a mut Option<Permit>,
    /// The last refusal was for want of room.
    is_busy: bool,
}

impl EachApart<'_> {
    fn note<T>(&mut self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        self.is_busy = matches!(result, Err(Refusal::Busy { .. }));
        result
    }
}

impl Admission for EachApart<'_> {
    fn begin(&mut self) -> Result<(), Refusal> {
        let admitted = self.ops.admit(&self.visitor, 0);
        *self.coming = Some(self.note(admitted)?);
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        let grown = self.coming.as_mut().map_or(Ok(()), |permit| permit.grow(bytes));
        self.note(grown)
    }
}

impl Conversation {
    pub(super) fn new(
        ops: Ops,
        visitor: Visitor,
        incoming: Incoming,
        permit: Permit,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            ops,
            visitor,
            incoming: Some(incoming),
            unanswered: VecDeque::new(),
            coming: None,
            bytes: 0,
            made: 0,
            idle: Box::pin(sleep(MAX_IDLE)),
            deadline: Deadline::new(deadline),
            _permit: permit,
        }
    }

    /// Takes messages while there is room for them, and begins to answer them.
    fn take(&mut self, cx: &mut Context<'_>) {
        while let Some(incoming) = &mut self.incoming
            && self.unanswered.len() < MAX_UNANSWERED
            && (self.bytes.max(self.made) < MAX_UNANSWERED_BYTES || self.unanswered.is_empty())
        {
            let (ops, visitor) = (&self.ops, self.visitor);
            let mut each = EachApart { ops, visitor, coming: &mut self.coming, is_busy: false };
            let read = incoming.poll_message(cx, &mut each);
            let is_busy = each.is_busy;
            let (bytes, answer) = match read {
                Poll::Pending => return,
                Poll::Ready(Ok(None)) => {
                    self.incoming = None;
                    return;
                }
                // Each answer that is read makes room.
                Poll::Ready(Err(_)) if is_busy && !self.unanswered.is_empty() => return,
                Poll::Ready(Err(status)) => {
                    self.incoming = None;
                    (0, Answering::Done((Err(status), None)))
                }
                Poll::Ready(Ok(Some(bytes))) => {
                    self.idle.as_mut().reset(Instant::now() + MAX_IDLE);
                    let size = bytes.len();
                    let answer = match PeerMessage::decode(bytes) {
                        Ok(message) => Answering::Waiting(Box::new(message), self.coming.take()),
                        Err(_) => Answering::Done((Err(malformed()), None)),
                    };
                    (size, answer)
                }
            };
            self.bytes += bytes;
            self.unanswered.push_back(Work { bytes, answer });
            self.work(cx);
        }
    }

    /// Takes what is answered, and begins more.
    fn work(&mut self, cx: &mut Context<'_>) {
        let mut begun = 0;
        for (nth, work) in self.unanswered.iter_mut().enumerate() {
            let has_room = nth == 0 || self.made < MAX_UNANSWERED_BYTES;
            if let Answering::Waiting(message, permit) = &mut work.answer
                && begun < MAX_AT_ONCE
                && has_room
            {
                let (message, permit) = (std::mem::take(&mut **message), permit.take());
                let task = answer(self.ops.clone(), self.visitor, message, permit);
                work.answer = Answering::Begun(Task(tokio::spawn(task)));
            }
            let Answering::Begun(task) = &mut work.answer else { continue };
            match task.0.poll_unpin(cx) {
                Poll::Pending => begun += 1,
                Poll::Ready(done) => {
                    let failed = |_| (Err(Status::unavailable("there is no answer")), None);
                    work.answer = Answering::Done(done.unwrap_or_else(failed));
                    self.made += work.made();
                }
            }
        }
    }
}

/// Answers a message, and counts the answer.
async fn answer(
    ops: Ops,
    visitor: Visitor,
    message: PeerMessage,
    mut permit: Option<Permit>,
) -> Answered {
    let answered = ops.on_stream_message(&visitor, message).await.and_then(|answer| {
        let answer = answer.map(|answer| encode(&answer));
        if let (Some(answer), Some(permit)) = (&answer, &mut permit) {
            permit.grow(answer.len() as u64)?;
        }
        Ok(answer)
    });
    (answered.map_err(status_of), permit)
}

impl Messages for Conversation {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if self.deadline.is_over(cx) {
            return Poll::Ready(Some(Err(too_late())));
        }
        loop {
            self.work(cx);
            self.take(cx);
            let is_done = |work: &Work| matches!(work.answer, Answering::Done(_));
            if self.unanswered.front().is_some_and(|work| !is_done(work)) {
                return Poll::Pending;
            }
            let Some(work) = self.unanswered.pop_front() else { break };
            self.bytes -= work.bytes;
            self.made -= work.made();
            if let Answering::Done((done, _permit)) = work.answer
                && let Some(answer) = done.transpose()
            {
                return Poll::Ready(Some(answer));
            }
        }
        if self.incoming.is_none() {
            return Poll::Ready(None);
        }
        ready!(self.idle.poll_unpin(cx));
        Poll::Ready(Some(Err(too_quiet())))
    }
}
