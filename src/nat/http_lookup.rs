//! Asking an HTTP server for the address it sees.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::select_ok;
use http::{Request, StatusCode, header};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::outside::{Family, failure, resolve, socket_failure};
use crate::error::{EndpointError, FailureKind, ProbeError};
use crate::ports::NatProber;
use crate::transport::tls_to_anybody;
use crate::types::{AddressScope, Endpoint, Scheme};

/// Maximum time for a whole probe, with the resolution of the name.
const DEADLINE: Duration = Duration::from_secs(5);
/// Maximum number of bytes of a body.
const MAX_BODY_BYTES: usize = 4 * 1024;
/// Number of bytes that the head of an answer may have, about.
const HEAD_BYTES: usize = 16 * 1024;

/// Asks one HTTP server, by GET, which address this host has; for networks that let no UDP through.
///
/// The answer is the first thing in the body that is an IP address, of the family that was asked over: a line
/// of text, JSON and HTML will all do. Only status 200 counts, no redirect is followed, and a body above
/// 4 KiB is none. A probe ends within 5 s, whatever the server does, and must run inside a tokio runtime with
/// I/O and time enabled. The proxy of [`ConnectionConfig::proxy`](crate::config::ConnectionConfig::proxy) is
/// not used: its address is not the host's.
///
/// The certificate of `https` is not checked, as little as any other on the outside of a connection: what the
/// server says is a hint that others have to confirm. The port of the answer is that of the connection, which
/// is closed by then; only the IP address is of use.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use sorcha_peer::nat::HttpProber;
/// use sorcha_peer::ports::NatProber;
/// let seen = HttpProber::new("https://ip.example.com/plain")?.probe().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct HttpProber {
    name: String,
    server: Endpoint,
}

impl HttpProber {
    /// A prober that asks at this URL: `http://host[:port][/path]` or `https://…`, without user or query.
    /// Nothing is resolved or sent yet.
    ///
    /// # Errors
    /// [`EndpointError`] when it is no such URL.
    pub fn new(url: &str) -> Result<Self, EndpointError> {
        let server: Endpoint = url.parse()?;
        if !matches!(server.scheme(), Scheme::Http | Scheme::Https) || server.pin().is_some() {
            return Err(EndpointError::Lookup(url.to_owned()));
        }
        Ok(Self { name: server.to_string(), server })
    }

    /// Asks one address.
    async fn ask(&self, address: SocketAddr) -> Result<SocketAddr, ProbeError> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| socket_failure(&self.name, &error))?;
        let port = stream.local_addr().map_err(|error| socket_failure(&self.name, &error))?.port();
        let body = if self.server.scheme() == Scheme::Https {
            let stream = tls_to_anybody(&self.server, stream).await;
            let stream = stream.map_err(|error| failure(&self.name, error.kind, &error))?;
            self.get(stream).await?
        } else {
            self.get(stream).await?
        };
        match first_address(&body, Family::of(address.ip())) {
            Some(ip) => Ok(SocketAddr::new(ip, port)),
            None => Err(self.malformed(&"the body has no address")),
        }
    }

    /// Gets the body of the answer.
    async fn get<S>(&self, stream: S) -> Result<Vec<u8>, ProbeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let path = if self.server.path().is_empty() { "/" } else { self.server.path() };
        let request = Request::get(path)
            .header(header::HOST, format!("{}:{}", self.server.host(), self.server.port()))
            .header(header::ACCEPT, "text/plain, */*")
            .header(header::CONNECTION, "close")
            .body(String::new())
            .map_err(|error| self.malformed(&error))?;
        let io = TokioIo::new(stream);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(io)
            .await
            .map_err(|error| self.malformed(&error))?;
        let asking = async {
            let answer = sender.send_request(request).await.map_err(|e| self.malformed(&e))?;
            if answer.status() != StatusCode::OK {
                let what = format!("it answers with status {}", answer.status().as_u16());
                return Err(failure(&self.name, FailureKind::Refused, &what));
            }
            self.read(answer.into_body()).await
        };
        tokio::pin!(asking, connection);
        tokio::select! {
            biased;
            body = &mut asking => body,
            // What it read before it ended is there.
            _ = &mut connection => asking.await,
        }
    }

    async fn read(&self, mut body: Incoming) -> Result<Vec<u8>, ProbeError> {
        let mut read = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| self.malformed(&error))?;
            let piece: Bytes = frame.into_data().unwrap_or_default();
            if read.len() + piece.len() > MAX_BODY_BYTES {
                return Err(self.malformed(&"the body is too long"));
            }
            read.extend_from_slice(&piece);
        }
        Ok(read)
    }

    fn malformed(&self, what: &dyn std::fmt::Display) -> ProbeError {
        failure(&self.name, FailureKind::Malformed, what)
    }
}

/// Finds the first thing that is an IP address of this family and of somebody.
fn first_address(body: &[u8], family: Family) -> Option<IpAddr> {
    let body = String::from_utf8_lossy(body);
    let words = body.split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')));
    let ips = words.filter_map(|word| {
        let ip = word.parse::<IpAddr>();
        ip.or_else(|_| word.trim_matches(['.', ':']).parse()).ok()
    });
    ips.map(|ip| ip.to_canonical())
        .find(|ip| Family::of(*ip) == family && AddressScope::of(*ip) != AddressScope::Unusable)
}

#[async_trait]
impl NatProber for HttpProber {
    fn name(&self) -> &str {
        &self.name
    }

    async fn probe(&self) -> Result<SocketAddr, ProbeError> {
        let probe = async {
            let addresses = resolve(&self.name, &self.server).await?;
            let queries = addresses.into_iter().map(|address| Box::pin(self.ask(address)));
            select_ok(queries).await.map(|(seen, _)| seen)
        };
        let late = || failure(&self.name, FailureKind::Timeout, &"no answer");
        timeout(DEADLINE, probe).await.unwrap_or_else(|_| Err(late()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_are_http_urls() {
        for url in ["http://ip.example.com", "https://ip.example.com/plain", "http://[::1]:8080/ip"]
        {
            assert_eq!(HttpProber::new(url).unwrap().name(), url);
        }
        let pinned = format!("https://ip.example.com#{}", "ab".repeat(32));
        for url in
            ["", "ip.example.com", "ws://h", "grpc://h", "http://u@h", "http://h/?x", &pinned]
        {
            assert!(HttpProber::new(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_first_address_of_the_family_counts() {
        for (body, v4, v6) in [
            ("203.0.113.9\n", Some("203.0.113.9"), None),
            ("{\"ip\":\"203.0.113.9\",\"v\":\"1.2.3\"}", Some("203.0.113.9"), None),
            ("<html>Your IP is:203.0.113.9.</html>", Some("203.0.113.9"), None),
            ("2001:db8::7 203.0.113.9", Some("203.0.113.9"), Some("2001:db8::7")),
            ("ip=::ffff:203.0.113.9", Some("203.0.113.9"), None),
            ("v 1.2.3.4.5, 0.0.0.0, 999.1.1.1, 224.0.0.1 :: fe80::1", None, None),
            ("", None, None),
            ("none at 12:30, dead:beef", None, None),
        ] {
            let wanted = |text: Option<&str>| text.map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(first_address(body.as_bytes(), Family::V4), wanted(v4), "{body}");
            assert_eq!(first_address(body.as_bytes(), Family::V6), wanted(v6), "{body}");
        }
        assert_eq!(first_address(&[0xff; 100], Family::V4), None);
    }
}
