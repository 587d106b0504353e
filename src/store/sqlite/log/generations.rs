//! What is known in memory of the log's generations.
//!
//! Entries stand in generations by the time until which they are kept; a generation goes as a
//! whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::codec::Slot;
use super::super::database::Insert;
use super::keys::Keys;
use crate::store::lost::Losses;
use crate::types::WallTime;

/// Generations at most; with as many, an entry goes into one that ends later than it must.
const MAX_GENERATIONS: usize = 512;

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
    /// Nothing is added to it any more.
    closed: bool,
}

impl Generation {
    pub(super) fn new(number: u32, ends: u64) -> Self {
        let into = format!("INSERT INTO g_{number} (cursor, head, payload) VALUES");
        let insert = Arc::new(Insert::new(&into, 3));
        Self { ends, entries: 0, bytes: 0, insert, closed: false }
    }

    /// One that an earlier version made, with other columns.
    pub(super) fn closed(number: u32, ends: u64) -> Self {
        Self { closed: true, ..Self::new(number, ends) }
    }
}

/// All generations that there are.
#[derive(Debug, Default)]
pub(super) struct Generations {
    pub(super) all: BTreeMap<u32, Generation>,
    pub(super) keys: Keys,
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

    /// When a generation ends, also one that is still to be made.
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
        let open = self.all.iter().filter(|(_, generation)| !generation.closed);
        let present = open.map(|(number, generation)| (*number, generation.ends));
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

#[cfg(test)]
mod tests {
    use super::*;

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
                    all.all.insert(number, Generation::new(number, ends));
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
