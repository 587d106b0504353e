//! The forward proxy that a node dials through, and where it does not.
//!
//! Contract: a proxy is an HTTP proxy that opens tunnels (`CONNECT`). Its credentials are in no text
//! that this module makes, errors and `Debug` included. Whether an endpoint is dialled by way of the
//! proxy depends on its host and port as they are written; names are not resolved for that.
//!
//! Tested by: the tests below.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::ConfigError;
use crate::types::{Endpoint, Host};

/// Maximum number of bytes of the text that names a proxy.
const MAX_URL_BYTES: usize = 2048;
/// Maximum number of rules of `no_proxy`.
const MAX_RULES: usize = 256;
/// Port of a URL that names none.
const DEFAULT_PORT: u16 = 80;
const URL: &str = "connection.proxy";
const RULES: &str = "connection.no_proxy";

/// Hosts that are dialled directly unless the host application says otherwise: a proxy on another machine
/// would look for them there.
pub(super) fn local_hosts() -> Vec<String> {
    ["localhost", "127.0.0.0/8", "::1"].map(str::to_owned).to_vec()
}

/// HTTP proxy, and the endpoints that are dialled without it.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "grpc"), allow(dead_code))]
pub(crate) struct Proxy {
    endpoint: Endpoint,
    /// Value of the header that proves who asks.
    authorization: Option<String>,
    direct: Vec<Rule>,
}

impl Proxy {
    /// Reads `[http://][user:password@]host[:port]` and the rules that name what is dialled directly.
    ///
    /// # Errors
    /// [`ConfigError::Proxy`], without the credentials.
    pub(crate) fn new(url: &str, no_proxy: &[String]) -> Result<Self, ConfigError> {
        let (endpoint, authorization) = parse_url(url).map_err(|reason| refused(URL, reason))?;
        Ok(Self { endpoint, authorization, direct: parse_rules(no_proxy)? })
    }

    /// Reports whether this is dialled by way of the proxy.
    #[cfg_attr(not(feature = "grpc"), allow(dead_code))]
    pub(crate) fn carries(&self, endpoint: &Endpoint) -> bool {
        !self.direct.iter().any(|rule| rule.names(endpoint))
    }

    /// Returns where the proxy listens.
    #[cfg_attr(not(feature = "grpc"), allow(dead_code))]
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the value of the header `Proxy-Authorization`, where the proxy asks for one.
    #[cfg_attr(not(feature = "grpc"), allow(dead_code))]
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("endpoint", &self.endpoint)
            .field("authorization", &self.authorization.is_some())
            .field("direct", &self.direct)
            .finish()
    }
}

/// Checks the rules where there is no proxy yet.
///
/// # Errors
/// [`ConfigError::Proxy`].
pub(super) fn check_rules(no_proxy: &[String]) -> Result<(), ConfigError> {
    parse_rules(no_proxy).map(drop)
}

/// The text that names a proxy, without its credentials.
pub(crate) fn without_credentials(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            let separator = if scheme.is_empty() { "" } else { "://" };
            format!("{scheme}{separator}***@{host}")
        }
        None => url.to_owned(),
    }
}

/// Proxy and rules that environment variables name, as other programs read them: `HTTPS_PROXY`, or
/// else `ALL_PROXY`, and `NO_PROXY`, each in lower case first. An empty one counts as none. Rules that
/// only other programs know are left out, with a warning.
#[cfg_attr(not(any(test, feature = "node")), allow(dead_code))]
pub(crate) fn of_environment(
    variable: impl Fn(&str) -> Option<String>,
) -> (Option<String>, Vec<String>) {
    let first = |names: &[&str]| {
        let mut found = names.iter().filter_map(|name| variable(name));
        found.find(|text| !text.trim().is_empty())
    };
    let url = first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]);
    let rules = first(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    let (known, unknown): (Vec<_>, Vec<_>) = rules
        .split([',', ' '])
        .filter(|rule| !rule.is_empty())
        .map(str::to_owned)
        .partition(|rule| parse_rule(rule).is_some());
    if !unknown.is_empty() {
        tracing::warn!(target: "sorcha_peer::node", rules = ?unknown, "rules of NO_PROXY are not known");
    }
    (url, known)
}

fn refused(field: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Proxy { field, reason: reason.into() }
}

fn parse_url(url: &str) -> Result<(Endpoint, Option<String>), String> {
    let url = url.trim();
    if url.len() > MAX_URL_BYTES {
        return Err(format!("has {} bytes, allowed are {MAX_URL_BYTES}", url.len()));
    }
    // What stands before the host may hold anything, `://` too.
    let (rest, scheme) = match url.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => (rest, scheme),
        _ => (url, "http"),
    };
    if !scheme.eq_ignore_ascii_case("http") {
        return Err("is no http:// URL: proxies of other kinds are not supported".to_owned());
    }
    let (credentials, host) = match rest.rsplit_once('@') {
        Some((credentials, host)) => (Some(credentials), host),
        None => (None, rest),
    };
    let host = host.strip_suffix('/').unwrap_or(host);
    if host.contains(['/', '?', '#']) {
        return Err("has more than a host and a port".to_owned());
    }
    let has_port = host.rsplit_once(']').map_or(host, |(_, after)| after).contains(':');
    let spelled = if has_port { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") };
    let endpoint = spelled.parse().map_err(|error| format!("names no host: {error}"))?;
    Ok((endpoint, credentials.map(basic).transpose()?))
}

/// The header value for `user:password`, each percent-encoded.
fn basic(credentials: &str) -> Result<String, String> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let decoded = |text| {
        percent_decoded(text)
            .ok_or("has credentials in which a % is not followed by two hex digits")
    };
    let (user, password) = (decoded(user)?, decoded(password)?);
    if user.contains(&b':') {
        return Err("has a user name with a colon".to_owned());
    }
    Ok(format!("Basic {}", STANDARD.encode([&user, &b":"[..], &password].concat())))
}

pub(super) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            plain => plain,
        });
    }
    Some(decoded)
}

/// Endpoints that are dialled directly.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    hosts: Hosts,
    /// `None` is any.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    /// A name and all below it.
    Domain(String),
    /// Addresses that have the first bits of this one.
    Network(IpAddr, u32),
}

impl Rule {
    fn names(&self, endpoint: &Endpoint) -> bool {
        self.port.is_none_or(|port| port == endpoint.port())
            && match (&self.hosts, endpoint.host()) {
                (Hosts::All, _) => true,
                (Hosts::Domain(domain), Host::Name(name)) => {
                    let name = name.strip_suffix('.').unwrap_or(name);
                    let below = name.strip_suffix(domain.as_str());
                    below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
                }
                (Hosts::Network(network, bits), Host::Ip(ip)) => shares(*network, *ip, *bits),
                _ => false,
            }
    }
}

/// Reports whether two addresses are of one family and begin with the same bits.
fn shares(network: IpAddr, ip: IpAddr, bits: u32) -> bool {
    let (network, ip, unused) = match (network, ip.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    // A shift by all bits is none.
    (network ^ ip).checked_shr(unused - bits).unwrap_or(0) == 0
}

fn parse_rules(texts: &[String]) -> Result<Vec<Rule>, ConfigError> {
    if texts.len() > MAX_RULES {
        let reason = format!("has {} rules, allowed are {MAX_RULES}", texts.len());
        return Err(refused(RULES, reason));
    }
    let rule = |text: &String| {
        parse_rule(text).ok_or_else(|| {
            let reason = format!("has {text:?}, which is no name, address or network");
            refused(RULES, reason)
        })
    };
    texts.iter().map(rule).collect()
}

fn parse_rule(text: &str) -> Option<Rule> {
    let text = text.trim().to_ascii_lowercase();
    // An IPv6 address is full of colons, and with a port it stands in brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, Some(port.parse().ok()?))
        }
        _ => (text.as_str(), None),
    };
    let inner = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    Some(Rule { hosts: parse_hosts(inner.unwrap_or(host))?, port })
}

fn parse_hosts(text: &str) -> Option<Hosts> {
    if text == "*" {
        return Some(Hosts::All);
    }
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        None => (text, None),
    };
    match (address.parse::<IpAddr>(), bits) {
        (Ok(ip), bits) => {
            let ip = ip.to_canonical();
            let most = if ip.is_ipv4() { 32 } else { 128 };
            let bits = bits.unwrap_or(most);
            (bits <= most).then_some(Hosts::Network(ip, bits))
        }
        (Err(_), Some(_)) => None,
        (Err(_), None) => {
            let name = text.strip_prefix('*').unwrap_or(text);
            let name = name.strip_prefix('.').unwrap_or(name);
            let endpoint: Endpoint = format!("{name}:1").parse().ok()?;
            matches!(endpoint.host(), Host::Name(_)).then(|| Hosts::Domain(name.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str) -> Result<Proxy, ConfigError> {
        Proxy::new(url, &[])
    }

    #[test]
    fn the_usual_spellings_parse() {
        for (url, endpoint, authorization) in [
            ("http://proxy.corp:3128", "proxy.corp:3128", None),
            ("HTTP://Proxy.corp:3128/", "proxy.corp:3128", None),
            (" proxy.corp:3128 ", "proxy.corp:3128", None),
            ("http://proxy.corp", "proxy.corp:80", None),
            ("http://[2001:db8::1]", "[2001:db8::1]:80", None),
            ("http://[2001:db8::1]:8080", "[2001:db8::1]:8080", None),
            ("http://user:word@10.0.0.1:1", "10.0.0.1:1", Some("user:word")),
            ("http://user@10.0.0.1:1", "10.0.0.1:1", Some("user:")),
            ("user:a%40b%3a%C3%BC/@h:1", "h:1", Some("user:a@b:ü/")),
            ("http://u:p@ss@h:1", "h:1", Some("u:p@ss")),
        ] {
            let read = proxy(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(read.endpoint().to_string(), endpoint, "{url}");
            let wanted = authorization.map(|text| format!("Basic {}", STANDARD.encode(text)));
            assert_eq!(read.authorization(), wanted.as_deref(), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_credentials() {
        for (url, words) in [
            ("socks5://user:hunter2@h:1", "other kinds"),
            ("https://user:hunter2@h:1", "other kinds"),
            ("http://user:hunter2@", "names no host"),
            ("http://user:hunter2@h:0", "names no host"),
            ("http://user:hunter2@h:1/path", "more than a host"),
            ("http://user:hunter2%2@h:1", "two hex digits"),
            ("http://user%3Ahunter2:x@h:1", "colon"),
            ("http://", "names no host"),
            ("", "names no host"),
        ] {
            let error = proxy(url).unwrap_err();
            let (text, debug) = (error.to_string(), format!("{error:?}"));
            assert!(text.starts_with("connection.proxy ") && text.contains(words), "{url}: {text}");
            assert!(!text.contains("hunter2") && !debug.contains("hunter2"), "{text}");
        }
        let long = format!("http://{}:1", "a".repeat(MAX_URL_BYTES));
        assert!(proxy(&long).unwrap_err().to_string().contains("2048"));
    }

    #[test]
    fn credentials_are_not_shown() {
        let url = "http://user:hunter2@proxy.corp:3128";
        let shown = format!("{:?}", proxy(url).unwrap());
        assert!(shown.contains("proxy.corp") && !shown.contains("user"), "{shown}");
        assert!(!shown.contains(&STANDARD.encode("user:hunter2")), "{shown}");
        assert_eq!(without_credentials(url), "http://***@proxy.corp:3128");
        assert_eq!(without_credentials("user:hunter2@h:1"), "***@h:1");
        assert_eq!(without_credentials("http://h:1"), "http://h:1");
    }

    #[test]
    fn rules_name_what_is_dialled_directly() {
        for (rule, direct, by_proxy) in [
            ("*", &["a.b:1", "10.0.0.1:1", "[::1]:1"][..], &[][..]),
            ("example.com", &["example.com:1", "a.Example.com:2"], &["badexample.com:1", "com:1"]),
            (".example.com", &["example.com:1", "a.b.example.com:1"], &["example.org:1"]),
            ("*.example.com", &["a.example.com:1"], &["example.org:1"]),
            ("10.1.0.0/16", &["10.1.255.255:9"], &["10.2.0.0:9", "[2001:db8::1]:9", "h:1"]),
            ("10.1.2.3", &["10.1.2.3:9", "[::ffff:10.1.2.3]:9"], &["10.1.2.4:9"]),
            ("2001:db8::/32", &["[2001:db8:1::1]:9"], &["[2001:db9::1]:9", "32.1.13.184:1"]),
            ("::1", &["[::1]:9"], &["[::2]:9"]),
            ("0.0.0.0/0", &["1.2.3.4:1"], &["[::1]:1"]),
            ("::/0", &["[::1]:1"], &["1.2.3.4:1"]),
            ("h:7", &["h:7"], &["h:8"]),
            ("[::1]:7", &["[::1]:7"], &["[::1]:8"]),
            ("10.0.0.0/8:7", &["10.9.9.9:7"], &["10.9.9.9:8"]),
        ] {
            let proxy = Proxy::new("p:1", &[rule.to_owned()]).unwrap();
            let carries = |text: &&str| proxy.carries(&text.parse().unwrap());
            assert!(!direct.iter().any(carries), "{rule}");
            assert!(by_proxy.iter().all(carries), "{rule}");
        }
        let local = Proxy::new("p:1", &local_hosts()).unwrap();
        for (text, carried) in [("localhost:1", false), ("127.9.9.9:1", false), ("h:1", true)] {
            assert_eq!(local.carries(&text.parse().unwrap()), carried, "{text}");
        }
    }

    #[test]
    fn wrong_rules_are_refused() {
        for rule in ["", "a b", "10.0.0.0/33", "::/129", "10.0.0.0/x", "h/8", "h:x", "300.1.1.1"] {
            let error = check_rules(&[rule.to_owned()]).unwrap_err().to_string();
            assert!(error.starts_with("connection.no_proxy has"), "{rule}: {error}");
        }
        let many = vec!["h".to_owned(); MAX_RULES + 1];
        assert!(check_rules(&many).is_err());
    }

    #[test]
    fn the_environment_is_read_as_others_read_it() {
        let read = |variables: &[(&str, &str)]| {
            let of = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, text)| (*text).to_owned())
            };
            of_environment(of)
        };
        assert_eq!(read(&[]), (None, vec![]));
        assert_eq!(read(&[("http_proxy", "a:1"), ("HTTP_PROXY", "a:1")]), (None, vec![]));
        let (url, rules) = read(&[
            ("https_proxy", " "),
            ("HTTPS_PROXY", "b:1"),
            ("ALL_PROXY", "c:1"),
            ("NO_PROXY", "localhost, .corp,<local>,,10.0.0.0/8"),
        ]);
        assert_eq!(url.as_deref(), Some("b:1"));
        assert_eq!(rules, ["localhost", ".corp", "10.0.0.0/8"]);
        assert_eq!(read(&[("ALL_PROXY", "c:1")]).0.as_deref(), Some("c:1"));
    }
}
