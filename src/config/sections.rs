//! The sections and their defaults.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::types::{Endpoint, TransportKind};

use super::Trust;
use super::choice::{AddressPolicy, Auto, Role, SignaturePolicy};
use super::memory::{bytes, bytes_if_set};
use super::proxy::{local_hosts, without_credentials};

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
pub(super) const MINUTE: Duration = Duration::from_mins(1);

/// Section `[network]`: the network, and who may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NetworkConfig {
    /// Name of the network; nodes of another network are refused. The name is no secret and guards
    /// nothing: see `trust`. Default `"sorcha"`, 1 to 64 bytes.
    pub name: String,
    /// Signatures of transactions by their origin: required or not. Default required.
    pub signatures: SignaturePolicy,
    /// Peers that may have a link with this node, whoever dialled. Default anybody who proves a key: see
    /// [`Trust`] for how to write the others.
    pub trust: Trust,
    /// Maximum distance between a transaction's creation time and this node's clock at which it is
    /// still pushed; a transaction beyond is refused. Also the distance from most peers' clocks at which this
    /// machine's counts as off. Default 2 min, range 1 s to 1 h.
    #[serde(with = "span")]
    pub max_clock_skew: Duration,
    /// True: links are without TLS, so that a peer is whoever it claims to be: for tests and for a
    /// service mesh that brings its own. Default false.
    pub plaintext: bool,
    /// True: [`plaintext`](Self::plaintext) may listen on addresses other than loopback. Default
    /// false.
    pub allow_plaintext_beyond_loopback: bool,
}

/// Section `[listen]`: the address of the node, what it tells others of it, and the admin listener. `Debug` does
/// not show the admin token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ListenConfig {
    /// Socket address to listen on, as `ip:port` (`[v6]:port`), no name; port 0 picks a free one; `None`
    /// dials out only. Default `0.0.0.0:5001`.
    pub address: Option<std::net::SocketAddr>,
    /// Socket address on which this node also takes what a proxy in front of it passes on: HTTP/1.1
    /// and HTTP/2 in clear text; port 0 picks a free one. Peers prove their keys inside what the
    /// proxy carries, so nothing is lost by the clear text, and any address will do. The proxy
    /// hides who connects, so limits for one address, such as `max_handshakes_per_ip`, do not apply
    /// there: let nobody but the proxy reach it. Only beside `address`. Default none.
    pub http: Option<std::net::SocketAddr>,
    /// Socket address of the admin listener, in a build with the feature `admin`: health, figures, events,
    /// actions and a page over HTTP, for those who operate the node; see the guide's page on operating.
    /// Port 0 picks a free one. Beyond loopback only with `admin_token`, and in clear text: put a proxy with
    /// TLS in front. Default none.
    pub admin: Option<std::net::SocketAddr>,
    /// Token that callers of the admin listener have to show (`Authorization: Bearer …`), 16 to 256 visible
    /// ASCII characters; `openssl rand -hex 32` makes a good one. Without it every program on this machine
    /// may act. Serde writes it empty, which is refused where it is read. Default none.
    #[serde(serialize_with = "without_secret")]
    pub admin_token: Option<String>,
    /// Names, beside `localhost`, loopback addresses and the address that was connected to, under which the
    /// admin listener is asked, at most 16, without port; others are refused, since a web page could have its
    /// name lead here. Default none.
    pub admin_hosts: Vec<String>,
    /// Addresses under which others reach this node, in every form that [`Endpoint`] reads, best first,
    /// at most 16; none with port 0 or an address that nobody can dial. Default none: then the listening
    /// address is advertised where it is a concrete one, and otherwise what the node learns: addresses of
    /// private scope as they are, public ones once other nodes have dialled them. See [`NatConfig`].
    ///
    /// [`NatConfig`]: super::NatConfig
    pub advertise: Vec<Endpoint>,
    /// Maximum number of connections in their handshake at once; more are refused. Default 256, range 1 to 65536.
    pub max_handshakes: u32,
    /// Maximum number of connections from one IP address in their handshake at once. Default 32, range
    /// 1 to 65536.
    pub max_handshakes_per_ip: u32,
}

/// Section `[discovery]`: finding peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DiscoveryConfig {
    /// First contacts, in every form that [`Endpoint`] reads; never forgotten, and dialled for ever. A
    /// DNS name is resolved to all its addresses, again at every attempt, and leads to the first at which a
    /// peer of this network answers; this node may be among them. Default none: then others have to dial
    /// this node. With `#` and a peer id behind it, only that peer may answer: a dial that finds another key
    /// there is given up before anything is said. So an invite has them.
    pub bootstrap: Vec<Endpoint>,
    /// Interval at which peers are asked for peers. Default 15 min, range 1 min to 24 h.
    #[serde(with = "span")]
    pub refresh_interval: Duration,
    /// Maximum number of peers remembered. Default 1000, range 10 to 10000.
    pub max_peers: u32,
    /// Number of links below which the node goes back to its bootstrap peers, and is degraded unless it is
    /// linked with all peers there are; see [`Mode`](crate::Mode). Default 5, range 1 to 100.
    pub min_healthy_peers: u32,
    /// Number of failures in a row after which a peer counts as unhealthy. Default 3, range 1 to 100.
    pub unhealthy_after: u32,
    /// Number of failures in a row after which a peer that is no bootstrap peer is forgotten. Default 5, range 1 to
    /// 100, not below `unhealthy_after`.
    pub forget_after: u32,
    /// Maximum number of dials under way at once. Default 10, range 1 to 50.
    pub max_concurrent: u32,
    /// Addresses heard from others that are believed. Default automatic.
    pub addresses: AddressPolicy,
    /// True: in a build with the feature `mdns`, the node announces itself on its LAN by multicast DNS and
    /// dials nodes of its network that do, while links are missing; who is there proves it as everywhere.
    /// Strangers who listen learn address and port, and neither the network nor the peer; where there is no
    /// secret, who guesses the network's name can tell its nodes. Private addresses alone are announced and
    /// dialled; a node that listens on loopback does so on this machine. Default false.
    pub mdns: bool,
}

/// Section `[overlay]`: the number of links, and how soon a lost one is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OverlayConfig {
    /// Number of links that the node dials itself. Default 6, range 1 to 15.
    pub dial_target: u32,
    /// Number of links, dialled and accepted together, below which the node dials more. Default 8, range
    /// 1 to 63, not below `dial_target`.
    pub min_links: u32,
    /// Maximum number of links accepted from others; 0 accepts none. When they are taken, a newcomer wins
    /// the place of the least useful one of the most crowded address group: one in 2 s at most, none in
    /// its first 30 s, and never one of the quarter that has lived longest. Default 48, range 0 to 112.
    pub max_inbound: u32,
    /// Delay before a lost peer is dialled again for the first time; it doubles with each failure, and with
    /// each link that ended within 20 s, with jitter. Default 1 s, range 10 ms to 60 s.
    #[serde(with = "span")]
    pub redial_min: Duration,
    /// Maximum of that delay. Default 60 s, range `redial_min` to 1 h.
    #[serde(with = "span")]
    pub redial_max: Duration,
}

/// Section `[liveness]`: noticing peers that are dead or take nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LivenessConfig {
    /// Interval at which a quiet link is pinged, and looked at for `slow_after`, at the least. Default
    /// 30 s, range 50 ms to 1 h.
    #[serde(with = "span")]
    pub interval: Duration,
    /// Time that a peer has to answer a ping, beside what the bytes before the ping take. A link that
    /// carries bytes is alive, however long the answer takes. Default 5 s, range 50 ms to 120 s.
    #[serde(with = "span")]
    pub timeout: Duration,
    /// Number of answers missed in a row after which a peer is down and the link closed. Default 2, range 1 to 10.
    pub max_missed: u32,
    /// Time after which a peer that takes nothing of what waits for it is disconnected. A peer that
    /// answers and does not say that what was sent has arrived has two minutes more for each 64 KiB.
    /// Default 60 s, range 1 s to 1 h.
    #[serde(with = "span")]
    pub slow_after: Duration,
}

/// Section `[connection]`: dialling peers. `Debug` does not show the credentials of the proxy.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConnectionConfig {
    /// Transports that peers are dialled with, the best first: the rungs of the ladder. Default empty,
    /// which is all that are built in: `grpc-stream`, `websocket`, `grpc-unary`, `rest`. Each at most
    /// once. Without effect where the builder is given transports. Whatever is dialled with, all that
    /// are built in are served.
    pub transports: Vec<TransportKind>,
    /// Maximum time for name resolution and TCP. Default 30 s, range 5 s to 120 s.
    #[serde(with = "span")]
    pub connect_timeout: Duration,
    /// Maximum time for TLS and hello together. Default 10 s, range 100 ms to 60 s.
    #[serde(with = "span")]
    pub handshake_timeout: Duration,
    /// Number of times that the node goes down the ladder of transports again, where all of them failed
    /// since connections broke or the peer refused them for the moment, before that counts as a failure:
    /// towards the back-off of [`OverlayConfig`], the circuit breaker and forgetting. A call of
    /// `connect` is answered at once instead. Default 3, range 1 to 10; all peers together, 30 in a minute.
    pub max_retries: u32,
    /// Maximum delay before that, drawn anew each time between none and this. Default 5 s, range 1 s to
    /// 60 s.
    #[serde(with = "span")]
    pub retry_delay: Duration,
    /// Number of failed walks in a row, each by all transports to all addresses, that open a peer's circuit
    /// breaker. A peer that answers and refuses is no failure. Default 5, range 3 to 20.
    pub breaker_threshold: u32,
    /// Time after which an open breaker lets one probe through. With fewer links than
    /// [`DiscoveryConfig::min_healthy_peers`] the probe is made as soon as the back-off of
    /// [`OverlayConfig`] ends. Default 5 min, range 1 to 30 min.
    #[serde(with = "span")]
    pub breaker_reset: Duration,
    /// Time between two looks whether a linked peer can be reached over a transport that is preferred to
    /// the one in use; the link then goes over to it without a break. Default 5 min, range 10 s to 1 day.
    #[serde(with = "span")]
    pub upgrade_interval: Duration,
    /// Age at which a link that this node dialled goes over to another connection, without a break: for
    /// proxies that cut connections which are older. Default none, range 1 min to 1 day.
    #[serde(with = "optional_span")]
    pub max_link_age: Option<Duration>,
    /// HTTP proxy that opens a tunnel (`CONNECT`) for every connection that is dialled, as
    /// `http://[user:password@]host[:port]`, port 80 where none is given; what is not a letter or digit in user and
    /// password is percent-encoded. Names of peers are then resolved by the proxy. Serde writes it with the
    /// password. Default none.
    pub proxy: Option<String>,
    /// Hosts that are dialled without the proxy, at most 256: a name, which stands for all below it too
    /// (`example.com`), an IP address, a network (`10.0.0.0/8`), or `*`; each may have a `:port`. They
    /// are compared with endpoints as they are written. Default `localhost`, `127.0.0.0/8` and `::1`.
    pub no_proxy: Vec<String>,
}

/// Section `[gossip]`: what is carried, and how it spreads. `fanout`, `rounds` and `ttl` change
/// latency and cost, never the set of nodes that end up with a transaction: beyond them it is still
/// stored and announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GossipConfig {
    /// Maximum number of pushes of one transaction by one node. Default automatic, range 2 to 20.
    pub fanout: Auto,
    /// Number of hops that push at all; later ones announce. Default automatic, range 1 to 10.
    pub rounds: Auto,
    /// Number of hops after which a transaction is only announced. Default automatic, range 1 to 64.
    pub ttl: Auto,
    /// Time for which transactions are kept and served, from their creation; one that expires earlier
    /// goes then. Default 1 h, range 5 min to 30 days. The store's bound in bytes and the memory set the
    /// limit, about 90 bytes for each that is retained: see the guide's page on storage.
    #[serde(with = "span")]
    pub retention: Duration,
    /// Maximum length of a payload in bytes; longer ones are refused, own and others'. Default 10
    /// MiB, range 1 KiB to 1 GiB.
    pub max_transaction_size: u64,
    /// Maximum part of a bounded store that transactions of one origin may take up, in percent; 100 is no
    /// limit. What is above it is refused and fetched when there is room again. This node's own
    /// transactions are held to it as well. Default 50, range 1 to 100.
    pub max_origin_share: u32,
    /// Maximum number of transactions of one origin a minute, over the time of `retention`: bursts are taken as
    /// long as no more than this makes in that time are retained. What is above it is refused and
    /// fetched when earlier ones have expired. This node's own transactions are held to it as well.
    /// Default 0, which is no limit; range 0 to 60,000,000.
    pub max_origin_rate: u32,
    /// Maximum length in bytes of a payload that is pushed unasked; longer ones are large and travel in
    /// pieces of 64 KiB that are asked for. Default 16 KiB, range 0 to 64 KiB.
    pub eager_limit: u64,
    /// Maximum number of bytes of large payloads being received at once; further ones wait, and one larger
    /// payload alone may always be received. Default `None`, which is a quarter of
    /// [`LimitsConfig::memory`]; range 1 MiB to half of that, and with `cache_bytes` to three
    /// quarters. In TOML a number or text such as `"64 MiB"`.
    #[serde(with = "bytes_if_set")]
    pub max_assembly_bytes: Option<u64>,
    /// Maximum number of bytes of large payloads on their way in that the store keeps when they make no progress
    /// and their memory is needed; the oldest go first. Default 1 GiB, range 0 to 1 TiB; 0 keeps
    /// them in memory.
    pub max_spill_bytes: u64,
    /// Maximum number of bytes of memory for recent payloads that may be asked for; about 400 bytes
    /// are counted for each beside its own. Default `None`, which is a sixteenth of
    /// [`LimitsConfig::memory`]; range 1 MiB to half of that. In TOML a number or text such as
    /// `"16 MiB"`.
    #[serde(with = "bytes_if_set")]
    pub cache_bytes: Option<u64>,
    /// Part of the node in carrying topics. Default relay; see [`Role`].
    pub role: Role,
    /// Topics that an edge carries without a subscriber; without effect on a relay. Default none, at
    /// most 256 of at most 255 bytes.
    pub topics: Vec<String>,
    /// Interval at which a node compares with one random peer what is recent; give or take 30 %. Default
    /// 10 s, range 100 ms to 1 h; on each link once in 6 s at most, after four in a row.
    #[serde(with = "span")]
    pub reconcile_interval: Duration,
    /// Age up to which that comparison reaches. Default 2 min, range 10 s to 1 h, not below
    /// `reconcile_interval`.
    #[serde(with = "span")]
    pub reconcile_hot_window: Duration,
    /// Interval at which a node compares everything that is retained with a peer; give or take 30
    /// %. Default 10 min, range 1 s to 24 h.
    #[serde(with = "span")]
    pub reconcile_full_interval: Duration,
}

/// Section `[outbox]`: own transactions until others have them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OutboxConfig {
    /// Maximum number of own transactions that wait for copies, and of dead letters, together; a publish
    /// beyond is refused. Default 10000, range 100 to
    /// 100000. A queue that holds fewer bounds them, less a hundredth of its places: those are for
    /// what is published anew while it is full.
    pub max_entries: u32,
    /// Number of rounds without any taker after which an entry becomes a dead letter. Default 5, range 1 to
    /// 10. A round takes 5 s at first and up to twice as long each time; time without a link does
    /// not count.
    pub max_retries: u32,
    /// True: the outbox must survive a restart. Default true. Without effect yet: that is decided
    /// by the queue given to the builder.
    pub persistent: bool,
    /// Number of other nodes that must have stored a transaction before it leaves the outbox; where fewer are linked
    /// and well (answer, and take what is sent), as many as are, and one at least. Default 2, range 1
    /// to 16.
    pub min_copies: u32,
}

/// Section `[messages]`: requests to single peers, and those of peers. Bodies that are on their way or
/// handled take at most a sixteenth of [`LimitsConfig::memory`] for own requests and as much for those of
/// peers, or one body of the largest size where that is more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MessagesConfig {
    /// Maximum length in bytes of the body of a request, and of that of an answer, sent or received. Default
    /// 1 MiB, range 1 KiB to 16 MiB. In TOML a number or text such as `"4 MiB"`.
    #[serde(with = "bytes")]
    pub max_bytes: u64,
    /// Time that a peer has for its answer where a call says nothing else, the dial of a peer without a
    /// link included. Default 30 s, range 1 s to 10 min.
    #[serde(with = "span")]
    pub timeout: Duration,
    /// Maximum number of requests of one peer that are received, handled and answered at once; all peers
    /// together, 16 times as many. Of large bodies fewer: those of one peer's requests take a quarter of the
    /// memory for peers' bodies, which is 4 of 1 MiB by default, and one of the largest size at least. What is
    /// above it is refused. Default 16, range 1 to 1024.
    pub max_concurrent: u32,
    /// True: linked peers that ask are told what became of a transaction here
    /// (`PeerNode::explain_across`), which names the peers that it came from and went to. Default: true
    /// where not everybody may join ([`NetworkConfig::trust`] is not open), else false.
    pub explain: Option<bool>,
}

/// Section `[limits]`: what the node takes of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Number of bytes of memory for payloads and caches, which the node divides among all that holds
    /// some: payloads being published, received, checked, stored and served, and the caches of the
    /// stores. While a share is used up, what needs more of it waits. Not part of it: code, the
    /// index of what is retained, a fixed amount for each link, and stores that keep everything in memory. Default
    /// 256 MiB, range 16 MiB to 1 TiB, not below 4 times [`GossipConfig::max_transaction_size`]. In
    /// TOML a number or text such as `"64 MiB"`.
    #[serde(with = "bytes")]
    pub memory: u64,
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
            http: None,
            admin: None,
            admin_token: None,
            admin_hosts: Vec::new(),
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
            mdns: false,
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
            transports: Vec::new(),
            connect_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            max_retries: 3,
            retry_delay: Duration::from_secs(5),
            breaker_threshold: 5,
            breaker_reset: 5 * MINUTE,
            upgrade_interval: 5 * MINUTE,
            max_link_age: None,
            proxy: None,
            no_proxy: local_hosts(),
        }
    }
}

impl fmt::Debug for ListenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without `..`, so that a new field is not left out.
        let Self {
            address,
            http,
            admin,
            admin_token,
            admin_hosts,
            advertise,
            max_handshakes,
            max_handshakes_per_ip,
        } = self;
        f.debug_struct("ListenConfig")
            .field("address", address)
            .field("http", http)
            .field("admin", admin)
            .field("admin_token", &admin_token.as_ref().map(|_| "…"))
            .field("admin_hosts", admin_hosts)
            .field("advertise", advertise)
            .field("max_handshakes", max_handshakes)
            .field("max_handshakes_per_ip", max_handshakes_per_ip)
            .finish()
    }
}

impl fmt::Debug for ConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without `..`, so that a new field is not left out.
        let Self {
            transports,
            connect_timeout,
            handshake_timeout,
            max_retries,
            retry_delay,
            breaker_threshold,
            breaker_reset,
            upgrade_interval,
            max_link_age,
            proxy,
            no_proxy,
        } = self;
        f.debug_struct("ConnectionConfig")
            .field("transports", transports)
            .field("connect_timeout", connect_timeout)
            .field("handshake_timeout", handshake_timeout)
            .field("max_retries", max_retries)
            .field("retry_delay", retry_delay)
            .field("breaker_threshold", breaker_threshold)
            .field("breaker_reset", breaker_reset)
            .field("upgrade_interval", upgrade_interval)
            .field("max_link_age", max_link_age)
            .field("proxy", &proxy.as_deref().map(without_credentials))
            .field("no_proxy", no_proxy)
            .finish()
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
            max_assembly_bytes: None,
            max_spill_bytes: 1024 * MIB,
            cache_bytes: None,
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

impl Default for MessagesConfig {
    fn default() -> Self {
        Self { max_bytes: MIB, timeout: Duration::from_secs(30), max_concurrent: 16, explain: None }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { memory: 256 * MIB }
    }
}

/// Writes that there is a secret, and not which.
#[expect(clippy::ref_option, reason = "serde calls it so")]
fn without_secret<S: Serializer>(secret: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| "").serialize(to)
}

/// Durations as text in serde.
pub(super) mod span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(
        span: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*span))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|e| serde::de::Error::custom(format!("{text:?} is no duration: {e}")))
    }
}

/// Durations that may be absent, as text in serde.
mod optional_span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Span(#[serde(with = "super::span")] Duration);

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        span.map(Span).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Span>::deserialize(from)?.map(|span| span.0))
    }
}
