//! Connections: how many, and how long each may take.
//!
//! Contract: at most [`MAX_CONNECTIONS`] are open, more wait to be accepted. One is closed when a head is not complete
//! [`HEAD_TIME`] after the request before it, which bounds both slow heads and idle time; when a body is not complete
//! in the time of [`body::read`](crate::web::body::read); and when its reader takes nothing for [`STALL_TIME`].

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
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

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
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = accept(&listener).await;
        while connections.try_join_next().is_some() {}
        let connection = connection(Arc::clone(shared), stream);
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
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

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    // Answers are whole: there is nothing to gather them for.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let stream = TokioIo::new(Stalls::new(stream, STALL_TIME));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(stream, Service { shared, local })
        .await;
    if let Err(error) = served {
        tracing::debug!(target: TARGET, %error, "a connection broke");
    }
}

/// Serves one connection.
#[derive(Debug)]
struct Service {
    shared: Arc<Shared>,
    /// The address that was connected to.
    local: SocketAddr,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (shared, local) = (Arc::clone(&self.shared), self.local.ip());
        async move { Ok(routes::answer(&shared, request, local).await) }.boxed()
    }
}
