//! The outbox in a file.
//!
//! Commits survive a power failure (`synchronous = FULL`); only new states and removals need not,
//! since an entry that is tried once more does no harm. Which ids are there is known in memory, by
//! their first 8 bytes (20 to 40 bytes an entry): that an id is not there is never looked up in the
//! file. That it is there, the file has the last word on.
//!
//! Sequence numbers are leased: the file says up to which number some may have been given out,
//! and the next process begins after it.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use hashbrown::HashTable;
use sqlx::Row;
use sqlx::sqlite::{SqliteRow, SqliteSynchronous};
use tokio::sync::Mutex;

use super::DirLock;
use super::bulk_insert::{self, BulkInsert};
use super::codec;
use super::database::{
    Database, Held, Insert, Setup, changed_nothing, damaged, explain, json, risen,
};
use super::tombstones::Tombstones;
use crate::error::{Source, StoreError, StoreErrorKind};
use crate::ports::{EntryFilter, EntryState, OutboxEntry, QueueSize, TransactionQueue};
use crate::types::{Transaction, TransactionId, WallTime};

const MIGRATIONS: &[&str] = &[include_str!("migrations/queue/1.sql")];
const SETUP: Setup = Setup {
    synchronous: SqliteSynchronous::Full,
    page_size: 8192,
    cache_kib: 2048,
    checkpoint_pages: 2000,
};
/// Numbers leased at once.
const LEASE: u64 = 1 << 16;

/// Keeps own transactions in a file.
#[derive(Debug)]
pub(super) struct SqliteQueue {
    database: Arc<Database>,
    state: Mutex<State>,
    capacity: u64,
    replace: Insert,
    /// The directory stays ours while its files are open.
    _lock: Arc<DirLock>,
}

#[derive(Debug, Default)]
struct State {
    known: Known,
    next: u64,
    leased: u64,
    /// Whether the fields above say what the file has.
    sure: bool,
    /// Whether commits may have been left without `FULL`.
    relaxed: bool,
    gone: Tombstones,
}

/// Keys and sequence numbers of all entries. A key may stand for several ids, so what is found is a
/// candidate. Nobody gains by ids that share one: each costs a look into the file.
#[derive(Debug, Default)]
struct Known {
    entries: HashTable<(u64, u64)>,
    keyed: RandomState,
}

impl Known {
    fn insert(&mut self, id: &TransactionId, seq: u64) {
        let (key, keyed) = (codec::key_of(id), &self.keyed);
        self.entries.insert_unique(keyed.hash_one(key), (key, seq), |(key, _)| keyed.hash_one(key));
    }

    /// Takes out what stands under the key of an id, as far as it is in a sorted list.
    fn remove(&mut self, id: &TransactionId, seqs: &[u64]) {
        let (key, keyed) = (codec::key_of(id), &self.keyed);
        let gone = |(found, seq): &(u64, u64)| *found == key && seqs.binary_search(seq).is_ok();
        while let Ok(entry) = self.entries.find_entry(keyed.hash_one(key), gone) {
            entry.remove();
        }
        // Memory follows what is kept, also after a burst.
        if self.entries.capacity() > 1024 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2, |(key, _)| keyed.hash_one(key));
        }
    }

    /// Where an id may stand.
    fn candidates(&self, id: TransactionId) -> impl Iterator<Item = u64> {
        let key = codec::key_of(&id);
        let found = self.entries.iter_hash(self.keyed.hash_one(key));
        found.filter(move |(found, _)| *found == key).map(|(_, seq)| *seq)
    }
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
            replace: Insert::new(
                "INSERT OR REPLACE INTO states (seq, attempts, due, reason, since) VALUES",
                5,
            ),
            _lock: lock,
        };
        let mut held = queue.database.lock().await?;
        let mut state = queue.state.lock().await;
        state.gone = Tombstones::open(path.with_extension("gone"));
        reload(&mut held, &mut state).await?;
        // What was leased may have been given out.
        state.next = state.next.max(state.leased + 1);
        let _ = Self::purge(&mut held, &mut state).await;
        drop((held, state));
        Ok(queue)
    }

    pub(super) async fn close(&self) {
        self.database.close().await;
    }

    /// Inserts rows that the state does not have yet.
    async fn insert(
        &self,
        held: &mut Held<'_>,
        state: &mut State,
        rows: &[(u64, &Transaction)],
    ) -> Result<(), StoreError> {
        let Some((last, _)) = rows.last() else { return Ok(()) };
        if state.relaxed {
            held.execute_raw("PRAGMA synchronous = FULL".to_owned()).await?;
            state.relaxed = false;
        }
        let lease = (*last > state.leased).then_some(last.saturating_add(LEASE));
        let mut bulk = BulkInsert::default();
        let filled = Self::fill(&mut bulk, rows, lease);
        filled.map_err(|e| explain(self.database.name(), e))?;
        held.run_bulk(bulk).await?;
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
            payload: transaction.payload(),
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
        held: &mut Held<'_>,
        rows: &[(u64, &EntryState)],
    ) -> Result<(), StoreError> {
        held.begin().await?;
        for (sql, rows) in self.replace.chunks(rows) {
            let replace = rows.iter().fold(sqlx::query(sql), |query, (seq, change)| {
                let (attempts, due, reason, since) = columns(change);
                query.bind(seq.cast_signed()).bind(attempts).bind(due).bind(reason).bind(since)
            });
            held.execute(replace).await?;
        }
        held.commit().await
    }

    /// Takes out what is gone, where that has become possible. Nobody waits for it.
    async fn purge(held: &mut Held<'_>, state: &mut State) -> Result<(), StoreError> {
        if state.gone.is_empty() {
            return Ok(());
        }
        let seqs = listed(&state.gone.seqs());
        state.sure = false;
        held.whole(true)?;
        let result = held.execute_raw(format!(
            "PRAGMA synchronous = FULL; BEGIN IMMEDIATE; \
             DELETE FROM outbox WHERE seq IN ({seqs}); DELETE FROM states WHERE seq IN ({seqs}); \
             COMMIT"
        ));
        let result = result.await;
        if result.is_ok() {
            held.whole(false)?;
            state.relaxed = false;
            state.gone.clear();
        }
        Self::settle(held, state, &result).await;
        result
    }

    /// Notes what cannot be taken out because there is no room to write that, or somebody else has
    /// the file; the rows stay for a while.
    async fn note_gone(
        held: &mut Held<'_>,
        state: &mut State,
        ids: &[TransactionId],
    ) -> Result<(), StoreError> {
        let there = find(held, state, ids.iter().copied()).await?;
        let rows = there.iter().map(|(id, seq)| (*seq, codec::key_of(id)));
        state.gone.add(rows).map_err(|e| {
            StoreError::with_source(StoreErrorKind::Full, "nothing more can be noted", e)
        })?;
        for (id, seq) in &there {
            state.known.remove(id, std::slice::from_ref(seq));
        }
        Ok(())
    }

    /// Ends a change: what is not known for sure is read again before the next one.
    async fn settle<T>(held: &mut Held<'_>, state: &mut State, result: &Result<T, StoreError>) {
        held.roll_back().await;
        state.sure = result.as_ref().map_or_else(|error| changed_nothing(error.kind), |_| true);
        if !state.sure {
            held.disown().await;
            state.relaxed = false;
        }
    }
}

/// Reads what is in the file. Numbers already given out by this process stay behind.
async fn reload(held: &mut Held<'_>, state: &mut State) -> Result<(), StoreError> {
    held.begin_anew().await?;
    let rows = held.fetch_all(sqlx::query("SELECT seq, id FROM outbox")).await?;
    let (mut known, mut gone, mut newest) = (Known::default(), BTreeSet::new(), 0);
    for row in rows {
        let (id, seq) = id_row(&row).map_err(|e| damaged("the outbox", e))?;
        if state.gone.names(seq, codec::key_of(&id)) {
            gone.insert(seq);
        } else {
            known.insert(&id, seq);
        }
        newest = newest.max(seq);
    }
    state.gone.retain(|seq| gone.contains(&seq));
    let leased = sqlx::query("SELECT value FROM meta WHERE name = 'leased'");
    let leased: Option<i64> = held.ask(leased).await?;
    let leased = risen(leased.unwrap_or_default());
    state.leased = leased.map_err(|e| damaged("the outbox", e))?;
    state.next = state.next.max(newest + 1);
    state.known = known;
    state.sure = true;
    Ok(())
}

fn id_row(row: &SqliteRow) -> Result<(TransactionId, u64), Source> {
    let id = row.try_get::<&[u8], _>("id")?.try_into()?;
    Ok((TransactionId::from_bytes(id), risen(row.try_get("seq")?)?))
}

/// Those of the ids that are there, with their numbers.
async fn find(
    held: &mut Held<'_>,
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
        for row in held.fetch_all(sqlx::query(rows).bind(json(&candidates))).await? {
            let (id, seq) = id_row(&row).map_err(|e| damaged("the outbox", e))?;
            // Another one that begins alike was not asked for.
            found.entry(id).and_modify(|found| *found = Some(seq));
        }
    }
    Ok(found.into_iter().filter_map(|(id, seq)| Some((id, seq?))).collect())
}

/// Takes out those of the candidates whose whole id is asked for; says how many. Whoever waits for
/// confirmations makes thousands of these a second, so nothing is read before.
fn removal(candidates: &[u64], ids: &[TransactionId]) -> String {
    let seqs = listed(candidates);
    let ids = ids.iter().map(|id| format!("x'{id}'")).collect::<Vec<_>>().join(",");
    format!(
        "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE; \
         DELETE FROM outbox WHERE seq IN ({seqs}) AND id IN ({ids}); SELECT changes(); \
         DELETE FROM states WHERE seq IN ({seqs}) AND seq NOT IN (SELECT seq FROM outbox); \
         COMMIT; PRAGMA synchronous = FULL"
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
        let mut held = self.database.lock().await?;
        if !state.sure {
            reload(&mut held, state).await?;
        }
        // What is gone makes room.
        let _ = Self::purge(&mut held, state).await;
        let mut next = state.next;
        let ids = transactions.iter().map(Transaction::id);
        let there = find(&mut held, state, ids).await?;
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
        if (state.known.entries.len() + rows.len()) as u64 > self.capacity && !rows.is_empty() {
            return Err(self.full());
        }
        state.sure = false;
        let result = self.insert(&mut held, state, &rows).await;
        Self::settle(&mut held, state, &result).await;
        result?;
        state.next = next;
        for (id, seq) in fresh {
            state.known.insert(&id, seq);
        }
        drop(held);
        let bytes: usize = rows.iter().map(|(_, t)| t.payload().len() + 512).sum();
        self.database.grew(bytes as u64 / u64::from(SETUP.page_size) + 1);
        Ok(seqs)
    }

    async fn update(&self, states: &[(TransactionId, EntryState)]) -> Result<(), StoreError> {
        let state = &mut *self.state.lock().await;
        let mut held = self.database.lock().await?;
        if !state.sure {
            reload(&mut held, state).await?;
        }
        let there = find(&mut held, state, states.iter().map(|(id, _)| *id)).await?;
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
        state.sure = false;
        let result = self.replace(&mut held, &rows).await;
        Self::settle(&mut held, state, &result).await;
        result
    }

    async fn remove(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        let state = &mut *self.state.lock().await;
        let mut held = self.database.lock().await?;
        if !state.sure {
            reload(&mut held, state).await?;
        }
        let mut candidates: Vec<_> =
            ids.iter().flat_map(|id| state.known.candidates(*id)).collect();
        candidates.sort_unstable();
        candidates.dedup();
        if candidates.is_empty() {
            return Ok(());
        }
        (state.sure, state.relaxed) = (false, true);
        held.whole(true)?;
        let result = held.ask_raw(removal(&candidates, ids)).await;
        if result.is_ok() {
            held.whole(false)?;
            state.relaxed = false;
        }
        let result = result.map(Option::unwrap_or_default);
        Self::settle(&mut held, state, &result).await;
        if let Err(error) = &result
            && changed_nothing(error.kind)
        {
            return Self::note_gone(&mut held, state, ids).await;
        }
        drop(held);
        self.database.grew(candidates.len() as u64 / 8 + 3);
        if usize::try_from(result?).is_ok_and(|removed| removed == candidates.len()) {
            for id in ids {
                state.known.remove(id, &candidates);
            }
        } else {
            // Some only began like one of these.
            state.sure = false;
        }
        Ok(())
    }

    async fn get(&self, id: &TransactionId) -> Result<Option<OutboxEntry>, StoreError> {
        let state = &mut *self.state.lock().await;
        let mut held = self.database.lock().await?;
        if !state.sure {
            reload(&mut held, state).await?;
        }
        let there = find(&mut held, state, Some(*id).into_iter()).await?;
        let Some(seq) = there.get(id) else { return Ok(None) };
        let one = sqlx::query(
            "SELECT outbox.seq, head, payload, attempts, due, reason, since \
             FROM outbox LEFT JOIN states USING (seq) WHERE outbox.seq = ?",
        );
        let rows = held.fetch_all(one.bind(seq.cast_signed())).await?;
        rows.first().map(|row| self.entry(row)).transpose()
    }

    async fn load(
        &self,
        filter: EntryFilter,
        after: Option<u64>,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let state = &*self.state.lock().await;
        let mut held = self.database.lock().await?;
        held.begin_reading().await?;
        let (sizes, rows) = match filter {
            EntryFilter::All => (
                "SELECT seq, length(payload) FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?",
                "SELECT outbox.seq, head, payload, attempts, due, reason, since \
                 FROM outbox LEFT JOIN states USING (seq) \
                 WHERE outbox.seq > ? AND outbox.seq <= ? ORDER BY outbox.seq",
            ),
            EntryFilter::Waiting => (
                "SELECT outbox.seq, length(payload) FROM outbox LEFT JOIN states USING (seq) \
                 WHERE outbox.seq > ? AND reason IS NULL ORDER BY outbox.seq LIMIT ?",
                "SELECT outbox.seq, head, payload, attempts, due, reason, since \
                 FROM outbox LEFT JOIN states USING (seq) \
                 WHERE outbox.seq > ? AND outbox.seq <= ? AND reason IS NULL ORDER BY outbox.seq",
            ),
            EntryFilter::Dead => (
                "SELECT states.seq, length(payload) FROM states JOIN outbox USING (seq) \
                 WHERE states.seq > ? AND reason IS NOT NULL ORDER BY states.seq LIMIT ?",
                "SELECT outbox.seq, head, payload, attempts, due, reason, since \
                 FROM states JOIN outbox USING (seq) \
                 WHERE states.seq > ? AND states.seq <= ? AND reason IS NOT NULL \
                 ORDER BY states.seq",
            ),
        };
        let after = after.map_or(-1, |after| i64::try_from(after).unwrap_or(i64::MAX));
        let gone = &state.gone;
        let limit = i64::try_from(max_entries.saturating_add(gone.len())).unwrap_or(i64::MAX);
        let sizes = held.fetch_all(sqlx::query(sizes).bind(after).bind(limit)).await?;
        let (mut bytes, mut last, mut count) = (0usize, None, 0);
        for row in sizes {
            let (seq, size) = sized(&row).map_err(|e| damaged(self.database.name(), e))?;
            if gone.has(seq.cast_unsigned()) {
                continue;
            }
            count += 1;
            if count > max_entries {
                break;
            }
            bytes = bytes.saturating_add(size);
            if bytes > max_bytes && last.is_some() {
                break;
            }
            last = Some(seq);
        }
        let Some(last) = last else {
            held.commit().await?;
            return Ok(Vec::new());
        };
        let rows = held.fetch_all(sqlx::query(rows).bind(after).bind(last)).await?;
        held.commit().await?;
        let entries = rows.iter().map(|row| self.entry(row));
        entries.filter(|e| !e.as_ref().is_ok_and(|e| gone.has(e.seq))).collect()
    }

    async fn size(&self) -> Result<QueueSize, StoreError> {
        let state = &*self.state.lock().await;
        let mut held = self.database.lock().await?;
        held.begin_reading().await?;
        let gone = json(&state.gone.seqs());
        let all = "SELECT (SELECT count(*) FROM outbox) - (SELECT count(*) FROM outbox \
                   WHERE seq IN (SELECT value FROM json_each(?)))";
        let all: Option<i64> = held.ask(sqlx::query(all).bind(gone.clone())).await?;
        let dead = "SELECT count(*) FROM states WHERE reason IS NOT NULL \
                    AND seq NOT IN (SELECT value FROM json_each(?))";
        let dead: Option<i64> = held.ask(sqlx::query(dead).bind(gone)).await?;
        held.commit().await?;
        let number = |n: Option<i64>| n.unwrap_or_default().cast_unsigned();
        let (all, dead) = (number(all), number(dead));
        Ok(QueueSize { waiting: all.saturating_sub(dead), dead, capacity: self.capacity })
    }

    async fn probe(&self) -> Result<bool, StoreError> {
        let state = &mut *self.state.lock().await;
        let mut held = self.database.lock().await?;
        if !state.sure {
            reload(&mut held, state).await?;
        }
        Self::purge(&mut held, state).await?;
        if state.known.entries.len() as u64 >= self.capacity {
            return Err(self.full());
        }
        if state.relaxed {
            held.execute_raw("PRAGMA synchronous = FULL".to_owned()).await?;
            state.relaxed = false;
        }
        // The same number again: written and synced, and nothing is changed by it.
        let keep = sqlx::query("INSERT OR REPLACE INTO meta VALUES ('leased', ?)");
        state.sure = false;
        let result = held.execute(keep.bind(state.leased.cast_signed())).await;
        Self::settle(&mut held, state, &result).await;
        result.map(|()| true)
    }
}

impl SqliteQueue {
    fn full(&self) -> StoreError {
        let message = format!("the outbox is bounded to {} entries", self.capacity);
        StoreError::new(StoreErrorKind::Full, message)
    }

    fn entry(&self, row: &SqliteRow) -> Result<OutboxEntry, StoreError> {
        entry(row).map_err(|e| damaged(self.database.name(), e))
    }
}

fn sized(row: &SqliteRow) -> Result<(i64, usize), Source> {
    Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?.try_into()?))
}

fn entry(row: &SqliteRow) -> Result<OutboxEntry, Source> {
    let transaction = codec::transaction(row.try_get("head")?, row.try_get("payload")?)?;
    let time = |column| row.try_get::<Option<i64>, _>(column);
    let time = |column| time(column).map(|t| wall_time(t.unwrap_or_default()));
    let state = if let Some(reason) = row.try_get("reason")? {
        EntryState::Dead { reason, since: time("since")? }
    } else {
        let attempts = row.try_get::<Option<i64>, _>("attempts")?.unwrap_or_default();
        EntryState::Waiting { attempts: attempts.try_into()?, due: time("due")? }
    };
    let seq = row.try_get::<i64, _>("seq")?.cast_unsigned();
    Ok(OutboxEntry { seq, transaction, state })
}

fn columns(state: &EntryState) -> (i64, i64, Option<String>, Option<i64>) {
    match state {
        EntryState::Waiting { attempts, due } => (i64::from(*attempts), signed(*due), None, None),
        EntryState::Dead { reason, since } => (0, 0, Some(reason.clone()), Some(signed(*since))),
    }
}

fn signed(time: WallTime) -> i64 {
    time.as_millis().cast_signed()
}

fn wall_time(millis: i64) -> WallTime {
    WallTime::from_millis(millis.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{Header, PeerId, Signature, Topic};

    fn transaction(n: u64, size: usize) -> Transaction {
        let at = WallTime::from_millis(n);
        let payload = Bytes::from(vec![7; size]);
        let header =
            Header::new(Topic::new("t").unwrap(), PeerId::from_bytes([1; 32]), at, at, &payload);
        Transaction::new(header, Signature::None, payload).unwrap()
    }

    async fn run(queue: &SqliteQueue, sql: &str) {
        queue.database.lock().await.unwrap().execute_raw(sql.to_owned()).await.unwrap();
    }

    #[tokio::test]
    async fn a_probe_tells_whether_it_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Arc::new(DirLock::acquire(dir.path()).unwrap());
        let queue = SqliteQueue::open(&dir.path().join("q.db"), 2, lock).await.unwrap();
        let first = queue.append(&[transaction(0, 10)]).await.unwrap()[0];
        run(&queue, "PRAGMA query_only = true").await;
        queue.probe().await.unwrap_err();
        run(&queue, "PRAGMA query_only = false").await;
        assert!(queue.probe().await.unwrap());
        assert!(queue.append(&[transaction(1, 10)]).await.unwrap()[0] > first);
        assert_eq!(queue.probe().await.unwrap_err().kind, StoreErrorKind::Full);
    }

    #[tokio::test]
    async fn numbers_that_cannot_be_are_damage() {
        let spoil = [
            "UPDATE meta SET value = -1",
            "UPDATE meta SET value = 9223372036854775807",
            "UPDATE outbox SET seq = -5",
        ];
        for spoil in spoil {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("q.db");
            let lock = Arc::new(DirLock::acquire(dir.path()).unwrap());
            let queue = SqliteQueue::open(&path, 1000, Arc::clone(&lock)).await.unwrap();
            queue.append(&[transaction(0, 10)]).await.unwrap();
            run(&queue, spoil).await;
            queue.close().await;
            let error = SqliteQueue::open(&path, 1000, lock).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt, "{spoil}: {error}");
        }
    }

    #[tokio::test]
    async fn ids_that_begin_alike_are_not_taken_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Arc::new(DirLock::acquire(dir.path()).unwrap());
        let queue = SqliteQueue::open(&dir.path().join("q.db"), 1000, lock).await.unwrap();
        let all: Vec<_> = (0..3).map(|n| transaction(n, 10)).collect();
        let seqs = queue.append(&all[..2]).await.unwrap();
        // As if the third began like both.
        for seq in &seqs {
            queue.state.lock().await.known.insert(&all[2].id(), *seq);
        }
        let third = all[2].id();
        assert_eq!(queue.get(&third).await.unwrap(), None);
        queue.remove(&[third]).await.unwrap();
        let dead = EntryState::Dead { reason: "no".into(), since: WallTime::default() };
        queue.update(&[(third, dead.clone())]).await.unwrap();
        assert_eq!(queue.size().await.unwrap().waiting, 2, "untouched");
        let seq = queue.append(&all[2..]).await.unwrap()[0];
        assert!(!seqs.contains(&seq));
        assert_eq!(queue.append(&all[2..]).await.unwrap(), [seq], "now it is known");
        queue.update(&[(third, dead)]).await.unwrap();
        assert_eq!(queue.load(EntryFilter::Dead, None, 9, 99).await.unwrap()[0].seq, seq);
        queue.remove(&[third]).await.unwrap();
        assert_eq!(queue.get(&third).await.unwrap(), None);
        assert_eq!(queue.get(&all[0].id()).await.unwrap().unwrap().seq, seqs[0]);
        assert_eq!(queue.size().await.unwrap().waiting, 2);
    }

    #[tokio::test]
    async fn a_full_disk_refuses_and_room_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Arc::new(DirLock::acquire(dir.path()).unwrap());
        let queue = SqliteQueue::open(&dir.path().join("q.db"), 1000, lock).await.unwrap();
        let kept = queue.append(&[transaction(0, 100)]).await.unwrap();
        run(&queue, "PRAGMA max_page_count = 1").await;
        let many: Vec<_> = (1..=100).map(|n| transaction(n, 20_000)).collect();
        for count in [100, 1, 64] {
            let error = queue.append(&many[..count]).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Full, "{count}: {error}");
            assert_eq!(queue.size().await.unwrap().waiting, 1, "all or none");
        }
        let room = many.iter().map(Transaction::id).collect::<Vec<_>>();
        queue.remove(&room).await.expect("what is not there needs no room to go");
        run(&queue, "PRAGMA max_page_count = 100000").await;
        let seqs = queue.append(&many).await.unwrap();
        assert!(seqs[0] > kept[0] && seqs.is_sorted_by(|a, b| a < b));
        assert_eq!(queue.size().await.unwrap().waiting, 101);
    }

    #[tokio::test]
    async fn what_cannot_be_taken_out_is_gone_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        let open = || async {
            let lock = Arc::new(DirLock::acquire(dir.path()).unwrap());
            SqliteQueue::open(&path, 1000, lock).await.unwrap()
        };
        let queue = open().await;
        let all: Vec<_> = (0..4).map(|n| transaction(n, 10)).collect();
        let seqs = queue.append(&all[..3]).await.unwrap();
        let dead = EntryState::Dead { reason: "no".into(), since: WallTime::default() };
        queue.update(&[(all[1].id(), dead)]).await.unwrap();
        let other = Database::open(&path, MIGRATIONS, SETUP).await.unwrap();
        let mut writing = other.lock().await.unwrap();
        writing.begin().await.unwrap();

        let only_the_third = async |queue: &SqliteQueue| {
            let left = queue.load(EntryFilter::All, None, 1, 99).await.unwrap();
            assert_eq!((left.len(), left[0].seq, &left[0].transaction), (1, seqs[2], &all[2]));
            assert!(queue.load(EntryFilter::All, Some(seqs[2]), 1, 99).await.unwrap().is_empty());
            assert!(queue.load(EntryFilter::Dead, None, 9, 99).await.unwrap().is_empty());
            let size = queue.size().await.unwrap();
            assert_eq!((size.waiting, size.dead), (1, 0));
            assert_eq!(queue.get(&all[0].id()).await.unwrap(), None);
        };
        queue.remove(&[all[0].id(), all[1].id()]).await.unwrap();
        only_the_third(&queue).await;
        assert_eq!(queue.append(&all[3..]).await.unwrap_err().kind, StoreErrorKind::Locked);
        // As after a kill, once with the reason still there.
        drop(queue);
        let queue = open().await;
        only_the_third(&queue).await;
        writing.roll_back().await;
        let again = queue.append(&all[..1]).await.unwrap()[0];
        assert!(again > seqs[2], "it is a new entry");
        assert_eq!(queue.size().await.unwrap().waiting, 2);
        drop(queue);
        let queue = open().await;
        assert_eq!(queue.get(&all[0].id()).await.unwrap().unwrap().seq, again);
        let rows = "SELECT count(*) FROM outbox";
        let rows = queue.database.lock().await.unwrap().ask::<i64>(sqlx::query(rows)).await;
        assert_eq!(rows.unwrap(), Some(2), "nothing stays behind");
        assert!(Tombstones::open(path.with_extension("gone")).is_empty());
    }

    #[tokio::test]
    async fn appends_are_synced_also_after_a_removal_that_failed() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Arc::new(DirLock::acquire(dir.path()).unwrap());
        let queue = SqliteQueue::open(&dir.path().join("q.db"), 1000, lock).await.unwrap();
        let all: Vec<_> = (0..3).map(|n| transaction(n, 10)).collect();
        queue.append(&all[..2]).await.unwrap();
        run(
            &queue,
            "CREATE TRIGGER no BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .await;
        queue.remove(&[all[0].id()]).await.unwrap_err();
        assert_eq!(queue.size().await.unwrap().waiting, 2, "all or none");
        run(&queue, "DROP TRIGGER no").await;
        queue.append(&all).await.unwrap();
        let level = "PRAGMA synchronous";
        let mut held = queue.database.lock().await.unwrap();
        assert_eq!(held.ask::<i64>(sqlx::query(level)).await.unwrap(), Some(2));
        drop(held);
        queue.remove(&[all[0].id(), all[1].id()]).await.unwrap();
        let mut held = queue.database.lock().await.unwrap();
        assert_eq!(held.ask::<i64>(sqlx::query(level)).await.unwrap(), Some(2));
        drop(held);
        assert_eq!(queue.load(EntryFilter::All, None, 9, 99).await.unwrap()[0].transaction, all[2]);
    }
}
