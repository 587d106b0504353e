//! Nodes with keys of their own find each other over mutual TLS and deliver every file.
//!
//! `cargo run --release --example quickstart -- [PATH] [--nodes 8] [--json]`
//!
//! Starts the nodes in this process on loopback, each with its own key and data directory, all
//! given one bootstrap peer. Publishes every regular file under PATH (default: `src` and `proto` of
//! this repository) as one transaction, from the nodes in turn, and checks at every node that each
//! arrives once with the same SHA-256 as the file. Ends with status 1 if that does not hold.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sorcha_peer::error::PublishError;
use sorcha_peer::{
    Config, Identity, Item, PeerNode, Receipt, SqliteStorage, StartAt, Subscription, TransactionId,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

const TOPIC: &str = "files";
/// Transactions on their way at once: enough to keep every node busy, few enough that latencies
/// are those of the network and not of a queue.
const WINDOW: usize = 32;
/// No delivery anywhere for this long means that something is missing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Publishes files from several nodes and checks that every node gets every one.
#[derive(Debug, Parser)]
struct Options {
    /// File or directory to publish; default: `src` and `proto` of this repository.
    path: Option<PathBuf>,
    /// Number of nodes.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=200))]
    nodes: u16,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    nodes: usize,
    links: usize,
    transactions: usize,
    bytes: u64,
    /// Deliveries to subscribers at all nodes, the publishing one included.
    deliveries: usize,
    missing: usize,
    duplicates: usize,
    corrupt: usize,
    refused: usize,
    /// Payloads received per delivery at a node that did not publish it; 1 is the least.
    copies_per_delivery: f64,
    latency_ms: Latency,
    wall_s: f64,
}

/// From `publish` to a subscriber at another node.
#[derive(Debug, Default, Serialize)]
struct Latency {
    p50: f64,
    p95: f64,
    max: f64,
}

/// What was published: its hash, when, and by which node.
struct Published {
    sha256: [u8; 32],
    at: Instant,
    origin: usize,
}

/// One delivery at one node.
struct Arrival {
    node: usize,
    id: TransactionId,
    sha256: [u8; 32],
    at: Instant,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let filter = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(tracing::Level::ERROR));
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(logs).with(filter).init();
    let options = Options::parse();
    let files = find_files(options.path.as_deref())?;
    let data = tempfile::tempdir().context("no temporary directory")?;
    let nodes = start_nodes(usize::from(options.nodes), data.path()).await?;
    let report = run(&nodes, &files).await;
    for node in &nodes {
        let _ = node.shutdown(Duration::from_secs(1)).await;
    }
    let report = report?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_table(&report);
    }
    let good = report.missing == 0 && report.duplicates == 0 && report.corrupt == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn find_files(path: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let roots = match path {
        Some(path) => vec![path.to_owned()],
        None => vec![here.join("src"), here.join("proto")],
    };
    let mut files = Vec::new();
    for root in roots {
        collect(&root, &mut files).with_context(|| format!("cannot read {}", root.display()))?;
    }
    files.sort();
    Ok(files)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
    }
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    }
    Ok(())
}

async fn start_nodes(count: usize, data: &Path) -> anyhow::Result<Vec<PeerNode>> {
    let mut nodes: Vec<PeerNode> = Vec::new();
    for number in 0..count {
        let dir = data.join(format!("node-{number}"));
        let bootstrap = nodes.first().and_then(PeerNode::listen_addr);
        let node = PeerNode::builder()
            .config(Config::lan())
            .identity(Identity::load_or_create(dir.join("node.key"))?)
            .network("quickstart")
            .listen("127.0.0.1:0")
            .bootstrap(bootstrap.map(|address| address.to_string()))
            .storage(SqliteStorage::open(&dir).await?)
            .start()
            .await?;
        nodes.push(node);
    }
    let wanted = u32::try_from((count - 1).min(6))?;
    for node in &nodes {
        node.wait_ready(wanted, Duration::from_mins(1)).await?;
    }
    Ok(nodes)
}

async fn run(nodes: &[PeerNode], files: &[PathBuf]) -> anyhow::Result<Report> {
    let (arrivals, inbox) = mpsc::channel(4096);
    for (node, peer) in nodes.iter().enumerate() {
        let files = peer.subscribe(TOPIC, StartAt::Now).await?;
        tokio::spawn(listen(node, files, arrivals.clone()));
    }
    drop(arrivals);
    let published = Arc::new(Mutex::new(HashMap::new()));
    let expected = Arc::new(tokio::sync::watch::Sender::new(None));
    let started = Instant::now();
    let check =
        tokio::spawn(check(inbox, Arc::clone(&published), expected.subscribe(), nodes.len()));
    let sent = publish_all(nodes, files, &published).await?;
    expected.send_replace(Some(sent.transactions * nodes.len()));
    let outcome = check.await?;
    let wall_s = started.elapsed().as_secs_f64();

    let (mut ends, mut copies) = (0, 0);
    for node in nodes {
        let stats = node.stats().await?;
        ends += stats.links as usize;
        copies += stats.counters.payloads_received + stats.counters.duplicates_received;
    }
    let elsewhere = outcome.latencies.len().max(1);
    Ok(Report {
        nodes: nodes.len(),
        links: ends / 2,
        transactions: sent.transactions,
        bytes: sent.bytes,
        deliveries: outcome.deliveries,
        missing: sent.transactions * nodes.len() - outcome.deliveries,
        duplicates: outcome.duplicates,
        corrupt: outcome.corrupt,
        refused: sent.refused,
        copies_per_delivery: copies as f64 / elsewhere as f64,
        latency_ms: percentiles(outcome.latencies),
        wall_s,
    })
}

async fn listen(node: usize, mut files: Subscription, arrivals: mpsc::Sender<Arrival>) {
    while let Some(item) = files.next().await {
        let Item::Delivery(delivery) = item else { continue };
        let at = Instant::now();
        let payload = delivery.transaction.payload();
        let sha256 = Sha256::digest(payload).into();
        let arrival = Arrival { node, id: delivery.transaction.id(), sha256, at };
        if arrivals.send(arrival).await.is_err() {
            return;
        }
    }
}

#[derive(Default)]
struct Sent {
    transactions: usize,
    bytes: u64,
    refused: usize,
}

type Table = Arc<Mutex<HashMap<TransactionId, Published>>>;

async fn publish_all(
    nodes: &[PeerNode],
    files: &[PathBuf],
    published: &Table,
) -> anyhow::Result<Sent> {
    let mut sent = Sent::default();
    let mut under_way: std::collections::VecDeque<Receipt> = std::collections::VecDeque::new();
    for (turn, path) in files.iter().enumerate() {
        if under_way.len() >= WINDOW
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.replicated(1).await?;
        }
        let origin = turn % nodes.len();
        let size = tokio::fs::metadata(path).await?.len();
        if size > Config::default().gossip.max_transaction_size {
            // Not even read; a file that grows meanwhile is refused by the node.
            eprintln!("refused: {}: {size} bytes are too many", path.display());
            sent.refused += 1;
            continue;
        }
        let content = tokio::fs::read(path)
            .await
            .with_context(|| format!("cannot read {}", path.display()))?;
        let size = content.len() as u64;
        let sha256 = Sha256::digest(&content).into();
        let at = Instant::now();
        match nodes[origin].publish(TOPIC, content).await {
            Ok(receipt) => {
                let entry = Published { sha256, at, origin };
                lock(published).insert(receipt.id(), entry);
                under_way.push_back(receipt);
                sent.transactions += 1;
                sent.bytes += size;
            }
            Err(error @ PublishError::TooLarge { .. }) => {
                eprintln!("refused: {}: {error}", path.display());
                sent.refused += 1;
            }
            Err(error) => bail!("{}: {error}", path.display()),
        }
    }
    Ok(sent)
}

fn lock<T>(table: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    table.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[derive(Default)]
struct Outcome {
    deliveries: usize,
    duplicates: usize,
    corrupt: usize,
    latencies: Vec<f64>,
}

/// Counts arrivals until all expected ones are there or nothing comes any more.
async fn check(
    mut inbox: mpsc::Receiver<Arrival>,
    published: Table,
    expected: tokio::sync::watch::Receiver<Option<usize>>,
    nodes: usize,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut seen: HashMap<TransactionId, Vec<bool>> = HashMap::new();
    // A delivery may overtake the answer to its publish: such are looked at again.
    let mut early = Vec::new();
    let mut quiet_since = Instant::now();
    loop {
        if expected.borrow().is_some_and(|all| outcome.deliveries >= all) && early.is_empty() {
            return outcome;
        }
        match tokio::time::timeout(Duration::from_millis(50), inbox.recv()).await {
            Ok(Some(arrival)) => {
                quiet_since = Instant::now();
                early.push(arrival);
            }
            Ok(None) => return outcome,
            Err(_) if quiet_since.elapsed() > PATIENCE => return outcome,
            Err(_) => {}
        }
        let published = lock(&published);
        early.retain(|arrival: &Arrival| {
            let Some(file) = published.get(&arrival.id) else {
                // Published by nobody here: told apart from "not noted yet" by time.
                return arrival.at.elapsed() < PATIENCE;
            };
            let at_node = seen.entry(arrival.id).or_insert_with(|| vec![false; nodes]);
            if std::mem::replace(&mut at_node[arrival.node], true) {
                outcome.duplicates += 1;
                return false;
            }
            outcome.deliveries += 1;
            outcome.corrupt += usize::from(arrival.sha256 != file.sha256);
            if arrival.node != file.origin {
                let latency = arrival.at.saturating_duration_since(file.at);
                outcome.latencies.push(latency.as_secs_f64() * 1000.0);
            }
            false
        });
    }
}

fn percentiles(mut latencies: Vec<f64>) -> Latency {
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = latencies.len().saturating_sub(1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
        let rank = (last as f64 * share).round() as usize;
        latencies.get(rank).copied().unwrap_or_default()
    };
    Latency { p50: at(0.5), p95: at(0.95), max: at(1.0) }
}

fn print_table(report: &Report) {
    let rows = [
        ("nodes", report.nodes.to_string()),
        ("links", report.links.to_string()),
        ("transactions", report.transactions.to_string()),
        ("bytes", report.bytes.to_string()),
        ("refused (too large)", report.refused.to_string()),
        ("deliveries", report.deliveries.to_string()),
        ("missing", report.missing.to_string()),
        ("duplicates", report.duplicates.to_string()),
        ("wrong hash", report.corrupt.to_string()),
        ("payload copies per delivery", format!("{:.3}", report.copies_per_delivery)),
        ("latency p50", format!("{:.2} ms", report.latency_ms.p50)),
        ("latency p95", format!("{:.2} ms", report.latency_ms.p95)),
        ("latency max", format!("{:.2} ms", report.latency_ms.max)),
        ("wall time", format!("{:.2} s", report.wall_s)),
    ];
    for (name, value) in rows {
        println!("{name:<28} {value:>14}");
    }
}
