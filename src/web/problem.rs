//! Refusals as problem documents (RFC 9457).

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

/// Number of seconds after which a client may come again where nothing says more.
const RETRY_S: u64 = 1;

/// Reason why a request is not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// Sentence for whoever reads the answer.
    pub(crate) detail: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), header: None }
    }

    pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        let detail = format!("The body is larger than the {limit} bytes that are taken here");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// Refuses what a body is encoded with.
    pub(crate) fn encoded(detail: &'static str) -> Self {
        let identity = HeaderValue::from_static("identity");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).with(ACCEPT_ENCODING, identity)
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        let detail = format!("This path takes {allow}");
        let allow = HeaderValue::from_static(allow);
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail).with(ALLOW, allow)
    }

    pub(crate) fn range(len: u64) -> Self {
        let problem = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            format!("No byte of the range is among the {len} of the transaction"),
        );
        match HeaderValue::try_from(format!("bytes */{len}")) {
            Ok(value) => problem.with(CONTENT_RANGE, value),
            Err(_) => problem,
        }
    }

    pub(crate) fn retry(
        status: StatusCode,
        detail: impl Into<Cow<'static, str>>,
        seconds: u64,
    ) -> Self {
        Self::new(status, detail).with(RETRY_AFTER, seconds.into())
    }

    pub(crate) fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::retry(StatusCode::SERVICE_UNAVAILABLE, detail, RETRY_S)
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The document; `instance` is the path that was asked for.
    pub(crate) fn document(&self, instance: &str) -> Value {
        json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Refused"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "instance": instance,
        })
    }

    /// The answer that a document is.
    pub(crate) fn into_reply(self, document: &Value) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(document.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.header);
        response
    }
}
