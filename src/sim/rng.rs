//! The world's only source of chance.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};

/// A seeded generator, separate from those of the nodes.
#[derive(Debug, Clone)]
pub(super) struct SimRng(ChaCha8Rng);

impl SimRng {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(super) fn bytes(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        self.0.fill_bytes(&mut out);
        out
    }

    pub(super) fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.0.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    pub(super) fn up_to(&mut self, span: Duration) -> Duration {
        Duration::from_nanos(self.below(nanos(span).saturating_add(1)))
    }

    /// A span that is exponentially distributed.
    pub(super) fn exponential(&mut self, mean: Duration) -> Duration {
        // 1 - u lies in (0, 1]; microseconds, so that the last bit of the logarithm does not
        // matter.
        let u = (self.below(1 << 53) as f64) / (1u64 << 53) as f64;
        let micros = -(1.0 - u).ln() * mean.as_micros() as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 37 means"
        )]
        Duration::from_micros(micros as u64)
    }

    /// `count` different numbers of `0..bound`, or all of them.
    pub(super) fn sample(&mut self, bound: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..bound).collect();
        let count = count.min(bound);
        for at in 0..count {
            let left = (bound - at) as u64;
            all.swap(at, at + usize::try_from(self.below(left)).unwrap_or(0));
        }
        all.truncate(count);
        all
    }

    /// True `per_million` times in a million.
    pub(super) fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }
}

pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
