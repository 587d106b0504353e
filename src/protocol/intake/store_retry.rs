//! What was taken and could not be kept is taken again, ever less often while the store stays full.
//!
//! Tested by: `sim::tests::full_stores`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::types::{MonoTime, TransactionId};

/// Minimum and maximum delay before what could not be stored is taken again; doubles.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(10));
/// Maximum number of tries out of turn in 10 s, for peers that say they are the origin.
const ORIGIN_RETRIES: u32 = 64;

/// State of the tries to store what was taken and could not be kept.
#[derive(Debug)]
pub(in crate::protocol) struct StoreRetry {
    some: bool,
    not_before: MonoTime,
    wait: Duration,
    /// Payload bytes of the smallest that the store did not take.
    smallest: u64,
    /// Tries that are left for who says that it is the origin.
    origin_retries: u32,
}

impl Default for StoreRetry {
    fn default() -> Self {
        Self {
            some: false,
            not_before: MonoTime::ZERO,
            wait: TRY_AGAIN.0,
            smallest: u64::MAX,
            origin_retries: ORIGIN_RETRIES,
        }
    }
}

impl StoreRetry {
    pub(super) fn note_failed(&mut self, size: u64) {
        self.some = true;
        self.smallest = self.smallest.min(size);
    }

    /// The store took something: the next try is soon, unless what failed was larger.
    pub(in crate::protocol) fn note_saved(&mut self, size: u64, now: MonoTime) {
        if size >= self.smallest {
            self.smallest = u64::MAX;
            self.wait = TRY_AGAIN.0;
            self.not_before = self.not_before.min(now + TRY_AGAIN.0);
        }
    }

    /// Reports whether it is time for another try; each puts off the next.
    fn is_due(&mut self, now: MonoTime) -> bool {
        let due = self.some && self.not_before <= now;
        if due {
            self.some = false;
            self.not_before = now + self.wait;
            self.wait = (self.wait * 2).min(TRY_AGAIN.1);
        }
        due
    }
}

impl Protocol {
    /// Notes that something that was taken could not be kept and has to be offered again, by
    /// anybody.
    pub(in crate::protocol) fn want_retry(&mut self) {
        self.intake.retry.some = true;
    }

    /// An origin needs copies of what could not be kept: worth a try, a few times, since anybody may
    /// say that it is the origin.
    pub(in crate::protocol) fn try_again_for_origin(&mut self, id: &TransactionId) {
        let retry = &mut self.intake.retry;
        if retry.origin_retries > 0 && self.log.forget_unsaved(id) {
            retry.origin_retries = retry.origin_retries.saturating_sub(1);
        }
    }

    /// Tries ever less often to store what could not be kept, so that a full disk does not make us
    /// fetch the same all the time.
    pub(in crate::protocol) fn retry_unsaved(&mut self) {
        self.intake.retry.origin_retries = ORIGIN_RETRIES;
        if self.intake.retry.is_due(self.env.now) {
            self.log.forget_all_unsaved();
            self.repair_everywhere();
        }
    }
}
