//! Steps of trails in the order in which they happened.
//!
//! A ring of a fixed size: the oldest step of all gives way to the next one. A step knows the one before
//! it of the same trail by how far back that stands, so a trail is its latest step and a count. What was
//! overwritten is found missing by its number.
//!
//! Bounds: `most` steps; `MAX_STEPS` of one trail, of them `MAX_OFFERS` that tell who was offered it. What
//! does not fit is counted.
//!
//! Tested by: `protocol::tests::trail`.

use crate::types::{MonoTime, TransactionId};

use super::What;
use super::parties::Parties;

/// Maximum number of steps of one trail.
pub(super) const MAX_STEPS: u8 = 64;
/// Maximum number of those that tell who was offered it.
const MAX_OFFERS: u8 = 32;

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

/// Steps of many trails.
#[derive(Debug)]
pub(super) struct Steps {
    steps: Vec<Packed>,
    /// Steps written so far.
    head: u64,
    /// Place of the next one.
    next: usize,
    most: usize,
}

impl Steps {
    /// A ring of at most so many steps.
    pub(super) fn new(most: usize) -> Self {
        Self { steps: Vec::new(), head: 0, next: 0, most: most.max(1) }
    }

    /// Adds a step to a trail, if that has room.
    pub(super) fn add<F>(
        &mut self,
        trail: &mut Trail<F>,
        what: What,
        (slot, detail): (Option<u8>, u8),
        now: MonoTime,
        parties: &mut Parties,
    ) {
        let full = trail.count >= MAX_STEPS || what.is_offer() && trail.offers >= MAX_OFFERS;
        if full {
            trail.left_out = trail.left_out.saturating_add(1);
            return;
        }
        trail.count += 1;
        trail.offers += u8::from(what.is_offer());
        let number = self.head + 1;
        let before = std::mem::replace(&mut trail.latest, number);
        let prev = low(if before == 0 { number } else { before });
        let after = u32::try_from(now.since(trail.began).as_millis()).unwrap_or(u32::MAX);
        let step = Packed { prev, after, party: parties.enter(slot), what, detail };
        self.write(step, parties);
    }

    fn write(&mut self, step: Packed, parties: &mut Parties) {
        let len = self.steps.len();
        if let Some(oldest) = self.steps.get_mut(self.next) {
            parties.leave(std::mem::replace(oldest, step).party);
        } else {
            if len == self.steps.capacity() {
                self.steps.reserve_exact(len.max(256).min(self.most - len));
            }
            self.steps.push(step);
        }
        self.head += 1;
        self.next = if self.next + 1 == self.most { 0 } else { self.next + 1 };
    }

    /// Returns where the step of a number stands.
    fn place(&self, number: u64) -> usize {
        usize::try_from((number - 1) % self.most as u64).unwrap_or(0)
    }

    /// Returns the steps of a trail that are left, the earliest first, and how many are not.
    pub(super) fn of<F>(&self, trail: &Trail<F>) -> (Vec<Packed>, u32) {
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
        self.steps.capacity() * size_of::<Packed>()
    }
}

fn low(number: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the distance of two of them is small")]
    let low = number as u32;
    low
}
