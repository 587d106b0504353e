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

pub(super) use assembly::Assemblies;
pub(super) use header::{Large, is_passed_on};
#[cfg(any(test, feature = "sim"))]
pub(super) use spill::{MAX_KEPT, MAX_WRITES};
pub(super) use stripe::{LEAST_RATE, PieceRate};
