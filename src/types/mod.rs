//! Plain data beside what stands at the crate's root: headers and signatures of transactions, times,
//! reasons, counters.
//!
//! Nothing in here does I/O, reads a clock or is async. Every id is `Ord`, so that the protocol
//! core can keep it in ordered maps and stay deterministic.

#[cfg_attr(
    not(any(test, feature = "node", feature = "unstable-core", feature = "sqlite")),
    allow(dead_code)
)]
mod buffer;
mod encoding;
mod endpoint;
mod event;
#[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(dead_code))]
pub(crate) mod explanation;
#[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(dead_code))]
mod figures;
mod head;
pub(crate) mod hex;
mod id;
mod interest;
mod limits;
mod link;
mod log;
mod message;
mod peer;
mod peer_test;
mod piece_set;
mod publish;
#[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(dead_code))]
pub(crate) mod reachability;
mod reconcile;
mod record;
mod signature;
mod stats;
#[cfg_attr(not(any(test, feature = "node")), allow(dead_code))]
mod summary;
mod time;
mod trace;
mod transaction;
mod tree;
#[cfg(not(feature = "unstable-core"))]
mod unstable;
#[cfg(feature = "unstable-core")]
pub mod unstable;

#[cfg_attr(
    not(any(test, feature = "node", feature = "unstable-core", feature = "sqlite")),
    allow(unused_imports)
)]
pub(crate) use buffer::payload_buffer;
pub use endpoint::Host;
#[cfg_attr(not(feature = "grpc"), allow(unused_imports))]
pub(crate) use endpoint::Scheme;
#[cfg_attr(
    not(any(test, feature = "node", feature = "grpc", feature = "unstable-core")),
    allow(unused_imports)
)]
pub(crate) use endpoint::{alternate_families, host_of};
pub use event::Refusal;
pub use explanation::{Explanation, Step};
#[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(unused_imports))]
pub(crate) use figures::{HOPS, LATENCY_BOUNDS_US};
pub use link::{CloseReason, Direction};
pub use peer_test::PeerTest;
pub use reachability::{Candidate, NatBehaviour, NatDependence, Reachability, ReachabilityReport};
pub use record::PeerRecord;
pub use signature::{BatchSignature, Signature};
pub(crate) use stats::rating_of;
pub use stats::{Counters, LinkState, LinkStatus};
pub use time::WallTime;
pub use transaction::Header;

/// Names that hosts meet at the crate's root.
pub(crate) mod root {
    pub use super::endpoint::{Endpoint, TransportKind};
    pub use super::event::{Event, Mode};
    pub use super::id::{Cursor, PeerId, Topic, TransactionId};
    pub use super::link::Verdict;
    pub use super::publish::{PublishState, PublishStatus};
    pub use super::stats::Stats;
    pub use super::transaction::Transaction;
}

/// Names that hosts meet among the errors.
pub(crate) mod errors {
    pub use super::endpoint::EndpointError;
    pub use super::id::ParseIdError;
    pub use super::link::FailureKind;
    pub use super::transaction::InvalidTransaction;
}

/// Names that hosts meet beside the ports.
pub(crate) mod ports {
    pub use super::interest::TopicKey;
    pub use super::log::{EntryState, IndexEntry, KeptPartial, NewEntry, Partial};
    pub use super::message::Piece;
    pub use super::peer::{Ban, StoredPeer};
}

pub(crate) use endpoint::canonical;
pub(crate) use limits::MAX_FRAME_BYTES;
#[cfg(any(test, feature = "node"))]
pub(crate) use limits::{MAX_EXPLANATION_BYTES, MAX_EXPLANATION_STEPS, MAX_WORD_BYTES};
pub(crate) use piece_set::PieceSet;
pub(crate) use signature::{Signed, sign_batch};
#[cfg(feature = "node")]
pub(crate) use transaction::verify_signed;
pub(crate) use {errors::*, ports::*, root::*, unstable::*};
