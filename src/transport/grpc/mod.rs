//! Frames over one bidirectional gRPC stream, in mutual TLS 1.3.
//!
//! One TCP connection carries one link: the stream's messages are the frames, and the end of the
//! connection is the end of the link. hyper drives HTTP/2 and tonic frames the messages, so that
//! gRPC-aware proxies and tools understand what they see; connections are made, bounded and
//! closed by this module.

mod client;
mod failure;
mod handshake_slots;
mod link;
mod options;
mod server;
mod service;
mod shared;
mod shunned_hosts;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::options::GrpcOptions;
use self::shared::{Security, Shared, TARGET};
use self::shunned_hosts::ShunnedHosts;
use super::tcp::Routes;
use super::tls::TlsIdentity;
use crate::config::Proxy;
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
}

impl GrpcTransport {
    /// A transport for one identity.
    ///
    /// # Errors
    /// [`FailureKind::Local`](crate::error::FailureKind::Local) when the cryptographic library
    /// cannot make a certificate for the key, or a file of certificates or the proxy cannot be used; no
    /// retry helps.
    pub fn new(identity: Identity, options: GrpcOptions) -> Result<Self, TransportError> {
        let certified = certified(&options)?;
        let shunned = ShunnedHosts::default();
        let security = if options.plaintext {
            tracing::warn!(
                target: TARGET,
                peer = %identity.peer_id(),
                "plaintext: peers are whoever they claim to be"
            );
            Security::Plaintext
        } else {
            Security::Tls(Box::new(TlsIdentity::new(&identity, certified)?))
        };
        let proxy = proxy(&options)?;
        let routes = Routes { proxy, ..Routes::default() };
        Ok(Self { shared: Arc::new(Shared { identity, options, security, shunned, routes }) })
    }

    /// A transport for which a name stands for these addresses.
    #[cfg(test)]
    pub(crate) fn with_name(
        identity: Identity,
        options: GrpcOptions,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<Self, TransportError> {
        let Self { shared } = Self::new(identity, options)?;
        let mut shared = Arc::into_inner(shared).expect("nobody else has it yet");
        shared.routes.names =
            super::tcp::Names::Table([(name.to_owned(), addresses.to_vec())].into());
        Ok(Self { shared: Arc::new(shared) })
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
        client::dial(&self.shared, endpoint, expected, &[]).await
    }

    async fn dial_avoiding(
        &self,
        endpoint: &Endpoint,
        expected: Option<PeerId>,
        avoid: &[SocketAddr],
    ) -> Result<RawLink, TransportError> {
        client::dial(&self.shared, endpoint, expected, avoid).await
    }

    async fn listen(&self, bind: SocketAddr) -> Result<Box<dyn Listener>, TransportError> {
        let listener = server::GrpcListener::bind(Arc::clone(&self.shared), bind).await?;
        Ok(Box::new(listener))
    }

    fn shun(&self, address: IpAddr, time: Duration) {
        self.shared.shunned.add(address, time);
    }
}

/// The files of CA and certificates, where there are both.
fn certified(options: &GrpcOptions) -> Result<Option<(&Path, &Path)>, TransportError> {
    let why = match (&options.ca_file, &options.certificate_file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) if options.plaintext => "certificates cannot be shown in plaintext",
        (Some(ca), Some(certificate)) => return Ok(Some((ca, certificate))),
        _ => "a CA and the certificate of this node go together",
    };
    Err(TransportError::new(FailureKind::Local, why))
}

/// The proxy that peers are dialled through, where there is one.
fn proxy(options: &GrpcOptions) -> Result<Option<Proxy>, TransportError> {
    let read = |url: &String| Proxy::new(url, &options.no_proxy);
    options
        .proxy
        .as_ref()
        .map(read)
        .transpose()
        .map_err(|error| TransportError::new(FailureKind::Local, error.to_string()))
}
