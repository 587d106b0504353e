//! Peer networking for transactions that must reach every peer, whatever the network does.

pub mod config;
pub mod error;
mod identity;
pub mod ports;
pub mod protocol;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod testing;
pub mod types;

pub use config::Config;
pub use error::EndpointError;
pub use identity::Identity;
pub use types::{
    Cursor, Endpoint, Event, Mode, PeerId, Stats, Topic, Transaction, TransactionId, TransportKind,
};
