//! Media types of what is sent and of what is taken back, and whose pages may ask.

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, StatusCode, Uri};

use super::problem::Problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Media type of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    Json,
    Bytes,
    /// Nothing is said.
    Unknown,
}

impl MediaType {
    /// Media type of a request's body.
    ///
    /// # Errors
    /// 415 for any other type, and for what is encoded.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let identity =
            |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
        if !headers.get_all(CONTENT_ENCODING).iter().all(identity) {
            return Err(Problem::encoded("A body with a content encoding is not taken"));
        }
        let chunked = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !headers.get_all(TRANSFER_ENCODING).iter().all(chunked) {
            return Err(Problem::encoded(
                "A body with another transfer encoding than chunked is not taken",
            ));
        }
        let refused = || {
            let detail = "The media type of the body is not taken here: \
                          application/json is, and for a transaction application/octet-stream";
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
        };
        let mut values = headers.get_all(CONTENT_TYPE).iter();
        let Some(value) = values.next() else { return Ok(Self::Unknown) };
        let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or_else(refused)?;
        let mut parts = text.split(';');
        let media_type = parts.next().unwrap_or_default().trim();
        let is_utf8 = parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            !name.trim().eq_ignore_ascii_case("charset")
                || ["utf-8", "utf8"].iter().any(|known| value.eq_ignore_ascii_case(known))
        });
        match media_type.to_ascii_lowercase().as_str() {
            "application/json" if is_utf8 => Ok(Self::Json),
            "application/octet-stream" => Ok(Self::Bytes),
            _ => Err(refused()),
        }
    }
}

/// Checks that a client takes an answer of a media type.
///
/// # Errors
/// 406 where it takes others alone.
pub(crate) fn accepted(headers: &HeaderMap, media_type: &'static str) -> Result<(), Problem> {
    let (main, _) = media_type.split_once('/').unwrap_or((media_type, ""));
    let (mut best, mut is_any_known) = ((0, 0.0), false);
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for element in values.flat_map(|value| value.split(',')) {
        let Some((range, weight)) = media_range(element) else { continue };
        is_any_known = true;
        let precision = match range.to_ascii_lowercase().as_str() {
            range if range == media_type => 3,
            range if range.strip_suffix("/*") == Some(main) => 2,
            "*/*" => 1,
            _ => continue,
        };
        // The most precise range has the word; of two as precise, the one that takes more.
        if (precision, weight) > best {
            best = (precision, weight);
        }
    }
    if is_any_known && best.1 <= 0.0 {
        let detail = format!("The answer would be {media_type}, which is not accepted");
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, detail));
    }
    Ok(())
}

/// A range of media types and its weight; `None` for what is none.
fn media_range(element: &str) -> Option<(&str, f32)> {
    let mut parts = element.split(';').map(str::trim);
    let range = parts.next().filter(|range| range.contains('/'))?;
    let weight = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
    });
    let weight: f32 = weight.map_or(Ok(1.0), str::parse).ok()?;
    (0.0..=1.0).contains(&weight).then_some((range, weight))
}

/// Checks that no page of another site is behind a request, since its reader never meant to make it.
///
/// A page has the origin of the node only where it comes through the same proxy, or has the node's bare
/// address: a name could be one of the page's owner that leads here.
///
/// # Errors
/// 403 where there is such a page.
pub(crate) fn same_site(headers: &HeaderMap, uri: &Uri, is_proxied: bool) -> Result<(), Problem> {
    let foreign = |site: &http::HeaderValue| site.as_bytes().eq_ignore_ascii_case(b"cross-site");
    if headers.get_all(SEC_FETCH_SITE).iter().any(foreign) {
        return Err(foreign_page());
    }
    let Some(origin) = own_origin(headers, uri)? else { return Ok(()) };
    let bare = origin.host().trim_matches(['[', ']']);
    let is_bare =
        bare.parse::<std::net::IpAddr>().is_ok() || bare.eq_ignore_ascii_case("localhost");
    if is_proxied || is_bare { Ok(()) } else { Err(foreign_page()) }
}

/// Checks that a request was made by no page, or by one of the very origin that it is for.
///
/// # Errors
/// 403 where there is another page.
pub(crate) fn same_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let own = |site: &http::HeaderValue| {
        [&b"same-origin"[..], b"none"].iter().any(|own| site.as_bytes().eq_ignore_ascii_case(own))
    };
    if !headers.get_all(SEC_FETCH_SITE).iter().all(own) {
        return Err(foreign_page());
    }
    own_origin(headers, uri).map(drop)
}

/// Authority that a request is for, where its origin is the same; `None` where no page is behind it.
///
/// # Errors
/// 403 for another origin.
fn own_origin(headers: &HeaderMap, uri: &Uri) -> Result<Option<Authority>, Problem> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(None) };
    let origin = origin.to_str().ok().filter(|_| origins.next().is_none());
    let origin = origin.and_then(|origin| origin.parse::<Uri>().ok());
    let Some((default_port, origin)) = origin.as_ref().and_then(|origin| {
        let default = if origin.scheme_str()? == "https" { 443 } else { 80 };
        Some((default, origin.authority()?))
    }) else {
        return Err(foreign_page());
    };
    let Some(host) = host(headers, uri) else { return Err(foreign_page()) };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    let is_same = origin.host().eq_ignore_ascii_case(host.host()) && port(origin) == port(&host);
    if is_same { Ok(Some(host)) } else { Err(foreign_page()) }
}

/// Host and port that a request is for, as its sender calls them.
pub(crate) fn host(headers: &HeaderMap, uri: &Uri) -> Option<Authority> {
    let host = || headers.get(HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    uri.authority().cloned().or_else(host)
}

fn foreign_page() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "A page of another origin has no business here")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn bodies_are_json_or_bytes_and_never_encoded() {
        let of = |value| MediaType::of(&headers(&[(CONTENT_TYPE, value)])).ok();
        assert_eq!(MediaType::of(&HeaderMap::new()).unwrap(), MediaType::Unknown);
        for json in
            ["application/json", "Application/JSON; charset=\"UTF-8\"", "application/json;x=y"]
        {
            assert_eq!(of(json), Some(MediaType::Json), "{json}");
        }
        assert_eq!(of("application/octet-stream"), Some(MediaType::Bytes));
        for other in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=latin1",
            "multipart/form-data; boundary=x",
            "json",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        let json = (CONTENT_TYPE, "application/json");
        for bad in [
            (CONTENT_ENCODING, "gzip"),
            (CONTENT_ENCODING, "identity, gzip"),
            (TRANSFER_ENCODING, "gzip, chunked"),
            (CONTENT_TYPE, "application/json"),
        ] {
            let problem = MediaType::of(&headers(&[json.clone(), bad.clone()])).unwrap_err();
            assert_eq!(problem.status, 415, "{bad:?}");
        }
        let fine = [json, (CONTENT_ENCODING, "identity"), (TRANSFER_ENCODING, "chunked")];
        assert_eq!(MediaType::of(&headers(&fine)).unwrap(), MediaType::Json);
    }

    #[test]
    fn the_most_precise_range_decides_what_is_accepted() {
        let takes = |value| accepted(&headers(&[(ACCEPT, value)]), "application/json").is_ok();
        assert!(accepted(&HeaderMap::new(), "application/json").is_ok());
        for yes in [
            "*/*",
            "application/*",
            "Application/Json",
            "text/html, */*;q=0.1",
            "application/json;charset=utf-8",
            "application/json;q=0.001, */*;q=0",
            "application/json;q=0, application/json",
            "",
            "nonsense",
            "application/json;q=7",
        ] {
            assert!(takes(yes), "{yes}");
        }
        for no in [
            "text/html",
            "application/json;q=0",
            "*/*;q=0",
            "*/*, application/json;q=0.0",
            "application/*;q=0, */*",
            "application/jsonx",
            "application/problem+json",
        ] {
            assert!(!takes(no), "{no}");
        }
        let split = headers(&[(ACCEPT, "text/html"), (ACCEPT, "application/json")]);
        assert!(accepted(&split, "application/json").is_ok());
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let asks = |origin: &str, host: &str, is_proxied| {
            let headers = headers(&[(ORIGIN, origin), (HOST, host)]);
            same_site(&headers, &Uri::from_static("/api/peers"), is_proxied).is_ok()
        };
        assert!(asks("http://127.0.0.1:5001", "127.0.0.1:5001", false));
        assert!(asks("https://[::1]", "[::1]:443", false));
        assert!(asks("http://LocalHost", "localhost", false));
        assert!(asks("https://peers.example", "peers.example", true));
        for (origin, host) in [
            ("null", "127.0.0.1"),
            ("", "127.0.0.1"),
            ("http://evil.example", "127.0.0.1"),
            ("http://127.0.0.1:1", "127.0.0.1:2"),
            ("https://127.0.0.1", "127.0.0.1:80"),
            ("http://a@127.0.0.1 x", "127.0.0.1"),
        ] {
            assert!(!asks(origin, host, true), "{origin} {host}");
        }
        assert!(!asks("http://evil.example", "evil.example", false), "a name that leads here");
        let uri = Uri::from_static("http://127.0.0.1:7/api/peers");
        assert!(same_site(&headers(&[(ORIGIN, "http://127.0.0.1:7")]), &uri, false).is_ok());
        for (site, is_fine) in [("cross-site", false), ("same-origin", true), ("none", true)] {
            let headers = headers(&[(SEC_FETCH_SITE, site)]);
            assert_eq!(same_site(&headers, &uri, false).is_ok(), is_fine, "{site}");
        }
        for (site, is_fine) in [("cross-site", false), ("same-site", false), ("same-origin", true)]
        {
            let headers = headers(&[(SEC_FETCH_SITE, site), (ORIGIN, "http://127.0.0.1:7")]);
            assert_eq!(same_origin(&headers, &uri).is_ok(), is_fine, "{site}");
        }
        assert!(same_origin(&HeaderMap::new(), &uri).is_ok(), "no page");
        assert!(same_origin(&headers(&[(ORIGIN, "http://127.0.0.1:8")]), &uri).is_err());
        let twice = headers(&[(ORIGIN, "http://127.0.0.1:7"), (ORIGIN, "http://127.0.0.1:7")]);
        assert!(same_site(&twice, &uri, false).is_err());
    }
}
