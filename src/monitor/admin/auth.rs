//! Who may ask: by the token, by the name that the listener is called, and by the page that asks.

use std::fmt;
use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::config::ListenConfig;
use crate::web::{Problem, negotiation};

/// What a 401 asks for.
const BEARER: &str = "Bearer realm=\"sorcha-peer admin\"";

/// What is known of callers.
pub(super) struct Gate {
    /// Hash of the token: two of them are compared in a time that does not depend on where they differ.
    token: Option<blake3::Hash>,
    /// Names under which the listener may be called, in lower case.
    hosts: Vec<String>,
}

impl Gate {
    pub(super) fn new(config: &ListenConfig) -> Self {
        let token = config.admin_token.as_ref().map(|token| blake3::hash(token.as_bytes()));
        let hosts = config.admin_hosts.iter().map(|host| bare(host).to_ascii_lowercase());
        Self { token, hosts: hosts.collect() }
    }

    /// Checks that the listener was called by a name that nobody else can have lead here: a web page is allowed by
    /// browsers to ask whatever its own name leads to.
    ///
    /// # Errors
    /// 400 without one name, 403 for another name.
    pub(super) fn check_host(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        local: IpAddr,
    ) -> Result<(), Problem> {
        let no_host = || Problem::invalid("The request names no host, or more than one");
        if headers.get_all(HOST).iter().count() > 1 {
            return Err(no_host());
        }
        let host = negotiation::host(headers, uri).ok_or_else(no_host)?;
        let name = bare(host.host()).to_ascii_lowercase();
        let is_own = match name.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(ip) => ip.is_loopback() || ip == local.to_canonical(),
            Err(_) => name == "localhost",
        };
        if is_own || self.hosts.contains(&name) {
            return Ok(());
        }
        let detail = "The listener is not called so: see listen.admin_hosts";
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }

    /// Reports whether a request shows the token, where there is one.
    pub(super) fn is_open_to(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let shown = values.next().filter(|_| values.next().is_none());
        let shown = shown.and_then(|value| value.to_str().ok()?.split_once(' '));
        shown.is_some_and(|(scheme, shown)| {
            let is_bearer = scheme.eq_ignore_ascii_case("bearer");
            is_bearer && blake3::hash(shown.trim_ascii().as_bytes()) == *token
        })
    }

    pub(super) fn refusal() -> Problem {
        let detail =
            "The token is missing or wrong: `Authorization: Bearer …`, see listen.admin_token";
        Problem::new(StatusCode::UNAUTHORIZED, detail)
            .with(WWW_AUTHENTICATE, HeaderValue::from_static(BEARER))
    }
}

/// A host without the brackets of IPv6 and the dot of the root.
fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']']).trim_end_matches('.')
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.map(|_| "…");
        f.debug_struct("Gate").field("token", &token).field("hosts", &self.hosts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(token: Option<&str>, hosts: &[&str]) -> Gate {
        let mut config = crate::config::Config::default().listen;
        config.admin_token = token.map(str::to_owned);
        config.admin_hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        Gate::new(&config)
    }

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_name_that_could_lead_anywhere_is_refused() {
        let gate = gate(None, &["Admin.Example", "[2001:db8::7]"]);
        let local = "10.0.0.5".parse().unwrap();
        let status = |host: &str| {
            let checked = gate.check_host(&headers(&[(HOST, host)]), &Uri::from_static("/"), local);
            checked.map_or_else(|problem| problem.status.as_u16(), |()| 200)
        };
        for own in [
            "localhost",
            "LocalHost:8080",
            "localhost.:8080",
            "127.0.0.1:1",
            "127.8.8.8",
            "[::1]:8080",
            "10.0.0.5:8080",
            "[::ffff:10.0.0.5]",
            "admin.example:9",
            "ADMIN.EXAMPLE.",
            "[2001:db8::7]:1",
        ] {
            assert_eq!(status(own), 200, "{own}");
        }
        for other in ["evil.example", "10.0.0.6", "a.localhost", "127.0.0.1.evil.example", "0x7f.1"]
        {
            assert_eq!(status(other), 403, "{other}");
        }
        for none in ["", "a b", "http://localhost"] {
            assert_eq!(status(none), 400, "{none}");
        }
        let absolute = Uri::from_static("http://evil.example/livez");
        assert!(gate.check_host(&headers(&[(HOST, "localhost")]), &absolute, local).is_err());
        let twice = headers(&[(HOST, "localhost"), (HOST, "localhost")]);
        assert_eq!(gate.check_host(&twice, &Uri::from_static("/"), local).unwrap_err().status, 400);
    }

    #[test]
    fn the_token_is_asked_for_where_there_is_one() {
        let open = gate(None, &[]);
        assert!(open.is_open_to(&HeaderMap::new()));
        let guarded = gate(Some("0123456789abcdef"), &[]);
        let shows = |value: &str| guarded.is_open_to(&headers(&[(AUTHORIZATION, value)]));
        for right in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef"] {
            assert!(shows(right), "{right}");
        }
        for wrong in ["", "0123456789abcdef", "Bearer", "Bearer ", "Basic 0123456789abcdef"] {
            assert!(!shows(wrong), "{wrong}");
        }
        assert!(!shows("Bearer 0123456789abcdeF") && !shows("Bearer 0123456789abcdef0"));
        assert!(!guarded.is_open_to(&HeaderMap::new()));
        let right = (AUTHORIZATION, "Bearer 0123456789abcdef");
        assert!(!guarded.is_open_to(&headers(&[right.clone(), right])));
        assert!(!format!("{guarded:?}").contains("0123"));
    }
}
