//! The traits that a host application may implement, and nothing else.
//!
//! All are object safe, `Send + Sync + 'static`, and know no runtime: an implementation may use
//! tokio, another runtime or none. Each has a conformance suite in [`crate::testing`] that every
//! implementation here passes and yours should.

mod nat_prober;
mod peer_store;
mod queue;
#[cfg_attr(not(feature = "node"), allow(dead_code, reason = "nodes alone take leases"))]
mod store_lease;
mod transaction_store;
mod transport;
pub(crate) mod validator;

pub use crate::types::ports::{
    Ban, EntryState, IndexEntry, KeptPartial, MAX_FRAME_BYTES, NewEntry, Partial, Piece,
    StoredPeer, TopicKey,
};
pub use nat_prober::NatProber;
pub use peer_store::PeerStore;
pub use queue::{EntryFilter, OutboxEntry, QueueSize, TransactionQueue};
pub use store_lease::StoreLease;
pub use transaction_store::{LogEntry, MAX_CURSORS, Page, TransactionStore, Usage};
pub use transport::{Accepted, FrameSink, FrameStream, Listener, RawLink, Transport};
pub(crate) use validator::Validator;

#[cfg(feature = "node")]
pub(crate) use store_lease::{HeldLease, LeaseTaken};
