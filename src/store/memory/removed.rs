//! Cursors of entries that were removed.

use std::collections::BTreeMap;

use crate::types::Cursor;

/// Cursors of removed entries, as ranges. Between two ranges stands an entry that is still there,
/// so there are never more of them than entries, and one.
#[derive(Debug, Default)]
pub(super) struct Removed(BTreeMap<u64, u64>);

impl Removed {
    pub(super) fn insert(&mut self, cursor: u64) {
        let end = self.0.remove(&(cursor + 1)).unwrap_or(cursor);
        match self.0.range_mut(..cursor).next_back() {
            Some((_, before)) if *before + 1 == cursor => *before = end,
            _ => {
                self.0.insert(cursor, end);
            }
        }
    }

    /// The highest removed cursor above `after` and up to `until`.
    pub(super) fn last_within(&self, after: u64, until: u64) -> Option<Cursor> {
        let (_, end) = self.0.range(..=until).next_back()?;
        let last = (*end).min(until);
        (last > after).then_some(Cursor(last))
    }
}
