//! What is known in memory of the log's generations: a few bytes for each id, and never the ids.
//!
//! Entries stand in generations by the time until which they are kept; a generation goes as a
//! whole. A lookup by id asks those generations whose Bloom filter does not say "definitely not
//! here"; what a filter says otherwise decides nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fastbloom::BloomFilter;

use super::super::codec::Slot;
use super::super::database::Insert;
use crate::store::lost::Losses;
use crate::types::{TransactionId, WallTime};

/// Generations at most; with as many, an entry goes into one that ends later than it must.
const MAX_GENERATIONS: usize = 512;
/// How often a filter sends a lookup into a generation in vain: 2.4 bytes an id.
const FALSE_POSITIVES: f64 = 1e-4;
/// Ids that the first filter of a generation is made for; each further one for twice as many.
const FIRST_FILTER: usize = 1024;

/// The latest time that a file can hold.
const NEVER: u64 = i64::MAX.cast_unsigned();

/// One generation.
#[derive(Debug)]
pub(super) struct Generation {
    /// When it may go.
    pub(super) ends: u64,
    pub(super) entries: u64,
    /// Bytes of headers and payloads.
    pub(super) bytes: u64,
    pub(super) insert: Arc<Insert>,
    filter: Filter,
}

impl Generation {
    pub(super) fn new(number: u32, ends: u64, seed: u128) -> Self {
        let into = format!("INSERT INTO g_{number} (cursor, key, head, payload) VALUES");
        let insert = Arc::new(Insert::new(&into, 4));
        Self { ends, entries: 0, bytes: 0, insert, filter: Filter::new(seed) }
    }
}

/// All generations that there are.
#[derive(Debug, Default)]
pub(super) struct Generations {
    pub(super) all: BTreeMap<u32, Generation>,
    pub(super) losses: Losses,
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

    /// Generations that may have this id, the newest first.
    pub(super) fn candidates(&self, id: &TransactionId) -> Vec<u32> {
        let may = |(number, generation): (&u32, &Generation)| {
            generation.filter.may_contain(id).then_some(*number)
        };
        self.all.iter().rev().filter_map(may).collect()
    }

    /// Makes a generation answer "maybe" for an id. Done before the id is written: what then is
    /// not written costs a lookup in vain, the other order could hide what is there.
    pub(super) fn announce(&mut self, number: u32, id: &TransactionId) {
        if let Some(generation) = self.all.get_mut(&number) {
            generation.filter.insert(id);
        }
    }

    /// Counts an entry that is written.
    pub(super) fn count(&mut self, slot: &Slot) {
        self.newest = self.newest.max(slot.shown.cursor.0);
        if let Some(generation) = self.all.get_mut(&slot.generation) {
            generation.entries += 1;
            generation.bytes += slot.bytes;
        }
    }

    /// The generation for what is kept until then, or when a new one for it should end.
    pub(super) fn place(
        &self,
        planned: &[(u32, u64)],
        keep_until: WallTime,
        width: Duration,
    ) -> Result<u32, u64> {
        let width = u64::try_from(width.as_millis()).unwrap_or(u64::MAX).max(1);
        let at = keep_until.as_millis();
        let ends = at.div_ceil(width).saturating_mul(width).clamp(at.min(NEVER), NEVER);
        let present = self.all.iter().map(|(number, generation)| (*number, generation.ends));
        let all = || present.clone().chain(planned.iter().copied());
        if let Some((number, _)) = all().find(|(_, e)| *e == ends) {
            return Ok(number);
        }
        if all().count() < MAX_GENERATIONS {
            return Err(ends);
        }
        let later = all().filter(|(_, e)| *e >= ends).min_by_key(|(_, e)| *e);
        later.map(|(number, _)| number).ok_or(NEVER)
    }

    /// Numbers of generations that may go.
    pub(super) fn ended(&self, now: WallTime) -> Vec<u32> {
        let over = |(_, generation): &(&u32, &Generation)| generation.ends <= now.as_millis();
        self.all.iter().filter(over).map(|(number, _)| *number).collect()
    }
}

/// Bloom filters, each for twice as many ids as the one before.
struct Filter {
    seed: u128,
    parts: Vec<BloomFilter>,
    /// Ids that still go into the last one.
    room: usize,
    next: usize,
}

impl Filter {
    fn new(seed: u128) -> Self {
        Self { seed, parts: Vec::new(), room: 0, next: FIRST_FILTER }
    }

    fn insert(&mut self, id: &TransactionId) {
        if self.room == 0 {
            let filter = BloomFilter::with_false_pos(FALSE_POSITIVES).seed(&self.seed);
            self.parts.push(filter.expected_items(self.next));
            self.room = self.next;
            self.next = self.next.saturating_mul(2);
        }
        if let Some(last) = self.parts.last_mut() {
            last.insert(id.as_bytes());
            self.room -= 1;
        }
    }

    fn may_contain(&self, id: &TransactionId) -> bool {
        self.parts.iter().any(|filter| filter.contains(id.as_bytes()))
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> TransactionId {
        TransactionId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn a_filter_grows_forgets_nothing_and_stays_small() {
        let mut filter = Filter::new(7);
        for n in 0..100_000 {
            filter.insert(&id(n));
        }
        assert!((0..100_000).all(|n| filter.may_contain(&id(n))));
        let wrong = (100_000..200_000).filter(|n| filter.may_contain(&id(*n))).count();
        assert!(wrong < 300, "{wrong} of 100,000");
        let bytes: usize = filter.parts.iter().map(|part| part.num_bits() / 8).sum();
        assert!(bytes < 400_000, "{bytes} bytes");
    }

    #[test]
    fn generations_are_bounded_and_never_end_early() {
        let mut all = Generations::default();
        let width = Duration::from_millis(10);
        for n in 0..2000u64 {
            let keep = WallTime::from_millis(n * 1000 + 1);
            let (number, ends) = match all.place(&[], keep, width) {
                Ok(number) => (number, all.all[&number].ends),
                Err(ends) => {
                    let number = u32::try_from(all.all.len()).unwrap();
                    all.all.insert(number, Generation::new(number, ends, 1));
                    (number, ends)
                }
            };
            assert!(ends >= keep.as_millis(), "{number} ends at {ends}");
            assert!(all.all.len() <= MAX_GENERATIONS + 1);
        }
        assert_eq!(all.place(&[(9999, 50)], WallTime::from_millis(41), width), Ok(9999));
        assert_eq!(all.ended(WallTime::from_millis(1009)), [0]);
        assert_eq!(all.ended(WallTime::from_millis(1010)), [0, 1]);
    }
}
