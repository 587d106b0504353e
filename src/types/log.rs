//! Entries of the retained log and of the outbox.

use super::{Cursor, Header, PeerId, Piece, TopicKey, Transaction, TransactionId, WallTime};

/// A transaction to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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

/// Part of a large payload that is on its way in and has to make room.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partial {
    /// Whose payload.
    pub id: TransactionId,
    /// When it may go, as the transaction itself.
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

/// A partial payload that a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptPartial {
    /// Whose payload.
    pub id: TransactionId,
    /// When it may go.
    pub keep_until: WallTime,
}

impl KeptPartial {
    /// A partial payload that may go at `keep_until`.
    pub fn new(id: TransactionId, keep_until: WallTime) -> Self {
        Self { id, keep_until }
    }
}

/// What the protocol needs to know of a kept transaction without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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

impl IndexEntry {
    /// The index entry of a transaction with this header, in this place of the log.
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

    /// The index entry of an entry that got the place `cursor`.
    pub fn of(cursor: Cursor, entry: &NewEntry) -> Self {
        let transaction = &entry.transaction;
        Self::new(cursor, transaction.id(), transaction.header(), entry.hops, entry.keep_until)
    }
}

/// State of an entry of the outbox. It has exactly these, so that a queue can keep each.
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
