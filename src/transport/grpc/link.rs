//! What both ends of a link have in common: the two halves, and the one task that drives their
//! connection.
//!
//! Contract of the task: everything that hyper would spawn for a connection runs inside it, so
//! that ending it ends all of it and a frame wakes one task, not three. It ends
//! 1. when the connection is over, whoever ended it; or
//! 2. when both halves of the link are dropped: frames that the sink took are still written, the
//!    peer gets the chance to end its direction, HTTP/2 and TLS say goodbye, and after at most
//!    [`LINGER`] the socket is closed regardless.
//!
//! A connection that takes no more requests while its streams live on (GOAWAY) says so: see
//! [`Driver::leaving`].

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::{BoxFuture, join};
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::Streaming;

use crate::error::TransportError;
use crate::transport::channel::{ChannelSink, channel};
use crate::transport::failure;

/// Number of bytes that HTTP/2 holds for a stream before the sink is no longer ready.
pub(in crate::transport) const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Maximum number of bytes of a decoded header block; ours are below 1 KiB.
pub(in crate::transport) const MAX_HEADER_BYTES: u32 = 8 * 1024;
/// Maximum number of bytes of an HTTP/2 data frame that is accepted. Room for a piece of bulk or a
/// batch in one, which takes a quarter of the system calls of the default of 16 KiB.
pub(in crate::transport) const HTTP2_FRAME_BYTES: u32 = 72 * 1024;
/// Number of bytes that the streams of a connection together may send ahead. Half of it is also what h2 lets small
/// data frames cost that nobody reads, each 256 bytes: here 16,000 of them, before it takes them for an attack
/// and ends the connection.
pub(in crate::transport) const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Number of frames between the sink and HTTP/2. More would only be more for control to wait
/// behind.
const FRAMES_IN_FLIGHT: usize = 2;
/// Maximum time for a connection to write what is left after its link was dropped.
const LINGER: Duration = Duration::from_secs(1);
/// Maximum number of bytes that a peer may still send meanwhile; about what was under way.
const DRAIN_BYTES: usize = 2 * 1024 * 1024;

/// Notice that a connection is about to be closed.
pub(super) type Leaving = BoxFuture<'static, ()>;

/// State that the two halves of a link share. Tells the task when both are dropped.
#[derive(Debug)]
pub(in crate::transport) struct Halves {
    ended: Option<oneshot::Sender<Leftover>>,
    leftover: Mutex<Leftover>,
}

/// The receiving stream of a link whose halves are dropped. The stream must live on until what was
/// sent is on its way: HTTP/2 throws away what is queued for a stream that nobody holds.
pub(in crate::transport) type Leftover = Option<Streaming<Bytes>>;

impl Drop for Halves {
    fn drop(&mut self) {
        let leftover = self.leftover.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = self.ended.take() {
            // Nobody listens where the connection was over first.
            let _ = ended.send(leftover);
        }
    }
}

/// The sending half of a link.
pub(in crate::transport) type LinkSink = ChannelSink<Arc<Halves>>;

/// Parts of a link before its stream is open.
pub(in crate::transport) struct Outgoing {
    /// The sending half.
    pub(in crate::transport) sink: LinkSink,
    /// Frames that the sink is given.
    pub(in crate::transport) frames: mpsc::Receiver<Bytes>,
    /// Share of the receiving half.
    pub(in crate::transport) halves: Arc<Halves>,
    /// End of the link, for the task: resolves when both halves are dropped.
    pub(in crate::transport) ended: oneshot::Receiver<Leftover>,
}

impl Outgoing {
    pub(in crate::transport) fn new() -> Self {
        let (sender, ended) = oneshot::channel();
        let halves = Arc::new(Halves { ended: Some(sender), leftover: Mutex::default() });
        let (sink, frames) = channel(FRAMES_IN_FLIGHT, Arc::clone(&halves));
        Self { sink, frames, halves, ended }
    }
}

/// The receiving half of a link.
#[derive(Debug)]
pub(super) struct LinkStream {
    /// `None` after the end.
    frames: Leftover,
    halves: Arc<Halves>,
}

impl LinkStream {
    pub(super) fn new(frames: Streaming<Bytes>, halves: Arc<Halves>) -> Self {
        Self { frames: Some(frames), halves }
    }
}

impl Stream for LinkStream {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(None) };
        let last = match ready!(frames.poll_next_unpin(cx)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            Some(Err(status)) => Some(Err(failure::from_status("the stream broke", status))),
            None => None,
        };
        self.frames = None;
        Poll::Ready(last)
    }
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        let mut leftover = self.halves.leftover.lock().unwrap_or_else(PoisonError::into_inner);
        *leftover = self.frames.take();
    }
}

/// Collects the futures that hyper wants to run beside a connection.
#[derive(Clone, Default)]
pub(in crate::transport) struct Spawner {
    /// Emptied by the [`Driver`] in the same poll in which hyper fills it.
    spawned: Arc<Mutex<Vec<BoxFuture<'static, ()>>>>,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        let mut spawned = self.spawned.lock().unwrap_or_else(PoisonError::into_inner);
        spawned.push(Box::pin(future));
    }
}

impl Spawner {
    fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut *self.spawned.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A hyper connection together with everything it spawned. Completes when all of it is done, with
/// the connection's result.
pub(in crate::transport) struct Driver<C> {
    connection: Pin<Box<C>>,
    outcome: Option<hyper::Result<()>>,
    spawner: Spawner,
    spawned: FuturesUnordered<BoxFuture<'static, ()>>,
    leaving: Option<oneshot::Sender<()>>,
}

impl<C: Future<Output = hyper::Result<()>>> Driver<C> {
    pub(in crate::transport) fn new(connection: C, spawner: Spawner) -> Self {
        Self {
            connection: Box::pin(connection),
            outcome: None,
            spawner,
            spawned: FuturesUnordered::new(),
            leaving: None,
        }
    }

    /// Resolves when a client's connection takes no more requests while its streams live on. It is taken for that
    /// too once nobody holds its requests.
    pub(super) fn leaving(&mut self) -> Leaving {
        let (sender, told) = oneshot::channel();
        self.leaving = Some(sender);
        Box::pin(async move {
            if told.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    /// Drives until the contract at the top of this file says otherwise. `goodbye` starts an
    /// orderly end.
    pub(in crate::transport) async fn run(
        mut self,
        ended: oneshot::Receiver<Leftover>,
        goodbye: impl FnOnce(Pin<&mut C>) + Send,
    ) where
        C: Send,
    {
        let leftover = tokio::select! {
            _ = &mut self => return,
            leftover = ended => leftover.unwrap_or_default(),
        };
        self.goodbye(goodbye);
        let _ = timeout(LINGER, join(drain(leftover), self)).await;
    }

    /// Drives until the connection is over or, once `alive` is dropped, for [`LINGER`] more. Then nobody asks
    /// for more by `requests`.
    pub(in crate::transport) async fn run_while<R: Send>(
        mut self,
        alive: oneshot::Receiver<()>,
        requests: R,
    ) where
        C: Send,
    {
        tokio::select! {
            _ = &mut self => return,
            _ = alive => drop(requests),
        }
        let _ = timeout(LINGER, self).await;
    }

    /// Starts an orderly end.
    pub(in crate::transport) fn goodbye(&mut self, goodbye: impl FnOnce(Pin<&mut C>)) {
        if self.outcome.is_none() {
            goodbye(self.connection.as_mut());
        }
    }
}

/// Waits for the peer to end its direction too, but not for one that has much more to say.
async fn drain(leftover: Leftover) {
    let Some(mut frames) = leftover else { return };
    let mut bytes = 0;
    while let Some(Ok(frame)) = frames.next().await {
        bytes += frame.len();
        if bytes > DRAIN_BYTES {
            break;
        }
    }
}

impl<C: Future<Output = hyper::Result<()>>> Future for Driver<C> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            // What was spawned first: it fills the buffers that the connection then writes.
            while let Poll::Ready(Some(())) = this.spawned.poll_next_unpin(cx) {}
            if this.outcome.is_none()
                && let Poll::Ready(outcome) = this.connection.as_mut().poll(cx)
            {
                this.outcome = Some(outcome);
            }
            let new = this.spawner.take();
            if !new.is_empty() {
                this.spawned.extend(new);
                continue;
            }
            if !this.spawned.is_empty() {
                if this.outcome.is_some()
                    && let Some(leaving) = this.leaving.take()
                {
                    // Nobody listens where the link is over.
                    let _ = leaving.send(());
                }
                return Poll::Pending;
            }
            return this.outcome.take().map_or(Poll::Pending, Poll::Ready);
        }
    }
}

// The connection is boxed.
impl<C> Unpin for Driver<C> {}
