//! Own transactions until enough others have stored them.
//!
//! ```text
//! published ──► waiting ──enough confirmed──► finished (still counted for receipts for a while)
//!                │   ▲ │
//!   no taker in  │   │ ├──expired, too few have it──► dead
//!   max_retries  │   │ └──expired, nobody has it──► stale ──a link──► published anew (`renew`)
//!   rounds       │   └─somebody confirmed, or the host asked
//!                └──► dead
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
//! Only linked peers count that take the topic: edges that do not want it are not asked, and while
//! nobody takes it there is no attempt.
//!
//! Time without any link does not count: `due` is measured on a clock that stands still then, so a
//! week offline costs no attempt and no work.

mod entries;
mod publish;
mod replay;
mod republish;

pub(super) use replay::Replays;

pub use entries::GivenUp;
#[cfg(any(test, feature = "sim"))]
pub(super) use replay::MAX_ORDER;
pub(super) use replay::{Held, Owed};
pub(crate) use republish::RENEWALS;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::types::{
    Announcement, EntryState, Event, LinkId, MonoTime, PeerId, PublishState, PublishStatus,
    TransactionId,
};

use crate::protocol::Protocol;
use crate::protocol::io::CallId;
use crate::protocol::io::{Output, Queued};
use crate::protocol::rng::Rng;
use crate::protocol::timers::Timer;
use entries::{Entries, Entry, Fate};

/// Confirmed transactions whose further confirmations are still counted.
const MAX_FINISHED: usize = 16_384;
/// The first round is over after this; a large payload on a slow link is asked for by then.
const FIRST_ROUND: Duration = Duration::from_secs(5);
/// Rounds do not become longer than this.
const LONGEST_ROUND: Duration = Duration::from_mins(5);
/// Rounds in which somebody fetches it and still does not confirm, before they count: a transfer may
/// take long, but a peer that cannot keep what it fetches must not keep the entry waiting for ever.
const MAX_EXCUSED: u8 = 5;
/// Entries looked at in one turn, and the time until the next: what is announced can leave between.
const TURN: (usize, Duration) = (1024, Duration::from_millis(1));

impl Protocol {
    /// A peer has stored these of ours.
    pub(super) fn on_confirmed(&mut self, link: LinkId, ids: &[TransactionId]) {
        let Some(l) = self.links.all.get(&link) else { return };
        let (peer, slot) = (l.remote, self.links.slot_of(link));
        let (ashore, alike) = (self.is_uphill(link), self.needed_of_all());
        let online = self.outbox.clock.at(self.env.now);
        let (mut done, mut revived) = (Vec::new(), Vec::new());
        for id in ids {
            if let Some(record) = self.log.find_mut(id).filter(|_| ashore) {
                record.set_ashore();
            }
            let Some(peers) = self.outbox.confirm(id, peer) else { continue };
            let needed = self.copies_needed(id, alike);
            self.env.emit(Event::Replicated { id: *id, peers });
            if let Some(slot) = slot {
                self.log.note_known(id, slot);
            }
            if (peers >= needed || self.outbox.is_stale(id)) && self.outbox.finish(id) {
                done.push(*id);
            } else if self.outbox.revive(id, online + FIRST_ROUND) {
                revived.push(*id);
            }
        }
        self.leave_outbox(done);
        self.note_revived(&revived);
        self.arm_outbox();
        self.note_owed_stored(link, ids);
    }

    /// How many peers have to confirm an entry: as many of those that are well as take its topic.
    fn copies_needed(&self, id: &TransactionId, of_all: Option<u32>) -> u32 {
        if let Some(needed) = of_all {
            return needed;
        }
        let record = self.log.find(id);
        let takes = |link: &LinkId| record.is_none_or(|record| self.takes(*link, record));
        self.enough(self.links.well(self.env.now).filter(takes).count())
    }

    /// Whether an own transaction waits for copies that a linked peer may make.
    pub(super) fn waits_for_taker(&self) -> bool {
        let links = self.links.up_ids();
        if links.is_empty() || self.peers_take_all() {
            return !links.is_empty() && self.outbox.entries.waiting() > 0;
        }
        let taken = |id: &TransactionId| {
            let record = self.log.find(id);
            record.is_some_and(|record| links.iter().any(|link| self.takes(*link, record)))
        };
        let mut entries = self.outbox.entries.iter();
        entries.any(|entry| entry.has_round() && taken(entry.id()))
    }

    /// How many have to confirm any entry, where every linked peer takes every topic.
    fn needed_of_all(&self) -> Option<u32> {
        self.peers_take_all().then(|| self.enough(self.links.well(self.env.now).count()))
    }

    /// Whether every linked peer takes every topic.
    fn peers_take_all(&self) -> bool {
        let mut ups = self.links.all.values().filter_map(|l| l.up.as_ref());
        ups.all(|up| up.interest.theirs.topics.is_none())
    }

    fn enough(&self, takers: usize) -> u32 {
        let takers = u32::try_from(takers).unwrap_or(u32::MAX);
        self.env.config.outbox.min_copies.min(takers.max(1))
    }

    fn leave_outbox(&mut self, ids: Vec<TransactionId>) {
        if !ids.is_empty() {
            self.env.counters.transactions_replicated += ids.len() as u64;
            let forgotten = std::mem::take(&mut self.outbox.forgotten);
            self.env.push(Output::Confirmed { ids, forgotten });
        }
    }

    /// Links came or went, are no longer well, or want something else: fewer takers may mean that
    /// fewer copies are enough, and without any link time stands still.
    pub(super) fn recheck_outbox(&mut self) {
        let needed = self.enough(self.links.well(self.env.now).count());
        let fewer = std::mem::replace(&mut self.outbox.copies_wanted, needed) > needed;
        let online = self.links.up_count() > 0;
        let alike = self.needed_of_all();
        if online && (fewer || alike.is_none()) {
            let mut done = self.outbox.confirmed();
            done.retain(|(id, copies)| *copies >= self.copies_needed(id, alike));
            let done: Vec<_> = done.into_iter().map(|(id, _)| id).collect();
            for id in &done {
                self.outbox.finish(id);
            }
            self.leave_outbox(done);
        }
        self.outbox.clock.run(self.env.now, online);
        self.arm_outbox();
        self.renew_stale();
    }

    /// An entry was added: somebody should have confirmed it when its first round is over.
    fn watch_outbox(&mut self, id: TransactionId) {
        let due = self.outbox.clock.at(self.env.now) + FIRST_ROUND;
        self.outbox.insert(id, due);
        self.arm_outbox();
    }

    fn arm_outbox(&mut self) {
        let (Some(due), true) = (self.outbox.next_due(), self.outbox.clock.is_running()) else {
            self.env.timers.cancel(Timer::Outbox);
            return;
        };
        let wait = due.saturating_sub(self.outbox.clock.at(self.env.now));
        self.env.timers.set(Timer::Outbox, self.env.now + wait);
    }

    /// Some rounds are over.
    pub(super) fn on_outbox_due(&mut self) {
        self.recheck_outbox();
        let online = self.outbox.clock.at(self.env.now);
        let mut states = Vec::new();
        let due = self.outbox.take_due(online, TURN.0);
        let more = due.len() == TURN.0;
        for id in due {
            let offered = self.offer_again(&id);
            let retries = self.env.config.outbox.max_retries;
            let attempts = self.outbox.count_round(&id, offered);
            if attempts >= retries {
                states.push((id, self.bury(&id, GivenUp::NoTaker)));
                continue;
            }
            let longest = FIRST_ROUND.saturating_mul(1 << attempts.min(16)).min(LONGEST_ROUND);
            // Never at once: what was offered a moment ago may be on its way.
            let delay = FIRST_ROUND / 5 + self.env.rng.jitter(longest);
            self.outbox.wait(&id, online + delay);
            if offered {
                let due = self.env.wall.plus(delay);
                states.push((id, EntryState::Waiting { attempts, due }));
            }
        }
        if !states.is_empty() {
            self.env.push(Output::UpdateOutbox { states });
        }
        self.arm_outbox();
        if more && self.outbox.clock.is_running() {
            self.env.timers.set(Timer::Outbox, self.env.now + TURN.1);
        }
    }

    /// Announces an entry to whoever has not confirmed it; whether anybody could be told.
    fn offer_again(&mut self, id: &TransactionId) -> bool {
        let Some(seq) = self.log.seq_of(id) else { return false };
        let Some(entry) = self.log.at(seq).copied() else { return false };
        let announcement = Announcement { id: *id, size: u64::from(entry.size), hop: 0 };
        let mut offered = false;
        for link in self.links.up_ids() {
            let Some(l) = self.links.all.get(&link) else { continue };
            let takes = l.up.as_ref().is_some_and(|up| up.max_transaction >= announcement.size)
                && self.takes(link, &entry);
            let owed = l.up.as_ref().and_then(|up| up.feed.owed.as_ref());
            let coming = owed.is_some_and(|owed| owed.covers(seq));
            // A slow peer is not told twice: its cursor comes to it.
            let told = self.outbox.has_confirmed(id, &l.remote) || coming;
            if !takes || told || !self.may_pump(link) {
                continue;
            }
            if let Some(batch) = self.links.batch(link) {
                batch.announce.push(announcement);
                offered = true;
            }
        }
        if offered {
            self.env.counters.outbox_retries += 1;
        }
        offered
    }

    fn bury(&mut self, id: &TransactionId, why: GivenUp) -> EntryState {
        self.outbox.bury(id, why);
        self.env.counters.dead_letters += 1;
        let reason = why.reason().to_owned();
        self.env.emit(Event::DeadLettered { id: *id, reason: reason.clone() });
        EntryState::Dead { reason, since: self.env.wall }
    }

    /// What of our own expired without enough copies is a dead letter, and what expired without any
    /// is published anew.
    pub(super) fn bury_expired(&mut self, own: &[TransactionId]) {
        let left = own.iter().filter(|id| self.outbox.is_waiting(id) && !self.outbox.is_stale(id));
        let (taken, untaken): (Vec<_>, Vec<_>) = left.partition(|id| self.outbox.has_copies(id));
        for id in untaken {
            self.outbox.set_stale(id);
        }
        let states: Vec<_> =
            taken.into_iter().map(|id| (*id, self.bury(id, GivenUp::Expired))).collect();
        if !states.is_empty() {
            self.env.push(Output::UpdateOutbox { states });
            self.arm_outbox();
        }
    }

    /// What expired before anybody had it, and is now more than this node takes, is a dead letter: it
    /// keeps those behind it waiting no longer.
    fn bury_too_large(&mut self, id: TransactionId) {
        if self.outbox.end_stale(&id) {
            let states = vec![(id, self.bury(&id, GivenUp::TooLarge))];
            self.env.push(Output::UpdateOutbox { states });
        }
    }

    /// The host wants a dead letter to be offered again.
    pub(super) fn on_redeliver(&mut self, id: TransactionId) {
        // Offered at once, and its first round is over later: else it would be without a taker.
        let due = self.outbox.clock.at(self.env.now) + FIRST_ROUND;
        if self.log.contains(&id) && self.outbox.revive(&id, due) {
            self.offer_again(&id);
            self.note_revived(&[id]);
            self.arm_outbox();
        }
    }

    fn note_revived(&mut self, ids: &[TransactionId]) {
        if ids.is_empty() {
            return;
        }
        let state = EntryState::Waiting { attempts: 0, due: self.env.wall };
        let states = ids.iter().map(|id| (*id, state.clone())).collect();
        self.env.push(Output::UpdateOutbox { states });
    }

    /// The host deletes a dead letter; its row is the caller's to remove.
    pub(super) fn on_drop_dead(&mut self, id: &TransactionId) {
        if self.outbox.is_dead(id) {
            // Who publishes it once more is to know that nobody need have it.
            self.outbox.finish(id);
        }
    }

    /// How far a transaction got that this node has published.
    pub fn publish_status(&self, id: &TransactionId) -> PublishStatus {
        self.outbox.status(id)
    }
}

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
    /// Those that are neither dead nor stale wait for the end of a round, on the online clock.
    entries: Entries,
    /// Stale entries, in the order of publishing; those being published anew are not among them.
    stale: VecDeque<TransactionId>,
    /// Those that could not be published anew just now, in that order.
    returned: VecDeque<TransactionId>,
    /// Stale entries in all.
    stale_count: usize,
    clock: OnlineClock,
    /// Out of the outbox, but still counted for receipts; the oldest is forgotten first.
    finished: BTreeMap<TransactionId, Vec<PeerId>>,
    order: VecDeque<TransactionId>,
    /// Those whose receipts are still to be told that.
    forgotten: Vec<TransactionId>,
    /// Being stored, and the calls that wait for it.
    publishing: BTreeMap<TransactionId, Vec<CallId>>,
    /// What they will take up.
    publishing_bytes: u64,
    /// Entries that are being published anew.
    renewing: usize,
    /// As many of them as may be under way.
    renewals: usize,
    /// Entries that wait since before the start, until it is known which the log has.
    pub(super) restored: Vec<TransactionId>,
    /// Peers that had to confirm an entry when that was last looked at.
    copies_wanted: u32,
}

impl Outbox {
    /// What an earlier run left.
    pub(super) fn restore(
        queued: Vec<Queued>,
        min_copies: u32,
        spare_places: Option<usize>,
        rng: &mut Rng,
    ) -> Self {
        let waits = |q: &&Queued| q.dead.is_none() && !q.late;
        let mut outbox = Self {
            entries: Entries::new(rng),
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
        };
        for Queued { id, attempts, dead, .. } in queued {
            outbox.insert(id, FIRST_ROUND);
            if let Some(entry) = outbox.entries.get_mut(&id) {
                entry.attempts = u8::try_from(attempts).unwrap_or(u8::MAX);
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

    pub(super) fn contains(&self, id: &TransactionId) -> bool {
        self.entries.get(id).is_some()
    }

    /// Those that wait for copies.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &TransactionId> {
        self.entries.iter().filter(|entry| !entry.is_dead()).map(Entry::id)
    }

    pub(super) fn is_dead(&self, id: &TransactionId) -> bool {
        self.entries.get(id).is_some_and(Entry::is_dead)
    }

    pub(super) fn is_waiting(&self, id: &TransactionId) -> bool {
        self.entries.get(id).is_some_and(|entry| !entry.is_dead())
    }

    fn is_stale(&self, id: &TransactionId) -> bool {
        self.entries.get(id).is_some_and(Entry::is_stale)
    }

    fn has_copies(&self, id: &TransactionId) -> bool {
        self.entries.get(id).is_some_and(|entry| !entry.peers().is_empty())
    }

    /// It has expired, and nobody has it.
    pub(super) fn set_stale(&mut self, id: &TransactionId) {
        self.entries.rest(id);
        if let Some(entry) = self.entries.get_mut(id).filter(|entry| !entry.is_stale()) {
            entry.fate = Fate::Stale;
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

    /// It could not be published anew, and is tried again.
    fn put_back_stale(&mut self, id: TransactionId) {
        if self.is_stale(&id) {
            self.returned.push_back(id);
        }
    }

    /// It can never be published anew.
    fn end_stale(&mut self, id: &TransactionId) -> bool {
        let entry = self.entries.get_mut(id).filter(|entry| entry.is_stale());
        entry.is_some_and(|entry| {
            entry.fate = Fate::Open;
            self.stale_count -= 1;
            true
        })
    }

    /// `new` takes the place of `old`, with the attempts that are left to it.
    pub(super) fn replace(&mut self, old: &TransactionId, new: TransactionId) {
        let attempts = self.entries.get(old).map_or(0, |entry| entry.attempts);
        self.remove(old);
        if let Some(entry) = self.entries.get_mut(&new) {
            entry.attempts = attempts;
        }
    }

    /// A peer asked for this.
    pub(super) fn note_wanted(&mut self, id: &TransactionId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.wanted = true;
        }
    }

    fn insert(&mut self, id: TransactionId, due: Duration) {
        self.entries.insert(id);
        self.wait(&id, due);
    }

    fn wait(&mut self, id: &TransactionId, due: Duration) {
        self.entries.wait(id, due);
    }

    fn bury(&mut self, id: &TransactionId, why: GivenUp) {
        self.entries.rest(id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.fate = Fate::Dead(why);
        }
    }

    /// Takes a dead letter back; `false` when it was none.
    fn revive(&mut self, id: &TransactionId, due: Duration) -> bool {
        let dead = self.is_dead(id);
        if dead {
            if let Some(entry) = self.entries.get_mut(id) {
                (entry.attempts, entry.excused, entry.fate) = (0, 0, Fate::Open);
            }
            self.wait(id, due);
        }
        dead
    }

    pub(super) fn remove(&mut self, id: &TransactionId) -> Option<Vec<PeerId>> {
        let entry = self.entries.remove(id)?;
        self.stale_count -= usize::from(entry.is_stale());
        Some(entry.into_peers())
    }

    fn next_due(&self) -> Option<Duration> {
        self.entries.next_due()
    }

    /// At most `limit` entries whose round is over.
    fn take_due(&self, online: Duration, limit: usize) -> Vec<TransactionId> {
        self.entries.over(online, limit)
    }

    /// Ends a round; how many there were without any taker.
    fn count_round(&mut self, id: &TransactionId, offered: bool) -> u32 {
        let Some(entry) = self.entries.get_mut(id) else { return 0 };
        let wanted = std::mem::take(&mut entry.wanted);
        if wanted && entry.excused < MAX_EXCUSED {
            entry.excused += 1;
        } else if offered && entry.peers().is_empty() {
            entry.attempts = entry.attempts.saturating_add(1);
        }
        u32::from(entry.attempts)
    }

    fn has_confirmed(&self, id: &TransactionId, peer: &PeerId) -> bool {
        let finished = || self.finished.get(id).map(Vec::as_slice);
        let peers = self.entries.get(id).map(Entry::peers).or_else(finished);
        peers.is_some_and(|peers| peers.contains(peer))
    }

    /// Notes a confirmation; how many there are now, unless this one is not new.
    fn confirm(&mut self, id: &TransactionId, peer: PeerId) -> Option<u32> {
        let peers = match self.entries.get_mut(id) {
            Some(entry) => entry.peers_mut(),
            None => self.finished.get_mut(id)?,
        };
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
            if let Fate::Dead(why) = entry.fate {
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

    fn outbox(queued: Vec<Queued>) -> Outbox {
        Outbox::restore(queued, 2, None, &mut Rng::new([0; 32]))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_peer_counts_once_and_finished_entries_are_bounded() {
        let mut outbox = outbox(vec![]);
        outbox.insert(id(0), SECOND);
        assert_eq!(outbox.confirm(&id(0), peer(1)), Some(1));
        assert_eq!(outbox.confirm(&id(0), peer(1)), None);
        assert!(outbox.finish(&id(0)) && !outbox.finish(&id(0)));
        assert_eq!(outbox.confirm(&id(0), peer(2)), Some(2), "receipts may wait for more");
        assert_eq!(outbox.confirm(&id(7), peer(2)), None, "not ours");
        for n in 1..=20_000 {
            outbox.insert(id(n), SECOND);
            outbox.finish(&id(n));
        }
        assert_eq!((outbox.len(), outbox.entries.waiting()), (0, 0));
        assert_eq!(outbox.finished.len(), MAX_FINISHED);
        assert_eq!(outbox.forgotten.len(), 20_001 - MAX_FINISHED);
    }

    #[test]
    fn a_round_counts_only_if_it_was_offered_and_nobody_took_it() {
        let mut outbox = outbox(vec![]);
        outbox.insert(id(0), SECOND);
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
        outbox.insert(id(0), SECOND);
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
            outbox.insert(id(n), SECOND);
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
        let queued = |n, attempts, dead| Queued { id: id(n), attempts, dead, late: false };
        let mut outbox = outbox(vec![queued(1, 4, None), queued(2, 5, Some(GivenUp::Expired))]);
        assert_eq!((outbox.len(), outbox.dead()), (2, 1));
        assert!(outbox.waiting().eq([&id(1)]));
        assert_eq!(outbox.count_round(&id(1), true), 5);
    }
}
