//! How transactions of other origins came: over how many hops, and how long after they were published.
//!
//! Tested by: the tests below, `protocol::tests::statistics`.

use std::time::Duration;

use crate::types::{HOPS, LATENCY_BOUNDS_US};

/// Numbers of deliveries, in classes.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// By hops; the last class has no upper bound.
    pub(super) hops: [u64; HOPS],
    /// By latency; the last class has no upper bound.
    pub(super) latency: [u64; LATENCY_BOUNDS_US.len() + 1],
    pub(super) latency_sum_us: u64,
}

impl Deliveries {
    /// Counts one delivery, and its latency where that tells something.
    pub(super) fn note(&mut self, hop: u16, latency: Option<Duration>) {
        self.hops[usize::from(hop).min(HOPS - 1)] += 1;
        let Some(latency) = latency else { return };
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency[LATENCY_BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.latency_sum_us = self.latency_sum_us.saturating_add(us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_delivery_is_in_one_class_whatever_it_is() {
        let mut deliveries = Deliveries::default();
        for (hop, us) in [(0, 0), (1, 500), (15, 501), (16, 65_536_000), (u16::MAX, 65_536_001)] {
            deliveries.note(hop, Some(Duration::from_micros(us)));
        }
        deliveries.note(2, None);
        deliveries.note(3, Some(Duration::MAX));
        assert_eq!(deliveries.hops[..4], [1, 1, 1, 1]);
        assert_eq!((deliveries.hops[15], deliveries.hops.iter().sum::<u64>()), (3, 7));
        let latency = &deliveries.latency;
        assert_eq!((latency[0], latency[1], latency[17], latency[18]), (2, 1, 1, 2));
        assert_eq!(deliveries.latency_sum_us, u64::MAX, "it stays where it cannot rise");
    }
}
