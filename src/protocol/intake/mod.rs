//! From an announcement to the log.
//!
//! `announce` hears of ids, `request` asks for small ones (`large` for large ones), `verify` has their
//! bytes checked, and `accept` takes what is good into the log and has it stored.
//! `store_retry` looks after what could not be stored.
//!
//! Tested by: `sim::tests::spread`.

mod accept;
mod announce;
mod request;
mod store_retry;
mod table;
mod verify;

pub(super) use announce::MAX_HEARD;
#[cfg(any(test, feature = "sim"))]
pub(super) use announce::MAX_PENDING;
pub(super) use request::{MAX_ASKED, Requests};
#[cfg(any(test, feature = "sim"))]
pub(super) use table::MAX_REFUSED;
pub(super) use table::{Arrival, Holds, Intake, Pending, Source, Stage};
