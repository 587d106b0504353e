//! Who is there: lists, registration, pings, exchange.

use std::net::IpAddr;

use prost::Message;
use tokio::time::Instant;

use super::{Ops, Refusal, is_id, is_plain};
use crate::compat::client::may_name;
use crate::compat::registry::{Candidate, bare_host, seconds};
use crate::compat::{KnownPeer, Shared};
use crate::transport::Visitor;
use crate::types::{AddressScope, Endpoint, Host, MAX_TOPIC_BYTES, PeerId, host_of};
use crate::wire::generated::discovery::{
    PeerCapabilities, PeerExchangeRequest, PeerExchangeResponse, PeerInfo, PeerListRequest,
    PeerListResponse, PeerStatus, PingRequest, PingResponse, RegisterPeerRequest,
    RegisterPeerResponse,
};

/// What `register_peer` says.
pub(crate) const REGISTERED: &str = "Peer registered successfully";
pub(crate) const INVALID_ID: &str = "Invalid peer ID";
pub(crate) const INVALID_ADDRESS: &str = "Invalid peer address";
pub(crate) const INVALID_PORT: &str = "Invalid peer port";
pub(crate) const INVALID_PROTOCOLS: &str = "Invalid peer protocols";
pub(crate) const ID_IN_USE: &str = "Peer ID is in use";
pub(crate) const ADDRESS_IN_USE: &str = "Peer address is in use";
pub(crate) const LIST_FULL: &str = "Peer list is full";

/// Number of peers in a list where the client wants no other.
const USUAL_LIST: usize = 100;
/// Maximum number of names in a list of a registration.
const MAX_NAMES: usize = 64;
/// Maximum number of bytes of a protocol's name.
const MAX_NAME_BYTES: usize = 64;
/// Maximum number of bytes of a registration.
const MAX_INFO_BYTES: usize = 8 * 1024;
/// Number of bytes of a list beyond which it is cut: clients of gRPC take 4 MiB.
const MAX_LIST_BYTES: usize = 3 << 20;
/// Maximum number of peers that a client may name in an exchange, and of them that are believed.
const MAX_EXCHANGED: usize = 1000;
const MAX_HEARD: usize = 16;

/// Protocols of a native peer, by the original's names.
const NATIVE_PROTOCOLS: [&str; 3] = ["GrpcStream", "Grpc", "Rest"];

impl Ops {
    /// Lists peers: linked ones, known ones, registered ones, without the caller.
    pub(crate) async fn peer_list(
        &self,
        visitor: &Visitor,
        request: PeerListRequest,
    ) -> Result<PeerListResponse, Refusal> {
        Self::check_caller(&request.requesting_peer_id, "requesting_peer_id")?;
        self.touch(visitor, &request.requesting_peer_id);
        let (peers, total) = self.listed(&request.requesting_peer_id, request.max_peers).await;
        Ok(PeerListResponse { peers, total_peers: total })
    }

    /// Takes a registration, or says in the response why not.
    #[expect(clippy::unused_async, reason = "as all operations are")]
    pub(crate) async fn register_peer(
        &self,
        visitor: &Visitor,
        request: RegisterPeerRequest,
    ) -> Result<RegisterPeerResponse, Refusal> {
        let Some(info) = request.peer_info else {
            return Err(Refusal::Invalid("peer_info is missing".to_owned()));
        };
        let registered = match self.candidate(visitor, info) {
            Ok(candidate) => {
                let now = self.now();
                self.0.registry().register(candidate, Instant::now(), now)
            }
            Err(message) => Err(message),
        };
        self.0.count(|c| match registered {
            Ok(()) => c.compat_registrations += 1,
            Err(_) => c.compat_registrations_refused += 1,
        });
        self.0.registry_changed.notify_one();
        let message = registered.err().unwrap_or(REGISTERED);
        Ok(RegisterPeerResponse { success: registered.is_ok(), message: message.to_owned() })
    }

    /// Says that this node is there.
    #[expect(clippy::unused_async, reason = "as all operations are")]
    pub(crate) async fn ping(
        &self,
        visitor: &Visitor,
        request: PingRequest,
    ) -> Result<PingResponse, Refusal> {
        Self::check_caller(&request.peer_id, "peer_id")?;
        self.touch(visitor, &request.peer_id);
        // A node that answers is there, with or without peers of its own.
        let status = match self.0.backend.mode() {
            Some(_) => PeerStatus::Online,
            None => PeerStatus::Offline,
        };
        Ok(PingResponse {
            peer_id: self.peer_id().to_string(),
            timestamp: seconds(self.now()),
            status: status.into(),
        })
    }

    /// Names peers, and hears of some, which are listed once they answered a ping.
    pub(crate) async fn exchange_peers(
        &self,
        visitor: &Visitor,
        request: PeerExchangeRequest,
    ) -> Result<PeerExchangeResponse, Refusal> {
        if request.known_peers.len() > MAX_EXCHANGED {
            return Err(Refusal::Invalid(format!(
                "known_peers has more than {MAX_EXCHANGED} peers"
            )));
        }
        if !is_id(&request.peer_id) {
            let message = INVALID_ID.to_owned();
            return Ok(PeerExchangeResponse { known_peers: Vec::new(), success: false, message });
        }
        self.touch(visitor, &request.peer_id);
        let others = request.known_peers.into_iter().filter(|info| info.peer_id != request.peer_id);
        for info in others.take(MAX_HEARD) {
            if let Ok(candidate) = self.candidate(visitor, info) {
                // Nobody stands behind what one says of another.
                let candidate = Candidate { caller: None, is_hearsay: true, ..candidate };
                let now = self.now();
                let heard = self.0.registry().hear(candidate, Instant::now(), now);
                self.0.count(|c| c.compat_registrations += u64::from(heard));
            }
        }
        self.0.registry_changed.notify_one();
        let (known_peers, _) = self.listed(&request.peer_id, request.max_peers).await;
        Ok(PeerExchangeResponse { known_peers, success: true, message: String::new() })
    }

    /// Notes that a client is alive.
    pub(super) fn touch(&self, visitor: &Visitor, id: &str) {
        if !visitor.is_proxied {
            let now = self.now();
            self.0.registry().touch(id, visitor.address.ip().to_canonical(), now);
        }
    }

    /// Lists peers without the caller, and how many there are.
    async fn listed(&self, caller: &str, max: i32) -> (Vec<PeerInfo>, i32) {
        let max = usize::try_from(max).ok().filter(|max| *max > 0).unwrap_or(USUAL_LIST);
        let max = max.min(self.0.settings.max_listed as usize);
        let now = seconds(self.now());
        let natives = self.0.peers().await;
        let caller_key = caller.parse().ok();
        let mut natives: Vec<_> =
            natives.iter().filter(|peer| Some(peer.peer) != caller_key).collect();
        natives.sort_by_key(|peer| !peer.is_linked);
        let mut total = natives.len();
        let mut peers: Vec<_> =
            natives.into_iter().take(max).map(|peer| native(&self.0, peer, now)).collect();
        let mut bytes: usize = peers.iter().map(PeerInfo::encoded_len).sum();
        for info in self.0.registry().list().filter(|info| info.peer_id != caller) {
            total += 1;
            bytes = bytes.saturating_add(info.encoded_len());
            if peers.len() < max && bytes <= MAX_LIST_BYTES {
                peers.push(info);
            }
        }
        (peers, i32::try_from(total).unwrap_or(i32::MAX))
    }

    /// Checks what a client says of itself or of another.
    fn candidate(&self, visitor: &Visitor, info: PeerInfo) -> Result<Candidate, &'static str> {
        // An id that a peer may have, whether or not one is known that has it.
        if !is_id(&info.peer_id) || info.peer_id.parse::<PeerId>().is_ok() {
            return Err(INVALID_ID);
        }
        let host = host(&info.address).ok_or(INVALID_ADDRESS)?;
        let port = u16::try_from(info.port).ok().filter(|port| *port > 0).ok_or(INVALID_PORT)?;
        let endpoint = Endpoint::new(host, port).map_err(|_| INVALID_ADDRESS)?;
        let scope = scope(visitor);
        let policy = self.0.settings.addresses;
        if !may_name(policy, scope, endpoint.scope()) || self.0.backend.is_own(&endpoint) {
            return Err(INVALID_ADDRESS);
        }
        let names = &info.supported_protocols;
        let registers = &info.advertised_registers;
        let is_name =
            |name: &String| is_plain(name, MAX_NAME_BYTES) && name.len() <= MAX_NAME_BYTES;
        let fits = names.len() <= MAX_NAMES
            && names.iter().all(is_name)
            && registers.len() <= MAX_NAMES
            && registers.iter().all(|register| register.register_id.len() <= MAX_TOPIC_BYTES)
            && info.encoded_len() <= MAX_INFO_BYTES;
        if !fits {
            return Err(INVALID_PROTOCOLS);
        }
        Ok(Candidate {
            id: info.peer_id,
            endpoint,
            caller: caller(visitor),
            is_hearsay: false,
            by: teller(visitor),
            scope,
            protocols: info.supported_protocols,
            capabilities: info.capabilities,
            registers: info.advertised_registers,
        })
    }
}

/// Host of a registration: an IP address, in brackets or not, or a DNS name.
fn host(text: &str) -> Option<Host> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(bare) = bare {
        return bare.parse().ok().map(|ip| Host::Ip(IpAddr::V6(ip)));
    }
    match text.parse() {
        Ok(ip) => Some(Host::Ip(ip)),
        Err(_) if text.is_empty() || text.len() > 254 => None,
        Err(_) => Some(Host::Name(text.to_ascii_lowercase())),
    }
}

/// Address of a client, where it is its own.
fn caller(visitor: &Visitor) -> Option<IpAddr> {
    (!visitor.is_proxied).then(|| visitor.address.ip().to_canonical())
}

/// Host that says something, as far as that is known.
pub(super) fn teller(visitor: &Visitor) -> Option<IpAddr> {
    caller(visitor).map(host_of)
}

/// Reach of a client's address: what it may name. Behind a proxy it may be anybody.
fn scope(visitor: &Visitor) -> AddressScope {
    match AddressScope::of(visitor.address.ip()) {
        _ if visitor.is_proxied => AddressScope::Public,
        // An attached link, whose other hosts have private addresses too.
        AddressScope::Unusable => AddressScope::Private,
        scope => scope,
    }
}

/// A peer of this network, as the original writes it.
fn native(shared: &Shared, peer: &KnownPeer, now: i64) -> PeerInfo {
    let most = i32::try_from(shared.settings.max_transaction_size).unwrap_or(i32::MAX);
    PeerInfo {
        peer_id: peer.peer.to_string(),
        address: bare_host(&peer.endpoint),
        port: peer.endpoint.port().into(),
        supported_protocols: NATIVE_PROTOCOLS.map(str::to_owned).to_vec(),
        last_seen: if peer.is_linked { now } else { seconds(peer.last_seen) },
        capabilities: Some(PeerCapabilities {
            supports_streaming: true,
            supports_transaction_distribution: true,
            max_transaction_size: most,
        }),
        advertised_registers: Vec::new(),
        is_seed_node: peer.is_bootstrap,
    }
}
