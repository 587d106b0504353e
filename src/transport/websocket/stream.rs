//! A byte pipe over the binary messages of a WebSocket.
//!
//! Contract
//! - Bytes arrive in order and once; where one message ends and the next begins means nothing. What is
//!   written is held back until the writer flushes or [`MESSAGE_BYTES`] are there, and leaves as one
//!   message.
//! - `poll_shutdown` sends a close frame, which ends both directions, and waits for nobody: whoever
//!   wants the peer's word for it reads to the end. A pipe that is dropped sends one too, behind what was
//!   not flushed, as far as the socket takes them at once.
//! - A peer that breaks the rules (RFC 6455, and no text) gets a close frame with the reason. Then what
//!   it sends is thrown away for at most [`LINGER`] and [`DRAIN_BYTES`], since a socket that is closed
//!   with bytes unread takes the close frame back, and the reader gets an error of kind
//!   [`FailureKind::Protocol`]: any proxy may have done it, so it is never held against the peer.
//! - A peer that does not read fills one message and what lies below; then the pipe takes no more.
//! - Each direction may be polled from a task of its own, and nothing is lost when a future over the
//!   pipe is dropped.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::error::{FailureKind, TransportError};
use crate::transport::pipe::gather;

/// Maximum number of bytes that one message of ours carries: a piece of bulk and what TLS adds to it.
const MESSAGE_BYTES: usize = 72 * 1024;
/// Maximum number of bytes of a message of the peer. Twice ours, so that nodes may come to send larger
/// ones; no more, since there is memory for one before the peer has proven anything.
const MAX_MESSAGE_BYTES: usize = 2 * MESSAGE_BYTES;
/// Room for the pongs and the close frame that come upon a message.
const CONTROL_BYTES: usize = 1024;
/// Number of bytes that one read from the connection brings.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Maximum time that a refused peer has to read why.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// Maximum number of bytes that a refused peer may still send.
const DRAIN_BYTES: usize = 1024 * 1024;

/// A connection that is a WebSocket, or is about to become one.
pub(super) struct MessagePipe<S: AsyncRead + AsyncWrite + Unpin> {
    state: State<S>,
    /// Rest of the message that is being read.
    incoming: Bytes,
    /// Bytes of the next message.
    outgoing: BytesMut,
    /// Nothing more will come.
    has_ended: bool,
    /// This side has sent its close frame.
    is_closed: bool,
}

enum State<S> {
    /// HTTP has not handed over the connection yet.
    Opening(BoxFuture<'static, io::Result<WebSocketStream<S>>>),
    Open(Box<WebSocketStream<S>>),
    Refusing(Box<Refusing<S>>),
    Failed,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MessagePipe<S> {
    /// Makes a pipe of a connection that `upgrade` gives, with what was read from it beyond the upgrade.
    pub(super) fn new(
        upgrade: impl Future<Output = io::Result<(S, Vec<u8>)>> + Send + 'static,
        role: Role,
    ) -> Self {
        let opening = async move {
            let (stream, read) = upgrade.await?;
            Ok(WebSocketStream::from_partially_read(stream, read, role, Some(config())).await)
        };
        Self {
            state: State::Opening(Box::pin(opening)),
            incoming: Bytes::new(),
            outgoing: BytesMut::new(),
            has_ended: false,
            is_closed: false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for MessagePipe<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.incoming.is_empty() && !self.has_ended {
            if let State::Refusing(refusing) = &mut self.state {
                let error = ready!(refusing.poll(cx));
                self.state = State::Failed;
                return Poll::Ready(Err(error));
            }
            let message = ready!(ready!(self.state.poll_open(cx))?.poll_next(cx));
            self.take_in(cx, message)?;
        }
        let taken = buf.remaining().min(self.incoming.len());
        buf.put_slice(&self.incoming[..taken]);
        self.incoming.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MessagePipe<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_closed || matches!(self.state, State::Refusing(_) | State::Failed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.outgoing.len() >= MESSAGE_BYTES {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(gather(&mut self.outgoing, bufs, MESSAGE_BYTES)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.outgoing.is_empty() {
            ready!(self.poll_send(cx))?;
        }
        ready!(self.state.poll_open(cx))?.poll_flush(cx).map_err(lost)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closed {
            ready!(self.as_mut().poll_flush(cx))?;
            self.is_closed = true;
            ready!(self.state.poll_open(cx))?
                .start_send(close(CloseCode::Normal, ""))
                .map_err(lost)?;
        }
        self.poll_flush(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> MessagePipe<S> {
    /// Makes a message of what was written, once all that went before has left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = ready!(self.state.poll_open(cx))?;
        // Also pongs, which the socket does not count when it says that it is ready.
        ready!(socket.as_mut().poll_flush(cx)).map_err(lost)?;
        // Memory goes with the message: most links are quiet most of the time.
        let message = Message::Binary(mem::take(&mut self.outgoing).freeze());
        Poll::Ready(socket.start_send(message).map_err(lost))
    }

    /// Takes what the socket read, where it is something for the reader, or for this pipe.
    fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        message: Option<Result<Message, Error>>,
    ) -> io::Result<()> {
        let refusal = match message {
            Some(Ok(Message::Binary(bytes))) => {
                self.incoming = bytes;
                return Ok(());
            }
            // The socket answers a ping when it is polled next.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(()),
            Some(Ok(Message::Close(_))) => {
                if let Poll::Ready(Ok(socket)) = self.state.poll_open(cx) {
                    let _ = socket.poll_flush(cx);
                }
                self.has_ended = true;
                return Ok(());
            }
            None
            | Some(Err(
                Error::ConnectionClosed
                | Error::AlreadyClosed
                | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
            )) => {
                self.has_ended = true;
                return Ok(());
            }
            Some(Err(Error::Io(error))) => {
                self.state = State::Failed;
                return Err(error);
            }
            Some(Ok(Message::Text(_) | Message::Frame(_))) => Refusal::text(),
            Some(Err(error)) => Refusal::of(error),
        };
        self.refuse(refusal);
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal) {
        let State::Open(mut socket) = mem::replace(&mut self.state, State::Failed) else { return };
        // An error only means that the peer is not told.
        let _ = Pin::new(&mut *socket).start_send(close(refusal.code, refusal.reason));
        self.outgoing.clear();
        self.state = State::Refusing(Box::new(Refusing {
            socket: *socket,
            told: false,
            drained: 0,
            until: Box::pin(sleep(LINGER)),
            refusal: Some(refusal),
        }));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Drop for MessagePipe<S> {
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        if !self.outgoing.is_empty() {
            let _ = self.poll_send(&mut cx);
        }
        if let State::Open(socket) = &mut self.state {
            let _ = Pin::new(&mut **socket).start_send(close(CloseCode::Normal, ""));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> State<S> {
    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Pin<&mut WebSocketStream<S>>>> {
        if let Self::Opening(opening) = self {
            let opened = ready!(opening.as_mut().poll(cx));
            *self = Self::Failed;
            *self = Self::Open(Box::new(opened?));
        }
        Poll::Ready(match self {
            Self::Open(socket) => Ok(Pin::new(socket)),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        })
    }
}

/// A peer that broke the rules and is being told so.
struct Refusing<S> {
    socket: WebSocketStream<S>,
    told: bool,
    drained: usize,
    until: Pin<Box<Sleep>>,
    refusal: Option<Refusal>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Refusing<S> {
    /// Resolves to the error for the reader when the peer has hung up or had its time.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.told && Pin::new(&mut self.socket).poll_flush(cx).is_ready() {
            self.told = Pin::new(self.socket.get_mut()).poll_shutdown(cx).is_ready();
        }
        while self.until.as_mut().poll(cx).is_pending() && self.drained < DRAIN_BYTES {
            let mut scratch = [0; 4096];
            let mut scratch = ReadBuf::new(&mut scratch);
            let read = Pin::new(self.socket.get_mut()).poll_read(cx, &mut scratch);
            let bytes = scratch.filled().len();
            if ready!(read).is_err() || bytes == 0 {
                break;
            }
            self.drained += bytes;
        }
        Poll::Ready(match self.refusal.take() {
            Some(refusal) => refusal.into_error(),
            None => io::ErrorKind::BrokenPipe.into(),
        })
    }
}

/// Reason for which a peer is refused.
struct Refusal {
    code: CloseCode,
    reason: &'static str,
    cause: Option<Error>,
}

impl Refusal {
    fn text() -> Self {
        Self { code: CloseCode::Unsupported, reason: "a message of text", cause: None }
    }

    fn of(error: Error) -> Self {
        let (code, reason) = match error {
            Error::Capacity(_) => (CloseCode::Size, "a message that is too long"),
            Error::Utf8(_) => (CloseCode::Unsupported, "a message of text"),
            _ => (CloseCode::Protocol, "a frame against the rules"),
        };
        Self { code, reason, cause: Some(error) }
    }

    fn into_error(self) -> io::Error {
        let message = format!("the WebSocket carried {}", self.reason);
        let error = match self.cause {
            Some(cause) => TransportError::with_source(FailureKind::Protocol, message, cause),
            None => TransportError::new(FailureKind::Protocol, message),
        };
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // A message is made only to be sent at once.
        .write_buffer_size(0)
        .max_write_buffer_size(MESSAGE_BYTES + CONTROL_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

fn close(code: CloseCode, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

/// Error of a socket that takes nothing more.
fn lost(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::BrokenPipe, error),
    }
}
