//! The server of plain requests.
//!
//! Contract: what is asked is checked before a body is read; a body has [`BODY_TIME`], and at most
//! [`MAX_CHUNK_BYTES`]. A request that leads to no session does not keep its connection.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use tokio::time::timeout;
use tonic::body::Body;

use super::{ACK, BASE, END, GONE, OFFSET, REFUSAL};
use crate::transport::exchange::client::POLL_WAIT;
use crate::transport::exchange::message::{self, Unread, Whole};
use crate::transport::exchange::session::{Chunk, MAX_CHUNK_BYTES, Refusal};
use crate::transport::exchange::sessions::Kind;
use crate::transport::exchange::{self, Answer, NO_PART, NO_ROOM, NO_SESSION, SessionId};
use crate::transport::port::Inlet;
use crate::types::TransportKind;

/// Time for a body to be complete.
const BODY_TIME: Duration = Duration::from_secs(20);

/// Reports whether a request is for this face.
pub(in crate::transport) fn is_for(path: &str) -> bool {
    path.contains(BASE)
}

/// Serves a request.
pub(in crate::transport) async fn serve<B>(request: Request<B>, inlet: &Inlet) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes>,
{
    answer(request, inlet).await.unwrap_or_else(|problem| {
        inlet.refused(problem.why);
        problem.into_response()
    })
}

async fn answer<B>(request: Request<B>, inlet: &Inlet) -> Result<Response<Body>, Problem>
where
    B: hyper::body::Body<Data = Bytes>,
{
    let route = Route::of(request.uri().path()).ok_or(Problem::NO_PATH)?;
    let methods = route.methods();
    if !methods.split(", ").any(|method| request.method() == method) {
        return Err(Problem::method(methods));
    }
    let sessions = &inlet.shared().sessions;
    let (session, action) = match route {
        Route::Open => {
            let session = exchange::open(inlet, TransportKind::Rest).ok_or(Problem::FULL)?;
            let mut response = respond(StatusCode::CREATED, session.to_string().into());
            let text = HeaderValue::from_static("text/plain; charset=us-ascii");
            response.headers_mut().insert(CONTENT_TYPE, text);
            return Ok(response);
        }
        Route::Session(session, action) => (session, action),
    };
    let visit = sessions.visit(session).ok_or(Problem::NO_SESSION)?;
    visit.hold(if action == Action::Poll { Kind::Poll } else { Kind::Send }, inlet.begin());
    let query = request.uri().query().unwrap_or_default();
    let answer = match action {
        Action::Send => {
            let [Some(offset), Some(ack), end, ..] = numbers(query)? else {
                return Err(Problem::QUERY);
            };
            let end = end.is_some_and(|end| end > 0);
            let body = request.into_body();
            if body.size_hint().lower() > MAX_CHUNK_BYTES as u64 {
                return Err(Problem::TOO_LARGE);
            }
            let chunk = async {
                let bytes = match timeout(BODY_TIME, message::read(body, MAX_CHUNK_BYTES)).await {
                    Ok(Ok(bytes)) => bytes,
                    Ok(Err(Unread::TooLarge)) => return Err(Problem::TOO_LARGE),
                    Ok(Err(Unread::Broken(_))) | Err(_) => return Err(Problem::NO_BODY),
                };
                Ok(Chunk { offset, bytes, end })
            };
            visit.send(ack, chunk).await?
        }
        Action::Poll => {
            let [_, Some(ack), _, limit, wait] = numbers(query)? else {
                return Err(Problem::QUERY);
            };
            let limit =
                limit.map_or(MAX_CHUNK_BYTES, |limit| limit.try_into().unwrap_or(usize::MAX));
            let wait = wait.map_or(POLL_WAIT, Duration::from_millis);
            visit.poll(ack, limit, wait).await?
        }
        Action::Close => {
            visit.close();
            return Ok(respond(StatusCode::NO_CONTENT, Bytes::new()));
        }
    };
    Ok(carried(answer))
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Open,
    Session(SessionId, Action),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Send,
    Poll,
    Close,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        let (_, rest) = path.rsplit_once(BASE)?;
        if rest == "open" {
            return Some(Self::Open);
        }
        let (session, action) = rest.split_once('/')?;
        let action = match action {
            "send" => Action::Send,
            "poll" => Action::Poll,
            "close" => Action::Close,
            _ => return None,
        };
        Some(Self::Session(session.parse().ok()?, action))
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::Session(_, Action::Poll) => "GET, POST",
            _ => "POST",
        }
    }
}

/// Names of the numbers that a query may hold.
const NAMES: [&str; 5] = ["offset", "ack", "end", "limit", "wait"];

/// The numbers of a query, each of which may stand there once, in decimal digits.
fn numbers(query: &str) -> Result<[Option<u64>; 5], Problem> {
    let mut numbers = [None; 5];
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(which) = NAMES.iter().position(|known| *known == name) else { continue };
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let number = value.parse().ok().filter(|_| is_number && numbers[which].is_none());
        numbers[which] = Some(number.ok_or(Problem::QUERY)?);
    }
    Ok(numbers)
}

/// The answer to a send or a poll.
fn carried(answer: Answer) -> Response<Body> {
    let Answer { chunk, ack, gone } = answer;
    let has_bytes = !chunk.bytes.is_empty() || chunk.end;
    let mut response = respond(StatusCode::OK, chunk.bytes);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACK, ack.into());
    if has_bytes {
        headers.insert(OFFSET, chunk.offset.into());
    }
    if chunk.end {
        headers.insert(END, HeaderValue::from_static("1"));
    }
    if gone {
        headers.insert(GONE, HeaderValue::from_static("1"));
    }
    response
}

fn respond(status: StatusCode, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Whole::from(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Refusal of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    status: StatusCode,
    /// Text for whoever reads the answer.
    detail: Cow<'static, str>,
    /// Text for the local node.
    why: &'static str,
    /// Name of the refusal where no repeat changes it.
    refusal: Option<&'static str>,
    allow: Option<&'static str>,
}

impl Problem {
    const NO_PATH: Self = Self::new(StatusCode::NOT_FOUND, "no such path");
    const QUERY: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "offset, ack, end, limit and wait are decimal numbers, and a send states offset and ack, a poll ack",
    );
    const FULL: Self = Self::new(StatusCode::TOO_MANY_REQUESTS, NO_ROOM);
    const TOO_LARGE: Self =
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "more bytes than one send takes");
    const NO_BODY: Self = Self::new(StatusCode::REQUEST_TIMEOUT, "the bytes did not come");
    const NO_SESSION: Self = Self {
        status: StatusCode::NOT_FOUND,
        detail: Cow::Borrowed(NO_SESSION),
        why: NO_SESSION,
        refusal: Some("no-session"),
        allow: None,
    };

    const fn new(status: StatusCode, detail: &'static str) -> Self {
        Self { status, detail: Cow::Borrowed(detail), why: detail, refusal: None, allow: None }
    }

    fn method(allow: &'static str) -> Self {
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "the method is not for this path");
        Self { allow: Some(allow), ..problem }
    }

    fn into_response(self) -> Response<Body> {
        let Self { status, detail, refusal, allow, .. } = self;
        let title = status.canonical_reason().unwrap_or_default();
        let status_code = status.as_u16();
        // Neither text holds anything that JSON escapes.
        let document = format!(
            r#"{{"type":"about:blank","title":"{title}","status":{status_code},"detail":"{detail}"}}"#
        );
        let mut response = respond(status, document.into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(refusal) = refusal {
            headers.insert(REFUSAL, HeaderValue::from_static(refusal));
        }
        if let Some(allow) = allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        let is_kept =
            [StatusCode::BAD_REQUEST, StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS];
        if !is_kept.contains(&status) {
            // There is no session, or the rest of a body is not read.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let name = match refusal {
            Refusal::Gap { .. } => "gap",
            Refusal::PastEnd { .. } => "past-end",
            Refusal::ForeignAck { .. } => "foreign-ack",
        };
        let problem = Self::new(StatusCode::CONFLICT, NO_PART);
        Self { detail: refusal.to_string().into(), refusal: Some(name), ..problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_matched_by_their_end_and_whole() {
        let session = SessionId([0xab; 16]);
        let text = session.to_string();
        assert_eq!(text, "ab".repeat(16));
        let route = |path: &str| Route::of(path);
        assert_eq!(route("/sorcha/v1/exchange/open"), Some(Route::Open));
        assert_eq!(route("/a/b/sorcha/v1/exchange/open"), Some(Route::Open));
        for (name, action) in
            [("send", Action::Send), ("poll", Action::Poll), ("close", Action::Close)]
        {
            let wanted = Some(Route::Session(session, action));
            assert_eq!(route(&format!("/x/sorcha/v1/exchange/{text}/{name}")), wanted);
        }
        let wrong = ["open/", "", "opened", "close", "/send", "ab/send"].map(str::to_owned);
        let longer = [format!("{text}0/send"), format!("{text}/send/"), format!("{text}/sent")];
        let other =
            [text.clone(), format!("{}/send", text.replace('a', "g")), format!("{text}//poll")];
        for path in wrong.into_iter().chain(longer).chain(other) {
            assert_eq!(route(&format!("{BASE}{path}")), None, "{path}");
        }
        assert_eq!(route("/sorcha/v1/exchangeopen"), None);
    }

    #[test]
    fn numbers_are_decimal_digits_that_stand_once() {
        let good = numbers("offset=0&ack=18446744073709551615&other=x&end=1").unwrap();
        assert_eq!(good, [Some(0), Some(u64::MAX), Some(1), None, None]);
        assert_eq!(numbers("").unwrap(), [None; 5]);
        let bad = [
            "ack=-1",
            "ack=+1",
            "ack=1.0",
            "ack=0x1",
            "ack=",
            "ack",
            "ack=1 ",
            "ack=%31",
            "ack=1&ack=1",
            "ack=18446744073709551616",
            "wait=soon",
            "ack=１",
        ];
        for query in bad {
            assert_eq!(numbers(query), Err(Problem::QUERY), "{query}");
        }
    }
}
