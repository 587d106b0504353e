//! The outbox in a file.
//!
//! Commits survive a power failure (`synchronous = FULL`); only new states and removals need not,
//! since an entry that is tried once more does no harm. Which ids are there is known in memory, by
//! their first 8 bytes (20 to 40 bytes an entry): that an id is not there is never looked up in the
//! file. That it is there, the file has the last word on.
//!
//! Sequence numbers are leased: the file says up to which number some may have been given out,
//! and the next process begins after it.

mod known_ids;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use sqlx::sqlite::{SqliteRow, SqliteSynchronous};
use tokio::sync::Mutex;

use self::known_ids::KnownIds;
use super::bulk_insert::{self, BulkInsert};
use super::codec;
use super::database::{ConnectionGuard, Database, Setup};
use super::dir_lock::DirLock;
use super::error::{changed_nothing, checked_counter, damaged, explain};
use super::query::{Insert, json};
use super::slices;
use super::tombstones::Tombstones;
use crate::error::{StoreError, StoreErrorKind};
use crate::ports::{EntryFilter, EntryState, OutboxEntry, QueueSize, StoreLease, TransactionQueue};
use crate::types::{Transaction, TransactionId};

const MIGRATIONS: &[&str] =
    &[include_str!("../migrations/queue/1.sql"), include_str!("../migrations/queue/2.sql")];
/// Table of the payloads that are too large for a row.
const SLICES: &str = "slices";
const SETUP: Setup = Setup {
    synchronous: SqliteSynchronous::Full,
    page_size: 8192,
    cache_kib: 2048,
    checkpoint_pages: 2000,
};
/// Number of sequence numbers leased at once.
const LEASED_NUMBERS: u64 = 1 << 16;

/// Keeps own transactions in a file.
#[derive(Debug)]
pub(super) struct SqliteQueue {
    database: Arc<Database>,
    state: Mutex<State>,
    capacity: u64,
    /// Memory for pages, in KiB.
    cache_kib: AtomicU32,
    replace: Insert,
    lease: StoreLease,
    /// The directory stays ours while its files are open.
    _lock: Arc<DirLock>,
}

#[derive(Debug, Default)]
struct State {
    known: KnownIds,
    next: u64,
    leased: u64,
    /// True: the fields above say what the file has.
    in_sync: bool,
    /// True: commits may have been left without `FULL`.
    relaxed: bool,
    /// True: there may be slices.
    has_slices: bool,
    tombstones: Tombstones,
}

impl SqliteQueue {
    pub(super) async fn open(
        path: &Path,
        capacity: u64,
        lock: Arc<DirLock>,
    ) -> Result<Self, StoreError> {
        let queue = Self {
            database: Arc::new(Database::open(path, MIGRATIONS, SETUP).await?),
            state: Mutex::default(),
            capacity,
            cache_kib: AtomicU32::new(SETUP.cache_kib),
            replace: Insert::new(
                "INSERT OR REPLACE INTO states (seq, attempts, due, reason, since) VALUES",
                5,
            ),
            lease: StoreLease::default(),
            _lock: lock,
        };
        let mut conn = queue.database.lock().await?;
        let mut state = queue.state.lock().await;
        state.tombstones = Tombstones::open(path.with_extension("gone"));
        reload(&mut conn, &mut state).await?;
        // What was leased may have been given out.
        state.next = state.next.max(state.leased + 1);
        let _ = Self::purge(&mut conn, &mut state).await;
        drop((conn, state));
        Ok(queue)
    }

    pub(super) async fn close(&self) {
        self.database.close().await;
    }

    /// Inserts rows that the state does not have yet.
    async fn insert(
        &self,
        conn: &mut ConnectionGuard<'_>,
        state: &mut State,
        rows: &[(u64, &Transaction)],
    ) -> Result<(), StoreError> {
        let Some((last, _)) = rows.last() else { return Ok(()) };
        if state.relaxed {
            conn.execute_raw("PRAGMA synchronous = FULL".to_owned()).await?;
            state.relaxed = false;
        }
        let lease = (*last > state.leased).then_some(last.saturating_add(LEASED_NUMBERS));
        let mut bulk = BulkInsert::default();
        let filled = Self::fill(&mut bulk, rows, lease);
        filled.map_err(|e| explain(self.database.name(), e))?;
        let large = rows.iter().filter(|(_, t)| slices::is_sliced(t.payload()));
        let large: Vec<_> = large.collect();
        if large.is_empty() {
            conn.run_bulk(bulk).await?;
        } else {
            state.has_slices = true;
            conn.begin().await?;
            for (seq, transaction) in large {
                slices::write(conn, SLICES, *seq, transaction.payload()).await?;
            }
            conn.run_bulk_within(bulk).await?;
            conn.commit().await?;
        }
        state.leased = lease.unwrap_or(state.leased);
        Ok(())
    }

    fn fill<'r>(
        bulk: &mut BulkInsert,
        rows: &'r [(u64, &Transaction)],
        lease: Option<u64>,
    ) -> Result<(), sqlx::Error> {
        let row = |(seq, transaction): &'r (u64, &Transaction)| bulk_insert::Row {
            number: *seq,
            id: Some(*transaction.id().as_bytes()),
            head: codec::head(transaction),
            payload: slices::inline(transaction.payload()),
        };
        bulk.insert("outbox (seq, id, head, payload)", rows.iter().map(row))?;
        if let Some(lease) = lease {
            let lease = bulk.bind(lease.cast_signed())?;
            bulk.add(&format!("INSERT OR REPLACE INTO meta VALUES ('leased', {lease})"));
        }
        Ok(())
    }

    /// Writes where entries stand.
    async fn replace(
        &self,
        conn: &mut ConnectionGuard<'_>,
        rows: &[(u64, &EntryState)],
    ) -> Result<(), StoreError> {
        conn.begin().await?;
        for (sql, rows) in self.replace.chunks(rows) {
            let replace = rows.iter().fold(sqlx::query(sql), |query, (seq, change)| {
                let (attempts, due, reason, since) = rows::columns(change);
                query.bind(seq.cast_signed()).bind(attempts).bind(due).bind(reason).bind(since)
            });
            conn.execute(replace).await?;
        }
        conn.commit().await
    }

    /// Takes out what is gone, where that has become possible. Nobody waits for it.
    async fn purge(conn: &mut ConnectionGuard<'_>, state: &mut State) -> Result<(), StoreError> {
        if state.tombstones.is_empty() {
            return Ok(());
        }
        let seqs = listed(&state.tombstones.seqs());
        state.in_sync = false;
        conn.set_in_transaction(true)?;
        let result = conn.execute_raw(format!(
            "PRAGMA synchronous = FULL; BEGIN IMMEDIATE; \
             DELETE FROM outbox WHERE seq IN ({seqs}); DELETE FROM states WHERE seq IN ({seqs}); \
             DELETE FROM slices WHERE owner IN ({seqs}); COMMIT"
        ));
        let result = result.await;
        if result.is_ok() {
            conn.set_in_transaction(false)?;
            state.relaxed = false;
            state.tombstones.clear();
        }
        Self::settle(conn, state, &result).await;
        result
    }

    /// Notes what cannot be taken out because there is no room to write that, or somebody else has
    /// the file; the rows stay for a while.
    async fn note_tombstones(
        conn: &mut ConnectionGuard<'_>,
        state: &mut State,
        ids: &[TransactionId],
    ) -> Result<(), StoreError> {
        let there = find(conn, state, ids.iter().copied()).await?;
        let rows = there.iter().map(|(id, seq)| (*seq, codec::key_of(id)));
        state.tombstones.add(rows).map_err(|e| {
            StoreError::with_source(StoreErrorKind::Full, "nothing more can be noted", e)
        })?;
        for (id, seq) in &there {
            state.known.remove(id, std::slice::from_ref(seq));
        }
        Ok(())
    }

    /// Ends a change: what is not known for sure is read again before the next one.
    async fn settle<T>(
        conn: &mut ConnectionGuard<'_>,
        state: &mut State,
        result: &Result<T, StoreError>,
    ) {
        conn.roll_back().await;
        state.in_sync = result.as_ref().map_or_else(|error| changed_nothing(error.kind), |_| true);
        if !state.in_sync {
            conn.overwrite_failed_commit().await;
            state.relaxed = false;
        }
    }
}

/// Reads what is in the file. Numbers already given out by this process stay behind.
async fn reload(conn: &mut ConnectionGuard<'_>, state: &mut State) -> Result<(), StoreError> {
    conn.restart_wal().await?;
    let rows = conn.fetch_all(sqlx::query("SELECT seq, id FROM outbox")).await?;
    let (mut known, mut buried, mut newest) = (KnownIds::default(), BTreeSet::new(), 0);
    for row in rows {
        let (id, seq) = rows::id_row(&row).map_err(|e| damaged("the outbox", e))?;
        if state.tombstones.names(seq, codec::key_of(&id)) {
            buried.insert(seq);
        } else {
            known.insert(&id, seq);
        }
        newest = newest.max(seq);
    }
    state.tombstones.retain(|seq| buried.contains(&seq));
    let leased = sqlx::query("SELECT value FROM meta WHERE name = 'leased'");
    let leased: Option<i64> = conn.ask(leased).await?;
    let leased = checked_counter(leased.unwrap_or_default());
    state.leased = leased.map_err(|e| damaged("the outbox", e))?;
    state.next = state.next.max(newest + 1);
    let slices: Option<i64> = conn.ask(sqlx::query("SELECT EXISTS (SELECT 1 FROM slices)")).await?;
    state.has_slices = slices != Some(0);
    state.known = known;
    state.in_sync = true;
    Ok(())
}

/// Finds those of the ids that are there, with their numbers.
async fn find(
    conn: &mut ConnectionGuard<'_>,
    state: &State,
    ids: impl Iterator<Item = TransactionId>,
) -> Result<HashMap<TransactionId, u64>, StoreError> {
    let mut found = HashMap::new();
    let mut candidates = Vec::new();
    for id in ids {
        let before = candidates.len();
        candidates.extend(state.known.candidates(id));
        if candidates.len() > before {
            found.insert(id, None);
        }
    }
    if !candidates.is_empty() {
        let rows = "SELECT seq, id FROM outbox WHERE seq IN (SELECT value FROM json_each(?))";
        for row in conn.fetch_all(sqlx::query(rows).bind(json(&candidates))).await? {
            let (id, seq) = rows::id_row(&row).map_err(|e| damaged("the outbox", e))?;
            // Another one that begins alike was not asked for.
            found.entry(id).and_modify(|found| *found = Some(seq));
        }
    }
    Ok(found.into_iter().filter_map(|(id, seq)| Some((id, seq?))).collect())
}

/// Takes out those of the candidates whose whole id is asked for; says how many. Whoever waits for
/// confirmations makes thousands of these a second, so nothing is read before.
fn removal(candidates: &[u64], ids: &[TransactionId], has_slices: bool) -> String {
    let seqs = listed(candidates);
    let ids = ids.iter().map(|id| format!("x'{id}'")).collect::<Vec<_>>().join(",");
    let of_slices = if has_slices {
        format!(
            "DELETE FROM slices \
             WHERE owner IN ({seqs}) AND owner NOT IN (SELECT seq FROM outbox); "
        )
    } else {
        String::new()
    };
    format!(
        "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE; \
         DELETE FROM outbox WHERE seq IN ({seqs}) AND id IN ({ids}); SELECT changes(); \
         DELETE FROM states WHERE seq IN ({seqs}) AND seq NOT IN (SELECT seq FROM outbox); \
         {of_slices}COMMIT; PRAGMA synchronous = FULL"
    )
}

fn listed(seqs: &[u64]) -> String {
    seqs.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// Everything is cancel safe: a change whose future is dropped happens whole or not at all.
#[async_trait]
impl TransactionQueue for SqliteQueue {
    async fn append(&self, transactions: &[Transaction]) -> Result<Vec<u64>, StoreError> {
        let state = &mut *self.state.lock().await;
        let mut conn = self.database.lock().await?;
        if !state.in_sync {
            reload(&mut conn, state).await?;
        }
        // What is gone makes room.
        let _ = Self::purge(&mut conn, state).await;
        let mut next = state.next;
        let ids = transactions.iter().map(Transaction::id);
        let there = find(&mut conn, state, ids).await?;
        let mut fresh = HashMap::new();
        let mut rows = Vec::with_capacity(transactions.len());
        let mut seqs = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            let id = transaction.id();
            let known = there.get(&id).or_else(|| fresh.get(&id)).copied();
            seqs.push(known.unwrap_or(next));
            if known.is_none() {
                fresh.insert(id, next);
                rows.push((next, transaction));
                next += 1;
            }
        }
        if (state.known.len() + rows.len()) as u64 > self.capacity && !rows.is_empty() {
            return Err(self.full());
        }
        state.in_sync = false;
        let result = self.insert(&mut conn, state, &rows).await;
        Self::settle(&mut conn, state, &result).await;
        result?;
        state.next = next;
        for (id, seq) in fresh {
            state.known.insert(&id, seq);
        }
        drop(conn);
        let bytes: usize = rows.iter().map(|(_, t)| t.payload().len() + 512).sum();
        self.database.note_written(bytes as u64 / u64::from(SETUP.page_size) + 1);
        Ok(seqs)
    }

    async fn update(&self, states: &[(TransactionId, EntryState)]) -> Result<(), StoreError> {
        let state = &mut *self.state.lock().await;
        let mut conn = self.database.lock().await?;
        if !state.in_sync {
            reload(&mut conn, state).await?;
        }
        let there = find(&mut conn, state, states.iter().map(|(id, _)| *id)).await?;
        let mut last = HashMap::with_capacity(states.len());
        for (id, change) in states {
            if let Some(seq) = there.get(id) {
                last.insert(*seq, change);
            }
        }
        let mut rows: Vec<_> = last.into_iter().collect();
        rows.sort_unstable_by_key(|(seq, _)| *seq);
        if rows.is_empty() {
            return Ok(());
        }
        state.in_sync = false;
        let result = self.replace(&mut conn, &rows).await;
        Self::settle(&mut conn, state, &result).await;
        result
    }

    async fn remove(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        let state = &mut *self.state.lock().await;
        let mut conn = self.database.lock().await?;
        if !state.in_sync {
            reload(&mut conn, state).await?;
        }
        let mut candidates: Vec<_> =
            ids.iter().flat_map(|id| state.known.candidates(*id)).collect();
        candidates.sort_unstable();
        candidates.dedup();
        if candidates.is_empty() {
            return Ok(());
        }
        (state.in_sync, state.relaxed) = (false, true);
        conn.set_in_transaction(true)?;
        let result = conn.ask_raw(removal(&candidates, ids, state.has_slices)).await;
        if result.is_ok() {
            conn.set_in_transaction(false)?;
            state.relaxed = false;
        }
        let result = result.map(Option::unwrap_or_default);
        Self::settle(&mut conn, state, &result).await;
        if let Err(error) = &result
            && changed_nothing(error.kind)
        {
            return Self::note_tombstones(&mut conn, state, ids).await;
        }
        drop(conn);
        self.database.note_written(candidates.len() as u64 / 8 + 3);
        if usize::try_from(result?).is_ok_and(|removed| removed == candidates.len()) {
            for id in ids {
                state.known.remove(id, &candidates);
            }
        } else {
            // Some only began like one of these.
            state.in_sync = false;
        }
        Ok(())
    }

    async fn get(&self, id: &TransactionId) -> Result<Option<OutboxEntry>, StoreError> {
        let state = &mut *self.state.lock().await;
        let mut conn = self.database.lock().await?;
        if !state.in_sync {
            reload(&mut conn, state).await?;
        }
        let there = find(&mut conn, state, Some(*id).into_iter()).await?;
        let Some(seq) = there.get(id) else { return Ok(None) };
        let one = sqlx::query(
            "SELECT outbox.seq, head, payload, attempts, due, reason, since \
             FROM outbox LEFT JOIN states USING (seq) WHERE outbox.seq = ?",
        );
        match conn.fetch_all(one.bind(seq.cast_signed())).await?.pop() {
            Some(row) => self.entry(&mut conn, row).await.map(Some),
            None => Ok(None),
        }
    }

    async fn load(
        &self,
        filter: EntryFilter,
        after: Option<u64>,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let state = &*self.state.lock().await;
        let mut conn = self.database.lock().await?;
        conn.begin_reading().await?;
        let (sizes, rows) = rows::statements(filter);
        let after = after.map_or(-1, |after| i64::try_from(after).unwrap_or(i64::MAX));
        let tombstones = &state.tombstones;
        let limit = i64::try_from(max_entries.saturating_add(tombstones.len())).unwrap_or(i64::MAX);
        let sizes = conn.fetch_all(sqlx::query(sizes).bind(after).bind(limit)).await?;
        let sizes =
            sizes.iter().map(|row| rows::sized(row).map_err(|e| damaged(self.database.name(), e)));
        let live = sizes
            .filter(|row| !row.as_ref().is_ok_and(|(seq, _)| tombstones.has(seq.cast_unsigned())));
        let last = last_of_page(live, max_entries, max_bytes)?;
        let Some(last) = last else {
            conn.commit().await?;
            return Ok(Vec::new());
        };
        let rows = conn.fetch_all(sqlx::query(rows).bind(after).bind(last)).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let entry = self.entry(&mut conn, row).await?;
            if !tombstones.has(entry.seq) {
                entries.push(entry);
            }
        }
        conn.commit().await?;
        Ok(entries)
    }

    async fn limit_memory(&self, bytes: u64) {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).min(SETUP.cache_kib);
        self.database.set_cache(kib).await;
        self.cache_kib.store(kib, Ordering::Relaxed);
    }

    fn memory(&self) -> u64 {
        u64::from(self.cache_kib.load(Ordering::Relaxed)) << 10
    }

    fn lease(&self) -> Option<&StoreLease> {
        Some(&self.lease)
    }

    async fn size(&self) -> Result<QueueSize, StoreError> {
        let state = &*self.state.lock().await;
        let mut conn = self.database.lock().await?;
        conn.begin_reading().await?;
        let tombstones = json(&state.tombstones.seqs());
        let all = "SELECT (SELECT count(*) FROM outbox) - (SELECT count(*) FROM outbox \
                   WHERE seq IN (SELECT value FROM json_each(?)))";
        let all: Option<i64> = conn.ask(sqlx::query(all).bind(tombstones.clone())).await?;
        let dead = "SELECT count(*) FROM states WHERE reason IS NOT NULL \
                    AND seq NOT IN (SELECT value FROM json_each(?))";
        let dead: Option<i64> = conn.ask(sqlx::query(dead).bind(tombstones)).await?;
        conn.commit().await?;
        let number = |n: Option<i64>| n.unwrap_or_default().cast_unsigned();
        let (all, dead) = (number(all), number(dead));
        Ok(QueueSize { waiting: all.saturating_sub(dead), dead, capacity: self.capacity })
    }

    async fn probe(&self) -> Result<bool, StoreError> {
        let state = &mut *self.state.lock().await;
        let mut conn = self.database.lock().await?;
        if !state.in_sync {
            reload(&mut conn, state).await?;
        }
        Self::purge(&mut conn, state).await?;
        if state.known.len() as u64 >= self.capacity {
            return Err(self.full());
        }
        if state.relaxed {
            conn.execute_raw("PRAGMA synchronous = FULL".to_owned()).await?;
            state.relaxed = false;
        }
        // The same number again: written and synced, and nothing is changed by it.
        let keep = sqlx::query("INSERT OR REPLACE INTO meta VALUES ('leased', ?)");
        state.in_sync = false;
        let result = conn.execute(keep.bind(state.leased.cast_signed())).await;
        Self::settle(&mut conn, state, &result).await;
        result.map(|()| true)
    }
}

impl SqliteQueue {
    fn full(&self) -> StoreError {
        let message = format!("the outbox is bounded to {} entries", self.capacity);
        StoreError::new(StoreErrorKind::Full, message)
    }

    /// Entry of a row, with the payload from its slices where it stands there.
    async fn entry(
        &self,
        conn: &mut ConnectionGuard<'_>,
        row: SqliteRow,
    ) -> Result<OutboxEntry, StoreError> {
        let wrong = |error| damaged(self.database.name(), error);
        let mut stored = rows::stored(&row).map_err(wrong)?;
        // One of the two copies of a payload less.
        drop(row);
        let len = codec::payload_len(&stored.head).map_err(wrong)?;
        if stored.payload.is_empty() && len > 0 {
            stored.payload = slices::read(conn, SLICES, stored.seq, len).await?;
        }
        stored.into_entry().map_err(wrong)
    }
}

/// The last of the rows, by number and size, that fit a page; one of any size always does.
fn last_of_page(
    sizes: impl Iterator<Item = Result<(i64, usize), StoreError>>,
    max_entries: usize,
    max_bytes: usize,
) -> Result<Option<i64>, StoreError> {
    let (mut bytes, mut last) = (0usize, None);
    for row in sizes.take(max_entries) {
        let (seq, size) = row?;
        bytes = bytes.saturating_add(size);
        if bytes > max_bytes && last.is_some() {
            break;
        }
        last = Some(seq);
    }
    Ok(last)
}
