//! What a node asks others to learn where it can be reached, and what it has others do for that.
//!
//! Credentials of relays are in no text that this module makes, errors, `Debug` and serde included.
//!
//! Tested by: the tests below.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::error::ConfigError;
use crate::types::{Endpoint, Scheme};

use super::proxy;
use super::ranges::{secs, within, within_span};
use super::relay::RelayServer;
use super::sections::{MINUTE, span};

/// Maximum number of servers of each kind.
const MAX_SERVERS: usize = 8;
const RELAY_SCHEMES: [&str; 2] = ["turns:", "turn:"];
/// Maximum number of bytes of the text that names a server.
const MAX_TEXT_BYTES: usize = 2048;

/// Section `[nat]`: what the node asks others to learn where it can be reached, and what it has others do for
/// that. Nobody outside is asked unless it is named here. `Debug` does not show the credentials of relays, and
/// serde does not write them.
///
/// Answers are candidates: what of them is advertised decides a proof by other nodes. See the guide's page on
/// reachability.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NatConfig {
    /// STUN servers, as `host`, `host:port` or `[v6]:port` (port 3478 where none is given), at most 8. With
    /// two or more an answer counts where two agree. Those that know RFC 5780 also tell how the NAT
    /// behaves, and those that answer over TCP which mapping the listening port has. Default none. In a build
    /// with the feature `stun`.
    pub stun: Vec<String>,
    /// URLs of HTTP servers that answer with the address that asks, `http://…` or `https://…`, at most 8. They
    /// are asked after the STUN servers, and what contradicts those is left out. Default none. In a build with
    /// the features `stun` and `grpc`.
    pub http: Vec<String>,
    /// TURN servers that listen for the node (RFC 6062), as `turn:USER:PASSWORD@HOST[:PORT]`, or `turns:…` for
    /// TLS, at most 8. Credentials are percent-encoded. Serde writes `***` in their place, which is refused
    /// where it is read. Default none. In a build with the feature `turn`.
    #[serde(serialize_with = "without_passwords")]
    pub relays: Vec<String>,
    /// True: the router is asked to pass the listening port on, over PCP, NAT-PMP or `UPnP`, for as long as the
    /// node runs. Default false. In a build with the feature `port-mapping`.
    pub port_mapping: bool,
    /// Time for which answers are believed; then, and when an interface changes or the last link is lost, all
    /// are asked again. Default 15 min, range 1 min to 24 h.
    #[serde(with = "span")]
    pub interval: Duration,
}

impl Default for NatConfig {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            http: Vec::new(),
            relays: Vec::new(),
            port_mapping: false,
            interval: 15 * MINUTE,
        }
    }
}

impl fmt::Debug for NatConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without `..`, so that a new field is not left out.
        let Self { stun, http, relays, port_mapping, interval } = self;
        f.debug_struct("NatConfig")
            .field("stun", stun)
            .field("http", http)
            .field("relays", &redacted(relays).collect::<Vec<_>>())
            .field("port_mapping", port_mapping)
            .field("interval", interval)
            .finish()
    }
}

impl NatConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within_span("nat.interval", self.interval, MINUTE..=secs(86_400))?;
        if self.port_mapping && !cfg!(feature = "port-mapping") {
            return Err(not_built("nat.port_mapping", "port-mapping"));
        }
        let (stun, turn) = (cfg!(feature = "stun"), cfg!(feature = "turn"));
        // HTTP takes what the built-in transport brings.
        let http = if stun { ("grpc", cfg!(feature = "grpc")) } else { ("stun", false) };
        check_all("nat.stun", &self.stun, ("stun", stun), check_stun)?;
        check_all("nat.http", &self.http, http, check_http)?;
        check_all("nat.relays", &self.relays, ("turn", turn), check_relay)
    }
}

fn not_built(field: &'static str, feature: &'static str) -> ConfigError {
    ConfigError::NatNotBuilt { field, feature }
}

/// Relays without their credentials.
fn redacted(relays: &[String]) -> impl Iterator<Item = String> {
    relays.iter().map(|relay| without_credentials(relay.trim()))
}

/// Text that names a relay, without what is before the host: where that is malformed too.
fn without_credentials(relay: &str) -> String {
    let scheme = RELAY_SCHEMES.into_iter().find(|scheme| relay.starts_with(scheme));
    let host = relay.rsplit_once('@').map_or("…", |(_, host)| host);
    format!("{}***@{host}", scheme.unwrap_or_default())
}

fn without_passwords<S: Serializer>(relays: &[String], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(redacted(relays))
}

/// Checks a list of servers of one kind, which a build has or has not.
fn check_all(
    field: &'static str,
    servers: &[String],
    (feature, is_built): (&'static str, bool),
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<(), ConfigError> {
    if !servers.is_empty() && !is_built {
        return Err(not_built(field, feature));
    }
    let mut named = BTreeSet::new();
    let entries = match field {
        "nat.stun" => "nat.stun (entries)",
        "nat.http" => "nat.http (entries)",
        _ => "nat.relays (entries)",
    };
    within(entries, servers.len(), 0..=MAX_SERVERS)?;
    for text in servers {
        let text = text.trim();
        let is_relay = field == "nat.relays";
        let shown =
            || if is_relay { without_credentials(text) } else { proxy::without_credentials(text) };
        if text.len() > MAX_TEXT_BYTES {
            let reason = format!("has {} bytes, allowed are {MAX_TEXT_BYTES}", text.len());
            return Err(ConfigError::NatServer { field, server: String::new(), reason });
        }
        check(text).map_err(|reason| ConfigError::NatServer { field, server: shown(), reason })?;
        if !named.insert(text) {
            return Err(ConfigError::Repeated { field, value: shown() });
        }
    }
    Ok(())
}

/// Checks `host`, `host:port` or `[v6]:port`.
fn check_host(text: &str) -> Result<(), String> {
    let endpoint: Endpoint = text.parse().map_err(|error| format!("names no host: {error}"))?;
    if endpoint.port() == 0 { Err("has port 0".to_owned()) } else { Ok(()) }
}

fn check_stun(text: &str) -> Result<(), String> {
    if text.contains("://") {
        return Err("is a URL, where a host is wanted".to_owned());
    }
    check_host(text.strip_prefix("stun:").unwrap_or(text))
}

fn check_http(text: &str) -> Result<(), String> {
    if text.contains('@') {
        return Err("has credentials, which nobody is to be told".to_owned());
    }
    let endpoint: Endpoint = text.parse().map_err(|error| format!("is no URL: {error}"))?;
    match endpoint.scheme() {
        Scheme::Http | Scheme::Https => Ok(()),
        _ => Err("begins with neither http:// nor https://".to_owned()),
    }
}

fn check_relay(text: &str) -> Result<(), String> {
    RelayServer::new(text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn error_of(spoil: impl FnOnce(&mut NatConfig)) -> String {
        let mut config = Config::default();
        spoil(&mut config.nat);
        config.validate().map_or_else(|error| error.to_string(), |()| String::new())
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    #[cfg(all(feature = "stun", feature = "grpc"))]
    fn servers_are_written_in_the_usual_ways() {
        for text in ["h", "h:1", "stun:h", " 192.0.2.1:3478 ", "[2001:db8::1]", "[2001:db8::1]:9"] {
            assert_eq!(error_of(|c| c.stun = texts(&[text])), "", "{text}");
        }
        for text in ["http://h", "https://h:8443/ip/text", "http://[2001:db8::1]/"] {
            assert_eq!(error_of(|c| c.http = texts(&[text])), "", "{text}");
        }
        for (text, words) in [("http://h", "is a URL"), ("", "is empty"), ("h:0", "nat.stun")] {
            let error = error_of(|c| c.stun = texts(&[text]));
            assert!(error.contains(words) && error.starts_with("nat.stun"), "{text}: {error}");
        }
        for (text, words) in [
            ("h", "begins with neither"),
            ("http://", "is no URL"),
            ("http://a:b@h", "has credentials"),
            ("http://h/a b", "is no URL"),
            ("http://h/?q=1", "is no URL"),
            ("ws://h", "begins with neither"),
        ] {
            let error = error_of(|c| c.http = texts(&[text]));
            assert!(error.contains(words) && error.starts_with("nat.http"), "{text}: {error}");
            assert!(!error.contains("a:b"), "{error}");
        }
        let error = error_of(|c| c.stun = texts(&["h", "h"]));
        assert_eq!(error, "nat.stun names h more than once");
        let many = (0..9).map(|n| format!("h{n}")).collect();
        assert_eq!(error_of(|c| c.stun = many), "nat.stun (entries) is 9, allowed is 0 to 8");
        let long = "h".repeat(MAX_TEXT_BYTES + 1);
        assert!(error_of(|c| c.stun = vec![long]).contains("allowed are 2048"));
    }

    #[test]
    fn the_time_between_questions_has_its_range() {
        let error = error_of(|c| c.interval = secs(59));
        assert_eq!(error, "nat.interval is 59s, allowed is 1m to 1day");
        assert_eq!(error_of(|c| c.interval = MINUTE), "");
    }

    #[test]
    #[cfg(feature = "turn")]
    fn relays_name_their_user_and_nobody_shows_the_password() {
        for text in ["turn:me:hunter2@h", "turns:me:hunter2@[2001:db8::1]:443"] {
            assert_eq!(error_of(|c| c.relays = texts(&[text])), "", "{text}");
        }
        for text in
            ["h", "turn:me:hunter2", "me:hunter2@h", "turn::hunter2@h", "turn:me:hunter2@h:0"]
        {
            let error = error_of(|c| c.relays = texts(&[text]));
            assert!(error.starts_with("nat.relays") && !error.contains("hunter2"), "{error}");
        }
        let error = error_of(|c| c.relays = texts(&["turn:me:hunter2@h", "turn:me:hunter2@h"]));
        assert!(error.contains("more than once") && !error.contains("hunter2"), "{error}");
        let mut config = Config::default();
        config.nat.relays = texts(&["turn:me:hunter2@h:3478"]);
        let json = serde_json::to_string(&config).unwrap();
        let shown = format!("{config:?}{json}");
        assert!(shown.contains("***@h:3478") && !shown.contains("hunter2"), "{shown}");
        let read: Config = serde_json::from_str(&json).unwrap();
        let error = read.validate().unwrap_err().to_string();
        assert!(error.starts_with("nat.relays"), "what is not written is missed: {error}");
    }

    #[test]
    fn a_build_without_the_feature_says_so() {
        let not_built = |error: String, feature: &str, is_built: bool| {
            let says = error.contains(&format!("needs a build with the feature `{feature}`"));
            assert_eq!(says, !is_built, "{feature}: {error}");
        };
        let stun = cfg!(feature = "stun");
        not_built(error_of(|c| c.stun = texts(&["h"])), "stun", stun);
        let grpc = !stun || cfg!(feature = "grpc");
        not_built(error_of(|c| c.http = texts(&["http://h"])), "grpc", grpc);
        let relays = texts(&["turn:a:b@h"]);
        not_built(error_of(|c| c.relays = relays), "turn", cfg!(feature = "turn"));
        let mapping = cfg!(feature = "port-mapping");
        not_built(error_of(|c| c.port_mapping = true), "port-mapping", mapping);
    }
}
