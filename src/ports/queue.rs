//! The outbox: own transactions until enough others have stored them.

use std::fmt;

use async_trait::async_trait;

use crate::error::StoreError;
use crate::types::{EntryState, Transaction, TransactionId};

use super::StoreLease;

/// Entry of an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxEntry {
    /// The sequence number: rises in the order of appending, never reused.
    pub seq: u64,
    /// The own transaction that waits for copies.
    pub transaction: Transaction,
    /// The state of the entry.
    pub state: EntryState,
}

impl OutboxEntry {
    /// An entry of these parts, as a queue gives it back.
    pub fn new(seq: u64, transaction: Transaction, state: EntryState) -> Self {
        Self { seq, transaction, state }
    }
}

/// Choice of the entries that [`TransactionQueue::load`] gives. Exhaustive on purpose: a queue
/// answers each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryFilter {
    /// All, whatever their state.
    All,
    /// Entries that wait for copies.
    Waiting,
    /// The dead letters.
    Dead,
}

/// Size of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QueueSize {
    /// Number of entries that wait for copies.
    pub waiting: u64,
    /// Number of dead letters.
    pub dead: u64,
    /// Maximum number of entries, waiting and dead together. A node refuses what would be more.
    pub capacity: u64,
}

impl QueueSize {
    /// Makes the figures of a queue: entries that wait, dead letters, and how many fit.
    pub fn new(waiting: u64, dead: u64, capacity: u64) -> Self {
        Self { waiting, dead, capacity }
    }
}

/// Outbox: the durable queue behind `publish`.
///
/// Entries keep their order: `load` gives them as they were appended, whatever became of their
/// states since.
///
/// The node calls what changes something one at a time, in the order of what happened, and reads at
/// any time beside that. A call may take as long as it needs: publishes wait for it, for up to 4 s, are
/// answered with [`Unsettled`](crate::error::PublishError::Unsettled) then, and refused until it has ended;
/// the node goes on with everything else. Any error is kept apart from the transaction: the call is
/// tried again later or the publish refused, and the node goes on.
///
/// Wrong ways to implement it: returning from `append` before the entries would survive a crash;
/// dropping old entries to make room; treating a repeated id as an error. States and removals may
/// be lost in a power failure (an entry is then tried once more), entries may not.
///
/// ```
/// use sorcha_peer::Storage;
/// use sorcha_peer::ports::EntryFilter;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use sorcha_peer::types::{Header, WallTime};
/// # let (created, expires) = (WallTime::from_millis(1), WallTime::from_millis(2));
/// # let identity = sorcha_peer::Identity::generate()?;
/// # let (topic, payload) = ("orders".parse()?, bytes::Bytes::from_static(b"one widget"));
/// # let header = Header::new(topic, identity.peer_id(), created, expires, &payload);
/// # let transaction = identity.sign_transaction(header, payload)?;
/// let queue = Storage::memory_queue(100); // entries at most
/// let seqs = queue.append(std::slice::from_ref(&transaction)).await?;
/// assert_eq!(queue.append(std::slice::from_ref(&transaction)).await?, seqs, "once for each id");
/// let waiting = queue.load(EntryFilter::Waiting, None, 10, 1 << 20).await?;
/// assert_eq!(waiting[0].transaction.id(), transaction.id());
/// queue.remove(&[transaction.id()]).await?;
/// assert_eq!(queue.size().await?.waiting, 0);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait TransactionQueue: fmt::Debug + Send + Sync + 'static {
    /// Appends in order, all or none, and returns each entry's sequence number once all would
    /// survive a crash. An id that is already there keeps its number and state.
    ///
    /// # Errors
    /// [`StoreErrorKind::Full`](crate::error::StoreErrorKind::Full) when the bound would be
    /// exceeded; nothing was appended.
    async fn append(&self, transactions: &[Transaction]) -> Result<Vec<u64>, StoreError>;

    /// Sets the states of entries, all or none; unknown ids are no error, and of one id that comes
    /// twice the last state counts.
    async fn update(&self, states: &[(TransactionId, EntryState)]) -> Result<(), StoreError>;

    /// Removes entries, all or none; unknown ids are no error.
    async fn remove(&self, ids: &[TransactionId]) -> Result<(), StoreError>;

    /// Entry by id; `None` for an id that is not there.
    async fn get(&self, id: &TransactionId) -> Result<Option<OutboxEntry>, StoreError>;

    /// Entries with a sequence number above `after`, in order: at most `max_entries` and, beyond
    /// the first, at most `max_bytes` of payload. Empty means that there are no more.
    async fn load(
        &self,
        filter: EntryFilter,
        after: Option<u64>,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError>;

    /// The lease that keeps a second node of the process off this outbox; `None`, the default, where
    /// nothing does: then the host must not give the outbox to two nodes at once. A store that wraps
    /// another hands out the lease of that one.
    fn lease(&self) -> Option<&StoreLease> {
        None
    }

    /// True, the default: an operation may wait for something that hangs, such as a disk, and a node
    /// waits no longer than it says above. False for a queue in this process's memory, which is only as
    /// slow as the process itself.
    fn may_hang(&self) -> bool {
        true
    }

    /// Tells the queue how much memory it may hold beside what it was asked for, in bytes: its share of
    /// [`LimitsConfig::memory`](crate::config::LimitsConfig::memory). Called once, when a node starts. The
    /// default does nothing, as a queue that keeps everything in memory must.
    async fn limit_memory(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Number of bytes of memory that the queue holds within that limit, about; 0, the default, where
    /// that is not known. Must not wait.
    fn memory(&self) -> u64 {
        0
    }

    /// Number of entries and the most that fit. Asked once, when a node starts.
    async fn size(&self) -> Result<QueueSize, StoreError>;

    /// Reports whether the queue works again after a failure: asked now and then while nobody
    /// publishes, so that a host that waits for the node to be ready does not wait for ever. `true`
    /// when something was written to find out; `false` when that is not known, which is the
    /// default: the next publish tells.
    ///
    /// # Errors
    /// What keeps it from taking an entry now.
    async fn probe(&self) -> Result<bool, StoreError> {
        Ok(false)
    }
}
