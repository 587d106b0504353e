//! Everything that can fire, in one table.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{LinkId, MonoTime, TransactionId};

/// A timer. Each exists at most once; setting it again moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A link's hello is overdue.
    Hello(LinkId),
    /// Time to ping a link.
    Ping(LinkId),
    /// A pong is overdue.
    Pong(LinkId),
    /// Small messages of a link have waited long enough.
    Flush(LinkId),
    /// Ask for a transaction, or ask somebody else.
    Fetch(TransactionId),
    /// Look whether more links are needed.
    Overlay,
    /// Ask for peers because links are missing and nobody is left to dial.
    Needy,
    /// Ask for peers as a matter of routine.
    Refresh,
    /// Compare with a peer what both hold.
    Reconcile,
    /// Forget what expired.
    Expire,
    /// Offer own transactions again that nobody confirmed.
    Outbox,
}

/// Timers by due time and by name. Those due at the same time fire in the order in which they were
/// set: what is announced in one frame is asked for in the order of that frame.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(MonoTime, u64, Timer)>,
    at: BTreeMap<Timer, (MonoTime, u64)>,
    /// How often a timer was set.
    count: u64,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: MonoTime) {
        self.count += 1;
        let nth = self.count;
        if let Some((old, before)) = self.at.insert(timer, (at, nth)) {
            self.due.remove(&(old, before, timer));
        }
        self.due.insert((at, nth, timer));
    }

    /// Sets the timer unless it already fires earlier.
    pub(super) fn set_earlier(&mut self, timer: Timer, at: MonoTime) {
        if self.at.get(&timer).is_none_or(|(old, _)| at < *old) {
            self.set(timer, at);
        }
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some((old, nth)) = self.at.remove(&timer) {
            self.due.remove(&(old, nth, timer));
        }
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.at.contains_key(&timer)
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    pub(super) fn next(&self) -> Option<MonoTime> {
        self.due.first().map(|(at, _, _)| *at)
    }

    /// Takes the earliest timer that is due at `now`.
    pub(super) fn pop(&mut self, now: MonoTime) -> Option<Timer> {
        let (at, _, timer) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        self.at.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_together_fires_in_the_order_of_setting() {
        let fetch = |n: u8| Timer::Fetch(TransactionId::from_bytes([n; 32]));
        let mut timers = Timers::default();
        for n in [7, 3, 9, 1] {
            timers.set(fetch(n), MonoTime::ZERO);
        }
        // Set again: behind the others, and once.
        timers.set(fetch(3), MonoTime::ZERO);
        let fired: Vec<_> = std::iter::from_fn(|| timers.pop(MonoTime::ZERO)).collect();
        assert_eq!(fired, [7, 9, 1, 3].map(fetch));
        assert_eq!((timers.len(), timers.next()), (0, None));
    }
}
