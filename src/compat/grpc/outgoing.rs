//! Bodies of answers: messages, then trailers with the status.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::body::{Body as _, Frame};
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

/// An answer of another server, which holds a permit until it is sent, and ends in time and when it is idle. What
/// that server calls an internal error is one of the client's.
pub(super) fn keeping(
    response: Response<Body>,
    permit: Permit,
    deadline: Option<Instant>,
) -> Response<Body> {
    if let Some(status) = Status::from_header_map(response.headers()) {
        // No message comes first.
        return blaming_client(status).into_http();
    }
    let (idle, deadline) = (Box::pin(sleep(MAX_IDLE)), Deadline::new(deadline));
    response.map(|body| {
        let messages = Some(Kept { body, idle, deadline, _permit: permit });
        Body::new(Answer { messages })
    })
}

/// What did not decode is the client's fault, where a codec says that it is ours.
fn blaming_client(status: Status) -> Status {
    match status.code() {
        Code::Internal | Code::Unknown => Status::invalid_argument(status.message()),
        _ => status,
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

/// Messages of another server, which ends with trailers.
struct Kept {
    body: Body,
    idle: Pin<Box<Sleep>>,
    deadline: Deadline,
    _permit: Permit,
}

impl Messages for Kept {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if self.deadline.is_over(cx) {
            return Poll::Ready(Some(Err(too_late())));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.idle.poll_unpin(cx));
            return Poll::Ready(Some(Err(too_quiet())));
        };
        self.idle.as_mut().reset(Instant::now() + MAX_IDLE);
        let Some(frame) = frame.transpose()? else { return Poll::Ready(None) };
        Poll::Ready(match frame.into_data() {
            Ok(bytes) => Some(Ok(bytes)),
            Err(frame) => {
                let status = frame.trailers_ref().and_then(Status::from_header_map);
                let failed = status.filter(|status| status.code() != Code::Ok);
                failed.map(|status| Err(blaming_client(status)))
            }
        })
    }
}

fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}
