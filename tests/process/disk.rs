//! A disk that is full, or that cannot be synced, under a running process: a shim between the process
//! and the C library fails its writes or syncs while a control file says so (`disk_faults.c`, built
//! here with `cc`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::peer::{Peer, delivered, of, text};

/// A data directory on a disk of which this test is the master.
struct Disk {
    dir: TempDir,
    shim: PathBuf,
}

/// Operation that fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// Every write: no space is left.
    Full,
    /// Writes that would make files longer, after these bytes.
    Room(u32),
    /// Every sync.
    Sync,
    /// Every sync waits for as long as this lasts.
    Stuck,
    /// Every hard link: this file system has none.
    Links,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shim = dir.path().join("faults.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/disk_faults.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]);
        let built = cc.arg(&shim).arg(source).status().expect("a C compiler is installed as `cc`");
        assert!(built.success(), "the shim builds");
        Self { dir, shim }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    fn set(&self, fault: Fault) {
        let mode = match fault {
            Fault::None => String::new(),
            Fault::Full => "enospc".to_owned(),
            Fault::Room(bytes) => format!("room {bytes}"),
            Fault::Sync => "eio".to_owned(),
            Fault::Stuck => "stuck".to_owned(),
            Fault::Links => "nolink".to_owned(),
        };
        let new = self.dir.path().join("control.new");
        std::fs::write(&new, mode).unwrap();
        // All at once: nobody reads half of it.
        std::fs::rename(new, self.control()).unwrap();
    }

    /// A process on this disk.
    fn start(&self, flags: &[&str]) -> Peer {
        self.start_with(Fault::None, flags)
    }

    fn start_with(&self, fault: Fault, flags: &[&str]) -> Peer {
        self.set(fault);
        let data = self.data();
        let flags = ["--data-dir", data.to_str().unwrap()].into_iter().chain(flags.iter().copied());
        let control = self.control();
        let environment = [("LD_PRELOAD", &*self.shim), ("DISK_FAULTS", &*control)];
        Peer::spawn_in(flags, &environment).ready()
    }

    /// The number of the outbox's write-ahead log: it has one each time that it begins anew.
    fn log_number(&self) -> u32 {
        let header = std::fs::read(self.data().join("tx_queue.db-wal")).unwrap();
        // https://www.sqlite.org/fileformat.html#the_write_ahead_log
        u32::from_be_bytes(header[12..16].try_into().unwrap())
    }

    /// Everything that a process on a sound disk finds.
    fn read(&self) -> BTreeSet<String> {
        let data = self.data();
        let flags = ["--data-dir", data.to_str().unwrap(), "--from", "earliest"];
        delivered(&Peer::start(flags).finish())
    }
}

fn publish(peer: &mut Peer, count: usize) -> BTreeSet<String> {
    (0..count).map(|n| peer.publish("t", &n.to_string()).as_str().unwrap().to_owned()).collect()
}

/// Returns what a publish is refused with.
fn refusal(peer: &mut Peer) -> String {
    let answer = peer.ask(json!({ "op": "publish", "topic": "t", "text": "refused" }));
    assert_eq!(answer["event"], "publish_failed", "{answer}");
    text(&answer, "error")
}

/// Waits until the node says that its storage has failed.
fn wait_for_failure(peer: &mut Peer) -> String {
    text(&peer.wait("error", |line| line["ref"] == Value::Null), "error")
}

#[test]
fn a_full_disk_refuses_and_is_used_again_when_there_is_room() {
    let disk = Disk::new();
    let mut peer = disk.start(&[]);
    let mut accepted = publish(&mut peer, 20);
    for _ in 0..2 {
        disk.set(Fault::Full);
        for _ in 0..4 {
            let error = refusal(&mut peer);
            assert!(error.contains("storage full: the transaction was not stored"), "{error}");
            assert!(error.contains("database or disk is full"), "{error}");
        }
        assert!(wait_for_failure(&mut peer).contains("full"));
        disk.set(Fault::None);
        accepted.append(&mut publish(&mut peer, 20));
    }
    disk.set(Fault::Full);
    refusal(&mut peer);
    peer.kill();
    assert_eq!(disk.read(), accepted, "what was accepted, and nothing else");
}

#[test]
fn what_is_refused_half_way_is_not_found_by_the_next_process() {
    for room in [1_500_000, 2_000_000, 3_000_000] {
        let disk = Disk::new();
        let mut peer = disk.start(&[]);
        disk.set(Fault::Room(room));
        // Outbox and log grow in turn until one of them has no room, mostly the log.
        let lines = (0..1500).map(|n| {
            let text = format!("{n} {}", "x".repeat(3000));
            json!({ "op": "publish", "topic": "t", "text": text })
        });
        let refs: Vec<_> = lines.map(|line| peer.send(line)).collect();
        let answers: Vec<_> = refs.iter().map(|r| peer.find(|line| line["ref"] == *r)).collect();
        peer.kill();
        let accepted: BTreeSet<_> =
            of(&answers, "published").iter().map(|a| text(a, "id")).collect();
        let refused = of(&answers, "publish_failed");
        assert!(!accepted.is_empty() && !refused.is_empty(), "{}", accepted.len());
        assert!(refused.iter().all(|line| text(line, "error").contains("full")));
        for _ in 0..2 {
            let found = disk.read();
            let (lost, false_ones) = (accepted.difference(&found), found.difference(&accepted));
            assert_eq!((lost.count(), false_ones.count()), (0, 0), "of {}", accepted.len());
        }
    }
}

#[test]
fn what_could_not_be_synced_is_not_accepted_also_after_a_kill() {
    for killed in [true, false] {
        let disk = Disk::new();
        let mut peer = disk.start(&[]);
        let mut accepted = publish(&mut peer, 20);
        disk.set(Fault::Sync);
        for _ in 0..3 {
            let error = refusal(&mut peer);
            assert!(error.contains("tx_queue.db") && error.contains("disk I/O error"), "{error}");
        }
        assert!(wait_for_failure(&mut peer).contains("tx_queue.db"));
        if !killed {
            let before = disk.log_number();
            disk.set(Fault::None);
            accepted.append(&mut publish(&mut peer, 20));
            assert!(disk.log_number() > before, "nothing stands behind what may be lost");
        }
        peer.kill();
        assert_eq!(disk.read(), accepted, "what was accepted, and nothing else");
    }
}

#[test]
fn who_publishes_on_a_disk_that_hangs_is_answered() {
    let disk = Disk::new();
    let mut peer = disk.start(&[]);
    let mut accepted = publish(&mut peer, 3);
    disk.set(Fault::Stuck);
    let answer = peer.ask(json!({ "op": "publish", "topic": "t", "text": "in its hands" }));
    let error = text(&answer, "error");
    assert!(error.contains("may have been stored"), "{error}");
    let error = refusal(&mut peer);
    assert!(error.contains("was not stored") && error.contains("has not answered"), "{error}");
    assert!(wait_for_failure(&mut peer).contains("has not answered"));
    disk.set(Fault::None);
    let late = peer.wait("delivered", |line| !accepted.contains(line["id"].as_str().unwrap()));
    accepted.insert(text(&late, "id"));
    accepted.append(&mut publish(&mut peer, 3));
    peer.kill();
    assert_eq!(disk.read(), accepted, "what was accepted, what may have been, and nothing else");
}

#[test]
fn a_file_system_without_hard_links_is_as_good() {
    let disk = Disk::new();
    let mut peer = disk.start_with(Fault::Links, &[]);
    let id = peer.id.clone();
    let accepted = publish(&mut peer, 3);
    peer.kill();
    let files = std::fs::read_dir(disk.data()).unwrap().map(|file| file.unwrap().file_name());
    let left: Vec<_> = files.filter(|name| name.to_string_lossy().contains("new-")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(disk.start_with(Fault::Links, &[]).id, id, "the key is the same again");
    assert_eq!(disk.read(), accepted);
}

#[test]
fn files_that_others_can_read_are_named_at_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let disk = Disk::new();
    let data = disk.data();
    std::fs::create_dir(&data).unwrap();
    let flags = || ["--data-dir", data.to_str().unwrap()];
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&data, 0o755);
    let said = || {
        let mut peer = Peer::start(flags());
        peer.stdin = None;
        peer.end().2
    };
    assert!(!said().contains("other users"), "what is made is private");
    open(&data.join("peers.db"), 0o644);
    let told = said();
    assert!(told.contains("other users") && told.contains("peers.db"), "{told}");
}

#[test]
fn a_start_without_a_key_leaves_no_databases() {
    let disk = Disk::new();
    std::fs::create_dir(disk.data()).unwrap();
    std::fs::write(disk.data().join("node.key"), "no key").unwrap();
    let peer = Peer::spawn(["--data-dir", disk.data().to_str().unwrap()]);
    let (_, status, stderr) = peer.end();
    assert!(status == Some(1) && stderr.contains("node.key"), "{status:?} {stderr}");
    assert_eq!(std::fs::read_dir(disk.data()).unwrap().count(), 1, "the key alone");
}

#[test]
fn who_cannot_store_confirms_nothing_and_has_it_once_later() {
    for fault in [Fault::Full, Fault::Sync] {
        let disk = Disk::new();
        let mut source = Peer::in_memory();
        let mut peer = disk.start(&["--bootstrap", &source.listen]);
        peer.wait("peer_up", |_| true);
        // Before its first append the store makes sure, with a sync, that no cursor comes twice.
        disk.set(fault);
        let mut sent = publish(&mut source, 20);
        // The file of peers may be the first that fails, and the log is said to before it counts.
        peer.wait("error", |line| text(line, "error").contains("transactions.db"));
        peer.until_stats(|stats| stats["counters"]["storage_failures"].as_u64() > Some(0));
        source.take_waiting();
        assert_eq!(of(&source.seen, "replicated").len(), 0, "{fault:?}");
        assert_eq!(of(&peer.seen, "delivered").len(), 0, "{fault:?}");
        disk.set(Fault::None);
        sent.append(&mut publish(&mut source, 20));
        for id in &sent {
            source.wait("replicated", |line| line["id"] == **id);
        }
        while of(&peer.seen, "delivered").len() < sent.len() {
            assert!(peer.take_line());
        }
        assert_eq!(delivered(&peer.finish()), sent);
        assert_eq!(disk.read(), sent, "{fault:?}");
    }
}
