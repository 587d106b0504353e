//! News that looks like history.
//!
//! A subscription that begins now leaves out what was created before, by the clock of its origin. An
//! origin whose clock is slow goes on to publish what looks older than that; so the cursors of what came
//! as news and looks so are kept here, for subscriptions to deliver it all the same.
//!
//! Bounds: the latest `MAX_CURSORS` cursors; what is below them counts as news.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::{Cursor, WallTime};

/// Maximum number of cursors kept: 512 KiB.
const MAX_CURSORS: usize = 65_536;

/// Cursors of late news, shared by the store writer and the subscriptions.
#[derive(Debug, Default)]
pub(super) struct LateNews(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The latest time from which a subscription of this process delivers.
    since: WallTime,
    /// Cursors of news that was created before that, rising.
    cursors: VecDeque<Cursor>,
    /// The last cursor that was dropped from them.
    dropped: Cursor,
}

impl LateNews {
    /// A subscription leaves out what was created before `since`.
    pub(super) fn expect(&self, since: WallTime) {
        let mut state = self.state();
        state.since = state.since.max(since);
    }

    /// Notes news with this cursor; cursors come in order.
    pub(super) fn note(&self, created: WallTime, cursor: Cursor) {
        let mut state = self.state();
        if created >= state.since || state.cursors.back().is_some_and(|last| *last >= cursor) {
            return;
        }
        if state.cursors.len() >= MAX_CURSORS {
            state.dropped = state.cursors.pop_front().unwrap_or_default();
        }
        state.cursors.push_back(cursor);
    }

    /// Reports whether what has this cursor came as news, or may have.
    pub(super) fn contains(&self, cursor: Cursor) -> bool {
        let state = self.state();
        cursor <= state.dropped || state.cursors.binary_search(&cursor).is_ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_kept_that_looks_older_than_a_subscription_and_within_bounds() {
        let (news, at) = (LateNews::default(), WallTime::from_millis);
        news.note(at(5), Cursor(1));
        assert!(!news.contains(Cursor(1)), "nobody would leave it out");
        news.expect(at(100));
        news.expect(at(50));
        news.note(at(99), Cursor(2));
        news.note(at(100), Cursor(3));
        news.note(at(1), Cursor(2));
        assert!(news.contains(Cursor(2)) && !news.contains(Cursor(3)));
        for cursor in 0..=MAX_CURSORS as u64 {
            news.note(at(1), Cursor(10 + cursor));
        }
        assert_eq!(news.state().cursors.len(), MAX_CURSORS);
        // Two had to go; what was never noted below them is delivered, for safety.
        assert!(news.contains(Cursor(2)) && news.contains(Cursor(3)) && news.contains(Cursor(10)));
        assert!(!news.contains(Cursor(11 + MAX_CURSORS as u64)));
    }
}
