//! The retained log in a file.
//!
//! Commits survive the death of the process, not always a power failure (`synchronous = NORMAL`):
//! own transactions are in the outbox then, others are fetched again. What a named subscription has
//! acknowledged survives both, and so do cursors: the
//! file says, with a commit that survives all, up to which cursor some may have been given out;
//! the next process begins after it, and not before the time in milliseconds shifted left by 12
//! bits, so that they also rise when the file was lost.
//!
//! One connection writes, two read, so that neither waits for the other, and one more moves the
//! write-ahead log (see `checkpointer`). Memory: the connections' page caches, about 3 bytes an id
//! (see `keys`), and what was appended last, up to 4 MiB (see `recent`).

mod generations;
mod keys;
mod lookaround_cache;
mod partials;
mod read;
mod recent;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sqlx::sqlite::SqliteSynchronous;

use self::generations::Generations;
use self::lookaround_cache::LookaroundCache;
use self::recent::Recent;
use super::codec::clamped;
use super::database::{Database, Setup};
use super::dir_lock::DirLock;
use super::query::Insert;
use crate::error::StoreError;
use crate::ports::{
    IndexEntry, KeptPartial, NewEntry, Page, Partial, StoreLease, TransactionStore, Usage,
};
use crate::store::limits::too_many_cursors;
use crate::types::{Cursor, Piece, Topic, Transaction, TransactionId, WallTime};

const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/log/1.sql"),
    include_str!("../migrations/log/2.sql"),
    include_str!("../migrations/log/3.sql"),
    include_str!("../migrations/log/4.sql"),
];
/// Memory that the log takes where nobody limits it, and the most that it takes: with more, nothing is
/// quicker.
const MEMORY: Memory = Memory { recent: 4 << 20, writer_kib: 8192, reader_kib: 2048 };
const WRITER: Setup = Setup {
    synchronous: SqliteSynchronous::Normal,
    page_size: 8192,
    cache_kib: MEMORY.writer_kib,
    checkpoint_pages: 2000,
};
const READER: Setup = Setup { cache_kib: MEMORY.reader_kib, ..WRITER };
const READERS: usize = 2;

/// Keeps accepted transactions in a file.
#[derive(Debug)]
pub(super) struct SqliteLog {
    writer: Arc<Database>,
    readers: Vec<Database>,
    next_reader: AtomicUsize,
    state: tokio::sync::Mutex<State>,
    generations: RwLock<Generations>,
    lookaround: Mutex<LookaroundCache>,
    recent: Mutex<Recent>,
    memory: Mutex<Memory>,
    limits: Limits,
    parts: Insert,
    /// Keys the filters: who does not know it cannot make ids that collide.
    seed: u128,
    lease: StoreLease,
    /// The directory stays ours while its files are open.
    _lock: Arc<DirLock>,
}

/// Memory of a log, by what it is for.
#[derive(Debug, Clone, Copy)]
struct Memory {
    /// Bytes of what was appended last.
    recent: usize,
    /// Page cache of the connection that writes, in KiB.
    writer_kib: u32,
    /// Page cache of each that reads, in KiB.
    reader_kib: u32,
}

impl Default for Memory {
    fn default() -> Self {
        MEMORY
    }
}

impl Memory {
    /// Divides a number of bytes.
    fn within(bytes: u64) -> Self {
        let kib = |bytes: u64| u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        Self {
            recent: usize::try_from(bytes / 4).unwrap_or(usize::MAX).min(MEMORY.recent),
            writer_kib: kib(bytes / 2).min(MEMORY.writer_kib),
            reader_kib: kib(bytes / 4 / READERS as u64).min(MEMORY.reader_kib),
        }
    }

    /// Bytes of all page caches, which fill as the file is used.
    fn pages(self) -> u64 {
        (u64::from(self.writer_kib) + READERS as u64 * u64::from(self.reader_kib)) << 10
    }
}

/// Bounds of a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_bytes: u64,
    pub(super) generation: Duration,
}

/// State that only the writer needs.
#[derive(Debug, Default)]
struct State {
    next: u64,
    leased: u64,
    next_generation: u32,
    /// True: this state and the generations say what the file has.
    in_sync: bool,
    /// True: the connection may have been left with `FULL`, though nothing here says that it was.
    strict: bool,
}

impl SqliteLog {
    pub(super) async fn open(
        path: &Path,
        limits: Limits,
        lock: Arc<DirLock>,
    ) -> Result<Self, StoreError> {
        Self::open_at(path, limits, lock, clock()).await
    }

    async fn open_at(
        path: &Path,
        limits: Limits,
        lock: Arc<DirLock>,
        now: u64,
    ) -> Result<Self, StoreError> {
        let writer = Arc::new(Database::open(path, MIGRATIONS, WRITER).await?);
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
            lookaround: Mutex::default(),
            recent: Mutex::default(),
            memory: Mutex::default(),
            limits,
            parts: Insert::new("INSERT INTO keys (part, first, places) VALUES", 3),
            seed: seed()?,
            lease: StoreLease::default(),
            _lock: lock,
        };
        log.start(now << 12).await?;
        Ok(log)
    }

    pub(super) async fn close(&self) {
        for reader in &self.readers {
            reader.close().await;
        }
        self.writer.close().await;
        // What is asked for from now on is asked of the file.
        locked(&self.recent).restart(u64::MAX);
    }

    fn reader(&self) -> &Database {
        let next = self.next_reader.fetch_add(1, Ordering::Relaxed);
        &self.readers[next % READERS]
    }

    /// Locked for moments only; a panic elsewhere leaves it whole.
    fn known(&self) -> RwLockReadGuard<'_, Generations> {
        self.generations.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Generations> {
        self.generations.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Table of the slices of a generation.
fn slices_of(generation: u32) -> String {
    format!("s_{generation}")
}

/// Locked for moments only.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    u64::try_from(now.as_millis()).unwrap_or_default().min(u64::MAX >> 15)
}

/// Everything is cancel safe: a change whose future is dropped happens whole or not at all.
#[async_trait]
impl TransactionStore for SqliteLog {
    async fn append(&self, entries: &[NewEntry]) -> Result<Vec<Cursor>, StoreError> {
        self.append_all(entries).await
    }

    async fn limit_memory(&self, bytes: u64) {
        let memory = Memory::within(bytes);
        locked(&self.recent).limit(memory.recent);
        self.writer.set_cache(memory.writer_kib).await;
        for reader in &self.readers {
            reader.set_cache(memory.reader_kib).await;
        }
        *locked(&self.memory) = memory;
    }

    fn memory(&self) -> u64 {
        let recent = locked(&self.recent).bytes() as u64;
        recent.saturating_add(locked(&self.memory).pages())
    }

    async fn get(&self, id: &TransactionId) -> Result<Option<Transaction>, StoreError> {
        self.find(id).await
    }

    async fn get_many(
        &self,
        ids: &[TransactionId],
    ) -> Result<Vec<Option<Transaction>>, StoreError> {
        self.find_all(ids).await
    }

    async fn read(
        &self,
        topic: Option<&Topic>,
        after: Cursor,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        let recent = locked(&self.recent).page(topic, after, max_entries, max_bytes);
        match recent {
            Some(page) => Ok(page),
            None => self.page(topic, after, max_entries, max_bytes).await,
        }
    }

    async fn index(&self, after: Cursor, limit: usize) -> Result<Vec<IndexEntry>, StoreError> {
        self.list(after, limit).await
    }

    async fn newest(&self) -> Result<Cursor, StoreError> {
        Ok(Cursor(self.known().newest))
    }

    fn lease(&self) -> Option<&StoreLease> {
        Some(&self.lease)
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let known = self.known();
        let max_bytes = Some(self.limits.max_bytes);
        Ok(Usage { entries: known.entries(), bytes: known.bytes(), max_bytes })
    }

    async fn probe(&self) -> Result<bool, StoreError> {
        self.try_to_write().await.map(|()| true)
    }

    async fn expire(&self, now: WallTime) -> Result<u64, StoreError> {
        for reader in &self.readers {
            reader.end_dropped_operation().await;
        }
        let dropped = self.drop_ended(now).await?;
        self.expire_partials(now).await?;
        Ok(dropped)
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
        let most = i64::try_from(Page::MAX_CURSORS).unwrap_or(i64::MAX);
        let save = save.bind(name.to_owned()).bind(clamped(cursor.0)).bind(most);
        let state = &mut *self.state.lock().await;
        let mut conn = self.writer.lock().await?;
        if !state.in_sync {
            self.reload(&mut conn, state).await?;
        }
        (state.in_sync, state.strict) = (false, true);
        let saved = async {
            conn.execute_raw("PRAGMA synchronous = FULL".to_owned()).await?;
            let saved = conn.change(save).await?;
            conn.execute_raw("PRAGMA synchronous = NORMAL".to_owned()).await?;
            Ok(saved)
        };
        match saved.await {
            Ok(saved) => {
                (state.in_sync, state.strict) = (true, false);
                if saved == 0 { Err(too_many_cursors()) } else { Ok(()) }
            }
            Err(error) => {
                // Else it may be kept all the same.
                Self::fail(&mut conn, state, &error).await;
                Err(error)
            }
        }
    }

    async fn remove_cursor(&self, name: &str) -> Result<(), StoreError> {
        let remove = sqlx::query("DELETE FROM cursors WHERE name = ?").bind(name.to_owned());
        self.writer.lock().await?.execute(remove).await
    }

    async fn partials(&self) -> Result<Option<Vec<KeptPartial>>, StoreError> {
        self.list_partials().await.map(Some)
    }

    async fn put_partial(&self, partial: &Partial, max_bytes: u64) -> Result<(), StoreError> {
        self.add_partial(partial, max_bytes).await
    }

    async fn get_partial(&self, id: &TransactionId) -> Result<Vec<Piece>, StoreError> {
        self.read_partial(id).await
    }

    async fn remove_partials(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        self.drop_partials(ids).await
    }
}
