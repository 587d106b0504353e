//! Subscriptions whose position the store keeps.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{AckError, SubscribeError};
use crate::node::past::RESERVED;
use crate::node::subscribed_topics::TopicsGuard;
use crate::ports::TransactionStore;
use crate::types::Cursor;

use super::subscription::{Item, LogNews, StartAt, Subscription};

/// Maximum length of the name of a durable subscription, in bytes.
const MAX_NAME: usize = 255;

/// A [`Subscription`] under a name, whose position is kept by the node's store: it goes on after the
/// last acknowledged delivery, also after a restart or `kill -9` (with a store that survives them).
///
/// Delivery is at least once: what was delivered and not acknowledged comes again when the name is
/// subscribed again. Within one subscription each cursor comes once, and what was acknowledged never
/// comes again.
pub struct DurableSubscription {
    items: Subscription,
    log: Arc<dyn TransactionStore>,
    lease: NameLease,
    /// The highest cursor that may be acknowledged.
    delivered: Cursor,
    /// The highest cursor that acknowledging moves the stored position to.
    ackable: Cursor,
}

impl DurableSubscription {
    pub(super) async fn new(
        log: Arc<dyn TransactionStore>,
        news: LogNews,
        lease: NameLease,
        topics: TopicsGuard,
        start: StartAt,
        memory: u64,
    ) -> Result<Self, SubscribeError> {
        let saved = log.load_cursor(&lease.name).await?;
        let from_saved = saved.map_or(start, StartAt::After);
        let items = Subscription::new(Arc::clone(&log), news, topics, from_saved).await?;
        let items = items.within(memory);
        let position = if let Some(cursor) = saved {
            cursor
        } else {
            // Saved from the start: a host that goes down before the first acknowledgement starts
            // here again and not with what is new then.
            let first = first_position(&*log, &items, start).await?;
            log.save_cursor(&lease.name, first).await?;
            first
        };
        Ok(Self { items, log, lease, delivered: position, ackable: position })
    }

    /// Name that it was subscribed under.
    pub fn name(&self) -> &str {
        &self.lease.name
    }

    /// Waits for the next item; `None` once the node is shut down and everything accepted was delivered, or
    /// the log was closed. Does not wait for acknowledgements. Cancel safe.
    pub async fn next(&mut self) -> Option<Item> {
        let item = self.items.next().await?;
        if let Some(cursor) = self.items.ackable_by(&item) {
            self.ackable = self.ackable.max(cursor);
        }
        let cursor = match &item {
            Item::Delivery(delivery) => delivery.cursor,
            Item::Gap { until, .. } => *until,
            Item::Failed(_) => return Some(item),
        };
        self.delivered = self.delivered.max(cursor);
        Some(item)
    }

    /// Acknowledges everything up to `cursor`: that of a delivery, or `until` of a gap. `Ok` means that
    /// the store has it, also after a power failure. One call costs one sync, so acknowledge the last
    /// of a batch; a cursor below an acknowledged one changes nothing. A future dropped before it is
    /// ready may or may not have saved.
    ///
    /// # Errors
    /// [`AckError`]; nothing was saved, and a later acknowledgement includes this one.
    pub async fn ack(&self, cursor: Cursor) -> Result<(), AckError> {
        if cursor > self.delivered {
            return Err(AckError::NotDelivered { cursor, delivered: self.delivered });
        }
        Ok(self.log.save_cursor(&self.lease.name, cursor.min(self.ackable)).await?)
    }
}

impl fmt::Debug for DurableSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableSubscription")
            .field("name", &self.lease.name)
            .field("items", &self.items)
            .finish_non_exhaustive()
    }
}

/// Returns the cursor before the first delivery of a new name.
async fn first_position(
    log: &dyn TransactionStore,
    items: &Subscription,
    start: StartAt,
) -> Result<Cursor, SubscribeError> {
    // First: what is appended meanwhile comes after it.
    let newest = log.newest().await?;
    if start != StartAt::Earliest {
        // A log that has given out none yet begins anew, whatever cursor another one gave out.
        return Ok(items.position().min(newest));
    }
    let oldest = log.index(Cursor::default(), 1).await?;
    Ok(oldest.first().map_or(newest, |oldest| Cursor(oldest.cursor.0.saturating_sub(1))))
}

/// Names of the durable subscriptions that live in this node.
#[derive(Debug, Clone, Default)]
pub(in crate::node) struct DurableNames(Arc<Mutex<BTreeSet<String>>>);

impl DurableNames {
    /// Takes a name until the lease is dropped.
    pub(super) fn lease(&self, name: &str) -> Result<NameLease, SubscribeError> {
        if name.is_empty() || name.len() > MAX_NAME || name.starts_with(RESERVED) {
            return Err(SubscribeError::Name { length: name.len(), max: MAX_NAME });
        }
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            return Err(SubscribeError::InUse { name: name.to_owned() });
        }
        Ok(NameLease { name: name.to_owned(), names: self.clone() })
    }
}

/// Right to a name, which no other subscription of this node has meanwhile.
#[derive(Debug)]
pub(super) struct NameLease {
    pub(super) name: String,
    names: DurableNames,
}

impl Drop for NameLease {
    fn drop(&mut self) {
        self.names.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}
