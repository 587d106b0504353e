//! Retained transactions in the order (created, id), with sums for comparing ranges.
//!
//! A list of leaves, each with at most [`LEAF`] positions in order, the sum of their ids and the
//! earliest time at which one of them may go. Comparing everything costs one addition a leaf; a
//! range costs that and the ids of the two leaves at its ends. Entries that come in the order of
//! their creation fill the leaves to the brim: 4.5 bytes an entry, and never more than twice that.
//!
//! Invariants: leaves do not overlap and stand in order; `first` of a leaf is not above its first
//! key and above every key of the leaf before; `earliest_end` is not above the earliest time in the leaf.
//!
//! Tested by: `protocol::log::tests`, `protocol::tests::pair`.

use crate::types::{Bound, TransactionId, WallTime};

use super::records::{Record, Records};
use super::topic_table::Scope;

/// Maximum number of positions in one leaf.
const LEAF: usize = 256;

/// Summary of a range: number and sum of the ids modulo 2^256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::protocol) struct Sum {
    pub(in crate::protocol) count: u64,
    words: [u64; 4],
}

impl Sum {
    pub(in crate::protocol) fn add(&mut self, id: &TransactionId) {
        self.join(&Self { count: 1, words: words(id) });
    }

    fn join(&mut self, other: &Self) {
        self.count += other.count;
        let mut carry = false;
        for (mine, theirs) in self.words.iter_mut().zip(other.words) {
            let (sum, first) = mine.overflowing_add(theirs);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*mine, carry) = (sum, first || second);
        }
    }

    fn subtract(&mut self, id: &TransactionId) {
        self.count -= 1;
        let mut borrow = false;
        for (mine, theirs) in self.words.iter_mut().zip(words(id)) {
            let (rest, first) = mine.overflowing_sub(theirs);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*mine, borrow) = (rest, first || second);
        }
    }

    /// Returns what is compared on the wire: a sum alone could be forged by solving for ids.
    pub(in crate::protocol) fn print(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"sorcha-peer/reconcile");
        hasher.update(&self.count.to_le_bytes());
        for word in self.words {
            hasher.update(&word.to_le_bytes());
        }
        let mut print = [0; 16];
        print.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        print
    }
}

fn words(id: &TransactionId) -> [u64; 4] {
    let (chunks, _) = id.as_bytes().as_chunks::<8>();
    std::array::from_fn(|at| u64::from_le_bytes(chunks[at]))
}

#[derive(Debug)]
struct Leaf {
    first: Bound,
    sum: Sum,
    earliest_end: WallTime,
    positions: Vec<u32>,
}

/// Index of the entries by creation and id.
#[derive(Debug, Default)]
pub(super) struct RangeIndex {
    leaves: Vec<Leaf>,
}

impl RangeIndex {
    pub(in crate::protocol) fn insert(
        &mut self,
        position: u32,
        earliest_end: WallTime,
        records: &Records,
    ) {
        let key = records.key(position);
        let mut at = self.leaves.partition_point(|leaf| leaf.first <= key).saturating_sub(1);
        if self.leaves.is_empty() {
            self.leaves.push(Leaf::new(key));
        }
        if self.leaves[at].positions.len() == LEAF {
            let last = at + 1 == self.leaves.len();
            if last && self.leaves[at].positions.last().is_some_and(|p| records.key(*p) < key) {
                self.leaves.push(Leaf::new(key));
                at += 1;
            } else {
                let upper = self.leaves[at].halve(records);
                let above = upper.first <= key;
                self.leaves.insert(at + 1, upper);
                at += usize::from(above);
            }
        }
        let leaf = &mut self.leaves[at];
        let at_key = leaf.positions.partition_point(|p| records.key(*p) < key);
        leaf.positions.insert(at_key, position);
        leaf.sum.add(&key.id);
        leaf.earliest_end = leaf.earliest_end.min(earliest_end);
        leaf.first = leaf.first.min(key);
    }

    /// Takes out what still stands at its position.
    pub(in crate::protocol) fn remove(&mut self, position: u32, records: &Records) {
        let key = records.key(position);
        let at = self.leaves.partition_point(|leaf| leaf.first <= key).saturating_sub(1);
        let Some(leaf) = self.leaves.get_mut(at) else { return };
        let at_key = leaf.positions.partition_point(|p| records.key(*p) < key);
        if leaf.positions.get(at_key) == Some(&position) {
            leaf.positions.remove(at_key);
            leaf.sum.subtract(&key.id);
            if leaf.positions.is_empty() {
                self.leaves.remove(at);
            }
        }
    }

    /// Takes out everything that may go at `now`; walks only leaves that hold such.
    pub(in crate::protocol) fn expire(&mut self, now: WallTime, records: &Records) -> Vec<u32> {
        let mut expired = Vec::new();
        if self.leaves.iter().all(|leaf| leaf.earliest_end > now) {
            return expired;
        }
        for leaf in self.leaves.iter_mut().filter(|leaf| leaf.earliest_end <= now) {
            leaf.expire(now, records, &mut expired);
        }
        // What is left of thinned-out neighbours moves together.
        let mut kept: Vec<Leaf> = Vec::with_capacity(self.leaves.len());
        for leaf in self.leaves.drain(..).filter(|leaf| !leaf.positions.is_empty()) {
            match kept.last_mut() {
                Some(last) if last.positions.len() + leaf.positions.len() <= LEAF / 2 => {
                    last.positions.extend(&leaf.positions);
                    last.sum.join(&leaf.sum);
                    last.earliest_end = last.earliest_end.min(leaf.earliest_end);
                }
                _ => kept.push(leaf),
            }
        }
        kept.shrink_to_fit();
        self.leaves = kept;
        expired
    }

    /// Number and sum in `lower..upper`.
    pub(in crate::protocol) fn measure(
        &self,
        lower: Bound,
        upper: Bound,
        records: &Records,
    ) -> Sum {
        let mut sum = Sum::default();
        for (at, leaf) in self.overlapping(lower, upper) {
            if lower <= leaf.first && self.leaves.get(at + 1).is_some_and(|n| n.first <= upper) {
                sum.join(&leaf.sum);
            } else {
                for position in leaf.within(lower, upper, records) {
                    sum.add(&records.id(*position));
                }
            }
        }
        sum
    }

    /// The positions in `lower..upper`, in order.
    pub(in crate::protocol) fn range<'a>(
        &'a self,
        lower: Bound,
        upper: Bound,
        records: &'a Records,
    ) -> impl Iterator<Item = u32> + 'a {
        let leaves = self.overlapping(lower, upper);
        leaves.flat_map(move |(_, leaf)| leaf.within(lower, upper, records).iter().copied())
    }

    /// Cuts `lower..upper` into at most `ways` parts of about equal numbers: the upper bound and
    /// the sum of each. The last bound is `upper`. One part only where there is at most one entry.
    pub(in crate::protocol) fn split(
        &self,
        lower: Bound,
        upper: Bound,
        ways: u64,
        records: &Records,
    ) -> Vec<(Bound, Sum)> {
        let total = self.measure(lower, upper, records).count;
        let mut bounds = Vec::new();
        let (mut seen, mut next) = (0, 1);
        for (_, leaf) in self.overlapping(lower, upper) {
            let part = leaf.within(lower, upper, records);
            let (start, end) = (seen, seen + part.len() as u64);
            seen = end;
            while next < ways {
                let rank = total * next / ways;
                if rank >= end {
                    break;
                }
                let here = usize::try_from(rank.saturating_sub(start)).unwrap_or(0);
                let key = records.key(part[here]);
                let before = match here.checked_sub(1) {
                    Some(before) => Some(records.key(part[before])),
                    None => self.before(key, records),
                };
                let bound = before.map_or(key, |before| between(before, key));
                let last = bounds.last().copied().unwrap_or(lower);
                if bound > last && bound < upper {
                    bounds.push(bound);
                }
                next += 1;
            }
        }
        bounds.push(upper);
        let mut from = lower;
        let measured = bounds.into_iter().map(|to| {
            let sum = self.measure(from, to, records);
            from = to;
            (to, sum)
        });
        measured.collect()
    }

    /// Number and sum in `lower..upper` of what is in scope.
    pub(super) fn measure_within(
        &self,
        lower: Bound,
        upper: Bound,
        scope: &Scope,
        records: &Records,
    ) -> Sum {
        let mut sum = Sum::default();
        for record in self.within(lower, upper, scope, records) {
            sum.add(&record.id);
        }
        sum
    }

    /// Like [`RangeIndex::split`], of what is in scope.
    pub(super) fn split_within(
        &self,
        lower: Bound,
        upper: Bound,
        ways: u64,
        scope: &Scope,
        records: &Records,
    ) -> Vec<(Bound, Sum)> {
        let total = self.within(lower, upper, scope, records).count() as u64;
        let (mut parts, mut sum, mut next) = (Vec::new(), Sum::default(), 1);
        let mut before: Option<Bound> = None;
        for (rank, record) in (0..).zip(self.within(lower, upper, scope, records)) {
            let key = record.key();
            if let Some(before) = before
                && next < ways
                && rank >= total * next / ways
            {
                parts.push((between(before, key), std::mem::take(&mut sum)));
                while next < ways && total * next / ways <= rank {
                    next += 1;
                }
            }
            sum.add(&key.id);
            before = Some(key);
        }
        parts.push((upper, sum));
        parts
    }

    fn within<'a>(
        &'a self,
        lower: Bound,
        upper: Bound,
        scope: &'a Scope,
        records: &'a Records,
    ) -> impl Iterator<Item = &'a Record> {
        let records = self.range(lower, upper, records).filter_map(|at| records.record(at));
        records.filter(|record| scope.takes(record.topic))
    }

    /// The key before `key`.
    fn before(&self, key: Bound, records: &Records) -> Option<Bound> {
        let at = self.leaves.partition_point(|leaf| leaf.first < key);
        let last = self.leaves[..at].iter().rev().find_map(|leaf| {
            let at_key = leaf.positions.partition_point(|p| records.key(*p) < key);
            leaf.positions[..at_key].last()
        });
        last.map(|position| records.key(*position))
    }

    fn overlapping(&self, lower: Bound, upper: Bound) -> impl Iterator<Item = (usize, &Leaf)> {
        let from = self.leaves.partition_point(|leaf| leaf.first <= lower).saturating_sub(1);
        let leaves = self.leaves[from..].iter().enumerate();
        leaves.take_while(move |(_, leaf)| leaf.first < upper).map(move |(at, l)| (from + at, l))
    }

    /// Bytes taken, from capacities.
    #[cfg(test)]
    pub(in crate::protocol) fn bytes(&self) -> usize {
        let positions: usize = self.leaves.iter().map(|leaf| leaf.positions.capacity()).sum();
        positions * size_of::<u32>() + self.leaves.capacity() * size_of::<Leaf>()
    }
}

impl Leaf {
    fn new(first: Bound) -> Self {
        let earliest_end = WallTime::from_millis(u64::MAX);
        Self { first, sum: Sum::default(), earliest_end, positions: Vec::new() }
    }

    /// Gives the upper half of this leaf away.
    fn halve(&mut self, records: &Records) -> Self {
        let mut upper = Self::new(records.key(self.positions[LEAF / 2]));
        upper.positions = self.positions.split_off(LEAF / 2);
        upper.earliest_end = self.earliest_end;
        for position in &upper.positions {
            let id = records.id(*position);
            upper.sum.add(&id);
            self.sum.subtract(&id);
        }
        self.positions.shrink_to_fit();
        upper
    }

    fn expire(&mut self, now: WallTime, records: &Records, expired: &mut Vec<u32>) {
        let (sum, mut earliest_end) = (&mut self.sum, WallTime::from_millis(u64::MAX));
        self.positions.retain(|position| {
            let Some(record) = records.record(*position) else { return false };
            let stays = record.keep_until() > now;
            if stays {
                earliest_end = earliest_end.min(record.keep_until());
            } else {
                sum.subtract(&record.id);
                expired.push(*position);
            }
            stays
        });
        self.earliest_end = earliest_end;
        if self.positions.len() < self.positions.capacity() / 2 {
            self.positions.shrink_to_fit();
        }
    }

    fn within(&self, lower: Bound, upper: Bound, records: &Records) -> &[u32] {
        let from = self.positions.partition_point(|p| records.key(*p) < lower);
        let to = self.positions.partition_point(|p| records.key(*p) < upper);
        &self.positions[from..to.max(from)]
    }
}

/// The shortest bound that is above `below` and not above `above`.
fn between(below: Bound, above: Bound) -> Bound {
    let mut bound = Bound { created: above.created, id: TransactionId::from_bytes([0; 32]) };
    if below.created == above.created {
        let same = below.id.as_bytes().iter().zip(above.id.as_bytes());
        let same = same.take_while(|(a, b)| a == b).count().min(31);
        let mut prefix = [0; 32];
        prefix[..=same].copy_from_slice(&above.id.as_bytes()[..=same]);
        bound.id = TransactionId::from_bytes(prefix);
    }
    bound
}
