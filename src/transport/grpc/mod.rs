//! Frames over one bidirectional gRPC stream, in mutual TLS 1.3.
//!
//! One TCP connection carries one link: the stream's messages are the frames, and the end of the
//! connection is the end of the link. hyper drives HTTP/2 and tonic frames the messages, so that
//! gRPC-aware proxies and tools understand what they see; connections are made, bounded and
//! closed by this module.

mod client;
mod codec;
mod dial;
mod link;
mod options;
mod pipe;
mod service;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
#[cfg(feature = "health")]
use tokio::sync::watch;

pub(super) use self::client::{Requests, handshake, origin, path_and_query};
pub(super) use self::link::{
    CONNECTION_WINDOW, Driver, HTTP2_FRAME_BYTES, MAX_HEADER_BYTES, Outgoing, SEND_BUFFER_BYTES,
    Spawner,
};
pub use self::options::GrpcOptions;
pub(super) use self::pipe::{PIPE_PATH, serve_pipe};
pub(super) use self::service::{LINK_PATH, LinkOffer, Opened, serve_link};
#[cfg(feature = "health")]
use super::health::Health;
#[cfg(any(test, feature = "health", feature = "compat"))]
use super::port::Guest;
use super::port::PortListener;
#[cfg(feature = "turn")]
use super::relay_way::RelayWay;
#[cfg(feature = "turn")]
use super::relays::Relays;
use super::shared::Shared;
#[cfg(feature = "turn")]
use crate::config::RelayServer;
use crate::error::{FailureKind, TransportError};
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
    rung: TransportKind,
}

impl GrpcTransport {
    /// A transport for one identity.
    ///
    /// # Errors
    /// [`FailureKind::Local`](crate::error::FailureKind::Local) when the cryptographic library
    /// cannot make a certificate for the key, or a file of certificates or the proxy cannot be used; no
    /// retry helps.
    pub fn new(identity: Identity, options: GrpcOptions) -> Result<Self, TransportError> {
        let shared = Shared::new(identity, options)?;
        Ok(Self { shared: Arc::new(shared), rung: TransportKind::GrpcStream })
    }

    /// The same transport, dialling in another way: same identity, same options. Whichever listens first serves
    /// them all, on one port, and while it does the others never listen.
    ///
    /// # Errors
    /// [`FailureKind::Unsupported`](crate::error::FailureKind::Unsupported) for a way that is not built in.
    pub fn rung(&self, kind: TransportKind) -> Result<Self, TransportError> {
        match kind {
            TransportKind::GrpcStream | TransportKind::GrpcUnary => {}
            #[cfg(feature = "websocket")]
            TransportKind::WebSocket => {}
            #[cfg(feature = "rest")]
            TransportKind::Rest => {}
            _ => {
                let message = format!("{kind} is not built in");
                return Err(TransportError::new(FailureKind::Unsupported, message));
            }
        }
        Ok(Self { shared: Arc::clone(&self.shared), rung: kind })
    }

    /// Relays that listen for this transport and all its rungs, and dial for them.
    #[cfg(feature = "turn")]
    pub(crate) fn relays(&self) -> Relays {
        self.shared.routes.relays.clone()
    }

    /// The way to the server of a relay.
    #[cfg(feature = "turn")]
    pub(crate) fn way_to(&self, server: &RelayServer) -> RelayWay {
        RelayWay::new(&self.shared, server)
    }

    #[cfg(feature = "compat")]
    pub(in crate::transport) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Adds who answers, on the ports of this transport and of all its rungs, HTTP requests that are nothing of a
    /// link. Called before anything listens.
    #[cfg(any(test, feature = "health", feature = "compat"))]
    pub(crate) fn set_guest(&self, guest: Arc<dyn Guest>) {
        self.shared.guests.add(guest);
    }

    /// Has the standard health service answer there: for the node and these services, which run while
    /// `is_running` says so.
    #[cfg(feature = "health")]
    pub(crate) fn serve_health(
        &self,
        is_running: watch::Receiver<bool>,
        services: &'static [&'static str],
    ) {
        self.set_guest(Arc::new(Health::new(is_running, services)));
    }

    /// A transport for which a name stands for these addresses.
    #[cfg(test)]
    pub(crate) fn with_name(
        identity: Identity,
        options: GrpcOptions,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<Self, TransportError> {
        let Self { shared, rung } = Self::new(identity, options)?;
        let mut shared = Arc::into_inner(shared).expect("nobody else has it yet");
        shared.routes.names =
            super::tcp::Names::Table([(name.to_owned(), addresses.to_vec())].into());
        Ok(Self { shared: Arc::new(shared), rung })
    }
}

#[async_trait]
impl Transport for GrpcTransport {
    fn kind(&self) -> TransportKind {
        self.rung
    }

    async fn dial(
        &self,
        endpoint: &Endpoint,
        expected: Option<PeerId>,
    ) -> Result<RawLink, TransportError> {
        dial::dial(&self.shared, self.rung, endpoint, expected, &[]).await
    }

    async fn dial_avoiding(
        &self,
        endpoint: &Endpoint,
        expected: Option<PeerId>,
        avoid: &[SocketAddr],
    ) -> Result<RawLink, TransportError> {
        dial::dial(&self.shared, self.rung, endpoint, expected, avoid).await
    }

    async fn listen(&self, bind: SocketAddr) -> Result<Box<dyn Listener>, TransportError> {
        let listener = PortListener::bind(&self.shared, self.rung, bind)?;
        Ok(Box::new(listener))
    }

    fn shun(&self, address: IpAddr, time: Duration) {
        self.shared.shunned.add(address, time);
    }
}
