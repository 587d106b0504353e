//! Where pushing pays: learned per (origin, link), falling back to the link's own average.
//!
//! A push is assumed to have been useful until the peer answers that it came too late
//! (`Duplicate`); an announcement is assumed to have been enough until the peer asks for the
//! payload (`Want`) or says that a push would have come first (`Early`). Each estimate is an
//! exponentially weighted average with weight 3/20. One origin's traffic thus settles into a tree
//! of its own, at about one payload copy per node, without any tree being agreed upon; a broken
//! branch shows as `Want` and heals itself. Plumtree's boolean eager set (Leitão, Pereira and
//! Rodrigues, SRDS 2007) is the special case of one origin.
//!
//! Integers only: the same on every platform.

use std::collections::BTreeMap;

use crate::types::PeerId;

/// Probability 1.
const ONE: i32 = 1 << 16;
/// Fewer samples than this say nothing; the link's average decides.
const MIN_SAMPLES: u8 = 3;
/// Origins remembered; the least recently heard of is forgotten first.
const MAX_ORIGINS: usize = 256;
/// Links at most.
const SLOTS: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Estimate {
    /// In 1/65536.
    p: i32,
    samples: u8,
}

impl Estimate {
    const HOPEFUL: Self = Self { p: ONE, samples: 0 };

    fn pushed(&mut self) {
        self.samples = self.samples.saturating_add(1);
        self.p += (ONE - self.p) * 3 / 20;
    }

    fn announced(&mut self) {
        self.samples = self.samples.saturating_add(1);
        self.p -= self.p * 3 / 20;
    }

    /// Takes back what `pushed` assumed, and counts a useless push instead.
    fn useless(&mut self) {
        self.p = (self.p - ONE * 3 / 20).max(0);
    }

    /// Takes back what `announced` assumed, and counts a useful push instead.
    fn useful(&mut self) {
        self.p = (self.p + ONE * 3 / 20).min(ONE);
    }
}

#[derive(Debug)]
struct Origin {
    links: Box<[Estimate; SLOTS]>,
    last_used: u64,
}

/// What was learned.
#[derive(Debug)]
pub(super) struct Learned {
    links: [Estimate; SLOTS],
    origins: BTreeMap<PeerId, Origin>,
    clock: u64,
}

/// What a peer's answer says of one push or announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lesson {
    /// We pushed.
    Pushed,
    /// We announced.
    Announced,
    /// Our push was a duplicate.
    Useless,
    /// Our announcement should have been a push.
    Useful,
}

impl Learned {
    pub(super) fn new() -> Self {
        Self { links: [Estimate::HOPEFUL; SLOTS], origins: BTreeMap::new(), clock: 0 }
    }

    /// Whether a payload of `size` bytes from `origin` is worth pushing on a link.
    ///
    /// A wrong push costs `size`, a missing push costs one round trip on that branch: the larger
    /// the payload, the surer we want to be. Threshold `size / (size + 2.3 KiB)`, at least 0.3 and
    /// at most 0.95 (swept in simulation at 1, 4, 8 and 16 KiB).
    pub(super) fn should_push(&self, origin: &PeerId, slot: u8, size: u64) -> bool {
        let slot = usize::from(slot) % SLOTS;
        let size = i64::try_from(size).unwrap_or(i64::MAX / i64::from(ONE) / 2);
        let threshold = size.saturating_mul(i64::from(ONE)) / (size + 2355);
        let threshold = threshold.clamp(i64::from(ONE) * 3 / 10, i64::from(ONE) * 95 / 100);
        let own = self.origins.get(origin).map(|o| o.links[slot]);
        let estimate = own.filter(|e| e.samples >= MIN_SAMPLES).unwrap_or(self.links[slot]);
        i64::from(estimate.p) >= threshold
    }

    pub(super) fn note(&mut self, origin: &PeerId, slot: u8, lesson: Lesson) {
        let slot = usize::from(slot) % SLOTS;
        self.clock += 1;
        let clock = self.clock;
        if !self.origins.contains_key(origin) {
            self.make_room();
            let links = Box::new([Estimate::HOPEFUL; SLOTS]);
            self.origins.insert(*origin, Origin { links, last_used: clock });
        }
        let by_origin = self.origins.get_mut(origin).map(|o| {
            o.last_used = clock;
            &mut o.links[slot]
        });
        for estimate in by_origin.into_iter().chain([&mut self.links[slot]]) {
            match lesson {
                Lesson::Pushed => estimate.pushed(),
                Lesson::Announced => estimate.announced(),
                Lesson::Useless => estimate.useless(),
                Lesson::Useful => estimate.useful(),
            }
        }
    }

    /// A link slot has a new owner.
    pub(super) fn clear_slot(&mut self, slot: u8) {
        let slot = usize::from(slot) % SLOTS;
        self.links[slot] = Estimate::HOPEFUL;
        for origin in self.origins.values_mut() {
            origin.links[slot] = Estimate::HOPEFUL;
        }
    }

    fn make_room(&mut self) {
        if self.origins.len() < MAX_ORIGINS {
            return;
        }
        let oldest = self.origins.iter().min_by_key(|(_, o)| o.last_used).map(|(id, _)| *id);
        if let Some(oldest) = oldest {
            self.origins.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: PeerId = PeerId::from_bytes([1; 32]);

    #[test]
    fn a_link_that_answers_duplicate_is_no_longer_pushed_to() {
        let mut learned = Learned::new();
        let mut pushes = 0;
        for _ in 0..100 {
            if learned.should_push(&ORIGIN, 3, 1024) {
                pushes += 1;
                learned.note(&ORIGIN, 3, Lesson::Pushed);
                learned.note(&ORIGIN, 3, Lesson::Useless);
            } else {
                learned.note(&ORIGIN, 3, Lesson::Announced);
            }
        }
        assert!(pushes < 10, "{pushes}");
        assert!(learned.should_push(&ORIGIN, 4, 1024), "other links are unharmed");
    }

    #[test]
    fn wants_bring_the_push_back() {
        let mut learned = Learned::new();
        for _ in 0..20 {
            learned.note(&ORIGIN, 0, Lesson::Announced);
        }
        assert!(!learned.should_push(&ORIGIN, 0, 1024));
        for _ in 0..4 {
            learned.note(&ORIGIN, 0, Lesson::Announced);
            learned.note(&ORIGIN, 0, Lesson::Useful);
        }
        assert!(learned.should_push(&ORIGIN, 0, 1024));
    }

    #[test]
    fn origins_are_bounded_and_sizes_never_overflow() {
        let mut learned = Learned::new();
        for n in 0..2000u16 {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_le_bytes());
            learned.note(&PeerId::from_bytes(id), 0, Lesson::Pushed);
        }
        assert_eq!(learned.origins.len(), MAX_ORIGINS);
        assert!(learned.should_push(&ORIGIN, 0, u64::MAX));
        assert!(learned.should_push(&ORIGIN, 200, 0));
    }
}
