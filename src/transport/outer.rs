//! The outer connection of a dial: TCP, and TLS where the endpoint says so.
//!
//! Contract: nothing of the outer TLS is validated and no certificate is shown. It is there because what stands
//! at the endpoint speaks it; who the peer is, the session inside the pipe proves.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::metered::{Metered, Traffic};
use super::shared::{Security, Shared};
use super::tls::{ALPN_H2, ALPN_HTTP1, READ_BUFFER_BYTES};
use super::{failure, tcp};
use crate::error::{FailureKind, TransportError};
use crate::types::{Endpoint, Host, Scheme};

/// HTTP version that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Alpn {
    H2,
    Http1,
}

/// Configurations of outer TLS.
#[derive(Debug)]
pub(super) struct OuterTls {
    pub(super) h2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    /// For what is no HTTP.
    #[cfg(feature = "turn")]
    pub(super) other: Arc<ClientConfig>,
}

impl OuterTls {
    /// # Errors
    /// `Local` when the cryptographic library refuses.
    pub(super) fn new() -> Result<Self, TransportError> {
        // Passed on explicitly: the process-wide default belongs to the host.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Anybody(Arc::clone(&provider)));
        let mut h2 = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| {
                TransportError::with_source(FailureKind::Local, "cannot set up TLS", source)
            })?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        h2.resumption = Resumption::disabled();
        #[cfg(feature = "turn")]
        let other = Arc::new(h2.clone());
        let mut http1 = h2.clone();
        h2.alpn_protocols = vec![ALPN_H2.to_vec()];
        http1.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        Ok(Self {
            h2: Arc::new(h2),
            http1: Arc::new(http1),
            #[cfg(feature = "turn")]
            other,
        })
    }
}

/// Connection to whatever is at an endpoint.
#[derive(Debug)]
pub(crate) enum OuterStream<S = Metered<tcp::Stream>> {
    Plain(S),
    Tls(Box<TlsStream<BufReader<S>>>),
}

/// Connects to one address of `endpoint`. Within `limit` only TCP has to be there: the caller bounds
/// the rest.
///
/// Cancel safe: no attempt outlives the future.
///
/// # Errors
/// Those of TCP; `Unsupported` where the other side does not speak that HTTP version.
pub(in crate::transport) async fn connect(
    shared: &Shared,
    endpoint: &Endpoint,
    address: SocketAddr,
    limit: &tcp::Limit,
    alpn: Alpn,
) -> Result<(OuterStream, Traffic), TransportError> {
    let stream = tcp::connect(&shared.routes, endpoint, address, limit).await?;
    let (stream, traffic) = Metered::new(stream);
    let plain = match endpoint.scheme() {
        Scheme::Http | Scheme::Ws => true,
        Scheme::Https | Scheme::Wss => false,
        Scheme::Direct => matches!(shared.security, Security::Plaintext),
    };
    if plain {
        return Ok((OuterStream::Plain(stream), traffic));
    }
    let (config, wanted) = match alpn {
        Alpn::H2 => (&shared.outer.h2, ALPN_H2),
        Alpn::Http1 => (&shared.outer.http1, ALPN_HTTP1),
    };
    // rustls asks for 4 KiB at a time; the buffer turns that into fewer system calls.
    let stream = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(server_name(endpoint), stream)
        .await
        .map_err(|e| failure::from_tls("the TLS handshake failed", e))?;
    match stream.get_ref().1.alpn_protocol() {
        Some(got) if got == wanted => {}
        // Without the extension HTTP/1.1 is meant.
        None if alpn == Alpn::Http1 => {}
        _ => {
            let message = format!("what answers at {endpoint} does not speak {alpn:?}");
            return Err(TransportError::new(FailureKind::Unsupported, message));
        }
    }
    Ok((OuterStream::Tls(Box::new(stream)), traffic))
}

/// TLS with whatever is at the other end, for questions whose answers are hints and no more.
///
/// # Errors
/// `Local` when the cryptographic library refuses; those of the handshake.
#[cfg(feature = "stun")]
pub(crate) async fn tls_to_anybody(
    endpoint: &Endpoint,
    stream: tokio::net::TcpStream,
) -> Result<TlsStream<tokio::net::TcpStream>, TransportError> {
    TlsConnector::from(OuterTls::new()?.http1)
        .connect(server_name(endpoint), stream)
        .await
        .map_err(|e| failure::from_tls("the TLS handshake failed", e))
}

/// Host of a request, with the port where it is not the scheme's own.
#[cfg(feature = "websocket")]
pub(super) fn authority(endpoint: &Endpoint) -> String {
    let (host, port) = (endpoint.host(), endpoint.port());
    match (endpoint.scheme(), port) {
        (Scheme::Http | Scheme::Ws, 80) | (Scheme::Https | Scheme::Wss, 443) => host.to_string(),
        _ => format!("{host}:{port}"),
    }
}

/// The name that the TLS greeting carries, which proxies route by; peers ignore it.
pub(super) fn server_name(endpoint: &Endpoint) -> ServerName<'static> {
    match endpoint.host() {
        Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
        // What resolves and is no server name, say by an underscore, is greeted by no name that means anything.
        Host::Name(name) => ServerName::try_from(name.clone())
            .unwrap_or_else(|_| ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for OuterStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for OuterStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Takes any certificate, with any signature that is one.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
