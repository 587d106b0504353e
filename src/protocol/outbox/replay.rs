//! A flush in order: what an origin published while it was alone reaches its peers in the order of
//! publishing.
//!
//! ```text
//! origin                                               peer
//!   hello: owes                             ───────►   opens an inflow
//!   announces its outbox, oldest first, as far  ───►   joins each to the order of the inflow and asks
//!   as there is room in the window; what is            for it at once; what comes out of its turn,
//!   published meanwhile joins the end                  from whomever, is held until its turn
//!   moves the window on                  ◄── stored    takes what is first, then what was held
//!   flushed                                 ───────►   ends the inflow when all of that is settled
//! ```
//!
//! The order is that of announcing on the link to the origin, whoever the payloads come from: a
//! neighbour that is further on with the same flush may serve it as well. What of this origin comes
//! while it has not been announced here yet is held too, unless it is older than what was taken last.
//! So each peer that is linked to the origin stores the flush in the order of publishing, over all
//! topics, while the link lives and moves; an id that is refused, or that nobody serves, is passed
//! over. If the link breaks, what was held waits for `STALL`: when the origin is back by then, it
//! announces what is left again, in order. Peers further away hear of entries in the order of their
//! neighbours' logs and ask in it, but of several neighbours: nothing keeps the order there.
//!
//! The same walk announces, on a way to a relay, what is here for that only (`interest`). Later walks
//! do as well, when a link becomes such a way or what passes is announced again: the peer is told
//! nothing of those, and `flushed` ends the first one alone.
//!
//! While a link is flushed neither side opens a comparison on it (`reconcile`).
//!
//! Bounds: `WINDOW` entries and `WINDOW_BYTES` (beyond the first) are announced and not confirmed on
//! a link; `MAX_HELD` bytes (beyond the first) are held for an origin and `MAX_HELD_IN_ALL` together.
//! An origin that goes beyond its window, that joins `MAX_ORDER` ids, or that is silent for `STALL`, has
//! its inflow ended: what was held is taken, and what comes is taken as it comes. An origin orders what
//! is its own, and nothing else: an id that another one announced is let go when it turns out whose
//! it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::types::{
    Announcement, LinkId, Message, MonoTime, PeerId, Transaction, TransactionId, WallTime,
};

use crate::protocol::Protocol;
use crate::protocol::gate::Gate;
use crate::protocol::intake::Stage;
use crate::protocol::link::Link;
use crate::protocol::log::Record;
use crate::protocol::timers::Timer;

/// Entries announced on a link and not confirmed: 20,000 a second at a round trip of 200 ms.
const WINDOW: usize = 4096;
/// Payload bytes of them, beyond the first.
const WINDOW_BYTES: u64 = 4 << 20;
/// Bytes held for one origin, beyond the first payload: its window, and a neighbour's that is ahead.
const MAX_HELD: u64 = 4 * WINDOW_BYTES;
/// Ids in the order of an inflow: what is announced at once, and what is published meanwhile.
pub(in crate::protocol) const MAX_ORDER: usize = 4 * WINDOW;
/// What an entry that is held counts beside its payload, so that small ones are bounded too.
const OVERHEAD: u64 = 2048;
/// Bytes held for all origins.
const MAX_HELD_IN_ALL: u64 = 64 << 20;
/// A node that comes back finds its peers within this time; all of them are flushed.
const GATHER: Duration = Duration::from_secs(30);
/// A side that does nothing for so long does not keep the other waiting.
const STALL: Duration = Duration::from_secs(3);

/// What a link is owed: a walk over our own log entries that wait for copies, and over what is here
/// only on its way to a relay.
#[derive(Debug)]
pub(in crate::protocol) struct Owed {
    /// Whether our hello said so, and the peer waits for the end of it.
    said: bool,
    /// Of what is on its way to a relay only what no peer nearer to one is known to have.
    again: bool,
    /// The next log entry to look at.
    next: u64,
    /// From here on everything is announced, below only what is in the outbox.
    all: u64,
    /// Where it ends; entries after it are offered by the link's cursor.
    until: u64,
    /// Announced and not confirmed: the sizes, by sequence number.
    waiting: BTreeMap<u64, u32>,
    bytes: Gate,
    /// The last confirmation, or payload served.
    moved: MonoTime,
}

impl Owed {
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

    /// Whether an entry is announced, or going to be.
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

/// What an origin sends that came back with transactions that wait for copies.
#[derive(Debug)]
pub(in crate::protocol) struct Inflow {
    /// `None` once it broke.
    link: Option<LinkId>,
    /// What it announced or pushed and what is not settled yet, in its order.
    order: VecDeque<TransactionId>,
    /// Whether it owes more than it has announced.
    more: bool,
    /// How many of `order`, at its end, it did not owe.
    beyond: usize,
    /// Held before it was announced, as it came.
    early: VecDeque<TransactionId>,
    /// Bytes held.
    held: Gate,
    /// When the youngest that was taken in order was created.
    latest: WallTime,
    /// The last progress.
    touched: MonoTime,
}

/// A transaction that waits for its turn, verified and judged.
#[derive(Debug)]
pub(in crate::protocol) struct Held {
    pub(in crate::protocol) from: PeerId,
    pub(in crate::protocol) transaction: Transaction,
    pub(in crate::protocol) hop: u16,
}

/// Own entries that waited for copies when the first link came up after a time without any.
#[derive(Debug, Clone, Copy)]
struct Outflow {
    from: u64,
    until: u64,
    began: MonoTime,
}

/// What flushes share.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Replays {
    /// The own one.
    own: Option<Outflow>,
    by_origin: BTreeMap<PeerId, Inflow>,
    /// Bytes held for all.
    held: Gate,
    /// Something was settled in this turn.
    moved: bool,
}

impl Replays {
    /// Bytes held, and the most that may be: one payload of each origin may be larger than the rest.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn held(&self, largest: u64) -> (usize, usize) {
        let bound = MAX_HELD_IN_ALL + (largest + OVERHEAD) * self.by_origin.len() as u64;
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        (count(self.held.level()), count(bound))
    }

    /// Ids in the longest order.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn longest(&self) -> usize {
        self.by_origin.values().map(|inflow| inflow.order.len()).max().unwrap_or(0)
    }

    fn get_mut(&mut self, origin: &PeerId) -> Option<&mut Inflow> {
        self.by_origin.get_mut(origin)
    }

    /// Something that may have been in an order is no longer fetched.
    pub(in crate::protocol) fn note_settled(&mut self, held: Option<&Held>) {
        self.moved = true;
        if let Some(held) = held {
            let size = weight(&held.transaction);
            self.held.leave(size);
            if let Some(inflow) = self.get_mut(&held.transaction.origin()) {
                inflow.held.leave(size);
            }
        }
    }
}

impl Protocol {
    /// Whether a flush runs on a link, in either direction.
    pub(in crate::protocol) fn is_flushing(&self, link: &Link) -> bool {
        let inflow = self.replays.by_origin.get(&link.remote);
        link.up.as_ref().is_some_and(|up| up.feed.owed.is_some())
            || inflow.is_some_and(|inflow| inflow.link == Some(link.id))
    }

    /// The first link after a time without any is about to come up: what waits now is to be flushed.
    pub(in crate::protocol) fn begin_outflow(&mut self) {
        let (log, outbox) = (&self.log, &self.outbox);
        let first = outbox.waiting().filter_map(|id| log.seq_of(id)).min();
        // What is left of an earlier one goes on.
        let own = self.replays.own.filter(|own| self.is_flowing(own));
        let from = own.map(|own| own.from).into_iter().chain(first).min();
        let (until, began) = (log.head(), self.env.now);
        self.replays.own = from.map(|from| Outflow { from, until, began });
    }

    /// From where on all our own entries are to be announced on a new link, if on any. That is the
    /// first of what waited when we came back, for `GATHER` and as long as any of that waits: also
    /// what others have confirmed since, so that the order is whole on each link.
    pub(in crate::protocol) fn outflow(&self) -> Option<u64> {
        self.replays.own.filter(|own| self.is_flowing(own)).map(|own| own.from)
    }

    fn is_flowing(&self, own: &Outflow) -> bool {
        let waits = |id| self.log.seq_of(id).is_some_and(|seq| seq < own.until);
        self.env.now.since(own.began) < GATHER || self.outbox.waiting().any(waits)
    }

    /// Whether a new link is owed anything.
    pub(in crate::protocol) fn owes(&self) -> bool {
        self.outbox.len() > 0 || self.outflow().is_some()
    }

    /// Lets an own log entry that a link's cursor has come to wait for its turn in the link's flush;
    /// `false` when there is none that the peer was told of: it would hold nothing that overtakes.
    pub(in crate::protocol) fn join_owed(&mut self, link: LinkId, seq: u64) -> bool {
        let owed = self.links.up(link).and_then(|up| up.feed.owed.as_mut());
        let Some(owed) = owed.filter(|owed| owed.said) else { return false };
        owed.until = seq + 1;
        true
    }

    /// Announces the next transaction that a link is owed; `false` when there is none, or no room
    /// for it now.
    pub(in crate::protocol) fn offer_owed(&mut self, link: LinkId, limit: u64) -> bool {
        let now = self.env.now;
        let Some((seq, record)) = self.next_owed(link) else {
            self.end_owed(link);
            return false;
        };
        let Some(owed) = self.links.up(link).and_then(|up| up.feed.owed.as_mut()) else {
            return false;
        };
        owed.next = seq;
        let size = u64::from(record.size);
        if owed.is_full(size) {
            let due = owed.moved + STALL;
            self.env.timers.set_earlier(Timer::Owed(link), due);
            return false;
        }
        owed.next = seq + 1;
        if size <= limit {
            owed.wait_for(seq, record.size, now);
            self.announce(link, Announcement { id: record.id, size, hop: record.hop() });
        }
        true
    }

    /// The next log entry that a link is owed.
    fn next_owed(&self, link: LinkId) -> Option<(u64, Record)> {
        let (log, outbox) = (&self.log, &self.outbox);
        let l = self.links.all.get(&link)?;
        let up = l.up.as_ref()?;
        let owed = up.feed.owed.as_ref()?;
        let uphill = self.is_uphill(link) && self.spread.carrying.ours().topics.is_some();
        let all = uphill || outbox.len() > 0;
        let first = if all { log.base() } else { log.base().max(owed.all) };
        let own = |seq: u64, r: &Record| {
            r.is_own()
                && (seq >= owed.all || outbox.contains(&r.id))
                && !log.is_known(seq, up.slot)
                && !outbox.has_confirmed(&r.id, &l.remote)
                && self.takes(link, r)
        };
        let passing = |r: &Record| uphill && self.is_passing(r) && !(owed.again && r.is_ashore());
        let due =
            |seq: u64, r: &Record| !owed.waiting.contains_key(&seq) && (own(seq, r) || passing(r));
        (owed.next.max(first)..owed.until)
            .find_map(|seq| log.at(seq).filter(|r| due(seq, r)).map(|r| (seq, *r)))
    }

    fn end_owed(&mut self, link: LinkId) {
        let Some(owed) = self.links.up(link).and_then(|up| up.feed.owed.take()) else { return };
        self.env.timers.cancel(Timer::Owed(link));
        if owed.said {
            // Behind the last of them.
            self.flush(link);
            self.send(link, Message::Flushed);
        }
    }

    /// A peer has stored these of ours: there is room for more.
    pub(super) fn note_owed_stored(&mut self, link: LinkId, ids: &[TransactionId]) {
        let (log, now) = (&self.log, self.env.now);
        let Some(owed) = self.links.up(link).and_then(|up| up.feed.owed.as_mut()) else { return };
        for seq in ids.iter().filter_map(|id| log.seq_of(id)) {
            if let Some(size) = owed.waiting.remove(&seq) {
                owed.bytes.leave(u64::from(size));
                owed.moved = now;
            }
        }
        self.pump(link);
    }

    /// A peer was sent something.
    pub(in crate::protocol) fn note_owed_served(&mut self, link: LinkId) {
        let now = self.env.now;
        if let Some(owed) = self.links.up(link).and_then(|up| up.feed.owed.as_mut()) {
            owed.moved = now;
        }
    }

    /// A peer confirms nothing: what it was told of is its own affair.
    pub(in crate::protocol) fn on_owed_due(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(owed) = self.links.up(link).and_then(|up| up.feed.owed.as_mut()) else { return };
        if now.since(owed.moved) < STALL {
            let due = owed.moved + STALL;
            self.env.timers.set(Timer::Owed(link), due);
            return;
        }
        owed.waiting.clear();
        owed.bytes = Gate::default();
        self.pump(link);
    }

    /// A link is up whose peer said whether it owes anything.
    pub(in crate::protocol) fn begin_inflow(&mut self, link: LinkId, peer: PeerId, owes: bool) {
        let now = self.env.now;
        let Some(mut inflow) = self.replays.by_origin.remove(&peer) else {
            if owes {
                self.replays.by_origin.insert(peer, Inflow::new(link, now));
                self.env.timers.set(Timer::Inflow(peer), now + STALL);
            }
            return;
        };
        // It begins again: what was held of the earlier one waits for its turn in this one.
        for id in std::mem::take(&mut inflow.order) {
            let Some(pending) = self.intake.pending.get_mut(&id) else { continue };
            pending.ordered = None;
            if pending.held.is_some() {
                inflow.early.push_back(id);
            }
        }
        (inflow.link, inflow.more, inflow.beyond, inflow.touched) = (Some(link), owes, 0, now);
        self.replays.by_origin.insert(peer, inflow);
        self.replays.moved = true;
    }

    /// An origin that may be flushing announced or pushed something of its own.
    pub(in crate::protocol) fn join_inflow(&mut self, link: LinkId, id: &TransactionId) {
        let Some(peer) = self.links.peer_of(link) else { return };
        let Some(inflow) = self.replays.get_mut(&peer) else { return };
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        let origin = pending.origin();
        let foreign = origin.is_some_and(|origin| origin != peer);
        if foreign || inflow.link != Some(link) || pending.ordered == Some(link) {
            return;
        }
        if inflow.order.len() >= MAX_ORDER {
            self.end_inflow(&peer);
            return;
        }
        pending.ordered = Some(link);
        inflow.order.push_back(*id);
        inflow.beyond += usize::from(!inflow.more);
        inflow.touched = self.env.now;
        self.replays.moved = true;
    }

    /// Whether what is announced on a link is sent when it is asked for, and never unasked.
    pub(in crate::protocol) fn is_flushed(&self, link: LinkId) -> bool {
        let peer = self.links.peer_of(link);
        let inflow = peer.and_then(|peer| self.replays.by_origin.get(&peer));
        inflow.is_some_and(|inflow| inflow.link == Some(link) && inflow.more)
    }

    /// Part of a large payload came: whoever waits for its turn waits on.
    pub(in crate::protocol) fn note_inflow_progress(&mut self, id: &TransactionId) {
        let ordered = self.intake.pending.get(id).and_then(|p| p.ordered);
        let peer = ordered.and_then(|link| self.links.peer_of(link));
        if let Some(inflow) = peer.and_then(|peer| self.replays.get_mut(&peer)) {
            inflow.touched = self.env.now;
        }
    }

    /// A peer has announced all that it owed.
    pub(in crate::protocol) fn on_flushed(&mut self, link: LinkId) {
        let Some(peer) = self.links.peer_of(link) else { return };
        if let Some(inflow) = self.replays.get_mut(&peer).filter(|i| i.link == Some(link)) {
            inflow.more = false;
            self.replays.moved = true;
        }
    }

    /// A link is gone: what was held waits for a while for its peer to come back.
    pub(in crate::protocol) fn break_inflow(&mut self, link: LinkId, peer: &PeerId) {
        let now = self.env.now;
        if let Some(inflow) = self.replays.get_mut(peer).filter(|i| i.link == Some(link)) {
            (inflow.link, inflow.more, inflow.touched) = (None, true, now);
        }
    }

    /// An origin makes no progress, or does not come back.
    pub(in crate::protocol) fn on_inflow_due(&mut self, peer: PeerId) {
        let Some(inflow) = self.replays.get_mut(&peer) else { return };
        let due = inflow.touched + STALL;
        if due <= self.env.now {
            self.end_inflow(&peer);
        } else {
            self.env.timers.set(Timer::Inflow(peer), due);
        }
    }

    /// Keeps a good transaction back whose turn has not come; `false` when it may be taken now.
    pub(in crate::protocol) fn hold_back(
        &mut self,
        from: PeerId,
        transaction: &Transaction,
        hop: u16,
    ) -> bool {
        let (id, header) = (transaction.id(), transaction.header());
        let (origin, size) = (header.origin, weight(transaction));
        let in_all = self.replays.held.level();
        self.leave_foreign_order(&id, &origin);
        let Some(inflow) = self.replays.get_mut(&origin) else { return false };
        let Some(pending) = self.intake.pending.get_mut(&id) else { return false };
        let ordered = inflow.link.is_some() && pending.ordered == inflow.link;
        if ordered && inflow.order.front() == Some(&id) && inflow.early.is_empty() {
            inflow.latest = inflow.latest.max(header.created);
            return false;
        }
        if !ordered && (!inflow.more || header.created < inflow.latest) {
            return false;
        }
        let full = inflow.held.level() + size > MAX_HELD || in_all + size > MAX_HELD_IN_ALL;
        if full && !inflow.held.is_empty() {
            if ordered {
                self.end_inflow(&origin);
                return false;
            }
            // Its origin is going to announce it.
            self.env.counters.flushed_dropped += 1;
            self.remove_pending(&id);
            if let Some(link) = self.links.by_peer.get(&from) {
                self.want_repair(*link);
            }
            return true;
        }
        pending.stage = Stage::Held;
        pending.held = Some(Box::new(Held { from, transaction: transaction.clone(), hop }));
        inflow.held.enter(size);
        if !ordered {
            inflow.early.push_back(id);
        }
        self.replays.moved = true;
        self.replays.held.enter(size);
        self.env.counters.flushed_held += 1;
        self.env.timers.cancel(Timer::Fetch(id));
        self.abandon_parents(&id);
        true
    }

    /// What came has its place in the order of its origin, if any, whoever else said it was theirs.
    fn leave_foreign_order(&mut self, id: &TransactionId, origin: &PeerId) {
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        let in_whose = pending.ordered.and_then(|link| self.links.peer_of(link));
        if in_whose.is_some_and(|peer| peer != *origin) {
            let inflow = self.replays.by_origin.get(origin);
            let inflow = inflow.filter(|inflow| inflow.order.contains(id));
            pending.ordered = inflow.and_then(|inflow| inflow.link);
            self.replays.moved = true;
        }
    }

    /// Takes what has its turn, at the end of an input.
    pub(in crate::protocol) fn advance_inflows(&mut self) {
        while std::mem::take(&mut self.replays.moved) {
            for origin in self.replays.by_origin.keys().copied().collect::<Vec<_>>() {
                self.advance_inflow(&origin);
            }
        }
    }

    fn advance_inflow(&mut self, origin: &PeerId) {
        let now = self.env.now;
        let is_own = |of: PeerId| of == *origin;
        while let Some(inflow) = self.replays.get_mut(origin)
            && let Some(first) = inflow.order.front().copied()
        {
            if inflow.link.is_none() {
                // While it is broken, it waits for its origin to come back.
                return;
            }
            let pending = self.intake.pending.get(&first).filter(|p| p.origin().is_none_or(is_own));
            if pending.is_some_and(|p| p.held.is_none()) {
                // Whoever else says that it is theirs.
                break;
            }
            inflow.order.pop_front();
            inflow.touched = now;
            if let Some(held) = pending.and_then(|p| p.held.as_ref()) {
                inflow.latest = inflow.latest.max(held.transaction.header().created);
                self.let_go_older(origin);
                self.let_go(&first);
            }
        }
        let settled = |i: &mut Inflow| !i.more && i.order.len() <= i.beyond;
        if self.replays.get_mut(origin).is_some_and(settled) {
            self.end_inflow(origin);
        }
    }

    /// Takes what came early and is older than what has its turn: it is not going to be announced.
    fn let_go_older(&mut self, origin: &PeerId) {
        while let Some(inflow) = self.replays.get_mut(origin)
            && let Some(first) = inflow.early.front().copied()
        {
            let held = self.intake.pending.get(&first).filter(|p| p.ordered.is_none());
            let created =
                held.and_then(|p| p.held.as_ref()).map(|h| h.transaction.header().created);
            if created.is_some_and(|created| created >= inflow.latest) {
                return;
            }
            inflow.early.pop_front();
            if created.is_some() {
                self.let_go(&first);
            }
        }
    }

    /// Ends an inflow: what is held is taken, in order as far as that is known.
    fn end_inflow(&mut self, origin: &PeerId) {
        let Some(inflow) = self.replays.by_origin.remove(origin) else { return };

        self.env.timers.cancel(Timer::Inflow(*origin));
        for id in inflow.order.iter().chain(&inflow.early) {
            if let Some(pending) = self.intake.pending.get_mut(id) {
                pending.ordered = None;
                self.let_go(id);
            }
        }
        self.env.timers.set_earlier(Timer::Reconcile, self.env.now);
    }

    /// Takes what was held.
    fn let_go(&mut self, id: &TransactionId) {
        let held = self.intake.pending.get_mut(id).and_then(|p| p.held.take());
        let Some(held) = held else { return };
        self.replays.note_settled(Some(&held));
        self.take(held.from, &held.transaction, held.hop);
    }
}

/// What a transaction counts while it is held.
fn weight(transaction: &Transaction) -> u64 {
    transaction.header().payload_len + OVERHEAD
}

impl Inflow {
    fn new(link: LinkId, now: MonoTime) -> Self {
        Self {
            link: Some(link),
            order: VecDeque::new(),
            more: true,
            beyond: 0,
            early: VecDeque::new(),
            held: Gate::default(),
            latest: WallTime::default(),
            touched: now,
        }
    }
}
