//! Entries of the outbox that are gone although their rows are still there.
//!
//! To take a row out of a database needs room in its write-ahead log. On a full disk there may be
//! none, and a publish that was refused after its row had been written would be delivered by the
//! next process. So a small file beside the outbox, which takes its room while there is some, says
//! which rows do not count. A row is named by its number and the key of its id: numbers are not
//! used again, so what the file says of rows that went since, or by damage, names nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::private_files;

/// Maximum number of rows: many times those of one commit.
const MAX_ROWS: usize = 4096;
/// Number of bytes for a row: number and key, little-endian. Numbers begin at 1.
const ROW_BYTES: usize = 16;

/// Rows that do not count.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    path: PathBuf,
    /// Keys by number.
    rows: BTreeMap<u64, u64>,
}

impl Tombstones {
    /// Reads what the file says, and makes it where there is none. Where that fails the disk may be
    /// full, and [`Tombstones::add`] will say so.
    pub(super) fn open(path: PathBuf) -> Self {
        let mut bytes = Vec::new();
        let most = (MAX_ROWS * ROW_BYTES) as u64;
        let read = File::open(&path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        let rows = bytes.chunks_exact(ROW_BYTES).map(|row| row.split_at(ROW_BYTES / 2));
        let rows = rows.map(|(seq, key)| (number(seq), number(key))).filter(|(seq, _)| *seq > 0);
        let tombstones = Self { path, rows: rows.collect() };
        if !read.is_ok_and(|length| length as u64 == most) {
            tombstones.write_or_warn(&tombstones.rows);
        }
        tombstones
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn has(&self, seq: u64) -> bool {
        self.rows.contains_key(&seq)
    }

    pub(super) fn names(&self, seq: u64, key: u64) -> bool {
        self.rows.get(&seq) == Some(&key)
    }

    pub(super) fn seqs(&self) -> Vec<u64> {
        self.rows.keys().copied().collect()
    }

    /// Forgets what names no row.
    pub(super) fn retain(&mut self, is_there: impl Fn(u64) -> bool) {
        self.rows.retain(|seq, _| is_there(*seq));
    }

    /// Says of more rows that they are gone, also after a power failure; or nothing of any of them.
    pub(super) fn add(&mut self, rows: impl Iterator<Item = (u64, u64)>) -> io::Result<()> {
        let mut all = self.rows.clone();
        all.extend(rows);
        if all.len() > MAX_ROWS {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Err(error) = self.write(&all) {
            // Part of it may have been written.
            self.write_or_warn(&self.rows);
            return Err(error);
        }
        self.rows = all;
        Ok(())
    }

    /// Forgets all rows: they went out of the database for good.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.write_or_warn(&self.rows);
    }

    fn write_or_warn(&self, rows: &BTreeMap<u64, u64>) {
        if let Err(error) = self.write(rows) {
            let path = self.path.display();
            tracing::warn!(target: "sorcha_peer::store", %path, %error, "cannot be written");
        }
    }

    /// Milliseconds at most, and hardly ever: not worth another thread.
    fn write(&self, rows: &BTreeMap<u64, u64>) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(MAX_ROWS * ROW_BYTES);
        for (seq, key) in rows {
            bytes.extend(seq.to_le_bytes());
            bytes.extend(key.to_le_bytes());
        }
        // Always as long, in the room that it has.
        bytes.resize(MAX_ROWS * ROW_BYTES, 0);
        let mut options = private_files::options();
        let mut file = options.write(true).create(true).truncate(false).open(&self.path)?;
        file.write_all(&bytes)?;
        file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_again_and_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone");
        let mut tombstones = Tombstones::open(path.clone());
        assert!(tombstones.is_empty());
        let size = std::fs::metadata(&path).unwrap().len();
        tombstones.add([(3, 7), (u64::MAX, 0)].into_iter()).unwrap();
        tombstones.add(std::iter::once((4, 8))).unwrap();
        let mut again = Tombstones::open(path.clone());
        assert_eq!(again.seqs(), [3, 4, u64::MAX]);
        assert!(again.names(3, 7) && !again.names(3, 8) && !again.names(5, 7));
        assert!(again.add((10..).map(|n| (n, n)).take(MAX_ROWS)).is_err());
        assert_eq!(again.len(), 3, "all or none");
        again.clear();
        assert!(Tombstones::open(path.clone()).is_empty());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size, "it takes its room once");
    }

    #[test]
    fn what_cannot_be_written_is_not_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut tombstones = Tombstones::open(dir.path().join("no").join("gone"));
        assert!(tombstones.add(std::iter::once((1, 1))).is_err());
        assert!(tombstones.is_empty());
    }
}
