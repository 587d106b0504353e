//! Every store of the crate against the conformance suites, and what is particular to each.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sorcha_peer::error::StoreErrorKind;
use sorcha_peer::ports::NewEntry;
use sorcha_peer::types::{Header, Signature, WallTime};
use sorcha_peer::{Cursor, PeerId, Storage, Topic, Transaction, Validator, Verdict, testing};

fn transaction(topic: &str, payload: Vec<u8>) -> Transaction {
    let at = WallTime::from_millis(1);
    let topic = Topic::new(topic).unwrap();
    let header = Header::new(topic, PeerId::from_bytes([1; 32]), at, at, &payload);
    Transaction::new(header, Signature::None, Bytes::from(payload)).unwrap()
}

fn entry(payload: Vec<u8>, keep_until: u64) -> NewEntry {
    let keep_until = WallTime::from_millis(keep_until);
    NewEntry::new(transaction("t", payload), None, 0, keep_until)
}

#[derive(Debug)]
struct AcceptsAll;

#[async_trait]
impl Validator for AcceptsAll {
    async fn validate(&self, _: &Transaction, _: &PeerId) -> Verdict {
        Verdict::Accept
    }
}

#[tokio::test]
async fn memory_stores_conform() {
    testing::peer_store(&*Storage::memory_peers()).await;
    testing::transaction_queue(&*Storage::memory_queue(100), 100).await;
    testing::transaction_store(&*Storage::memory_transactions(None), Duration::ZERO).await;
    testing::transaction_store(&*Storage::memory_transactions(Some(1 << 20)), Duration::ZERO).await;
    testing::validator(&AcceptsAll, &transaction("t", vec![1])).await;
}

#[tokio::test]
async fn a_memory_log_is_bounded_in_bytes() {
    let store = Storage::memory_transactions(Some(3000));
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
    let store = Storage::memory_transactions(None);
    // Every second one goes early.
    let entries: Vec<_> = (0..10u8).map(|n| entry(vec![n], u64::from(n % 2))).collect();
    let cursors = store.append(&entries).await.unwrap();
    assert_eq!(store.expire(WallTime::from_millis(0)).await.unwrap(), 5);
    let page = store.read(None, Cursor(0), 2, usize::MAX).await.unwrap();
    assert_eq!((page.next, page.gap_until), (cursors[3], Some(cursors[2])));
    let page = store.read(None, page.next, 100, usize::MAX).await.unwrap();
    assert_eq!((page.next, page.gap_until), (cursors[9], Some(cursors[8])));
    let page = store.read(None, page.next, 100, usize::MAX).await.unwrap();
    assert_eq!((page.next, page.gap_until), (cursors[9], None));
}

#[tokio::test]
async fn a_cursor_of_an_earlier_run_is_behind_and_reports_a_loss() {
    let store = Storage::memory_transactions(None);
    let earlier = Cursor(1_600_000_000_000 << 12);
    let cursor = store.append(&[entry(vec![1], 1)]).await.unwrap()[0];
    assert!(cursor > earlier);
    let page = store.read(None, earlier, 10, usize::MAX).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    assert!(page.gap_until.is_some_and(|until| until < cursor));
    let page = store.read(None, Cursor(0), 10, usize::MAX).await.unwrap();
    assert_eq!(page.gap_until, None, "from the beginning, nothing is missing");
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use sorcha_peer::error::StoreErrorKind;
    use sorcha_peer::ports::StoredPeer;
    use sorcha_peer::store::SqliteOptions;
    use sorcha_peer::{PeerId, SqliteStorage, testing};

    fn peer(n: u8) -> StoredPeer {
        StoredPeer::new(PeerId::from_bytes([n; 32]))
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
    async fn all_three_survive_a_drop_without_close() {
        let dir = tempfile::tempdir().unwrap();
        let open = async || SqliteStorage::open(dir.path()).await.expect("it opens again");
        testing::durability(open).await;
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
    async fn the_database_of_another_program_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.db");
        SqliteStorage::open(dir.path()).await.unwrap().close().await;
        let mut bytes = fs::read(&path).unwrap();
        // https://www.sqlite.org/fileformat.html: the application id is at offset 68.
        assert_eq!(&bytes[68..72], b"SORC");
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

    /// Variable in which the next test's process finds its directory.
    #[cfg(unix)]
    const READ_ONLY: &str = "SORCHA_READ_ONLY";

    /// Root writes everywhere, so the directory is opened by a process of nobody's.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_read_only_directory_is_an_io_error() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        use std::os::unix::process::CommandExt;
        use std::process::Command;

        const NOBODY: u32 = 65534;
        if let Some(dir) = std::env::var_os(READ_ONLY) {
            let kind = refused(Path::new(&dir)).await;
            assert_eq!(kind, StoreErrorKind::Io);
            return;
        }
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let top = tempfile::tempdir().unwrap();
        let (fresh, used) = (top.path().join("fresh"), top.path().join("used"));
        fs::create_dir(&fresh).unwrap();
        SqliteStorage::open(&used).await.unwrap().close().await;
        // Where this program stands need not be open to all.
        let program = top.path().join("program");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        for file in fs::read_dir(&used).unwrap() {
            mode(&file.unwrap().path(), 0o444);
        }
        for dir in [top.path(), &fresh, &used, &program] {
            mode(dir, 0o555);
        }
        for dir in [&fresh, &used] {
            let mut child = Command::new(&program);
            child.args(["--exact", "conformance::sqlite::a_read_only_directory_is_an_io_error"]);
            child.env(READ_ONLY, dir).current_dir("/");
            if fs::metadata(&fresh).unwrap().uid() == 0 {
                child.uid(NOBODY).gid(NOBODY);
            }
            let done = child.output().unwrap();
            let told = String::from_utf8_lossy(&done.stdout);
            assert!(done.status.success() && told.contains("1 passed"), "{told}");
        }
        for dir in [top.path(), &fresh, &used] {
            mode(dir, 0o755);
        }
    }
}
