//! Which addresses this machine has, who sees which, how its NAT behaves, and what a node here would advertise.
//!
//! `cargo run --example whoami -- --stun HOST:PORT…`
//!
//! Starts a node that listens on a free port of all addresses and knows nobody, has it ask the servers that are
//! named and no others, and prints its report. Two servers that agree say more than one, and one that knows
//! RFC 5780 says most: a public one rarely does, a coturn of your own with two addresses and `--rfc5780`. What
//! nobody proves is not advertised, so an address of public scope stays a candidate here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use sorcha_peer::error::StartError;
use sorcha_peer::types::{NatBehaviour, ReachabilityReport};
use sorcha_peer::{Event, Events, PeerNode};
use tokio::time::{Instant, interval, timeout_at};

/// Maximum time for all answers.
const PATIENCE: Duration = Duration::from_secs(45);

/// Which addresses this machine has, and what a node here would advertise.
#[derive(Debug, Parser)]
struct Args {
    /// STUN servers to ask, `host`, `host:port` or `[v6]:port`.
    #[arg(long, value_name = "HOST:PORT", num_args = 1..)]
    stun: Vec<String>,
    /// HTTP servers to ask that answer with the address that asks.
    #[arg(long, value_name = "URL", num_args = 1..)]
    http_lookup: Vec<String>,
    /// Port to listen on, such as the one that a node here is to have; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let node = start(&args).await?;
    let mut events = node.events();
    let (report, seen) = learn(&node, &mut events, &args).await?;
    print(&report, &seen);
    node.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

/// Starts a node on all addresses, or on those of IPv4 where there are no others.
async fn start(args: &Args) -> anyhow::Result<PeerNode> {
    let any = [IpAddr::from(Ipv6Addr::UNSPECIFIED), Ipv4Addr::UNSPECIFIED.into()];
    for ip in any {
        let mut node = PeerNode::builder()
            .network("whoami")
            .listen(&SocketAddr::new(ip, args.port).to_string());
        for server in &args.stun {
            node = node.stun_server(server);
        }
        for url in &args.http_lookup {
            node = node.http_lookup(url);
        }
        match node.start().await {
            Err(StartError::Listen { .. }) if ip.is_ipv6() => {}
            node => return node.context("cannot start a node"),
        }
    }
    bail!("cannot listen")
}

/// Waits until all that are asked have answered or failed. Returns the report, and who saw which address.
async fn learn(
    node: &PeerNode,
    events: &mut Events,
    args: &Args,
) -> anyhow::Result<(ReachabilityReport, BTreeMap<String, String>)> {
    let mut seen = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    // Of a failure no event tells.
    let mut looks = interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::AddressObserved { address, prober, .. }) => {
                    seen.insert(prober, address);
                }
                Some(_) => {}
                None => bail!("the node ended"),
            },
            _ = looks.tick() => {}
        }
        let asking = timeout_at(deadline, node.reachability());
        let report = asking.await.context("the node does not answer")??;
        if is_complete(&report, &seen, args) || Instant::now() >= deadline {
            return Ok((report, seen));
        }
    }
}

/// Reports whether each server that was named has answered or failed, over TCP too, and the NAT is judged.
fn is_complete(report: &ReachabilityReport, seen: &BTreeMap<String, String>, args: &Args) -> bool {
    let mut kinds = Vec::new();
    if !args.stun.is_empty() {
        let mapping = report.candidates.iter().any(|found| found.source == "tcp-mapping");
        let is_mapped = mapping || report.failed.contains_key("tcp-mapping");
        // How the NAT behaves is known last.
        if !is_mapped || report.nat.is_empty() {
            return false;
        }
        kinds.push("stun");
    }
    if !args.http_lookup.is_empty() {
        kinds.push("http");
    }
    let told = seen.keys().chain(report.failed.keys());
    kinds.iter().all(|kind| told.clone().any(|name| name.starts_with(kind)))
}

fn print(report: &ReachabilityReport, seen: &BTreeMap<String, String>) {
    println!("listening on {}", list(&report.listening));
    for (prober, address) in seen {
        println!("{prober} sees {address}");
    }
    for (prober, why) in &report.failed {
        println!("{prober} failed: {why}");
    }
    report.nat.iter().for_each(print_behaviour);
    println!("reachability: {}", report.state.as_str());
    println!("advertised: {}", list(&report.advertised));
    for found in &report.candidates {
        println!("  {} ({}) {}: {}", found.endpoint, found.source, found.state, found.why);
    }
}

fn print_behaviour(nat: &NatBehaviour) {
    let shown = |known: Option<bool>| match known {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not tested",
    };
    println!("NAT for {}: {}, confidence {} %", nat.family, nat.name(), nat.confidence);
    println!("  mapping: {}, as {}", nat.mapping.as_str(), list(&nat.mapped));
    println!("  filtering: {}", nat.filtering.as_str());
    println!("  hairpinning: {}", shown(nat.hairpinning));
    println!("  preserves ports: {}", shown(nat.preserves_port));
    for note in &nat.notes {
        println!("  note: {note}");
    }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}
