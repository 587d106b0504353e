//! The side that answers. Nothing is kept between questions but what bounds them.

use crate::types::{LinkId, Message, MonoTime, RangeContent, Reconcile, TransactionId};

use super::opener::MAX_ASKED;
use super::{Draft, FADING, FRAME, LIST, WAYS, Window};
use crate::protocol::Protocol;
use crate::protocol::topics::Scope;

/// Sessions that a peer may open in a row, and milliseconds that each takes to come back.
const OPENS: u64 = 8;
const OPEN_EVERY_MS: u64 = 5000;
/// Bytes of answers that a peer may have in a row; 1 MiB comes back in a minute.
const BYTES: u64 = 2 << 20;
const BYTES_PER_MINUTE: u64 = 1 << 20;
/// What a payload earns that is fetched after having been listed.
const EARNED: u64 = 256;
/// What a question and each of its ranges cost beside the bytes of the answer.
const QUESTION: u64 = 256;
const RANGE: u64 = 64;
/// Entries looked at within a scope that count as one byte.
const LOOKS: u64 = 64;
/// Entries looked at for one answer, listed or not.
const MAX_SCANNED: usize = 16_384;
/// A window is as wide as ours if it begins no later than this after it.
const ABOUT: std::time::Duration = std::time::Duration::from_mins(4);

/// What bounds a peer's sessions.
#[derive(Debug, Default)]
pub(super) struct Theirs {
    /// The latest that it opened.
    session: Option<u32>,
    opens: u64,
    bytes: u64,
    filled: MonoTime,
    /// A question that waits for room in the queue.
    held: Option<Box<Reconcile>>,
}

impl Theirs {
    pub(super) fn new(now: MonoTime) -> Self {
        Self { opens: OPENS * OPEN_EVERY_MS, bytes: BYTES, filled: now, ..Self::default() }
    }

    fn refill(&mut self, now: MonoTime) {
        let since = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX);
        if since == 0 {
            return;
        }
        self.filled = now;
        self.opens = self.opens.saturating_add(since).min(OPENS * OPEN_EVERY_MS);
        let bytes = since.min(3_600_000) * BYTES_PER_MINUTE / 60_000;
        self.bytes = self.bytes.saturating_add(bytes).min(BYTES);
    }

    /// Whether a question of this session may be answered.
    fn admit(&mut self, session: u32) -> bool {
        if self.bytes < FRAME as u64 {
            return false;
        }
        if self.session != Some(session) {
            if self.opens < OPEN_EVERY_MS {
                return false;
            }
            self.opens -= OPEN_EVERY_MS;
            self.session = Some(session);
        }
        true
    }
}

impl Protocol {
    /// A question came.
    pub(in crate::protocol) fn on_ask(&mut self, link: LinkId, ask: Box<Reconcile>) {
        let now = self.now;
        self.counters.reconcile_bytes_received += ask.weight() as u64;
        // A gap before each range makes twice as many.
        if ask.ranges.is_empty() || ask.ranges.len() > 2 * MAX_ASKED {
            self.counters.reconcile_refused += 1;
            self.violation(link);
            return;
        }
        let Some(up) = self.links.up(link) else { return };
        let theirs = &mut up.repair.theirs;
        theirs.refill(now);
        let opened = theirs.session != Some(ask.session);
        if !theirs.admit(ask.session) {
            self.counters.reconcile_refused += 1;
            let refusal = Reconcile { session: ask.session, lower: ask.lower, ranges: Vec::new() };
            self.send(link, Message::Answer(Box::new(refusal)));
            return;
        }
        self.counters.reconcile_answered += u64::from(opened);
        if self.is_writable(link) {
            self.answer(link, &ask);
        } else if let Some(up) = self.links.up(link) {
            up.repair.theirs.held = Some(ask);
        }
    }

    /// The queue of a link has moved: a question may have waited for that.
    pub(in crate::protocol) fn answer_held(&mut self, link: LinkId) {
        if self.is_writable(link)
            && let Some(up) = self.links.up(link)
            && let Some(ask) = up.repair.theirs.held.take()
        {
            self.answer(link, &ask);
        }
    }

    /// A peer fetched something: what was listed to it was of use.
    pub(in crate::protocol) fn earn_answers(&mut self, link: LinkId) {
        if let Some(up) = self.links.up(link) {
            let theirs = &mut up.repair.theirs;
            theirs.bytes = (theirs.bytes + EARNED).min(BYTES);
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
                    self.counters.reconcile_refused += 1;
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
        self.counters.reconcile_bytes_sent += weight;
        if let Some(up) = self.links.up(link) {
            let theirs = &mut up.repair.theirs;
            let cost = weight + QUESTION + RANGE * ranges + looks / LOOKS;
            theirs.bytes = theirs.bytes.saturating_sub(cost);
        }
        self.send(link, Message::Answer(Box::new(answer)));
    }

    /// Entries that have to be looked at to find those in scope.
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

    /// A peer asked and both hold the same: there is no need to ask it.
    fn found_equal(&mut self, link: LinkId, ask: &Reconcile) {
        let Some(up) = self.links.up(link) else { return };
        let covered = |need: &mut Window| {
            ask.lower.created <= need.lower.created.plus(ABOUT) && ask.upper() >= need.upper
        };
        if !up.repair.firm {
            up.repair.need.take_if(covered);
        }
    }
}
