//! Stores in `SQLite` files.

mod database;
mod peers;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::peers::SqlitePeerStore;
use crate::error::{StoreError, StoreErrorKind};
use crate::ports::PeerStore;

/// A directory of `SQLite` files: `peers.db`, and `LOCK`.
///
/// The directory belongs to one process at a time: `LOCK` is locked, by the operating system's
/// advisory lock, for as long as this or any store from it lives. Cloning shares it.
///
/// ```no_run
/// # async fn example() -> Result<(), sorcha_peer::error::StoreError> {
/// use sorcha_peer::store::SqliteStorage;
/// let storage = SqliteStorage::open("data").await?;
/// let (peers, bans) = storage.peer_store().load().await?;
/// storage.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SqliteStorage {
    peers: Arc<SqlitePeerStore>,
    lock: Arc<DirLock>,
}

impl SqliteStorage {
    /// Opens the files of `dir`, or makes them and the directory. Must be called inside a tokio
    /// runtime, which has to live as long as the stores are used.
    ///
    /// Cancel safe: a dropped future leaves files that the next call opens.
    ///
    /// # Errors
    /// [`StoreErrorKind::Locked`] while another holds the directory, [`StoreErrorKind::Corrupt`]
    /// or [`StoreErrorKind::Version`] for a file that is damaged or newer than this crate (it is
    /// left as it is), [`StoreErrorKind::Full`], and [`StoreErrorKind::Io`] for all else.
    pub async fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let dir = dir.as_ref();
        let lock = Arc::new(DirLock::acquire(dir)?);
        let peers = SqlitePeerStore::open(&dir.join("peers.db"), Arc::clone(&lock)).await?;
        Ok(Self { peers: Arc::new(peers), lock })
    }

    /// The store of peers and bans.
    pub fn peer_store(&self) -> Arc<dyn PeerStore> {
        Arc::clone(&self.peers) as Arc<dyn PeerStore>
    }

    /// Waits for operations under way, closes the files and gives the directory free. Whatever is
    /// asked of the stores afterwards is [`StoreErrorKind::Closed`]. Without it the same happens,
    /// a moment later, when the last store is dropped.
    ///
    /// Cancel safe; calling it again is no error.
    pub async fn close(&self) {
        self.peers.close().await;
        self.lock.release();
    }
}

/// Holds a directory; gives it free when dropped.
#[derive(Debug)]
struct DirLock {
    file: File,
    path: PathBuf,
}

impl DirLock {
    fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("LOCK");
        let io = |what: &str, e: std::io::Error| {
            let kind = match e.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    StoreErrorKind::Full
                }
                _ => StoreErrorKind::Io,
            };
            StoreError::with_source(kind, format!("cannot {what} {}", path.display()), e)
        };
        fs::create_dir_all(dir).map_err(|e| io("make the directory of", e))?;
        // The file stays when the lock is given free: removing it would race with the next owner.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(|e| io("open", e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => {
                let message = format!("{} is in use by another process or node", dir.display());
                Err(StoreError::new(StoreErrorKind::Locked, message))
            }
            Err(TryLockError::Error(e)) => Err(io("lock", e)),
        }
    }

    fn release(&self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "cannot unlock");
        }
    }
}
