//! Clients and servers that speak TLS and HTTP/2 by themselves, so that they can do it wrong.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use sorcha_peer::Identity;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::common::{Anybody, provider};

/// The method whose stream is a link.
pub(crate) const LINK_PATH: &str = "/sorcha.peer.gossip.v1.PeerGossip/Link";

/// Certificate that a client shows.
#[derive(Debug)]
pub(crate) enum Certificate {
    /// Nothing.
    None,
    /// A key of the wrong kind.
    Ecdsa,
    /// Certificate that a node shows.
    Of(Identity),
    /// Certificates for the key of this node, and of those who issued them.
    Chain(Identity, Vec<CertificateDer<'static>>),
}

/// TLS, whoever the server is.
pub(crate) async fn tls(
    address: SocketAddr,
    certificate: &Certificate,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Anybody::offering(&[SignatureScheme::ED25519]));
    let mut config = match certificate {
        Certificate::None => config.with_no_client_auth(),
        Certificate::Ecdsa => {
            let (certificate, key) = ecdsa();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
        Certificate::Of(identity) => {
            let (certificate, key) = of(identity);
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
        Certificate::Chain(identity, chain) => {
            config.with_client_auth_cert(chain.clone(), of(identity).1).unwrap()
        }
    };
    config.alpn_protocols = (!alpn.is_empty()).then(|| alpn.to_vec()).into_iter().collect();
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// A TLS server with an ECDSA key, and the task that serves one connection.
pub(crate) async fn ecdsa_server() -> (SocketAddr, JoinHandle<()>) {
    let (certificate, key) = ecdsa();
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let _ = TlsAcceptor::from(Arc::new(config)).accept(tcp).await;
    });
    (address, task)
}

/// A TLS server with an ECDSA key that passes all it reads on to `target`, in a TLS of its own, until the
/// tasks are dropped.
pub(crate) async fn interceptor(target: SocketAddr) -> (SocketAddr, JoinSet<()>) {
    let (certificate, key) = ecdsa();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(mut inside) = acceptor.accept(tcp).await else { return };
                let alpn = inside.get_ref().1.alpn_protocol().unwrap_or(b"http/1.1").to_vec();
                let mut outside = tls(target, &Certificate::None, &alpn).await.unwrap();
                let _ = copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    (address, tasks)
}

/// An HTTP/2 connection with a proper certificate.
pub(crate) struct Peer {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

impl Peer {
    pub(crate) async fn connect(address: SocketAddr, identity: &Identity) -> Self {
        Self::connect_with(address, &Certificate::Of(identity.clone())).await
    }

    pub(crate) async fn connect_with(address: SocketAddr, certificate: &Certificate) -> Self {
        Self::connect_by(address, certificate, b"h2").await
    }

    pub(crate) async fn connect_by(
        address: SocketAddr,
        certificate: &Certificate,
        alpn: &[u8],
    ) -> Self {
        Self::over(tls(address, certificate, alpn).await.unwrap()).await
    }

    /// HTTP/2 over an open connection.
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { requests, connection }
    }

    /// Opens a stream and waits for its headers.
    pub(crate) async fn open(&mut self, path: &str) -> RawStream {
        let (headers, frames) = self.request(path).await;
        assert!(!headers.contains_key("grpc-status"), "{headers:?}");
        RawStream { frames }
    }

    /// The gRPC status of a call that is refused at once.
    pub(crate) async fn status(&mut self, path: &str) -> String {
        let (headers, _) = self.request(path).await;
        headers["grpc-status"].to_str().unwrap().to_owned()
    }

    async fn request(&mut self, path: &str) -> (HeaderMap, SendStream<Bytes>) {
        let (response, frames) = self.requests.send_request(call(path), false).unwrap();
        (response.await.unwrap().headers().clone(), frames)
    }

    /// Opens a stream and waits for nothing.
    pub(crate) fn begin(&mut self, path: &str) -> (ResponseFuture, RawStream) {
        let (response, frames) = self.requests.send_request(call(path), false).unwrap();
        (response, RawStream { frames })
    }
}

fn call(path: &str) -> Request<()> {
    let request = Request::post(format!("http://x{path}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    request.body(()).unwrap()
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The sending side of an open stream.
pub(crate) struct RawStream {
    frames: SendStream<Bytes>,
}

impl RawStream {
    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: Bytes, end: bool) {
        self.frames.send_data(bytes, end).unwrap();
    }
}

fn ecdsa() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = PrivatePkcs8KeyDer::from(pair.serialize_der());
    (self_signed(&pair), key.into())
}

fn of(identity: &Identity) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = PrivatePkcs8KeyDer::from(identity.to_pkcs8());
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519).unwrap();
    (self_signed(&pair), key.into())
}

fn self_signed(pair: &rcgen::KeyPair) -> CertificateDer<'static> {
    let params = rcgen::CertificateParams::new(["raw".to_owned()]).unwrap();
    params.self_signed(pair).unwrap().der().clone()
}
