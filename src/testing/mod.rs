//! Conformance suites for implementations of the [ports](crate::ports).
//!
//! Each takes an implementation, uses it, and panics with what it did wrong. They are async but
//! need no particular runtime beyond what the implementation needs.

#[cfg(test)]
pub(crate) mod cases;
mod dropped;
mod durability;
mod stores;
mod strangers;
mod transports;

pub use durability::durability;
pub use stores::{nat_prober, peer_store, transaction_queue, transaction_store, validator};
pub use transports::{TransportNode, transport};
