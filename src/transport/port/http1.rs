//! HTTP/1.1 on a served connection.
//!
//! Contract: at most [`MAX_HEADERS`] headers of [`MAX_HEADER_BYTES`] in all, complete within the
//! time of a handshake for the first request, and of idling for those that follow; a path that is
//! not served is answered with 404 and the end of the connection. What hyper finds malformed, it
//! answers with 400 or 431 and the same.

use std::convert::Infallible;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;
use tonic::body::Body;

use super::connection::{Dialler, go_on, turn_away};
use super::guest;
use super::inlet::{First, Inlet};
use crate::error::{FailureKind, TransportError};
use crate::ports::RawLink;
#[cfg(feature = "rest")]
use crate::transport::exchange;
use crate::transport::failure;
use crate::transport::pipe::Pipe;
use crate::transport::shared::TARGET;
use crate::transport::tls::Proven;
#[cfg(feature = "websocket")]
use crate::transport::websocket;

/// Maximum number of headers of a request.
const MAX_HEADERS: usize = 64;
/// Maximum number of bytes of a request's head.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Maximum number of bytes that are buffered in each direction.
const BUFFER_BYTES: usize = 64 * 1024;
/// Time for a request's head to be complete, from the end of the request before it: more than a connection may be
/// idle, so that it ends in good order.
const HEADER_TIMEOUT: Duration = Duration::from_mins(2);

/// Serves requests until the first that this port answers; the rest in a task of its own.
///
/// # Errors
/// `Protocol` where nothing that is asked for exists; that of the connection where it broke.
pub(super) async fn serve(
    inlet: Inlet,
    mut first: oneshot::Receiver<First>,
    stream: impl Pipe,
    dialler: Dialler,
) -> Result<Option<RawLink>, TransportError> {
    let service = Service { inlet: inlet.clone(), proven: dialler.proven() };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let first = tokio::select! {
        biased;
        Ok(first) = &mut first => first,
        over = &mut connection => match first.try_recv() {
            // An upgrade is the first request and the end of HTTP at once.
            Ok(First::Served) => return Ok(None),
            Ok(First::Refused) => First::Refused,
            Err(_) => {
                let message = "no request that is served here";
                return Err(match over {
                    Ok(()) => TransportError::new(FailureKind::Protocol, message),
                    Err(error) => failure::from_hyper(message, error),
                });
            }
        }
    };
    match first {
        First::Served => {
            go_on(inlet, connection, http1::UpgradeableConnection::graceful_shutdown)?;
            Ok(None)
        }
        // The answer says that it is the last.
        First::Refused => Err(turn_away(connection).await),
    }
}

/// Serves one connection.
#[derive(Debug, Clone)]
struct Service {
    inlet: Inlet,
    /// What the handshake proved.
    proven: Option<Proven>,
}

impl Service {
    /// The table of paths.
    async fn route(self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        // A proxy may put a path of its own in front.
        #[cfg(feature = "websocket")]
        if path.ends_with(websocket::PATH) {
            return websocket::serve(request, &self.inlet);
        }
        #[cfg(feature = "rest")]
        if exchange::is_rest(path) {
            return exchange::serve_rest(request, &self.inlet).await;
        }
        if let Some(guest) = self.inlet.shared().guests.find(path) {
            let visitor = guest::visitor(&self.inlet, self.proven, false);
            return guest::serve(&*guest, request, visitor, &self.inlet).await;
        }
        tracing::debug!(target: TARGET, path, remote = %self.inlet.remote(), "no such path");
        not_found()
    }
}

/// An answer after which the connection ends: what asks for something else is no peer.
fn not_found() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.clone().route(request).map(Ok).boxed()
    }
}
