//! What the core notes of the past, in the log's store, and the spans that were missed.
//!
//! The notes stand under names of cursors that no durable subscription can have. A store keeps each
//! cursor at its highest. That is right for the time since when a node is whole, which peers make
//! earlier again after a restart, and not for the time until when: a clock that was ahead would hide
//! every absence until then, so that note is made anew where it goes back. Of the spans the latest is kept
//! for later runs.

use std::ops::Range;

use crate::error::StoreError;
use crate::ports::TransactionStore;
use crate::types::{Cursor, WallTime};

/// Beginning of the names below, and of no durable subscription's.
pub(super) const RESERVED: &str = "sorcha-peer/";
const SINCE: &str = "sorcha-peer/whole-since";
const UNTIL: &str = "sorcha-peer/whole-until";
const MISSED_FROM: &str = "sorcha-peer/missed-from";
const MISSED_UNTIL: &str = "sorcha-peer/missed-until";
const MISSED_AT: &str = "sorcha-peer/missed-at";

/// Maximum number of spans that are remembered; beyond it the two oldest are told as one.
const MAX_MISSED: usize = 16;

/// Span of creation times that was missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missed {
    /// Number of the span: they are counted from the start of the node, those of earlier runs included.
    pub(super) number: u64,
    /// Newest cursor of the log when it was found out.
    pub(super) at: Cursor,
    pub(super) span: Range<WallTime>,
}

/// Spans that were missed, the oldest first.
pub(super) type AllMissed = Vec<Missed>;

/// Adds a span to those that are known.
pub(super) fn add_missed(all: &mut AllMissed, at: Cursor, span: Range<WallTime>) {
    let number = all.last().map_or(1, |last| last.number + 1);
    all.push(Missed { number, at, span });
    if all.len() > MAX_MISSED {
        let oldest = all.remove(0);
        if let Some(next) = all.first_mut() {
            next.span.start = oldest.span.start;
        }
    }
}

/// Notes since when and until when the node is whole.
pub(super) async fn save(
    log: &dyn TransactionStore,
    since: WallTime,
    until: Option<WallTime>,
) -> Result<(), StoreError> {
    log.save_cursor(SINCE, Cursor(since.as_millis())).await?;
    let Some(until) = until else { return Ok(()) };
    if load_time(log, UNTIL).await?.is_some_and(|noted| noted > until) {
        log.remove_cursor(UNTIL).await?;
    }
    log.save_cursor(UNTIL, Cursor(until.as_millis())).await
}

/// Notes a span for later runs. Its place comes last: without it there is none.
pub(super) async fn save_missed(
    log: &dyn TransactionStore,
    at: Cursor,
    span: &Range<WallTime>,
) -> Result<(), StoreError> {
    log.save_cursor(MISSED_FROM, Cursor(span.start.as_millis())).await?;
    log.save_cursor(MISSED_UNTIL, Cursor(span.end.as_millis())).await?;
    log.save_cursor(MISSED_AT, at).await
}

/// Reads since when and until when the node was whole.
pub(super) async fn load(
    log: &dyn TransactionStore,
) -> Result<(Option<WallTime>, Option<WallTime>), StoreError> {
    Ok((load_time(log, SINCE).await?, load_time(log, UNTIL).await?))
}

/// Reads the span that an earlier run noted.
pub(super) async fn load_missed(log: &dyn TransactionStore) -> Result<AllMissed, StoreError> {
    let mut all = Vec::new();
    if let Some(at) = log.load_cursor(MISSED_AT).await?
        && let Some(from) = load_time(log, MISSED_FROM).await?
        && let Some(until) = load_time(log, MISSED_UNTIL).await?
    {
        add_missed(&mut all, at, from..until);
    }
    Ok(all)
}

async fn load_time(log: &dyn TransactionStore, name: &str) -> Result<Option<WallTime>, StoreError> {
    Ok(log.load_cursor(name).await?.map(|cursor| WallTime::from_millis(cursor.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Storage;

    fn at(millis: u64) -> WallTime {
        WallTime::from_millis(millis)
    }

    async fn notes_are_kept(log: &dyn TransactionStore) {
        assert_eq!(load(log).await.unwrap(), (None, None));
        assert_eq!(load_missed(log).await.unwrap(), []);
        save(log, at(5), None).await.unwrap();
        assert_eq!(load(log).await.unwrap(), (Some(at(5)), None));
        // The clock was ahead.
        save(log, at(5), Some(at(90))).await.unwrap();
        save(log, at(5), Some(at(9))).await.unwrap();
        save_missed(log, Cursor(7), &(at(9)..at(20))).await.unwrap();
    }

    async fn notes_are_there(log: &dyn TransactionStore) {
        assert_eq!(load(log).await.unwrap(), (Some(at(5)), Some(at(9))));
        let missed = Missed { number: 1, at: Cursor(7), span: at(9)..at(20) };
        assert_eq!(load_missed(log).await.unwrap(), [missed]);
    }

    #[tokio::test]
    async fn memory_keeps_notes() {
        let log = Storage::memory_transactions(None);
        notes_are_kept(&*log).await;
        notes_are_there(&*log).await;
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn files_keep_notes_for_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let storage = crate::SqliteStorage::open(dir.path()).await.unwrap();
        notes_are_kept(&*storage.transaction_store()).await;
        storage.close().await;
        let storage = crate::SqliteStorage::open(dir.path()).await.unwrap();
        notes_are_there(&*storage.transaction_store()).await;
        storage.close().await;
    }

    #[test]
    fn many_spans_become_fewer_and_none_is_lost() {
        let mut all = Vec::new();
        for n in 0..40 {
            add_missed(&mut all, Cursor(n), at(10 * n)..at(10 * n + 5));
        }
        assert_eq!(all.len(), MAX_MISSED);
        assert_eq!((all[0].span.start, all[0].number), (at(0), 25));
        assert_eq!(all[15], Missed { number: 40, at: Cursor(39), span: at(390)..at(395) });
    }
}
