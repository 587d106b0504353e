//! Trails of what was refused, by id, in the order of their beginning.
//!
//! Bound: `most` trails; who begins one makes room before.
//!
//! Tested by: `protocol::tests::trail`.

use std::collections::VecDeque;

use crate::protocol::id_map::Positions;
use crate::protocol::rng::Rng;
use crate::types::TransactionId;

use super::Facts;
use super::ring::Trail;

/// Bytes that one trail takes, with about 10 for its place in the index.
pub(super) const REFUSED_BYTES: usize = size_of::<Trail<Facts>>() + INDEX_BYTES;
const INDEX_BYTES: usize = 10;

#[derive(Debug)]
pub(super) struct Refused {
    index: Positions,
    trails: VecDeque<Trail<Facts>>,
    /// Number of the oldest trail; the numbers wrap.
    base: u32,
    most: usize,
}

impl Refused {
    pub(super) fn new(rng: &mut Rng, most: usize) -> Self {
        Self { index: Positions::new(rng), trails: VecDeque::new(), base: 0, most: most.max(1) }
    }

    fn place(&self, number: u32) -> Option<usize> {
        usize::try_from(number.wrapping_sub(self.base)).ok()
    }

    fn place_of(&self, id: &TransactionId) -> Option<usize> {
        let at = |number: u32| self.trails.get(self.place(number)?);
        let is = |number: u32| at(number).is_some_and(|trail| trail.id == *id);
        self.place(self.index.find(id, is)?)
    }

    pub(super) fn get(&self, id: &TransactionId) -> Option<&Trail<Facts>> {
        self.trails.get(self.place_of(id)?)
    }

    pub(super) fn get_mut(&mut self, id: &TransactionId) -> Option<&mut Trail<Facts>> {
        let at = self.place_of(id)?;
        self.trails.get_mut(at)
    }

    pub(super) fn is_full(&self) -> bool {
        self.trails.len() >= self.most
    }

    /// Begins the trail of an id that has none.
    pub(super) fn begin(&mut self, trail: Trail<Facts>) {
        let len = self.trails.len();
        if len == self.trails.capacity() {
            self.trails.reserve_exact(len.max(256).min(self.most - len.min(self.most)));
        }
        let number = self.base.wrapping_add(u32::try_from(len).unwrap_or(u32::MAX));
        let id = trail.id;
        self.trails.push_back(trail);
        let (trails, base) = (&self.trails, self.base);
        self.index.insert(&id, number, |number| id_at(trails, base, number).unwrap_or(id));
    }

    /// Takes the oldest trail out. Its steps stand until others take their place.
    pub(super) fn forget_oldest(&mut self) -> Option<Trail<Facts>> {
        let id = self.trails.front()?.id;
        let (trails, base) = (&self.trails, self.base);
        self.index.remove(&id, base, |number| id_at(trails, base, number).unwrap_or(id));
        self.base = self.base.wrapping_add(1);
        self.trails.pop_front()
    }

    /// Bytes taken, from capacities.
    pub(super) fn bytes(&self) -> usize {
        let trails = self.trails.capacity() * size_of::<Trail<Facts>>();
        trails + self.trails.len() * INDEX_BYTES
    }
}

fn id_at(trails: &VecDeque<Trail<Facts>>, base: u32, number: u32) -> Option<TransactionId> {
    let at = usize::try_from(number.wrapping_sub(base)).ok()?;
    trails.get(at).map(|trail| trail.id)
}
