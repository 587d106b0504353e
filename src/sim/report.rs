//! What a run amounted to.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Counters;

/// Faults that really struck. A run that exercised nothing shows zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Faults {
    /// Links reset by chance or on request.
    pub links_reset: u64,
    /// Frames that vanished.
    pub frames_dropped: u64,
    /// Messages that vanished out of frames that arrived.
    pub messages_dropped: u64,
    /// Frames that arrived twice.
    pub frames_duplicated: u64,
    /// Frames that came late, overtaken by those of other links.
    pub frames_delayed: u64,
    /// Frames held up by a partition.
    pub frames_held: u64,
    /// Frames sent to a machine that had vanished.
    pub frames_into_void: u64,
    /// Partitions that cut at least one link.
    pub partitions: u64,
    /// Crashes, of all kinds.
    pub crashes: u64,
    /// Crashes that nobody was told of.
    pub silent_crashes: u64,
    /// Crashes that lost the disk.
    pub disks_lost: u64,
    /// Starts of nodes that had run before.
    pub restarts: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Dials by a rung for which the way was closed.
    pub dials_obstructed: u64,
    /// Nodes that nobody can dial.
    pub nodes_hidden: u64,
    /// Times a node was slowed down.
    pub nodes_slowed: u64,
    /// Nodes that joined a running world.
    pub nodes_joined_late: u64,
    /// Store operations that failed.
    pub stores_failed: u64,
    /// Messages changed, withheld or made up by a misbehaving node.
    pub messages_tampered: u64,
    /// Times a full node did not take a frame.
    pub frames_deferred: u64,
    /// Clocks set while the world ran.
    pub clocks_set: u64,
}

/// Figures of a run; `serde` for comparing runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// Seed of the run.
    pub seed: u64,
    /// Nodes that are running.
    pub nodes: usize,
    /// Simulated time since the world began.
    pub elapsed: Duration,
    /// Number of events processed.
    pub steps: u64,
    /// Transactions that were accepted from hosts.
    pub published: u64,
    /// Deliveries at other nodes.
    pub deliveries: u64,
    /// Part of the (accepted and unexpired transaction, running honest node) pairs that is there.
    pub coverage: f64,
    /// Payload bytes sent per payload byte delivered.
    pub redundancy: f64,
    /// Control bytes (all but payload) sent per delivery.
    pub control_bytes: f64,
    /// Median time from publish to delivery. Nodes that were set aside do not count.
    pub latency_p50: Duration,
    /// Time from publish to delivery that 95 of 100 undercut.
    pub latency_p95: Duration,
    /// Longest time from publish to delivery.
    pub latency_max: Duration,
    /// Hops from the origin, mean.
    pub hops_mean: f64,
    /// Hops from the origin, at most.
    pub hops_max: u16,
    /// Mean links per running node.
    pub mean_links: f64,
    /// Faults that really struck.
    pub faults: Faults,
    /// Number of times that each invariant was checked.
    pub checks: BTreeMap<String, u64>,
    /// Number of violations that the checkers found.
    pub violations: usize,
    /// Counters of all runs of all nodes together.
    pub counters: Counters,
}

/// Median, 95th percentile and maximum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are not above this.
    pub p50: f64,
    /// 95 of 100 are not above this.
    pub p95: f64,
    /// None is above this.
    pub max: f64,
}

impl Quantiles {
    /// Quantiles of values in any order, each divided by `unit`.
    pub(super) fn of(mut values: Vec<u32>, unit: f64) -> Self {
        values.sort_unstable();
        let at = |percent| f64::from(percentile(&values, percent)) / unit;
        Self { p50: at(50), p95: at(95), max: at(100) }
    }
}

/// The value below which `percent` of the sorted values are.
pub(super) fn percentile(sorted: &[u32], percent: usize) -> u32 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}
