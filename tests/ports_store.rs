//! Every store of the crate against the conformance suites, and what is particular to each.

use std::time::Duration;

use bytes::Bytes;
use sorcha_peer::error::StoreErrorKind;
use sorcha_peer::ports::{AcceptAll, NewEntry, TransactionStore};
use sorcha_peer::store::{MemoryPeerStore, MemoryQueue, MemoryTransactionStore};
use sorcha_peer::testing;
use sorcha_peer::types::{Cursor, Header, PeerId, Signature, Topic, Transaction, WallTime};

fn transaction(topic: &str, payload: Vec<u8>) -> Transaction {
    let at = WallTime::from_millis(1);
    let topic = Topic::new(topic).unwrap();
    let header = Header::new(topic, PeerId::from_bytes([1; 32]), at, at, &payload);
    Transaction::new(header, Signature::None, Bytes::from(payload)).unwrap()
}

fn entry(payload: Vec<u8>, keep_until: u64) -> NewEntry {
    let keep_until = WallTime::from_millis(keep_until);
    NewEntry { transaction: transaction("t", payload), from: None, hops: 0, keep_until }
}

#[tokio::test]
async fn memory_stores_conform() {
    testing::peer_store(&MemoryPeerStore::new()).await;
    testing::transaction_queue(&MemoryQueue::new(100), 100).await;
    testing::transaction_store(&MemoryTransactionStore::new(None), Duration::ZERO).await;
    testing::transaction_store(&MemoryTransactionStore::new(Some(1 << 20)), Duration::ZERO).await;
    testing::validator(&AcceptAll, &transaction("t", vec![1])).await;
}

#[tokio::test]
async fn a_memory_log_is_bounded_in_bytes() {
    let store = MemoryTransactionStore::new(Some(3000));
    store.append(&[entry(vec![0; 1000], 1)]).await.unwrap();
    let two = [entry(vec![1; 900], 2), entry(vec![2; 900], 2)];
    let error = store.append(&two).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    assert_eq!(store.index(Cursor(0), 10).await.unwrap().len(), 1, "all or none");
    store.append(&[two[0].clone(), two[0].clone(), entry(vec![0; 1000], 1)]).await.unwrap();
    assert_eq!(store.expire(WallTime::from_millis(1)).await.unwrap(), 1);
    store.append(&two).await.expect("what expired makes room");
}

#[tokio::test]
async fn a_memory_log_reports_every_loss_once() {
    let store = MemoryTransactionStore::new(None);
    // Every second one goes early.
    let entries: Vec<_> = (0..10u8).map(|n| entry(vec![n], u64::from(n % 2))).collect();
    let cursors = store.append(&entries).await.unwrap();
    assert_eq!(store.expire(WallTime::from_millis(0)).await.unwrap(), 5);
    let page = store.read(None, Cursor(0), 2, usize::MAX).await.unwrap();
    assert_eq!((page.next, page.lost_until), (cursors[3], Some(cursors[2])));
    let page = store.read(None, page.next, 100, usize::MAX).await.unwrap();
    assert_eq!((page.next, page.lost_until), (cursors[9], Some(cursors[8])));
    let page = store.read(None, page.next, 100, usize::MAX).await.unwrap();
    assert_eq!((page.next, page.lost_until), (cursors[9], None));
}

#[tokio::test]
async fn a_cursor_of_an_earlier_run_is_behind_and_reports_a_loss() {
    let store = MemoryTransactionStore::new(None);
    let earlier = Cursor(1_600_000_000_000 << 12);
    let cursor = store.append(&[entry(vec![1], 1)]).await.unwrap()[0];
    assert!(cursor > earlier);
    let page = store.read(None, earlier, 10, usize::MAX).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    assert!(page.lost_until.is_some_and(|lost| lost < cursor));
    let page = store.read(None, Cursor(0), 10, usize::MAX).await.unwrap();
    assert_eq!(page.lost_until, None, "from the beginning, nothing is missing");
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use sorcha_peer::error::StoreErrorKind;
    use sorcha_peer::ports::StoredPeer;
    use sorcha_peer::store::{SqliteOptions, SqliteStorage};
    use sorcha_peer::testing;
    use sorcha_peer::types::PeerId;

    fn peer(n: u8) -> StoredPeer {
        StoredPeer {
            peer: PeerId::from_bytes([n; 32]),
            record: None,
            verified: None,
            last_up: None,
            failures: 0,
        }
    }

    async fn refused(dir: &Path) -> StoreErrorKind {
        SqliteStorage::open(dir).await.expect_err("must not open").kind
    }

    #[tokio::test]
    async fn the_peer_store_conforms() {
        let dir = tempfile::tempdir().unwrap();
        let storage = SqliteStorage::open(dir.path().join("new/deep")).await.unwrap();
        testing::peer_store(&*storage.peer_store()).await;
    }

    #[tokio::test]
    async fn the_queue_conforms() {
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteOptions::default().max_queue_entries(200);
        let storage = SqliteStorage::open_with(dir.path(), options).await.unwrap();
        testing::transaction_queue(&*storage.queue(), 200).await;
    }

    #[tokio::test]
    async fn the_log_conforms_with_generations_of_any_span() {
        for span in [Duration::from_millis(1), Duration::from_secs(7), Duration::from_mins(5)] {
            let dir = tempfile::tempdir().unwrap();
            let options = SqliteOptions::default().generation(span);
            let storage = SqliteStorage::open_with(dir.path(), options).await.unwrap();
            testing::transaction_store(&*storage.transaction_store(), span).await;
        }
    }

    #[tokio::test]
    async fn queue_and_log_survive_a_drop_without_close() {
        let dir = tempfile::tempdir().unwrap();
        let open = async || SqliteStorage::open(dir.path()).await.expect("it opens again");
        testing::transaction_queue_durability(async || open().await.queue()).await;
        testing::transaction_store_durability(async || open().await.transaction_store()).await;
    }

    #[tokio::test]
    async fn peers_survive_a_drop_without_close() {
        let dir = tempfile::tempdir().unwrap();
        testing::peer_store_durability(async || {
            let storage = SqliteStorage::open(dir.path()).await.expect("it opens again");
            storage.peer_store()
        })
        .await;
    }

    #[tokio::test]
    async fn a_directory_belongs_to_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = SqliteStorage::open(dir.path()).await.unwrap();
        assert_eq!(refused(dir.path()).await, StoreErrorKind::Locked);
        let store = first.peer_store();
        drop(first);
        assert_eq!(refused(dir.path()).await, StoreErrorKind::Locked, "a store still holds it");
        store.upsert(&[peer(1)]).await.expect("and is not disturbed");
        drop(store);

        let second = SqliteStorage::open(dir.path()).await.unwrap();
        let store = second.peer_store();
        second.close().await;
        second.close().await;
        assert_eq!(store.load().await.unwrap_err().kind, StoreErrorKind::Closed);
        assert_eq!(store.upsert(&[]).await.unwrap_err().kind, StoreErrorKind::Closed);
        let third = SqliteStorage::open(dir.path()).await.expect("close gives it free");
        assert_eq!(third.peer_store().load().await.unwrap().0, [peer(1)]);
    }

    #[tokio::test]
    async fn another_process_holding_the_directory_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        // What another process does, as the operating system sees it: its own open file, locked.
        let other = fs::File::create(dir.path().join("LOCK")).unwrap();
        other.lock().unwrap();
        assert_eq!(refused(dir.path()).await, StoreErrorKind::Locked);
        assert!(!dir.path().join("peers.db").exists(), "nothing was made");
        drop(other);
        SqliteStorage::open(dir.path()).await.expect("a dead process holds nothing");
    }

    #[tokio::test]
    async fn a_damaged_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.db");
        fs::write(&path, "this is no database, whatever its name says. ".repeat(100)).unwrap();
        let before = fs::read(&path).unwrap();
        assert_eq!(refused(dir.path()).await, StoreErrorKind::Corrupt);
        assert_eq!(fs::read(&path).unwrap(), before);

        // A sound header over pages that are not.
        fs::remove_file(&path).unwrap();
        let storage = SqliteStorage::open(dir.path()).await.unwrap();
        let peers: Vec<_> = (0..200).map(peer).collect();
        storage.peer_store().upsert(&peers).await.unwrap();
        storage.close().await;
        let mut bytes = fs::read(&path).unwrap();
        assert!(bytes.len() > 3 * 4096);
        bytes[4096..].fill(0xa5);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(refused(dir.path()).await, StoreErrorKind::Corrupt);
        assert!(fs::read(&path).unwrap() == bytes);
    }

    #[tokio::test]
    async fn a_newer_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.db");
        SqliteStorage::open(dir.path()).await.unwrap().close().await;
        let mut bytes = fs::read(&path).unwrap();
        // https://www.sqlite.org/fileformat.html: the user version is at offset 60, big-endian.
        assert_eq!(bytes[60..64], [0, 0, 0, 1]);
        bytes[63] = 2;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(refused(dir.path()).await, StoreErrorKind::Version);
        assert!(fs::read(&path).unwrap() == bytes);
        // Nor is the database of another program touched: the application id is at offset 68.
        bytes[63] = 1;
        bytes[68..72].fill(7);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(refused(dir.path()).await, StoreErrorKind::Corrupt);
        assert!(fs::read(&path).unwrap() == bytes);
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_is_an_io_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "in the way").unwrap();
        assert_eq!(refused(&file).await, StoreErrorKind::Io);
        assert_eq!(refused(&file.join("below")).await, StoreErrorKind::Io);
        let taken = dir.path().join("taken");
        fs::create_dir_all(taken.join("peers.db")).unwrap();
        assert_eq!(refused(&taken).await, StoreErrorKind::Io);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_read_only_directory_is_an_io_error() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
        // Root writes everywhere.
        if fs::write(dir.path().join("probe"), "").is_err() {
            assert_eq!(refused(dir.path()).await, StoreErrorKind::Io);
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
}
