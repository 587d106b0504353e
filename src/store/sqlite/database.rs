//! One connection to one `SQLite` file: opening it with care, bringing the file up to date, whole
//! transactions.
//!
//! A connection is used by one operation at a time. A transaction whose operation failed or was
//! dropped half-way is undone before the next one begins.
//!
//! A commit whose sync fails has failed, but all of it may stand in the write-ahead log, where the
//! next process would take it for done. So it is written over before anybody is told
//! ([`ConnectionGuard::overwrite_failed_commit`]).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Sqlite};
use tokio::sync::{Mutex, MutexGuard};

use super::bulk_insert::BulkInsert;
use super::checkpointer::{AUTOMATIC, Checkpointer};
use super::error::{damaged, explain};
use super::private_files;
use super::query::Query;
use crate::error::{StoreError, StoreErrorKind};

/// Mark of a file of ours: "SORC".
const APPLICATION_ID: i64 = 0x534f_5243;
/// Maximum time to wait for another process that has the file locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Number of rows that the thread of a connection gets ahead of who reads them. All of an answer
/// are read in any case, and with fewer the two wait for each other many times.
const READ_AHEAD_ROWS: usize = 1024;
/// Maximum number of bytes of a file that is checked whole when it is opened. What is larger would
/// keep a host waiting for seconds: there, damage is noticed where it is read, by hashes.
const MAX_CHECKED_BYTES: i64 = 64 << 20;
/// Number of passes beside the writer, each with less to move, before the writer is held back.
const CHECKPOINT_PASSES: usize = 2;

/// Settings of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    /// Setting that says whether a commit survives a power failure, or only the death of the
    /// process.
    pub(super) synchronous: SqliteSynchronous,
    /// Bytes in a page of a file that is made new.
    pub(super) page_size: u32,
    /// Memory for pages, in KiB.
    pub(super) cache_kib: u32,
    /// Pages in the write-ahead log before they are moved to the file, in the background where the
    /// store says how many it writes.
    pub(super) checkpoint_pages: u32,
}

impl Setup {
    fn options(self, path: &Path) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(path)
            .page_size(self.page_size)
            .synchronous(self.synchronous)
            .busy_timeout(BUSY_TIMEOUT)
            .row_buffer_size(READ_AHEAD_ROWS)
            .pragma("cache_size", format!("-{}", self.cache_kib))
            .pragma("wal_autocheckpoint", (AUTOMATIC * self.checkpoint_pages).to_string())
            .pragma("journal_size_limit", "67108864")
            .disable_statement_logging()
    }
}

/// One connection to a file.
#[derive(Debug)]
pub(super) struct Database {
    /// `None` once it is closed.
    connection: Mutex<Option<OpenConnection>>,
    name: Arc<str>,
    /// Present for a file that is written.
    checkpointer: Option<Checkpointer>,
}

#[derive(Debug)]
struct OpenConnection {
    connection: SqliteConnection,
    /// A transaction was begun and not ended.
    in_transaction: bool,
    /// A sync may have failed: what was written before it may never reach the disk, and no later
    /// sync would say so.
    sync_failed: bool,
}

impl Database {
    /// Opens or makes the file at `path` and runs the `migrations` that it has not seen. The
    /// version of a file is the number of its migrations. A file that is refused is not changed,
    /// nor is its write-ahead log.
    pub(super) async fn open(
        path: &Path,
        migrations: &[&'static str],
        setup: Setup,
    ) -> Result<Self, StoreError> {
        let known = Self::look(path, migrations.len(), setup).await?;
        let options = setup.options(path);
        private_files::make_database(path);
        let mut database = Self::connect(path, options.clone().create_if_missing(true)).await?;
        database.checkpointer = Some(Checkpointer::new(options, setup.checkpoint_pages));
        let prepared = async { database.lock().await?.prepare(migrations, known).await };
        match prepared.await {
            Ok(()) => Ok(database),
            Err(error) => {
                database.close().await;
                Err(error)
            }
        }
    }

    /// A connection that only reads a file which another one of ours keeps open.
    pub(super) async fn open_reader(path: &Path, setup: Setup) -> Result<Self, StoreError> {
        Self::connect(path, setup.options(path).read_only(true)).await
    }

    /// The version of a file that is ours and whole; `None` where there is none to look at. One
    /// that may write must not look: it would move the write-ahead log into the file when it is
    /// closed, damaged or not.
    async fn look(path: &Path, newest: usize, setup: Setup) -> Result<Option<usize>, StoreError> {
        let size = |end: &str| {
            let mut path = path.as_os_str().to_owned();
            path.push(end);
            fs::metadata(path).map_or(0, |found| found.len())
        };
        if size("") == 0 {
            // `SQLite` would throw the log away. It is never there before the file has a page.
            return match size("-wal") {
                0 => Ok(None),
                _ => Err(damaged(&path.display().to_string(), "there is only its -wal")),
            };
        }
        if size("-journal") > 0 {
            // Its making was broken off, and that has to be undone first.
            return Ok(None);
        }
        let reader = Self::open_reader(path, setup).await?;
        let version = async { reader.lock().await?.inspect(newest).await }.await;
        reader.close().await;
        version.map(Some)
    }

    async fn connect(path: &Path, options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let name: Arc<str> = path.display().to_string().into();
        let connection = options.connect().await.map_err(|e| explain(&name, e))?;
        let connection = Mutex::new(Some(OpenConnection {
            connection,
            in_transaction: false,
            sync_failed: false,
        }));
        Ok(Self { connection, name, checkpointer: None })
    }

    /// The connection, for one operation, with no transaction open.
    pub(super) async fn lock(&self) -> Result<ConnectionGuard<'_>, StoreError> {
        let guard = self.connection.lock().await;
        if guard.is_none() {
            let message = format!("{} was closed", self.name);
            return Err(StoreError::new(StoreErrorKind::Closed, message));
        }
        let mut conn =
            ConnectionGuard { guard, name: &self.name, checkpointer: self.checkpointer.as_ref() };
        conn.roll_back().await;
        Ok(conn)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Undoes what a dropped operation left behind, unless another one is under way: an old
    /// snapshot would keep the write-ahead log from ever beginning anew.
    pub(super) async fn end_dropped_operation(&self) {
        let Ok(guard) = self.connection.try_lock() else { return };
        ConnectionGuard { guard, name: &self.name, checkpointer: None }.roll_back().await;
    }

    /// Sets the memory for pages, in KiB.
    pub(super) async fn set_cache(&self, kib: u32) {
        if let Ok(mut conn) = self.lock().await
            && let Err(error) = conn.execute_raw(format!("PRAGMA cache_size = -{kib}")).await
        {
            tracing::warn!(target: "sorcha_peer::store", %error, "the page cache keeps its size");
        }
    }

    /// Checkpointer of the write-ahead log; `None` where the file is only read.
    #[cfg(test)]
    pub(super) fn checkpointer(&self) -> Option<&Checkpointer> {
        self.checkpointer.as_ref()
    }

    /// Says that about so many pages were written; the write-ahead log is moved in the background
    /// when they are enough.
    pub(super) fn note_written(self: &Arc<Self>, pages: u64) {
        let Some(checkpointer) = &self.checkpointer else { return };
        if !checkpointer.note_written(pages) {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let running = Running(Arc::clone(self));
                runtime.spawn(async move { running.0.checkpoint().await });
            }
            Err(_) => checkpointer.end(),
        }
    }

    /// Moves the write-ahead log into the file, the rest with the writer held back.
    pub(super) async fn checkpoint(&self) {
        let Some(checkpointer) = &self.checkpointer else { return };
        checkpointer.begin();
        for _ in 0..CHECKPOINT_PASSES {
            if let Err(error) = checkpointer.pass().await {
                // Nothing is lost by it, and it is tried again.
                let file = self.name();
                tracing::debug!(target: "sorcha_peer::store", %file, %error, "the log stays long");
                return;
            }
        }
        let Ok(_writer) = self.lock().await else { return };
        let _ = checkpointer.pass().await;
    }

    /// Waits for the operation under way, then closes.
    pub(super) async fn close(&self) {
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.close().await;
        }
        if let Some(connection) = self.connection.lock().await.take()
            && let Err(error) = connection.connection.close().await
        {
            tracing::warn!(target: "sorcha_peer::store", file = %self.name, %error, "cannot close");
        }
    }
}

/// A checkpoint under way, which ends with its task, however that ends.
struct Running(Arc<Database>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(checkpointer) = &self.0.checkpointer {
            checkpointer.end();
        }
    }
}

/// A connection while one operation has it.
#[derive(Debug)]
pub(super) struct ConnectionGuard<'a> {
    guard: MutexGuard<'a, Option<OpenConnection>>,
    name: &'a str,
    checkpointer: Option<&'a Checkpointer>,
}

impl ConnectionGuard<'_> {
    pub(super) fn name(&self) -> &str {
        self.name
    }

    fn connection(&mut self) -> Result<&mut OpenConnection, StoreError> {
        self.guard.as_mut().ok_or_else(|| explain(self.name, sqlx::Error::PoolClosed))
    }

    /// Begins a transaction that may write.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        self.connection()?.in_transaction = true;
        self.run("BEGIN IMMEDIATE").await
    }

    /// Begins a transaction that reads one state of the file.
    pub(super) async fn begin_reading(&mut self) -> Result<(), StoreError> {
        self.connection()?.in_transaction = true;
        self.run("BEGIN").await
    }

    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        self.run("COMMIT").await?;
        self.connection()?.in_transaction = false;
        Ok(())
    }

    /// Undoes what an earlier operation left behind.
    pub(super) async fn roll_back(&mut self) {
        let Ok(connection) = self.connection() else { return };
        if connection.in_transaction {
            // An error only says that `SQLite` has undone it already.
            let _ = sqlx::query("ROLLBACK").execute(&mut connection.connection).await;
            connection.in_transaction = false;
        }
    }

    /// Ends a change that may have been written whole and was not accepted: the next commit stands
    /// where it stood, and so does this one, which needs no sync. Leaves the connection with
    /// `synchronous = FULL`. For files with a table `meta`.
    pub(super) async fn overwrite_failed_commit(&mut self) {
        self.roll_back().await;
        let over = "PRAGMA synchronous = OFF; INSERT INTO meta VALUES ('failures', 1) \
                    ON CONFLICT DO UPDATE SET value = value + 1";
        // Where nothing can be written, the failed change most likely was not either.
        if let Err(error) = self.execute_raw(over.to_owned()).await {
            tracing::warn!(target: "sorcha_peer::store", %error, "a failed change may come back");
        }
        let _ = self.execute_raw("PRAGMA synchronous = FULL".to_owned()).await;
        if let Ok(connection) = self.connection() {
            connection.sync_failed = true;
        }
    }

    /// After a failed sync, moves everything that counts to the file and begins a new write-ahead
    /// log: whatever is accepted afterwards does not stand behind something that the disk lost.
    pub(super) async fn restart_wal(&mut self) -> Result<(), StoreError> {
        if !self.connection()?.sync_failed {
            return Ok(());
        }
        let _paused = match self.checkpointer {
            Some(checkpointer) => Some(checkpointer.pause().await),
            None => None,
        };
        let busy: Option<i64> = self.ask(sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")).await?;
        if busy != Some(0) {
            let message = format!("{} is being read by another process", self.name);
            return Err(StoreError::new(StoreErrorKind::Locked, message));
        }
        self.connection()?.sync_failed = false;
        Ok(())
    }

    /// Says that what follows begins and ends a transaction by itself, in one go.
    pub(super) fn set_in_transaction(&mut self, is_open: bool) -> Result<(), StoreError> {
        self.connection()?.in_transaction = is_open;
        Ok(())
    }

    /// Does everything that a bulk insert says, or nothing.
    pub(super) async fn run_bulk(&mut self, bulk: BulkInsert) -> Result<(), StoreError> {
        let Some(query) = bulk.into_query(true) else { return Ok(()) };
        self.set_in_transaction(true)?;
        self.execute(query).await?;
        self.set_in_transaction(false)
    }

    /// Does what a bulk insert says as a part of the transaction under way.
    pub(super) async fn run_bulk_within(&mut self, bulk: BulkInsert) -> Result<(), StoreError> {
        let Some(query) = bulk.into_query(false) else { return Ok(()) };
        self.execute(query).await
    }

    pub(super) async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        self.execute(sqlx::query(sql)).await
    }

    pub(super) async fn execute(&mut self, query: Query<'_>) -> Result<(), StoreError> {
        self.change(query).await.map(drop)
    }

    /// Runs a statement; the number of rows that it changed.
    pub(super) async fn change(&mut self, query: Query<'_>) -> Result<u64, StoreError> {
        let name = self.name;
        let done = query.execute(&mut self.connection()?.connection).await;
        done.map(|done| done.rows_affected()).map_err(|e| explain(name, e))
    }

    /// Runs statements that are not worth keeping, or that `SQLite` carries out while it prepares
    /// them (as `PRAGMA synchronous`), one after another.
    pub(super) async fn execute_raw(&mut self, sql: String) -> Result<(), StoreError> {
        let name = self.name;
        let connection = &mut self.connection()?.connection;
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
        done.map(drop).map_err(|e| explain(name, e))
    }

    /// Runs statements as [`ConnectionGuard::execute_raw`] does: the number in the only row that
    /// comes of them.
    pub(super) async fn ask_raw(&mut self, sql: String) -> Result<Option<i64>, StoreError> {
        use sqlx::Row;
        let name = self.name;
        let connection = &mut self.connection()?.connection;
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await;
        let number = row.and_then(|rows| rows.first().map(|row| row.try_get(0)).transpose());
        number.map_err(|e| explain(name, e))
    }

    pub(super) async fn fetch_all(
        &mut self,
        query: Query<'_>,
    ) -> Result<Vec<SqliteRow>, StoreError> {
        let name = self.name;
        query.fetch_all(&mut self.connection()?.connection).await.map_err(|e| explain(name, e))
    }

    /// One value of one row; `None` for no row.
    pub(super) async fn ask<T>(&mut self, query: Query<'_>) -> Result<Option<T>, StoreError>
    where
        T: for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
    {
        use sqlx::Row;
        let name = self.name;
        let row = query.fetch_optional(&mut self.connection()?.connection).await;
        let value = row.and_then(|row| row.map(|row| row.try_get(0)).transpose());
        value.map_err(|e| explain(name, e))
    }

    /// A number that `SQLite` always has an answer for.
    async fn number(&mut self, sql: &'static str) -> Result<i64, StoreError> {
        Ok(self.ask(sqlx::query(sql)).await?.unwrap_or_default())
    }

    /// Brings a file up to date. Nothing is written before it is known to be ours, not newer, and
    /// whole.
    async fn prepare(
        &mut self,
        migrations: &[&'static str],
        known: Option<usize>,
    ) -> Result<(), StoreError> {
        let known = match known {
            Some(known) => known,
            None => self.inspect(migrations.len()).await?,
        };
        let mode: Option<String> = self.ask(sqlx::query("PRAGMA journal_mode = WAL")).await?;
        if mode.as_deref() != Some("wal") {
            let message = format!("{} cannot have a write-ahead log", self.name);
            return Err(StoreError::new(StoreErrorKind::Io, message));
        }
        for (index, migration) in migrations.iter().enumerate().skip(known) {
            self.migrate(migration, index + 1).await?;
        }
        Ok(())
    }

    /// The version of a file that is ours, not newer, and whole; 0 for an empty one.
    async fn inspect(&mut self, newest: usize) -> Result<usize, StoreError> {
        let version = self.number("PRAGMA user_version").await?;
        let tables = self.number("SELECT count(*) FROM sqlite_schema").await?;
        let mark = self.number("PRAGMA application_id").await?;
        let known = usize::try_from(version);
        if known.is_ok_and(|known| known > newest) {
            let message = format!("{} has version {version}, known is {newest}", self.name);
            return Err(StoreError::new(StoreErrorKind::Version, message));
        }
        let fresh = (version, tables) == (0, 0);
        let ours = version > 0 && mark == APPLICATION_ID;
        let (Ok(known), true) = (known, fresh || ours) else {
            let message = format!("{} is a database of something else", self.name);
            return Err(StoreError::new(StoreErrorKind::Corrupt, message));
        };
        self.check().await?;
        Ok(known)
    }

    async fn check(&mut self) -> Result<(), StoreError> {
        let pages = self.number("PRAGMA page_count").await?;
        let bytes = pages.saturating_mul(self.number("PRAGMA page_size").await?);
        if bytes > MAX_CHECKED_BYTES {
            return Ok(());
        }
        let health: Option<String> = self.ask(sqlx::query("PRAGMA quick_check(1)")).await?;
        match health.as_deref() {
            Some("ok") => Ok(()),
            other => {
                let what = other.unwrap_or("no answer");
                Err(damaged(self.name, what))
            }
        }
    }

    async fn migrate(&mut self, migration: &'static str, version: usize) -> Result<(), StoreError> {
        self.begin().await?;
        self.execute_raw(migration.to_owned()).await?;
        let mark =
            format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};");
        self.execute_raw(mark).await?;
        self.commit().await
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Settings of files that are made for a test.
    pub(in super::super) const SETUP: Setup = Setup {
        synchronous: SqliteSynchronous::Normal,
        page_size: 4096,
        cache_kib: 64,
        checkpoint_pages: 1000,
    };
    const ALL: [&str; 3] = [
        "CREATE TABLE t (a INTEGER NOT NULL) STRICT; INSERT INTO t VALUES (1)",
        "ALTER TABLE t ADD COLUMN b INTEGER NOT NULL DEFAULT 2; INSERT INTO t VALUES (3, 4)",
        "UPDATE t SET b = b + a",
    ];

    async fn sum(database: &Database) -> Option<i64> {
        let ask = sqlx::query("SELECT sum(a * 10 + b) FROM t");
        database.lock().await.unwrap().ask(ask).await.unwrap()
    }

    #[tokio::test]
    async fn an_older_file_is_brought_up_to_date_once() {
        for from in 0..=3 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.db");
            Database::open(&path, &ALL[..from], SETUP).await.unwrap().close().await;
            for _ in 0..2 {
                let database = Database::open(&path, &ALL, SETUP).await.unwrap();
                assert_eq!(sum(&database).await, Some(50), "from {from}");
                database.close().await;
            }
        }
    }

    #[tokio::test]
    async fn a_migration_that_fails_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        Database::open(&path, &ALL[..1], SETUP).await.unwrap().close().await;
        let broken = [ALL[0], "INSERT INTO t VALUES (9); INSERT INTO no VALUES (1)"];
        Database::open(&path, &broken, SETUP).await.expect_err("there is no such table");
        let database = Database::open(&path, &ALL, SETUP).await.unwrap();
        assert_eq!(sum(&database).await, Some(50));
    }
}
