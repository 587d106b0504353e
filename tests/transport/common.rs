//! What the tests of transports have in common: nodes by a seed, a listener under attack, and TLS clients that
//! believe everybody.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use sorcha_peer::error::TransportError;
use sorcha_peer::ports::{Accepted, Listener, RawLink, Transport};
use sorcha_peer::testing::TransportNode;
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::{Endpoint, Identity, TransportKind};

/// Ends a test that hangs; no test waits for it.
pub(crate) const HANG: Duration = Duration::from_mins(3);

pub(crate) fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

pub(crate) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, work).await.expect("the test hangs")
}

pub(crate) fn plaintext() -> GrpcOptions {
    let mut options = GrpcOptions::default();
    options.plaintext = true;
    options
}

/// Options of who waits for a handshake no longer than this.
pub(crate) fn impatient(handshake_timeout: Duration) -> GrpcOptions {
    let mut options = GrpcOptions::default();
    options.handshake_timeout = handshake_timeout;
    options
}

/// The gRPC stream of a node.
pub(crate) fn transport(seed: u8, options: &GrpcOptions) -> GrpcTransport {
    rung(seed, options, TransportKind::GrpcStream)
}

/// A transport of a node.
pub(crate) fn rung(seed: u8, options: &GrpcOptions, rung: TransportKind) -> GrpcTransport {
    GrpcTransport::new(identity(seed), options.clone()).unwrap().rung(rung).unwrap()
}

/// The gRPC stream of a node, for the suite.
pub(crate) fn node(seed: u8, options: &GrpcOptions) -> TransportNode {
    TransportNode::new(identity(seed).peer_id(), transport(seed, options))
}

/// Dials the node with seed 2 at an endpoint, and accepts that.
pub(crate) async fn dial(
    dialler: &GrpcTransport,
    endpoint: &Endpoint,
    listener: &mut Box<dyn Listener>,
) -> (RawLink, RawLink) {
    let dialled = dialler.dial(endpoint, Some(identity(2).peer_id()));
    let (dialled, accepted) = in_time(join(dialled, TransportNode::accept(listener))).await;
    (dialled.unwrap(), accepted)
}

/// A node with seed 2 that believes what peers say, so that a client by hand can be one.
pub(crate) async fn believing() -> (Box<dyn Listener>, SocketAddr) {
    serving(&plaintext()).await
}

pub(crate) async fn serving(options: &GrpcOptions) -> (Box<dyn Listener>, SocketAddr) {
    let server = transport(2, options);
    let listener = server.listen(any_port()).await.unwrap();
    let address = listener.local_addr();
    (listener, address)
}

/// Accepts for as long as a client does something.
pub(crate) async fn beside<T>(
    listener: &mut Box<dyn Listener>,
    work: impl Future<Output = T>,
) -> T {
    let accept = async {
        loop {
            let _ = listener.accept().await;
        }
    };
    tokio::select! {
        done = in_time(work) => done,
        () = accept => unreachable!("it accepts for ever"),
    }
}

/// A listener under attack, which belongs to the node with seed 2.
pub(crate) struct Server {
    pub(crate) listener: Box<dyn Listener>,
    pub(crate) address: SocketAddr,
    pub(crate) options: GrpcOptions,
    /// Rung that well-behaved peers dial by.
    rung: TransportKind,
    /// Failures that came in while something else was waited for.
    failures: VecDeque<TransportError>,
}

impl Server {
    pub(crate) async fn start(options: GrpcOptions) -> Self {
        Self::with_rung(options, TransportKind::GrpcStream).await
    }

    pub(crate) async fn with_rung(options: GrpcOptions, kind: TransportKind) -> Self {
        let listener = rung(2, &options, kind).listen(any_port()).await.unwrap();
        let (address, failures) = (listener.local_addr(), VecDeque::new());
        Self { listener, address, options, rung: kind, failures }
    }

    /// The next failure.
    pub(crate) async fn failure(&mut self) -> TransportError {
        if let Some(failure) = self.failures.pop_front() {
            return failure;
        }
        match in_time(self.listener.accept()).await {
            Accepted::Failed { error, .. } => error,
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    /// Accepts for as long as a stranger does something, of which failures may come and no link.
    pub(crate) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(in_time(work));
        loop {
            tokio::select! {
                done = &mut work => return done,
                accepted = self.listener.accept() => match accepted {
                    Accepted::Failed { error, .. } => self.failures.push_back(error),
                    other => panic!("a stranger made a link: {other:?}"),
                },
            }
        }
    }

    /// A well-behaved peer gets through, and nothing else has come in.
    pub(crate) async fn serves(mut self) {
        assert!(self.failures.is_empty(), "{:?}", self.failures);
        let (client, endpoint) = (rung(9, &self.options, self.rung), Endpoint::from(self.address));
        let (dialled, accepted) = dial(&client, &endpoint, &mut self.listener).await;
        assert_eq!(accepted.remote, identity(9).peer_id());
        in_time(TransportNode::assert_open(dialled, accepted)).await;
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Believes every server, offers these algorithms and keeps the certificate.
#[derive(Debug)]
pub(crate) struct Anybody {
    schemes: Vec<SignatureScheme>,
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl Anybody {
    pub(crate) fn offering(schemes: &[SignatureScheme]) -> Arc<Self> {
        Arc::new(Self { schemes: schemes.to_vec(), seen: Mutex::default() })
    }

    /// The certificate that was shown last.
    pub(crate) fn seen(&self) -> CertificateDer<'static> {
        self.seen.lock().unwrap().clone().expect("a handshake")
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.lock().unwrap() = Some(certificate.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
