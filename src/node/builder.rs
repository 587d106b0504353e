//! Describing and starting a node.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{Config, Invite, NetworkSecret, Trust, of_environment};
#[cfg(feature = "turn")]
use crate::error::ConfigError;
use crate::error::{EndpointError, StartError};
use crate::identity::Identity;
use crate::ports::{
    NatProber, PeerStore, Storage, TransactionQueue, TransactionStore, Transport, Validator,
};
use crate::protocol::RENEWALS;
use crate::types::{Endpoint, TransportKind};

use super::handle::PeerNode;
use super::reachability::{Outside, Relays};
use super::start::{Capacities, Parts};
#[cfg(feature = "mdns")]
use super::workers::nearby::FindNearby;

/// Headers and payloads kept where no transaction store is given: 1 GiB, and what the headers of two
/// large payloads take that fill the half which one origin may have. When it is full, new transactions
/// are refused until old ones expire; nothing accepted is dropped.
const MEMORY_LOG: u64 = (1 << 30) + (1 << 20);

/// Services as the health service names them: that of peers, then those of the original's clients.
#[cfg(feature = "health")]
const SERVICES: &[&str] = &[
    "sorcha.peer.gossip.v1.PeerGossip",
    "sorcha.peer.discovery.PeerDiscovery",
    "sorcha.peer.communication.PeerCommunication",
    "sorcha.peer.transaction.TransactionDistribution",
];

/// Description of a node. What is not set has a default; nothing panics for being unset, and what does
/// not parse is an error of [`PeerNodeBuilder::start`], with the text that was given.
///
/// ```
/// use std::time::Duration;
/// use sorcha_peer::{Config, Identity, PeerNode};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut config = Config::lan(); // or from a file: `Config` derives serde
/// config.gossip.retention = Duration::from_hours(6);
/// let node = PeerNode::builder()
///     .config(config) // first: what follows wins over it
///     .identity(Identity::generate()?)
///     .network("orders-prod")
///     .listen("127.0.0.1:0")
///     .bootstrap(["peer0.example.com:5001", "peer1.example.com:5001"])
///     .start()
///     .await?;
/// assert!(node.listen_addr().is_some());
///
/// let refused = PeerNode::builder().listen("nowhere").start().await;
/// assert!(refused.unwrap_err().to_string().contains("\"nowhere\""));
/// # Ok(())
/// # }
/// ```
pub struct PeerNodeBuilder {
    config: Config,
    identity: Option<Identity>,
    transports: Vec<Arc<dyn Transport>>,
    storage: Storage,
    probers: Vec<Arc<dyn NatProber>>,
    validator: Option<Arc<dyn Validator>>,
    seed: Option<[u8; 32]>,
    /// The first thing that was given and does not parse.
    error: Option<StartError>,
}

impl PeerNodeBuilder {
    pub(super) fn new() -> Self {
        Self {
            config: Config::default(),
            identity: None,
            transports: Vec::new(),
            storage: Storage::default(),
            probers: Vec::new(),
            validator: None,
            seed: None,
            error: None,
        }
    }

    /// Replaces the whole configuration; call it before the setters below.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets the node's key, which is its id. Default: a new one, forgotten with the node; keep one with
    /// [`Identity::load_or_create`] where peers, allow-lists or an outbox outlive the process.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Sets the network's name, of 1 to 64 bytes. Default `"sorcha"`.
    #[must_use]
    pub fn network(mut self, name: impl Into<String>) -> Self {
        self.config.network.name = name.into();
        self
    }

    /// Sets who may join: see [`Trust`]. Default: [`Trust::Open`], which lets in anybody who can reach the
    /// node and knows the network's name.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.config.network.trust = trust;
        self
    }

    /// Lets in only who knows this secret of the network, or another that was given so; at most two
    /// together, so that a network can move from one to the next. Replaces another kind of trust.
    #[must_use]
    pub fn secret(mut self, secret: NetworkSecret) -> Self {
        self.config.network.trust.add_secret(secret);
        self
    }

    /// Lets in only who knows the secret in this file, as [`PeerNodeBuilder::secret`] does; read by
    /// [`PeerNodeBuilder::start`], in the way of [`NetworkSecret::load`]. `openssl rand -hex 32` makes
    /// the content of such a file, and so does [`NetworkSecret::save`].
    #[must_use]
    pub fn secret_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.network.trust.add_secret_file(path.into());
        self
    }

    /// Joins the network of an invite: takes over its name and its secret, if it has one, and adds its
    /// addresses to the first contacts, at which only the peer that the invite names may answer. Call it
    /// after [`PeerNodeBuilder::config`]; what is set later replaces what the invite says.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sorcha_peer::{Invite, NetworkSecret, PeerNode};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let first = PeerNode::builder()
    ///     .network("shop")
    ///     .secret(NetworkSecret::generate()?)
    ///     .listen("127.0.0.1:0")
    ///     .start()
    ///     .await?;
    /// let text = first.invite().await?.to_string(); // "sorcha:…", to be passed on in confidence
    ///
    /// let invite: Invite = text.parse()?;
    /// let second = PeerNode::builder().listen("127.0.0.1:0").join(&invite).start().await?;
    /// second.wait_ready(1, Duration::from_secs(10)).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn join(mut self, invite: &Invite) -> Self {
        invite.apply(&mut self.config);
        self
    }

    /// Sets the socket address to listen on: `ip:port` or `[v6]:port`, no name and no URL; port 0 picks a
    /// free one, which [`PeerNode::listen_addr`] tells. Default `0.0.0.0:5001`.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        match address.parse::<SocketAddr>() {
            Ok(address) => self.config.listen.address = Some(address),
            Err(_) => self.refuse(address, EndpointError::Listen(address.to_owned())),
        }
        self
    }

    /// Sets the socket address on which a proxy in front of the node reaches it, beside the one of
    /// [`PeerNodeBuilder::listen`]: HTTP in clear text, inside which peers prove their keys all the
    /// same. Nobody but the proxy should reach it: see
    /// [`ListenConfig::http`](crate::config::ListenConfig). Default none.
    #[must_use]
    pub fn listen_http(mut self, address: &str) -> Self {
        match address.parse::<SocketAddr>() {
            Ok(address) => self.config.listen.http = Some(address),
            Err(_) => self.refuse(address, EndpointError::Listen(address.to_owned())),
        }
        self
    }

    /// Sets the socket address of the admin listener, in a build with the feature `admin`: health, figures,
    /// events, actions and a page over HTTP; port 0 picks a free one, which [`PeerNode::admin_addr`] tells.
    /// Beyond loopback only with a token. See the guide's page on [operating](crate::guide::operating).
    /// Default none.
    #[must_use]
    pub fn admin(mut self, address: &str) -> Self {
        match address.parse::<SocketAddr>() {
            Ok(address) => self.config.listen.admin = Some(address),
            Err(_) => self.refuse(address, EndpointError::Listen(address.to_owned())),
        }
        self
    }

    /// Sets the token that callers of the admin listener have to show, 16 to 256 visible ASCII
    /// characters. Default none: then every program on this machine may act.
    #[must_use]
    pub fn admin_token(mut self, token: impl Into<String>) -> Self {
        self.config.listen.admin_token = Some(token.into());
        self
    }

    /// Makes the node dial out only: it listens nowhere, and misses nothing by that.
    #[must_use]
    pub fn dial_only(mut self) -> Self {
        self.config.listen.address = None;
        self
    }

    /// Adds an address under which others reach this node, as [`Endpoint`] reads it (`host:port`,
    /// `[v6]:port`, a URL; port 5001 where none is given); repeatable, best first, at most 16. Default: the
    /// listening address where it is a concrete one, and otherwise what the node learns: see the guide's page
    /// on [reachability](crate::guide::reachability).
    #[must_use]
    pub fn advertise(mut self, address: &str) -> Self {
        match address.parse() {
            Ok(endpoint) => self.config.listen.advertise.push(endpoint),
            Err(source) => self.refuse(address, source),
        }
        self
    }

    /// Adds first contacts, as [`Endpoint`] reads them (`host:port`, `[v6]:port`, a URL; port 5001
    /// where none is given); repeatable. DNS names resolve to all their addresses, again at every
    /// attempt. First contacts are dialled for ever, so the first node of a network may have others
    /// that start later. Default: none.
    #[must_use]
    pub fn bootstrap<I>(mut self, addresses: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        for address in addresses {
            match address.as_ref().parse::<Endpoint>() {
                Ok(endpoint) => self.config.discovery.bootstrap.push(endpoint),
                Err(source) => self.refuse(address.as_ref(), source),
            }
        }
        self
    }

    /// Sets several stores at once, for instance `SqliteStorage`.
    #[must_use]
    pub fn storage(mut self, storage: impl Into<Storage>) -> Self {
        let storage = storage.into();
        self.storage.peers = storage.peers.or(self.storage.peers);
        self.storage.queue = storage.queue.or(self.storage.queue);
        self.storage.transactions = storage.transactions.or(self.storage.transactions);
        self
    }

    /// Sets the store of peers and bans. Default: in memory.
    ///
    /// It has no lease, unlike the outbox and the log: nothing keeps two nodes off one peer store, and
    /// each overwrites the other's records and bans. Give every node its own.
    #[must_use]
    pub fn peer_store(mut self, store: Arc<dyn PeerStore>) -> Self {
        self.storage.peers = Some(store);
        self
    }

    /// Sets the outbox, in which own transactions wait for copies. Default: in memory.
    #[must_use]
    pub fn queue(mut self, queue: Arc<dyn TransactionQueue>) -> Self {
        self.storage.queue = Some(queue);
        self
    }

    /// Sets the log, in which transactions are retained. Default: in memory, at most 1 GiB; when that is full,
    /// `publish` fails with a store error until old transactions expire.
    #[must_use]
    pub fn transaction_store(mut self, store: Arc<dyn TransactionStore>) -> Self {
        self.storage.transactions = Some(store);
        self
    }

    /// Sets the transports to dial with, the best first; see [`ConnectionConfig::transports`]. Default: all
    /// that are built in.
    ///
    /// [`ConnectionConfig::transports`]: crate::config::ConnectionConfig::transports
    #[must_use]
    pub fn transports(mut self, kinds: impl IntoIterator<Item = TransportKind>) -> Self {
        self.config.connection.transports = kinds.into_iter().collect();
        self
    }

    /// Adds a way to reach peers of the host's own, in place of those of
    /// [`PeerNodeBuilder::transports`]; repeatable: each dial tries them in this order, half a second
    /// apart. Of several of one kind each is tried when the one before has failed.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transports.push(transport);
        self
    }

    /// Has the node announce itself on its LAN and find others of its network there, in a build with the
    /// feature `mdns`: see [`DiscoveryConfig::mdns`](crate::config::DiscoveryConfig). Default false.
    #[must_use]
    pub fn mdns(mut self, on: bool) -> Self {
        self.config.discovery.mdns = on;
        self
    }

    /// Adds a way of the host's own to learn the node's outside address; repeatable. It is asked when the node
    /// starts, and again with those of [`NatConfig`](crate::config::NatConfig). The answer is an event
    /// ([`Event::AddressObserved`](crate::types::Event::AddressObserved)), and its IP address with the
    /// listening port a candidate, which is advertised once others have dialled it.
    #[must_use]
    pub fn nat_prober(mut self, prober: Arc<dyn NatProber>) -> Self {
        self.probers.push(prober);
        self
    }

    /// Adds a STUN server to learn outside addresses from, and how the NAT behaves: see
    /// [`NatConfig::stun`](crate::config::NatConfig). Repeatable; default none.
    #[must_use]
    pub fn stun_server(mut self, server: impl Into<String>) -> Self {
        self.config.nat.stun.push(server.into());
        self
    }

    /// Adds an HTTP server that answers with the address that asks, as `http://…` or `https://…`: see
    /// [`NatConfig::http`](crate::config::NatConfig). Repeatable; default none.
    #[must_use]
    pub fn http_lookup(mut self, url: impl Into<String>) -> Self {
        self.config.nat.http.push(url.into());
        self
    }

    /// Adds a TURN server that listens for the node, as `turn:USER:PASSWORD@HOST[:PORT]`: see
    /// [`NatConfig::relays`](crate::config::NatConfig). Repeatable; default none.
    #[must_use]
    pub fn relay(mut self, server: impl Into<String>) -> Self {
        self.config.nat.relays.push(server.into());
        self
    }

    /// Says whether the router is asked to pass the listening port on: see
    /// [`NatConfig::port_mapping`](crate::config::NatConfig). Default no.
    #[must_use]
    pub fn port_mapping(mut self, is_asked: bool) -> Self {
        self.config.nat.port_mapping = is_asked;
        self
    }

    /// Sets the host's say about foreign transactions. Default: none, which accepts all. A validator holds
    /// large payloads back until they are judged: see [`Validator::judges_large`].
    #[must_use]
    pub fn validator(mut self, validator: Arc<dyn Validator>) -> Self {
        self.validator = Some(validator);
        self
    }

    /// Sets the HTTP proxy that every peer is dialled through, as `http://[user:password@]host[:port]`:
    /// see [`ConnectionConfig::proxy`](crate::config::ConnectionConfig). Hosts that
    /// `connection.no_proxy` names, by default those of this machine, are dialled directly.
    #[must_use]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.config.connection.proxy = Some(url.into());
        self
    }

    /// Takes the HTTP proxy from the environment, as other programs do: `HTTPS_PROXY`, or else
    /// `ALL_PROXY`, in lower case first, and adds the hosts in `NO_PROXY` to those that are dialled
    /// directly. Without such a variable nothing changes, and without this call none is looked at.
    #[must_use]
    pub fn proxy_from_env(mut self) -> Self {
        let (url, direct) = of_environment(|name| std::env::var(name).ok());
        let connection = &mut self.config.connection;
        connection.proxy = url.or(connection.proxy.take());
        connection.no_proxy.extend(direct);
        self
    }

    /// Sets the seed of every random choice of the protocol: which peers are dialled, asked, compared with.
    /// Keys and hashes do not depend on it. Default: from the operating system.
    #[must_use]
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the node in the current tokio runtime, which needs I/O and time enabled: reads the stores,
    /// listens, and begins to dial. `Ok` does not wait for links: [`PeerNode::wait_ready`] does.
    ///
    /// It takes as long as the stores take to list what they hold, and has no time limit. Cancel safe: a
    /// dropped future leaves nothing running.
    ///
    /// An outbox or a log that another node of this process has is refused
    /// ([`StoreErrorKind::Locked`](crate::error::StoreErrorKind::Locked)); once the last handle to
    /// that one is gone, its end is waited for. A peer store is not looked after in this way
    /// ([`PeerNodeBuilder::peer_store`]).
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running.
    pub async fn start(self) -> Result<PeerNode, StartError> {
        self.parts()?.start().await
    }

    /// Decides what was left open.
    pub(super) fn parts(mut self) -> Result<Parts, StartError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        self.config.validate()?;
        self.config.network.trust.read_files()?;
        let identity = self.identity.map_or_else(Identity::generate, Ok)?;
        let seed = self.seed.map_or_else(random_seed, Ok)?;
        let (is_running, running) = watch::channel(false);
        let Ways {
            dialling: transports,
            listening,
            relays,
            #[cfg(feature = "compat")]
            compat,
        } = ways(self.transports, &identity, &self.config, running)?;
        Ok(Parts {
            transports,
            listening,
            peers: self.storage.peers.unwrap_or_else(Storage::memory_peers),
            queue: self.storage.queue.unwrap_or_else(|| {
                // The protocol keeps to the bound; what is published anew stands beside the old.
                Storage::memory_queue(self.config.outbox.max_entries as usize + RENEWALS)
            }),
            log: self
                .storage
                .transactions
                .unwrap_or_else(|| Storage::memory_transactions(Some(MEMORY_LOG))),
            outside: Outside::new(&self.config.nat, self.probers, relays)?,
            #[cfg(feature = "mdns")]
            nearby: nearby(&self.config),
            validator: self.validator,
            config: self.config,
            identity,
            seed,
            is_running,
            capacities: Capacities::default(),
            #[cfg(feature = "compat")]
            compat,
        })
    }

    fn refuse(&mut self, text: &str, source: EndpointError) {
        self.error.get_or_insert(StartError::Address { text: text.to_owned(), source });
    }
}

impl fmt::Debug for PeerNodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerNodeBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Finds nodes on the LAN, where that is asked for.
#[cfg(feature = "mdns")]
fn nearby(config: &Config) -> Option<FindNearby> {
    let network = &config.network;
    let mdns = || crate::nat::Mdns::new(network.trust.announcement_keys(&network.name));
    config.discovery.mdns.then(mdns).map(|mdns| -> FindNearby {
        Box::new(move |listening, found, ended| Box::pin(mdns.run(listening, found, ended)))
    })
}

fn random_seed() -> Result<[u8; 32], StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| StartError::Random)?;
    Ok(seed)
}

/// Transports, and who else is served by them.
struct Ways {
    /// Transports that peers are dialled with.
    dialling: Vec<Arc<dyn Transport>>,
    listening: Vec<Arc<dyn Transport>>,
    /// Servers that listen for the node.
    relays: Relays,
    #[cfg(feature = "compat")]
    compat: Option<super::start::Compat>,
}

fn ways(
    given: Vec<Arc<dyn Transport>>,
    identity: &Identity,
    config: &Config,
    is_running: watch::Receiver<bool>,
) -> Result<Ways, StartError> {
    if !given.is_empty() {
        if config.compat.enabled {
            return Err(StartError::CompatTransport);
        }
        if !config.nat.relays.is_empty() {
            return Err(StartError::RelayTransport);
        }
        return Ok(Ways {
            dialling: given.clone(),
            listening: given,
            relays: Relays::default(),
            #[cfg(feature = "compat")]
            compat: None,
        });
    }
    #[cfg(feature = "grpc")]
    {
        use crate::transport::{GrpcOptions, GrpcTransport};
        let options = GrpcOptions::from_config(config);
        let transport = GrpcTransport::new(identity.clone(), options)
            .map_err(|source| StartError::Transport { source })?;
        #[cfg(feature = "health")]
        transport.serve_health(
            is_running,
            if config.compat.enabled { SERVICES } else { &SERVICES[..1] },
        );
        #[cfg(not(feature = "health"))]
        drop(is_running);
        let kinds = &config.connection.transports;
        let mut rungs: Vec<Arc<dyn Transport>> = Vec::new();
        for kind in if kinds.is_empty() { &TransportKind::LADDER[..] } else { kinds } {
            match transport.rung(*kind) {
                Ok(rung) => rungs.push(Arc::new(rung)),
                // Named by nobody and not built in.
                Err(_) if kinds.is_empty() => {}
                Err(source) => return Err(StartError::Transport { source }),
            }
        }
        // One port serves them all.
        #[cfg(feature = "compat")]
        let serves = config.compat.enabled && config.listen.address.is_some();
        #[cfg(feature = "compat")]
        let compat = serves.then(|| compat(&transport, identity, config));
        #[cfg(feature = "turn")]
        let relays = relays(&transport, config)?;
        #[cfg(not(feature = "turn"))]
        let relays = Relays::default();
        Ok(Ways {
            dialling: rungs,
            listening: vec![Arc::new(transport)],
            relays,
            #[cfg(feature = "compat")]
            compat,
        })
    }
    #[cfg(not(feature = "grpc"))]
    {
        let _ = (identity, config, is_running);
        Err(StartError::NoTransport)
    }
}

/// Servers that are to listen for a node which listens itself: what they bring is accepted there.
#[cfg(feature = "turn")]
fn relays(
    transport: &crate::transport::GrpcTransport,
    config: &Config,
) -> Result<Relays, StartError> {
    use super::reachability::Relay;
    use crate::config::RelayServer;
    let mut relays = Relays::default();
    if config.listen.address.is_none() {
        return Ok(relays);
    }
    for text in &config.nat.relays {
        // Checked before, as all of the configuration.
        let server = RelayServer::new(text).map_err(|reason| {
            let server = String::new();
            ConfigError::NatServer { field: "nat.relays", server, reason }
        })?;
        let name = server.to_string();
        let (tell, relayed) = watch::channel(None);
        let (permitted, counts) = (relays.permitted.subscribe(), relays.drops.clone());
        let drops = crate::nat::Drops { refused: counts.refused, failed: counts.failed };
        let run = crate::nat::relay(transport, server, permitted, tell, drops);
        relays.servers.push(Relay { name, relayed, run });
    }
    Ok(relays)
}

/// Has clients of the original served on the ports of a transport.
#[cfg(feature = "compat")]
fn compat(
    transport: &crate::transport::GrpcTransport,
    identity: &Identity,
    config: &Config,
) -> super::start::Compat {
    let backend = super::compat::NodeBackend::new(identity.peer_id());
    let settings = crate::compat::Settings {
        compat: config.compat.clone(),
        max_transaction_size: config.gossip.max_transaction_size,
        addresses: config.discovery.addresses,
        max_listed: config.discovery.max_peers,
    };
    let node: Arc<dyn crate::compat::Backend> = Arc::clone(&backend) as _;
    let ops = crate::compat::Ops::new(settings, node, transport.outbound());
    transport.set_guest(Arc::new(crate::compat::Faces::new(ops.clone())));
    super::start::Compat { ops, backend }
}

impl PeerNode {
    /// Starts describing a node.
    pub fn builder() -> PeerNodeBuilder {
        PeerNodeBuilder::new()
    }
}
