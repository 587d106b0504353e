//! What a node shows of itself to those who operate it.

#[cfg(feature = "admin")]
pub(crate) mod admin;
#[cfg(feature = "metrics")]
mod collector;
mod metrics;
#[cfg(feature = "compat")]
mod original;

#[cfg(feature = "metrics")]
pub(crate) use collector::LatestFigures;
pub(crate) use metrics::{Snapshot, openmetrics, text};
#[cfg(feature = "compat")]
pub(crate) use original::{PeerCounts, latency_ms, statistics};
