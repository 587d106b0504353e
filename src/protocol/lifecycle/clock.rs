//! The own clock in company: peers are told it and asked for theirs, and what follows from the
//! judgement.
//!
//! ```text
//! hello, refusal, notice ──sample──► judged ──off, right──► host, signer, publishes of before
//! leap, an hour ──notice to peers──► their notices
//! ```
//!
//! A notice is a `Refused` that names no transaction. It is answered with one, at most every
//! `TELL_EVERY` on a link, so that two never go on answering each other faster than that. Only a peer
//! that has said its clock is told ours again: older versions do not.
//!
//! `clock` has the rules of the judgement.
//!
//! Tested by: `sim::tests::clocks`, `protocol::tests::clocks`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::clock::Standing;
use crate::protocol::io::Output;
use crate::types::{Direction, Endpoint, Event, LinkId, Message, Refusal, TransactionId, WallTime};

/// Minimum time between two notices on a link.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Minimum time between two warnings that the clock is off.
const WARN_EVERY: Duration = Duration::from_mins(1);

impl Protocol {
    /// A peer says what its clock reads.
    pub(super) fn note_clock(&mut self, link: LinkId, clock: Option<WallTime>) {
        let (Some(clock), Some(l)) = (clock, self.links.all.get(&link)) else { return };
        let endpoint = l.address.map(Endpoint::from);
        let group = endpoint.as_ref().or(l.endpoint.as_ref()).map_or(0, Endpoint::group);
        let is_dialled = l.direction == Direction::Outbound;
        if self.env.clock.note_sample(link, group, is_dialled, clock) {
            self.judge_clock();
        }
    }

    /// A peer refused these, which it takes for ours, and says what its clock reads.
    pub(in crate::protocol) fn on_refused_by_peer(
        &mut self,
        link: LinkId,
        list: &[(TransactionId, Refusal)],
        clock: Option<WallTime>,
    ) {
        self.note_clock(link, clock);
        if list.is_empty() {
            self.tell_clock(link);
        } else {
            self.on_publishes_refused(link, list);
        }
    }

    /// The own clock has leapt: peers are asked what they think of it.
    pub(in crate::protocol) fn on_clock_leapt(&mut self) {
        self.env.counters.clock_leaps += 1;
        for link in self.env.clock.sampled() {
            self.tell_clock(link);
        }
        self.follow_clock();
    }

    /// Tells a peer what the own clock reads, which it answers with what its own does.
    fn tell_clock(&mut self, link: LinkId) {
        let (now, clock) = (self.env.now, self.env.clock.told());
        let Some(up) = self.links.up(link) else { return };
        if clock.is_none() || up.told_clock.is_some_and(|at| now.since(at) < TELL_EVERY) {
            return;
        }
        up.told_clock = Some(now);
        self.send(link, Message::Refused { list: Vec::new(), clock });
    }

    /// Judges the own clock anew, and does what follows.
    pub(super) fn judge_clock(&mut self) {
        if self.env.clock.judge() {
            self.follow_clock();
        }
        self.warn_of_clock();
        for link in self.env.clock.outdated() {
            self.tell_clock(link);
        }
        if self.outbox.is_redating && self.env.clock.standing() != Standing::Unknown {
            self.outbox.is_redating = false;
            self.redate();
        }
    }

    /// Does what follows from another standing or correction.
    fn follow_clock(&mut self) {
        self.env.wall = self.env.clock.wall();
        self.outbox.is_redating = true;
        let correction_ms = self.env.clock.correction();
        self.env.push(Output::CorrectClock { correction_ms });
        let skew = self.env.config.network.max_clock_skew;
        if !self.membership.record.is_current(self.env.wall, skew) {
            let above = self.membership.record.seq();
            self.env.push(Output::RenewRecord { above });
        }
        let (standing, told) = (self.env.clock.standing(), self.env.clock.told_off);
        let moved =
            told.is_some_and(|told| u128::from(told.abs_diff(correction_ms)) > skew.as_millis());
        if standing == Standing::Off && (told.is_none() || moved) {
            self.env.clock.told_off = Some(correction_ms);
            let peers = self.env.clock.distance().map_or(0, |(_, votes)| votes);
            let peers = u32::try_from(peers).unwrap_or(u32::MAX);
            self.env.emit(Event::ClockOff { offset_ms: correction_ms, peers });
        } else if standing == Standing::Right && told.is_some() {
            self.env.clock.told_off = None;
            tracing::info!(target: "sorcha_peer::node", "the clock is right again");
            self.env.emit(Event::ClockRight);
        }
    }

    fn warn_of_clock(&mut self) {
        let (now, clock) = (self.env.now, &mut self.env.clock);
        let is_due = clock.warned.is_none_or(|at| now.since(at) >= WARN_EVERY);
        if clock.standing() != Standing::Off || !is_due {
            return;
        }
        clock.warned = Some(now);
        let offset_ms = clock.correction();
        tracing::warn!(
            target: "sorcha_peer::node", offset_ms,
            "the clock of this machine is off: most peers agree on another time, which is used instead"
        );
    }
}
