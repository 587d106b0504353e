//! Stores in `SQLite` files.

mod bulk_insert;
mod checkpointer;
mod codec;
mod database;
mod dir_lock;
mod error;
mod log;
mod peers;
mod private_files;
mod query;
mod queue;
mod slices;
mod tombstones;

use std::fs;
use std::path::{self, Path};
use std::sync::Arc;
use std::time::Duration;

use self::dir_lock::DirLock;
use self::log::{Limits, SqliteLog};
use self::peers::SqlitePeerStore;
use self::queue::SqliteQueue;
use crate::error::{StoreError, StoreErrorKind};
use crate::ports::{PeerStore, Storage, TransactionQueue, TransactionStore};

/// The files, in the order in which they are made.
const FILES: [&str; 3] = ["peers.db", "tx_queue.db", "transactions.db"];
/// Maximum number of bytes of the path of a file, with symbolic links resolved: what `SQLite` is built
/// for on Unix, less the end that it gives to the name of a journal.
const MAX_PATH_BYTES: usize = 512 - "-journal".len();

/// Bounds of a [`SqliteStorage`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// Own transactions in the outbox at most, waiting and dead together. Default 101,000, of which
    /// a node uses what its `outbox.max_entries` says and keeps the rest, at least a hundredth, for
    /// what it publishes anew.
    pub max_queue_entries: u64,
    /// Bytes of headers and payloads in the log at most; beyond them transactions are refused
    /// until old ones expire. Default 16 GiB. The file is about a fifth larger.
    pub max_log_bytes: u64,
    /// Transactions that may go within one such span go together, at its end. Default 5 minutes, at
    /// least 1 ms. Of what is short beside the retention, later spans become longer: there are 512
    /// at most.
    pub generation: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            max_queue_entries: 101_000,
            max_log_bytes: 16 << 30,
            generation: Duration::from_mins(5),
        }
    }
}

impl SqliteOptions {
    /// Sets [`SqliteOptions::max_queue_entries`].
    #[must_use]
    pub fn max_queue_entries(mut self, entries: u64) -> Self {
        self.max_queue_entries = entries;
        self
    }

    /// Sets [`SqliteOptions::max_log_bytes`].
    #[must_use]
    pub fn max_log_bytes(mut self, bytes: u64) -> Self {
        self.max_log_bytes = bytes;
        self
    }

    /// Sets [`SqliteOptions::generation`].
    #[must_use]
    pub fn generation(mut self, span: Duration) -> Self {
        self.generation = span;
        self
    }
}

/// A directory of `SQLite` files: `peers.db`, `tx_queue.db` (the outbox), `transactions.db` (the
/// retained log), `tx_queue.gone` (64 KiB, in which it is noted what left the outbox on a full
/// disk), and `LOCK`.
///
/// The directory belongs to one process at a time: `LOCK` is locked, by the operating system's
/// advisory lock, for as long as this or any store from it lives. Cloning shares it, and one node
/// at a time can be started on it.
///
/// On Unix, what is made has mode 0600, and a directory 0700, whatever the umask is. What is there
/// already keeps its mode; where other users can read it, a warning says so.
///
/// No hard links are needed. The file system has to have locks (`flock`, and those of `fcntl` for
/// `SQLite`), shared mappings and `fsync`; one that lacks them is refused with what it said.
///
/// While they are open, and after a crash, part of what is in a file stands in a second one beside
/// it, with `-wal` at the end of its name. Copy, move or delete the two together only: `SQLite`
/// cannot tell that one is missing, and what it held is gone.
///
/// A payload of more than 256 KiB stands in slices of its own rows, so that writing and reading it take
/// memory for a few slices and not for several copies of it. The node tells the files how much memory
/// they may take for pages: their share of
/// [`LimitsConfig::memory`](crate::config::LimitsConfig::memory).
///
/// ```no_run
/// # async fn example() -> Result<(), sorcha_peer::error::StoreError> {
/// use sorcha_peer::SqliteStorage;
/// let storage = SqliteStorage::open("data").await?;
/// let (peers, bans) = storage.peer_store().load().await?;
/// let used = storage.transaction_store().usage().await?;
/// storage.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SqliteStorage {
    peers: Arc<SqlitePeerStore>,
    queue: Arc<SqliteQueue>,
    log: Arc<SqliteLog>,
    lock: Arc<DirLock>,
}

impl From<SqliteStorage> for Storage {
    fn from(storage: SqliteStorage) -> Self {
        Self {
            peers: Some(storage.peer_store()),
            queue: Some(storage.queue()),
            transactions: Some(storage.transaction_store()),
        }
    }
}

impl SqliteStorage {
    /// Opens the files of `dir`, or makes them and the directory. Must be called inside a tokio
    /// runtime, which has to live as long as the stores are used.
    ///
    /// Files up to 64 MiB are checked whole. In larger ones damage is found where it is read: every
    /// transaction is checked against its hash, and the index, which is read whole here, against
    /// checksums.
    ///
    /// Cancel safe: a dropped future leaves files that the next call opens.
    ///
    /// # Errors
    /// By [kind](crate::error::StoreErrorKind): `Locked` while another holds the directory,
    /// `Corrupt` or `Version` for a file that is damaged or newer than this crate (nothing of it is
    /// changed or lost; where the damage is deep inside, `SQLite` may have moved what its `-wal`
    /// held into it), `Full`, and `Io` for all else, also for a path of more than 488 bytes (with
    /// symbolic links resolved; Unix), which `SQLite` cannot open.
    pub async fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(dir, SqliteOptions::default()).await
    }

    /// Opens as [`SqliteStorage::open`], with other bounds. Bounds may change from run to run; what
    /// is there already stays.
    ///
    /// # Errors
    /// As [`SqliteStorage::open`].
    pub async fn open_with(
        dir: impl AsRef<Path>,
        options: SqliteOptions,
    ) -> Result<Self, StoreError> {
        let dir = dir.as_ref();
        check_path(dir)?;
        let lock = Arc::new(DirLock::acquire(dir)?);
        private_files::warn_of_readers(dir, &FILES);
        whole(dir, lock.is_complete())?;
        if FILES.iter().any(|file| !dir.join(file).exists()) {
            lock.note_complete(false);
        }
        let share = || Arc::clone(&lock);
        let limits = Limits { max_bytes: options.max_log_bytes, generation: options.generation };
        let entries = options.max_queue_entries;
        let peers = SqlitePeerStore::open(&dir.join(FILES[0]), share()).await?;
        let queue = SqliteQueue::open(&dir.join(FILES[1]), entries, share()).await?;
        let log = SqliteLog::open(&dir.join(FILES[2]), limits, share()).await?;
        lock.note_complete(true);
        Ok(Self { peers: Arc::new(peers), queue: Arc::new(queue), log: Arc::new(log), lock })
    }

    /// The store of peers and bans.
    pub fn peer_store(&self) -> Arc<dyn PeerStore> {
        Arc::clone(&self.peers) as Arc<dyn PeerStore>
    }

    /// Returns the outbox, whose appends survive a power failure.
    pub fn queue(&self) -> Arc<dyn TransactionQueue> {
        Arc::clone(&self.queue) as Arc<dyn TransactionQueue>
    }

    /// Returns the retained log, whose appends survive the death of the process; a power failure
    /// may take the last of them, which are in the outbox or at peers.
    pub fn transaction_store(&self) -> Arc<dyn TransactionStore> {
        Arc::clone(&self.log) as Arc<dyn TransactionStore>
    }

    /// Waits for operations under way, closes the files and gives the directory free. Whatever is
    /// asked of the stores afterwards is
    /// [`StoreErrorKind::Closed`](crate::error::StoreErrorKind::Closed). Without it the same
    /// happens, a moment later, when the last store is dropped.
    ///
    /// Cancel safe; calling it again is no error.
    pub async fn close(&self) {
        self.peers.close().await;
        self.queue.close().await;
        self.log.close().await;
        self.lock.release();
    }
}

/// Refuses a directory whose files `SQLite` could not open for the length of their names.
fn check_path(dir: &Path) -> Result<(), StoreError> {
    let full = fs::canonicalize(dir).or_else(|_| path::absolute(dir));
    let longest = FILES.map(str::len).into_iter().max().unwrap_or_default() + 1;
    let max = MAX_PATH_BYTES - longest;
    match full.map(|full| full.as_os_str().len()) {
        Ok(length) if cfg!(unix) && length > max => {
            let message = format!(
                "the path of the data directory has {length} bytes, SQLite takes at most {max}: {}",
                dir.display()
            );
            Err(StoreError::new(StoreErrorKind::Io, message))
        }
        _ => Ok(()),
    }
}

/// An empty file was just made, or cut short. Where all were there, or one that is made after it
/// has something in it, it was cut short, and accepted transactions may have been in it.
fn whole(dir: &Path, is_complete: bool) -> Result<(), StoreError> {
    let size = |file: &&str| fs::metadata(dir.join(file)).map(|found| found.len());
    for (at, file) in FILES.iter().enumerate() {
        let empty = size(file).is_ok_and(|size| size == 0);
        let has_later = || FILES[at..].iter().any(|file| size(file).is_ok_and(|size| size > 0));
        if empty && (is_complete || has_later()) {
            return Err(error::damaged(&dir.join(file).display().to_string(), "it is empty"));
        }
    }
    Ok(())
}
