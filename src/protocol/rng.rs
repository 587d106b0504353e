//! The only source of randomness in the core: a seeded generator.
//!
//! Tested by: `sim::tests::replay`.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};

/// A generator whose stream is fixed by its seed on every platform.
#[derive(Debug, Clone)]
pub(super) struct Rng(ChaCha8Rng);

impl Rng {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`; 0 when `bound` is 0. The bias of the multiplication (below
    /// 2^-32 for the bounds used here) does not matter for choosing peers.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next_u64()) * bound as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// Full jitter (uniform in `0..=max`), so that peers which failed together do not come back
    /// together. See Brooker, "Exponential Backoff And Jitter", 2015.
    pub(super) fn jitter(&mut self, max: Duration) -> Duration {
        let nanos = usize::try_from(max.as_nanos()).unwrap_or(usize::MAX);
        Duration::from_nanos(self.below(nanos.saturating_add(1)) as u64)
    }

    /// `span` give or take a fifth.
    pub(super) fn about(&mut self, span: Duration) -> Duration {
        span / 5 * 4 + self.jitter(span * 2 / 5)
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
