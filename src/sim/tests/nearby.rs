//! Nodes that know nobody and hear of each other on the LAN.

use super::*;
use crate::config::Config;
use crate::protocol::Input;
use crate::types::Endpoint;

/// Nodes without any first contact.
fn strangers(seed: u64, count: usize) -> World {
    World::new(WorldConfig::new(seed, count).topology(Topology::Empty))
}

/// Every running node hears of these.
fn announce(world: &mut World, of: &[usize]) {
    let endpoints: Vec<_> = of.iter().map(|node| world.endpoint(*node)).collect();
    for node in world.running().collect::<Vec<_>>() {
        world.input(node, Input::Nearby { endpoints: endpoints.clone() });
    }
}

/// Addresses at which nobody is.
fn garbage(round: usize, count: usize) -> Vec<Endpoint> {
    let at = |n: usize| format!("172.{}.{}.{}:5001", 16 + round % 16, n / 250, n % 250);
    (0..count).map(|n| at(n).parse().unwrap()).collect()
}

#[test]
fn nodes_that_know_nobody_come_together_on_a_lan() {
    seeds("nearby", 4, |seed| {
        let mut world = strangers(seed, 7);
        announce(&mut world, &[0, 1, 2, 3, 4, 5, 6]);
        assert!(world.run_until(World::is_connected, secs(10)), "{:?}", world.report());
        world.publish_random(0, 1000);
        settle(&mut world, secs(10));
        // Each heard of itself as well, and found out.
        world.run_for(secs(120));
        world.assert_clean();
    });
}

#[test]
fn who_comes_later_is_found_and_who_comes_back_is_found_again() {
    seeds("nearby, later", 4, |seed| {
        let mut world = strangers(seed, 3);
        announce(&mut world, &[0, 1]);
        assert!(world.run_until(|w| w.linked(0, 1), secs(5)));
        announce(&mut world, &[2]);
        assert!(world.run_until(World::is_connected, secs(5)), "{:?}", world.report());
        world.crash(2, Disk::Lost);
        world.run_for(secs(600));
        world.start(2);
        announce(&mut world, &[2]);
        assert!(world.run_until(World::is_connected, secs(60)), "{:?}", world.report());
        world.publish_random(2, 1000);
        settle(&mut world, secs(10));
    });
}

#[test]
fn liars_by_the_thousand_keep_nobody_from_its_network() {
    seeds("nearby, liars", 4, |seed| {
        // One of them joins by its first contact; two find each other on the LAN alone.
        let mut config = Config::lan();
        config.discovery.bootstrap.push(World::new(WorldConfig::new(seed, 1)).endpoint(0));
        let mut nodes = vec![NodeOptions::default(); 3];
        nodes[1] = NodeOptions::with_config(config);
        let plain = WorldConfig::new(seed, 0).topology(Topology::Empty);
        let mut world = World::with_nodes(plain, nodes);
        for round in 0..20 {
            for node in 0..3 {
                world.input(node, Input::Nearby { endpoints: garbage(round, 1000) });
            }
            world.run_for(secs(3));
        }
        assert!(world.linked(0, 1), "{:?}", world.report());
        // Where all places are taken, who is told again finds room once some have failed.
        let found = (0..5).any(|_| {
            announce(&mut world, &[2]);
            world.run_until(World::is_connected, secs(60))
        });
        assert!(found, "{:?}", world.report());
        world.publish_random(2, 1000);
        settle(&mut world, secs(10));
        let minutes = world.now().as_secs().div_ceil(60) + 1;
        let dialled = world.report().counters.walks_started;
        assert!(dialled <= 3 * 60 * minutes, "{dialled} in {minutes} min");
    });
}
