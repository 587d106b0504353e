//! Own transactions until enough others have stored them.
//!
//! ```text
//! published ──► waiting ──enough confirmed──► finished (still counted for receipts for a while)
//!                │   ▲ │
//!   no taker in  │   │ ├──expired, too few have it──► dead
//!   max_retries  │   │ └──expired or from the future, nobody has it──► stale ──a link──► published
//!   rounds, or   │   │                                                  anew (`republish`)
//!   refused by   │   └─somebody confirmed, or the host asked
//!   all          └──► dead
//! ```
//!
//! An entry leaves the outbox when `min_copies` peers (or all that are linked and well, if fewer)
//! confirmed that they stored it: one that is suspected or takes nothing does not keep the others'
//! entries waiting. What still waits is announced on every new link, also to a peer that may
//! have it: so a confirmation that was lost comes again. One that nobody confirmed in time is
//! offered again to every linked peer, after a delay that doubles with each round and has full
//! jitter. A round counts as an attempt only if it was offered to somebody and nobody confirmed or
//! (a few times) asked for it; after `max_retries` of them the entry is a dead letter: kept, listed,
//! and taken back as soon as a peer confirms it or the host asks for it. Dead letters count towards
//! the bound of the outbox, so it cannot grow by them.
//!
//! A peer that does not take an entry says why (`refusals`). A refusal for now, such as for a clock or
//! for want of room, makes the round no attempt; the rounds become longer all the same. A peer that
//! refused for good is not asked again and no copy is expected of it; when all that are linked did,
//! the entry is a dead letter at once.
//!
//! Only linked peers count that take the topic: edges that do not want it are not asked, and while
//! nobody takes it there is no attempt.
//!
//! Time without any link does not count: `due` is measured on a clock that stands still then, so a
//! week offline costs no attempt and no work.
//!
//! Tested by: the tests below, `sim::tests::outbox`, `protocol::tests::outbox`.

mod entries;
mod publish;
mod refusals;
mod replay_in;
mod replay_out;
mod republish;
mod rounds;
mod tally;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::protocol::io::CallId;
use crate::protocol::restored::{GivenUp, Queued};
use crate::protocol::rng::Rng;
use crate::types::{MonoTime, PeerId, PublishState, PublishStatus, TransactionId, WallTime};

use entries::{Entries, Entry, EntryStatus};
use tally::Tally;

#[cfg(any(test, feature = "sim"))]
pub(super) use replay_in::MAX_ORDER;
pub(super) use replay_in::{Deferred, Replays};
pub(super) use replay_out::ReplayCursor;
pub(crate) use republish::RENEWALS;

/// Maximum number of confirmed transactions whose further confirmations are still counted.
const MAX_FINISHED: usize = 16_384;
/// Time after which the first round is over; a large payload on a slow link is asked for by then.
const FIRST_ROUND: Duration = Duration::from_secs(5);
/// Maximum number of rounds that do not count because somebody fetches the transaction and still
/// does not confirm: a transfer may take long, but a peer that cannot keep what it fetches must not
/// keep the entry waiting for ever.
const MAX_EXCUSED: u8 = 5;

/// Time during which there was at least one link.
#[derive(Debug, Default)]
struct OnlineClock {
    before: Duration,
    since: Option<MonoTime>,
}

impl OnlineClock {
    fn at(&self, now: MonoTime) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.since(since))
    }

    fn is_running(&self) -> bool {
        self.since.is_some()
    }

    fn run(&mut self, now: MonoTime, online: bool) {
        if online && self.since.is_none() {
            self.since = Some(now);
        } else if !online {
            self.before = self.at(now);
            self.since = None;
        }
    }
}

/// Own transactions and who confirmed to have stored them.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Entries of the outbox; those that are neither dead nor stale wait for the end of a round, on
    /// the online clock.
    entries: Entries,
    /// Sums over the entries that are not dead.
    tally: Tally,
    /// Stale entries, in the order of publishing; those being published anew are not among them.
    stale: VecDeque<TransactionId>,
    /// Stale entries that could not be published anew just now, in that order.
    returned: VecDeque<TransactionId>,
    /// Stale entries in all.
    stale_count: usize,
    clock: OnlineClock,
    /// Transactions out of the outbox, but still counted for receipts; the oldest is forgotten
    /// first.
    finished: BTreeMap<TransactionId, Vec<PeerId>>,
    order: VecDeque<TransactionId>,
    /// Transactions whose receipts are still to be told that no more copies are counted.
    forgotten: Vec<TransactionId>,
    /// Transactions being stored, and the calls that wait for them.
    publishing: BTreeMap<TransactionId, Vec<CallId>>,
    /// Bytes that transactions being published will take up.
    publishing_bytes: u64,
    /// Entries that are being published anew.
    renewing: usize,
    /// Maximum number of renewals under way.
    renewals: usize,
    /// Entries that wait since before the start, until it is known which the log has.
    pub(super) restored: Vec<TransactionId>,
    /// Peers that had to confirm an entry when that was last looked at.
    copies_wanted: u32,
    /// True: once it is known what time it is, what nobody admits is to be published anew.
    pub(super) is_redating: bool,
}

impl Outbox {
    /// Makes the outbox from what an earlier run left.
    pub(super) fn restore(
        queued: Vec<Queued>,
        min_copies: u32,
        spare_places: Option<usize>,
        rng: &mut Rng,
    ) -> Self {
        let waits = |q: &&Queued| q.dead.is_none() && !q.unlogged;
        let mut outbox = Self {
            entries: Entries::new(rng),
            tally: Tally::default(),
            stale: VecDeque::new(),
            returned: VecDeque::new(),
            stale_count: 0,
            clock: OnlineClock::default(),
            finished: BTreeMap::new(),
            order: VecDeque::new(),
            forgotten: Vec::new(),
            publishing: BTreeMap::new(),
            publishing_bytes: 0,
            renewing: 0,
            renewals: spare_places.unwrap_or(RENEWALS).clamp(1, RENEWALS),
            restored: queued.iter().filter(waits).map(|q| q.id).collect(),
            copies_wanted: min_copies,
            is_redating: true,
        };
        for Queued { id, created, attempts, dead, .. } in queued {
            outbox.insert(id, created, FIRST_ROUND);
            outbox.set_attempts(&id, u8::try_from(attempts).unwrap_or(u8::MAX));
            if let Some(entry) = outbox.entries.get_mut(&id) {
                entry.excused = if attempts > 0 { MAX_EXCUSED } else { 0 };
            }
            if let Some(why) = dead {
                outbox.bury(&id, why);
            }
        }
        outbox
    }

    /// Entries, dead letters included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn dead(&self) -> usize {
        self.entries.len() - self.entries.waiting() - self.stale_count
    }

    /// Returns when the oldest entry that waits was published.
    pub(super) fn oldest(&self) -> Option<WallTime> {
        self.tally.oldest()
    }

    /// Returns the number of rounds without any taker, of all entries that wait.
    pub(super) fn attempts(&self) -> u64 {
        self.tally.attempts()
    }

    /// Returns for how long there has been a link, without a break.
    pub(super) fn online_for(&self, now: MonoTime) -> Duration {
        self.clock.since.map_or(Duration::ZERO, |since| now.since(since))
    }

    pub(super) fn contains(&self, id: &TransactionId) -> bool {
        self.entries.get(id).is_some()
    }

    /// Iterates over the transactions that wait for copies.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &TransactionId> {
        self.entries.iter().filter(|entry| !entry.is_dead()).map(Entry::id)
    }

    pub(super) fn is_dead(&self, id: &TransactionId) -> bool {
        self.entries.get(id).is_some_and(Entry::is_dead)
    }

    pub(super) fn is_waiting(&self, id: &TransactionId) -> bool {
        self.entries.get(id).is_some_and(|entry| !entry.is_dead())
    }

    /// Reports whether a transaction is being stored for its first time.
    pub(super) fn is_publishing(&self, id: &TransactionId) -> bool {
        self.publishing.contains_key(id)
    }

    /// Returns the peers that are known to have confirmed a transaction.
    pub(super) fn confirmed_by(&self, id: &TransactionId) -> &[PeerId] {
        let finished = || self.finished.get(id).map(Vec::as_slice);
        self.entries.get(id).map(Entry::peers).or_else(finished).unwrap_or_default()
    }

    fn is_stale(&self, id: &TransactionId) -> bool {
        self.entries.get(id).is_some_and(Entry::is_stale)
    }

    fn has_copies(&self, id: &TransactionId) -> bool {
        self.copies(id) > 0
    }

    /// Reports whether a transaction left the outbox a while ago because enough peers have it.
    fn is_finished(&self, id: &TransactionId) -> bool {
        self.finished.contains_key(id)
    }

    fn copies(&self, id: &TransactionId) -> u32 {
        let copies = self.entries.get(id).map_or(0, |entry| entry.peers().len());
        u32::try_from(copies).unwrap_or(u32::MAX)
    }

    /// Marks an entry stale: it has expired, and nobody has it.
    pub(super) fn set_stale(&mut self, id: &TransactionId) {
        self.entries.rest(id);
        if let Some(entry) = self.entries.get_mut(id).filter(|entry| !entry.is_stale()) {
            entry.status = EntryStatus::Stale;
            self.stale.push_back(*id);
            self.stale_count += 1;
        }
    }

    /// The next stale entry to be published anew. What could not be comes first, in its old order, as
    /// soon as none is `under_way`.
    fn next_stale(&mut self, under_way: bool) -> Option<TransactionId> {
        if under_way && !self.returned.is_empty() {
            return None;
        }
        while let Some(id) = self.returned.pop_back() {
            self.stale.push_front(id);
        }
        loop {
            let id = self.stale.pop_front()?;
            if self.is_stale(&id) {
                return Some(id);
            }
        }
    }

    /// Puts a stale entry back that could not be published anew, to be tried again.
    fn put_back_stale(&mut self, id: TransactionId) {
        if self.is_stale(&id) {
            self.returned.push_back(id);
        }
    }

    /// Ends a stale entry that can never be published anew.
    fn end_stale(&mut self, id: &TransactionId) -> bool {
        let entry = self.entries.get_mut(id).filter(|entry| entry.is_stale());
        entry.is_some_and(|entry| {
            entry.status = EntryStatus::Open;
            self.stale_count -= 1;
            true
        })
    }

    /// `new` replaces `old`, with the attempts that are left to it.
    pub(super) fn replace(&mut self, old: &TransactionId, new: TransactionId) {
        let attempts = self.entries.get(old).map_or(0, |entry| entry.attempts);
        self.remove(old);
        self.set_attempts(&new, attempts);
    }

    fn set_attempts(&mut self, id: &TransactionId, attempts: u8) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let before = std::mem::replace(&mut entry.attempts, attempts);
        if !entry.is_dead() {
            self.tally.set_attempts(before, attempts);
        }
    }

    /// A peer asked for this.
    pub(super) fn note_wanted(&mut self, id: &TransactionId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.wanted = true;
        }
    }

    fn insert(&mut self, id: TransactionId, created: WallTime, due: Duration) {
        if !self.contains(&id) {
            self.entries.insert(id, created);
            self.tally.enter(created, 0);
        }
        self.wait(&id, due);
    }

    fn wait(&mut self, id: &TransactionId, due: Duration) {
        self.entries.wait(id, due);
    }

    fn bury(&mut self, id: &TransactionId, why: GivenUp) {
        self.entries.rest(id);
        if let Some(entry) = self.entries.get_mut(id) {
            if !entry.is_dead() {
                self.tally.leave(entry.created, entry.attempts);
            }
            entry.status = EntryStatus::Dead(why);
        }
    }

    /// Takes a dead letter back; `false` when it was none.
    fn revive(&mut self, id: &TransactionId, due: Duration) -> bool {
        let dead = self.is_dead(id);
        if dead {
            if let Some(entry) = self.entries.get_mut(id) {
                (entry.attempts, entry.excused, entry.status) = (0, 0, EntryStatus::Open);
                entry.forget_refusals();
                self.tally.enter(entry.created, 0);
            }
            self.wait(id, due);
        }
        dead
    }

    pub(super) fn remove(&mut self, id: &TransactionId) -> Option<Vec<PeerId>> {
        let entry = self.entries.remove(id)?;
        if !entry.is_dead() {
            self.tally.leave(entry.created, entry.attempts);
        }
        self.stale_count -= usize::from(entry.is_stale());
        Some(entry.into_peers())
    }

    fn next_due(&self) -> Option<Duration> {
        self.entries.next_due()
    }

    /// Takes at most `limit` entries whose round is over.
    fn take_due(&self, online: Duration, limit: usize) -> Vec<TransactionId> {
        self.entries.over(online, limit)
    }

    /// Ends a round; how many there were without any taker.
    fn count_round(&mut self, id: &TransactionId, offered: bool) -> u32 {
        let Some(entry) = self.entries.get_mut(id) else { return 0 };
        let wanted = std::mem::take(&mut entry.wanted);
        if entry.take_put_off() {
            // It will be taken when a clock is right, or when there is room.
        } else if wanted && entry.excused < MAX_EXCUSED {
            entry.excused += 1;
        } else if offered && entry.peers().is_empty() {
            let attempts = entry.attempts.saturating_add(1);
            self.set_attempts(id, attempts);
            return u32::from(attempts);
        }
        u32::from(entry.attempts)
    }

    fn has_confirmed(&self, id: &TransactionId, peer: &PeerId) -> bool {
        self.confirmed_by(id).contains(peer)
    }

    /// Notes a confirmation; how many there are now, unless this one is not new.
    fn confirm(&mut self, id: &TransactionId, peer: PeerId) -> Option<u32> {
        if let Some(entry) = self.entries.get_mut(id) {
            return entry.note_confirmed(peer).then(|| entry.peers().len().try_into().ok())?;
        }
        let peers = self.finished.get_mut(id)?;
        if peers.contains(&peer) {
            return None;
        }
        peers.push(peer);
        u32::try_from(peers.len()).ok()
    }

    /// Takes an entry out; `false` when it was out already.
    fn finish(&mut self, id: &TransactionId) -> bool {
        let Some(peers) = self.remove(id) else { return false };
        if self.order.len() >= MAX_FINISHED
            && let Some(oldest) = self.order.pop_front()
        {
            self.finished.remove(&oldest);
            self.forgotten.push(oldest);
        }
        self.finished.insert(*id, peers);
        self.order.push_back(*id);
        true
    }

    fn status(&self, id: &TransactionId) -> PublishStatus {
        let count = |peers: &[PeerId]| u32::try_from(peers.len()).unwrap_or(u32::MAX);
        let mut status = PublishStatus::default();
        if let Some(entry) = self.entries.get(id) {
            status.copies = count(entry.peers());
            status.refused = entry.refusal();
            if let EntryStatus::Dead(why) = entry.status {
                status.state = PublishState::DeadLetter { reason: why.reason().to_owned() };
            }
        } else {
            let peers = self.finished.get(id);
            status.state = PublishState::Confirmed;
            status.settled = peers.is_none();
            // It left the outbox too long ago, or in an earlier run: at least one had it.
            status.copies = peers.map_or(1, |peers| count(peers));
        }
        status
    }

    fn confirmed(&self) -> Vec<(TransactionId, u32)> {
        let count = |entry: &Entry| u32::try_from(entry.peers().len()).unwrap_or(u32::MAX);
        let all = self.entries.iter().map(|entry| (*entry.id(), count(entry)));
        all.filter(|(_, copies)| *copies > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> TransactionId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        TransactionId::from_bytes(bytes)
    }

    const fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn day(n: u32) -> WallTime {
        WallTime::default().plus(SECOND * 86_400 * n)
    }

    fn outbox(queued: Vec<Queued>) -> Outbox {
        Outbox::restore(queued, 2, None, &mut Rng::new([0; 32]))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_peer_counts_once_and_finished_entries_are_bounded() {
        let mut outbox = outbox(vec![]);
        outbox.insert(id(0), day(0), SECOND);
        assert_eq!(outbox.confirm(&id(0), peer(1)), Some(1));
        assert_eq!(outbox.confirm(&id(0), peer(1)), None);
        assert!(outbox.finish(&id(0)) && !outbox.finish(&id(0)));
        assert_eq!(outbox.confirm(&id(0), peer(2)), Some(2), "receipts may wait for more");
        assert_eq!(outbox.confirm(&id(7), peer(2)), None, "not ours");
        for n in 1..=20_000 {
            outbox.insert(id(n), day(n), SECOND);
            outbox.finish(&id(n));
        }
        assert_eq!((outbox.len(), outbox.entries.waiting()), (0, 0));
        assert_eq!(outbox.finished.len(), MAX_FINISHED);
        assert_eq!(outbox.forgotten.len(), 20_001 - MAX_FINISHED);
    }

    #[test]
    fn a_round_counts_only_if_it_was_offered_and_nobody_took_it() {
        let mut outbox = outbox(vec![]);
        outbox.insert(id(0), day(0), SECOND);
        assert_eq!(outbox.count_round(&id(0), false), 0, "nobody was there");
        outbox.note_wanted(&id(0));
        assert_eq!(outbox.count_round(&id(0), true), 0, "somebody is fetching it");
        assert_eq!(outbox.count_round(&id(0), true), 1);
        for _ in 0..10 {
            outbox.note_wanted(&id(0));
            outbox.count_round(&id(0), true);
        }
        assert_eq!(outbox.count_round(&id(0), true), 8, "fetching does not excuse for ever");
        outbox.confirm(&id(0), peer(1));
        assert_eq!(outbox.count_round(&id(0), true), 8, "somebody has it");
    }

    #[test]
    fn dead_letters_stay_and_come_back() {
        let mut outbox = outbox(vec![]);
        outbox.insert(id(0), day(0), SECOND);
        outbox.bury(&id(0), GivenUp::NoTaker);
        assert_eq!((outbox.len(), outbox.dead(), outbox.next_due()), (1, 1, None));
        assert!(outbox.is_dead(&id(0)) && !outbox.is_waiting(&id(0)));
        assert!(outbox.revive(&id(0), SECOND) && !outbox.revive(&id(0), SECOND));
        assert_eq!((outbox.dead(), outbox.next_due()), (0, Some(SECOND)));
        assert_eq!(outbox.take_due(SECOND, 10), [id(0)]);
        assert_eq!(outbox.take_due(SECOND / 2, 10), []);
    }

    #[test]
    fn what_could_not_be_published_anew_keeps_its_place() {
        let mut outbox = outbox(vec![]);
        for n in 0..5 {
            outbox.insert(id(n), day(n), SECOND);
            outbox.set_stale(&id(n));
        }
        let first: Vec<_> = (0..3).map(|n| outbox.next_stale(n > 0)).collect();
        assert_eq!(first, [Some(id(0)), Some(id(1)), Some(id(2))]);
        outbox.put_back_stale(id(0));
        assert_eq!(outbox.next_stale(true), None, "not out of its turn");
        outbox.put_back_stale(id(2));
        assert!(outbox.end_stale(&id(1)) && !outbox.end_stale(&id(1)));
        assert_eq!(outbox.dead(), 1);
        let rest: Vec<_> = (0..5).map(|n| outbox.next_stale(n > 0)).collect();
        assert_eq!(rest, [Some(id(0)), Some(id(2)), Some(id(3)), Some(id(4)), None]);
    }

    #[test]
    fn the_clock_stands_still_while_offline() {
        let mut clock = OnlineClock::default();
        let at = |seconds| MonoTime::ZERO + SECOND * seconds;
        assert_eq!(clock.at(at(100)), Duration::ZERO);
        clock.run(at(100), true);
        clock.run(at(101), true);
        assert_eq!(clock.at(at(103)), SECOND * 3);
        clock.run(at(104), false);
        clock.run(at(200), false);
        assert_eq!(clock.at(at(300)), SECOND * 4);
        clock.run(at(300), true);
        assert_eq!(clock.at(at(301)), SECOND * 5);
    }

    #[test]
    fn what_an_earlier_run_left_is_taken_up() {
        let queued = |n, attempts, dead| Queued {
            id: id(n),
            created: day(n),
            attempts,
            dead,
            unlogged: false,
        };
        let mut outbox = outbox(vec![queued(1, 4, None), queued(2, 5, Some(GivenUp::Expired))]);
        assert_eq!((outbox.len(), outbox.dead()), (2, 1));
        assert!(outbox.waiting().eq([&id(1)]));
        assert_eq!((outbox.oldest(), outbox.attempts()), (Some(day(1)), 4), "of what waits");
        assert_eq!(outbox.count_round(&id(1), true), 5);
        assert_eq!(outbox.attempts(), 5);
    }

    #[test]
    fn the_oldest_and_its_attempts_are_of_what_waits() {
        let mut outbox = outbox(vec![]);
        for n in [3, 2, 4] {
            outbox.insert(id(n), day(n), SECOND);
            outbox.insert(id(n), day(9), SECOND);
            outbox.count_round(&id(n), true);
        }
        let seen = |outbox: &Outbox| (outbox.oldest(), outbox.attempts());
        assert_eq!(seen(&outbox), (Some(day(2)), 3));
        outbox.bury(&id(2), GivenUp::NoTaker);
        outbox.bury(&id(2), GivenUp::Refused);
        assert_eq!(seen(&outbox), (Some(day(3)), 2), "a dead letter does not wait");
        outbox.set_stale(&id(3));
        assert_eq!(outbox.oldest(), Some(day(3)), "what is to be published anew does");
        outbox.insert(id(5), day(5), SECOND);
        outbox.replace(&id(3), id(5));
        assert_eq!(seen(&outbox), (Some(day(4)), 2), "and hands its attempts on");
        outbox.revive(&id(2), SECOND);
        assert_eq!(seen(&outbox), (Some(day(2)), 2), "it begins anew");
        outbox.bury(&id(5), GivenUp::NoTaker);
        assert_eq!(seen(&outbox), (Some(day(2)), 1));
        for n in [2, 4, 5] {
            outbox.finish(&id(n));
        }
        assert_eq!(seen(&outbox), (None, 0));
    }
}
