//! Plain data: ids, times, endpoints, peer records, transactions, messages, events, counters.
//!
//! Nothing in here does I/O, reads a clock or is async. Every id is `Ord`, so that the protocol
//! core can keep it in ordered maps and stay deterministic.

mod endpoint;
mod event;
mod hex;
mod id;
mod limits;
mod link;
mod log;
mod message;
mod peer;
mod reconcile;
mod record;
mod stats;
mod time;
mod transaction;

pub use endpoint::{AddressScope, Endpoint, EndpointError, Host, TransportKind};
pub use event::{Event, Mode, Refusal};
pub use id::{Cursor, ParseIdError, PeerId, Topic, TransactionId};
pub use limits::{
    MAX_ENDPOINTS, MAX_FRAME_BYTES, MAX_IDS_PER_MESSAGE, MAX_MESSAGES_PER_FRAME, MAX_NETWORK_BYTES,
    MAX_RECORDS_PER_MESSAGE, MAX_TOPIC_BYTES, PIECE_BYTES,
};
pub use link::{CloseReason, Direction, FailureKind, LinkId, Verdict};
pub use log::{IndexEntry, NewEntry};
pub use message::{
    Announcement, FEATURES, Features, Hello, Message, Piece, WIRE_VERSION_MAX, WIRE_VERSION_MIN,
    Want,
};
pub use peer::{Ban, StoredPeer};
pub use reconcile::{
    Bound, MAX_IDS_PER_RECONCILE, MAX_RANGES_PER_MESSAGE, Range, RangeContent, Reconcile,
};
pub use record::{PeerRecord, RECORD_LIFETIME_MS, RecordDraft};
pub use stats::{Counters, LinkState, LinkStatus, Stats};
pub use time::{MonoTime, WallTime};
pub use transaction::{Header, InvalidTransaction, MAX_HEADER_BYTES, Signature, Transaction};
