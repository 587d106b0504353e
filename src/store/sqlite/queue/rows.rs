//! Rows of the outbox: how they are selected, read and written.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::error::Source;
use crate::ports::{EntryFilter, EntryState, OutboxEntry};
use crate::store::sqlite::codec::{self, signed, wall_time};
use crate::store::sqlite::error::checked_counter;
use crate::types::TransactionId;

/// Length of a payload, wherever it stands.
macro_rules! size {
    () => {
        "length(payload) + \
         (SELECT coalesce(sum(length(bytes)), 0) FROM slices WHERE owner = outbox.seq)"
    };
}

/// Statements that select a page of entries: their numbers and sizes, and then the entries.
pub(super) fn statements(filter: EntryFilter) -> (&'static str, &'static str) {
    match filter {
        EntryFilter::All => (
            concat!("SELECT seq, ", size!(), " FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?"),
            "SELECT outbox.seq, head, payload, attempts, due, reason, since \
             FROM outbox LEFT JOIN states USING (seq) \
             WHERE outbox.seq > ? AND outbox.seq <= ? ORDER BY outbox.seq",
        ),
        EntryFilter::Waiting => (
            concat!(
                "SELECT outbox.seq, ",
                size!(),
                " FROM outbox LEFT JOIN states USING (seq) \
                 WHERE outbox.seq > ? AND reason IS NULL ORDER BY outbox.seq LIMIT ?"
            ),
            "SELECT outbox.seq, head, payload, attempts, due, reason, since \
             FROM outbox LEFT JOIN states USING (seq) \
             WHERE outbox.seq > ? AND outbox.seq <= ? AND reason IS NULL ORDER BY outbox.seq",
        ),
        EntryFilter::Dead => (
            concat!(
                "SELECT states.seq, ",
                size!(),
                " FROM states JOIN outbox USING (seq) \
                 WHERE states.seq > ? AND reason IS NOT NULL ORDER BY states.seq LIMIT ?"
            ),
            "SELECT outbox.seq, head, payload, attempts, due, reason, since \
             FROM states JOIN outbox USING (seq) \
             WHERE states.seq > ? AND states.seq <= ? AND reason IS NOT NULL \
             ORDER BY states.seq",
        ),
    }
}

pub(super) fn id_row(row: &SqliteRow) -> Result<(TransactionId, u64), Source> {
    let id = row.try_get::<&[u8], _>("id")?.try_into()?;
    Ok((TransactionId::from_bytes(id), checked_counter(row.try_get("seq")?)?))
}

pub(super) fn sized(row: &SqliteRow) -> Result<(i64, usize), Source> {
    Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?.try_into()?))
}

/// Entry as its row has it.
pub(super) struct Stored {
    pub(super) seq: u64,
    pub(super) head: Vec<u8>,
    /// Empty where the payload stands in slices.
    pub(super) payload: Vec<u8>,
    state: EntryState,
}

pub(super) fn stored(row: &SqliteRow) -> Result<Stored, Source> {
    let time = |column| row.try_get::<Option<i64>, _>(column);
    let time = |column| time(column).map(|t| wall_time(t.unwrap_or_default()));
    let state = if let Some(reason) = row.try_get("reason")? {
        EntryState::Dead { reason, since: time("since")? }
    } else {
        let attempts = row.try_get::<Option<i64>, _>("attempts")?.unwrap_or_default();
        EntryState::Waiting { attempts: attempts.try_into()?, due: time("due")? }
    };
    let seq = row.try_get::<i64, _>("seq")?.cast_unsigned();
    Ok(Stored { seq, head: row.try_get("head")?, payload: row.try_get("payload")?, state })
}

impl Stored {
    pub(super) fn into_entry(self) -> Result<OutboxEntry, Source> {
        let transaction = codec::transaction(&self.head, self.payload)?;
        Ok(OutboxEntry { seq: self.seq, transaction, state: self.state })
    }
}

pub(super) fn columns(state: &EntryState) -> (i64, i64, Option<String>, Option<i64>) {
    match state {
        EntryState::Waiting { attempts, due } => (i64::from(*attempts), signed(*due), None, None),
        EntryState::Dead { reason, since } => (0, 0, Some(reason.clone()), Some(signed(*since))),
    }
}
