//! Bodies of answers: messages, then trailers with the status.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::body::{Frame, SizeHint};
use prost::Message;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tonic::body::Body;
use tonic::{Code, Status};

use super::incoming::PREFIX_BYTES;
use super::{MAX_IDLE, too_late, too_quiet};
use crate::compat::limits::Permit;
use crate::wire::generated::transaction::TransactionChunk;

/// Number of bytes of a chunk of a transaction.
const CHUNK_BYTES: usize = 64 * 1024;

/// Messages of an answer, each made when the client is ready to read it.
pub(super) trait Messages: Send + Unpin + 'static {
    /// The next message, or a piece of it; `None` at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>>;
}

/// An answer of one message, which holds a permit until it is sent.
pub(super) fn answer(message: &impl Message, permit: Permit) -> Response<Body> {
    answer_with(One { message: Some(encode(message)), _permit: permit })
}

/// An answer of these messages.
pub(super) fn answer_with(messages: impl Messages) -> Response<Body> {
    let mut response = Response::new(Body::new(Answer { messages: Some(messages) }));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// An answer of another server, which holds a permit until it is sent and ends when it is idle. What that server
/// calls an internal error, is one of the client's.
pub(super) fn keeping(mut response: Response<Body>, permit: Permit) -> Response<Body> {
    blame_client(response.headers_mut());
    let idle = Box::pin(sleep(MAX_IDLE));
    response.map(|body| Body::new(Keeping { body: Some(body), idle, _permit: permit }))
}

/// Says that what did not decode is the client's fault, where a codec says that it is ours.
fn blame_client(headers: &mut HeaderMap) {
    if let Some(code) = headers.get_mut("grpc-status")
        && matches!(Code::from_bytes(code.as_bytes()), Code::Internal | Code::Unknown)
    {
        *code = HeaderValue::from(Code::InvalidArgument as u16);
    }
}

/// A message and its prefix.
pub(super) fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    // Bounded by what is in the store, far below.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

struct One {
    message: Option<Bytes>,
    _permit: Permit,
}

impl Messages for One {
    /// In pieces: how fast the client reads is seen by them.
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let Some(mut rest) = self.message.take() else { return Poll::Ready(None) };
        let piece = rest.split_to(rest.len().min(CHUNK_BYTES));
        self.message = Some(rest).filter(|rest| !rest.is_empty());
        Poll::Ready(Some(Ok(piece)))
    }
}

/// A transaction in chunks.
pub(super) struct Chunks {
    hash: String,
    payload: Bytes,
    /// Number of the next chunk.
    next: usize,
    count: usize,
    deadline: Deadline,
    _permit: Permit,
}

impl Chunks {
    pub(super) fn new(
        hash: String,
        payload: Bytes,
        permit: Permit,
        deadline: Option<Instant>,
    ) -> Self {
        let count = payload.len().div_ceil(CHUNK_BYTES).max(1);
        let deadline = Deadline::new(deadline);
        Self { hash, payload, next: 0, count, deadline, _permit: permit }
    }
}

impl Messages for Chunks {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if self.next == self.count {
            return Poll::Ready(None);
        }
        if self.deadline.is_over(cx) {
            return Poll::Ready(Some(Err(too_late())));
        }
        let start = self.next * CHUNK_BYTES;
        let end = self.payload.len().min(start + CHUNK_BYTES);
        let chunk = TransactionChunk {
            transaction_hash: self.hash.clone(),
            chunk_index: i32::try_from(self.next).unwrap_or(i32::MAX),
            total_chunks: i32::try_from(self.count).unwrap_or(i32::MAX),
            chunk_data: self.payload.slice(start..end),
        };
        self.next += 1;
        Poll::Ready(Some(Ok(encode(&chunk))))
    }
}

/// Time when an answer is to end.
pub(super) struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    pub(super) fn new(at: Option<Instant>) -> Self {
        Self(at.map(|at| Box::pin(sleep_until(at))))
    }

    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.0.as_mut().is_some_and(|sleep| sleep.poll_unpin(cx).is_ready())
    }
}

/// Messages, then trailers.
struct Answer<M> {
    /// None once the trailers are sent.
    messages: Option<M>,
}

impl<M: Messages> hyper::body::Body for Answer<M> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
        let status = match ready!(messages.poll_next(cx)) {
            Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.messages = None;
        Poll::Ready(Some(trailers(&status)))
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_none()
    }
}

struct Keeping {
    /// None after the end.
    body: Option<Body>,
    idle: Pin<Box<Sleep>>,
    _permit: Permit,
}

impl hyper::body::Body for Keeping {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.idle.poll_unpin(cx));
                self.body = None;
                return Poll::Ready(Some(trailers(&too_quiet())));
            }
        };
        self.idle.as_mut().reset(Instant::now() + MAX_IDLE);
        Poll::Ready(frame.map(|frame| {
            frame.map(|mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    blame_client(trailers);
                }
                frame
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, hyper::body::Body::size_hint)
    }
}

fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}
