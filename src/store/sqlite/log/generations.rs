//! What is known in memory of the log's generations.
//!
//! Entries stand in generations by the time until which they are kept; a generation goes as a
//! whole.

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys::Keys;
use crate::store::gap_index::GapIndex;
use crate::store::sqlite::codec::Slot;
use crate::types::WallTime;

/// Maximum number of generations; with as many, an entry goes into one that ends later than it
/// must.
const MAX_GENERATIONS: usize = 512;
/// Number of generations beyond which new ones become wider, so that the most is never reached:
/// twice as wide with each [`DOUBLED_EVERY`] more.
const WIDENED_FROM: usize = 256;
const DOUBLED_EVERY: usize = 8;

/// Maximum time that a file can hold.
const NEVER: u64 = i64::MAX.cast_unsigned();

/// Entries that go together.
#[derive(Debug)]
pub(super) struct Generation {
    /// Time at which the generation may go.
    pub(super) ends: u64,
    pub(super) entries: u64,
    /// Bytes of headers and payloads.
    pub(super) bytes: u64,
    /// Nothing is added to it any more.
    closed: bool,
}

impl Generation {
    pub(super) fn new(ends: u64) -> Self {
        Self { ends, entries: 0, bytes: 0, closed: false }
    }

    /// One that an earlier version made, with other columns.
    pub(super) fn closed(ends: u64) -> Self {
        Self { closed: true, ..Self::new(ends) }
    }
}

/// All generations that there are.
#[derive(Debug, Default)]
pub(super) struct Generations {
    pub(super) all: BTreeMap<u32, Generation>,
    pub(super) keys: Keys,
    pub(super) gaps: GapIndex,
    /// The newest cursor given out.
    pub(super) newest: u64,
    /// The file's cursors begin above it.
    pub(super) base: u64,
}

impl Generations {
    pub(super) fn entries(&self) -> u64 {
        self.all.values().map(|generation| generation.entries).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.all.values().map(|generation| generation.bytes).sum()
    }

    /// Time at which a generation ends, also one that is still to be made.
    pub(super) fn end_of(&self, made: &[(u32, u64)], number: u32) -> u64 {
        let made = made.iter().find(|(made, _)| *made == number).map(|(_, ends)| *ends);
        self.all.get(&number).map(|generation| generation.ends).or(made).unwrap_or(NEVER)
    }

    /// Counts an entry that is written.
    pub(super) fn count(&mut self, slot: &Slot) {
        self.newest = self.newest.max(slot.shown.cursor.0);
        if let Some(generation) = self.all.get_mut(&slot.generation) {
            generation.entries += 1;
            generation.bytes += slot.bytes;
        }
    }

    /// The generation for what is kept until then; as an error, when a new one for it should end.
    pub(super) fn generation_for(
        &self,
        planned: &[(u32, u64)],
        keep_until: WallTime,
        width: Duration,
    ) -> Result<u32, u64> {
        let at = keep_until.as_millis().min(NEVER);
        let open = self.all.iter().filter(|(_, generation)| !generation.closed);
        let present = open.map(|(number, generation)| (*number, generation.ends));
        let all = || present.clone().chain(planned.iter().copied());
        let count = all().count();
        let doublings =
            u32::try_from(count.saturating_sub(WIDENED_FROM).div_ceil(DOUBLED_EVERY)).unwrap_or(63);
        let width = u64::try_from(width.as_millis()).unwrap_or(u64::MAX).max(1);
        let width = width.saturating_mul(1 << doublings.min(63));
        let ends = at.div_ceil(width).saturating_mul(width).clamp(at, NEVER);
        // The first that is late enough, if it is no later than a new one would be.
        let first = all().filter(|(_, e)| *e >= at).min_by_key(|(_, e)| *e);
        match first {
            Some((number, e)) if e <= ends || count >= MAX_GENERATIONS => Ok(number),
            _ => Err(ends),
        }
    }

    /// Numbers of generations that may go.
    pub(super) fn ended(&self, now: WallTime) -> Vec<u32> {
        let over = |(_, generation): &(&u32, &Generation)| generation.ends <= now.as_millis();
        self.all.iter().filter(over).map(|(number, _)| *number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts in what is kept until then; when it may go.
    fn put(all: &mut Generations, keep: WallTime, width: Duration) -> u64 {
        match all.generation_for(&[], keep, width) {
            Ok(number) => all.all[&number].ends,
            Err(ends) => {
                let number = all.all.keys().next_back().map_or(0, |last| last + 1);
                all.all.insert(number, Generation::new(ends));
                ends
            }
        }
    }

    #[test]
    fn a_span_that_is_short_beside_the_retention_keeps_nothing_for_ever() {
        let retention = 100_000;
        for (width, step) in [(1, 7), (100, 50), (1500, 200), (10_000, 200)] {
            let mut all = Generations::default();
            let (mut most, mut latest) = (0, 0);
            for now in (0..3 * retention).step_by(step) {
                let ends = put(
                    &mut all,
                    WallTime::from_millis(now + retention),
                    Duration::from_millis(width),
                );
                assert!(ends >= now + retention);
                latest = latest.max(ends - now);
                for number in all.ended(WallTime::from_millis(now)) {
                    all.all.remove(&number);
                }
                most = most.max(all.all.len());
            }
            assert!(most < MAX_GENERATIONS, "{width} ms: {most}");
            assert!(latest <= 2 * retention, "{width} ms: kept for {latest} ms");
        }
    }

    #[test]
    fn thirty_days_are_kept_little_longer_than_they_must() {
        let (retention, width) = (30 * 86_400_000, Duration::from_mins(5));
        let mut all = Generations::default();
        let mut latest = 0;
        for now in (0..3 * retention).step_by(600_000) {
            let ends = put(&mut all, WallTime::from_millis(now + retention), width);
            latest = latest.max(ends - now);
            for number in all.ended(WallTime::from_millis(now)) {
                all.all.remove(&number);
            }
            assert!(all.all.len() < MAX_GENERATIONS);
        }
        assert!(latest <= retention / 100 * 107, "kept for {latest} ms");
    }

    #[test]
    fn generations_are_bounded_and_never_end_early() {
        let mut all = Generations::default();
        let width = Duration::from_millis(10);
        for n in 0..2000u64 {
            let keep = WallTime::from_millis(n * 1000 + 1);
            let ends = put(&mut all, keep, width);
            assert!(ends >= keep.as_millis(), "{n} ends at {ends}");
            assert!(all.all.len() <= MAX_GENERATIONS);
        }
        assert_eq!(all.generation_for(&[(9999, 50)], WallTime::from_millis(41), width), Ok(9999));
        assert_eq!(all.ended(WallTime::from_millis(1009)), [0]);
        assert_eq!(all.ended(WallTime::from_millis(1010)), [0, 1]);
    }
}
