//! Code generated from `proto/`; see `tests/codegen/fresh.rs`. The only file in here that is
//! written by hand is this one.

#![allow(
    unnameable_types,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    unused_qualifications,
    clippy::all,
    clippy::pedantic
)]

#[rustfmt::skip]
pub(crate) mod communication;
#[rustfmt::skip]
pub(crate) mod discovery;
#[rustfmt::skip]
pub(crate) mod transaction;

/// Frames are written and read by hand, and these types are what tests hold that against. The calls of an
/// exchange are theirs.
#[cfg(any(test, feature = "grpc"))]
#[rustfmt::skip]
pub(crate) mod gossip;
