//! Durable publishes per second, beside what the disk and `SQLite` can do at best.
//!
//! `cargo bench --bench queue` (`-- --quick` for a short run, `-- 64` for so many publishers,
//! `-- retained` for what a million
//! retained transactions of 1 KiB cost in memory and at start)
//!
//! A node without peers publishes 1 KiB payloads with 1, 8, 64 and 512 publishers at once, each
//! waiting for its publish before the next: signing, core, outbox (`synchronous = FULL`), log. The
//! floor, on the same disk and within seconds:
//!
//! - `fdatasync`: 4 KiB written over and over into the same file, a sync after each (what a commit
//!   into a warm write-ahead log costs), and appended to a growing file;
//! - `raw insert`: rows of the same size into one WAL file with `FULL`, in transactions of 512 rows
//!   made of statements of 64.
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
use sorcha_peer::types::{Cursor, Header, Signature, Transaction, TransactionId, WallTime};
use sorcha_peer::{Config, Identity, PeerId, PeerNode, SqliteStorage, Topic};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const PUBLISHERS: [usize; 4] = [1, 8, 64, 512];
const PAYLOAD: usize = 1024;
const ROWS: usize = 512;
const STATEMENT: usize = 64;
/// As many as an outbox may hold.
const OUTBOX: usize = 100_000;
/// Rows before a measurement, here and there: more than fill a write-ahead log once.
const WARM: usize = 20_000;

/// A node alone with an empty directory, for one measurement: its outbox never empties.
struct Alone {
    node: PeerNode,
    storage: SqliteStorage,
    _dir: tempfile::TempDir,
}

impl Alone {
    async fn new(below: &Path, signatures: SignaturePolicy) -> Self {
        let dir = tempfile::tempdir_in(below).expect("a directory");
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
        self.publish(256, WARM / 256, Duration::MAX).await;
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

/// Rows per second into one file with `FULL`.
async fn inserts(below: &Path, span: Duration) -> f64 {
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
    let values = vec!["(?,?)"; STATEMENT].join(",");
    let insert: Arc<str> = format!("INSERT INTO raw VALUES {values}").into();
    // The payload of a row here and header, signature and payload of one there.
    let payload = vec![7u8; PAYLOAD + 220];
    let (mut start, mut seq, mut warm) = (Instant::now(), 0i64, false);
    let mut first = 0;
    while !warm || start.elapsed() < span {
        let mut transaction = connection.begin().await.expect("begun");
        for _ in 0..ROWS / STATEMENT {
            let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&insert)));
            for _ in 0..STATEMENT {
                query = query.bind(seq).bind(payload.clone());
                seq += 1;
            }
            query.execute(&mut *transaction).await.expect("inserted");
        }
        transaction.commit().await.expect("committed");
        if !warm && usize::try_from(seq).expect("positive") >= WARM {
            (warm, start, first) = (true, Instant::now(), seq);
        }
    }
    let rate = (seq - first) as f64 / start.elapsed().as_secs_f64();
    connection.close().await.expect("closed");
    rate
}

/// Memory of this process, in MiB (Linux; 0 elsewhere).
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = line.trim().trim_end_matches(" kB").parse::<f64>();
    kib.unwrap_or_default() / 1024.0
}

async fn retained(below: &Path) {
    const COUNT: u64 = 1_000_000;
    let dir = tempfile::tempdir_in(below).expect("a directory");
    let storage = SqliteStorage::open(dir.path()).await.expect("storage");
    let (log, before, start) = (storage.transaction_store(), resident(), Instant::now());
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let (topic, origin) = (Topic::new("bench").expect("a name"), PeerId::from_bytes([7; 32]));
    for batch in 0..COUNT.div_ceil(ROWS as u64) {
        let entries: Vec<_> = (0..ROWS as u64)
            .map(|n| {
                let created = WallTime::from_millis(batch * ROWS as u64 + n);
                let (topic, expires) = (topic.clone(), created.plus(Duration::from_hours(1)));
                let header = Header::new(topic, origin, created, expires, &payload);
                let signature = Signature::Ed25519([7; 64]);
                let transaction = Transaction::new(header, signature, payload.clone());
                let transaction = transaction.expect("the header's payload");
                NewEntry { transaction, from: Some(origin), hops: 1, keep_until: expires }
            })
            .collect();
        log.append(&entries).await.expect("room");
    }
    let took = start.elapsed().as_secs_f64();
    println!("log: {COUNT} entries of {PAYLOAD} B in {took:.1} s, {:.0}/s", COUNT as f64 / took);
    println!("resident: {before:.1} MiB before, {:.1} MiB after", resident());
    drop(log);
    storage.close().await;
    let (before, start) = (resident(), Instant::now());
    let storage = SqliteStorage::open(dir.path()).await.expect("storage");
    println!(
        "open: {:.2} s, {:.1} MiB more resident",
        start.elapsed().as_secs_f64(),
        resident() - before
    );
    let (log, start) = (storage.transaction_store(), Instant::now());
    let (mut after, mut count) = (Cursor(0), 0);
    loop {
        let page = log.index(after, 4096).await.expect("readable");
        let Some(last) = page.last() else { break };
        (after, count) = (last.cursor, count + page.len());
    }
    println!("index of {count} in pages of 4096: {:.2} s", start.elapsed().as_secs_f64());
    let (start, unknown) = (Instant::now(), 100_000u32);
    for n in 0..unknown {
        let id = TransactionId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes());
        assert_eq!(log.get(&id).await.expect("readable"), None);
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / f64::from(unknown);
    println!("a lookup in vain: {each:.2} us; resident {:.1} MiB", resident());
    let start = Instant::now();
    let gone = log.expire(WallTime::from_millis(u64::MAX)).await.expect("expired");
    println!("dropping all {gone}: {:.2} s", start.elapsed().as_secs_f64());
    storage.close().await;
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn main() {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let (rounds, span) = match () {
        // `cargo test --benches` only wants to know that everything runs.
        () if has("--test") => (1, Duration::from_millis(20)),
        () if has("--quick") => (3, Duration::from_millis(700)),
        () => (7, Duration::from_secs(2)),
    };
    let runtime = Runtime::new().expect("a runtime");
    // Beside the build, since the directory for temporary files may be in memory.
    let below = Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned();
    if has("retained") {
        return runtime.block_on(retained(&below));
    }
    let policies = [("signed", SignaturePolicy::Required), ("unsigned", SignaturePolicy::Off)];
    let (mut over, mut grown, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    let picked: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let picked = if picked.is_empty() { PUBLISHERS.to_vec() } else { picked };
    let mut rates = vec![Vec::new(); policies.len() * picked.len()];
    for _ in 0..rounds {
        over.push(syncs(&below, span, false));
        grown.push(syncs(&below, span, true));
        raw.push(runtime.block_on(inserts(&below, span)));
        let rows = policies.iter().flat_map(|policy| picked.iter().map(|n| (policy.1, *n)));
        for (row, (policy, publishers)) in rows.enumerate() {
            rates[row].push(runtime.block_on(async {
                let alone = Alone::new(&below, policy).await;
                let rate = alone.rate(publishers, span).await;
                alone.end().await;
                rate
            }));
        }
    }
    let (over, grown, raw) = (median(over), median(grown), median(raw));
    println!("fdatasync: {over:.0}/s over the same pages, {grown:.0}/s of a growing file");
    println!("raw insert, {ROWS} rows of {PAYLOAD} B a commit: {raw:.0}/s");
    let mut rates = rates.into_iter();
    for (name, _) in policies {
        for publishers in &picked {
            let rate = median(rates.next().unwrap_or_default());
            println!(
                "publish {name}, {publishers:>3} at once: {rate:>6.0}/s; of fdatasync {:.2}, \
                 of raw insert {:.2}",
                rate / over,
                rate / raw,
            );
        }
    }
}
