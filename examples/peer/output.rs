//! What goes out: one JSON object a line, all through one writer.

use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sorcha_peer::error::ShutdownReport;
use sorcha_peer::types::{
    CloseReason, Direction, Explanation, LinkStatus, PeerTest, ReachabilityReport, Refusal,
    WallTime,
};
use sorcha_peer::{Cursor, DeadLetter, Mode, PeerId, Stats, Topic, TransactionId, TransportKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::breakers::Breaker;
use crate::input::Ref;

/// Maximum number of bytes of lines that wait for a reader of stdout. Above it the program waits
/// too: it delivers nothing more and reads no further input.
const MAX_WAITING: u32 = 64 << 20;

/// Creation times of what may be missing for good.
#[derive(Debug, Serialize)]
pub(crate) struct Missed {
    pub(crate) from: WallTime,
    pub(crate) until: WallTime,
}

/// Every line of the contract; the variant's name is the value of `event`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line {
    Ready {
        peer_id: PeerId,
        listen: Option<SocketAddr>,
        admin: Option<SocketAddr>,
    },
    /// The answer to what has no event of its own.
    Ok {
        r#ref: Ref,
        op: &'static str,
        #[serde(flatten)]
        result: Done,
    },
    Published {
        r#ref: Ref,
        id: TransactionId,
    },
    /// The answer to `publish_random`.
    #[serde(rename = "published")]
    PublishedAll {
        r#ref: Ref,
        id: Option<TransactionId>,
        ids: Vec<TransactionId>,
        count: usize,
        failed: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    PublishFailed {
        r#ref: Ref,
        error: String,
    },
    Explained {
        r#ref: Ref,
        #[serde(flatten)]
        told: Box<Explanation>,
    },
    Replicated {
        id: TransactionId,
        peers: u32,
    },
    Renewed {
        id: TransactionId,
        renewed_as: TransactionId,
    },
    Refused {
        id: TransactionId,
        peer: PeerId,
        reason: Refusal,
    },
    DeadLettered {
        id: TransactionId,
        reason: String,
    },
    ClockOff {
        offset_ms: i64,
        peers: u32,
    },
    ClockRight,
    Delivered {
        id: TransactionId,
        topic: Topic,
        origin: PeerId,
        from: Option<PeerId>,
        hops: u16,
        size: usize,
        sha256: String,
        cursor: Cursor,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        traceparent: Option<String>,
    },
    Gap {
        after: Cursor,
        until: Cursor,
        #[serde(skip_serializing_if = "Option::is_none")]
        missed: Option<Missed>,
    },
    PeerUp {
        peer: PeerId,
        transport: TransportKind,
        address: Option<String>,
        direction: Direction,
    },
    PeerDown {
        peer: PeerId,
        reason: CloseReason,
    },
    TransportChanged {
        peer: PeerId,
        from: TransportKind,
        to: TransportKind,
        reason: String,
    },
    BreakerOpened {
        peer: Option<PeerId>,
        address: Option<String>,
        failures: u32,
        reset_s: u64,
    },
    BreakerHalfOpen {
        peer: Option<PeerId>,
        address: Option<String>,
    },
    BreakerClosed {
        peer: Option<PeerId>,
        address: Option<String>,
    },
    Mode {
        mode: Mode,
    },
    IdentityInUse {
        peer: PeerId,
        address: Option<String>,
    },
    /// The address that somebody outside saw.
    #[serde(rename = "reachability")]
    Observed {
        address: String,
        prober: String,
    },
    /// How others reach the node: the answer to `reachability`, and each time it changes.
    Reachability {
        #[serde(skip_serializing_if = "Option::is_none")]
        r#ref: Option<Ref>,
        #[serde(flatten)]
        report: Box<ReachabilityReport>,
    },
    Stats {
        r#ref: Ref,
        #[serde(flatten)]
        stats: Box<Stats>,
        log_lines_dropped: u64,
    },
    Metrics {
        r#ref: Ref,
        text: String,
    },
    Invite {
        r#ref: Ref,
        invite: String,
    },
    DeadLetters {
        r#ref: Ref,
        dead_letters: Vec<Dead>,
    },
    Peers {
        r#ref: Ref,
        peers: Vec<Linked>,
        /// Who cannot be reached and is left alone for a while.
        breakers: Vec<Breaker>,
    },
    /// The answer of a peer.
    Response {
        r#ref: Ref,
        base64: String,
    },
    /// A peer's request that this node answers.
    Requested {
        peer: String,
        protocol: String,
        size: usize,
    },
    Tested {
        r#ref: Ref,
        #[serde(flatten)]
        test: PeerTest,
    },
    Error {
        r#ref: Ref,
        error: String,
    },
}

/// A linked peer: its circuit breaker is closed for as long as it is linked.
#[derive(Debug, Serialize)]
pub(crate) struct Linked {
    #[serde(flatten)]
    link: LinkStatus,
    rating: &'static str,
    breaker: &'static str,
}

impl From<LinkStatus> for Linked {
    fn from(link: LinkStatus) -> Self {
        Self { rating: link.rating(), breaker: "closed", link }
    }
}

/// One dead letter; times in milliseconds of the Unix epoch.
#[derive(Debug, Serialize)]
pub(crate) struct Dead {
    seq: u64,
    id: TransactionId,
    topic: Topic,
    size: usize,
    created: WallTime,
    expires: WallTime,
    reason: String,
    since: WallTime,
}

impl From<DeadLetter> for Dead {
    fn from(dead: DeadLetter) -> Self {
        let header = dead.transaction.header();
        Self {
            seq: dead.seq,
            id: dead.transaction.id(),
            topic: header.topic.clone(),
            size: dead.transaction.payload().len(),
            created: header.created,
            expires: header.expires,
            reason: dead.reason,
            since: dead.since,
        }
    }
}

/// Result that an `ok` tells beside the operation.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Done {
    Peer { peer: PeerId },
    Transaction { id: TransactionId },
    Shutdown { unconfirmed: Vec<TransactionId>, unflushed: Vec<PeerId> },
}

impl Line {
    /// An error that answers the line with this `ref`, or none.
    pub(crate) fn error(r#ref: Ref, error: &impl ToString) -> Self {
        Self::Error { r#ref, error: error.to_string() }
    }
}

impl From<ShutdownReport> for Done {
    fn from(report: ShutdownReport) -> Self {
        Self::Shutdown { unconfirmed: report.unconfirmed, unflushed: report.undrained }
    }
}

enum Item {
    Line { text: Vec<u8>, _room: OwnedSemaphorePermit },
    End(oneshot::Sender<()>),
}

/// The way to stdout. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Out {
    items: mpsc::UnboundedSender<Item>,
    room: Arc<Semaphore>,
}

impl Out {
    /// Starts the writer on a thread of its own: a reader of stdout that stalls blocks that thread
    /// and no other.
    pub(crate) fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "`room` bounds it, in bytes")]
        let (items, queue) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            if let Err(error) = write_all(queue) {
                tracing::error!(%error, "cannot write to stdout");
            }
        });
        Self { items, room: Arc::new(Semaphore::new(MAX_WAITING as usize)) }
    }

    /// Queues a line, and waits while too much is queued. Once stdout is closed, lines vanish.
    pub(crate) async fn line(&self, line: Line) {
        let mut text = match serde_json::to_vec(&line) {
            Ok(text) => text,
            Err(error) => return tracing::error!(%error, ?line, "a line that is no JSON"),
        };
        text.push(b'\n');
        let size = u32::try_from(text.len()).unwrap_or(u32::MAX).min(MAX_WAITING);
        let room = Arc::clone(&self.room).acquire_many_owned(size);
        if let Ok(room) = room.await {
            let _ = self.items.send(Item::Line { text, _room: room });
        }
    }

    /// Waits until stdout cannot be written to any more.
    pub(crate) async fn closed(&self) {
        self.items.closed().await;
    }

    /// Waits until everything queued is written, at most this long.
    pub(crate) async fn finish(&self, limit: Duration) {
        let (done, written) = oneshot::channel();
        let _ = self.items.send(Item::End(done));
        let _ = tokio::time::timeout(limit, written).await;
    }
}

/// Writes what waits in as few calls as possible, and flushes whenever nothing does: no line is
/// held back, none is interleaved with another.
fn write_all(mut queue: mpsc::UnboundedReceiver<Item>) -> io::Result<()> {
    let mut stdout = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Item::Line { text, .. } => stdout.write_all(&text)?,
                Item::End(done) => {
                    stdout.flush()?;
                    let _ = done.send(());
                    return Ok(());
                }
            }
            next = queue.try_recv().ok();
        }
        stdout.flush()?;
    }
    Ok(())
}
