//! The figures of three nodes, held against what happened: every transaction is accounted for, and
//! every byte.
//!
//! `cargo run --release --example accounts -- [--count 50000] [--size 1024]`
//!
//! Three nodes are linked with each other over TCP by way of paths that count, stand still for a while
//! and cut connections. Each publishes a third of COUNT transactions. One node ignores some of what the
//! others publish, another rejects a few, so that some become dead letters. Meanwhile and at the end
//! each node's figures are held against each other:
//!
//! - whatever was published, by all together, is on each node: its own, accepted, refused for a
//!   reason, or still in flight; and in the end nothing is in flight;
//! - what it accepted, and its own, is what its subscription delivered, each once;
//! - what it published is confirmed, waiting, or a dead letter;
//! - the histograms count each delivery once, and refusals are of as many transactions as events named;
//! - the bytes of its connections are those of the sockets on the paths, within 2 %.
//!
//! Prints a table, and what is wrong; ends with status 1 if anything is.

#[allow(dead_code, reason = "this one writes no files")]
#[path = "../common/mod.rs"]
mod common;
mod relay;

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use clap::Parser;
use relay::{End, Relay};
use sorcha_peer::error::PublishError;
use sorcha_peer::types::Refusal;
use sorcha_peer::{
    Config, Event, Identity, Item, PeerId, PeerNode, StartAt, Stats, Transaction, TransactionId,
    Validator, Verdict,
};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

const NAMES: [&str; 3] = ["A", "B", "C"];
const TOPIC: &str = "accounts";
/// Number of payloads that are published at a time.
const BATCH: usize = 50;
/// Maximum time without any progress.
const PATIENCE: Duration = Duration::from_mins(2);
/// Time between two looks at the figures, and between two faults.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const FAULT_EVERY: Duration = Duration::from_millis(400);
const STALL: Duration = Duration::from_millis(250);
/// Maximum share of the bytes by which node and sockets may differ.
const MAX_DIFFERENCE: f64 = 0.02;
/// Every so-manieth transaction is ignored by the third node; the first of them the second rejects.
const IGNORED: u64 = 97;
const REJECTED: u64 = 2;

#[derive(Debug, Parser)]
#[command(name = "accounts", about = "Hold the figures of three nodes against what happened")]
struct Options {
    /// Number of transactions, of all nodes together.
    #[arg(long, default_value_t = 50_000)]
    count: u64,
    /// Number of bytes of a payload.
    #[arg(long, default_value_t = 1024)]
    size: usize,
}

/// What a node says to what others publish.
#[derive(Debug)]
struct Choosy {
    me: PeerId,
    name: &'static str,
}

#[async_trait]
impl Validator for Choosy {
    async fn validate(&self, transaction: &Transaction, from: &PeerId) -> Verdict {
        let number = number_of(transaction.payload());
        let marked = number.is_multiple_of(IGNORED);
        match self.name {
            _ if !marked || *from == self.me => Verdict::Accept,
            "C" => Verdict::Ignore,
            "B" if number / IGNORED < REJECTED => Verdict::Reject,
            _ => Verdict::Accept,
        }
    }
}

fn number_of(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(0, |number| u64::from_le_bytes(*number))
}

/// What was seen of a node from outside.
struct Seen {
    delivered: JoinHandle<(HashSet<TransactionId>, u64)>,
    refused: JoinHandle<BTreeMap<&'static str, HashSet<TransactionId>>>,
}

struct Member {
    node: PeerNode,
    seen: Seen,
    /// The ends of paths that this node is at.
    ends: Vec<Arc<End>>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options: Options = match common::parse() {
        Ok(options) => options,
        Err(status) => return Ok(status),
    };
    common::log_to_stderr();
    let signal = common::signals()?;
    let wrong = tokio::select! {
        wrong = run(&options) => wrong?,
        status = signal => return Ok(status),
    };
    for what in &wrong {
        println!("WRONG: {what}");
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Three linked nodes, and the paths between them.
async fn start() -> anyhow::Result<(Vec<Member>, Vec<Relay>)> {
    let a = node("A", &[]).await?;
    let listening = |node: &PeerNode| node.listen_addr().context("a node listens");
    let a_to_b = Relay::start(listening(&a)?).await?;
    let b = node("B", &[&a_to_b]).await?;
    let a_to_c = Relay::start(listening(&a)?).await?;
    let b_to_c = Relay::start(listening(&b)?).await?;
    let c = node("C", &[&a_to_c, &b_to_c]).await?;
    let ends = [
        vec![&a_to_b.listener, &a_to_c.listener],
        vec![&a_to_b.dialler, &b_to_c.listener],
        vec![&a_to_c.dialler, &b_to_c.dialler],
    ];
    let mut members = Vec::new();
    for (node, ends) in [a, b, c].into_iter().zip(ends) {
        node.wait_ready(2, PATIENCE).await?;
        let seen = watch(&node).await?;
        members.push(Member { node, seen, ends: ends.into_iter().cloned().collect() });
    }
    Ok((members, vec![a_to_b, a_to_c, b_to_c]))
}

async fn node(name: &'static str, paths: &[&Relay]) -> anyhow::Result<PeerNode> {
    let mut config = Config::lan();
    config.overlay.redial_min = Duration::from_millis(50);
    config.overlay.redial_max = Duration::from_millis(500);
    let identity = Identity::generate()?;
    let me = identity.peer_id();
    let builder = PeerNode::builder()
        .config(config)
        .identity(identity)
        .network("accounts")
        .validator(Arc::new(Choosy { me, name }))
        .bootstrap(paths.iter().map(|path| path.address.to_string()));
    // Nothing listens where the nodes say that they are: each is reached by its path alone.
    let builder = match name {
        "C" => builder.dial_only(),
        _ => builder.listen("127.0.0.1:0").advertise("127.0.0.1:9"),
    };
    Ok(builder.start().await?)
}

async fn watch(node: &PeerNode) -> anyhow::Result<Seen> {
    let (mut all, mut events) = (node.subscribe_all(StartAt::Earliest).await?, node.events());
    let delivered = tokio::spawn(async move {
        let (mut ids, mut again) = (HashSet::new(), 0);
        while let Some(item) = all.next().await {
            if let Item::Delivery(delivery) = item {
                again += u64::from(!ids.insert(delivery.transaction.id()));
            }
        }
        (ids, again)
    });
    let refused = tokio::spawn(async move {
        let mut refused = BTreeMap::<_, HashSet<_>>::new();
        while let Some(event) = events.next().await {
            match event {
                Event::TransactionRefused { id, reason, .. } => {
                    let reason = match reason {
                        Refusal::Ignored => "ignored",
                        Refusal::Rejected => "rejected",
                        _ => "other",
                    };
                    refused.entry(reason).or_default().insert(id);
                }
                Event::Lagged { missed, .. } => {
                    eprintln!("{missed} events were missed");
                }
                _ => {}
            }
        }
        refused
    });
    Ok(Seen { delivered, refused })
}

async fn run(options: &Options) -> anyhow::Result<Vec<String>> {
    let (members, relays) = start().await?;
    let since = Instant::now();
    let mut work = JoinSet::new();
    for (at, member) in (0u64..).zip(&members) {
        let (node, count, size) = (member.node.clone(), options.count, options.size);
        let numbers = (0..count).filter(move |number| number % 3 == at).collect();
        work.spawn(publish(node, numbers, size));
    }
    let relays = Arc::new(relays);
    let faults = tokio::spawn(cause_faults(Arc::clone(&relays)));
    let mut wrong = Vec::new();
    let (mut looks, mut moved, mut last) = (0, Instant::now(), 0);
    loop {
        let figures = Figures::take(&members).await?;
        looks += 1;
        let too_many = figures.in_flight().filter(|(_, left)| *left < 0);
        wrong.extend(too_many.map(|(name, left)| format!("{name} knows {} too many", -left)));
        let settled = |s: &Stats| known(s) + s.counters.transactions_replicated;
        let settled: u64 = figures.stats.iter().map(settled).sum();
        if settled != last {
            (last, moved) = (settled, Instant::now());
        }
        let done = work.is_empty() && figures.in_flight().all(|(_, left)| left == 0);
        if done && figures.stats.iter().all(|s| s.outbox == 0 && s.fetching == 0) {
            break;
        }
        if moved.elapsed() > PATIENCE {
            wrong.push("nothing moves any more".to_owned());
            break;
        }
        if let Some(published) = work.try_join_next() {
            published??;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let took = since.elapsed();
    faults.abort();
    relays.iter().for_each(|relay| relay.stall(false));
    let figures = Figures::take(&members).await?;
    println!(
        "{} transactions of {} bytes in {took:.1?}, {looks} looks at the figures\n",
        options.count, options.size
    );
    print_transactions(&figures);
    wrong.extend(byte_account(&members, &figures.stats));
    for (member, (name, stats)) in members.into_iter().zip(NAMES.iter().zip(&figures.stats)) {
        wrong.extend(check(member, name, stats).await?);
    }
    Ok(wrong)
}

/// Publishes payloads with these numbers; waits where the outbox is full.
async fn publish(node: PeerNode, numbers: Vec<u64>, size: usize) -> anyhow::Result<()> {
    for batch in numbers.chunks(BATCH) {
        let payload = |number: &u64| {
            let mut payload = number.to_le_bytes().repeat(size.div_ceil(8));
            payload.truncate(size.max(8));
            Bytes::from(payload)
        };
        let payloads: Vec<_> = batch.iter().map(payload).collect();
        loop {
            match node.publish_many(TOPIC, payloads.clone()).await {
                Ok(_) => break,
                Err(PublishError::QueueFull { .. }) => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Lets the paths stand still and break, one after the other, for ever.
async fn cause_faults(relays: Arc<Vec<Relay>>) {
    for turn in 0.. {
        tokio::time::sleep(FAULT_EVERY).await;
        let relay = &relays[turn % relays.len()];
        if turn % 2 == 0 {
            relay.stall(true);
            tokio::time::sleep(STALL).await;
            relay.stall(false);
        } else {
            relay.cut();
        }
    }
}

/// Figures of all nodes.
struct Figures {
    stats: Vec<Stats>,
    /// Number of transactions that had been published when all of these had been taken.
    published: u64,
}

impl Figures {
    async fn take(members: &[Member]) -> anyhow::Result<Self> {
        let (mut stats, mut published) = (Vec::new(), 0);
        for member in members {
            stats.push(member.node.stats().await?);
        }
        for member in members {
            published += member.node.stats().await?.counters.transactions_published;
        }
        Ok(Self { stats, published })
    }

    /// Number of transactions that each node has not heard the end of.
    fn in_flight(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let left = move |s: &Stats| number(self.published) - number(known(s));
        NAMES.into_iter().zip(self.stats.iter().map(left))
    }
}

fn refused(stats: &Stats) -> u64 {
    let counters = stats.counters.iter();
    let refused = counters.filter(|(name, _)| name.starts_with("refused_"));
    refused
        .filter(|(name, _)| !["refused_rate", "refused_malformed"].contains(name))
        .map(|(_, n)| n)
        .sum()
}

/// Number of transactions that a node has heard the end of.
fn known(stats: &Stats) -> u64 {
    let c = &stats.counters;
    c.transactions_published + c.transactions_accepted + refused(stats)
}

fn print_transactions(figures: &Figures) {
    println!(
        "node  published  accepted  ignored  rejected  in flight  confirmed  dead  p50 ms  p99 ms  copies  late"
    );
    for ((name, left), s) in figures.in_flight().zip(&figures.stats) {
        let (c, at) = (&s.counters, |share| s.delivery_latency_at(share).unwrap_or_default());
        println!(
            "{name:4} {:10} {:9} {:8} {:9} {left:10} {:10} {:5} {:7.1} {:7.1} {:7.2} {:5}",
            c.transactions_published,
            c.transactions_accepted,
            c.refused_ignored,
            c.refused_rejected,
            c.transactions_replicated,
            s.dead_letters,
            at(0.5).as_secs_f64() * 1000.0,
            at(0.99).as_secs_f64() * 1000.0,
            s.copies_per_delivery().unwrap_or_default(),
            c.transactions_caught_up,
        );
    }
}

/// Bytes of the nodes' connections beside those of the sockets; what differs by too much.
fn byte_account(members: &[Member], stats: &[Stats]) -> Vec<String> {
    let mut wrong = Vec::new();
    println!("\nnode  direction      sockets         node   differ     frames  of it");
    for ((name, member), s) in NAMES.iter().zip(members).zip(stats) {
        let c = &s.counters;
        let sent: u64 = member.ends.iter().map(|end| end.sent()).sum();
        let given: u64 = member.ends.iter().map(|end| end.given()).sum();
        for (direction, sockets, node, frames) in [
            ("sent", sent, c.link_bytes_sent, c.frame_bytes_sent),
            ("received", given, c.link_bytes_received, c.frame_bytes_received),
        ] {
            let differ = (node as f64 - sockets as f64) / sockets as f64;
            let share = frames as f64 / sockets as f64;
            println!(
                "{name:4}  {direction:9} {sockets:12} {node:12} {:7.3}% {frames:12} {:5.1}%",
                differ * 100.0,
                share * 100.0
            );
            if differ.abs() > MAX_DIFFERENCE {
                wrong
                    .push(format!("{name} counts {node} bytes {direction}, its sockets {sockets}"));
            }
        }
    }
    wrong
}

/// Holds a node's figures against what was seen of it; ends it.
async fn check(member: Member, name: &str, s: &Stats) -> anyhow::Result<Vec<String>> {
    let Member { node, seen, .. } = member;
    let _ = node.shutdown(Duration::from_secs(5)).await;
    drop(node);
    let ((delivered, again), refused) = (seen.delivered.await?, seen.refused.await?);
    let c = &s.counters;
    let of = |reason| refused.get(reason).map_or(0, HashSet::len) as u64;
    let accounts = [
        (
            "delivered to the subscription",
            c.transactions_published + c.transactions_accepted,
            delivered.len() as u64,
        ),
        ("delivered twice", 0, again),
        (
            "confirmed, waiting or dead",
            c.transactions_published,
            c.transactions_replicated + s.outbox + s.dead_letters,
        ),
        ("ignored, by events", c.refused_ignored, of("ignored")),
        ("rejected, by events", c.refused_rejected, of("rejected")),
        ("refused for other reasons, by events", 0, of("other")),
        ("deliveries by hops", c.transactions_accepted, s.delivery_hops.iter().sum()),
        (
            "deliveries by latency",
            c.transactions_accepted - c.transactions_caught_up,
            s.delivery_latency.iter().sum(),
        ),
        (
            "links of all transports",
            u64::from(s.links),
            s.links_by_transport.values().map(|n| u64::from(*n)).sum(),
        ),
        (
            "links of both sides",
            u64::from(s.links),
            s.links_by_direction.values().map(|n| u64::from(*n)).sum(),
        ),
        ("links up", c.links_opened - c.links_closed, u64::from(s.links)),
        ("retained", c.transactions_published + c.transactions_accepted, s.retained),
    ];
    let differing = accounts.into_iter().filter(|(_, counted, seen)| counted != seen);
    Ok(differing
        .map(|(what, counted, seen)| format!("{name}, {what}: {counted} and {seen}"))
        .collect())
}
