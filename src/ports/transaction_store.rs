//! Log: every accepted transaction, in the order of acceptance, until it expires.

use std::fmt;

use async_trait::async_trait;

use crate::error::{StoreError, StoreErrorKind};
use crate::types::{
    Cursor, IndexEntry, KeptPartial, NewEntry, Partial, Piece, Topic, Transaction, TransactionId,
    WallTime,
};

use super::StoreLease;

/// Entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEntry {
    /// The cursor of the entry.
    pub cursor: Cursor,
    /// The entry as it was appended.
    pub entry: NewEntry,
}

impl LogEntry {
    /// The entry that got this cursor.
    pub fn new(cursor: Cursor, entry: NewEntry) -> Self {
        Self { cursor, entry }
    }
}

/// Stretch of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Page {
    /// The entries asked for, in the order of their cursors.
    pub entries: Vec<LogEntry>,
    /// The cursor up to which everything was looked at: where to go on, also when nothing matched.
    pub next: Cursor,
    /// The highest cursor, above the asked-for one and up to `next`, whose entry was of the asked-for
    /// topic and was removed or cannot be read; `None` where all that were there are on the page. Entries
    /// of the page may stand on both sides of it.
    ///
    /// A store must not be silent about a loss, however long ago that was and also after a restart. It
    /// need not keep every removed cursor for that: the highest of each topic is enough, for as long as
    /// the store lives. Where a store no longer knows better, it may report a loss that the asked-for
    /// topic did not suffer; that should be rare. The stores of this crate keep the highest of 4,096
    /// topics, and one for all others.
    pub gap_until: Option<Cursor>,
    /// The last entry of this stretch that is retained and cannot be read, which is among what
    /// `gap_until` tells of; `None` when all can.
    pub damaged_until: Option<Cursor>,
}

impl Page {
    /// Maximum number of named cursors that a log keeps. The node has five of its own among them, under
    /// names that begin with `sorcha-peer/`.
    pub const MAX_CURSORS: usize = 1024;

    /// Makes a page without a loss. The fields of a page are public: set those that tell of one.
    pub fn new(entries: Vec<LogEntry>, next: Cursor) -> Self {
        Self { entries, next, gap_until: None, damaged_until: None }
    }
}

/// Size of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Number of entries retained.
    pub entries: u64,
    /// Number of bytes of their headers and payloads.
    pub bytes: u64,
    /// Maximum of `bytes`; `None` for no bound.
    pub max_bytes: Option<u64>,
}

impl Usage {
    /// Makes the figures of a store: what is retained, and what fits.
    pub fn new(entries: u64, bytes: u64, max_bytes: Option<u64>) -> Self {
        Self { entries, bytes, max_bytes }
    }
}

/// Retained log. Cursors rise with every append and are never reused, also not after a restart,
/// a power failure or a clock that was set back.
///
/// A full log refuses; an entry is never dropped before its `keep_until`.
///
/// The node appends what it accepted and forgets what expired one call after the other; beside that
/// runs at most one more `append`, of own transactions that the log had no room for before. Subscriptions
/// and peers read at any time. There is no time limit: while an `append` is under way nothing is accepted
/// from peers beyond a bound, and they feel it as back-pressure. What an `append` was refused for is
/// fetched again later.
///
/// ```
/// use sorcha_peer::ports::NewEntry;
/// use sorcha_peer::types::WallTime;
/// use sorcha_peer::{Cursor, Storage};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use sorcha_peer::types::Header;
/// # let (created, expires) = (WallTime::from_millis(1), WallTime::from_millis(2));
/// # let identity = sorcha_peer::Identity::generate()?;
/// # let (topic, payload) = ("orders".parse()?, bytes::Bytes::from_static(b"one widget"));
/// # let header = Header::new(topic, identity.peer_id(), created, expires, &payload);
/// # let transaction = identity.sign_transaction(header, payload)?;
/// let log = Storage::memory_transactions(Some(1 << 20)); // bytes at most
/// let entry = NewEntry::new(transaction, None, 0, WallTime::from_millis(1000));
/// let cursors = log.append(&[entry]).await?;
/// let page = log.read(None, Cursor::default(), 10, 1 << 20).await?;
/// assert_eq!((page.entries.len(), page.next, page.gap_until), (1, cursors[0], None));
///
/// log.expire(WallTime::from_millis(2000)).await?;
/// let page = log.read(None, Cursor::default(), 10, 1 << 20).await?;
/// assert_eq!((page.entries.len(), page.gap_until), (0, Some(cursors[0])), "the loss is told");
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait TransactionStore: fmt::Debug + Send + Sync + 'static {
    /// Appends in order, all or none, and returns each entry's cursor once all would survive
    /// `kill -9`. An id that is already there keeps its cursor.
    ///
    /// # Errors
    /// [`StoreErrorKind::Full`] when the bound would be
    /// exceeded; nothing was appended.
    async fn append(&self, entries: &[NewEntry]) -> Result<Vec<Cursor>, StoreError>;

    /// Transaction by id; `None` for an id that is not there.
    async fn get(&self, id: &TransactionId) -> Result<Option<Transaction>, StoreError>;

    /// Transactions by id: as many as there are ids, in their order, `None` for one that is gone.
    ///
    /// Peers that are served from the store ask for about a hundred at once. The default gets one
    /// after the other; a store that can read them together does better.
    async fn get_many(
        &self,
        ids: &[TransactionId],
    ) -> Result<Vec<Option<Transaction>>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.push(self.get(id).await?);
        }
        Ok(found)
    }

    /// Entries after `after`, of one topic or of all, at most `max_entries` and, beyond the first,
    /// at most `max_bytes` of payload. May stop earlier, to bound the work of one call; only
    /// `next == after` means that there is nothing more.
    async fn read(
        &self,
        topic: Option<&Topic>,
        after: Cursor,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError>;

    /// Reads at most `limit` index entries after `after`, in cursor order: so a restarted node
    /// learns what it has. Empty means that there are no more.
    async fn index(&self, after: Cursor, limit: usize) -> Result<Vec<IndexEntry>, StoreError>;

    /// The newest cursor ever given out, or one between it and the next; the default cursor for an
    /// empty log.
    async fn newest(&self) -> Result<Cursor, StoreError>;

    /// The lease that keeps a second node of the process off this log; `None`, the default, where nothing
    /// does: then the host must not give the log to two nodes at once. A store that wraps another hands
    /// out the lease of that one.
    fn lease(&self) -> Option<&StoreLease> {
        None
    }

    /// True, the default: an operation may wait for something that hangs, as
    /// [`TransactionQueue::may_hang`](super::TransactionQueue::may_hang).
    fn may_hang(&self) -> bool {
        true
    }

    /// Tells the store how much memory it may hold beside what it was asked for, as
    /// [`TransactionQueue::limit_memory`](super::TransactionQueue::limit_memory).
    async fn limit_memory(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Number of bytes of memory that the store holds within that limit, as
    /// [`TransactionQueue::memory`](super::TransactionQueue::memory).
    fn memory(&self) -> u64 {
        0
    }

    /// Size of the log. Asked when a node starts, and whenever its metrics are.
    async fn usage(&self) -> Result<Usage, StoreError>;

    /// Reports whether the store works again after a failure, as
    /// [`TransactionQueue::probe`](super::TransactionQueue::probe).
    ///
    /// # Errors
    /// What keeps it from taking an entry now.
    async fn probe(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Forgets entries that may go at `now`; returns their number. A store may keep entries a little
    /// longer, to drop whole generations at once. Called every 10 s.
    async fn expire(&self, now: WallTime) -> Result<u64, StoreError>;

    /// Cursor that is kept for a named subscription; `None` for an unknown name.
    async fn load_cursor(&self, name: &str) -> Result<Option<Cursor>, StoreError>;

    /// Keeps the cursor of a named subscription. The cursor only moves forward: an earlier cursor
    /// than the one that is kept changes nothing.
    ///
    /// # Errors
    /// [`StoreErrorKind::Full`] for a new name beyond
    /// [`Page::MAX_CURSORS`].
    async fn save_cursor(&self, name: &str, cursor: Cursor) -> Result<(), StoreError>;

    /// Forgets a named subscription; an unknown name is no error.
    async fn remove_cursor(&self, name: &str) -> Result<(), StoreError>;

    /// Partial payloads that are kept, the oldest first; `None`, the default, for a store that
    /// keeps none: then they stay in the node's memory, and the methods below are not called.
    async fn partials(&self) -> Result<Option<Vec<KeptPartial>>, StoreError> {
        Ok(None)
    }

    /// Keeps pieces of a large payload that is on its way in, beside those of the same id that are
    /// there: all or none, and it is the newest then. While all partial payloads together have more
    /// than `max_bytes` (pieces and proofs), the oldest go. `Ok` means that it would survive
    /// `kill -9`, in a store that survives it at all; a power failure may take it.
    ///
    /// # Errors
    /// [`StoreErrorKind::Full`] when it alone would be more than `max_bytes`; nothing changed.
    async fn put_partial(&self, partial: &Partial, max_bytes: u64) -> Result<(), StoreError> {
        let _ = (partial, max_bytes);
        Err(StoreError::new(StoreErrorKind::Io, "this store keeps no partial payloads"))
    }

    /// Pieces of a partial payload, in the order of their numbers; none for an unknown id.
    /// Whoever reads them checks them.
    async fn get_partial(&self, id: &TransactionId) -> Result<Vec<Piece>, StoreError> {
        let _ = id;
        Ok(Vec::new())
    }

    /// Forgets partial payloads; an unknown id is no error. [`TransactionStore::expire`] forgets
    /// those whose time has come by itself, and does not count them.
    async fn remove_partials(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        let _ = ids;
        Ok(())
    }
}
