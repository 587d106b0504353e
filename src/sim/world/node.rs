//! One simulated node: its identity, its disk, and its protocol while it runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::config::{Config, Role};
use crate::error::StoreErrorKind;
use crate::identity::Identity;
use crate::protocol::{DialId, Protocol};
use crate::types::{
    Cursor, Endpoint, Host, LinkId, MonoTime, PeerId, PeerRecord, RecordDraft, Topic, TopicKey,
    TransactionId, WallTime,
};

use super::pipe::Frame;
use super::requests::HostState;
use super::store::Store;
use crate::sim::config::{Behaviour, Filter, NodeOptions};

/// Wall-clock time at which every world starts.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// A transaction that reached a node's log, in the order of its cursors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Cursor in the log.
    pub cursor: Cursor,
    /// Identity of the transaction.
    pub id: TransactionId,
    /// Peer that sent the transaction; `None` for the node's own.
    pub from: Option<PeerId>,
    /// Hops from its origin.
    pub hops: u16,
    /// Simulated time of the delivery.
    pub at: Duration,
}

/// A frame that arrived while its node was full.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) pipe: u64,
    pub(super) side: usize,
    pub(super) frame: Frame,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) identity: Identity,
    pub(super) options: NodeOptions,
    pub(super) config: Config,
    pub(super) endpoint: Endpoint,
    /// Endpoints that its protocol has it tell others.
    pub(super) told: Vec<Endpoint>,
    /// Hosts that it has dialled and when, where its filter goes by that.
    pub(super) dialled: BTreeMap<IpAddr, Duration>,
    pub(super) record_seq: u64,
    /// Milliseconds that the protocol has added to the clock.
    pub(super) correction_ms: i64,
    /// `None` while the node is down.
    pub(super) protocol: Option<Protocol>,
    /// Counts starts: what was meant for an earlier run is dropped.
    pub(super) boot: u64,
    pub(super) started: Duration,
    pub(super) store: Store,
    pub(super) store_free: Duration,
    pub(super) store_error: Option<StoreErrorKind>,
    pub(super) next_call: u64,
    /// Dials under way that it has not given up.
    pub(super) dials: BTreeSet<DialId>,
    /// Links that it was told of or is about to be, and has not closed.
    pub(super) links: BTreeSet<LinkId>,
    pub(super) wake: Option<Duration>,
    pub(super) deferred: VecDeque<Deferred>,
    /// Ends that wait for their turn at the uplink, those with a piece of a large payload aside.
    pub(super) ready: VecDeque<(u64, usize)>,
    pub(super) ready_bulk: VecDeque<(u64, usize)>,
    pub(super) uplink: Option<u64>,
    pub(super) downlink: Option<u64>,
    pub(super) uplink_free: Duration,
    pub(super) uplink_timer: bool,
    /// A frame that the uplink takes long for: it is on its way when all of it has left.
    pub(super) crawling: Option<(u64, usize, Frame)>,
    pub(super) downlink_free: Duration,
    /// Nodes of different partitions do not hear each other.
    pub(super) partition: usize,
    /// The machine vanished, not only the process: nobody answers a dial.
    pub(super) vanished: bool,
    /// Topics that the host subscribes to.
    pub(super) subscribed: Option<BTreeSet<TopicKey>>,
    /// Latencies here are not counted with those of other nodes.
    pub(super) aside: bool,
    /// Transactions that were announced from here without being here.
    pub(super) announced_unheld: BTreeSet<TransactionId>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) promised: BTreeSet<TransactionId>,
    pub(super) turns: u64,
    /// What it asks of others, and they of it.
    pub(super) host: HostState,
}

impl Node {
    pub(super) fn new(seed: u64, index: usize, config: Config, options: NodeOptions) -> Self {
        Self {
            identity: identity(seed, options.twin_of.unwrap_or(index)),
            config,
            endpoint: match options.address {
                Some(ip) => Endpoint::from(SocketAddr::new(ip, Endpoint::DEFAULT_PORT)),
                None => endpoint(index),
            },
            told: Vec::new(),
            dialled: BTreeMap::new(),
            options,
            record_seq: 0,
            correction_ms: 0,
            protocol: None,
            boot: 0,
            started: Duration::ZERO,
            store: Store::default(),
            store_free: Duration::ZERO,
            store_error: None,
            next_call: 0,
            dials: BTreeSet::new(),
            links: BTreeSet::new(),
            wake: None,
            deferred: VecDeque::new(),
            ready: VecDeque::new(),
            ready_bulk: VecDeque::new(),
            vanished: false,
            aside: false,
            subscribed: Some(BTreeSet::new()),
            announced_unheld: BTreeSet::new(),
            uplink: None,
            downlink: None,
            uplink_free: Duration::ZERO,
            uplink_timer: false,
            crawling: None,
            downlink_free: Duration::ZERO,
            partition: 0,
            deliveries: Vec::new(),
            promised: BTreeSet::new(),
            turns: 0,
            host: HostState::default(),
        }
    }

    pub(super) fn peer_id(&self) -> PeerId {
        self.identity.peer_id()
    }

    pub(super) fn mono(&self, now: Duration) -> MonoTime {
        MonoTime::from_duration(now.saturating_sub(self.started))
    }

    pub(super) fn wall(&self, now: Duration) -> WallTime {
        shifted(true_wall(now), self.options.clock_skew_ms)
    }

    /// Time by which the node dates what it signs and publishes.
    pub(super) fn dated(&self, now: Duration) -> WallTime {
        shifted(self.wall(now), self.correction_ms)
    }

    /// Signs a new record.
    pub(super) fn sign_record(&mut self, now: Duration) -> PeerRecord {
        self.record_seq += 1;
        let endpoints = match self.options.filter {
            _ if self.options.learns => self.told.clone(),
            Filter::Open => vec![self.endpoint.clone()],
            Filter::Restricted | Filter::Closed => Vec::new(),
        };
        self.identity.sign_record(RecordDraft {
            peer: self.peer_id(),
            seq: self.record_seq,
            issued: self.dated(now),
            endpoints,
        })
    }

    /// Address at which the protocol is told that it listens.
    pub(super) fn listening(&self) -> Option<SocketAddr> {
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.options.learns.then(|| SocketAddr::new(everywhere, self.endpoint.port()))
    }

    /// Appends an end to those that wait for the uplink.
    pub(super) fn make_ready(&mut self, pipe: u64, side: usize, bulk: bool) {
        let queue = if bulk { &mut self.ready_bulk } else { &mut self.ready };
        queue.push_back((pipe, side));
    }

    /// Says whether the node may do without some topics.
    pub(super) fn is_edge(&self) -> bool {
        self.config.gossip.role == Role::Edge
    }

    /// Says whether the host wants a topic, or the node is a relay.
    pub(super) fn wants(&self, topic: TopicKey) -> bool {
        let fixed = |name: &String| Topic::new(name).is_ok_and(|t| TopicKey::of(&t) == topic);
        !self.is_edge()
            || self.subscribed.as_ref().is_none_or(|topics| topics.contains(&topic))
            || self.config.gossip.topics.iter().any(fixed)
    }

    /// Says whether the node does what it should.
    pub(super) fn is_honest(&self) -> bool {
        self.options.behaviour == Behaviour::Honest
    }

    /// Address that connections of the node seem to come from.
    pub(super) fn source_address(&self) -> Option<SocketAddr> {
        let address = self.endpoint.socket_addr()?;
        Some(SocketAddr::new(address.ip(), 40_000))
    }
}

/// Time that a clock shows which is right.
pub(super) fn true_wall(now: Duration) -> WallTime {
    WallTime::from_millis(EPOCH_MS).plus(now)
}

fn shifted(wall: WallTime, by_ms: i64) -> WallTime {
    let span = Duration::from_millis(by_ms.unsigned_abs());
    if by_ms < 0 { wall.minus(span) } else { wall.plus(span) }
}

/// The identity of a node, the same in every run of a seed.
fn identity(seed: u64, index: usize) -> Identity {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"sorcha-peer/sim/identity");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(index as u64).to_le_bytes());
    Identity::from_seed(*hasher.finalize().as_bytes())
}

/// The address of a node: 10.x.y.1:5001, 256 address groups.
pub(super) fn endpoint(index: usize) -> Endpoint {
    let octet = |n: usize| u8::try_from(n % 256).unwrap_or(0);
    let ip = Ipv4Addr::new(10, octet(index), octet(index / 256), 1);
    Endpoint::new(Host::Ip(IpAddr::V4(ip)), Endpoint::DEFAULT_PORT)
        .unwrap_or_else(|_| unreachable!("an address with a port is an endpoint"))
}
