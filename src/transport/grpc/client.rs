//! Dialling: one TCP connection, one HTTP/2 connection, one stream.
//!
//! Contract: all addresses of a name are raced up to the open stream of a peer that has proven its id.
//! `connect_timeout` bounds resolution and TCP, of all addresses together, `handshake_timeout` all that
//! follows, of each. Until the link is returned, everything hangs on the future of [`dial`]; dropped, it
//! takes its connections with it.

use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::uri::{PathAndQuery, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::client::Grpc;

use super::link::{
    Driver, HTTP2_FRAME_BYTES, LinkSink, LinkStream, MAX_HEADER_BYTES, Outgoing, RawCodec,
    SEND_BUFFER_BYTES, Spawner,
};
use super::service::LINK_PATH;
use super::shared::{Security, Shared, TARGET};
use super::{failure, service};
use crate::error::{FailureKind, TransportError};
use crate::ports::RawLink;
use crate::transport::metered::Metered;
use crate::transport::race::race;
use crate::transport::{tcp, tls};
use crate::types::{Endpoint, Host, MAX_FRAME_BYTES, PeerId, TransportKind};

/// Opens a link; see [`Transport::dial_avoiding`](crate::ports::Transport::dial_avoiding).
pub(super) async fn dial(
    shared: &Shared,
    endpoint: &Endpoint,
    expected: Option<PeerId>,
    avoid: &[SocketAddr],
) -> Result<RawLink, TransportError> {
    let limit = tcp::Limit::from_now(shared.options.connect_timeout);
    let addresses = tcp::resolve(&shared.routes, endpoint, avoid, limit).await?;
    race(addresses, |address| {
        // Boxed, since what is under way is large and there may be many.
        Box::pin(dial_address(shared, endpoint, address, expected, limit))
    })
    .await
}

/// Opens a link to one address.
async fn dial_address(
    shared: &Shared,
    endpoint: &Endpoint,
    address: SocketAddr,
    expected: Option<PeerId>,
    limit: tcp::Limit,
) -> Result<RawLink, TransportError> {
    let stream = tcp::connect(&shared.routes, endpoint, address, limit).await?;
    let (stream, traffic) = Metered::new(stream);
    let limit = shared.options.handshake_timeout;
    let handshake = async {
        let (remote, proven, (sink, stream)) = match &shared.security {
            Security::Tls(identity) => {
                let config = identity.client_config(expected);
                let name = server_name(endpoint, address.ip());
                // rustls asks for 4 KiB at a time; the buffer turns that into fewer system calls.
                let stream = BufReader::with_capacity(tls::READ_BUFFER_BYTES, stream);
                let stream =
                    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
                        match shared.routes.proxy(endpoint) {
                            Some(proxy) => failure::from_tunnelled_tls(proxy, error),
                            None => failure::from_tls("the TLS handshake failed", error),
                        }
                    })?;
                let proven = identity.proven(stream.get_ref().1)?;
                (proven.peer, Some(proven), open(endpoint, stream, None).await?.1)
            }
            Security::Plaintext => {
                let (claim, halves) =
                    open(endpoint, stream, Some(shared.identity.peer_id())).await?;
                (check_claim(claim, expected)?, None, halves)
            }
        };
        let kind = TransportKind::GrpcStream;
        tracing::debug!(target: TARGET, peer = %remote, %address, %kind, "dialled");
        let (sink, stream) = (Box::pin(sink), Box::pin(stream));
        let at = shared.routes.remote(endpoint, address);
        let link = RawLink::new(remote, kind, at, sink, stream);
        let certified = proven.is_some_and(|proven| proven.certified);
        let binding = proven.map(|proven| proven.binding);
        let (received, taken) = (Some(traffic.received), Some(traffic.taken));
        Ok(RawLink { received, taken, binding, certified, ..link })
    };
    let result = timeout(limit, handshake).await.unwrap_or_else(|elapsed| {
        let message = format!("{endpoint} did not complete the handshake within {limit:?}");
        Err(TransportError::with_source(FailureKind::Timeout, message, elapsed))
    });
    result.inspect_err(|error| {
        tracing::debug!(target: TARGET, %address, kind = %error.kind, reason = %error, "not dialled");
    })
}

type LinkHalves = (LinkSink, LinkStream);

/// HTTP/2 and the stream on an open connection; also gives the peer id that the remote claims.
async fn open<S>(
    endpoint: &Endpoint,
    stream: S,
    claim: Option<PeerId>,
) -> Result<(Option<PeerId>, LinkHalves), TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let spawner = Spawner::default();
    let (requests, connection) = http2::Builder::new(spawner.clone())
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failure::from_hyper("the HTTP/2 handshake failed", e))?;
    let Outgoing { sink, frames, halves, ended } = Outgoing::new();
    let driver = Driver::new(connection, spawner);
    // Without requests to come, hyper closes the connection after its last stream by itself.
    tokio::spawn(driver.run(ended, |_| ()));

    let mut request = tonic::Request::new(frames);
    if let Some(peer_id) = claim {
        service::claim(request.metadata_mut(), peer_id);
    }
    let response = Grpc::with_origin(Requests(requests), origin(endpoint)?)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .streaming(request, PathAndQuery::from_static(LINK_PATH), RawCodec)
        .await
        .map_err(|status| failure::from_status("the stream was not opened", status))?;
    let claim = service::claimed(response.metadata());
    let stream = LinkStream::new(response.into_inner(), halves);
    Ok((claim, (sink, stream)))
}

/// The name that the TLS greeting carries, which proxies route by; peers ignore it.
fn server_name(endpoint: &Endpoint, ip: IpAddr) -> ServerName<'static> {
    let by_name = match endpoint.host() {
        Host::Name(name) => ServerName::try_from(name.clone()).ok(),
        Host::Ip(_) => None,
    };
    by_name.unwrap_or_else(|| ServerName::IpAddress(ip.into()))
}

fn origin(endpoint: &Endpoint) -> Result<Uri, TransportError> {
    Uri::try_from(format!("http://{endpoint}")).map_err(|source| {
        let message = format!("{endpoint} cannot stand in a request");
        TransportError::with_source(FailureKind::Unsupported, message, source)
    })
}

fn check_claim(claim: Option<PeerId>, expected: Option<PeerId>) -> Result<PeerId, TransportError> {
    let Some(claim) = claim else {
        let message = "the remote states no peer id";
        return Err(TransportError::new(FailureKind::Protocol, message));
    };
    match expected {
        Some(expected) if expected != claim => {
            let message = format!("expected peer {expected}, found {claim}");
            Err(TransportError::new(FailureKind::Identity, message))
        }
        _ => Ok(claim),
    }
}

/// Service that tonic sends a request through.
struct Requests(http2::SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for Requests {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, hyper::Result<Self::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
