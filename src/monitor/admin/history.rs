//! History of a few figures: taken once a second, kept for 15 minutes, and as minutes for a day.
//!
//! Contract: takes [`SERIES`] × (900 + 1440) numbers of memory whatever happens. A figure that could not be taken is no
//! number, and `null` in JSON. Minutes hold the mean of rates and sizes, and the worst of ages and times.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Shared;
use crate::types::{LinkStatus, Stats};

/// Figures, as JSON names them.
pub(super) const SERIES: [&str; 8] = [
    "delivered_per_s",
    "published_per_s",
    "latency_p99_us",
    "outbox",
    "outbox_oldest_ms",
    "dropped_per_s",
    "links",
    "rtt_ms",
];
/// Figures of which a minute shows the worst second.
const WORST: [&str; 2] = ["latency_p99_us", "outbox_oldest_ms"];
const SECONDS_KEPT: usize = 15 * 60;
const MINUTES_KEPT: usize = 24 * 60;
const SECOND: Duration = Duration::from_secs(1);

/// One number of each figure.
pub(super) type Sample = [f64; SERIES.len()];

const NOTHING: Sample = [f64::NAN; SERIES.len()];

/// Samples at equal distances, the newest last.
#[derive(Debug)]
struct Ring {
    kept: usize,
    samples: VecDeque<Sample>,
    /// Number of the newest: of the seconds or minutes since the start.
    newest: u64,
}

impl Ring {
    fn new(kept: usize) -> Self {
        Self { kept, samples: VecDeque::new(), newest: 0 }
    }

    /// Puts a sample in its place; what was left out is nothing.
    fn put(&mut self, at: u64, sample: Sample) {
        let left_out = if self.samples.is_empty() { 0 } else { at.saturating_sub(self.newest + 1) };
        for _ in 0..left_out.min(self.kept as u64) {
            self.push(NOTHING);
        }
        self.push(sample);
        self.newest = at;
    }

    fn push(&mut self, sample: Sample) {
        if self.samples.len() == self.kept {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The latest samples, as many as asked for.
    fn latest(&self, count: usize) -> Vec<Sample> {
        let missing = count.saturating_sub(self.samples.len());
        let skipped = self.samples.len().saturating_sub(count);
        let there = self.samples.iter().skip(skipped).copied();
        std::iter::repeat_n(NOTHING, missing).chain(there).collect()
    }
}

#[derive(Debug)]
pub(super) struct History {
    seconds: Ring,
    minutes: Ring,
    /// Seconds of the minute that is not over.
    minute: Vec<Sample>,
    /// Time of the newest sample.
    at_ms: u64,
}

/// Part of the history.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) step_ms: u64,
    pub(super) from_ms: u64,
    pub(super) samples: Vec<Sample>,
}

impl Default for History {
    fn default() -> Self {
        let (seconds, minutes) = (Ring::new(SECONDS_KEPT), Ring::new(MINUTES_KEPT));
        Self { seconds, minutes, minute: Vec::new(), at_ms: 0 }
    }
}

impl History {
    /// Takes in the sample of a second since the start.
    fn put(&mut self, second: u64, at_ms: u64, sample: Sample) {
        let before = self.seconds.newest / 60;
        if second / 60 != before && !self.minute.is_empty() {
            self.minutes.put(before, summary(&self.minute));
            self.minute.clear();
        }
        self.minute.push(sample);
        self.seconds.put(second, sample);
        self.at_ms = at_ms;
    }

    /// The last `span`: in seconds as far as those are kept, and else in minutes, of which the last is not over.
    pub(super) fn last(&self, span: Duration) -> Span {
        let seconds = usize::try_from(span.as_secs()).unwrap_or(usize::MAX);
        let (step_ms, samples) = if seconds <= SECONDS_KEPT {
            (1000, self.seconds.latest(seconds))
        } else {
            let mut samples = self.minutes.latest((seconds / 60).min(MINUTES_KEPT) - 1);
            samples.push(summary(&self.minute));
            (60_000, samples)
        };
        let length_ms = step_ms * (samples.len() as u64).saturating_sub(1);
        Span { step_ms, from_ms: self.at_ms.saturating_sub(length_ms), samples }
    }
}

/// What a minute comes to.
fn summary(seconds: &[Sample]) -> Sample {
    let mut minute = NOTHING;
    for (at, name) in SERIES.iter().enumerate() {
        let numbers = seconds.iter().map(|sample| sample[at]).filter(|number| !number.is_nan());
        let count = numbers.clone().count() as f64;
        minute[at] = if WORST.contains(name) {
            numbers.fold(f64::NAN, f64::max)
        } else {
            numbers.sum::<f64>() / count
        };
    }
    minute
}

/// The sample between two figures, `seconds` apart.
fn taken(before: &Stats, now: &Stats, links: &[LinkStatus], seconds: f64) -> Sample {
    let since = now.since(before);
    let rate = |count: u64| count as f64 / seconds;
    let p99 = since.delivery_latency_at(0.99).map_or(f64::NAN, |p99| p99.as_micros() as f64);
    let mut trips: Vec<_> = links.iter().map(|link| link.rtt_us).filter(|rtt| *rtt > 0).collect();
    trips.sort_unstable();
    let rtt_ms = trips.get(trips.len() / 2).map_or(f64::NAN, |rtt| *rtt as f64 / 1000.0);
    [
        rate(since.counters.transactions_accepted),
        rate(since.counters.transactions_published),
        p99,
        now.outbox as f64,
        now.outbox_oldest_age_ms.map_or(f64::NAN, |age| age as f64),
        rate(since.drops().values().sum()),
        f64::from(now.links),
        rtt_ms,
    ]
}

/// Takes figures once a second until dropped. A node that does not answer in a second is not asked again in it.
pub(super) async fn sample(shared: &Shared) {
    let start = Instant::now();
    let mut ticks = interval(SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before: Option<(Instant, Stats)> = None;
    loop {
        ticks.tick().await;
        let Some(node) = shared.node.upgrade() else { return };
        let (second, at_ms) = (start.elapsed().as_secs(), node.now().as_millis());
        let overview = timeout(SECOND, node.overview()).await;
        drop(node);
        let Ok(Ok((stats, links))) = overview else {
            shared.history().put(second, at_ms, NOTHING);
            continue;
        };
        let now = Instant::now();
        if let Some((at, before)) = &before {
            let seconds = now.duration_since(*at).as_secs_f64();
            shared.history().put(second, at_ms, taken(before, &stats, &links, seconds));
        }
        before = Some((now, stats));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::metrics::testing::snapshot;

    fn numbers(span: &Span, of: usize) -> Vec<Option<f64>> {
        let number = |sample: &Sample| Some(sample[of]).filter(|number| !number.is_nan());
        span.samples.iter().map(number).collect()
    }

    #[test]
    fn what_was_not_taken_is_nothing_and_the_old_goes() {
        let mut history = History::default();
        assert!(numbers(&history.last(5 * SECOND), 0).iter().all(Option::is_none));
        for second in [1, 2, 5] {
            history.put(second, second * 1000, [second as f64; SERIES.len()]);
        }
        let span = history.last(6 * SECOND);
        assert_eq!((span.step_ms, span.from_ms), (1000, 0));
        let there = [None, Some(1.0), Some(2.0), None, None, Some(5.0)];
        assert_eq!(numbers(&span, 0), there);
        for second in 6..10_000 {
            history.put(second, second * 1000, [second as f64; SERIES.len()]);
        }
        assert_eq!(history.seconds.samples.len(), SECONDS_KEPT);
        let span = history.last(15 * 60 * SECOND);
        assert_eq!((span.samples.len(), numbers(&span, 0)[0]), (SECONDS_KEPT, Some(9100.0)));
    }

    #[test]
    fn a_minute_is_the_mean_or_the_worst_of_its_seconds() {
        let mut history = History::default();
        for second in 0..150 {
            history.put(second, second * 1000, [(second % 60) as f64; SERIES.len()]);
        }
        let span = history.last(Duration::from_hours(1));
        assert_eq!((span.step_ms, span.samples.len()), (60_000, 60));
        let tail = |of| numbers(&span, of)[56..].to_vec();
        assert_eq!(tail(0), [None, Some(29.5), Some(29.5), Some(14.5)]);
        assert_eq!(tail(2), [None, Some(59.0), Some(59.0), Some(29.0)]);
        assert_eq!(history.last(Duration::from_hours(24)).samples.len(), MINUTES_KEPT);
    }

    #[test]
    fn rates_are_of_the_time_between() {
        let (before, mut now) = (snapshot(0).stats, snapshot(0).stats);
        now.counters.transactions_accepted += 10;
        now.counters.refused_expired += 4;
        let sample = taken(&before, &now, &snapshot(3).links, 2.0);
        let named = |name| sample[SERIES.iter().position(|series| *series == name).unwrap()];
        let found = (named("delivered_per_s"), named("dropped_per_s"), named("rtt_ms"));
        assert_eq!(found, (5.0, 2.0, 2.0));
    }
}
