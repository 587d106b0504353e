use bytes::Bytes;

use super::*;
use crate::error::StoreErrorKind;
use crate::types::{Header, PeerId, Signature};

const LIMITS: Limits = Limits { max_bytes: 1 << 30, generation: Duration::from_millis(10) };

async fn open_at(dir: &Path, now: u64) -> SqliteLog {
    let lock = Arc::new(DirLock::acquire(dir).unwrap());
    SqliteLog::open_at(&dir.join("log.db"), LIMITS, lock, now).await.unwrap()
}

fn entry(n: u64, size: usize, keep_until: u64) -> NewEntry {
    let at = WallTime::from_millis(n);
    let payload = Bytes::from(vec![7; size]);
    let topic = Topic::new("t").unwrap();
    let header = Header::new(topic, PeerId::from_bytes([1; 32]), at, at, &payload);
    let transaction = Transaction::new(header, Signature::None, payload).unwrap();
    NewEntry { transaction, from: None, hops: 0, keep_until: WallTime::from_millis(keep_until) }
}

#[tokio::test]
async fn cursors_rise_when_the_clock_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = Cursor(0);
    for now in [2_000_000, 1_000_000, 0, 3_000_000, 2_999_999] {
        let log = open_at(dir.path(), now).await;
        assert!(log.newest().await.unwrap() >= last);
        for n in 0..3 {
            let cursor = log.append(&[entry(now * 10 + n, 1, 1)]).await.unwrap()[0];
            assert!(cursor > last, "{cursor} after {last} at {now}");
            last = cursor;
        }
    }
    assert!(last > Cursor(3_000_000 << 12), "nor below the clock");
}

#[tokio::test]
async fn an_acknowledgement_is_synced_and_appends_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(dir.path(), 0).await;
    log.append(&[entry(0, 1, 1)]).await.unwrap();
    let spy = "CREATE TEMP TABLE levels (level INTEGER); \
               CREATE TEMP TRIGGER saved AFTER INSERT ON main.cursors BEGIN \
               INSERT INTO levels SELECT synchronous FROM pragma_synchronous; END; \
               CREATE TEMP TRIGGER appended AFTER INSERT ON main.blocks BEGIN \
               INSERT INTO levels SELECT synchronous FROM pragma_synchronous; END;";
    log.writer.lock().await.unwrap().execute_raw(spy.to_owned()).await.unwrap();
    log.append(&[entry(1, 1, 1)]).await.unwrap();
    log.save_cursor("a", Cursor(1)).await.unwrap();
    log.append(&[entry(2, 1, 1)]).await.unwrap();
    let levels = sqlx::query("SELECT group_concat(level) FROM levels");
    let levels: Option<String> = log.writer.lock().await.unwrap().ask(levels).await.unwrap();
    assert_eq!(levels.as_deref(), Some("1,2,1"));
}

#[tokio::test]
async fn what_is_asked_for_together_is_found_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(dir.path(), 0).await;
    let keep = |n: u64| if n.is_multiple_of(3) { 1000 } else { 100_000 };
    let all: Vec<_> = (0..3000).map(|n| entry(n, 10, keep(n))).collect();
    let mut rest = &all[..];
    for size in [1, 7, 300].into_iter().cycle() {
        let (some, left) = rest.split_at(size.min(rest.len()));
        log.append(some).await.unwrap();
        rest = left;
        if rest.is_empty() {
            break;
        }
    }
    let id = |n: usize| all[n].transaction.id();
    let found = async |which: &[usize]| {
        let ids: Vec<_> = which.iter().map(|n| id(*n)).collect();
        let found = log.get_many(&ids).await.unwrap();
        let right = |(id, t): (&TransactionId, &Option<Transaction>)| {
            t.as_ref().is_none_or(|t| t.id() == *id)
        };
        assert!(ids.iter().zip(&found).all(right));
        found.iter().filter(|t| t.is_some()).count()
    };
    let ordered: Vec<_> = (0..3000).collect();
    let scattered: Vec<_> = (0..3000).map(|n| n * 1009 % 3000).collect();
    for order in [&ordered, &scattered, &ordered] {
        for lot in order.chunks(100) {
            assert_eq!(found(lot).await, lot.len());
        }
    }
    assert_eq!(found(&[5, 5, 2999, 6, 0, 7, 1500, 8, 9, 5]).await, 10);
    assert_eq!(log.expire(WallTime::from_millis(2000)).await.unwrap(), 1000);
    assert_eq!(found(&ordered).await, 2000, "what went is not remembered");
    let again: Vec<_> = (0..300).map(|n| entry(n, 10, 100_000)).collect();
    log.append(&again).await.unwrap();
    assert_eq!(found(&ordered[..300]).await, 300, "and has a new place");
}

#[tokio::test]
async fn what_was_not_acknowledged_is_not_kept_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(dir.path(), 0).await;
    let first = log.append(&[entry(0, 1, 1)]).await.unwrap()[0];
    log.save_cursor("a", Cursor(1)).await.unwrap();
    let run = async |sql: &str| {
        log.writer.lock().await.unwrap().execute_raw(sql.to_owned()).await.unwrap();
    };
    let no = "CREATE TRIGGER no BEFORE INSERT ON cursors BEGIN SELECT RAISE(FAIL, 'no'); END";
    run(no).await;
    log.save_cursor("a", Cursor(2)).await.unwrap_err();
    assert_eq!(log.load_cursor("a").await.unwrap(), Some(Cursor(1)));
    let second = log.append(&[entry(1, 1, 1)]).await.unwrap()[0];
    assert!(second > first);
    run("DROP TRIGGER no").await;
    log.save_cursor("a", Cursor(2)).await.unwrap();
    assert_eq!(log.load_cursor("a").await.unwrap(), Some(Cursor(2)));
    let level = sqlx::query("PRAGMA synchronous");
    let level: Option<i64> = log.writer.lock().await.unwrap().ask(level).await.unwrap();
    assert_eq!(level, Some(1), "appends are not synced");
}

#[tokio::test]
async fn a_probe_tells_whether_it_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(dir.path(), 0).await;
    let cursor = log.append(&[entry(0, 100, 1000)]).await.unwrap()[0];
    for (only_reading, writable) in [(true, false), (false, true)] {
        let set = format!("PRAGMA query_only = {only_reading}");
        log.writer.lock().await.unwrap().execute_raw(set).await.unwrap();
        assert_eq!(log.probe().await.is_ok(), writable);
    }
    assert!(log.probe().await.unwrap());
    assert!(log.append(&[entry(1, 100, 1000)]).await.unwrap()[0] > cursor);
}

#[tokio::test]
async fn a_dropped_read_does_not_hold_the_write_ahead_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(dir.path(), 0).await;
    log.append(&[entry(0, 100, 1000)]).await.unwrap();
    for reader in &log.readers {
        // What a read leaves whose future is dropped when it has a snapshot.
        let mut conn = reader.lock().await.unwrap();
        conn.begin_reading().await.unwrap();
        let look = sqlx::query("SELECT count(*) FROM blocks");
        assert_eq!(conn.ask::<i64>(look).await.unwrap(), Some(1));
    }
    log.append(&[entry(1, 100, 1000)]).await.unwrap();
    let checkpoint = || sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
    let busy: Option<i64> = log.writer.lock().await.unwrap().ask(checkpoint()).await.unwrap();
    assert_eq!(busy, Some(1), "a snapshot is held");
    log.expire(WallTime::from_millis(1)).await.unwrap();
    let busy: Option<i64> = log.writer.lock().await.unwrap().ask(checkpoint()).await.unwrap();
    assert_eq!(busy, Some(0));
}

/// Polls once, and waits until it is worth polling again.
async fn woken<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    struct Wake(tokio::sync::Notify);
    impl std::task::Wake for Wake {
        fn wake(self: Arc<Self>) {
            self.0.notify_one();
        }
    }
    let wake = Arc::new(Wake(tokio::sync::Notify::new()));
    let waker = Arc::clone(&wake).into();
    match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => {
            wake.0.notified().await;
            None
        }
    }
}

#[tokio::test]
async fn a_loss_is_told_from_the_moment_when_it_is_one() {
    let mut looked_at = false;
    // The file's own thread may be through before anybody looks.
    for _ in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        let log = open_at(dir.path(), 0).await;
        let cursors = log.append(&[entry(0, 1, 1)]).await.unwrap();
        log.append(&[entry(1, 1, 1000)]).await.unwrap();
        let mut dropping = std::pin::pin!(log.drop_ended(WallTime::from_millis(500)));
        while woken(dropping.as_mut()).await.is_none() {
            let page = log.page(None, Cursor(0), 9, 9999).await.unwrap();
            if page.entries.len() == 1 {
                looked_at = true;
                assert_eq!(page.gap_until, Some(cursors[0]));
            }
        }
        let page = log.page(None, Cursor(0), 9, 9999).await.unwrap();
        assert_eq!((page.entries.len(), page.gap_until), (1, Some(cursors[0])));
        if looked_at {
            return;
        }
    }
    panic!("nobody looked at the commit");
}

#[tokio::test]
async fn a_file_of_version_1_is_brought_up_to_date_and_has_all_it_had() {
    // More than fill a run, which a file of that version does not have.
    let entries: Vec<_> = (0..17_000).map(|n| entry(n, 1, 1_000_000)).collect();
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(dir.path(), 0).await;
    let mut cursors = Vec::new();
    for lot in entries.chunks(500) {
        cursors.extend(log.append(lot).await.unwrap());
    }
    // As version 1 made it: rows under a key too, and nothing else to find them by.
    let version_1 = "ALTER TABLE g_1 ADD COLUMN key INTEGER NOT NULL DEFAULT 0; \
         CREATE INDEX g_1_key ON g_1 (key); DROP TABLE runs; DROP TABLE keys; \
         DROP TABLE partials; DROP TABLE pieces; \
         ALTER TABLE generations DROP COLUMN keyed; PRAGMA user_version = 1;";
    log.writer.lock().await.unwrap().execute_raw(version_1.to_owned()).await.unwrap();
    log.close().await;
    drop(log);

    for _ in 0..2 {
        let log = open_at(dir.path(), 0).await;
        for at in [0, 1, 16_000, 16_999] {
            let found = log.get(&entries[at].transaction.id()).await.unwrap();
            assert_eq!(found.as_ref(), Some(&entries[at].transaction));
        }
        let again = log.append(&entries[..3]).await.unwrap();
        assert_eq!(again, cursors[..3], "they are known");
        let page = log.page(None, cursors[16_990], 99, 9999).await.unwrap();
        assert_eq!((page.entries.len(), page.gap_until), (9, None));
        log.close().await;
    }
    let log = open_at(dir.path(), 0).await;
    let new = entry(20_000, 1, 1_000_000);
    let cursor = log.append(std::slice::from_ref(&new)).await.unwrap();
    assert!(cursor[0] > cursors[16_999]);
    assert_eq!(log.get(&new.transaction.id()).await.unwrap(), Some(new.transaction));
    assert_eq!(log.drop_ended(WallTime::from_millis(2_000_000)).await.unwrap(), 17_001);
    assert_eq!(log.get(&entries[5].transaction.id()).await.unwrap(), None);
}

#[tokio::test]
async fn numbers_that_cannot_be_are_damage() {
    let run = "INSERT INTO runs (run, last, ends, entries) VALUES";
    let runs = ["(-1, 1, 1, 20000)", "(1, -1, 1, 20000)", "(1, 1, -1, 20000)", "(1, 1, 1, -1)"];
    let vast = ["(1, 1, 1, 4611686018427387904)", "(281474976710656, 1, 1, 20000)"];
    let runs = runs.iter().chain(&vast).map(|values| format!("{run} {values}"));
    let spoil = [
        "UPDATE meta SET value = -1 WHERE name = 'leased'",
        "UPDATE meta SET value = -1 WHERE name = 'base'",
        "INSERT INTO losses VALUES (1, -1)",
        "UPDATE generations SET ends = -1",
    ];
    for spoil in spoil.into_iter().map(str::to_owned).chain(runs) {
        let dir = tempfile::tempdir().unwrap();
        let log = open_at(dir.path(), 0).await;
        log.append(&[entry(0, 1, 1)]).await.unwrap();
        log.writer.lock().await.unwrap().execute_raw(spoil.clone()).await.unwrap();
        log.close().await;
        drop(log);
        let lock = Arc::new(DirLock::acquire(dir.path()).unwrap());
        let error = SqliteLog::open_at(&dir.path().join("log.db"), LIMITS, lock, 0).await;
        assert_eq!(error.unwrap_err().kind, StoreErrorKind::Corrupt, "{spoil}");
    }
}

#[tokio::test]
async fn an_acknowledgement_is_synced_also_after_a_dropped_one() {
    let mut dropped = 0;
    for polls in (1..8).cycle().take(40) {
        let dir = tempfile::tempdir().unwrap();
        let log = open_at(dir.path(), 0).await;
        log.append(&[entry(0, 1, 1)]).await.unwrap();
        {
            let mut ack = std::pin::pin!(log.save_cursor("a", Cursor(1)));
            let mut done = false;
            for _ in 1..polls {
                done = done || woken(ack.as_mut()).await.is_some();
            }
            // Begun, and nobody takes its answer.
            dropped += u32::from(!done && futures::poll!(ack.as_mut()).is_pending());
        }
        let spy = "CREATE TEMP TABLE levels (level INTEGER); \
                   CREATE TEMP TRIGGER saved AFTER INSERT ON main.cursors BEGIN \
                   INSERT INTO levels SELECT synchronous FROM pragma_synchronous; END;";
        log.writer.lock().await.unwrap().execute_raw(spy.to_owned()).await.unwrap();
        log.save_cursor("b", Cursor(1)).await.unwrap();
        let level = sqlx::query("SELECT max(level) FROM levels");
        let level = log.writer.lock().await.unwrap().ask::<i64>(level).await.unwrap();
        assert_eq!(level, Some(2), "dropped after {polls}");
    }
    assert!(dropped > 10, "{dropped}");
}

#[tokio::test]
async fn a_full_disk_refuses_and_room_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(dir.path(), 0).await;
    let kept = log.append(&[entry(0, 100, 1)]).await.unwrap();
    let bound = |pages: u32| format!("PRAGMA max_page_count = {pages}");
    log.writer.lock().await.unwrap().execute_raw(bound(1)).await.unwrap();
    let many: Vec<_> = (1..=100).map(|n| entry(n, 10_000, 50 + n)).collect();
    for _ in 0..2 {
        let error = log.append(&many).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
        let error = log.append(&many[..1]).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Full, "one alone: {error}");
    }
    let page = log.page(None, Cursor(0), 99, usize::MAX).await.unwrap();
    assert_eq!((page.entries.len(), page.gap_until), (1, None), "all or none");
    assert_eq!(log.usage().await.unwrap().entries, 1);
    log.writer.lock().await.unwrap().execute_raw(bound(1 << 20)).await.unwrap();
    let cursors = log.append(&many).await.unwrap();
    assert!(cursors[0] > kept[0] && cursors.is_sorted());
    assert_eq!(log.usage().await.unwrap().entries, 101);
    assert_eq!(log.list(Cursor(0), 999).await.unwrap().len(), 101);
    assert_eq!(log.drop_ended(WallTime::from_millis(100)).await.unwrap(), 51);
    assert_eq!(log.usage().await.unwrap().entries, 50);
}

#[tokio::test]
async fn a_dropped_append_happens_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(dir.path(), 0).await;
    let mut count = 0;
    for round in 0..40u64 {
        let entries: Vec<_> = (0..50).map(|n| entry(round * 50 + n, 100, 1)).collect();
        {
            let mut append = std::pin::pin!(log.append_all(&entries));
            // Each round is dropped at a later point.
            for _ in 0..round {
                if futures::poll!(append.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        let again = log.append_all(&entries).await.unwrap();
        assert!(again.is_sorted_by(|a, b| a < b), "each once, in order");
        count += 50;
        assert_eq!(log.usage().await.unwrap().entries, count);
        let all = log.list(Cursor(0), 10_000).await.unwrap();
        assert_eq!(all.len() as u64, count);
    }
}

async fn count(log: &SqliteLog, of: &str) -> Option<i64> {
    let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {of}"));
    log.writer.lock().await.unwrap().ask(sqlx::query(count)).await.unwrap()
}

#[tokio::test]
async fn a_large_payload_comes_back_and_goes_with_its_generation() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [10, 700_000, 0, 256 << 10, 1_000_000, 20];
    let all: Vec<_> = (0..).zip(sizes).map(|(n, size)| entry(n, size, 1000)).collect();
    let ids: Vec<_> = all.iter().map(|entry| entry.transaction.id()).collect();
    let log = open_at(dir.path(), 0).await;
    let cursors = log.append(&all).await.unwrap();
    // One generation has both kinds, another only small ones.
    log.append(&[entry(9, 10, 50_000)]).await.unwrap();
    assert_eq!(log.append(&all).await.unwrap(), cursors, "they are known");
    log.close().await;
    drop(log);

    let log = open_at(dir.path(), 0).await;
    assert_eq!(count(&log, "s_1").await, Some(3 + 4), "slices of two of them");
    for (id, entry) in ids.iter().zip(&all) {
        assert!(log.get(id).await.unwrap().as_ref() == Some(&entry.transaction));
    }
    let found = log.get_many(&ids).await.unwrap();
    assert!(found.iter().flatten().eq(all.iter().map(|entry| &entry.transaction)));
    let page = log.page(None, Cursor(0), 99, usize::MAX).await.unwrap();
    assert!(page.entries[..6].iter().map(|e| &e.entry).eq(&all));

    let damage = "DELETE FROM s_1 WHERE owner = (SELECT min(owner) FROM s_1) AND slice = 1";
    log.writer.lock().await.unwrap().execute_raw(damage.to_owned()).await.unwrap();
    assert_eq!(log.get(&ids[1]).await.unwrap_err().kind, StoreErrorKind::Corrupt);
    let found = log.get_many(&ids).await.unwrap();
    assert_eq!(
        found.iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, false, true, true, true, true]
    );
    let page = log.page(None, Cursor(0), 99, usize::MAX).await.unwrap();
    assert_eq!((page.entries.len(), page.damaged_until), (6, Some(cursors[1])));

    assert_eq!(log.drop_ended(WallTime::from_millis(2000)).await.unwrap(), 6);
    assert_eq!(count(&log, "sqlite_schema WHERE name GLOB 's_[0-9]*'").await, Some(0));
    assert_eq!(log.get(&ids[4]).await.unwrap(), None);
    assert_eq!(log.drop_ended(WallTime::from_millis(60_000)).await.unwrap(), 1);
}

#[tokio::test]
async fn a_dropped_append_of_large_payloads_happens_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(dir.path(), 0).await;
    let mut dropped = 0;
    for round in 0..30u64 {
        let entries: Vec<_> = (0..2).map(|n| entry(round * 2 + n, 600_000, 1)).collect();
        {
            let mut append = std::pin::pin!(log.append_all(&entries));
            let mut done = false;
            for _ in 0..round {
                done = done || woken(append.as_mut()).await.is_some();
            }
            dropped += u32::from(!done && futures::poll!(append.as_mut()).is_pending());
        }
        log.append_all(&entries).await.unwrap();
        assert_eq!(log.usage().await.unwrap().entries, 2 * (round + 1));
    }
    assert!(dropped > 5, "{dropped}");
    assert_eq!(count(&log, "s_1").await, Some(30 * 2 * 3));
    let page = log.page(None, Cursor(0), 99, usize::MAX).await.unwrap();
    assert_eq!((page.entries.len(), page.damaged_until), (60, None));
}

#[tokio::test]
async fn memory_is_kept_to_what_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(dir.path(), 0).await;
    let usual = log.memory();
    assert_eq!(usual, MEMORY.pages());
    log.append(&[entry(0, 1 << 20, 1)]).await.unwrap();
    assert!(log.memory() > usual + (1 << 20), "what was appended last");
    log.limit_memory(1 << 20).await;
    assert!(log.memory() <= 1 << 20, "{}", log.memory());
    let size = sqlx::query("SELECT cache_size FROM pragma_cache_size");
    assert_eq!(log.writer.lock().await.unwrap().ask::<i64>(size).await.unwrap(), Some(-512));
    let page = log.read(None, Cursor(0), 9, 9).await.unwrap();
    assert_eq!(page.entries.len(), 1, "from the file");
    log.limit_memory(u64::MAX).await;
    assert_eq!(log.memory(), usual, "more is of no use");
}
