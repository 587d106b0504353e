//! The two tasks of a link: one writes what waits as frames, one reads and decodes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tracing::Instrument;

use crate::error::FailureKind;
use crate::node::messages::Completion;
use crate::ports::{FrameSink, FrameStream, RawLink};
use crate::protocol::Input;
use crate::types::{LinkId, Message};
use crate::wire::{FrameEncoder, decode_frame};

use super::effects::Inbound;

/// Maximum number of messages waiting for one link. The protocol stops at 256 KiB; only tiny messages
/// could be so many, and a peer that provokes thousands of them without reading is cut off.
const MAX_QUEUED: usize = 8192;
/// Size in bytes at which a frame is closed: one piece of bulk, or a batch of small transactions.
const FRAME_BUDGET: usize = 64 * 1024;
/// Maximum time for what is queued to leave when a link is closed.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes that links have carried which are gone: received, and taken to be sent.
#[derive(Debug, Clone, Default)]
pub(super) struct CarriedBytes(Arc<[AtomicU64; 2]>);

impl CarriedBytes {
    pub(super) fn read(&self) -> (u64, u64) {
        let [received, taken] = &*self.0;
        (received.load(Ordering::Relaxed), taken.load(Ordering::Relaxed))
    }

    fn add(&self, bytes: (u64, u64), counted_before: (u64, u64)) {
        let [received, taken] = &*self.0;
        received.fetch_add(bytes.0.saturating_sub(counted_before.0), Ordering::Relaxed);
        taken.fetch_add(bytes.1.saturating_sub(counted_before.1), Ordering::Relaxed);
    }
}

/// The driver's end of a link.
#[derive(Debug)]
pub(super) struct LinkHandle {
    queue: mpsc::Sender<Message>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
    traffic: Traffic,
}

/// Bytes that a transport has read and written, where it counts them.
#[derive(Debug, Clone)]
struct Traffic {
    received: Option<Arc<AtomicU64>>,
    taken: Option<Arc<AtomicU64>>,
}

impl Traffic {
    fn read(&self) -> (u64, u64) {
        let read = |count: &Option<Arc<AtomicU64>>| {
            count.as_ref().map_or(0, |count| count.load(Ordering::Relaxed))
        };
        (read(&self.received), read(&self.taken))
    }

    /// The end of a link, and what it has carried by then.
    fn ended(&self, link: LinkId) -> Completion {
        let (received, taken) = self.read();
        let measured = Input::Measured { link, received, taken };
        Completion::Inputs(vec![measured, Input::LinkClosed { link }])
    }
}

impl LinkHandle {
    /// Starts the tasks. Frames go to `inbound`, what was sent to `done`.
    pub(super) fn spawn(
        link: LinkId,
        raw: RawLink,
        inbound: Inbound,
        done: mpsc::Sender<Completion>,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_QUEUED);
        let traffic = Traffic { received: raw.received, taken: raw.taken };
        let (ended, at_end) = (inbound.channel.clone(), traffic.clone());
        let span = tracing::debug_span!(
            target: "sorcha_peer::link",
            "link",
            peer = %raw.remote,
            transport = %raw.kind,
        );
        let span = span.or_current();
        let writer = async move {
            if write(link, waiting, raw.sink, &done).await.is_err() {
                let _ = ended.send(at_end.ended(link)).await;
            }
        };
        let reader = read(link, raw.stream, raw.leaving, inbound, traffic.clone());
        let writer = tokio::spawn(writer.instrument(span.clone()));
        let reader = tokio::spawn(reader.instrument(span));
        Self { queue, writer, reader, traffic }
    }

    /// Returns the bytes that the transport has read and written by now.
    pub(super) fn traffic(&self) -> (u64, u64) {
        self.traffic.read()
    }

    /// Queues a message; `false` where there is no room for it. On a link that broke it is lost: the end
    /// of that is told, or is about to be.
    pub(super) fn send(&self, message: Message) -> bool {
        !matches!(self.queue.try_send(message), Err(mpsc::error::TrySendError::Full(_)))
    }

    /// Lets what is queued leave, for a while, then closes. Reading goes on meanwhile, so that the
    /// transport is not reset under what is still to be sent.
    pub(super) fn close(self, closing: &mut JoinSet<()>, carried: &CarriedBytes) {
        let Self { queue, mut writer, reader, traffic } = self;
        drop(queue);
        let by_now = traffic.read();
        carried.add(by_now, (0, 0));
        let carried = carried.clone();
        closing.spawn(async move {
            let guard = AbortOnDrop(vec![writer.abort_handle(), reader.abort_handle()]);
            let _ = tokio::time::timeout(LINGER_TIMEOUT, &mut writer).await;
            drop(guard);
            carried.add(traffic.read(), by_now);
        });
    }

    /// Ends both tasks at once.
    pub(super) fn abort(self, carried: &CarriedBytes) {
        carried.add(self.traffic.read(), (0, 0));
        self.writer.abort();
        self.reader.abort();
    }
}

struct AbortOnDrop(Vec<tokio::task::AbortHandle>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Writes until the queue is closed and empty (`Ok`) or the transport fails (`Err`).
async fn write(
    link: LinkId,
    mut waiting: mpsc::Receiver<Message>,
    mut sink: FrameSink,
    done: &mpsc::Sender<Completion>,
) -> Result<(), ()> {
    let mut encoder = FrameEncoder::new();
    let mut queue = VecDeque::new();
    let mut fresh = Vec::new();
    loop {
        if queue.is_empty() {
            if waiting.recv_many(&mut fresh, MAX_QUEUED).await == 0 {
                return sink.close().await.map_err(|_| ());
            }
        } else {
            while let Ok(message) = waiting.try_recv() {
                fresh.push(message);
            }
        }
        queue.extend(fresh.drain(..));
        let encoded = match encoder.encode_next(&mut queue, FRAME_BUDGET) {
            Ok(Some(encoded)) => encoded,
            Ok(None) => continue,
            Err(error) => {
                // The core never makes such a message; if it did, dropping it is all that is left.
                tracing::error!(target: "sorcha_peer::link", %error, "unsendable message");
                continue;
            }
        };
        let bytes = encoded.frame.len();
        sink.send(encoded.frame).await.map_err(|error| {
            tracing::debug!(target: "sorcha_peer::link", %error, "link broke while writing");
        })?;
        let sent = Input::Sent { link, weight: encoded.weight, bytes };
        done.send(Completion::Inputs(vec![sent])).await.map_err(|_| ())?;
    }
}

/// Notice of a transport that a connection is about to be closed.
type Leaving = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn notice(leaving: &mut Option<Leaving>) {
    match leaving {
        Some(leaving) => leaving.await,
        None => std::future::pending().await,
    }
}

async fn read(
    link: LinkId,
    mut stream: FrameStream,
    mut leaving: Option<Leaving>,
    inbound: Inbound,
    traffic: Traffic,
) {
    loop {
        let frame = tokio::select! {
            biased;
            () = notice(&mut leaving) => {
                leaving = None;
                let told = Completion::Inputs(vec![Input::Leaving { link }]);
                if inbound.channel.send(told).await.is_err() {
                    return;
                }
                continue;
            }
            frame = stream.next() => frame,
        };
        let Some(frame) = frame else { break };
        let size = frame.as_ref().map_or(0, Bytes::len);
        let input = match frame {
            Ok(frame) => {
                let bytes = frame.len();
                match decode_frame(frame) {
                    Ok(messages) => Input::Received { link, messages, bytes },
                    Err(error) => {
                        tracing::debug!(target: "sorcha_peer::link", %error, "malformed frame");
                        Input::Malformed { link }
                    }
                }
            }
            Err(error) => {
                tracing::debug!(target: "sorcha_peer::link", %error, "link broke while reading");
                if error.kind == FailureKind::Malformed {
                    Input::Malformed { link }
                } else {
                    break;
                }
            }
        };
        let room = inbound.room.take(size).await;
        if inbound.channel.send(Completion::Frame { input, room }).await.is_err() {
            return;
        }
    }
    // On the same channel as the frames, so that nothing that was read is overtaken.
    let _ = inbound.channel.send(traffic.ended(link)).await;
}
