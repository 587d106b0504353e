//! Connections: how many, and how long each may take.
//!
//! Contract: at most [`MAX_CONNECTIONS`] are open; for one more, one of them gives way or is waited for (`places`). One is
//! closed when a head is not complete [`HEAD_TIME`] after the request before it, which bounds both slow heads and
//! idle time; when a body is not complete in the time of [`body::read`](crate::web::body::read); and when its reader
//! takes nothing for [`STALL_TIME`]. A head that is malformed or too large is answered by hyper: 400, 414 or 431
//! without a document, and the end of the connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::places::{Place, Places};
use super::reply::Body;
use super::stalls::Stalls;
use super::{Shared, TARGET, routes};

/// Maximum number of connections.
const MAX_CONNECTIONS: usize = 64;
/// Time for a head to be complete, from the beginning of the connection or the request before it.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Time in which a reader has to take something of what waits for it.
const STALL_TIME: Duration = Duration::from_secs(30);
/// Maximum number of headers of a request.
const MAX_HEADERS: usize = 64;
/// Maximum number of bytes of a head, and of what is buffered in each direction.
const BUFFER_BYTES: usize = 32 * 1024;
/// Delay after the operating system refused to accept, which it does again at once while, say, no file
/// descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until dropped, and drops them with it.
pub(super) async fn serve(listener: TcpListener, shared: &Arc<Shared>) {
    let places = Places::new(MAX_CONNECTIONS);
    let mut connections = JoinSet::new();
    loop {
        let stream = accept(&listener).await;
        let Some(place) = places.take().await else { return };
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(Arc::clone(shared), stream, place));
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::debug!(target: TARGET, %error, "no connection was accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, place: Arc<Place>) {
    // Answers are whole: there is nothing to gather them for.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let stream = TokioIo::new(Stalls::new(stream, STALL_TIME));
    let service = Service { shared, local, place: Arc::clone(&place) };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(stream, service);
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::debug!(target: TARGET, %error, "a connection broke");
        },
        () = place.is_to_leave() => {
            tracing::debug!(target: TARGET, "a connection gave way to another");
        }
    }
}

/// Serves one connection.
#[derive(Debug)]
struct Service {
    shared: Arc<Shared>,
    /// The address that was connected to.
    local: SocketAddr,
    place: Arc<Place>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (shared, local) = (Arc::clone(&self.shared), self.local.ip());
        // Whoever has not shown the token keeps no place by asking.
        let is_known = shared.gate.is_open_to(request.headers());
        let work = is_known.then(|| self.place.work());
        async move { Ok(routes::answer(&shared, request, local, work).await) }.boxed()
    }
}
