//! Spreading what is accepted: every link reads the log with a cursor of its own.
//!
//! For each entry that the peer is not known to have, the link pushes the whole transaction where
//! that was learned to pay, and announces it everywhere else. A link whose queue is full stops
//! reading; its cursor is all that is remembered, so a slow peer costs O(1) memory and delays nobody.
//! A new link starts at the head: all that stands in the log before is compared by `reconcile`.
//! Own transactions that wait for copies are announced on a new link whose peer takes them in any
//! case (`outbox::replay_out`), because a peer that has them confirms them then.
//!
//! A peer that falls far behind the quickest one is in *debt*: nothing is pushed or announced to it
//! any more, it gets what is new from others, and all that is remembered is the oldest time of
//! creation among what it was skipped for. When its queue is empty again, that window becomes a need
//! of `reconcile` and the link goes on from the head. Where all peers are equally slow, we are.
//!
//! `fanout` and `rounds` and `ttl` turn pushes into announcements; none of them silences anything.
//!
//! Invariant: for each up link and each live entry, the peer is known to have it, or was offered it
//! on this link, or the entry is at or after the link's cursor or in what the link is owed, or it is
//! not older than the link's debt, or it is in the window of a need or a session of `reconcile`,
//! which states how that holds.
//!
//! Tested by: `sim::tests::spread`, `sim::tests::faults`.

use std::time::Duration;

use crate::config::Auto;
use crate::protocol::Protocol;
use crate::protocol::outbox::ReplayCursor;
use crate::protocol::trail::What;
use crate::types::{
    Announcement, Bound, Head, LinkId, MAX_IDS_PER_MESSAGE, Message, Offer, PeerId, Transaction,
    TransactionId,
};

use super::push_policy::{Lesson, Route};

/// Maximum number of entries by which a peer may lag behind the quickest one for a moment.
const MAX_LAG: u64 = 4096;
/// Maximum time that an entry may wait for a peer while another one has taken it (and a quarter of
/// it, beyond `MAX_LAG`).
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Time after its creation from which a transaction that is asked for is a repair: others are
/// probably at it as well, so it is announced and never pushed. Anything that spreads undisturbed
/// is everywhere by then; with 10 s a tenth of 100 nodes that joined late cost 1.27 times what they
/// lacked, and with 3 s 1.02 times; halves of 1000 that were apart cost 1.10 with 3 s and 1.02 with
/// 2 s. An origin whose clock is further behind than this has its transactions announced instead of
/// pushed beyond any node that asked.
pub(in crate::protocol) const BACKFILL_AFTER: Duration = Duration::from_secs(2);
/// Number of entries that say nothing about a peer's speed.
const FEW: u64 = 64;
/// Maximum number of entries by which any peer may lag: who knows what is remembered for each of
/// them.
const HARD_MAX_LAG: u64 = 65_536;
/// Number of entries after which those that all links have passed are looked for.
const FORGET_EVERY: u64 = 256;
/// Maximum number of entries that some link has yet to pass.
#[cfg(any(test, feature = "sim"))]
#[expect(clippy::cast_possible_truncation, reason = "small")]
pub(in crate::protocol) const MAX_NOT_PASSED: usize = (HARD_MAX_LAG + 2 * FORGET_EVERY) as usize;

/// Progress of offering the log to a peer.
#[derive(Debug)]
pub(in crate::protocol) struct Feed {
    /// The next log entry to offer.
    pub(in crate::protocol) cursor: u64,
    /// Bound from which on the peer was skipped, while it is too slow for what is new.
    pub(in crate::protocol) debt: Option<Bound>,
    /// Replay of what is owed from before the link, as far as it is still to be announced.
    pub(in crate::protocol) replay: Option<ReplayCursor>,
}

impl Feed {
    pub(in crate::protocol) fn new(cursor: u64, replay: ReplayCursor) -> Self {
        Self { cursor, debt: None, replay: Some(replay) }
    }
}

/// Provenance of a transaction of another origin.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocol) struct Provenance {
    /// Link slots whose peer is known to have it.
    pub(in crate::protocol) known: u128,
    /// True: others are probably at it as well, since it is a repair, or part of a replay.
    pub(in crate::protocol) is_backfill: bool,
    /// Slot of the link it came on.
    pub(in crate::protocol) ingress: u8,
    /// True: the link leads to a relay.
    pub(in crate::protocol) stored_upstream: bool,
}

impl Protocol {
    /// Forgets now and then for which links entries were meant that all of them have passed.
    pub(in crate::protocol) fn forget_passed(&mut self) {
        if self.log.head() < self.spread.forgot_at + FORGET_EVERY {
            return;
        }
        self.spread.forgot_at = self.log.head();
        // Entries that are for nobody advance the head too.
        for link in self.links.up_ids() {
            self.pump(link);
        }
        let ups = self.links.all.values().filter_map(|l| l.up.as_ref());
        let passed = ups.map(|up| up.feed.cursor).min().unwrap_or(self.log.head());
        self.log.passed(passed);
    }

    /// Offers log entries to a peer until its queue is full or it has been offered everything.
    pub(in crate::protocol) fn pump(&mut self, link: LinkId) {
        while self.may_pump(link) {
            let (base, head) = (self.log.base(), self.log.head());
            let Some(up) = self.links.up(link) else { return };
            if up.feed.debt.is_some() {
                break;
            }
            let seq = up.feed.cursor.max(base);
            let full = up.batch.announce.len() >= MAX_IDS_PER_MESSAGE;
            let (slot, limit) = (up.slot, up.max_transaction);
            if seq < head {
                up.feed.cursor = seq + 1;
                self.links.leader = self.links.leader.max(seq + 1);
            }
            if full {
                self.drain(link);
            }
            if seq < head {
                self.offer(link, slot, limit, seq);
            } else if !self.offer_replay(link, limit) {
                return;
            }
        }
        self.skip_if_slow(link);
    }

    /// A peer that falls behind while others keep up gets what is new from them: it is skipped, and
    /// all that is remembered is since when.
    fn skip_if_slow(&mut self, link: LinkId) {
        let (base, head) = (self.log.base(), self.log.head());
        let (now, leader) = (self.env.now, self.links.leader);
        let Some(up) = self.links.up(link) else { return };
        let (cursor, mut debt) = (up.feed.cursor.max(base), up.feed.debt);
        if cursor >= head {
            return;
        }
        if debt.is_none() {
            let lag = leader.saturating_sub(cursor);
            let age = self.log.age(cursor, now);
            let slow = (lag > MAX_LAG && age > MAX_WAIT / 4) || (lag > FEW && age > MAX_WAIT);
            if !slow && head - cursor <= HARD_MAX_LAG {
                return;
            }
            self.env.counters.debts_opened += 1;
        }
        for seq in cursor..head {
            if let Some(record) = self.log.at(seq) {
                let created = Bound::at(record.created);
                debt = Some(debt.map_or(created, |oldest| oldest.min(created)));
            }
        }
        if let Some(up) = self.links.up(link) {
            up.feed.cursor = head;
            let opened = up.feed.debt.is_none();
            up.feed.debt = debt.or(Some(Bound::MAX));
            if opened {
                self.recheck_outbox();
            }
        }
    }

    /// The queue of a slow peer is empty: what it was skipped for is repaid, and it gets what is
    /// new again.
    pub(in crate::protocol) fn end_debt(&mut self, link: LinkId) {
        if let Some(up) = self.links.up(link)
            && let Some(oldest) = up.feed.debt.take()
        {
            self.env.counters.debts_repaid += 1;
            self.repay(link, oldest);
        }
    }

    /// Pushes or announces one entry.
    fn offer(&mut self, link: LinkId, slot: u8, limit: u64, seq: u64) {
        let gossip = &self.env.config.gossip;
        let (eager, fanout) = (gossip.eager_limit, cap(gossip.fanout));
        let ahead = self.env.relays_ahead();
        let hops = cap(gossip.rounds).min(cap(gossip.ttl));
        let Some(entry) = self.log.at(seq).copied() else { return };
        let size = u64::from(entry.size);
        if self.log.is_known(seq, slot) || size > limit || !self.takes(link, &entry) {
            return;
        }
        if entry.is_own() && self.join_replay(link, seq) {
            // Behind what was published before.
            return;
        }
        if entry.is_backfill() && self.is_needed(link, entry.key()) && !self.is_passing(&entry) {
            // The peer will be compared with, and probably has it.
            return;
        }
        let announcement = Announcement { id: entry.id, size, hop: entry.hop() };
        let small = size <= eager;
        let payload = if entry.is_backfill() { None } else { self.log.payload(&entry.id).cloned() };
        // What came from others was said ahead of its payload.
        if let Some(transaction) = payload.as_ref().filter(|_| !small && entry.is_own())
            && ahead
        {
            let (head, hop, place) = (Head::of(transaction), entry.hop(), 0);
            self.env.counters.announcements_sent += 1;
            self.trail.note(seq, What::Announced, Some(slot), self.env.now);
            self.send(link, Message::Offer(Box::new(Offer { head, hop, place, complete: true })));
            return;
        }
        let Some(transaction) = payload.filter(|_| small) else {
            self.trail.note(seq, What::Announced, Some(slot), self.env.now);
            self.announce(link, announcement);
            return;
        };
        let route = Route { origin: transaction.origin(), ingress: entry.ingress, slot };
        let may_push = entry.pushes() < fanout && u32::from(entry.hop()) < hops;
        if may_push && self.spread.policy.should_push(&route, size) {
            if let Some(entry) = self.log.at_mut(seq) {
                entry.note_push();
            }
            self.spread.policy.note(&route, Lesson::Pushed);
            self.env.counters.pushes_sent += 1;
            self.trail.note(seq, What::Pushed, Some(slot), self.env.now);
            self.push(link, (slot, Some(seq)), transaction, announcement.hop);
        } else {
            self.spread.policy.note(&route, Lesson::Announced);
            self.trail.note(seq, What::Announced, Some(slot), self.env.now);
            self.announce(link, announcement);
        }
    }

    /// Sends a whole transaction, which has this number in the log, if it is still there; the peer is then known
    /// to have it.
    pub(in crate::protocol) fn push(
        &mut self,
        link: LinkId,
        (slot, seq): (u8, Option<u64>),
        transaction: Transaction,
        hop: u16,
    ) {
        self.env.counters.payload_bytes_sent += transaction.header().payload_len;
        if let Some(seq) = seq {
            self.log.note_known_at(seq, slot);
        }
        self.send(link, Message::Push { transaction, hop });
    }

    /// A peer says of our pushes that it already had them.
    pub(in crate::protocol) fn on_duplicate(&mut self, link: LinkId, ids: &[TransactionId]) {
        self.learn(link, ids, Lesson::Useless);
    }

    /// A peer says of our announcements that nobody's payload came sooner.
    pub(in crate::protocol) fn on_early(&mut self, link: LinkId, ids: &[TransactionId]) {
        self.learn(link, ids, Lesson::Useful);
    }

    pub(in crate::protocol) fn learn(
        &mut self,
        link: LinkId,
        ids: &[TransactionId],
        lesson: Lesson,
    ) {
        let Some(slot) = self.links.slot_of(link) else { return };
        for id in ids {
            if let Some((origin, ingress)) = self.route_of(id) {
                self.spread.policy.note(&Route { origin, ingress, slot }, lesson);
            }
        }
    }

    /// Returns whose transaction this is, while that is in memory, and where it came in.
    fn route_of(&self, id: &TransactionId) -> Option<(PeerId, u8)> {
        Some((self.log.payload(id)?.origin(), self.log.find(id)?.ingress))
    }
}

/// The value of a setting whose automatic value is "no limit": learned pushing already settles at
/// one copy per node, and a limit would only cut stars and hubs short.
fn cap(setting: Auto) -> u32 {
    match setting {
        Auto::Auto => u32::MAX,
        Auto::Fixed(value) => value,
    }
}
