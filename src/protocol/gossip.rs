//! Spreading what is accepted: every link reads the log with a cursor of its own.
//!
//! For each entry that the peer is not known to have, the link pushes the whole transaction where
//! that was learned to pay, and announces it everywhere else. A link whose queue is full stops
//! reading; its cursor is all that is remembered, so a slow peer costs O(1) memory, delays nobody,
//! and is told everything it has not heard as soon as it takes frames again. A new link starts at
//! the oldest retained entry: late joiners, healed partitions and restarted peers are this same
//! mechanism.
//!
//! `fanout` and `rounds` and `ttl` turn pushes into announcements; none of them silences anything.
//!
//! Invariant: for each up link and each live entry, the peer is known to have it, or was offered it
//! on this link, or the entry is at or after the link's cursor.

use std::time::Duration;

use crate::config::Auto;
use crate::types::{
    Announcement, Head, LinkId, MAX_IDS_PER_MESSAGE, Message, Offer, PeerId, Transaction,
    TransactionId, WallTime,
};

use super::Protocol;
use super::learn::Lesson;
use super::log::Entry;

/// A peer is told everything anew at most this often.
const RESYNC_AT_MOST_EVERY: Duration = Duration::from_secs(1);

impl Protocol {
    /// Takes a verified transaction into the log and offers it to everybody.
    pub(super) fn accept(&mut self, transaction: &Transaction, hop: u16, own: bool, known: u64) {
        let header = transaction.header();
        self.counters.payload_bytes_accepted += header.payload_len;
        self.log.append(Entry {
            id: transaction.id(),
            size: header.payload_len,
            hop,
            pushes: 0,
            own,
            stored: own,
            keep_until: self.keep_until(transaction),
            known,
            cached: Some(transaction.clone()),
        });
        for link in self.links.up_ids() {
            self.pump(link);
        }
    }

    /// When every node may forget a transaction.
    pub(super) fn keep_until(&self, transaction: &Transaction) -> WallTime {
        let header = transaction.header();
        header.expires.min(header.created.plus(self.config.gossip.retention))
    }

    /// Offers log entries to a peer until its queue is full or it has been offered everything.
    pub(super) fn pump(&mut self, link: LinkId) {
        while self.may_pump(link) {
            let (base, head) = (self.log.base(), self.log.head());
            let Some(up) = self.links.up(link) else { return };
            let seq = up.cursor.max(base);
            if seq >= head {
                return;
            }
            up.cursor = seq + 1;
            let (slot, limit) = (up.slot, up.max_transaction);
            let fresh = seq >= up.catch_up_until;
            if up.batch.announce.len() >= MAX_IDS_PER_MESSAGE {
                self.flush(link);
            }
            self.offer(link, slot, limit, seq, fresh);
        }
    }

    /// Pushes or announces one entry.
    fn offer(&mut self, link: LinkId, slot: u8, limit: u64, seq: u64, fresh: bool) {
        let gossip = &self.config.gossip;
        let (eager, fanout) = (gossip.eager_limit, cap(gossip.fanout));
        let ahead = self.relays_ahead();
        let hops = cap(gossip.rounds).min(cap(gossip.ttl));
        let Some(entry) = self.log.at(seq) else { return };
        if entry.known & 1 << slot != 0 || entry.size > limit {
            return;
        }
        let announcement = Announcement { id: entry.id, size: entry.size, hop: entry.hop };
        let small = entry.size <= eager;
        // What came from others was said ahead of its payload.
        if let Some(transaction) = entry.cached.as_ref().filter(|_| fresh && !small && entry.own)
            && ahead
        {
            let (head, hop, place) = (Head::of(transaction), entry.hop, 0);
            self.counters.announcements_sent += 1;
            self.send(link, Message::Offer(Box::new(Offer { head, hop, place, complete: true })));
            return;
        }
        let Some(transaction) = entry.cached.clone().filter(|_| small && fresh) else {
            self.announce(link, announcement);
            return;
        };
        let origin = transaction.origin();
        let may_push = u32::from(entry.pushes) < fanout && u32::from(entry.hop) < hops;
        if may_push && self.learned.should_push(&origin, slot, entry.size) {
            entry.pushes = entry.pushes.saturating_add(1);
            self.learned.note(&origin, slot, Lesson::Pushed);
            self.counters.pushes_sent += 1;
            self.push(link, slot, transaction, announcement.hop);
        } else {
            self.learned.note(&origin, slot, Lesson::Announced);
            self.announce(link, announcement);
        }
    }

    fn announce(&mut self, link: LinkId, announcement: Announcement) {
        if let Some(batch) = self.links.batch(link) {
            batch.announce.push(announcement);
        }
    }

    /// Sends a whole transaction; the peer is then known to have it.
    pub(super) fn push(&mut self, link: LinkId, slot: u8, transaction: Transaction, hop: u16) {
        self.counters.payload_bytes_sent += transaction.header().payload_len;
        self.mark_known(&transaction.id(), slot);
        self.send(link, Message::Push { transaction, hop });
    }

    /// The peer at `slot` has this.
    pub(super) fn mark_known(&mut self, id: &TransactionId, slot: u8) {
        if let Some(entry) = self.log.find(id) {
            entry.known |= 1 << slot;
        }
    }

    /// A peer says of our pushes that it already had them.
    pub(super) fn on_duplicate(&mut self, link: LinkId, ids: &[TransactionId]) {
        self.learn(link, ids, Lesson::Useless);
    }

    /// A peer says of our announcements that nobody's payload came sooner.
    pub(super) fn on_early(&mut self, link: LinkId, ids: &[TransactionId]) {
        self.learn(link, ids, Lesson::Useful);
    }

    pub(super) fn learn(&mut self, link: LinkId, ids: &[TransactionId], lesson: Lesson) {
        let Some(slot) = self.links.slot_of(link) else { return };
        for id in ids {
            if let Some(origin) = self.origin_of(id) {
                self.learned.note(&origin, slot, lesson);
            }
        }
    }

    /// Whose transaction this is, while that is in memory.
    fn origin_of(&mut self, id: &TransactionId) -> Option<PeerId> {
        self.log.find(id)?.cached.as_ref().map(Transaction::origin)
    }

    /// A peer could not keep up with our announcements: it gets all of them again.
    /// At most once a second per peer, since it costs a walk over the log; asked more often, it
    /// comes with the next round of housekeeping.
    pub(super) fn on_resync(&mut self, link: LinkId) {
        let (now, base, head) = (self.now, self.log.base(), self.log.head());
        let Some(up) = self.links.up(link) else { return };
        if up.resynced.is_some_and(|at| now.since(at) < RESYNC_AT_MOST_EVERY) {
            up.resync_owed = true;
            self.counters.refused_rate += 1;
            return;
        }
        up.resynced = Some(now);
        up.resync_owed = false;
        up.cursor = base;
        up.catch_up_until = head;
        // Also what was pushed: it may have been what the peer could not keep.
        let slot = up.slot;
        self.log.clear_slot(slot);
        self.pump(link);
    }

    /// Starts over for peers that asked too often.
    pub(super) fn answer_resyncs(&mut self) {
        for link in self.links.up_ids() {
            if self.links.up(link).is_some_and(|up| up.resync_owed) {
                self.on_resync(link);
            }
        }
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
