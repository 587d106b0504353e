//! Where nodes are, and how long a message travels between them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::config::Latency;
use super::dice::{Dice, nanos};
use super::world::World;

/// One-way delays between five regions, in milliseconds.
const REGIONS: [[u64; 5]; 5] = [
    [8, 40, 75, 110, 130],
    [40, 8, 60, 90, 120],
    [75, 60, 8, 45, 95],
    [110, 90, 45, 8, 60],
    [130, 120, 95, 60, 8],
];
/// Shortest and longest way between them.
const CLAMP: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(150));
/// Access delay of every node, and the mean of what is added to it by chance.
const ACCESS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(6));

/// Regions and access delays.
#[derive(Debug)]
pub(super) struct Places {
    latency: Latency,
    jitter_percent: u32,
    nodes: Vec<(usize, Duration)>,
}

impl Places {
    pub(super) fn new(latency: Latency, jitter_percent: u32) -> Self {
        Self { latency, jitter_percent, nodes: Vec::new() }
    }

    /// Finds a place for the next node.
    pub(super) fn add(&mut self, dice: &mut Dice, region: Option<usize>) {
        let regions = match &self.latency {
            Latency::Fixed(_) => 1,
            Latency::Regions => REGIONS.len(),
            Latency::Matrix(rows) => rows.len().max(1),
        };
        let drawn = usize::try_from(dice.below(regions as u64)).unwrap_or(0);
        let access = ACCESS.0 + dice.exponential(ACCESS.1);
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
    fn mean(&self, a: usize, b: usize) -> Duration {
        let distance = self.distance(a, b);
        distance + distance * self.jitter_percent / 200
    }
}

impl World {
    /// The mean round-trip time of all links that are open, jitter included; zero without links.
    pub fn mean_rtt(&self) -> Duration {
        let open = self.pipes.iter().filter(|(_, p)| p.ends.iter().all(|e| e.open));
        let (mut sum, mut count) = (Duration::ZERO, 0);
        for (_, p) in open {
            sum += self.places.mean(p.ends[0].node, p.ends[1].node) * 2;
            count += 1;
        }
        sum.checked_div(count).unwrap_or_default()
    }

    /// How long flooding over the links that are open would take from `origin` to every other
    /// running node that it can reach: the shortest paths, at mean jitter, with nothing else on the
    /// uplinks. The bound that latencies are compared with.
    pub fn flooding(&self, origin: usize) -> Vec<Duration> {
        let mut links: Vec<Vec<(usize, u64)>> = vec![Vec::new(); self.nodes.len()];
        for (_, p) in self.pipes.iter().filter(|(_, p)| p.ends.iter().all(|e| e.open)) {
            let (a, b) = (p.ends[0].node, p.ends[1].node);
            let way = nanos(self.places.mean(a, b));
            links[a].push((b, way));
            links[b].push((a, way));
        }
        let mut best = vec![u64::MAX; self.nodes.len()];
        let mut todo = BinaryHeap::from([Reverse((0, origin))]);
        while let Some(Reverse((at, node))) = todo.pop() {
            if at >= best[node] {
                continue;
            }
            best[node] = at;
            todo.extend(links[node].iter().map(|(to, way)| Reverse((at + way, *to))));
        }
        let others = best.iter().enumerate().filter(|(n, at)| *n != origin && **at != u64::MAX);
        others.map(|(_, at)| Duration::from_nanos(*at)).collect()
    }
}
