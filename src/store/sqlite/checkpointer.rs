//! Moving a write-ahead log into its file while others go on writing.
//!
//! Left to itself, `SQLite` does so within the commit that made the log long enough, and whoever
//! waits for that commit waits for 16 MiB to be read, written and synced: some 30 ms, in which nobody
//! publishes. Here another connection does it. What was written in the meantime is moved at the end
//! with the writer held back: that is little, and only a log of which nothing is left to move begins
//! anew. Where this falls behind, or there is no runtime, `SQLite` does it as ever, at
//! [`BEHIND`] times the length.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, MutexGuard};

use super::database::Database;

/// How much longer the log may become before a commit has to move it.
pub(super) const BEHIND: u32 = 4;
/// Times that it is moved beside the writer, each time less, before the writer is held back.
const PASSES: usize = 2;

/// The other connection to a file.
#[derive(Debug)]
pub(super) struct Checkpointer {
    options: SqliteConnectOptions,
    /// About as many pages make it worth it.
    enough: u64,
    /// About as many pages were written since.
    grown: AtomicU64,
    moving: AtomicBool,
    connection: Mutex<Moves>,
}

/// What moves.
#[derive(Debug)]
pub(super) enum Moves {
    NotYet,
    With(SqliteConnection),
    Closed,
}

impl Checkpointer {
    pub(super) fn new(options: SqliteConnectOptions, enough: u32) -> Self {
        let connection = Mutex::new(Moves::NotYet);
        let (grown, moving) = (AtomicU64::default(), AtomicBool::default());
        Self { options, enough: u64::from(enough), grown, moving, connection }
    }

    /// Waits for what is being moved, and keeps more from being moved.
    pub(super) async fn hold(&self) -> MutexGuard<'_, Moves> {
        self.connection.lock().await
    }

    /// Before the connection that writes is closed: the last one moves what is left.
    pub(super) async fn close(&self) {
        let mut connection = self.connection.lock().await;
        if let Moves::With(connection) = std::mem::replace(&mut *connection, Moves::Closed) {
            // It has nothing to lose.
            let _ = connection.close().await;
        }
    }

    /// Moves what can be moved now.
    async fn pass(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.connection.lock().await;
        if matches!(*connection, Moves::NotYet) {
            *connection = Moves::With(self.options.connect().await?);
        }
        let Moves::With(connection) = &mut *connection else { return Ok(()) };
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(connection).await.map(drop)
    }
}

impl Database {
    /// Says that about so many pages were written; the log is moved in the background when they are
    /// enough.
    pub(super) fn grew(self: &Arc<Self>, pages: u64) {
        let Some(mover) = self.mover() else { return };
        let grown = mover.grown.fetch_add(pages, Ordering::Relaxed) + pages;
        if grown < mover.enough || mover.moving.swap(true, Ordering::Relaxed) {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let moving = Moving(Arc::clone(self));
                runtime.spawn(async move { moving.0.move_over().await });
            }
            Err(_) => mover.moving.store(false, Ordering::Relaxed),
        }
    }

    async fn move_over(&self) {
        let Some(mover) = self.mover() else { return };
        mover.grown.store(0, Ordering::Relaxed);
        for _ in 0..PASSES {
            if let Err(error) = mover.pass().await {
                // Nothing is lost by it, and it is tried again.
                let file = self.name();
                tracing::debug!(target: "sorcha_peer::store", %file, %error, "the log stays long");
                return;
            }
        }
        let Ok(_held) = self.lock().await else { return };
        let _ = mover.pass().await;
    }
}

/// Ends with the task, however that ends.
struct Moving(Arc<Database>);

impl Drop for Moving {
    fn drop(&mut self) {
        if let Some(mover) = self.0.mover() {
            mover.moving.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::database::tests::SETUP;
    use super::*;

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
        database.move_over().await;
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
        database.move_over().await;
        let (written, moved) = pages(&database).await;
        assert!(moved < written);
        assert_eq!(reading.ask::<i64>(sqlx::query(count)).await.unwrap(), Some(51));
        reading.commit().await.unwrap();
        drop(reading);
        database.move_over().await;
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
        let mut longest = 0;
        for _ in 0..40 {
            write(&database, 50).await;
            // As if they were more.
            database.grew(1000);
            longest = longest.max(pages(&database).await.0);
        }
        // All of it would be 4000 and more; nobody else would move it before.
        assert!(longest < 2000, "{longest}");
    }

    #[tokio::test]
    async fn what_is_being_moved_is_waited_for_when_it_is_closed() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.db");
            let database = open(&path).await;
            write(&database, 20).await;
            database.grew(1000);
            tokio::task::yield_now().await;
            database.close().await;
            assert!(!dir.path().join("x.db-wal").exists(), "the last connection is closed");
            database.grew(1000);
            let again = open(&path).await;
            let count = sqlx::query("SELECT count(*) FROM t");
            assert_eq!(again.lock().await.unwrap().ask::<i64>(count).await.unwrap(), Some(20));
        }
    }
}
