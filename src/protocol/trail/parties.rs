//! Who stands in the steps of trails: a peer and the transport that its link had, in two bytes.
//!
//! The owner of each link slot has a number while it is linked, so that a step is written without
//! looking for one; each step that names it keeps it. Bound: `most` names. Who comes beyond that stands
//! in no step by name.
//!
//! Tested by: `protocol::tests::trail`.

use crate::protocol::interner::{Interner, NONE};
use crate::types::{PeerId, TransportKind};

/// Number of nobody.
pub(super) const NOBODY: u16 = NONE;
/// Bytes that one name takes, about: the name twice, and its place in the tree.
pub(super) const NAME_BYTES: usize = 112;

#[derive(Debug)]
pub(super) struct Parties {
    names: Interner<(PeerId, TransportKind)>,
    /// Numbers of the owners of the link slots.
    seats: Vec<u16>,
    most: usize,
}

impl Parties {
    pub(super) fn new(most: usize) -> Self {
        Self { names: Interner::default(), seats: Vec::new(), most }
    }

    /// A slot has a new owner, or its link another transport.
    pub(super) fn seat(&mut self, slot: u8, peer: PeerId, kind: TransportKind) {
        let slot = usize::from(slot);
        if self.seats.len() <= slot {
            self.seats.resize(slot + 1, NOBODY);
        }
        self.names.leave(std::mem::replace(&mut self.seats[slot], NOBODY));
        let name = (peer, kind);
        if self.names.len() < self.most || self.names.of(&name).is_some() {
            self.seats[slot] = self.names.enter(name);
        }
    }

    /// Returns the number of a slot's owner, for one step.
    pub(super) fn enter(&mut self, slot: Option<u8>) -> u16 {
        let seat = slot.and_then(|slot| self.seats.get(usize::from(slot)));
        let number = seat.copied().unwrap_or(NOBODY);
        self.names.hold(number);
        number
    }

    /// One step less names this number.
    pub(super) fn leave(&mut self, number: u16) {
        self.names.leave(number);
    }

    pub(super) fn name(&self, number: u16) -> Option<(PeerId, TransportKind)> {
        self.names.key(number)
    }

    pub(super) fn bytes(&self) -> usize {
        self.names.len() * NAME_BYTES
    }
}
