//! Memory of the core, by owner: what each holds, and what it may hold.
//!
//! Bytes of a payload that two owners share count for both.
//!
//! Tested by: `protocol::tests::budget`.

use std::collections::BTreeMap;

use crate::protocol::Protocol;
use crate::protocol::link::MAX_QUEUED;

impl Protocol {
    /// Returns the bytes that each owner of memory holds, and those that it may.
    pub(super) fn memory_maps(&self) -> [BTreeMap<String, u64>; 2] {
        let memory = self.memory();
        let held = memory.map(|(owner, held, _)| (owner.to_owned(), held));
        [held.into(), memory.map(|(owner, _, most)| (owner.to_owned(), most)).into()]
    }

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
