//! Bytes that a link was handed and that have not arrived: one budget from the core to the peer.
//!
//! Between two cores stand buffers that neither sees into: of transports, kernels, proxies and routers.
//! Nothing overtakes in them, so control waits for all that was handed out before. Therefore that is
//! bounded by what the link carries in `TARGET`, or by one piece where that is more. A *mark* measures
//! it: a ping right behind some bytes, whose pong says that everything before has arrived, whatever
//! it went through.
//!
//! Contract:
//! - At most one mark is out. One is out whenever bulk or log entries are refused for want of room: its
//!   answer lets them go on.
//! - The rate rises at once to what a mark shows: so many bytes have arrived since the answer before,
//!   but for the way there and back. It falls only when a mark took longer than `TARGET`.
//! - While a mark is late, no piece is put on top of another, so that a link which has become thin gets
//!   rid of what it holds.
//! - A piece that is handed out has a mark behind it at once, or soon: none is put on top of one that
//!   has been under way for much longer than `TARGET`.
//! - Bulk (pieces) and the rest have a budget each: neither keeps the other out.
//! - Control always passes; it is counted, and bounded elsewhere.
//! - What is under way before a mark is not sent again, whatever its peer has taken back and asked for
//!   meanwhile: it asked before it had that mark.
//!
//! A peer that answers marks before it has read what stands before them deceives itself: more waits
//! for it. One that does not answer gets no more than one budget, and is judged by `liveness`.
//!
//! Tested by: the tests below, `protocol::tests::thin`, `sim::tests::thin`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::protocol::Protocol;
use crate::types::{LinkId, Message, MonoTime, PIECE_BYTES, TransactionId};

/// Time that what a link was handed may take to arrive.
const TARGET: Duration = Duration::from_secs(1);
/// Minimum number of bytes under way behind which a mark is placed.
const MIN_MARK: u64 = 16 << 10;
/// Time between two marks behind bulk of which there is less.
const MARK_EVERY: Duration = Duration::from_millis(250);
/// Maximum number of bytes under way without a mark behind them.
const MAX_MARK: u64 = 1 << 20;
/// Rate in bytes per second of the slowest link that is waited for, where none was measured.
const SLOWEST: u64 = 4 << 10;
/// Rate in bytes per second below which a link is given up.
const LEAST: u64 = 512;
/// Factor by which a mark may raise the rate above its bytes per round trip.
const MAX_GROWTH: u32 = 16;
/// Maximum number of payloads and pieces under way that are known by name: a link with more is not
/// thin.
const MAX_NAMED: usize = 64;
/// Budget of a link that carries next to nothing, and of a new one.
const MIN_BUDGET: u64 = PIECE_BYTES as u64;

/// Bytes since the link opened.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    all: u64,
    /// Those of pieces.
    bulk: u64,
}

/// Ping behind some bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocol) struct Mark {
    nonce: u64,
    at: MonoTime,
    /// What was handed out before it.
    upto: Load,
    /// Bytes of that which were under way.
    bytes: u64,
}

impl Mark {
    pub(super) fn is(&self, nonce: u64) -> bool {
        self.nonce == nonce
    }

    /// Returns the time when it was placed.
    pub(in crate::protocol) fn at(&self) -> MonoTime {
        self.at
    }
}

/// What a link was handed, what of it has arrived, and how quickly.
#[derive(Debug)]
pub(in crate::protocol) struct SendBudget {
    handed: Load,
    arrived: Load,
    /// Time since which what is under way has been so.
    since: MonoTime,
    /// Shortest round trip of any mark.
    least: Duration,
    /// The latest payloads and pieces that are under way, each with the bytes up to its end.
    named: VecDeque<(u64, TransactionId, Option<u32>)>,
    mark: Option<Mark>,
    /// Time when the latest mark was placed.
    placed: Option<MonoTime>,
    /// Time since which the oldest bulk that is under way may have been so; `None` where there is none.
    bulk_since: Option<MonoTime>,
    /// Time when the first bulk behind the mark was handed out.
    behind_mark: Option<MonoTime>,
    /// Nonce of the next mark.
    next: u64,
    /// Measured bytes per second; 0 before the first measurement.
    rate: u64,
    /// Time when a mark last took longer than `TARGET`.
    late_at: Option<MonoTime>,
}

impl SendBudget {
    /// Begins with nothing handed out; nonces of marks follow `nonce`.
    pub(in crate::protocol) fn new(nonce: u64) -> Self {
        Self {
            handed: Load::default(),
            arrived: Load::default(),
            since: MonoTime::ZERO,
            least: Duration::MAX,
            named: VecDeque::new(),
            mark: None,
            placed: None,
            bulk_since: None,
            behind_mark: None,
            next: nonce,
            rate: 0,
            late_at: None,
        }
    }

    /// Counts a message that is handed out.
    pub(super) fn hand(&mut self, message: &Message, weight: usize, now: MonoTime) {
        if self.under_way() < MIN_MARK / 4 {
            self.since = now;
        }
        self.handed.all += weight as u64;
        let (id, index) = match message {
            Message::Piece(piece) => {
                self.hand_bulk(piece.bytes.len(), now);
                (piece.id, Some(piece.index))
            }
            Message::Push { transaction, .. } => (transaction.id(), None),
            Message::Probe { payload: bulk, .. }
            | Message::Probed { payload: bulk, .. }
            | Message::Request { body: bulk, .. }
            | Message::Response { body: bulk, .. }
            | Message::BodyPart { data: bulk, .. } => return self.hand_bulk(bulk.len(), now),
            _ => return,
        };
        if self.named.len() >= MAX_NAMED {
            self.named.pop_front();
        }
        self.named.push_back((self.handed.all, id, index));
    }

    fn hand_bulk(&mut self, bytes: usize, now: MonoTime) {
        if bytes == 0 {
            return;
        }
        self.bulk_since.get_or_insert(now);
        if self.mark.is_some() {
            self.behind_mark.get_or_insert(now);
        }
        self.handed.bulk += bytes as u64;
    }

    /// Lists the pieces of a payload that are under way before the mark; `None` is all of it.
    pub(in crate::protocol) fn coming<'a>(
        &'a self,
        id: &'a TransactionId,
    ) -> impl Iterator<Item = Option<u32>> + 'a {
        let upto = self.mark.map_or(0, |mark| mark.upto.all);
        let before = self.named.iter().take_while(move |(end, ..)| *end <= upto);
        before.filter(move |(_, of, _)| of == id).map(|(_, _, index)| *index)
    }

    /// Reports whether the peer has yet to read bulk, before what was handed out since.
    pub(in crate::protocol) fn has_bulk(&self) -> bool {
        self.bulk() > 0
    }

    /// Reports whether a mark belongs behind what was handed out last.
    pub(super) fn wants_mark(&self, now: MonoTime) -> bool {
        let every = (self.rate / 4).clamp(MIN_MARK, MAX_MARK);
        self.mark.is_none()
            && (self.under_way() >= every || self.bulk() > 0 && self.is_unmarked(MARK_EVERY, now))
    }

    /// Reports whether no mark was placed for so long.
    fn is_unmarked(&self, time: Duration, now: MonoTime) -> bool {
        self.placed.is_none_or(|at| now.since(at) >= time)
    }

    /// Places a mark, and returns its nonce.
    pub(super) fn place_mark(&mut self, now: MonoTime) -> u64 {
        let nonce = self.next;
        self.next = nonce.wrapping_add(1);
        self.mark = Some(self.here(nonce, now));
        self.placed = Some(now);
        self.behind_mark = None;
        nonce
    }

    /// Returns a mark behind all that was handed out until now.
    pub(super) fn here(&self, nonce: u64, at: MonoTime) -> Mark {
        Mark { nonce, at, upto: self.handed, bytes: self.under_way() }
    }

    /// Another connection carries the link from now on: the way there is another one.
    pub(in crate::protocol) fn note_moved(&mut self) {
        (self.least, self.late_at) = (Duration::MAX, None);
    }

    /// Returns how long what is under way takes to arrive, as far as is known.
    pub(in crate::protocol) fn delay(&self, now: MonoTime) -> Duration {
        let here = self.here(0, now);
        self.due(&here).since(now)
    }

    /// Reports whether a mark is out.
    pub(super) fn is_marked(&self) -> bool {
        self.mark.is_some()
    }

    /// Reports whether the peer has taken next to nothing for so long.
    pub(in crate::protocol) fn is_stuck(&self, limit: Duration, now: MonoTime) -> bool {
        let least = |mark: &Mark| Duration::from_secs(self.ahead_of(mark) / LEAST);
        self.mark.is_some_and(|mark| now.since(mark.at) > limit + least(&mark))
    }

    /// Takes a pong; `true` when it is that of the mark.
    pub(super) fn on_pong(&mut self, nonce: u64, now: MonoTime) -> bool {
        let Some(mark) = self.mark.filter(|mark| mark.is(nonce)) else { return false };
        self.note_arrival(&mark, now);
        true
    }

    /// Takes the answer to a mark, or to another ping behind some bytes.
    pub(super) fn note_arrival(&mut self, mark: &Mark, now: MonoTime) {
        let (bytes, took) = (self.ahead_of(mark), now.since(mark.at));
        self.least = self.least.min(took);
        // So few bytes say how far the peer is, and not what the link carries.
        if bytes >= MIN_MARK {
            // The way there and back is no part of what the bytes took. Answers that waited for each
            // other come together, so the bytes are held against the mark's own time too.
            let shown = |bytes, span: Duration| {
                let way = self.least.min(TARGET / 2);
                per_second(bytes, span.saturating_sub(way).max(span / MAX_GROWTH))
            };
            let shown = shown(bytes, now.since(self.since)).min(shown(mark.bytes, took));
            let is_late = took > TARGET;
            self.late_at = if is_late { Some(now) } else { self.late_at };
            let most = if is_late { per_second(bytes, took) } else { u64::MAX };
            self.rate = self.rate.min(most).max(shown);
        }
        self.arrived.all = self.arrived.all.max(mark.upto.all);
        self.arrived.bulk = self.arrived.bulk.max(mark.upto.bulk);
        if self.mark.take_if(|placed| placed.upto.all <= self.arrived.all).is_some() {
            self.bulk_since = self.behind_mark.take();
        }
        if self.bulk() == 0 {
            self.bulk_since = None;
        }
        self.since = now;
        while self.named.front().is_some_and(|(end, ..)| *end <= self.arrived.all) {
            self.named.pop_front();
        }
    }

    /// Returns the bytes before a mark that are under way.
    fn ahead_of(&self, mark: &Mark) -> u64 {
        mark.upto.all.saturating_sub(self.arrived.all)
    }

    /// Returns the bytes per second that the link carries; `None` before that was measured.
    pub(in crate::protocol) fn rate(&self) -> Option<u64> {
        (self.rate > 0).then_some(self.rate)
    }

    /// Returns the time when the link last carried what it was handed too slowly.
    pub(super) fn late_at(&self) -> Option<MonoTime> {
        self.late_at
    }

    /// Returns the bytes that may be under way, of bulk and of the rest each.
    fn budget(&self, now: MonoTime) -> u64 {
        let rate = if self.is_late(now) { 0 } else { self.rate };
        rate.saturating_mul(TARGET.as_secs()).max(MIN_BUDGET)
    }

    fn is_late(&self, now: MonoTime) -> bool {
        self.mark.is_some_and(|mark| now.since(mark.at) > TARGET)
    }

    /// Returns the bytes that were handed out and have not arrived, as far as the peer has said.
    pub(in crate::protocol) fn under_way(&self) -> u64 {
        self.handed.all.saturating_sub(self.arrived.all)
    }

    fn bulk(&self) -> u64 {
        self.handed.bulk.saturating_sub(self.arrived.bulk)
    }

    /// Reports whether more than control may be handed out; `beside_bulk` says that bulk waits too.
    pub(super) fn has_room(&self, beside_bulk: bool, now: MonoTime) -> bool {
        let rest = self.under_way().saturating_sub(self.bulk());
        // What most links have, without a look at the clock.
        rest < MIN_BUDGET / 2
            || rest < if beside_bulk { self.budget(now) / 2 } else { self.budget(now) }
    }

    /// Reports whether a piece of so many bytes may be handed out.
    fn has_room_for_piece(&self, bytes: usize, now: MonoTime) -> bool {
        let bulk = self.bulk();
        let is_old = self.is_late(now)
            || self.mark.is_none() && self.is_unmarked(TARGET, now)
            || self.bulk_since.is_some_and(|at| now.since(at) > 2 * TARGET);
        bulk == 0 || !is_old && bulk + bytes as u64 <= self.budget(now)
    }

    /// Returns the time at which a ping that was sent with `mark` would be answered by a live peer at
    /// the latest, were there no more than its answer to wait for.
    pub(super) fn due(&self, mark: &Mark) -> MonoTime {
        let rate = if self.rate == 0 { SLOWEST } else { self.rate.max(SLOWEST / 2) };
        let ahead = self.ahead_of(mark).saturating_mul(1000) / rate;
        mark.at.max(self.since + Duration::from_millis(ahead))
    }
}

/// Returns the rate of so many bytes in that time.
fn per_second(bytes: u64, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1_000_000) / micros
}

impl Protocol {
    /// Reports whether a piece of so many bytes may be handed out on a link. If not, a mark is out,
    /// and its answer makes room.
    pub(in crate::protocol) fn takes_piece(&mut self, link: LinkId, bytes: usize) -> bool {
        let now = self.env.now;
        let Some(up) = self.links.up(link) else { return false };
        let takes = up.budget.has_room_for_piece(bytes, now);
        if !takes {
            self.links.mark(&mut self.env, link);
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Piece;

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_millis(ms))
    }

    fn hand_piece(budget: &mut SendBudget, now: MonoTime) {
        let (id, bytes) = (TransactionId::from_bytes([1; 32]), vec![0; PIECE_BYTES].into());
        let piece = Message::Piece(Piece { id, index: 0, bytes, proof: Bytes::new() });
        budget.hand(&piece, piece.weight(), now);
    }

    #[test]
    fn the_way_there_and_back_is_no_part_of_the_rate() {
        let mut budget = SendBudget::new(0);
        let ping = budget.here(77, at(0));
        budget.note_arrival(&ping, at(200));
        assert_eq!(budget.rate(), None, "no bytes, no rate");
        hand_piece(&mut budget, at(1000));
        let mark = budget.place_mark(at(1000));
        // 64 KiB in 240 ms, of which 200 are the way.
        assert!(budget.on_pong(mark, at(1240)));
        let rate = budget.rate().unwrap();
        assert!((1_500_000..1_800_000).contains(&rate), "{rate}");
    }

    #[test]
    fn answers_that_come_together_show_no_rate() {
        // The peer's own bulk stood before both: two answers within a millisecond are no 64 MB/s.
        let mut budget = SendBudget::new(0);
        let early = budget.here(77, at(0));
        hand_piece(&mut budget, at(0));
        let mark = budget.place_mark(at(0));
        budget.note_arrival(&early, at(3300));
        assert!(budget.on_pong(mark, at(3301)));
        let rate = budget.rate().unwrap();
        assert!(rate < 25_000, "{rate}");
        assert!(budget.has_room_for_piece(PIECE_BYTES, at(3301)));
        hand_piece(&mut budget, at(3301));
        assert!(!budget.has_room_for_piece(1, at(3301)), "one piece at a time");
    }

    #[test]
    fn what_was_put_behind_a_mark_stays_old_when_the_next_one_is_new() {
        let mut budget = SendBudget::new(0);
        let request = |id, len| Message::Request {
            id,
            protocol: "p".to_owned(),
            size: len as u64,
            timeout_ms: 1,
            body: vec![0; len].into(),
            trace: None,
        };
        let hand = |budget: &mut SendBudget, message: Message, now| {
            budget.hand(&message, message.weight(), now);
        };
        hand(&mut budget, request(1, 100), at(0));
        let first = budget.place_mark(at(0));
        hand(&mut budget, request(2, 24_000), at(0));
        assert!(budget.on_pong(first, at(2600)));
        let second = budget.place_mark(at(2600));
        assert!(!budget.has_room_for_piece(1, at(3500)), "that has been under way for 3.5 s");
        assert!(budget.on_pong(second, at(3600)));
        assert!(budget.has_room_for_piece(1, at(3600)));
    }

    #[test]
    fn what_is_under_way_without_a_mark_is_asked_for_again() {
        let mut budget = SendBudget::new(0);
        let id = TransactionId::from_bytes([1; 32]);
        hand_piece(&mut budget, at(0));
        assert_eq!(budget.coming(&id).count(), 0, "nobody would say that it is lost");
        let mark = budget.place_mark(at(0));
        assert_eq!(budget.coming(&id).collect::<Vec<_>>(), [Some(0)]);
        assert!(budget.on_pong(mark, at(10)) && !budget.on_pong(mark, at(11)));
        assert_eq!(budget.coming(&id).count(), 0);
    }
}
