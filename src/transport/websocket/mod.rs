//! The pipe over a WebSocket: for paths that carry HTTP/1.1 and nothing newer.
//!
//! hyper speaks HTTP/1.1 up to the upgrade (`upgrade`), then the connection is a WebSocket whose binary
//! messages carry the bytes of the pipe (`stream`), in which our TLS runs as in every other pipe. The
//! connection carries this one link and ends with it.

mod stream;
#[cfg(test)]
mod stream_tests;
mod upgrade;

use std::io;
use std::net::SocketAddr;

use futures::future::try_join;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::protocol::Role;
use tonic::body::Body;

use self::stream::MessagePipe;
pub(super) use self::upgrade::PATH;
use super::outer::{self, Alpn, OuterStream};
use super::pipe::{self, Way};
use super::port::Inlet;
use super::shared::{Shared, TARGET};
use super::{failure, tcp};
use crate::error::TransportError;
use crate::ports::RawLink;
use crate::types::{Endpoint, PeerId, TransportKind};

/// Maximum number of headers of an answer.
const MAX_HEADERS: usize = 64;
/// Maximum number of bytes of an answer's head.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Opens a link by way of one address of `endpoint`. The caller bounds the time of what follows TCP.
///
/// Cancel safe: no connection outlives the future, unless as the link.
///
/// # Errors
/// Those of the outer connection and of the peer's proof; where the upgrade is refused, what the status
/// stands for.
pub(super) async fn dial(
    shared: &Shared,
    endpoint: &Endpoint,
    address: SocketAddr,
    expected: Option<PeerId>,
    limit: &tcp::Limit,
) -> Result<RawLink, TransportError> {
    let (stream, traffic) = outer::connect(shared, endpoint, address, limit, Alpn::Http1).await?;
    let pipe = open(endpoint, stream).await?;
    let address = shared.routes.remote(endpoint, address);
    let way = Way { kind: TransportKind::WebSocket, address, traffic };
    pipe::dial(shared, pipe, way, expected).await
}

/// Answers a request for [`PATH`], and makes a link of the connection where it is a proper one. After any
/// other the connection ends, which the listener tells as a failure.
pub(super) fn serve(mut request: Request<Incoming>, inlet: &Inlet) -> Response<Body> {
    let answer = match upgrade::accept(&request) {
        Ok(answer) => answer.map(|()| Body::empty()),
        Err(refusal) => {
            tracing::debug!(target: TARGET, remote = %inlet.remote(), ?refusal, "no upgrade");
            return last(refusal.answer().map(Body::new));
        }
    };
    let _busy = inlet.begin();
    let upgraded = hyper::upgrade::on(&mut request);
    let upgrade = async {
        let upgraded = upgraded.await.map_err(io::Error::other)?;
        Ok((TokioIo::new(upgraded), Vec::new()))
    };
    let pipe = MessagePipe::new(upgrade, Role::Server);
    if inlet.pipe(pipe, inlet.way(TransportKind::WebSocket)) {
        return answer;
    }
    let mut full = Response::new(Body::new("too many handshakes are under way".to_owned()));
    *full.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    last(full)
}

/// An answer after which the connection ends.
fn last(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Turns a connection into a WebSocket.
async fn open(
    endpoint: &Endpoint,
    stream: OuterStream,
) -> Result<MessagePipe<OuterStream>, TransportError> {
    const FAILED: &str = "the WebSocket was not opened";
    let failed = |error| failure::from_hyper(FAILED, error);
    let (mut requests, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let path = format!("{}{PATH}", endpoint.path());
    let (request, key) = upgrade::request(&outer::authority(endpoint), &path, Body::empty())?;
    let answered = async {
        let response = requests.send_request(request).await.map_err(failed)?;
        upgrade::check(&response, &key)
    };
    // The connection is over when it is HTTP no longer.
    let over = async { connection.without_shutdown().await.map_err(failed) };
    let ((), parts) = try_join(answered, over).await?;
    let stream = parts.io.into_inner();
    Ok(MessagePipe::new(async move { Ok((stream, parts.read_buf.to_vec())) }, Role::Client))
}
