//! The table of what is served, and the way of a request through it.
//!
//! A request is checked in this order: the name that the listener is called (400, 403), the page behind it (403), the
//! token (401), the path (404), the method (405), parameters (400), the body (408, 413, 415).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, EXPECT, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::Shared;
use super::places::Work;
use super::reply::{Body, Content, Reply};
use super::views::{
    actions, dead_letters, events, explain, health, history, peers, reachability, stats, status,
};
use crate::node::PeerNode;
use crate::types::{PeerId, TransactionId};
use crate::web::Problem;
use crate::web::body::{drain, read};
use crate::web::negotiation::{MediaType, same_origin};
use crate::web::text::{Query, decode};

/// Maximum number of bytes of a body.
const MAX_BODY_BYTES: u64 = 64 * 1024;
/// Maximum time for an answer to be found, the test of a link included.
const MAX_ANSWER_TIME: Duration = Duration::from_mins(1);
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Page,
    Live,
    Ready,
    Metrics,
    Document,
    Status,
    Stats,
    Reachability,
    Peers,
    Peer,
    Ban,
    Unban,
    Disconnect,
    ResetBreaker,
    Test,
    Explain,
    DeadLetters,
    Redeliver,
    Delete,
    Events,
    RecentEvents,
    History,
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) is_post: bool,
    /// Path, with `{id}` for an id.
    pub(super) path: &'static str,
    /// Parameters that it takes.
    query: &'static [&'static str],
    operation: Operation,
}

const fn get(path: &'static str, query: &'static [&'static str], operation: Operation) -> Route {
    Route { is_post: false, path, query, operation }
}

const fn post(path: &'static str, operation: Operation) -> Route {
    Route { is_post: true, path, query: &[], operation }
}

/// All that is served.
pub(super) const ROUTES: &[Route] = &[
    get("/", &[], Operation::Page),
    get("/livez", &[], Operation::Live),
    get("/readyz", &[], Operation::Ready),
    get("/metrics", &[], Operation::Metrics),
    get("/api/v1/openapi.json", &[], Operation::Document),
    get("/api/v1/status", &[], Operation::Status),
    get("/api/v1/stats", &[], Operation::Stats),
    get("/api/v1/reachability", &[], Operation::Reachability),
    get("/api/v1/peers", &[], Operation::Peers),
    get("/api/v1/peers/{id}", &[], Operation::Peer),
    post("/api/v1/peers/{id}/ban", Operation::Ban),
    post("/api/v1/peers/{id}/unban", Operation::Unban),
    post("/api/v1/peers/{id}/disconnect", Operation::Disconnect),
    post("/api/v1/peers/{id}/reset-breaker", Operation::ResetBreaker),
    post("/api/v1/peers/{id}/test", Operation::Test),
    get("/api/v1/transactions/{id}/explain", &["across"], Operation::Explain),
    get("/api/v1/dead-letters", &["after", "limit"], Operation::DeadLetters),
    post("/api/v1/dead-letters/{id}/redeliver", Operation::Redeliver),
    post("/api/v1/dead-letters/{id}/delete", Operation::Delete),
    get("/api/v1/events", &[], Operation::Events),
    get("/api/v1/events/recent", &["limit"], Operation::RecentEvents),
    get("/api/v1/history", &["span"], Operation::History),
];

impl Route {
    /// Route of a path, and the id in it.
    ///
    /// # Errors
    /// 400 for a path that cannot be decoded.
    fn of(path: &str) -> Result<Option<(&'static Self, String)>, Problem> {
        let parts = path.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
        let fits = |route: &&Self| {
            let wanted = route.path.split('/');
            wanted.clone().count() == parts.len()
                && wanted
                    .zip(&parts)
                    .all(|(wanted, part)| *wanted == **part || wanted == "{id}" && !part.is_empty())
        };
        let Some(route) = ROUTES.iter().find(fits) else { return Ok(None) };
        let at = route.path.split('/').position(|part| part == "{id}");
        Ok(Some((route, at.map(|at| parts[at].clone().into_owned()).unwrap_or_default())))
    }

    /// Names of the parameters that it takes.
    #[cfg(test)]
    pub(super) fn query(&self) -> &'static [&'static str] {
        self.query
    }

    /// Reports whether nobody needs a token for it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.operation, Operation::Page | Operation::Live | Operation::Ready)
    }

    fn allow(&self) -> &'static str {
        if self.is_post { "POST" } else { "GET, HEAD" }
    }

    fn takes(&self, method: &Method) -> bool {
        if self.is_post {
            method == Method::POST
        } else {
            [Method::GET, Method::HEAD].contains(method)
        }
    }
}

/// One request that may be answered.
pub(super) struct Call<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) headers: &'a HeaderMap,
    pub(super) query: Query,
    pub(super) body: Bytes,
    /// True: by `HEAD`, so that nobody reads what the answer holds.
    pub(super) is_head: bool,
    /// False: by somebody who has not shown the token.
    pub(super) is_known: bool,
    id: String,
}

impl Call<'_> {
    /// The node, while it is there.
    ///
    /// # Errors
    /// 503.
    pub(super) fn node(&self) -> Result<PeerNode, Problem> {
        self.shared.node.upgrade().ok_or_else(stopped)
    }

    /// The peer in the path.
    ///
    /// # Errors
    /// 400.
    pub(super) fn peer(&self) -> Result<PeerId, Problem> {
        self.id.parse().map_err(|error| Problem::invalid(format!("The id of the peer: {error}")))
    }

    /// The transaction in the path.
    ///
    /// # Errors
    /// 400.
    pub(super) fn transaction(&self) -> Result<TransactionId, Problem> {
        let wrong = |error| Problem::invalid(format!("The id of the transaction: {error}"));
        self.id.parse().map_err(wrong)
    }

    /// A number in the query.
    ///
    /// # Errors
    /// 400 for what is none, or out of its range.
    pub(super) fn number(&self, name: &str, range: (u64, u64)) -> Result<Option<u64>, Problem> {
        let Some(text) = self.query.text(name)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (range.0..=range.1).contains(number));
        let (least, most) = range;
        number.map(Some).ok_or_else(|| {
            let detail = format!("The parameter {name} has to be a number from {least} to {most}");
            Problem::invalid(detail)
        })
    }
}

/// Refusal of a node that is no more, or about to be.
pub(super) fn stopped() -> Problem {
    Problem::unavailable("The node is shut down")
}

/// Answers a request that came to the address `local`, with `work` where its sender may ask for everything: that is
/// over when the answer is on its way.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    local: IpAddr,
    work: Option<Work>,
) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let is_known = work.is_some();
    let answer = reply(shared, &head, &mut body, local, is_known).await;
    // Who asked first whether to send it is told not to.
    if !body.is_end_stream() && !head.headers.contains_key(EXPECT) {
        drain(body).await;
    }
    let reply = answer.unwrap_or_else(|problem| {
        let document = problem.document(head.uri.path());
        problem.into_reply(&document).map(Content::Whole)
    });
    finish(reply, head.method == Method::HEAD, work)
}

/// Adds what every answer has.
fn finish(reply: Reply, is_head: bool, work: Option<Work>) -> Response<Body> {
    let (mut head, content) = reply.into_parts();
    let headers = &mut head.headers;
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if work.is_none() {
        // Strangers hold no connection longer than it takes.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Content::Whole(bytes) = &content
        && head.status != StatusCode::NOT_MODIFIED
    {
        headers.insert(CONTENT_LENGTH, bytes.len().into());
    }
    // The length is that of what GET answers with.
    let content = if is_head { Content::Whole(Bytes::new()) } else { content };
    Response::from_parts(head, Body::new(content, work))
}

async fn reply(
    shared: &Arc<Shared>,
    head: &Parts,
    body: &mut Incoming,
    local: IpAddr,
    is_known: bool,
) -> Result<Reply, Problem> {
    shared.gate.check_host(&head.headers, &head.uri, local)?;
    let found = Route::of(head.uri.path())?;
    let is_open = found.as_ref().is_some_and(|(route, _)| route.is_open());
    if !is_open {
        // Links of other pages lead to the page, and to nothing else.
        same_origin(&head.headers, &head.uri)?;
        if !is_known {
            return Err(super::auth::Gate::refusal());
        }
    }
    let nothing = || Problem::not_found("Nothing is served at this path");
    let (route, id) = found.ok_or_else(nothing)?;
    if !route.takes(&head.method) {
        return Err(Problem::method(route.allow()));
    }
    let query = Query::of(head.uri.query())?;
    if let Some(name) = query.unknown(route.query) {
        return Err(Problem::invalid(format!("There is no parameter {name:?} here")));
    }
    if let Some(name) = query.empty() {
        return Err(Problem::invalid(format!("The parameter {name} has no value")));
    }
    let body = content(route, head, body).await?;
    let headers = &head.headers;
    let is_head = head.method == Method::HEAD;
    let call = Call { shared, headers, query, body, is_head, is_known, id };
    let handled = timeout(MAX_ANSWER_TIME, handle(route.operation, &call)).await;
    handled.unwrap_or_else(|_| Err(Problem::unavailable("The node does not answer")))
}

/// Body of a request.
async fn content(route: &Route, head: &Parts, body: &mut Incoming) -> Result<Bytes, Problem> {
    let takes_json = route.operation == Operation::Ban;
    if takes_json && MediaType::of(&head.headers)? != MediaType::Json {
        let detail = "The body has to be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let bytes = read(body, MAX_BODY_BYTES, |_| Ok(())).await?;
    if !takes_json && !bytes.is_empty() {
        return Err(Problem::invalid("This path takes no body"));
    }
    Ok(bytes)
}

async fn handle(operation: Operation, call: &Call<'_>) -> Result<Reply, Problem> {
    match operation {
        Operation::Page => Ok(health::page(call)),
        Operation::Live => Ok(health::live()),
        Operation::Ready => health::ready(call).await,
        Operation::Metrics => health::metrics(call).await,
        Operation::Document => Ok(health::document(call)),
        Operation::Status => status::status(call).await,
        Operation::Stats => stats::stats(call).await,
        Operation::Reachability => reachability::reachability(call).await,
        Operation::Peers => peers::peers(call).await,
        Operation::Peer => peers::peer(call).await,
        Operation::Ban => actions::ban(call).await,
        Operation::Unban => actions::unban(call).await,
        Operation::Disconnect => actions::disconnect(call).await,
        Operation::ResetBreaker => actions::reset_breaker(call).await,
        Operation::Test => actions::test(call).await,
        Operation::Explain => explain::explain(call).await,
        Operation::DeadLetters => dead_letters::list(call).await,
        Operation::Redeliver => dead_letters::redeliver(call).await,
        Operation::Delete => dead_letters::delete(call).await,
        Operation::Events => events::follow(call),
        Operation::RecentEvents => events::recent(call),
        Operation::History => history::history(call),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_routes() {
        let of = |path: &str| {
            let found = Route::of(path).unwrap();
            found.map(|(route, id)| (route.operation, id))
        };
        let none = String::new();
        assert_eq!(of("/"), Some((Operation::Page, none.clone())));
        assert_eq!(of("/api/v1/peers"), Some((Operation::Peers, none.clone())));
        assert_eq!(of("/api/v1/peers/ab"), Some((Operation::Peer, "ab".to_owned())));
        assert_eq!(of("/api/v1/peers/%61b/ban"), Some((Operation::Ban, "ab".to_owned())));
        assert_eq!(of("/api/v1/events/recent"), Some((Operation::RecentEvents, none)));
        for path in
            ["", "*", "//", "/livez/", "/api/v1", "/api/v1/peers/a/b/c", "/api/v1/peers/a/ban/"]
        {
            assert_eq!(of(path), None, "{path}");
        }
        assert_eq!(Route::of("/api/v1/peers/%zz").unwrap_err().status, 400);
    }

    #[test]
    fn one_path_is_one_route() {
        for (at, route) in ROUTES.iter().enumerate() {
            let (found, _) = Route::of(route.path).unwrap().unwrap();
            assert_eq!(found.path, route.path);
            assert!(ROUTES[at + 1..].iter().all(|other| other.path != route.path));
        }
    }
}
