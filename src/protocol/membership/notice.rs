//! What goes wrong again and again is said at once and then rarely: never not at all.
//!
//! Tested by: the tests below.

use std::time::Duration;

use crate::protocol::refusal::ConnectFailure;
use crate::types::MonoTime;

/// Minimum time between two sayings, whatever the reasons.
const LEAST: Duration = Duration::from_mins(1);
/// Time after which the same reason is said again; it doubles each time, up to `MOST`.
const AGAIN: Duration = Duration::from_mins(5);
const MOST: Duration = Duration::from_hours(1);

/// Failures of one kind of thing, and when they were last said.
#[derive(Debug, Default)]
pub(super) struct Notice {
    /// Failures in a row.
    failures: u64,
    /// Number of times that the reason was said in a row.
    times: u32,
    said: Option<(MonoTime, ConnectFailure)>,
}

impl Notice {
    /// It failed: returns how often in a row, if that is to be said now.
    pub(super) fn fail(&mut self, why: ConnectFailure, now: MonoTime) -> Option<u64> {
        self.failures = self.failures.saturating_add(1);
        let is_due = |(at, old): (MonoTime, ConnectFailure)| {
            let again = AGAIN.saturating_mul(1 << self.times.saturating_sub(1).min(16)).min(MOST);
            now.since(at) >= if old == why { again } else { LEAST }
        };
        if !self.said.is_none_or(is_due) {
            return None;
        }
        let is_same = self.said.is_some_and(|(_, old)| old == why);
        self.times = if is_same { self.times.saturating_add(1) } else { 1 };
        self.said = Some((now, why));
        Some(self.failures)
    }

    /// It works: the next failure is the first in a row, and for the same reason it is said as soon as a
    /// second one would be. Who gets a turn now and then is not told each time that it has to wait.
    pub(super) fn succeed(&mut self) {
        (self.failures, self.times) = (0, self.times.min(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CloseReason, FailureKind};

    const UNREACHABLE: ConnectFailure = ConnectFailure::Dial(FailureKind::Unreachable);
    const STRANGER: ConnectFailure = ConnectFailure::Refused(CloseReason::WrongNetwork);

    fn at(s: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_secs(s))
    }

    #[test]
    fn a_failure_is_said_at_once_and_then_ever_more_rarely() {
        let mut notice = Notice::default();
        let said: Vec<_> =
            (0..20_000).filter_map(|s| Some((s, notice.fail(UNREACHABLE, at(s))?))).collect();
        let times: Vec<_> = said.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 300, 900, 2100, 4500, 8100, 11_700, 15_300, 18_900]);
        assert_eq!(said[1].1, 301, "with the number of all of them");
    }

    #[test]
    fn another_reason_is_news_and_turns_are_said_rarely() {
        let mut notice = Notice::default();
        assert_eq!(notice.fail(UNREACHABLE, at(0)), Some(1));
        assert_eq!(notice.fail(STRANGER, at(1)), None, "not at every turn");
        assert_eq!(notice.fail(STRANGER, at(60)), Some(3));
        assert_eq!(notice.fail(STRANGER, at(130)), None);
        notice.succeed();
        assert_eq!(notice.fail(UNREACHABLE, at(131)), Some(1));
        for turn in 1..6 {
            notice.succeed();
            assert_eq!(notice.fail(UNREACHABLE, at(132 + 300 * turn - 2)), None);
            assert_eq!(notice.fail(UNREACHABLE, at(132 + 300 * turn)), Some(2), "of turns too");
        }
    }
}
