//! Entries of the retained log and of the outbox.

use super::{Cursor, PeerId, Piece, TopicKey, Transaction, TransactionId, WallTime};

/// A transaction to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// The transaction, verified.
    pub transaction: Transaction,
    /// The peer it came from; `None` for the node's own.
    pub from: Option<PeerId>,
    /// Hops from its origin; 0 for the node's own.
    pub hops: u16,
    /// When every copy may go: the earlier of its own expiry and creation plus retention.
    pub keep_until: WallTime,
}

/// Part of a large payload that is on its way in and has to make room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// Whose payload.
    pub id: TransactionId,
    /// When it may go, as the transaction itself.
    pub keep_until: WallTime,
    /// Pieces that were checked, each with its proof, in any order.
    pub pieces: Vec<Piece>,
}

/// A partial payload that a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptPartial {
    /// Whose payload.
    pub id: TransactionId,
    /// When it may go.
    pub keep_until: WallTime,
}

/// What the protocol needs to know of a kept transaction without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its place in the log.
    pub cursor: Cursor,
    /// Which.
    pub id: TransactionId,
    /// Who published it.
    pub origin: PeerId,
    /// Where it belongs.
    pub topic: TopicKey,
    /// Length of its payload in bytes.
    pub size: u64,
    /// Hops from its origin.
    pub hops: u16,
    /// When it was created, by its origin's clock.
    pub created: WallTime,
    /// When it may go.
    pub keep_until: WallTime,
}

/// Where an entry stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryState {
    /// Waits for copies.
    Waiting {
        /// Rounds without any taker so far.
        attempts: u32,
        /// Not tried again earlier than this.
        due: WallTime,
    },
    /// Given up; kept until it is removed or published again.
    Dead {
        /// Why.
        reason: String,
        /// Since when.
        since: WallTime,
    },
}
