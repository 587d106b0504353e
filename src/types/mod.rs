//! Plain data: ids, times, endpoints, peer records, transactions, messages, events, counters.
//!
//! Nothing in here does I/O, reads a clock or is async. Every id is `Ord`, so that the protocol
//! core can keep it in ordered maps and stay deterministic.

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

pub use endpoint::{AddressScope, Endpoint, EndpointError, Host, TransportKind};
pub use event::{Event, Mode, Refusal};
pub use head::Head;
pub use id::{Cursor, ParseIdError, PeerId, Topic, TransactionId};
pub use interest::{Interest, MAX_DEPTH, MAX_INTERESTS, NOWHERE, TopicKey};
pub use limits::{
    MAX_ENDPOINTS, MAX_FRAME_BYTES, MAX_IDS_PER_MESSAGE, MAX_MESSAGES_PER_FRAME, MAX_NETWORK_BYTES,
    MAX_RECORDS_PER_MESSAGE, MAX_TOPIC_BYTES, PIECE_BYTES,
};
pub use link::{CloseReason, Direction, FailureKind, LinkId, Verdict};
pub use log::{EntryState, IndexEntry, KeptPartial, NewEntry, Partial};
pub use message::{
    Announcement, FEATURES, Features, Hello, Message, Offer, Piece, Reservation, WIRE_VERSION_MAX,
    WIRE_VERSION_MIN,
};
pub use peer::{Ban, StoredPeer};
pub(crate) use piece_set::PieceSet;
pub use piece_set::{ALL_PIECES, MAX_RANGES, PieceRange};
pub use publish::{PublishState, PublishStatus};
pub use reconcile::{
    Bound, MAX_IDS_PER_RECONCILE, MAX_RANGES_PER_MESSAGE, Range, RangeContent, Reconcile,
};
pub use record::{PeerRecord, RECORD_LIFETIME_MS, RecordDraft};
pub use signature::{BatchSignature, MAX_BATCH, Signature};
pub(crate) use signature::{Signed, sign_batch};
pub use stats::{Counters, LinkState, LinkStatus, Stats};
pub use time::{MonoTime, WallTime};
#[cfg(feature = "node")]
pub(crate) use transaction::verify_signed;
pub use transaction::{Header, InvalidTransaction, MAX_HEADER_BYTES, Transaction};
pub use tree::{MAX_PROOF_BYTES, Proofs, piece_len, pieces_of, verify_piece};
