//! What two peers say to each other to find out what one of them lacks.

use super::{TransactionId, WallTime};

/// Maximum number of ranges in one reconciliation message.
pub const MAX_RANGES_PER_MESSAGE: usize = 1024;

/// Maximum number of ids in one reconciliation message, in all its lists together.
pub const MAX_IDS_PER_RECONCILE: usize = 2048;

/// Bound in the order of reconciliation: by creation, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bound {
    /// The earliest creation of a transaction above it.
    pub created: WallTime,
    /// The least id of such a transaction.
    pub id: TransactionId,
}

impl Bound {
    /// The bound below everything.
    pub const MIN: Self = Self::at(WallTime::from_millis(0));
    /// The bound above everything that is ever created.
    pub const MAX: Self = Self::at(WallTime::from_millis(u64::MAX));

    /// The bound below everything created at this time or later.
    pub const fn at(created: WallTime) -> Self {
        Self { created, id: TransactionId::from_bytes([0; 32]) }
    }
}

/// Content of one range.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeContent {
    /// Nothing: the range needs no more work.
    Skip,
    /// Fingerprint of what the sender holds in the range.
    Print([u8; 16]),
    /// List of everything that the sender holds in the range: ids and payload bytes.
    All(Vec<(TransactionId, u64)>),
    /// List of everything that the sender holds in the range and the receiver did not list.
    Rest(Vec<(TransactionId, u64)>),
}

/// Range of transactions; it begins where the one before ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The bound at which it ends.
    pub upper: Bound,
    /// The content of the range.
    pub content: RangeContent,
}

/// Question or answer of a reconciliation: ranges side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconcile {
    /// The number of the session, chosen by the asker; an answer carries that of its question.
    pub session: u32,
    /// The bound at which the first range begins.
    pub lower: Bound,
    /// The ranges in order, each ending above the one before.
    pub ranges: Vec<Range>,
}

impl Range {
    /// Number of ids that the content lists.
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
    /// Bound at which the last range ends.
    pub fn upper(&self) -> Bound {
        self.ranges.last().map_or(self.lower, |range| range.upper)
    }

    /// About how many bytes it takes on the wire.
    pub fn weight(&self) -> usize {
        16 + self.ranges.iter().map(Range::weight).sum::<usize>()
    }
}
