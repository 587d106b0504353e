//! What is made of the figures of a node: differences, classes of a histogram, reasons.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Stats;

/// Number of classes of hops; the last is open.
pub(crate) const HOPS: usize = 16;
/// Upper bounds of the classes of latency in microseconds, beside an open one: 0.5 ms, doubled each time.
pub(crate) const LATENCY_BOUNDS_US: [u64; 18] = {
    let mut bounds = [500; 18];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = 2 * bounds[at - 1];
        at += 1;
    }
    bounds
};

/// Beginning of the counters of what was refused for a reason, which is the rest of their names.
const REFUSED: &str = "refused_";
/// Counters of what else was dropped.
const DROPPED: [&str; 9] = [
    "publishes_refused",
    "fetches_shed",
    "replay_dropped",
    "pieces_unexpected",
    "records_shed",
    "answers_shed",
    "storage_failures",
    "events_lagged",
    "compat_notifications_dropped",
];

impl Stats {
    /// Returns the upper bounds of the classes of `delivery_latency`, in microseconds; the class behind
    /// them has none.
    pub const fn latency_bounds_us() -> [u64; 18] {
        LATENCY_BOUNDS_US
    }

    /// Returns the figures for the time after `earlier`, a snapshot of the same node: counters and
    /// histograms are what came since, `uptime_s` is the time between the two, and everything else is as it
    /// is now. Where the node was started anew in between, they are those since that start.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        if self.uptime_s < earlier.uptime_s {
            return since;
        }
        since.uptime_s -= earlier.uptime_s;
        since.counters = self.counters.since(&earlier.counters);
        since.delivery_hops = difference(&self.delivery_hops, &earlier.delivery_hops);
        since.delivery_latency = difference(&self.delivery_latency, &earlier.delivery_latency);
        since.delivery_latency_sum_us =
            self.delivery_latency_sum_us.saturating_sub(earlier.delivery_latency_sum_us);
        since
    }

    /// Returns the latency below which this share of the deliveries was, such as `0.99`; within a class as
    /// if they were spread evenly over it, and for the open class its lower bound. `None` where nothing
    /// was delivered.
    pub fn delivery_latency_at(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.delivery_latency.iter().sum();
        let mut rest = share.clamp(0.0, 1.0) * all as f64;
        let mut lower = 0;
        for (at, count) in self.delivery_latency.iter().enumerate().filter(|(_, n)| **n > 0) {
            lower = at.checked_sub(1).map_or(0, |before| LATENCY_BOUNDS_US[before.min(17)]);
            let Some(upper) = LATENCY_BOUNDS_US.get(at) else { break };
            if rest <= *count as f64 {
                let part = rest / *count as f64;
                let within = Duration::from_micros(upper - lower).mul_f64(part);
                return Some(Duration::from_micros(lower) + within);
            }
            rest -= *count as f64;
        }
        (all > 0).then(|| Duration::from_micros(lower))
    }

    /// Returns how many whole payloads came for each that was new; 1 is the least. `None` while none
    /// came.
    pub fn copies_per_delivery(&self) -> Option<f64> {
        let counters = &self.counters;
        let new = counters.payloads_received;
        let all = new + counters.duplicates_received;
        (new > 0).then(|| all as f64 / new as f64)
    }

    /// Returns how much was refused or dropped since the start, by reason: for the counters
    /// `refused_…` the rest of the name, for others the name. Refused links are not among them.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        let named = self.counters.iter().filter_map(|(name, count)| {
            let reason = name.strip_prefix(REFUSED);
            Some((reason.or_else(|| DROPPED.contains(&name).then_some(name))?, count))
        });
        named.collect()
    }
}

fn difference(now: &[u64], earlier: &[u64]) -> Vec<u64> {
    let before = |at| earlier.get(at).copied().unwrap_or(0);
    now.iter().enumerate().map(|(at, count)| count.saturating_sub(before(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Counters;

    /// Figures of a node that has met nobody, as earlier versions wrote them.
    fn stats() -> Stats {
        let text = format!(
            r#"{{"peer_id":"{}","mode":"offline","uptime_s":5,"links":0,"handshakes":0,
            "known_peers":0,"open_breakers":0,"banned_peers":0,"retained":0,"outbox":0,
            "dead_letters":0,"fetching":0,"counters":{{}}}}"#,
            "5f".repeat(32)
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn differences_are_of_one_run() {
        let mut earlier = stats();
        earlier.counters.links_opened = 3;
        earlier.delivery_latency = vec![1, 2];
        earlier.delivery_latency_sum_us = 40;
        let mut later = earlier.clone();
        (later.uptime_s, later.links, later.counters.links_opened) = (9, 7, 5);
        later.delivery_latency = vec![1, 5, 1];
        later.delivery_latency_sum_us = 100;
        let since = later.since(&earlier);
        assert_eq!((since.uptime_s, since.links, since.counters.links_opened), (4, 7, 2));
        assert_eq!((since.delivery_latency, since.delivery_latency_sum_us), (vec![0, 3, 1], 60));
        assert_eq!(since.counters.iter().map(|(_, n)| n).sum::<u64>(), 2);
        assert_eq!(later.since(&later).counters, Counters::default());
        assert_eq!(earlier.since(&later), earlier, "started anew");
    }

    #[test]
    fn shares_of_the_deliveries_are_told_by_class() {
        let mut stats = stats();
        assert_eq!(stats.delivery_latency_at(0.5), None);
        stats.delivery_latency = vec![0; 19];
        assert_eq!(stats.delivery_latency_at(0.5), None);
        // 90 up to 1 ms, 9 up to 32 ms, one beyond a minute.
        (stats.delivery_latency[1], stats.delivery_latency[6]) = (90, 9);
        stats.delivery_latency[18] = 1;
        let at = |share| stats.delivery_latency_at(share).unwrap().as_micros();
        assert_eq!((at(0.0), at(0.45), at(0.9)), (500, 750, 1000));
        assert_eq!((at(0.99), at(1.0), at(7.0)), (32_000, 65_536_000, 65_536_000));
        stats.delivery_latency = vec![4];
        assert_eq!(stats.delivery_latency_at(1.0), Some(Duration::from_micros(500)));
        assert_eq!((LATENCY_BOUNDS_US[0], LATENCY_BOUNDS_US[17]), (500, 65_536_000));
    }

    #[test]
    fn what_is_dropped_has_its_reason() {
        let mut stats = stats();
        assert_eq!(stats.copies_per_delivery(), None);
        stats.counters.refused_expired = 3;
        stats.counters.publishes_refused = 2;
        stats.counters.links_refused_full = 5;
        (stats.counters.payloads_received, stats.counters.duplicates_received) = (4, 1);
        let drops = stats.drops();
        assert_eq!((drops["expired"], drops["publishes_refused"]), (3, 2));
        assert_eq!(drops.values().sum::<u64>(), 5, "{drops:?}");
        assert!(DROPPED.iter().all(|name| drops.contains_key(name)), "{drops:?}");
        assert_eq!(stats.copies_per_delivery(), Some(1.25));
    }
}
