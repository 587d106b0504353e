//! Large payloads, in slices of their own rows.
//!
//! On its way into a file a value is copied three times at once: for the thread of the connection,
//! when it is bound, and into its row; on the way out twice. So a payload of more than a slice
//! stands beside its row, which has none then, and is written and read a few slices at a time: what that takes
//! does not depend on its size.

use sqlx::{AssertSqlSafe, Row};

use super::database::ConnectionGuard;
use super::error::damaged;
use crate::error::StoreError;
use crate::types::payload_buffer;

/// Number of bytes in a slice, and maximum number of those in a row of the usual kind.
const SLICE_BYTES: usize = 256 << 10;
/// Number of slices read at once.
const READ_AT_ONCE: i64 = 2;

/// Part of a payload that stands in its row: all of it or nothing.
pub(super) fn inline(payload: &[u8]) -> &[u8] {
    if is_sliced(payload) { &[] } else { payload }
}

/// Reports whether a payload stands in slices.
pub(super) fn is_sliced(payload: &[u8]) -> bool {
    payload.len() > SLICE_BYTES
}

/// Statement that makes a table for slices, unless it is there.
pub(super) fn make(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (owner INTEGER NOT NULL, slice INTEGER NOT NULL, \
         bytes BLOB NOT NULL, UNIQUE (owner, slice)) STRICT"
    )
}

/// Writes the payload of a row, within the transaction under way.
pub(super) async fn write(
    conn: &mut ConnectionGuard<'_>,
    table: &str,
    owner: u64,
    payload: &[u8],
) -> Result<(), StoreError> {
    for (slice, bytes) in (0i64..).zip(payload.chunks(SLICE_BYTES)) {
        let insert = format!("INSERT INTO {table} (owner, slice, bytes) VALUES (?, ?, ?)");
        // Kept for the next, it would keep the bytes too.
        let insert = sqlx::query(AssertSqlSafe(insert)).persistent(false);
        conn.execute(insert.bind(owner.cast_signed()).bind(slice).bind(bytes.to_vec())).await?;
    }
    Ok(())
}

/// Reads the payload of a row, which has `len` bytes.
pub(super) async fn read(
    conn: &mut ConnectionGuard<'_>,
    table: &str,
    owner: u64,
    len: u64,
) -> Result<Vec<u8>, StoreError> {
    let name = conn.name().to_owned();
    let wrong = |what: &str| damaged(&name, format!("a payload of {len} bytes {what}"));
    let sum = format!("SELECT coalesce(sum(length(bytes)), 0) FROM {table} WHERE owner = ?");
    let sum = sqlx::query(AssertSqlSafe(sum)).bind(owner.cast_signed());
    let there = conn.ask::<i64>(sum).await?.unwrap_or_default();
    // What the head says is taken at its word only where there is as much.
    let capacity = usize::try_from(len).ok().filter(|_| u64::try_from(there) == Ok(len));
    let Some(capacity) = capacity else { return Err(wrong("is not whole")) };
    let mut payload = payload_buffer(capacity);
    let mut next = 0i64;
    while payload.len() < capacity {
        let some = format!(
            "SELECT bytes FROM {table} WHERE owner = ? AND slice >= ? ORDER BY slice LIMIT ?"
        );
        let some = sqlx::query(AssertSqlSafe(some)).bind(owner.cast_signed());
        let rows = conn.fetch_all(some.bind(next).bind(READ_AT_ONCE)).await?;
        if rows.is_empty() {
            return Err(wrong("lacks a slice"));
        }
        for row in &rows {
            let bytes: &[u8] = row.try_get("bytes").map_err(|e| wrong(&e.to_string()))?;
            payload.extend_from_slice(bytes);
        }
        next += READ_AT_ONCE;
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::super::database::Database;
    use super::super::database::tests::SETUP;
    use super::*;
    use crate::error::StoreErrorKind;

    #[tokio::test]
    async fn payloads_come_back_and_what_lacks_a_slice_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let database = Database::open(&path, &["CREATE TABLE t (n INTEGER)"], SETUP).await.unwrap();
        let mut conn = database.lock().await.unwrap();
        conn.execute_raw(make("s")).await.unwrap();
        conn.execute_raw(make("s")).await.expect("it is there");
        let size = 5 * SLICE_BYTES + 7;
        let payload: Vec<u8> = (0..size).map(|n| (n % 251).to_le_bytes()[0]).collect();
        let (one, two) = (1, u64::MAX);
        for owner in [one, two] {
            write(&mut conn, "s", owner, &payload).await.unwrap();
        }
        assert!(read(&mut conn, "s", two, size as u64).await.unwrap() == payload);
        let damage = |n| format!("DELETE FROM s WHERE owner = 1 AND slice = {n}");
        for wrong in [0, size as u64 - 1, size as u64 + 1, u64::MAX] {
            let error = read(&mut conn, "s", one, wrong).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt, "{wrong}");
        }
        conn.execute_raw(damage(3)).await.unwrap();
        assert!(read(&mut conn, "s", one, size as u64).await.is_err());
        assert!(read(&mut conn, "s", two, size as u64).await.unwrap() == payload);
        assert!(read(&mut conn, "t", one, 1).await.is_err(), "no such table");
    }

    #[test]
    fn small_payloads_stay_in_their_row() {
        let payload = vec![1; SLICE_BYTES + 1];
        assert!(inline(&payload).is_empty());
        assert_eq!(inline(&payload[1..]), &payload[1..]);
    }
}
