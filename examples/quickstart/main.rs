//! Nodes with keys of their own find each other over mutual TLS and deliver every file.
//!
//! `cargo run --release --example quickstart -- [PATH] [--nodes 8] [--json]`
//!
//! Starts the nodes in this process on loopback, each with its own key and data directory, all
//! given one bootstrap peer. Publishes every regular file under PATH (default: `src` and `proto` of
//! this repository) as one transaction, from the nodes in turn, and checks at every node that each
//! arrives once with the same SHA-256 as the file.
//!
//! How a node is started stands in `swarm`, how it is published and listened to in this file; `check`
//! counts what arrives, `files` finds and reads files, the rest is for show.
//!
//! Ends with status 0 when everything that could be published arrived; 1 when something did not arrive,
//! arrived twice or changed, there was nothing to publish, or the nodes could not start; 2 for a wrong
//! command line; 128 and its number for a signal. The data directories are removed in each case.

mod check;
#[path = "../common/mod.rs"]
mod common;
mod files;
mod progress;
mod report;
mod swarm;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use check::{Arrival, PATIENCE, Published, Table, check};
use clap::Parser;
use files::{Files, Reason};
use progress::Progress;
use report::Report;
use sha2::{Digest, Sha256};
use sorcha_peer::error::PublishError;
use sorcha_peer::{Item, PeerNode, Receipt, StartAt, Subscription};
use swarm::Swarm;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const TOPIC: &str = "files";
/// Number of transactions on their way at once: enough to keep every node busy, few enough that
/// latencies are those of the network and not of a queue.
const WINDOW: usize = 32;

/// Publishes files from several nodes and checks that every node gets every one.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
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

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(status) => return status,
    };
    common::log_to_stderr();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let status = runtime.block_on(program(&options)).unwrap_or_else(|error| failed(&error));
    // A read that never ends is not waited for.
    runtime.shutdown_background();
    status
}

fn options() -> Result<Options, ExitCode> {
    let options: Options = common::parse()?;
    match options.path.as_ref().map(|path| (path, path.symlink_metadata())) {
        Some((path, Err(error))) => {
            Err(common::mistake::<Options>(&format!("{}: {error}", path.display())))
        }
        _ => Ok(options),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("quickstart: {error:#}");
    ExitCode::FAILURE
}

/// Everything, until it is done or a signal comes; then the nodes end and their files go.
async fn program(options: &Options) -> anyhow::Result<ExitCode> {
    let signal = common::signals()?;
    let mut swarm = Swarm::new(usize::from(options.nodes))?;
    let progress = Progress::new("looking for files");
    let ended = tokio::select! {
        biased;
        never = progress.print() => match never {},
        status = signal => Err(status),
        ended = run(&mut swarm, options, &progress) => Ok(ended),
    };
    progress.clear();
    swarm.end().await;
    match ended {
        Ok(report) => Ok(report?.print(options.json)),
        Err(status) => Ok(status),
    }
}

/// The main part: nodes start and subscribe, publish all files, and what arrives is checked.
async fn run(swarm: &mut Swarm, options: &Options, progress: &Progress) -> anyhow::Result<Report> {
    let path = options.path.clone();
    let mut files = tokio::task::spawn_blocking(|| Files::find(path)).await?;
    let mut report = Report::new(swarm.size());
    if !files.found.is_empty() {
        swarm.start(progress).await?;
        let nodes = swarm.nodes();
        let (arrivals, inbox) = mpsc::channel(4096);
        for (number, node) in nodes.iter().enumerate() {
            let subscription = node.subscribe(TOPIC, StartAt::Now).await?;
            tokio::spawn(listen(number, subscription, arrivals.clone()));
        }
        drop(arrivals);
        progress.phase("deliveries", files.found.len() * nodes.len());
        let table = Table::default();
        let started = Instant::now();
        let publish = publish_all(nodes, &mut files, &table, progress);
        let check = async { Ok(check(inbox, &table, nodes.len(), progress).await) };
        let ((), tally) = tokio::try_join!(publish, check)?;
        report.arrived(&table, tally, started.elapsed());
        report.ask(nodes).await?;
    }
    report.skipped = files.skipped;
    Ok(report)
}

/// Reports every delivery at one node, as long as the node runs.
async fn listen(node: usize, mut subscription: Subscription, arrivals: mpsc::Sender<Arrival>) {
    while let Some(item) = subscription.next().await {
        let Item::Delivery(delivery) = item else { continue };
        let at = Instant::now();
        let sha256 = Sha256::digest(delivery.transaction.payload()).into();
        let arrival = Arrival { node, id: delivery.transaction.id(), sha256, at };
        if arrivals.send(arrival).await.is_err() {
            return;
        }
    }
}

/// Publishes the files from the nodes in turn; what cannot be published is noted in `files`.
async fn publish_all(
    nodes: &[PeerNode],
    files: &mut Files,
    table: &Table,
    progress: &Progress,
) -> anyhow::Result<()> {
    let limit = swarm::config().gossip.max_transaction_size;
    let mut under_way: VecDeque<Receipt> = VecDeque::new();
    for (turn, path) in std::mem::take(&mut files.found).into_iter().enumerate() {
        if under_way.len() >= WINDOW
            && let Some(oldest) = under_way.pop_front()
        {
            let stored = timeout(PATIENCE, oldest.replicated(1)).await;
            stored.context("no other node stores what is published")??;
        }
        let origin = turn % nodes.len();
        let content = match files::read(&path, limit).await {
            Ok(content) => content,
            Err(reason) => {
                files.skip(&path, reason);
                progress.expect_fewer(nodes.len());
                continue;
            }
        };
        let (size, sha256) = (content.len() as u64, Sha256::digest(&content).into());
        let file = Published { size, sha256, at: Instant::now(), origin };
        match nodes[origin].publish(TOPIC, content).await {
            Ok(receipt) => {
                table.insert(receipt.id(), file);
                under_way.push_back(receipt);
            }
            // A limit of the node: named in the report, and the others go on.
            Err(
                error @ (PublishError::TooLarge { .. }
                | PublishError::OverShare { .. }
                | PublishError::OverRate { .. }
                | PublishError::QueueFull { .. }),
            ) => {
                files.skip(&path, Reason::Refused(error.to_string()));
                progress.expect_fewer(nodes.len());
            }
            Err(error) => return Err(error.into()),
        }
    }
    table.complete();
    Ok(())
}
