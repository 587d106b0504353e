//! Connections to what is no peer: HTTP at an address that somebody named.
//!
//! Contract: nobody is authenticated, whatever the TLS; the caller checks what it is told. Of the addresses of a
//! name only those are dialled that the caller allows, as they resolve at that moment. The caller bounds
//! the time; what is dropped takes its connection with it.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::body::Body;

use super::exchange::{Unread, Whole, read_body};
use super::grpc::Requests;
use super::outer::{self, Alpn, OuterStream};
use super::race::race;
use super::shared::Shared;
use super::{GrpcTransport, failure, grpc, tcp};
use crate::error::{FailureKind, TransportError};
use crate::types::Endpoint;

/// Maximum number of headers of an answer.
const MAX_HEADERS: usize = 64;
/// Maximum number of bytes of an answer's head, and of what is buffered in each direction.
const BUFFER_BYTES: usize = 64 * 1024;
/// Maximum time for name resolution and TCP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Way out to HTTP servers, by the same proxy as to peers. It does not keep the transport alive, whose guest may
/// have it.
#[derive(Debug, Clone)]
pub(crate) struct Outbound(Weak<Shared>);

/// HTTP/2 connection, open for as long as this lives.
#[derive(Debug)]
pub(crate) struct Http2 {
    requests: http2::SendRequest<Body>,
    origin: Uri,
    _alive: oneshot::Sender<()>,
}

impl Http2 {
    /// Service that one request after the other is sent through.
    pub(crate) fn requests(&self) -> Requests {
        Requests(self.requests.clone())
    }

    /// Scheme and authority of its requests.
    pub(crate) fn origin(&self) -> Uri {
        self.origin.clone()
    }

    /// Reports whether the connection is over.
    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }
}

impl GrpcTransport {
    /// Way out to HTTP servers that are no peers.
    pub(crate) fn outbound(&self) -> Outbound {
        Outbound(Arc::downgrade(&self.shared()))
    }
}

impl Outbound {
    /// Opens an HTTP/2 connection to an endpoint of the scheme `http` or `https`.
    ///
    /// # Errors
    /// [`TransportError`].
    pub(crate) async fn http2(
        &self,
        endpoint: &Endpoint,
        may: impl Fn(IpAddr) -> bool,
    ) -> Result<Http2, TransportError> {
        let stream = self.connect(endpoint, Alpn::H2, may).await?;
        let (requests, driver) = grpc::handshake(stream).await?;
        let (alive, ended) = oneshot::channel();
        tokio::spawn(driver.run_while(ended, requests.clone()));
        Ok(Http2 { requests, origin: grpc::origin(endpoint)?, _alive: alive })
    }

    /// Makes one HTTP/1.1 request, whose URI is path and query, on a connection of its own; the answer has at most
    /// `max` bytes.
    ///
    /// # Errors
    /// [`TransportError`].
    pub(crate) async fn http1(
        &self,
        endpoint: &Endpoint,
        may: impl Fn(IpAddr) -> bool,
        mut request: Request<Bytes>,
        max: usize,
    ) -> Result<Response<Bytes>, TransportError> {
        let stream = self.connect(endpoint, Alpn::Http1, may).await?;
        let broke = |error| failure::from_hyper("the request failed", error);
        let (mut requests, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(BUFFER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broke)?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Whoever made the request is told.
            let _ = connection.await;
        });
        let origin = grpc::origin(endpoint)?;
        let authority = origin.authority().map_or("", |authority| authority.as_str());
        let host = http::HeaderValue::from_str(authority).map_err(|source| {
            let message = format!("{endpoint} cannot stand in a request");
            TransportError::with_source(FailureKind::Unsupported, message, source)
        })?;
        request.headers_mut().insert(http::header::HOST, host);
        requests.ready().await.map_err(broke)?;
        let response = requests.send_request(request.map(Whole::from)).await.map_err(broke)?;
        let (head, body) = response.into_parts();
        let bytes = read_body(body, max).await.map_err(|unread| match unread {
            Unread::TooLarge => {
                TransportError::new(FailureKind::Protocol, "an answer is larger than it may be")
            }
            Unread::Broken(error) => failure::from_hyper("an answer broke off", error),
        })?;
        Ok(Response::from_parts(head, bytes))
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        alpn: Alpn,
        may: impl Fn(IpAddr) -> bool,
    ) -> Result<OuterStream, TransportError> {
        let shared = &*self
            .0
            .upgrade()
            .ok_or_else(|| TransportError::new(FailureKind::Local, "the transport is gone"))?;
        let limit = tcp::Limit::from_now(CONNECT_TIMEOUT);
        let mut addresses = tcp::resolve(&shared.routes, endpoint, &[], &limit).await?;
        // By way of a proxy it is the proxy that resolves, and the proxy's rules that hold.
        if shared.routes.proxy(endpoint).is_none() {
            addresses.retain(|address| may(address.ip()));
        }
        race(addresses, |address| {
            let limit = limit.attempt();
            Box::pin(async move {
                let connected = outer::connect(shared, endpoint, address, &limit, alpn).await?;
                Ok(connected.0)
            })
        })
        .await
    }
}
