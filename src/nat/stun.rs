//! Asking a STUN server (RFC 8489) for the address it sees.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::select_ok;
use stunclient::{Error, StunClient};
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use crate::error::{EndpointError, ProbeError};
use crate::ports::NatProber;
use crate::types::{Endpoint, FailureKind, Host};

const DEFAULT_PORT: u16 = 3478;

/// Maximum time for a whole probe, with the resolution of the name.
const DEADLINE: Duration = Duration::from_secs(5);

/// Delay before a question is repeated, since UDP loses datagrams: the one that RFC 8489 starts
/// with.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum number of addresses of a name that are asked at once.
const MAX_ADDRESSES: usize = 4;

/// Asks one STUN server, over UDP, which address this host has.
///
/// A name is resolved anew for every probe, and its first four addresses are asked at once; the
/// first answer counts. A probe ends within 5 s, whatever the server does, and must run inside a
/// tokio runtime with I/O and time enabled.
///
/// The server is believed: ask several and want them to agree. The port of the answer is that of a
/// UDP socket of the probe's own, which is closed by then; only the IP address is of use.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use sorcha_peer::nat::StunProber;
/// use sorcha_peer::ports::NatProber;
/// let seen = StunProber::new("stun.example.com")?.probe().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StunProber {
    name: String,
    server: Endpoint,
}

impl StunProber {
    /// A prober that asks `server`: `host`, `host:port`, `[v6]:port`, each with or without `stun:`
    /// in front. Port 3478 is meant where none is given. Nothing is resolved or sent yet.
    ///
    /// # Errors
    /// [`EndpointError`] when it is not an address.
    pub fn new(server: &str) -> Result<Self, EndpointError> {
        let text = server.trim();
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(EndpointError::Scheme(scheme.to_owned()));
        }
        let text = text.strip_prefix("stun:").unwrap_or(text);
        let has_port = !text.is_empty() && !text.ends_with(']') && text.contains(':');
        let server: Endpoint = text.parse()?;
        let server =
            if has_port { server } else { Endpoint::new(server.host().clone(), DEFAULT_PORT)? };
        Ok(Self { name: format!("stun:{server}"), server })
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, ProbeError> {
        let name = match self.server.host() {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, self.server.port())]),
            Host::Name(name) => name.as_str(),
        };
        let found = lookup_host((name, self.server.port())).await;
        let found: Vec<_> = found
            .map_err(|e| self.error(FailureKind::Unreachable, &e))?
            .take(MAX_ADDRESSES)
            .collect();
        if found.is_empty() {
            return Err(self.error(FailureKind::Unreachable, &"the name has no address"));
        }
        Ok(found)
    }

    /// Asks one address, over a socket of its own: the client swallows whatever else comes in,
    /// and takes any answer without comparing transaction ids.
    async fn ask(&self, server: SocketAddr) -> Result<SocketAddr, ProbeError> {
        let any = match server.ip() {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind((any, 0)).await.map_err(|e| self.socket_error(&e))?;
        // A connected socket hears the server only, and that nobody listens there. The client
        // names the destination with every datagram all the same, which BSD systems refuse on a
        // connected socket; there, it checks the sender itself.
        if cfg!(any(target_os = "linux", target_os = "android", windows)) {
            socket.connect(server).await.map_err(|e| self.socket_error(&e))?;
        }
        let mut client = StunClient::new(server);
        client.set_software(None).set_timeout(DEADLINE).set_retry_interval(RETRY_INTERVAL);
        let seen = client.query_external_address_async(&socket).await.map_err(|e| match &e {
            Error::Timeout(()) => self.timed_out(),
            Error::Socket(e) => self.socket_error(e),
            _ => self.error(FailureKind::Malformed, &e),
        })?;
        let seen = SocketAddr::new(seen.ip().to_canonical(), seen.port());
        if seen.ip().is_unspecified() || seen.port() == 0 {
            return Err(self.error(FailureKind::Malformed, &format!("{seen} is no address")));
        }
        Ok(seen)
    }

    fn timed_out(&self) -> ProbeError {
        self.error(FailureKind::Timeout, &"no answer")
    }

    fn socket_error(&self, error: &io::Error) -> ProbeError {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => FailureKind::Unreachable,
            _ => FailureKind::Local,
        };
        self.error(kind, error)
    }

    fn error(&self, kind: FailureKind, what: &dyn std::fmt::Display) -> ProbeError {
        ProbeError { kind, message: format!("{}: {what}", self.name) }
    }
}

#[async_trait]
impl NatProber for StunProber {
    fn name(&self) -> &str {
        &self.name
    }

    async fn probe(&self) -> Result<SocketAddr, ProbeError> {
        let probe = async {
            let addresses = self.addresses().await?;
            let queries = addresses.into_iter().map(|server| Box::pin(self.ask(server)));
            select_ok(queries).await.map(|(seen, _)| seen)
        };
        timeout(DEADLINE, probe).await.unwrap_or_else(|_| Err(self.timed_out()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_in_the_usual_ways() {
        for (text, name) in [
            ("stun.example.com", "stun:stun.example.com:3478"),
            (" stun:stun.example.com ", "stun:stun.example.com:3478"),
            ("stun:stun.example.com:19302", "stun:stun.example.com:19302"),
            ("192.0.2.1", "stun:192.0.2.1:3478"),
            ("192.0.2.1:1", "stun:192.0.2.1:1"),
            ("[2001:db8::1]", "stun:[2001:db8::1]:3478"),
            ("[2001:db8::1]:9", "stun:[2001:db8::1]:9"),
        ] {
            assert_eq!(StunProber::new(text).unwrap().name(), name, "{text}");
        }
        for text in ["", "stun:", "http://stun.example.com", "2001:db8::1", "host:0", "host:x"] {
            assert!(StunProber::new(text).is_err(), "{text}");
        }
    }
}
