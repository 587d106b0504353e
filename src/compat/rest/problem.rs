//! Refusals as problem documents.

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::compat::Refusal;
pub(super) use crate::web::Problem;

/// The answer to what a client asked for under a path.
pub(super) fn reply(problem: Problem, path: &str) -> Response<Bytes> {
    let mut document = problem.document(path);
    // Where clients of the original look.
    document["error"] = document["detail"].clone();
    problem.into_reply(&document)
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

    use http::header::RETRY_AFTER;

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
            let reply = reply(refusal.clone().into(), "/api/v1/x");
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
