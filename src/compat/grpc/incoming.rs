//! Messages of a request: length-prefixed, bounded before they are read.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::Body as _;
use tonic::Status;
use tonic::body::Body;

use super::status::status_of;
use crate::compat::ops::Refusal;

/// Number of bytes before each message: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// Reads the messages of a request, one after the other.
#[derive(Debug)]
pub(super) struct Incoming {
    body: Body,
    /// Maximum number of bytes of a message.
    max: u64,
    read: BytesMut,
    /// Length of the message that is being read.
    length: Option<usize>,
    is_over: bool,
}

impl Incoming {
    pub(super) fn new(body: Body, max: u64) -> Self {
        Self { body, max, read: BytesMut::new(), length: None, is_over: false }
    }

    /// The next message; `None` at the end of the request. `admit` is asked for its size before more than that of it is
    /// held; where it refuses, it may be asked again.
    ///
    /// # Errors
    /// A request that is malformed or broken off, or a message that is too large or not admitted.
    pub(super) async fn message(
        &mut self,
        mut admit: impl FnMut(u64) -> Result<(), Refusal>,
    ) -> Result<Option<Bytes>, Status> {
        poll_fn(|cx| self.poll_message(cx, &mut admit)).await
    }

    /// Waits for the end of a request all of whose messages were read.
    ///
    /// # Errors
    /// What comes instead.
    pub(super) async fn end(&mut self) -> Result<(), Status> {
        match self.message(|_| Ok(())).await? {
            None => Ok(()),
            Some(_) => Err(Status::invalid_argument("the call has more than one message")),
        }
    }

    pub(super) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        admit: &mut dyn FnMut(u64) -> Result<(), Refusal>,
    ) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if self.length.is_none() && self.read.len() >= PREFIX_BYTES {
                self.length = Some(self.begin(admit)?);
                self.read.advance(PREFIX_BYTES);
            }
            if let Some(length) = self.length
                && self.read.len() >= length
            {
                self.length = None;
                return Poll::Ready(Ok(Some(self.read.split_to(length).freeze())));
            }
            if self.is_over {
                let is_whole = self.read.is_empty() && self.length.is_none();
                return Poll::Ready(if is_whole { Ok(None) } else { Err(cut()) });
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.is_over = true,
                // The client is gone, or its proxy.
                Some(Err(_)) => {
                    return Poll::Ready(Err(Status::cancelled("the request broke off")));
                }
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    if let Ok(bytes) = frame.into_data() {
                        self.read.extend_from_slice(&bytes);
                    }
                }
            }
        }
    }

    /// The length in the prefix of a message that may come.
    fn begin(&self, admit: &mut dyn FnMut(u64) -> Result<(), Refusal>) -> Result<usize, Status> {
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
        admit(length.into()).map_err(status_of)?;
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
