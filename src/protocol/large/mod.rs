//! Large payloads: the header ahead, then pieces from one source or several.
//!
//! `header` has the contract and the order of reservations, `reserve` asks, `stripe` asks several,
//! `assembly` puts pieces together, `spill` moves what stalls to the store and back.
//!
//! Tested by: `sim::tests::large`.

mod assembly;
mod header;
mod reserve;
mod spill;
mod stripe;

use std::collections::VecDeque;

use crate::protocol::gate::Gate;
use crate::types::{KeptPartial, TransactionId};

use spill::Spills;

pub(super) use header::{Large, is_passed_on};
#[cfg(any(test, feature = "sim"))]
pub(super) use spill::{MAX_KEPT, MAX_WRITES};
pub(super) use stripe::{LEAST_RATE, PieceRate};

/// Large payloads on their way in, and the room for them.
#[derive(Debug)]
pub(super) struct Assemblies {
    /// Bytes of their buffers.
    pub(super) bytes: Gate,
    /// Payloads that wait for room for a buffer.
    pub(super) waiting: VecDeque<TransactionId>,
    /// Partial payloads that nobody serves.
    pub(super) parked: VecDeque<TransactionId>,
    pub(super) spills: Spills,
}

impl Assemblies {
    pub(super) fn new(partials: Option<Vec<KeptPartial>>) -> Self {
        Self {
            bytes: Gate::default(),
            waiting: VecDeque::new(),
            parked: VecDeque::new(),
            spills: Spills::restored(partials),
        }
    }
}
