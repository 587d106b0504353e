//! Whom a small transaction is asked of, and for how long.
//!
//! One source is asked at a time; without an answer the next one is, those of good reputation first, in
//! the order of their announcements, and then again from the first. A peer answers in the order in
//! which it is asked. So an answer is overdue only when its time is up and either something that was
//! asked later has been answered, or the link does not deliver at the least pace that is worth waiting
//! for: a long row of questions is no reason to ask others for its end, and somebody who stalls is
//! left at once.
//!
//! What one peer is asked at once is bounded by what it answered a moment ago, so that a slow one is
//! never asked for much; the rest waits in that link's backlog.
//!
//! Tested by: the tests below, `protocol::tests::liars`, `protocol::tests::quality`.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::link::Established;
use crate::protocol::timers::Timer;
use crate::types::{LinkId, MonoTime, TransactionId};

use super::announce::{ANSWER, MAX_PENDING};
use super::table::{Source, Stage};

/// Maximum number of ids asked of one peer at once, whatever its pace.
pub(in crate::protocol) const MAX_ASKED: usize = 2048;
/// Maximum number of ids asked at once of a peer that has not answered anything lately.
const FIRST_ASKED: usize = 256;
/// Maximum payload bytes asked of one peer at once.
const MAX_ASKED_BYTES: u64 = 4 << 20;
/// Minimum time after which an answer is overdue while somebody else can be asked; two round trips
/// if that is longer. Asking twice costs little, and waiting for one who stalls costs much. Without
/// anybody else to ask, the time is `ANSWER`.
const OVERDUE: Duration = Duration::from_millis(250);
/// Minimum rate of a transfer that is not overdue, in bytes per second.
const SLOWEST: u64 = 1 << 20;
/// Maximum number of turns of asking all sources before an id is left to the next announcement.
const MAX_TURNS: u32 = 3;
/// Time over one to two of which the pace of answers is counted.
const SPAN: Duration = Duration::from_millis(250);
/// Minimum bytes within `SPAN` to twice that from a peer that is waited for while others could be
/// asked.
const LEAST: u64 = 64 * 1024;

/// Course of the answers of one peer.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Pace {
    /// Number of questions to the peer so far.
    questions: u64,
    /// Number of the latest question that was answered.
    answered: u64,
    /// Start of the span that is counted in `now`.
    since: MonoTime,
    /// Answers and their bytes in this span and in the one before.
    now: (usize, u64),
    before: (usize, u64),
}

impl Pace {
    fn note(&mut self, number: u64, size: u64, now: MonoTime) {
        self.turn(now);
        self.answered = self.answered.max(number);
        self.now = (self.now.0 + 1, self.now.1 + size);
    }

    fn turn(&mut self, now: MonoTime) {
        let passed = now.since(self.since);
        if passed >= SPAN {
            self.before = if passed < SPAN * 2 { self.now } else { (0, 0) };
            (self.since, self.now) = (now, (0, 0));
        }
    }

    /// Returns how many questions may wait for their answers.
    fn limit(&mut self, now: MonoTime) -> usize {
        self.turn(now);
        (FIRST_ASKED + 2 * (self.now.0 + self.before.0)).min(MAX_ASKED)
    }

    /// Reports whether an answer that is late is still to be waited for.
    fn is_coming(&mut self, number: u64, others: bool, now: MonoTime) -> bool {
        self.turn(now);
        let (count, bytes) = (self.now.0 + self.before.0, self.now.1 + self.before.1);
        let moves = if others { bytes >= LEAST } else { count > 0 };
        self.answered < number && moves
    }
}

/// Requests to one peer for small transactions.
#[derive(Debug)]
pub(in crate::protocol) struct Requests {
    /// Ids asked for and not answered yet, large ones too.
    pub(in crate::protocol) in_flight: BTreeSet<TransactionId>,
    /// Payload bytes of the small transactions in flight.
    bytes: u64,
    /// Course of the peer's answers.
    pace: Pace,
    /// Ids to be asked for once the peer has answered some.
    pub(in crate::protocol) backlog: VecDeque<TransactionId>,
    /// Time when what the peer announced last is asked for, unless it is pushed before.
    pub(super) patient_until: MonoTime,
}

impl Requests {
    pub(in crate::protocol) fn new(now: MonoTime) -> Self {
        Self {
            in_flight: BTreeSet::new(),
            bytes: 0,
            pace: Pace::default(),
            backlog: VecDeque::new(),
            patient_until: now,
        }
    }
}

impl Protocol {
    /// The wait for a push or an answer is over.
    pub(in crate::protocol) fn on_fetch_due(&mut self, id: &TransactionId) {
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        if pending.stage != Stage::Heard {
            return;
        }
        if pending.large.is_some() {
            self.on_watch(id);
            return;
        }
        if let Some(link) = pending.asked_of {
            if let Some(wait) = self.is_answer_coming(link, id) {
                self.env.timers.set(Timer::Fetch(*id), self.env.now + wait);
                return;
            }
            if let Some(pending) = self.intake.pending.get_mut(id) {
                pending.asked_of = None;
            }
            self.env.counters.wants_timed_out += 1;
            self.links.note_service(link, false, self.env.now);
            if let Some(peer) = self.links.peer_of(link) {
                self.guard.reputation.doubt(peer, self.env.now);
            }
            self.forget_request(link, id);
        }
        self.ask(id);
    }

    /// Returns how much longer to wait for an answer that is late, if at all.
    fn is_answer_coming(&mut self, link: LinkId, id: &TransactionId) -> Option<Duration> {
        let now = self.env.now;
        let pending = self.intake.pending.get(id)?;
        let others = pending.sources.iter().any(|s| !s.tried);
        let number = pending.question;
        self.links.up(link)?.requests.pace.is_coming(number, others, now).then_some(SPAN)
    }

    /// A peer answered something that it was asked.
    pub(super) fn note_answer(&mut self, link: LinkId, id: &TransactionId, size: u64) {
        let now = self.env.now;
        let asked = self.intake.pending.get(id).filter(|p| p.asked_of == Some(link));
        if let Some(number) = asked.map(|p| p.question)
            && let Some(up) = self.links.up(link)
        {
            up.requests.pace.note(number, size, now);
        }
    }

    /// Asks the next source, when it is its turn there.
    pub(in crate::protocol) fn ask(&mut self, id: &TransactionId) {
        self.ask_next_source(id, false);
    }

    /// Asks the next source for an id; `first` says that nothing to be asked of the same source
    /// comes before.
    fn ask_next_source(&mut self, id: &TransactionId, first: bool) {
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        if pending.large.is_some() {
            self.drive(id);
            return;
        }
        if pending.stage != Stage::Heard || pending.asked_of.is_some() {
            return;
        }
        let links = &self.links;
        pending.sources.retain(|s| links.slot_of(s.link).is_some());
        if !pending.sources.is_empty() && pending.sources.iter().all(|s| s.tried) {
            pending.turns += 1;
            pending.sources.iter_mut().for_each(|s| s.tried = false);
        }
        let (size, turns, now) = (pending.size, pending.turns, self.env.now);
        let reliable = |s: &Source| {
            let good = |p| {
                self.guard.reputation.is_reliable(&p, now)
                    && !self.guard.reputation.is_doubted(&p, now)
            };
            links.peer_of(s.link).is_some_and(good)
        };
        let untried = || pending.sources.iter().filter(|s| !s.tried);
        let sound = |s: &&Source| reliable(s) && !links.is_poor(s.link, now);
        let next = untried().find(sound).or_else(|| untried().find(|s| reliable(s)));
        let next = next.or_else(|| untried().next());
        let Some(link) = next.map(|s| s.link).filter(|_| turns < MAX_TURNS) else {
            self.give_up(id);
            return;
        };
        let Some(up) = self.links.up(link) else { return };
        let full = up.requests.in_flight.len() >= up.requests.pace.limit(now)
            || up.requests.bytes + size > MAX_ASKED_BYTES;
        let waiting = !first && !up.requests.backlog.is_empty();
        if (full || waiting) && !up.requests.in_flight.is_empty() {
            self.queue_up(link, *id);
            return;
        }
        if let Some(source) = pending.sources.iter_mut().find(|s| s.link == link) {
            source.tried = true;
        }
        self.send_want(link, id, size);
    }

    /// Puts an id at the end of what a peer is to be asked when it has answered other questions.
    pub(in crate::protocol) fn queue_up(&mut self, link: LinkId, id: TransactionId) {
        let pending = &self.intake.pending;
        let Some(up) = self.links.up(link) else { return };
        if up.requests.backlog.len() >= MAX_PENDING {
            // What came from others meanwhile still stands in the row.
            let mut seen = BTreeSet::new();
            up.requests.backlog.retain(|id| pending.contains(id) && seen.insert(*id));
        }
        up.requests.backlog.push_back(id);
    }

    /// An id does not stand in that row any more.
    fn leave_queue(&mut self, link: LinkId, id: &TransactionId) {
        if let Some(large) = self.intake.pending.get_mut(id).and_then(|p| p.large.as_mut()) {
            large.backlogged_on.retain(|on| *on != link);
        }
    }

    fn send_want(&mut self, link: LinkId, id: &TransactionId, size: u64) {
        let rtt = self.rtt_of(link);
        let Some(pending) = self.intake.pending.get_mut(id) else { return };
        pending.asked_of = Some(link);
        let others = pending.sources.iter().any(|s| !s.tried);
        let Some(up) = self.links.up(link) else { return };
        up.requests.in_flight.insert(*id);
        up.requests.pace.questions += 1;
        pending.question = up.requests.pace.questions;
        up.requests.bytes += size;
        // Beyond that it is seen whether the answers come.
        let bytes = up.requests.bytes.min(SLOWEST / 2);
        let transfer = Duration::from_secs(bytes) / u32::try_from(SLOWEST).unwrap_or(1);
        if let Some(batch) = self.links.batch(link) {
            batch.want.push(*id);
        }
        self.note_promise(link, *id);
        self.env.counters.wants_sent += 1;
        let wait = if others { OVERDUE.max(rtt * 2) } else { ANSWER.max(rtt * 3) };
        self.env.timers.set(Timer::Fetch(*id), self.env.now + wait + transfer);
    }

    /// Takes an id off the list of what a peer was asked; `true` when it was on it.
    pub(in crate::protocol) fn forget_request(&mut self, link: LinkId, id: &TransactionId) -> bool {
        // Large payloads are bounded by the room for them.
        let small = self.intake.pending.get(id).filter(|p| p.large.is_none());
        let (size, now) = (small.map_or(0, |p| p.size), self.env.now);
        let Some(up) = self.links.up(link) else { return false };
        if !up.requests.in_flight.remove(id) {
            return false;
        }
        up.requests.bytes = if up.requests.in_flight.is_empty() {
            0
        } else {
            up.requests.bytes.saturating_sub(size)
        };
        while let Some(up) = self.links.up(link)
            && up.requests.in_flight.len() < up.requests.pace.limit(now)
            && let Some(next) = up.requests.backlog.pop_front()
        {
            let before = up.requests.backlog.len();
            self.leave_queue(link, &next);
            self.ask_next_source(&next, true);
            let Some(up) = self.links.up(link) else { break };
            if up.requests.backlog.len() > before {
                // It does not fit yet: it stays the first.
                up.requests.backlog.rotate_right(1);
                break;
            }
        }
        true
    }

    /// A link is gone: what it was asked is asked elsewhere, and what it asked for is forgotten.
    pub(in crate::protocol) fn ask_others(&mut self, link: LinkId, up: &Established) {
        for serve in &up.serve.entries {
            self.note_served_out(link, serve);
        }
        for id in &up.requests.backlog {
            self.leave_queue(link, id);
        }
        for id in up.requests.in_flight.iter().chain(&up.requests.backlog) {
            if let Some(pending) = self.intake.pending.get_mut(id) {
                // What waited in the backlog may have been asked elsewhere meanwhile.
                pending.asked_of = pending.asked_of.filter(|asked| *asked != link);
                self.end_parent(link, id, false);
                self.ask(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_millis(ms))
    }

    #[test]
    fn a_late_answer_is_waited_for_while_earlier_ones_come() {
        let mut pace = Pace::default();
        for n in 1..=100 {
            pace.note(n, 2048, at(n * 5));
        }
        assert!(pace.is_coming(101, true, at(510)), "200 kB in half a second");
        assert!(!pace.is_coming(50, true, at(510)), "a later one has been answered");
        assert!(!pace.is_coming(101, true, at(1100)), "it stalls");
    }

    #[test]
    fn a_slow_one_is_waited_for_only_if_nobody_else_can_be_asked() {
        let mut pace = Pace::default();
        for n in 1..=10 {
            pace.note(n, 1024, at(n * 50));
        }
        assert!(!pace.is_coming(11, true, at(510)));
        assert!(pace.is_coming(11, false, at(510)));
        assert!(!pace.is_coming(11, false, at(1100)));
    }

    #[test]
    fn more_is_asked_of_who_answers_quickly() {
        let mut pace = Pace::default();
        assert_eq!(pace.limit(at(0)), FIRST_ASKED);
        for n in 1..=1000 {
            pace.note(n, 100, at(100));
        }
        assert_eq!(pace.limit(at(110)), MAX_ASKED);
        assert_eq!(pace.limit(at(1000)), FIRST_ASKED, "a moment ago");
    }
}
