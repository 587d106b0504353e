//! Where a peer can be dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Kind of a transport, in the default order of preference. Only those that exist are built in: see
/// [`crate::transport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TransportKind {
    /// One bidirectional gRPC stream.
    GrpcStream,
    /// WebSocket binary messages.
    #[serde(rename = "websocket")]
    WebSocket,
    /// A byte pipe over unary gRPC calls.
    GrpcUnary,
    /// A byte pipe over plain HTTP requests.
    Rest,
    /// Inside this process.
    Memory,
    /// A transport brought by the host application.
    Custom,
}

impl TransportKind {
    /// Name of the kind in configuration, events and statistics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GrpcStream => "grpc-stream",
            Self::WebSocket => "websocket",
            Self::GrpcUnary => "grpc-unary",
            Self::Rest => "rest",
            Self::Memory => "memory",
            Self::Custom => "custom",
        }
    }

    /// Finds the kind by its name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [
            Self::GrpcStream,
            Self::WebSocket,
            Self::GrpcUnary,
            Self::Rest,
            Self::Memory,
            Self::Custom,
        ];
        all.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Host of an endpoint: an IP address, or a DNS name that is resolved to all its addresses, anew at
/// every attempt. Exhaustive on purpose: an endpoint has no third kind of host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name, lower case, at most 253 bytes.
    Name(String),
}

/// Reach of an address; decides which addresses may be believed from whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressScope {
    /// Cannot be dialled at all: unspecified, multicast, broadcast, link-local.
    Unusable,
    /// Only this machine.
    Loopback,
    /// Only this site: RFC 1918, RFC 4193, RFC 6598.
    Private,
    /// Anywhere, or a DNS name.
    Public,
}

/// Address at which a peer can be dialled: host and port.
///
/// It is read from `host:port`, `1.2.3.4:port`, `[v6]:port`, and URLs with the schemes `http`, `https`,
/// `grpc`, `grpcs`, `ws` and `wss` without path, query or user; an IPv6 address stands in brackets. Without a
/// port, a URL means its scheme's port (80 or 443) and anything else means [`Endpoint::DEFAULT_PORT`]. The
/// scheme is not kept: every link is dialled directly and is mutual TLS. An IPv4 address that is written as
/// an IPv6 one (`[::ffff:1.2.3.4]`) is the IPv4 address, so that one place has one spelling.
///
/// ```
/// use sorcha_peer::Endpoint;
/// let e: Endpoint = "https://peer0.example.com:5001".parse()?;
/// assert_eq!(e.to_string(), "peer0.example.com:5001");
/// assert_eq!("[2001:db8::1]:7".parse::<Endpoint>()?.to_string(), "[2001:db8::1]:7");
/// assert_eq!("[::ffff:192.0.2.1]:7".parse::<Endpoint>()?.to_string(), "192.0.2.1:7");
/// assert!("2001:db8::1".parse::<Endpoint>().is_err());
/// # Ok::<(), sorcha_peer::error::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    host: Host,
    port: u16,
}

impl Endpoint {
    /// Port that is meant where none is given.
    pub const DEFAULT_PORT: u16 = 5001;

    /// An endpoint from its parts. An IPv4-mapped IPv6 address becomes the IPv4 address.
    ///
    /// # Errors
    /// [`EndpointError`] when the name is not a DNS name or the port is 0.
    pub fn new(host: Host, port: u16) -> Result<Self, EndpointError> {
        Ok(Self::spelled(host, port)?.to_canonical())
    }

    fn spelled(host: Host, port: u16) -> Result<Self, EndpointError> {
        if port == 0 {
            return Err(EndpointError::Port);
        }
        if let Host::Name(name) = &host {
            check_name(name)?;
        }
        Ok(Self { host, port })
    }

    /// Reads an endpoint of a signed record, whose spelling is part of what is signed: an IPv4-mapped
    /// address stays one until [`Endpoint::to_canonical`].
    pub(crate) fn parse_signed(text: &str) -> Result<Self, EndpointError> {
        let (host, port) = parts(text)?;
        Self::spelled(host, port)
    }

    /// The same place in the one spelling that is compared, stored and dialled.
    #[must_use]
    pub(crate) fn to_canonical(&self) -> Self {
        let host = match &self.host {
            Host::Ip(ip) => Host::Ip(ip.to_canonical()),
            Host::Name(name) => Host::Name(name.clone()),
        };
        Self { host, port: self.port }
    }

    /// Returns the host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address, where the host is an IP address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }

    /// Reach of the address.
    pub(crate) fn scope(&self) -> AddressScope {
        match &self.host {
            Host::Name(name) if name == "localhost" => AddressScope::Loopback,
            Host::Name(_) => AddressScope::Public,
            Host::Ip(ip) => AddressScope::of(*ip),
        }
    }

    /// Reports whether the host is a name, which may stand for several addresses.
    pub(crate) fn is_name(&self) -> bool {
        matches!(self.host, Host::Name(_))
    }

    /// Address group: the /16 of an IPv4 address, the /32 of an IPv6 address, a hash of a
    /// name. One operator can cheaply own many addresses of a group but not many groups, so
    /// limits against eclipse count groups. Loopback addresses count one by one: they are tests.
    pub(crate) fn group(&self) -> u64 {
        match &self.host {
            Host::Ip(ip) if ip.is_loopback() => 1 << 48 | u64::from(self.port),
            Host::Ip(IpAddr::V4(v4)) => {
                let [a, b, ..] = v4.octets();
                2 << 48 | u64::from(a) << 8 | u64::from(b)
            }
            Host::Ip(IpAddr::V6(v6)) => {
                let [a, b, ..] = v6.segments();
                3 << 48 | u64::from(a) << 16 | u64::from(b)
            }
            Host::Name(name) => {
                let hash = blake3::hash(name.as_bytes());
                let [a, b, c, d, ..] = *hash.as_bytes();
                4 << 48 | u64::from(u32::from_le_bytes([a, b, c, d]))
            }
        }
    }
}

/// Address that counts as one host: an IPv4 address, or the /64 of an IPv6 address, the least that
/// its owner has. All hosts of all attached links share the /64 of link-local addresses, so of these
/// each is one.
#[cfg_attr(
    not(any(test, feature = "node", feature = "grpc", feature = "unstable-core")),
    allow(dead_code)
)]
pub(crate) fn host_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => v6.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

impl AddressScope {
    /// Scope of one IP address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => Self::of_v4(v4),
                None => Self::of_v6(v6),
            },
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [a, b, ..] = ip.octets();
        if ip.is_loopback() {
            Self::Loopback
        } else if a == 0 || ip.is_multicast() || ip.is_broadcast() || ip.is_link_local() {
            Self::Unusable
        } else if ip.is_private() || (a == 100 && (64..128).contains(&b)) {
            Self::Private
        } else {
            Self::Public
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let first = ip.segments()[0];
        if ip.is_loopback() {
            Self::Loopback
        } else if ip.is_unspecified() || ip.is_multicast() || first & 0xffc0 == 0xfe80 {
            Self::Unusable
        } else if first & 0xfe00 == 0xfc00 {
            Self::Private
        } else {
            Self::Public
        }
    }
}

/// Reason why a text is not an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Empty text.
    #[error("the address is empty")]
    Empty,
    /// The scheme is none of http, https, grpc, grpcs, ws, wss.
    #[error("unknown scheme {0:?}: use http, https, grpc, grpcs, ws or wss, or none")]
    Scheme(String),
    /// A URL with a user, a path, a query or a fragment.
    #[error("only host and port are allowed in {0:?}")]
    Trailing(String),
    /// The port is missing its digits, is 0 or is above 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address stands in brackets: [{0}]:port")]
    Unbracketed(String),
    /// Neither an IP address nor a DNS name.
    #[error("{0:?} is neither an IP address nor a DNS name")]
    Host(String),
    /// Not an address to listen on: names are for dialling.
    #[error("{0:?} is not an IP address and a port, such as 0.0.0.0:5001 or [::]:5001")]
    Listen(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = parts(text)?;
        Self::new(host, port)
    }
}

/// Host and port of a text, without a look at either.
fn parts(text: &str) -> Result<(Host, u16), EndpointError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(EndpointError::Empty);
    }
    let (rest, default_port) = match text.split_once("://") {
        Some((scheme, rest)) => {
            let port = match scheme.to_ascii_lowercase().as_str() {
                "http" | "grpc" | "ws" => 80,
                "https" | "grpcs" | "wss" => 443,
                _ => return Err(EndpointError::Scheme(scheme.to_owned())),
            };
            (rest.strip_suffix('/').unwrap_or(rest), port)
        }
        None => (text, Endpoint::DEFAULT_PORT),
    };
    if rest.contains(['/', '?', '#', '@']) {
        return Err(EndpointError::Trailing(text.to_owned()));
    }
    let (host, port) = split_port(rest)?;
    let port = match port {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| EndpointError::Port)?
        }
        Some(_) => return Err(EndpointError::Port),
        None => default_port,
    };
    Ok((host, port))
}

/// The socket address in the one spelling that is compared and shown: an IPv4-mapped IPv6 address is the
/// IPv4 address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        // What else an IPv6 socket address holds, the scope of a link-local one, stays.
        IpAddr::V6(_) => address,
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, address.port()),
    }
}

fn split_port(rest: &str) -> Result<(Host, Option<&str>), EndpointError> {
    if let Some(inner) = rest.strip_prefix('[') {
        let (ip, after) =
            inner.split_once(']').ok_or_else(|| EndpointError::Host(rest.to_owned()))?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| EndpointError::Host(rest.to_owned()))?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port),
            None if after.is_empty() => None,
            None => return Err(EndpointError::Trailing(rest.to_owned())),
        };
        return Ok((Host::Ip(IpAddr::V6(ip)), port));
    }
    if rest.parse::<Ipv6Addr>().is_ok() {
        return Err(EndpointError::Unbracketed(rest.to_owned()));
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let host = match host.parse::<Ipv4Addr>() {
        Ok(v4) => Host::Ip(IpAddr::V4(v4)),
        Err(_) => Host::Name(host.to_ascii_lowercase()),
    };
    Ok((host, port))
}

fn check_name(name: &str) -> Result<(), EndpointError> {
    let bad = || EndpointError::Host(name.to_owned());
    let plain = name.strip_suffix('.').unwrap_or(name);
    if plain.is_empty() || plain.len() > 253 {
        return Err(bad());
    }
    let mut last_numeric = false;
    for label in plain.split('.') {
        let bytes = label.as_bytes();
        let fits = (1..=63).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-';
        if !fits {
            return Err(bad());
        }
        last_numeric = bytes.iter().all(u8::is_ascii_digit);
    }
    // "300.1.1.1" and "1.2.3" are mistyped IPv4 addresses, not names (RFC 3696, section 2).
    if last_numeric { Err(bad()) } else { Ok(()) }
}

impl From<SocketAddr> for Endpoint {
    /// Keeps a port of 0, which only ever stands in a bind address.
    fn from(addr: SocketAddr) -> Self {
        Self { host: Host::Ip(addr.ip().to_canonical()), port: addr.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]:{}", self.port),
            Host::Ip(IpAddr::V4(v4)) => write!(f, "{v4}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cases::for_all;

    #[test]
    fn the_usual_spellings_parse() {
        for (text, shown) in [
            ("peer0.example.com:5001", "peer0.example.com:5001"),
            ("PEER.example.com", "peer.example.com:5001"),
            ("10.0.0.1", "10.0.0.1:5001"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]", "[::1]:5001"),
            ("https://host:9/", "host:9"),
            ("wss://h", "h:443"),
            ("http://[2001:db8::2]", "[2001:db8::2]:80"),
            (" my_host:1 ", "my_host:1"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown, "{text}");
        }
    }

    /// However an address comes in, it is the same one: in text, from a socket, from its parts, and out
    /// of a signed record, whose signature still holds.
    #[test]
    fn one_place_has_one_spelling() {
        for_all(200, |random| {
            let octets: [u8; 4] = std::array::from_fn(|_| random.u8());
            let (v4, port) = (Ipv4Addr::from(octets), random.u16().max(1));
            let mapped = v4.to_ipv6_mapped();
            let plain = SocketAddr::new(v4.into(), port);
            let wanted: Endpoint = plain.into();
            let [a, b, c, d] = mapped.segments()[4..] else { unreachable!() };
            for text in [
                format!("{v4}:{port}"),
                format!("[{mapped}]:{port}"),
                format!("[0:0:0:0:{a:x}:{b:x}:{c:X}:{d:04x}]:{port}"),
                format!("grpc://[::FFFF:{v4}]:{port}/"),
            ] {
                let parsed: Endpoint = text.parse().unwrap();
                assert_eq!(parsed, wanted, "{text}");
                let signed = Endpoint::parse_signed(&text).unwrap();
                assert_eq!(signed.to_canonical(), wanted, "{text}");
            }
            let socket = SocketAddr::new(mapped.into(), port);
            assert_eq!(Endpoint::from(socket), wanted);
            assert_eq!(Endpoint::new(Host::Ip(mapped.into()), port).unwrap(), wanted);
            assert_eq!((canonical(socket), canonical(plain)), (plain, plain));
            assert_eq!(Endpoint::from(socket).group(), wanted.group());
            assert_eq!(Endpoint::from(socket).scope(), wanted.scope());
            let v6: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
            assert_eq!(canonical(v6), v6);
        });
    }

    #[test]
    fn mistakes_are_named() {
        use EndpointError as E;
        let parse = |t: &str| t.parse::<Endpoint>().unwrap_err();
        assert_eq!(parse(""), E::Empty);
        assert!(matches!(parse("ftp://h:1"), E::Scheme(_)));
        assert!(matches!(parse("http://h:1/path"), E::Trailing(_)));
        assert!(matches!(parse("http://u@h:1"), E::Trailing(_)));
        assert_eq!(parse("h:0"), E::Port);
        assert_eq!(parse("h:65536"), E::Port);
        assert_eq!(parse("h:"), E::Port);
        assert_eq!(parse("h:+80"), E::Port);
        assert!(matches!(parse("fe80::1"), E::Unbracketed(_)));
        assert!(matches!(parse("1.2.3:4"), E::Host(_)));
        assert!(matches!(parse("300.1.1.1:4"), E::Host(_)));
        assert!(matches!(parse("a..b:4"), E::Host(_)));
        assert!(matches!(parse("-a:4"), E::Host(_)));
        assert!(matches!(parse(":5001"), E::Host(_)));
        assert!(matches!(parse("[::1:5001"), E::Host(_)));
    }

    #[test]
    fn scopes_are_told_apart() {
        let scope = |t: &str| t.parse::<Endpoint>().unwrap().scope();
        assert_eq!(scope("127.0.0.1:1"), AddressScope::Loopback);
        assert_eq!(scope("localhost:1"), AddressScope::Loopback);
        assert_eq!(scope("[::ffff:127.0.0.1]:1"), AddressScope::Loopback);
        assert_eq!(scope("10.1.1.1:1"), AddressScope::Private);
        assert_eq!(scope("100.64.0.1:1"), AddressScope::Private);
        assert_eq!(scope("[fd00::1]:1"), AddressScope::Private);
        assert_eq!(scope("0.0.0.0:1"), AddressScope::Unusable);
        assert_eq!(scope("224.0.0.1:1"), AddressScope::Unusable);
        assert_eq!(scope("[fe80::1]:1"), AddressScope::Unusable);
        assert_eq!(scope("8.8.8.8:1"), AddressScope::Public);
        assert_eq!(scope("peer.example.com:1"), AddressScope::Public);
    }
}
