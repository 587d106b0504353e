//! What a node shows of itself to those who operate it.

mod metrics;

pub(crate) use metrics::{Snapshot, text};
