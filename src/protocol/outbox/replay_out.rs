//! The side that replays: what this node published while it was alone, in order, to each peer.
//!
//! `replay_in` has the contract of both sides.
//!
//! Tested by: `sim::tests::outbox_replay`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::gate::Gate;
use crate::protocol::log::Record;
use crate::protocol::timers::Timer;
use crate::protocol::trail::What;
use crate::types::{Announcement, LinkId, Message, MonoTime, TransactionId};

/// Maximum number of entries announced on a link and not confirmed: 20,000 a second at a round trip
/// of 200 ms.
pub(super) const WINDOW: usize = 4096;
/// Maximum payload bytes of entries announced on a link and not confirmed, beyond the first.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;
/// Time after which a side that does nothing does not keep the other waiting.
pub(super) const STALL: Duration = Duration::from_secs(3);
/// Time within which a node that comes back finds its peers; the outbox is replayed to all of them.
const GATHER: Duration = Duration::from_secs(30);

/// Replay on a link: a walk over our own log entries that wait for copies, and over what is here
/// only on its way to a relay.
#[derive(Debug)]
pub(in crate::protocol) struct ReplayCursor {
    /// True: our hello told of the replay, and the peer waits for the end of it.
    said: bool,
    /// True: of what is on its way to a relay, only what no peer nearer to one is known to have.
    again: bool,
    /// The next log entry to look at.
    next: u64,
    /// Sequence number from which on everything is announced; below it only what is in the outbox.
    all: u64,
    /// End of the walk; entries after it are offered by the link's cursor.
    until: u64,
    /// Announced and not confirmed: the sizes, by sequence number.
    waiting: BTreeMap<u64, u32>,
    bytes: Gate,
    /// Time of the last confirmation, or payload served.
    moved: MonoTime,
}

impl ReplayCursor {
    pub(in crate::protocol) fn new(all: u64, head: u64, said: bool, now: MonoTime) -> Self {
        let (waiting, bytes) = (BTreeMap::new(), Gate::default());
        Self { said, again: false, next: 0, all, until: head, waiting, bytes, moved: now }
    }

    /// A walk that the peer was told nothing of, up to an entry.
    pub(in crate::protocol) fn untold(until: u64, again: bool, now: MonoTime) -> Self {
        Self { again, ..Self::new(until, until, false, now) }
    }

    /// Begins from the start: the peer takes more than before.
    pub(in crate::protocol) fn restart(&mut self, head: u64) {
        (self.next, self.until, self.again) = (0, self.until.max(head), false);
    }

    /// Reports whether an entry is announced, or going to be.
    pub(super) fn covers(&self, seq: u64) -> bool {
        (self.next <= seq && seq < self.until) || self.waiting.contains_key(&seq)
    }

    fn wait_for(&mut self, seq: u64, size: u32, now: MonoTime) {
        if self.waiting.is_empty() {
            self.moved = now;
        }
        if self.waiting.insert(seq, size).is_none() {
            self.bytes.enter(u64::from(size));
        }
    }

    fn is_full(&self, size: u64) -> bool {
        let full = self.waiting.len() >= WINDOW || self.bytes.level() + size > WINDOW_BYTES;
        full && !self.waiting.is_empty()
    }
}

/// Own entries that waited for copies when the first link came up after a time without any.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outflow {
    from: u64,
    until: u64,
    began: MonoTime,
}

impl Protocol {
    /// The first link after a time without any is about to come up: what waits now is to be replayed.
    pub(in crate::protocol) fn begin_outflow(&mut self) {
        let (log, outbox) = (&self.log, &self.outbox);
        let first = outbox.waiting().filter_map(|id| log.seq_of(id)).min();
        // What is left of an earlier one goes on.
        let own = self.replays.own.filter(|own| self.is_flowing(own));
        let from = own.map(|own| own.from).into_iter().chain(first).min();
        let (until, began) = (log.head(), self.env.now);
        self.replays.own = from.map(|from| Outflow { from, until, began });
    }

    /// Returns from where on all our own entries are to be announced on a new link, if on any. That
    /// is the first of what waited when we came back, for `GATHER` and as long as any of that
    /// waits: also what others have confirmed since, so that the order is whole on each link.
    pub(in crate::protocol) fn outflow(&self) -> Option<u64> {
        self.replays.own.filter(|own| self.is_flowing(own)).map(|own| own.from)
    }

    fn is_flowing(&self, own: &Outflow) -> bool {
        let waits = |id| self.log.seq_of(id).is_some_and(|seq| seq < own.until);
        self.env.now.since(own.began) < GATHER || self.outbox.waiting().any(waits)
    }

    /// Reports whether a new link is owed anything.
    pub(in crate::protocol) fn owes(&self) -> bool {
        self.outbox.len() > 0 || self.outflow().is_some()
    }

    /// Lets an own log entry that a link's cursor has come to wait for its turn in the link's replay;
    /// `false` when there is none that the peer was told of: it would hold nothing that overtakes.
    pub(in crate::protocol) fn join_replay(&mut self, link: LinkId, seq: u64) -> bool {
        let replay = self.links.up(link).and_then(|up| up.feed.replay.as_mut());
        let Some(replay) = replay.filter(|replay| replay.said) else { return false };
        replay.until = seq + 1;
        true
    }

    /// Announces the next transaction that a link is owed; `false` when there is none, or no room
    /// for it now.
    pub(in crate::protocol) fn offer_replay(&mut self, link: LinkId, limit: u64) -> bool {
        let now = self.env.now;
        let Some((seq, record)) = self.next_in_replay(link) else {
            self.end_replay(link);
            return false;
        };
        let Some(replay) = self.links.up(link).and_then(|up| up.feed.replay.as_mut()) else {
            return false;
        };
        replay.next = seq;
        let size = u64::from(record.size);
        if replay.is_full(size) {
            let due = replay.moved + STALL;
            self.env.timers.set_earlier(Timer::Replay(link), due);
            return false;
        }
        replay.next = seq + 1;
        if size <= limit {
            replay.wait_for(seq, record.size, now);
            let slot = self.links.slot_of(link);
            self.trail.note(seq, What::Announced, slot, self.env.now);
            self.announce(link, Announcement { id: record.id, size, hop: record.hop() });
        }
        true
    }

    /// The next log entry that a link is owed.
    fn next_in_replay(&self, link: LinkId) -> Option<(u64, Record)> {
        let (log, outbox) = (&self.log, &self.outbox);
        let l = self.links.all.get(&link)?;
        let up = l.up.as_ref()?;
        let replay = up.feed.replay.as_ref()?;
        let uphill = self.is_uphill(link) && self.spread.carrying.ours().topics.is_some();
        let all = uphill || outbox.len() > 0;
        let first = if all { log.base() } else { log.base().max(replay.all) };
        let own = |seq: u64, r: &Record| {
            r.is_own()
                && (seq >= replay.all || outbox.contains(&r.id))
                && !log.is_known(seq, up.slot)
                && !outbox.has_confirmed(&r.id, &l.remote)
                && self.takes(link, r)
        };
        let passing =
            |r: &Record| uphill && self.is_passing(r) && !(replay.again && r.is_stored_upstream());
        let due = |seq: u64, r: &Record| {
            !replay.waiting.contains_key(&seq) && (own(seq, r) || passing(r))
        };
        (replay.next.max(first)..replay.until)
            .find_map(|seq| log.at(seq).filter(|r| due(seq, r)).map(|r| (seq, *r)))
    }

    fn end_replay(&mut self, link: LinkId) {
        let Some(replay) = self.links.up(link).and_then(|up| up.feed.replay.take()) else { return };
        self.env.timers.cancel(Timer::Replay(link));
        if replay.said {
            // Behind the last of them.
            self.drain(link);
            self.send(link, Message::Flushed);
        }
    }

    /// A peer has stored these of ours: there is room for more.
    pub(super) fn note_replay_stored(&mut self, link: LinkId, ids: &[TransactionId]) {
        let (log, now) = (&self.log, self.env.now);
        let Some(replay) = self.links.up(link).and_then(|up| up.feed.replay.as_mut()) else {
            return;
        };
        for seq in ids.iter().filter_map(|id| log.seq_of(id)) {
            if let Some(size) = replay.waiting.remove(&seq) {
                replay.bytes.leave(u64::from(size));
                replay.moved = now;
            }
        }
        self.pump(link);
    }

    /// A peer was sent something.
    pub(in crate::protocol) fn note_replay_served(&mut self, link: LinkId) {
        let now = self.env.now;
        if let Some(replay) = self.links.up(link).and_then(|up| up.feed.replay.as_mut()) {
            replay.moved = now;
        }
    }

    /// A peer confirms nothing: what it was told of is its own affair.
    pub(in crate::protocol) fn on_replay_due(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(replay) = self.links.up(link).and_then(|up| up.feed.replay.as_mut()) else {
            return;
        };
        if now.since(replay.moved) < STALL {
            let due = replay.moved + STALL;
            self.env.timers.set(Timer::Replay(link), due);
            return;
        }
        replay.waiting.clear();
        replay.bytes = Gate::default();
        self.pump(link);
    }
}
