//! What goes wrong on request: crashes, partitions, slow and broken links; and the reckoning.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::StoreErrorKind;
use crate::protocol::Protocol;
use crate::types::{Counters, LinkId, Message, TransactionId};

use super::check::{Holdings, Seen};
use super::config::Loss;
use super::net::Arrival;
use super::report::{Report, percentile};
use super::store::Store;
use super::world::{Event, World};

/// What a crash leaves of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Everything that was written.
    Kept,
    /// Nothing. The identity survives, as an operator would restore it.
    Lost,
}

impl World {
    /// Starts a node that is down, with what its disk holds.
    pub fn start(&mut self, node: usize) {
        if self.nodes[node].protocol.is_some() {
            return;
        }
        let seed = self.dice.bytes();
        let now = self.now;
        let n = &mut self.nodes[node];
        if n.boot > 0 {
            self.faults.restarts += 1;
        }
        n.boot += 1;
        n.started = now;
        let record = n.sign_record(now);
        let restored = n.store.restored();
        let kept: Vec<TransactionId> = restored.index.iter().map(|e| e.id).collect();
        let blank = restored.peers.is_empty() && kept.is_empty();
        let config = n.config.clone();
        let incarnation = n.boot;
        let protocol = Protocol::new(&config, incarnation, record.clone(), seed, restored);
        n.protocol = Some(protocol);
        self.show(&Seen::Started { node, kept: &kept, blank });
        self.feed(node, crate::protocol::Input::Record(record));
    }

    /// Kills a node at once. The others see their links reset.
    pub fn crash(&mut self, node: usize, disk: Disk) {
        let n = &mut self.nodes[node];
        let Some(protocol) = n.protocol.take() else { return };
        self.earlier.add(protocol.counters());
        n.boot += 1;
        n.wake = None;
        n.deferred.clear();
        n.ready.clear();
        n.uplink_free = Duration::ZERO;
        n.uplink_timer = false;
        n.store_free = Duration::ZERO;
        let links = std::mem::take(&mut n.links);
        self.faults.crashes += 1;
        if disk == Disk::Lost {
            self.faults.disks_lost += 1;
            n.store = Store::default();
            n.promised.clear();
            n.deliveries.clear();
        }
        for (pipe, side) in links.into_values() {
            let Some(p) = self.pipes.get_mut(&pipe) else { continue };
            p.broken = true;
            p.ends[side].open = false;
            let (from, to) = (p.ends[side].node, p.ends[1 - side].node);
            let at = self.now + self.travel(from, to);
            self.schedule(at, Event::Ended { pipe, side: 1 - side });
        }
    }

    /// Cuts the network into these groups; nodes that are in none stay with the first.
    pub fn partition(&mut self, groups: &[Vec<usize>]) {
        for (number, group) in groups.iter().enumerate() {
            for node in group {
                self.nodes[*node].partition = number;
            }
        }
        let nodes = &self.nodes;
        let cut = |p: &super::net::Pipe| {
            nodes[p.ends[0].node].partition != nodes[p.ends[1].node].partition
        };
        self.faults.partitions += u64::from(self.pipes.values().any(cut));
    }

    /// Ends all partitions. What they held back arrives, in order.
    pub fn heal(&mut self) {
        for node in &mut self.nodes {
            node.partition = 0;
        }
        let cut: Vec<u64> = self.pipes.keys().copied().collect();
        for pipe in cut {
            for side in [0, 1] {
                let Some(p) = self.pipes.get_mut(&pipe) else { continue };
                for arrival in std::mem::take(&mut p.ends[side].held) {
                    let event = match arrival {
                        Arrival::Frame(frame) => Event::Arrived { pipe, side, frame },
                        Arrival::Ended => Event::Ended { pipe, side },
                    };
                    self.schedule(self.now, event);
                }
            }
        }
    }

    /// Breaks the link between two nodes; whatever is on its way is lost.
    pub fn reset_link(&mut self, a: usize, b: usize) {
        let between = |p: &super::net::Pipe| {
            let ends = (p.ends[0].node, p.ends[1].node);
            !p.broken && (ends == (a, b) || ends == (b, a))
        };
        let pipes = self.pipes.iter().filter(|(_, p)| between(p)).map(|(id, _)| *id);
        for pipe in pipes.collect::<Vec<_>>() {
            self.reset(pipe);
        }
    }

    /// Sets faults that strike by chance from now on.
    pub fn set_loss(&mut self, loss: Loss) {
        self.config.loss = loss;
    }

    /// Limits what a node sends and takes, in bytes per second.
    pub fn throttle(&mut self, node: usize, uplink: Option<u64>, downlink: Option<u64>) {
        let n = &mut self.nodes[node];
        (n.uplink, n.downlink) = (uplink, downlink);
    }

    /// Lets a node's store fail from now on, or work again.
    pub fn fail_store(&mut self, node: usize, error: Option<StoreErrorKind>) {
        self.nodes[node].store_error = error;
    }

    /// Declares a transaction forged: it verifies nowhere.
    pub fn forge(&mut self, id: TransactionId) {
        self.forged.insert(id);
    }

    /// Lets a node say something to a peer that its protocol did not say.
    pub fn say(&mut self, from: usize, to: usize, message: Message) {
        let Some(link) = self.link_between(from, to) else { return };
        let Some(&(pipe, side)) = self.nodes[from].links.get(&link) else { return };
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        let end = &mut p.ends[side];
        end.queue.push_back((message.weight(), Some(message)));
        if !end.ready {
            end.ready = true;
            self.nodes[from].ready.push_back((pipe, side));
        }
        self.transmit(from);
    }

    /// The number that a node gave to its link to another.
    pub fn link_between(&self, from: usize, to: usize) -> Option<LinkId> {
        let to = self.peer_id(to);
        let protocol = self.nodes[from].protocol.as_ref()?;
        protocol.links().iter().find(|l| l.peer == to).map(|l| l.link)
    }

    /// What every running node holds, for the checkers.
    pub(super) fn holdings(&self) -> Vec<Holdings> {
        let groups = self.groups();
        let holding = |node: usize| {
            let n = &self.nodes[node];
            let held: std::collections::BTreeSet<_> = n.store.unexpired(n.wall(self.now)).collect();
            // What was promised and has expired since is no promise any more.
            let live = |id: &&TransactionId| {
                held.contains(id) || self.nodes.iter().any(|o| o.store.contains(id))
            };
            let promised = n.promised.iter().filter(live).copied().collect();
            Holdings { node, group: groups[node], held, promised }
        };
        self.running().map(holding).collect()
    }

    /// The connected component of each node, counting links that both ends have.
    pub(super) fn groups(&self) -> Vec<usize> {
        let by_peer: BTreeMap<_, _> =
            self.nodes.iter().enumerate().map(|(at, n)| (n.peer_id(), at)).collect();
        let neighbours: Vec<Vec<usize>> = self
            .nodes
            .iter()
            .map(|n| {
                let links = n.protocol.as_ref().map(Protocol::links).unwrap_or_default();
                links.iter().filter_map(|l| by_peer.get(&l.peer).copied()).collect()
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

    /// What the run amounted to so far.
    pub fn report(&self) -> Report {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        let holdings = self.holdings();
        let all: std::collections::BTreeSet<_> =
            holdings.iter().flat_map(|h| h.held.iter().copied()).collect();
        let there: usize = holdings.iter().map(|h| h.held.len()).sum();
        let pairs = all.len() * holdings.len();
        let mut counters: Counters = self.earlier.clone();
        for protocol in self.nodes.iter().filter_map(|n| n.protocol.as_ref()) {
            counters.add(protocol.counters());
        }
        let links: usize = self.running().map(|n| self.links(n)).sum();
        let deliveries = latencies.len() as u64;
        Report {
            seed: self.config.seed,
            nodes: holdings.len(),
            elapsed: self.now,
            steps: self.steps,
            published: self.published,
            deliveries,
            coverage: if pairs == 0 { 1.0 } else { there as f64 / pairs as f64 },
            redundancy: self.payload_sent as f64 / self.payload_delivered.max(1) as f64,
            control_bytes: self.control_sent as f64 / deliveries.max(1) as f64,
            latency_p50: percentile(&latencies, 50),
            latency_p95: percentile(&latencies, 95),
            latency_max: latencies.last().copied().unwrap_or_default(),
            mean_links: links as f64 / holdings.len().max(1) as f64,
            faults: self.faults,
            checks: self.checks(),
            violations: self.violations().len(),
            counters,
        }
    }

    /// Starts the figures of the report anew, for instance after a warm-up.
    pub fn reset_figures(&mut self) {
        self.latencies.clear();
        (self.payload_delivered, self.payload_sent, self.control_sent) = (0, 0, 0);
        self.published = 0;
    }
}
