//! Where nodes are, and how long a message travels between them.

use std::time::Duration;

use crate::sim::config::Latency;
use crate::sim::rng::SimRng;

/// One-way delays between five regions, in milliseconds.
const REGIONS: [[u64; 5]; 5] = [
    [8, 40, 75, 110, 130],
    [40, 8, 60, 90, 120],
    [75, 60, 8, 45, 95],
    [110, 90, 45, 8, 60],
    [130, 120, 95, 60, 8],
];
/// Minimum and maximum delay between regions.
const CLAMP: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(150));
/// Access delay of every node, and the mean of what is added to it by chance.
const ACCESS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(6));

/// Regions and access delays.
#[derive(Debug)]
pub(super) struct Latencies {
    latency: Latency,
    jitter_percent: u32,
    nodes: Vec<(usize, Duration)>,
}

impl Latencies {
    pub(super) fn new(latency: Latency, jitter_percent: u32) -> Self {
        Self { latency, jitter_percent, nodes: Vec::new() }
    }

    /// Draws where the next node is.
    pub(super) fn add(&mut self, rng: &mut SimRng, region: Option<usize>) {
        let regions = match &self.latency {
            Latency::Fixed(_) => 1,
            Latency::Regions => REGIONS.len(),
            Latency::Matrix(rows) => rows.len().max(1),
        };
        let drawn = usize::try_from(rng.below(regions as u64)).unwrap_or(0);
        let access = ACCESS.0 + rng.exponential(ACCESS.1);
        self.nodes.push((region.unwrap_or(drawn).min(regions - 1), access));
    }

    /// One-way travel time without jitter.
    pub(super) fn distance(&self, a: usize, b: usize) -> Duration {
        let ((ra, da), (rb, db)) = (self.nodes[a], self.nodes[b]);
        match &self.latency {
            Latency::Fixed(delay) => *delay,
            Latency::Regions => {
                (Duration::from_millis(REGIONS[ra][rb]) + da + db).clamp(CLAMP.0, CLAMP.1)
            }
            Latency::Matrix(rows) => {
                let row = rows.get(ra).and_then(|row| row.get(rb).or(row.last()));
                row.copied().unwrap_or_default() + da + db
            }
        }
    }

    /// One-way travel time with the mean of its jitter.
    pub(super) fn mean(&self, a: usize, b: usize) -> Duration {
        let distance = self.distance(a, b);
        distance + distance * self.jitter_percent / 200
    }
}
