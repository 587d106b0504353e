//! Offering what the log has to every peer that wants it.
//!
//! `push` walks the log for each link, `push_policy` learns where a push pays, `interest` knows who
//! wants what.
//!
//! Tested by: `sim::tests::spread`.

mod interest;
mod push;
mod push_policy;

use crate::config::GossipConfig;

use interest::Carrying;
use push_policy::PushPolicy;

pub(super) use interest::{PeerInterest, SAY_EVERY};
#[cfg(any(test, feature = "sim"))]
pub(super) use push::MAX_NOT_PASSED;
pub(super) use push::{BACKFILL_AFTER, Feed, Provenance};
pub(super) use push_policy::Lesson;
#[cfg(any(test, feature = "sim"))]
pub(super) use push_policy::MAX_ORIGINS;

/// State that all links share when the log is offered to them.
#[derive(Debug)]
pub(super) struct Spread {
    pub(super) carrying: Carrying,
    pub(super) policy: PushPolicy,
    /// The log's head when it was last told what all links have passed.
    forgot_at: u64,
}

impl Spread {
    pub(super) fn new(config: &GossipConfig) -> Self {
        Self { carrying: Carrying::new(config), policy: PushPolicy::new(), forgot_at: 0 }
    }
}
