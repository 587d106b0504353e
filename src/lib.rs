//! Peer networking for transactions that must reach every peer, whatever the network does.

pub mod config;
pub mod error;
mod identity;
pub mod nat;
#[cfg(feature = "node")]
mod node;
pub mod ports;
pub mod protocol;
pub mod store;
pub mod testing;
pub mod transport;
pub mod types;
#[cfg_attr(not(feature = "node"), allow(dead_code))]
pub(crate) mod wire;

pub use config::Config;
pub use error::EndpointError;
pub use identity::Identity;
#[cfg(feature = "node")]
pub use node::{
    Delivery, Events, From, Item, PeerNode, PeerNodeBuilder, Receipt, Storage, Subscription,
    WeakPeerNode,
};
#[cfg(feature = "sqlite")]
pub use store::SqliteStorage;
pub use types::{
    Cursor, Endpoint, Event, Mode, PeerId, Stats, Topic, Transaction, TransactionId, TransportKind,
};

/// What benchmarks and fuzz tests of this crate need of its inside. Not for anybody else: it
/// changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::wire::{Encoded, FrameEncoder, WireError, decode_frame, encode_frame};
}
