//! The lock on a directory of stores: one process at a time.

use std::fs::{File, TryLockError};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use super::private_files;
use crate::error::{StoreError, StoreErrorKind};

/// Holds a directory; gives it free when dropped.
#[derive(Debug)]
pub(super) struct DirLock {
    file: File,
    path: PathBuf,
}

impl DirLock {
    pub(super) fn acquire(dir: &Path) -> Result<Self, StoreError> {
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
        private_files::make_dir(dir).map_err(|e| io("make the directory of", e))?;
        // The file stays when the lock is given free: removing it would race with the next owner.
        let mut options = private_files::options();
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

    /// Reports whether every file was there when the directory was last opened.
    pub(super) fn is_complete(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.len() > 0)
    }

    /// Without it the last file may be taken for a new one when it is cut short.
    pub(super) fn note_complete(&self, is_complete: bool) {
        if self.is_complete() == is_complete {
            return;
        }
        let note: &[u8] = if is_complete { b"complete\n" } else { b"" };
        let noted = self.file.set_len(0).and_then(|()| (&self.file).rewind());
        if let Err(error) = noted.and_then(|()| (&self.file).write_all(note)) {
            tracing::warn!(path = %self.path.display(), %error, "cannot be written");
        }
    }

    pub(super) fn release(&self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "cannot unlock");
        }
    }
}

impl Drop for DirLock {
    /// Unlocks, and leaves that not to the closing of the file: a child process that is being started
    /// has the file open too until it runs its program, and would hold the directory for so long.
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_lock_is_free_also_while_a_child_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let of_a_child = lock.file.try_clone().unwrap();
        let held = DirLock::acquire(dir.path()).unwrap_err();
        assert_eq!(held.kind, StoreErrorKind::Locked);
        drop(lock);
        DirLock::acquire(dir.path()).expect("nobody uses it");
        drop(of_a_child);
    }
}
