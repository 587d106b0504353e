//! Events: the latest, and as they happen.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::monitor::admin::events::{MAX_KEPT, Told};
use crate::monitor::admin::reply::{self, Content, Reply};
use crate::monitor::admin::routes::Call;
use crate::web::Problem;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Number of events in an answer that says no other.
const LIMIT: u64 = 100;
/// Number of seconds after which to come again for a stream.
const RETRY_S: u64 = 10;

/// The latest events.
#[derive(Serialize, ToSchema)]
pub(super) struct RecentEvents {
    /// The newest first.
    #[schema(value_type = Vec<EventView>, max_items = 500)]
    events: Vec<Told>,
}

/// Event; beside these it has the fields of its kind.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "described here, written by `Told`")]
pub(super) struct EventView {
    /// Number of the event, which rises by one.
    seq: u64,
    at_ms: u64,
    /// What happened, as `peer_up`.
    event: String,
}

/// The latest events, the newest first.
#[utoipa::path(get, path = "/api/v1/events/recent", tag = "events",
    params(("limit" = Option<u32>, Query, description = "Most to list; 100 by default", minimum = 1, maximum = 500)),
    responses((status = 200, description = "The latest", body = RecentEvents)),
)]
pub(in crate::monitor::admin) fn recent(call: &Call<'_>) -> Result<Reply, Problem> {
    let limit = call.number("limit", (1, MAX_KEPT as u64))?.unwrap_or(LIMIT);
    let limit = usize::try_from(limit).unwrap_or(MAX_KEPT);
    reply::json(&RecentEvents { events: call.shared.events.recent(limit) })
}

/// Events as they happen, as server-sent events named as in `event`; `lagged` says how many were missed.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(("Last-Event-ID" = Option<u64>, Header, description = "Number of the event that was seen last")),
    responses(
        (status = 200, description = "Without an end", body = String, content_type = "text/event-stream"),
        (status = 429, description = "There are too many streams", body = super::Problem,
         content_type = "application/problem+json"),
    ),
)]
pub(in crate::monitor::admin) fn follow(call: &Call<'_>) -> Result<Reply, Problem> {
    let last_seen = call.headers.get(LAST_EVENT_ID);
    let last_seen = last_seen.map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    let last_seen = match last_seen {
        Some(None) => return Err(Problem::invalid("The Last-Event-ID is no number")),
        Some(seen) => seen,
        None => None,
    };
    let content = if call.is_head {
        // Without a length, as GET answers.
        Content::Stream(stream::empty().boxed())
    } else {
        let place = Arc::clone(&call.shared.streams).try_acquire_owned().map_err(|_| {
            let detail = "There are too many streams of events";
            Problem::retry(StatusCode::TOO_MANY_REQUESTS, detail, RETRY_S)
        })?;
        let shared = Arc::clone(call.shared);
        Content::Stream(call.shared.events.stream(shared, last_seen, place))
    };
    let mut reply = Response::new(content);
    let event_stream = HeaderValue::from_static("text/event-stream");
    reply.headers_mut().insert(CONTENT_TYPE, event_stream);
    Ok(reply)
}
