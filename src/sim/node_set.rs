//! Sets of nodes for worlds of ten thousand: one bit each.

/// A set of nodes, one bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NodeSet(Vec<u64>);

impl NodeSet {
    /// Adds a node; `false` when it was there.
    pub(super) fn insert(&mut self, node: usize) -> bool {
        let (word, bit) = (node / 64, 1u64 << (node % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Takes a node out; `false` when it was not there.
    pub(super) fn remove(&mut self, node: usize) -> bool {
        let Some(word) = self.0.get_mut(node / 64) else { return false };
        let bit = 1u64 << (node % 64);
        let there = *word & bit != 0;
        *word &= !bit;
        there
    }

    pub(super) fn contains(&self, node: usize) -> bool {
        self.0.get(node / 64).is_some_and(|word| word & (1u64 << (node % 64)) != 0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Number of nodes that are in both.
    pub(super) fn common(&self, other: &Self) -> usize {
        self.0.iter().zip(&other.0).map(|(a, b)| (a & b).count_ones() as usize).sum()
    }
}

impl FromIterator<usize> for NodeSet {
    fn from_iter<I: IntoIterator<Item = usize>>(nodes: I) -> Self {
        let mut set = Self::default();
        nodes.into_iter().for_each(|node| {
            set.insert(node);
        });
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_sets_count_and_forget() {
        let mut set: NodeSet = [1, 64, 700].into_iter().collect();
        assert!(!set.insert(64) && set.insert(65));
        assert!(set.contains(700) && !set.contains(701) && !set.contains(9999));
        assert_eq!((set.len(), set.common(&[1, 2, 65].into_iter().collect())), (4, 2));
        assert!(set.remove(1) && !set.remove(1) && !set.remove(12_345));
        assert_eq!(set.len(), 3);
        assert!(NodeSet::default().is_empty() && !set.is_empty());
    }
}
