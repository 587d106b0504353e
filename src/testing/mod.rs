//! Conformance suites for implementations of the [ports](crate::ports).
//!
//! Each takes an implementation, uses it, and panics with what it did wrong. They are async but
//! need no particular runtime beyond what the implementation needs.

#[cfg(test)]
pub(crate) mod cases;
mod dropped;
mod stores;
mod strangers;
mod transports;

pub use stores::{
    nat_prober, peer_store, peer_store_durability, transaction_queue, transaction_queue_durability,
    transaction_store, transaction_store_durability, validator,
};
pub use transports::{TransportNode, transport};
