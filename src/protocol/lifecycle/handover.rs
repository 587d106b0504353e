//! A link goes over to another connection, made before the old one is given up: nothing is lost, said
//! twice or out of order, and what the link has is kept.
//!
//! Who dialled the new connection (D) leads; A is the other side. Each says its last on the old
//! connection before it hears anything on the new one, and waits with everything else:
//!
//! ```text
//! D: hello "takes over" ──new──►
//!                       ◄──new── A: hello "takes over": agreed
//! D: step 1, its last   ──old──►    what D says from now on waits
//!                       ◄──old── A: step 2, its last; what A says from now on waits
//! D: step 3, its first  ──new──►    D goes on there, and closes the old one
//!                                A: goes on there, and closes the old one
//! ```
//!
//! | what goes wrong | what follows |
//! |---|---|
//! | A has no link with that process | A says hello without "takes over": the new connection is a link of its own |
//! | the old connection ends, or step 2 does not come in time | D says step 4 instead of 3: both begin afresh on the new one, which repair makes up for as after any break |
//! | the new connection ends before step 1 | the link stays where it is |
//! | the new connection ends after that | the link ends |
//! | both dial at once | that of the smaller peer id goes on |
//! | A hears of no step in time | A closes the new connection |
//!
//! A link has one handover at a time, and so few in a row that they cost less than new links. A hello
//! that takes over what is being taken over, or too soon, is refused and counted; a step that is not
//! due, and anything but a step on a connection that is not through with them, is a violation.
//!
//! Outside of this file and `link` a link has one number, whatever carries it: that of the connection
//! on which it came up.
//!
//! Tested by: `protocol::tests::handover`, `sim::tests::handover`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::io::{DialId, Output};
use crate::protocol::link::{Attempt, CloseCause, Established, Handover, Link, Stage, Why};
use crate::protocol::timers::Timer;
use crate::types::{CloseReason, Direction, Event, FailureKind, Hello, LinkId, Message, PeerId};

/// The last on the old connection, of who dialled the new one.
const LAST_OF_DIALLER: u32 = 1;
/// The last on the old connection, of the other side.
const LAST_OF_OTHER: u32 = 2;
/// The first on the new connection.
const GO_ON: u32 = 3;
/// The same, where the link begins afresh.
const AFRESH: u32 = 4;

/// Time for step 2 after step 1; twice that for the steps of who dialled.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Minimum time between two handovers of a link.
pub(super) const HANDOVER_EVERY: Duration = Duration::from_secs(1);

impl Protocol {
    /// Reports whether a link may go over to another connection now.
    pub(super) fn may_hand_over(&self, link: LinkId) -> bool {
        let (now, links) = (self.env.now, &self.links);
        links.all.get(&link).is_some_and(|l| {
            let s = &l.succession;
            let is_ready = l.up.as_ref().is_some_and(|up| {
                // What is under way has to arrive before anything new does.
                up.pinger.missed == 0 && up.budget.delay(now) < STEP_TIMEOUT / 2
            });
            let is_idle = s.heir.is_none() && !s.is_held() && !s.is_orphaned;
            let is_rested = s.moved.is_none_or(|at| now.since(at) >= HANDOVER_EVERY);
            is_ready && is_idle && is_rested && !links.attempts.values().any(|a| a.link == link)
        })
    }

    /// Dials a connection that is to take over a link.
    pub(in crate::protocol) fn dial_heir(&mut self, attempt: Attempt) {
        let Some(expected) = self.links.peer_of(attempt.link) else { return };
        let dial = self.membership.mint_dial();
        self.env.counters.dials_started += 1;
        self.env.push(Output::Dial {
            dial,
            endpoint: attempt.endpoint.clone(),
            rung: attempt.rung,
            expected: Some(expected),
            avoid: Vec::new(),
        });
        self.links.attempts.insert(dial, attempt);
    }

    /// A dial has failed; `true` when it was to lead to a connection that takes over a link.
    pub(in crate::protocol) fn on_heir_not_dialled(
        &mut self,
        dial: DialId,
        reason: FailureKind,
    ) -> bool {
        let Some(attempt) = self.links.attempts.remove(&dial) else { return false };
        let Some(peer) = self.links.peer_of(attempt.link) else { return true };
        let Attempt { endpoint, rung, .. } = &attempt;
        tracing::debug!(
            target: "sorcha_peer::link", %peer, address = %endpoint, transport = %rung, %reason,
            "no other connection for a link"
        );
        let Attempt { endpoint, rung, .. } = attempt;
        self.note_way_failed(endpoint, rung);
        true
    }

    /// A connection was dialled that is to take over a link; `None` when there is nothing left to be
    /// taken over.
    pub(super) fn heir_of(
        &mut self,
        heir: LinkId,
        attempt: &Attempt,
        remote: &PeerId,
    ) -> Option<Handover> {
        let link = attempt.link;
        if self.links.peer_of(link) != Some(*remote) || !self.may_hand_over(link) {
            return None;
        }
        let old = self.links.all.get_mut(&link)?;
        old.succession.heir = Some(heir);
        Some(Handover { link, stage: Stage::Greeting, why: attempt.why, hello: None })
    }

    /// A hello came on a connection that may be to take over a link; `true` when it is not to be
    /// treated as that of a link of its own.
    pub(super) fn begin_handover(&mut self, heir: LinkId, hello: &Hello) -> bool {
        let Some(new) = self.links.all.get(&heir) else { return true };
        match (new.direction, &new.takes_over) {
            (Direction::Outbound, Some(_)) => self.on_agreed(heir, hello),
            (Direction::Inbound, _) if hello.takes_over => self.on_asked(heir, hello),
            _ => false,
        }
    }

    /// The peer has answered whether the new connection takes over.
    fn on_agreed(&mut self, heir: LinkId, hello: &Hello) -> bool {
        let Some(new) = self.links.all.get_mut(&heir) else { return true };
        let Some(mut handover) = new.takes_over.take() else { return false };
        let link = handover.link;
        let old = self.links.all.get_mut(&link);
        let is_there = old.is_some_and(|old| {
            let same = old.up.as_ref().is_some_and(|up| up.incarnation == hello.incarnation);
            same && old.succession.heir == Some(heir)
        });
        if !hello.takes_over || !is_there {
            if let Some(old) = self.links.all.get_mut(&link) {
                old.succession.heir = None;
            }
            if hello.takes_over {
                self.links.send_at_once(&mut self.env, heir, Message::Switch { step: AFRESH });
            }
            self.env.counters.handovers_failed += 1;
            return false;
        }
        (handover.stage, handover.hello) = (Stage::Leaving, Some(Box::new(hello.clone())));
        self.drain(link);
        let step = Message::Switch { step: LAST_OF_DIALLER };
        self.links.send_at_once(&mut self.env, link, step);
        self.await_step(heir, handover, STEP_TIMEOUT);
        if let Some(old) = self.links.all.get_mut(&link) {
            old.succession.hold();
        }
        true
    }

    fn await_step(&mut self, heir: LinkId, handover: Handover, limit: Duration) {
        self.env.timers.cancel(Timer::Hello(heir));
        self.env.timers.set(Timer::Handover(heir), self.env.now + limit);
        if let Some(new) = self.links.all.get_mut(&heir) {
            new.takes_over = Some(handover);
        }
    }

    /// A peer asks to take over its link with the connection that it dialled.
    fn on_asked(&mut self, heir: LinkId, hello: &Hello) -> bool {
        let Some(remote) = self.links.all.get(&heir).map(|l| l.remote) else { return true };
        let Some(link) = self.links.by_peer.get(&remote).copied() else { return false };
        let incarnation = |up: &mut Established| up.incarnation;
        if self.links.up(link).map(incarnation) != Some(hello.incarnation) {
            return false;
        }
        self.settle_crossing(link, &remote);
        let now = self.env.now;
        let Some(old) = self.links.all.get_mut(&link) else { return false };
        let s = &mut old.succession;
        let is_rested = s.moved.is_none_or(|at| now.since(at) >= HANDOVER_EVERY);
        if s.heir.is_some() || s.is_held() || s.is_orphaned || !is_rested {
            self.env.counters.handovers_refused += 1;
            self.close(heir, CloseReason::Replaced);
            return true;
        }
        (s.heir, s.is_heirless) = (Some(heir), false);
        let hello = Some(Box::new(hello.clone()));
        let handover = Handover { link, stage: Stage::Agreed, why: Why::Peer, hello };
        self.await_step(heir, handover, 2 * STEP_TIMEOUT);
        self.say_hello(heir);
        true
    }

    /// The peer asks for a handover; one of our own gives way unless our peer id is the smaller one.
    fn settle_crossing(&mut self, link: LinkId, remote: &PeerId) {
        let ours = |(dial, attempt): (&DialId, &Attempt)| (attempt.link == link).then_some(*dial);
        if let Some(dial) = self.links.attempts.iter().find_map(ours) {
            self.give_up_attempt(dial);
        }
        let heir = self.links.all.get(&link).and_then(|old| old.succession.heir);
        let stage = heir.and_then(|heir| self.links.all.get(&heir)?.takes_over.as_ref());
        let is_asking = stage.is_some_and(|handover| handover.stage == Stage::Greeting);
        if let Some(heir) = heir
            && is_asking
            && self.env.me > *remote
        {
            self.close(heir, CloseReason::Replaced);
        }
    }

    fn give_up_attempt(&mut self, dial: DialId) {
        if self.links.attempts.remove(&dial).is_some() {
            self.env.push(Output::CancelDial { dial });
        }
    }

    /// A step came on the connection that a link has.
    pub(in crate::protocol) fn on_switch(&mut self, link: LinkId, step: u32) {
        let Some(s) = self.links.all.get(&link).map(|l| &l.succession) else { return };
        if step == LAST_OF_DIALLER && s.is_heirless {
            // The peer goes on where nobody is, and finds out.
            self.lose(link);
            return;
        }
        let heir = s.heir;
        match (step, heir.and_then(|heir| self.links.agreed(heir))) {
            (LAST_OF_DIALLER, Some(Stage::Agreed)) => {
                let Some(heir) = heir else { return };
                self.drain(link);
                let step = Message::Switch { step: LAST_OF_OTHER };
                self.links.send_at_once(&mut self.env, link, step);
                if let Some(old) = self.links.all.get_mut(&link) {
                    old.succession.hold();
                }
                self.set_stage(heir, Stage::Arriving);
            }
            (LAST_OF_OTHER, Some(Stage::Leaving)) => {
                let Some(heir) = heir else { return };
                let step = Message::Switch { step: GO_ON };
                self.links.send_at_once(&mut self.env, heir, step);
                self.take_over(heir);
            }
            _ => self.violation(link),
        }
    }

    fn set_stage(&mut self, heir: LinkId, stage: Stage) {
        let new = self.links.all.get_mut(&heir);
        if let Some(handover) = new.and_then(|new| new.takes_over.as_mut()) {
            handover.stage = stage;
        }
    }

    /// A message came on a connection that has agreed to take over, and has not.
    pub(super) fn on_early_message(&mut self, heir: LinkId, stage: Stage, message: Message) {
        match (message, stage) {
            (Message::Goodbye { reason, retry_after }, _) => {
                self.on_goodbye(heir, reason, retry_after);
            }
            (Message::Switch { step: GO_ON }, Stage::Arriving) => self.take_over(heir),
            (Message::Switch { step: AFRESH }, Stage::Agreed | Stage::Arriving) => {
                self.begin_afresh(heir);
            }
            _ => self.violation(heir),
        }
    }

    /// The new connection carries the link from now on.
    fn take_over(&mut self, heir: LinkId) {
        let Some(mut new) = self.links.all.remove(&heir) else { return };
        let Some(handover) = new.takes_over.take() else { return };
        let now = self.env.now;
        self.env.timers.cancel(Timer::Handover(heir));
        let link = handover.link;
        let Some(old) = self.links.all.get_mut(&link) else { return };
        let (left, from, address) = (old.wire, old.kind, new.shown_address());
        (old.wire, old.kind, old.direction) = (heir, new.kind, new.direction);
        (old.address, old.endpoint, old.assurance) = (new.address, new.endpoint, new.assurance);
        (old.dial, old.connected, old.wire_bytes) = (None, new.connected, new.wire_bytes);
        old.leaving = None;
        (old.heard, old.progress) = (now, now);
        old.succession.heir = None;
        old.succession.is_orphaned = false;
        old.succession.moved = Some(now);
        let held = old.succession.release();
        // What was said before has arrived: the other side says so by its steps.
        old.queued_bytes = new.queued_bytes + held.iter().map(Message::weight).sum::<usize>();
        if let Some(up) = &mut old.up {
            up.pinger.note_moved();
            up.budget.note_moved();
        }
        let (peer, kind) = (old.remote, old.kind);
        if let Some(up) = &old.up {
            self.trail.seat(up.slot, peer, kind);
        }
        self.links.wires.remove(&left);
        self.links.wires.insert(heir, link);
        self.leave_wire(left);
        for message in held {
            self.env.push(Output::Send { link: heir, message });
        }
        self.env.counters.handovers += 1;
        let reason = handover.why.as_str();
        tracing::info!(
            target: "sorcha_peer::link",
            %peer, %from, to = %kind, address = address.as_deref(), reason, "transport changed"
        );
        let reason = reason.to_owned();
        self.env.emit(Event::TransportChanged { peer, from, to: kind, reason });
        if let Some(hello) = handover.hello {
            self.note_clock(link, hello.clock);
            self.membership.note_moved(&mut self.env, &self.links, link);
        }
        self.plan_moves(link);
        self.ping(link);
        self.resume(link);
    }

    /// Closes the connection that a link has left.
    fn leave_wire(&mut self, wire: LinkId) {
        let (reason, retry_after) = (CloseReason::Moved, Duration::ZERO);
        self.env
            .push(Output::Send { link: wire, message: Message::Goodbye { reason, retry_after } });
        self.env.push(Output::Close { link: wire });
    }

    /// The new connection is a link of its own: what the old one had is repaired.
    fn begin_afresh(&mut self, heir: LinkId) {
        let Some(new) = self.links.all.get_mut(&heir) else { return };
        let Some(handover) = new.takes_over.take() else { return };
        let Some(hello) = handover.hello else { return };
        self.env.timers.cancel(Timer::Handover(heir));
        self.env.counters.handovers_failed += 1;
        if let Some(old) = self.links.all.get_mut(&handover.link) {
            old.succession.heir = None;
            self.close(handover.link, CloseReason::Replaced);
        }
        match self.links.take_slot(heir) {
            Some(slot) => self.bring_up(heir, slot, &hello),
            None => self.refuse(heir, CloseReason::TooManyLinks),
        }
    }

    /// A step has not come in time.
    pub(in crate::protocol) fn on_handover_due(&mut self, heir: LinkId) {
        match self.links.agreed(heir) {
            Some(Stage::Leaving) => {
                let step = Message::Switch { step: AFRESH };
                self.links.send_at_once(&mut self.env, heir, step);
                self.begin_afresh(heir);
            }
            Some(_) => self.close(heir, CloseReason::Unresponsive),
            None => self.look_for_better(heir),
        }
    }

    /// The connection of a link has ended; `true` when the link may go on without it.
    pub(super) fn outlives_wire(&mut self, link: LinkId) -> bool {
        let Some(heir) = self.links.all.get(&link).and_then(|old| old.succession.heir) else {
            return false;
        };
        match self.links.agreed(heir) {
            Some(Stage::Leaving) => {
                let step = Message::Switch { step: AFRESH };
                self.links.send_at_once(&mut self.env, heir, step);
                self.begin_afresh(heir);
                true
            }
            Some(Stage::Agreed | Stage::Arriving) => {
                // Who dialled says how it goes on.
                if let Some(old) = self.links.all.get_mut(&link) {
                    old.succession.is_orphaned = true;
                    old.succession.hold();
                }
                true
            }
            Some(Stage::Greeting) | None => false,
        }
    }

    /// Reports whether a goodbye says only that the old connection of a link is closed.
    pub(super) fn is_left_behind(&self, link: LinkId, reason: CloseReason) -> bool {
        let heir = self.links.all.get(&link).and_then(|old| old.succession.heir);
        let stage = heir.and_then(|heir| self.links.agreed(heir));
        matches!(reason, CloseReason::Moved | CloseReason::Replaced)
            && matches!(stage, Some(Stage::Agreed | Stage::Arriving))
    }

    /// A connection has ended that was to take over a link.
    pub(super) fn lose_heir(&mut self, heir: &Link, handover: &Handover) {
        match (&heir.endpoint, heir.direction) {
            (Some(endpoint), Direction::Outbound) => {
                self.note_way_failed(endpoint.clone(), heir.kind);
            }
            _ => self.env.counters.handovers_failed += 1,
        }
        let Some(old) = self.links.all.get_mut(&handover.link) else { return };
        old.succession.heir = None;
        old.succession.is_heirless = handover.stage == Stage::Agreed;
        if old.succession.is_held() || old.succession.is_orphaned {
            self.lose(handover.link);
        }
    }

    /// Forgets what waits for a connection that will not take over; `true` where something did.
    pub(super) fn stop_holding(&mut self, link: LinkId) -> bool {
        let Some(old) = self.links.all.get_mut(&link) else { return false };
        let is_held = old.succession.is_held();
        old.succession.release();
        is_held
    }

    /// Ends a link as one that broke.
    fn lose(&mut self, link: LinkId) {
        if let Some(wire) = self.links.wire_of(link) {
            self.env.push(Output::Close { link: wire });
        }
        self.forget_link(link, CloseCause::Transport);
    }

    /// A link has ended: so do dials for it and, unless that becomes a link of its own, the
    /// connection that was to take over.
    pub(super) fn end_succession(&mut self, link: LinkId, heir: Option<LinkId>, cause: CloseCause) {
        let theirs: Vec<_> =
            self.links.attempts.iter().filter(|(_, a)| a.link == link).map(|(d, _)| *d).collect();
        for dial in theirs {
            self.give_up_attempt(dial);
        }
        let Some(heir) = heir else { return };
        if let CloseCause::Ours(reason) = cause {
            self.close(heir, reason);
        } else if self.links.agreed(heir).is_some() {
            self.close(heir, CloseReason::Replaced);
        }
    }
}
