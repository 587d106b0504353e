//! Dialling by gRPC: one TCP connection, one HTTP/2 connection, one stream.
//!
//! Contract: a direct endpoint is a peer, whose handshake proves its id, and the stream is the
//! link. At any other the stream is a pipe, in which the peer proves it. Until the link is
//! returned, everything hangs on the future; dropped, it takes its connection with it. The caller
//! bounds the time of what follows TCP.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::uri::{InvalidUri, PathAndQuery, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::io::BufReader;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::client::Grpc;

use super::codec::BytesCodec;
use super::link::{
    CONNECTION_WINDOW, Driver, HTTP2_FRAME_BYTES, Leaving, LinkSink, LinkStream, MAX_HEADER_BYTES,
    Outgoing, SEND_BUFFER_BYTES, Spawner,
};
use super::pipe::{self, PIPE_PATH};
use super::service::{self, LINK_PATH};
use crate::error::{FailureKind, TransportError};
use crate::ports::RawLink;
use crate::transport::metered::Metered;
use crate::transport::outer::{self, Alpn, server_name};
use crate::transport::pipe::{Pipe, Way};
use crate::transport::shared::{Security, Shared, check_claim};
use crate::transport::{failure, tcp, tls};
use crate::types::{Endpoint, MAX_FRAME_BYTES, PeerId, Scheme, TransportKind};

/// Opens a link to one address.
pub(in crate::transport) async fn dial(
    shared: &Shared,
    endpoint: &Endpoint,
    address: SocketAddr,
    expected: Option<PeerId>,
    limit: &tcp::Limit,
) -> Result<RawLink, TransportError> {
    if !endpoint.is_direct() {
        return dial_pipe(shared, endpoint, address, expected, limit).await;
    }
    let stream = tcp::connect(&shared.routes, endpoint, address, limit).await?;
    let (stream, traffic) = Metered::new(stream);
    let address = shared.routes.remote(endpoint, address);
    let way = Way { kind: TransportKind::GrpcStream, address, traffic };
    match &shared.security {
        Security::Tls(identity) => {
            let config = identity.client_config(expected);
            let name = server_name(endpoint);
            // rustls asks for 4 KiB at a time; the buffer turns that into fewer system calls.
            let stream = BufReader::with_capacity(tls::READ_BUFFER_BYTES, stream);
            let stream = TlsConnector::from(config).connect(name, stream).await.map_err(
                |error| match shared.routes.proxy(endpoint) {
                    Some(proxy) => failure::from_tunnelled_tls(proxy, error),
                    None => failure::from_tls("the TLS handshake failed", error),
                },
            )?;
            let proven = identity.proven(stream.get_ref().1)?;
            let Open { halves: (sink, stream), leaving, .. } = open(endpoint, stream, None).await?;
            let link = service::link(sink, stream, proven.peer, way, Some(proven));
            Ok(RawLink { leaving: Some(leaving), ..link })
        }
        Security::Plaintext => {
            let own = Some(shared.identity.peer_id());
            let Open { claim, halves: (sink, stream), leaving } =
                open(endpoint, stream, own).await?;
            let link = service::link(sink, stream, check_claim(claim, expected)?, way, None);
            Ok(RawLink { leaving: Some(leaving), ..link })
        }
    }
}

/// Opens a link by way of what answers at one address.
async fn dial_pipe(
    shared: &Shared,
    endpoint: &Endpoint,
    address: SocketAddr,
    expected: Option<PeerId>,
    limit: &tcp::Limit,
) -> Result<RawLink, TransportError> {
    let (stream, traffic) = outer::connect(shared, endpoint, address, limit, Alpn::H2).await?;
    let (requests, mut driver) = handshake(stream).await?;
    let (alive, ended) = oneshot::channel();
    let leaving = driver.leaving();
    tokio::spawn(driver.run_while(ended, requests.clone()));
    let (sender, chunks) = pipe::chunks();
    let path = format!("{}{PIPE_PATH}", endpoint.path());
    let path = path_and_query(endpoint, path)?;
    let mut grpc = Grpc::with_origin(Requests(requests), origin(endpoint)?)
        .max_decoding_message_size(pipe::MAX_MESSAGE_BYTES);
    let answer = async move {
        let answer = grpc.streaming(tonic::Request::new(chunks), path, BytesCodec::Field).await;
        answer.map(tonic::Response::into_inner)
    };
    let pipe = pipe::GrpcPipe::asked(Box::pin(answer), sender, alive);
    // The address is that of what stands between.
    let way = Way { kind: TransportKind::GrpcStream, address: None, traffic };
    let link = crate::transport::pipe::dial(shared, pipe, way, expected).await?;
    Ok(RawLink { leaving: Some(leaving), ..link })
}

/// HTTP/2 on an open connection.
pub(in crate::transport) async fn handshake<S: Pipe>(
    stream: S,
) -> Result<(http2::SendRequest<Body>, Driver<Http2<S>>), TransportError> {
    let spawner = Spawner::default();
    let (requests, connection) = http2::Builder::new(spawner.clone())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failure::from_hyper("the HTTP/2 handshake failed", e))?;
    Ok((requests, Driver::new(connection, spawner)))
}

pub(in crate::transport) type Http2<S> = http2::Connection<TokioIo<S>, Body, Spawner>;

/// Open stream.
struct Open {
    /// Peer id that the remote claims.
    claim: Option<PeerId>,
    halves: (LinkSink, LinkStream),
    leaving: Leaving,
}

/// HTTP/2 and the stream on an open connection.
async fn open(
    endpoint: &Endpoint,
    stream: impl Pipe,
    claim: Option<PeerId>,
) -> Result<Open, TransportError> {
    let (requests, mut driver) = handshake(stream).await?;
    let Outgoing { sink, frames, halves, ended } = Outgoing::new();
    let leaving = driver.leaving();
    // Without requests to come, hyper closes the connection after its last stream by itself. Until then it
    // looks whether it could make one.
    let kept = requests.clone();
    tokio::spawn(driver.run(ended, move |_| drop(kept)));

    let mut request = tonic::Request::new(frames);
    if let Some(peer_id) = claim {
        service::claim(request.metadata_mut(), peer_id);
    }
    let response = Grpc::with_origin(Requests(requests), origin(endpoint)?)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .streaming(request, PathAndQuery::from_static(LINK_PATH), BytesCodec::Bare)
        .await
        .map_err(|status| failure::from_status("the stream was not opened", status))?;
    let claim = service::claimed(response.metadata());
    let stream = LinkStream::new(response.into_inner(), halves);
    Ok(Open { claim, halves: (sink, stream), leaving })
}

/// Scheme and authority of a request.
pub(in crate::transport) fn origin(endpoint: &Endpoint) -> Result<Uri, TransportError> {
    let (host, port) = (endpoint.host(), endpoint.port());
    let origin = match endpoint.scheme() {
        Scheme::Https if port == 443 => format!("https://{host}"),
        Scheme::Https => format!("https://{host}:{port}"),
        Scheme::Http if port == 80 => format!("http://{host}"),
        _ => format!("http://{host}:{port}"),
    };
    Uri::try_from(origin).map_err(|e| unsayable(endpoint, e))
}

pub(in crate::transport) fn path_and_query(
    endpoint: &Endpoint,
    path: String,
) -> Result<PathAndQuery, TransportError> {
    PathAndQuery::try_from(path).map_err(|e| unsayable(endpoint, e))
}

fn unsayable(endpoint: &Endpoint, source: InvalidUri) -> TransportError {
    let message = format!("{endpoint} cannot stand in a request");
    TransportError::with_source(FailureKind::Unsupported, message, source)
}

/// Service that tonic sends a request through.
pub(crate) struct Requests(pub(in crate::transport) http2::SendRequest<Body>);

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
