//! Trails of what was accepted, by the numbers that the log gave it.
//!
//! Those rise, so a trail is found without hashing its id: as far from the newest as its number is,
//! or a little nearer where the log gave numbers to refusals in between. Who asks for an id looks
//! through the beginnings of all of them.
//!
//! Bound: `most` trails; the oldest gives way to a new one.
//!
//! Tested by: `protocol::tests::trail`.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::types::TransactionId;

use super::Acceptance;
use super::ring::Trail;

/// Bytes that one trail takes.
pub(super) const KEPT_BYTES: usize = size_of::<Trail<Acceptance>>() + size_of::<u32>();

#[derive(Debug)]
pub(super) struct Kept {
    trails: VecDeque<Trail<Acceptance>>,
    /// Beginnings of their ids, in the same order.
    prints: VecDeque<u32>,
    most: usize,
}

impl Kept {
    pub(super) fn new(most: usize) -> Self {
        Self { trails: VecDeque::new(), prints: VecDeque::new(), most: most.max(1) }
    }

    /// Returns the trail of a number of the log.
    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Trail<Acceptance>> {
        let seq_at = |trail: &Trail<Acceptance>| trail.facts.seq;
        let back = seq_at(self.trails.back()?).checked_sub(seq)?;
        let back = usize::try_from(back).unwrap_or(usize::MAX);
        let nearest = (self.trails.len() - 1).saturating_sub(back);
        let at = match seq_at(&self.trails[nearest]).cmp(&seq) {
            Ordering::Equal => nearest,
            Ordering::Less => self.trails.binary_search_by_key(&seq, seq_at).ok()?,
            Ordering::Greater => return None,
        };
        self.trails.get_mut(at)
    }

    /// Begins a trail, unless its number is no news; returns the one that gives way to it.
    pub(super) fn begin(&mut self, trail: Trail<Acceptance>) -> Option<Trail<Acceptance>> {
        if self.trails.back().is_some_and(|newest| newest.facts.seq >= trail.facts.seq) {
            return Some(trail);
        }
        let len = self.trails.len();
        let oldest = if len < self.most { None } else { self.trails.pop_front() };
        if oldest.is_some() {
            self.prints.pop_front();
        } else if len == self.trails.capacity() {
            let more = len.max(256).min(self.most - len);
            self.trails.reserve_exact(more);
            self.prints.reserve_exact(more);
        }
        self.prints.push_back(print(&trail.id));
        self.trails.push_back(trail);
        oldest
    }

    /// Returns the trails of an id, the newest first: one, or as many as there were tries to store it.
    pub(super) fn of<'a>(
        &'a self,
        id: &TransactionId,
    ) -> impl Iterator<Item = &'a Trail<Acceptance>> + use<'a> {
        let (id, wanted) = (*id, print(id));
        let alike = self.prints.iter().enumerate().rev().filter(move |(_, it)| **it == wanted);
        alike.filter_map(move |(at, _)| self.trails.get(at)).filter(move |trail| trail.id == id)
    }

    /// Bytes taken, from capacities.
    pub(super) fn bytes(&self) -> usize {
        let prints = self.prints.capacity() * size_of::<u32>();
        self.trails.capacity() * size_of::<Trail<Acceptance>>() + prints
    }
}

/// The beginning of an id. Of ids that were made to begin alike each is looked at.
fn print(id: &TransactionId) -> u32 {
    let [a, b, c, d, ..] = *id.as_bytes();
    u32::from_le_bytes([a, b, c, d])
}
