//! Frames over one bidirectional gRPC stream, in mutual TLS 1.3.
//!
//! One TCP connection carries one link: the stream's messages are the frames, and the end of the
//! connection is the end of the link. hyper drives HTTP/2 and tonic frames the messages, so that
//! gRPC-aware proxies and tools understand what they see; connections are made, bounded and
//! closed by this module.

mod client;
mod failure;
mod link;
mod server;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::tls::TlsIdentity;
use crate::config::Config;
use crate::error::TransportError;
use crate::identity::Identity;
use crate::ports::{Listener, RawLink, Transport};
use crate::types::{Endpoint, PeerId, TransportKind};

/// The gRPC stream transport.
///
/// The peer id at the other end of a link is the Ed25519 key that the TLS handshake proved.
/// Whether that peer is welcome (allow-list, bans) is for the node to say.
///
/// `dial` and `listen` must be called within a tokio runtime with I/O and time enabled; every
/// link has one task there, which ends with the link.
///
/// ```
/// use sorcha_peer::Identity;
/// use sorcha_peer::ports::{Accepted, Transport};
/// use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # async {
/// let (a, b) = (Identity::generate()?, Identity::generate()?);
/// let server = GrpcTransport::new(b.clone(), GrpcOptions::default())?;
/// let client = GrpcTransport::new(a.clone(), GrpcOptions::default())?;
///
/// let mut listener = server.listen("127.0.0.1:0".parse()?).await?;
/// let endpoint = listener.local_addr().into();
/// let dial = client.dial(&endpoint, Some(b.peer_id()));
/// let (dialled, accepted) = tokio::join!(dial, listener.accept());
/// let Accepted::Link(accepted) = accepted else { panic!("no link: {accepted:?}") };
/// assert_eq!(accepted.remote, a.peer_id());
/// assert_eq!(dialled?.remote, b.peer_id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }.await.unwrap() }
/// ```
#[derive(Debug, Clone)]
pub struct GrpcTransport {
    shared: Arc<Shared>,
}

/// Settings of a [`GrpcTransport`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrpcOptions {
    /// Time for name resolution and TCP together when dialling. Default 30 s.
    pub connect_timeout: Duration,
    /// Time for TLS, HTTP/2 and opening the stream together, when dialling and when accepting.
    /// Default 10 s.
    pub handshake_timeout: Duration,
    /// Accepted connections of one listener that may be in their handshake at once; further ones
    /// are dropped. Default 256, at least 1.
    pub max_handshakes: u32,
    /// The same for one IPv4 address or one IPv6 /64, the least that an IPv6 host owns. Default
    /// 32, at least 1.
    pub max_handshakes_per_ip: u32,
    /// No TLS: peer ids are what the peers claim. Only for tests, and for a mesh that
    /// authenticates below. Default false.
    pub plaintext: bool,
}

impl GrpcOptions {
    /// The settings that a node with this configuration uses.
    pub fn from_config(config: &Config) -> Self {
        Self {
            connect_timeout: config.connection.connect_timeout,
            handshake_timeout: config.connection.handshake_timeout,
            max_handshakes: config.listen.max_handshakes,
            max_handshakes_per_ip: config.listen.max_handshakes_per_ip,
            plaintext: config.network.plaintext,
        }
    }
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self::from_config(&Config::default())
    }
}

impl GrpcTransport {
    /// A transport for one identity.
    ///
    /// # Errors
    /// [`FailureKind::Local`](crate::error::FailureKind::Local) when the cryptographic library
    /// cannot make a certificate for the key; no retry helps.
    pub fn new(identity: Identity, options: GrpcOptions) -> Result<Self, TransportError> {
        let security = if options.plaintext {
            tracing::warn!(
                target: TARGET,
                peer = %identity.peer_id(),
                "plaintext: peers are whoever they claim to be"
            );
            Security::Plaintext
        } else {
            Security::Tls(Box::new(TlsIdentity::new(&identity)?))
        };
        Ok(Self { shared: Arc::new(Shared { identity, options, security }) })
    }
}

#[async_trait]
impl Transport for GrpcTransport {
    fn kind(&self) -> TransportKind {
        TransportKind::GrpcStream
    }

    async fn dial(
        &self,
        endpoint: &Endpoint,
        expected: Option<PeerId>,
    ) -> Result<RawLink, TransportError> {
        client::dial(&self.shared, endpoint, expected).await
    }

    async fn listen(&self, bind: SocketAddr) -> Result<Box<dyn Listener>, TransportError> {
        let listener = server::GrpcListener::bind(Arc::clone(&self.shared), bind).await?;
        Ok(Box::new(listener))
    }
}

/// The tracing target of all transports.
const TARGET: &str = "sorcha_peer::transport";

#[derive(Debug)]
struct Shared {
    identity: Identity,
    options: GrpcOptions,
    security: Security,
}

/// How the other side is known.
#[derive(Debug)]
enum Security {
    /// By the key that its handshake proved.
    Tls(Box<TlsIdentity>),
    /// By what it says.
    Plaintext,
}
