//! Storing of a batch what fits.
//!
//! A store takes all of a batch or none. Where there is no room for all, each is tried by itself: one
//! that is large must not cost others their place. After a few in a row that do not fit, none of the
//! rest is tried.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::{StoreError, StoreErrorKind};

/// In a row that do not fit, before the rest is refused.
const MISFITS: usize = 8;

/// What of a batch is still to be tried, and what was refused.
#[derive(Debug)]
pub(super) struct SplitOnFull {
    tries: VecDeque<Range<usize>>,
    misfits: usize,
    refused: Vec<(usize, StoreErrorKind)>,
}

impl SplitOnFull {
    /// Of a batch of so many.
    pub(super) fn new(count: usize) -> Self {
        let whole = (count > 0).then_some(0..count);
        Self { tries: whole.into_iter().collect(), misfits: 0, refused: Vec::new() }
    }

    /// What is to be tried next, together.
    pub(super) fn next(&self) -> Option<Range<usize>> {
        self.tries.front().cloned()
    }

    /// What came of [`SplitOnFull::next`]; whether the store has said so to what cannot be made smaller.
    pub(super) fn note(&mut self, result: &Result<(), StoreError>) -> bool {
        let Some(tried) = self.tries.pop_front() else { return false };
        let Err(error) = result else {
            self.misfits = 0;
            return true;
        };
        let kind = error.kind;
        if kind == StoreErrorKind::Full && tried.len() > 1 {
            self.tries.extend(tried.map(|at| at..at + 1));
            return false;
        }
        self.misfits += 1;
        self.refused.extend(tried.map(|at| (at, kind)));
        if self.misfits >= MISFITS {
            let rest = self.tries.drain(..).flatten();
            self.refused.extend(rest.map(|at| (at, kind)));
        }
        true
    }

    /// Places in the batch of what was refused, and why.
    pub(super) fn refused(self) -> Vec<(usize, StoreErrorKind)> {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores with so much room; what is refused, and how often the store was asked.
    fn store(sizes: &[u32], mut room: u32) -> (Vec<usize>, u32) {
        let (mut fit, mut asked) = (SplitOnFull::new(sizes.len()), 0);
        while let Some(some) = fit.next() {
            asked += 1;
            let size = sizes[some].iter().sum();
            let left = room.checked_sub(size);
            room = left.unwrap_or(room);
            let full = || StoreError::new(StoreErrorKind::Full, "full");
            fit.note(&left.map(drop).ok_or_else(full));
        }
        (fit.refused().into_iter().map(|(at, _)| at).collect(), asked)
    }

    #[test]
    fn what_fits_is_stored() {
        assert_eq!(store(&[1, 1, 1], 3), (vec![], 1));
        assert_eq!(store(&[1, 9, 1], 3), (vec![1], 4), "one that is large");
        assert_eq!(store(&[9], 3), (vec![0], 1));
        assert_eq!(store(&[], 3), (vec![], 0));
        let (refused, asked) = store(&[1; 200], 50);
        assert_eq!((refused, asked), ((50..200).collect(), 1 + 50 + 8));
    }

    #[test]
    fn a_store_that_fails_refuses_all() {
        let mut fit = SplitOnFull::new(3);
        assert_eq!(fit.next(), Some(0..3));
        assert!(fit.note(&Err(StoreError::new(StoreErrorKind::Io, "broken"))));
        assert_eq!(fit.next(), None);
        let refused: Vec<_> = (0..3).map(|at| (at, StoreErrorKind::Io)).collect();
        assert_eq!(fit.refused(), refused);
    }
}
