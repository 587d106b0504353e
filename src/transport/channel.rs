//! The sending half that all transports share: a bounded channel that refuses oversize frames.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Sink;
use futures::channel::mpsc;

use crate::error::{FailureKind, TransportError};
use crate::types::MAX_FRAME_BYTES;

/// Puts frames into a bounded channel and keeps `K` alive for as long as it lives itself.
///
/// Contract: `poll_ready` is pending while the channel is full. A frame above the limit is an
/// error that leaves the link as it was. Once the reading end is gone, everything is
/// [`FailureKind::Closed`].
#[derive(Debug)]
pub(super) struct ChannelSink<K> {
    frames: mpsc::Sender<Bytes>,
    _alive: K,
}

/// A channel that holds `frames` frames, at least one.
pub(super) fn channel<K>(frames: usize, alive: K) -> (ChannelSink<K>, mpsc::Receiver<Bytes>) {
    // The channel has room for one item for each sender on top of what is asked for.
    let (sender, receiver) = mpsc::channel(frames.saturating_sub(1));
    (ChannelSink { frames: sender, _alive: alive }, receiver)
}

/// Refuses a frame above [`MAX_FRAME_BYTES`].
pub(super) fn check_size(bytes: usize) -> Result<(), TransportError> {
    if bytes > MAX_FRAME_BYTES {
        let message = format!("a frame of {bytes} bytes is above the limit of {MAX_FRAME_BYTES}");
        return Err(TransportError::new(FailureKind::Malformed, message));
    }
    Ok(())
}

fn closed(source: mpsc::SendError) -> TransportError {
    TransportError::with_source(FailureKind::Closed, "the link is closed", source)
}

impl<K: Unpin> Sink<Bytes> for ChannelSink<K> {
    type Error = TransportError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.frames.poll_ready(cx).map_err(closed)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Bytes) -> Result<(), Self::Error> {
        check_size(frame.len())?;
        self.frames.start_send(frame).map_err(closed)
    }

    /// Frames are never held back here, so this only waits for room, and tells of a closed link.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.frames.poll_ready(cx).map_err(closed)
    }

    /// Ends this direction. What is in the channel is still delivered.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let _ = ready!(Pin::new(&mut self.frames).poll_close(cx));
        Poll::Ready(Ok(()))
    }
}
