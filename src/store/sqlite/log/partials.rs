//! Partial payloads: pieces in rows of their own, which come and go without touching the log.

use bytes::Bytes;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::SqliteLog;
use crate::error::{Source, StoreError};
use crate::ports::{KeptPartial, Partial};
use crate::store::limits::partial_too_large;
use crate::store::sqlite::codec::clamped;
use crate::store::sqlite::database::ConnectionGuard;
use crate::store::sqlite::error::damaged;
use crate::store::sqlite::query::Insert;
use crate::types::{Piece, TransactionId, WallTime};

impl SqliteLog {
    pub(super) async fn list_partials(&self) -> Result<Vec<KeptPartial>, StoreError> {
        let list = sqlx::query("SELECT id, ends FROM partials ORDER BY number");
        let rows = self.reader().lock().await?.fetch_all(list).await?;
        let shown = |row: &SqliteRow| -> Result<_, Source> {
            let id = TransactionId::from_bytes(row.try_get::<&[u8], _>("id")?.try_into()?);
            let ends = row.try_get::<i64, _>("ends")?.cast_unsigned();
            Ok(KeptPartial { id, keep_until: WallTime::from_millis(ends) })
        };
        rows.iter().map(|row| shown(row).map_err(|e| damaged(self.writer.name(), e))).collect()
    }

    pub(super) async fn add_partial(&self, new: &Partial, most: u64) -> Result<(), StoreError> {
        let mut conn = self.writer.lock().await?;
        conn.begin().await?;
        let id = new.id.as_bytes().to_vec();
        let newest = sqlx::query(
            "INSERT INTO partials (id, number, ends, bytes) \
             VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM partials), ?, 0) \
             ON CONFLICT (id) DO UPDATE SET number = excluded.number, ends = excluded.ends",
        );
        conn.execute(newest.bind(id.clone()).bind(clamped(new.keep_until.as_millis()))).await?;
        let number = sqlx::query("SELECT partial FROM partials WHERE id = ?").bind(id);
        let partial: i64 = conn.ask(number).await?.unwrap_or_default();
        let insert =
            Insert::new("INSERT OR IGNORE INTO pieces (partial, piece, proof, bytes) VALUES", 4);
        for (sql, pieces) in insert.chunks(&new.pieces) {
            let insert = pieces.iter().fold(sqlx::query(sql), |query, piece| {
                query
                    .bind(partial)
                    .bind(i64::from(piece.index))
                    .bind(piece.proof.to_vec())
                    .bind(piece.bytes.to_vec())
            });
            conn.execute(insert).await?;
        }
        let count = sqlx::query(
            "UPDATE partials SET bytes = (SELECT coalesce(sum(length(bytes) + length(proof)), 0) \
             FROM pieces WHERE partial = ?1) WHERE partial = ?1",
        );
        conn.execute(count.bind(partial)).await?;
        drop_oldest(&mut conn, partial, most).await?;
        conn.commit().await
    }

    pub(super) async fn read_partial(&self, id: &TransactionId) -> Result<Vec<Piece>, StoreError> {
        let read = sqlx::query(
            "SELECT piece, proof, pieces.bytes FROM pieces JOIN partials USING (partial) \
             WHERE id = ? ORDER BY piece",
        );
        let read = read.bind(id.as_bytes().to_vec());
        let rows = self.reader().lock().await?.fetch_all(read).await?;
        let piece = |row: SqliteRow| -> Result<_, Source> {
            Ok(Piece {
                id: *id,
                index: row.try_get("piece")?,
                bytes: Bytes::from(row.try_get::<Vec<u8>, _>("bytes")?),
                proof: Bytes::from(row.try_get::<Vec<u8>, _>("proof")?),
            })
        };
        let pieces = rows.into_iter().map(piece).collect::<Result<_, Source>>();
        pieces.map_err(|e| damaged(self.writer.name(), e))
    }

    pub(super) async fn drop_partials(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        let mut conn = self.writer.lock().await?;
        conn.begin().await?;
        for id in ids {
            let find = sqlx::query("SELECT partial FROM partials WHERE id = ?");
            if let Some(partial) = conn.ask(find.bind(id.as_bytes().to_vec())).await? {
                drop_one(&mut conn, partial).await?;
            }
        }
        conn.commit().await
    }

    pub(super) async fn expire_partials(&self, now: WallTime) -> Result<(), StoreError> {
        let ended = sqlx::query("SELECT partial FROM partials WHERE ends <= ?");
        let ended = ended.bind(clamped(now.as_millis()));
        let mut conn = self.writer.lock().await?;
        let rows = conn.fetch_all(ended).await?;
        if rows.is_empty() {
            return Ok(());
        }
        conn.begin().await?;
        for row in rows {
            let partial = row.try_get(0).map_err(|e| damaged(self.writer.name(), e))?;
            drop_one(&mut conn, partial).await?;
        }
        conn.commit().await
    }
}

/// Drops the oldest until the rest fits; an error when only `newest` is left and does not.
async fn drop_oldest(
    conn: &mut ConnectionGuard<'_>,
    newest: i64,
    most: u64,
) -> Result<(), StoreError> {
    let most = clamped(most);
    loop {
        let sum = sqlx::query("SELECT coalesce(sum(bytes), 0) FROM partials");
        if conn.ask::<i64>(sum).await?.unwrap_or_default() <= most {
            return Ok(());
        }
        let oldest = sqlx::query("SELECT partial FROM partials ORDER BY number LIMIT 1");
        match conn.ask::<i64>(oldest).await? {
            Some(oldest) if oldest != newest => drop_one(conn, oldest).await?,
            _ => return Err(partial_too_large(most.cast_unsigned())),
        }
    }
}

async fn drop_one(conn: &mut ConnectionGuard<'_>, partial: i64) -> Result<(), StoreError> {
    for sql in ["DELETE FROM pieces WHERE partial = ?", "DELETE FROM partials WHERE partial = ?"] {
        conn.execute(sqlx::query(sql).bind(partial)).await?;
    }
    Ok(())
}
