//! What became of a transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::monitor::admin::reply::{self, Reply};
use crate::monitor::admin::routes::{Call, stopped};
use crate::types;
use crate::web::Problem;

/// Maximum time that peers are given to tell.
const ACROSS: Duration = Duration::from_secs(10);

/// Whether peers are asked too.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "described here, read by `explain`")]
pub(in crate::monitor::admin) enum Across {
    True,
    False,
}

/// What a node knows of the life of a transaction.
#[derive(Serialize, ToSchema)]
pub(super) struct Explanation {
    /// What it is about and how that stands.
    #[serde(flatten)]
    told: Told,
    /// What linked peers tell, by peer; empty unless they were asked.
    elsewhere: BTreeMap<String, Elsewhere>,
    /// Peers that did not tell.
    #[schema(value_type = Vec<String>)]
    not_told: Vec<String>,
}

/// What a linked peer tells.
#[derive(Serialize, ToSchema)]
pub(super) struct Elsewhere {
    #[serde(flatten)]
    told: Told,
}

/// What one node tells.
#[derive(Serialize, ToSchema)]
pub(super) struct Told {
    #[schema(pattern = "^[0-9a-f]{64}$")]
    id: String,
    /// How it stands: unknown, refused, pending, stored, confirmed, `dead_letter` or expired.
    state: String,
    #[schema(pattern = "^[0-9a-f]{64}$")]
    origin: Option<String>,
    topic: Option<String>,
    /// Bytes of payload.
    size: Option<u64>,
    /// True: published by the node that tells.
    own: bool,
    /// Why it is there or not, in one plain sentence.
    summary: String,
    /// Number of links when it was asked.
    links: u32,
    /// In the order of time.
    steps: Vec<Step>,
    /// Number of steps that were not kept.
    left_out: u32,
}

/// Step in the life of a transaction, or how it stands with a peer.
#[derive(Serialize, ToSchema)]
pub(super) struct Step {
    at_ms: u64,
    what: String,
    #[schema(pattern = "^[0-9a-f]{64}$")]
    peer: Option<String>,
    transport: Option<&'static str>,
    hop: Option<u16>,
    reason: Option<String>,
}

impl From<&types::Explanation> for Told {
    fn from(told: &types::Explanation) -> Self {
        let step = |step: &types::Step| Step {
            at_ms: step.at.as_millis(),
            what: step.what.clone(),
            peer: step.peer.map(|peer| peer.to_string()),
            transport: step.transport.map(|kind| kind.as_str()),
            hop: step.hop,
            reason: step.reason.clone(),
        };
        Self {
            id: told.id.to_string(),
            state: told.state.clone(),
            origin: told.origin.map(|origin| origin.to_string()),
            topic: told.topic.as_ref().map(ToString::to_string),
            size: told.size,
            own: told.own,
            summary: told.summary.clone(),
            links: told.links,
            steps: told.steps.iter().map(step).collect(),
            left_out: told.left_out,
        }
    }
}

impl From<&types::Explanation> for Explanation {
    fn from(told: &types::Explanation) -> Self {
        let elsewhere = told.elsewhere.iter();
        Self {
            told: told.into(),
            elsewhere: elsewhere
                .map(|(peer, told)| (peer.to_string(), Elsewhere { told: told.into() }))
                .collect(),
            not_told: told.not_told.iter().map(ToString::to_string).collect(),
        }
    }
}

/// What became of a transaction, here and, where asked for, at the linked peers that tell.
#[utoipa::path(get, path = "/api/v1/transactions/{id}/explain", tag = "figures",
    params(
        ("id" = String, Path, description = "Id of the transaction", pattern = "^[0-9a-fA-F]{64}$"),
        ("across" = Option<Across>, Query, description = "Whether to ask linked peers too; false by default"),
    ),
    responses((status = 200, description = "What is known; nothing of an unknown one", body = Explanation)),
)]
pub(in crate::monitor::admin) async fn explain(call: &Call<'_>) -> Result<Reply, Problem> {
    let id = call.transaction()?;
    let node = call.node()?;
    let told = match call.query.text("across")? {
        None | Some("false") => node.explain(id).await,
        Some("true") => node.explain_across(id, ACROSS).await,
        Some(_) => return Err(Problem::invalid("The parameter across has to be true or false")),
    };
    reply::json(&Explanation::from(&told.map_err(|_| stopped())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PeerId, Topic, TransactionId, TransportKind, WallTime};

    #[test]
    fn the_view_is_what_the_node_tells() {
        let peer = PeerId::from_bytes([2; 32]);
        let mut told = types::Explanation::new(TransactionId::from_bytes([1; 32]));
        told.topic = Topic::new("orders").ok();
        let step = types::Step::new(WallTime::from_millis(7), "announced_by");
        told.steps.push(step.with(peer, TransportKind::GrpcStream));
        told.elsewhere.insert(peer, told.clone());
        told.not_told.push(peer);
        let shown = serde_json::to_value(Explanation::from(&told)).unwrap();
        let mut wanted = serde_json::to_value(&told).unwrap();
        // A peer tells of itself alone.
        let there = wanted["elsewhere"][peer.to_string()].as_object_mut().unwrap();
        assert!(there.remove("elsewhere").is_some() && there.remove("not_told").is_some());
        assert_eq!(shown, wanted);
    }
}
