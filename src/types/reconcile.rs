//! What two peers say to each other to find out what one of them lacks.

use super::{TransactionId, WallTime};

/// Most ranges in one reconciliation message.
pub const MAX_RANGES_PER_MESSAGE: usize = 1024;

/// Most ids in one reconciliation message, in all its lists together.
pub const MAX_IDS_PER_RECONCILE: usize = 2048;

/// A border in the order of reconciliation: by creation, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bound {
    /// When the first transaction above it was created at the earliest.
    pub created: WallTime,
    /// Its id at the least.
    pub id: TransactionId,
}

impl Bound {
    /// Below everything.
    pub const MIN: Self = Self::at(WallTime::from_millis(0));
    /// Above everything that is ever created.
    pub const MAX: Self = Self::at(WallTime::from_millis(u64::MAX));

    /// Below everything created at this time or later.
    pub const fn at(created: WallTime) -> Self {
        Self { created, id: TransactionId::from_bytes([0; 32]) }
    }
}

/// What is said of one range.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeContent {
    /// Nothing has to be done about it.
    Skip,
    /// A fingerprint of what the sender holds in it.
    Print([u8; 16]),
    /// Everything that the sender holds in it: ids and payload bytes.
    All(Vec<(TransactionId, u64)>),
    /// Everything that the sender holds in it and the receiver did not list.
    Rest(Vec<(TransactionId, u64)>),
}

/// One range; it begins where the one before ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Where it ends.
    pub upper: Bound,
    /// What is said of it.
    pub content: RangeContent,
}

/// Ranges side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconcile {
    /// Chosen by who asks; an answer carries that of its question.
    pub session: u32,
    /// Where the first range begins.
    pub lower: Bound,
    /// In order, each ending above the one before.
    pub ranges: Vec<Range>,
}

impl Range {
    /// The ids that it lists.
    pub fn ids(&self) -> usize {
        match &self.content {
            RangeContent::All(ids) | RangeContent::Rest(ids) => ids.len(),
            RangeContent::Skip | RangeContent::Print(_) => 0,
        }
    }

    /// About how many bytes it takes on the wire.
    pub fn weight(&self) -> usize {
        // A bound within a millisecond has a few bytes of an id.
        let prefix = self.upper.id.as_bytes().iter().rev().skip_while(|b| **b == 0).count();
        let content = match &self.content {
            RangeContent::Skip => 0,
            RangeContent::Print(_) => 18,
            RangeContent::All(_) | RangeContent::Rest(_) => 8 + 35 * self.ids(),
        };
        13 + prefix + content
    }
}

impl Reconcile {
    /// Where the last range ends.
    pub fn upper(&self) -> Bound {
        self.ranges.last().map_or(self.lower, |range| range.upper)
    }

    /// About how many bytes it takes on the wire.
    pub fn weight(&self) -> usize {
        16 + self.ranges.iter().map(Range::weight).sum::<usize>()
    }
}
