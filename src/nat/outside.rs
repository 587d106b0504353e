//! What questions to servers outside have in common: how servers are written, their addresses, and what
//! goes wrong.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::error::{EndpointError, FailureKind, ProbeError};
use crate::types::{Endpoint, Host, canonical};

/// Port of STUN.
const DEFAULT_PORT: u16 = 3478;

/// Maximum number of addresses of a name that are asked.
const MAX_ADDRESSES: usize = 4;

/// Maximum number of servers that are asked at a time; further ones are not.
pub(super) const MAX_SERVERS: usize = 8;

/// Maximum time for the resolution of a name.
const RESOLUTION_TIME: Duration = Duration::from_secs(5);

/// Family of IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Name of the family in reports.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// Any address of this machine.
    pub(super) fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// STUN server: `host`, `host:port`, `[v6]:port`, each with or without `stun:` in front. Port 3478 is meant
/// where none is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StunServer {
    name: String,
    endpoint: Endpoint,
}

impl FromStr for StunServer {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(EndpointError::Scheme(scheme.to_owned()));
        }
        let text = text.strip_prefix("stun:").unwrap_or(text);
        let has_port = !text.is_empty() && !text.ends_with(']') && text.contains(':');
        let given: Endpoint = text.parse()?;
        let endpoint =
            if has_port { given } else { Endpoint::new(given.host().clone(), DEFAULT_PORT)? };
        Ok(Self { name: format!("stun:{endpoint}"), endpoint })
    }
}

impl StunServer {
    /// Name of the server in reports, events and logs.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Addresses of the server, resolved anew, at most four.
    ///
    /// # Errors
    /// `Unreachable` or `Timeout`.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, ProbeError> {
        resolve(&self.name, &self.endpoint).await
    }
}

/// Addresses of servers of one family, resolved all at once: at most four of each, and none twice. Servers
/// that have none of that family, or none that an earlier one does not have, are left out.
pub(super) async fn addresses_of(
    servers: &[StunServer],
    family: Family,
) -> Vec<(&StunServer, Result<Vec<SocketAddr>, ProbeError>)> {
    let servers = &servers[..servers.len().min(MAX_SERVERS)];
    let found = join_all(servers.iter().map(StunServer::addresses)).await;
    let mut known = BTreeSet::new();
    let mut of_family = Vec::with_capacity(servers.len());
    for (server, found) in servers.iter().zip(found) {
        let found = found.map(|addresses| {
            let addresses = addresses.into_iter().filter(|a| Family::of(a.ip()) == family);
            addresses.filter(|address| known.insert(*address)).collect::<Vec<_>>()
        });
        if found.as_ref().is_ok_and(Vec::is_empty) {
            continue;
        }
        of_family.push((server, found));
    }
    of_family
}

/// Addresses of an endpoint, at most four.
///
/// # Errors
/// `Unreachable` or `Timeout`, in the name of what asks.
pub(super) async fn resolve(
    prober: &str,
    endpoint: &Endpoint,
) -> Result<Vec<SocketAddr>, ProbeError> {
    let name = match endpoint.host() {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, endpoint.port())]),
        Host::Name(name) => name.as_str(),
    };
    let found = timeout(RESOLUTION_TIME, lookup_host((name, endpoint.port()))).await;
    let found = found
        .map_err(|_| failure(prober, FailureKind::Timeout, &"the name was not resolved in time"))?
        .map_err(|error| failure(prober, FailureKind::Unreachable, &error))?;
    let found: Vec<_> = found.map(canonical).take(MAX_ADDRESSES).collect();
    if found.is_empty() {
        return Err(failure(prober, FailureKind::Unreachable, &"the name has no address"));
    }
    Ok(found)
}

/// Failure in the name of what asked.
pub(super) fn failure(prober: &str, kind: FailureKind, what: &dyn Display) -> ProbeError {
    ProbeError { kind, message: format!("{prober}: {what}") }
}

/// Failure of a socket, in the name of what asked.
pub(super) fn socket_failure(prober: &str, error: &io::Error) -> ProbeError {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable => FailureKind::Unreachable,
        io::ErrorKind::TimedOut => FailureKind::Timeout,
        io::ErrorKind::UnexpectedEof => FailureKind::Closed,
        _ => FailureKind::Local,
    };
    failure(prober, kind, error)
}

/// What most say: said by two at least, and by more than say anything else.
pub(super) fn majority<T: Ord + Copy>(votes: &[T]) -> Option<T> {
    let count = |of: T| votes.iter().filter(|vote| **vote == of).count();
    let (most, best) = votes.iter().map(|vote| (count(*vote), *vote)).max()?;
    let has_rival = votes.iter().any(|vote| *vote != best && count(*vote) == most);
    (most >= 2 && !has_rival).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_two_that_nobody_outweighs() {
        assert_eq!(majority::<u8>(&[]), None);
        assert_eq!(majority(&[1]), None);
        assert_eq!(majority(&[1, 1]), Some(1));
        assert_eq!(majority(&[1, 2]), None);
        assert_eq!(majority(&[2, 1, 2]), Some(2));
        assert_eq!(majority(&[1, 2, 2, 1]), None);
        assert_eq!(majority(&[1, 2, 2, 1, 1]), Some(1));
    }

    #[tokio::test]
    async fn servers_of_a_family_are_asked_once_each() {
        let servers: Vec<StunServer> =
            ["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.1:2"]
                .map(|text| text.parse().unwrap())
                .into();
        let found = addresses_of(&servers, Family::V4).await;
        let found: Vec<_> = found
            .into_iter()
            .map(|(server, found)| (server.name().to_owned(), found.unwrap()))
            .collect();
        let address = |text: &str| vec![text.parse::<SocketAddr>().unwrap()];
        assert_eq!(
            found,
            [
                ("stun:192.0.2.1:1".to_owned(), address("192.0.2.1:1")),
                ("stun:192.0.2.1:2".to_owned(), address("192.0.2.1:2")),
            ]
        );
    }
}
