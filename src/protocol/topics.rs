//! The topics of what is in the log, by number, so that a record names its own in two bytes.
//!
//! A number is given back when no record has it any more. Bound: 65,535 topics at once; what belongs
//! to further ones counts as wanted by everybody, so it travels and is compared on every link, and
//! who does not want it drops it on arrival. That costs bytes and loses nothing.

use std::collections::BTreeMap;

use crate::types::{Interest, TopicKey};

use super::slab::Record;

/// The number of any topic beyond the table.
pub(super) const UNKNOWN: u16 = 0;

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: TopicKey,
    /// Records that name it.
    records: u32,
}

/// All topics of the log.
#[derive(Debug, Default)]
pub(super) struct Topics {
    numbers: BTreeMap<TopicKey, u16>,
    /// Number n stands at n - 1.
    slots: Vec<Slot>,
    free: Vec<u16>,
}

impl Topics {
    /// The number of a topic, for one record.
    pub(super) fn enter(&mut self, key: TopicKey) -> u16 {
        if let Some(number) = self.numbers.get(&key).copied() {
            if let Some(slot) = self.slot(number) {
                slot.records += 1;
            }
            return number;
        }
        let slot = Slot { key, records: 1 };
        let number = if let Some(number) = self.free.pop() {
            self.slots[usize::from(number) - 1] = slot;
            number
        } else if let Ok(number) = u16::try_from(self.slots.len() + 1) {
            self.slots.push(slot);
            number
        } else {
            return UNKNOWN;
        };
        self.numbers.insert(key, number);
        number
    }

    /// A record with this number is gone.
    pub(super) fn leave(&mut self, number: u16) {
        let Some(slot) = self.slot(number) else { return };
        slot.records = slot.records.saturating_sub(1);
        if slot.records == 0 {
            let key = slot.key;
            self.numbers.remove(&key);
            self.free.push(number);
        }
    }

    /// Whether what has this number is wanted.
    pub(super) fn is_wanted(&self, number: u16, interest: &Interest) -> bool {
        if interest.topics.is_none() {
            return true;
        }
        let slot = usize::from(number).checked_sub(1).and_then(|at| self.slots.get(at));
        slot.is_none_or(|slot| interest.wants(slot.key))
    }

    /// What is wanted on both sides of a link.
    pub(super) fn scope(&self, ours: &Interest, theirs: &Interest) -> Scope {
        let (one, other) = match (&ours.topics, &theirs.topics) {
            (None, None) => return Scope(None),
            (Some(topics), _) => (topics, theirs),
            (None, Some(topics)) => (topics, ours),
        };
        let both = one.iter().filter(|topic| other.wants(**topic));
        let mut numbers: Vec<u16> = both.filter_map(|key| self.numbers.get(key).copied()).collect();
        numbers.push(UNKNOWN);
        numbers.sort_unstable();
        Scope(Some(numbers))
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    fn slot(&mut self, number: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(number).checked_sub(1)?)
    }
}

/// The records that a comparison is about: those of some topics, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope(Option<Vec<u16>>);

impl Scope {
    /// Everything.
    pub(super) const ALL: Self = Self(None);

    pub(super) fn is_all(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn takes(&self, record: &Record) -> bool {
        self.0.as_ref().is_none_or(|numbers| numbers.binary_search(&record.topic).is_ok())
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
    fn a_number_lives_as_long_as_its_records() {
        let mut topics = Topics::default();
        let number = topics.enter(TopicKey(7));
        assert_eq!(topics.enter(TopicKey(7)), number);
        assert!(topics.is_wanted(number, &wants(&[7])) && !topics.is_wanted(number, &wants(&[8])));
        topics.leave(number);
        assert_eq!(topics.len(), 1);
        topics.leave(number);
        assert_eq!(topics.len(), 0);
        assert_eq!(topics.enter(TopicKey(8)), number, "given anew");
        assert!(topics.is_wanted(number, &wants(&[8])));
    }

    #[test]
    fn topics_beyond_the_table_are_wanted_by_everybody() {
        let mut topics = Topics::default();
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
        let mut topics = Topics::default();
        let numbers: Vec<u16> = (0..4).map(|n| topics.enter(TopicKey(n))).collect();
        let scope = topics.scope(&wants(&[0, 1, 2]), &wants(&[1, 2, 3, 9]));
        let all = Interest::default();
        let taken = |scope: &Scope| {
            let record = |topic: u16| {
                let at = crate::types::WallTime::from_millis(1);
                let id = crate::types::TransactionId::from_bytes([0; 32]);
                let mut record = Record::new(id, at, at);
                record.topic = topic;
                record
            };
            let numbers = numbers.iter().chain([&UNKNOWN]);
            numbers.map(|n| scope.takes(&record(*n))).collect::<Vec<_>>()
        };
        assert_eq!(taken(&scope), [false, true, true, false, true]);
        assert_eq!(taken(&topics.scope(&all, &wants(&[3]))), [false, false, false, true, true]);
        assert_eq!(taken(&topics.scope(&wants(&[3]), &all)), [false, false, false, true, true]);
        assert_eq!(topics.scope(&all, &all), Scope::ALL);
    }
}
