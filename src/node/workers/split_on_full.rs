//! Storing of a batch what fits.
//!
//! A store takes all of a batch or none. Where there is no room for all, each is tried by itself: one
//! that is large must not cost others their place. After a few in a row that do not fit, none of the
//! rest is tried.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::{StoreError, StoreErrorKind};
use crate::node::messages::StoreFailure;

/// Number of entries in a row that do not fit before the rest is refused.
const MAX_MISFITS: usize = 8;

/// Parts of a batch that are still to be tried, and entries that were refused.
#[derive(Debug)]
pub(super) struct SplitOnFull {
    tries: VecDeque<Range<usize>>,
    misfits: usize,
    refused: Vec<(usize, StoreFailure)>,
}

impl SplitOnFull {
    /// Starts with a batch of `count` entries.
    pub(super) fn new(count: usize) -> Self {
        let whole = (count > 0).then_some(0..count);
        Self { tries: whole.into_iter().collect(), misfits: 0, refused: Vec::new() }
    }

    /// Returns the entries to be tried next, together.
    pub(super) fn next(&self) -> Option<Range<usize>> {
        self.tries.front().cloned()
    }

    /// Takes the result of trying [`SplitOnFull::next`]. Returns whether it tells how the store is:
    /// not so where a batch that can be made smaller did not fit.
    pub(super) fn note(&mut self, result: &Result<(), StoreError>) -> bool {
        let Some(tried) = self.tries.pop_front() else { return false };
        let Err(error) = result else {
            self.misfits = 0;
            return true;
        };
        if error.kind == StoreErrorKind::Full && tried.len() > 1 {
            self.tries.extend(tried.map(|at| at..at + 1));
            return false;
        }
        self.misfits += 1;
        let failure = StoreFailure::from(error);
        self.refused.extend(tried.map(|at| (at, failure.clone())));
        if self.misfits >= MAX_MISFITS {
            let rest = self.tries.drain(..).flatten();
            self.refused.extend(rest.map(|at| (at, failure.clone())));
        }
        true
    }

    /// Returns the indices in the batch of what was refused, each with the reason.
    pub(super) fn refused(self) -> Vec<(usize, StoreFailure)> {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores with so much room; what is refused, and how often the store was asked.
    fn try_all(sizes: &[u32], mut room: u32) -> (Vec<usize>, u32) {
        let (mut split, mut tries) = (SplitOnFull::new(sizes.len()), 0);
        while let Some(some) = split.next() {
            tries += 1;
            let size = sizes[some].iter().sum();
            let left = room.checked_sub(size);
            room = left.unwrap_or(room);
            let full = || StoreError::new(StoreErrorKind::Full, "full");
            split.note(&left.map(drop).ok_or_else(full));
        }
        (split.refused().into_iter().map(|(at, _)| at).collect(), tries)
    }

    #[test]
    fn what_fits_is_stored() {
        assert_eq!(try_all(&[1, 1, 1], 3), (vec![], 1));
        assert_eq!(try_all(&[1, 9, 1], 3), (vec![1], 4), "one that is large");
        assert_eq!(try_all(&[9], 3), (vec![0], 1));
        assert_eq!(try_all(&[], 3), (vec![], 0));
        let (refused, tries) = try_all(&[1; 200], 50);
        assert_eq!((refused, tries), ((50..200).collect(), 1 + 50 + 8));
    }

    #[test]
    fn a_store_that_fails_refuses_all() {
        let mut split = SplitOnFull::new(3);
        assert_eq!(split.next(), Some(0..3));
        assert!(split.note(&Err(StoreError::new(StoreErrorKind::Io, "broken"))));
        assert_eq!(split.next(), None);
        let refused: Vec<_> = split.refused().into_iter().map(|(at, f)| (at, f.kind)).collect();
        assert_eq!(refused, [0, 1, 2].map(|at| (at, StoreErrorKind::Io)));
    }
}
