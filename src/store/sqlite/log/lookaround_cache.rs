//! Where ids stand that are asked for in the order in which they were appended, as the replay of an
//! outbox and a newcomer ask for them: one lookup by key for many of them, where each would read a
//! part of a run of its own.

use std::collections::HashMap;

use crate::store::sqlite::codec::Slot;
use crate::types::TransactionId;

/// Minimum number of ids for a look around: fewer are each looked up by key.
pub(super) const MIN_IDS: usize = 8;
/// Maximum number of remembered index entries, but for the rest of a block.
const MAX_ENTRIES: usize = 1024;
/// Number of lookups without a look around after one that brought little.
const PAUSE: u32 = 32;

/// The index entries around the last lookup. Whoever reads at a location compares ids.
#[derive(Debug, Default)]
pub(super) struct LookaroundCache {
    locations: HashMap<TransactionId, (u32, u64)>,
    pause: u32,
}

impl LookaroundCache {
    /// Generation and cursor of an id, as far as is remembered.
    pub(super) fn location(&self, id: &TransactionId) -> Option<(u32, u64)> {
        self.locations.get(id).copied()
    }

    /// Says whether it is worth looking around the first of so many that are not remembered.
    pub(super) fn is_worth(&mut self, unknown: usize) -> bool {
        if unknown < MIN_IDS {
            return false;
        }
        let worth = self.pause == 0;
        self.pause = self.pause.saturating_sub(1);
        worth
    }

    /// Remembers what stands around one of `wanted`, in place of what it had.
    pub(super) fn remember(&mut self, slots: &[Slot], wanted: &[TransactionId]) {
        let location = |slot: &Slot| (slot.shown.id, (slot.generation, slot.shown.cursor.0));
        self.locations = slots.iter().take(MAX_ENTRIES).map(location).collect();
        let hits = wanted.iter().filter(|id| self.locations.contains_key(id)).count();
        self.pause = if hits < wanted.len() / 2 { PAUSE } else { 0 };
    }
}
