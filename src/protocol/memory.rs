//! Memory of the core, by owner: what each holds, and what it may hold.
//!
//! Bytes of a payload that two owners share count for both.
//!
//! Tested by: `protocol::tests::budget`.

use crate::protocol::Protocol;
use crate::protocol::link::MAX_QUEUED;

impl Protocol {
    /// Returns the owners of memory, each with the bytes that it holds and those that it may.
    pub(super) fn memory(&self) -> [(&'static str, u64, u64); 10] {
        let (env, shares) = (&self.env, &self.env.shares);
        let queued = self.links.all.values().map(|link| link.queued_bytes as u64).sum();
        [
            ("assemblies", self.assemblies.bytes.level(), shares.assemblies),
            ("checks", env.verifying_bytes.level(), shares.checks),
            ("storing", env.storing_bytes.level(), shares.storing),
            ("cache", self.log.cached_bytes(), shares.cache),
            ("proofs", self.serving.proofs.bytes(), shares.proofs),
            ("serving", self.serving.held.bytes(), shares.serving),
            ("deferred", self.replays.deferred_bytes(), shares.deferred),
            ("requests", self.messages.held().iter().sum(), 2 * self.messages.max_held()),
            ("trails", self.trail.bytes(), shares.trails),
            ("links", queued, self.links.all.len() as u64 * MAX_QUEUED as u64),
        ]
    }
}
