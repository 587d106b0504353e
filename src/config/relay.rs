//! A relay as a host writes it: a TURN server, and the account there.
//!
//! Contract: user and password are in no text that this module makes, errors and `Debug` included.
//!
//! Tested by: the tests below.

use std::fmt;

use super::proxy::percent_decoded;
use crate::types::Endpoint;

/// Maximum number of bytes of the text that names a relay.
const MAX_TEXT_BYTES: usize = 2048;
/// Maximum number of bytes of a user name, as TURN has it.
const MAX_USER_BYTES: usize = 508;
/// Maximum number of bytes of a password.
const MAX_PASSWORD_BYTES: usize = 512;
/// Ports where none is given: of TURN over TCP, and over TLS.
const PORTS: [u16; 2] = [3478, 5349];

/// TURN server that listens for this node.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "turn"), allow(dead_code))]
pub(crate) struct RelayServer {
    endpoint: Endpoint,
    is_tls: bool,
    user: String,
    password: String,
}

#[cfg_attr(not(feature = "turn"), allow(dead_code))]
impl RelayServer {
    /// Reads `turn:USER:PASSWORD@HOST[:PORT]`, or `turns:` where the server is spoken to over TLS; user and
    /// password percent-encoded, as a colon in the user name must be.
    ///
    /// # Errors
    /// The reason, without the credentials.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() > MAX_TEXT_BYTES {
            return Err(format!("has {} bytes, allowed are {MAX_TEXT_BYTES}", text.len()));
        }
        let (is_tls, rest) = match text.split_once(':') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("turn") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("turns") => (true, rest),
            _ => return Err("begins with neither turn: nor turns:".to_owned()),
        };
        let Some((credentials, host)) = rest.rsplit_once('@') else {
            return Err("has no USER:PASSWORD@ before its host".to_owned());
        };
        let Some((user, password)) = credentials.split_once(':') else {
            return Err("has no colon between user and password".to_owned());
        };
        let user = credential(user, MAX_USER_BYTES)?;
        let password = credential(password, MAX_PASSWORD_BYTES)?;
        let host = host.strip_suffix("?transport=tcp").unwrap_or(host);
        if host.contains(['/', '?', '#']) {
            return Err("has more than a host and a port".to_owned());
        }
        let has_port = host.rsplit_once(']').map_or(host, |(_, after)| after).contains(':');
        let port = PORTS[usize::from(is_tls)];
        let spelled = if has_port { host.to_owned() } else { format!("{host}:{port}") };
        let endpoint = spelled.parse().map_err(|error| format!("names no host: {error}"))?;
        Ok(Self { endpoint, is_tls, user, password })
    }

    /// Returns where the server listens.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Reports whether the server is spoken to over TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }
}

/// Shows where the server is, without the account.
impl fmt::Display for RelayServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "turn{}:{}", if self.is_tls { "s" } else { "" }, self.endpoint)
    }
}

impl fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn credential(text: &str, max: usize) -> Result<String, String> {
    let decoded = percent_decoded(text)
        .ok_or("has credentials in which a % is not followed by two hex digits")?;
    let decoded = String::from_utf8(decoded).map_err(|_| "has credentials that are no UTF-8")?;
    if decoded.is_empty() || decoded.len() > max {
        return Err(format!("has a user or a password of 0 or more than {max} bytes"));
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_written_in_the_usual_ways() {
        for (text, name, user, password) in [
            ("turn:u:p@turn.example.com", "turn:turn.example.com:3478", "u", "p"),
            (" turns:u:p@turn.example.com ", "turns:turn.example.com:5349", "u", "p"),
            ("TURN:u:p@192.0.2.1:80", "turn:192.0.2.1:80", "u", "p"),
            ("turn:u:p@[2001:db8::1]", "turn:[2001:db8::1]:3478", "u", "p"),
            ("turn:u:p@[2001:db8::1]:9?transport=tcp", "turn:[2001:db8::1]:9", "u", "p"),
            ("turn:17%3aalice:p:@@h", "turn:h:3478", "17:alice", "p:@"),
            ("turn:u:a%40b:c@h", "turn:h:3478", "u", "a@b:c"),
        ] {
            let server = RelayServer::new(text).unwrap();
            assert_eq!(server.to_string(), name);
            assert_eq!((server.user(), server.password()), (user, password), "{text}");
            assert_eq!(server.is_tls(), name.starts_with("turns:"));
        }
    }

    #[test]
    fn what_is_no_relay_is_refused_and_no_secret_is_shown() {
        let long = format!("turn:u:{}@h", "s3cret".repeat(500));
        for text in [
            "",
            "u:s3cret@h",
            "stun:u:s3cret@h",
            "turn:u:s3cret",
            "turn:s3cret@h",
            "turn::s3cret@h",
            "turn:s3cret:@h",
            "turn:u:s3cret%4@h",
            "turn:u:s3cret%ff@h",
            "turn:u:s3cret@",
            "turn:u:s3cret@h:0",
            "turn:u:s3cret@h:x",
            "turn:u:s3cret@h/path",
            "turn:u:s3cret@h?transport=udp",
            "turn:u:s3cret@a b",
            &long,
        ] {
            let error = RelayServer::new(text).expect_err(text);
            assert!(!error.contains("s3cret"), "{error}");
        }
        let server = RelayServer::new("turn:u:s3cret@h").unwrap();
        assert_eq!(format!("{server:?}"), "turn:h:3478");
    }
}
