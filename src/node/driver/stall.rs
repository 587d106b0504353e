//! Watch over the writer of the stores: while it has something to store, one step ends after the other.
//!
//! A disk may hang for as long as it likes. Then nobody waits for it: publishes that it has are answered
//! with "unsettled", later ones are refused before it gets them, until it has stored something again.
//!
//! Tested by: `tests/store/hanging.rs`, `tests/process/disk.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{StoreError, StoreErrorKind};
use crate::node::messages::StoreFailure;
use crate::node::workers::store_health::Health;

/// Maximum time of a step, after which the stores count as stuck.
const MAX_STEP: Duration = Duration::from_secs(4);

/// Record of what the stores owe.
#[derive(Debug)]
pub(in crate::node) struct StallWatch {
    health: Arc<Health>,
    /// False: nothing that is stored waits for a disk, and a late step says only that the process is slow.
    may_hang: bool,
    /// Number of operations whose results are to come.
    owed: u64,
    /// Time of the latest results, or of the first operation after there was none.
    since: Instant,
    is_stuck: bool,
}

impl StallWatch {
    /// A watch over stores that `may_hang`, or over such that cannot, for which it does nothing.
    pub(in crate::node) fn new(health: Arc<Health>, may_hang: bool) -> Self {
        Self { health, may_hang, owed: 0, since: Instant::now(), is_stuck: false }
    }

    /// Notes that an operation was given to the writer, which will have a result.
    pub(super) fn note_given(&mut self) {
        if self.owed == 0 {
            self.since = Instant::now();
        }
        self.owed = self.owed.saturating_add(1);
    }

    /// Notes results: the stores work, well or not.
    pub(super) fn note_results(&mut self, count: usize) {
        self.owed = self.owed.saturating_sub(count as u64);
        self.since = Instant::now();
        if std::mem::take(&mut self.is_stuck) {
            self.health.note_stuck(None);
        }
    }

    /// Returns the time at which the stores count as stuck, unless a step ends before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let latest = || self.since.max(self.health.latest_step());
        (self.may_hang && self.owed > 0 && !self.is_stuck).then(|| latest() + MAX_STEP)
    }

    /// Returns whether the stores count as stuck from now on, and did not before.
    pub(super) fn begins(&mut self) -> bool {
        let begins = self.deadline().is_some_and(|deadline| deadline <= Instant::now());
        if begins {
            self.is_stuck = true;
            self.health.note_stuck(Some(&error()));
        }
        begins
    }

    /// Returns the reason for which nothing is given to the stores now.
    pub(super) fn refusal(&self) -> Option<StoreFailure> {
        self.is_stuck.then(|| StoreFailure::from(&error()))
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck
    }
}

fn error() -> StoreError {
    let message = format!("the store has not answered for {} s", MAX_STEP.as_secs());
    StoreError::new(StoreErrorKind::Io, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_late_step_is_told_of_stores_that_may_hang_and_of_no_others() {
        for may_hang in [true, false] {
            let (events, _) = tokio::sync::broadcast::channel(4);
            let mut watch = StallWatch::new(Arc::new(Health::new(events)), may_hang);
            watch.note_given();
            tokio::time::advance(MAX_STEP).await;
            assert_eq!((watch.begins(), watch.is_stuck()), (may_hang, may_hang));
            assert_eq!(watch.refusal().is_some(), may_hang);
        }
    }
}
