//! An ordered replay: what an origin published while it was alone reaches its peers in the order of
//! publishing.
//!
//! ```text
//! origin                                               peer
//!   hello: owes                             ───────►   opens an inflow
//!   announces its outbox, oldest first, as far  ───►   joins each to the order of the inflow and asks
//!   as there is room in the window; what is            for it at once; what comes out of its turn,
//!   published meanwhile joins the end                  from whomever, is deferred until its turn
//!   moves the window on                  ◄── stored    takes what is first, then what was deferred
//!   Flushed                                 ───────►   ends the inflow when all of that is settled
//! ```
//!
//! The order is that of announcing on the link to the origin, whoever the payloads come from: a
//! neighbour that is further on with the same replay may serve it as well. What of this origin comes
//! while it has not been announced here yet is deferred too, unless it is older than what was taken last.
//! So each peer that is linked to the origin stores the replay in the order of publishing, over all
//! topics, while the link lives and moves; an id that is refused, or that nobody serves, is passed
//! over. If the link breaks, what was deferred waits for `STALL`: when the origin is back by then, it
//! announces what is left again, in order. Peers further away hear of entries in the order of their
//! neighbours' logs and ask in it, but of several neighbours: nothing keeps the order there.
//!
//! The same walk announces, on a way to a relay, what is here for that only (`spread::interest`). Later walks
//! do as well, when a link becomes such a way or what passes is announced again: the peer is told
//! nothing of those, and `Flushed` ends the first one alone.
//!
//! While a replay runs on a link, neither side opens a comparison on it (`reconcile`).
//!
//! Bounds: `WINDOW` entries and `WINDOW_BYTES` (beyond the first) are announced and not confirmed on
//! a link; `MAX_DEFERRED` bytes (beyond the first) are deferred for an origin, and `Shares::deferred`
//! for all together, which one alone may exceed.
//! An origin that goes beyond its window, that joins `MAX_ORDER` ids, or that is silent for `STALL`, has
//! its inflow ended: what was deferred is taken, and what comes is taken as it comes. An origin orders what
//! is its own, and nothing else: an id that another one announced is let go when it turns out whose
//! it is.
//!
//! Tested by: `sim::tests::outbox_replay`, `protocol::tests::greedy`.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::Protocol;
use crate::protocol::gate::Gate;
use crate::protocol::intake::Stage;
use crate::protocol::link::Link;
use crate::protocol::timers::Timer;
use crate::types::{LinkId, MonoTime, PeerId, Transaction, TransactionId, WallTime};

use super::replay_out::{Outflow, STALL, WINDOW, WINDOW_BYTES};

/// Maximum bytes deferred for one origin, beyond the first payload: its window, and a neighbour's
/// that is ahead.
const MAX_DEFERRED: u64 = 4 * WINDOW_BYTES;
/// Maximum number of ids in the order of an inflow: what is announced at once, and what is
/// published meanwhile.
pub(in crate::protocol) const MAX_ORDER: usize = 4 * WINDOW;
/// Number of bytes that a deferred entry counts beside its payload, so that small ones are bounded
/// too.
const OVERHEAD: u64 = 2048;

/// Inflow from an origin that came back with transactions that wait for copies.
#[derive(Debug)]
pub(in crate::protocol) struct Inflow {
    /// `None` once it broke.
    link: Option<LinkId>,
    /// Ids that the origin announced or pushed and that are not settled yet, in its order.
    order: VecDeque<TransactionId>,
    /// True: the origin owes more than it has announced.
    more: bool,
    /// Number of ids at the end of `order` that the origin did not owe.
    beyond: usize,
    /// Ids deferred before they were announced, in the order in which they came.
    early: VecDeque<TransactionId>,
    /// Bytes deferred for this origin.
    deferred_bytes: Gate,
    /// Creation time of the youngest that was taken in order.
    latest: WallTime,
    /// Time of the last progress.
    touched: MonoTime,
}

/// A transaction that waits for its turn, verified and validated.
#[derive(Debug)]
pub(in crate::protocol) struct Deferred {
    pub(in crate::protocol) from: PeerId,
    pub(in crate::protocol) transaction: Transaction,
    pub(in crate::protocol) hop: u16,
}

/// State that all replays share.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Replays {
    /// Replay of the own outbox.
    pub(super) own: Option<Outflow>,
    by_origin: BTreeMap<PeerId, Inflow>,
    /// Bytes deferred for all origins together.
    deferred_bytes: Gate,
    /// True: something was settled in this turn.
    moved: bool,
}

impl Replays {
    /// Bytes deferred for all origins.
    pub(in crate::protocol) fn deferred_bytes(&self) -> u64 {
        self.deferred_bytes.level()
    }

    /// Returns what one payload of this size counts while it is deferred.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn weight_of(size: u64) -> u64 {
        size.saturating_add(OVERHEAD)
    }

    /// Ids in the longest order.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn longest(&self) -> usize {
        self.by_origin.values().map(|inflow| inflow.order.len()).max().unwrap_or(0)
    }

    fn get_mut(&mut self, origin: &PeerId) -> Option<&mut Inflow> {
        self.by_origin.get_mut(origin)
    }

    /// Notes that something that may have been in an order is no longer fetched.
    pub(in crate::protocol) fn note_settled(&mut self, deferred: Option<&Deferred>) {
        self.moved = true;
        if let Some(deferred) = deferred {
            let size = weight(&deferred.transaction);
            self.deferred_bytes.leave(size);
            if let Some(inflow) = self.get_mut(&deferred.transaction.origin()) {
                inflow.deferred_bytes.leave(size);
            }
        }
    }
}

impl Protocol {
    /// Reports whether a replay runs on a link, in either direction.
    pub(in crate::protocol) fn is_replaying(&self, link: &Link) -> bool {
        let inflow = self.replays.by_origin.get(&link.remote);
        link.up.as_ref().is_some_and(|up| up.feed.replay.is_some())
            || inflow.is_some_and(|inflow| inflow.link == Some(link.id))
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
        // It begins again: what was deferred of the earlier one waits for its turn in this one.
        for id in std::mem::take(&mut inflow.order) {
            let Some(pending) = self.intake.pending.get_mut(&id) else { continue };
            pending.ordered = None;
            if pending.deferred.is_some() {
                inflow.early.push_back(id);
            }
        }
        (inflow.link, inflow.more, inflow.beyond, inflow.touched) = (Some(link), owes, 0, now);
        self.replays.by_origin.insert(peer, inflow);
        self.replays.moved = true;
    }

    /// An origin that may be replaying announced or pushed something of its own.
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

    /// Reports whether what is announced on a link is sent when it is asked for, and never unasked.
    pub(in crate::protocol) fn is_replayed(&self, link: LinkId) -> bool {
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

    /// A link is gone: what was deferred waits for a while for its peer to come back.
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
    pub(in crate::protocol) fn defer(
        &mut self,
        from: PeerId,
        transaction: &Transaction,
        hop: u16,
    ) -> bool {
        let (id, header) = (transaction.id(), transaction.header());
        let (origin, size) = (header.origin, weight(transaction));
        let share = self.env.shares.deferred;
        let has_room = self.replays.deferred_bytes.has_room(size, share);
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
        if !has_room || !inflow.deferred_bytes.has_room(size, MAX_DEFERRED) {
            if ordered {
                self.end_inflow(&origin);
                return false;
            }
            // Its origin is going to announce it.
            self.env.counters.replay_dropped += 1;
            self.remove_pending(&id);
            if let Some(link) = self.links.by_peer.get(&from) {
                self.want_repair(*link);
            }
            return true;
        }
        pending.stage = Stage::Deferred;
        pending.deferred = Some(Box::new(Deferred { from, transaction: transaction.clone(), hop }));
        inflow.deferred_bytes.enter(size);
        if !ordered {
            inflow.early.push_back(id);
        }
        self.replays.moved = true;
        self.replays.deferred_bytes.enter(size);
        self.env.counters.replay_deferred += 1;
        self.env.timers.cancel(Timer::Fetch(id));
        self.abandon_parents(&id);
        true
    }

    /// Gives what came its turn in the order of its origin, if any, whoever else said it was
    /// theirs.
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
            if pending.is_some_and(|p| p.deferred.is_none()) {
                // Whoever else says that it is theirs.
                break;
            }
            inflow.order.pop_front();
            inflow.touched = now;
            if let Some(deferred) = pending.and_then(|p| p.deferred.as_ref()) {
                inflow.latest = inflow.latest.max(deferred.transaction.header().created);
                self.release_older(origin);
                self.release(&first);
            }
        }
        let settled = |i: &mut Inflow| !i.more && i.order.len() <= i.beyond;
        if self.replays.get_mut(origin).is_some_and(settled) {
            self.end_inflow(origin);
        }
    }

    /// Takes what came early and is older than what has its turn: it is not going to be announced.
    fn release_older(&mut self, origin: &PeerId) {
        while let Some(inflow) = self.replays.get_mut(origin)
            && let Some(first) = inflow.early.front().copied()
        {
            let deferred = self.intake.pending.get(&first).filter(|p| p.ordered.is_none());
            let created =
                deferred.and_then(|p| p.deferred.as_ref()).map(|h| h.transaction.header().created);
            if created.is_some_and(|created| created >= inflow.latest) {
                return;
            }
            inflow.early.pop_front();
            if created.is_some() {
                self.release(&first);
            }
        }
    }

    /// Ends an inflow: what is deferred is taken, in order as far as that is known.
    fn end_inflow(&mut self, origin: &PeerId) {
        let Some(inflow) = self.replays.by_origin.remove(origin) else { return };

        self.env.timers.cancel(Timer::Inflow(*origin));
        for id in inflow.order.iter().chain(&inflow.early) {
            if let Some(pending) = self.intake.pending.get_mut(id) {
                pending.ordered = None;
                self.release(id);
            }
        }
        self.env.timers.set_earlier(Timer::Reconcile, self.env.now);
    }

    /// Takes what was deferred.
    fn release(&mut self, id: &TransactionId) {
        let deferred = self.intake.pending.get_mut(id).and_then(|p| p.deferred.take());
        let Some(deferred) = deferred else { return };
        self.replays.note_settled(Some(&deferred));
        self.accept(deferred.from, &deferred.transaction, deferred.hop);
    }
}

/// Returns what a transaction counts while it is deferred.
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
            deferred_bytes: Gate::default(),
            latest: WallTime::default(),
            touched: now,
        }
    }
}
