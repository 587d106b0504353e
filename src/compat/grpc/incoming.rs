//! Messages of a request: length-prefixed, bounded before they are read.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body as _, Frame};
use tonic::Status;
use tonic::body::Body;

use super::status::status_of;
use crate::compat::limits::Permit;
use crate::compat::ops::Refusal;

/// Number of bytes before each message: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// Lets messages in.
pub(super) trait Admission: Send {
    /// Lets a message begin. Asked again after a refusal where the reader goes on.
    fn begin(&mut self) -> Result<(), Refusal>;

    /// Lets so many bytes more of it be held, which have come.
    fn grow(&mut self, bytes: u64) -> Result<(), Refusal>;
}

/// Lets in the message of a call.
impl Admission for Permit {
    fn begin(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        Permit::grow(self, bytes)
    }
}

/// Reads the messages of a request, one after the other.
#[derive(Debug)]
pub(super) struct Incoming {
    body: Body,
    /// Maximum number of bytes of a message.
    max: u64,
    read: BytesMut,
    /// Length of the message that is being read.
    length: Option<usize>,
    /// Number of bytes of it that were let in.
    admitted: usize,
    is_over: bool,
}

impl Incoming {
    pub(super) fn new(body: Body, max: u64) -> Self {
        Self { body, max, read: BytesMut::new(), length: None, admitted: 0, is_over: false }
    }

    /// The next message; `None` at the end of the request. Its bytes are let in as they come.
    ///
    /// # Errors
    /// A request that is malformed or broken off, or a message that is too large or not let in.
    pub(super) async fn message(
        &mut self,
        admission: &mut dyn Admission,
    ) -> Result<Option<Bytes>, Status> {
        poll_fn(|cx| self.poll_message(cx, admission)).await
    }

    /// Waits for the end of a request all of whose messages were read.
    ///
    /// # Errors
    /// What comes instead, of which nothing is kept.
    pub(super) async fn end(&mut self) -> Result<(), Status> {
        loop {
            if !self.read.is_empty() {
                return Err(Status::invalid_argument("the call has more than one message"));
            }
            match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                None => return Ok(()),
                Some(frame) => self.keep(frame)?,
            }
        }
    }

    /// The same as [`Incoming::message`]. After a refusal it goes on where it was.
    pub(super) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        admission: &mut dyn Admission,
    ) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if self.length.is_none() && self.read.len() >= PREFIX_BYTES {
                self.length = Some(self.begin(admission)?);
                self.read.advance(PREFIX_BYTES);
                self.admitted = 0;
            }
            if let Some(length) = self.length {
                let held = self.read.len().min(length);
                admission.grow((held - self.admitted) as u64).map_err(status_of)?;
                self.admitted = held;
                if held == length {
                    self.length = None;
                    return Poll::Ready(Ok(Some(self.read.split_to(length).freeze())));
                }
            }
            if self.is_over {
                let is_whole = self.read.is_empty() && self.length.is_none();
                return Poll::Ready(if is_whole { Ok(None) } else { Err(cut()) });
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.is_over = true,
                Some(frame) => self.keep(frame)?,
            }
        }
    }

    fn keep(&mut self, frame: Result<Frame<Bytes>, Status>) -> Result<(), Status> {
        // The client is gone, or its proxy.
        let frame = frame.map_err(|_| Status::cancelled("the request broke off"))?;
        // Trailers say nothing here.
        if let Ok(bytes) = frame.into_data() {
            self.read.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// The length in the prefix of a message that may come.
    fn begin(&self, admission: &mut dyn Admission) -> Result<usize, Status> {
        let mut prefix = &self.read[..PREFIX_BYTES];
        let compressed = prefix.get_u8();
        let length = prefix.get_u32();
        if compressed != 0 {
            // No encoding was named that it could be in.
            return Err(Status::invalid_argument("messages are taken uncompressed"));
        }
        if u64::from(length) > self.max {
            let (size, limit) = (length.into(), self.max);
            return Err(status_of(Refusal::TooLarge { size, limit }));
        }
        admission.begin().map_err(status_of)?;
        usize::try_from(length).map_err(|_| cut())
    }
}

fn cut() -> Status {
    Status::invalid_argument("the request ends within a message")
}

/// Status of a message that does not decode.
pub(super) fn malformed() -> Status {
    Status::invalid_argument("the message does not decode: see the proto of the service")
}
