//! Plain data beside what stands at the crate's root: headers and signatures of transactions, times,
//! reasons, counters.
//!
//! Nothing in here does I/O, reads a clock or is async. Every id is `Ord`, so that the protocol
//! core can keep it in ordered maps and stay deterministic.

mod encoding;
mod endpoint;
mod event;
mod head;
mod hex;
mod id;
mod interest;
mod limits;
mod link;
mod log;
mod message;
mod peer;
mod piece_set;
mod publish;
mod reconcile;
mod record;
mod signature;
mod stats;
mod time;
mod transaction;
mod tree;

pub use endpoint::Host;
pub use event::Refusal;
pub use link::{CloseReason, Direction};
pub use record::PeerRecord;
pub use signature::{BatchSignature, Signature};
pub use stats::{Counters, LinkState, LinkStatus};
pub use time::WallTime;
pub use transaction::Header;

/// What hosts meet at the crate's root.
pub(crate) mod root {
    pub use super::endpoint::{Endpoint, TransportKind};
    pub use super::event::{Event, Mode};
    pub use super::id::{Cursor, PeerId, Topic, TransactionId};
    pub use super::link::Verdict;
    pub use super::publish::{PublishState, PublishStatus};
    pub use super::stats::Stats;
    pub use super::transaction::Transaction;
}

/// What hosts meet among the errors.
pub(crate) mod errors {
    pub use super::endpoint::EndpointError;
    pub use super::id::ParseIdError;
    pub use super::link::FailureKind;
    pub use super::transaction::InvalidTransaction;
}

/// What hosts meet beside the ports.
pub(crate) mod ports {
    pub use super::interest::TopicKey;
    pub use super::limits::MAX_FRAME_BYTES;
    pub use super::log::{EntryState, IndexEntry, KeptPartial, NewEntry, Partial};
    pub use super::message::Piece;
    pub use super::peer::{Ban, StoredPeer};
}

/// What the core and the wire need beside. Hosts meet it with the feature `unstable-core` only.
pub(crate) mod unstable {
    pub use super::endpoint::AddressScope;
    pub use super::head::Head;
    pub use super::interest::{Interest, MAX_DEPTH, MAX_INTERESTS, NOWHERE};
    pub use super::limits::{
        MAX_ENDPOINTS, MAX_IDS_PER_MESSAGE, MAX_MESSAGES_PER_FRAME, MAX_NETWORK_BYTES,
        MAX_RECORDS_PER_MESSAGE, MAX_TOPIC_BYTES, PIECE_BYTES,
    };
    pub use super::link::LinkId;
    pub use super::message::{
        Announcement, FEATURES, Features, Hello, Message, Offer, Reservation, WIRE_VERSION_MAX,
        WIRE_VERSION_MIN,
    };
    pub use super::piece_set::{ALL_PIECES, MAX_RANGES, PieceRange};
    pub use super::reconcile::{
        Bound, MAX_IDS_PER_RECONCILE, MAX_RANGES_PER_MESSAGE, Range, RangeContent, Reconcile,
    };
    pub use super::record::{RECORD_LIFETIME_MS, RecordDraft};
    pub use super::signature::MAX_BATCH;
    pub use super::time::MonoTime;
    pub use super::transaction::MAX_HEADER_BYTES;
    pub use super::tree::{MAX_PROOF_BYTES, Proofs, piece_len, pieces_of, verify_piece};
}

pub(crate) use piece_set::PieceSet;
pub(crate) use signature::{Signed, sign_batch};
#[cfg(feature = "node")]
pub(crate) use transaction::verify_signed;
pub(crate) use {errors::*, ports::*, root::*};

#[cfg(not(feature = "unstable-core"))]
pub(crate) use unstable::*;
#[cfg(feature = "unstable-core")]
pub use unstable::*;
