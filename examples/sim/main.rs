//! Runs a scenario in a simulated network of real protocol cores, and reports what it cost.
//!
//! `cargo run --release --features sim --example sim -- --nodes 1000 --scenario churn --seed 1 --json`
//!
//! (`--no-default-features --features sim` builds quicker.) Ends with status 1 when an invariant
//! broke, something was missing in the end or the fault never struck, and with 2 on bad arguments.

use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use sorcha_peer::sim::{Scenario, ScenarioConfig, ScenarioReport};
use tokio::time::Instant;

/// Simulates a network: real protocol cores, virtual links, faults on demand, reproducible by seed.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    /// Nodes in the network [default: 100, or 16 in a campaign].
    #[arg(long, value_parser = clap::value_parser!(u32).range(4..=50_000))]
    nodes: Option<u32>,
    /// Fault or traffic: recurring, random, mid, large, loss, churn, nat, partition, late, slow, stall, or all.
    #[arg(long, default_value = "recurring", value_parser = scenarios)]
    scenario: Choice,
    /// Decides everything that happens by chance; the first one of a campaign.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Transactions that count, after the warm-up [default: by scenario and size].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    transactions: Option<u32>,
    /// Transactions before those, with which links learn [default: by scenario].
    #[arg(long)]
    warm_up: Option<u32>,
    /// Nodes that publish [default: 10 if recurring, else all].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    origins: Option<u32>,
    /// Payload of a transaction in bytes [default: by scenario].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10 << 20))]
    bytes: Option<u32>,
    /// Scenario loss breaks links instead of losing messages.
    #[arg(long)]
    resets: bool,
    /// Leaves the checkers out.
    #[arg(long)]
    no_checks: bool,
    /// Prints one JSON object per scenario.
    #[arg(long)]
    json: bool,
    /// Runs this many seeds over all scenarios, or the one that is given; stops at the first failure.
    #[arg(long, value_name = "SEEDS", value_parser = clap::value_parser!(u64).range(1..))]
    campaign: Option<u64>,
}

/// One scenario or all of them.
type Choice = std::sync::Arc<[Scenario]>;

fn scenarios(name: &str) -> Result<Choice, String> {
    match name {
        "all" => Ok(Scenario::ALL.into()),
        name => Ok([name.parse::<Scenario>().map_err(|e| format!("{e}, all"))?].into()),
    }
}

/// A report with what only the outside knows.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    report: &'a ScenarioReport,
    wall_s: f64,
    /// `null` where the system does not tell.
    peak_rss_mb: Option<f64>,
}

impl Arguments {
    fn config(&self, scenario: Scenario, nodes: u32, seed: u64) -> ScenarioConfig {
        let mut config = ScenarioConfig::new(scenario, nodes as usize, seed);
        let set = |target: &mut usize, value: Option<u32>| {
            if let Some(value) = value {
                *target = value as usize;
            }
        };
        set(&mut config.transactions, self.transactions);
        set(&mut config.warm_up, self.warm_up);
        set(&mut config.bytes, self.bytes);
        config.origins = self.origins.map(|n| n as usize).or(config.origins);
        config.resets = self.resets;
        config.checks = !self.no_checks;
        config
    }

    fn one(&self, scenario: Scenario) -> bool {
        memory::forget_peak();
        let started = Instant::now();
        let report = self.config(scenario, self.nodes.unwrap_or(100), self.seed).run();
        let wall_s = started.elapsed().as_secs_f64();
        let line = Line { report: &report, wall_s, peak_rss_mb: memory::peak_mb() };
        if self.json {
            println!("{}", serde_json::to_string(&line).expect("a report is plain data"));
        } else {
            show(&line);
        }
        for problem in &report.problems {
            eprintln!("{scenario}, seed {}: {problem}", self.seed);
        }
        report.is_good()
    }

    /// Many seeds, small worlds, short warm-ups.
    fn campaign(&self, seeds: u64) -> bool {
        let nodes = self.nodes.unwrap_or(16);
        let named = std::env::args().any(|a| a.starts_with("--scenario"));
        let scenarios = if named { self.scenario.clone() } else { Scenario::ALL.into() };
        let started = Instant::now();
        let (mut runs, mut checks) = (0, 0);
        for seed in (self.seed..).take(usize::try_from(seeds).unwrap_or(usize::MAX)) {
            for scenario in scenarios.iter().copied() {
                let mut config = self.config(scenario, nodes, seed);
                let warm_up = config.warm_up.min(self.warm_up.unwrap_or(20) as usize);
                let small = config.transactions.min(self.transactions.unwrap_or(10) as usize);
                (config.warm_up, config.transactions) = (warm_up, small);
                let report = config.run();
                runs += 1;
                checks += report.invariants.values().sum::<u64>();
                if !report.is_good() {
                    println!("FAILED after {runs} runs: {scenario}, seed {seed}");
                    report.problems.iter().for_each(|problem| println!("  {problem}"));
                    println!(
                        "  cargo run --release --features sim --example sim -- --nodes {nodes} \
                         --scenario {scenario} --seed {seed} --transactions {small} \
                         --warm-up {warm_up}{}",
                        self.as_given()
                    );
                    return false;
                }
            }
        }
        println!(
            "campaign: {runs} runs ({seeds} seeds, {} scenarios, {nodes} nodes), {checks} checks, \
             all good, {:.1} s",
            scenarios.len(),
            started.elapsed().as_secs_f64(),
        );
        true
    }

    /// Arguments of a campaign that each of its runs has as they were given.
    fn as_given(&self) -> String {
        let number = |name: &str, value: Option<u32>| value.map(|n| format!(" --{name} {n}"));
        let flag = |name: &str, is_set: bool| is_set.then(|| format!(" --{name}"));
        let words = [
            number("origins", self.origins),
            number("bytes", self.bytes),
            flag("resets", self.resets),
            flag("no-checks", self.no_checks),
        ];
        words.into_iter().flatten().collect()
    }
}

fn show(line: &Line<'_>) {
    let r = line.report;
    let (l, f) = (r.latency_rtt, r.flooding_rtt);
    println!("{}: {} nodes, {} transactions, seed {}", r.scenario, r.nodes, r.transactions, r.seed);
    println!("  coverage     {:.4} %", r.coverage * 100.0);
    println!("  redundancy   {:.3} copies per delivery", r.redundancy);
    println!("  latency      {:.2} / {:.2} / {:.2} RTT (p50 / p95 / max)", l.p50, l.p95, l.max);
    let ms = r.latency_ms;
    println!(
        "               {:.0} / {:.0} / {:.0} ms; 1 RTT is {:.0} ms",
        ms.p50, ms.p95, ms.max, r.rtt_ms
    );
    println!("  flooding     {:.2} / {:.2} / {:.2} RTT (bound)", f.p50, f.p95, f.max);
    if let Some(a) = r.aside_ms {
        println!("  set aside    {:.0} / {:.0} / {:.0} ms", a.p50, a.p95, a.max);
    }
    println!("  hops         {:.1} mean, {} max", r.hops.mean, r.hops.max);
    println!(
        "  control      {:.0} bytes per node and transaction",
        r.control_bytes_per_node_per_tx
    );
    match r.recovery_s {
        Some(s) => println!("  recovery     {s:.2} s"),
        None => println!("  recovery     not within two minutes"),
    }
    if let (Some(payload), Some(total)) = (r.missing_bytes_ratio, r.missing_total_ratio) {
        println!("  catching up  {payload:.3} payload bytes per missing byte, {total:.3} of all");
    }
    let faults = serde_json::to_value(r.faults).expect("plain data");
    let struck = faults.as_object().into_iter().flatten().filter(|(_, n)| **n != 0);
    let struck: Vec<_> = struck.map(|(name, n)| format!("{name} {n}")).collect();
    println!(
        "  faults       {}",
        if struck.is_empty() { "none".to_owned() } else { struck.join(", ") }
    );
    let checks: Vec<_> = r.invariants.iter().map(|(name, n)| format!("{name} {n}")).collect();
    println!("  checks       {}", checks.join(", "));
    println!(
        "  run          {:.1} s for {:.0} simulated, {} events, {:.0} MiB\n",
        line.wall_s,
        r.simulated_s,
        r.events,
        line.peak_rss_mb.unwrap_or_default(),
    );
}

/// Linux counts this for us; elsewhere nobody does.
mod memory {
    use std::fs;

    /// Starts counting anew, so that one scenario is not charged with another's.
    pub(super) fn forget_peak() {
        // Not allowed everywhere; then the peak is that of the process so far.
        let _ = fs::write("/proc/self/clear_refs", "5");
    }

    pub(super) fn peak_mb() -> Option<f64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some((kib / 1024.0 * 10.0).round() / 10.0)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let good = match arguments.campaign {
        Some(seeds) => arguments.campaign(seeds),
        // All of them, also after one that failed.
        None => arguments.scenario.iter().filter(|s| !arguments.one(**s)).count() == 0,
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
