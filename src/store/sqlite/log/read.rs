//! Reading the log: pages, lookups by id, the index.

use std::collections::{BTreeMap, HashMap};

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row};

use super::keys::Candidates;
use super::lookaround_cache::MIN_IDS;
use super::{SqliteLog, locked, slices_of};
use crate::error::{Source, StoreError, StoreErrorKind};
use crate::ports::{IndexEntry, LogEntry, Page};
use crate::store::sqlite::codec::{self, Location, Slot};
use crate::store::sqlite::database::ConnectionGuard;
use crate::store::sqlite::error::damaged;
use crate::store::sqlite::query::json;
use crate::store::sqlite::slices;
use crate::types::{Cursor, Topic, TopicKey, Transaction, TransactionId};

/// Number of index entries looked at in one call.
const MAX_SCANNED: usize = 16_384;
/// Maximum number of blocks read at once.
const MAX_BLOCKS: usize = 16;

/// Parts of a page, before payloads are read.
#[derive(Debug, Default)]
struct Plan {
    picked: Vec<Slot>,
    next: u64,
    gap_until: u64,
}

impl Plan {
    /// Goes on to a cursor. What the index has skipped is gone, if the topic has lost anything as
    /// late as that; the cursor of what is there is no loss.
    fn pass(&mut self, cursor: u64, there: bool, gap: u64) {
        let skipped = if there { cursor.saturating_sub(1) } else { cursor };
        let until = skipped.min(gap);
        if until > self.next {
            self.gap_until = self.gap_until.max(until);
        }
        self.next = self.next.max(cursor);
    }
}

impl SqliteLog {
    pub(super) async fn page(
        &self,
        topic: Option<&Topic>,
        after: Cursor,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        if max_entries == 0 {
            return Ok(Page { next: after, ..Page::default() });
        }
        let topic = topic.map(|topic| TopicKey::of(topic).0);
        let mut conn = self.reader().lock().await?;
        conn.begin_reading().await?;
        let mut plan = self.plan(&mut conn, topic, after.0, max_entries, max_bytes).await?;
        let mut found = self.payloads(&mut conn, &plan.picked).await?;
        // A commit would fail once more where a page was damaged.
        conn.roll_back().await;
        let mut entries = Vec::with_capacity(plan.picked.len());
        let (known, mut damaged_until) = (self.known(), None);
        for slot in &plan.picked {
            let cursor = slot.shown.cursor;
            if let Some(entry) = found.remove(&cursor.0) {
                entries.push(entry);
                continue;
            }
            plan.gap_until = plan.gap_until.max(cursor.0);
            // Else it was dropped meanwhile.
            if known.all.contains_key(&slot.generation) {
                damaged_until = Some(cursor);
            }
        }
        let mut gap = plan.gap_until;
        if (1..known.base).contains(&after.0) {
            gap = gap.max(known.base);
        }
        let gap_until = (gap > after.0).then_some(Cursor(gap));
        Ok(Page { entries, next: Cursor(plan.next), gap_until, damaged_until })
    }

    /// Looks through the index for a page.
    async fn plan(
        &self,
        conn: &mut ConnectionGuard<'_>,
        topic: Option<u64>,
        after: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Plan, StoreError> {
        // Before the first look: what is appended meanwhile is above it.
        let newest = self.known().newest;
        let mut plan = Plan { next: after, ..Plan::default() };
        let (mut bytes, mut seen) = (0usize, 0);
        while seen < MAX_SCANNED {
            let blocks = self.blocks_after(conn, plan.next, MAX_BLOCKS.min(max_entries)).await?;
            let (known, gap): (Vec<u32>, u64) = {
                // After the look: what it did not find is known to be lost by now.
                let known = self.known();
                (known.all.keys().copied().collect(), known.gaps.of(topic))
            };
            if blocks.is_empty() {
                plan.pass(newest, false, gap);
                return Ok(plan);
            }
            for slot in blocks {
                seen += 1;
                let cursor = slot.shown.cursor.0;
                if topic.is_some_and(|topic| topic != slot.shown.topic.0) {
                    plan.pass(cursor, true, gap);
                    continue;
                }
                if known.binary_search(&slot.generation).is_err() {
                    plan.pass(cursor, true, gap);
                    plan.gap_until = cursor;
                    continue;
                }
                bytes =
                    bytes.saturating_add(usize::try_from(slot.shown.size).unwrap_or(usize::MAX));
                let full = bytes > max_bytes && !plan.picked.is_empty();
                if full || plan.picked.len() >= max_entries {
                    return Ok(plan);
                }
                plan.pass(cursor, true, gap);
                plan.picked.push(slot);
            }
        }
        Ok(plan)
    }

    /// Index entries after a cursor, of at most so many blocks.
    async fn blocks_after(
        &self,
        conn: &mut ConnectionGuard<'_>,
        after: u64,
        blocks: usize,
    ) -> Result<Vec<Slot>, StoreError> {
        let query = "SELECT block FROM blocks WHERE last > ? ORDER BY last LIMIT ?";
        let limit = i64::try_from(blocks).unwrap_or(i64::MAX);
        let query = sqlx::query(query).bind(after.cast_signed()).bind(limit);
        let rows = conn.fetch_all(query).await?;
        let mut all = Vec::new();
        for row in rows {
            let slots = block_of(&row).map_err(|e| damaged(self.writer.name(), e))?;
            all.extend(slots.into_iter().filter(|slot| slot.shown.cursor.0 > after));
        }
        Ok(all)
    }

    /// Whole entries, by cursor, without what is gone or damaged.
    async fn payloads(
        &self,
        conn: &mut ConnectionGuard<'_>,
        slots: &[Slot],
    ) -> Result<HashMap<u64, LogEntry>, StoreError> {
        let mut by_generation: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for slot in slots {
            by_generation.entry(slot.generation).or_default().push(slot.shown.cursor.0);
        }
        let mut found = HashMap::with_capacity(slots.len());
        for (generation, cursors) in by_generation {
            let (entries, _) = self.whole_ones(conn, generation, &cursors).await?;
            found.extend(entries.into_iter().map(|entry| (entry.cursor.0, entry)));
        }
        Ok(found)
    }

    /// Entries of one generation, but for those that are damaged: one bad row must not stop a
    /// subscriber for ever, which is told of a gap, nor what is read for a peer together with it.
    async fn whole_ones(
        &self,
        conn: &mut ConnectionGuard<'_>,
        generation: u32,
        cursors: &[u64],
    ) -> Result<(Vec<LogEntry>, Option<StoreError>), StoreError> {
        let (rows, mut damage) = match rows_of(conn, generation, cursors).await {
            Err(error) if error.kind == StoreErrorKind::Corrupt => {
                (self.readable(conn, generation, cursors).await?, Some(error))
            }
            rows => (rows?, None),
        };
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            match self.entry_of(conn, generation, row).await {
                Ok(entry) => entries.push(entry),
                // Its payload was dropped meanwhile, with all of the generation.
                Err(error) if no_table(&error) => {}
                Err(error) if error.kind != StoreErrorKind::Corrupt => return Err(error),
                Err(error) => {
                    tracing::error!(target: "sorcha_peer::store", %error, "a damaged entry is skipped");
                    damage = Some(error);
                }
            }
        }
        Ok((entries, damage))
    }

    /// Entry of a row, with the payload from its slices where it stands there.
    async fn entry_of(
        &self,
        conn: &mut ConnectionGuard<'_>,
        generation: u32,
        row: SqliteRow,
    ) -> Result<LogEntry, StoreError> {
        let wrong = |error| damaged(self.writer.name(), error);
        let (cursor, head, mut payload) = parts_of(&row).map_err(wrong)?;
        // One of the two copies of a payload less.
        drop(row);
        let len = codec::payload_len_of_log_head(&head).map_err(wrong)?;
        if payload.is_empty() && len > 0 {
            payload = slices::read(conn, &slices_of(generation), cursor, len).await?;
        }
        codec::log_entry(cursor, &head, payload).map_err(wrong)
    }

    /// Rows that can still be read where a page of the file is damaged.
    async fn readable(
        &self,
        conn: &mut ConnectionGuard<'_>,
        generation: u32,
        cursors: &[u64],
    ) -> Result<Vec<SqliteRow>, StoreError> {
        let mut readable = Vec::new();
        for cursor in cursors {
            match rows_of(conn, generation, std::slice::from_ref(cursor)).await {
                Err(error) if error.kind == StoreErrorKind::Corrupt => {
                    let file = self.writer.name();
                    tracing::error!(target: "sorcha_peer::store", file, cursor, %error, "a damaged entry is skipped");
                }
                rows => readable.extend(rows?),
            }
        }
        Ok(readable)
    }

    pub(super) async fn find(&self, id: &TransactionId) -> Result<Option<Transaction>, StoreError> {
        let (mut found, damage) = self.look_up(&[*id]).await?;
        match (found.remove(id), damage) {
            (None, Some(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }

    /// Transactions by id; one that is damaged is not there.
    pub(super) async fn find_all(
        &self,
        ids: &[TransactionId],
    ) -> Result<Vec<Option<Transaction>>, StoreError> {
        let (found, _) = self.look_up(ids).await?;
        Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
    }

    /// Transactions of those ids that are there and whole, a statement for each generation that may
    /// hold some of them, and what was wrong with others.
    async fn look_up(
        &self,
        ids: &[TransactionId],
    ) -> Result<(HashMap<TransactionId, Transaction>, Option<StoreError>), StoreError> {
        let (mut found, mut damage) = (HashMap::with_capacity(ids.len()), None);
        if ids.len() < MIN_IDS && self.candidates(ids.iter().copied()).is_empty() {
            // Mostly ids that are new: memory knows.
            return Ok((found, damage));
        }
        let mut conn = self.reader().lock().await?;
        for (generation, cursors) in self.locations_of(&mut conn, ids).await? {
            let (entries, error) = self.whole_ones(&mut conn, generation, &cursors).await?;
            damage = damage.or(error);
            for entry in entries {
                let transaction = entry.entry.transaction;
                found.insert(transaction.id(), transaction);
            }
        }
        Ok((found, damage))
    }

    /// Generations and cursors where these ids may stand.
    async fn locations_of(
        &self,
        conn: &mut ConnectionGuard<'_>,
        ids: &[TransactionId],
    ) -> Result<BTreeMap<u32, Vec<u64>>, StoreError> {
        let mut locations = BTreeMap::new();
        let mut rest = self.remembered(ids, &mut locations);
        if locked(&self.lookaround).is_worth(rest.len()) {
            let first = self.locate(conn, self.candidates(rest.first().copied())).await?;
            if let Some(cursor) = first.values().flatten().next() {
                let slots = self.blocks_after(conn, cursor.saturating_sub(1), MAX_BLOCKS).await?;
                locked(&self.lookaround).remember(&slots, &rest);
                rest = self.remembered(&rest, &mut locations);
            }
        }
        for (generation, cursors) in self.locate(conn, self.candidates(rest)).await? {
            locations.entry(generation).or_default().extend(cursors);
        }
        Ok(locations)
    }

    /// Adds the locations that are remembered; those of which none is.
    fn remembered(
        &self,
        ids: &[TransactionId],
        locations: &mut BTreeMap<u32, Vec<u64>>,
    ) -> Vec<TransactionId> {
        let (known, lookaround) = (self.known(), locked(&self.lookaround));
        let mut rest = Vec::new();
        for id in ids {
            // Of a generation that went, a later one may have it.
            match lookaround
                .location(id)
                .filter(|(generation, _)| known.all.contains_key(generation))
            {
                Some((generation, cursor)) => locations.entry(generation).or_default().push(cursor),
                None => rest.push(*id),
            }
        }
        rest
    }

    /// Locations where these ids may stand, as far as memory tells.
    pub(super) fn candidates(&self, ids: impl IntoIterator<Item = TransactionId>) -> Candidates {
        let (known, mut found) = (self.known(), Candidates::default());
        ids.into_iter().for_each(|id| known.keys.look_for(&id, &mut found));
        found
    }

    /// Generations and cursors of candidates: whoever reads there compares ids.
    pub(super) async fn locate(
        &self,
        conn: &mut ConnectionGuard<'_>,
        Candidates { mut locations, parts }: Candidates,
    ) -> Result<BTreeMap<u32, Vec<u64>>, StoreError> {
        if !parts.is_empty() {
            let query = "SELECT part, places FROM keys \
                         WHERE part IN (SELECT value FROM json_each(?))";
            let numbers: Vec<_> = parts.keys().copied().collect();
            for row in conn.fetch_all(sqlx::query(query).bind(json(&numbers))).await? {
                let (part, list) = part_of(&row).map_err(|e| damaged(self.writer.name(), e))?;
                let wanted = parts.get(&part);
                let hits = list.iter().filter(|p| wanted.is_some_and(|w| w.contains(&p.key)));
                locations.extend(hits.map(|location| (location.generation, location.cursor)));
            }
        }
        let known = self.known();
        let mut located: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (generation, cursor) in locations.into_iter().filter(|p| known.all.contains_key(&p.0)) {
            located.entry(generation).or_default().push(cursor);
        }
        Ok(located)
    }

    pub(super) async fn list(
        &self,
        after: Cursor,
        limit: usize,
    ) -> Result<Vec<IndexEntry>, StoreError> {
        let mut conn = self.reader().lock().await?;
        let mut list = Vec::new();
        let mut at = after.0;
        while list.len() < limit {
            let blocks = (limit - list.len()).div_ceil(64).min(MAX_BLOCKS);
            let slots = self.blocks_after(&mut conn, at, blocks).await?;
            let Some(last) = slots.last() else { break };
            at = last.shown.cursor.0;
            let known = self.known();
            let live = slots.into_iter().filter(|slot| known.all.contains_key(&slot.generation));
            list.extend(live.map(|slot| slot.shown).take(limit - list.len()));
        }
        Ok(list)
    }
}

/// Whole entries of a generation; none where it has been dropped.
async fn rows_of(
    conn: &mut ConnectionGuard<'_>,
    generation: u32,
    cursors: &[u64],
) -> Result<Vec<SqliteRow>, StoreError> {
    let query = format!(
        "SELECT cursor, head, payload FROM g_{generation} \
         WHERE cursor IN (SELECT value FROM json_each(?))"
    );
    let query = sqlx::query(AssertSqlSafe(query)).bind(json(cursors));
    match conn.fetch_all(query).await {
        Err(error) if no_table(&error) => Ok(Vec::new()),
        rows => rows,
    }
}

pub(super) fn block_of(row: &SqliteRow) -> Result<Vec<Slot>, Source> {
    codec::decode_block(row.try_get("block")?)
}

fn part_of(row: &SqliteRow) -> Result<(u64, Vec<Location>), Source> {
    let part = row.try_get::<i64, _>("part")?.cast_unsigned();
    Ok((part, codec::decode_locations(row.try_get("places")?)?))
}

/// Cursor, head and payload of a row.
fn parts_of(row: &SqliteRow) -> Result<(u64, Vec<u8>, Vec<u8>), Source> {
    let cursor = row.try_get::<i64, _>("cursor")?.cast_unsigned();
    Ok((cursor, row.try_get("head")?, row.try_get("payload")?))
}

/// A generation that was dropped between a look into memory and one into the file.
fn no_table(error: &StoreError) -> bool {
    error.message.contains("no such table")
}
