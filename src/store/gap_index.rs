//! How far each topic has gaps: entries that were removed, and of which subscribers are told.

use std::collections::HashMap;

/// Maximum number of topics that are known one by one. Others share one answer, which may be too
/// high: a subscriber of such a topic may be told of a gap that is none.
const MAX_TOPICS: usize = 4096;

/// The highest removed cursor, by topic.
#[derive(Debug, Clone, Default)]
pub(super) struct GapIndex {
    topics: HashMap<u64, u64>,
    /// Highest removed cursor of topics that are not listed.
    others: u64,
    all: u64,
}

impl GapIndex {
    pub(super) fn note(&mut self, topic: u64, cursor: u64) {
        self.all = self.all.max(cursor);
        if cursor <= self.others {
            return;
        }
        let last = self.topics.entry(topic).or_default();
        *last = cursor.max(*last);
        if self.topics.len() > MAX_TOPICS {
            self.forget_half();
        }
    }

    /// The highest cursor that `topic`, or any topic, lacks; 0 for none.
    pub(super) fn of(&self, topic: Option<u64>) -> u64 {
        let Some(topic) = topic else { return self.all };
        self.topics.get(&topic).copied().unwrap_or(self.others)
    }

    /// Parts to write down: key and cursor of each topic, and what holds for all others.
    #[cfg(feature = "sqlite")]
    pub(super) fn parts(&self) -> (impl Iterator<Item = (u64, u64)> + '_, u64) {
        (self.topics.iter().map(|(topic, cursor)| (*topic, *cursor)), self.others)
    }

    /// Gaps as they were written down.
    #[cfg(feature = "sqlite")]
    pub(super) fn from_parts(topics: Vec<(u64, u64)>, others: u64) -> Self {
        let all = topics.iter().map(|(_, cursor)| *cursor).fold(others, u64::max);
        Self { topics: topics.into_iter().collect(), others, all }
    }

    fn forget_half(&mut self) {
        let mut cursors: Vec<_> = self.topics.values().copied().collect();
        let middle = cursors.len() / 2;
        let (_, median, _) = cursors.select_nth_unstable(middle);
        self.others = self.others.max(*median);
        self.topics.retain(|_, cursor| *cursor > self.others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_apart_until_there_are_too_many() {
        let mut gaps = GapIndex::default();
        gaps.note(1, 10);
        gaps.note(2, 30);
        gaps.note(1, 5);
        assert_eq!((gaps.of(Some(1)), gaps.of(Some(2)), gaps.of(Some(3))), (10, 30, 0));
        assert_eq!(gaps.of(None), 30);
        for n in 0..20_000 {
            gaps.note(100 + n, 100 + n);
            assert!(gaps.topics.len() <= MAX_TOPICS);
            assert_eq!(gaps.of(None), 100 + n);
        }
        assert_eq!(gaps.of(Some(20_099)), 20_099, "the latest are known");
        assert!(gaps.of(Some(1)) >= 10 && gaps.of(Some(101)) >= 101, "no loss is hidden");
        assert!(gaps.of(Some(7)) < 20_099);
    }
}
