//! The repository itself: how the code is cut, and that committed files agree with each other.

mod calls;
mod layering;
#[cfg(feature = "node")]
mod metrics;
mod public_api;
