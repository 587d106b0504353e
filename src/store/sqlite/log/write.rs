//! Changing the log: appending, dropping generations, and taking stock when a file is opened or a
//! change ended in doubt.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::{AssertSqlSafe, Row};

use super::generations::{Generation, Generations};
use super::keys::{self, Draft, Run};
use super::read::block_of;
use super::{SqliteLog, State, locked, slices_of};
use crate::error::{Source, StoreError, StoreErrorKind};
use crate::ports::{LogEntry, NewEntry};
use crate::store::gap_index::GapIndex;
use crate::store::limits::stored_size;
use crate::store::sqlite::bulk_insert::{self, BulkInsert};
use crate::store::sqlite::codec::{self, Slot, clamped};
use crate::store::sqlite::database::ConnectionGuard;
use crate::store::sqlite::error::{changed_nothing, checked_counter, damaged, explain};
use crate::store::sqlite::query::{Insert, json};
use crate::store::sqlite::slices;
use crate::types::{Cursor, TransactionId, WallTime};

/// Maximum number of index entries in one row.
const BLOCK_ENTRIES: usize = 256;
/// Number of cursors leased at once.
const LEASED_CURSORS: u64 = 1 << 20;
/// Maximum number of blocks read at once: what is read at once stays with the allocator.
const MAX_BLOCKS: i64 = 16;

/// Rows that an append will write.
#[derive(Debug, Default)]
struct Plan<'e> {
    cursors: Vec<Cursor>,
    new: Vec<(Slot, &'e NewEntry)>,
    /// Generations to be made: number and end.
    made: Vec<(u32, u64)>,
    /// The run that these make full.
    run: Option<Draft>,
    next: u64,
}

impl SqliteLog {
    /// Takes stock of a file that was just opened. Cursors begin above `floor`.
    pub(super) async fn start(&self, floor: u64) -> Result<(), StoreError> {
        let state = &mut *self.state.lock().await;
        let mut conn = self.writer.lock().await?;
        let fresh = sqlx::query("SELECT value FROM meta WHERE name = 'base'");
        if conn.ask::<i64>(fresh).await?.is_none() {
            let base = sqlx::query("INSERT INTO meta VALUES ('base', ?)");
            conn.execute(base.bind(floor.cast_signed())).await?;
        }
        self.reload(&mut conn, state).await?;
        state.next = state.next.max(state.leased.max(floor) + 1);
        if state.leased > 0 {
            // A power failure may have taken entries whose cursors a subscriber has kept.
            let known = &mut *self.known_mut();
            known.newest = known.newest.max(state.next - 1);
        }
        Ok(())
    }

    /// Reads what the file has. What this process gave out stays behind.
    pub(super) async fn reload(
        &self,
        conn: &mut ConnectionGuard<'_>,
        state: &mut State,
    ) -> Result<(), StoreError> {
        for reader in &self.readers {
            reader.end_dropped_operation().await;
        }
        conn.restart_wal().await?;
        conn.begin_reading().await?;
        let mut known = Generations::default();
        let mut meta = HashMap::new();
        for row in conn.fetch_all(sqlx::query("SELECT name, value FROM meta")).await? {
            let number =
                || pair::<String>(&row).and_then(|(name, n)| Ok((name, checked_counter(n)?)));
            let (name, value) = number().map_err(|e| self.damaged(e))?;
            meta.insert(name, value);
        }
        let number = |name: &str| meta.get(name).copied().unwrap_or_default();
        let gaps = conn.fetch_all(sqlx::query("SELECT topic, last FROM losses")).await?;
        let gaps = gaps.iter().map(|row| {
            let (topic, last) = pair::<i64>(row)?;
            Ok((topic.cast_unsigned(), checked_counter(last)?))
        });
        let gaps = gaps.collect::<Result<_, Source>>().map_err(|e| self.damaged(e))?;
        known.gaps = GapIndex::from_parts(gaps, number("losses"));
        known.base = number("base");
        let generations = sqlx::query("SELECT generation, ends, keyed FROM generations");
        for row in conn.fetch_all(generations).await? {
            let (number, ends) = pair::<u32>(&row).map_err(|e| self.damaged(e))?;
            let ends = u64::try_from(ends).map_err(|e| self.damaged(e.into()))?;
            let keyed: bool = row.try_get("keyed").map_err(|e| self.damaged(e.into()))?;
            let made = if keyed { Generation::closed } else { Generation::new };
            known.all.insert(number, made(ends));
        }
        self.read_blocks(conn, &mut known).await?;
        conn.commit().await?;
        known.newest = known.newest.max(known.gaps.of(None));
        state.leased = number("leased");
        let newest = known.all.keys().next_back().copied().unwrap_or_default();
        let newest = newest.max(u32::try_from(number("generation")).unwrap_or(u32::MAX));
        state.next_generation = state.next_generation.max(newest.saturating_add(1));
        state.next = state.next.max(known.newest + 1);
        state.in_sync = true;
        let shared = &mut *self.known_mut();
        known.newest = known.newest.max(shared.newest);
        locked(&self.recent).restart(known.newest.max(known.base));
        *shared = known;
        Ok(())
    }

    /// Fills counts and keys from the index. What is in no run and would fill some becomes runs: a
    /// file of an earlier version has none.
    async fn read_blocks(
        &self,
        conn: &mut ConnectionGuard<'_>,
        known: &mut Generations,
    ) -> Result<(), StoreError> {
        let mut runs = self.read_runs(conn).await?.into_iter().peekable();
        let mut after = -1i64;
        loop {
            let blocks = "SELECT last, block FROM blocks WHERE last > ? ORDER BY last LIMIT ?";
            let rows = conn.fetch_all(sqlx::query(blocks).bind(after).bind(MAX_BLOCKS)).await?;
            let Some(row) = rows.last() else { break };
            after = row.try_get("last").map_err(|e| self.damaged(e.into()))?;
            for slot in rows.iter().map(block_of) {
                for slot in slot.map_err(|e| self.damaged(e))? {
                    known.count(&slot);
                    while let Some((number, run)) =
                        runs.next_if(|(_, run)| run.last < slot.shown.cursor.0)
                    {
                        known.keys.insert(number, run);
                    }
                    match runs.peek_mut() {
                        Some((_, run)) => run.add(&slot.shown.id),
                        None => known.keys.add(&slot.location()),
                    }
                }
            }
            let draft = known.keys.draft(std::iter::empty(), |number| known.end_of(&[], number));
            if let Some(draft) = draft {
                self.write_run(conn, &draft).await?;
                known.keys.seal(&draft, self.seed);
            }
        }
        runs.for_each(|(number, run)| known.keys.insert(number, run));
        Ok(())
    }

    /// The runs in the file; their ids are still to be added.
    async fn read_runs(
        &self,
        conn: &mut ConnectionGuard<'_>,
    ) -> Result<BTreeMap<u64, Run>, StoreError> {
        let mut runs = BTreeMap::new();
        let query = sqlx::query("SELECT run, last, ends, entries FROM runs");
        for row in conn.fetch_all(query).await? {
            let number = |column: &str| row.try_get::<i64, _>(column);
            let run = || -> Result<_, Source> {
                let (run, last) =
                    (checked_counter(number("run")?)?, checked_counter(number("last")?)?);
                let ends = u64::try_from(number("ends")?)?;
                let entries = usize::try_from(number("entries")?)?;
                if run > keys::MAX_RUN || entries > keys::MAX_ENTRIES {
                    return Err(format!("run {run} cannot have {entries} entries").into());
                }
                Ok((run, Run::new(last, ends, entries, self.seed)))
            };
            runs.extend([run().map_err(|e| self.damaged(e))?]);
        }
        let parts = sqlx::query("SELECT part, first FROM keys ORDER BY part");
        for row in conn.fetch_all(parts).await? {
            let (part, first) = pair::<i64>(&row).map_err(|e| self.damaged(e))?;
            if let Some(run) = runs.get_mut(&keys::run_of(part.cast_unsigned())) {
                run.add_part(first.cast_unsigned());
            }
        }
        Ok(runs)
    }

    fn damaged(&self, error: Source) -> StoreError {
        damaged(self.writer.name(), error)
    }

    pub(super) async fn append_all(&self, entries: &[NewEntry]) -> Result<Vec<Cursor>, StoreError> {
        let state = &mut *self.state.lock().await;
        let mut conn = self.writer.lock().await?;
        if !state.in_sync {
            self.reload(&mut conn, state).await?;
        }
        let there = self.cursors_of(&mut conn, entries).await?;
        let plan = self.plan_append(state, entries, &there)?;
        if plan.new.is_empty() {
            return Ok(plan.cursors);
        }
        {
            let mut known = self.known_mut();
            for (number, ends) in &plan.made {
                known.all.entry(*number).or_insert(Generation::new(*ends));
            }
        }
        state.in_sync = false;
        let result = self.write(&mut conn, state, &plan).await;
        conn.roll_back().await;
        if let Err(error) = result {
            {
                let mut known = self.known_mut();
                for (number, _) in &plan.made {
                    known.all.remove(number);
                }
            }
            Self::fail(&mut conn, state, &error).await;
            return Err(error);
        }
        state.in_sync = true;
        state.next = plan.next;
        state.next_generation += u32::try_from(plan.made.len()).unwrap_or(u32::MAX);
        {
            let mut known = self.known_mut();
            for (slot, _) in &plan.new {
                known.count(slot);
                if plan.run.is_none() {
                    known.keys.add(&slot.location());
                }
            }
            if let Some(run) = &plan.run {
                known.keys.seal(run, self.seed);
            }
        }
        drop(conn);
        let bytes: u64 = plan.new.iter().map(|(slot, _)| slot.bytes + 512).sum();
        self.writer.note_written(bytes / u64::from(super::WRITER.page_size) + 2);
        let mut recent = locked(&self.recent);
        for (slot, entry) in &plan.new {
            recent.add(LogEntry { cursor: slot.shown.cursor, entry: (*entry).clone() });
        }
        Ok(plan.cursors)
    }

    /// Ends a change that failed: what is not known for sure is read again before the next one.
    pub(super) async fn fail(
        conn: &mut ConnectionGuard<'_>,
        state: &mut State,
        error: &StoreError,
    ) {
        state.in_sync = changed_nothing(error.kind);
        if !state.in_sync {
            conn.overwrite_failed_commit().await;
            state.strict = true;
        }
    }

    /// Cursors of those that are there already.
    async fn cursors_of(
        &self,
        conn: &mut ConnectionGuard<'_>,
        entries: &[NewEntry],
    ) -> Result<HashMap<TransactionId, u64>, StoreError> {
        let candidates = self.candidates(entries.iter().map(|entry| entry.transaction.id()));
        let mut there = HashMap::new();
        for (generation, cursors) in self.locate(conn, candidates).await? {
            let query = format!(
                "SELECT cursor, head FROM g_{generation} \
                 WHERE cursor IN (SELECT value FROM json_each(?))"
            );
            let query = sqlx::query(AssertSqlSafe(query)).bind(json(&cursors));
            for row in conn.fetch_all(query).await? {
                let found = || -> Result<_, Source> {
                    let cursor = row.try_get::<i64, _>("cursor")?.cast_unsigned();
                    Ok((codec::id_of_log_head(row.try_get("head")?)?, cursor))
                };
                let (id, cursor) = found().map_err(|e| self.damaged(e))?;
                there.insert(id, cursor);
            }
        }
        Ok(there)
    }

    fn plan_append<'e>(
        &self,
        state: &State,
        entries: &'e [NewEntry],
        there: &HashMap<TransactionId, u64>,
    ) -> Result<Plan<'e>, StoreError> {
        let known = self.known();
        let mut plan = Plan { next: state.next, ..Plan::default() };
        let mut fresh = HashMap::new();
        let mut bytes = 0u64;
        for entry in entries {
            let id = entry.transaction.id();
            if let Some(cursor) = there.get(&id).or_else(|| fresh.get(&id)) {
                plan.cursors.push(Cursor(*cursor));
                continue;
            }
            let placed = known.generation_for(&plan.made, entry.keep_until, self.limits.generation);
            let generation = placed.unwrap_or_else(|ends| {
                let made = u32::try_from(plan.made.len()).unwrap_or(u32::MAX);
                let number = state.next_generation.saturating_add(made);
                plan.made.push((number, ends));
                number
            });
            fresh.insert(id, plan.next);
            plan.cursors.push(Cursor(plan.next));
            plan.new.push((Slot::new(plan.next, entry, generation), entry));
            plan.next += 1;
            bytes = bytes.saturating_add(stored_size(&entry.transaction));
        }
        let locations = plan.new.iter().map(|(slot, _)| slot.location());
        plan.run = known.keys.draft(locations, |number| known.end_of(&plan.made, number));
        let limit = self.limits.max_bytes;
        if bytes > 0 && known.bytes().saturating_add(bytes) > limit {
            return Err(full(limit));
        }
        Ok(plan)
    }

    /// Writes and syncs a number that is there already.
    pub(super) async fn try_to_write(&self) -> Result<(), StoreError> {
        let state = &mut *self.state.lock().await;
        let mut conn = self.writer.lock().await?;
        if !state.in_sync {
            self.reload(&mut conn, state).await?;
        }
        if self.known().bytes() >= self.limits.max_bytes {
            return Err(full(self.limits.max_bytes));
        }
        (state.in_sync, state.strict) = (false, true);
        let result = async {
            conn.execute_raw("PRAGMA synchronous = FULL".to_owned()).await?;
            set(&mut conn, "leased", state.leased).await?;
            conn.execute_raw("PRAGMA synchronous = NORMAL".to_owned()).await
        };
        let result = result.await;
        conn.roll_back().await;
        if let Err(error) = result {
            Self::fail(&mut conn, state, &error).await;
            return Err(error);
        }
        (state.in_sync, state.strict) = (true, false);
        Ok(())
    }

    async fn write(
        &self,
        conn: &mut ConnectionGuard<'_>,
        state: &mut State,
        plan: &Plan<'_>,
    ) -> Result<(), StoreError> {
        let lease = (plan.next > state.leased).then_some(plan.next.saturating_add(LEASED_CURSORS));
        let bulk = self.bulk_of(plan).map_err(|e| explain(self.writer.name(), e))?;
        let has_slices = plan.new.iter().any(|(_, e)| slices::is_sliced(e.transaction.payload()));
        let is_plain = plan.made.is_empty() && plan.run.is_none() && !has_slices;
        if lease.is_none() && !state.strict && is_plain {
            return conn.run_bulk(bulk).await;
        }
        // A lease must survive a power failure before a cursor of it is given out.
        if lease.is_some() || state.strict {
            let level = if lease.is_some() { "FULL" } else { "NORMAL" };
            state.strict = true;
            conn.execute_raw(format!("PRAGMA synchronous = {level}")).await?;
            state.strict = lease.is_some();
        }
        conn.begin().await?;
        for (number, ends) in &plan.made {
            make_generation(conn, *number, *ends).await?;
        }
        if let Some(lease) = lease {
            set(conn, "leased", lease).await?;
        }
        if has_slices {
            write_slices(conn, plan).await?;
        }
        conn.run_bulk_within(bulk).await?;
        if let Some(run) = &plan.run {
            self.write_run(conn, run).await?;
        }
        conn.commit().await?;
        state.leased = lease.unwrap_or(state.leased);
        Ok(())
    }

    async fn write_run(
        &self,
        conn: &mut ConnectionGuard<'_>,
        run: &Draft,
    ) -> Result<(), StoreError> {
        let insert = sqlx::query("INSERT INTO runs (run, last, ends, entries) VALUES (?, ?, ?, ?)");
        let entries = i64::try_from(run.locations.len()).unwrap_or(i64::MAX);
        let insert = insert.bind(run.number.cast_signed()).bind(run.last.cast_signed());
        conn.execute(insert.bind(clamped(run.ends)).bind(entries)).await?;
        let parts: Vec<_> = run.parts().collect();
        for (sql, parts) in self.parts.chunks(&parts) {
            let insert =
                parts.iter().fold(sqlx::query(sql), |query, (number, first, locations)| {
                    let query = query.bind(number.cast_signed()).bind(first.cast_signed());
                    query.bind(codec::encode_locations(locations))
                });
            conn.execute(insert).await?;
        }
        Ok(())
    }

    /// Inserts the entries and their index.
    fn bulk_of(&self, plan: &Plan<'_>) -> Result<BulkInsert, sqlx::Error> {
        let mut bulk = BulkInsert::default();
        let mut rows: BTreeMap<u32, Vec<&(Slot, &NewEntry)>> = BTreeMap::new();
        for row in &plan.new {
            rows.entry(row.0.generation).or_default().push(row);
        }
        for (generation, rows) in rows {
            let rows = rows.iter().map(|(slot, entry)| bulk_insert::Row {
                number: slot.shown.cursor.0,
                id: None,
                head: codec::log_head(entry),
                payload: slices::inline(entry.transaction.payload()),
            });
            bulk.insert(&format!("g_{generation} (cursor, head, payload)"), rows)?;
        }
        for rows in plan.new.chunks(BLOCK_ENTRIES) {
            let slots: Vec<_> = rows.iter().map(|(slot, _)| slot.clone()).collect();
            let known = self.known();
            let ends = slots.iter().map(|slot| known.end_of(&plan.made, slot.generation)).max();
            let ends = bulk.bind(clamped(ends.unwrap_or_default()))?;
            let last = slots.last().map(|slot| slot.shown.cursor.0).unwrap_or_default();
            let last = bulk.bind(last.cast_signed())?;
            let block = bulk.bind_bytes(codec::encode_block(&slots))?;
            bulk.add(&format!(
                "INSERT INTO blocks (last, ends, block) VALUES ({last}, {ends}, {block})"
            ));
        }
        Ok(bulk)
    }

    pub(super) async fn drop_ended(&self, now: WallTime) -> Result<u64, StoreError> {
        if self.known().ended(now).is_empty() {
            return Ok(0);
        }
        let state = &mut *self.state.lock().await;
        let mut conn = self.writer.lock().await?;
        if !state.in_sync {
            self.reload(&mut conn, state).await?;
        }
        let (ended, runs, gaps) = {
            let known = self.known();
            (known.ended(now), known.keys.ended(now.as_millis()), known.gaps.clone())
        };
        state.in_sync = false;
        let result = self.drop_from_file(&mut conn, (&ended, &runs), gaps, now).await;
        conn.roll_back().await;
        if let Err(error) = &result {
            Self::fail(&mut conn, state, error).await;
        }
        let gaps = result?;
        state.in_sync = true;
        let known = &mut *self.known_mut();
        locked(&self.recent).restart(known.newest.max(known.base));
        known.gaps = gaps;
        let dropped = ended.iter().filter_map(|number| known.all.remove(number));
        let dropped = dropped.map(|generation| generation.entries).sum();
        known.keys.drop(&runs, |generation| known.all.contains_key(&generation));
        Ok(dropped)
    }

    async fn drop_from_file(
        &self,
        conn: &mut ConnectionGuard<'_>,
        (ended, runs): (&[u32], &[u64]),
        mut gaps: GapIndex,
        now: WallTime,
    ) -> Result<GapIndex, StoreError> {
        let until = clamped(now.as_millis());
        conn.begin().await?;
        // All of these are lost as soon as the row that tells of them is.
        let mut after = -1i64;
        loop {
            let blocks = "SELECT last, block FROM blocks WHERE ends <= ? AND last > ? \
                          ORDER BY last LIMIT ?";
            let blocks = sqlx::query(blocks).bind(until).bind(after).bind(MAX_BLOCKS);
            let rows = conn.fetch_all(blocks).await?;
            let Some(row) = rows.last() else { break };
            after = row.try_get("last").map_err(|e| self.damaged(e.into()))?;
            for row in &rows {
                for slot in block_of(row).map_err(|e| self.damaged(e))? {
                    gaps.note(slot.shown.topic.0, slot.shown.cursor.0);
                }
            }
        }
        conn.execute(sqlx::query("DELETE FROM blocks WHERE ends <= ?").bind(until)).await?;
        for number in ended {
            conn.execute_raw(format!(
                "DROP TABLE g_{number}; DROP TABLE IF EXISTS s_{number}; \
                 DELETE FROM generations WHERE generation = {number}"
            ))
            .await?;
        }
        for run in runs {
            let parts = keys::parts_of(*run);
            conn.execute_raw(format!(
                "DELETE FROM keys WHERE part >= {} AND part < {}; DELETE FROM runs WHERE run = {run}",
                parts.start, parts.end
            ))
            .await?;
        }
        conn.run("DELETE FROM losses").await?;
        let (topics, others) = gaps.parts();
        let topics: Vec<_> = topics.collect();
        let insert = Insert::new("INSERT INTO losses (topic, last) VALUES", 2);
        for (sql, rows) in insert.chunks(&topics) {
            let insert = rows.iter().fold(sqlx::query(sql), |query, (topic, last)| {
                query.bind(topic.cast_signed()).bind(last.cast_signed())
            });
            conn.execute(insert).await?;
        }
        set(conn, "losses", others).await?;
        // Before the commit: whoever no longer sees the entries knows then that they are lost.
        self.known_mut().gaps = gaps.clone();
        conn.commit().await?;
        Ok(gaps)
    }
}

/// Writes the payloads that are too large for a row.
async fn write_slices(conn: &mut ConnectionGuard<'_>, plan: &Plan<'_>) -> Result<(), StoreError> {
    let mut made = BTreeSet::new();
    for (slot, entry) in &plan.new {
        let payload = entry.transaction.payload();
        if slices::is_sliced(payload) {
            let table = slices_of(slot.generation);
            if made.insert(slot.generation) {
                conn.execute_raw(slices::make(&table)).await?;
            }
            slices::write(conn, &table, slot.shown.cursor.0, payload).await?;
        }
    }
    Ok(())
}

async fn make_generation(
    conn: &mut ConnectionGuard<'_>,
    number: u32,
    ends: u64,
) -> Result<(), StoreError> {
    conn.execute_raw(format!(
        "CREATE TABLE g_{number} (cursor INTEGER NOT NULL PRIMARY KEY, \
         head BLOB NOT NULL, payload BLOB NOT NULL) STRICT"
    ))
    .await?;
    let insert = sqlx::query("INSERT INTO generations (generation, ends) VALUES (?, ?)");
    conn.execute(insert.bind(i64::from(number)).bind(clamped(ends))).await?;
    // Numbers are not used again: a lookup under way may still have one in mind.
    set(conn, "generation", u64::from(number)).await
}

fn full(limit: u64) -> StoreError {
    StoreError::new(StoreErrorKind::Full, format!("the log is bounded to {limit} bytes"))
}

async fn set(
    conn: &mut ConnectionGuard<'_>,
    name: &'static str,
    value: u64,
) -> Result<(), StoreError> {
    let query = sqlx::query("INSERT OR REPLACE INTO meta VALUES (?, ?)");
    conn.execute(query.bind(name).bind(value.cast_signed())).await
}

fn pair<T>(row: &sqlx::sqlite::SqliteRow) -> Result<(T, i64), Source>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    Ok((row.try_get(0)?, row.try_get(1)?))
}
