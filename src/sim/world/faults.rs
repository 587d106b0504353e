//! What goes wrong on request: crashes, partitions, slow and broken links.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::StoreErrorKind;
use crate::protocol::{Input, Protocol};
use crate::sim::check::Seen;
use crate::sim::config::{Behaviour, Filter, Loss};
use crate::sim::link_id::pipe_of;
use crate::types::{LinkId, Message, TransactionId};

use super::World;
use super::event::Event;
use super::pipe::{Arrival, Pipe};
use super::store::Store;

/// State of a disk after a crash.
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
        let seed = self.rng.bytes();
        let now = self.now;
        let n = &mut self.nodes[node];
        if n.boot > 0 {
            self.faults.restarts += 1;
        }
        n.boot += 1;
        n.vanished = false;
        n.started = now;
        n.correction_ms = 0;
        n.told.clear();
        let record = n.sign_record(now);
        let mut restored = n.store.restored(n.options.store_bytes);
        restored.listening = n.listening();
        restored.rungs = self.config.rungs.iter().map(|rung| rung.kind).collect();
        let stored: Vec<TransactionId> = restored.index.iter().map(|e| e.id).collect();
        let blank = restored.peers.is_empty() && stored.is_empty();
        let config = n.config.clone();
        // Of two with one identity each has its own.
        let incarnation = n.boot + if n.options.twin_of.is_some() { 1 << 32 } else { 0 };
        let protocol = Protocol::new(&config, incarnation, record.clone(), seed, restored);
        n.protocol = Some(protocol);
        self.show(&Seen::Started { node, stored: &stored, blank });
        self.feed(node, Input::Record(record));
        if self.nodes[node].is_edge() {
            let topics = self.nodes[node].subscribed.clone();
            self.feed(node, Input::Subscribed { topics });
        }
        self.tell_serving(node);
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
        n.dials.clear();
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
            self.coverage.disk_lost(node);
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
        let cut = |p: &Pipe| nodes[p.ends[0].node].partition != nodes[p.ends[1].node].partition;
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

    /// Delivers what is held back where nothing is cut.
    fn let_arrive(&mut self) {
        let nodes = &self.nodes;
        let whole = |p: &Pipe| nodes[p.ends[0].node].partition == nodes[p.ends[1].node].partition;
        let pipes = self.pipes.iter().filter(|(_, p)| whole(p)).map(|(pipe, _)| pipe);
        for pipe in pipes.collect::<Vec<_>>() {
            for side in [0, 1] {
                let Some(p) = self.pipes.get_mut(pipe) else { continue };
                for arrival in std::mem::take(&mut p.ends[side].held_back) {
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
        let between = |p: &Pipe| {
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
        self.repace(node, old);
    }

    /// Changes what reaches a node from now on; its links stay.
    pub fn set_filter(&mut self, node: usize, filter: Filter) {
        self.nodes[node].options.filter = filter;
    }

    /// Changes what a node does wrong from now on.
    pub fn set_behaviour(&mut self, node: usize, behaviour: Behaviour) {
        self.nodes[node].options.behaviour = behaviour;
        if behaviour.is_hostile() {
            let peer = self.peer_id(node);
            self.show(&Seen::Hostile { peer });
        }
    }

    /// Sets a node's clock, also while the node runs: from now on it is ahead of the true time by so many
    /// milliseconds, or behind it.
    pub fn set_clock(&mut self, node: usize, skew_ms: i64) {
        let n = &mut self.nodes[node];
        self.faults.clocks_set += u64::from(n.options.clock_skew_ms != skew_ms);
        n.options.clock_skew_ms = skew_ms;
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
        self.enqueue(link, message.weight(), Some(message));
        self.transmit(from);
    }

    /// The number that a node gave to its link to another.
    pub fn link_between(&self, from: usize, to: usize) -> Option<LinkId> {
        let to = self.peer_id(to);
        let protocol = self.nodes[from].protocol.as_ref()?;
        protocol.links().iter().find(|l| l.peer == to).map(|l| l.link)
    }
}
