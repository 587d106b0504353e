//! Where pushing pays: learned per (origin, link), falling back to (link it came on, link), and
//! from there to the link's own average.
//!
//! A node far from an origin that it hears of for the first time knows nothing of that origin, but
//! what came over the same link before has mostly gone the same way from here on: that is what the
//! second level is for. Own transactions have a row of their own there, which starts hopeful,
//! because nobody can have heard of them sooner.
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
//!
//! Tested by: the tests below, `sim::tests::spread`.

use std::collections::BTreeMap;

use crate::protocol::log::OWN;
use crate::types::PeerId;

/// Probability 1, in 1/65536.
const ONE: i32 = 1 << 16;
/// Minimum number of samples of what came on one link that say something; with fewer the link's
/// average decides.
const MIN_SAMPLES: u8 = 3;
/// Minimum number of samples of an origin that say something: what came on the same link from
/// others is worth more than a few of its own (1 KiB from random origins at 100 nodes: 1.53 to 1.60
/// copies over four seeds, and 1.54 to 2.14 over six with 3; from ten origins no difference there).
const MIN_OF_ORIGIN: u8 = 8;
/// Maximum number of origins remembered; the least recently heard of is forgotten first.
pub(in crate::protocol) const MAX_ORIGINS: usize = 256;
/// Maximum number of links.
const SLOTS: usize = 128;

#[derive(Debug, Clone, Copy)]
struct Estimate {
    /// Probability in 1/65536.
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

/// Estimates by slot, as far as slots were used: hopeful beyond.
#[derive(Debug, Clone, Default)]
struct Row(Vec<Estimate>);

impl Row {
    fn get(&self, slot: usize) -> Estimate {
        self.0.get(slot).copied().unwrap_or(Estimate::HOPEFUL)
    }

    /// Returns the estimate of a slot to be changed.
    fn at(&mut self, slot: usize) -> &mut Estimate {
        if self.0.len() <= slot {
            self.0.resize(slot + 1, Estimate::HOPEFUL);
        }
        &mut self.0[slot]
    }

    fn clear(&mut self, slot: usize) {
        if let Some(estimate) = self.0.get_mut(slot) {
            *estimate = Estimate::HOPEFUL;
        }
    }
}

#[derive(Debug)]
struct Origin {
    links: Row,
    last_used: u64,
}

/// Estimates of where pushing pays, as learned so far.
#[derive(Debug)]
pub(in crate::protocol) struct PushPolicy {
    links: Row,
    /// Estimates by the slot that a transaction came on, as far as any did.
    ingress: Vec<Option<Row>>,
    origins: BTreeMap<PeerId, Origin>,
    clock: u64,
}

/// The way of a transaction through this node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(in crate::protocol) origin: PeerId,
    /// Slot of the link that it came on, or `OWN`.
    pub(in crate::protocol) ingress: u8,
    /// Slot of the link that it is offered on.
    pub(in crate::protocol) slot: u8,
}

/// Lesson that a peer's answer holds about one push or announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Lesson {
    /// Pushed by us.
    Pushed,
    /// Announced by us.
    Announced,
    /// Pushed by us for nothing: a duplicate.
    Useless,
    /// Announced by us where a push would have been better.
    Useful,
}

impl PushPolicy {
    pub(in crate::protocol) fn new() -> Self {
        Self {
            links: Row::default(),
            ingress: vec![None; SLOTS + 1],
            origins: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Reports whether a payload of `size` bytes is worth pushing.
    ///
    /// A wrong push costs `size`, a missing push costs one round trip on that branch: the larger
    /// the payload, the surer we want to be. Threshold `size / (size + 2.3 KiB)`, at least 0.4 and
    /// at most 0.95 (swept in simulation at 1, 4, 8 and 16 KiB; 0.3, 0.4 and 0.5 for 1 KiB from
    /// random origins at 100 nodes: 2.5, 1.8 and 1.5 copies, 95 of 100 within 1.4, 1.7 and 2.2 RTT).
    pub(super) fn should_push(&self, route: &Route, size: u64) -> bool {
        let size = i64::try_from(size).unwrap_or(i64::MAX / i64::from(ONE) / 2);
        let threshold = size.saturating_mul(i64::from(ONE)) / (size + 2355);
        let threshold = threshold.clamp(i64::from(ONE) * 4 / 10, i64::from(ONE) * 95 / 100);
        let own = self.origins.get(&route.origin).map(|o| o.links.get(index(route.slot)));
        let known = own.filter(|e| e.samples >= MIN_OF_ORIGIN);
        let estimate = known.unwrap_or_else(|| self.unknown_origin(route));
        i64::from(estimate.p) >= threshold
    }

    /// Returns the estimate of a link for an origin of which nothing is known.
    fn unknown_origin(&self, route: &Route) -> Estimate {
        let slot = index(route.slot);
        let row = self.ingress[row_of(route.ingress)].as_ref().map(|row| row.get(slot));
        if route.ingress == OWN {
            // Nobody can have had it sooner, so other origins tell nothing.
            return row.unwrap_or(Estimate::HOPEFUL);
        }
        row.filter(|e| e.samples >= MIN_SAMPLES).unwrap_or(self.links.get(slot))
    }

    pub(super) fn note(&mut self, route: &Route, lesson: Lesson) {
        let slot = index(route.slot);
        self.clock += 1;
        let clock = self.clock;
        if !self.origins.contains_key(&route.origin) {
            self.make_room();
            // What is known of the links so far is the best guess for an origin that is new: with
            // many origins, starting hopeful for each of them would be flooding for ever.
            let guess = |slot| {
                let slot = u8::try_from(slot).unwrap_or_default();
                Estimate { p: self.unknown_origin(&Route { slot, ..*route }).p, samples: 0 }
            };
            // Slots beyond were never used: nothing is known of them.
            let links = Row((0..self.links.0.len()).map(guess).collect());
            self.origins.insert(route.origin, Origin { links, last_used: clock });
        }
        let by_origin = self.origins.get_mut(&route.origin).map(|o| {
            o.last_used = clock;
            o.links.at(slot)
        });
        let row = self.ingress[row_of(route.ingress)].get_or_insert_default();
        for estimate in by_origin.into_iter().chain([row.at(slot), self.links.at(slot)]) {
            match lesson {
                Lesson::Pushed => estimate.pushed(),
                Lesson::Announced => estimate.announced(),
                Lesson::Useless => estimate.useless(),
                Lesson::Useful => estimate.useful(),
            }
        }
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn origins(&self) -> usize {
        self.origins.len()
    }

    /// A link slot has a new owner.
    pub(in crate::protocol) fn clear_slot(&mut self, slot: u8) {
        let slot = index(slot);
        self.ingress[slot] = None;
        for row in self.ingress.iter_mut().flatten() {
            row.clear(slot);
        }
        self.links.clear(slot);
        for origin in self.origins.values_mut() {
            origin.links.clear(slot);
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

fn index(slot: u8) -> usize {
    usize::from(slot) % SLOTS
}

fn row_of(ingress: u8) -> usize {
    usize::from(ingress).min(SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: PeerId = PeerId::from_bytes([1; 32]);

    pub(in crate::protocol) fn route(origin: PeerId, slot: u8) -> Route {
        Route { origin, ingress: 9, slot }
    }

    #[test]
    fn a_link_that_answers_duplicate_is_no_longer_pushed_to() {
        let mut learned = PushPolicy::new();
        let mut pushes = 0;
        for _ in 0..100 {
            if learned.should_push(&route(ORIGIN, 3), 1024) {
                pushes += 1;
                learned.note(&route(ORIGIN, 3), Lesson::Pushed);
                learned.note(&route(ORIGIN, 3), Lesson::Useless);
            } else {
                learned.note(&route(ORIGIN, 3), Lesson::Announced);
            }
        }
        assert!(pushes < 10, "{pushes}");
        assert!(learned.should_push(&route(ORIGIN, 4), 1024), "other links are unharmed");
    }

    #[test]
    fn a_new_origin_starts_from_what_is_known_of_the_link() {
        let mut learned = PushPolicy::new();
        for n in 0..40 {
            let origin = PeerId::from_bytes([n; 32]);
            learned.note(&route(origin, 3), Lesson::Pushed);
            learned.note(&route(origin, 3), Lesson::Useless);
        }
        let fresh = PeerId::from_bytes([99; 32]);
        for _ in 0..6 {
            assert!(!learned.should_push(&route(fresh, 3), 1024));
            learned.note(&route(fresh, 3), Lesson::Announced);
        }
        assert!(learned.should_push(&route(fresh, 4), 1024), "other links are unharmed");
    }

    #[test]
    fn what_came_on_one_link_says_nothing_of_another() {
        let mut learned = PushPolicy::new();
        let to = |n, ingress| Route { origin: PeerId::from_bytes([n; 32]), ingress, slot: 3 };
        for n in 0..40 {
            // From link 1 it is mostly useless to push to link 3, from link 2 it is mostly useful.
            learned.note(&to(n, 1), Lesson::Pushed);
            learned.note(&to(n, 1), Lesson::Useless);
            learned.note(&to(n + 100, 2), Lesson::Pushed);
        }
        assert!(!learned.should_push(&to(99, 1), 1024));
        assert!(learned.should_push(&to(99, 2), 1024));
        learned.clear_slot(1);
        for n in 0..4 {
            learned.note(&to(n + 200, 1), Lesson::Pushed);
        }
        assert!(learned.should_push(&to(99, 1), 1024), "a new peer in the slot is somebody else");
    }

    #[test]
    fn own_transactions_start_hopeful_whatever_the_link_is_like() {
        let mut learned = PushPolicy::new();
        for n in 0..40 {
            let origin = PeerId::from_bytes([n; 32]);
            learned.note(&route(origin, 3), Lesson::Pushed);
            learned.note(&route(origin, 3), Lesson::Useless);
        }
        let own = Route { origin: PeerId::from_bytes([99; 32]), ingress: OWN, slot: 3 };
        assert!(!learned.should_push(&route(own.origin, 3), 1024));
        assert!(learned.should_push(&own, 1024));
    }

    #[test]
    fn wants_bring_the_push_back() {
        let mut learned = PushPolicy::new();
        for _ in 0..20 {
            learned.note(&route(ORIGIN, 0), Lesson::Announced);
        }
        assert!(!learned.should_push(&route(ORIGIN, 0), 1024));
        for _ in 0..4 {
            learned.note(&route(ORIGIN, 0), Lesson::Announced);
            learned.note(&route(ORIGIN, 0), Lesson::Useful);
        }
        assert!(learned.should_push(&route(ORIGIN, 0), 1024));
    }

    #[test]
    fn origins_are_bounded_and_sizes_never_overflow() {
        let mut learned = PushPolicy::new();
        for n in 0..2000u16 {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_le_bytes());
            learned.note(&route(PeerId::from_bytes(id), 0), Lesson::Pushed);
        }
        assert_eq!(learned.origins.len(), MAX_ORIGINS);
        assert!(learned.should_push(&route(ORIGIN, 0), u64::MAX));
        assert!(learned.should_push(&route(ORIGIN, 200), 0));
    }
}
