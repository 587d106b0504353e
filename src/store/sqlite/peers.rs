//! Peers and bans in `peers.db`.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteRow, SqliteSynchronous};
use sqlx::{QueryBuilder, Row, Sqlite};

use super::codec::{signed, wall_time};
use super::database::{Database, Setup};
use super::dir_lock::DirLock;
use crate::error::{Source, StoreError};
use crate::ports::{Ban, PeerStore, StoredPeer};
use crate::store::limits::truncated_reason;
use crate::types::{Endpoint, PeerId, PeerRecord, TransportKind};

const MIGRATIONS: &[&str] =
    &[include_str!("migrations/peers/1.sql"), include_str!("migrations/peers/2.sql")];

/// Maximum number of rows in one statement. A statement costs about 40 us whatever it does;
/// `SQLite` takes 32766 parameters in one.
const MAX_ROWS: usize = 64;

/// A lost tail after a power failure is fine for what is learnt again; damage is not, and in WAL
/// mode there is none.
const SETUP: Setup = Setup {
    synchronous: SqliteSynchronous::Normal,
    page_size: 4096,
    cache_kib: 1024,
    checkpoint_pages: 1000,
};

/// Keeps peers and bans in a file; as many as the node hands it, which is bounded by
/// `discovery.max_peers`. Records are not verified again when they are loaded.
#[derive(Debug)]
pub(super) struct SqlitePeerStore {
    database: Database,
    /// The directory stays ours while its files are open.
    _lock: Arc<DirLock>,
}

impl SqlitePeerStore {
    pub(super) async fn open(path: &Path, lock: Arc<DirLock>) -> Result<Self, StoreError> {
        Ok(Self { database: Database::open(path, MIGRATIONS, SETUP).await?, _lock: lock })
    }

    pub(super) async fn close(&self) {
        self.database.close().await;
    }
}

/// Everything is cancel safe: a transaction is undone when its future is dropped before the
/// commit was handed to `SQLite`.
#[async_trait]
impl PeerStore for SqlitePeerStore {
    async fn load(&self) -> Result<(Vec<StoredPeer>, Vec<Ban>), StoreError> {
        let mut conn = self.database.lock().await?;
        conn.begin_reading().await?;
        let peers = conn.fetch_all(sqlx::query("SELECT * FROM peers ORDER BY peer")).await?;
        let bans = conn.fetch_all(sqlx::query("SELECT * FROM bans ORDER BY peer")).await?;
        conn.commit().await?;
        let mut peers = valid("peers", &peers, peer_of);
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.last_up));
        Ok((peers, valid("bans", &bans, ban_of)))
    }

    async fn upsert(&self, peers: &[StoredPeer]) -> Result<(), StoreError> {
        let mut conn = self.database.lock().await?;
        conn.begin().await?;
        for chunk in peers.chunks(MAX_ROWS) {
            let mut insert = QueryBuilder::<Sqlite>::new("INSERT OR REPLACE INTO peers ");
            insert.push_values(chunk, |mut row, peer| {
                let draft = peer.record.as_ref().map(|record| &record.draft);
                row.push_bind(peer.peer.as_bytes().to_vec())
                    .push_bind(draft.map(|draft| draft.seq.cast_signed()))
                    .push_bind(draft.map(|draft| signed(draft.issued)))
                    .push_bind(peer.record.as_ref().map(|record| record.texts().join("\n")))
                    .push_bind(peer.record.as_ref().map(|record| record.signature.to_vec()))
                    .push_bind(peer.verified.as_ref().map(Endpoint::to_string))
                    .push_bind(peer.last_up.map(signed))
                    .push_bind(i64::from(peer.failures))
                    .push_bind(peer.rung.map(TransportKind::as_str));
            });
            conn.execute(insert.build()).await?;
        }
        conn.commit().await
    }

    async fn remove(&self, peers: &[PeerId]) -> Result<(), StoreError> {
        let mut conn = self.database.lock().await?;
        conn.begin().await?;
        for chunk in peers.chunks(MAX_ROWS) {
            let mut delete = QueryBuilder::<Sqlite>::new("DELETE FROM peers WHERE peer IN (");
            let mut list = delete.separated(", ");
            for peer in chunk {
                list.push_bind(peer.as_bytes().to_vec());
            }
            list.push_unseparated(")");
            conn.execute(delete.build()).await?;
        }
        conn.commit().await
    }

    async fn put_ban(&self, ban: &Ban) -> Result<(), StoreError> {
        let insert = sqlx::query("INSERT OR REPLACE INTO bans VALUES (?, ?, ?)")
            .bind(ban.peer.as_bytes().to_vec())
            .bind(ban.until.map(signed))
            .bind(truncated_reason(ban).to_owned());
        self.database.lock().await?.execute(insert).await
    }

    async fn remove_ban(&self, peer: &PeerId) -> Result<(), StoreError> {
        let delete = sqlx::query("DELETE FROM bans WHERE peer = ?").bind(peer.as_bytes().to_vec());
        self.database.lock().await?.execute(delete).await
    }
}

/// The rows that can be read. The others are left where they are and out of the answer: one bad
/// row must not cost a node all it knows.
fn valid<T>(
    table: &str,
    rows: &[SqliteRow],
    read: impl Fn(&SqliteRow) -> Result<T, Source>,
) -> Vec<T> {
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        match read(row) {
            Ok(value) => list.push(value),
            Err(error) => tracing::warn!(table, %error, "an unreadable row is skipped"),
        }
    }
    list
}

fn peer_of(row: &SqliteRow) -> Result<StoredPeer, Source> {
    let peer = PeerId::from_bytes(row.try_get::<&[u8], _>("peer")?.try_into()?);
    let record = match row.try_get::<Option<i64>, _>("seq")? {
        None => None,
        Some(seq) => {
            let issued = wall_time(row.try_get("issued")?);
            let texts: Vec<_> = row.try_get::<&str, _>("endpoints")?.lines().collect();
            let signature = row.try_get::<&[u8], _>("signature")?.try_into()?;
            let record = PeerRecord::read(peer, seq.cast_unsigned(), issued, &texts, signature);
            Some(record.ok_or("a text that is no endpoint")?)
        }
    };
    let verified = row.try_get::<Option<&str>, _>("verified")?;
    Ok(StoredPeer {
        peer,
        record,
        verified: verified.map(str::parse).transpose()?,
        // One that this version does not know is as good as none.
        rung: row.try_get::<Option<&str>, _>("rung")?.and_then(TransportKind::named),
        last_up: row.try_get::<Option<i64>, _>("last_up")?.map(wall_time),
        failures: row.try_get::<i64, _>("failures")?.try_into()?,
    })
}

fn ban_of(row: &SqliteRow) -> Result<Ban, Source> {
    Ok(Ban {
        peer: PeerId::from_bytes(row.try_get::<&[u8], _>("peer")?.try_into()?),
        until: row.try_get::<Option<i64>, _>("until")?.map(wall_time),
        reason: row.try_get("reason")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreErrorKind;

    async fn open(dir: &Path) -> SqlitePeerStore {
        let lock = Arc::new(DirLock::acquire(dir).unwrap());
        SqlitePeerStore::open(&dir.join("peers.db"), lock).await.unwrap()
    }

    fn peer(n: u8) -> StoredPeer {
        let peer = PeerId::from_bytes([n; 32]);
        let verified = Some("10.0.0.1:1".parse().unwrap());
        StoredPeer { verified, ..StoredPeer::new(peer) }
    }

    #[tokio::test]
    async fn unreadable_rows_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        store.upsert(&[peer(1), peer(2), peer(3), peer(4), peer(5)]).await.unwrap();
        let spoil = "UPDATE peers SET failures = -1 WHERE substr(peer, 1, 1) = x'03'; \
                     UPDATE peers SET seq = 1 WHERE substr(peer, 1, 1) = x'04'; \
                     UPDATE peers SET seq = 1, issued = 1, endpoints = 'a 0', \
                     signature = zeroblob(64) WHERE substr(peer, 1, 1) = x'05'; \
                     UPDATE peers SET verified = 'no address' WHERE substr(peer, 1, 1) = x'02'; \
                     INSERT INTO peers (peer, failures) VALUES (x'06', 0); \
                     INSERT INTO bans VALUES (x'07', NULL, 'short id');";
        store.database.lock().await.unwrap().execute_raw(spoil.to_owned()).await.unwrap();
        let (peers, bans) = store.load().await.unwrap();
        assert_eq!(peers, [peer(1)]);
        assert_eq!(bans, []);
    }

    #[tokio::test]
    async fn a_full_disk_is_told_apart_and_nothing_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        store.upsert(&[peer(1)]).await.unwrap();
        let bound = "PRAGMA max_page_count = 1".to_owned();
        store.database.lock().await.unwrap().execute_raw(bound).await.unwrap();
        let many: Vec<_> = (0..250).map(peer).collect();
        let error = store.upsert(&many).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
        assert_eq!(store.load().await.unwrap().0, [peer(1)]);
    }
}
