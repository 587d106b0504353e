//! Where a peer can be dialled, and how.

mod kind;
mod parse;
mod scope;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PeerId;

pub use self::kind::TransportKind;
pub use self::parse::EndpointError;
pub use self::scope::AddressScope;
pub(crate) use self::scope::canonical;
#[cfg_attr(
    not(any(test, feature = "node", feature = "grpc", feature = "unstable-core")),
    allow(unused_imports)
)]
pub(crate) use self::scope::{alternate_families, host_of};

/// Host of an endpoint: an IP address, or a DNS name that is resolved to all its addresses, anew at
/// every attempt. Exhaustive on purpose: an endpoint has no third kind of host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name, lower case, at most 253 bytes.
    Name(String),
}

/// Way in which the host of an endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scheme {
    /// The host is the peer: mutual TLS with it.
    Direct,
    /// HTTP in clear text, to whatever passes it on to the peer.
    Http,
    /// HTTP in TLS, to whatever passes it on to the peer.
    Https,
    /// WebSocket in clear text alone.
    Ws,
    /// WebSocket in TLS alone.
    Wss,
}

/// Address at which a peer can be dialled.
///
/// | form | reaches the peer | by |
/// |---|---|---|
/// | `host:port`, `1.2.3.4:port`, `[v6]:port`, `grpc://…`, `grpcs://…` | directly, in mutual TLS | every transport |
/// | `https://host[:port][/path]` | by way of what answers HTTP there in TLS: an ingress, a mesh, a proxy | every transport |
/// | `http://host[:port][/path]` | the same, in clear text | every transport |
/// | `wss://host[:port][/path]`, `ws://…` | the same | WebSocket alone |
///
/// Without a port, a URL means its scheme's port (80 or 443) and anything else means
/// [`Endpoint::DEFAULT_PORT`]. A path stands before the paths of this crate: what answers there routes by it,
/// and may take it away. It holds letters, digits and `-._~%`, and at most 128 bytes. User, query and
/// dots as segments are refused. An IPv6 address stands in brackets; an IPv4 address that is written as an IPv6 one
/// (`[::ffff:1.2.3.4]`) is the IPv4 address, so that one place has one spelling.
///
/// What stands between need not be trusted and is not: inside whatever it carries, the two nodes prove their keys
/// to each other as on a direct link.
///
/// Every form may end in `#` and a peer id, 64 hex digits: only that peer may answer there.
///
/// ```
/// use sorcha_peer::Endpoint;
/// let shown = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
/// assert_eq!(shown("PEER0.example.com")?, "peer0.example.com:5001");
/// assert_eq!(shown("grpcs://peer0.example.com:7/")?, "peer0.example.com:7");
/// assert_eq!(shown("https://example.com:443/peer/")?, "https://example.com/peer");
/// assert_eq!(shown("[2001:db8::1]:7")?, "[2001:db8::1]:7");
/// assert_eq!(shown("[::ffff:192.0.2.1]:7")?, "192.0.2.1:7");
/// assert!(shown("2001:db8::1").is_err());
/// # Ok::<(), sorcha_peer::error::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    host: Host,
    port: u16,
    scheme: Scheme,
    /// `None` where neither is given, as nearly everywhere.
    more: Option<Box<More>>,
}

/// Parts of an endpoint that few have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct More {
    /// Empty, or begins with a slash and does not end in one.
    path: String,
    pin: Option<PeerId>,
}

impl Endpoint {
    /// Port that is meant where none is given.
    pub const DEFAULT_PORT: u16 = 5001;

    /// A direct endpoint from its parts. An IPv4-mapped IPv6 address becomes the IPv4 address.
    ///
    /// # Errors
    /// [`EndpointError`] when the name is not a DNS name or the port is 0.
    pub fn new(host: Host, port: u16) -> Result<Self, EndpointError> {
        parse::check(&host, port)?;
        Ok(Self { host, port, scheme: Scheme::Direct, more: None }.to_canonical())
    }

    /// The same place in the one spelling that is compared, stored and dialled.
    #[must_use]
    pub(crate) fn to_canonical(&self) -> Self {
        let host = match &self.host {
            Host::Ip(ip) => Host::Ip(ip.to_canonical()),
            Host::Name(name) => Host::Name(name.clone()),
        };
        Self { host, ..self.clone() }
    }

    /// The same place with this peer alone to answer there, or with any.
    #[must_use]
    pub(crate) fn with_pin(&self, pin: Option<PeerId>) -> Self {
        Self { more: More::of(self.path().to_owned(), pin), ..self.clone() }
    }

    /// The same place for any peer, and the one that alone may answer there.
    #[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(dead_code))]
    pub(crate) fn split_pin(mut self) -> (Self, Option<PeerId>) {
        let pin = self.more.as_mut().and_then(|more| more.pin.take());
        self.more = self.more.filter(|more| !more.path.is_empty());
        (self, pin)
    }

    /// Returns the host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Way in which the host is spoken to.
    #[cfg_attr(not(feature = "grpc"), allow(dead_code))]
    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Path that stands before all others; empty, or begins with a slash and does not end in one.
    pub(crate) fn path(&self) -> &str {
        self.more.as_ref().map_or("", |more| &more.path)
    }

    /// Peer that alone may answer there.
    pub fn pin(&self) -> Option<PeerId> {
        self.more.as_ref().and_then(|more| more.pin)
    }

    /// Reports whether the host itself is the peer, as far as the endpoint says.
    pub(crate) fn is_direct(&self) -> bool {
        self.scheme == Scheme::Direct
    }

    /// Reports whether it may lead requests of anybody's choice to what is not meant to be reached from
    /// afar: in clear text, or to a name that only a network's own resolver knows.
    pub(crate) fn may_lead_inside(&self) -> bool {
        let is_local =
            matches!(&self.host, Host::Name(name) if !name.trim_end_matches('.').contains('.'));
        match self.scheme {
            Scheme::Direct => false,
            Scheme::Http | Scheme::Ws => true,
            Scheme::Https | Scheme::Wss => is_local,
        }
    }

    /// Reports whether a transport of this kind may dial it.
    #[cfg_attr(not(any(test, feature = "node", feature = "grpc")), allow(dead_code))]
    pub(crate) fn carries(&self, kind: TransportKind) -> bool {
        use TransportKind as K;
        match (self.scheme, kind) {
            (Scheme::Direct, _) | (Scheme::Ws | Scheme::Wss, K::WebSocket) => true,
            (Scheme::Ws | Scheme::Wss, _) => false,
            (Scheme::Http | Scheme::Https, kind) => {
                matches!(kind, K::GrpcStream | K::WebSocket | K::GrpcUnary | K::Rest)
            }
        }
    }

    /// The socket address of the peer, where the endpoint is direct and its host an IP address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) if self.is_direct() => Some(SocketAddr::new(ip, self.port)),
            _ => None,
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

    /// Reports whether the host is an IPv6 address.
    #[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(dead_code))]
    pub(crate) fn is_v6(&self) -> bool {
        matches!(self.host, Host::Ip(IpAddr::V6(_)))
    }

    /// Reports whether a name stands for the peer, perhaps with several addresses, and other peers
    /// at them.
    pub(crate) fn is_name(&self) -> bool {
        self.is_direct() && matches!(self.host, Host::Name(_))
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

impl More {
    fn of(path: String, pin: Option<PeerId>) -> Option<Box<Self>> {
        (!path.is_empty() || pin.is_some()).then(|| Box::new(Self { path, pin }))
    }
}

impl Scheme {
    /// Name of the scheme in a URL, and the port that is meant without one; `None` where neither is shown.
    fn shown(self) -> Option<(&'static str, u16)> {
        match self {
            Self::Direct => None,
            Self::Http => Some(("http", 80)),
            Self::Https => Some(("https", 443)),
            Self::Ws => Some(("ws", 80)),
            Self::Wss => Some(("wss", 443)),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    /// Keeps a port of 0, which only ever stands in a bind address.
    fn from(addr: SocketAddr) -> Self {
        let host = Host::Ip(addr.ip().to_canonical());
        Self { host, port: addr.port(), scheme: Scheme::Direct, more: None }
    }
}

impl fmt::Display for Host {
    /// Shows the host as it stands before a port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
            Self::Ip(IpAddr::V4(v4)) => write!(f, "{v4}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, scheme, .. } = self;
        match scheme.shown() {
            None => write!(f, "{host}:{port}")?,
            Some((scheme, usual)) if *port == usual => write!(f, "{scheme}://{host}")?,
            Some((scheme, _)) => write!(f, "{scheme}://{host}:{port}")?,
        }
        f.write_str(self.path())?;
        match self.pin() {
            Some(pin) => write!(f, "#{pin}"),
            None => Ok(()),
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
    use std::net::Ipv4Addr;

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
            ("grpc://host:9/", "host:9"),
            ("GRPCS://h", "h:443"),
            ("https://host:9/", "https://host:9"),
            ("https://H:443/", "https://h"),
            ("HTTPS://h:5001/a/B-c.d_e~1%c3/", "https://h:5001/a/B-c.d_e~1%c3"),
            ("wss://h", "wss://h"),
            ("ws://h:443", "ws://h:443"),
            ("http://[2001:db8::2]", "http://[2001:db8::2]"),
            ("http://[::ffff:1.2.3.4]:80/x", "http://1.2.3.4/x"),
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
        for trailing in
            ["h:1/path", "grpc://h:1/path", "http://u@h:1", "http://h?q", "h:1?q", "https://h/a?q"]
        {
            assert!(matches!(parse(trailing), E::Trailing(_)), "{trailing}");
        }
        let long = format!("/{}", "a".repeat(128));
        for path in [
            "//", "/a//b", "/.", "/..", "/a/../b", "/a b", "/a\\", "/ä", "/a;b", "/a:b", "/%2",
            "/%zz", "/%2e%2E", "/%2f", "/a%00", "/%3F", "/%+1", "/a\r\nb", &long,
        ] {
            assert!(matches!(parse(&format!("https://h{path}")), E::Path(_)), "{path}");
        }
        let id = PeerId::from_bytes([7; 32]).to_string();
        for pin in
            ["", "7", &id[1..], &format!("{id}0"), &format!("{id}#{id}"), &id.replace('7', "g")]
        {
            assert!(matches!(parse(&format!("h:1#{pin}")), E::Pin(_)), "{pin}");
        }
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
    fn a_pin_stands_last_and_only_says_who() {
        let id = PeerId::from_bytes([0xab; 32]);
        for place in ["h:1", "1.2.3.4:5", "https://h", "wss://h:9/a/b", "[::1]:7"] {
            let plain: Endpoint = place.parse().unwrap();
            let pinned: Endpoint =
                format!("{place}#{}", id.to_string().to_uppercase()).parse().unwrap();
            assert_eq!(pinned.to_string(), format!("{place}#{id}"));
            assert_eq!((pinned.pin(), plain.pin()), (Some(id), None));
            assert_eq!((pinned.with_pin(None), plain.with_pin(Some(id))), (plain, pinned));
        }
    }

    #[test]
    fn what_answers_for_a_peer_says_nothing_of_its_address() {
        use TransportKind as K;
        let rungs = [K::GrpcStream, K::WebSocket, K::GrpcUnary, K::Rest];
        for (text, direct, carried) in [
            ("1.2.3.4:5", true, &rungs[..]),
            ("https://1.2.3.4:5", false, &rungs[..]),
            ("http://1.2.3.4:5/x", false, &rungs[..]),
            ("wss://1.2.3.4:5", false, &rungs[1..2]),
            ("ws://1.2.3.4:5", false, &rungs[1..2]),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.socket_addr().is_some(), direct, "{text}");
            let found: Vec<_> = rungs.into_iter().filter(|kind| endpoint.carries(*kind)).collect();
            assert_eq!(found, carried, "{text}");
            assert_eq!(endpoint.carries(K::Memory), direct, "{text}");
            assert_eq!(endpoint.group(), "1.2.3.4:9".parse::<Endpoint>().unwrap().group());
        }
        let is_name = |text: &str| text.parse::<Endpoint>().unwrap().is_name();
        assert!(is_name("h:1") && !is_name("https://h:1"));
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
