//! What is done to peers when asked.

use std::fmt::Display;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use utoipa::ToSchema;

use crate::error::{BanError, TestError};
use crate::monitor::admin::reply::{self, Reply};
use crate::monitor::admin::routes::{Call, stopped};
use crate::types::PeerTest;
use crate::web::Problem;

/// Maximum number of characters of a reason.
const MAX_REASON: usize = 500;
/// Maximum number of seconds of a ban that ends: ten years.
const MAX_BAN_S: f64 = 315_360_000.0;

/// What was asked for is done.
#[derive(Serialize, ToSchema)]
pub(super) struct Done {
    /// Always true.
    done: bool,
}

/// Ban to be set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BanRequest {
    /// Reason, for people.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// Number of seconds after which the ban ends; null is never.
    #[serde(default)]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 315_360_000)]
    for_s: Option<Number>,
}

/// Result of the test of a link.
#[derive(Serialize, ToSchema)]
pub(super) struct TestResult {
    #[schema(pattern = "^[0-9a-f]{64}$")]
    peer: String,
    transport: &'static str,
    rtt_min_us: u64,
    rtt_avg_us: u64,
    rtt_max_us: u64,
    jitter_us: u64,
    /// Pings sent.
    sent: u32,
    /// Pings that were not answered.
    lost: u32,
    bytes_per_second: u64,
    incoming_bytes_per_second: u64,
}

impl From<PeerTest> for TestResult {
    fn from(test: PeerTest) -> Self {
        Self {
            peer: test.peer.to_string(),
            transport: test.transport.as_str(),
            rtt_min_us: test.rtt_min_us,
            rtt_avg_us: test.rtt_avg_us,
            rtt_max_us: test.rtt_max_us,
            jitter_us: test.jitter_us,
            sent: test.sent,
            lost: test.lost,
            bytes_per_second: test.bytes_per_second,
            incoming_bytes_per_second: test.incoming_bytes_per_second,
        }
    }
}

pub(super) fn done() -> Result<Reply, Problem> {
    reply::json(&Done { done: true })
}

pub(super) fn conflict(error: &impl Display) -> Problem {
    Problem::new(StatusCode::CONFLICT, error.to_string())
}

/// The time of a ban. A whole number may be written with a fraction of zero.
fn seconds(number: &Number) -> Result<Duration, Problem> {
    let whole = number.as_f64().filter(|seconds| seconds.fract() == 0.0);
    let whole = whole.filter(|seconds| (1.0..=MAX_BAN_S).contains(seconds));
    whole.map(Duration::from_secs_f64).ok_or_else(|| {
        let detail = format!("The field for_s has to be null or from 1 to {MAX_BAN_S}");
        Problem::invalid(detail)
    })
}

fn unbanned(error: &BanError) -> Problem {
    match error {
        BanError::Itself => conflict(error),
        BanError::Store(_) | BanError::Closed => Problem::unavailable(error.to_string()),
    }
}

/// Refuses a peer on every path, for a time or for good.
#[utoipa::path(post, path = "/api/v1/peers/{id}/ban", tag = "peers", request_body = BanRequest,
    params(("id" = String, Path, description = "Id of the peer", pattern = "^[0-9a-fA-F]{64}$")),
    responses(
        (status = 200, description = "The ban holds, and is stored", body = Done),
        (status = 409, description = "The peer is the node itself", body = super::Problem,
         content_type = "application/problem+json"),
    ),
)]
pub(in crate::monitor::admin) async fn ban(call: &Call<'_>) -> Result<Reply, Problem> {
    let peer = call.peer()?;
    let asked: BanRequest = serde_json::from_slice(&call.body)
        .map_err(|error| Problem::invalid(format!("The body is no ban: {error}")))?;
    if !(1..=MAX_REASON).contains(&asked.reason.chars().count()) {
        return Err(Problem::invalid("The reason has to have 1 to 500 characters"));
    }
    let time = asked.for_s.map(|number| seconds(&number)).transpose()?;
    call.node()?.ban(peer, time, &asked.reason).await.map_err(|error| unbanned(&error))?;
    done()
}

/// Lifts a ban; a peer that is not banned is no error.
#[utoipa::path(post, path = "/api/v1/peers/{id}/unban", tag = "peers",
    params(("id" = String, Path, description = "Id of the peer", pattern = "^[0-9a-fA-F]{64}$")),
    responses((status = 200, description = "There is no ban any more", body = Done)),
)]
pub(in crate::monitor::admin) async fn unban(call: &Call<'_>) -> Result<Reply, Problem> {
    let peer = call.peer()?;
    call.node()?.unban(peer).await.map_err(|error| unbanned(&error))?;
    done()
}

/// Ends the link to a peer, which may come again; a peer that is not linked is no error.
#[utoipa::path(post, path = "/api/v1/peers/{id}/disconnect", tag = "peers",
    params(("id" = String, Path, description = "Id of the peer", pattern = "^[0-9a-fA-F]{64}$")),
    responses((status = 200, description = "The link is being ended", body = Done)),
)]
pub(in crate::monitor::admin) async fn disconnect(call: &Call<'_>) -> Result<Reply, Problem> {
    let peer = call.peer()?;
    call.node()?.disconnect(peer).await.map_err(|_| stopped())?;
    done()
}

/// Closes the circuit breaker of a peer, so that it is dialled at once; a closed one is no error.
#[utoipa::path(post, path = "/api/v1/peers/{id}/reset-breaker", tag = "peers",
    params(("id" = String, Path, description = "Id of the peer", pattern = "^[0-9a-fA-F]{64}$")),
    responses((status = 200, description = "The breaker is closed", body = Done)),
)]
pub(in crate::monitor::admin) async fn reset_breaker(call: &Call<'_>) -> Result<Reply, Problem> {
    let peer = call.peer()?;
    call.node()?.reset_breaker(peer).await.map_err(|_| stopped())?;
    done()
}

/// Measures the link to a peer: five pings, and 256 KiB each way.
#[utoipa::path(post, path = "/api/v1/peers/{id}/test", tag = "peers",
    params(("id" = String, Path, description = "Id of the peer", pattern = "^[0-9a-fA-F]{64}$")),
    responses(
        (status = 200, description = "What was measured", body = TestResult),
        (status = 409, description = "There is no link, it was tested a moment ago, or nobody answers",
         body = super::Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::monitor::admin) async fn test(call: &Call<'_>) -> Result<Reply, Problem> {
    let peer = call.peer()?;
    let tested = call.node()?.test_peer(peer).await.map_err(|error| match error {
        TestError::Unknown => Problem::not_found(error.to_string()),
        TestError::NotLinked | TestError::Busy | TestError::TimedOut => conflict(&error),
        TestError::Closed => stopped(),
    })?;
    reply::json(&TestResult::from(tested))
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;

    #[test]
    fn a_test_shows_all_that_was_measured() {
        let test = PeerTest {
            peer: crate::types::PeerId::from_bytes([1; 32]),
            transport: crate::types::TransportKind::Rest,
            rtt_min_us: 1,
            rtt_avg_us: 2,
            rtt_max_us: 3,
            jitter_us: 4,
            sent: 5,
            lost: 0,
            bytes_per_second: 6,
            incoming_bytes_per_second: 7,
        };
        assert_eq!(keys(&test), keys(&TestResult::from(test.clone())));
    }
}
