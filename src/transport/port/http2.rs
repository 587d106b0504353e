//! HTTP/2 on a served connection.
//!
//! Contract: a direct connection becomes the link that its first request for [`LINK_PATH`] asks
//! for, driven by the link's own task. That takes a dialler that has proven who it is, and is
//! refused otherwise. Every other path that is served leaves the connection as it is, for more of
//! them, and no link comes of it any more; what is not served is answered as unimplemented.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;

use super::connection::{Dialler, go_on, turn_away};
use super::guest;
use super::inlet::{First, Inlet};
use crate::error::{FailureKind, TransportError};
use crate::ports::RawLink;
use crate::transport::exchange::{self, EXCHANGE_PATH};
use crate::transport::failure;
use crate::transport::grpc::{
    CONNECTION_WINDOW, Driver, HTTP2_FRAME_BYTES, LINK_PATH, LinkOffer, MAX_HEADER_BYTES, Opened,
    Outgoing, PIPE_PATH, SEND_BUFFER_BYTES, Spawner, serve_link, serve_pipe,
};
use crate::transport::pipe::Pipe;
use crate::transport::shared::TARGET;
use crate::transport::tls::Proven;

/// Maximum number of streams that a peer may have open at once on one connection: its link, and a
/// few calls.
const MAX_STREAMS: u32 = 8;
/// The same for a proxy, which sends the pipes of many peers over one connection.
const MAX_PROXY_STREAMS: u32 = 64;
/// Bytes of a stream that a proxy may send ahead. All streams together just fill the connection's window, so that
/// one that is not read never holds up another.
const PROXY_STREAM_WINDOW: u32 = CONNECTION_WINDOW / MAX_PROXY_STREAMS;

/// Serves requests until the first that this port answers, and makes the link that it asks for or lets the
/// connection go on.
///
/// # Errors
/// `Identity` where a link is asked for without a proof; that of the connection where it broke.
pub(super) async fn serve(
    inlet: Inlet,
    first: oneshot::Receiver<First>,
    stream: impl Pipe,
    dialler: Dialler,
) -> Result<Option<RawLink>, TransportError> {
    let Outgoing { sink, frames, halves, ended } = Outgoing::new();
    let claim = match dialler {
        Dialler::Proven(_) | Dialler::Unknown => None,
        Dialler::Believed => Some(inlet.shared().identity.peer_id()),
    };
    let (offer, mut opened) = LinkOffer::new(frames, claim);
    let (refused, mut unproven) = oneshot::channel();
    let link = match dialler {
        Dialler::Unknown => Link::Refused(refused),
        Dialler::Proven(_) | Dialler::Believed => Link::Offered(offer),
    };
    let link = Arc::new(Mutex::new(Some(link)));
    let service = Service { inlet: inlet.clone(), proven: dialler.proven(), link };
    let spawner = Spawner::default();
    let mut builder = http2::Builder::new(spawner.clone());
    builder
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    if let Dialler::Proven(_) = dialler {
        builder.max_concurrent_streams(MAX_STREAMS);
    } else {
        builder
            .max_concurrent_streams(MAX_PROXY_STREAMS)
            .initial_stream_window_size(PROXY_STREAM_WINDOW);
    }
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut driver = Driver::new(connection, spawner);
    let opened: Opened = tokio::select! {
        biased;
        Ok(opened) = &mut opened => opened,
        Ok(first) = first => {
            if first == First::Refused {
                driver.goodbye(http2::Connection::graceful_shutdown);
                return Err(turn_away(driver).await);
            }
            go_on(inlet, driver, |driver| driver.get_mut().goodbye(http2::Connection::graceful_shutdown))?;
            return Ok(None);
        }
        Ok(()) = &mut unproven => {
            driver.goodbye(http2::Connection::graceful_shutdown);
            // The dialler is told why; the caller bounds the time.
            let _ = driver.await;
            let message = "a link needs a certificate of the dialler, and none was shown";
            return Err(TransportError::new(FailureKind::Identity, message));
        }
        over = &mut driver => {
            let message = "the connection ended without a stream";
            return Err(match over {
                Ok(()) => TransportError::new(FailureKind::Closed, message),
                Err(error) => failure::from_hyper(message, error),
            });
        }
    };
    let proven = dialler.proven();
    let remote = proven.map(|proven| proven.peer).or(opened.claim).ok_or_else(|| {
        TransportError::new(FailureKind::Protocol, "the remote states no peer id")
    })?;
    // The handshake is over; the service keeps the inlet for as long as the link lives.
    drop(inlet.take_slot());
    tokio::spawn(driver.run(ended, http2::Connection::graceful_shutdown));
    let way = inlet.way(crate::types::TransportKind::GrpcStream);
    Ok(Some(opened.into_link(sink, halves, remote, way, proven)))
}

/// Answer to a request for a link, given once.
enum Link {
    Offered(LinkOffer),
    Refused(oneshot::Sender<()>),
}

/// Serves one connection.
#[derive(Clone)]
struct Service {
    inlet: Inlet,
    /// What the handshake proved.
    proven: Option<Proven>,
    link: Arc<Mutex<Option<Link>>>,
}

impl Service {
    /// The table of paths. A proxy may put a path of its own in front.
    async fn route(self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if path == LINK_PATH {
            let link = self.link.lock().unwrap_or_else(PoisonError::into_inner).take();
            match link {
                Some(Link::Offered(offer)) => serve_link(request, Some(offer)).await,
                None => serve_link(request, None).await,
                Some(Link::Refused(refused)) => {
                    // Nobody listens where the connection is over.
                    let _ = refused.send(());
                    Status::unauthenticated("a link needs a certificate").into_http()
                }
            }
        } else if path.ends_with(PIPE_PATH) {
            serve_pipe(request, &self.inlet).await
        } else if path.ends_with(EXCHANGE_PATH) {
            exchange::serve_unary(request, &self.inlet).await
        } else if let Some(guest) = self.inlet.shared().guests.find(path) {
            let visitor = guest::visitor(&self.inlet, self.proven, true);
            guest::serve(&*guest, request, visitor, &self.inlet).await
        } else {
            tracing::debug!(target: TARGET, path, "no such method");
            Status::unimplemented("no such method").into_http()
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.clone().route(request).map(Ok).boxed()
    }
}
