//! Plain data of the core and the wire: messages, pieces, ranges, limits. Not covered by semver: every
//! version may change all of it.

pub use super::endpoint::AddressScope;
pub use super::head::Head;
pub use super::interest::{Interest, MAX_DEPTH, MAX_INTERESTS, NOWHERE};
pub use super::limits::{
    MAX_ENDPOINTS, MAX_IDS_PER_MESSAGE, MAX_MESSAGES_PER_FRAME, MAX_NETWORK_BYTES, MAX_PROOFS,
    MAX_PROTOCOL_BYTES, MAX_REASON_BYTES, MAX_RECORDS_PER_MESSAGE, MAX_TOPIC_BYTES, PIECE_BYTES,
};
pub use super::link::LinkId;
pub use super::message::{
    Announcement, DialBackOutcome, FEATURES, Features, Hello, Message, Offer, Reservation,
    ResponseStatus, WIRE_VERSION_MAX, WIRE_VERSION_MIN, is_protocol_name,
};
pub use super::piece_set::{ALL_PIECES, MAX_RANGES, PieceRange};
pub use super::reachability::{CandidateDraft, CandidateSource};
pub use super::reconcile::{
    Bound, MAX_IDS_PER_RECONCILE, MAX_RANGES_PER_MESSAGE, Range, RangeContent, Reconcile,
};
pub use super::record::{RECORD_LIFETIME_MS, RecordDraft};
pub use super::signature::MAX_BATCH;
pub use super::time::MonoTime;
pub use super::trace::TraceContext;
pub use super::transaction::MAX_HEADER_BYTES;
pub use super::tree::{MAX_PROOF_BYTES, Proofs, piece_len, pieces_of, verify_piece};
