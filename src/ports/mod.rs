//! Traits that a host may implement, and what they hand over and take. One more stands at the root, since
//! it is the one most often implemented: [`Validator`]. Stores that come together are a
//! [`Storage`].
//!
//! All are object safe, `Send + Sync + 'static`, and know no runtime: an implementation may use
//! tokio, another runtime or none. The node calls them from tasks of its own, so a call must not block
//! the thread. A call that panics counts as one that failed. Each trait has a conformance suite in
//! [`crate::testing`] that every implementation here passes and yours should.
//!
//! What may run at the same time:
//!
//! | trait | calls that change something | calls that read |
//! |---|---|---|
//! | [`TransactionQueue`] | one at a time | any number, beside them |
//! | [`TransactionStore`] | `append` up to two at once; `save_cursor` and `remove_cursor` one for each name; all else one at a time; all of these beside each other | any number, beside them |
//! | [`PeerStore`] | one at a time | `load` once, before all others |
//! | [`Transport`] | `dial` any number; `listen` once, beside them; [`Listener::accept`] one at a time | |
//! | [`NatProber`] | `probe` one at a time | |
//! | [`Validator`] | | up to 256 |
//!
//! The future of a call that reads may be dropped at any time, and that of any call when a node ends
//! without having the time for all. What it was to change must then be changed as a whole or not at all.
//!
//! Structs here become more fields with new versions; that is why each has a constructor.

mod nat_prober;
mod peer_store;
mod queue;
pub(crate) mod storage;
#[cfg_attr(not(feature = "node"), allow(dead_code, reason = "nodes alone take leases"))]
mod store_lease;
mod transaction_store;
mod transport;
pub(crate) mod validator;

pub use crate::types::ports::{
    Ban, EntryState, IndexEntry, KeptPartial, NewEntry, Partial, Piece, StoredPeer, TopicKey,
};
pub use nat_prober::NatProber;
pub use peer_store::PeerStore;
pub use queue::{EntryFilter, OutboxEntry, QueueSize, TransactionQueue};
pub(crate) use storage::Storage;
pub use store_lease::StoreLease;
pub use transaction_store::{LogEntry, Page, TransactionStore, Usage};
pub use transport::{Accepted, Listener, RawLink, Transport};
#[cfg_attr(not(any(feature = "node", feature = "grpc")), allow(unused_imports))]
pub(crate) use transport::{FrameSink, FrameStream};
pub(crate) use validator::Validator;

#[cfg(feature = "node")]
pub(crate) use store_lease::{HeldLease, LeaseTaken};
