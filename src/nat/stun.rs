//! Asking a STUN server (RFC 8489) for the address it sees.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::select_ok;
use stunclient::{Error, StunClient};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::outside::{Family, StunServer, failure, socket_failure};
use crate::error::{EndpointError, FailureKind, ProbeError};
use crate::ports::NatProber;
use crate::types::canonical;

/// Maximum time for a whole probe, with the resolution of the name.
const DEADLINE: Duration = Duration::from_secs(5);

/// Delay before a question is repeated, since UDP loses datagrams: the one that RFC 8489 starts
/// with.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

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
    server: StunServer,
}

impl StunProber {
    /// A prober that asks `server`: `host`, `host:port`, `[v6]:port`, each with or without `stun:`
    /// in front. Port 3478 is meant where none is given. Nothing is resolved or sent yet.
    ///
    /// # Errors
    /// [`EndpointError`] when it is not an address.
    pub fn new(server: &str) -> Result<Self, EndpointError> {
        Ok(Self { server: server.parse()? })
    }

    /// Asks one address, over a socket of its own: the client swallows whatever else comes in,
    /// and takes any answer without comparing transaction ids.
    async fn ask(&self, server: SocketAddr) -> Result<SocketAddr, ProbeError> {
        let name = self.name();
        let any = Family::of(server.ip()).unspecified();
        let socket = UdpSocket::bind((any, 0)).await.map_err(|e| socket_failure(name, &e))?;
        // A connected socket hears the server only, and that nobody listens there. The client
        // names the destination with every datagram all the same, which BSD systems refuse on a
        // connected socket; there, it checks the sender itself.
        if cfg!(any(target_os = "linux", target_os = "android", windows)) {
            socket.connect(server).await.map_err(|e| socket_failure(name, &e))?;
        }
        let mut client = StunClient::new(server);
        client.set_software(None).set_timeout(DEADLINE).set_retry_interval(RETRY_INTERVAL);
        let seen = client.query_external_address_async(&socket).await.map_err(|e| match &e {
            Error::Timeout(()) => self.timed_out(),
            Error::Socket(e) => socket_failure(name, e),
            _ => failure(name, FailureKind::Malformed, &e),
        })?;
        let seen = canonical(seen);
        if seen.ip().is_unspecified() || seen.port() == 0 {
            return Err(failure(name, FailureKind::Malformed, &format!("{seen} is no address")));
        }
        Ok(seen)
    }

    fn timed_out(&self) -> ProbeError {
        failure(self.name(), FailureKind::Timeout, &"no answer")
    }
}

#[async_trait]
impl NatProber for StunProber {
    fn name(&self) -> &str {
        self.server.name()
    }

    async fn probe(&self) -> Result<SocketAddr, ProbeError> {
        let probe = async {
            let addresses = self.server.addresses().await?;
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
