//! The same metrics for a registry of `prometheus-client`.
//!
//! A registry collects without awaiting, and perhaps on the only thread that the node has. So nobody is
//! asked at a scrape: the collector shows the latest figures that it was given.
//!
//! Tested by: the tests below, `tests/node/collector.rs`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokio::sync::{broadcast, watch};

use super::metrics::{Family, Kind, PREFIX, Snapshot, families};
use crate::types::Event;

/// Collector of the figures of a node that were sent last; of nothing once its events have ended.
#[derive(Debug)]
pub(crate) struct LatestFigures {
    pub(crate) figures: watch::Receiver<Snapshot>,
    pub(crate) events: broadcast::WeakSender<Event>,
}

impl Collector for LatestFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if self.events.strong_count() == 0 {
            return Ok(());
        }
        let families = families(&self.figures.borrow());
        families.iter().try_for_each(|family| encode(family, &mut encoder))
    }
}

fn encode(family: &Family, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let (kind, name) = match family.kind {
        // The encoder adds the ending by itself, where the format has one.
        Kind::Counter => (MetricType::Counter, family.name.trim_end_matches("_total")),
        Kind::Gauge => (MetricType::Gauge, family.name.as_ref()),
        Kind::Histogram => (MetricType::Histogram, family.name.as_ref()),
    };
    let name = format!("{PREFIX}{name}");
    let mut samples = encoder.encode_descriptor(&name, family.help, None, kind)?;
    if let Some(of) = &family.histogram {
        return samples.encode_histogram::<NoLabelSet>(of.sum, of.count(), &of.classes, None);
    }
    for (labels, value) in &family.samples {
        if labels.is_empty() {
            write_value(&mut samples, family.kind, *value)?;
        } else {
            write_value(&mut samples.encode_family(labels)?, family.kind, *value)?;
        }
    }
    Ok(())
}

fn write_value(to: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> Result<(), fmt::Error> {
    match kind {
        Kind::Counter => to.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        Kind::Gauge | Kind::Histogram => to.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use prometheus_client::encoding::prometheus_text;
    use prometheus_client::registry::Registry;

    use crate::monitor::metrics::testing::snapshot;
    use crate::monitor::text;

    fn scraped(registry: &Registry) -> String {
        let mut scraped = String::new();
        prometheus_text::encode(&mut scraped, registry).unwrap();
        scraped
    }

    #[test]
    fn a_registry_writes_what_the_node_writes() {
        let (_sender, figures) = watch::channel(snapshot(7));
        let (events, _) = broadcast::channel(1);
        let mut registry = Registry::default();
        let latest = LatestFigures { figures, events: events.downgrade() };
        registry.register_collector(Box::new(latest));
        // Whole numbers are written with a point.
        let lines = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.strip_suffix(".0").unwrap_or(line).to_owned()).collect()
        };
        let wanted = lines(&text(&snapshot(7)));
        for (there, wanted) in lines(&scraped(&registry)).iter().zip(&wanted) {
            assert_eq!(there, wanted);
        }
        assert_eq!(lines(&scraped(&registry)).len(), wanted.len());
        drop(events);
        assert!(!scraped(&registry).contains(PREFIX), "the node has stopped");
    }
}
