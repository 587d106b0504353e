//! One end of an exchange as its link sees it, a pipe, and as those see it that carry its chunks.
//!
//! Contract: what is written waits until the chunks take it, what arrives until it is read, and each side
//! is woken by the other. A dropped pipe ends its stream behind what was written and reads no more.
//! An end that broke says so to whoever reads or writes, after what had arrived.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::session::{Chunk, Inbound, Outbound, Refusal};
use crate::transport::metered::Traffic;

/// State that a pipe shares with what carries its chunks.
#[derive(Debug, Default)]
pub(super) struct End {
    state: Mutex<State>,
    traffic: Traffic,
    /// Told when there is something to send that was not there, when all has arrived, and when the end is
    /// over.
    pub(super) written: Notify,
    /// Told when there is room for chunks that had none, or when the end is over.
    pub(super) drained: Notify,
}

/// The way in which an end is, as those look at it that carry its chunks.
#[derive(Debug, Default)]
pub(super) struct State {
    outbound: Outbound,
    inbound: Inbound,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Reason why nothing more comes or goes.
    broken: Option<(io::ErrorKind, &'static str)>,
    /// Nobody at the other end reads what is written.
    unwanted: bool,
    dropped: bool,
}

impl State {
    /// The pipe was dropped.
    pub(super) fn is_dropped(&self) -> bool {
        self.dropped
    }

    /// Nothing more comes or goes.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Something is not acknowledged yet: bytes, or the end.
    pub(super) fn has_unacknowledged(&self) -> bool {
        self.outbound.has_unacknowledged()
    }

    /// What was written has arrived up to its end.
    pub(super) fn is_sent(&self) -> bool {
        self.outbound.is_done()
    }

    /// What the other end sends has come up to its end.
    pub(super) fn is_received(&self) -> bool {
        self.inbound.is_ended()
    }

    /// There is room for a chunk of the largest size.
    pub(super) fn has_room(&self) -> bool {
        self.inbound.has_room()
    }
}

impl End {
    /// An end, and the pipe that it carries.
    pub(super) fn new() -> (Arc<Self>, ExchangePipe) {
        let end = Arc::new(Self::default());
        (Arc::clone(&end), ExchangePipe { end })
    }

    /// Bytes that came, and bytes that were acknowledged.
    pub(super) fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    /// Reports whether an end is as wanted.
    pub(super) fn is(&self, wanted: impl FnOnce(&State) -> bool) -> bool {
        wanted(&self.lock())
    }

    /// Waits until an end is as wanted, which a notice tells.
    pub(super) async fn until(&self, notice: &Notify, wanted: impl Fn(&State) -> bool) {
        loop {
            let mut notified = pin!(notice.notified());
            notified.as_mut().enable();
            if self.is(&wanted) {
                return;
            }
            notified.await;
        }
    }

    /// Next chunk to be sent, of at most `max` bytes, and none that was not acknowledged beside it.
    pub(super) fn chunk(&self, max: usize) -> Chunk {
        let mut state = self.lock();
        state.outbound.set_chunk_bytes(max);
        state.outbound.chunk(max)
    }

    /// Takes what is new of a chunk that came; false where there is no room.
    pub(super) fn take(&self, chunk: &Chunk) -> Result<bool, Refusal> {
        let mut state = self.lock();
        let before = state.inbound.ack();
        let taken = state.inbound.take(chunk)?;
        let new = state.inbound.ack() - before;
        if new > 0 {
            self.traffic.received.fetch_add(new, Ordering::Relaxed);
            wake(state.reader.take());
        }
        Ok(taken)
    }

    /// Position up to which chunks came.
    pub(super) fn ack(&self) -> u64 {
        self.lock().inbound.ack()
    }

    /// Notes up to where the other end has what was sent.
    pub(super) fn acknowledge(&self, ack: u64) -> Result<(), Refusal> {
        let mut state = self.lock();
        let bytes = state.outbound.acknowledge(ack)?;
        if bytes > 0 {
            self.traffic.taken.fetch_add(bytes as u64, Ordering::Relaxed);
            wake(state.writer.take());
        }
        if state.outbound.is_done() {
            drop(state);
            self.written.notify_waiters();
        }
        Ok(())
    }

    /// Notes that nobody at the other end reads: what is written from now on fails.
    pub(super) fn unwanted(&self) {
        let mut state = self.lock();
        state.unwanted = true;
        wake(state.writer.take());
    }

    /// Ends both directions for a reason. The first reason counts.
    pub(super) fn break_off(&self, kind: io::ErrorKind, why: &'static str) {
        let mut state = self.lock();
        state.broken.get_or_insert((kind, why));
        wake(state.reader.take());
        wake(state.writer.take());
        drop(state);
        self.tell_all();
    }

    fn tell_all(&self) {
        self.written.notify_waiters();
        self.drained.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Bytes both ways, carried by an exchange.
#[derive(Debug)]
pub(super) struct ExchangePipe {
    end: Arc<End>,
}

impl AsyncRead for ExchangePipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.end.lock();
        let had_room = state.inbound.has_room();
        if let Some(bytes) = state.inbound.read(buf.remaining()) {
            buf.put_slice(&bytes);
            if !had_room && state.inbound.has_room() {
                drop(state);
                self.end.drained.notify_waiters();
            }
            return Poll::Ready(Ok(()));
        }
        if state.inbound.is_ended() {
            return Poll::Ready(Ok(()));
        }
        if let Some((kind, why)) = state.broken {
            return Poll::Ready(Err(io::Error::new(kind, why)));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for ExchangePipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.end.lock();
        if let Some((kind, why)) = state.broken {
            return Poll::Ready(Err(io::Error::new(kind, why)));
        }
        if state.unwanted || state.outbound.is_ended() {
            let why = "the other end reads no more";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, why)));
        }
        let taken = state.outbound.write(buf);
        if taken == 0 && !buf.is_empty() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.end.written.notify_waiters();
        Poll::Ready(Ok(taken))
    }

    /// Returns at once: what was written leaves as soon as it can.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.lock().outbound.end();
        self.end.written.notify_waiters();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ExchangePipe {
    fn drop(&mut self) {
        let mut state = self.end.lock();
        state.outbound.end();
        state.inbound.discard();
        state.dropped = true;
        drop(state);
        self.end.tell_all();
    }
}
