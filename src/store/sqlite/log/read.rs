//! Reading the log: pages, lookups by id, the index.

use std::collections::{BTreeMap, HashMap};

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row};

use super::SqliteLog;
use crate::error::{Source, StoreError};
use crate::ports::{IndexEntry, LogEntry, Page};
use crate::store::sqlite::codec::{self, Slot};
use crate::store::sqlite::database::{Held, damaged};
use crate::types::{Cursor, Topic, TopicKey, Transaction, TransactionId};

/// Index entries looked at in one call.
const SCAN: usize = 16_384;
/// Blocks read at once.
const BLOCKS: usize = 64;

/// What a page is made of, before payloads are read.
#[derive(Debug, Default)]
struct Plan {
    picked: Vec<Slot>,
    next: u64,
    lost_until: u64,
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
        let mut held = self.reader().lock().await?;
        held.begin_reading().await?;
        let mut plan = self.plan(&mut held, topic, after.0, max_entries, max_bytes).await?;
        let mut found = self.payloads(&mut held, &plan.picked).await?;
        held.commit().await?;
        let mut entries = Vec::with_capacity(plan.picked.len());
        for slot in &plan.picked {
            match found.remove(&slot.shown.cursor.0) {
                Some(entry) => entries.push(entry),
                // Dropped meanwhile, or damaged.
                None => plan.lost_until = plan.lost_until.max(slot.shown.cursor.0),
            }
        }
        let known = self.known();
        let mut lost = plan.lost_until.max(known.losses.of(topic).min(plan.next));
        if (1..known.base).contains(&after.0) {
            lost = lost.max(known.base);
        }
        let lost_until = (lost > after.0).then_some(Cursor(lost));
        Ok(Page { entries, next: Cursor(plan.next), lost_until })
    }

    /// Looks through the index for a page.
    async fn plan(
        &self,
        held: &mut Held<'_>,
        topic: Option<u64>,
        after: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Plan, StoreError> {
        // Before the first look: what is appended meanwhile is above it.
        let newest = self.known().newest;
        let mut plan = Plan { next: after, ..Plan::default() };
        let (mut bytes, mut seen) = (0usize, 0);
        while seen < SCAN {
            let blocks = self.blocks_after(held, plan.next, BLOCKS.min(max_entries)).await?;
            if blocks.is_empty() {
                plan.next = plan.next.max(newest);
                return Ok(plan);
            }
            let known: Vec<u32> = self.known().all.keys().copied().collect();
            for slot in blocks {
                seen += 1;
                let cursor = slot.shown.cursor.0;
                if topic.is_some_and(|topic| topic != slot.shown.topic.0) {
                    plan.next = cursor;
                    continue;
                }
                if known.binary_search(&slot.generation).is_err() {
                    (plan.next, plan.lost_until) = (cursor, cursor);
                    continue;
                }
                bytes =
                    bytes.saturating_add(usize::try_from(slot.shown.size).unwrap_or(usize::MAX));
                let full = bytes > max_bytes && !plan.picked.is_empty();
                if full || plan.picked.len() >= max_entries {
                    return Ok(plan);
                }
                plan.next = cursor;
                plan.picked.push(slot);
            }
        }
        Ok(plan)
    }

    /// Index entries after a cursor, of at most so many blocks.
    async fn blocks_after(
        &self,
        held: &mut Held<'_>,
        after: u64,
        blocks: usize,
    ) -> Result<Vec<Slot>, StoreError> {
        let query = "SELECT block FROM blocks WHERE last > ? ORDER BY last LIMIT ?";
        let limit = i64::try_from(blocks).unwrap_or(i64::MAX);
        let query = sqlx::query(query).bind(after.cast_signed()).bind(limit);
        let rows = held.fetch_all(query).await?;
        let mut all = Vec::new();
        for row in rows {
            let slots = block_of(&row).map_err(|e| damaged(self.writer.name(), e))?;
            all.extend(slots.into_iter().filter(|slot| slot.shown.cursor.0 > after));
        }
        Ok(all)
    }

    /// Whole entries, by cursor. Those that are gone or damaged are not among them.
    async fn payloads(
        &self,
        held: &mut Held<'_>,
        slots: &[Slot],
    ) -> Result<HashMap<u64, LogEntry>, StoreError> {
        let mut by_generation: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for slot in slots {
            by_generation.entry(slot.generation).or_default().push(slot.shown.cursor.0);
        }
        let mut found = HashMap::with_capacity(slots.len());
        for (generation, cursors) in by_generation {
            let query = format!(
                "SELECT cursor, head, payload FROM g_{generation} \
                 WHERE cursor IN (SELECT value FROM json_each(?))"
            );
            let query = sqlx::query(AssertSqlSafe(query)).bind(json(&cursors));
            let rows = match held.fetch_all(query).await {
                Ok(rows) => rows,
                Err(error) if no_table(&error) => continue,
                Err(error) => return Err(error),
            };
            for row in rows {
                match entry_of(&row) {
                    Ok(entry) => {
                        found.insert(entry.cursor.0, entry);
                    }
                    // One bad row must not stop a subscriber for ever: it is told of a gap.
                    Err(error) => {
                        let file = self.writer.name();
                        tracing::error!(target: "sorcha_peer::store", file, %error, "a damaged entry is skipped");
                    }
                }
            }
        }
        Ok(found)
    }

    pub(super) async fn find(&self, id: &TransactionId) -> Result<Option<Transaction>, StoreError> {
        let candidates = self.known().candidates(id);
        if candidates.is_empty() {
            return Ok(None);
        }
        let mut held = self.reader().lock().await?;
        for generation in candidates {
            let query = format!("SELECT cursor, head, payload FROM g_{generation} WHERE key = ?");
            let query = sqlx::query(AssertSqlSafe(query)).bind(key_of(id));
            let rows = match held.fetch_all(query).await {
                Ok(rows) => rows,
                Err(error) if no_table(&error) => continue,
                Err(error) => return Err(error),
            };
            for row in rows {
                let entry = entry_of(&row).map_err(|e| damaged(self.writer.name(), e))?;
                if entry.entry.transaction.id() == *id {
                    return Ok(Some(entry.entry.transaction));
                }
            }
        }
        Ok(None)
    }

    pub(super) async fn list(
        &self,
        after: Cursor,
        limit: usize,
    ) -> Result<Vec<IndexEntry>, StoreError> {
        let mut held = self.reader().lock().await?;
        let mut list = Vec::new();
        let mut at = after.0;
        while list.len() < limit {
            let blocks = (limit - list.len()).div_ceil(64).min(BLOCKS);
            let slots = self.blocks_after(&mut held, at, blocks).await?;
            let Some(last) = slots.last() else { break };
            at = last.shown.cursor.0;
            let known = self.known();
            let live = slots.into_iter().filter(|slot| known.all.contains_key(&slot.generation));
            list.extend(live.map(|slot| slot.shown).take(limit - list.len()));
        }
        Ok(list)
    }
}

pub(super) fn block_of(row: &SqliteRow) -> Result<Vec<Slot>, Source> {
    codec::slots(row.try_get("block")?)
}

fn entry_of(row: &SqliteRow) -> Result<LogEntry, Source> {
    let cursor = row.try_get::<i64, _>("cursor")?.cast_unsigned();
    codec::log_entry(cursor, row.try_get("head")?, row.try_get("payload")?)
}

/// The part of an id that is indexed.
pub(super) fn key_of(id: &TransactionId) -> i64 {
    let (first, _) = id.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
    i64::from_le_bytes(*first)
}

/// Numbers as a list that `json_each` reads: one argument, however many there are.
pub(super) fn json<T: ToString>(numbers: &[T]) -> String {
    let numbers: Vec<_> = numbers.iter().map(T::to_string).collect();
    format!("[{}]", numbers.join(","))
}

/// A generation that was dropped between a look into memory and one into the file.
fn no_table(error: &StoreError) -> bool {
    error.message.contains("no such table")
}
