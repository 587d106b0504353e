//! The side that answers. Nothing is kept between questions but what bounds them.
//!
//! Tested by: `protocol::tests::pair`, `protocol::tests::greedy`.

use crate::protocol::Protocol;
use crate::protocol::guard::{OPEN, Work};
use crate::protocol::log::Scope;
use crate::types::{LinkId, Message, RangeContent, Reconcile, TransactionId};

use super::initiator::MAX_ASKED;
use super::{Draft, FADING, FRAME, LIST, WAYS, Window};

/// Number of bytes that a payload earns that is fetched after having been listed.
const EARNED: u64 = 256;
/// Number of bytes that a question costs beside those of the answer.
const QUESTION: u64 = 256;
/// Number of bytes that each range of a question costs beside those of the answer.
const RANGE: u64 = 64;
/// Number of entries looked at within a scope that count as one byte.
const LOOKS: u64 = 64;
/// Maximum number of entries looked at for one answer, listed or not.
const MAX_SCANNED: usize = 16_384;
/// Time after the beginning of our own window by which a window that is as wide begins at the
/// latest.
const ABOUT: std::time::Duration = std::time::Duration::from_mins(4);

/// State of a peer's sessions. The bounds are the peer's and not the link's (`guard::rate_limits`).
#[derive(Debug, Default)]
pub(super) struct PeerSession {
    /// The latest that it opened.
    session: Option<u32>,
    /// A question that waits for room in the queue.
    waiting: Option<Box<Reconcile>>,
}

impl Protocol {
    /// Handles a question of the peer.
    pub(in crate::protocol) fn on_ask(&mut self, link: LinkId, ask: Box<Reconcile>) {
        self.env.counters.reconcile_bytes_received += ask.weight() as u64;
        // A gap before each range makes twice as many.
        if ask.ranges.is_empty() || ask.ranges.len() > 2 * MAX_ASKED {
            self.env.counters.reconcile_refused += 1;
            self.violation(link);
            return;
        }
        let Some(up) = self.links.up(link) else { return };
        let opened = up.repair.peer_session.session != Some(ask.session);
        if !self.admit(link, opened) {
            self.env.counters.reconcile_refused += 1;
            let refusal = Reconcile { session: ask.session, lower: ask.lower, ranges: Vec::new() };
            self.send(link, Message::Answer(Box::new(refusal)));
            return;
        }
        self.env.counters.reconcile_answered += u64::from(opened);
        if let Some(up) = self.links.up(link) {
            up.repair.peer_session.session = Some(ask.session);
        }
        if self.is_writable(link) {
            self.answer(link, &ask);
        } else if let Some(up) = self.links.up(link) {
            up.repair.peer_session.waiting = Some(ask);
        }
    }

    /// Reports whether a question may be answered.
    fn admit(&mut self, link: LinkId, opened: bool) -> bool {
        let (Some(peer), now) = (self.links.peer_of(link), self.env.now) else { return false };
        self.guard.rate_limits.left(peer, Work::Answer, now) >= FRAME as u64
            && (!opened || self.guard.rate_limits.take(peer, Work::Session, OPEN, now))
    }

    /// The queue of a link has moved: a question may have waited for that.
    pub(in crate::protocol) fn answer_waiting(&mut self, link: LinkId) {
        if self.is_writable(link)
            && let Some(up) = self.links.up(link)
            && let Some(ask) = up.repair.peer_session.waiting.take()
        {
            self.answer(link, &ask);
        }
    }

    /// A peer fetched something: what was listed to it was of use.
    pub(in crate::protocol) fn earn_answers(&mut self, link: LinkId) {
        if let Some(peer) = self.links.peer_of(link) {
            self.guard.rate_limits.give_back(&peer, Work::Answer, EARNED);
        }
    }

    fn answer(&mut self, link: LinkId, ask: &Reconcile) {
        self.tidy();
        let limit = self.links.up(link).map_or(0, |up| up.max_transaction);
        // What is older counts as gone on both sides, however long each keeps it.
        let horizon = self.horizon(FADING);
        let scope = self.scope(link);
        let mut looks = 0;
        let mut draft = Draft::new(ask.lower);
        let (mut lower, mut scanned) = (ask.lower, 0);
        for range in &ask.ranges {
            let window = Window { lower: lower.max(horizon), upper: range.upper };
            let whole = window.lower == lower;
            lower = range.upper;
            if draft.weight >= FRAME {
                break;
            }
            if window.lower >= window.upper {
                draft.push(range.upper, RangeContent::Skip);
                continue;
            }
            match &range.content {
                RangeContent::Print(print) => {
                    self.answer_print(&mut draft, window, print, limit, &scope);
                    // Once for the print, twice to cut the range.
                    looks += 3 * self.looks(window, &scope);
                }
                // A list that reaches beyond the horizon holds what is not to be fetched.
                RangeContent::All(_) if !whole => {
                    self.answer_print(&mut draft, window, &[0; 16], limit, &scope);
                    looks += 3 * self.looks(window, &scope);
                }
                RangeContent::All(list) => {
                    self.hear_listed(link, list, window.upper);
                    let all =
                        self.answer_list(&mut draft, window, list, limit, &mut scanned, &scope);
                    let upper = draft.ranges.last().map_or(window.upper, |range| range.upper);
                    looks += self.looks(Window { upper, ..window }, &scope);
                    if !all {
                        break;
                    }
                }
                RangeContent::Skip => draft.push(range.upper, RangeContent::Skip),
                RangeContent::Rest(_) => {
                    self.env.counters.reconcile_refused += 1;
                    self.violation(link);
                    return;
                }
            }
        }
        let equal = draft.ranges.iter().all(|range| range.content == RangeContent::Skip);
        let ranges = ask.ranges.len() as u64;
        let answer = draft.finish(ask.session);
        if equal {
            self.found_equal(link, ask);
        }
        let weight = answer.weight() as u64;
        self.env.counters.reconcile_bytes_sent += weight;
        if let Some(peer) = self.links.peer_of(link) {
            let cost = weight + QUESTION + RANGE * ranges + looks / LOOKS;
            self.guard.rate_limits.spend(peer, Work::Answer, cost, self.env.now);
        }
        self.send(link, Message::Answer(Box::new(answer)));
    }

    /// Returns how many entries have to be looked at to find those in scope.
    fn looks(&self, window: Window, scope: &Scope) -> u64 {
        if scope.is_all() {
            return 0;
        }
        self.log.measure(window.lower, window.upper, &Scope::ALL).count
    }

    fn answer_print(
        &self,
        draft: &mut Draft,
        window: Window,
        print: &[u8; 16],
        limit: u64,
        scope: &Scope,
    ) {
        let held = self.log.measure(window.lower, window.upper, scope);
        draft.push(window.lower, RangeContent::Skip);
        if held.print() == *print {
            draft.push(window.upper, RangeContent::Skip);
        } else if held.count <= LIST {
            draft.push(window.upper, RangeContent::All(self.list(window, limit, scope)));
        } else {
            for (upper, sum) in self.log.split(window.lower, window.upper, WAYS, scope) {
                draft.push(upper, RangeContent::Print(sum.print()));
            }
        }
    }

    /// Lists what was not listed; `false` when that is more than fits.
    fn answer_list(
        &self,
        draft: &mut Draft,
        window: Window,
        listed: &[(TransactionId, u64)],
        limit: u64,
        scanned: &mut usize,
        scope: &Scope,
    ) -> bool {
        let mut listed: Vec<_> = listed.iter().map(|(id, _)| *id).collect();
        listed.sort_unstable();
        let mut rest = Vec::new();
        let mut end = window.upper;
        let room = FRAME.saturating_sub(draft.weight) / 35;
        for record in self.log.range(window.lower, window.upper, scope) {
            *scanned += 1;
            if rest.len() > room || *scanned > MAX_SCANNED {
                end = record.key();
                break;
            }
            if listed.binary_search(&record.id).is_err() && self.is_worth_listing(record, limit) {
                rest.push((record.id, u64::from(record.size)));
            }
        }
        let content = if rest.is_empty() { RangeContent::Skip } else { RangeContent::Rest(rest) };
        draft.push(end, content);
        end == window.upper
    }

    /// Notes that a peer asked and both hold the same: there is no need to ask that peer.
    fn found_equal(&mut self, link: LinkId, ask: &Reconcile) {
        let Some(up) = self.links.up(link) else { return };
        let covered = |need: &mut Window| {
            ask.lower.created <= need.lower.created.plus(ABOUT) && ask.upper() >= need.upper
        };
        if !up.repair.firm {
            up.repair.need.take_if(covered);
            up.repair.is_compared |= up.repair.need.is_none();
        }
    }
}
