//! Offering what the log has to every peer that wants it.
//!
//! `push` walks the log for each link, `push_policy` learns where a push pays, `interest` knows who
//! wants what.

mod interest;
mod push;
mod push_policy;

pub(super) use push_policy::Learned;

pub(super) use interest::{Carrying, SAY_EVERY};

#[cfg(any(test, feature = "sim"))]
pub(super) use push::MAX_NOT_PASSED;
pub(super) use push::{Got, LATE};
#[cfg(any(test, feature = "sim"))]
pub(super) use push_policy::MAX_ORIGINS;
pub(super) use push_policy::{Lesson, OWN};
