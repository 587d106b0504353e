//! The traits that a host application may implement, and nothing else.
//!
//! All are object safe, `Send + Sync + 'static`, and know no runtime: an implementation may use
//! tokio, another runtime or none. Each has a conformance suite in [`crate::testing`] that every
//! implementation here passes and yours should.

mod nat_prober;
mod peer_store;
mod queue;
mod store_lease;
mod transaction_store;
mod transport;
mod validator;

pub use nat_prober::NatProber;
pub use peer_store::{Ban, PeerStore, StoredPeer};
pub use queue::{EntryFilter, EntryState, OutboxEntry, QueueSize, TransactionQueue};
pub use store_lease::StoreLease;
pub use transaction_store::{
    IndexEntry, KeptPartial, LogEntry, MAX_CURSORS, NewEntry, Page, Partial, TransactionStore,
    Usage,
};
pub use transport::{Accepted, FrameSink, FrameStream, Listener, RawLink, Transport};
pub use validator::{AcceptAll, Validator};

#[cfg(feature = "node")]
pub(crate) use store_lease::{HeldLease, LeaseTaken};
