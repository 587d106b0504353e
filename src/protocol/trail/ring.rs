//! Trails in the order of their beginning, and their steps in the order in which they happened.
//!
//! Both are rings of a fixed size: the oldest trail gives way to a new one, the oldest step of all
//! to the next one. A step knows the one before it of the same trail by how far back that stands,
//! so a trail is its latest step and a count. What was overwritten is found missing by its number.
//!
//! Bounds: `most` trails and steps; `MAX_STEPS` of one trail, of them `MAX_OFFERS` that tell who was
//! offered it. What does not fit is counted.
//!
//! Tested by: `protocol::tests::trail`.

use std::collections::VecDeque;

use crate::protocol::id_map::Positions;
use crate::protocol::rng::Rng;
use crate::types::{MonoTime, TransactionId};

use super::What;
use super::parties::Parties;

/// Maximum number of steps of one trail.
pub(super) const MAX_STEPS: u8 = 64;
/// Maximum number of those that tell who was offered it.
const MAX_OFFERS: u8 = 32;
/// Bytes of an index for each of its entries, about.
pub(super) const INDEX_BYTES: usize = 10;

/// One step, apart from whose it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    /// Low half of the number of the trail's step before; its own where there is none.
    prev: u32,
    /// Milliseconds since the trail began.
    pub(super) after: u32,
    pub(super) party: u16,
    pub(super) what: What,
    /// Number of a reason, or of an attempt.
    pub(super) detail: u8,
}

const _: () = assert!(size_of::<Packed>() == 12, "many are kept");

/// What is remembered of one transaction, with `facts` beside its steps.
#[derive(Debug)]
pub(super) struct Trail<F> {
    pub(super) id: TransactionId,
    pub(super) began: MonoTime,
    pub(super) facts: F,
    /// Number of the latest step; they are counted from 1.
    latest: u64,
    /// Steps that did not fit.
    left_out: u16,
    count: u8,
    offers: u8,
}

impl<F> Trail<F> {
    pub(super) fn new(id: TransactionId, began: MonoTime, facts: F) -> Self {
        Self { id, began, facts, latest: 0, left_out: 0, count: 0, offers: 0 }
    }
}

/// Trails with facts of one kind.
#[derive(Debug)]
pub(super) struct Ring<F> {
    index: Positions,
    trails: VecDeque<Trail<F>>,
    /// Number of the oldest trail; the numbers wrap.
    base: u32,
    /// Number of the trail that was looked for last: most steps come in rows.
    last: u32,
    steps: Vec<Packed>,
    /// Steps written so far.
    head: u64,
    most: (usize, usize),
}

impl<F> Ring<F> {
    /// A ring of at most so many trails, and so many steps.
    pub(super) fn new(rng: &mut Rng, most: (usize, usize)) -> Self {
        Self {
            index: Positions::new(rng),
            trails: VecDeque::new(),
            base: 0,
            last: 0,
            steps: Vec::new(),
            head: 0,
            most: (most.0.max(1), most.1.max(1)),
        }
    }

    fn at(&self, number: u32) -> Option<&Trail<F>> {
        self.trails.get(usize::try_from(number.wrapping_sub(self.base)).ok()?)
    }

    fn number_of(&self, id: &TransactionId) -> Option<u32> {
        let is = |number: u32| self.at(number).is_some_and(|trail| trail.id == *id);
        if is(self.last) { Some(self.last) } else { self.index.find(id, is) }
    }

    pub(super) fn get(&self, id: &TransactionId) -> Option<&Trail<F>> {
        self.at(self.number_of(id)?)
    }

    pub(super) fn get_mut(&mut self, id: &TransactionId) -> Option<&mut Trail<F>> {
        self.last = self.number_of(id)?;
        self.trails.get_mut(usize::try_from(self.last.wrapping_sub(self.base)).ok()?)
    }

    /// Begins the trail of an id that has none.
    pub(super) fn begin(&mut self, trail: Trail<F>) {
        let (len, most) = (self.trails.len(), self.most.0);
        if len == self.trails.capacity() {
            self.trails.reserve_exact(len.max(256).min(most - len.min(most)));
        }
        let number = self.base.wrapping_add(u32::try_from(len).unwrap_or(u32::MAX));
        let id = trail.id;
        self.trails.push_back(trail);
        let (trails, base) = (&self.trails, self.base);
        let id_at = |number: u32| {
            let at = usize::try_from(number.wrapping_sub(base)).ok();
            at.and_then(|at| trails.get(at)).map_or(id, |trail| trail.id)
        };
        self.index.insert(&id, number, id_at);
        self.last = number;
    }

    pub(super) fn is_full(&self) -> bool {
        self.trails.len() >= self.most.0
    }

    /// Takes the oldest trail out. Its steps stand until others take their place.
    pub(super) fn forget_oldest(&mut self) -> Option<Trail<F>> {
        let id = self.trails.front()?.id;
        let (trails, base) = (&self.trails, self.base);
        let id_at = |number: u32| {
            let at = usize::try_from(number.wrapping_sub(base)).ok();
            at.and_then(|at| trails.get(at)).map_or(id, |trail| trail.id)
        };
        self.index.remove(&id, base, id_at);
        self.base = self.base.wrapping_add(1);
        self.trails.pop_front()
    }

    /// Adds a step to a trail, if there is one and it has room.
    pub(super) fn add(
        &mut self,
        id: &TransactionId,
        what: What,
        (slot, detail): (Option<u8>, u8),
        now: MonoTime,
        parties: &mut Parties,
    ) {
        let number = self.head + 1;
        let Some(trail) = self.get_mut(id) else { return };
        let full = trail.count >= MAX_STEPS || what.is_offer() && trail.offers >= MAX_OFFERS;
        if full {
            trail.left_out = trail.left_out.saturating_add(1);
            return;
        }
        trail.count += 1;
        trail.offers += u8::from(what.is_offer());
        let before = std::mem::replace(&mut trail.latest, number);
        let prev = low(if before == 0 { number } else { before });
        let after = u32::try_from(now.since(trail.began).as_millis()).unwrap_or(u32::MAX);
        let step = Packed { prev, after, party: parties.enter(slot), what, detail };
        self.write(step, parties);
    }

    fn write(&mut self, step: Packed, parties: &mut Parties) {
        let (len, most) = (self.steps.len(), self.most.1);
        if len < most {
            if len == self.steps.capacity() {
                self.steps.reserve_exact(len.max(256).min(most - len));
            }
            self.steps.push(step);
        } else {
            let at = self.place(self.head + 1);
            parties.leave(std::mem::replace(&mut self.steps[at], step).party);
        }
        self.head += 1;
    }

    /// Returns where the step of a number stands.
    fn place(&self, number: u64) -> usize {
        usize::try_from((number - 1) % self.most.1 as u64).unwrap_or(0)
    }

    /// Returns the steps of a trail that are left, the earliest first, and how many are not.
    pub(super) fn steps_of(&self, trail: &Trail<F>) -> (Vec<Packed>, u32) {
        let oldest = self.head + 1 - self.steps.len() as u64;
        let (mut found, mut number) = (Vec::new(), trail.latest);
        for _ in 0..trail.count {
            if number < oldest {
                break;
            }
            let step = self.steps[self.place(number)];
            found.push(step);
            number -= u64::from(low(number).wrapping_sub(step.prev));
        }
        found.reverse();
        let lost = usize::from(trail.count) - found.len();
        (found, u32::from(trail.left_out) + u32::try_from(lost).unwrap_or(u32::MAX))
    }

    /// Bytes taken, from capacities.
    pub(super) fn bytes(&self) -> usize {
        let trails = self.trails.capacity() * size_of::<Trail<F>>();
        trails + self.trails.len() * INDEX_BYTES + self.steps.capacity() * size_of::<Packed>()
    }
}

fn low(number: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the distance of two of them is small")]
    let low = number as u32;
    low
}
