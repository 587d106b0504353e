//! Names in two bytes: a number for each key that some record has, as long as one has it.
//!
//! Bound: 65,535 keys at once. Further ones have no number.
//!
//! Tested by: the tests below.

use std::collections::BTreeMap;

/// Number of no key.
pub(super) const NONE: u16 = 0;

#[derive(Debug, Clone, Copy)]
struct Slot<K, T> {
    key: K,
    /// Number of records that use this number.
    records: u32,
    value: T,
}

/// Keys by number, with something noted for each.
#[derive(Debug)]
pub(super) struct Interner<K, T = ()> {
    by_key: BTreeMap<K, u16>,
    /// Number n stands at n - 1.
    slots: Vec<Slot<K, T>>,
    free: Vec<u16>,
}

impl<K, T> Default for Interner<K, T> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), slots: Vec::new(), free: Vec::new() }
    }
}

impl<K: Copy + Ord, T: Default> Interner<K, T> {
    /// The number of a key, for one record; `NONE` when the table is full.
    pub(super) fn enter(&mut self, key: K) -> u16 {
        if let Some(number) = self.by_key.get(&key).copied() {
            if let Some(slot) = self.slot_mut(number) {
                slot.records += 1;
            }
            return number;
        }
        let slot = Slot { key, records: 1, value: T::default() };
        let number = if let Some(number) = self.free.pop() {
            self.slots[usize::from(number) - 1] = slot;
            number
        } else if let Ok(number) = u16::try_from(self.slots.len() + 1) {
            self.slots.push(slot);
            number
        } else {
            return NONE;
        };
        self.by_key.insert(key, number);
        number
    }

    /// Counts one more record that uses a number.
    pub(super) fn hold(&mut self, number: u16) {
        if let Some(slot) = self.slot_mut(number) {
            slot.records += 1;
        }
    }

    /// Takes one record off a number; with the last one goes what was noted.
    pub(super) fn leave(&mut self, number: u16) {
        let Some(slot) = self.slot_mut(number) else { return };
        slot.records = slot.records.saturating_sub(1);
        if slot.records == 0 {
            let key = slot.key;
            if self.by_key.remove(&key).is_some() {
                self.free.push(number);
            }
        }
    }

    /// The number of a key, if it has one.
    pub(in crate::protocol) fn of(&self, key: &K) -> Option<u16> {
        self.by_key.get(key).copied()
    }

    /// The key of a number that some record has.
    pub(in crate::protocol) fn key(&self, number: u16) -> Option<K> {
        self.slot(number).map(|slot| slot.key)
    }

    pub(in crate::protocol) fn get(&self, key: &K) -> Option<&T> {
        self.slot(self.of(key)?).map(|slot| &slot.value)
    }

    pub(in crate::protocol) fn get_mut(&mut self, number: u16) -> Option<&mut T> {
        self.slot_mut(number).map(|slot| &mut slot.value)
    }

    /// Iterates over what is noted for each key, by number.
    pub(in crate::protocol) fn iter(&self) -> impl Iterator<Item = (u16, &T)> {
        let all = (1u16..).zip(&self.slots);
        all.filter(|(_, slot)| slot.records > 0).map(|(number, slot)| (number, &slot.value))
    }

    pub(in crate::protocol) fn len(&self) -> usize {
        self.by_key.len()
    }

    fn slot(&self, number: u16) -> Option<&Slot<K, T>> {
        self.slots.get(usize::from(number).checked_sub(1)?).filter(|slot| slot.records > 0)
    }

    fn slot_mut(&mut self, number: u16) -> Option<&mut Slot<K, T>> {
        self.slots.get_mut(usize::from(number).checked_sub(1)?).filter(|slot| slot.records > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lives_as_long_as_its_records() {
        let mut numbers = Interner::<u32, u8>::default();
        let number = numbers.enter(7);
        assert_eq!((numbers.enter(7), numbers.of(&7)), (number, Some(number)));
        *numbers.get_mut(number).unwrap() = 5;
        numbers.leave(number);
        assert_eq!((numbers.get(&7), numbers.key(number), numbers.len()), (Some(&5), Some(7), 1));
        numbers.leave(number);
        numbers.leave(number);
        assert_eq!((numbers.get(&7), numbers.key(number), numbers.len()), (None, None, 0));
        assert_eq!(numbers.iter().count(), 0);
        assert_eq!(numbers.enter(8), number, "given anew, once");
        assert_ne!(numbers.enter(9), number);
        assert_eq!(numbers.get(&8), Some(&0));
        assert_eq!(numbers.iter().map(|(n, _)| n).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn keys_beyond_the_table_have_none() {
        let mut numbers = Interner::<u32>::default();
        for n in 0..u32::from(u16::MAX) {
            assert_ne!(numbers.enter(n), NONE);
        }
        assert_eq!(numbers.enter(70_000), NONE);
        numbers.leave(NONE);
        assert_eq!((numbers.key(NONE), numbers.get_mut(NONE)), (None, None));
        assert_eq!(numbers.len(), usize::from(u16::MAX));
    }
}
