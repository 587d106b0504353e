//! From an announcement to the log.
//!
//! `announce` hears of ids, `request` asks for small ones, `verify` has their bytes checked and takes
//! what is good; large ones are fetched by `large` in between.

mod accept;
mod announce;
mod request;
mod verify;

pub(super) use announce::FetchState;

pub(super) use announce::{Holds, MAX_HEARD, Pending, Source, Stage};
#[cfg(any(test, feature = "sim"))]
pub(super) use announce::{MAX_PENDING, MAX_REFUSED};
pub(super) use request::{Asks, MAX_ASKED};
