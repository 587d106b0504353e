//! Time by which a node goes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::types::WallTime;

/// Reads the wall clock. No other place in a node does.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub(super) fn wall_now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Tells apart publishes of the same bytes in the same millisecond: the n-th of a millisecond
/// expires n milliseconds later than it would. A clock that was set back shows each millisecond again,
/// so the count goes on until it is past the latest that was shown.
#[derive(Debug, Default)]
pub(super) struct PublishClock(Mutex<(WallTime, u64)>);

impl PublishClock {
    fn tick(&self, now: WallTime) -> (WallTime, Duration) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = if now > last.0 { (now, 0) } else { (last.0, last.1 + 1) };
        (now, Duration::from_millis(last.1))
    }

    /// Returns when a transaction that is made now is created, and when it expires.
    pub(super) fn times(&self, now: WallTime, retention: Duration) -> (WallTime, WallTime) {
        let (created, nth) = self.tick(now);
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
}
