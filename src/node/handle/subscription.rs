//! Subscriptions: reading of the node's log.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{StoreError, StoreErrorKind, SubscribeError};
use crate::node::clock::PublishClock;
use crate::node::late_news::LateNews;
use crate::node::past::{AllMissed, Missed};
use crate::node::recent_traces::RecentTraces;
use crate::node::subscribed_topics::TopicsGuard;
use crate::ports::{LogEntry, Page, TransactionStore};
use crate::types::{Cursor, PeerId, Transaction, WallTime};

/// Maximum number of transactions that are read ahead, and of their bytes where the node has memory for that.
const READ_AHEAD: (usize, usize) = (256, 1 << 20);

/// Delay before a read that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Start of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// At what is new after the call to `subscribe` returned. Left out is what was created before,
    /// by the clock of its origin, and comes later all the same because this node had to catch up with
    /// others: by a comparison, on an edge also of a topic that it did not carry before, or from the
    /// outbox of an origin that was cut off. What comes as news is delivered whatever its
    /// origin's clock says: pushed to this node, or announced and no older than
    /// [`max_clock_skew`](crate::config::NetworkConfig::max_clock_skew). So nothing is missed that was
    /// published after the call, unless all of this holds: its origin's clock is slow, it was published
    /// within that span after the call, and it came by catching up.
    ///
    /// A [durable subscription](crate::PeerNode::subscribe_durable) begins at the place in the log and
    /// leaves nothing out that is accepted after it.
    Now,
    /// At the oldest transaction that is retained. An edge fetches what others retain of a topic
    /// that it did not carry before; transactions come as they are accepted.
    Earliest,
    /// After this cursor of an earlier delivery of the same node. One that its log has not given
    /// out yet is refused with [`SubscribeError::Cursor`]; in a log that has given out none at all
    /// it means everything that comes. That a cursor is another node's does not show otherwise.
    After(Cursor),
}

/// Delivery of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// Cursor in this node's log; continue after it with [`StartAt::After`].
    pub cursor: Cursor,
    /// The transaction: hash and signature are verified, and the validator, where it was asked, accepted it.
    /// Its [`Transaction::traceparent`] ties the delivery to what published it.
    pub transaction: Transaction,
    /// The peer that the payload came from, which need not be its origin; `None` for the node's own.
    pub from: Option<PeerId>,
    /// Number of hops from its origin; 0 for the node's own.
    pub hops: u16,
}

/// Item of a subscription.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item {
    /// The next transaction.
    Delivery(Delivery),
    /// Between `after` and `until` are transactions that are no longer retained, or damaged, and
    /// were not delivered. Transactions of that stretch that can still be read follow.
    ///
    /// With a `span` it tells of what never was in the log: the node was away for so long that what
    /// was created in this span is gone everywhere, as far as its peers know
    /// ([`Event::HistoryMissed`](crate::Event::HistoryMissed)). Both cursors are then the one that was the
    /// newest when that was found out, or a later one; whoever subscribes after it is told as well.
    #[non_exhaustive]
    Gap {
        /// The last cursor before the gap.
        after: Cursor,
        /// The last cursor inside it.
        until: Cursor,
        /// Creation times of what may be missing for good.
        span: Option<Range<WallTime>>,
    },
    /// The log could not be read. The subscription goes on with the next call, after a pause of a
    /// second; it ends where the log was closed. What is damaged is skipped: a gap follows.
    Failed(StoreError),
}

/// Transactions of one topic, of some, or of all, in the order in which this node accepted them,
/// each once.
///
/// It reads the log by cursor: a slow reader slows nobody, misses nothing inside the retention
/// window, and gets an explicit [`Item::Gap`] beyond it.
///
/// ```
/// use sorcha_peer::{Item, PeerNode, StartAt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = PeerNode::builder().listen("127.0.0.1:0").start().await?;
/// node.publish("orders", "one widget").await?;
///
/// let mut orders = node.subscribe("orders", StartAt::Earliest).await?;
/// while let Some(item) = orders.next().await {
///     match item {
///         Item::Delivery(delivery) => {
///             println!("{}: {} bytes", delivery.cursor, delivery.transaction.payload().len());
///             break; // keep `delivery.cursor` and go on with `StartAt::After` after a restart
///         }
///         Item::Gap { .. } => eprintln!("something was dropped before it could be delivered"),
///         Item::Failed(error) => eprintln!("{error}; the next call tries again"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Subscription {
    log: Arc<dyn TransactionStore>,
    news: LogNews,
    /// Number of the last span that was told, or is not to be.
    told_missed: u64,
    /// Keeps the node carrying these topics.
    topics: TopicsGuard,
    /// Cursor up to which everything was read.
    position: Cursor,
    /// True: the subscriber is to hear of what was no longer retained before the first read.
    tell_gap: bool,
    /// True: the log had given out no cursor when the subscription began.
    log_was_empty: bool,
    /// Time before which everything is history that is left out, if any is.
    since: Option<Since>,
    /// Maximum number of bytes that are read ahead, beyond the first transaction.
    max_ahead: usize,
    ahead: VecDeque<Item>,
    after_failure: AfterFailure,
    ended: bool,
}

/// Changes of the log that subscriptions wait for.
#[derive(Debug, Clone)]
pub(in crate::node) struct LogNews {
    pub(in crate::node) newest: watch::Receiver<Cursor>,
    pub(in crate::node) missed: watch::Receiver<AllMissed>,
    /// Trace contexts of what is read.
    pub(in crate::node) traces: Arc<RecentTraces>,
}

impl LogNews {
    /// Waits for a change; `false` when there are no more. Cancel safe.
    async fn changed(&mut self) -> bool {
        tokio::select! {
            biased;
            newest = self.newest.changed() => newest.is_ok(),
            missed = self.missed.changed() => missed.is_ok(),
        }
    }
}

/// Beginning of a subscription, in time.
#[derive(Debug)]
pub(super) struct Since {
    wall: WallTime,
    at: Instant,
    clock: Arc<PublishClock>,
    late_news: Arc<LateNews>,
}

impl Since {
    pub(super) fn now(clock: Arc<PublishClock>, late_news: Arc<LateNews>) -> Self {
        let (wall, at) = (clock.now(), Instant::now());
        late_news.expect(wall);
        Self { wall, at, clock, late_news }
    }

    /// Returns the beginning as the clock shows it by now. A clock that was ahead and is right again
    /// must not make history of what is new.
    fn time(&self) -> WallTime {
        self.wall.min(self.clock.now().minus(self.at.elapsed()))
    }

    /// Reports whether an entry of the log is history.
    fn is_before(&self, LogEntry { cursor, entry }: &LogEntry) -> bool {
        // What is its own is as new as its place in the log says.
        entry.from.is_some()
            && entry.transaction.header().created < self.time()
            && !self.late_news.contains(*cursor)
    }
}

/// Step that a failed read leaves to be taken before the next.
enum AfterFailure {
    Nothing,
    Wait(Instant),
    /// The log was closed: there is no next.
    End,
}

impl Subscription {
    pub(super) async fn new(
        log: Arc<dyn TransactionStore>,
        news: LogNews,
        topics: TopicsGuard,
        start: StartAt,
    ) -> Result<Self, SubscribeError> {
        let last = log.newest().await?;
        let position = match start {
            StartAt::Now => last,
            StartAt::Earliest => Cursor::default(),
            StartAt::After(cursor) => cursor,
        };
        let log_was_empty = last == Cursor::default();
        if position > last && !log_was_empty {
            return Err(SubscribeError::Cursor { cursor: position, newest: last });
        }
        let tell_gap = start != StartAt::Earliest;
        // What was missed before it began is no matter of a subscription that begins now.
        let is_old = |missed: &&Missed| start == StartAt::Now || missed.at < position;
        let told = news.missed.borrow().iter().filter(is_old).map(|missed| missed.number).max();
        Ok(Self {
            log,
            news,
            told_missed: told.unwrap_or_default(),
            topics,
            position,
            tell_gap,
            log_was_empty,
            since: None,
            max_ahead: READ_AHEAD.1,
            ahead: VecDeque::new(),
            after_failure: AfterFailure::Nothing,
            ended: false,
        })
    }

    /// Leaves out history that comes late, as from a peer that is compared with.
    pub(super) fn leave_out_before(mut self, since: Option<Since>) -> Self {
        self.since = since;
        self
    }

    /// Reads ahead what a node may that has `memory` bytes.
    pub(super) fn within(mut self, memory: u64) -> Self {
        let part = usize::try_from(memory / 256).unwrap_or(usize::MAX);
        self.max_ahead = part.min(READ_AHEAD.1);
        self
    }

    /// Waits for the next item; `None` once the node is shut down and everything accepted was delivered, or
    /// the log was closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ahead.pop_front() {
                trace_delivery(&item);
                return Some(item);
            }
            match self.after_failure {
                AfterFailure::Nothing => {}
                AfterFailure::Wait(until) => {
                    tokio::time::sleep_until(until).await;
                    self.after_failure = AfterFailure::Nothing;
                }
                AfterFailure::End => return None,
            }
            if let Some(gap) = self.next_missed() {
                return Some(gap);
            }
            let newest = *self.news.newest.borrow_and_update();
            if self.log_was_empty && newest > Cursor::default() {
                self.log_was_empty = false;
                if newest < self.position {
                    // Given out by another log: all that is in this one is new.
                    (self.position, self.tell_gap) = (Cursor::default(), false);
                }
            }
            if newest > self.position {
                self.read(newest).await;
                continue;
            }
            if self.ended {
                return None;
            }
            self.ended = !self.news.changed().await;
        }
    }

    /// Returns the gap of a span that was missed, once everything before it was delivered.
    fn next_missed(&mut self) -> Option<Item> {
        let all = self.news.missed.borrow_and_update();
        let next = all.iter().find(|missed| missed.number > self.told_missed)?;
        if next.at > self.position {
            return None;
        }
        self.told_missed = next.number;
        let (after, until) = (self.position, self.position);
        Some(Item::Gap { after, until, span: Some(next.span.clone()) })
    }

    /// Returns the cursor up to which everything was read.
    pub(super) fn position(&self) -> Cursor {
        self.position
    }

    /// Returns up to where acknowledging the item that was just taken may skip: what is still to be
    /// delivered of the stretch of a gap stands above that cursor.
    pub(super) fn ackable_by(&self, item: &Item) -> Option<Cursor> {
        match item {
            Item::Delivery(delivery) => Some(delivery.cursor),
            Item::Gap { until, .. } => Some(match self.ahead.front() {
                Some(Item::Delivery(next)) => Cursor(next.cursor.0.saturating_sub(1)).min(*until),
                _ => self.position.min(*until),
            }),
            Item::Failed(_) => None,
        }
    }

    async fn read(&mut self, newest: Cursor) {
        let (topic, after) = (self.topics.topics().single(), self.position);
        let mut page = self.log.read(topic, after, READ_AHEAD.0, self.max_ahead).await;
        if page.as_ref().is_err_and(|error| error.kind == StoreErrorKind::Corrupt) {
            // Not all of it: what stands before the damage is delivered.
            page = self.log.read(topic, after, 1, self.max_ahead).await;
        }
        let error = match page {
            Ok(page) => return self.append_page(page, newest),
            Err(error) => error,
        };
        match error.kind {
            StoreErrorKind::Corrupt => {
                let until = self.end_of_damage(newest).await;
                self.ahead.extend([Item::Failed(error), Item::Gap { after, until, span: None }]);
                (self.position, self.tell_gap) = (until, true);
                return;
            }
            StoreErrorKind::Closed => self.after_failure = AfterFailure::End,
            _ => self.after_failure = AfterFailure::Wait(Instant::now() + RETRY_DELAY),
        }
        self.ahead.push_back(Item::Failed(error));
    }

    /// Returns the cursor of the next entry, which cannot be read, or that of the newest where not
    /// even this is known.
    async fn end_of_damage(&self, newest: Cursor) -> Cursor {
        let next = self.log.index(self.position, 1).await.unwrap_or_default();
        next.first().map_or(newest, |entry| entry.cursor)
    }

    fn append_page(&mut self, mut page: Page, newest: Cursor) {
        if self.since.is_some() {
            cut(&mut page, newest);
        }
        self.news.traces.give_back(page.entries.iter_mut().map(|e| &mut e.entry.transaction));
        let gap_until = if self.tell_gap { page.gap_until } else { page.damaged_until };
        if let Some(until) = gap_until {
            self.ahead.push_back(Item::Gap { after: self.position, until, span: None });
        }
        self.tell_gap = true;
        // What was the newest before the read was looked at when there is nothing more; a page that
        // ends early says itself how far it came.
        self.position = if page.next > self.position { page.next } else { newest };
        let topics = self.topics.topics();
        let is_history = |e: &LogEntry| self.since.as_ref().is_some_and(|s| s.is_before(e));
        let wanted = |e: &LogEntry| topics.contains(e.entry.transaction.topic()) && !is_history(e);
        self.ahead.extend(page.entries.into_iter().filter(wanted).map(|e| {
            Item::Delivery(Delivery {
                cursor: e.cursor,
                transaction: e.entry.transaction,
                from: e.entry.from,
                hops: e.entry.hops,
            })
        }));
    }
}

/// Tells who traces of a delivery.
fn trace_delivery(item: &Item) {
    if let Item::Delivery(Delivery { transaction, from, hops, .. }) = item {
        tracing::trace!(
            target: "sorcha_peer::gossip",
            id = %transaction.id(),
            topic = transaction.topic().as_str(),
            from = from.map(tracing::field::display),
            hops,
            "delivered"
        );
    }
}

/// Takes off a page what the store had before the node said so: whether that came as news is noted only
/// then. It is on the next page.
fn cut(page: &mut Page, newest: Cursor) {
    page.entries.retain(|entry| entry.cursor <= newest);
    page.next = page.next.min(newest);
    page.gap_until = page.gap_until.map(|until| until.min(newest));
    page.damaged_until = page.damaged_until.map(|until| until.min(newest));
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topics", self.topics.topics())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
