//! The simulated world itself: what it promises to hosts.

use super::*;
use crate::protocol::Output;
use crate::sim::check::{Checker, Seen};

#[test]
fn who_is_dialled_when_it_crashes_is_dialled_again() {
    // The dial never ended, and its node waited for it for ever.
    for at in (0..200).step_by(10) {
        let config = WorldConfig::new(at, 2).latency(Latency::Fixed(millis(20)));
        let mut world = World::new(config);
        world.run_for(millis(at));
        world.crash(0, Disk::Kept);
        world.run_for(millis(5));
        world.start(0);
        assert!(world.run_until(World::is_connected, secs(60)), "after {at} ms");
        settle(&mut world, secs(10));
    }
}

#[test]
fn another_partition_takes_the_place_of_the_first() {
    let mut world = overlay(WorldConfig::new(1, 4).topology(Topology::Mesh));
    world.partition(&[vec![0, 1], vec![2, 3]]);
    let first = world.publish_random(0, 100);
    world.run_for(secs(1));
    assert_eq!(world.holders(&first), 2);
    world.partition(&[vec![0], vec![1]]);
    let second = world.publish_random(0, 100);
    world.run_for(secs(2));
    let with = |world: &World, id| (0..4).filter(|n| world.holds(*n, id)).collect::<Vec<_>>();
    assert_eq!(with(&world, &second), [0, 2, 3], "who is in no group stays with the first");
    assert_eq!(with(&world, &first), [0, 1, 2, 3], "what was held back between them arrives");
    world.heal();
    settle(&mut world, secs(60));
}

#[test]
fn who_joins_to_do_harm_is_banned_justly() {
    // The only way between two others, so that all it passes on is looked at.
    let mut world = World::new(WorldConfig::new(1, 2).topology(Topology::Empty));
    let liar = world.add_node(NodeOptions::misbehaving(Behaviour::WrongPayload));
    world.connect(0, liar);
    world.connect(1, liar);
    world.run_until(|w| w.linked(0, liar) && w.linked(1, liar), secs(5));
    world.publish_random(0, 500);
    world.run_for(secs(1));
    let banned = world.protocol(1).unwrap().stats().banned_peers;
    assert!(banned > 0, "{:?}", world.report());
    world.assert_clean();
}

/// Counts what a host may want to count.
#[derive(Debug)]
struct Publishes(u64);

impl Checker for Publishes {
    fn name(&self) -> &'static str {
        "publishes_of_the_host"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        let Seen::Output { output: Output::Published { .. }, .. } = seen else { return 0 };
        self.0 += 1;
        if self.0 > 3 {
            found.push(format!("{} publishes", self.0));
        }
        1
    }
}

#[test]
fn a_host_can_add_its_own_checker() {
    let mut world = overlay(WorldConfig::new(1, 3));
    world.add_checker(Box::new(Publishes(0)));
    for n in 0..4 {
        assert!(world.violations().is_empty());
        world.publish_random(n % 3, 100);
        world.run_for(secs(1));
    }
    assert_eq!(world.checks()["publishes_of_the_host"], 4);
    assert_eq!(world.violations().len(), 1, "{:?}", world.violations());
}
