//! The stream of messages both ways.
//!
//! Contract: messages are taken in order and answered in that order; at most [`MAX_UNANSWERED`] at a time, and, beyond the
//! first, of [`MAX_UNANSWERED_BYTES`] in all. Nothing is read while the client does not read, and none while others of its address leave
//! no room, as long as there is one to be answered. A message that is refused ends the stream with the status of that
//! refusal, and so do [`MAX_IDLE`] without one. After the last message the answers are sent that are due.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use prost::Message;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::incoming::{Incoming, malformed};
use super::outgoing::{Deadline, Messages, encode};
use super::status::status_of;
use super::too_late;
use crate::compat::limits::Permit;
use crate::compat::ops::{Ops, Refusal};
use crate::transport::Visitor;
use crate::wire::generated::communication::PeerMessage;

/// Maximum number of messages that are not answered yet.
pub(super) const MAX_UNANSWERED: usize = 64;
/// Maximum number of bytes of those, beyond the first.
const MAX_UNANSWERED_BYTES: usize = 1024 * 1024;
/// Time without a message after which the stream ends.
const MAX_IDLE: Duration = Duration::from_mins(10);

/// Answers of a stream.
pub(super) struct Conversation {
    ops: Ops,
    visitor: Visitor,
    /// None after the last message.
    incoming: Option<Incoming>,
    unanswered: VecDeque<Work>,
    bytes: usize,
    idle: Pin<Box<Sleep>>,
    deadline: Deadline,
    _permit: Permit,
}

/// A message that is being answered.
struct Work {
    bytes: usize,
    answer: Answering,
}

enum Answering {
    Pending(BoxFuture<'static, Result<Option<Bytes>, Status>>),
    Done(Result<Option<Bytes>, Status>),
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
            bytes: 0,
            idle: Box::pin(sleep(MAX_IDLE)),
            deadline: Deadline::new(deadline),
            _permit: permit,
        }
    }

    /// Takes messages while there is room for them, and begins to answer them.
    fn take(&mut self, cx: &mut Context<'_>) {
        while let Some(incoming) = &mut self.incoming
            && self.unanswered.len() < MAX_UNANSWERED
            && (self.bytes < MAX_UNANSWERED_BYTES || self.unanswered.is_empty())
        {
            let (mut permit, mut is_busy) = (None, false);
            let (ops, visitor) = (&self.ops, self.visitor);
            let mut admit = |size| {
                let admitted = ops.admit(&visitor, size);
                is_busy = matches!(admitted, Err(Refusal::Busy { .. }));
                permit = Some(admitted?);
                Ok(())
            };
            let (bytes, answer) = match incoming.poll_message(cx, &mut admit) {
                Poll::Pending => return,
                Poll::Ready(Ok(None)) => {
                    self.incoming = None;
                    return;
                }
                // Each answer makes room.
                Poll::Ready(Err(_)) if is_busy && self.is_at_work() => return,
                Poll::Ready(Err(status)) => {
                    self.incoming = None;
                    (0, Answering::Done(Err(status)))
                }
                Poll::Ready(Ok(Some(bytes))) => {
                    self.idle.as_mut().reset(Instant::now() + MAX_IDLE);
                    (bytes.len(), self.answering(bytes, permit))
                }
            };
            self.bytes += bytes;
            self.unanswered.push_back(Work { bytes, answer });
            // Most are answered at once, and need no room any more.
            self.work(cx);
        }
    }

    fn is_at_work(&self) -> bool {
        self.unanswered.iter().any(|work| matches!(work.answer, Answering::Pending(_)))
    }

    fn answering(&self, bytes: Bytes, permit: Option<Permit>) -> Answering {
        let message = match PeerMessage::decode(bytes) {
            Ok(message) => message,
            Err(_) => return Answering::Done(Err(malformed())),
        };
        let (ops, visitor) = (self.ops.clone(), self.visitor);
        Answering::Pending(
            async move {
                let _permit = permit;
                let answer = ops.on_stream_message(&visitor, message).await.map_err(status_of)?;
                Ok(answer.map(|answer| encode(&answer)))
            }
            .boxed(),
        )
    }

    /// Lets all answers be worked on.
    fn work(&mut self, cx: &mut Context<'_>) {
        for work in &mut self.unanswered {
            if let Answering::Pending(answer) = &mut work.answer
                && let Poll::Ready(done) = answer.poll_unpin(cx)
            {
                work.answer = Answering::Done(done);
            }
        }
    }
}

impl Messages for Conversation {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if self.deadline.is_over(cx) {
            return Poll::Ready(Some(Err(too_late())));
        }
        loop {
            self.work(cx);
            self.take(cx);
            let Some(Work { bytes, answer }) = self.unanswered.pop_front() else { break };
            match answer {
                Answering::Done(done) => {
                    self.bytes -= bytes;
                    if let Some(answer) = done.transpose() {
                        return Poll::Ready(Some(answer));
                    }
                }
                pending @ Answering::Pending(_) => {
                    self.unanswered.push_front(Work { bytes, answer: pending });
                    return Poll::Pending;
                }
            }
        }
        if self.incoming.is_none() {
            return Poll::Ready(None);
        }
        match self.idle.poll_unpin(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Some(Err(Status::deadline_exceeded("no message came for ten minutes"))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
