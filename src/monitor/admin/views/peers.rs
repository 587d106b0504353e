//! Peers: linked ones, and those lost lately.

use serde::Serialize;
use utoipa::ToSchema;

use crate::monitor::admin::lost::{Breaker, LostPeer};
use crate::monitor::admin::reply::{self, Reply};
use crate::monitor::admin::routes::{Call, stopped};
use crate::types::{Direction, LinkState, LinkStatus};
use crate::web::Problem;

/// Side that opened a link.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Side {
    Outbound,
    Inbound,
}

impl From<Direction> for Side {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::Outbound,
            Direction::Inbound => Self::Inbound,
        }
    }
}

/// Linked peers and lost ones.
#[derive(Serialize, ToSchema)]
pub(super) struct Peers {
    peers: Vec<Linked>,
    /// Peers that were linked in the last hour, the newest first.
    #[schema(max_items = 200)]
    lost: Vec<Lost>,
}

/// Whether a linked peer answers.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum LinkHealth {
    Up,
    /// It missed an answer; one more and the link is closed.
    Suspect,
}

/// Linked peer.
#[derive(Serialize, ToSchema)]
pub(super) struct Linked {
    state: LinkHealth,
    #[serde(flatten)]
    figures: LinkFigures,
}

/// What is known of a link.
#[derive(Serialize, ToSchema)]
pub(super) struct LinkFigures {
    #[schema(pattern = "^[0-9a-f]{64}$")]
    peer: String,
    /// Transport that carries the link.
    transport: &'static str,
    /// Address of the peer, where the transport has one.
    address: Option<String>,
    direction: Side,
    /// True: the peer missed an answer.
    suspect: bool,
    /// Smoothed round trip; 0 until measured.
    rtt_us: u64,
    /// Mean deviation of round trips from that.
    jitter_us: u64,
    /// Score of the link; 0 until measured.
    #[schema(maximum = 100)]
    quality: u8,
    /// Share of the transactions asked of the peer lately that it served.
    #[schema(maximum = 100)]
    served_percent: Option<u8>,
    /// Share of the payloads that came over the link lately and were new.
    #[schema(maximum = 100)]
    first_percent: Option<u8>,
    connected_s: u64,
    /// Bytes that wait to be sent.
    queued_bytes: u64,
    /// Bytes sent whose arrival the peer has not told yet.
    under_way_bytes: u64,
    bytes_per_second: u64,
    incoming_bytes_per_second: u64,
    /// Transactions still to be announced or pushed to the peer.
    behind: u64,
    /// True: the peer is too slow for what is new.
    in_debt: bool,
    /// Links from the peer to the nearest relay.
    depth: u8,
    relay: bool,
    /// Quality in a word: excellent, good, fair, poor or unknown.
    rating: &'static str,
    /// State of the circuit breaker; null, which is closed, for a linked peer.
    breaker: Option<Breaker>,
    /// Milliseconds from this machine's clock to the peer's, where known.
    clock_offset_ms: Option<i64>,
}

/// Peer whose link ended.
#[derive(Serialize, ToSchema)]
pub(super) struct Lost {
    #[schema(pattern = "^[0-9a-f]{64}$")]
    peer: String,
    address: Option<String>,
    transport: &'static str,
    direction: Side,
    /// Reason for which the link ended.
    reason: &'static str,
    /// Time when it ended.
    #[serde(rename = "lost_at_ms")]
    since_ms: u64,
    /// State of the circuit breaker; null is closed.
    breaker: Option<Breaker>,
}

/// One peer, linked or lost.
#[derive(Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum OnePeer {
    Linked(LinkFigures),
    Lost(Lost),
}

impl From<LinkStatus> for LinkFigures {
    fn from(link: LinkStatus) -> Self {
        Self {
            rating: link.rating(),
            peer: link.peer.to_string(),
            transport: link.transport.as_str(),
            address: link.address,
            direction: link.direction.into(),
            suspect: link.state == LinkState::Suspect,
            rtt_us: link.rtt_us,
            jitter_us: link.jitter_us,
            quality: link.quality,
            served_percent: link.served_percent,
            first_percent: link.first_percent,
            connected_s: link.connected_s,
            queued_bytes: link.queued_bytes,
            under_way_bytes: link.under_way_bytes,
            bytes_per_second: link.bytes_per_second,
            incoming_bytes_per_second: link.incoming_bytes_per_second,
            behind: link.lag,
            in_debt: link.in_debt,
            depth: link.depth,
            relay: link.relay,
            breaker: None,
            clock_offset_ms: link.clock_offset_ms,
        }
    }
}

impl From<LinkStatus> for Linked {
    fn from(link: LinkStatus) -> Self {
        let figures = LinkFigures::from(link);
        let state = if figures.suspect { LinkHealth::Suspect } else { LinkHealth::Up };
        Self { state, figures }
    }
}

impl From<&LostPeer> for Lost {
    fn from(lost: &LostPeer) -> Self {
        Self {
            peer: lost.peer.to_string(),
            address: lost.address.clone(),
            transport: lost.transport.as_str(),
            direction: lost.direction.into(),
            reason: lost.reason,
            since_ms: lost.lost_at_ms,
            breaker: lost.breaker,
        }
    }
}

/// Linked peers, and those that were linked in the last hour.
#[utoipa::path(get, path = "/api/v1/peers", tag = "peers", responses(
    (status = 200, description = "The peers", body = Peers),
))]
pub(in crate::monitor::admin) async fn peers(call: &Call<'_>) -> Result<Reply, Problem> {
    let node = call.node()?;
    let peers = node.peers().await.map_err(|_| stopped())?;
    let lost = call.shared.lost().list(node.now().as_millis()).map(Lost::from).collect();
    reply::json(&Peers { peers: peers.into_iter().map(Linked::from).collect(), lost })
}

/// One of them.
#[utoipa::path(get, path = "/api/v1/peers/{id}", tag = "peers",
    params(("id" = String, Path, description = "Id of the peer", pattern = "^[0-9a-fA-F]{64}$")),
    responses((status = 200, description = "The peer", body = OnePeer)),
)]
pub(in crate::monitor::admin) async fn peer(call: &Call<'_>) -> Result<Reply, Problem> {
    let (peer, node) = (call.peer()?, call.node()?);
    let links = node.peers().await.map_err(|_| stopped())?;
    if let Some(link) = links.into_iter().find(|link| link.peer == peer) {
        return reply::json(&OnePeer::Linked(link.into()));
    }
    let now_ms = node.now().as_millis();
    let lost = call.shared.lost().list(now_ms).find(|lost| lost.peer == peer).map(Lost::from);
    let lost = lost.ok_or_else(|| {
        Problem::not_found("The peer is not linked, and was not in the last hour")
    })?;
    reply::json(&OnePeer::Lost(lost))
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;
    use crate::monitor::metrics::testing::snapshot;

    #[test]
    fn a_link_shows_all_that_is_known_of_it() {
        for link in snapshot(2).links {
            let (known, shown) = (keys(&link), keys(&Linked::from(link)));
            let missing: Vec<_> = known.difference(&shown).collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
    }

    #[test]
    fn one_peer_says_whether_it_is_linked() {
        let link = snapshot(2).links.remove(1);
        let shown = serde_json::to_value(OnePeer::Linked(link.into())).unwrap();
        assert_eq!((&shown["state"], &shown["suspect"]), (&"linked".into(), &true.into()));
    }
}
