//! Which ids the log has, and where they stand.
//!
//! Ids are random, so an index tree over them would be written all over with every append: several
//! pages a transaction. Instead, the locations of some ten thousand transactions at a time are
//! sorted by a key, the first 8 bytes of the id, and written once: a run. Of the newest, which are
//! not a run yet, the locations are in memory; when a file is opened they are taken from its
//! blocks.
//!
//! A run has in memory a filter that tells which ids are definitely not in it (2.4 bytes an id),
//! and the first key of each of its parts. Whoever looks for an id reads one part of each run whose
//! filter does not know better. Keys may repeat, and filters may be wrong: what is found is a
//! candidate, to be compared with the whole id.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fastbloom::BloomFilter;

use crate::store::sqlite::codec::{Location, key_of};
use crate::types::TransactionId;

/// Minimum number of locations in a run.
pub(super) const MIN_RUN: usize = 16_384;
/// Number of locations in one part of a run.
const PART_LOCATIONS: usize = 128;
/// Rate at which a filter sends lookups into a run in vain.
const FALSE_POSITIVES: f64 = 1e-4;
/// Number of part numbers that each run has.
const PART_NUMBERS: u64 = 1 << 16;
/// Maximum number of a run whose parts can have one.
pub(super) const MAX_RUN: u64 = i64::MAX as u64 / PART_NUMBERS - 1;
/// Maximum number of locations in a run: as many as its parts can hold. No checksum protects what a
/// file says, and as much memory is taken as it says.
pub(super) const MAX_ENTRIES: usize = (1 << 16) * PART_LOCATIONS;

/// A run that was written.
pub(super) struct Run {
    /// The highest cursor in it.
    pub(super) last: u64,
    /// Time at which all of the run may go.
    pub(super) ends: u64,
    filter: BloomFilter,
    /// The first key of each part.
    firsts: Vec<u64>,
}

/// A run that is to be written: for each part its number, first key and locations.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) number: u64,
    pub(super) last: u64,
    pub(super) ends: u64,
    pub(super) locations: Vec<Location>,
}

/// The locations of everything in the log.
#[derive(Debug, Default)]
pub(super) struct Keys {
    runs: BTreeMap<u64, Run>,
    /// Locations that are in no run yet, by key and cursor.
    tail: BTreeMap<(u64, u64), u32>,
    newest_run: u64,
}

/// Locations where an id may stand.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Generations and cursors.
    pub(super) locations: BTreeSet<(u32, u64)>,
    /// Parts that tell more of these keys.
    pub(super) parts: BTreeMap<u64, BTreeSet<u64>>,
}

impl Candidates {
    pub(super) fn is_empty(&self) -> bool {
        self.locations.is_empty() && self.parts.is_empty()
    }
}

impl Keys {
    /// Adds what is in no run yet.
    pub(super) fn add(&mut self, location: &Location) {
        self.tail.insert((location.key, location.cursor), location.generation);
    }

    /// Makes what is in no run yet, together with `more`, the next run; `None` while that is too
    /// few.
    pub(super) fn draft(
        &self,
        more: impl Iterator<Item = Location> + Clone,
        ends: impl Fn(u32) -> u64,
    ) -> Option<Draft> {
        if self.tail.len() + more.clone().count() < MIN_RUN {
            return None;
        }
        let location = |(key, generation): (&(u64, u64), &u32)| Location {
            key: key.0,
            cursor: key.1,
            generation: *generation,
        };
        let mut locations: Vec<_> = self.tail.iter().map(location).chain(more).collect();
        locations.sort_unstable_by_key(|location| (location.key, location.cursor));
        let last = locations.iter().map(|location| location.cursor).max()?;
        let ends = locations.iter().map(|location| ends(location.generation)).max()?;
        Some(Draft { number: self.newest_run + 1, last, ends, locations })
    }

    /// The draft was written: it is a run, and nothing is outside.
    pub(super) fn seal(&mut self, draft: &Draft, seed: u128) {
        let mut run = Run::new(draft.last, draft.ends, draft.locations.len(), seed);
        run.firsts = draft.parts().map(|(_, first, _)| first).collect();
        for location in &draft.locations {
            run.filter.insert(&location.key);
        }
        self.insert(draft.number, run);
        self.tail.clear();
    }

    pub(super) fn insert(&mut self, number: u64, run: Run) {
        self.newest_run = self.newest_run.max(number);
        self.runs.insert(number, run);
    }

    /// The runs that may go.
    pub(super) fn ended(&self, now: u64) -> Vec<u64> {
        self.runs.iter().filter(|(_, run)| run.ends <= now).map(|(number, _)| *number).collect()
    }

    /// Forgets runs, and locations in generations that are gone.
    pub(super) fn drop(&mut self, runs: &[u64], is_there: impl Fn(u32) -> bool) {
        for number in runs {
            self.runs.remove(number);
        }
        self.tail.retain(|_, generation| is_there(*generation));
    }

    /// Adds where an id may stand.
    pub(super) fn look_for(&self, id: &TransactionId, into: &mut Candidates) {
        let key = key_of(id);
        let tail = self.tail.range((key, 0)..=(key, u64::MAX));
        into.locations.extend(tail.map(|((_, cursor), generation)| (*generation, *cursor)));
        for (number, run) in self.runs.iter().filter(|(_, run)| run.filter.contains(&key)) {
            // A key that stands at the end of a part may go on in the next.
            let from = run.firsts.partition_point(|first| *first < key).saturating_sub(1);
            let to = run.firsts.partition_point(|first| *first <= key);
            for part in from..to {
                into.parts.entry(number * PART_NUMBERS + part as u64).or_default().insert(key);
            }
        }
    }
}

impl Run {
    /// A run whose parts and ids are still to be added.
    pub(super) fn new(last: u64, ends: u64, entries: usize, seed: u128) -> Self {
        let filter = BloomFilter::with_false_pos(FALSE_POSITIVES).seed(&seed);
        Self { last, ends, filter: filter.expected_items(entries.max(1)), firsts: Vec::new() }
    }

    /// Adds the first key of the next part.
    pub(super) fn add_part(&mut self, first: u64) {
        self.firsts.push(first);
    }

    pub(super) fn add(&mut self, id: &TransactionId) {
        self.filter.insert(&key_of(id));
    }
}

impl Draft {
    /// Number, first key and locations of each part.
    pub(super) fn parts(&self) -> impl Iterator<Item = (u64, u64, &[Location])> {
        // Never more parts than there are numbers: the last then has all the rest.
        let size = PART_LOCATIONS.max(self.locations.len().div_ceil(1 << 16));
        let parts = (self.number * PART_NUMBERS..).zip(self.locations.chunks(size));
        parts.map(|(number, part)| (number, part[0].key, part))
    }
}

/// The numbers that the parts of a run have.
pub(super) fn parts_of(run: u64) -> std::ops::Range<u64> {
    run * PART_NUMBERS..(run + 1) * PART_NUMBERS
}

/// The run that a part belongs to.
pub(super) fn run_of(part: u64) -> u64 {
    part / PART_NUMBERS
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("last", &self.last).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> TransactionId {
        TransactionId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    fn location(n: u32) -> Location {
        Location { key: key_of(&id(n)), cursor: u64::from(n) + 1, generation: n % 3 }
    }

    /// Returns what a lookup finds, with parts read from `drafts`.
    fn found(keys: &Keys, drafts: &[Draft], id: &TransactionId) -> (BTreeSet<(u32, u64)>, usize) {
        let mut found = Candidates::default();
        keys.look_for(id, &mut found);
        let read = found.parts.len();
        for (part, wanted) in found.parts {
            let all = drafts.iter().flat_map(Draft::parts);
            let locations =
                all.filter(|(number, ..)| *number == part).flat_map(|(.., locations)| locations);
            let hits = locations.filter(|location| wanted.contains(&location.key));
            found.locations.extend(hits.map(|location| (location.generation, location.cursor)));
        }
        (found.locations, read)
    }

    #[test]
    fn every_id_is_found_and_others_are_seldom_looked_for() {
        let (mut keys, mut drafts) = (Keys::default(), Vec::new());
        for n in 0..60_000 {
            keys.add(&location(n));
            if let Some(draft) = keys.draft(std::iter::empty(), u64::from) {
                keys.seal(&draft, 7);
                drafts.push(draft);
            }
        }
        assert_eq!((drafts.len(), keys.tail.len()), (3, 60_000 - 3 * MIN_RUN));
        assert!(drafts.iter().all(|draft| draft.ends == 2));
        for n in (0..60_000).step_by(7).chain([0, 16_383, 16_384, 59_999]) {
            let (locations, read) = found(&keys, &drafts, &id(n));
            assert!(locations.contains(&(n % 3, u64::from(n) + 1)), "{n}");
            assert!(read <= 2, "{n}");
        }
        let vain = (60_000..160_000).filter(|n| found(&keys, &[], &id(*n)).1 > 0).count();
        assert!(vain < 150, "{vain} of 100,000");
        let bytes: usize = keys.runs.values().map(|run| run.filter.num_bits() / 8).sum();
        assert!(bytes < 3 * MIN_RUN * 5 / 2, "{bytes} bytes");
        assert_eq!(keys.ended(2), [1, 2, 3]);
        keys.drop(&[1, 2, 3], |generation| generation != 0);
        assert_eq!(found(&keys, &drafts, &id(5)).0, BTreeSet::new());
        assert_eq!(keys.tail.len(), (3 * MIN_RUN..60_000).filter(|n| n % 3 != 0).count());
    }

    #[test]
    fn equal_keys_are_all_found() {
        let mut keys = Keys::default();
        let same = |n: u64| Location { key: key_of(&id(9)), cursor: n, generation: 1 };
        (0..300).for_each(|n| keys.add(&same(n)));
        (0..20_000).for_each(|n| keys.add(&location(n)));
        assert!(found(&keys, &[], &id(9)).0.len() >= 300, "in memory");
        let drafts = [keys.draft(std::iter::empty(), u64::from).unwrap()];
        keys.seal(&drafts[0], 7);
        assert!(found(&keys, &drafts, &id(9)).0.len() >= 300, "over several parts");
    }
}
