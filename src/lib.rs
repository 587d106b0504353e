//! Peer networking for transactions that must reach every peer, whatever the network does.

pub mod config;
pub mod error;
mod identity;
pub mod nat;
pub mod ports;
pub mod store;
pub mod testing;
pub mod types;
pub(crate) mod wire;

pub use config::Config;
pub use error::EndpointError;
pub use identity::Identity;
pub use types::{
    Cursor, Endpoint, Event, Mode, PeerId, Stats, Topic, Transaction, TransactionId, TransportKind,
};

/// What benchmarks and fuzz tests of this crate need of its inside. Not for anybody else: it
/// changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::wire::{Encoded, FrameEncoder, WireError, decode_frame, encode_frame};
}
