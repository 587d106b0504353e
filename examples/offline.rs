//! Accepted means kept: a node publishes while it is alone, is killed, starts again, meets two
//! peers, and everything arrives at both, once and in order.
//!
//! `cargo run --release --example offline -- [--count 10000] [--meshed] [--json]`
//!
//! The node is a process of its own with `SQLite` files in a temporary directory. It publishes COUNT
//! transactions of 1 KiB and goes on until this process kills it with SIGKILL at a random moment.
//! Then it is started again on the same files, and two peers in this process dial it. The peers only
//! dial out, as behind NAT; with `--meshed` they listen and link with each other too, and then each
//! hears of everything from the other one as well.
//!
//! Checked at both peers: every transaction whose `publish` returned is delivered, none twice, none
//! after a later one, nothing that was never published, and the outbox is empty at the end. Ends
//! with status 1 if that does not hold.

#[path = "common/mod.rs"]
mod common;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Parser;
use common::Scratch;
use futures::{StreamExt, stream};
use serde::Serialize;
use sorcha_peer::{Config, Identity, Item, PeerId, PeerNode, SqliteStorage, StartAt, Subscription};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

const TOPIC: &str = "orders";
const NETWORK: &str = "offline";
const SIZE: usize = 1024;
const PEERS: usize = 2;
/// Number of transactions published beyond COUNT, if the kill comes late enough.
const EXTRA: u32 = 1000;
/// Number of transactions published at once.
const UNDER_WAY: usize = 256;
/// Maximum time from the last of COUNT accepted transactions to the kill.
const LAST_MOMENTS: Duration = Duration::from_millis(20);
/// Number of transactions published one by one when all has arrived, for their latency.
const SINGLES: u32 = 200;
/// Maximum time without a line or delivery, beyond which something is missing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Publishes offline, kills the publisher, and checks that everything arrives all the same.
#[derive(Debug, Parser)]
#[command(name = "offline")]
struct Options {
    /// Transactions to publish while alone.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=90_000))]
    count: u32,
    /// Let the peers link with each other too.
    #[arg(long)]
    meshed: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Be the node that publishes, on these files.
    #[arg(long, hide = true)]
    node: Option<PathBuf>,
    /// True: that node publishes nothing unasked.
    #[arg(long, hide = true)]
    again: bool,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    /// Transactions whose `publish` returned before the kill.
    accepted: usize,
    /// Number of them per second.
    accepted_per_s: f64,
    /// Number of transactions that were kept although the kill came before the answer.
    kept_unanswered: usize,
    /// Time from the second start of the process until it listens.
    restart_ms: f64,
    /// Number of deliveries that never came, at both peers together.
    missing: usize,
    doubled: usize,
    out_of_order: usize,
    /// Number of deliveries of what was never published, or with another payload.
    foreign: usize,
    /// Number of transactions left in the outbox at the end.
    unconfirmed: usize,
    /// Time from the start of the peers until the last accepted transaction was delivered at both.
    #[serde(rename = "flush_s")]
    replay_s: f64,
    #[serde(rename = "flushed_per_s")]
    replayed_per_s: f64,
    /// Time of single transactions afterwards, from the command to the publishing process until
    /// the delivery at a peer.
    latency_ms: Latency,
}

#[derive(Debug, Default, Serialize)]
struct Latency {
    p50: f64,
    p95: f64,
    max: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options: Options = match common::parse() {
        Ok(options) => options,
        Err(status) => return Ok(status),
    };
    common::log_to_stderr();
    if let Some(dir) = &options.node {
        be_the_node(dir, if options.again { 0 } else { options.count + EXTRA }).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let (scratch, signal) = (Scratch::new()?, common::signals()?);
    let ended = tokio::select! {
        report = run(&options, scratch.path()) => Ok(report),
        status = signal => Err(status),
    };
    scratch.remove().await;
    let report = match ended {
        Ok(report) => report?,
        Err(status) => return Ok(status),
    };
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_table(&report);
    }
    let wrong = report.missing + report.doubled + report.foreign + report.unconfirmed;
    let good = wrong == 0 && report.out_of_order == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(options: &Options, data: &Path) -> anyhow::Result<Report> {
    let dir = data.join("origin");
    let mut report = Report::default();

    let mut origin = Process::start(&dir, options.count).await?;
    let since = Instant::now();
    let mut accepted = Vec::new();
    while accepted.len() < options.count as usize {
        accepted.push(origin.accepted().await?.context("the node ended by itself")?);
    }
    report.accepted_per_s = accepted.len() as f64 / since.elapsed().as_secs_f64();
    tokio::time::sleep(LAST_MOMENTS.mul_f64(random()?)).await;
    origin.child.kill().await?;
    // What it still said was accepted as well.
    while let Some(number) = origin.accepted().await? {
        accepted.push(number);
    }
    report.accepted = accepted.len();

    let since = Instant::now();
    let mut origin = Process::start(&dir, 0).await?;
    report.restart_ms = millis(since.elapsed());

    let (arrivals, inbox) = mpsc::channel(4096);
    let since = Instant::now();
    let mut peers = Vec::new();
    for number in 0..PEERS {
        let dir = data.join(format!("peer-{number}"));
        let peer = start_peer(&dir, &origin.address, options.meshed).await?;
        let orders = peer.subscribe(TOPIC, StartAt::Earliest).await?;
        tokio::spawn(listen(number, orders, arrivals.clone()));
        peers.push(peer);
    }
    drop(arrivals);
    let mut check = Check { inbox, origin: origin.id, seen: Vec::new(), foreign: 0 };
    check.seen.resize_with(PEERS, Seen::default);
    if let Some(last) = check.wait_for(&accepted).await {
        report.replay_s = last.duration_since(since).as_secs_f64();
        report.replayed_per_s = accepted.len() as f64 / report.replay_s;
        report.latency_ms = publish_singles(&mut origin, &mut check, &mut accepted).await?;
    }
    report.unconfirmed = origin.shut_down().await?;
    for peer in &peers {
        let _ = peer.shutdown(Duration::from_secs(5)).await;
    }
    check.drain().await;
    check.fill_in(&mut report, &accepted);
    Ok(report)
}

/// Publishes one after another, each when the one before has arrived.
async fn publish_singles(
    origin: &mut Process,
    check: &mut Check,
    accepted: &mut Vec<u32>,
) -> anyhow::Result<Latency> {
    let mut latencies = Vec::new();
    for n in 0..SINGLES {
        let number = u32::MAX - SINGLES + n;
        let since = Instant::now();
        origin.publish(number).await?;
        accepted.push(number);
        if check.wait_for(&[number]).await.is_none() {
            break;
        }
        let arrived = check.seen.iter().filter_map(|seen| seen.at.get(&number));
        latencies.extend(arrived.map(|at| millis(at.duration_since(since))));
    }
    latencies.sort_by(f64::total_cmp);
    let last = latencies.len().saturating_sub(1);
    let rank = |percent: usize| latencies.get(last * percent / 100).copied().unwrap_or_default();
    Ok(Latency { p50: rank(50), p95: rank(95), max: rank(100) })
}

async fn start_peer(dir: &Path, origin: &str, meshed: bool) -> anyhow::Result<PeerNode> {
    let builder = PeerNode::builder()
        .config(Config::lan())
        .identity(Identity::load_or_create(dir.join("node.key"))?)
        .network(NETWORK)
        .bootstrap([origin])
        .storage(SqliteStorage::open(dir).await?);
    let builder = if meshed { builder.listen("127.0.0.1:0") } else { builder.dial_only() };
    Ok(builder.start().await?)
}

/// One delivery at a peer; the number is `None` where the payload is not one of ours.
struct Arrival {
    peer: usize,
    origin: PeerId,
    number: Option<u32>,
    at: Instant,
}

async fn listen(peer: usize, mut orders: Subscription, arrivals: mpsc::Sender<Arrival>) {
    while let Some(item) = orders.next().await {
        let Item::Delivery(delivery) = item else { continue };
        let (transaction, at) = (&delivery.transaction, Instant::now());
        let number = number_of(transaction.payload());
        let arrival = Arrival { peer, origin: transaction.origin(), number, at };
        if arrivals.send(arrival).await.is_err() {
            return;
        }
    }
}

/// Arrivals at one peer.
#[derive(Default)]
struct Seen {
    at: BTreeMap<u32, Instant>,
    highest: Option<u32>,
    doubled: usize,
    out_of_order: usize,
}

struct Check {
    inbox: mpsc::Receiver<Arrival>,
    origin: PeerId,
    seen: Vec<Seen>,
    foreign: usize,
}

impl Check {
    /// Time at which the last of these arrived at the last peer; `None` when nothing comes any more.
    async fn wait_for(&mut self, numbers: &[u32]) -> Option<Instant> {
        let mut left: HashSet<(usize, u32)> = HashSet::new();
        for (peer, seen) in self.seen.iter().enumerate() {
            left.extend(numbers.iter().filter(|n| !seen.at.contains_key(n)).map(|n| (peer, *n)));
        }
        while !left.is_empty() {
            let arrival = tokio::time::timeout(PATIENCE, self.inbox.recv()).await.ok()??;
            if let Some(number) = arrival.number {
                left.remove(&(arrival.peer, number));
            }
            self.note(&arrival);
        }
        let times = self.seen.iter().flat_map(|seen| numbers.iter().map(|n| seen.at[n]));
        times.max()
    }

    /// Notes what still comes until the peers have ended.
    async fn drain(&mut self) {
        while let Some(arrival) = self.inbox.recv().await {
            self.note(&arrival);
        }
    }

    fn note(&mut self, arrival: &Arrival) {
        let Some(number) = arrival.number.filter(|_| arrival.origin == self.origin) else {
            self.foreign += 1;
            return;
        };
        let seen = &mut self.seen[arrival.peer];
        seen.doubled += usize::from(seen.at.insert(number, arrival.at).is_some());
        seen.out_of_order += usize::from(seen.highest > Some(number));
        seen.highest = seen.highest.max(Some(number));
    }

    fn fill_in(&self, report: &mut Report, accepted: &[u32]) {
        let accepted: HashSet<u32> = accepted.iter().copied().collect();
        let arrived: HashSet<u32> = self.seen.iter().flat_map(|s| s.at.keys().copied()).collect();
        report.kept_unanswered = arrived.difference(&accepted).count();
        for seen in &self.seen {
            let all = accepted.union(&arrived);
            report.missing += all.filter(|number| !seen.at.contains_key(number)).count();
            report.doubled += seen.doubled;
            report.out_of_order += seen.out_of_order;
        }
        report.foreign = self.foreign;
    }
}

/// The publishing node, seen from here.
struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    id: PeerId,
    address: String,
}

impl Process {
    async fn start(dir: &Path, count: u32) -> anyhow::Result<Self> {
        let count = count.to_string();
        let flags: &[&str] = if count == "0" { &["--again"] } else { &["--count", &count] };
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--node")
            .arg(dir)
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().context("no stdin")?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let (id, address) = (PeerId::from_bytes([0; 32]), String::new());
        let mut process = Self { child, stdin, lines, id, address };
        let line = process.line().await?.context("the node did not start")?;
        let (id, address) = line.split_once(' ').context("no address")?;
        (process.id, process.address) = (id.parse()?, address.to_owned());
        Ok(process)
    }

    async fn line(&mut self) -> anyhow::Result<Option<String>> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        Ok(line.context("the node says nothing")??)
    }

    /// The number of the next accepted transaction; `None` at the end of output.
    async fn accepted(&mut self) -> anyhow::Result<Option<u32>> {
        let Some(line) = self.line().await? else { return Ok(None) };
        let Some(number) = line.strip_prefix("accepted ") else { bail!("the node: {line}") };
        // The last line may be cut short by the kill; then it was not said.
        Ok(number.strip_suffix('.').and_then(|number| number.parse().ok()))
    }

    async fn publish(&mut self, number: u32) -> anyhow::Result<()> {
        self.stdin.write_all(format!("{number}\n").as_bytes()).await?;
        let accepted = self.accepted().await?;
        anyhow::ensure!(accepted == Some(number), "not accepted: {number}");
        Ok(())
    }

    /// Ends the process well; gives the number of transactions left in its outbox.
    async fn shut_down(mut self) -> anyhow::Result<usize> {
        self.stdin.shutdown().await?;
        drop(self.stdin);
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await??;
        let left = line.as_deref().and_then(|line| line.strip_prefix("left "));
        let left = left.context("the node did not end well")?.parse()?;
        self.child.wait().await?;
        Ok(left)
    }
}

/// The publishing node itself: says where it listens, publishes `count`, and then every number that
/// comes in. Ends at the end of input.
async fn be_the_node(dir: &Path, count: u32) -> anyhow::Result<()> {
    let mut config = Config::lan();
    config.outbox.max_entries = 100_000;
    let storage = SqliteStorage::open(dir).await?;
    let node = PeerNode::builder()
        .config(config)
        .identity(Identity::load_or_create(dir.join("node.key"))?)
        .network(NETWORK)
        .listen("127.0.0.1:0")
        .storage(storage.clone())
        .start()
        .await?;
    let address = node.listen_addr().context("not listening")?;
    println!("{} {address}", node.peer_id());
    let publish = |number| {
        let node = node.clone();
        // Unconstrained: each is handed over when it is polled first, so in order.
        tokio::task::unconstrained(async move {
            node.publish(TOPIC, payload(number)).await.map(|_| number)
        })
    };
    let mut answers = stream::iter(0..count).map(publish).buffered(UNDER_WAY);
    while let Some(number) = answers.next().await {
        println!("accepted {}.", number?);
    }
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = orders.next_line().await? {
        let number = line.parse()?;
        node.publish(TOPIC, payload(number)).await?;
        println!("accepted {number}.");
    }
    let report = node.shutdown(Duration::from_secs(20)).await?;
    storage.close().await;
    println!("left {}", report.unconfirmed.len());
    Ok(())
}

/// Payload of 1 KiB that tells its number and does not compress.
fn payload(number: u32) -> Bytes {
    let mut bytes = Vec::with_capacity(SIZE);
    bytes.extend(number.to_le_bytes());
    let mut state = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while bytes.len() < SIZE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(&state.to_le_bytes()[..4]);
    }
    bytes.into()
}

fn number_of(bytes: &Bytes) -> Option<u32> {
    let number = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    (payload(number) == *bytes).then_some(number)
}

/// Number from 0 to 1.
fn random() -> anyhow::Result<f64> {
    let mut byte = [0; 4];
    getrandom::fill(&mut byte)?;
    Ok(f64::from(u32::from_le_bytes(byte)) / f64::from(u32::MAX))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn print_table(report: &Report) {
    let rows = [
        ("accepted while alone", report.accepted.to_string()),
        ("  per second", format!("{:.0}", report.accepted_per_s)),
        ("kept without an answer", report.kept_unanswered.to_string()),
        ("restart", format!("{:.0} ms", report.restart_ms)),
        ("peers", PEERS.to_string()),
        ("missing", report.missing.to_string()),
        ("doubled", report.doubled.to_string()),
        ("out of order", report.out_of_order.to_string()),
        ("never published", report.foreign.to_string()),
        ("left in the outbox", report.unconfirmed.to_string()),
        ("replay to both", format!("{:.2} s", report.replay_s)),
        ("  per second", format!("{:.0}", report.replayed_per_s)),
        ("latency afterwards, p50", format!("{:.2} ms", report.latency_ms.p50)),
        ("latency afterwards, p95", format!("{:.2} ms", report.latency_ms.p95)),
        ("latency afterwards, max", format!("{:.2} ms", report.latency_ms.max)),
    ];
    for (name, value) in rows {
        println!("{name:<26} {value:>14}");
    }
}
