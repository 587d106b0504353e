//! Properties that hold for whatever comes: random cases, small ones first, the same in every run.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};

/// Holds `property` against `count` cases, each with a source of randomness of its own.
///
/// The first half of the cases grow from tiny to full size, so the first to fail is small. A failure
/// names its case: `SORCHA_CASES=17` runs that one alone, and `SORCHA_CASES=0..5000` a wider band.
pub(crate) fn for_all(count: u64, property: impl Fn(&mut Random)) {
    for number in band(count) {
        let _named = Named(number);
        property(&mut Random::new(number, count));
    }
}

fn band(count: u64) -> Range<u64> {
    let Ok(text) = std::env::var("SORCHA_CASES") else { return 0..count };
    let number = |text: &str| text.trim().parse().expect("SORCHA_CASES is a case or a..b");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&text)..number(&text) + 1,
    }
}

/// The case that is running: says which, should it fail.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("case {0} failed: SORCHA_CASES={0}", self.0);
        }
    }
}

/// Random bytes and choices of one case.
pub(crate) struct Random {
    rng: ChaCha8Rng,
    /// Share of its full length that a list may have, in 1/1024.
    size: u64,
}

impl Random {
    fn new(number: u64, count: u64) -> Self {
        let size = (2048 * (number + 1)).div_ceil(count).min(1024);
        Self { rng: ChaCha8Rng::seed_from_u64(number), size }
    }

    /// Any number, with short ones as frequent as long ones, and the greatest now and then.
    pub(crate) fn number(&mut self) -> u64 {
        match self.rng.next_u64() % 80 {
            shift @ 0..64 => self.rng.next_u64() >> shift,
            64..68 => u64::MAX,
            _ => self.rng.next_u64(),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low bits are as random as all")]
    pub(crate) fn u32(&mut self) -> u32 {
        if self.one_in(20) {
            u32::MAX
        } else {
            (self.number() >> (self.rng.next_u32() % 33)) as u32
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low bits are as random as all")]
    pub(crate) fn u16(&mut self) -> u16 {
        if self.one_in(20) { u16::MAX } else { self.rng.next_u32() as u16 }
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.one_in(2)
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.rng.next_u64().is_multiple_of(count)
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A number of the range, all equally likely.
    pub(crate) fn within<T: TryFrom<u64>>(&mut self, range: Range<u64>) -> T {
        let number = range.start + self.rng.next_u64() % (range.end - range.start);
        T::try_from(number).ok().expect("a range of that type")
    }

    /// An index of a list of that length.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        self.within(0..length as u64)
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())].clone()
    }

    /// A list whose length is of the range, and the shorter the smaller the case.
    pub(crate) fn list<T>(
        &mut self,
        length: Range<u64>,
        mut item: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        let most = ((length.end - length.start) * self.size).div_ceil(1024);
        let length: u64 = self.within(length.start..length.start + most);
        (0..length).map(|_| item(self)).collect()
    }

    pub(crate) fn option<T>(&mut self, item: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.bool().then(|| item(self))
    }

    pub(crate) fn text(&mut self, length: Range<u64>, of: &[char]) -> String {
        self.list(length, |random| random.pick(of)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn cases_are_the_same_again_and_grow() {
        let run = || {
            let lists = RefCell::new(Vec::new());
            for_all(40, |random| lists.borrow_mut().push(random.list(0..100, Random::number)));
            lists.into_inner()
        };
        let lists = run();
        assert_eq!(lists, run());
        assert!(lists[0].len() <= 5 && lists[1].len() <= 10, "small ones first");
        assert!(lists.iter().any(|list| list.len() > 80), "and large ones too");
    }

    #[test]
    fn ranges_are_kept_to() {
        for_all(200, |random| {
            assert!((3..5).contains(&random.within::<u64>(3..5)));
            assert!((1..4).contains(&random.list(1..4, Random::u8).len()));
            assert!(random.text(0..9, &['a', 'b']).chars().all(|c| c == 'a' || c == 'b'));
            assert!(random.index(1) == 0);
        });
    }
}
