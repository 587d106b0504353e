//! Figures, by section.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::reachability::ReachabilityName;
use crate::monitor::Snapshot;
use crate::monitor::admin::reply::{self, Reply};
use crate::monitor::admin::routes::{Call, stopped};
use crate::types::{LinkState, LinkStatus, Stats};
use crate::web::Problem;

/// Figures of one instant. Counts rise from the start of the node.
#[derive(Serialize, ToSchema)]
pub(super) struct StatsView {
    /// Time of the figures.
    at_ms: u64,
    peers: PeerFigures,
    links: LinksFigures,
    quality: QualityFigures,
    breakers: BreakerFigures,
    gossip: GossipFigures,
    reconciliation: ReconciliationFigures,
    outbox: OutboxFigures,
    store: StoreFigures,
    messages: MessageFigures,
    reachability: ReachabilityFigures,
    clock: ClockFigures,
    /// Memory of payloads and caches, by owner.
    memory: BTreeMap<String, MemoryFigures>,
    /// What was refused or dropped, by reason.
    drops: BTreeMap<&'static str, u64>,
    /// Every counter by name.
    counters: BTreeMap<&'static str, u64>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct PeerFigures {
    /// Peers in the address book.
    known: u32,
    /// Links whose hello is through.
    links: u32,
    /// Connections still in their hello.
    handshakes: u32,
    /// Peers under a ban.
    banned: u32,
}

#[derive(Serialize, ToSchema)]
pub(super) struct LinksFigures {
    /// Links by the transport that carries them; those without a link are not named.
    by_transport: BTreeMap<String, u32>,
    /// Links by who dialled, `inbound` or `outbound`.
    by_direction: BTreeMap<String, u32>,
    /// Links whose peer missed an answer.
    suspect: u64,
    /// Links whose peer is too slow for what is new.
    in_debt: u64,
    /// Bytes that wait to be sent.
    queued_bytes: u64,
    /// Bytes sent whose arrival no peer has told yet.
    under_way_bytes: u64,
    /// Transactions still to be announced or pushed.
    behind: u64,
    /// Median round trip, once one is measured.
    rtt_median_us: Option<u64>,
    /// Longest round trip, once one is measured.
    rtt_longest_us: Option<u64>,
    opened: u64,
    closed: u64,
    /// Links that went over to another connection.
    handovers: u64,
    /// Bytes that their connections sent, with all that TLS and HTTP add.
    bytes_sent: u64,
    bytes_received: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct QualityFigures {
    /// Links by their rating; those not measured yet are not counted.
    ratings: BTreeMap<String, u32>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct BreakerFigures {
    /// Breakers that are open or half-open.
    open: u32,
    /// Those of them that let a probe through now.
    half_open: u32,
    opened: u64,
    closed: u64,
    probes: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct GossipFigures {
    pushes_sent: u64,
    wants_served: u64,
    wants_sent: u64,
    wants_received: u64,
    announcements_sent: u64,
    announcements_received: u64,
    payloads_received: u64,
    duplicates_received: u64,
    /// Payloads received for each that was new; null before the first.
    copies_per_delivery: Option<f64>,
    /// Transactions accepted, by hops from their origin: 0 to 14, and 15 or more.
    #[schema(max_items = 16)]
    hops: Vec<u64>,
    latency: LatencyFigures,
    /// Transactions being fetched.
    fetching: u64,
    carries_all: bool,
    topics_carried: u32,
    stands_in: bool,
}

/// Times from being published to being accepted here.
#[derive(Serialize, ToSchema)]
pub(super) struct LatencyFigures {
    /// Pairs of an upper bound in microseconds, null for none, and a count.
    #[schema(value_type = Vec<Vec<Option<u64>>>)]
    buckets: Vec<(Option<u64>, u64)>,
    count: u64,
    sum_us: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ReconciliationFigures {
    opened: u64,
    finished: u64,
    failed: u64,
    answered: u64,
    missing_here: u64,
    missing_there: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct OutboxFigures {
    /// Own transactions not yet confirmed by enough peers.
    size: u64,
    /// What they and the dead letters may be together.
    limit: u64,
    dead_letters: u64,
    /// Age of the oldest that waits; null while none does.
    oldest_age_ms: Option<u64>,
    /// Rounds without any taker, of those that wait together.
    attempts: u64,
    retries: u64,
    replicated: u64,
    renewed: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct StoreFigures {
    /// Transactions in the log.
    retained: u64,
    /// Bytes of headers and payloads; null while the store does not say.
    bytes: Option<u64>,
    /// What they may be; null where there is no bound.
    max_bytes: Option<u64>,
    failing: bool,
}

/// Requests to single peers, and those of peers.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageFigures {
    /// Own requests to single peers.
    made: u64,
    answered: u64,
    failed: u64,
    /// Requests of peers.
    received: u64,
    served: u64,
    refused: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ReachabilityFigures {
    /// Socket addresses that peers reach, that for a proxy in front too; none where the node only dials out.
    listen: Vec<String>,
    /// Socket address for what a proxy in front passes on.
    http: Option<String>,
    /// Addresses that the node tells others to reach it at.
    advertised: Vec<String>,
    /// IP addresses from which peers see the node.
    observed: Vec<String>,
    state: ReachabilityName,
    /// Address at which others can dial the node.
    endpoint: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ClockFigures {
    /// True: most peers find the clock of this machine off.
    off: bool,
    /// Milliseconds from this machine's clock to the median of its peers'.
    offset_ms: i64,
    /// Votes in that median.
    votes: u32,
}

#[derive(Serialize, ToSchema)]
pub(super) struct MemoryFigures {
    bytes: u64,
    /// What the owner may take.
    limit: u64,
}

fn links(links: &[LinkStatus], stats: &Stats) -> LinksFigures {
    let counters = &stats.counters;
    let number =
        |fits: &dyn Fn(&LinkStatus) -> bool| links.iter().filter(|l| fits(l)).count() as u64;
    let sum = |of: fn(&LinkStatus) -> u64| links.iter().map(of).sum::<u64>();
    let mut trips: Vec<_> = links.iter().map(|link| link.rtt_us).filter(|rtt| *rtt > 0).collect();
    trips.sort_unstable();
    LinksFigures {
        by_transport: stats.links_by_transport.clone(),
        by_direction: stats.links_by_direction.clone(),
        suspect: number(&|link| link.state == LinkState::Suspect),
        in_debt: number(&|link| link.in_debt),
        queued_bytes: sum(|link| link.queued_bytes),
        under_way_bytes: sum(|link| link.under_way_bytes),
        behind: sum(|link| link.lag),
        rtt_median_us: trips.get(trips.len() / 2).copied(),
        rtt_longest_us: trips.last().copied(),
        opened: counters.links_opened,
        closed: counters.links_closed,
        handovers: counters.handovers,
        bytes_sent: counters.link_bytes_sent,
        bytes_received: counters.link_bytes_received,
    }
}

fn latency(stats: &Stats) -> LatencyFigures {
    let bounds = Stats::latency_bounds_us().into_iter().map(Some).chain([None]);
    LatencyFigures {
        buckets: bounds.zip(stats.delivery_latency.iter().copied()).collect(),
        count: stats.delivery_latency.iter().sum(),
        sum_us: stats.delivery_latency_sum_us,
    }
}

fn gossip(stats: &Stats) -> GossipFigures {
    let counters = &stats.counters;
    GossipFigures {
        pushes_sent: counters.pushes_sent,
        wants_served: counters.wants_served,
        wants_sent: counters.wants_sent,
        wants_received: counters.wants_received,
        announcements_sent: counters.announcements_sent,
        announcements_received: counters.announcements_received,
        payloads_received: counters.payloads_received,
        duplicates_received: counters.duplicates_received,
        copies_per_delivery: stats.copies_per_delivery(),
        hops: stats.delivery_hops.clone(),
        latency: latency(stats),
        fetching: stats.fetching,
        carries_all: stats.carries_all,
        topics_carried: stats.topics_carried,
        stands_in: stats.stands_in,
    }
}

impl StatsView {
    fn new(of: &Snapshot, http: Option<String>) -> Self {
        let (stats, counters) = (&of.stats, &of.stats.counters);
        let limit = |owner: &String| stats.memory_limits.get(owner).copied().unwrap_or_default();
        let memory = stats.memory.iter().map(|(owner, bytes)| {
            (owner.clone(), MemoryFigures { bytes: *bytes, limit: limit(owner) })
        });
        Self {
            at_ms: stats.at_ms,
            peers: PeerFigures {
                known: stats.known_peers,
                links: stats.links,
                handshakes: stats.handshakes,
                banned: stats.banned_peers,
            },
            links: links(&of.links, stats),
            quality: QualityFigures { ratings: stats.ratings.clone() },
            breakers: BreakerFigures {
                open: stats.open_breakers,
                half_open: stats.half_open_breakers,
                opened: counters.breakers_opened,
                closed: counters.breakers_closed,
                probes: counters.breaker_probes,
            },
            gossip: gossip(stats),
            reconciliation: ReconciliationFigures {
                opened: counters.reconcile_opened,
                finished: counters.reconcile_finished,
                failed: counters.reconcile_failed,
                answered: counters.reconcile_answered,
                missing_here: counters.reconcile_missing_here,
                missing_there: counters.reconcile_missing_there,
                bytes_sent: counters.reconcile_bytes_sent,
                bytes_received: counters.reconcile_bytes_received,
            },
            outbox: OutboxFigures {
                size: stats.outbox,
                limit: stats.outbox_limit,
                dead_letters: stats.dead_letters,
                oldest_age_ms: stats.outbox_oldest_age_ms,
                attempts: stats.outbox_attempts,
                retries: counters.outbox_retries,
                replicated: counters.transactions_replicated,
                renewed: counters.transactions_renewed,
            },
            store: StoreFigures {
                retained: stats.retained,
                bytes: of.log_bytes.map(|(bytes, _)| bytes),
                max_bytes: of.log_bytes.and_then(|(_, limit)| limit),
                failing: of.storage_fails,
            },
            messages: MessageFigures {
                made: counters.requests_made,
                answered: counters.requests_answered,
                failed: counters.requests_failed,
                received: counters.requests_received,
                served: counters.requests_served,
                refused: counters.requests_refused,
            },
            reachability: ReachabilityFigures {
                listen: stats.listen.clone(),
                http,
                advertised: stats.advertised.clone(),
                observed: stats.observed.clone(),
                state: (&stats.reachability).into(),
                endpoint: stats.reachability.endpoint().map(ToString::to_string),
            },
            clock: ClockFigures {
                off: stats.clock_off,
                offset_ms: stats.clock_offset_ms,
                votes: stats.clock_votes,
            },
            memory: memory.collect(),
            drops: stats.drops(),
            counters: counters.iter().collect(),
        }
    }
}

/// All figures of the node, of one instant.
#[utoipa::path(get, path = "/api/v1/stats", tag = "figures", responses(
    (status = 200, description = "The figures", body = StatsView),
))]
pub(in crate::monitor::admin) async fn stats(call: &Call<'_>) -> Result<Reply, Problem> {
    let node = call.node()?;
    let snapshot = node.snapshot().await.map_err(|_| stopped())?;
    let http = node.http_addr().map(|address| address.to_string());
    reply::json(&StatsView::new(&snapshot, http))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::metrics::testing::snapshot;
    use crate::types::Counters;

    #[test]
    fn figures_stand_in_their_sections() {
        let mut of = snapshot(3);
        of.stats.at_ms = 5;
        of.stats.outbox_limit = 100;
        of.stats.delivery_latency = vec![0; 19];
        of.stats.delivery_latency[18] = 2;
        let view = StatsView::new(&of, None);
        let view = serde_json::to_value(view).unwrap();
        for (pointer, wanted) in [
            ("/at_ms", 5),
            ("/peers/known", 9),
            ("/gossip/latency/buckets/0/0", 500),
            ("/gossip/latency/buckets/18/1", 2),
            ("/gossip/latency/count", 2),
            ("/links/rtt_median_us", 2000),
            ("/outbox/limit", 100),
            ("/store/bytes", 4_294_967_296_u64),
            ("/memory/cache/limit", 7),
            ("/drops/expired", 3),
            ("/counters/payload_bytes_sent", 5),
        ] {
            assert_eq!(view.pointer(pointer), Some(&wanted.into()), "{pointer}");
        }
        assert_eq!(view.pointer("/gossip/latency/buckets/18/0"), Some(&serde_json::Value::Null));
        assert_eq!(view.pointer("/clock/offset_ms"), Some(&(-1500).into()));
        assert_eq!(view.pointer("/reachability/state"), Some(&"unknown".into()));
        let counters = view["counters"].as_object().unwrap();
        assert_eq!(counters.len(), Counters::default().iter().count());
    }
}
