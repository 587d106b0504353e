//! Metrics: the figures of a node as text that Prometheus reads, in the exposition format 0.0.4 or in
//! `OpenMetrics` 1.0. Both have the same series; where they differ is in `Format`.
//!
//! A family is one name with its help, its type and its samples. Families are the same whatever the node
//! has met, and stand in one order. Labels are from closed sets: no id, no address and no topic is one, so
//! a node with a thousand links has as many series as one with none, and never more than 400.
//!
//! Every counter of [`Counters`] is a family by itself, except that those which begin alike and go on with
//! a reason are one family with that label. A new counter needs nothing here.
//!
//! Tested by: the tests below, `repo::metrics`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::types::{
    Counters, Direction, LATENCY_BOUNDS_US, LinkState, LinkStatus, Mode, Stats, TransportKind,
};

pub(super) const PREFIX: &str = "sorcha_peer_";
/// Name of the family that says which version runs.
const INFO: &str = "info";

/// Beginnings of counters that are one family: what it is called, and its help. The rest of the
/// counter's name is the label `reason`.
const BY_REASON: [(&str, &str, &str); 2] = [
    ("links_refused_", "links_refused", "Links refused in the hello, by reason."),
    (
        "refused_",
        "refused",
        "Transactions refused or dropped, and messages and ids of peers refused (malformed, rate), by reason.",
    ),
];

const MODES: [(Mode, &str); 3] =
    [(Mode::Offline, "offline"), (Mode::Degraded, "degraded"), (Mode::Online, "online")];
/// Whether others can dial the node, by name.
const REACHABILITIES: [&str; 3] = ["unknown", "private", "public"];
const DIRECTIONS: [Direction; 2] = [Direction::Outbound, Direction::Inbound];
const RATINGS: [&str; 5] = ["excellent", "good", "fair", "poor", "unknown"];

/// Everything that metrics are made of, of one instant.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) stats: Stats,
    pub(crate) links: Vec<LinkStatus>,
    pub(crate) storage_fails: bool,
    /// Number of entries that the outbox may have.
    pub(crate) outbox_limit: u64,
    /// Bytes of the log, and how many it may have; `None` where the store did not say.
    pub(crate) log_bytes: Option<(u64, Option<u64>)>,
}

/// Writes the metrics of a node in the format 0.0.4.
pub(crate) fn text(of: &Snapshot) -> String {
    written(of, Format::Prometheus)
}

/// Writes the metrics of a node in `OpenMetrics` 1.0, of content type
/// `application/openmetrics-text; version=1.0.0; charset=utf-8`.
pub(crate) fn openmetrics(of: &Snapshot) -> String {
    written(of, Format::OpenMetrics) + "# EOF\n"
}

fn written(of: &Snapshot, format: Format) -> String {
    let mut text = String::with_capacity(32 << 10);
    for family in families(of) {
        // Writing to a string does not fail.
        let _ = family.write(&mut text, format);
    }
    text
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// Writes an upper bound of a histogram as this format wants it.
    fn bound(self, bound: f64) -> String {
        match self {
            _ if bound.is_infinite() => "+Inf".to_owned(),
            Self::Prometheus => bound.to_string(),
            Self::OpenMetrics => format!("{bound:?}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

pub(super) type Label = (&'static str, Cow<'static, str>);

/// A name with its samples.
#[derive(Debug)]
pub(super) struct Family {
    /// Without the prefix of all.
    pub(super) name: Cow<'static, str>,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) samples: Vec<(Vec<Label>, f64)>,
    /// In place of samples.
    pub(super) histogram: Option<Histogram>,
}

/// Numbers of what was observed, in classes.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Each class with its upper bound; the last one's is infinite.
    pub(super) classes: Vec<(f64, u64)>,
    pub(super) sum: f64,
}

#[cfg(feature = "metrics")]
impl Histogram {
    pub(super) fn count(&self) -> u64 {
        self.classes.iter().map(|(_, count)| count).sum()
    }
}

impl Family {
    fn gauge(name: &'static str, help: &'static str) -> Self {
        let (name, samples) = (name.into(), Vec::new());
        Self { name, kind: Kind::Gauge, help, samples, histogram: None }
    }

    /// A histogram of classes with these upper bounds, and one without a bound behind them.
    fn histogram(
        name: &'static str,
        help: &'static str,
        bounds: impl IntoIterator<Item = f64>,
        counts: &[u64],
        sum: f64,
    ) -> Self {
        let bounds = bounds.into_iter().chain([f64::INFINITY]);
        let counts = counts.iter().copied().chain(std::iter::repeat(0));
        let histogram = Histogram { classes: bounds.zip(counts).collect(), sum };
        let family = Self::gauge(name, help);
        Self { kind: Kind::Histogram, histogram: Some(histogram), ..family }
    }

    /// Adds the sample without labels, if there is a value.
    fn with(mut self, value: impl Into<Option<f64>>) -> Self {
        self.samples.extend(value.into().map(|value| (Vec::new(), value)));
        self
    }

    /// Adds a sample for each value of one label.
    fn by<V: Into<Cow<'static, str>>>(
        mut self,
        label: &'static str,
        samples: impl IntoIterator<Item = (V, f64)>,
    ) -> Self {
        let samples = samples.into_iter();
        self.samples.extend(samples.map(|(of, value)| (vec![(label, of.into())], value)));
        self
    }
}

impl Family {
    /// Returns the name that help and type are written under, and that type.
    fn head(&self, format: Format) -> (String, &'static str) {
        let whole = format!("{PREFIX}{}", self.name);
        let without = |ending: &str| whole.strip_suffix(ending).unwrap_or(&whole).to_owned();
        match (self.kind, format) {
            (Kind::Counter, Format::Prometheus) => (whole, "counter"),
            (Kind::Counter, Format::OpenMetrics) => (without("_total"), "counter"),
            (Kind::Gauge, Format::OpenMetrics) if self.name == INFO => (without("_info"), "info"),
            (Kind::Gauge, _) => (whole, "gauge"),
            (Kind::Histogram, _) => (whole, "histogram"),
        }
    }

    fn write(&self, f: &mut String, format: Format) -> fmt::Result {
        let name = &self.name;
        let (head, kind) = self.head(format);
        let help = escaped(self.help, format == Format::OpenMetrics);
        writeln!(f, "# HELP {head} {help}\n# TYPE {head} {kind}")?;
        for (labels, value) in &self.samples {
            write!(f, "{PREFIX}{name}")?;
            for (at, (label, of)) in labels.iter().enumerate() {
                let before = if at == 0 { '{' } else { ',' };
                write!(f, "{before}{label}=\"{}\"", escaped(of, true))?;
            }
            writeln!(f, "{} {value}", if labels.is_empty() { "" } else { "}" })?;
        }
        let Some(histogram) = &self.histogram else { return Ok(()) };
        let mut up_to = 0;
        for (bound, count) in &histogram.classes {
            up_to += count;
            let bound = format.bound(*bound);
            writeln!(f, "{PREFIX}{name}_bucket{{le=\"{bound}\"}} {up_to}")?;
        }
        writeln!(f, "{PREFIX}{name}_sum {}", histogram.sum)?;
        writeln!(f, "{PREFIX}{name}_count {up_to}")
    }
}

/// Escapes what would end a line or, where that is `quoted`, a label's value.
fn escaped(text: &str, quoted: bool) -> Cow<'_, str> {
    if !text.contains(['\\', '\n', '"']) {
        return text.into();
    }
    let text = text.replace('\\', r"\\").replace('\n', r"\n");
    if quoted { text.replace('"', "\\\"").into() } else { text.into() }
}

pub(super) fn families(of: &Snapshot) -> Vec<Family> {
    let mut all = state(&of.stats, of.storage_fails);
    all.extend(links(&of.links));
    all.extend(holdings(of));
    all.extend(deliveries(&of.stats));
    all.extend(counters(&of.stats.counters));
    all
}

/// What the node is, and whom it knows.
fn state(stats: &Stats, storage_fails: bool) -> Vec<Family> {
    let gauge = Family::gauge;
    let modes = MODES.map(|(mode, name)| (name, flag(stats.mode == mode)));
    let offset = stats.clock_offset_ms as f64 / 1000.0;
    vec![
        gauge(INFO, "Version of the library; always 1.")
            .by("version", [(env!("CARGO_PKG_VERSION"), 1.0)]),
        gauge("uptime_seconds", "Time since the node started.").with(stats.uptime_s as f64),
        gauge("mode", "Connection to the network: 1 for the present mode, 0 for the others.")
            .by("mode", modes),
        gauge(
            "reachability",
            "Whether others can dial the node: 1 for what holds, 0 for the others.",
        )
        .by("state", REACHABILITIES.map(|name| (name, flag(stats.reachability.as_str() == name)))),
        gauge("advertised_addresses", "Addresses at which others are told to dial the node.")
            .with(stats.advertised.len() as f64),
        gauge("storage_failing", "1 while storage fails.").with(flag(storage_fails)),
        gauge("known_peers", "Peers in the address book.").with(f64::from(stats.known_peers)),
        gauge("banned_peers", "Peers under a ban.").with(f64::from(stats.banned_peers)),
        gauge("open_breakers", "Circuit breakers that are open or half-open.")
            .with(f64::from(stats.open_breakers)),
        gauge("half_open_breakers", "Those of them that a walk probes at the moment.")
            .with(f64::from(stats.half_open_breakers)),
        gauge("compat_peers", "Clients of the original that are registered and answer.")
            .with(f64::from(stats.compat_peers)),
        gauge("compat_hashes", "Transactions that clients of the original find by their hash.")
            .with(stats.compat_hashes as f64),
        gauge("handshakes_under_way", "Connections still in their hello.")
            .with(f64::from(stats.handshakes)),
        gauge("clock_off", "1 while most peers find the clock of this machine off.")
            .with(flag(stats.clock_off)),
        gauge(
            "clock_offset_seconds",
            "Time from this machine's clock to the median of its peers'.",
        )
        .with(offset),
        gauge("clock_votes", "Votes in that median.").with(f64::from(stats.clock_votes)),
        gauge("carries_all_topics", "1 while the node carries every topic.")
            .with(flag(stats.carries_all)),
        gauge("topics_carried", "Topics that the node carries, where it does not carry all.")
            .with(f64::from(stats.topics_carried)),
        gauge("stands_in_for_relay", "1 while the node is an edge that stands in for a relay.")
            .with(flag(stats.stands_in)),
    ]
}

/// The links, together.
fn links(links: &[LinkStatus]) -> Vec<Family> {
    let gauge = Family::gauge;
    let number =
        |fits: &dyn Fn(&LinkStatus) -> bool| links.iter().filter(|l| fits(l)).count() as f64;
    let sum = |of: fn(&LinkStatus) -> u64| links.iter().map(of).sum::<u64>() as f64;
    let mut per_rung = gauge("links", "Links whose hello is through, by rung and by who dialled.");
    for transport in TransportKind::all() {
        per_rung.samples.extend(DIRECTIONS.map(|direction| {
            let direction_label = ("direction", direction.as_str().into());
            let labels = vec![("transport", transport.as_str().into()), direction_label];
            let fits = |l: &LinkStatus| l.transport == transport && l.direction == direction;
            (labels, number(&fits))
        }));
    }
    let ratings = RATINGS.map(|rating| (rating, number(&|l| l.rating() == rating)));
    let mut trips: Vec<_> = links.iter().map(|l| l.rtt_us).filter(|rtt| *rtt > 0).collect();
    trips.sort_unstable();
    let seconds = |rtt: Option<&u64>| rtt.map(|rtt| *rtt as f64 / 1e6);
    vec![
        per_rung,
        gauge("links_rated", "Links by the rating of their quality.").by("rating", ratings),
        gauge("links_suspect", "Links whose peer missed an answer.")
            .with(number(&|l| l.state == LinkState::Suspect)),
        gauge("links_in_debt", "Links whose peer is too slow for what is new.")
            .with(number(&|l| l.in_debt)),
        gauge("links_to_relays", "Links whose peer is a relay.").with(number(&|l| l.relay)),
        gauge(
            "links_round_trip_median_seconds",
            "Median of the links' round trips; none until measured.",
        )
        .with(seconds(trips.get(trips.len() / 2))),
        gauge(
            "links_round_trip_longest_seconds",
            "Longest of the links' round trips; none until measured.",
        )
        .with(seconds(trips.last())),
        gauge("links_queued_bytes", "Bytes that wait to be sent, on all links.")
            .with(sum(|l| l.queued_bytes)),
        gauge(
            "links_unconfirmed_bytes",
            "Bytes sent whose arrival no peer has told yet, on all links.",
        )
        .with(sum(|l| l.under_way_bytes)),
        gauge(
            "links_lag_transactions",
            "Transactions still to be announced or pushed, over all links.",
        )
        .with(sum(|l| l.lag)),
        gauge("links_longest_lag_transactions", "The same for the link that has the most.")
            .with(links.iter().map(|l| l.lag).max().unwrap_or(0) as f64),
    ]
}

/// What the node keeps: outbox, log and memory.
fn holdings(of: &Snapshot) -> Vec<Family> {
    let (gauge, stats) = (Family::gauge, &of.stats);
    let by_owner = |bytes: &BTreeMap<String, u64>| -> Vec<(String, f64)> {
        bytes.iter().map(|(owner, bytes)| (owner.clone(), *bytes as f64)).collect()
    };
    let log_bytes = of.log_bytes.map(|(bytes, _)| bytes as f64);
    let log_limit = of.log_bytes.and_then(|(_, limit)| limit).map(|limit| limit as f64);
    vec![
        gauge("outbox_transactions", "Own transactions not yet confirmed by enough peers.")
            .with(stats.outbox as f64),
        gauge(
            "outbox_oldest_age_seconds",
            "Time since the oldest of them was published; 0 while none waits.",
        )
        .with(stats.outbox_oldest_age_ms.unwrap_or(0) as f64 / 1000.0),
        gauge("outbox_attempts", "Rounds that ended without any taker, over all of them.")
            .with(stats.outbox_attempts as f64),
        gauge("outbox_dead_letters", "Own transactions that were given up and are kept.")
            .with(stats.dead_letters as f64),
        gauge("outbox_limit_transactions", "What may wait or be kept, together.")
            .with(of.outbox_limit as f64),
        gauge("log_transactions", "Transactions retained in the log.").with(stats.retained as f64),
        gauge(
            "log_bytes",
            "Bytes of headers and payloads in the log; none while the store does not say.",
        )
        .with(log_bytes),
        gauge("log_limit_bytes", "What they may be; none where there is no bound.").with(log_limit),
        gauge("fetches_under_way", "Transactions being fetched.").with(stats.fetching as f64),
        gauge("memory_bytes", "Memory of payloads and caches, by owner.")
            .by("owner", by_owner(&stats.memory)),
        gauge("memory_limit_bytes", "What each owner may take.")
            .by("owner", by_owner(&stats.memory_limits)),
    ]
}

/// How transactions of other origins came.
fn deliveries(stats: &Stats) -> [Family; 2] {
    let hops = || (0u16..).map(f64::from);
    let in_all: f64 = hops().zip(&stats.delivery_hops).map(|(hop, n)| hop * *n as f64).sum();
    let open = stats.delivery_hops.len().saturating_sub(1);
    [
        Family::histogram(
            "delivery_latency_seconds",
            "Time from being published elsewhere to being accepted here, by the clocks of both nodes.",
            LATENCY_BOUNDS_US.map(|us| us as f64 / 1e6),
            &stats.delivery_latency,
            stats.delivery_latency_sum_us as f64 / 1e6,
        ),
        Family::histogram(
            "delivery_hops",
            "Hops from the origin to here; 15 stands for more as well.",
            hops().take(open),
            &stats.delivery_hops,
            in_all,
        ),
    ]
}

fn counters(counters: &Counters) -> Vec<Family> {
    let mut all: Vec<Family> = Vec::new();
    for ((counter, value), help) in counters.iter().zip(Counters::descriptions()) {
        let group = BY_REASON.iter().find_map(|(beginning, family, help)| {
            Some((*family, *help, counter.strip_prefix(beginning)?))
        });
        let (name, help, reason) = match group {
            Some((family, help, reason)) => (total(family), help, Some(reason)),
            None => (total(counter), help, None),
        };
        let labels = reason.map(|reason| ("reason", reason.into())).into_iter().collect();
        let sample = (labels, value as f64);
        if let Some(family) = all.iter_mut().find(|family| family.name == name) {
            family.samples.push(sample);
        } else {
            let samples = vec![sample];
            let (name, kind) = (name.into(), Kind::Counter);
            all.push(Family { name, kind, help, samples, histogram: None });
        }
    }
    all
}

/// Name of a counter by convention: the unit last, then `total`.
fn total(counter: &str) -> String {
    match counter.split_once("bytes_") {
        Some((before, after)) => format!("{before}{after}_bytes_total"),
        None => format!("{counter}_total"),
    }
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// Figures for tests.
#[cfg(test)]
pub(super) mod testing {
    use serde_json::json;

    use super::*;
    use crate::types::PeerId;

    fn link(n: u64) -> LinkStatus {
        let kinds: Vec<_> = TransportKind::all().collect();
        let is_odd = n % 2 == 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        LinkStatus {
            peer: PeerId::from_bytes(id),
            transport: kinds[usize::try_from(n).unwrap() % kinds.len()],
            address: Some(format!("198.51.100.{}:5001", n % 250)),
            direction: if is_odd { Direction::Inbound } else { Direction::Outbound },
            state: if is_odd { LinkState::Suspect } else { LinkState::Up },
            rtt_us: n * 1000,
            jitter_us: 0,
            quality: u8::try_from(n % 101).unwrap(),
            served_percent: None,
            first_percent: None,
            connected_s: 1,
            queued_bytes: 10,
            under_way_bytes: 1,
            bytes_per_second: 0,
            incoming_bytes_per_second: 0,
            lag: n,
            in_debt: false,
            depth: 0,
            relay: is_odd,
            clock_offset_ms: None,
        }
    }

    pub(crate) fn snapshot(links: u64) -> Snapshot {
        let owners = ["assemblies", "cache", "checks", "deferred", "inbound", "links", "proofs"];
        let bytes: serde_json::Map<_, _> =
            owners.iter().map(|owner| ((*owner).to_owned(), json!(7))).collect();
        let stats = json!({
            "peer_id": "5f".repeat(32), "mode": "degraded", "uptime_s": 3, "links": links,
            "handshakes": 0, "known_peers": 9, "open_breakers": 0, "banned_peers": 0, "retained": 4,
            "outbox": 2, "dead_letters": 1, "fetching": 0, "clock_offset_ms": -1500,
            "outbox_oldest_age_ms": 2500, "half_open_breakers": 1,
            "delivery_hops": [0, 4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            "delivery_latency": [0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            "delivery_latency_sum_us": 7_500_000,
            "memory": bytes, "memory_limits": bytes,
            "counters": { "refused_expired": 3, "payload_bytes_sent": 5, "links_refused_full": 6 },
        });
        Snapshot {
            stats: serde_json::from_value(stats).unwrap(),
            links: (0..links).map(link).collect(),
            storage_fails: false,
            outbox_limit: 100,
            log_bytes: Some((u64::from(u32::MAX) + 1, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::snapshot;
    use super::*;
    use std::collections::BTreeSet;

    const MAX_SERIES: usize = 400;

    #[test]
    fn names_follow_the_conventions() {
        for (counter, name) in [
            ("payload_bytes_accepted", "payload_accepted_bytes_total"),
            ("reconcile_bytes_sent", "reconcile_sent_bytes_total"),
            ("links_opened", "links_opened_total"),
        ] {
            assert_eq!(total(counter), name);
        }
    }

    #[test]
    fn samples_are_what_the_figures_are() {
        let text = text(&snapshot(3));
        for line in [
            "# TYPE sorcha_peer_refused_total counter",
            "sorcha_peer_refused_total{reason=\"expired\"} 3",
            "sorcha_peer_links_refused_total{reason=\"full\"} 6",
            "# HELP sorcha_peer_payload_sent_bytes_total Payload bytes sent.",
            "sorcha_peer_payload_sent_bytes_total 5",
            "sorcha_peer_mode{mode=\"degraded\"} 1",
            "sorcha_peer_mode{mode=\"online\"} 0",
            "sorcha_peer_reachability{state=\"unknown\"} 1",
            "sorcha_peer_reachability{state=\"public\"} 0",
            "sorcha_peer_links{transport=\"grpc-stream\",direction=\"outbound\"} 1",
            "sorcha_peer_links{transport=\"websocket\",direction=\"inbound\"} 1",
            "sorcha_peer_links{transport=\"websocket\",direction=\"outbound\"} 0",
            "sorcha_peer_links_rated{rating=\"poor\"} 2",
            "sorcha_peer_links_rated{rating=\"unknown\"} 1",
            "sorcha_peer_links_round_trip_median_seconds 0.002",
            "sorcha_peer_links_queued_bytes 30",
            "sorcha_peer_links_lag_transactions 3",
            "sorcha_peer_links_longest_lag_transactions 2",
            "sorcha_peer_clock_offset_seconds -1.5",
            "sorcha_peer_log_bytes 4294967296",
            "sorcha_peer_memory_bytes{owner=\"cache\"} 7",
            "sorcha_peer_outbox_oldest_age_seconds 2.5",
            "# TYPE sorcha_peer_delivery_latency_seconds histogram",
            "sorcha_peer_delivery_latency_seconds_bucket{le=\"0.0005\"} 0",
            "sorcha_peer_delivery_latency_seconds_bucket{le=\"0.001\"} 5",
            "sorcha_peer_delivery_latency_seconds_bucket{le=\"65.536\"} 5",
            "sorcha_peer_delivery_latency_seconds_bucket{le=\"+Inf\"} 7",
            "sorcha_peer_delivery_latency_seconds_sum 7.5",
            "sorcha_peer_delivery_latency_seconds_count 7",
            "sorcha_peer_delivery_hops_bucket{le=\"1\"} 4",
            "sorcha_peer_delivery_hops_bucket{le=\"14\"} 6",
            "sorcha_peer_delivery_hops_bucket{le=\"+Inf\"} 7",
            "sorcha_peer_delivery_hops_sum 23",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}: {text}");
        }
        assert!(!text.contains("\nsorcha_peer_log_limit_bytes "), "there is no bound");
    }

    #[test]
    fn every_counter_is_there_once_under_a_name_of_its_own() {
        let families = families(&snapshot(0));
        let counters = families.iter().filter(|f| f.kind == Kind::Counter);
        let samples: usize = counters.clone().map(|f| f.samples.len()).sum();
        assert_eq!(samples, Counters::default().iter().count());
        for family in counters {
            assert!(!family.help.is_empty() && family.help.ends_with('.'), "{}", family.name);
        }
        // Other formats leave `_total` out of a family's name, and a gauge must not be called that.
        let base = |f: &Family| f.name.trim_end_matches("_total").to_owned();
        let names: BTreeSet<_> = families.iter().map(base).collect();
        assert_eq!(names.len(), families.len());
    }

    #[test]
    fn a_thousand_links_are_no_more_series_than_one_and_none_is_named() {
        let [one, many] = [1, 1000].map(|links| text(&snapshot(links)));
        let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        // Round trips have none until one is measured; the first link has none.
        assert_eq!(series(&one) + 2, series(&many));
        assert!(series(&many) <= MAX_SERIES, "{} series", series(&many));
        assert!(!many.contains("198.51.100.") && !many.contains(&"5f".repeat(32)));
        let names = |text: &str| -> Vec<String> {
            text.lines().filter(|l| l.starts_with("# TYPE")).map(str::to_owned).collect()
        };
        assert_eq!(names(&one), names(&many), "the same families in the same order");
    }

    #[test]
    fn what_would_end_a_line_or_a_value_is_escaped() {
        let family = Family { help: "a \\ \"b\"\nc", ..Family::gauge("x", "") };
        let family = family.by("of", [("a \\ \"b\"\nc", 0.5)]);
        let wanted = "# HELP sorcha_peer_x a \\\\ \"b\"\\nc\n# TYPE sorcha_peer_x gauge\n\
            sorcha_peer_x{of=\"a \\\\ \\\"b\\\"\\nc\"} 0.5\n";
        let written = |format| {
            let mut text = String::new();
            family.write(&mut text, format).unwrap();
            text
        };
        assert_eq!(written(Format::Prometheus), wanted);
        assert!(
            written(Format::OpenMetrics).starts_with("# HELP sorcha_peer_x a \\\\ \\\"b\\\"\\nc\n")
        );
    }

    #[test]
    fn open_metrics_has_the_same_series_under_its_own_heads() {
        let (plain, open) = (text(&snapshot(3)), openmetrics(&snapshot(3)));
        let samples = |text: &str| -> Vec<String> {
            let samples = text.lines().filter(|line| !line.starts_with('#'));
            // Bounds are written with a point there.
            samples.map(|line| line.replace(".0\"}", "\"}")).collect()
        };
        assert_eq!(samples(&plain), samples(&open));
        for line in [
            "# TYPE sorcha_peer info",
            "# TYPE sorcha_peer_links_opened counter",
            "# HELP sorcha_peer_payload_sent_bytes Payload bytes sent.",
            "sorcha_peer_delivery_hops_bucket{le=\"14.0\"} 6",
        ] {
            assert!(open.lines().any(|there| there == line), "{line}: {open}");
        }
        assert!(open.ends_with("\n# EOF\n") && !open.contains("_total counter"), "{open}");
        // No name is another's with an ending that belongs to a type.
        let heads: BTreeSet<&str> = open
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for ending in ["_total", "_bucket", "_sum", "_count", "_created", "_info"] {
            assert!(!heads.iter().any(|head| head.ends_with(ending)), "{ending}: {heads:?}");
        }
    }
}
