//! Endpoints as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{Endpoint, Host, More, Scheme};

/// Maximum length of a path in bytes.
const MAX_PATH_BYTES: usize = 128;

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
    /// A user or a query, or a path where no HTTP is spoken.
    #[error("only host and port are allowed in {0:?}, and a path with http, https, ws or wss")]
    Trailing(String),
    /// A path that is too long or holds what may be read in two ways.
    #[error(
        "the path {0:?} must have at most 128 bytes, letters, digits and -._~% only, and no segment that is empty or made of dots"
    )]
    Path(String),
    /// What stands behind `#` is no peer id.
    #[error("{0:?} is no peer id: 64 hex digits stand behind the #")]
    Pin(String),
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
    /// Not a URL to ask for an address at: another scheme, or a peer id behind it.
    #[error("{0:?} is not the URL of a lookup: http://host[:port][/path], or the same with https")]
    Lookup(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        let (place, pin) = match text.split_once('#') {
            None => (text, None),
            Some((place, pin)) => {
                let id = pin.parse().map_err(|_| EndpointError::Pin(pin.to_owned()))?;
                (place, Some(id))
            }
        };
        let (scheme, usual_port, place) = scheme(place)?;
        let (authority, path) = match place.find('/') {
            Some(at) => place.split_at(at),
            None => (place, ""),
        };
        let path = path.strip_suffix('/').unwrap_or(path);
        if place.contains(['?', '@']) || (scheme == Scheme::Direct && !path.is_empty()) {
            return Err(EndpointError::Trailing(text.to_owned()));
        }
        check_path(path)?;
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| EndpointError::Port)?
            }
            Some(_) => return Err(EndpointError::Port),
            None => usual_port,
        };
        check(&host, port)?;
        let more = More::of(path.to_owned(), pin);
        Ok(Self { host, port, scheme, more }.to_canonical())
    }
}

/// Refuses a name that is none, and port 0.
pub(super) fn check(host: &Host, port: u16) -> Result<(), EndpointError> {
    match host {
        _ if port == 0 => Err(EndpointError::Port),
        Host::Name(name) => check_name(name),
        Host::Ip(_) => Ok(()),
    }
}

/// Scheme of a text, the port that is meant without one, and what follows.
fn scheme(text: &str) -> Result<(Scheme, u16, &str), EndpointError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok((Scheme::Direct, Endpoint::DEFAULT_PORT, text));
    };
    let (scheme, port) = match scheme.to_ascii_lowercase().as_str() {
        "grpc" => (Scheme::Direct, 80),
        "grpcs" => (Scheme::Direct, 443),
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        "ws" => (Scheme::Ws, 80),
        "wss" => (Scheme::Wss, 443),
        _ => return Err(EndpointError::Scheme(scheme.to_owned())),
    };
    Ok((scheme, port, rest))
}

/// Refuses a path that could mean another one to somebody on the way.
fn check_path(path: &str) -> Result<(), EndpointError> {
    let fits = |segment: &str| {
        let escapes = segment.split('%').skip(1);
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b))
            && escapes.into_iter().all(|rest| rest.get(..2).is_some_and(is_plain_escape))
    };
    if path.len() <= MAX_PATH_BYTES && path.split('/').skip(1).all(fits) {
        return Ok(());
    }
    Err(EndpointError::Path(path.to_owned()))
}

/// Reports whether two digits stand for a byte that means nothing in a path: some on the way route by
/// what is escaped.
fn is_plain_escape(hex: &str) -> bool {
    let is_hex = hex.bytes().all(|b| b.is_ascii_hexdigit());
    let byte = u8::from_str_radix(hex, 16).ok().filter(|_| is_hex);
    byte.is_some_and(|byte| byte > b' ' && byte != 0x7f && !b"./\\?#%;".contains(&byte))
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
