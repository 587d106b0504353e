//! Conformance suites for implementations of the [ports](crate::ports).

pub mod transport;
