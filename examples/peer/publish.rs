//! Publishing: in the order of the lines, many at once.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use sorcha_peer::error::PublishError;
use sorcha_peer::{Mode, PeerNode, Receipt, TransactionId};
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::input::{Payload, Publish, Ref};
use crate::output::{Line, Out};

/// Maximum number of transactions handed to the node and not yet answered: fewer than its command queue holds, so
/// that handing over never waits and the order of the lines is the order of acceptance.
const UNDER_WAY: usize = 256;
/// Maximum number of random payloads that are published together.
const BATCH: usize = 64;
/// Maximum number of bytes of lines that wait, and of payloads that are under way, where the node has
/// memory for that; one larger than this goes alone.
const MAX_BYTES: u64 = 64 << 20;
/// Part of the node's memory that each of these may take: less than its publishes may, so that
/// the order of the lines stays.
const PART: u64 = 10;
/// Maximum number of transactions of one `publish_random`.
const MAX_COUNT: u64 = 1_000_000;
/// Delay before `publish_random` tries a full outbox again, and the maximum time that it does so while
/// nothing is accepted: each line has an answer soon, also where peers cannot empty the outbox.
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(3);

/// Work that one line asks for.
pub(crate) enum Job {
    One(Publish),
    Random { topic: String, size: usize, count: u64 },
}

/// The queue in front of the publisher, bounded by bytes.
pub(crate) struct PublishQueue {
    jobs: mpsc::UnboundedSender<(Ref, Job, OwnedSemaphorePermit)>,
    bytes: Room,
}

/// Room for a number of bytes.
#[derive(Clone)]
struct Room {
    free: Arc<Semaphore>,
    size: u32,
}

impl Room {
    fn new(bytes: u64) -> Self {
        let size = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(size as usize)), size }
    }

    /// Waits for room for `bytes`, or for all of it.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.size);
        Arc::clone(&self.free).acquire_many_owned(bytes).await.ok()
    }
}

impl PublishQueue {
    /// Starts a publisher, which ends when the queue is dropped and everything is answered.
    pub(crate) fn start(
        node: PeerNode,
        max_payload: u64,
        memory: u64,
        out: Out,
    ) -> (Self, JoinHandle<()>) {
        #[expect(clippy::disallowed_methods, reason = "`bytes` bounds it, in bytes")]
        let (jobs, queue) = mpsc::unbounded_channel();
        let part = MAX_BYTES.min(memory / PART);
        let (bytes, room) = (Room::new(part), Room::new(part));
        let publisher = Publisher { node, max_payload, out, room };
        (Self { jobs, bytes }, tokio::spawn(publisher.run(queue)))
    }

    /// Queues a job whose line has `size` bytes; waits while too much is queued.
    pub(crate) async fn push(&self, r#ref: Ref, job: Job, size: usize) {
        // A line holds somewhat more than its bytes.
        if let Some(room) = self.bytes.take(size + 256).await {
            let _ = self.jobs.send((r#ref, job, room));
        }
    }
}

struct Publisher {
    node: PeerNode,
    max_payload: u64,
    out: Out,
    /// Room for transactions under way, in bytes; none takes less than its share of [`UNDER_WAY`].
    room: Room,
}

impl Publisher {
    async fn run(self, mut queue: mpsc::UnboundedReceiver<(Ref, Job, OwnedSemaphorePermit)>) {
        while let Some((r#ref, job, room)) = queue.recv().await {
            match job {
                Job::One(publish) => self.one(r#ref, publish, room).await,
                Job::Random { topic, size, count } => {
                    let line = self.random(r#ref, topic, size, count).await;
                    self.out.line(line).await;
                }
            }
        }
        // There is all the room again once nothing is under way.
        self.room.take(usize::MAX).await;
    }

    /// Publishes one transaction; a task of its own answers once it is durable.
    async fn one(&self, r#ref: Ref, publish: Publish, room: OwnedSemaphorePermit) {
        let payload = match publish.payload {
            Payload::Here(payload) => Ok(payload),
            Payload::File(path) => read_file(&path, self.max_payload)
                .await
                .map_err(|error| format!("{}: {error}", path.display())),
        };
        let payload = match payload {
            Ok(payload) => payload,
            Err(error) => return self.out.line(Line::PublishFailed { r#ref, error }).await,
        };
        let (node, out) = (self.node.clone(), self.out.clone());
        self.hand_over(payload.len(), async move {
            let topic = &publish.topic;
            let published = match &publish.traceparent {
                Some(text) => node.publish_traced(topic, payload, text).await,
                None => node.publish(topic, payload).await,
            };
            let line = match published {
                Ok(receipt) => Line::Published { r#ref, id: receipt.id() },
                Err(error) => Line::PublishFailed { r#ref, error: error.to_string() },
            };
            out.line(line).await;
            drop(room);
        })
        .await;
    }

    /// Publishes `count` random payloads and sums up. While the outbox is full and peers are there
    /// to empty it, it waits for them.
    async fn random(&self, r#ref: Ref, topic: String, size: usize, count: u64) -> Line {
        if count > MAX_COUNT {
            let error = format!("count is {count}, allowed is up to {MAX_COUNT}");
            return Line::PublishFailed { r#ref, error };
        }
        if size as u64 > self.max_payload {
            let error = PublishError::TooLarge { size: size as u64, limit: self.max_payload };
            return Line::PublishFailed { r#ref, error: error.to_string() };
        }
        let topic: Arc<str> = topic.into();
        let batch = (self.room.size as usize / UNDER_WAY / size.max(1)).clamp(1, BATCH);
        let most = UNDER_WAY / batch;
        let mut under_way = VecDeque::with_capacity(most);
        let (mut tally, mut left) = (Tally::default(), count);
        let accepted = Arc::new(Mutex::new(Instant::now()));
        while left > 0 && !tally.hopeless {
            if under_way.len() == most {
                tally.add(under_way.pop_front()).await;
                continue;
            }
            let some = usize::try_from(left).map_or(batch, |left| left.min(batch));
            left -= some as u64;
            let (node, topic) = (self.node.clone(), Arc::clone(&topic));
            let work = publish_random(node, topic, size, some, Arc::clone(&accepted));
            under_way.push_back(self.hand_over(size.saturating_mul(some), work).await);
        }
        while !under_way.is_empty() {
            tally.add(under_way.pop_front()).await;
        }
        tally.into_line(r#ref, count)
    }

    /// Polls `work` once, here and now, which puts its transaction into the node's queue behind
    /// everything handed over before; the rest of it runs on its own.
    async fn hand_over<T: Send + 'static>(
        &self,
        size: usize,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let room = self.room.take(size.max(self.room.size as usize / UNDER_WAY)).await;
        // Unconstrained: tokio's budget must not end this poll before the queue has it.
        let mut work = Box::pin(tokio::task::unconstrained(async move {
            let done = work.await;
            drop(room);
            done
        }));
        let first = futures::poll!(&mut work);
        tokio::spawn(async move {
            match first {
                Poll::Ready(done) => done,
                Poll::Pending => work.await,
            }
        })
    }
}

/// Publishes random payloads together; while the outbox is full and peers are there to empty it, it
/// tries again, unless nothing was `accepted` for too long, by any task of the same line. In the end as
/// many are published as the outbox has room for.
async fn publish_random(
    node: PeerNode,
    topic: Arc<str>,
    size: usize,
    count: usize,
    accepted: Arc<Mutex<Instant>>,
) -> Outcome {
    let mut random = vec![0; size * count];
    if let Err(error) = getrandom::fill(&mut random) {
        return vec![Err(Failure::Hopeless(error.to_string()))];
    }
    let random = Bytes::from(random);
    let payloads: Vec<_> = (0..count).map(|n| random.slice(n * size..(n + 1) * size)).collect();
    let waited = || accepted.lock().map_or(PATIENCE, |latest| latest.elapsed());
    loop {
        match node.publish_many(&topic, payloads.iter().cloned()).await {
            Ok(receipts) => {
                if let Ok(mut latest) = accepted.lock() {
                    *latest = Instant::now();
                }
                return receipts.iter().map(|receipt| Ok(receipt.id())).collect();
            }
            Err(PublishError::QueueFull { .. })
                if node.mode() != Mode::Offline && waited() < PATIENCE =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            Err(PublishError::QueueFull { .. }) => break,
            Err(error) => return vec![Err(Failure::Hopeless(error.to_string()))],
        }
    }
    let results = node.publish_each(&topic, payloads).await;
    let outcome = |result: Result<Receipt, PublishError>| match result {
        Ok(receipt) => Ok(receipt.id()),
        Err(error @ PublishError::QueueFull { .. }) => Err(Failure::Once(error.to_string())),
        Err(error) => Err(Failure::Hopeless(error.to_string())),
    };
    results.into_iter().map(outcome).collect()
}

type Outcome = Vec<Result<TransactionId, Failure>>;

/// Reason why a random payload was not published.
enum Failure {
    /// The next one may fare better.
    Once(String),
    /// The next one will not.
    Hopeless(String),
}

/// Outcome of a `publish_random`.
#[derive(Default)]
struct Tally {
    ids: Vec<TransactionId>,
    error: Option<String>,
    hopeless: bool,
}

impl Tally {
    async fn add(&mut self, next: Option<JoinHandle<Outcome>>) {
        let Some(next) = next else { return };
        let outcome = next.await;
        let outcome =
            outcome.unwrap_or_else(|error| vec![Err(Failure::Hopeless(error.to_string()))]);
        for result in outcome {
            let failed = match result {
                Ok(id) => {
                    self.ids.push(id);
                    continue;
                }
                Err(failed) => failed,
            };
            self.hopeless |= matches!(failed, Failure::Hopeless(_));
            let (Failure::Once(error) | Failure::Hopeless(error)) = failed;
            self.error.get_or_insert(error);
        }
    }

    fn into_line(self, r#ref: Ref, wanted: u64) -> Line {
        match self.error {
            Some(error) if self.ids.is_empty() => Line::PublishFailed { r#ref, error },
            error => Line::PublishedAll {
                r#ref,
                id: self.ids.last().copied(),
                count: self.ids.len(),
                failed: wanted - self.ids.len() as u64,
                ids: self.ids,
                error,
            },
        }
    }
}

/// A regular file of at most `limit` bytes. Anything else could block for ever or never end.
async fn read_file(path: &Path, limit: u64) -> io::Result<Bytes> {
    if !tokio::fs::metadata(path).await?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut payload = Vec::new();
    tokio::fs::File::open(path).await?.take(limit + 1).read_to_end(&mut payload).await?;
    if payload.len() as u64 > limit {
        return Err(io::Error::other(format!("larger than the maximum payload of {limit} bytes")));
    }
    Ok(payload.into())
}
