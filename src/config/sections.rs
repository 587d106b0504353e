//! The sections and their defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Endpoint;

use super::choice::{AddressPolicy, Auto, Role, SignaturePolicy, Trust};

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
pub(super) const MINUTE: Duration = Duration::from_mins(1);

/// Which network, and who may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NetworkConfig {
    /// Name of the network; nodes of another network are refused. Default `"sorcha"`, 1 to 64
    /// bytes.
    pub name: String,
    /// Whether transactions must be signed by their origin. Default required.
    pub signatures: SignaturePolicy,
    /// Whom to talk to. Default anybody who proves a key.
    pub trust: Trust,
    /// How far a transaction's creation time may be from now when it is pushed. Default 2 min,
    /// range 1 s to 1 h.
    #[serde(with = "span")]
    pub max_clock_skew: Duration,
    /// No TLS: for tests and for a service mesh that brings its own. Default false.
    pub plaintext: bool,
    /// Lets [`plaintext`](Self::plaintext) listen on addresses other than loopback. Default false.
    pub allow_plaintext_beyond_loopback: bool,
}

/// Where the node listens and what it advertises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ListenConfig {
    /// `ip:port` to listen on; port 0 picks a free one; `None` dials out only.
    /// Default `0.0.0.0:5001`.
    pub address: Option<std::net::SocketAddr>,
    /// Addresses under which others reach this node, best first, at most 16. Empty: the listening
    /// address where it is a concrete one.
    pub advertise: Vec<Endpoint>,
    /// Connections that may be in their handshake at once. Default 256, range 1 to 65536.
    pub max_handshakes: u32,
    /// Connections from one IP address that may be in their handshake at once. Default 32, range
    /// 1 to 65536.
    pub max_handshakes_per_ip: u32,
}

/// How peers are found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DiscoveryConfig {
    /// First contacts; never forgotten.
    pub bootstrap: Vec<Endpoint>,
    /// How often peers are asked for peers. Default 15 min, range 1 min to 24 h.
    #[serde(with = "span")]
    pub refresh_interval: Duration,
    /// Peers remembered. Default 1000, range 10 to 10000.
    pub max_peers: u32,
    /// Below this many links the node is degraded and goes back to its bootstrap peers. Default 5,
    /// range 1 to 100.
    pub min_healthy_peers: u32,
    /// Failures after which a peer counts as unhealthy. Default 3, range 1 to 100.
    pub unhealthy_after: u32,
    /// Failures after which a peer that is no bootstrap peer is forgotten. Default 5, range 1 to
    /// 100, not below `unhealthy_after`.
    pub forget_after: u32,
    /// Dials under way at once. Default 10, range 1 to 50.
    pub max_concurrent: u32,
    /// Which addresses heard from others are believed. Default automatic.
    pub addresses: AddressPolicy,
}

/// How many links are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OverlayConfig {
    /// Links that the node dials itself. Default 6, range 1 to 15.
    pub dial_target: u32,
    /// Links (dialled and accepted together) below which the node dials more. Default 8, range
    /// 1 to 63, not below `dial_target`.
    pub min_links: u32,
    /// Links accepted from others. Default 48, range 0 to 48.
    pub max_inbound: u32,
    /// First delay before a lost peer is dialled again. Default 1 s, range 10 ms to 60 s.
    #[serde(with = "span")]
    pub redial_min: Duration,
    /// Longest such delay. Default 60 s, range `redial_min` to 1 h.
    #[serde(with = "span")]
    pub redial_max: Duration,
}

/// How dead peers are noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LivenessConfig {
    /// How often a quiet link is pinged, and looked at for `slow_after`: at least that often. Default
    /// 30 s, range 50 ms to 1 h.
    #[serde(with = "span")]
    pub interval: Duration,
    /// Time to answer. Default 5 s, range 50 ms to 120 s.
    #[serde(with = "span")]
    pub timeout: Duration,
    /// Misses after which a peer is down. Default 2, range 1 to 10.
    pub max_missed: u32,
    /// A peer that takes nothing of what waits for it for this long is disconnected. Default
    /// 60 s, range 1 s to 1 h.
    #[serde(with = "span")]
    pub slow_after: Duration,
}

/// How peers are dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConnectionConfig {
    /// Time for name resolution and TCP. Default 30 s, range 5 s to 120 s.
    #[serde(with = "span")]
    pub connect_timeout: Duration,
    /// Time for TLS and hello together. Default 10 s, range 100 ms to 60 s.
    #[serde(with = "span")]
    pub handshake_timeout: Duration,
    /// Attempts at an operation on one rung of the ladder. Default 3, range 1 to 10. Without effect
    /// while there is one rung.
    pub max_retries: u32,
    /// Delay between them. Default 5 s, range 1 s to 60 s. Without effect while there is one rung.
    #[serde(with = "span")]
    pub retry_delay: Duration,
    /// Failed walks down the ladder that open a peer's circuit breaker. Default 5, range 3 to 20.
    /// Without effect while there is one rung: dials back off instead.
    pub breaker_threshold: u32,
    /// Time after which an open breaker lets one probe through. Default 5 min, range 1 to 30 min.
    /// Without effect while there is one rung.
    #[serde(with = "span")]
    pub breaker_reset: Duration,
}

/// How transactions spread. `fanout`, `rounds` and `ttl` change latency and cost, never the set of
/// nodes that end up with a transaction: beyond them it is still stored and announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GossipConfig {
    /// Most pushes of one transaction by one node. Default automatic, range 2 to 20.
    pub fanout: Auto,
    /// Hops that push at all; later ones announce. Default automatic, range 1 to 10.
    pub rounds: Auto,
    /// Hops after which a transaction is only announced. Default automatic, range 1 to 64.
    pub ttl: Auto,
    /// How long transactions are kept and served. Default 3600 s, range 300 s to 86400 s.
    #[serde(with = "span")]
    pub retention: Duration,
    /// Largest payload in bytes. Default 10 MiB, range 1 KiB to 1 GiB.
    pub max_transaction_size: u64,
    /// Most of a bounded store that transactions of one origin may take up, in percent; 100 is no
    /// limit. What is above it is refused and fetched when there is room again. This node's own
    /// transactions are held to it as well. Default 50, range 1 to 100.
    pub max_origin_share: u32,
    /// Most transactions of one origin a minute, over the time of `retention`: bursts are taken as
    /// long as no more than this makes in that time are retained. What is above it is refused and
    /// fetched when earlier ones have expired. This node's own transactions are held to it as well.
    /// Default 0, which is no limit; range 0 to 60,000,000.
    pub max_origin_rate: u32,
    /// Largest payload in bytes that is pushed unasked. Default 16 KiB, range 0 to 64 KiB.
    pub eager_limit: u64,
    /// Whether frames may be compressed where that shrinks them. Default true. Without effect yet:
    /// no compression is negotiated by this wire version.
    pub compression: bool,
    /// Most bytes of large payloads being received at once; further ones wait. Default 64 MiB,
    /// range 1 MiB to 16 GiB; one larger payload alone may always be received.
    pub max_assembly_bytes: u64,
    /// Most bytes of large payloads on their way in that the store keeps when they make no progress
    /// and their memory is needed; the oldest go first. Default 1 GiB, range 0 to 1 TiB; 0 keeps
    /// them in memory.
    pub max_spill_bytes: u64,
    /// Most memory for recent payloads that may be asked for; about 400 bytes are counted for each
    /// beside its own. Default 16 MiB, range 1 MiB to 16 GiB.
    pub cache_bytes: u64,
    /// Part of the node in carrying topics. Default relay; see [`Role`].
    pub role: Role,
    /// Topics that an edge carries without a subscriber; without effect on a relay. Default none, at
    /// most 256 of at most 255 bytes.
    pub topics: Vec<String>,
    /// How often a node compares with one random peer what is recent; give or take 30 %. Default
    /// 10 s, range 100 ms to 1 h; on each link once in 6 s at most, after four in a row.
    #[serde(with = "span")]
    pub reconcile_interval: Duration,
    /// How far back that comparison reaches. Default 2 min, range 10 s to 1 h, not below
    /// `reconcile_interval`.
    #[serde(with = "span")]
    pub reconcile_hot_window: Duration,
    /// How often it compares everything that is retained; give or take 30 %. Default 10 min, range
    /// 1 s to 24 h.
    #[serde(with = "span")]
    pub reconcile_full_interval: Duration,
}

/// How own transactions are kept until others have them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OutboxConfig {
    /// Own transactions waiting for copies, and dead letters, together. Default 10000, range 100 to
    /// 100000. A queue that holds fewer bounds them, less a hundredth of its places: those are for
    /// what is published anew while it is full.
    pub max_entries: u32,
    /// Rounds without any taker after which an entry becomes a dead letter. Default 5, range 1 to
    /// 10. A round takes 5 s at first and up to twice as long each time; time without a link does
    /// not count.
    pub max_retries: u32,
    /// Whether the outbox must survive a restart. Default true. Without effect yet: that is decided
    /// by the queue given to the builder.
    pub persistent: bool,
    /// Nodes that must have stored a transaction before it leaves the outbox; where fewer are linked
    /// and well (answer, and take what is sent), as many as are, and one at least. Default 2, range 1
    /// to 16.
    pub min_copies: u32,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            name: "sorcha".to_owned(),
            signatures: SignaturePolicy::Required,
            trust: Trust::Open,
            max_clock_skew: 2 * MINUTE,
            plaintext: false,
            allow_plaintext_beyond_loopback: false,
        }
    }
}

impl Default for ListenConfig {
    fn default() -> Self {
        let any = std::net::Ipv4Addr::UNSPECIFIED;
        Self {
            address: Some((any, Endpoint::DEFAULT_PORT).into()),
            advertise: Vec::new(),
            max_handshakes: 256,
            max_handshakes_per_ip: 32,
        }
    }
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            refresh_interval: 15 * MINUTE,
            max_peers: 1000,
            min_healthy_peers: 5,
            unhealthy_after: 3,
            forget_after: 5,
            max_concurrent: 10,
            addresses: AddressPolicy::Auto,
        }
    }
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self {
            dial_target: 6,
            min_links: 8,
            max_inbound: 48,
            redial_min: Duration::from_secs(1),
            redial_max: MINUTE,
        }
    }
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            max_missed: 2,
            slow_after: MINUTE,
        }
    }
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            max_retries: 3,
            retry_delay: Duration::from_secs(5),
            breaker_threshold: 5,
            breaker_reset: 5 * MINUTE,
        }
    }
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            fanout: Auto::Auto,
            rounds: Auto::Auto,
            ttl: Auto::Auto,
            retention: Duration::from_hours(1),
            max_transaction_size: 10 * MIB,
            max_origin_share: 50,
            max_origin_rate: 0,
            eager_limit: 16 * KIB,
            compression: true,
            max_assembly_bytes: 64 * MIB,
            max_spill_bytes: 1024 * MIB,
            cache_bytes: 16 * MIB,
            role: Role::Relay,
            topics: Vec::new(),
            reconcile_interval: Duration::from_secs(10),
            reconcile_hot_window: 2 * MINUTE,
            reconcile_full_interval: 10 * MINUTE,
        }
    }
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self { max_entries: 10_000, max_retries: 5, persistent: true, min_copies: 2 }
    }
}

/// Durations as text in serde.
mod span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*span))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|e| serde::de::Error::custom(format!("{text:?} is no duration: {e}")))
    }
}
