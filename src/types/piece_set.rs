//! Sets of pieces, as bitmaps and as the ranges that travel.

/// Number of pieces in a range that means all of a payload, when their number is not known.
pub const ALL_PIECES: u32 = u32::MAX;

/// Maximum number of ranges in one reservation.
pub const MAX_RANGES: usize = 256;

/// Run of neighbouring pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceRange {
    /// The number of the first piece.
    pub first: u32,
    /// The number of pieces; with [`ALL_PIECES`], as many as there are.
    pub count: u32,
}

/// Set of pieces of one payload: a bit each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PieceSet {
    words: Vec<u64>,
    /// Pieces of the payload.
    len: u32,
    count: u32,
}

impl PieceSet {
    pub(crate) fn empty(len: u32) -> Self {
        Self { words: vec![0; (len as usize).div_ceil(64)], len, count: 0 }
    }

    pub(crate) fn full(len: u32) -> Self {
        let mut set = Self { words: vec![u64::MAX; (len as usize).div_ceil(64)], len, count: len };
        if let Some(last) = set.words.last_mut()
            && !len.is_multiple_of(64)
        {
            *last >>= 64 - len % 64;
        }
        set
    }

    /// The pieces of these ranges that exist.
    pub(crate) fn from_ranges(len: u32, ranges: &[PieceRange]) -> Self {
        let mut set = Self::empty(len);
        for range in ranges {
            let end = range.first.saturating_add(range.count).min(len);
            if range.first == 0 && end == len {
                return Self::full(len);
            }
            set.set_bits(range.first, end);
        }
        set.recount();
        set
    }

    /// Sets the bits of `first..end` a word at a time: ranges may overlap, so their sizes bound nothing.
    fn set_bits(&mut self, first: u32, end: u32) {
        let (mut at, end) = (first as usize, end as usize);
        while at < end {
            let (word, from) = (at / 64, at % 64);
            let to = (end - word * 64).min(64);
            self.words[word] |= (u64::MAX >> (64 - (to - from))) << from;
            at = word * 64 + to;
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn contains(&self, piece: u32) -> bool {
        self.words.get(piece as usize / 64).is_some_and(|word| word >> (piece % 64) & 1 != 0)
    }

    /// Adds a piece; `true` when it was not in it.
    pub(crate) fn insert(&mut self, piece: u32) -> bool {
        if piece >= self.len || self.contains(piece) {
            return false;
        }
        self.words[piece as usize / 64] |= 1 << (piece % 64);
        self.count += 1;
        true
    }

    /// Takes a piece out; `true` when it was in it.
    pub(crate) fn remove(&mut self, piece: u32) -> bool {
        if !self.contains(piece) {
            return false;
        }
        self.words[piece as usize / 64] &= !(1 << (piece % 64));
        self.count -= 1;
        true
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
        self.recount();
    }

    pub(crate) fn remove_all(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= !b);
        self.recount();
    }

    fn recount(&mut self) {
        self.count = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// The first piece of both sets; without `other`, of this one.
    pub(crate) fn first_of(&self, other: Option<&Self>) -> Option<u32> {
        let of = |at: usize| other.map_or(u64::MAX, |o| o.words.get(at).copied().unwrap_or(0));
        let words = self.words.iter().enumerate().map(|(at, word)| (at, word & of(at)));
        let (at, word) = words.into_iter().find(|(_, word)| *word != 0)?;
        u32::try_from(at * 64).ok().map(|base| base + word.trailing_zeros())
    }

    /// Splits off the last `count` pieces.
    pub(crate) fn split_tail(&mut self, count: u32) -> Self {
        let mut tail = Self::empty(self.len);
        for piece in (0..self.len).rev() {
            if tail.count >= count {
                break;
            }
            if self.remove(piece) {
                tail.insert(piece);
            }
        }
        tail
    }

    /// The first `most` runs.
    pub(crate) fn ranges(&self, most: usize) -> Vec<PieceRange> {
        let mut ranges: Vec<PieceRange> = Vec::new();
        for piece in (0..self.len).filter(|piece| self.contains(*piece)) {
            let full = ranges.len() == most;
            match ranges.last_mut() {
                Some(last) if last.first + last.count == piece => last.count += 1,
                _ if full => break,
                _ => ranges.push(PieceRange { first: piece, count: 1 }),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, count: u32) -> PieceRange {
        PieceRange { first, count }
    }

    #[test]
    fn sets_and_ranges_are_the_same_thing() {
        for len in [1, 2, 63, 64, 65, 128, 160, 4096] {
            let full = PieceSet::full(len);
            assert_eq!((full.count(), full.ranges(9)), (len, vec![range(0, len)]));
            assert_eq!(PieceSet::from_ranges(len, &[range(0, ALL_PIECES)]), full);
            assert!(
                PieceSet::empty(len).is_empty() && full.contains(len - 1) && !full.contains(len)
            );
        }
        let some = PieceSet::from_ranges(100, &[range(3, 2), range(60, 10), range(98, u32::MAX)]);
        assert_eq!(some.ranges(9), [range(3, 2), range(60, 10), range(98, 2)]);
        assert_eq!(some.ranges(2), [range(3, 2), range(60, 10)]);
        assert_eq!(
            PieceSet::from_ranges(100, &[range(100, 5), range(u32::MAX, 5)]),
            PieceSet::empty(100)
        );
    }

    #[test]
    fn taking_in_and_out() {
        let mut set = PieceSet::from_ranges(200, &[range(10, 100)]);
        assert!(!set.insert(10) && set.insert(150) && !set.insert(200));
        assert!(set.remove(10) && !set.remove(10) && !set.remove(5000));
        assert_eq!(set.first_of(None), Some(11));
        let other = PieceSet::from_ranges(200, &[range(100, 80)]);
        assert_eq!(set.first_of(Some(&other)), Some(100));
        let tail = set.split_tail(2);
        assert_eq!(tail.ranges(9), [range(109, 1), range(150, 1)]);
        let head = PieceSet::from_ranges(200, &[range(9, 3)]);
        set.add_all(&head);
        set.remove_all(&other);
        assert_eq!(set.ranges(9), [range(9, 91)]);
        assert_eq!(set.first_of(Some(&other)), None);
    }
}
