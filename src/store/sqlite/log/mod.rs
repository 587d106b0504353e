//! The retained log in a file.
//!
//! Commits survive the death of the process, not always a power failure (`synchronous = NORMAL`):
//! own transactions are in the outbox then, others are fetched again. Cursors survive both: the
//! file says, with a commit that survives all, up to which cursor some may have been given out;
//! the next process begins after it, and not before the time in milliseconds shifted left by 12
//! bits, so that they also rise when the file was lost.
//!
//! One connection writes, two read, so that neither waits for the other. Memory: the connections'
//! page caches, and a filter of about 2.4 to 5 bytes an id (see `generations`).

mod generations;
mod read;
mod write;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sqlx::sqlite::SqliteSynchronous;

use self::generations::Generations;
use super::DirLock;
use super::database::{Database, Insert, Setup};
use crate::error::StoreError;
use crate::ports::{IndexEntry, MAX_CURSORS, NewEntry, Page, TransactionStore, Usage};
use crate::store::too_many_cursors;
use crate::types::{Cursor, Topic, Transaction, TransactionId, WallTime};

const MIGRATIONS: &[&str] = &[include_str!("../migrations/log/1.sql")];
const WRITER: Setup =
    Setup { synchronous: SqliteSynchronous::Normal, cache_kib: 8192, checkpoint_pages: 4000 };
const READER: Setup = Setup { cache_kib: 2048, ..WRITER };
const READERS: usize = 2;

/// Keeps accepted transactions in a file.
#[derive(Debug)]
pub(super) struct SqliteLog {
    writer: Database,
    readers: Vec<Database>,
    next_reader: AtomicUsize,
    state: tokio::sync::Mutex<State>,
    generations: RwLock<Generations>,
    limits: Limits,
    blocks: Insert,
    /// Keys the filters: who does not know it cannot make ids that collide.
    seed: u128,
    /// The directory stays ours while its files are open.
    _lock: Arc<DirLock>,
}

/// What bounds a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_bytes: u64,
    pub(super) generation: Duration,
}

/// What only the writer needs.
#[derive(Debug, Default)]
struct State {
    next: u64,
    leased: u64,
    next_generation: u32,
    /// Whether this and the generations say what the file has.
    sure: bool,
    /// Whether the connection may have been left with `FULL`.
    strict: bool,
}

impl SqliteLog {
    pub(super) async fn open(
        path: &Path,
        limits: Limits,
        lock: Arc<DirLock>,
    ) -> Result<Self, StoreError> {
        let writer = Database::open(path, MIGRATIONS, WRITER).await?;
        let mut readers = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            readers.push(Database::open_reader(path, READER).await?);
        }
        let log = Self {
            writer,
            readers,
            next_reader: AtomicUsize::default(),
            state: tokio::sync::Mutex::default(),
            generations: RwLock::default(),
            limits,
            blocks: Insert::new("INSERT INTO blocks (last, ends, block) VALUES", 3),
            seed: seed()?,
            _lock: lock,
        };
        log.start(clock() << 12).await?;
        Ok(log)
    }

    pub(super) async fn close(&self) {
        for reader in &self.readers {
            reader.close().await;
        }
        self.writer.close().await;
    }

    fn reader(&self) -> &Database {
        let next = self.next_reader.fetch_add(1, Ordering::Relaxed);
        &self.readers[next % READERS]
    }

    /// Held for moments only; a panic elsewhere leaves it whole.
    fn known(&self) -> RwLockReadGuard<'_, Generations> {
        self.generations.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Generations> {
        self.generations.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seed() -> Result<u128, StoreError> {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).map_err(|e| {
        let message = format!("no random bytes from the operating system: {e}");
        StoreError::new(crate::error::StoreErrorKind::Io, message)
    })?;
    Ok(u128::from_le_bytes(seed))
}

/// Milliseconds since 1970, read once when a file is opened.
#[expect(clippy::disallowed_methods, reason = "cursors must rise when a file was lost")]
fn clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default().min(u64::MAX >> 13)
}

/// Everything is cancel safe: a change whose future is dropped happens whole or not at all.
#[async_trait]
impl TransactionStore for SqliteLog {
    async fn append(&self, entries: &[NewEntry]) -> Result<Vec<Cursor>, StoreError> {
        self.append_all(entries).await
    }

    async fn get(&self, id: &TransactionId) -> Result<Option<Transaction>, StoreError> {
        self.find(id).await
    }

    async fn read(
        &self,
        topic: Option<&Topic>,
        after: Cursor,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        self.page(topic, after, max_entries, max_bytes).await
    }

    async fn index(&self, after: Cursor, limit: usize) -> Result<Vec<IndexEntry>, StoreError> {
        self.list(after, limit).await
    }

    async fn newest(&self) -> Result<Cursor, StoreError> {
        Ok(Cursor(self.known().newest))
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let known = self.known();
        let max_bytes = Some(self.limits.max_bytes);
        Ok(Usage { entries: known.entries(), bytes: known.bytes(), max_bytes })
    }

    async fn expire(&self, now: WallTime) -> Result<u64, StoreError> {
        self.drop_ended(now).await
    }

    async fn load_cursor(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        let ask = sqlx::query("SELECT cursor FROM cursors WHERE name = ?").bind(name.to_owned());
        let found: Option<i64> = self.reader().lock().await?.ask(ask).await?;
        Ok(found.map(|cursor| Cursor(cursor.cast_unsigned())))
    }

    async fn save_cursor(&self, name: &str, cursor: Cursor) -> Result<(), StoreError> {
        let save = sqlx::query(
            "INSERT INTO cursors SELECT ?1, ?2 WHERE \
             EXISTS (SELECT 1 FROM cursors WHERE name = ?1) \
             OR (SELECT count(*) FROM cursors) < ?3 \
             ON CONFLICT DO UPDATE SET cursor = max(cursor, excluded.cursor)",
        );
        let most = i64::try_from(MAX_CURSORS).unwrap_or(i64::MAX);
        let save = save.bind(name.to_owned()).bind(cursor.0.cast_signed()).bind(most);
        let saved = self.writer.lock().await?.change(save).await?;
        if saved == 0 { Err(too_many_cursors()) } else { Ok(()) }
    }

    async fn remove_cursor(&self, name: &str) -> Result<(), StoreError> {
        let remove = sqlx::query("DELETE FROM cursors WHERE name = ?").bind(name.to_owned());
        self.writer.lock().await?.execute(remove).await
    }
}
