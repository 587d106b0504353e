//! Paths for orchestrators, Prometheus and browsers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::status::{ModeName, Report};
use crate::monitor;
use crate::monitor::admin::reply::{self, Content, Reply};
use crate::monitor::admin::routes::{Call, stopped};
use crate::web::Problem;

/// Time in which a node that is well says how it is.
const MAX_WAIT: Duration = Duration::from_secs(3);
/// Content type of metrics by default.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Content type of metrics for who asks for it.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the node can do what it is for.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// True: it is linked, or alone by its configuration, and storage works.
    ready: bool,
    mode: ModeName,
    /// What is not as it should be, as sentences; some of it may let the node be ready. Addresses are named to those
    /// alone who show the token, where there is one.
    reasons: Vec<String>,
}

/// The page for operators.
#[utoipa::path(get, path = "/", tag = "page", responses(
    (status = 200, description = "The page", content_type = "text/html", body = String),
    (status = 304, description = "The page that the caller has already"),
))]
pub(in crate::monitor::admin) fn page(call: &Call<'_>) -> Reply {
    let page = &call.shared.page;
    let mut known = call.headers.get_all(IF_NONE_MATCH).iter().filter_map(|it| it.to_str().ok());
    let is_known = known.any(|known| known.split(',').any(|known| known.trim() == page.etag));
    let mut reply = if is_known {
        // Without a type: what it says takes the place of what is kept.
        reply::with_status(StatusCode::NOT_MODIFIED, Response::new(Content::Whole(Bytes::new())))
    } else {
        reply::of_type("text/html; charset=utf-8", page.html.clone())
    };
    let headers = reply.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    for (name, value) in [(ETAG, &page.etag), (CONTENT_SECURITY_POLICY, &page.policy)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    reply
}

/// Whether the process lives: `ok` as long as it answers.
#[utoipa::path(get, path = "/livez", tag = "health", responses(
    (status = 200, description = "It lives", content_type = "text/plain", body = String),
))]
pub(in crate::monitor::admin) fn live() -> Reply {
    reply::text("ok\n")
}

/// Whether the node can do what it is for, and if not, why.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "It is ready", body = Readiness),
    (status = 503, description = "It is not ready, or about to stop", body = Readiness),
))]
pub(in crate::monitor::admin) async fn ready(call: &Call<'_>) -> Result<Reply, Problem> {
    let report = match call.node() {
        Ok(node) => {
            let report = Report::of(call.shared, &node, call.is_known);
            timeout(MAX_WAIT, report).await.ok().flatten()
        }
        Err(_) => None,
    };
    let readiness = match report {
        Some(report) => {
            Readiness { ready: report.is_ready, mode: report.mode.into(), reasons: report.reasons }
        }
        None => Readiness {
            ready: false,
            mode: ModeName::Offline,
            reasons: vec!["The node does not answer, or is shut down".to_owned()],
        },
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(reply::with_status(status, reply::json(&readiness)?))
}

/// Figures as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", tag = "figures", responses(
    (status = 200, description = "Text format 0.0.4, or OpenMetrics 1.0 where that is asked for",
     content((String = "text/plain"), (String = "application/openmetrics-text"))),
))]
pub(in crate::monitor::admin) async fn metrics(call: &Call<'_>) -> Result<Reply, Problem> {
    let snapshot = call.node()?.snapshot().await.map_err(|_| stopped())?;
    let mut accepted = call.headers.get_all(ACCEPT).iter().filter_map(|it| it.to_str().ok());
    if accepted.any(|ranges| ranges.contains("application/openmetrics-text")) {
        return Ok(reply::of_type(OPENMETRICS, monitor::openmetrics(&snapshot)));
    }
    Ok(reply::of_type(METRICS, monitor::text(&snapshot)))
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "figures", responses(
    (status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = serde_json::Value),
))]
pub(in crate::monitor::admin) fn document(call: &Call<'_>) -> Reply {
    reply::of_type("application/json", call.shared.document.clone())
}
