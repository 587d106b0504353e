//! Listening: accept, find out what is spoken, hand over.
//!
//! Contract: each accepted connection is a task in the listener's set until its link is open or its
//! first request has come, at most `handshake_timeout` later. At most `max_handshakes` of them
//! exist, together with the handshakes inside pipes, and at most `max_handshakes_per_ip` from one
//! host; connections beyond, and those from a shunned host, are closed unread. What a task or the
//! handshake in a pipe results in is what `accept` returns; of the latter a few wait, each in its
//! slot. Connections that go on after their first request are bounded by themselves: see
//! [`connection`]. Requests that are nothing of a link, [`Guest`]s answer. Dropping the listener
//! drops the sockets, the guests and all that is no link; open links have tasks of their own.
//!
//! One port serves all: TLS with ALPN `h2` or `http/1.1`, and what offers none is told by its first
//! bytes. Behind the other port, `http`, stands a proxy: no TLS, and the address that is seen is
//! not the peer's, so neither bounds of a host nor shunning apply there. What a relay brings comes in as
//! at the first port, with the latter exception and room of its own.

mod connection;
mod guest;
mod http1;
mod http2;
mod inlet;
mod shunned_hosts;
mod slots;
mod sniff;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
#[cfg(unix)]
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

pub(in crate::transport) use self::guest::Guests;
pub(crate) use self::guest::{Guest, Visitor};
pub(in crate::transport) use self::inlet::{Busy, Inlet};
use self::inlet::{Entrance, Handshaken, Port};
pub(in crate::transport) use self::shunned_hosts::ShunnedHosts;
use self::slots::Full;
pub(in crate::transport) use self::slots::Slot;
use super::shared::{Shared, TARGET};
use super::tcp;
use crate::error::{FailureKind, TransportError};
use crate::listen::listen_on;
use crate::ports::{Accepted, Listener, RawLink};
use crate::types::{TransportKind, canonical};

/// Delay after the operating system refused to accept, which it does again at once while, say, no
/// file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Maximum number of handshakes in pipes that are over and not told yet.
const RESULTS: usize = 16;

/// Accepts links on one TCP port, and on another for what a proxy passes on.
#[derive(Debug)]
pub(in crate::transport) struct PortListener {
    direct: Socket,
    proxied: Option<Socket>,
    relayed: Relayed,
    handshakes: JoinSet<Done>,
    in_pipes: mpsc::Receiver<Handshaken>,
    _listening: Arc<TransportKind>,
    /// The last accept failed: pause before the next.
    pausing: bool,
}

impl Drop for PortListener {
    fn drop(&mut self) {
        self.direct.port.shared.guests.clear();
    }
}

#[derive(Debug)]
struct Socket {
    listener: TcpListener,
    address: SocketAddr,
    port: Arc<Port>,
}

impl Socket {
    fn bind(bind: SocketAddr, port: Port) -> Result<Self, TransportError> {
        let local = |source: io::Error| {
            let message = format!("cannot listen on {bind}");
            TransportError::with_source(FailureKind::Local, message, source)
        };
        let listener = listen_on(bind).map_err(local)?;
        // Not before it is bound: a second node on the port is to be refused.
        #[cfg(unix)]
        if port.shared.options.shares_port && port.entrance == Entrance::Direct {
            SockRef::from(&listener).set_reuse_port(true).map_err(local)?;
        }
        let address = listener.local_addr().map_err(local)?;
        let is_proxied = port.entrance == Entrance::Proxied;
        tracing::info!(target: TARGET, %address, is_proxied, "listening");
        Ok(Self { listener, address, port: Arc::new(port) })
    }

    /// Next connection of a port that may not exist.
    async fn accept(this: Option<&Self>) -> (io::Result<(TcpStream, SocketAddr)>, Arc<Port>) {
        match this {
            None => std::future::pending().await,
            Some(socket) => {
                let accepted = socket.listener.accept().await;
                // A socket for both families shows an IPv4 address in its IPv6 spelling.
                let accepted = accepted.map(|(stream, address)| (stream, canonical(address)));
                (accepted, Arc::clone(&socket.port))
            }
        }
    }
}

/// What relays bring.
#[derive(Debug)]
struct Relayed {
    incoming: mpsc::Receiver<(tcp::Stream, SocketAddr)>,
    port: Arc<Port>,
}

impl PortListener {
    pub(in crate::transport) fn bind(
        shared: &Arc<Shared>,
        rung: TransportKind,
        bind: SocketAddr,
    ) -> Result<Self, TransportError> {
        let listening = shared.listen(rung)?;
        let (results, in_pipes) = mpsc::channel(RESULTS);
        let port = |entrance| Port::new(Arc::clone(shared), entrance, results.clone());
        let direct = Socket::bind(bind, port(Entrance::Direct))?;
        let proxied = match shared.options.http {
            None => None,
            Some(bind) => Some(Socket::bind(bind, port(Entrance::Proxied))?),
        };
        let incoming = shared.routes.relays.listen();
        let relayed = Relayed { incoming, port: Arc::new(port(Entrance::Relayed)) };
        let handshakes = JoinSet::new();
        Ok(Self {
            direct,
            proxied,
            relayed,
            handshakes,
            in_pipes,
            _listening: listening,
            pausing: false,
        })
    }

    /// Starts a handshake, or says why there is none.
    fn admit(
        &mut self,
        port: Arc<Port>,
        stream: tcp::Stream,
        address: SocketAddr,
    ) -> Result<(), TransportError> {
        let shared = Arc::clone(&port.shared);
        if !port.entrance.hides_address() && shared.shunned.contains(address.ip()) {
            return Err(TransportError::new(FailureKind::Refused, "strangers come from this host"));
        }
        let slot = port.handshake_slot(address.ip()).map_err(|full| {
            let message = match full {
                Full::Total(limit) => format!("{limit} handshakes are under way"),
                Full::OfHost(limit) => {
                    format!("{limit} handshakes from this address are under way")
                }
            };
            TransportError::new(FailureKind::Refused, message)
        })?;
        let told = (!port.entrance.hides_address()).then_some(address);
        self.handshakes.spawn(async move {
            let limit = shared.options.handshake_timeout;
            let handshake = connection::handshake(port, stream, address, slot);
            let result = timeout(limit, handshake).await.unwrap_or_else(|elapsed| {
                let message = format!("no link within {limit:?}");
                Err(TransportError::with_source(FailureKind::Timeout, message, elapsed))
            });
            (told, result)
        });
        Ok(())
    }
}

#[async_trait]
impl Listener for PortListener {
    fn local_addr(&self) -> SocketAddr {
        self.direct.address
    }

    fn http_addr(&self) -> Option<SocketAddr> {
        self.proxied.as_ref().map(|socket| socket.address)
    }

    async fn accept(&mut self) -> Accepted {
        loop {
            let (accepted, port) = tokio::select! {
                // Finished handshakes first: a flood of connections must not delay them.
                biased;
                Some(done) = self.handshakes.join_next() => match finished(done) {
                    Some(accepted) => return accepted,
                    None => continue,
                },
                Some((address, result)) = self.in_pipes.recv() => {
                    return match result {
                        Ok(link) => opened(address, link),
                        Err(error) => failed(address, error),
                    };
                }
                () = sleep(ACCEPT_PAUSE), if self.pausing => {
                    self.pausing = false;
                    continue;
                }
                accepted = Socket::accept(Some(&self.direct)), if !self.pausing => accepted,
                accepted = Socket::accept(self.proxied.as_ref()), if !self.pausing => accepted,
                Some((stream, address)) = self.relayed.incoming.recv() => {
                    if let Err(error) = self.admit(Arc::clone(&self.relayed.port), stream, address) {
                        return failed(None, error);
                    }
                    continue;
                }
            };
            match accepted {
                Ok((stream, address)) => {
                    let told = (!port.entrance.hides_address()).then_some(address);
                    let admitted =
                        tcp::tuned(stream).and_then(|stream| self.admit(port, stream, address));
                    if let Err(error) = admitted {
                        return failed(told, error);
                    }
                }
                Err(error) => {
                    self.pausing = true;
                    let message = "the operating system accepts no connection";
                    let kind = FailureKind::Local;
                    return failed(None, TransportError::with_source(kind, message, error));
                }
            }
        }
    }
}

type Done = (Option<SocketAddr>, Result<Option<RawLink>, TransportError>);

/// What a finished handshake is; `None` for a connection that serves requests from now on.
fn finished(done: Result<Done, JoinError>) -> Option<Accepted> {
    match done {
        Ok((address, Ok(link))) => link.map(|link| opened(address, link)),
        Ok((address, Err(error))) => Some(failed(address, error)),
        Err(error) => {
            let message = "a handshake panicked";
            Some(failed(None, TransportError::with_source(FailureKind::Local, message, error)))
        }
    }
}

fn opened(address: Option<SocketAddr>, link: RawLink) -> Accepted {
    tracing::debug!(target: TARGET, peer = %link.remote, ?address, kind = %link.kind, "accepted");
    Accepted::Link(link)
}

fn failed(address: Option<SocketAddr>, error: TransportError) -> Accepted {
    tracing::debug!(target: TARGET, ?address, kind = %error.kind, reason = %error, "not accepted");
    Accepted::Failed { address, error }
}
