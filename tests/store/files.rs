//! Files after what should not happen: what was accepted stays accepted, the rest is a typed error.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sorcha_peer::error::{StartError, StoreErrorKind};
use sorcha_peer::ports::{EntryFilter, NewEntry, StoredPeer};
use sorcha_peer::types::{Header, Signature, WallTime};
use sorcha_peer::{Cursor, Identity, Item, PeerId, SqliteStorage, StartAt, Topic, Transaction};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::hooked::{alone, delivered};

const FILES: [&str; 3] = ["peers.db", "tx_queue.db", "transactions.db"];

fn transaction(n: u64) -> Transaction {
    let payload = Bytes::from(format!("payload {n:04} ").repeat(40));
    let (created, expires) = (WallTime::from_millis(1 + n), WallTime::from_millis(1 << 40));
    let topic = Topic::new("t").unwrap();
    let header = Header::new(topic, PeerId::from_bytes([3; 32]), created, expires, &payload);
    Transaction::new(header, Signature::Ed25519([5; 64]), payload).unwrap()
}

fn entry(n: u64) -> NewEntry {
    let keep_until = WallTime::from_millis(1 << 45);
    NewEntry::new(transaction(n), None, 0, keep_until)
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

async fn refused(dir: &Path) -> StoreErrorKind {
    SqliteStorage::open(dir).await.expect_err("must not open").kind
}

#[tokio::test]
async fn one_storage_is_one_node_s_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::generate().unwrap();
    let storage = SqliteStorage::open(dir.path()).await.unwrap();
    let start = || alone(&identity).storage(storage.clone()).start();
    let node = start().await.unwrap();
    match start().await {
        Err(StartError::Store(error)) => assert_eq!(error.kind, StoreErrorKind::Locked, "{error}"),
        other => panic!("{other:?}"),
    }
    node.shutdown(Duration::ZERO).await.unwrap();
    start().await.unwrap();
}

/// A directory below `top` whose path has this many bytes.
fn deep(top: &Path, length: usize) -> PathBuf {
    let mut path = fs::canonicalize(top).unwrap();
    while path.as_os_str().len() < length {
        let left = length - path.as_os_str().len() - 1;
        // One byte is no room for the next separator and a name.
        let name = if left > 200 { 100 } else { left };
        path.push("d".repeat(name));
    }
    assert_eq!(path.as_os_str().len(), length);
    path
}

#[tokio::test]
async fn a_path_that_is_too_long_is_refused_by_its_length() {
    let top = tempfile::tempdir().unwrap();
    let longest = deep(top.path(), 488);
    let storage = SqliteStorage::open(&longest).await.unwrap();
    storage.transaction_store().append(&[entry(1)]).await.unwrap();
    storage.close().await;
    let too_long = deep(top.path(), 489);
    let error = SqliteStorage::open(&too_long).await.unwrap_err().to_string();
    assert!(error.contains("489 bytes") && error.contains("at most 488"), "{error}");
    assert!(!too_long.exists(), "nothing is left behind");
    // The files would stand behind the link.
    let link = top.path().join("link");
    fs::create_dir_all(&too_long).unwrap();
    std::os::unix::fs::symlink(&too_long, &link).unwrap();
    let error = SqliteStorage::open(&link).await.unwrap_err().to_string();
    assert!(error.contains("489 bytes"), "{error}");
}

#[tokio::test]
async fn what_the_operating_system_says_is_in_the_error() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("file");
    fs::write(&file, "").unwrap();
    let error = SqliteStorage::open(file.join("data")).await.unwrap_err().to_string();
    assert!(error.contains("Not a directory (os error 20)"), "{error}");
    for name in FILES {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(name, dir.path().join(name)).unwrap();
        let error = SqliteStorage::open(dir.path()).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("symbolic links (os error 40)"), "{error}");
        assert_eq!(error.matches("unable to open").count(), 1, "{error}");
    }
}

#[tokio::test]
async fn what_was_accepted_survives_and_a_lost_log_is_filled_again() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::generate().unwrap();
    let texts: Vec<_> = (0..100).map(|n| format!("text {n}")).collect();
    let storage = SqliteStorage::open(dir.path()).await.unwrap();
    let node = alone(&identity).storage(storage).start().await.unwrap();
    for text in &texts {
        node.publish("t", text.clone()).await.unwrap();
    }
    // As the disk stands at this moment, without goodbye.
    let (killed, lost) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for to in [&killed, &lost] {
        copy(dir.path(), to.path());
    }
    for file in ["transactions.db", "transactions.db-wal", "transactions.db-shm"] {
        fs::remove_file(lost.path().join(file)).unwrap();
    }
    node.shutdown(Duration::ZERO).await.unwrap();
    for dir in [&killed, &lost] {
        let storage = SqliteStorage::open(dir.path()).await.unwrap();
        let queue = storage.queue();
        let node = alone(&identity).storage(storage.clone()).start().await.unwrap();
        assert_eq!(delivered(&node, 100).await, texts, "in order, each once");
        assert_eq!(queue.size().await.unwrap().waiting, 100);
        node.publish("t", "more").await.unwrap();
        assert_eq!(delivered(&node, 101).await[100], "more");
        node.shutdown(Duration::ZERO).await.unwrap();
        storage.close().await;
    }
}

#[tokio::test]
async fn a_file_locked_by_another_is_told_apart_and_works_again() {
    let dir = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(dir.path()).await.unwrap();
    let (queue, log) = (storage.queue(), storage.transaction_store());
    queue.append(&[transaction(1)]).await.unwrap();
    log.append(&[entry(1)]).await.unwrap();
    for file in ["tx_queue.db", "transactions.db"] {
        let options = SqliteConnectOptions::new().filename(dir.path().join(file));
        let mut other = options.connect().await.unwrap();
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
        let error = match file {
            "tx_queue.db" => queue.append(&[transaction(2)]).await.unwrap_err(),
            _ => log.append(&[entry(2)]).await.unwrap_err(),
        };
        assert_eq!(error.kind, StoreErrorKind::Locked, "{error}");
        let found = log.get(&transaction(1).id()).await.unwrap();
        assert_eq!(found, Some(transaction(1)), "readers do not wait for writers");
        other.close().await.unwrap();
    }
    queue.append(&[transaction(2)]).await.unwrap();
    log.append(&[entry(2)]).await.unwrap();
    let (list, page) = (
        queue.load(EntryFilter::All, None, 9, usize::MAX).await.unwrap(),
        log.read(None, Cursor(0), 9, usize::MAX).await.unwrap(),
    );
    assert_eq!((list.len(), page.entries.len()), (2, 2), "each once");
}

/// Checks what a power failure leaves: the files as they are, with the end of a WAL missing or
/// wrong.
#[tokio::test]
async fn a_torn_write_ahead_log_costs_its_end_only() {
    let dir = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(dir.path()).await.unwrap();
    let (queue, log) = (storage.queue(), storage.transaction_store());
    let wal = |file: &str| dir.path().join(format!("{file}-wal"));
    let length = |file: &str| fs::metadata(wal(file)).unwrap().len();
    let mut synced = None;
    let (mut seqs, mut cursors) = (Vec::new(), Vec::new());
    for n in 0..40 {
        seqs.extend(queue.append(&[transaction(n)]).await.unwrap());
        cursors.extend(log.append(&[entry(n)]).await.unwrap());
        // The first commits lease numbers and are synced: no power failure takes them.
        synced.get_or_insert((length("tx_queue.db"), length("transactions.db")));
    }
    let (queue_from, log_from) = synced.unwrap();
    for (file, from) in [("tx_queue.db", queue_from), ("transactions.db", log_from)] {
        let end = length(file);
        let step = usize::try_from((end - from) / 13).unwrap();
        let mut shortest = 40;
        for (round, cut) in (from..=end).step_by(step).enumerate() {
            let torn = tempfile::tempdir().unwrap();
            copy(dir.path(), torn.path());
            let path = torn.path().join(format!("{file}-wal"));
            let mut bytes = fs::read(&path).unwrap();
            let at = usize::try_from(cut).unwrap();
            if round % 2 == 0 {
                bytes.truncate(at);
            } else {
                bytes[at..].fill(0xa5);
            }
            fs::write(&path, &bytes).unwrap();
            // Shared memory does not survive a power failure.
            let _ = fs::remove_file(torn.path().join(format!("{file}-shm")));
            let storage = SqliteStorage::open(torn.path()).await.unwrap();
            let (queue, log) = (storage.queue(), storage.transaction_store());
            let list = queue.load(EntryFilter::All, None, 99, usize::MAX).await.unwrap();
            let page = log.read(None, Cursor(0), 99, usize::MAX).await.unwrap();
            let count = list.len().min(page.entries.len());
            shortest = shortest.min(count);
            assert!(count >= 1, "what was synced is there");
            for (n, entry) in list.iter().enumerate() {
                assert_eq!(entry.transaction, transaction(n as u64));
                assert_eq!(entry.seq, seqs[n]);
            }
            for (n, entry) in page.entries.iter().enumerate() {
                assert_eq!(entry.entry.transaction, transaction(n as u64));
                assert_eq!(entry.cursor, cursors[n]);
            }
            let newest = log.newest().await.unwrap();
            assert!(newest >= cursors[39], "who has kept {} is behind {newest}", cursors[39]);
            let seq = queue.append(&[transaction(99)]).await.unwrap()[0];
            assert!(seq > seqs[39], "{seq} may have been given out");
            let cursor = log.append(&[entry(99)]).await.unwrap()[0];
            assert!(cursor > newest, "{cursor} may have been given out");
            storage.close().await;
        }
        assert!(shortest < 40, "nothing was torn off {file}");
    }
}

#[tokio::test]
async fn damaged_and_newer_files_are_refused_and_left_alone() {
    for file in FILES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        fs::write(&path, "no database, whatever its name says. ".repeat(200)).unwrap();
        let before = fs::read(&path).unwrap();
        assert_eq!(refused(dir.path()).await, StoreErrorKind::Corrupt, "{file}");
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::remove_file(&path).unwrap();

        let storage = SqliteStorage::open(dir.path()).await.unwrap();
        let entries: Vec<_> = (0..100).map(entry).collect();
        let transactions: Vec<_> = (0..100).map(transaction).collect();
        storage.transaction_store().append(&entries).await.unwrap();
        storage.queue().append(&transactions).await.unwrap();
        storage.close().await;
        let good = fs::read(&path).unwrap();
        // The user version is at offset 60, big-endian.
        let mut newer = good.clone();
        newer[63] += 1;
        let mut spoilt = good.clone();
        spoilt[4096..].fill(0xa5);
        let mut cut = good.clone();
        cut.truncate(good.len() / 2 / 4096 * 4096 + 100);
        let kinds = [
            (newer, StoreErrorKind::Version),
            (spoilt, StoreErrorKind::Corrupt),
            (cut, StoreErrorKind::Corrupt),
        ];
        for (bytes, kind) in kinds {
            fs::write(&path, &bytes).unwrap();
            assert_eq!(refused(dir.path()).await, kind, "{file}");
            assert!(fs::read(&path).unwrap() == bytes, "{file} is left as it is");
        }
        fs::write(&path, &good).unwrap();
        SqliteStorage::open(dir.path()).await.expect("the others were not touched either");
    }
}

fn bytes_of(path: &Path) -> [Vec<u8>; 2] {
    let wal = path.with_extension("db-wal");
    [path, &wal].map(|path| fs::read(path).unwrap())
}

/// Checks that what a crash leaves has a write-ahead log, which is part of what a rescue needs.
#[tokio::test]
async fn a_refused_file_keeps_its_write_ahead_log() {
    for file in FILES {
        let dir = tempfile::tempdir().unwrap();
        let fill = async |storage: &SqliteStorage, from: u64| {
            let entries: Vec<_> = (from..from + 100).map(entry).collect();
            let transactions: Vec<_> = (from..from + 100).map(transaction).collect();
            let peer = |n: u64| {
                let mut id = [n.to_le_bytes()[0]; 32];
                id[0] = from.to_le_bytes()[0];
                let peer = PeerId::from_bytes(id);
                StoredPeer::new(peer)
            };
            let peers: Vec<_> = (0..200).map(peer).collect();
            storage.transaction_store().append(&entries).await.unwrap();
            storage.queue().append(&transactions).await.unwrap();
            storage.peer_store().upsert(&peers).await.unwrap();
        };
        let storage = SqliteStorage::open(dir.path()).await.unwrap();
        fill(&storage, 0).await;
        storage.close().await;
        let storage = SqliteStorage::open(dir.path()).await.unwrap();
        fill(&storage, 100).await;
        let copied = || {
            let to = tempfile::tempdir().unwrap();
            copy(dir.path(), to.path());
            let path = to.path().join(file);
            let _ = fs::remove_file(path.with_extension("db-shm"));
            (to, path)
        };

        let (to, path) = copied();
        let mut bytes = fs::read(&path).unwrap();
        bytes[4096..].fill(0xa5);
        fs::write(&path, &bytes).unwrap();
        let before = bytes_of(&path);
        assert!(!before[1].is_empty());
        assert_eq!(refused(to.path()).await, StoreErrorKind::Corrupt, "{file}");
        assert!(bytes_of(&path) == before, "{file} is left as it is");

        let options = SqliteConnectOptions::new().filename(dir.path().join(file));
        let mut other = options.connect().await.unwrap();
        sqlx::query("PRAGMA user_version = 99").execute(&mut other).await.unwrap();
        other.close().await.unwrap();
        let (to, path) = copied();
        let before = bytes_of(&path);
        assert_eq!(refused(to.path()).await, StoreErrorKind::Version, "{file}");
        assert!(bytes_of(&path) == before, "{file} is left as it is");

        // Without its file the log is of use to a rescue only; `SQLite` would delete it.
        for empty in [true, false] {
            let (to, path) = copied();
            fs::remove_file(&path).unwrap();
            if empty {
                fs::write(&path, "").unwrap();
            }
            let wal = path.with_extension("db-wal");
            let before = fs::read(&wal).unwrap();
            assert_eq!(refused(to.path()).await, StoreErrorKind::Corrupt, "{file}");
            assert!(fs::read(&wal).unwrap() == before);
        }
    }
}

#[tokio::test]
async fn a_file_that_was_cut_to_nothing_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    SqliteStorage::open(dir.path()).await.unwrap().close().await;
    for file in &FILES {
        let path = dir.path().join(file);
        let good = fs::read(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(refused(dir.path()).await, StoreErrorKind::Corrupt, "{file}");
        assert_eq!(fs::read(&path).unwrap(), b"");
        fs::write(&path, &good).unwrap();
    }
    // One that is not there is made anew, and that may be broken off.
    for file in &FILES {
        fs::remove_file(dir.path().join(file)).unwrap();
        SqliteStorage::open(dir.path()).await.unwrap().close().await;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILES[0]), "").unwrap();
    SqliteStorage::open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_page_costs_what_stands_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(dir.path()).await.unwrap();
    let entries: Vec<_> = (0..100).map(entry).collect();
    storage.transaction_store().append(&entries).await.unwrap();
    storage.close().await;
    // Found whole when it is opened.
    let storage = SqliteStorage::open(dir.path()).await.unwrap();
    let path = dir.path().join("transactions.db");
    let bytes = fs::read(&path).unwrap();
    let payload = b"payload 0050 payload";
    let at = bytes.windows(payload.len()).position(|found| found == payload).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 64], at as u64 / 4096 * 4096).unwrap();
    let log = storage.transaction_store();
    let (mut found, mut gap, mut after) = (0, None, Cursor(0));
    loop {
        let page = log.read(None, after, 40, usize::MAX).await.unwrap();
        if page.next == after {
            break;
        }
        found += page.entries.len();
        gap = gap.max(page.gap_until);
        after = page.next;
    }
    assert!((80..100).contains(&found) && gap.is_some(), "{found} found, gap {gap:?}");
}

#[tokio::test]
async fn a_flipped_bit_is_found_where_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(dir.path()).await.unwrap();
    let entries: Vec<_> = (0..10).map(entry).collect();
    let cursors = storage.transaction_store().append(&entries).await.unwrap();
    storage.queue().append(&[transaction(4)]).await.unwrap();
    storage.close().await;
    for file in ["transactions.db", "tx_queue.db"] {
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let payload = b"payload 0004 payload";
        // Pages that were split leave copies behind in what is free.
        let copies = bytes.windows(payload.len()).enumerate().filter(|(_, w)| *w == payload);
        let copies: Vec<_> = copies.map(|(at, _)| at).collect();
        assert!(!copies.is_empty());
        for at in copies {
            bytes[at + 3] ^= 4;
        }
        fs::write(&path, bytes).unwrap();
    }
    let storage = SqliteStorage::open(dir.path()).await.unwrap();
    let log = storage.transaction_store();
    let error = log.get(&transaction(4).id()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
    let ids: Vec<_> = (0..10).map(|n| transaction(n).id()).collect();
    let together = log.get_many(&ids).await.unwrap();
    let found: Vec<_> = together.iter().map(Option::is_some).collect();
    assert_eq!(found, (0..10).map(|n| n != 4).collect::<Vec<_>>(), "nor do the others suffer");
    let page = log.read(None, Cursor(0), 99, usize::MAX).await.unwrap();
    assert!(page.entries.len() == 9 && page.next >= cursors[9], "the others are delivered");
    assert_eq!(page.gap_until, Some(cursors[4]), "and it is told");
    assert_eq!(page.damaged_until, Some(cursors[4]), "for what it is");
    let node = alone(&Identity::generate().unwrap()).transaction_store(log).start().await.unwrap();
    let mut all = node.subscribe_all(StartAt::Earliest).await.unwrap();
    let Some(Item::Gap { after, until, span: None, .. }) = all.next().await else {
        panic!("no gap")
    };
    assert_eq!((after, until), (Cursor(0), cursors[4]), "also from the start");
    node.shutdown(Duration::ZERO).await.unwrap();
    let error = storage.queue().load(EntryFilter::All, None, 9, usize::MAX).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
}

/// Variable in which the next test's process finds its directory.
const PRIVATE: &str = "SORCHA_PRIVATE";

/// A process has one umask for all its threads, so each has a process of its own.
#[tokio::test]
async fn what_is_made_is_its_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    if let Some(dir) = std::env::var_os(PRIVATE) {
        let dir = Path::new(&dir).join("above/data");
        let identity = Identity::load_or_create(dir.join("keys/node.key")).unwrap();
        let storage = SqliteStorage::open(&dir).await.unwrap();
        let node = alone(&identity).storage(storage).start().await.unwrap();
        node.publish("t", "text").await.unwrap();
        // Without a goodbye: the files beside the databases stay.
        std::process::exit(0);
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for umask in ["022", "000", "077"] {
        let top = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh");
        child.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
        child.arg(std::env::current_exe().unwrap());
        child.args(["--exact", "files::what_is_made_is_its_owner_s_alone"]);
        let done = child.env(PRIVATE, top.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let data = top.path().join("above/data");
        for dir in [&top.path().join("above"), &data, &data.join("keys")] {
            assert_eq!(mode(dir), 0o700, "{} under {umask}", dir.display());
        }
        let mut files: Vec<_> =
            fs::read_dir(&data).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|path| path.is_file());
        files.push(data.join("keys/node.key"));
        for path in &files {
            assert_eq!(mode(path), 0o600, "{} under {umask}", path.display());
        }
        let names: Vec<_> = files.iter().map(|path| path.to_str().unwrap()).collect();
        let count = |end| names.iter().filter(|name| name.ends_with(end)).count();
        let found = [".db", "-wal", "-shm", ".gone", "LOCK"].map(count);
        assert_eq!(found, [3, 3, 3, 1, 1], "{files:?}");
    }
}

#[tokio::test]
async fn what_others_may_read_stays_so() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    SqliteStorage::open(dir.path()).await.unwrap().close().await;
    let paths = FILES.map(|file| dir.path().join(file));
    for path in &paths {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    SqliteStorage::open(dir.path()).await.unwrap().close().await;
    for path in &paths {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
