//! The side that asks: one session, range by range, depth first.
//!
//! Tested by: `protocol::tests::pair`, `protocol::tests::liars`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::large::LEAST_RATE;
use crate::protocol::log::{Scope, State};
use crate::protocol::timers::Timer;
use crate::types::{
    Announcement, Bound, LinkId, MAX_IDS_PER_MESSAGE, Message, MonoTime, Range, RangeContent,
    Reconcile, TransactionId,
};

use super::{Draft, LIST, PAUSE, RETRY_MOST, Window};

/// Maximum number of ranges in one question.
pub(in crate::protocol) const MAX_ASKED: usize = 32;
/// Maximum number of ranges that wait; beyond, neighbours are taken together and compared anew.
pub(super) const MAX_TODO: usize = 512;
/// Maximum number of cuts of a range; 16^12 is more than any set holds.
const MAX_DEPTH: u8 = 12;
/// Maximum number of ids announced to the other side; beyond, it is told to ask itself.
const MAX_OFFERED: u64 = 64;
/// Time after which an answer is overdue.
const ANSWER: Duration = Duration::from_secs(10);
/// Maximum time that a fetch of what was found may stand still; then the session ends.
const FETCH: Duration = Duration::from_secs(30);
/// Maximum length of a session; what the peer sends meanwhile that is taken adds the time in which
/// it comes at the slowest pace that is waited for. The rest is compared in another session, with
/// anybody.
const LONGEST: Duration = Duration::from_mins(1);
/// Maximum bytes of a session beyond those for which something was found.
const BUDGET: u64 = 1 << 20;
/// Maximum bytes of a session that may be for nothing at any time.
const CHEAP: u64 = 4096;
/// Maximum bytes that finding one entry may cost (scattered ones take 1.5 to 3 kB).
const PER_FOUND: u64 = 4096;
/// Number of the ids found last by which it is known that all have been fetched.
const SAMPLES: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Part {
    window: Window,
    depth: u8,
    /// True: we listed all that we hold in the range.
    listed: bool,
}

/// An own session.
#[derive(Debug)]
pub(in crate::protocol) struct Session {
    number: u32,
    /// True: the session serves a need, to which the rest goes back when the session fails.
    needed: bool,
    todo: VecDeque<Part>,
    /// Parts of the question under way.
    outstanding: Vec<Part>,
    /// Time when the session began, and the bytes that had been taken from the peer by then.
    began: MonoTime,
    taken: u64,
    /// The last progress, and the number of fetches then.
    touched: MonoTime,
    heard: usize,
    /// Time when something was found or fetched last.
    useful: MonoTime,
    /// True: the last answer reached the end of its question.
    wide: bool,
    bytes: u64,
    found: u64,
    differs: bool,
    offered: u64,
    /// Window of what the other side lacks and was not announced.
    lacking: Option<Window>,
    samples: Vec<TransactionId>,
}

impl Session {
    /// Reports whether another session would probably find the same.
    pub(super) fn is_pulling(&self, now: MonoTime, stall: Duration) -> bool {
        self.needed && now.since(self.useful) < stall
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn ranges(&self) -> usize {
        self.todo.len() + self.outstanding.len()
    }

    /// Returns what the session has not compared yet.
    fn rest(&self) -> Option<Window> {
        let parts = self.outstanding.iter().chain(&self.todo).map(|part| part.window);
        parts.reduce(|all, part| all.hull(Some(part)))
    }
}

impl Protocol {
    /// Starts a session on a link that has none.
    pub(super) fn open(&mut self, link: LinkId, window: Window, needed: bool) {
        self.tidy();
        let now = self.env.now;
        self.repairs.sessions = self.repairs.sessions.wrapping_add(1);
        let number = self.repairs.sessions;
        // What may still be on its way differs more often than the rest: it is asked apart.
        let fresh = Bound::at(self.env.wall.minus(super::IN_FLIGHT));
        let part = |lower, upper| Part { window: Window { lower, upper }, depth: 0, listed: false };
        let apart = window.lower < fresh && fresh < window.upper && self.log.len() > 0;
        let todo = if apart {
            VecDeque::from([part(window.lower, fresh), part(fresh, window.upper)])
        } else {
            VecDeque::from([part(window.lower, window.upper)])
        };
        let heard = self.links.peer_of(link).map_or(0, |peer| self.heard_of(&peer));
        let Some(up) = self.links.up(link) else { return };
        up.repair.session = Some(Session {
            number,
            needed,
            todo,
            outstanding: Vec::new(),
            began: now,
            taken: up.taken,
            touched: now,
            heard,
            useful: now,
            wide: true,
            bytes: 0,
            found: 0,
            differs: false,
            offered: 0,
            lacking: None,
            samples: Vec::new(),
        });
        self.repairs.running.enter(1);
        self.env.counters.reconcile_opened += 1;
        self.ask_next(link);
    }

    fn session(&mut self, link: LinkId) -> Option<&mut Session> {
        self.links.up(link)?.repair.session.as_mut()
    }

    /// Asks the next question of a session, if none is under way and the answer can be taken.
    fn ask_next(&mut self, link: LinkId) {
        if !self.is_writable(link) || !self.can_hear(link) {
            return;
        }
        let now = self.env.now;
        let limit = self.links.up(link).map_or(0, |up| up.max_transaction);
        let scope = self.scope(link);
        let Some(session) = self.session(link) else { return };
        if !session.outstanding.is_empty() || session.todo.is_empty() {
            return;
        }
        let most = if session.wide { MAX_ASKED } else { 2 };
        let count = session.todo.len().min(most);
        let mut parts: Vec<Part> = session.todo.drain(..count).collect();
        let number = session.number;
        let mut draft = Draft::new(parts[0].window.lower);
        for part in &mut parts {
            draft.push(part.window.lower, RangeContent::Skip);
            let held = self.log.measure(part.window.lower, part.window.upper, &scope);
            part.listed = held.count <= if part.depth == 0 { 0 } else { LIST };
            let content = if part.listed {
                RangeContent::All(self.list(part.window, limit, &scope))
            } else {
                RangeContent::Print(held.print())
            };
            draft.push(part.window.upper, content);
        }
        let question = Message::Ask(Box::new(draft.finish(number)));
        let weight = question.weight() as u64;
        self.env.counters.reconcile_rounds += 1;
        self.env.counters.reconcile_bytes_sent += weight;
        if let Some(session) = self.session(link) {
            session.outstanding = parts;
            session.touched = now;
            session.bytes += weight;
        }
        self.send(link, question);
        self.env.timers.set_earlier(Timer::Reconcile, now + super::TICK);
    }

    /// Handles an answer of the peer.
    pub(in crate::protocol) fn on_answer(&mut self, link: LinkId, answer: &Reconcile) {
        let (now, weight) = (self.env.now, answer.weight() as u64);
        self.env.counters.reconcile_bytes_received += weight;
        let Some(session) = self.session(link) else { return };
        if session.number != answer.session || session.outstanding.is_empty() {
            // Of a session that was given up.
            return;
        }
        session.bytes += weight;
        session.touched = now;
        if answer.ranges.is_empty() {
            // The peer does not want to, now.
            self.fail(link);
            return;
        }
        let asked = std::mem::take(&mut session.outstanding);
        let fits = answer.lower == asked[0].window.lower
            && asked.last().is_some_and(|last| answer.upper() <= last.window.upper);
        let Some(mut todo) = fits.then(|| self.compare(link, answer, &asked)).flatten() else {
            self.env.counters.reconcile_refused += 1;
            self.violation(link);
            return;
        };
        let reached = answer.upper();
        let left = asked.into_iter().filter(|part| part.window.upper > reached);
        let mut left: Vec<Part> = left.collect();
        if let Some(first) = left.first_mut() {
            first.window.lower = first.window.lower.max(reached);
        }
        let Some(session) = self.session(link) else { return };
        session.wide = left.is_empty();
        todo.extend(left);
        todo.extend(&session.todo);
        while todo.len() > MAX_TODO
            && let (Some(last), Some(before)) = (todo.pop_back(), todo.back_mut())
        {
            before.window = before.window.hull(Some(last.window));
            before.depth = 1;
        }
        session.todo = todo;
        if session.bytes > BUDGET + PER_FOUND * session.found {
            self.env.counters.reconcile_abandoned += 1;
            self.fail(link);
        } else {
            self.resume_session(link);
        }
    }

    /// Goes through an answer; what has to be asked next, or `None` when it makes no sense.
    fn compare(
        &mut self,
        link: LinkId,
        answer: &Reconcile,
        asked: &[Part],
    ) -> Option<VecDeque<Part>> {
        let (mut todo, mut lower) = (VecDeque::new(), answer.lower);
        let scope = self.scope(link);
        for Range { upper, content } in &answer.ranges {
            let window = Window { lower, upper: *upper };
            lower = *upper;
            if *content == RangeContent::Skip {
                continue;
            }
            let within = |part: &&Part| {
                part.window.lower <= window.lower && window.upper <= part.window.upper
            };
            let part = asked.iter().find(within)?;
            self.session(link)?.differs = true;
            match content {
                RangeContent::Print(print) => {
                    let depth = part.depth + 1;
                    // A cut makes ranges smaller, or it is none.
                    if window == part.window || depth > MAX_DEPTH {
                        return None;
                    }
                    let held = self.log.measure(window.lower, window.upper, &scope);
                    if held.print() != *print {
                        todo.push_back(Part { window, depth, listed: false });
                    }
                }
                RangeContent::Rest(list) if part.listed => self.take_missing(link, list, window),
                RangeContent::All(list) => {
                    self.take_missing(link, list, window);
                    self.offer_missing(link, list, window, &scope);
                }
                _ => return None,
            }
        }
        Some(todo)
    }

    fn take_missing(&mut self, link: LinkId, list: &[(TransactionId, u64)], window: Window) {
        let (now, missing) = (self.env.now, self.hear_listed(link, list, window.upper));
        let Some(session) = self.session(link) else { return };
        session.found += missing.len() as u64;
        if !missing.is_empty() {
            session.useful = now;
            let every = missing.len().div_ceil(SAMPLES);
            session.samples = missing.into_iter().rev().step_by(every).collect();
        }
    }

    /// Announces what we hold and the peer does not, or notes that it has to ask for it.
    fn offer_missing(
        &mut self,
        link: LinkId,
        list: &[(TransactionId, u64)],
        window: Window,
        scope: &Scope,
    ) {
        let held = self.log.measure(window.lower, window.upper, scope).count;
        let both = |id: &TransactionId| self.log.find(id).is_some_and(|r| scope.takes(r.topic));
        let common = list.iter().filter(|(id, _)| both(id)).count() as u64;
        if held <= common {
            return;
        }
        let limit = self.links.up(link).map_or(0, |up| up.max_transaction);
        let mut theirs: Vec<_> = list.iter().map(|(id, _)| *id).collect();
        theirs.sort_unstable();
        // What was refused here counts as held, and is nothing that anybody could be given.
        let records = self.log.range(window.lower, window.upper, scope);
        let worth = records.filter(|r| r.state() == State::Live && self.is_worth_listing(r, limit));
        let lacking = worth.filter(|r| theirs.binary_search(&r.id).is_err());
        let offers = lacking.map(|r| Announcement { id: r.id, size: r.size.into(), hop: r.hop() });
        let most = usize::try_from(MAX_OFFERED).unwrap_or(usize::MAX);
        let offers: Vec<_> = offers.take(most + 1).collect();
        let Some(session) = self.session(link) else { return };
        if session.offered + offers.len() as u64 > MAX_OFFERED {
            session.lacking = Some(window.hull(session.lacking));
            session.found += (offers.len() as u64).min(LIST);
            return;
        }
        self.env.counters.reconcile_missing_there += offers.len() as u64;
        if let Some(session) = self.session(link) {
            session.offered += offers.len() as u64;
            session.found += offers.len() as u64;
        }
        if self.links.batch(link).is_some_and(|b| b.announce.len() >= MAX_IDS_PER_MESSAGE) {
            self.drain(link);
        }
        if let Some(batch) = self.links.batch(link) {
            batch.announce.extend(offers);
        }
    }

    /// Goes on with a session that may have waited for room, or ends it.
    pub(super) fn resume_session(&mut self, link: LinkId) {
        let now = self.env.now;
        let heard = self.links.peer_of(link).map_or(0, |peer| self.heard_of(&peer));
        let Some(up) = self.links.up(link) else { return };
        let Some(session) = &mut up.repair.session else { return };
        if session.heard != heard {
            session.heard = heard;
            (session.touched, session.useful) = (now, now);
        }
        if !session.outstanding.is_empty() {
            return;
        }
        if !session.todo.is_empty() {
            self.ask_next(link);
            return;
        }
        // Over when what was found is fetched: else the next peer would list it again.
        let pending = &self.intake.pending;
        session.samples.retain(|id| {
            let waits = pending.contains(id);
            if !waits && self.log.contains(id) {
                session.differs = false;
            }
            waits
        });
        if session.samples.is_empty() {
            self.finish(link);
        }
    }

    /// Ends a session that has compared everything.
    fn finish(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(up) = self.links.up(link) else { return };
        let Some(session) = up.repair.session.take() else { return };
        self.repairs.running.leave(1);
        let repair = &mut up.repair;
        repair.ended = Some(now);
        // `differs` is taken back by the first id that was really fetched.
        let useless = session.differs && session.offered == 0 && session.lacking.is_none();
        if useless && session.bytes > CHEAP {
            repair.fruitless = repair.fruitless.saturating_add(1);
            repair.quiet_until = now + repair.backoff();
        } else if session.found > 0 {
            repair.fruitless = 0;
        }
        let pause = if repair.fruitless > 0 { repair.backoff() } else { PAUSE };
        repair.not_before = repair.not_before.max(now + pause.min(RETRY_MOST));
        repair.firm &= repair.need.is_some();
        repair.is_compared |= session.needed && repair.need.is_none();
        self.env.counters.reconcile_finished += 1;
        if let Some(Window { lower, upper }) = session.lacking {
            self.send(link, Message::Yours { lower, upper });
        }
        self.env.timers.set_earlier(Timer::Reconcile, now);
    }

    /// Ends a session before its time; what it did not reach is needed as before.
    fn fail(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(up) = self.links.up(link) else { return };
        let Some(session) = up.repair.session.take() else { return };
        self.repairs.running.leave(1);
        self.env.counters.reconcile_failed += 1;
        let repair = &mut up.repair;
        repair.ended = Some(now);
        if session.needed
            && let Some(rest) = session.rest()
        {
            repair.need = Some(rest.hull(repair.need));
        }
        repair.fruitless = repair.fruitless.saturating_add(1);
        repair.not_before = repair.not_before.max(now + repair.backoff());
        repair.quiet_until = repair.not_before;
        self.env.timers.set_earlier(Timer::Reconcile, now + super::TICK);
    }

    /// Notices what stands still.
    pub(super) fn watch_session(&mut self, link: LinkId) {
        self.resume_session(link);
        let now = self.env.now;
        let Some(up) = self.links.up(link) else { return };
        let taken = up.taken;
        let Some(session) = &mut up.repair.session else { return };
        let idle = now.since(session.touched);
        let earned = Duration::from_secs(taken - session.taken) / LEAST_RATE;
        let over = now.since(session.began) >= LONGEST + earned;
        if over || !session.outstanding.is_empty() && idle >= ANSWER {
            self.fail(link);
        } else if idle >= FETCH {
            session.differs = true;
            session.samples.clear();
            if session.todo.is_empty() { self.finish(link) } else { self.fail(link) }
        }
    }
}
