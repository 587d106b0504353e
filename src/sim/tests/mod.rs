//! Scenarios, each over a band of seeds.
//!
//! `SORCHA_SEEDS=100..200` or `SORCHA_SEEDS=50` (the first 50) replaces every band: `.ci/run` does
//! so in release, where a seed costs a tenth. In debug a band is half as wide. A failure names the
//! scenario and the seed.

mod addresses;
mod checkers;
mod clocks;
mod faults;
mod full_hubs;
mod full_stores;
mod handover;
mod hostile;
mod ladder;
mod large;
mod messages;
mod nearby;
mod outbox;
mod outbox_replay;
mod past;
mod quality;
mod reachability;
mod repair;
mod replay;
mod scenarios;
mod small_networks;
mod spill;
mod spread;
mod thin;
mod topics;
mod traces;
mod trail;
mod twins;
mod worlds;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::check::{Checker, Seen};
use super::*;
use crate::config::Trust;
use crate::protocol::Output;
use crate::types::Event;

const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

const fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs a scenario once per seed of the band.
fn seeds(scenario: &str, count: u64, run: impl Fn(u64)) {
    for seed in band(count) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("scenario {scenario:?} failed: SORCHA_SEEDS={seed}..{}", seed + 1);
            resume_unwind(panic);
        }
    }
}

fn band(count: u64) -> Range<u64> {
    let usual = if cfg!(debug_assertions) { count.div_ceil(2) } else { count };
    let Ok(text) = std::env::var("SORCHA_SEEDS") else { return 0..usual };
    let number = |s: &str| s.trim().parse().expect("SORCHA_SEEDS is a..b or a count");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    }
}

/// Demands that within `limit` everybody is connected and everything is where it belongs, and that
/// no checker found anything.
fn settle(world: &mut World, limit: Duration) {
    assert!(world.run_until(World::is_connected, limit), "not connected: {:?}", world.report());
    let settled = world.settle(limit);
    // Confirmations may still be on their way.
    world.run_for(secs(1));
    world.assert_clean();
    assert!(settled, "not settled within {limit:?}: {:?}", world.report());
}

/// A world of one bootstrap peer that has come together.
fn overlay(config: WorldConfig) -> World {
    joined(World::new(config))
}

/// The same of a world that something was added to.
fn joined(mut world: World) -> World {
    let limit = secs(60);
    assert!(world.run_until(World::is_connected, limit), "not connected: {:?}", world.report());
    world.run_for(secs(5));
    world
}

/// Nodes that may be linked like this and in no other way, and are not yet: everybody allows its
/// neighbours only.
fn allowed(config: WorldConfig, mut nodes: Vec<NodeOptions>, links: &[(usize, usize)]) -> World {
    let config = config.topology(Topology::Empty);
    let ids = World::with_nodes(config.clone(), nodes.clone());
    for (node, options) in nodes.iter_mut().enumerate() {
        let beside = |(a, b): &(usize, usize)| match node {
            n if n == *a => Some(ids.peer_id(*b)),
            n if n == *b => Some(ids.peer_id(*a)),
            _ => None,
        };
        let mut own = options.config.clone().unwrap_or_else(|| config.node.clone());
        own.network.trust = Trust::AllowList { peers: links.iter().filter_map(beside).collect() };
        options.config = Some(own);
    }
    World::with_nodes(config, nodes)
}

/// Events of all nodes, in order.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<(usize, Event)>>>);

impl Recorder {
    /// Records from now on.
    fn of(world: &mut World) -> Self {
        let recorder = Self::default();
        world.add_checker(Box::new(recorder.clone()));
        recorder
    }

    /// Returns what `pick` takes of the events of a node.
    fn of_node<T>(&self, node: usize, pick: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        let events = self.0.lock().unwrap();
        events.iter().filter(|(of, _)| *of == node).filter_map(|(_, event)| pick(event)).collect()
    }
}

impl Checker for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn look(&mut self, seen: &Seen<'_>, _: &mut Vec<String>) -> u64 {
        if let Seen::Output { node, output: Output::Emit(event) } = seen {
            self.0.lock().unwrap().push((*node, (*event).clone()));
        }
        0
    }
}
