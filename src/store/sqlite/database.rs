//! One connection to one `SQLite` file: opening it with care, bringing the file up to date, whole
//! transactions, and what errors mean.
//!
//! A connection is used by one operation at a time. A transaction whose operation failed or was
//! dropped half-way is undone before the next one begins.
//!
//! A commit whose sync fails has failed, but all of it may stand in the write-ahead log, where the
//! next process would take it for done. So it is written over before anybody is told
//! ([`Held::disown`]).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Sqlite};
use tokio::sync::{Mutex, MutexGuard};

use super::bulk_insert::BulkInsert;
use super::checkpointer::{BEHIND, Checkpointer};
use crate::error::{Source, StoreError, StoreErrorKind};

/// A query with its arguments.
pub(super) type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

/// Marks a file as ours: "SORC".
const APPLICATION_ID: i64 = 0x534f_5243;
/// How long to wait for another process that has the file locked.
const PATIENCE: Duration = Duration::from_secs(1);
/// Rows that the thread of a connection gets ahead of who takes them. All of an answer are taken in
/// any case, and with fewer the two wait for each other many times.
const ROWS: usize = 1024;
/// Files up to this many bytes are checked whole when they are opened. What is larger would keep
/// a host waiting for seconds: there, damage is noticed where it is read, by hashes.
const CHECKED_WHOLE: i64 = 64 << 20;
/// What no number that rises can have come to.
const HIGHEST: u64 = 1 << 62;

/// How a connection treats its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    /// Whether a commit survives a power failure, or only the death of the process.
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
            .busy_timeout(PATIENCE)
            .row_buffer_size(ROWS)
            .pragma("cache_size", format!("-{}", self.cache_kib))
            .pragma("wal_autocheckpoint", (BEHIND * self.checkpoint_pages).to_string())
            .pragma("journal_size_limit", "67108864")
            .disable_statement_logging()
    }
}

/// One connection to a file.
#[derive(Debug)]
pub(super) struct Database {
    /// `None` once it is closed.
    slot: Mutex<Option<Slot>>,
    name: Arc<str>,
    /// For a file that is written.
    mover: Option<Checkpointer>,
}

#[derive(Debug)]
struct Slot {
    connection: SqliteConnection,
    /// A transaction was begun and not ended.
    open: bool,
    /// A sync may have failed: what was written before it may never reach the disk, and no later
    /// sync would say so.
    doubtful: bool,
}

impl Database {
    /// Opens or makes the file at `path` and runs the `migrations` that it has not seen. Its
    /// version is the number of those it has. A file that is refused is not changed, nor is its
    /// write-ahead log.
    pub(super) async fn open(
        path: &Path,
        migrations: &[&'static str],
        setup: Setup,
    ) -> Result<Self, StoreError> {
        let known = Self::look(path, migrations.len(), setup).await?;
        let options = setup.options(path);
        let mut database = Self::connect(path, options.clone().create_if_missing(true)).await?;
        database.mover = Some(Checkpointer::new(options, setup.checkpoint_pages));
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
        let slot = Mutex::new(Some(Slot { connection, open: false, doubtful: false }));
        Ok(Self { slot, name, mover: None })
    }

    /// The connection, for one operation, with no transaction open.
    pub(super) async fn lock(&self) -> Result<Held<'_>, StoreError> {
        let guard = self.slot.lock().await;
        if guard.is_none() {
            let message = format!("{} was closed", self.name);
            return Err(StoreError::new(StoreErrorKind::Closed, message));
        }
        let mut held = Held { guard, name: &self.name, mover: self.mover.as_ref() };
        held.roll_back().await;
        Ok(held)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Undoes what a dropped operation left behind, unless another one is under way: an old
    /// snapshot would keep the write-ahead log from ever beginning anew.
    pub(super) async fn tidy(&self) {
        let Ok(guard) = self.slot.try_lock() else { return };
        Held { guard, name: &self.name, mover: None }.roll_back().await;
    }

    /// What moves the write-ahead log.
    pub(super) fn mover(&self) -> Option<&Checkpointer> {
        self.mover.as_ref()
    }

    /// Waits for the operation under way, then closes.
    pub(super) async fn close(&self) {
        if let Some(mover) = &self.mover {
            mover.close().await;
        }
        if let Some(slot) = self.slot.lock().await.take()
            && let Err(error) = slot.connection.close().await
        {
            tracing::warn!(target: "sorcha_peer::store", file = %self.name, %error, "cannot close");
        }
    }
}

/// A connection while one operation has it.
#[derive(Debug)]
pub(super) struct Held<'a> {
    guard: MutexGuard<'a, Option<Slot>>,
    name: &'a str,
    mover: Option<&'a Checkpointer>,
}

impl Held<'_> {
    fn slot(&mut self) -> Result<&mut Slot, StoreError> {
        self.guard.as_mut().ok_or_else(|| explain(self.name, sqlx::Error::PoolClosed))
    }

    /// Begins a transaction that may write.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        self.slot()?.open = true;
        self.run("BEGIN IMMEDIATE").await
    }

    /// Begins a transaction that reads one state of the file.
    pub(super) async fn begin_reading(&mut self) -> Result<(), StoreError> {
        self.slot()?.open = true;
        self.run("BEGIN").await
    }

    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        self.run("COMMIT").await?;
        self.slot()?.open = false;
        Ok(())
    }

    /// Undoes what an earlier operation left behind.
    pub(super) async fn roll_back(&mut self) {
        let Ok(slot) = self.slot() else { return };
        if slot.open {
            // An error only says that `SQLite` has undone it already.
            let _ = sqlx::query("ROLLBACK").execute(&mut slot.connection).await;
            slot.open = false;
        }
    }

    /// Ends a change that may have been written whole and was not accepted: the next commit stands
    /// where it stood, and so does this one, which needs no sync. Leaves the connection with
    /// `synchronous = FULL`. For files with a table `meta`.
    pub(super) async fn disown(&mut self) {
        self.roll_back().await;
        let over = "PRAGMA synchronous = OFF; INSERT INTO meta VALUES ('failures', 1) \
                    ON CONFLICT DO UPDATE SET value = value + 1";
        // Where nothing can be written, the failed change most likely was not either.
        if let Err(error) = self.execute_raw(over.to_owned()).await {
            tracing::warn!(target: "sorcha_peer::store", %error, "a failed change may come back");
        }
        let _ = self.execute_raw("PRAGMA synchronous = FULL".to_owned()).await;
        if let Ok(slot) = self.slot() {
            slot.doubtful = true;
        }
    }

    /// After a failed sync, moves everything that counts to the file and begins a new write-ahead
    /// log: whatever is accepted afterwards does not stand behind something that the disk lost.
    pub(super) async fn begin_anew(&mut self) -> Result<(), StoreError> {
        if !self.slot()?.doubtful {
            return Ok(());
        }
        let _still = match self.mover {
            Some(mover) => Some(mover.hold().await),
            None => None,
        };
        let busy: Option<i64> = self.ask(sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")).await?;
        if busy != Some(0) {
            let message = format!("{} is being read by another process", self.name);
            return Err(StoreError::new(StoreErrorKind::Locked, message));
        }
        self.slot()?.doubtful = false;
        Ok(())
    }

    /// Says that what follows begins and ends a transaction by itself, in one go.
    pub(super) fn whole(&mut self, open: bool) -> Result<(), StoreError> {
        self.slot()?.open = open;
        Ok(())
    }

    /// Does everything that a bulk insert says, or nothing.
    pub(super) async fn run_bulk(&mut self, bulk: BulkInsert) -> Result<(), StoreError> {
        let Some(query) = bulk.into_query(true) else { return Ok(()) };
        self.whole(true)?;
        self.execute(query).await?;
        self.whole(false)
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

    /// How many rows a statement changed.
    pub(super) async fn change(&mut self, query: Query<'_>) -> Result<u64, StoreError> {
        let name = self.name;
        let done = query.execute(&mut self.slot()?.connection).await;
        done.map(|done| done.rows_affected()).map_err(|e| explain(name, e))
    }

    /// Runs statements that are not worth keeping, or that `SQLite` carries out while it prepares
    /// them (as `PRAGMA synchronous`), one after another.
    pub(super) async fn execute_raw(&mut self, sql: String) -> Result<(), StoreError> {
        let name = self.name;
        let connection = &mut self.slot()?.connection;
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
        done.map(drop).map_err(|e| explain(name, e))
    }

    /// As [`Held::execute_raw`]: the number in the only row that comes of them.
    pub(super) async fn ask_raw(&mut self, sql: String) -> Result<Option<i64>, StoreError> {
        use sqlx::Row;
        let name = self.name;
        let connection = &mut self.slot()?.connection;
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await;
        let number = row.and_then(|rows| rows.first().map(|row| row.try_get(0)).transpose());
        number.map_err(|e| explain(name, e))
    }

    pub(super) async fn fetch_all(
        &mut self,
        query: Query<'_>,
    ) -> Result<Vec<SqliteRow>, StoreError> {
        let name = self.name;
        query.fetch_all(&mut self.slot()?.connection).await.map_err(|e| explain(name, e))
    }

    /// One value of one row; `None` for no row.
    pub(super) async fn ask<T>(&mut self, query: Query<'_>) -> Result<Option<T>, StoreError>
    where
        T: for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
    {
        use sqlx::Row;
        let name = self.name;
        let row = query.fetch_optional(&mut self.slot()?.connection).await;
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
        if bytes > CHECKED_WHOLE {
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

/// Statements that insert many rows at once. A statement costs about 40 us whatever it does, a row
/// 7: so rows go in by 64, and the rest by 16, 4 and 1.
#[derive(Debug)]
pub(super) struct Insert {
    sizes: [(usize, Arc<str>); 4],
}

impl Insert {
    /// `into` is all up to and with `VALUES`; each row has `columns` values.
    pub(super) fn new(into: &str, columns: usize) -> Self {
        let row = format!("({})", vec!["?"; columns].join(","));
        let sizes = [64, 16, 4, 1];
        Self { sizes: sizes.map(|n| (n, format!("{into} {}", vec![&*row; n].join(",")).into())) }
    }

    /// Splits rows into those of one statement each.
    pub(super) fn chunks<'r, T>(
        &self,
        mut rows: &'r [T],
    ) -> Vec<(AssertSqlSafe<Arc<str>>, &'r [T])> {
        let mut chunks = Vec::new();
        for (size, sql) in &self.sizes {
            while rows.len() >= *size {
                let (chunk, rest) = rows.split_at(*size);
                chunks.push((AssertSqlSafe(Arc::clone(sql)), chunk));
                rows = rest;
            }
        }
        chunks
    }
}

/// Numbers as a list that `json_each` reads: one argument, however many there are.
pub(super) fn json<T: ToString>(numbers: &[T]) -> String {
    let numbers: Vec<_> = numbers.iter().map(T::to_string).collect();
    format!("[{}]", numbers.join(","))
}

/// A file that holds what it cannot hold.
pub(super) fn damaged(name: &str, what: impl std::fmt::Display) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("{name} is damaged: {what}"))
}

/// Errors that say for sure that nothing was changed.
pub(super) fn changed_nothing(kind: StoreErrorKind) -> bool {
    matches!(kind, StoreErrorKind::Full | StoreErrorKind::Locked)
}

/// A number that only rises, as a file has it: no checksum protects it, and from one that is wrong
/// others would be counted on.
pub(super) fn risen(number: i64) -> Result<u64, Source> {
    let risen = u64::try_from(number).ok().filter(|risen| *risen <= HIGHEST);
    risen.ok_or_else(|| format!("{number} cannot have been reached").into())
}

/// What an error of the file `name` means.
pub(super) fn explain(name: &str, error: sqlx::Error) -> StoreError {
    let kind = match &error {
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => StoreErrorKind::Closed,
        sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => StoreErrorKind::Full,
        sqlx::Error::Database(e) => {
            // https://www.sqlite.org/rescode.html; the low byte is the primary code.
            let code = e.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
            match code & 0xff {
                5 | 6 => StoreErrorKind::Locked,
                11 | 26 => StoreErrorKind::Corrupt,
                13 => StoreErrorKind::Full,
                _ => StoreErrorKind::Io,
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Io,
    };
    StoreError::with_source(kind, format!("{name}: {error}"), error)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of files that are made for a test.
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

    #[test]
    fn numbers_that_cannot_be_are_told() {
        assert_eq!(risen(0).unwrap(), 0);
        assert_eq!(risen(1 << 62).unwrap(), 1 << 62);
        for wrong in [-1, i64::MIN, i64::MAX] {
            risen(wrong).unwrap_err();
        }
    }
}
