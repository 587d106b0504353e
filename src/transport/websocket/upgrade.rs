//! The upgrade of an HTTP/1.1 connection to a WebSocket (RFC 6455, section 4), on both sides, as
//! functions of what the other side sent.
//!
//! Contract: the listener says yes to a `GET` without body that asks for version 13 and [`PROTOCOL`]
//! with one proper key, and to nothing else; each no has a status of its own. A request of a browser,
//! which has an `Origin`, is refused: pages have no business here. Extensions are never agreed to. The
//! dialler goes on only when the answer proves that a WebSocket server has read the key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

use crate::error::{FailureKind, TransportError};

/// Path of the rung, behind the prefix that an endpoint may have.
pub(in crate::transport) const PATH: &str = "/sorcha/v1/ws";
/// Protocol that messages carry: the pipe, in which our TLS runs.
const PROTOCOL: &str = "sorcha.gossip.v1";
/// Version of the WebSocket protocol, the only one there is.
const VERSION: &str = "13";
/// Number of random bytes in a key.
const KEY_BYTES: usize = 16;
/// What a server adds to the key, so that no other kind of server answers right by chance.
const SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Reason for which a request is not upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another method than `GET`.
    Method,
    /// A request with a body.
    Body,
    /// A request for no WebSocket.
    NoUpgrade,
    /// Another version of the WebSocket protocol, or HTTP/1.0.
    Version,
    /// No key, or several, or not 16 bytes in base64.
    Key,
    /// Our protocol was not offered.
    Protocol,
    /// A page in a browser asks.
    Origin,
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body | Self::Key | Self::Protocol => StatusCode::BAD_REQUEST,
            Self::NoUpgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Origin => StatusCode::FORBIDDEN,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Method => "only GET opens a WebSocket",
            Self::Body => "a request for a WebSocket has no body",
            Self::NoUpgrade => "this path is a WebSocket",
            Self::Version => "only version 13 of WebSocket over HTTP/1.1 is spoken here",
            Self::Key => "Sec-WebSocket-Key must be 16 bytes in base64",
            Self::Protocol => "Sec-WebSocket-Protocol must offer sorcha.gossip.v1",
            Self::Origin => "pages of browsers are not served",
        }
    }

    /// The answer, with what the status asks for.
    pub(super) fn answer(self) -> Response<String> {
        let mut response = Response::new(self.reason().to_owned());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        match self {
            Self::Method => {
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
            }
            Self::NoUpgrade | Self::Version => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            }
            _ => {}
        }
        response
    }
}

/// Answer to a request that is to be upgraded.
///
/// # Errors
/// The reason why it is not.
pub(super) fn accept<B>(request: &Request<B>) -> Result<Response<()>, Refusal> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(Refusal::Method);
    }
    if headers.contains_key(ORIGIN) {
        return Err(Refusal::Origin);
    }
    let empty = |length: &HeaderValue| length.as_bytes() == b"0";
    if headers.contains_key(TRANSFER_ENCODING) || !headers.get_all(CONTENT_LENGTH).iter().all(empty)
    {
        return Err(Refusal::Body);
    }
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    let version = only(headers, &SEC_WEBSOCKET_VERSION);
    if request.version() != Version::HTTP_11 || version.is_none_or(|version| version != VERSION) {
        return Err(Refusal::Version);
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).ok_or(Refusal::Key)?;
    if !BASE64.decode(key).is_ok_and(|key| key.len() == KEY_BYTES) {
        return Err(Refusal::Key);
    }
    // Names of protocols, unlike those of upgrades, are told apart by case.
    if !tokens(headers, &SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == PROTOCOL) {
        return Err(Refusal::Protocol);
    }
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    headers.insert(SEC_WEBSOCKET_ACCEPT, proof(key.as_bytes()).ok_or(Refusal::Key)?);
    Ok(response)
}

/// Request for an upgrade, and the key in it, which the answer is checked against.
///
/// # Errors
/// `Unsupported` when authority or path cannot stand in a request, `Local` without random bytes.
pub(super) fn request<B>(
    authority: &str,
    path: &str,
    body: B,
) -> Result<(Request<B>, HeaderValue), TransportError> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|source| {
        TransportError::with_source(FailureKind::Local, "no random bytes", source)
    })?;
    let unfit = |source: http::Error| {
        let message = format!("{authority}{path} cannot stand in a request");
        TransportError::with_source(FailureKind::Unsupported, message, source)
    };
    let key = HeaderValue::try_from(BASE64.encode(key)).map_err(|source| unfit(source.into()))?;
    let request = Request::get(path)
        .header(HOST, authority)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_VERSION, VERSION)
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(body)
        .map_err(unfit)?;
    Ok((request, key))
}

/// Checks the answer to a request that had this key.
///
/// # Errors
/// What the answer is instead of an upgrade.
pub(super) fn check<B>(response: &Response<B>, key: &HeaderValue) -> Result<(), TransportError> {
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let message = format!("no WebSocket: the answer is {status}");
        return Err(TransportError::new(kind_of(status), message));
    }
    let headers = response.headers();
    let wrong = if !has_token(headers, &UPGRADE, "websocket")
        || !has_token(headers, &CONNECTION, "upgrade")
    {
        "it upgrades to something else"
    } else if headers.get(SEC_WEBSOCKET_ACCEPT) != proof(key.as_bytes()).as_ref() {
        "it does not know the key"
    } else if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        "it has extensions that nobody offered"
    } else if only(headers, &SEC_WEBSOCKET_PROTOCOL) != Some(PROTOCOL) {
        "it speaks another protocol"
    } else {
        return Ok(());
    };
    let message = format!("no WebSocket of a node: {wrong}");
    Err(TransportError::new(FailureKind::Protocol, message))
}

/// Meaning of a status instead of an upgrade. Often it is a proxy that says it.
fn kind_of(status: StatusCode) -> FailureKind {
    match status {
        StatusCode::BAD_GATEWAY => FailureKind::Unreachable,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => FailureKind::Timeout,
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE => FailureKind::Refused,
        _ => FailureKind::Unsupported,
    }
}

/// Proof that a server has read this key.
fn proof(key: &[u8]) -> Option<HeaderValue> {
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(SALT);
    HeaderValue::try_from(BASE64.encode(digest.finish())).ok()
}

/// The value of a header that stands there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Elements of a header that is a list.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Request<()> {
        request("peer.example.com", "/x/sorcha/v1/ws", ()).unwrap().0
    }

    #[test]
    fn a_proof_is_the_one_of_the_standard() {
        let proof = proof(b"dGhlIHNhbXBsZSBub25jZQ==").unwrap();
        assert_eq!(proof, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn both_sides_agree() {
        let (request, key) = request("peer.example.com:1", "/sorcha/v1/ws", ()).unwrap();
        assert_eq!(request.headers()[HOST], "peer.example.com:1");
        let answer = accept(&request).unwrap();
        check(&answer, &key).unwrap();
        // Another key each time.
        let other = super::request("peer.example.com:1", "/sorcha/v1/ws", ()).unwrap().1;
        assert_eq!(check(&answer, &other).unwrap_err().kind, FailureKind::Protocol);
    }

    #[test]
    fn what_is_written_another_way_is_accepted() {
        let mut request = good();
        let headers = request.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("h2c, WebSocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.append(CONNECTION, HeaderValue::from_static("UPGRADE"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat ,sorcha.gossip.v1"));
        headers
            .insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("permessage-deflate; x=1"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let answer = accept(&request).unwrap();
        assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], PROTOCOL);
        assert!(!answer.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS));
    }

    #[test]
    fn each_wrong_request_is_refused_for_its_reason() {
        type Change = fn(&mut Request<()>);
        fn set(request: &mut Request<()>, name: HeaderName, value: &'static str) {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let wrong: [(Change, Refusal, u16); 22] = [
            (|r| *r.method_mut() = Method::POST, Refusal::Method, 405),
            (|r| *r.method_mut() = Method::HEAD, Refusal::Method, 405),
            (|r| *r.method_mut() = Method::CONNECT, Refusal::Method, 405),
            (|r| set(r, ORIGIN, "https://evil.example"), Refusal::Origin, 403),
            (|r| set(r, ORIGIN, "null"), Refusal::Origin, 403),
            (|r| set(r, CONTENT_LENGTH, "5"), Refusal::Body, 400),
            (|r| set(r, TRANSFER_ENCODING, "chunked"), Refusal::Body, 400),
            (|r| drop(r.headers_mut().remove(UPGRADE)), Refusal::NoUpgrade, 426),
            (|r| set(r, UPGRADE, "h2c"), Refusal::NoUpgrade, 426),
            (|r| set(r, UPGRADE, "websocketx"), Refusal::NoUpgrade, 426),
            (|r| drop(r.headers_mut().remove(CONNECTION)), Refusal::NoUpgrade, 426),
            (|r| set(r, CONNECTION, "keep-alive"), Refusal::NoUpgrade, 426),
            (|r| *r.version_mut() = Version::HTTP_10, Refusal::Version, 426),
            (|r| drop(r.headers_mut().remove(SEC_WEBSOCKET_VERSION)), Refusal::Version, 426),
            (|r| set(r, SEC_WEBSOCKET_VERSION, "8"), Refusal::Version, 426),
            (|r| set(r, SEC_WEBSOCKET_VERSION, "13, 8"), Refusal::Version, 426),
            (|r| drop(r.headers_mut().remove(SEC_WEBSOCKET_KEY)), Refusal::Key, 400),
            (|r| set(r, SEC_WEBSOCKET_KEY, "AAAA"), Refusal::Key, 400),
            (|r| set(r, SEC_WEBSOCKET_KEY, "not base64, at all!!!!!="), Refusal::Key, 400),
            (
                |r| {
                    let twice = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");
                    r.headers_mut().append(SEC_WEBSOCKET_KEY, twice);
                },
                Refusal::Key,
                400,
            ),
            (|r| drop(r.headers_mut().remove(SEC_WEBSOCKET_PROTOCOL)), Refusal::Protocol, 400),
            (|r| set(r, SEC_WEBSOCKET_PROTOCOL, "Sorcha.Gossip.v1, chat"), Refusal::Protocol, 400),
        ];
        for (i, (change, reason, status)) in wrong.into_iter().enumerate() {
            let mut request = good();
            accept(&request).unwrap();
            change(&mut request);
            assert_eq!(accept(&request).unwrap_err(), reason, "wrong request {i}");
            let answer = reason.answer();
            assert_eq!(answer.status(), status, "wrong request {i}");
            let headers = answer.headers();
            assert_eq!(headers.contains_key(ALLOW), status == 405);
            assert_eq!(headers.contains_key(SEC_WEBSOCKET_VERSION), status == 426);
        }
    }

    #[test]
    fn each_wrong_answer_is_told_apart() {
        let (request, key) = request("a", "/sorcha/v1/ws", ()).unwrap();
        let mut answer = accept(&request).unwrap();
        for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL] {
            for value in ["", "other"] {
                let right = answer.headers_mut().insert(&name, HeaderValue::from_static(value));
                assert_eq!(check(&answer, &key).unwrap_err().kind, FailureKind::Protocol);
                answer.headers_mut().insert(&name, right.unwrap());
            }
        }
        let deflate = HeaderValue::from_static("permessage-deflate");
        answer.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, deflate);
        assert_eq!(check(&answer, &key).unwrap_err().kind, FailureKind::Protocol);
        for (status, kind) in [
            (200, FailureKind::Unsupported),
            (301, FailureKind::Unsupported),
            (403, FailureKind::Refused),
            (404, FailureKind::Unsupported),
            (426, FailureKind::Unsupported),
            (502, FailureKind::Unreachable),
            (503, FailureKind::Refused),
            (504, FailureKind::Timeout),
        ] {
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            assert_eq!(check(&answer, &key).unwrap_err().kind, kind, "{status}");
        }
    }

    #[test]
    fn what_cannot_stand_in_a_request_is_an_error() {
        for (authority, path) in [("a\nb", "/"), ("a", "/ x"), ("a", "/\r\nx: y")] {
            let error = request(authority, path, ()).unwrap_err();
            assert_eq!(error.kind, FailureKind::Unsupported);
        }
    }
}
