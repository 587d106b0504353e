//! Reading the node's log.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{StoreError, StoreErrorKind, SubscribeError};
use crate::node::subscribed_topics::Want;
use crate::ports::{LogEntry, Page, TransactionStore};
use crate::types::{Cursor, PeerId, Transaction};

/// Read ahead at most this many transactions and bytes.
const READ_AHEAD: (usize, usize) = (256, 1 << 20);

/// Before a read that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Start of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// With what is accepted after the call to `subscribe` returned. On an edge
    /// ([`Role::Edge`](crate::config::Role)) that did not carry the topic before, that is also
    /// what others retain of it.
    Now,
    /// With the oldest that is retained. An edge fetches what others retain of a topic that it did not
    /// carry before; it comes as it is accepted.
    Earliest,
    /// After this cursor of an earlier delivery of the same node. One that its log has not given
    /// out yet is refused with [`SubscribeError::Cursor`]; in a log that has given out none at all
    /// it means everything that comes. That a cursor is another node's does not show otherwise.
    After(Cursor),
}

/// One transaction, delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// Its place in this node's log; continue after it with [`StartAt::After`].
    pub cursor: Cursor,
    /// The transaction: hash and signature verified, accepted by the validator.
    pub transaction: Transaction,
    /// The peer it came from; `None` for the node's own.
    pub from: Option<PeerId>,
    /// Hops from its origin; 0 for the node's own.
    pub hops: u16,
}

/// What a subscription yields.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item {
    /// The next transaction.
    Delivery(Delivery),
    /// Between `after` and `until` are transactions that are no longer retained, or damaged, and
    /// were not delivered. Those of that stretch that can still be read follow.
    Gap {
        /// The last cursor before the gap.
        after: Cursor,
        /// The last cursor inside it.
        until: Cursor,
    },
    /// The log could not be read. The subscription goes on with the next call, after a pause of a
    /// second; it ends where the log was closed. What is damaged is skipped: a gap follows.
    Failed(StoreError),
}

/// Transactions of one topic, of some, or of all, in the order in which this node accepted them, each once.
///
/// It reads the log by cursor: a slow reader slows nobody, misses nothing inside the retention
/// window, and gets an explicit [`Item::Gap`] beyond it.
pub struct Subscription {
    log: Arc<dyn TransactionStore>,
    newest: watch::Receiver<Cursor>,
    /// The node carries these topics as long as this lives.
    want: Want,
    /// Everything up to here was read.
    position: Cursor,
    /// Whether what is no longer retained before the first read is to be told.
    tell_gap: bool,
    /// The log had given out no cursor when this began.
    virgin: bool,
    ahead: VecDeque<Item>,
    after_failure: AfterFailure,
    ended: bool,
}

/// What a read that failed leaves to be done before the next.
enum AfterFailure {
    Nothing,
    Wait(Instant),
    /// The log was closed: there is no next.
    End,
}

impl Subscription {
    pub(super) async fn new(
        log: Arc<dyn TransactionStore>,
        newest: watch::Receiver<Cursor>,
        want: Want,
        start: StartAt,
    ) -> Result<Self, SubscribeError> {
        let last = log.newest().await?;
        let position = match start {
            StartAt::Now => last,
            StartAt::Earliest => Cursor::default(),
            StartAt::After(cursor) => cursor,
        };
        let virgin = last == Cursor::default();
        if position > last && !virgin {
            return Err(SubscribeError::Cursor { cursor: position, newest: last });
        }
        let tell_gap = start != StartAt::Earliest;
        Ok(Self {
            log,
            newest,
            want,
            position,
            tell_gap,
            virgin,
            ahead: VecDeque::new(),
            after_failure: AfterFailure::Nothing,
            ended: false,
        })
    }

    /// The next item; `None` once the node is shut down and everything accepted was delivered, or
    /// the log was closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ahead.pop_front() {
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
            let newest = *self.newest.borrow_and_update();
            if self.virgin && newest > Cursor::default() {
                self.virgin = false;
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
            self.ended = self.newest.changed().await.is_err();
        }
    }

    /// Everything up to here was read.
    pub(super) fn position(&self) -> Cursor {
        self.position
    }

    /// Up to where acknowledging the item that was just taken may skip: what is still to be
    /// delivered of the stretch of a gap stands above it.
    pub(super) fn told_by(&self, item: &Item) -> Option<Cursor> {
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
        let (topic, after) = (self.want.topics().single(), self.position);
        let mut page = self.log.read(topic, after, READ_AHEAD.0, READ_AHEAD.1).await;
        if page.as_ref().is_err_and(|error| error.kind == StoreErrorKind::Corrupt) {
            // Not all of it: what stands before the damage is delivered.
            page = self.log.read(topic, after, 1, READ_AHEAD.1).await;
        }
        let error = match page {
            Ok(page) => return self.take(page, newest),
            Err(error) => error,
        };
        match error.kind {
            StoreErrorKind::Corrupt => {
                let until = self.behind_damage(newest).await;
                self.ahead.extend([Item::Failed(error), Item::Gap { after, until }]);
                (self.position, self.tell_gap) = (until, true);
                return;
            }
            StoreErrorKind::Closed => self.after_failure = AfterFailure::End,
            _ => self.after_failure = AfterFailure::Wait(Instant::now() + PAUSE),
        }
        self.ahead.push_back(Item::Failed(error));
    }

    /// The next entry, which cannot be read; all that there is where not even that is known.
    async fn behind_damage(&self, newest: Cursor) -> Cursor {
        let next = self.log.index(self.position, 1).await.unwrap_or_default();
        next.first().map_or(newest, |entry| entry.cursor)
    }

    fn take(&mut self, page: Page, newest: Cursor) {
        let lost = if self.tell_gap { page.lost_until } else { page.damaged_until };
        if let Some(until) = lost {
            self.ahead.push_back(Item::Gap { after: self.position, until });
        }
        self.tell_gap = true;
        // What was the newest before the read was looked at when there is nothing more; a page that
        // ends early says itself how far it came.
        self.position = if page.next > self.position { page.next } else { newest };
        let topics = self.want.topics();
        let wanted = |e: &LogEntry| topics.contains(e.entry.transaction.topic());
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

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topics", self.want.topics())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
