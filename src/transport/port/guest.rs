//! Guests: HTTP requests that are nothing of a link, answered by whoever asked for them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;

use crate::types::PeerId;

/// Answers HTTP requests that are nothing of a link.
pub(crate) trait Guest: Send + Sync + fmt::Debug {
    /// Reports whether requests for this path are answered, whatever their method. Called for each request,
    /// with the path as it came.
    fn serves(&self, path: &str) -> bool;

    /// Answers a request. The future is dropped where the client is gone; it and the body that it returns run in the task
    /// of the connection, so neither may block. Time and size of the request's body are the callee's to bound.
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
pub(in crate::transport) struct Guests(OnceLock<Arc<dyn Guest>>);

impl Guests {
    /// Sets who answers. Only the first call counts.
    pub(in crate::transport) fn set(&self, guest: Arc<dyn Guest>) {
        let is_first = self.0.set(guest).is_ok();
        debug_assert!(is_first, "a transport has one guest");
    }

    /// The one that answers requests for a path.
    pub(super) fn find(&self, path: &str) -> Option<&Arc<dyn Guest>> {
        self.0.get().filter(|guest| guest.serves(path))
    }
}
