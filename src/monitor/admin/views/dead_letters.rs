//! Own transactions that the outbox has given up.

use serde::Serialize;
use utoipa::ToSchema;

use super::actions::{conflict, done};
use crate::error::{DeadLetterError, PublishError, RedeliverError};
use crate::monitor::admin::reply::{self, Reply};
use crate::monitor::admin::routes::{Call, stopped};
use crate::node::DeadLetter as Given;
use crate::web::Problem;

/// Number of dead letters in an answer that says no other.
const LIMIT: u64 = 100;
/// Maximum number of dead letters in an answer.
const MAX_LIMIT: u64 = 1000;
/// Maximum number behind which to begin, as other languages write numbers of 64 bits.
const MAX_AFTER: u64 = i64::MAX as u64;

/// Part of the dead letters.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetters {
    /// In the order of publishing.
    #[schema(max_items = 1000)]
    dead_letters: Vec<DeadLetter>,
    /// The `after` of the next part; null where this one is empty, so that there are no more.
    next: Option<u64>,
}

/// Own transaction that no peer took, or too few before it expired.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetter {
    /// Number in the outbox, in the order of publishing.
    seq: u64,
    #[schema(pattern = "^[0-9a-f]{64}$")]
    id: String,
    topic: String,
    /// Bytes of payload.
    size: u64,
    created_ms: u64,
    expires_ms: u64,
    /// Reason for which it was given up.
    reason: String,
    since_ms: u64,
}

/// Transaction that waits for copies again.
#[derive(Serialize, ToSchema)]
pub(super) struct Redelivered {
    /// Its id, which is a new one where it had expired.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    id: String,
}

impl From<&Given> for DeadLetter {
    fn from(dead: &Given) -> Self {
        let header = dead.transaction.header();
        Self {
            seq: dead.seq,
            id: dead.transaction.id().to_string(),
            topic: header.topic.to_string(),
            size: dead.transaction.payload().len() as u64,
            created_ms: header.created.as_millis(),
            expires_ms: header.expires.as_millis(),
            reason: dead.reason.clone(),
            since_ms: dead.since.as_millis(),
        }
    }
}

fn undone(error: &DeadLetterError) -> Problem {
    match error {
        DeadLetterError::NotFound { .. } => Problem::not_found(error.to_string()),
        DeadLetterError::Store(_) => Problem::unavailable(error.to_string()),
        DeadLetterError::Closed => stopped(),
    }
}

fn not_taken_back(error: &RedeliverError) -> Problem {
    match error {
        RedeliverError::NotFound { .. } => Problem::not_found(error.to_string()),
        RedeliverError::Store(_)
        | RedeliverError::Publish(PublishError::Store(_) | PublishError::Unsettled) => {
            Problem::unavailable(error.to_string())
        }
        RedeliverError::Publish(PublishError::Closed) | RedeliverError::Closed => stopped(),
        RedeliverError::Publish(_) => conflict(error),
    }
}

/// Own transactions that were given up, a part at a time.
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "dead letters",
    params(
        ("after" = Option<u64>, Query, description = "Number behind which to begin", minimum = 0, maximum = 9_223_372_036_854_775_807_i64),
        ("limit" = Option<u32>, Query, description = "Most to list; 100 by default", minimum = 1, maximum = 1000),
    ),
    responses((status = 200, description = "A part of them", body = DeadLetters)),
)]
pub(in crate::monitor::admin) async fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let after = call.number("after", (0, MAX_AFTER))?;
    let limit = call.number("limit", (1, MAX_LIMIT))?.unwrap_or(LIMIT);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let node = call.node()?;
    let part = node.dead_letters(after, limit).await.map_err(|error| undone(&error))?;
    // Fewer may be as many as fit into one answer.
    let next = part.last().map(|dead| dead.seq);
    reply::json(&DeadLetters { dead_letters: part.iter().map(DeadLetter::from).collect(), next })
}

/// Takes a dead letter back: it waits for copies again.
#[utoipa::path(post, path = "/api/v1/dead-letters/{id}/redeliver", tag = "dead letters",
    params(("id" = String, Path, description = "Id of the transaction", pattern = "^[0-9a-fA-F]{64}$")),
    responses(
        (status = 200, description = "It waits again", body = Redelivered),
        (status = 409, description = "It has expired, and cannot be published anew", body = super::Problem,
         content_type = "application/problem+json"),
    ),
)]
pub(in crate::monitor::admin) async fn redeliver(call: &Call<'_>) -> Result<Reply, Problem> {
    let id = call.transaction()?;
    let receipt = call.node()?.redeliver(id).await.map_err(|error| not_taken_back(&error))?;
    reply::json(&Redelivered { id: receipt.id().to_string() })
}

/// Deletes a dead letter for good.
#[utoipa::path(post, path = "/api/v1/dead-letters/{id}/delete", tag = "dead letters",
    params(("id" = String, Path, description = "Id of the transaction", pattern = "^[0-9a-fA-F]{64}$")),
    responses((status = 200, description = "It is gone", body = super::actions::Done)),
)]
pub(in crate::monitor::admin) async fn delete(call: &Call<'_>) -> Result<Reply, Problem> {
    let id = call.transaction()?;
    call.node()?.delete_dead_letter(id).await.map_err(|error| undone(&error))?;
    done()
}
