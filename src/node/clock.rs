//! Time by which a node goes.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::types::WallTime;

/// Reads the wall clock. No other place in a node does.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub(super) fn wall_now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Clock of what this node signs and publishes: the machine's, corrected while peers agree that it is
/// off.
///
/// Tells apart publishes of the same bytes in the same millisecond: the n-th of a millisecond
/// expires n milliseconds later than it would. A clock that was set back shows each millisecond again,
/// so the count goes on until it is past the latest that was shown.
#[derive(Debug, Default)]
pub(super) struct PublishClock {
    /// The latest time that was told, and how often.
    last: Mutex<(WallTime, u64)>,
    /// Milliseconds to add to what the machine's clock reads.
    correction: AtomicI64,
}

impl PublishClock {
    /// Reads the clock, corrected.
    pub(super) fn now(&self) -> WallTime {
        self.corrected(wall_now())
    }

    /// Sets the number of milliseconds to add to what the machine's clock reads.
    pub(super) fn correct(&self, correction_ms: i64) {
        self.correction.store(correction_ms, Ordering::Relaxed);
    }

    fn corrected(&self, reading: WallTime) -> WallTime {
        let by = self.correction.load(Ordering::Relaxed);
        let span = Duration::from_millis(by.unsigned_abs());
        if by < 0 { reading.minus(span) } else { reading.plus(span) }
    }

    fn tick(&self, now: WallTime) -> (WallTime, Duration) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = if now > last.0 { (now, 0) } else { (last.0, last.1 + 1) };
        (now, Duration::from_millis(last.1))
    }

    /// Returns when a transaction that is made as the machine's clock reads `now` is created, and when
    /// it expires.
    pub(super) fn times(&self, now: WallTime, retention: Duration) -> (WallTime, WallTime) {
        let (created, nth) = self.tick(self.corrected(now));
        (created, created.plus(retention + nth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_makes_no_publish_a_repetition() {
        let clock = PublishClock::default();
        let times = [5000, 5000, 5001, 1000, 1000, 5000, 5001, 5002, 4999, 5002];
        let ticks = times.map(|now| clock.tick(WallTime::from_millis(now)));
        for (at, tick) in ticks.iter().enumerate() {
            assert_eq!(tick.0, WallTime::from_millis(times[at]), "the time is told as it is");
            assert!(!ticks[..at].contains(tick), "{tick:?} comes twice");
        }
    }

    #[test]
    fn what_is_published_is_dated_by_the_corrected_clock() {
        let (clock, retention) = (PublishClock::default(), Duration::from_mins(1));
        let created = |now| clock.times(WallTime::from_millis(now), retention).0.as_millis();
        assert_eq!(created(5000), 5000);
        clock.correct(-3000);
        assert_eq!((created(5000), created(1000)), (2000, 0), "there is no time before 1970");
        clock.correct(i64::MAX);
        assert_eq!(created(u64::MAX), u64::MAX);
        clock.correct(i64::MIN);
        assert_eq!(created(5000), 0);
    }
}
