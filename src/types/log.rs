//! Entries of the retained log and of the outbox.

use super::{Cursor, Header, PeerId, Piece, TopicKey, Transaction, TransactionId, WallTime};

/// Transaction to be kept in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewEntry {
    /// The transaction; hash and signature are verified.
    pub transaction: Transaction,
    /// The peer it came from; `None` for the node's own.
    pub from: Option<PeerId>,
    /// Hops from its origin; 0 for the node's own.
    pub hops: u16,
    /// The time from which every copy may go: the earlier of its own expiry and creation plus retention.
    pub keep_until: WallTime,
}

impl NewEntry {
    /// An entry of these parts, as a store gives back what it was given.
    pub fn new(
        transaction: Transaction,
        from: Option<PeerId>,
        hops: u16,
        keep_until: WallTime,
    ) -> Self {
        Self { transaction, from, hops, keep_until }
    }
}

/// Part of a large payload that is on its way in and has to make room in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partial {
    /// The transaction whose payload it is.
    pub id: TransactionId,
    /// The time from which it may go, the same as for the transaction.
    pub keep_until: WallTime,
    /// Pieces that were checked, each with its proof, in any order.
    pub pieces: Vec<Piece>,
}

impl Partial {
    /// A partial payload of these pieces.
    pub fn new(id: TransactionId, keep_until: WallTime, pieces: Vec<Piece>) -> Self {
        Self { id, keep_until, pieces }
    }
}

/// Partial payload that a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptPartial {
    /// The transaction whose payload it is.
    pub id: TransactionId,
    /// The time from which it may go.
    pub keep_until: WallTime,
}

impl KeptPartial {
    /// A partial payload that may go at `keep_until`.
    pub fn new(id: TransactionId, keep_until: WallTime) -> Self {
        Self { id, keep_until }
    }
}

/// Entry of the log without the payload: what a restarted node reads to know what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexEntry {
    /// The cursor of the entry.
    pub cursor: Cursor,
    /// The transaction.
    pub id: TransactionId,
    /// The node that published it.
    pub origin: PeerId,
    /// The key of its topic: [`TopicKey::of`].
    pub topic: TopicKey,
    /// Length of its payload in bytes.
    pub size: u64,
    /// Number of hops from its origin.
    pub hops: u16,
    /// The time of its creation, by its origin's clock.
    pub created: WallTime,
    /// The time from which it may go.
    pub keep_until: WallTime,
}

impl IndexEntry {
    /// The index entry of a transaction with this header.
    pub fn new(
        cursor: Cursor,
        id: TransactionId,
        header: &Header,
        hops: u16,
        keep_until: WallTime,
    ) -> Self {
        Self {
            cursor,
            id,
            origin: header.origin,
            topic: TopicKey::of(&header.topic),
            size: header.payload_len,
            hops,
            created: header.created,
            keep_until,
        }
    }

    /// The index entry of an entry that got this cursor.
    pub fn of(cursor: Cursor, entry: &NewEntry) -> Self {
        let transaction = &entry.transaction;
        Self::new(cursor, transaction.id(), transaction.header(), entry.hops, entry.keep_until)
    }
}

/// State of an entry of the outbox. Exhaustive on purpose: a queue keeps each of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryState {
    /// Waiting for copies.
    Waiting {
        /// Number of rounds without any taker so far.
        attempts: u32,
        /// The time before which it is not tried again.
        due: WallTime,
    },
    /// Given up; kept until it is removed or published again.
    Dead {
        /// Reason for which the transaction was given up, in words.
        reason: String,
        /// The time at which it was given up.
        since: WallTime,
    },
}
