//! Ways to a peer beside the one that a link has: when they are tried, and which failed lately.
//!
//! Tested by: `protocol::tests::handover`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Endpoint, MonoTime, TransportKind};

use super::Why;

/// Maximum time for which a way is left alone.
const MAX_PAUSE: Duration = Duration::from_hours(1);
/// Maximum number of ways remembered that failed.
pub(in crate::protocol) const MAX_FAILED: usize = 256;

/// Ways that failed, each with the number of times in a row and the time of the next try.
#[derive(Debug, Default)]
pub(in crate::protocol) struct FailedWays(BTreeMap<(Endpoint, TransportKind), (u32, MonoTime)>);

impl FailedWays {
    pub(in crate::protocol) fn note(
        &mut self,
        way: (Endpoint, TransportKind),
        interval: Duration,
        now: MonoTime,
    ) {
        self.0.retain(|_, (_, next)| now < *next + MAX_PAUSE);
        if self.0.len() >= MAX_FAILED && !self.0.contains_key(&way) {
            let first =
                self.0.iter().min_by_key(|(_, (_, next))| *next).map(|(way, _)| way.clone());
            first.and_then(|way| self.0.remove(&way));
        }
        let (count, next) = self.0.entry(way).or_insert((0, now));
        let pause = interval.saturating_mul(1 << (*count).min(12)).min(MAX_PAUSE);
        (*count, *next) = (count.saturating_add(1), now + pause);
    }

    pub(in crate::protocol) fn may_try(
        &self,
        way: &(Endpoint, TransportKind),
        now: MonoTime,
    ) -> bool {
        self.0.get(way).is_none_or(|(_, next)| *next <= now)
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Times at which a link is looked after.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::protocol) struct Plan {
    pub(in crate::protocol) upgrade: Option<MonoTime>,
    pub(in crate::protocol) rotate: Option<(MonoTime, Why)>,
    /// Number of bytes after which the connection is replaced.
    pub(in crate::protocol) bytes: Option<u64>,
    /// Time since which it has had them.
    pub(in crate::protocol) spent: Option<MonoTime>,
}

/// Time for which data waits on a connection that has had its bytes: more would cut it before another one takes
/// over. After that it may be cut.
const HOLD: Duration = Duration::from_secs(5);

impl Plan {
    /// Reports whether data waits for the connection that takes over.
    pub(in crate::protocol) fn holds(&self, now: MonoTime) -> bool {
        self.spent.is_some_and(|at| now.since(at) < HOLD)
    }

    pub(in crate::protocol) fn next(&self) -> Option<MonoTime> {
        self.upgrade.into_iter().chain(self.rotate.map(|(at, _)| at)).min()
    }
}
