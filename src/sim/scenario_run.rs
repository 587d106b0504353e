//! A scenario on its way: the world, its traffic, its fault, and the reckoning.

use std::time::Duration;

use super::config::{Behaviour, NodeOptions, Obstacle};
use super::report::{Faults, Quantiles};
use super::rng::SimRng;
use super::scenario::{Hops, PARTITION, PATIENCE, Scenario, ScenarioConfig, ScenarioReport};
use super::world::{Disk, World};
use crate::types::TransportKind;

/// Time until links are up and the first answers are in.
const FORMATION: Duration = Duration::from_secs(20);
/// Interval at which it is looked whether everything is everywhere.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Time for which the fault goes on after the last transaction.
const AFTERMATH: Duration = Duration::from_secs(2);
/// Time between the crashes and the first transaction.
const CHURN_AHEAD: Duration = Duration::from_millis(50);
/// Number of origins from which the time of flooding is measured.
const FLOODING_ORIGINS: usize = 10;

impl ScenarioConfig {
    /// Runs the scenario.
    pub fn run(&self) -> ScenarioReport {
        ScenarioRun::new(self.clone()).run()
    }
}

/// Bytes that had been sent and that were missing when a fault ended.
struct RepairStart {
    missing: u64,
    payload: u64,
    all: u64,
}

struct ScenarioRun {
    config: ScenarioConfig,
    world: World,
    rng: SimRng,
    /// Nodes that the fault strikes.
    struck: Vec<usize>,
    origins: Vec<usize>,
    published: usize,
    repair: Option<RepairStart>,
    problems: Vec<String>,
}

impl ScenarioRun {
    fn new(config: ScenarioConfig) -> Self {
        let mut rng = SimRng::new(config.seed ^ 0x5ce0);
        let late = config.scenario == Scenario::Late;
        let nodes = if late { config.nodes - config.struck() } else { config.nodes };
        let mut options = vec![NodeOptions::default(); nodes];
        if config.scenario == Scenario::Nat {
            for hidden in rng.sample(nodes, nodes * 6 / 10) {
                options[hidden] = NodeOptions::hidden();
            }
        }
        let world = World::with_nodes(config.world(), options);
        let strikes = matches!(
            config.scenario,
            Scenario::Churn | Scenario::Slow | Scenario::Stall | Scenario::Proxies
        );
        let struck = if strikes { rng.sample(nodes, config.struck()) } else { Vec::new() };
        let mut origins = rng.sample(nodes, nodes);
        origins.retain(|node| !struck.contains(node));
        origins.truncate(config.origins.unwrap_or(usize::MAX).max(1));
        if !world.is_watched(origins[0])
            && let Some(watched) = (0..nodes).find(|n| world.is_watched(*n) && !struck.contains(n))
        {
            // In a large world the checkers look at some nodes only: at one that publishes too.
            origins[0] = watched;
        }
        let (repair, problems) = (None, Vec::new());
        Self { config, world, rng, struck, origins, published: 0, repair, problems }
    }

    fn run(mut self) -> ScenarioReport {
        self.world.run_for(FORMATION);
        if !self.world.run_until_every(LOOK_INTERVAL * 10, World::is_connected, PATIENCE) {
            self.problems.push("the overlay did not connect".to_owned());
        }
        let interval = self.config.interval;
        self.publish(self.config.warm_up, interval);
        self.wait();
        // Confirmations are on their way.
        self.world.run_for(AFTERMATH);
        let (rtt, flooding) = (self.world.mean_rtt(), self.flooding());
        self.world.reset_figures();
        let done = self.strike(interval);
        self.world.show_holdings();
        self.report(rtt, flooding, done)
    }

    /// Publishes, one transaction per interval.
    fn publish(&mut self, count: usize, interval: Duration) {
        for _ in 0..count {
            let among = self.origins.len();
            let at = match self.config.origins {
                Some(_) => self.published % among,
                None => usize::try_from(self.rng.below(among as u64)).unwrap_or(0),
            };
            let unwatched = self.published == 0 && !self.world.is_watched(self.origins[at]);
            let at = if unwatched { 0 } else { at };
            self.world.publish_random(self.origins[at], self.config.bytes);
            self.published += 1;
            self.world.run_for(interval);
        }
    }

    /// Runs until everything is everywhere; how long that took.
    fn wait(&mut self) -> Option<Duration> {
        let from = self.world.now();
        let done = self.world.run_until_every(LOOK_INTERVAL, |w| w.missing() == 0, PATIENCE);
        done.then(|| self.world.now().saturating_sub(from))
    }

    /// The transactions that count, under the scenario's fault; how long the rest took after its
    /// end.
    fn strike(&mut self, interval: Duration) -> Option<Duration> {
        let count = self.config.transactions;
        match self.config.scenario {
            Scenario::Loss => {
                self.world.set_loss(self.config.loss());
                self.publish(count, interval);
                self.world.run_for(AFTERMATH);
                self.world.set_loss(super::config::Loss::default());
            }
            Scenario::Churn => self.churn(count, interval),
            Scenario::Partition => self.partition(count),
            Scenario::Late => {
                self.publish(count, interval);
                self.world.run_for(AFTERMATH);
                for _ in 0..self.config.struck() {
                    let node = self.world.add_node(NodeOptions::default());
                    self.world.set_aside(node, true);
                }
                self.note_repair_start();
            }
            Scenario::Slow => {
                let crawl = Some(ScenarioConfig::crawl());
                self.each_struck(|world, node| world.throttle(node, crawl, crawl));
                self.publish(count, interval);
                self.world.run_for(AFTERMATH);
                let uplink = self.world.config.uplink;
                self.each_struck(|world, node| world.throttle(node, uplink, None));
            }
            Scenario::Proxies => {
                self.close_first_rung();
                self.publish(count, interval);
            }
            Scenario::Stall => {
                self.each_struck(|world, node| world.set_behaviour(node, Behaviour::Stalling));
                self.publish(count, interval);
            }
            _ => self.publish(count, interval),
        }
        let done = self.wait();
        // What was sent twice arrives a little later.
        self.world.run_for(AFTERMATH);
        done
    }

    fn each_struck(&mut self, mut strike: impl FnMut(&mut World, usize)) {
        for node in &self.struck {
            self.world.set_aside(*node, true);
            strike(&mut self.world, *node);
        }
    }

    /// Lets proxies stand before nodes that let nothing of the first rung through, neither way.
    fn close_first_rung(&mut self) {
        let obstacles = [Obstacle::BlackHole, Obstacle::Refuses, Obstacle::Silent];
        let mut next = obstacles.into_iter().cycle();
        self.each_struck(|world, node| {
            let obstacle = next.next();
            world.obstruct(Some(node), None, TransportKind::GrpcStream, obstacle);
            world.obstruct(None, Some(node), TransportKind::GrpcStream, obstacle);
            world.reset_links_of(node);
        });
    }

    fn churn(&mut self, count: usize, interval: Duration) {
        let mut kept = false;
        self.each_struck(|world, node| {
            kept = !kept;
            world.vanish(node, if kept { Disk::Kept } else { Disk::Lost });
        });
        self.world.run_for(CHURN_AHEAD);
        self.publish(count, interval);
        self.world.run_for(AFTERMATH);
        self.each_struck(World::start);
    }

    fn partition(&mut self, count: usize) {
        let mut halves = self.rng.sample(self.config.nodes, self.config.nodes);
        let other = halves.split_off(self.config.nodes / 2);
        self.world.partition(&[halves, other]);
        let end = self.world.now() + PARTITION;
        self.publish(count, PARTITION / u32::try_from(count.max(1)).unwrap_or(u32::MAX));
        self.world.run_for(end.saturating_sub(self.world.now()));
        self.world.heal();
        self.note_repair_start();
    }

    fn note_repair_start(&mut self) {
        let missing = self.world.missing_bytes();
        let sent = &self.world.figures;
        let all = sent.payload_sent + sent.control_sent;
        self.repair = Some(RepairStart { missing, payload: sent.payload_sent, all });
    }

    /// Microseconds that flooding would take from some of the origins.
    fn flooding(&self) -> Vec<u32> {
        let from = self.origins.iter().take(FLOODING_ORIGINS);
        let all = from.flat_map(|origin| self.world.flooding(*origin));
        all.map(|span| u32::try_from(span.as_micros()).unwrap_or(u32::MAX)).collect()
    }

    fn report(
        mut self,
        rtt: Duration,
        flooding: Vec<u32>,
        recovery: Option<Duration>,
    ) -> ScenarioReport {
        let config = &self.config;
        let figures = std::mem::take(&mut self.world.figures);
        let report = self.world.report();
        let missing = self.world.missing();
        if missing > 0 {
            self.problems.push(format!("{missing} deliveries are missing"));
        }
        let violations = self.world.violations().iter().take(5).map(ToString::to_string);
        self.problems.extend(violations);
        if !struck(config, &report.faults) {
            self.problems.push(format!("the fault of {} never struck", config.scenario));
        }
        // Only large payloads are reserved, and no scenario has requests.
        let large = matches!(config.scenario, Scenario::Mid | Scenario::Large);
        let due = |name: &str| match name {
            "one_parent" | "reservation_acyclic" => large,
            "requests_once" => false,
            _ => true,
        };
        let refused = report.counters.publishes_refused;
        if refused > 0 {
            self.problems.push(format!("{refused} publishes were refused"));
        }
        if let Some((name, _)) = report.checks.iter().find(|(name, n)| **n == 0 && due(name)) {
            self.problems.push(format!("{name} was never checked"));
        }
        let rtt_micros = rtt.as_secs_f64() * 1e6;
        let ratio = |sent: u64, repair: &RepairStart| sent as f64 / repair.missing.max(1) as f64;
        let all = figures.payload_sent + figures.control_sent;
        let pairs = (config.nodes * config.transactions.max(1)) as f64;
        let deliveries = figures.latencies.len().max(1) as f64;
        ScenarioReport {
            nodes: config.nodes,
            scenario: config.scenario.to_string(),
            seed: config.seed,
            transactions: config.transactions,
            coverage: report.coverage,
            redundancy: figures.payload_sent as f64 / figures.payload_delivered.max(1) as f64,
            latency_rtt: Quantiles::of(figures.latencies.clone(), rtt_micros),
            latency_ms: Quantiles::of(figures.latencies, 1000.0),
            aside_ms: (!figures.aside.is_empty()).then(|| Quantiles::of(figures.aside, 1000.0)),
            rtt_ms: rtt_micros / 1000.0,
            flooding_rtt: Quantiles::of(flooding, rtt_micros),
            hops: Hops { mean: figures.hops_sum as f64 / deliveries, max: figures.hops_max },
            control_bytes_per_node_per_tx: figures.control_sent as f64 / pairs,
            recovery_s: recovery.map(|span| span.as_secs_f64()),
            missing_bytes_ratio: self
                .repair
                .as_ref()
                .map(|d| ratio(figures.payload_sent - d.payload, d)),
            missing_total_ratio: self.repair.as_ref().map(|d| ratio(all - d.all, d)),
            faults: report.faults,
            invariants: report.checks,
            mean_links: report.mean_links,
            simulated_s: report.elapsed.as_secs_f64(),
            events: report.steps,
            problems: self.problems,
        }
    }
}

/// Says whether the scenario's fault left its mark.
fn struck(config: &ScenarioConfig, faults: &Faults) -> bool {
    match config.scenario {
        Scenario::Loss if config.resets => faults.links_reset > 0,
        Scenario::Loss => faults.messages_dropped > 0,
        Scenario::Churn => {
            faults.silent_crashes > 0 && faults.frames_into_void > 0 && faults.restarts > 0
        }
        Scenario::Nat => faults.nodes_hidden > 0,
        Scenario::Partition => faults.partitions > 0 && faults.frames_held > 0,
        Scenario::Late => faults.nodes_joined_late > 0,
        Scenario::Slow => faults.nodes_slowed > 0,
        Scenario::Stall => faults.messages_tampered > 0,
        Scenario::Proxies => faults.dials_obstructed > 0 && faults.links_reset > 0,
        _ => true,
    }
}
