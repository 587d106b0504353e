//! What time it is: the own clock, and how far it is to be trusted.
//!
//! A clock may be wrong at the start, leap while the node runs, and come right again. Three times are
//! told apart:
//!
//! | time | what it is | what goes by it |
//! |---|---|---|
//! | `reading` | the own clock as it reads | peers are told it, and nothing else |
//! | `wall` | the reading, corrected while peers agree that it is off | what is admissible, what is signed and published |
//! | `corroborated` | `wall`, as far as there is more than one reading for it | when bans end |
//! | `settled` | a little before that | what is forgotten |
//!
//! **Off or right.** Peers say what their clocks read (in the hello, and again when asked). Peers of one
//! address group have one vote together, their median; where all are of one group, as on one LAN,
//! each has its own. The clock is off when more than half of the votes lie within `max_clock_skew` of
//! each other and further than that from the reading, and there are at least two of them, or three
//! where so many vote. Where the peers that we dialled ourselves have three votes, only they vote:
//! anybody can come in from as many groups as they own, but has few of the places that we choose. It is
//! right when more than half of the votes are within `max_clock_skew`. Where
//! neither holds, the verdict before stays. So a few peers that lie change nothing, however far from
//! the truth they are.
//!
//! **A leap.** When the reading moves by more than `max_clock_skew` beside monotonic time, what
//! peers said before does not count any more (it may be monotonic time that stood still), and they
//! are asked again. Time that a peer confirmed before the leap, continued, is one more vote against
//! the new reading, which has one for itself. Until the answers are there, for `ASKING` at most,
//! `wall` goes on as if nothing had happened.
//!
//! **What is corroborated.** It starts with the newest time in the store at which others' transactions
//! were created (or own ones, where there are no others), goes on with monotonic time,
//! and may exceed that by `max_clock_skew`. It follows `wall` once a peer's vote has confirmed it, or once
//! the reading has kept pace with monotonic time for the retention (10 min at least) and no peer
//! objects: by then all that was retained at the beginning has expired by monotonic time alone, so
//! that no more is ever kept than two retentions bring. While peers say that it is later than the own
//! clock reads, it follows them only after that long too: a few of them may be liars, and what was
//! forgotten does not come back. `settled` stays behind by a 32nd of the
//! retention, at most by `max_clock_skew`, so that an id is known for longer than its transaction is
//! admissible, also after a small step back.
//!
//! Invariants: `settled` is at most `corroborated`, and that at most `wall`; one reading moves both by
//! at most the monotonic time that passed and `max_clock_skew`; one sample a link.
//!
//! Tested by: `protocol::clock::tests`, `sim::tests::clocks`, `protocol::tests::clocks`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Config;
use crate::types::{LinkId, MonoTime, WallTime};

/// Time after a leap during which the answers of peers are waited for.
const ASKING: Duration = Duration::from_secs(30);
/// Minimum time for which a clock that nobody confirms has to run evenly before it is obeyed.
const MIN_EVEN: Duration = Duration::from_mins(10);
/// Change of a correction that is too small to matter, in milliseconds: round trips are in it.
const NEGLIGIBLE: u64 = 1000;
/// Number of votes of peers that we dialled from which on only they count.
const MIN_DIALLED: usize = 3;
/// Minimum time between two samples of one peer's clock.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Age at which what a peer said is asked for anew: two clocks drift apart by half a second in it.
const SAMPLE_AGE: Duration = Duration::from_hours(1);

/// What peers say of the own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not enough of them have said anything.
    Unknown,
    Right,
    Off,
}

/// Judgement of the own clock at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    /// Milliseconds from the reading to the time of others.
    Off(i64),
}

/// Clock of a peer, as it was when we heard it.
#[derive(Debug, Clone, Copy)]
struct Sample {
    group: u64,
    /// True: we dialled that peer.
    is_dialled: bool,
    at: MonoTime,
    clock: WallTime,
}

/// A time that was believed at some moment.
#[derive(Debug, Clone, Copy, Default)]
struct Anchor {
    at: MonoTime,
    wall: WallTime,
    /// True: peers confirmed it.
    is_confirmed: bool,
}

impl Anchor {
    fn continued(&self, now: MonoTime) -> WallTime {
        self.wall.plus(now.since(self.at))
    }
}

/// Verdict of peers that it is later than the own clock reads.
#[derive(Debug, Clone, Copy)]
struct Lead {
    since: MonoTime,
    /// Milliseconds by which it is later.
    amount: i64,
    /// What was corroborated when they began to say so.
    before: Anchor,
}

#[derive(Debug)]
pub(super) struct Clock {
    skew: Duration,
    retention: Duration,
    /// True: it was read.
    is_started: bool,
    now: MonoTime,
    reading: WallTime,
    /// Time since when the reading keeps pace with monotonic time.
    even_since: MonoTime,
    /// True: the reading leapt after the anchor was set.
    has_leapt: bool,
    anchor: Anchor,
    /// Time of the newest own transaction in the store at the start.
    newest_own: WallTime,
    samples: BTreeMap<LinkId, Sample>,
    standing: Standing,
    /// Milliseconds from the reading to `wall`.
    correction: i64,
    lead: Option<Lead>,
    /// Correction that the host was told of, while the clock is off.
    pub(super) told_off: Option<i64>,
    /// Time of the latest warning.
    pub(super) warned: Option<MonoTime>,
}

impl Clock {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            skew: config.network.max_clock_skew,
            retention: config.gossip.retention,
            is_started: false,
            now: MonoTime::ZERO,
            reading: WallTime::default(),
            even_since: MonoTime::ZERO,
            has_leapt: false,
            anchor: Anchor::default(),
            newest_own: WallTime::default(),
            samples: BTreeMap::new(),
            standing: Standing::Unknown,
            correction: 0,
            lead: None,
            told_off: None,
            warned: None,
        }
    }

    /// Notes when something in the store was created; before the first reading. What is our own was
    /// dated by a clock that may have been wrong, and counts only where there is nothing else.
    pub(super) fn note_stored(&mut self, created: WallTime, is_own: bool) {
        let newest = if is_own { &mut self.newest_own } else { &mut self.anchor.wall };
        *newest = created.max(*newest);
    }

    /// Takes a reading; `true` when the clock has leapt.
    pub(super) fn read(&mut self, now: MonoTime, reading: WallTime) -> bool {
        let expected = self.reading.plus(now.since(self.now));
        (self.now, self.reading) = (now, reading);
        if !std::mem::replace(&mut self.is_started, true) {
            self.even_since = now;
            let known = [self.anchor.wall, self.newest_own, reading];
            let known = known.into_iter().find(|wall| *wall != WallTime::default());
            self.anchor.wall = known.unwrap_or_default();
            self.anchor.at = now;
            return false;
        }
        if !self.is_far(between(expected, reading)) {
            return false;
        }
        (self.even_since, self.has_leapt, self.standing) = (now, true, Standing::Unknown);
        self.correction = 0;
        if self.anchor.is_confirmed {
            let back = between(reading, self.anchor.continued(now));
            if self.is_far(back) {
                self.correction = back;
            } else {
                // A clock that was wrong is right again.
                self.settle(Standing::Right);
            }
        }
        true
    }

    pub(super) fn is_started(&self) -> bool {
        self.is_started
    }

    /// Returns what the own clock reads, as peers are told it; `None` for a clock that says nothing.
    pub(super) fn told(&self) -> Option<WallTime> {
        Some(self.reading).filter(|reading| *reading != WallTime::default())
    }

    /// Returns the time by which things are admissible.
    pub(super) fn wall(&self) -> WallTime {
        shift(self.reading, self.correction)
    }

    /// Returns `wall` as far as it is corroborated.
    pub(super) fn corroborated(&self) -> WallTime {
        let known = self.wall().min(self.anchor.continued(self.now).plus(self.skew));
        match &self.lead {
            Some(lead) if self.now.since(lead.since) < self.patience() => {
                known.min(self.reading.max(lead.before.continued(self.now)))
            }
            _ => known,
        }
    }

    /// Returns the time by which transactions are forgotten.
    pub(super) fn settled(&self) -> WallTime {
        self.corroborated().minus(self.skew.min(self.retention / 32))
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// Returns the milliseconds from the reading to `wall`.
    pub(super) fn correction(&self) -> i64 {
        self.correction
    }

    /// Notes what the clock of a peer reads now; `false` where it said so a moment ago, since each word
    /// costs a judgement.
    pub(super) fn note_sample(
        &mut self,
        link: LinkId,
        group: u64,
        is_dialled: bool,
        clock: WallTime,
    ) -> bool {
        let is_new = |s: &Sample| self.is_fresh(s) && self.now.since(s.at) < SAMPLE_EVERY;
        if self.samples.get(&link).is_some_and(is_new) {
            return false;
        }
        self.samples.insert(link, Sample { group, is_dialled, at: self.now, clock });
        true
    }

    pub(super) fn forget_sample(&mut self, link: LinkId) {
        self.samples.remove(&link);
    }

    /// Links whose peers say their clocks, and have not said so for long or since a leap.
    pub(super) fn outdated(&self) -> Vec<LinkId> {
        let is_old =
            |sample: &Sample| !self.is_fresh(sample) || self.now.since(sample.at) >= SAMPLE_AGE;
        self.samples.iter().filter(|(_, sample)| is_old(sample)).map(|(link, _)| *link).collect()
    }

    /// Links whose peers say their clocks.
    pub(super) fn sampled(&self) -> Vec<LinkId> {
        self.samples.keys().copied().collect()
    }

    /// Returns what time it is by a peer's clock, as long as ours is not known to be right.
    pub(super) fn second_opinion(&self, link: LinkId) -> Option<WallTime> {
        let sample = self.samples.get(&link).filter(|_| self.standing != Standing::Right)?;
        Some(sample.clock.plus(self.now.since(sample.at)))
    }

    /// Returns the milliseconds from the reading to the clock of the peer of a link, where it says that.
    pub(super) fn offset_of(&self, link: LinkId) -> Option<i64> {
        let sample = self.samples.get(&link).filter(|sample| self.is_fresh(sample))?;
        Some(self.offset(sample))
    }

    /// Returns the median distance of the peers' clocks from the reading, in milliseconds, and the
    /// number of votes; `None` while there are none.
    pub(super) fn distance(&self) -> Option<(i64, usize)> {
        let votes = self.votes();
        Some((median(&votes)?, votes.len()))
    }

    /// Judges anew; `true` when standing or correction are others than before.
    pub(super) fn judge(&mut self) -> bool {
        let before = (self.standing, self.correction);
        let corroborated = self.corroborated();
        match self.verdict() {
            Some(Verdict::Right) => {
                self.correction = 0;
                self.settle(Standing::Right);
            }
            Some(Verdict::Off(offset)) => {
                let moved = self.correction.saturating_sub(offset).unsigned_abs();
                if self.standing != Standing::Off || moved > NEGLIGIBLE {
                    self.correction = offset;
                }
                self.settle(Standing::Off);
            }
            None if self.standing == Standing::Unknown => self.obey_in_time(),
            None => {}
        }
        self.note_lead(corroborated);
        before != (self.standing, self.correction)
    }

    fn note_lead(&mut self, corroborated: WallTime) {
        if self.standing != Standing::Off || self.correction <= 0 {
            self.lead = None;
            return;
        }
        let amount = self.correction;
        if self.lead.is_none_or(|lead| self.is_far(amount.saturating_sub(lead.amount))) {
            let before = Anchor { at: self.now, wall: corroborated, is_confirmed: false };
            self.lead = Some(Lead { since: self.now, amount, before });
        }
    }

    /// Returns the time after which what cannot be checked is obeyed.
    fn patience(&self) -> Duration {
        self.retention.max(MIN_EVEN)
    }

    /// Without a verdict a reading that leapt is believed after a while, and obeyed long after.
    fn obey_in_time(&mut self) {
        let even = self.now.since(self.even_since);
        if even >= ASKING {
            self.correction = 0;
        }
        if even >= self.patience() {
            let is_confirmed = false;
            self.anchor = Anchor { at: self.now, wall: self.wall(), is_confirmed };
            self.has_leapt = false;
        }
    }

    /// Time as it is now is corroborated by peers.
    fn settle(&mut self, standing: Standing) {
        self.standing = standing;
        self.anchor = Anchor { at: self.now, wall: self.wall(), is_confirmed: true };
        self.has_leapt = false;
    }

    fn verdict(&self) -> Option<Verdict> {
        let mut votes = self.votes();
        if votes.is_empty() {
            return None;
        }
        // After a leap the time before it, continued, is one more vote, and so is the new reading.
        let is_contested = self.has_leapt && self.anchor.is_confirmed;
        if is_contested {
            votes.push(between(self.reading, self.anchor.continued(self.now)));
        }
        let middle = median(&votes)?;
        let near =
            |to: i64| votes.iter().filter(|vote| !self.is_far(vote.saturating_sub(to))).count();
        let agree = near(middle);
        // What is off stays so until it is clearly right.
        let limit = if self.standing == Standing::Off { self.skew / 2 } else { self.skew };
        let is_off = middle.unsigned_abs() > millis(limit);
        if is_off && agree * 2 > votes.len() && agree >= votes.len().clamp(2, 3) {
            return Some(Verdict::Off(middle));
        }
        let extra = usize::from(is_contested);
        (!is_off && (near(0) + extra) * 2 > votes.len() + extra).then_some(Verdict::Right)
    }

    /// The distances of the peers' clocks from the reading, in milliseconds: one vote a group, or one
    /// a peer where all are of one group.
    fn votes(&self) -> Vec<i64> {
        let dialled = self.votes_of(|sample| sample.is_dialled);
        if dialled.len() >= MIN_DIALLED { dialled } else { self.votes_of(|_| true) }
    }

    fn votes_of(&self, counts: impl Fn(&Sample) -> bool) -> Vec<i64> {
        let mut groups: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
        for sample in self.samples.values().filter(|s| self.is_fresh(s) && counts(s)) {
            groups.entry(sample.group).or_default().push(self.offset(sample));
        }
        if groups.len() == 1 {
            return groups.into_values().next().unwrap_or_default();
        }
        groups.into_values().filter_map(|votes| median(&votes)).collect()
    }

    /// Returns the milliseconds from the reading to a peer's clock.
    fn offset(&self, sample: &Sample) -> i64 {
        between(self.reading, sample.clock.plus(self.now.since(sample.at)))
    }

    /// Reports whether what a peer said counts: it was said after the latest leap.
    fn is_fresh(&self, sample: &Sample) -> bool {
        sample.at >= self.even_since
    }

    fn is_far(&self, distance: i64) -> bool {
        distance.unsigned_abs() > millis(self.skew)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the milliseconds from one time to another, as far as they can be said.
fn between(from: WallTime, to: WallTime) -> i64 {
    let distance = i128::from(to.as_millis()) - i128::from(from.as_millis());
    let most = if distance < 0 { i64::MIN } else { i64::MAX };
    i64::try_from(distance).unwrap_or(most)
}

/// Returns a time so many milliseconds later, or earlier.
fn shift(wall: WallTime, by: i64) -> WallTime {
    let span = Duration::from_millis(by.unsigned_abs());
    if by < 0 { wall.minus(span) } else { wall.plus(span) }
}

/// The middle one; of two, the one nearer to zero, so that more than half are never passed over.
fn median(votes: &[i64]) -> Option<i64> {
    let mut sorted = votes.to_vec();
    sorted.sort_unstable();
    let (low, high) =
        (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(if low.unsigned_abs() <= high.unsigned_abs() { *low } else { *high })
}
