//! What goes wrong on request: crashes, partitions, slow and broken links; and the reckoning.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::StoreErrorKind;
use crate::protocol::{Input, Protocol};
use crate::types::{Counters, LinkId, Message, TopicKey, TransactionId, WallTime};

use super::check::{Holdings, Seen};
use super::config::{Behaviour, Loss};
use super::ids::NodeSet;
use super::net::{Arrival, pipe_of};
use super::report::{Report, percentile};
use super::spread::{Figures, Spread};
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
        n.vanished = false;
        n.started = now;
        let record = n.sign_record(now);
        let restored = n.store.restored(n.options.store_bytes);
        let kept: Vec<TransactionId> = restored.index.iter().map(|e| e.id).collect();
        let blank = restored.peers.is_empty() && kept.is_empty();
        let config = n.config.clone();
        let incarnation = n.boot;
        let protocol = Protocol::new(&config, incarnation, record.clone(), seed, restored);
        n.protocol = Some(protocol);
        self.show(&Seen::Started { node, kept: &kept, blank });
        self.feed(node, Input::Record(record));
        if self.nodes[node].is_edge() {
            let topics = self.nodes[node].subscribed.clone();
            self.feed(node, Input::Subscribed { topics });
        }
    }

    /// Kills a node at once. The others see their links reset.
    pub fn crash(&mut self, node: usize, disk: Disk) {
        for link in self.stop(node, disk) {
            let (pipe, side) = pipe_of(link);
            let Some(p) = self.pipes.get_mut(pipe) else { continue };
            p.broken = true;
            p.ends[side].open = false;
            let (from, to) = (p.ends[side].node, p.ends[1 - side].node);
            let at = self.now + self.travel(from, to);
            self.schedule(at, Event::Ended { pipe, side: 1 - side });
        }
    }

    /// Lets a node's machine vanish, as when its power fails: nobody is told. What is sent to it is
    /// never acknowledged, and who dials it waits in vain, until it starts again.
    pub fn vanish(&mut self, node: usize, disk: Disk) {
        if self.nodes[node].protocol.is_none() {
            return;
        }
        self.faults.silent_crashes += 1;
        self.nodes[node].vanished = true;
        for link in self.stop(node, disk) {
            let (pipe, side) = pipe_of(link);
            let Some(p) = self.pipes.get_mut(pipe) else { continue };
            let end = &mut p.ends[side];
            (end.open, end.void) = (false, true);
            end.queue.clear();
        }
    }

    /// Ends a node's process; returns the links that it had.
    fn stop(&mut self, node: usize, disk: Disk) -> BTreeSet<LinkId> {
        let n = &mut self.nodes[node];
        let Some(protocol) = n.protocol.take() else { return BTreeSet::new() };
        self.earlier.add(protocol.counters());
        n.boot += 1;
        n.wake = None;
        n.deferred.clear();
        n.ready.clear();
        n.ready_bulk.clear();
        n.uplink_free = Duration::ZERO;
        n.uplink_timer = false;
        n.crawling = None;
        n.store_free = Duration::ZERO;
        let links = std::mem::take(&mut n.links);
        self.faults.crashes += 1;
        if disk == Disk::Lost {
            self.faults.disks_lost += 1;
            n.store = Store::default();
            n.promised.clear();
            n.deliveries.clear();
            self.spreads.disk_lost(node);
        }
        links
    }

    /// Cuts the network into these groups; nodes that are in none stay with the first. What was cut
    /// otherwise before is no more: what was held back between nodes that are together now arrives.
    pub fn partition(&mut self, groups: &[Vec<usize>]) {
        for node in &mut self.nodes {
            node.partition = 0;
        }
        for (number, group) in groups.iter().enumerate() {
            for node in group {
                self.nodes[*node].partition = number;
            }
        }
        let nodes = &self.nodes;
        let cut = |p: &super::net::Pipe| {
            nodes[p.ends[0].node].partition != nodes[p.ends[1].node].partition
        };
        self.faults.partitions += u64::from(self.pipes.iter().any(|(_, p)| cut(p)));
        self.let_arrive();
    }

    /// Ends all partitions. What they held back arrives, in order.
    pub fn heal(&mut self) {
        for node in &mut self.nodes {
            node.partition = 0;
        }
        self.let_arrive();
    }

    /// What is held back where nothing is cut arrives.
    fn let_arrive(&mut self) {
        let nodes = &self.nodes;
        let whole = |p: &super::net::Pipe| {
            nodes[p.ends[0].node].partition == nodes[p.ends[1].node].partition
        };
        let pipes = self.pipes.iter().filter(|(_, p)| whole(p)).map(|(pipe, _)| pipe);
        for pipe in pipes.collect::<Vec<_>>() {
            for side in [0, 1] {
                let Some(p) = self.pipes.get_mut(pipe) else { continue };
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
        let pipes = self.pipes.iter().filter(|(_, p)| between(p)).map(|(pipe, _)| pipe);
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
        let slower = |new: Option<u64>, old: Option<u64>| {
            new.is_some_and(|new| old.is_none_or(|old| new < old))
        };
        self.faults.nodes_slowed +=
            u64::from(slower(uplink, n.uplink) || slower(downlink, n.downlink));
        let old = std::mem::replace(&mut n.uplink, uplink);
        n.downlink = downlink;
        self.hasten(node, old);
    }

    /// Changes what a node does wrong from now on.
    pub fn set_behaviour(&mut self, node: usize, behaviour: Behaviour) {
        self.nodes[node].options.behaviour = behaviour;
        if behaviour.is_hostile() {
            let peer = self.peer_id(node);
            self.show(&Seen::Hostile { peer });
        }
    }

    /// Counts a node's latencies apart from those of the others, because it is the one that a fault
    /// strikes.
    pub fn set_aside(&mut self, node: usize, aside: bool) {
        self.nodes[node].aside = aside;
    }

    /// Lets a node's store fail from now on, or work again.
    pub fn fail_store(&mut self, node: usize, error: Option<StoreErrorKind>) {
        self.nodes[node].store_error = error;
    }

    /// Lets a node's disk lose the partial payloads on it.
    pub fn forget_partials(&mut self, node: usize) {
        self.nodes[node].store.forget_partials();
    }

    /// Declares a transaction forged: it verifies nowhere.
    pub fn forge(&mut self, id: TransactionId) {
        self.forged.insert(id);
    }

    /// Lets a node say something to a peer that its protocol did not say.
    pub fn say(&mut self, from: usize, to: usize, message: Message) {
        let Some(link) = self.link_between(from, to) else { return };
        self.put(link, message.weight(), Some(message));
        self.transmit(from);
    }

    /// The number that a node gave to its link to another.
    pub fn link_between(&self, from: usize, to: usize) -> Option<LinkId> {
        let to = self.peer_id(to);
        let protocol = self.nodes[from].protocol.as_ref()?;
        protocol.links().iter().find(|l| l.peer == to).map(|l| l.link)
    }

    /// What every running honest node holds, for the checkers.
    pub(super) fn holdings(&self) -> Vec<Holdings> {
        let groups = self.groups();
        let holding = |node: usize| {
            let n = &self.nodes[node];
            let held: BTreeSet<_> = n.store.unexpired(n.wall(self.now)).collect();
            // What was promised and has expired since is no promise any more.
            let live = |id: &&TransactionId| {
                held.contains(id) || self.spreads.holders(id).is_some_and(|h| !h.is_empty())
            };
            let promised = n.promised.iter().filter(live).copied().collect();
            let spared = self.spared(node);
            Holdings { node, group: groups[node], held, spared, promised }
        };
        self.honest().map(holding).collect()
    }

    /// What is live and of no topic that a node has to carry.
    fn spared(&self, node: usize) -> BTreeSet<TransactionId> {
        let n = &self.nodes[node];
        if !n.is_edge() {
            return BTreeSet::new();
        }
        let live = self.spreads.live_by_id(self.latest_wall());
        live.filter(|(_, spread)| !n.wants(spread.topic)).map(|(id, _)| *id).collect()
    }

    /// Of these nodes, those that have to carry a topic.
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

    /// The latest that any clock says: what is not expired by it is expired nowhere.
    fn latest_wall(&self) -> WallTime {
        let ahead = self.nodes.iter().map(|n| n.wall(self.now)).max();
        ahead.unwrap_or_default()
    }

    /// How many (accepted and unexpired transaction, running honest node) pairs are not there yet.
    pub fn missing(&self) -> u64 {
        self.missing_of(|_| 1)
    }

    /// The payload bytes that running honest nodes do not have yet.
    pub fn missing_bytes(&self) -> u64 {
        self.missing_of(|size| size)
    }

    fn missing_of(&self, weight: impl Fn(u64) -> u64) -> u64 {
        let expected: NodeSet = self.honest().collect();
        let live = self.spreads.live(self.latest_wall());
        let missing = |s: &Spread| {
            let carriers = self.carriers(&expected, s.topic);
            (carriers.len() - s.holders.common(&carriers)) as u64 * weight(s.size)
        };
        live.map(missing).sum()
    }

    /// Whether within each connected group what one honest node holds is at all that carry it.
    pub(super) fn is_even(&self) -> bool {
        let groups = self.groups();
        let mut sets: BTreeMap<usize, NodeSet> = BTreeMap::new();
        for node in self.honest() {
            sets.entry(groups[node]).or_default().insert(node);
        }
        let even = |s: &Spread| {
            sets.values().all(|set| {
                let carriers = self.carriers(set, s.topic);
                s.holders.common(set) == 0 || s.holders.common(&carriers) == carriers.len()
            })
        };
        self.spreads.live(self.latest_wall()).all(even)
    }

    /// The connected component of each node, counting links that both ends have.
    pub(super) fn groups(&self) -> Vec<usize> {
        let peer = |l: &crate::protocol::LinkView| self.by_peer.get(&l.peer).copied();
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

    /// What the run amounted to so far.
    pub fn report(&self) -> Report {
        let mut latencies = self.figures.latencies.clone();
        latencies.sort_unstable();
        let at = |percent| Duration::from_micros(u64::from(percentile(&latencies, percent)));
        let expected: NodeSet = self.honest().collect();
        let (mut pairs, mut there) = (0, 0);
        for spread in self.spreads.live(self.latest_wall()) {
            let carriers = self.carriers(&expected, spread.topic);
            pairs += carriers.len();
            there += spread.holders.common(&carriers);
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
}
