//! What a message about ranges says, and what is done with the lists in it.
//!
//! Tested by: `protocol::tests::pair`.

use crate::protocol::Protocol;
use crate::protocol::log::{Record, Scope};
use crate::types::{Announcement, Bound, LinkId, Range, RangeContent, Reconcile, TransactionId};

use super::{FADING, IN_FLIGHT, MAX_LISTED, Window};

/// Ranges of one message as they are put together.
#[derive(Debug)]
pub(super) struct Draft {
    lower: Bound,
    pub(in crate::protocol) ranges: Vec<Range>,
    pub(in crate::protocol) weight: usize,
}

impl Draft {
    pub(in crate::protocol) fn new(lower: Bound) -> Self {
        Self { lower, ranges: Vec::new(), weight: 0 }
    }

    /// Adds a range; neighbours to be skipped become one.
    pub(in crate::protocol) fn push(&mut self, upper: Bound, content: RangeContent) {
        let start = self.ranges.last().map_or(self.lower, |range| range.upper);
        if upper <= start {
            return;
        }
        if let (Some(last), RangeContent::Skip) = (self.ranges.last_mut(), &content)
            && last.content == RangeContent::Skip
        {
            last.upper = upper;
            return;
        }
        let range = Range { upper, content };
        self.weight += range.weight();
        self.ranges.push(range);
    }

    pub(in crate::protocol) fn finish(self, session: u32) -> Reconcile {
        Reconcile { session, lower: self.lower, ranges: self.ranges }
    }
}

impl Protocol {
    /// Reports whether a peer should be told of an entry.
    pub(super) fn is_worth_listing(&self, record: &Record, limit: u64) -> bool {
        let skew = self.env.config.network.max_clock_skew;
        record.keep_until() > self.env.wall.plus(FADING)
            && record.created <= self.env.wall.plus(skew)
            && u64::from(record.size) <= limit
    }

    /// Returns what is compared on a link: what both sides said they want.
    pub(in crate::protocol) fn scope(&self, link: LinkId) -> Scope {
        self.sides(link).map_or(Scope::ALL, |(ours, theirs)| self.log.topics.scope(ours, theirs))
    }

    /// Lists our own entries of a short range.
    pub(super) fn list(
        &self,
        window: Window,
        limit: u64,
        scope: &Scope,
    ) -> Vec<(TransactionId, u64)> {
        let records = self.log.range(window.lower, window.upper, scope);
        let worth = records.filter(|r| self.is_worth_listing(r, limit));
        worth.map(|r| (r.id, u64::from(r.size))).collect()
    }

    /// Reports whether all the ids of one more answer can be taken.
    pub(super) fn can_hear(&self, link: LinkId) -> bool {
        self.links.peer_of(link).is_some_and(|peer| self.room_to_hear(&peer) >= MAX_LISTED)
    }

    /// Takes the ids of a list that are missing here; returns those.
    pub(super) fn hear_listed(
        &mut self,
        link: LinkId,
        list: &[(TransactionId, u64)],
        upper: Bound,
    ) -> Vec<TransactionId> {
        let Some(slot) = self.links.slot_of(link) else { return Vec::new() };
        // What may be on its way is waited for, like after an announcement.
        let settled = upper.created <= self.env.wall.minus(IN_FLIGHT);
        let mut missing = Vec::new();
        for (id, size) in list {
            if self.log.contains(id) {
                self.log.note_known(id, slot);
            } else if *size <= self.env.config.gossip.max_transaction_size
                && !self.log.is_refused(id)
            {
                let new = !self.intake.pending.contains(id);
                self.hear(link, &Announcement { id: *id, size: *size, hop: 1 });
                if let Some(pending) = self.intake.pending.get_mut(id) {
                    if let Some(large) = &mut pending.large {
                        large.found = true;
                    }
                    missing.push(*id);
                    // What was announced before is asked for in the order of that.
                    if settled && new {
                        self.ask(id);
                    }
                }
            }
        }
        self.env.counters.reconcile_missing_here += missing.len() as u64;
        missing
    }
}
