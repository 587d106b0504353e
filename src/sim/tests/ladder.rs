//! Ladders and circuit breakers in whole networks: rungs that lead nowhere, peers that are gone.

use super::*;
use crate::config::Config;
use crate::types::TransportKind::{self, GrpcStream, GrpcUnary, Rest, WebSocket};

const LADDER: [TransportKind; 4] = [GrpcStream, WebSocket, GrpcUnary, Rest];
const OBSTACLES: [Obstacle; 3] = [Obstacle::BlackHole, Obstacle::Refuses, Obstacle::Silent];

fn config(seed: u64, nodes: usize) -> WorldConfig {
    WorldConfig::new(seed, nodes).rungs(Rung::ladder())
}

/// Transports of a node's links.
fn rungs(world: &World, node: usize) -> Vec<TransportKind> {
    let links = world.protocol(node).map(crate::protocol::Protocol::links).unwrap_or_default();
    links.iter().map(|link| link.kind).collect()
}

#[test]
fn each_rung_carries_a_network() {
    for rung in LADDER {
        seeds("one rung", 2, |seed| {
            let mut world = World::new(config(seed, 5));
            for other in LADDER.into_iter().filter(|other| *other != rung) {
                world.obstruct(None, None, other, Some(Obstacle::Refuses));
            }
            assert!(world.run_until(World::is_connected, secs(30)), "{:?}", world.report());
            assert!((0..5).all(|node| rungs(&world, node).iter().all(|kind| *kind == rung)));
            world.publish_random(3, 100_000);
            settle(&mut world, secs(20));
        });
    }
}

#[test]
fn whatever_stands_in_the_way_of_a_rung_the_next_is_found_in_three_seconds() {
    for obstacle in OBSTACLES {
        for (at, rung) in LADDER.into_iter().enumerate() {
            // Above the rung that is in trouble nothing is there at all.
            let mut world = World::new(config(1, 1));
            for above in &LADDER[..at] {
                world.obstruct(None, None, *above, Some(Obstacle::Refuses));
            }
            world.obstruct(None, None, rung, Some(obstacle));
            let newcomer = world.add_node(NodeOptions::default());
            let linked = |world: &World| world.linked(0, newcomer);
            let next = LADDER.get(at + 1).copied();
            assert_eq!(world.run_until(linked, secs(3)), next.is_some(), "{rung} {obstacle:?}");
            assert_eq!(rungs(&world, newcomer).first().copied(), next);
            world.assert_clean();
        }
    }
}

#[test]
fn what_worked_is_tried_first_also_after_a_restart() {
    let mut world = World::new(config(1, 2));
    world.obstruct(None, None, GrpcStream, Some(Obstacle::Silent));
    assert!(world.run_until(World::is_connected, secs(10)));
    world.crash(1, Disk::Kept);
    world.start(1);
    // Without a second for the silent rung.
    assert!(world.run_until(World::is_connected, millis(600)), "{:?}", world.report());
    assert_eq!(rungs(&world, 1), [WebSocket]);
    world.assert_clean();
}

/// A configuration of nodes that are content with few links.
fn few_links() -> Config {
    let mut config = Config::lan();
    config.discovery.min_healthy_peers = 1;
    config
}

#[test]
fn a_peer_that_is_gone_is_left_alone_and_found_when_it_is_back() {
    seeds("gone", 4, |seed| {
        let mut world = overlay(config(seed, 6).node(few_links()));
        world.vanish(5, Disk::Kept);
        world.run_for(secs(600));
        let before = world.report().counters;
        let hour = secs(3600);
        world.run_for(hour);
        let after = world.report().counters;
        // Whoever still knows it probes it every five minutes, by four rungs.
        let probes = after.breaker_probes - before.breaker_probes;
        assert!(probes > 0, "{:?}", world.report());
        assert!(probes <= 5 * 13, "{probes} probes in an hour");
        assert!(after.dials_started - before.dials_started <= 4 * probes + 20);
        world.start(5);
        assert!(world.run_until(World::is_connected, secs(60)), "{:?}", world.report());
        world.run_for(secs(10));
        assert_eq!(world.protocol(5).map(|p| p.stats().open_breakers), Some(0));
        world.assert_clean();
    });
}

#[test]
fn breakers_keep_nobody_apart_for_long() {
    seeds("apart", 4, |seed| {
        let mut world = overlay(config(seed, 8).node(few_links()));
        // Long enough for every breaker between the halves to open.
        world.partition(&[vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
        world.run_for(secs(1200));
        let report = world.report();
        assert!(report.counters.breakers_opened > 0, "{report:?}");
        world.heal();
        assert!(world.run_until(World::is_connected, secs(330)), "{:?}", world.report());
        world.publish_random(2, 2000);
        settle(&mut world, secs(20));
    });
}

#[test]
fn a_node_that_is_cut_off_is_back_soon_after_whatever_its_breakers_say() {
    seeds("cut off", 4, |seed| {
        let mut world = overlay(config(seed, 6));
        world.partition(&[vec![0, 1, 2, 3, 4], vec![5]]);
        world.run_for(secs(1800));
        assert!(world.protocol(5).is_some_and(|p| p.stats().open_breakers > 0));
        world.heal();
        // The longest back-off, and a time-out.
        assert!(world.run_until(|w| w.links(5) > 0, secs(20)), "{:?}", world.report());
        settle(&mut world, secs(330));
    });
}

#[test]
fn peers_that_come_and_go_for_hours() {
    seeds("come and go", 2, |seed| {
        let mut world = overlay(config(seed, 8).node(few_links()));
        for turn in 0..30 {
            let node = usize::try_from((seed * 7 + turn * 5) % 7).unwrap() + 1;
            world.vanish(node, Disk::Kept);
            world.run_for(secs(60 + 53 * (turn % 9)));
            world.start(node);
            world.run_for(secs(7 + turn % 30));
        }
        settle(&mut world, secs(330));
        let report = world.report();
        assert!(report.counters.breakers_opened > 0, "{report:?}");
    });
}
