//! The life of a transaction: why it is here, or is not.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::monitor::admin::reply::{self, Reply};
use crate::monitor::admin::routes::{Call, stopped};
use crate::web::Problem;

/// Time that other peers have to tell what they know.
const MAX_ACROSS: Duration = Duration::from_secs(10);

/// What became of a transaction on one node.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "described here, written by `Explanation`")]
pub(super) struct ExplanationView {
    #[schema(pattern = "^[0-9a-f]{64}$")]
    id: String,
    /// `unknown`, `refused`, `pending`, `stored`, `confirmed`, `dead_letter` or `expired`.
    state: String,
    /// Node that published it, where known.
    origin: Option<String>,
    topic: Option<String>,
    /// Bytes of payload, where known.
    size: Option<u64>,
    /// True: the node published it.
    own: bool,
    /// One sentence: why it is here or is not.
    summary: String,
    /// Peers that were linked when the node was asked.
    links: u32,
    /// What happened, and at the end how matters stand with each linked peer.
    steps: Vec<StepView>,
    /// Steps that were not kept.
    left_out: u32,
    /// What linked peers tell, where they were asked.
    #[schema(no_recursion)]
    elsewhere: BTreeMap<String, ExplanationView>,
    /// Linked peers that were asked and did not tell.
    not_told: Vec<String>,
}

/// One step in the life of a transaction.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "described here, written by `Step`")]
pub(super) struct StepView {
    at_ms: u64,
    /// Kind of the step, as `received`, `refused` or `confirmed`.
    what: String,
    peer: Option<String>,
    transport: Option<String>,
    hop: Option<u16>,
    reason: Option<String>,
}

/// What became of a transaction here, and with `across` on the linked peers that tell.
#[utoipa::path(get, path = "/api/v1/transactions/{id}/explain", tag = "transactions",
    params(
        ("id" = String, Path, description = "Id of the transaction", pattern = "^[0-9a-fA-F]{64}$"),
        ("across" = Option<bool>, Query, description = "Whether to ask linked peers too; false by default"),
    ),
    responses((status = 200, description = "What is known; `unknown` is a state too", body = ExplanationView)),
)]
pub(in crate::monitor::admin) async fn explain(call: &Call<'_>) -> Result<Reply, Problem> {
    let (id, node) = (call.transaction()?, call.node()?);
    let across = match call.query.text("across")? {
        Some("true") => true,
        Some("false") | None => false,
        Some(_) => return Err(Problem::invalid("The parameter across has to be true or false")),
    };
    let explained =
        if across { node.explain_across(id, MAX_ACROSS).await } else { node.explain(id).await };
    reply::json(&explained.map_err(|_| stopped())?)
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;
    use crate::types::{Explanation, Step, TransactionId, WallTime};

    #[test]
    fn the_document_has_the_keys_of_an_explanation() {
        let known = Explanation::new(TransactionId::from_bytes([1; 32]));
        let described = ExplanationView {
            id: String::new(),
            state: String::new(),
            origin: None,
            topic: None,
            size: None,
            own: false,
            summary: String::new(),
            links: 0,
            steps: Vec::new(),
            left_out: 0,
            elsewhere: BTreeMap::new(),
            not_told: Vec::new(),
        };
        assert_eq!(keys(&known), keys(&described));
        let step = Step::new(WallTime::from_millis(1), "stored");
        let (peer, transport, hop, reason) = (None, None, None, None);
        let described = StepView { at_ms: 1, what: String::new(), peer, transport, hop, reason };
        assert_eq!(keys(&step), keys(&described));
    }
}
