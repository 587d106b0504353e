//! Paths, and what they ask for.

use std::borrow::Cow;

use super::problem::Problem;
use super::text::decode;

/// What a path stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    Peers,
    Peer(String),
    PeersHealth,
    PeersStats,
    List,
    Register,
    Ping,
    Message,
    Publish,
    Notify,
    /// By what was given in the path: an id, or a hash of the payload.
    Transaction(String),
}

/// Reports whether a path lies where this face serves.
pub(in crate::compat) fn is_for(path: &str) -> bool {
    below(path.strip_prefix('/').unwrap_or(path), "api").is_some()
}

impl Route {
    /// Route of a path as it came; `None` where nothing is served.
    ///
    /// # Errors
    /// 400 for a path that cannot be decoded.
    pub(super) fn of(path: &str) -> Result<Option<Self>, Problem> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let Some(rest) = below(path, "api") else { return Ok(None) };
        let rest = below(rest, "v1").unwrap_or(rest);
        let (first, rest) = match rest.split_once('/') {
            Some((first, rest)) => (first, Some(decode(rest)?)),
            None => (rest, None),
        };
        let first = decode(first)?.to_ascii_lowercase();
        Ok(match (first.as_str(), rest) {
            ("health", None) => Some(Self::Health),
            ("peers" | "peer", rest) => Self::of_peers(rest),
            ("transactions" | "transaction", None) => Some(Self::Publish),
            ("transactions" | "transaction", Some(rest)) => match &*rest {
                "" => None,
                rest if rest.eq_ignore_ascii_case("notify") => Some(Self::Notify),
                // A hash in Base64 may have slashes of its own.
                _ => Some(Self::Transaction(rest.into_owned())),
            },
            _ => None,
        })
    }

    fn of_peers(rest: Option<Cow<'_, str>>) -> Option<Self> {
        let Some(rest) = rest else { return Some(Self::Peers) };
        Some(match rest.to_ascii_lowercase().as_str() {
            "" => return None,
            "list" => Self::List,
            "register" => Self::Register,
            "ping" => Self::Ping,
            "message" => Self::Message,
            "health" => Self::PeersHealth,
            "stats" => Self::PeersStats,
            _ => Self::Peer(rest.into_owned()),
        })
    }

    /// Methods that the path takes, as `Allow` lists them.
    pub(super) fn allow(&self) -> &'static str {
        match self {
            Self::Ping => "GET, HEAD, POST, OPTIONS",
            Self::Register | Self::Message | Self::Publish | Self::Notify => "POST, OPTIONS",
            Self::Health
            | Self::Peers
            | Self::Peer(_)
            | Self::PeersHealth
            | Self::PeersStats
            | Self::List
            | Self::Transaction(_) => "GET, HEAD, OPTIONS",
        }
    }
}

/// What comes behind a part of a path.
fn below<'a>(path: &'a str, part: &str) -> Option<&'a str> {
    let (first, rest) = path.split_once('/')?;
    decode(first).ok()?.eq_ignore_ascii_case(part).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_the_original_are_one_and_a_slash_may_trail() {
        let names = [
            ("list", Route::List),
            ("register", Route::Register),
            ("ping", Route::Ping),
            ("message", Route::Message),
            ("health", Route::PeersHealth),
            ("stats", Route::PeersStats),
            ("some%20one", Route::Peer("some one".to_owned())),
            ("a%2Fb", Route::Peer("a/b".to_owned())),
        ];
        for prefix in ["/api/v1/peers", "/api/v1/peer", "/api/peers", "/api/peer", "/API/V1/Peers"]
        {
            assert_eq!(Route::of(prefix).unwrap(), Some(Route::Peers), "{prefix}");
            for (name, route) in &names {
                for path in [format!("{prefix}/{name}"), format!("{prefix}/{name}/")] {
                    assert_eq!(Route::of(&path).unwrap().as_ref(), Some(route), "{path}");
                    assert!(is_for(&path));
                }
            }
        }
        for prefix in ["/api/v1/transactions", "/api/transaction", "/%61pi/v1/transaction"] {
            assert_eq!(Route::of(prefix).unwrap(), Some(Route::Publish));
            assert_eq!(Route::of(&format!("{prefix}/notify")).unwrap(), Some(Route::Notify));
            for (hash, decoded) in
                [("aB0", "aB0"), ("a/b//c=", "a/b//c="), ("a%2Fb%2B%3d", "a/b+=")]
            {
                let route = Route::of(&format!("{prefix}/{hash}")).unwrap();
                assert_eq!(route, Some(Route::Transaction(decoded.to_owned())));
            }
        }
        assert_eq!(Route::of("/api/health").unwrap(), Some(Route::Health));
        assert_eq!(Route::of("/api/v1/health/").unwrap(), Some(Route::Health));
    }

    #[test]
    fn what_is_not_served_is_told_from_what_is_no_path() {
        for path in [
            "/api/",
            "/api/v1",
            "/api/v2/peers",
            "/api/peers//",
            "//api/peers",
            "/api/health/x",
            "*",
        ] {
            assert_eq!(Route::of(path).unwrap(), None, "{path}");
        }
        for path in ["/api/peers/%ff", "/api/transactions/%2", "/api/%zz"] {
            assert_eq!(Route::of(path).unwrap_err().status, 400, "{path}");
        }
        for path in ["/sorcha/v1/exchange/open", "/apix/peers", "/", "*", "/a/api/peers", "/api"] {
            assert!(!is_for(path), "{path}");
        }
    }
}
