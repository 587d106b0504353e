//! Refusals as problem documents (RFC 9457).

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::compat::Refusal;

/// Number of seconds after which a client may come again where nothing says more.
const RETRY_S: u64 = 1;

/// Reason why a request is not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// Sentence for whoever reads the answer.
    pub(super) detail: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), header: None }
    }

    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn too_large(limit: u64) -> Self {
        let detail = format!("The body is larger than the {limit} bytes that are taken here");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// Refuses what a body is encoded with.
    pub(super) fn encoded(detail: &'static str) -> Self {
        let identity = HeaderValue::from_static("identity");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).with(ACCEPT_ENCODING, identity)
    }

    pub(super) fn method(allow: &'static str) -> Self {
        let detail = format!("This path takes {allow}");
        let allow = HeaderValue::from_static(allow);
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail).with(ALLOW, allow)
    }

    pub(super) fn range(len: u64) -> Self {
        let problem = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            format!("No byte of the range is among the {len} of the transaction"),
        );
        match HeaderValue::try_from(format!("bytes */{len}")) {
            Ok(value) => problem.with(CONTENT_RANGE, value),
            Err(_) => problem,
        }
    }

    fn retry(status: StatusCode, detail: impl Into<Cow<'static, str>>, seconds: u64) -> Self {
        Self::new(status, detail).with(RETRY_AFTER, seconds.into())
    }

    pub(super) fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::retry(StatusCode::SERVICE_UNAVAILABLE, detail, RETRY_S)
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The document; `instance` is the path that was asked for.
    pub(super) fn into_reply(self, instance: &str) -> Response<Bytes> {
        let document = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Refused"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "instance": instance,
            // Where clients of the original look.
            "error": self.detail,
        });
        let mut response = Response::new(Bytes::from(document.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.header);
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(detail) => Self::invalid(detail),
            Refusal::NotFound(detail) => Self::not_found(detail),
            Refusal::Precondition(detail) => Self::new(StatusCode::CONFLICT, detail),
            Refusal::Busy { retry_after } => {
                let seconds = retry_after.as_millis().div_ceil(1000).max(1);
                let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
                let detail = format!("Too much at once: come again in {seconds} s");
                Self::retry(StatusCode::TOO_MANY_REQUESTS, detail, seconds)
            }
            Refusal::TooLarge { limit, .. } => Self::too_large(limit),
            Refusal::Unavailable(detail) => Self::unavailable(detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_refusal_has_its_status_and_says_when_to_come_again() {
        let text = || "Because".to_owned();
        let busy = |millis| Refusal::Busy { retry_after: Duration::from_millis(millis) };
        for (refusal, status, after) in [
            (Refusal::Invalid(text()), 400, None),
            (Refusal::NotFound(text()), 404, None),
            (Refusal::Precondition(text()), 409, None),
            (busy(0), 429, Some("1")),
            (busy(2001), 429, Some("3")),
            (Refusal::TooLarge { size: 2, limit: 1 }, 413, None),
            (Refusal::Unavailable(text()), 503, Some("1")),
        ] {
            let reply = Problem::from(refusal.clone()).into_reply("/api/v1/x");
            assert_eq!(reply.status(), status, "{refusal:?}");
            let retry = reply.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(retry, after, "{refusal:?}");
            let document: serde_json::Value = serde_json::from_slice(reply.body()).unwrap();
            assert_eq!(document["status"], status);
            assert_eq!(document["instance"], "/api/v1/x");
            assert!(document["title"].is_string() && document["type"] == "about:blank");
            assert_eq!(document["detail"], document["error"]);
        }
    }
}
