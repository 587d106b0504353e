//! Frames over a byte stream.
//!
//! Contract: a frame is its length, 4 bytes, big-endian, and its bytes; the length is checked before anything of it is
//! buffered. [`END`] in place of a length ends one direction; a stream that ends without is broken.
//! One task writes. It ends
//! 1. when writing fails, and then the sink is closed; or
//! 2. when both halves of the link are dropped: frames that the sink took are still written, then the stream is shut
//!    down, what the peer still sends is read, and after at most [`LINGER`] everything is dropped.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::channel::mpsc;
use futures::{FutureExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Pipe;
use crate::error::{FailureKind, TransportError};
use crate::transport::channel::{ChannelSink, channel};
use crate::transport::failure;
use crate::types::MAX_FRAME_BYTES;

/// Length that ends a direction.
const END: u32 = u32::MAX;
/// Number of bytes before a frame.
const LENGTH_BYTES: usize = 4;
/// Number of frames between the sink and the task. More would only be more for control to wait behind.
const FRAMES_IN_FLIGHT: usize = 2;
/// Maximum size of a frame that is copied, so that several leave in one piece.
const COPIED_BYTES: usize = 4 * 1024;
/// Maximum number of bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 64 * 1024;
/// Minimum and maximum number of bytes for which a read makes room: most links are quiet most of the time.
const READ_BYTES: (usize, usize) = (4 * 1024, 72 * 1024);
/// Maximum time for a link to write what is left after it was dropped.
const LINGER: Duration = Duration::from_secs(1);
/// Maximum number of bytes that a peer may still send meanwhile; about what was under way.
const DRAIN_BYTES: usize = 2 * 1024 * 1024;

/// The two halves of a link over `stream`. Spawns the task that writes.
pub(super) fn split<P: Pipe>(stream: P) -> (ChannelSink<Arc<Halves<P>>>, FrameReader<P>) {
    let (read, write) = tokio::io::split(stream);
    let (sender, ended) = oneshot::channel();
    let halves = Arc::new(Halves { ended: Some(sender), leftover: Mutex::new(None) });
    let (sink, frames) = channel(FRAMES_IN_FLIGHT, Arc::clone(&halves));
    tokio::spawn(drive(write, frames, ended));
    (sink, FrameReader { read: Some(read), buffer: BytesMut::new(), halves })
}

/// State that the two halves of a link share. Tells the task when both are dropped.
#[derive(Debug)]
pub(super) struct Halves<P> {
    ended: Option<oneshot::Sender<Leftover<P>>>,
    leftover: Mutex<Leftover<P>>,
}

/// The reading end of a link whose halves are dropped; `None` where nothing more comes.
type Leftover<P> = Option<ReadHalf<P>>;

impl<P> Drop for Halves<P> {
    fn drop(&mut self) {
        let leftover = self.leftover.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = self.ended.take() {
            // Nobody listens where the task was over first.
            let _ = ended.send(leftover);
        }
    }
}

/// The receiving half of a link.
#[derive(Debug)]
pub(super) struct FrameReader<P> {
    /// `None` after the stream broke.
    read: Option<ReadHalf<P>>,
    buffer: BytesMut,
    halves: Arc<Halves<P>>,
}

/// What stands at the beginning of a buffer.
enum Next {
    Frame(Bytes),
    End,
    /// Not all of it is there; so many bytes are missing at least.
    Missing(usize),
}

impl<P> FrameReader<P> {
    fn next_buffered(&mut self) -> Result<Next, TransportError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(Next::Missing(LENGTH_BYTES - self.buffer.len()));
        };
        let length = match u32::from_be_bytes(*length) {
            END => return Ok(Next::End),
            length => usize::try_from(length).unwrap_or(usize::MAX),
        };
        if length > MAX_FRAME_BYTES {
            let message =
                format!("a frame of {length} bytes is above the limit of {MAX_FRAME_BYTES}");
            return Err(TransportError::new(FailureKind::Malformed, message));
        }
        let whole = LENGTH_BYTES + length;
        if self.buffer.len() < whole {
            return Ok(Next::Missing(whole - self.buffer.len()));
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Next::Frame(self.buffer.split_to(length).freeze()))
    }
}

impl<P: AsyncRead + Unpin> FrameReader<P> {
    /// Reads until a frame is whole; `None` at an end that was announced.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, TransportError>> {
        loop {
            let missing = match self.next_buffered()? {
                Next::Frame(frame) => return Poll::Ready(Ok(Some(frame))),
                Next::End => return Poll::Ready(Ok(None)),
                Next::Missing(missing) => missing,
            };
            let Some(read) = &mut self.read else { return Poll::Ready(Ok(None)) };
            // Whatever a length promises, room is made as it comes.
            self.buffer.reserve(missing.clamp(READ_BYTES.0, READ_BYTES.1));
            match ready!(pin!(read.read_buf(&mut self.buffer)).poll(cx)) {
                Ok(0) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(failure::from_io("the stream broke", error)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(failure::from_io("the stream broke", error))),
            }
        }
    }
}

impl<P: AsyncRead + Unpin> Stream for FrameReader<P> {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let last = match ready!(self.poll_frame(cx)) {
            Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
            // The mark stays in the buffer, and is found again.
            Ok(None) => return Poll::Ready(None),
            Err(error) => Some(Err(error)),
        };
        self.read = None;
        self.buffer = BytesMut::new();
        Poll::Ready(last)
    }
}

impl<P> Drop for FrameReader<P> {
    fn drop(&mut self) {
        let mut leftover = self.halves.leftover.lock().unwrap_or_else(PoisonError::into_inner);
        *leftover = self.read.take();
    }
}

/// Writes, as the contract at the top of this file says.
async fn drive<P: Pipe>(
    write: WriteHalf<P>,
    frames: mpsc::Receiver<Bytes>,
    mut ended: oneshot::Receiver<Leftover<P>>,
) {
    let mut writing = pin!(write_all(write, frames).fuse());
    let written = tokio::select! {
        biased;
        written = &mut writing => written,
        leftover = &mut ended => {
            let finish = async {
                if let Ok(write) = writing.await {
                    close(write, leftover.unwrap_or_default()).await;
                }
            };
            let _ = timeout(LINGER, finish).await;
            return;
        }
    };
    let Ok(write) = written else { return };
    let leftover = ended.await.unwrap_or_default();
    let _ = timeout(LINGER, close(write, leftover)).await;
}

/// Ends both directions. Gives the peer the chance to end its own, but not to say much more.
async fn close<P: Pipe>(mut write: WriteHalf<P>, leftover: Leftover<P>) {
    let _ = write.shutdown().await;
    let Some(mut read) = leftover else { return };
    let mut buffer = BytesMut::with_capacity(READ_BYTES.0);
    let mut bytes = 0;
    while let Ok(more @ 1..) = read.read_buf(&mut buffer).await {
        bytes += more;
        if bytes > DRAIN_BYTES {
            break;
        }
        buffer.clear();
    }
}

/// Writes all frames of the sink, then the end; gives back where they were written to.
async fn write_all<P: Pipe>(
    mut write: WriteHalf<P>,
    mut frames: mpsc::Receiver<Bytes>,
) -> io::Result<WriteHalf<P>> {
    let mut gathered = Gathered::default();
    while let Some(frame) = frames.next().await {
        gathered.add(frame);
        loop {
            while gathered.bytes() < GATHERED_BYTES
                && let Some(Some(frame)) = frames.next().now_or_never()
            {
                gathered.add(frame);
            }
            if gathered.bytes() == 0 {
                break;
            }
            poll_fn(|cx| gathered.poll_write(Pin::new(&mut write), cx)).await?;
        }
        write.flush().await?;
    }
    write.write_u32(END).await?;
    write.flush().await?;
    Ok(write)
}

/// Bytes that wait to be written: small frames one behind the other, large ones where they are.
#[derive(Debug, Default)]
struct Gathered {
    parts: VecDeque<Bytes>,
    copied: BytesMut,
    bytes: usize,
}

impl Gathered {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn add(&mut self, frame: Bytes) {
        self.bytes += LENGTH_BYTES + frame.len();
        // The sink has refused what is longer.
        self.copied.put_u32(u32::try_from(frame.len()).unwrap_or(END));
        if frame.len() <= COPIED_BYTES {
            self.copied.extend_from_slice(&frame);
        } else {
            self.parts.push_back(self.copied.split().freeze());
            self.parts.push_back(frame);
        }
    }

    /// Writes a part of what waits.
    fn poll_write(
        &mut self,
        write: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.copied.is_empty() {
            self.parts.push_back(self.copied.split().freeze());
        }
        let mut slices = [IoSlice::new(&[]); 8];
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part);
        }
        let mut written = ready!(write.poll_write_vectored(cx, &slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(part) = self.parts.front_mut() {
            let taken = written.min(part.len());
            part.advance(taken);
            written -= taken;
            if !part.is_empty() {
                break;
            }
            self.parts.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}
