//! One `SQLite` file: opening it with care, bringing it up to date, and what its errors mean.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Sqlite, Transaction};

use crate::error::{StoreError, StoreErrorKind};

/// Marks a file as ours: "SORC".
const APPLICATION_ID: i64 = 0x534f_5243;

/// An open file. It has one connection: `SQLite` writes one at a time anyway, and a statement is
/// then never refused because of another of ours.
#[derive(Debug)]
pub(super) struct Database {
    pool: SqlitePool,
    name: String,
}

impl Database {
    /// Opens or makes the file at `path` and runs the `migrations` that it has not seen. Its
    /// version is the number of those it has.
    pub(super) async fn open(path: &Path, migrations: &[&'static str]) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            // A lost tail after a power failure is fine for what is learnt again; damage is not,
            // and in WAL mode there is none.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(1))
            .disable_statement_logging();
        let name = path.display().to_string();
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|e| explain(&name, e))?;
        let database = Self { pool, name };
        match database.prepare(migrations).await {
            Ok(()) => Ok(database),
            Err(error) => {
                database.close().await;
                Err(error)
            }
        }
    }

    /// Begins a transaction; dropping it before its commit undoes it.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.pool.begin().await.map_err(|e| self.explain(e))
    }

    pub(super) async fn commit(
        &self,
        transaction: Transaction<'static, Sqlite>,
    ) -> Result<(), StoreError> {
        transaction.commit().await.map_err(|e| self.explain(e))
    }

    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// An error of this file.
    pub(super) fn explain(&self, error: sqlx::Error) -> StoreError {
        explain(&self.name, error)
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Nothing is written before the file is known to be ours, not newer, and whole.
    async fn prepare(&self, migrations: &[&'static str]) -> Result<(), StoreError> {
        let version: i64 = self.ask("PRAGMA user_version").await?;
        let tables: i64 = self.ask("SELECT count(*) FROM sqlite_schema").await?;
        let mark: i64 = self.ask("PRAGMA application_id").await?;
        let known = usize::try_from(version);
        if known.is_ok_and(|known| known > migrations.len()) {
            let newest = migrations.len();
            let message = format!("{} has version {version}, known is {newest}", self.name);
            return Err(StoreError::new(StoreErrorKind::Version, message));
        }
        let fresh = (version, tables) == (0, 0);
        let ours = version > 0 && mark == APPLICATION_ID;
        let (Ok(known), true) = (known, fresh || ours) else {
            let message = format!("{} is a database of something else", self.name);
            return Err(StoreError::new(StoreErrorKind::Corrupt, message));
        };
        let health: String = self.ask("PRAGMA quick_check(1)").await?;
        if health != "ok" {
            let message = format!("{} is damaged: {health}", self.name);
            return Err(StoreError::new(StoreErrorKind::Corrupt, message));
        }
        let _: String = self.ask("PRAGMA journal_mode = WAL").await?;
        for (index, migration) in migrations.iter().enumerate().skip(known) {
            self.migrate(migration, index + 1).await?;
        }
        Ok(())
    }

    async fn migrate(&self, migration: &'static str, version: usize) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let mark =
            format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};");
        let steps = [sqlx::raw_sql(migration), sqlx::raw_sql(AssertSqlSafe(mark))];
        for step in steps {
            step.execute(&mut *transaction).await.map_err(|e| self.explain(e))?;
        }
        self.commit(transaction).await
    }

    async fn ask<T>(&self, sql: &'static str) -> Result<T, StoreError>
    where
        T: for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite> + Send + Unpin,
    {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.map_err(|e| self.explain(e))
    }
}

/// What an error of the file `name` means.
fn explain(name: &str, error: sqlx::Error) -> StoreError {
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
        _ => StoreErrorKind::Io,
    };
    StoreError::with_source(kind, format!("{name}: {error}"), error)
}
