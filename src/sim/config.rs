//! What a world is made of.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::Config;
use crate::types::TransportKind;

/// Time that a frame travels between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Latency {
    /// The same one-way delay everywhere.
    Fixed(Duration),
    /// Five regions, 8 to 130 ms apart, and an access delay of 1 ms plus an exponentially
    /// distributed one (mean 6 ms) per node; a way takes 5 to 150 ms. Of the protocol study.
    Regions,
    /// One-way delays between regions of your own, plus the same access delay: row and column are
    /// [`NodeOptions::region`]. A row that is too short counts as the row's last value.
    Matrix(Vec<Vec<Duration>>),
}

/// Way in which transactions are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verification {
    /// Hashes and signatures are really checked; equal signatures only once.
    Real,
    /// Everything is right unless [`World::forge`](super::World::forge) named it. For large worlds.
    Trusted,
}

/// Nodes that each node knows at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Topology {
    /// Everybody has the first node as its bootstrap peer.
    OneBootstrap,
    /// Everybody has everybody as bootstrap peers.
    Mesh,
    /// Nobody knows anybody; links are made with [`World::connect`](super::World::connect).
    Empty,
    /// Everybody has this many random others that can be dialled as bootstrap peers, so that the
    /// mean degree is twice that (if the node's configuration dials as many).
    Random(usize),
}

/// Faults that strike by chance while a frame is on its way, each in millionths.
///
/// Frames of one link never overtake each other, as on TCP; those of different links do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loss {
    /// Share of frames that are lost and their link with them, as TCP does when it gives up.
    pub reset: u32,
    /// Share of frames that vanish while the link lives on. No transport that we use does that; the
    /// fault stands for faulty proxies.
    pub drop: u32,
    /// Share of messages that vanish out of their frame while the link lives on. Harsher than
    /// reality, as `drop`; the loss of the protocol study.
    pub message: u32,
    /// Share of frames that arrive twice, as a request does that is repeated after its answer was
    /// lost. Frames that open or close a link are exempt.
    pub duplicate: u32,
    /// Share of frames that come up to a second late, and what follows on their link with them.
    /// Other links overtake.
    pub delay: u32,
}

impl Loss {
    /// Every message vanishes with this probability, in percent.
    pub fn messages(percent: u32) -> Self {
        Self { message: percent * 10_000, ..Self::default() }
    }

    /// Every frame breaks its link with this probability, in millionths.
    pub fn resets(per_million: u32) -> Self {
        Self { reset: per_million, ..Self::default() }
    }
}

/// Transport that the nodes of a world dial with, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rung {
    /// Kind of the transport.
    pub kind: TransportKind,
    /// Number of round trips that it takes to open a connection, beside those of TCP and TLS.
    pub round_trips: u32,
    /// Time that each frame takes besides its way.
    pub delay: Duration,
    /// Number of bytes that a frame costs besides its messages.
    pub overhead: usize,
}

impl Rung {
    /// A rung that costs what a gRPC stream does: HTTP/2 and TLS.
    pub fn new(kind: TransportKind) -> Self {
        Self { kind, round_trips: 0, delay: Duration::ZERO, overhead: 40 }
    }

    /// The rungs that a node has by default, about as costly as they are: those below the first run TLS
    /// inside of what they are given, and those below the second are requests, of which each waits for
    /// the one before.
    pub fn ladder() -> Vec<Self> {
        let rung = |kind, round_trips, delay_ms, overhead| {
            let delay = Duration::from_millis(delay_ms);
            Self { kind, round_trips, delay, overhead }
        };
        vec![
            rung(TransportKind::GrpcStream, 0, 0, 40),
            rung(TransportKind::WebSocket, 2, 0, 60),
            rung(TransportKind::GrpcUnary, 3, 10, 200),
            rung(TransportKind::Rest, 3, 15, 600),
        ]
    }
}

/// What happens to a dial by a rung for which the way is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// Nothing answers.
    BlackHole,
    /// Something answers that it does not do that.
    Refuses,
    /// A connection comes about and nothing passes.
    Silent,
}

/// A world to be built. Start from [`WorldConfig::new`] and change what matters.
///
/// ```
/// use std::time::Duration;
/// use sorcha_peer::sim::{Latency, World, WorldConfig};
///
/// let mut world = World::new(WorldConfig::new(7, 4).latency(Latency::Fixed(Duration::from_millis(10))));
/// world.run_for(Duration::from_secs(5));
/// let id = world.publish(0, "orders", b"hello");
/// assert!(world.run_until(|w| w.holders(&id) == 4, Duration::from_secs(5)));
/// world.assert_clean();
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorldConfig {
    /// Decides everything that happens by chance.
    pub seed: u64,
    /// Nodes started at time zero.
    pub nodes: usize,
    /// Configuration of every node; bootstrap peers come from `topology`.
    pub node: Config,
    /// Transports that nodes dial with, the best first. By default one, in memory.
    pub rungs: Vec<Rung>,
    /// Nodes that each node knows at the start.
    pub topology: Topology,
    /// Time that a frame travels between two nodes.
    pub latency: Latency,
    /// Up to this many percent are added to each frame's travel time.
    pub jitter_percent: u32,
    /// Bytes per second that a node sends, over all links together; `None` is no limit.
    pub uplink: Option<u64>,
    /// Bytes per second that a node takes.
    pub downlink: Option<u64>,
    /// Bytes per link that are taken from a node before the uplink has room for them, as transports
    /// and kernels do: to the node they have left.
    pub buffers: usize,
    /// True: a frame carries all that waits (up to a quarter of a MiB); false: one message.
    pub batching: bool,
    /// Way in which transactions are checked.
    pub verification: Verification,
    /// Time to check a transaction.
    pub verify_delay: Duration,
    /// Time until a transaction is safe; stores do one after the other.
    pub store_delay: Duration,
    /// Frames lost by chance.
    pub loss: Loss,
    /// Proxies between the nodes, which cut what they carry.
    pub proxies: Proxies,
    /// True: every input and output goes into [`World::digest`](super::World::digest).
    pub digest: bool,
    /// True: the checkers look at every input and output.
    pub checks: bool,
}

impl WorldConfig {
    /// `nodes` nodes that all know the first one, 20 ms apart, with all checks on.
    pub fn new(seed: u64, nodes: usize) -> Self {
        Self {
            seed,
            nodes,
            node: Config::lan(),
            rungs: vec![Rung::new(TransportKind::Memory)],
            topology: Topology::OneBootstrap,
            latency: Latency::Fixed(Duration::from_millis(20)),
            jitter_percent: 20,
            uplink: None,
            downlink: None,
            buffers: 0,
            batching: true,
            verification: Verification::Real,
            verify_delay: Duration::from_micros(50),
            store_delay: Duration::from_micros(500),
            loss: Loss::default(),
            proxies: Proxies::default(),
            digest: false,
            checks: true,
        }
    }

    /// Sets the configuration of every node.
    #[must_use]
    pub fn node(mut self, node: Config) -> Self {
        self.node = node;
        self
    }

    /// Sets what nodes dial with, the best first.
    #[must_use]
    pub fn rungs(mut self, rungs: Vec<Rung>) -> Self {
        self.rungs = rungs;
        self
    }

    /// Sets whom nodes know.
    #[must_use]
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Sets the travel time.
    #[must_use]
    pub fn latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// Limits what each node sends, in bytes per second.
    #[must_use]
    pub fn uplink(mut self, bytes_per_second: u64) -> Self {
        self.uplink = Some(bytes_per_second);
        self
    }

    /// Sets whether frames carry all that waits.
    #[must_use]
    pub fn batching(mut self, batching: bool) -> Self {
        self.batching = batching;
        self
    }

    /// Sets how transactions are checked.
    #[must_use]
    pub fn verification(mut self, verification: Verification) -> Self {
        self.verification = verification;
        self
    }

    /// Sets the time until a transaction is safe; one after the other.
    #[must_use]
    pub fn store_delay(mut self, store_delay: Duration) -> Self {
        self.store_delay = store_delay;
        self
    }

    /// Sets the bytes per link that are taken from a node before the uplink has room for them.
    #[must_use]
    pub fn buffers(mut self, bytes: usize) -> Self {
        self.buffers = bytes;
        self
    }

    /// Sets faults that strike by chance.
    #[must_use]
    pub fn loss(mut self, loss: Loss) -> Self {
        self.loss = loss;
        self
    }

    /// Sets what proxies between the nodes cut.
    #[must_use]
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Sets whether everything goes into the digest.
    #[must_use]
    pub fn digest(mut self, digest: bool) -> Self {
        self.digest = digest;
        self
    }

    /// Sets whether the checkers look on.
    #[must_use]
    pub fn checks(mut self, checks: bool) -> Self {
        self.checks = checks;
        self
    }
}

/// What proxies between the nodes cut, whatever is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proxies {
    /// Age at which a connection is cut.
    pub max_age: Option<Duration>,
    /// Bytes from who dialled after which a connection is cut.
    pub max_bytes: Option<u64>,
}

impl Proxies {
    /// Cut every connection that is so old.
    pub fn by_age(max_age: Duration) -> Self {
        Self { max_age: Some(max_age), ..Self::default() }
    }

    /// Cut every connection on which who dialled has sent so much, as a stock nginx does.
    pub fn by_bytes(max_bytes: u64) -> Self {
        Self { max_bytes: Some(max_bytes), ..Self::default() }
    }
}

/// Connections of others that a node's NAT or firewall lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Filter {
    /// All.
    #[default]
    Open,
    /// Those of hosts that the node has dialled, until two minutes after (address-dependent filtering).
    Restricted,
    /// None.
    Closed,
}

/// Differences of a node from the others.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NodeOptions {
    /// Configuration instead of the world's; the bootstrap peers in it are kept.
    pub config: Option<Config>,
    /// Connections of others that reach it.
    pub filter: Filter,
    /// Address that others see, and reach unless it is filtered; one of its own if not given.
    pub address: Option<IpAddr>,
    /// True: it listens on all addresses and tells others what it learns of its own, once that is proven;
    /// false: it tells others its address, unless that is filtered, and asks nobody.
    pub learns: bool,
    /// Misbehaviour of the node.
    pub behaviour: Behaviour,
    /// Number of milliseconds by which the clock is off.
    pub clock_skew_ms: i64,
    /// Row of the latency matrix in which the node is; by chance if not given.
    pub region: Option<usize>,
    /// Payload bytes that its store takes; what does not fit fails as full.
    pub store_bytes: Option<u64>,
    /// Node whose identity it has as well, as after a data directory was copied.
    pub twin_of: Option<usize>,
}

impl NodeOptions {
    /// A node with its own configuration.
    pub fn with_config(config: Config) -> Self {
        Self { config: Some(config), ..Self::default() }
    }

    /// A node behind NAT: it dials, but nobody can dial it.
    pub fn hidden() -> Self {
        Self { filter: Filter::Closed, ..Self::default() }
    }

    /// A node at an address, which it has to learn.
    pub fn learning(address: impl Into<IpAddr>, filter: Filter) -> Self {
        Self { filter, address: Some(address.into()), learns: true, ..Self::default() }
    }

    /// A node with the identity of another.
    pub fn twin_of(node: usize) -> Self {
        Self { twin_of: Some(node), ..Self::default() }
    }

    /// A node that misbehaves.
    pub fn misbehaving(behaviour: Behaviour) -> Self {
        Self { behaviour, ..Self::default() }
    }

    /// A node whose clock is off.
    pub fn skewed(clock_skew_ms: i64) -> Self {
        Self { clock_skew_ms, ..Self::default() }
    }
}

/// Changes that a node makes to the messages that it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Behaviour {
    /// Sends what its protocol says.
    #[default]
    Honest,
    /// Announces at once whatever it hears of, and never sends a payload.
    Stalling,
    /// Changes a byte of every payload that is not its own.
    WrongPayload,
    /// Changes every signature that is not its own.
    WrongSignature,
    /// Changes every peer record that is not its own.
    WrongRecord,
    /// Names, in its hello, a wire version of the far future.
    WrongVersion,
    /// Sends the first piece of a payload changed, and no other.
    PoisonThenStall,
    /// Says of every dial-back that it succeeded.
    SaysReached,
    /// Says of every dial-back that it failed.
    SaysFailed,
}

impl Behaviour {
    /// Says whether being banned for it is just.
    pub(super) fn is_hostile(self) -> bool {
        !matches!(
            self,
            Self::Honest
                | Self::Stalling
                | Self::WrongVersion
                | Self::SaysReached
                | Self::SaysFailed
        )
    }
}
