//! TCP as every transport here wants it: the addresses of a name, or the tunnel of a proxy, no delay,
//! keep-alive.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::connect;
use super::outer::OuterStream;
use super::relays::Relays;
use super::shared::TARGET;
use crate::config::Proxy;
use crate::error::{FailureKind, TransportError};
use crate::types::{Endpoint, Host, alternate_families, canonical};

/// Maximum number of addresses of a name that are tried in one dial.
const MAX_ADDRESSES: usize = 32;
/// Delay, and then interval, at which the kernel asks a silent connection whether the other side is
/// still there. The node has pings of its own; this one frees sockets of connections that never
/// became links.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Number of unsent bytes in the kernel above which a socket is not writable. The kernel would
/// otherwise take megabytes that later, more urgent frames then wait behind.
#[cfg(target_os = "linux")]
const UNSENT_LOW_WATER: u32 = 128 * 1024;

/// TCP connection, or TLS in one where a relay wants that.
pub(crate) type Stream = OuterStream<TcpStream>;

/// Source of the addresses of names.
#[derive(Debug, Clone, Default)]
pub(super) enum Names {
    /// The operating system.
    #[default]
    System,
    /// A table, for tests.
    #[cfg(test)]
    Table(std::collections::BTreeMap<String, Vec<std::net::IpAddr>>),
}

/// Ways to endpoints: their addresses, the proxy that is asked for a tunnel to them, or a relay that dials
/// them.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes {
    pub(super) names: Names,
    pub(super) proxy: Option<Proxy>,
    pub(super) relays: Relays,
}

impl Routes {
    /// The proxy that this is dialled by way of, if it is.
    pub(super) fn proxy(&self, endpoint: &Endpoint) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|proxy| proxy.carries(endpoint))
    }

    /// The peer's address, of one that was dialled; unknown where a proxy or a relay stands between.
    pub(super) fn remote(&self, endpoint: &Endpoint, dialled: SocketAddr) -> Option<SocketAddr> {
        let is_known = endpoint.is_direct()
            && self.proxy(endpoint).is_none()
            && !self.is_relayed(endpoint, dialled);
        is_known.then_some(dialled)
    }

    /// Reports whether a relay in use dials this, since it may be a relayed address.
    fn is_relayed(&self, endpoint: &Endpoint, address: SocketAddr) -> bool {
        endpoint.is_direct() && self.proxy(endpoint).is_none() && self.relays.serve(address.ip())
    }

    /// Connects by way of a relay; `None`: the address is at none, or the relay cannot reach it.
    async fn by_relay(&self, endpoint: &Endpoint, address: SocketAddr) -> Option<Stream> {
        if !self.is_relayed(endpoint, address) {
            return None;
        }
        let dialled = self.relays.dial(address).await?;
        // What fails may be no relayed address: a server has other ports.
        dialled
            .inspect_err(|error| {
                tracing::debug!(target: TARGET, %address, reason = %error, "not dialled by a relay");
            })
            .ok()
    }
}

/// Time that a dial has for name resolution and TCP.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    span: Duration,
    until: Instant,
    /// Told by [`connect`]; each attempt has its own.
    connected: Arc<Notify>,
}

impl Limit {
    pub(super) fn from_now(span: Duration) -> Self {
        Self { span, until: Instant::now() + span, connected: Arc::default() }
    }

    /// The same time for one of several attempts.
    pub(super) fn attempt(&self) -> Self {
        Self { connected: Arc::default(), ..*self }
    }

    /// Does `work`, which has `span` from when its TCP connection is there.
    ///
    /// # Errors
    /// `Timeout`, or those of `work`.
    pub(super) async fn then<T>(
        &self,
        endpoint: &Endpoint,
        span: Duration,
        work: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        let late = async {
            self.connected.notified().await;
            sleep(span).await;
        };
        tokio::select! {
            biased;
            done = work => done,
            () = late => {
                let message = format!("{endpoint} did not complete the handshake within {span:?}");
                Err(TransportError::new(FailureKind::Timeout, message))
            }
        }
    }

    async fn keep<T>(
        &self,
        endpoint: &Endpoint,
        work: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        timeout_at(self.until, work).await.unwrap_or_else(|elapsed| {
            let message = format!("no connection to {endpoint} within {:?}", self.span);
            Err(TransportError::with_source(FailureKind::Timeout, message, elapsed))
        })
    }
}

/// Returns the addresses to be dialled, in order: those of `endpoint`, without those to `avoid`, or all
/// of its proxy. Names are resolved anew at every call.
///
/// # Errors
/// `Unreachable`, `Timeout`, or `NoneLeft` when all are to be avoided.
pub(super) async fn resolve(
    routes: &Routes,
    endpoint: &Endpoint,
    avoid: &[SocketAddr],
    limit: &Limit,
) -> Result<Vec<SocketAddr>, TransportError> {
    // No address of a proxy is one of a peer that was to be left out.
    let (dialled, avoid) = match routes.proxy(endpoint) {
        Some(proxy) => (proxy.endpoint(), &[][..]),
        None => (endpoint, avoid),
    };
    let found = limit.keep(endpoint, lookup(&routes.names, dialled)).await?;
    let mut addresses: Vec<SocketAddr> = Vec::with_capacity(found.len());
    for address in found.into_iter().map(canonical) {
        if !avoid.contains(&address) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        let message = format!("no other address of {endpoint} is left");
        return Err(TransportError::new(FailureKind::NoneLeft, message));
    }
    let mut addresses = alternate_families(addresses, SocketAddr::is_ipv6);
    addresses.truncate(MAX_ADDRESSES);
    Ok(addresses)
}

/// Connects to `endpoint` by one of the addresses that [`resolve`] gave.
///
/// Cancel safe: no attempt outlives the future.
///
/// # Errors
/// `Unreachable`, `Timeout`, or `Local`; those of [`connect::tunnel`] by way of a proxy.
pub(super) async fn connect(
    routes: &Routes,
    endpoint: &Endpoint,
    address: SocketAddr,
    limit: &Limit,
) -> Result<Stream, TransportError> {
    let proxy = routes.proxy(endpoint);
    let connecting = async {
        if let Some(stream) = routes.by_relay(endpoint, address).await {
            return Ok(stream);
        }
        let mut stream = open(address).await.map_err(|error| {
            let message = match proxy {
                Some(proxy) => format!("cannot connect to the proxy {}", proxy.endpoint()),
                None => format!("cannot connect to {endpoint}"),
            };
            TransportError::with_source(connect_failure(&error), message, error)
        })?;
        if let Some(proxy) = proxy {
            connect::tunnel(&mut stream, proxy, endpoint).await?;
        }
        Ok(Stream::Plain(stream))
    };
    let stream = limit.keep(endpoint, connecting).await?;
    limit.connected.notify_one();
    Ok(stream)
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream)?;
    Ok(stream)
}

/// A connection that was accepted, with what every connection needs.
///
/// # Errors
/// `Closed`.
pub(super) fn tuned(stream: TcpStream) -> Result<Stream, TransportError> {
    tune(&stream).map_err(|source| {
        TransportError::with_source(FailureKind::Closed, "cannot set socket options", source)
    })?;
    Ok(Stream::Plain(stream))
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT_LOW_WATER)?;
    Ok(())
}

async fn lookup(names: &Names, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, TransportError> {
    let (name, port) = match endpoint.host() {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, endpoint.port())]),
        Host::Name(name) => (name, endpoint.port()),
    };
    let found: Vec<_> = match names {
        Names::System => lookup_host((name.as_str(), port))
            .await
            .map_err(|source| {
                let message = format!("cannot resolve {name}");
                TransportError::with_source(FailureKind::Unreachable, message, source)
            })?
            .collect(),
        #[cfg(test)]
        Names::Table(table) => {
            let found = table.get(name).into_iter().flatten();
            found.map(|ip| SocketAddr::new(*ip, port)).collect()
        }
    };
    if found.is_empty() {
        let message = format!("{name} has no addresses");
        return Err(TransportError::new(FailureKind::Unreachable, message));
    }
    Ok(found)
}

fn connect_failure(error: &io::Error) -> FailureKind {
    match error.kind() {
        io::ErrorKind::TimedOut => FailureKind::Timeout,
        io::ErrorKind::PermissionDenied | io::ErrorKind::OutOfMemory => FailureKind::Local,
        // `EMFILE` and `ENFILE` have no stable name.
        _ if cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24)) => FailureKind::Local,
        _ => FailureKind::Unreachable,
    }
}
