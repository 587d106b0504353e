//! The figures of a node as the original exports them: its keys, with what the node has counted.
//!
//! Tested by: the tests below, `tests/node/rest`.

use serde_json::{Value, json};

use crate::types::{LinkStatus, Stats};

/// Peers as whoever lists them counts them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeerCounts {
    /// Number of all, linked or not.
    pub(crate) total: usize,
    /// Number of those that answer.
    pub(crate) healthy: usize,
    /// Number of those that are first contacts.
    pub(crate) seeds: usize,
}

/// Writes the statistics as of `timestamp`, a date. A breaker that nothing was held against is closed,
/// so there is one for each peer that is known.
pub(crate) fn statistics(
    stats: &Stats,
    links: &[LinkStatus],
    peers: PeerCounts,
    timestamp: &str,
) -> Value {
    let rated = |rating| stats.ratings.get(rating).copied().unwrap_or_default();
    let scores = || links.iter().filter(|link| link.rating() != "unknown");
    let breakers = stats.known_peers.max(stats.open_breakers);
    json!({
        "timestamp": timestamp,
        "peerStats": {
            "totalPeers": peers.total,
            "healthyPeers": peers.healthy,
            "unhealthyPeers": peers.total.saturating_sub(peers.healthy),
            "seedNodes": peers.seeds,
            "averageLatencyMs": latency_ms(links),
            "totalFailures": stats.counters.dials_failed,
        },
        "qualityStats": {
            "totalTrackedPeers": scores().count(),
            "excellentPeers": rated("excellent"),
            "goodPeers": rated("good"),
            "fairPeers": rated("fair"),
            "poorPeers": rated("poor"),
            "averageQualityScore": mean(scores().map(|link| f64::from(link.quality))),
        },
        "queueStats": { "queueSize": stats.outbox, "isEmpty": stats.outbox == 0 },
        "circuitBreakerStats": {
            "totalCircuitBreakers": breakers,
            "openCircuits": stats.open_breakers.saturating_sub(stats.half_open_breakers),
            "halfOpenCircuits": stats.half_open_breakers,
            "closedCircuits": breakers - stats.open_breakers,
        },
    })
}

/// Returns the mean of the round trips that were measured, in milliseconds.
pub(crate) fn latency_ms(links: &[LinkStatus]) -> f64 {
    mean(links.iter().filter(|link| link.rtt_us > 0).map(|link| link.rtt_us as f64 / 1000.0))
}

/// Mean of numbers, 0 of none.
fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = numbers.fold((0.0, 0), |(sum, count), number| (sum + number, count + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::metrics::testing::snapshot;

    #[test]
    fn states_of_breakers_exclude_each_other_and_nothing_is_made_up() {
        let mut of = snapshot(3);
        (of.stats.known_peers, of.stats.open_breakers, of.stats.half_open_breakers) = (9, 3, 1);
        let peers = PeerCounts { total: 9, healthy: 2, seeds: 1 };
        let said = statistics(&of.stats, &of.links, peers, "now");
        let breakers = &said["circuitBreakerStats"];
        let states = ["openCircuits", "halfOpenCircuits", "closedCircuits"].map(|s| &breakers[s]);
        assert_eq!(states, [&json!(2), &json!(1), &json!(6)]);
        assert_eq!(
            (&said["peerStats"]["unhealthyPeers"], &said["timestamp"]),
            (&json!(7), &json!("now"))
        );
        // Of the three links two were measured: 1 and 2 ms.
        assert_eq!(said["peerStats"]["averageLatencyMs"], 1.5);
        assert_eq!(said["qualityStats"]["totalTrackedPeers"], 2);
        let nobody = statistics(&snapshot(0).stats, &[], PeerCounts::default(), "now");
        assert_eq!(nobody["peerStats"]["averageLatencyMs"], 0.0);
        assert_eq!(nobody["qualityStats"]["averageQualityScore"], 0.0);
    }
}
