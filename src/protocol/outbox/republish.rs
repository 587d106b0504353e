//! Own transactions that expired before anybody had them, or are dated in the future.
//!
//! `publish` has promised them, however long the node is alone. So they stay in the outbox, stale:
//! out of the log, offered to nobody, their rounds at a standstill. As soon as there is a link each
//! is published anew, in the order of publishing: the same topic and payload, times of now, hence
//! another id. The new one replaces the old one, with the attempts that are left to it, so
//! what no peer wants becomes a dead letter in the end, and so does what is larger than may be
//! published by now. It is stored before the old one is removed:
//! a crash between the two leaves both, and the old one is published anew once more.
//!
//! The same happens to what is from the future: published while the clock was ahead, so that nobody
//! admits it before its time has come. That is looked for when peers agree on what time it is, after
//! their judgement or the clock has changed; one sweep at most every ten seconds.
//!
//! At most `RENEWALS` are under way at once, and no more than the outbox has room for.
//!
//! Tested by: `sim::tests::outbox`, `protocol::tests::outbox`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::io::Output;
use crate::protocol::log::Scope;
use crate::types::{Bound, Event, TransactionId};

/// Maximum number of renewals under way at once.
pub(crate) const RENEWALS: usize = 256;

impl Protocol {
    /// Has stale entries published anew, as far as somebody is there to take them.
    pub(in crate::protocol) fn renew_stale(&mut self) {
        while self.outbox.renewing < self.outbox.renewals
            && self.links.up_count() > 0
            && !self.env.shutting_down
        {
            let Some(id) = self.outbox.next_stale(self.outbox.renewing > 0) else { return };
            self.outbox.renewing += 1;
            self.env.push(Output::Renew { id });
        }
    }

    /// It is known what time it is: what waits for copies and is from the future is published anew, and
    /// what peers put off is offered again.
    pub(in crate::protocol) fn redate(&mut self) {
        let skew = self.env.config.network.max_clock_skew;
        let from = Bound::at(self.env.wall.plus(skew + Duration::from_millis(1)));
        let future = self.log.range(from, Bound::MAX, &Scope::ALL).filter(|r| r.is_own());
        let mut future: Vec<_> =
            future.filter_map(|r| Some((self.log.seq_of(&r.id)?, r.id))).collect();
        // In the order of publishing.
        future.sort_unstable();
        for (_, id) in &future {
            let is_taken = self.outbox.has_copies(id) || self.outbox.is_finished(id);
            if is_taken || self.outbox.is_dead(id) {
                continue;
            }
            // Without an entry it was published anew by an earlier run.
            self.log.withdraw(id);
            self.outbox.set_stale(id);
        }
        self.redate_overdue();
        let online = self.outbox.clock.at(self.env.now);
        self.outbox.end_put_offs(online);
        self.arm_outbox();
        self.renew_stale();
    }

    /// What waits for copies and is too old for everybody else is published anew, although it may be
    /// long before this node forgets it: that waits until the time is beyond doubt.
    fn redate_overdue(&mut self) {
        let until = Bound::at(self.env.wall.minus(self.env.config.gossip.retention));
        let overdue = self.log.range(Bound::MIN, until, &Scope::ALL).filter(|r| r.is_own());
        let mut overdue: Vec<_> =
            overdue.filter_map(|r| Some((self.log.seq_of(&r.id)?, r.id))).collect();
        overdue.retain(|(_, id)| self.outbox.is_waiting(id) && !self.outbox.has_copies(id));
        overdue.sort_unstable();
        for (_, id) in &overdue {
            self.log.withdraw(id);
            self.outbox.set_stale(id);
        }
    }

    /// `new` is stored in place of `old`.
    pub(super) fn on_renewed(&mut self, old: TransactionId, new: TransactionId) {
        self.outbox.renewing = self.outbox.renewing.saturating_sub(1);
        self.env.counters.transactions_renewed += 1;
        self.outbox.replace(&old, new);
        self.trail.note_renewed(&old, new, self.env.now);
        self.env.push(Output::Renewed { id: old, renewed_as: new });
        self.env.emit(Event::Renewed { id: old, renewed_as: new });
        self.renew_stale();
    }

    /// Handles the refusal of what was to replace an entry, perhaps for good.
    pub(super) fn not_renewed(&mut self, renews: Option<TransactionId>, for_good: bool) {
        let Some(id) = renews else { return };
        self.on_not_renewed(id, false);
        if for_good {
            self.bury_too_large(id);
        }
    }

    /// An entry could not be published anew: it is tried again later, unless its row is `removed`.
    pub(in crate::protocol) fn on_not_renewed(&mut self, id: TransactionId, removed: bool) {
        self.outbox.renewing = self.outbox.renewing.saturating_sub(1);
        if removed {
            self.outbox.remove(&id);
        } else {
            self.outbox.put_back_stale(id);
        }
    }
}
