//! Everything that can fire, in one table.
//!
//! Tested by: `protocol::tests::property`, `sim::tests::replay`.

use std::collections::{BTreeMap, BTreeSet};

use super::membership::WalkId;
use crate::types::{LinkId, MonoTime, PeerId, TransactionId};

/// A timer. Each exists at most once; setting it again moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The next entry of a walk is due, or a hello has been waited for long enough.
    Walk(WalkId),
    /// A link's hello is overdue.
    Hello(LinkId),
    /// Time to ping a link.
    Ping(LinkId),
    /// A pong is overdue.
    Pong(LinkId),
    /// A step of a handover is overdue, or another connection is to be looked for.
    Handover(LinkId),
    /// Small messages of a link have waited long enough.
    Drain(LinkId),
    /// Ask for a transaction, or ask somebody else.
    Fetch(TransactionId),
    /// A peer has confirmed nothing of what is replayed to it.
    Replay(LinkId),
    /// An origin that replays its outbox makes no progress.
    Inflow(PeerId),
    /// A payload in memory has been quiet long enough to make room.
    Room,
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
    /// Tell peers what is wanted, or stand in for a relay.
    Interest,
    /// An answer in the test of a link is overdue.
    Tests,
    /// The time of a request may be over.
    Messages,
    /// A dial-back is overdue, or another one is to be asked for.
    Reachability,
}

/// Timers by due time and by name.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(MonoTime, Timer)>,
    pub(in crate::protocol) at: BTreeMap<Timer, MonoTime>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: MonoTime) {
        if let Some(old) = self.at.insert(timer, at) {
            self.due.remove(&(old, timer));
        }
        self.due.insert((at, timer));
    }

    /// Sets the timer unless it already fires earlier.
    pub(super) fn set_earlier(&mut self, timer: Timer, at: MonoTime) {
        if self.at.get(&timer).is_none_or(|old| at < *old) {
            self.set(timer, at);
        }
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(old) = self.at.remove(&timer) {
            self.due.remove(&(old, timer));
        }
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.at.contains_key(&timer)
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.at.len()
    }

    pub(super) fn next(&self) -> Option<MonoTime> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the earliest timer that is due at `now`.
    pub(super) fn pop(&mut self, now: MonoTime) -> Option<Timer> {
        let (at, timer) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        self.at.remove(&timer);
        Some(timer)
    }
}
