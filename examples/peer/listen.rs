//! Where to listen: an address, or a name of this machine.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::str::FromStr;

use sorcha_peer::Endpoint;
use tokio::net::lookup_host;

/// An address to listen on as the command line has it.
#[derive(Debug, Clone)]
pub(crate) enum ListenOn {
    Address(SocketAddr),
    Name(String, u16),
}

impl FromStr for ListenOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let wrong = || {
            "expected an address and a port, such as 0.0.0.0:5001, [::]:5001 or localhost:5001; \
             port 0 picks a free one"
                .to_owned()
        };
        let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        // A name like those that are dialled.
        match format!("{name}:1").parse::<Endpoint>() {
            Ok(endpoint) if endpoint.socket_addr().is_none() && !name.contains("//") => {
                Ok(Self::Name(name.to_owned(), port))
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for ListenOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl ListenOn {
    /// Returns the address; of a name the first that this machine has, IPv4 before IPv6.
    pub(crate) async fn resolve(&self) -> Result<SocketAddr, String> {
        let (name, port) = match self {
            Self::Address(address) => return Ok(*address),
            Self::Name(name, port) => (name.as_str(), *port),
        };
        let found = lookup_host((name, port)).await;
        let mut found: Vec<_> =
            found.map_err(|error| format!("--listen {self}: {error}"))?.collect();
        found.sort_by_key(SocketAddr::is_ipv6);
        let own = found.iter().find(|address| is_own(address.ip()));
        own.copied().ok_or_else(|| {
            let found: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
            let found = found.join(", ");
            format!("--listen {self}: this machine has none of the addresses of the name ({found})")
        })
    }
}

/// Reports whether sockets of this machine may have the address.
fn is_own(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}
