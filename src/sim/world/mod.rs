//! The world: nodes, pipes, and one queue of what happens next.

mod delivery_stats;
mod digest;
mod dispatch;
mod event;
mod event_queue;
mod faults;
mod frames;
mod latency;
mod node;
mod obstacles;
mod pipe;
mod requests;
mod store;
mod survey;
mod tamper;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use self::delivery_stats::{CoverageTable, Figures};
use self::digest::Digest;
use self::event::Event;
use self::event_queue::EventQueue;
pub use self::faults::Disk;
use self::latency::Latencies;
pub use self::node::Delivery;
use self::node::{Node, endpoint};
use self::obstacles::Obstruction;
use self::pipe::Pipes;
pub use self::requests::Handler;
use super::check::{self, Checker, Seen, Violation};
use super::config::{Filter, NodeOptions, Topology, WorldConfig};
use super::id_map::IdMap;
use super::node_set::NodeSet;
use super::report::Faults;
use super::rng::{SimRng, nanos};
use crate::protocol::{CallId, Input, Output, Protocol};
use crate::types::{
    Counters, Endpoint, Header, PeerId, Topic, TopicKey, Transaction, TransactionId, WallTime,
};

/// Time that publishers let their transactions live.
const LIFETIME: Duration = Duration::from_hours(1);

/// Maximum number of nodes that the checkers look at.
const MAX_WATCHED: usize = 1000;

/// A virtual network whose nodes each run the real [`Protocol`].
///
/// Equal configuration and calls give an equal run, down to every byte.
#[derive(Debug)]
pub struct World {
    pub(in crate::sim) config: WorldConfig,
    rng: SimRng,
    now: Duration,
    steps: u64,
    queue: EventQueue<Event>,
    /// Events of this instant, after the one that is happening.
    due_now: VecDeque<Event>,
    outputs: Vec<Output>,
    nodes: Vec<Node>,
    /// Nodes that carry only some topics.
    edges: Vec<usize>,
    addresses: BTreeMap<Endpoint, usize>,
    /// Nodes that names stand for.
    names: BTreeMap<Endpoint, Vec<usize>>,
    by_peer: IdMap<PeerId, usize>,
    pipes: Pipes,
    latencies: Latencies,
    obstructions: Vec<Obstruction>,
    forged: BTreeSet<TransactionId>,
    /// Signatures that were checked, so that equal ones are checked once.
    checked: IdMap<[u8; 64], bool>,
    checkers: Vec<(Box<dyn Checker>, u64)>,
    violations: Vec<Violation>,
    digest: Digest,
    faults: Faults,
    coverage: CoverageTable,
    pub(in crate::sim) figures: Figures,
    earlier: Counters,
}

impl World {
    /// Builds the world and starts its nodes, all equal.
    pub fn new(config: WorldConfig) -> Self {
        let count = config.nodes;
        Self::with_nodes(config, vec![NodeOptions::default(); count])
    }

    /// Builds the world and starts these nodes.
    pub fn with_nodes(config: WorldConfig, nodes: Vec<NodeOptions>) -> Self {
        let mut world = Self {
            rng: SimRng::new(config.seed),
            now: Duration::ZERO,
            steps: 0,
            queue: EventQueue::new(),
            due_now: VecDeque::new(),
            outputs: Vec::new(),
            nodes: Vec::new(),
            edges: Vec::new(),
            addresses: BTreeMap::new(),
            names: BTreeMap::new(),
            by_peer: IdMap::default(),
            pipes: Pipes::default(),
            latencies: Latencies::new(config.latency.clone(), config.jitter_percent),
            obstructions: Vec::new(),
            forged: BTreeSet::new(),
            checked: IdMap::default(),
            checkers: Vec::new(),
            violations: Vec::new(),
            digest: Digest::default(),
            faults: Faults::default(),
            coverage: CoverageTable::default(),
            figures: Figures::default(),
            earlier: Counters::default(),
            config: WorldConfig { nodes: nodes.len(), ..config },
        };
        let dialable: Vec<_> =
            (0..nodes.len()).filter(|n| nodes[*n].filter == Filter::Open).collect();
        let register = |options| world.register(options, &dialable);
        let added: Vec<_> = nodes.into_iter().map(register).collect();
        if world.config.checks {
            let hostile = world.nodes.iter().filter(|n| n.options.behaviour.is_hostile());
            let checkers = check::all(hostile.map(Node::peer_id).collect());
            world.checkers = checkers.into_iter().map(|c| (c, 0)).collect();
        }
        for node in added {
            world.start(node);
        }
        world
    }

    /// Adds a node that starts now; returns its number.
    pub fn add_node(&mut self, options: NodeOptions) -> usize {
        let up = self.running().filter(|n| self.nodes[*n].options.filter == Filter::Open);
        let dialable: Vec<_> = up.collect();
        self.faults.nodes_joined_late += u64::from(self.now > Duration::ZERO);
        let behaviour = options.behaviour;
        let node = self.register(options, &dialable);
        self.set_behaviour(node, behaviour);
        self.start(node);
        node
    }

    /// Has one more checker look at all that happens from now on, beside those that
    /// [`WorldConfig::checks`] turns on.
    pub fn add_checker(&mut self, checker: Box<dyn Checker>) {
        self.checkers.push((checker, 0));
    }

    /// Registers a node, which is still down; `dialable` are those that it may know under a random
    /// topology.
    fn register(&mut self, options: NodeOptions, dialable: &[usize]) -> usize {
        let index = self.nodes.len();
        let mut config = options.config.clone().unwrap_or_else(|| self.config.node.clone());
        let known: Vec<usize> = match self.config.topology {
            Topology::OneBootstrap => vec![0],
            Topology::Mesh => (0..self.config.nodes).collect(),
            Topology::Empty => Vec::new(),
            Topology::Random(count) => {
                // One more than needed, in case it drew itself.
                let drawn = self.rng.sample(dialable.len(), count + 1);
                let drawn = drawn.into_iter().map(|at| dialable[at]);
                drawn.filter(|other| *other != index).take(count).collect()
            }
        };
        let place = |node: usize| match self.nodes.get(node) {
            Some(n) => n.endpoint.clone(),
            // One that is still to come.
            None => endpoint(node),
        };
        let others = known.into_iter().filter(|other| *other != index).map(place);
        config.discovery.bootstrap.extend(others);
        let mut node = Node::new(self.config.seed, index, config, options);
        node.uplink = self.config.uplink;
        node.downlink = self.config.downlink;
        self.faults.nodes_hidden += u64::from(node.options.filter != Filter::Open);
        if node.is_edge() {
            self.edges.push(index);
        }
        self.addresses.insert(node.endpoint.clone(), index);
        if node.options.twin_of.is_none() {
            self.by_peer.insert(node.peer_id(), index);
        }
        self.latencies.add(&mut self.rng, node.options.region);
        self.nodes.push(node);
        index
    }

    /// Simulated time since the world began.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Number of nodes, running or not.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Says whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The id of a node.
    pub fn peer_id(&self, node: usize) -> PeerId {
        self.nodes[node].peer_id()
    }

    /// Endpoint at which a node can be dialled.
    pub fn endpoint(&self, node: usize) -> Endpoint {
        self.nodes[node].endpoint.clone()
    }

    /// Lets a name stand for the addresses of these nodes, in this order; but who is among them gets its
    /// own address first, as from the resolvers of many systems.
    pub fn name(&mut self, name: Endpoint, nodes: &[usize]) {
        self.names.insert(name, nodes.to_vec());
    }

    /// Moves a node to an address of its own that it did not have before. Its links live on; it is
    /// dialled there and sees its next record say so.
    pub fn relocate(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        self.addresses.remove(&n.endpoint);
        let (host, port) = (n.endpoint.host().clone(), n.endpoint.port());
        n.endpoint = Endpoint::new(host, port.wrapping_add(1).max(1))
            .unwrap_or_else(|_| unreachable!("an address with a port is an endpoint"));
        self.addresses.insert(n.endpoint.clone(), node);
    }

    /// Moves a node to another IP address, as when it roams or its router gets a new one: its links break.
    pub fn readdress(&mut self, node: usize, ip: IpAddr) {
        self.reset_links_of(node);
        let n = &mut self.nodes[node];
        self.addresses.remove(&n.endpoint);
        n.endpoint = Endpoint::from(SocketAddr::new(ip, n.endpoint.port()));
        n.dialled.clear();
        self.addresses.insert(n.endpoint.clone(), node);
    }

    /// Lets the records that a node signs next have the numbers after `seq`, as when a disk or a clock
    /// was set back.
    pub fn set_record_seq(&mut self, node: usize, seq: u64) {
        self.nodes[node].record_seq = seq;
    }

    /// The protocol of a node; `None` while it is down.
    pub fn protocol(&self, node: usize) -> Option<&Protocol> {
        self.nodes[node].protocol.as_ref()
    }

    /// Transactions that reached a node's log, in the order of its cursors.
    pub fn deliveries(&self, node: usize) -> &[Delivery] {
        &self.nodes[node].deliveries
    }

    /// Partial payloads that a node's disk keeps.
    pub fn partials(&self, node: usize) -> usize {
        self.nodes[node].store.partials()
    }

    /// Returns the number of own transactions that a node's disk still has in its outbox.
    pub fn outbox(&self, node: usize) -> usize {
        self.nodes[node].store.outbox_len()
    }

    /// The payload of a transaction that a node's disk has.
    pub fn payload(&self, node: usize, id: &TransactionId) -> Option<Bytes> {
        Some(self.nodes[node].store.get(id)?.payload().clone())
    }

    /// The trace context with which a transaction came that a node's disk has.
    pub fn traceparent(&self, node: usize, id: &TransactionId) -> Option<String> {
        self.nodes[node].store.get(id)?.traceparent()
    }

    /// Says whether a node's disk has a transaction.
    pub fn holds(&self, node: usize, id: &TransactionId) -> bool {
        self.nodes[node].store.contains(id)
    }

    /// Payload bytes that a node's disk has of another's transactions.
    pub fn bytes_of(&self, node: usize, origin: usize) -> u64 {
        self.nodes[node].store.bytes(Some(&self.peer_id(origin)))
    }

    /// Number of running nodes that have a transaction on disk.
    pub fn holders(&self, id: &TransactionId) -> usize {
        let up: NodeSet = self.running().collect();
        self.coverage.holders(id).map_or(0, |holders| holders.common(&up))
    }

    /// The nodes that run.
    pub fn running(&self) -> impl Iterator<Item = usize> + '_ {
        let up = |(at, n): (usize, &Node)| n.protocol.is_some().then_some(at);
        self.nodes.iter().enumerate().filter_map(up)
    }

    /// Makes, signs and publishes a transaction; returns its id, whatever becomes of it.
    pub fn publish(&mut self, node: usize, topic: &str, payload: &[u8]) -> TransactionId {
        let wall = self.nodes[node].dated(self.now);
        let transaction = self.transaction(node, topic, payload, wall, wall.plus(LIFETIME));
        let id = transaction.id();
        self.publish_transaction(node, transaction);
        id
    }

    /// Publishes `bytes` random bytes.
    pub fn publish_random(&mut self, node: usize, bytes: usize) -> TransactionId {
        let mut payload = vec![0; bytes];
        self.rng.fill(&mut payload);
        self.publish(node, "random", &payload)
    }

    /// A transaction signed by a node, published nowhere.
    ///
    /// # Panics
    /// If `topic` is longer than 255 bytes.
    pub fn transaction(
        &self,
        node: usize,
        topic: &str,
        payload: &[u8],
        created: WallTime,
        expires: WallTime,
    ) -> Transaction {
        let identity = &self.nodes[node].identity;
        let topic = Topic::new(topic).expect("a topic has at most 255 bytes");
        let header = Header::new(topic, identity.peer_id(), created, expires, payload);
        let payload = Bytes::copy_from_slice(payload);
        identity.sign_transaction(header, payload).expect("header and payload fit")
    }

    /// Publishes a given transaction.
    pub fn publish_transaction(&mut self, node: usize, transaction: Transaction) {
        self.publish_many(node, vec![transaction]);
    }

    /// Publishes given transactions: all of them or none.
    pub fn publish_many(&mut self, node: usize, transactions: Vec<Transaction>) {
        for transaction in &transactions {
            self.coverage.published(transaction, self.now);
        }
        let n = &mut self.nodes[node];
        n.next_call += 1;
        let call = CallId(n.next_call);
        self.feed(node, Input::Publish { call, transactions, renews: None });
    }

    /// Sets what a node's host subscribes to, also after a restart; `None` is everything. Without
    /// it an edge subscribes to nothing; a relay carries everything in any case.
    ///
    /// # Panics
    /// If a topic is longer than 255 bytes.
    pub fn subscribe(&mut self, node: usize, topics: Option<&[&str]>) {
        let key =
            |name: &&str| TopicKey::of(&Topic::new(name).expect("a topic has at most 255 bytes"));
        self.nodes[node].subscribed = topics.map(|topics| topics.iter().map(key).collect());
        let topics = self.nodes[node].subscribed.clone();
        self.feed(node, Input::Subscribed { topics });
    }

    /// Gives a node any input, for scenarios that this API has no word for.
    pub fn input(&mut self, node: usize, input: Input) {
        self.feed(node, input);
    }

    /// Lets a node dial another.
    pub fn connect(&mut self, from: usize, to: usize) {
        let endpoint = self.endpoint(to);
        let n = &mut self.nodes[from];
        n.next_call += 1;
        let call = CallId(n.next_call);
        self.feed(from, Input::Connect { call, endpoint });
    }

    /// Runs for a span of simulated time.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done` or until `limit` has passed; returns whether it is done. `done` is asked
    /// every millisecond of simulated time in which something happens.
    pub fn run_until(&mut self, done: impl FnMut(&Self) -> bool, limit: Duration) -> bool {
        self.run_until_every(Duration::from_millis(1), done, limit)
    }

    /// [`run_until`](Self::run_until) for questions that are too costly for every millisecond.
    pub fn run_until_every(
        &mut self,
        pause: Duration,
        mut done: impl FnMut(&Self) -> bool,
        limit: Duration,
    ) -> bool {
        let end = self.now + limit;
        let mut asked = self.now;
        if done(self) {
            return true;
        }
        while self.step(end) {
            if self.now >= asked + pause {
                asked = self.now;
                if done(self) {
                    return true;
                }
            }
        }
        self.now = end;
        done(self)
    }

    /// Runs until nothing is under way and every honest node holds what those hold that it is
    /// connected to; `false` if that is not so within `limit`. The checkers then see who holds
    /// what.
    pub fn settle(&mut self, limit: Duration) -> bool {
        let settled = self.run_until(Self::is_settled, limit);
        self.show_holdings();
        settled
    }

    /// Shows the checkers what every running honest node holds, as when nothing is under way.
    pub fn show_holdings(&mut self) {
        if !self.checkers.is_empty() {
            let nodes = self.holdings();
            self.show(&Seen::Calm { nodes: &nodes });
        }
    }

    fn is_settled(&self) -> bool {
        let quiet = |n: usize| {
            let node = &self.nodes[n];
            node.deferred.is_empty() && node.protocol.as_ref().is_some_and(Protocol::is_idle)
        };
        self.running().all(quiet) && self.is_even()
    }

    /// Says whether all running nodes are connected over links.
    pub fn is_connected(&self) -> bool {
        let groups = self.groups();
        let first = self.running().next().map(|n| groups[n]);
        self.running().all(|n| Some(groups[n]) == first)
    }

    /// The sequence number of the record of `of` that a node's disk has.
    pub fn record_seq(&self, node: usize, of: usize) -> Option<u64> {
        self.nodes[node].store.record_seq(&self.peer_id(of))
    }

    /// The addresses in the record of `of` that a node's disk has, best first.
    pub fn record_endpoints(&self, node: usize, of: usize) -> Vec<Endpoint> {
        self.nodes[node].store.record_endpoints(&self.peer_id(of))
    }

    /// Number of links of a node.
    pub fn links(&self, node: usize) -> usize {
        let count = |p: &Protocol| usize::try_from(p.stats().links).unwrap_or(0);
        self.nodes[node].protocol.as_ref().map_or(0, count)
    }

    /// Says whether two nodes have a link, seen from both sides.
    pub fn linked(&self, a: usize, b: usize) -> bool {
        let sees = |from: usize, to: usize| {
            let to = self.peer_id(to);
            self.nodes[from]
                .protocol
                .as_ref()
                .is_some_and(|p| p.links().iter().any(|l| l.peer == to))
        };
        sees(a, b) && sees(b, a)
    }

    /// Returns one hash over all inputs and outputs so far.
    pub fn digest(&self) -> String {
        self.digest.value()
    }

    /// Violations that the checkers found.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Number of times that each checker looked at something that concerns it.
    pub fn checks(&self) -> BTreeMap<String, u64> {
        self.checkers.iter().map(|(c, n)| (c.name().to_owned(), *n)).collect()
    }

    /// Panics with the first violation and the seed.
    ///
    /// # Panics
    /// If a checker found something.
    pub fn assert_clean(&self) {
        if let Some(first) = self.violations.first() {
            let count = self.violations.len();
            panic!("seed {}: {count} violations, the first: {first}", self.config.seed);
        }
    }

    /// One-way travel time, with jitter.
    fn travel(&mut self, a: usize, b: usize) -> Duration {
        let base = self.latencies.distance(a, b);
        base + self.rng.up_to(base * self.config.jitter_percent / 100)
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.queue.push(at, event);
    }

    fn step(&mut self, end: Duration) -> bool {
        let event = if let Some(event) = self.due_now.pop_front() {
            event
        } else {
            let Some((at, event)) = self.queue.pop(end) else { return false };
            self.now = self.now.max(at);
            event
        };
        self.steps += 1;
        self.dispatch(event);
        true
    }

    /// Says whether the checkers look at this node: at every node up to 1000, and at about
    /// 1000 evenly spaced ones of a world that was larger from the start; who holds what is
    /// compared for all. Nodes that are added change nothing for those that are there.
    pub(in crate::sim) fn is_watched(&self, node: usize) -> bool {
        let every = self.config.nodes.div_ceil(MAX_WATCHED).max(1);
        !self.checkers.is_empty() && node.is_multiple_of(every)
    }

    pub(in crate::sim) fn show(&mut self, seen: &Seen<'_>) {
        const MAX_VIOLATIONS: usize = 100;
        let mut found = Vec::new();
        for (checker, count) in &mut self.checkers {
            *count += checker.look(seen, &mut found);
            for what in found.drain(..) {
                if self.violations.len() < MAX_VIOLATIONS {
                    let checker = checker.name();
                    self.violations.push(Violation { checker, at: self.now, what });
                }
            }
        }
    }

    fn digest_event(&mut self, node: usize, what: &dyn std::fmt::Debug) {
        if self.config.digest {
            let at = nanos(self.now);
            self.digest.take(at, node, what);
        }
    }
}
