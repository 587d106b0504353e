//! Sums over the entries that wait, kept up as they come and go: nobody counts a hundred thousand of
//! them at each look.
//!
//! Bound: as many times as there are entries; those of one millisecond are one.
//!
//! Tested by: `outbox::tests`.

use std::collections::BTreeMap;

use crate::types::WallTime;

#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Number of entries by when they were published.
    created: BTreeMap<WallTime, u32>,
    attempts: u64,
}

impl Tally {
    pub(super) fn enter(&mut self, created: WallTime, attempts: u8) {
        *self.created.entry(created).or_default() += 1;
        self.attempts += u64::from(attempts);
    }

    pub(super) fn leave(&mut self, created: WallTime, attempts: u8) {
        if let Some(count) = self.created.get_mut(&created) {
            *count -= 1;
            if *count == 0 {
                self.created.remove(&created);
            }
        }
        self.set_attempts(attempts, 0);
    }

    pub(super) fn set_attempts(&mut self, before: u8, attempts: u8) {
        self.attempts = (self.attempts + u64::from(attempts)).saturating_sub(u64::from(before));
    }

    /// Returns when the oldest was published.
    pub(super) fn oldest(&self) -> Option<WallTime> {
        self.created.keys().next().copied()
    }

    /// Returns the number of rounds without any taker, of all.
    pub(super) fn attempts(&self) -> u64 {
        self.attempts
    }
}
