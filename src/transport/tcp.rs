//! TCP as every transport here wants it: all addresses of a name, no delay, keep-alive.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{FailureKind, TransportError};
use crate::types::{Endpoint, Host};

/// Delay before the next address of a name is tried beside the ones under way (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// Maximum number of addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;
/// Delay, and then interval, at which the kernel asks a silent connection whether the other side is
/// still there. The node has pings of its own; this one frees sockets of connections that never
/// became links.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Number of unsent bytes in the kernel above which a socket is not writable. The kernel would
/// otherwise take megabytes that later, more urgent frames then wait behind.
#[cfg(target_os = "linux")]
const UNSENT_LOW_WATER: u32 = 128 * 1024;

/// Connects to the first address of `endpoint` that answers. Names are resolved anew at every
/// call.
///
/// Cancel safe: no attempt outlives the future.
///
/// # Errors
/// `Unreachable`, `Timeout` after `limit` for all of it, or `Local`.
pub(super) async fn connect(
    endpoint: &Endpoint,
    limit: Duration,
) -> Result<(TcpStream, SocketAddr), TransportError> {
    let deadline = Instant::now() + limit;
    let connected = async {
        let addresses = resolve(endpoint).await?;
        connect_first(endpoint, addresses).await
    };
    timeout_at(deadline, connected).await.unwrap_or_else(|elapsed| {
        let message = format!("no connection to {endpoint} within {limit:?}");
        Err(TransportError::with_source(FailureKind::Timeout, message, elapsed))
    })
}

/// Sets what every connection needs, accepted ones too.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT_LOW_WATER)?;
    Ok(())
}

async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, TransportError> {
    let name = match endpoint.host() {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, endpoint.port())]),
        Host::Name(name) => name,
    };
    let found = lookup_host((name.as_str(), endpoint.port())).await.map_err(|source| {
        let message = format!("cannot resolve {name}");
        TransportError::with_source(FailureKind::Unreachable, message, source)
    })?;
    let found: Vec<_> = found.take(MAX_ADDRESSES).collect();
    if found.is_empty() {
        let message = format!("{name} has no addresses");
        return Err(TransportError::new(FailureKind::Unreachable, message));
    }
    Ok(alternate_families(found))
}

/// Keeps the resolver's order within a family and its favourite first, but never tries one family
/// twice in a row while the other has addresses left: one whole family is often a black hole.
fn alternate_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let total = addresses.len();
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::with_capacity(total);
    while ordered.len() < total {
        ordered.extend(first.next());
        ordered.extend(second.next());
    }
    ordered
}

async fn connect_first(
    endpoint: &Endpoint,
    addresses: Vec<SocketAddr>,
) -> Result<(TcpStream, SocketAddr), TransportError> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(async move {
                let stream = TcpStream::connect(address).await?;
                tune(&stream)?;
                Ok((stream, address))
            });
        }
        tokio::select! {
            done = attempts.next() => match done {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(error)) => last_error = Some(error),
                None => break,
            },
            () = sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
    let message = format!("cannot connect to {endpoint}");
    Err(match last_error {
        Some(error) => TransportError::with_source(connect_failure(&error), message, error),
        None => TransportError::new(FailureKind::Unreachable, message),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_and_keep_their_order() {
        let parse = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        };
        let given = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        let wanted = parse(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]);
        assert_eq!(alternate_families(given), wanted);
        assert_eq!(alternate_families(Vec::new()), Vec::new());
    }
}
