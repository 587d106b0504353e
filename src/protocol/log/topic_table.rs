//! The topics of what is in the log, by number, so that a record names its own in two bytes.
//!
//! What belongs to topics beyond the 65,535 that have numbers counts as wanted by everybody, so it
//! travels and is compared on every link, and who does not want it drops it on arrival. That costs
//! bytes and loses nothing.
//!
//! Tested by: the tests below, `sim::tests::topics`.

use crate::protocol::interner::{self, Interner};
use crate::types::{Interest, TopicKey};

/// Number of any topic beyond the table.
pub(super) const UNKNOWN: u16 = interner::NONE;

/// All topics of the log.
#[derive(Debug, Default)]
pub(in crate::protocol) struct TopicTable(Interner<TopicKey>);

impl TopicTable {
    /// The number of a topic, for one record.
    pub(super) fn enter(&mut self, key: TopicKey) -> u16 {
        self.0.enter(key)
    }

    /// Takes one record off a topic, by its number.
    pub(super) fn leave(&mut self, number: u16) {
        self.0.leave(number);
    }

    /// Reports whether the topic of this number is wanted.
    pub(in crate::protocol) fn is_wanted(&self, number: u16, interest: &Interest) -> bool {
        if interest.topics.is_none() {
            return true;
        }
        self.0.key(number).is_none_or(|key| interest.wants(key))
    }

    /// Returns the topics that are wanted on both sides of a link.
    pub(in crate::protocol) fn scope(&self, ours: &Interest, theirs: &Interest) -> Scope {
        let (one, other) = match (&ours.topics, &theirs.topics) {
            (None, None) => return Scope(None),
            (Some(topics), _) => (topics, theirs),
            (None, Some(topics)) => (topics, ours),
        };
        let both = one.iter().filter(|topic| other.wants(**topic));
        let mut numbers: Vec<u16> = both.filter_map(|key| self.0.of(key)).collect();
        numbers.push(UNKNOWN);
        numbers.sort_unstable();
        Scope(Some(numbers))
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Scope of a comparison: some topics, by their numbers, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::protocol) struct Scope(Option<Vec<u16>>);

impl Scope {
    /// Scope of a comparison of all topics.
    pub(in crate::protocol) const ALL: Self = Self(None);

    pub(in crate::protocol) fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Reports whether a topic, by its number, is in scope.
    pub(in crate::protocol) fn takes(&self, topic: u16) -> bool {
        self.0.as_ref().is_none_or(|numbers| numbers.binary_search(&topic).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(topics: &[u64]) -> Interest {
        let topics = topics.iter().map(|topic| TopicKey(*topic)).collect();
        Interest { topics: Some(topics), ..Interest::default() }
    }

    #[test]
    fn topics_beyond_the_table_are_wanted_by_everybody() {
        let mut topics = TopicTable::default();
        for n in 0..u64::from(u16::MAX) {
            assert_ne!(topics.enter(TopicKey(n)), UNKNOWN);
        }
        assert_eq!(topics.enter(TopicKey(1 << 40)), UNKNOWN);
        assert!(topics.is_wanted(UNKNOWN, &wants(&[])));
        topics.leave(UNKNOWN);
        assert_eq!(topics.len(), usize::from(u16::MAX));
    }

    #[test]
    fn a_scope_is_what_both_want() {
        let mut topics = TopicTable::default();
        let numbers: Vec<u16> = (0..4).map(|n| topics.enter(TopicKey(n))).collect();
        let scope = topics.scope(&wants(&[0, 1, 2]), &wants(&[1, 2, 3, 9]));
        let all = Interest::default();
        let taken = |scope: &Scope| {
            let numbers = numbers.iter().chain([&UNKNOWN]);
            numbers.map(|n| scope.takes(*n)).collect::<Vec<_>>()
        };
        assert_eq!(taken(&scope), [false, true, true, false, true]);
        assert_eq!(taken(&topics.scope(&all, &wants(&[3]))), [false, false, false, true, true]);
        assert_eq!(taken(&topics.scope(&wants(&[3]), &all)), [false, false, false, true, true]);
        assert_eq!(topics.scope(&all, &all), Scope::ALL);
    }
}
