//! Whom large payloads are reserved from, and when that is given up.
//!
//! The first announcer of good reputation is asked first, those last who let somebody wait a moment
//! ago. Who answers `Busy` is left in peace for 250 ms: until then only a peer that says it is
//! receiving (or has all) is asked, afterwards the busy one again with `force`. Who sends nothing
//! for max(240 ms, 2.4 round trips) and the time of four pieces at its measured rate is given up:
//! what it owes is taken back and asked elsewhere. When all who announced have failed, all other
//! links are asked in turn, which serve only if they have everything, unless all that is known is
//! what one peer announced; then all again, more patiently. After `MAX_TURNS` the id is left to the
//! next announcement; what is there of its payload is kept for `PARK`, unless the room is needed.
//! The only source is waited for while its link carries bytes: a piece takes its time on a thin
//! one.
//!
//! Tested by: `sim::tests::large`, `protocol::tests::liars`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::intake::{Holds, MAX_ASKED, Source, Stage};
use crate::protocol::link::Links;
use crate::protocol::timers::Timer;
use crate::types::{
    ALL_PIECES, LinkId, MAX_RANGES, Message, MonoTime, PIECE_BYTES, PeerId, PieceRange, PieceSet,
    Reservation, TransactionId, pieces_of,
};

use super::header::{Large, Parent};
use super::stripe::DEFAULT_RATE;

/// Delay before a busy peer is asked again.
const BUSY: Duration = Duration::from_millis(250);
/// Minimum patience with a silent parent.
const SILENCE: Duration = Duration::from_millis(240);
/// Maximum patience with a silent parent.
const MAX_SILENCE: Duration = Duration::from_secs(20);
/// Maximum number of turns of asking everybody before an id is left to the next announcement.
const MAX_TURNS: u32 = 5;
/// Number of times the patience may run out before a peer that was only waited for is left for
/// somebody who has more.
const PATIENT: u32 = 2;
/// Number of times the patience with the only source is doubled before links are asked that did not
/// announce the payload.
const LONGER: u32 = 3;
/// Maximum time without a piece for which the only source is waited for while its link carries bytes:
/// a piece each way at 1 kB/s.
const THIN: Duration = Duration::from_secs(128);
/// Time for which a partial payload that nobody serves is kept.
const PARK: Duration = Duration::from_mins(1);

/// Step that comes next for a payload that nobody is asked for.
enum Next {
    Ask { link: LinkId, force: bool },
    AskUnannounced(LinkId),
    Wait(MonoTime),
    Exhausted,
}

impl Protocol {
    /// Looks at a large fetch and does what is due.
    pub(in crate::protocol) fn drive(&mut self, id: &TransactionId) {
        let Some(pending) = self.intake.pending.get_mut(id).filter(|p| p.stage == Stage::Heard)
        else {
            return;
        };
        let Some(large) = &mut pending.large else { return };
        if large.waiting || large.head.is_some() && !large.trusted && large.parents.is_empty() {
            return;
        }
        if large.head.is_some() && !self.start_assembly(id) {
            return;
        }
        self.leave_overdue(id);
        for _ in 0..2 * MAX_TURNS {
            let Some(large) = self.intake.pending.get(id).and_then(|p| p.large.as_ref()) else {
                return;
            };
            if large.parked {
                return;
            }
            let nothing = large.missing().is_some_and(|missing| missing.is_empty());
            if !large.parents.is_empty() || nothing {
                break;
            }
            match self.next_source(id) {
                Next::Ask { link, force } => {
                    if !self.reserve(link, id, force, false) {
                        return;
                    }
                }
                Next::AskUnannounced(link) => {
                    if let Some(large) =
                        self.intake.pending.get_mut(id).and_then(|p| p.large.as_mut())
                    {
                        large.asked_unannounced.push(link);
                    }
                    self.reserve(link, id, false, true);
                }
                Next::Wait(until) => {
                    self.env.timers.set(Timer::Fetch(*id), until);
                    return;
                }
                Next::Exhausted => self.next_turn(id),
            }
        }
        self.extend(id);
        self.stripe(id);
        self.set_watch(id);
    }

    /// Returns the links to peers that may have a transaction though they did not say so.
    pub(super) fn links_that_carry(&self, id: &TransactionId) -> Vec<LinkId> {
        let head = self.intake.pending.get(id).and_then(|p| p.large.as_ref()?.head.as_ref());
        let mut links = self.links.up_ids();
        if let Some(topic) = head.map(|head| &head.header().topic) {
            links.retain(|link| self.takes_topic(*link, topic));
        }
        links
    }

    /// Asks the fastest who serves for what nobody is asked for, because somebody failed.
    fn extend(&mut self, id: &TransactionId) {
        let links = &self.links;
        let Some(large) = self.intake.pending.get_mut(id).and_then(|p| p.large.as_mut()) else {
            return;
        };
        let Some(missing) = large.missing().filter(|missing| !missing.is_empty()) else { return };
        let rate = |p: &&mut Parent| {
            let up = links.all.get(&p.link).and_then(|l| l.up.as_ref());
            up.map_or(0, |up| up.pieces.rate())
        };
        let Some(parent) = large.parents.iter_mut().filter(|p| p.served).max_by_key(rate) else {
            return;
        };
        let Some(wanted) = &mut parent.wanted else { return };
        // What fits no message waits until it has become less.
        if wanted.ranges(MAX_RANGES).len() < MAX_RANGES {
            wanted.add_all(&missing);
            let link = parent.link;
            self.say_reserved(link, id, true, false);
        }
    }

    fn next_source(&mut self, id: &TransactionId) -> Next {
        let (now, me) = (self.env.now, self.env.me);
        let carriers = self.links_that_carry(id);
        let links = &self.links;
        let Some(pending) = self.intake.pending.get_mut(id) else { return Next::Exhausted };
        pending.sources.retain(|s| links.slot_of(s.link).is_some());
        let Some(large) = &pending.large else { return Next::Exhausted };
        let open = |s: &&Source| !s.tried && rank_towards(s, large, me, links).is_some();
        let busy = |s: &Source| s.busy.is_some_and(|until| now < until);
        let somebody_busy = pending.sources.iter().filter(open).any(|s| s.busy.is_some());
        let waits = |s: &Source| s.busy.is_none() && s.holds == Holds::Nothing;
        let peer = |s: &Source| links.peer_of(s.link);
        let reliable =
            |s: &Source| peer(s).is_some_and(|p| self.guard.reputation.is_reliable(&p, now));
        let doubted =
            |s: &Source| peer(s).is_some_and(|p| self.guard.reputation.is_doubted(&p, now));
        let free = |s: &&Source| !(busy(s) || somebody_busy && waits(s));
        // Who is asked for much already is asked when nobody else can be.
        let full = |s: &Source| {
            let up = links.all.get(&s.link).and_then(|l| l.up.as_ref());
            up.is_some_and(|up| up.requests.in_flight.len() >= MAX_ASKED)
        };
        let poor = |s: &Source| links.is_poor(s.link, now);
        let order =
            |s: &&Source| (full(s), !reliable(s), doubted(s), poor(s), s.busy.is_some(), waits(s));
        let best = pending.sources.iter().filter(open).filter(free).min_by_key(order);
        let soonest = pending.sources.iter().filter(open).filter_map(|s| s.busy).min();
        if let Some(best) = best {
            // Somebody better may announce it a moment later.
            let grace = pending.heard_at + BUSY;
            if !reliable(best) && now < grace {
                return Next::Wait(grace);
            }
            return Next::Ask { link: best.link, force: best.busy.is_some() };
        }
        if let Some(until) = soonest {
            return Next::Wait(until);
        }
        // One word alone, and no signature with it, is no reason to ask everybody.
        let vouched = large.trusted || pending.sources.len() > 1;
        let unasked = |link: &LinkId| {
            vouched
                && !large.asked_unannounced.contains(link)
                && !large.children.iter().any(|(child, _)| child == link)
                && !pending.sources.iter().any(|s| s.link == *link)
        };
        match carriers.into_iter().find(unasked) {
            Some(link) => Next::AskUnannounced(link),
            None => Next::Exhausted,
        }
    }

    /// Decides after everybody was asked: once more, or no more.
    fn next_turn(&mut self, id: &TransactionId) {
        let now = self.env.now;
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        pending.turns += 1;
        let Some(large) = &mut pending.large else { return };
        large.asked_unannounced.clear();
        for source in &mut pending.sources {
            (source.tried, source.busy) = (false, None);
        }
        if pending.turns < MAX_TURNS && !pending.sources.is_empty() {
            return;
        }
        let links: Vec<LinkId> = pending.sources.iter().map(|s| s.link).collect();
        if large.assembly.as_ref().is_some_and(|a| !a.have.is_empty() || !a.checking.is_empty()) {
            large.parked = true;
            self.assemblies.parked.push_back(*id);
            self.env.timers.set(Timer::Fetch(*id), now + PARK);
        } else {
            self.remove_pending(id);
        }
        for link in links {
            self.want_repair(link);
        }
    }

    /// Tries again for what nobody served and somebody announces.
    pub(in crate::protocol) fn revive(&mut self, id: &TransactionId) {
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        let Some(large) = pending.large.as_mut().filter(|large| large.parked) else { return };
        large.parked = false;
        pending.turns = 0;
        self.assemblies.parked.retain(|parked| parked != id);
    }

    /// Asks for all that is missing; `false` when the link has no room for it now.
    fn reserve(
        &mut self,
        link: LinkId,
        id: &TransactionId,
        force: bool,
        unannounced: bool,
    ) -> bool {
        let (now, rtt) = (self.env.now, self.rtt_of(link));
        let Some(up) = self.links.up(link) else { return false };
        if up.requests.in_flight.len() >= MAX_ASKED && !up.requests.in_flight.contains(id) {
            let Some(large) = self.intake.pending.get_mut(id).and_then(|p| p.large.as_mut()) else {
                return false;
            };
            // Once in each row: it is looked at again whenever anybody says anything about it.
            if !large.backlogged_on.contains(&link) {
                large.backlogged_on.push(link);
                self.queue_up(link, *id);
            }
            return false;
        }
        up.requests.in_flight.insert(*id);
        up.pieces.start(now + rtt);
        let Some(pending) = self.intake.pending.get_mut(id) else { return false };
        let Some(large) = &mut pending.large else { return false };
        let source = pending.sources.iter_mut().find(|s| s.link == link);
        let holds = source.as_ref().map_or(Holds::Nothing, |s| s.holds);
        let (promised, whole) = (holds != Holds::Nothing, holds == Holds::All);
        if let Some(source) = source {
            source.busy = None;
            if let Some(rank) = rank_towards(source, large, self.env.me, &self.links) {
                large.rank = rank;
            }
        }
        let rank = large.rank;
        let wanted = large.missing();
        large.parents.push(Parent::new(link, wanted, now, whole));
        if promised {
            self.note_promise(link, *id);
        }
        self.send_away(id, rank);
        self.env.counters.wants_sent += 1;
        self.say_reserved(link, id, force, unannounced);
        true
    }

    /// Tells a parent what is wanted of it.
    pub(super) fn say_reserved(
        &mut self,
        link: LinkId,
        id: &TransactionId,
        force: bool,
        unannounced: bool,
    ) {
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        let count = u32::try_from(pieces_of(pending.size)).unwrap_or(u32::MAX);
        let Some(large) = &mut pending.large else { return };
        let Some(parent) = large.parents.iter_mut().find(|p| p.link == link) else { return };
        let ranges = match &mut parent.wanted {
            // Only the header is needed to get at what the store has of it.
            None if self.assemblies.spills.has(id) => {
                vec![PieceRange { first: count.saturating_sub(1), count: 1 }]
            }
            None => vec![PieceRange { first: 0, count: ALL_PIECES }],
            Some(wanted) => {
                let ranges = wanted.ranges(MAX_RANGES);
                // What does not fit is asked for later, here and when it is narrowed.
                *wanted = PieceSet::from_ranges(wanted.len(), &ranges);
                ranges
            }
        };
        let head = large.head.is_none();
        let rank = if head || unannounced { 0 } else { large.rank };
        let id = *id;
        let narrow = false;
        self.send(
            link,
            Message::Reserve(Reservation { id, place: rank, head, force, narrow, ranges }),
        );
    }

    /// Takes back from a parent what it is no longer wanted to send.
    pub(super) fn say_narrowed(&mut self, link: LinkId, id: &TransactionId) {
        let Some(large) = self.intake.pending.get_mut(id).and_then(|p| p.large.as_mut()) else {
            return;
        };
        let parent = large.parents.iter_mut().find(|p| p.link == link);
        let Some(wanted) = parent.and_then(|p| p.wanted.as_mut()) else { return };
        let ranges = wanted.ranges(MAX_RANGES);
        *wanted = PieceSet::from_ranges(wanted.len(), &ranges);
        let (id, rank) = (*id, large.rank);
        let (head, force, narrow) = (false, false, true);
        self.send(
            link,
            Message::Reserve(Reservation { id, place: rank, head, force, narrow, ranges }),
        );
    }

    /// Ends a reservation; `tell` takes it back.
    pub(in crate::protocol) fn end_parent(
        &mut self,
        link: LinkId,
        id: &TransactionId,
        tell: bool,
    ) -> bool {
        let Some(large) = self.intake.pending.get_mut(id).and_then(|p| p.large.as_mut()) else {
            return false;
        };
        let Some(at) = large.parents.iter().position(|p| p.link == link) else { return false };
        large.parents.remove(at);
        large.note_former_parent(link);
        if tell {
            let (rank, ranges) = (large.rank, Vec::new());
            let (head, force, narrow) = (false, false, true);
            let back = Reservation { id: *id, place: rank, head, force, narrow, ranges };
            self.send(link, Message::Reserve(back));
        }
        self.forget_request(link, id);
        true
    }

    /// Ends a reservation that the parent refuses. Of one that was a parent before, what comes may be the answer to
    /// the earlier reservation: then it keeps this one, unless it is taken back, and would be one parent of two.
    pub(in crate::protocol) fn end_refused(&mut self, link: LinkId, id: &TransactionId) -> bool {
        let large = self.intake.pending.get(id).and_then(|p| p.large.as_ref());
        let again = large.is_some_and(|large| large.former_parents.contains(&link));
        self.end_parent(link, id, again)
    }

    /// Takes all reservations back; nobody is to blame.
    pub(in crate::protocol) fn abandon_parents(&mut self, id: &TransactionId) {
        let parents =
            self.intake.pending.get(id).and_then(|p| p.large.as_ref()).map(|l| &l.parents);
        let links: Vec<LinkId> = parents.into_iter().flatten().map(|p| p.link).collect();
        for link in links {
            self.forget_promise(link, id);
            self.end_parent(link, id, true);
        }
    }

    /// The watchdog of a large fetch.
    pub(in crate::protocol) fn on_watch(&mut self, id: &TransactionId) {
        if self.is_parked(id) {
            self.end_parked(id);
            return;
        }
        let Some(large) = self.intake.pending.get(id).and_then(|p| p.large.as_ref()) else {
            return;
        };
        let silent = |p: &&Parent| self.deadline(id, p) <= self.env.now;
        let overdue: Vec<LinkId> = large.parents.iter().filter(silent).map(|p| p.link).collect();
        for link in overdue {
            if self.wait_longer(link, id) {
                continue;
            }
            self.env.counters.wants_timed_out += 1;
            self.note_let_down(link, id);
            self.end_parent(link, id, true);
            self.note_tried(link, id);
        }
        self.drive(id);
    }

    /// Reports whether a silent parent gets more time, because there is nobody else.
    fn wait_longer(&mut self, link: LinkId, id: &TransactionId) -> bool {
        let (now, me, links) = (self.env.now, self.env.me, &self.links);
        let Some(pending) = self.intake.pending.get_mut(id) else { return false };
        let Some(large) = &mut pending.large else { return false };
        let Some(parent) = large.parents.iter().find(|p| p.link == link) else { return false };
        let claims = pending.sources.iter().any(|s| s.link == link && s.holds != Holds::Nothing);
        // Who waits itself is as good as others who wait.
        let least = if claims || parent.served { Holds::Nothing } else { Holds::Some };
        let other = |s: &Source| {
            let fit = s.link != link && !s.tried && s.holds >= least;
            fit && rank_towards(s, large, me, links).is_some()
        };
        let alone = !pending.sources.iter().any(other) && !large.asked_unannounced.contains(&link);
        if !alone || pending.turns >= LONGER && !is_carried(parent, links, now) {
            return false;
        }
        if pending.turns < LONGER {
            pending.turns += 1;
        }
        self.links.measure(&mut self.env, link);
        if let Some(parent) = large.parents.iter_mut().find(|p| p.link == link) {
            (parent.last, parent.overdue) = (now, true);
        }
        true
    }

    /// Leaves parents that were only waited for until somebody has more than they.
    fn leave_overdue(&mut self, id: &TransactionId) {
        let (now, me, links) = (self.env.now, self.env.me, &self.links);
        let Some(pending) = self.intake.pending.get(id) else { return };
        let Some(large) = &pending.large else { return };
        let overdue: Vec<LinkId> =
            large.parents.iter().filter(|p| p.overdue && !p.served).map(|p| p.link).collect();
        let better = |s: &Source| {
            let free = !s.tried && s.busy.is_none_or(|until| until <= now);
            let other = s.holds != Holds::Nothing && !overdue.contains(&s.link);
            free && other && rank_towards(s, large, me, links).is_some()
        };
        if pending.turns < PATIENT || overdue.is_empty() || !pending.sources.iter().any(better) {
            return;
        }
        for link in overdue {
            self.end_parent(link, id, true);
            self.note_tried(link, id);
        }
    }

    /// A parent said that it has this, and sent nothing of it.
    fn note_let_down(&mut self, link: LinkId, id: &TransactionId) {
        let large = self.intake.pending.get(id).and_then(|p| p.large.as_ref());
        let parent = large.and_then(|l| l.parents.iter().find(|p| p.link == link));
        if parent.is_some_and(|p| p.whole && !p.served)
            && let Some(peer) = self.links.peer_of(link)
        {
            self.links.note_service(link, false, self.env.now);
            self.guard.reputation.doubt(peer, self.env.now);
        }
    }

    fn note_tried(&mut self, link: LinkId, id: &TransactionId) {
        if let Some(pending) = self.intake.pending.get_mut(id)
            && let Some(source) = pending.sources.iter_mut().find(|s| s.link == link)
        {
            source.tried = true;
        }
    }

    fn deadline(&self, id: &TransactionId, parent: &Parent) -> MonoTime {
        let up = self.links.all.get(&parent.link).and_then(|l| l.up.as_ref());
        let rate = up.map_or(DEFAULT_RATE, |up| up.pieces.rate());
        // While it sends other payloads that it was asked for, this one waits its turn, but not for
        // ever: they may be its own.
        let last = up.and_then(|up| up.pieces.at).map_or(parent.last, |at| at.max(parent.last));
        let last = last.min(parent.last + MAX_SILENCE);
        let pieces =
            Duration::from_secs(4 * PIECE_BYTES as u64) / u32::try_from(rate).unwrap_or(u32::MAX);
        let silence = SILENCE.max(self.rtt_of(parent.link) * 12 / 5) + pieces;
        let turns = self.intake.pending.get(id).map_or(0, |p| p.turns.min(5));
        last + (silence * (1 << turns)).min(MAX_SILENCE)
    }

    pub(super) fn set_watch(&mut self, id: &TransactionId) {
        let Some(large) = self.intake.pending.get(id).and_then(|p| p.large.as_ref()) else {
            return;
        };
        if large.parked {
            return;
        }
        match large.parents.iter().map(|p| self.deadline(id, p)).min() {
            Some(at) => {
                self.env
                    .timers
                    .set(Timer::Fetch(*id), at.max(self.env.now + Duration::from_millis(1)));
            }
            None => self.env.timers.cancel(Timer::Fetch(*id)),
        }
    }

    /// A piece has come in on a link: who sends is not silent.
    pub(super) fn note_progress(&mut self, link: LinkId, id: &TransactionId, bytes: usize) {
        let now = self.env.now;
        if let Some(up) = self.links.up(link) {
            up.pieces.note(now, bytes);
        }
        if let Some(peer) = self.links.peer_of(link) {
            self.guard.reputation.trust(&peer);
        }
        self.forget_promise(link, id);
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        pending.turns = 0;
        let Some(large) = &mut pending.large else { return };
        if let Some(parent) = large.parents.iter_mut().find(|p| p.link == link) {
            if !parent.served {
                self.links.note_service(link, true, now);
            }
            (parent.last, parent.since) = (now, now);
            (parent.served, parent.overdue) = (true, false);
        }
        self.stripe(id);
        self.set_watch(id);
    }

    /// A peer serves others first, or has risen in the order and sends us away half-way.
    pub(in crate::protocol) fn on_busy(&mut self, link: LinkId, ids: &[TransactionId]) {
        for id in ids {
            self.forget_promise(link, id);
            let Some(pending) = self.intake.pending.get_mut(id) else { continue };
            let Some(large) = &pending.large else { continue };
            if !large.parents.iter().any(|p| p.link == link) {
                continue;
            }
            self.env.counters.wants_put_off += 1;
            let until = self.env.now + BUSY;
            if let Some(source) = pending.sources.iter_mut().find(|s| s.link == link) {
                source.busy = Some(until);
            }
            self.end_refused(link, id);
            self.drive(id);
        }
    }

    /// A peer has the first piece.
    pub(in crate::protocol) fn on_receiving(
        &mut self,
        link: LinkId,
        id: &TransactionId,
        rank: u32,
    ) {
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        if let Some(source) = pending.sources.iter_mut().find(|s| s.link == link) {
            source.holds = source.holds.max(Holds::Some);
            source.rank = source.rank.max(Some(rank));
            self.drive(id);
        }
    }
}

/// Reports whether a piece may be on its way over a thin link: bytes came in when it was last looked,
/// or bulk of ours stands before what was asked.
fn is_carried(parent: &Parent, links: &Links, now: MonoTime) -> bool {
    let up = links.all.get(&parent.link).and_then(|l| l.up.as_ref());
    now.since(parent.since) < THIN
        && up.is_some_and(|up| up.pinger.came >= parent.last || up.budget.has_bulk())
}

/// The rank from which pieces may be reserved from a source, if there is one: see `large`.
fn rank_towards(source: &Source, large: &Large, me: PeerId, links: &Links) -> Option<u32> {
    if source.holds == Holds::All {
        return Some(large.rank);
    }
    large.head.as_ref()?;
    let (theirs, peer) = (source.rank?, links.peer_of(source.link)?);
    if (theirs, peer) < (large.rank, me) {
        return Some(large.rank);
    }
    (source.holds == Holds::Some).then(|| theirs.checked_add(1)).flatten()
}
