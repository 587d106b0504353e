//! Nodes that were away for longer than anybody retains what they missed.

use super::*;
use crate::config::Config;
use crate::protocol::Output;
use crate::sim::check::{Checker, Seen};
use crate::types::{Counters, Event};
use std::sync::{Arc, Mutex};

fn retaining(seconds: u64) -> Config {
    let mut config = Config::lan();
    config.gossip.retention = secs(seconds);
    config
}

/// Spans that nodes said to have missed: node, and seconds since the start of the world.
type Missed = Arc<Mutex<Vec<(usize, u64, u64)>>>;

#[derive(Debug)]
struct Listener(Missed);

impl Checker for Listener {
    fn name(&self) -> &'static str {
        "listener"
    }

    fn look(&mut self, seen: &Seen<'_>, _: &mut Vec<String>) -> u64 {
        if let Seen::Output { node, output: Output::Emit(Event::HistoryMissed { from, until }) } =
            seen
        {
            let second = |at: &crate::types::WallTime| (at.as_millis() - EPOCH) / 1000;
            self.0.lock().unwrap().push((*node, second(from), second(until)));
        }
        0
    }
}

/// Wall-clock time at which every world starts.
const EPOCH: u64 = 1_700_000_000_000;

/// A network of nodes that retain for so many seconds each, and what they say to have missed.
fn network(seed: u64, retentions: &[u64]) -> (World, Missed) {
    let nodes = retentions.iter().map(|s| NodeOptions::with_config(retaining(*s))).collect();
    let config =
        WorldConfig::new(seed, 0).verification(Verification::Trusted).topology(Topology::Mesh);
    let mut world = World::with_nodes(config, nodes);
    let missed = Missed::default();
    world.add_checker(Box::new(Listener(Arc::clone(&missed))));
    world.run_for(secs(60));
    (world, missed)
}

/// The first node publishes every ten seconds for so long.
fn publish_for(world: &mut World, seconds: u64) {
    for _ in 0..seconds / 10 {
        world.publish_random(0, 100);
        world.run_for(secs(10));
    }
}

fn counters(world: &World, node: usize) -> Counters {
    world.protocol(node).expect("it runs").counters().clone()
}

fn taken(missed: &Missed) -> Vec<(usize, u64, u64)> {
    std::mem::take(&mut missed.lock().unwrap())
}

#[test]
fn who_was_down_for_longer_than_the_retention_is_told_the_span_once() {
    seeds("away too long", 3, |seed| {
        let (mut world, missed) = network(seed, &[300, 300, 300, 300]);
        publish_for(&mut world, 60);
        world.crash(3, Disk::Kept);
        publish_for(&mut world, 420);
        let back = world.now().as_secs();
        world.start(3);
        world.run_for(secs(120));
        let told = taken(&missed);
        let [(3, from, until)] = told[..] else { panic!("{told:?}") };
        // The last note before the crash may be a minute old.
        assert!((50..=120).contains(&from), "from {from}");
        assert!((back - 300..=back - 298).contains(&until), "until {until}, back at {back}");
        assert_eq!(counters(&world, 3).histories_missed, 1);
        // Everything that anybody retains is there, and it is over.
        settle(&mut world, secs(60));
        world.crash(3, Disk::Kept);
        world.run_for(secs(100));
        world.start(3);
        world.run_for(secs(120));
        assert_eq!(taken(&missed), []);
    });
}

#[test]
fn who_was_cut_off_for_longer_than_the_retention_is_told_too() {
    let (mut world, missed) = network(1, &[300, 300, 300]);
    publish_for(&mut world, 60);
    world.partition(&[vec![0, 1], vec![2]]);
    publish_for(&mut world, 400);
    world.heal();
    world.run_for(secs(300));
    let told = taken(&missed);
    let [(2, from, until)] = told[..] else { panic!("{told:?}") };
    assert!((120..=180).contains(&from) && (210..=230).contains(&until), "{from} to {until}");
}

#[test]
fn who_was_away_for_less_or_is_new_is_told_nothing() {
    seeds("away, not too long", 2, |seed| {
        let (mut world, missed) = network(seed, &[300, 300, 300]);
        publish_for(&mut world, 60);
        world.crash(2, Disk::Kept);
        publish_for(&mut world, 200);
        world.start(2);
        let fresh = world.add_node(NodeOptions::with_config(retaining(300)));
        world.run_for(secs(200));
        settle(&mut world, secs(60));
        // All of them at once, for a while.
        for node in 0..=fresh {
            world.crash(node, Disk::Kept);
        }
        world.run_for(secs(100));
        for node in 0..=fresh {
            world.start(node);
        }
        world.run_for(secs(200));
        // Whose disk was lost begins anew.
        world.crash(1, Disk::Lost);
        world.run_for(secs(500));
        world.start(1);
        world.run_for(secs(200));
        assert_eq!(taken(&missed), []);
        world.assert_clean();
    });
}

#[test]
fn what_peers_forgot_sooner_than_this_node_would_is_told() {
    let (mut world, missed) = network(1, &[300, 300, 3600]);
    publish_for(&mut world, 60);
    world.crash(2, Disk::Kept);
    publish_for(&mut world, 600);
    let back = world.now().as_secs();
    world.start(2);
    world.run_for(secs(200));
    let told = taken(&missed);
    let [(2, from, until)] = told[..] else { panic!("{told:?}") };
    assert!((50..=120).contains(&from), "from {from}");
    assert!((back - 300..=back - 290).contains(&until), "until {until}, back at {back}");
}

#[test]
fn what_one_peer_still_has_is_served_and_nothing_is_told() {
    let (mut world, missed) = network(1, &[300, 3600, 3600]);
    // Those of the first expire by its own retention: the second publishes.
    world.crash(2, Disk::Kept);
    let ids: Vec<_> = (0..20)
        .map(|_| {
            world.run_for(secs(30));
            world.publish_random(1, 100)
        })
        .collect();
    world.start(2);
    world.run_for(secs(200));
    assert!(ids.iter().all(|id| world.holds(2, id)));
    assert!(!world.holds(0, &ids[0]));
    assert_eq!(taken(&missed), []);
}

#[test]
fn a_peer_that_has_lost_its_disk_does_not_hide_that_it_has_nothing() {
    let (mut world, missed) = network(1, &[3600, 3600]);
    publish_for(&mut world, 60);
    world.crash(1, Disk::Kept);
    publish_for(&mut world, 100);
    world.crash(0, Disk::Lost);
    world.run_for(secs(30));
    world.start(0);
    let begins = world.now().as_secs();
    world.run_for(secs(100));
    world.start(1);
    world.run_for(secs(200));
    let told = taken(&missed);
    let [(1, from, until)] = told[..] else { panic!("{told:?}") };
    assert!((50..=120).contains(&from), "from {from}");
    assert!((begins..=begins + 1).contains(&until), "until {until}, it began at {begins}");
}
