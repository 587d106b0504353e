use bytes::Bytes;

use super::*;
use crate::types::{Header, PeerId, Signature, Topic, WallTime};

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
    run(&queue, "CREATE TRIGGER no BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, 'no'); END")
        .await;
    queue.remove(&[all[0].id()]).await.unwrap_err();
    assert_eq!(queue.size().await.unwrap().waiting, 2, "all or none");
    run(&queue, "DROP TRIGGER no").await;
    queue.append(&all).await.unwrap();
    let level = "PRAGMA synchronous";
    let mut conn = queue.database.lock().await.unwrap();
    assert_eq!(conn.ask::<i64>(sqlx::query(level)).await.unwrap(), Some(2));
    drop(conn);
    queue.remove(&[all[0].id(), all[1].id()]).await.unwrap();
    let mut conn = queue.database.lock().await.unwrap();
    assert_eq!(conn.ask::<i64>(sqlx::query(level)).await.unwrap(), Some(2));
    drop(conn);
    assert_eq!(queue.load(EntryFilter::All, None, 9, 99).await.unwrap()[0].transaction, all[2]);
}

#[tokio::test]
async fn a_large_payload_comes_back_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.db");
    let lock = Arc::new(DirLock::acquire(dir.path()).unwrap());
    let queue = SqliteQueue::open(&path, 1000, Arc::clone(&lock)).await.unwrap();
    let sizes = [10, 700_000, 0, 256 << 10, 1_000_000, 20];
    let all: Vec<_> = (0..).zip(sizes).map(|(n, size)| transaction(n, size)).collect();
    let ids: Vec<_> = all.iter().map(Transaction::id).collect();
    let seqs = queue.append(&all).await.unwrap();
    assert_eq!(queue.append(&all).await.unwrap(), seqs, "they are known");
    queue.close().await;
    let queue = SqliteQueue::open(&path, 1000, lock).await.unwrap();
    for (id, transaction) in ids.iter().zip(&all) {
        assert!(queue.get(id).await.unwrap().map(|e| e.transaction).as_ref() == Some(transaction));
    }
    let loaded = async |filter, after, bytes| {
        let entries = queue.load(filter, after, 99, bytes).await.unwrap();
        entries.into_iter().map(|entry| entry.transaction).collect::<Vec<_>>()
    };
    assert!(loaded(EntryFilter::All, None, usize::MAX).await == all);
    assert!(loaded(EntryFilter::Waiting, Some(seqs[0]), 700_000).await == all[1..3], "bytes count");
    let dead = EntryState::Dead { reason: "no".into(), since: WallTime::default() };
    queue.update(&[(ids[4], dead)]).await.unwrap();
    assert!(loaded(EntryFilter::Dead, None, 1).await == all[4..5]);

    let slices = async || {
        let count = sqlx::query("SELECT count(*) FROM slices");
        queue.database.lock().await.unwrap().ask::<i64>(count).await.unwrap()
    };
    assert_eq!(slices().await, Some(3 + 4));
    run(&queue, "DELETE FROM slices WHERE slice = 2").await;
    let error = queue.get(&ids[1]).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
    queue.remove(&ids).await.unwrap();
    assert_eq!(slices().await, Some(0));
    assert_eq!(queue.size().await.unwrap().waiting, 0);
}
