//! REST face: JSON and bytes over plain HTTP requests.
//!
//! | request | answer |
//! |---|---|
//! | `GET …/peers/list?requestingPeerId=&maxPeers=` | 200, peers |
//! | `POST …/peers/register` | 200 |
//! | `GET` or `POST …/peers/ping` | 200 |
//! | `POST …/peers/message` | 200 |
//! | `GET …/peers`, `…/peers/{id}`, `…/peers/health`, `…/peers/stats`, `/api/health` | 200, figures |
//! | `POST …/transactions?topic=` and bytes, or JSON | 201, the id |
//! | `POST …/transactions/notify` | 200 |
//! | `GET …/transactions/{hash}` | 200, 206 or 304, the payload |
//!
//! Contract: below `/api/v1` and `/api`, with `peer` for `peers` and `transaction` for `transactions`, each path
//! means the same. A path takes `OPTIONS`, and `HEAD` where it takes `GET`; other methods are answered with
//! what it takes. Refusals are problem documents, and nothing that a request holds leads to a status of 500.
//! A request has its place before its body is read; a body is bounded before it is kept.

mod conditions;
mod json;
mod overview;
mod peers;
mod problem;
mod route;
mod transactions;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Body as _;
use tonic::body::Body;

use self::problem::Problem;
use self::route::Route;
pub(super) use self::route::is_for as serves;
use super::{Ops, Permit};
use crate::transport::Visitor;
use crate::web::body::{self, Sending};
use crate::web::negotiation::{self, MediaType, accepted, same_site};
use crate::web::text::{self, Query};

/// Media type of most answers.
const JSON: &str = "application/json";
/// Maximum number of bytes of a body in which no transaction comes.
const MAX_JSON_BYTES: u64 = 2 * 1024 * 1024;

/// Answers a request for a path that this face [serves].
pub(super) async fn serve(ops: Ops, request: Request<Body>, visitor: Visitor) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let (answer, permit) = match ops.admit(&visitor, 0) {
        Ok(permit) => {
            let mut call = Call { ops, visitor, permit };
            (call.answer(&head, &mut body).await, Some(call.permit))
        }
        Err(refusal) => (Err(refusal.into()), None),
    };
    // Who asked first whether to send it is told not to.
    if !body.is_end_stream() && !head.headers.contains_key(EXPECT) {
        body::drain(body).await;
    }
    let is_head = head.method == Method::HEAD;
    let reply = answer.unwrap_or_else(|problem| problem::reply(problem, head.uri.path()));
    let (mut head, bytes) = reply.into_parts();
    head.headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        head.headers.insert(CONTENT_LENGTH, bytes.len().into());
    }
    // The length is that of what GET answers with.
    let bytes = if is_head { Bytes::new() } else { bytes };
    Response::from_parts(head, Body::new(Sending::new(bytes, permit)))
}

/// One request that has its place.
#[derive(Debug)]
struct Call {
    ops: Ops,
    visitor: Visitor,
    permit: Permit,
}

impl Call {
    async fn answer(&mut self, head: &Parts, body: &mut Body) -> Result<Response<Bytes>, Problem> {
        let nothing = || Problem::not_found("Nothing is served at this path");
        let route = Route::of(head.uri.path())?.ok_or_else(nothing)?;
        let allow = route.allow();
        same_site(&head.headers, &head.uri, self.visitor.is_proxied)?;
        if !allow.split(", ").any(|known| head.method == known) {
            return Err(Problem::method(allow));
        }
        if head.method == Method::OPTIONS {
            let mut reply = respond(StatusCode::NO_CONTENT, Bytes::new());
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            return Ok(reply);
        }
        let query = Query::of(head.uri.query())?;
        let is_json = !matches!(route, Route::Transaction(_));
        if is_json {
            accepted(&head.headers, JSON)?;
        }
        let reply = self.reply(route, &query, head, body).await?;
        // What was done is told whatever it costs.
        if is_json && head.method != Method::POST {
            self.permit.grow(reply.body().len() as u64)?;
        }
        Ok(reply)
    }

    async fn reply(
        &mut self,
        route: Route,
        query: &Query,
        head: &Parts,
        body: &mut Body,
    ) -> Result<Response<Bytes>, Problem> {
        match route {
            Route::List => self.list(query).await,
            Route::Ping if head.method == Method::POST => {
                let body = self.json(head, body).await?;
                self.ping_with(&body).await
            }
            Route::Ping => self.ping(query.text("peerId")?).await,
            Route::Register => {
                let body = self.json(head, body).await?;
                self.register(&body).await
            }
            Route::Message => {
                let body = self.json(head, body).await?;
                self.message(body).await
            }
            Route::Notify => {
                let body = self.json(head, body).await?;
                self.notify(&body).await
            }
            Route::Publish => self.publish(query, head, body).await,
            Route::Health => self.health().await,
            Route::Peers => self.peers().await,
            Route::Peer(id) => self.peer(&id).await,
            Route::PeersHealth => self.peers_health().await,
            Route::PeersStats => self.peers_stats().await,
            Route::Transaction(hash) => self.transaction(&hash, query, head).await,
        }
    }

    /// Body of a request that takes JSON.
    async fn json(&mut self, head: &Parts, body: &mut Body) -> Result<Bytes, Problem> {
        match MediaType::of(&head.headers)? {
            MediaType::Json => {}
            // An empty body has no type, and is refused as such.
            MediaType::Unknown if body.is_end_stream() => {}
            MediaType::Unknown | MediaType::Bytes => {
                let detail = "The body has to be application/json";
                return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
            }
        }
        body::read(body, MAX_JSON_BYTES, |bytes| Ok(self.permit.grow(bytes)?)).await
    }
}

fn respond(status: StatusCode, bytes: Bytes) -> Response<Bytes> {
    let mut reply = Response::new(bytes);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

fn respond_json(status: StatusCode, value: &serde_json::Value) -> Response<Bytes> {
    let mut reply = respond(status, value.to_string().into());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    reply
}
