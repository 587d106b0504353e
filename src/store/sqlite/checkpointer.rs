//! Moving a write-ahead log into its file while others go on writing.
//!
//! Left to itself, `SQLite` does so within the commit that made the log long enough, and whoever
//! waits for that commit waits for 16 MiB to be read, written and synced: some 30 ms, in which
//! nobody publishes. Here another connection does it. What was written in the meantime is moved at
//! the end with the writer held back: that is little, and only a log of which nothing is left to
//! move begins anew. Where the checkpointer is overtaken, or there is no runtime, `SQLite` moves
//! the log as ever, at [`AUTOMATIC`] times the length.
//!
//! The connection is the checkpointer's; when to move, and the writer, are the
//! [`Database`](super::database::Database)'s.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, MutexGuard};

/// Number of times the usual length at which a commit has to move the log.
pub(super) const AUTOMATIC: u32 = 4;

/// The second connection to a file, and how much there is to move.
#[derive(Debug)]
pub(super) struct Checkpointer {
    options: SqliteConnectOptions,
    /// Number of pages, roughly, that make a checkpoint worth it.
    enough: u64,
    /// Number of pages, roughly, that were written since the last checkpoint began.
    written: AtomicU64,
    running: AtomicBool,
    connection: Mutex<Lazy>,
}

/// A connection that is opened when it is first needed.
#[derive(Debug)]
pub(super) enum Lazy {
    Unopened,
    Open(SqliteConnection),
    Closed,
}

impl Checkpointer {
    pub(super) fn new(options: SqliteConnectOptions, enough: u32) -> Self {
        Self {
            // It reads the log past the cache.
            options: options.pragma("cache_size", "-64"),
            enough: u64::from(enough),
            written: AtomicU64::default(),
            running: AtomicBool::default(),
            connection: Mutex::new(Lazy::Unopened),
        }
    }

    /// Counts written pages. `true` when they are enough and no checkpoint runs: one is to be run
    /// now, and [`Checkpointer::end`] to be called after it.
    pub(super) fn note_written(&self, pages: u64) -> bool {
        let written = self.written.fetch_add(pages, Ordering::Relaxed).saturating_add(pages);
        written >= self.enough && !self.running.swap(true, Ordering::Relaxed)
    }

    /// Begins a checkpoint: what is written from now on counts for the next one.
    pub(super) fn begin(&self) {
        self.written.store(0, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.running.store(false, Ordering::Relaxed);
    }

    /// Moves what can be moved now.
    pub(super) async fn pass(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.connection.lock().await;
        if matches!(*connection, Lazy::Unopened) {
            *connection = Lazy::Open(self.options.connect().await?);
        }
        let Lazy::Open(connection) = &mut *connection else { return Ok(()) };
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(connection).await.map(drop)
    }

    /// Waits for what is being moved, and keeps more from being moved.
    pub(super) async fn pause(&self) -> MutexGuard<'_, Lazy> {
        self.connection.lock().await
    }

    /// Closes the connection, before the one that writes is closed: the last one moves what is
    /// left.
    pub(super) async fn close(&self) {
        let mut connection = self.connection.lock().await;
        if let Lazy::Open(connection) = std::mem::replace(&mut *connection, Lazy::Closed) {
            // It has nothing to lose.
            let _ = connection.close().await;
        }
    }

    #[cfg(test)]
    fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::database::Database;
    use super::super::database::tests::SETUP;

    const TABLE: &str = "CREATE TABLE t (n INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT";

    async fn open(path: &Path) -> Arc<Database> {
        Arc::new(Database::open(path, &[TABLE], SETUP).await.unwrap())
    }

    async fn write(database: &Database, count: usize) {
        for _ in 0..count {
            let row = sqlx::query("INSERT INTO t (bytes) VALUES (zeroblob(5000))");
            database.lock().await.unwrap().execute(row).await.unwrap();
        }
    }

    /// Pages in the write-ahead log, and how many of them are in the file too.
    async fn pages(database: &Database) -> (i64, i64) {
        use sqlx::Row;
        let ask = sqlx::query("PRAGMA wal_checkpoint(NOOP)");
        let row = database.lock().await.unwrap().fetch_all(ask).await.unwrap().remove(0);
        (row.get(1), row.get(2))
    }

    #[tokio::test]
    async fn the_log_begins_anew_once_it_is_moved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let database = open(&path).await;
        write(&database, 50).await;
        let (written, moved) = pages(&database).await;
        assert!(written > 100 && moved == 0, "{written} {moved}");
        database.checkpoint().await;
        assert_eq!(pages(&database).await, (written, written));
        write(&database, 1).await;
        assert!(pages(&database).await.0 < 10, "from the beginning");

        // Whoever reads keeps what it sees, and the next time it goes on.
        let reader = Database::open_reader(&path, SETUP).await.unwrap();
        let mut reading = reader.lock().await.unwrap();
        reading.begin_reading().await.unwrap();
        let count = "SELECT count(*) FROM t";
        assert_eq!(reading.ask::<i64>(sqlx::query(count)).await.unwrap(), Some(51));
        write(&database, 50).await;
        database.checkpoint().await;
        let (written, moved) = pages(&database).await;
        assert!(moved < written);
        assert_eq!(reading.ask::<i64>(sqlx::query(count)).await.unwrap(), Some(51));
        reading.commit().await.unwrap();
        drop(reading);
        database.checkpoint().await;
        assert_eq!(pages(&database).await, (written, written));
        reader.close().await;
        database.close().await;
        let again = open(&path).await;
        let all = again.lock().await.unwrap().ask::<i64>(sqlx::query(count)).await;
        assert_eq!(all.unwrap(), Some(101));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_writes_much_has_a_short_log() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir.path().join("x.db")).await;
        let checkpointer = database.checkpointer().unwrap();
        let mut longest = 0;
        for _ in 0..40 {
            write(&database, 50).await;
            // As if they were more: a checkpoint begins, unless one is still running.
            database.note_written(1000);
            write(&database, 10).await;
            longest = longest.max(pages(&database).await.0);
            // However slow the machine is: what is looked at is the length, not the speed.
            while checkpointer.is_running() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        // All of it would be 4000 and more; nobody else would move it before.
        assert!(longest < 1000, "{longest}");
    }

    #[tokio::test]
    async fn what_is_being_moved_is_waited_for_when_it_is_closed() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.db");
            let database = open(&path).await;
            write(&database, 20).await;
            database.note_written(1000);
            tokio::task::yield_now().await;
            database.close().await;
            assert!(!dir.path().join("x.db-wal").exists(), "the last connection is closed");
            database.note_written(1000);
            let again = open(&path).await;
            let count = sqlx::query("SELECT count(*) FROM t");
            assert_eq!(again.lock().await.unwrap().ask::<i64>(count).await.unwrap(), Some(20));
        }
    }
}
