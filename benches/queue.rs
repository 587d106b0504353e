//! Durable publishes per second, beside what the disk and `SQLite` can do at best.
//!
//! `cargo bench --bench queue` (`-- --quick` for a short run, `-- 64` for so many publishers,
//! `-- retained` for what a million retained transactions of 1 KiB and 100,000 queued ones cost in
//! memory and at start)
//!
//! A node without peers publishes 1 KiB payloads with 1, 8, 64 and 512 publishers at once, each
//! waiting for its publish before the next: signing, core, outbox (`synchronous = FULL`), log. One task
//! that hands over 64 at a time (`publish_many`) comes to at least half of what 64 publishers do. The
//! floor, on the same disk and within seconds:
//!
//! - `fdatasync`: 4 KiB written over and over into the same file, a sync after each (what a commit
//!   into a warm write-ahead log costs), and appended to a growing file;
//! - `raw insert`: rows of the same size into one WAL file with `FULL`, one a commit, and in
//!   transactions of 512 rows made of statements of 64.
//!
//! What to expect: a commit of one row comes to 0.6 of `fdatasync` on 4 KiB, since the row goes to
//! the thread of its connection and back, and more than a page is written. A lone publish makes that
//! way twice, to the outbox and then, without a sync, to the log: 0.20 to 0.28 of `fdatasync`. With
//! 512 publishers a payload is written four times where `raw insert` writes it twice (each file's
//! write-ahead log, then the file), and half of the time the cores wait: for the disk, and for those
//! who were answered to publish again. Of 20 us of CPU a publish, `SQLite` has 8, the core and the
//! publishers 7, and handing over 5. Without the log it would be 0.52 to 0.62 of `raw insert` signed
//! and 0.64 to 0.84 unsigned, and with all in memory 1.7: a signature over a burst adds some 250
//! bytes to 1 KiB.
//! Measured and left out, for what they cost: each payload written once, with outbox rows that refer
//! to the log, brings a tenth; so do pages of 16 KiB, which a lone publish pays for; smaller or
//! larger batches, or four times as many publishers, next to nothing.
//!
//! Times are wall clock, medians over rounds in which all rows take turns: the machine may be
//! noisy, ratios are less so.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use sorcha_peer::config::SignaturePolicy;
use sorcha_peer::ports::NewEntry;
use sorcha_peer::transport::MemoryNetwork;
use sorcha_peer::types::{Header, Signature, WallTime};
use sorcha_peer::{Config, Identity, PeerId, PeerNode, SqliteStorage, Topic, Transaction};
use sorcha_peer_benches::{is_smoke, median};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const PUBLISHERS: [usize; 4] = [1, 8, 64, 512];
/// Number of payloads that one task hands over at a time.
const TOGETHER: usize = 64;
const PAYLOAD: usize = 1024;
const ROWS: usize = 512;
const STATEMENT: usize = 64;
/// Maximum number of entries of an outbox.
const OUTBOX: usize = 100_000;
/// Number of rows before a measurement, here and there: more than fill a write-ahead log once.
const WARM: usize = 20_000;

fn warm() -> usize {
    if is_smoke() { ROWS } else { WARM }
}

/// A node alone with an empty directory, for one measurement: its outbox never empties.
struct Alone {
    node: PeerNode,
    storage: SqliteStorage,
    _dir: tempfile::TempDir,
}

impl Alone {
    async fn new(below: &Path, signatures: SignaturePolicy) -> Self {
        Self::on(tempfile::tempdir_in(below).expect("a directory"), signatures).await
    }

    async fn on(dir: tempfile::TempDir, signatures: SignaturePolicy) -> Self {
        let storage = SqliteStorage::open(dir.path()).await.expect("storage");
        let mut config = Config::default();
        config.outbox.max_entries = u32::try_from(OUTBOX).expect("small");
        config.network.signatures = signatures;
        let identity = Identity::generate().expect("random bytes");
        let network = MemoryNetwork::new();
        let node = PeerNode::builder()
            .config(config)
            .transport(Arc::new(network.transport(identity.peer_id())))
            .identity(identity)
            .dial_only()
            .storage(storage.clone())
            .start()
            .await
            .expect("a node");
        Self { node, storage, _dir: dir }
    }

    /// Publishes per second of so many publishers, over about `span`.
    async fn rate(&self, publishers: usize, span: Duration) -> f64 {
        // Write-ahead logs grow to their working size first: a sync of a file that grows costs more.
        self.publish(256, warm() / 256, Duration::MAX).await;
        let start = Instant::now();
        let count = self.publish(publishers, (OUTBOX - WARM) / publishers, span).await;
        count as f64 / start.elapsed().as_secs_f64()
    }

    async fn publish(&self, publishers: usize, most: usize, span: Duration) -> usize {
        let start = Instant::now();
        let publisher = || {
            let node = self.node.clone();
            tokio::spawn(async move {
                let payload = Bytes::from(vec![7; PAYLOAD]);
                let mut count = 0;
                while count < most && start.elapsed() < span {
                    node.publish("bench", payload.clone()).await.expect("accepted");
                    count += 1;
                }
                count
            })
        };
        let counts = join_all((0..publishers).map(|_| publisher())).await;
        counts.into_iter().map(|count| count.expect("a publisher")).sum()
    }

    /// Publishes per second of one task that hands over so many at a time, over about `span`.
    async fn rate_together(&self, together: usize, span: Duration) -> f64 {
        self.publish(256, warm() / 256, Duration::MAX).await;
        let (start, mut count) = (Instant::now(), 0);
        let payload = Bytes::from(vec![7; PAYLOAD]);
        while start.elapsed() < span && count + together <= OUTBOX - WARM {
            let many = std::iter::repeat_n(payload.clone(), together);
            count += self.node.publish_many("bench", many).await.expect("accepted").len();
        }
        count as f64 / start.elapsed().as_secs_f64()
    }

    async fn end(self) {
        self.node.shutdown(Duration::ZERO).await.expect("a running node");
        self.storage.close().await;
    }
}

/// Syncs per second of a file that is written over, and of one that grows.
fn syncs(below: &Path, span: Duration, grow: bool) -> f64 {
    let path = below.join("sync");
    let mut options = OpenOptions::new();
    let file: File = options.create(true).write(true).truncate(true).open(&path).expect("a file");
    let page = [7; 4096];
    for at in 0..64 {
        file.write_all_at(&page, at * 4096).expect("written");
    }
    file.sync_all().expect("synced");
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < span {
        let at = if grow { 64 + count } else { count % 64 };
        file.write_all_at(&page, at * 4096).expect("written");
        file.sync_data().expect("synced");
        count += 1;
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path).expect("removed");
    rate
}

/// One `SQLite` file with `FULL`, straight through `sqlx`.
struct Raw {
    connection: SqliteConnection,
    seq: i64,
    _dir: tempfile::TempDir,
}

impl Raw {
    /// Makes a file whose write-ahead log has its working size.
    async fn new(below: &Path) -> Self {
        let dir = tempfile::tempdir_in(below).expect("a directory");
        let mut connection: SqliteConnection = SqliteConnectOptions::new()
            .filename(dir.path().join("raw.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", "4000")
            .disable_statement_logging()
            .connect()
            .await
            .expect("a database");
        let table = "CREATE TABLE raw (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL) STRICT";
        sqlx::query(table).execute(&mut connection).await.expect("a table");
        let mut raw = Self { connection, seq: 0, _dir: dir };
        for _ in 0..warm() / ROWS {
            raw.commit_many().await;
        }
        raw
    }

    /// Rows per second in commits of `ROWS` rows, or of one.
    async fn rate(mut self, many: bool, span: Duration) -> f64 {
        let (start, first) = (Instant::now(), self.seq);
        while start.elapsed() < span {
            if many {
                self.commit_many().await;
            } else {
                self.insert(1).await;
            }
        }
        let rate = (self.seq - first) as f64 / start.elapsed().as_secs_f64();
        self.connection.close().await.expect("closed");
        rate
    }

    async fn commit_many(&mut self) {
        sqlx::query("BEGIN").execute(&mut self.connection).await.expect("begun");
        for _ in 0..ROWS / STATEMENT {
            self.insert(STATEMENT).await;
        }
        sqlx::query("COMMIT").execute(&mut self.connection).await.expect("committed");
    }

    async fn insert(&mut self, rows: usize) {
        let values = vec!["(?,?)"; rows].join(",");
        let mut query = sqlx::query(AssertSqlSafe(format!("INSERT INTO raw VALUES {values}")));
        for _ in 0..rows {
            // The payload of a row here and header, signature and payload of one there.
            query = query.bind(self.seq).bind(vec![7u8; PAYLOAD + 220]);
            self.seq += 1;
        }
        query.execute(&mut self.connection).await.expect("inserted");
    }
}

/// Memory of this process, in MiB (Linux; 0 elsewhere).
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = line.trim().trim_end_matches(" kB").parse::<f64>();
    kib.unwrap_or_default() / 1024.0
}

/// Fills a log with a million transactions that have just been made.
async fn fill(dir: &Path) {
    const COUNT: u64 = 1_000_000;
    let storage = SqliteStorage::open(dir).await.expect("storage");
    let (log, start) = (storage.transaction_store(), Instant::now());
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let (topic, origin) = (Topic::new("bench").expect("a name"), PeerId::from_bytes([7; 32]));
    let now = wall_now();
    for batch in 0..COUNT.div_ceil(ROWS as u64) {
        let entries: Vec<_> = (0..ROWS as u64)
            .map(|n| {
                // About as many a second as such a node takes.
                let number = batch * ROWS as u64 + n;
                let created = now.plus(Duration::from_micros(33 * number));
                // Those of one millisecond differ in when they expire.
                let lifetime = Duration::from_hours(1) + Duration::from_millis(number % 100);
                let (expires, topic) = (created.plus(lifetime), topic.clone());
                let header = Header::new(topic, origin, created, expires, &payload);
                let signature = Signature::Ed25519([7; 64]);
                let transaction = Transaction::new(header, signature, payload.clone());
                let transaction = transaction.expect("the header's payload");
                NewEntry::new(transaction, Some(origin), 1, expires)
            })
            .collect();
        log.append(&entries).await.expect("room");
    }
    let took = start.elapsed().as_secs_f64();
    println!("log: {COUNT} entries of {PAYLOAD} B in {took:.1} s, {:.0}/s", COUNT as f64 / took);
    drop(log);
    storage.close().await;
}

fn wall_now() -> WallTime {
    let since = std::time::UNIX_EPOCH.elapsed().expect("a clock that is right");
    WallTime::from_millis(u64::try_from(since.as_millis()).expect("not that late"))
}

/// A node on a full log, and one with a full outbox: each measured by a process of its own, because
/// memory that was once used and is free again would count for the next one.
async fn retained(below: &Path, part: Option<&str>) {
    let dir = tempfile::tempdir_in(below).expect("a directory");
    match part {
        None => {
            for part in ["empty", "full", "queued"] {
                let own = std::env::current_exe().expect("this program");
                let mut child = std::process::Command::new(own);
                let status = child.args(["retained", part]).status().expect("it starts");
                assert!(status.success(), "{part} failed");
            }
        }
        Some("queued") => {
            let alone = Alone::new(below, SignaturePolicy::Required).await;
            // Caches fill first, and what is counted comes on top.
            let (warm, count) = (40_000, OUTBOX - 40_000);
            alone.publish(256, warm / 256, Duration::MAX).await;
            let before = resident();
            let count = alone.publish(256, count / 256, Duration::MAX).await;
            let each = (resident() - before) * 1024.0 * 1024.0 / count as f64;
            println!(
                "outbox: {each:.0} bytes resident for each of {count} that wait, log included"
            );
            alone.end().await;
        }
        Some(part) => {
            if part == "full" {
                // In a process of its own too.
                let own = std::env::current_exe().expect("this program");
                let mut child = std::process::Command::new(own);
                let status = child.args(["retained", "fill"]).arg(dir.path()).status();
                assert!(status.expect("it starts").success(), "filling failed");
            }
            let (before, start) = (resident(), Instant::now());
            let alone = Alone::on(dir, SignaturePolicy::Required).await;
            let took = start.elapsed().as_secs_f64();
            let retained = alone.node.stats().await.expect("it runs").retained;
            println!(
                "node with {retained} retained: {took:.2} s to start, {before:.1} MiB before, \
                 {:.1} MiB then",
                resident()
            );
            // Live traffic fills what caches there are.
            alone.publish(256, 100, Duration::MAX).await;
            println!("  after 25,600 publishes: {:.1} MiB", resident());
            alone.end().await;
        }
    }
}

fn main() {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let (rounds, span) = match () {
        () if is_smoke() => (1, Duration::from_millis(20)),
        () if has("--quick") => (3, Duration::from_millis(700)),
        () => (7, Duration::from_secs(2)),
    };
    let runtime = Runtime::new().expect("a runtime");
    // Beside the build, since the directory for temporary files may be in memory.
    let below = Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned();
    if has("retained") {
        let mut words = std::env::args().skip_while(|word| word != "retained").skip(1);
        let words = (words.next().filter(|word| !word.starts_with('-')), words.next());
        return runtime.block_on(async {
            match words {
                (Some(part), Some(dir)) if part == "fill" => fill(Path::new(&dir)).await,
                (part, _) => retained(&below, part.as_deref()).await,
            }
        });
    }
    let policies = [("signed", SignaturePolicy::Required), ("unsigned", SignaturePolicy::Off)];
    let (mut over, mut grown) = (Vec::new(), Vec::new());
    let (mut single, mut raw) = (Vec::new(), Vec::new());
    let picked: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let picked = if picked.is_empty() { PUBLISHERS.to_vec() } else { picked };
    let mut rates = vec![Vec::new(); policies.len() * picked.len()];
    let mut together = vec![Vec::new(); policies.len()];
    for _ in 0..rounds {
        over.push(syncs(&below, span, false));
        grown.push(syncs(&below, span, true));
        for (rates, many) in [(&mut single, false), (&mut raw, true)] {
            rates.push(runtime.block_on(async { Raw::new(&below).await.rate(many, span).await }));
        }
        let rows = policies.iter().flat_map(|policy| picked.iter().map(|n| (policy.1, *n)));
        for (row, (policy, publishers)) in rows.enumerate() {
            rates[row].push(runtime.block_on(async {
                let alone = Alone::new(&below, policy).await;
                let rate = alone.rate(publishers, span).await;
                alone.end().await;
                rate
            }));
        }
        for (rates, (_, policy)) in together.iter_mut().zip(policies) {
            rates.push(runtime.block_on(async {
                let alone = Alone::new(&below, policy).await;
                let rate = alone.rate_together(TOGETHER, span).await;
                alone.end().await;
                rate
            }));
        }
    }
    let middle = |rates: &[f64]| median(rates, |rate| *rate);
    let (over, grown) = (middle(&over), middle(&grown));
    let (single, raw) = (middle(&single), middle(&raw));
    println!("fdatasync: {over:.0}/s over the same pages, {grown:.0}/s of a growing file");
    println!("raw insert, one row a commit: {single:.0}/s; of fdatasync {:.2}", single / over);
    println!("raw insert, {ROWS} rows of {PAYLOAD} B a commit: {raw:.0}/s");
    let (mut rates, mut together) = (rates.into_iter(), together.into_iter());
    for (name, _) in policies {
        for publishers in &picked {
            let rate = middle(&rates.next().unwrap_or_default());
            println!(
                "publish {name}, {publishers:>3} at once: {rate:>6.0}/s; of fdatasync {:.2}, \
                 of raw insert {:.2} (one row), {:.3} (many)",
                rate / over,
                rate / single,
                rate / raw,
            );
        }
        let rate = middle(&together.next().unwrap_or_default());
        println!(
            "publish {name}, one task, {TOGETHER} together: {rate:>6.0}/s; of raw insert {:.3} (many)",
            rate / raw
        );
    }
}
