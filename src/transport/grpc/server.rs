//! Listening: accept, handshake, hand over.
//!
//! Contract: each accepted connection is a task in the listener's set until its link is open, at
//! most `handshake_timeout` later, and at most `max_handshakes` of them exist, of which at most
//! `max_handshakes_per_ip` from one address; connections beyond, and those from a shunned host, are
//! closed unread. A task's result
//! is what `accept` returns, so nothing is queued apart from the tasks themselves. Dropping the
//! listener drops the socket and the set at once; open links have tasks of their own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::failure;
use super::handshake_slots::HandshakeSlots;
use super::link::{
    Driver, HTTP2_FRAME_BYTES, LinkStream, MAX_HEADER_BYTES, Outgoing, SEND_BUFFER_BYTES, Spawner,
};
use super::service::Service;
use super::shared::{Security, Shared, TARGET};
use crate::error::{FailureKind, TransportError};
use crate::ports::{Accepted, Listener, RawLink};
use crate::transport::metered::{Metered, Traffic};
use crate::transport::tls::Proven;
use crate::transport::{tcp, tls};
use crate::types::TransportKind;

/// Maximum number of streams that a peer may have open at once on one connection: its link, and a
/// few calls.
const MAX_STREAMS: u32 = 8;
/// Delay after the operating system refused to accept, which it does again at once while, say, no
/// file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts links on one TCP port.
#[derive(Debug)]
pub(super) struct GrpcListener {
    shared: Arc<Shared>,
    socket: TcpListener,
    address: SocketAddr,
    handshakes: JoinSet<(SocketAddr, Result<RawLink, TransportError>)>,
    slots: Arc<HandshakeSlots>,
    /// The last accept failed: pause before the next.
    pausing: bool,
}

impl GrpcListener {
    pub(super) async fn bind(
        shared: Arc<Shared>,
        bind: SocketAddr,
    ) -> Result<Self, TransportError> {
        let local = |source: io::Error| {
            let message = format!("cannot listen on {bind}");
            TransportError::with_source(FailureKind::Local, message, source)
        };
        let socket = TcpListener::bind(bind).await.map_err(local)?;
        let address = socket.local_addr().map_err(local)?;
        tracing::info!(target: TARGET, %address, kind = %TransportKind::GrpcStream, "listening");
        let slots = Arc::default();
        Ok(Self { shared, socket, address, handshakes: JoinSet::new(), slots, pausing: false })
    }

    /// Starts a handshake, or says why there is none.
    fn admit(&mut self, stream: TcpStream, address: SocketAddr) -> Result<(), TransportError> {
        let refused = |limit: u32, whose: &str| {
            let message = format!("{limit} handshakes {whose}are under way");
            TransportError::new(FailureKind::Refused, message)
        };
        if self.shared.shunned.contains(address.ip()) {
            return Err(TransportError::new(FailureKind::Refused, "strangers come from this host"));
        }
        let options = &self.shared.options;
        if self.handshakes.len() >= at_least_one(options.max_handshakes) {
            return Err(refused(options.max_handshakes, ""));
        }
        let slot = HandshakeSlots::enter(&self.slots, address.ip(), options.max_handshakes_per_ip)
            .ok_or_else(|| refused(options.max_handshakes_per_ip, "from this address "))?;
        let shared = Arc::clone(&self.shared);
        self.handshakes.spawn(async move {
            let _slot = slot;
            let limit = shared.options.handshake_timeout;
            let result = timeout(limit, handshake(&shared, stream, address)).await;
            let result = result.unwrap_or_else(|elapsed| {
                let message = format!("no link within {limit:?}");
                Err(TransportError::with_source(FailureKind::Timeout, message, elapsed))
            });
            (address, result)
        });
        Ok(())
    }
}

#[async_trait]
impl Listener for GrpcListener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&mut self) -> Accepted {
        loop {
            tokio::select! {
                // Finished handshakes first: a flood of connections must not delay them.
                biased;
                Some(done) = self.handshakes.join_next() => return finished(done),
                () = sleep(ACCEPT_PAUSE), if self.pausing => self.pausing = false,
                accepted = self.socket.accept(), if !self.pausing => match accepted {
                    Ok((stream, address)) => {
                        if let Err(error) = self.admit(stream, address) {
                            return failed(Some(address), error);
                        }
                    }
                    Err(error) => {
                        self.pausing = true;
                        let message = "the operating system accepts no connection";
                        let kind = FailureKind::Local;
                        return failed(None, TransportError::with_source(kind, message, error));
                    }
                },
            }
        }
    }
}

fn finished(done: Result<(SocketAddr, Result<RawLink, TransportError>), JoinError>) -> Accepted {
    match done {
        Ok((address, Ok(link))) => {
            tracing::debug!(
                target: TARGET, peer = %link.remote, %address, kind = %link.kind, "accepted"
            );
            Accepted::Link(link)
        }
        Ok((address, Err(error))) => failed(Some(address), error),
        Err(error) => {
            let message = "a handshake panicked";
            failed(None, TransportError::with_source(FailureKind::Local, message, error))
        }
    }
}

fn failed(address: Option<SocketAddr>, error: TransportError) -> Accepted {
    tracing::debug!(target: TARGET, ?address, kind = %error.kind, reason = %error, "not accepted");
    Accepted::Failed { address, error }
}

async fn handshake(
    shared: &Shared,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<RawLink, TransportError> {
    tcp::tune(&stream).map_err(|source| {
        TransportError::with_source(FailureKind::Closed, "cannot set socket options", source)
    })?;
    let (stream, traffic) = Metered::new(stream);
    match &shared.security {
        Security::Tls(identity) => {
            let stream = BufReader::with_capacity(tls::READ_BUFFER_BYTES, stream);
            let stream = TlsAcceptor::from(identity.server_config())
                .accept(stream)
                .await
                .map_err(|e| failure::from_accepted_tls("the TLS handshake failed", e))?;
            let proven = identity.proven(stream.get_ref().1)?;
            open(shared, stream, traffic, address, Some(proven)).await
        }
        Security::Plaintext => open(shared, stream, traffic, address, None).await,
    }
}

/// HTTP/2 until the stream is open. Without `proven`, the peer is who it claims to be.
async fn open<S>(
    shared: &Shared,
    stream: S,
    traffic: Traffic,
    address: SocketAddr,
    proven: Option<Proven>,
) -> Result<RawLink, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Outgoing { sink, frames, halves, ended } = Outgoing::new();
    let claim = proven.is_none().then_some(shared.identity.peer_id());
    let (service, mut opened) = Service::new(frames, claim);
    let spawner = Spawner::default();
    let connection = http2::Builder::new(spawner.clone())
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut driver = Driver::new(connection, spawner);
    let opened = tokio::select! {
        biased;
        Ok(opened) = &mut opened => opened,
        over = &mut driver => {
            let message = "the connection ended without a stream";
            return Err(match over {
                Ok(()) => TransportError::new(FailureKind::Closed, message),
                Err(error) => failure::from_hyper(message, error),
            });
        }
    };
    let remote = proven.map(|proven| proven.peer).or(opened.claim).ok_or_else(|| {
        TransportError::new(FailureKind::Protocol, "the remote states no peer id")
    })?;
    tokio::spawn(driver.run(ended, http2::Connection::graceful_shutdown));
    let stream = Box::pin(LinkStream::new(opened.incoming, halves));
    let kind = TransportKind::GrpcStream;
    let link = RawLink::new(remote, kind, Some(address), Box::pin(sink), stream);
    let certified = proven.is_some_and(|proven| proven.certified);
    let binding = proven.map(|proven| proven.binding);
    let (received, taken) = (Some(traffic.received), Some(traffic.taken));
    Ok(RawLink { received, taken, binding, certified, ..link })
}

fn at_least_one(limit: u32) -> usize {
    usize::try_from(limit.max(1)).unwrap_or(usize::MAX)
}
