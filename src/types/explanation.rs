//! What a node knows of the life of a transaction.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{PeerId, Topic, TransactionId, TransportKind, WallTime};

/// What became of a transaction on one node, as `PeerNode::explain` tells it, and with
/// `PeerNode::explain_across` on its linked peers too.
///
/// A node remembers for each transaction a bounded number of steps, in a share of its memory, the newest
/// transactions and apart from them the newest refusals. What is older is told from what the node holds now,
/// with fewer steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The transaction that was asked for.
    pub id: TransactionId,
    /// State of the transaction on this node, one of:
    ///
    /// | state | meaning |
    /// |---|---|
    /// | `unknown` | not heard of, or forgotten |
    /// | `refused` | refused, or not kept because the store failed |
    /// | `pending` | on its way in, or one of the node's own that waits in the outbox |
    /// | `stored` | stored here |
    /// | `confirmed` | one of the node's own that enough other nodes have stored |
    /// | `dead_letter` | one of the node's own that was given up for now |
    /// | `expired` | here once, and forgotten as its time was over; or published anew |
    pub state: String,
    /// The node that published it, where that is known.
    pub origin: Option<PeerId>,
    /// The topic, where it is known.
    pub topic: Option<Topic>,
    /// Number of bytes of its payload, where that is known.
    pub size: Option<u64>,
    /// True: this node published it.
    pub own: bool,
    /// One sentence for people: why the transaction is here, or why it is not.
    pub summary: String,
    /// Number of peers that were linked when the node was asked.
    pub links: u32,
    /// What happened to it here, and at the end how matters stand with each linked peer, in the order of
    /// time.
    pub steps: Vec<Step>,
    /// Number of steps that were not kept.
    pub left_out: u32,
    /// Explanations of linked peers, where they were asked and told.
    #[serde(default)]
    pub elsewhere: BTreeMap<PeerId, Explanation>,
    /// Linked peers that were asked and did not tell: not allowed there, too busy, or not in time.
    #[serde(default)]
    pub not_told: Vec<PeerId>,
}

/// One step in the life of a transaction on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Step {
    /// Time of the step, by the clock of the node that tells it; of how matters stand, the time at
    /// which it was asked.
    #[serde(rename = "at_ms")]
    pub at: WallTime,
    /// Kind of the step. More may come with new versions.
    ///
    /// | what happened | meaning |
    /// |---|---|
    /// | `published` | accepted from the host |
    /// | `announced_by`, `asked`, `checking` | heard of from the peer; asked for there; being checked |
    /// | `accepted` | checked and taken into the log, from `peer` at `hop` hops from its origin |
    /// | `stored`, `not_stored` | the store took it, or failed for `reason` |
    /// | `refused` | refused, as it came from `peer`, for `reason` |
    /// | `announced`, `pushed` | the peer was told of it, or sent it unasked |
    /// | `wanted`, `served` | the peer asked for it, or was sent it |
    /// | `confirmed`, `refused_by` | the peer has stored it, or does not take it for `reason` |
    /// | `retried` | offered once more, since too few confirmed |
    /// | `dead_lettered`, `redelivered`, `deleted` | given up for `reason`; taken back, or deleted, by the host |
    /// | `expired`, `renewed` | forgotten as its time was over; published anew under the id in `reason` |
    ///
    /// | how matters stand | meaning |
    /// |---|---|
    /// | `offered` | the peer was told of it, or sets were compared with it |
    /// | `behind` | it has yet to be offered: what waits for the peer comes first |
    /// | `in_debt` | the peer is too slow for what is new, and is compared with later |
    /// | `not_carried` | the peer does not carry its topic |
    /// | `over_limit` | the peer takes no payload of its size, but of up to `reason` bytes |
    /// | `stale` | it expired in the outbox before any other node had it, and is published anew once a peer is linked |
    /// | `banned` | the peer is banned here, for `reason`; told where no peer is linked |
    pub what: String,
    /// The peer at the other end, where there is one and its name is still known.
    pub peer: Option<PeerId>,
    /// The transport that the link with the peer had.
    pub transport: Option<TransportKind>,
    /// Number of hops from the origin, where the step tells it.
    pub hop: Option<u16>,
    /// Reason: the name of a refusal or of a failure of the store, or words.
    pub reason: Option<String>,
}

impl Explanation {
    /// Explanation of what is not known.
    pub(crate) fn new(id: TransactionId) -> Self {
        Self {
            id,
            state: state::UNKNOWN.to_owned(),
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
        }
    }

    /// Returns the steps of one kind.
    pub(crate) fn all(&self, what: &str) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.what == what)
    }
}

impl Step {
    /// Step of the node alone.
    pub(crate) fn new(at: WallTime, what: &str) -> Self {
        let what = what.to_owned();
        Self { at, what, peer: None, transport: None, hop: None, reason: None }
    }

    /// The same step, with a peer over a link.
    pub(crate) fn with(mut self, peer: PeerId, transport: TransportKind) -> Self {
        (self.peer, self.transport) = (Some(peer), Some(transport));
        self
    }
}

/// States of explanations.
pub(crate) mod state {
    pub(crate) const UNKNOWN: &str = "unknown";
    pub(crate) const REFUSED: &str = "refused";
    pub(crate) const PENDING: &str = "pending";
    pub(crate) const STORED: &str = "stored";
    pub(crate) const CONFIRMED: &str = "confirmed";
    pub(crate) const DEAD_LETTER: &str = "dead_letter";
    pub(crate) const EXPIRED: &str = "expired";
}

/// Kinds of steps.
pub(crate) mod what {
    pub(crate) const PUBLISHED: &str = "published";
    pub(crate) const ANNOUNCED_BY: &str = "announced_by";
    pub(crate) const ASKED: &str = "asked";
    pub(crate) const CHECKING: &str = "checking";
    pub(crate) const ACCEPTED: &str = "accepted";
    pub(crate) const STORED: &str = "stored";
    pub(crate) const NOT_STORED: &str = "not_stored";
    pub(crate) const REFUSED: &str = "refused";
    pub(crate) const ANNOUNCED: &str = "announced";
    pub(crate) const PUSHED: &str = "pushed";
    pub(crate) const WANTED: &str = "wanted";
    pub(crate) const SERVED: &str = "served";
    pub(crate) const CONFIRMED: &str = "confirmed";
    pub(crate) const REFUSED_BY: &str = "refused_by";
    pub(crate) const RETRIED: &str = "retried";
    pub(crate) const DEAD_LETTERED: &str = "dead_lettered";
    pub(crate) const REDELIVERED: &str = "redelivered";
    pub(crate) const DELETED: &str = "deleted";
    pub(crate) const EXPIRED: &str = "expired";
    pub(crate) const RENEWED: &str = "renewed";
    pub(crate) const STALE: &str = "stale";
    pub(crate) const OFFERED: &str = "offered";
    pub(crate) const BEHIND: &str = "behind";
    pub(crate) const IN_DEBT: &str = "in_debt";
    pub(crate) const NOT_CARRIED: &str = "not_carried";
    pub(crate) const OVER_LIMIT: &str = "over_limit";
    pub(crate) const BANNED: &str = "banned";
}
