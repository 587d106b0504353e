//! Questions about the whole world: who holds what, who is connected, what the run amounted to.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use super::World;
use super::delivery_stats::{Coverage, Figures};
use super::node::{Node, true_wall};
use crate::protocol::{LinkView, Protocol};
use crate::sim::check::Holdings;
use crate::sim::node_set::NodeSet;
use crate::sim::report::{Report, percentile};
use crate::sim::rng::nanos;
use crate::types::{Counters, TopicKey, TransactionId, WallTime};

impl World {
    /// Holdings of every running honest node, for the checkers.
    pub(super) fn holdings(&self) -> Vec<Holdings> {
        let (groups, latest) = (self.groups(), self.latest_wall());
        let holding = |node: usize| {
            let n = &self.nodes[node];
            let live = |id: &TransactionId| self.coverage.is_live(id, latest);
            let stored: BTreeSet<_> = n.store.unexpired(latest).filter(live).collect();
            // What was promised and has expired since is no promise any more.
            let live = |id: &&TransactionId| {
                let held = self.coverage.holders(id).is_some_and(|h| !h.is_empty());
                stored.contains(*id) || held && live(id)
            };
            let promised = n.promised.iter().filter(live).copied().collect();
            let not_carried = self.not_carried(node);
            Holdings { node, group: groups[node], stored, not_carried, promised }
        };
        self.honest().map(holding).collect()
    }

    /// Live transactions of no topic that a node has to carry.
    fn not_carried(&self, node: usize) -> BTreeSet<TransactionId> {
        let n = &self.nodes[node];
        if !n.is_edge() {
            return BTreeSet::new();
        }
        let live = self.coverage.live_by_id(self.latest_wall());
        live.filter(|(_, coverage)| !n.wants(coverage.topic)).map(|(id, _)| *id).collect()
    }

    /// Picks, of these nodes, those that have to carry a topic.
    fn carriers<'a>(&self, nodes: &'a NodeSet, topic: TopicKey) -> Cow<'a, NodeSet> {
        let mut carriers = Cow::Borrowed(nodes);
        for edge in &self.edges {
            if !self.nodes[*edge].wants(topic) {
                carriers.to_mut().remove(*edge);
            }
        }
        carriers
    }

    /// Nodes that run and do what they should.
    fn honest(&self) -> impl Iterator<Item = usize> + '_ {
        self.running().filter(|n| self.nodes[*n].is_honest())
    }

    /// The latest that any clock says that is right enough: what is not expired by it is expired nowhere.
    fn latest_wall(&self) -> WallTime {
        let truth = true_wall(self.now);
        let right = |n: &&Node| n.wall(self.now) <= truth.plus(n.config.network.max_clock_skew);
        self.nodes.iter().filter(right).map(|n| n.wall(self.now)).max().unwrap_or(truth)
    }

    /// Number of (accepted and unexpired transaction, running honest node) pairs are not there yet.
    pub fn missing(&self) -> u64 {
        self.missing_of(|_| 1)
    }

    /// The payload bytes that running honest nodes do not have yet.
    pub fn missing_bytes(&self) -> u64 {
        self.missing_of(|size| size)
    }

    fn missing_of(&self, weight: impl Fn(u64) -> u64) -> u64 {
        let expected: NodeSet = self.honest().collect();
        let live = self.coverage.live(self.latest_wall());
        let missing = |s: &Coverage| {
            let carriers = self.carriers(&expected, s.topic);
            (carriers.len() - s.holders.common(&carriers)) as u64 * weight(s.size)
        };
        live.map(missing).sum()
    }

    /// Says whether within each connected group what one honest node holds is at all that carry it.
    pub(super) fn is_even(&self) -> bool {
        let groups = self.groups();
        let mut sets: BTreeMap<usize, NodeSet> = BTreeMap::new();
        for node in self.honest() {
            sets.entry(groups[node]).or_default().insert(node);
        }
        let even = |s: &Coverage| {
            sets.values().all(|set| {
                let carriers = self.carriers(set, s.topic);
                s.holders.common(set) == 0 || s.holders.common(&carriers) == carriers.len()
            })
        };
        self.coverage.live(self.latest_wall()).all(even)
    }

    /// The connected component of each node, counting links that both ends have.
    pub(super) fn groups(&self) -> Vec<usize> {
        let peer = |l: &LinkView| self.by_peer.get(&l.peer).copied();
        let neighbours: Vec<Vec<usize>> = self
            .nodes
            .iter()
            .map(|n| {
                let links = n.protocol.as_ref().map(Protocol::links).unwrap_or_default();
                links.iter().filter_map(peer).collect()
            })
            .collect();
        let mut group: Vec<usize> = (0..self.nodes.len()).map(|_| usize::MAX).collect();
        for start in 0..self.nodes.len() {
            let mut todo = vec![start];
            while let Some(at) = todo.pop() {
                if group[at] != usize::MAX {
                    continue;
                }
                group[at] = start;
                let mutual = |n: &&usize| neighbours[**n].contains(&at);
                todo.extend(neighbours[at].iter().filter(mutual));
            }
        }
        group
    }

    /// Reports what the run amounted to so far.
    pub fn report(&self) -> Report {
        let mut latencies = self.figures.latencies.clone();
        latencies.sort_unstable();
        let at = |percent| Duration::from_micros(u64::from(percentile(&latencies, percent)));
        let expected: NodeSet = self.honest().collect();
        let (mut pairs, mut there) = (0, 0);
        for coverage in self.coverage.live(self.latest_wall()) {
            let carriers = self.carriers(&expected, coverage.topic);
            pairs += carriers.len();
            there += coverage.holders.common(&carriers);
        }
        let f = &self.figures;
        let deliveries = (f.latencies.len() + f.aside.len()) as u64;
        let nodes = self.running().count();
        let mut counters: Counters = self.earlier.clone();
        for protocol in self.nodes.iter().filter_map(|n| n.protocol.as_ref()) {
            counters.add(protocol.counters());
        }
        let links: usize = self.running().map(|n| self.links(n)).sum();
        Report {
            seed: self.config.seed,
            nodes,
            elapsed: self.now,
            steps: self.steps,
            published: f.published,
            deliveries,
            coverage: if pairs == 0 { 1.0 } else { there as f64 / pairs as f64 },
            redundancy: f.payload_sent as f64 / f.payload_delivered.max(1) as f64,
            control_bytes: f.control_sent as f64 / deliveries.max(1) as f64,
            latency_p50: at(50),
            latency_p95: at(95),
            latency_max: at(100),
            hops_mean: f.hops_sum as f64 / latencies.len().max(1) as f64,
            hops_max: f.hops_max,
            mean_links: links as f64 / nodes.max(1) as f64,
            faults: self.faults,
            checks: self.checks(),
            violations: self.violations().len(),
            counters,
        }
    }

    /// Starts the figures of the report anew, for instance after a warm-up.
    pub fn reset_figures(&mut self) {
        self.figures = Figures::default();
    }

    /// The mean round-trip time of all links that are open, jitter included; zero without links.
    pub fn mean_rtt(&self) -> Duration {
        let open = self.pipes.iter().filter(|(_, p)| p.ends.iter().all(|e| e.open));
        let (mut sum, mut count) = (Duration::ZERO, 0);
        for (_, p) in open {
            sum += self.latencies.mean(p.ends[0].node, p.ends[1].node) * 2;
            count += 1;
        }
        sum.checked_div(count).unwrap_or_default()
    }

    /// Time that flooding over the links that are open would take from `origin` to every other
    /// running node that it can reach: the shortest paths, at mean jitter, with nothing else on the
    /// uplinks. The bound that latencies are compared with.
    pub fn flooding(&self, origin: usize) -> Vec<Duration> {
        let mut links: Vec<Vec<(usize, u64)>> = vec![Vec::new(); self.nodes.len()];
        for (_, p) in self.pipes.iter().filter(|(_, p)| p.ends.iter().all(|e| e.open)) {
            let (a, b) = (p.ends[0].node, p.ends[1].node);
            let way = nanos(self.latencies.mean(a, b));
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
