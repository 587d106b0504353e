//! Guests: HTTP requests that are nothing of a link, answered by whoever asked for them.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use hyper::body::{Frame, Incoming, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::inlet::{Busy, Inlet, Unread};
use crate::transport::tls::Proven;
use crate::types::PeerId;

/// Time for the client to take a frame of an answer, and bytes of it a second beyond that.
const TAKING: (Duration, u64) = (Duration::from_secs(30), 16 * 1024);
/// Answer to a guest that there is no room for.
const NO_ROOM: &str = "too many clients are connected";

/// Answers HTTP requests that are nothing of a link.
pub(crate) trait Guest: Send + Sync + fmt::Debug {
    /// Reports whether requests for this path are answered, whatever their method. Called for each request,
    /// with the path as it came.
    fn serves(&self, path: &str) -> bool;

    /// Answers a request. The future is dropped where the client is gone; it and the body that it
    /// returns run in the task of the connection, so neither may block. Time and size of the
    /// request's body are the callee's to bound.
    fn call(&self, request: Request<Body>, visitor: Visitor) -> BoxFuture<'static, Response<Body>>;
}

/// Who sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visitor {
    /// Socket address at the other end of the connection.
    pub(crate) address: SocketAddr,
    /// True: it is the address of a proxy, not the caller's.
    pub(crate) is_proxied: bool,
    /// True: the request came over HTTP/2, otherwise over HTTP/1.
    pub(crate) is_http2: bool,
    /// Key that the TLS handshake proved. Callers need none.
    pub(crate) peer: Option<PeerId>,
    /// True: a CA that this node trusts has certified the key.
    pub(crate) certified: bool,
}

/// Those who answer on the ports of one transport.
#[derive(Debug, Default)]
pub(in crate::transport) struct Guests(RwLock<Vec<Arc<dyn Guest>>>);

impl Guests {
    #[cfg(any(test, feature = "health", feature = "compat"))]
    pub(in crate::transport) fn add(&self, guest: Arc<dyn Guest>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(guest);
    }

    /// Lets go of all, who may hold what holds the transport.
    pub(super) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The one that answers requests for a path.
    pub(super) fn find(&self, path: &str) -> Option<Arc<dyn Guest>> {
        let guests = self.0.read().unwrap_or_else(PoisonError::into_inner);
        guests.iter().find(|guest| guest.serves(path)).cloned()
    }
}

/// What is known of who sends the requests of a connection.
pub(super) fn visitor(inlet: &Inlet, proven: Option<Proven>, is_http2: bool) -> Visitor {
    Visitor {
        address: inlet.remote(),
        is_proxied: inlet.peer_address().is_none(),
        is_http2,
        peer: proven.map(|proven| proven.peer),
        certified: proven.is_some_and(|proven| proven.certified),
    }
}

/// Has a guest answer. Until its answer is sent, the connection lives.
pub(super) async fn serve(
    guest: &dyn Guest,
    request: Request<Incoming>,
    visitor: Visitor,
    inlet: &Inlet,
) -> Response<Body> {
    let Some(busy) = inlet.begin_as_guest() else {
        return no_room(&request, visitor.is_http2);
    };
    let response = guest.call(request.map(Body::new), visitor).await;
    // A proxy has many clients on one connection, and looks after itself.
    let is_timed = !(visitor.is_proxied && visitor.is_http2);
    let unread = is_timed.then(|| inlet.unread());
    response.map(|body| Body::new(Attended { body, unread, _busy: busy }))
}

fn no_room(request: &Request<Incoming>, is_http2: bool) -> Response<Body> {
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return Status::resource_exhausted(NO_ROOM).into_http();
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    if !is_http2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Body of an answer, and the connection's reason to live for as long as the client reads it.
struct Attended {
    body: Body,
    unread: Option<Unread>,
    _busy: Busy,
}

impl hyper::body::Body for Attended {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // It is asked for more when the client has taken enough of what came before.
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(unread) = &mut self.unread {
            unread.until(match &frame {
                Poll::Ready(Some(Ok(frame))) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                    Some(TAKING.0 + Duration::from_secs(bytes / TAKING.1))
                }
                _ => None,
            });
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
