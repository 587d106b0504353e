//! What a run amounted to.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Counters;

/// Faults that really struck. A run that exercised nothing shows zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Faults {
    /// Links reset by chance or on request.
    pub links_reset: u64,
    /// Frames that vanished.
    pub frames_dropped: u64,
    /// Frames held up by a partition.
    pub frames_held: u64,
    /// Partitions that cut at least one link.
    pub partitions: u64,
    /// Crashes with the disk intact.
    pub crashes: u64,
    /// Crashes that lost the disk.
    pub disks_lost: u64,
    /// Restarts.
    pub restarts: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Store operations that failed.
    pub stores_failed: u64,
    /// Messages changed or withheld by a misbehaving node.
    pub messages_tampered: u64,
    /// Times a full node did not take a frame.
    pub frames_deferred: u64,
}

/// Figures of a run; `serde` for comparing runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Nodes that are running.
    pub nodes: usize,
    /// Simulated time.
    pub elapsed: Duration,
    /// Events processed.
    pub steps: u64,
    /// Transactions that were accepted from hosts.
    pub published: u64,
    /// Deliveries at other nodes.
    pub deliveries: u64,
    /// Of the (accepted and unexpired transaction, running node) pairs, the part that is there.
    pub coverage: f64,
    /// Payload bytes sent per payload byte delivered.
    pub redundancy: f64,
    /// Control bytes (all but payload) sent per delivery.
    pub control_bytes: f64,
    /// From publish to delivery: median.
    pub latency_p50: Duration,
    /// From publish to delivery: 95 of 100 are faster.
    pub latency_p95: Duration,
    /// From publish to delivery: the slowest.
    pub latency_max: Duration,
    /// Mean links per running node.
    pub mean_links: f64,
    /// Faults that really struck.
    pub faults: Faults,
    /// How often each invariant was checked.
    pub checks: BTreeMap<String, u64>,
    /// Violations found.
    pub violations: usize,
    /// Counters of all runs of all nodes together.
    pub counters: Counters,
}

/// The value below which `percent` of the sorted values are.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}
