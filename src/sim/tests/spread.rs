//! Nothing goes wrong: everybody finds everybody and gets everything, cheaply.

use super::*;
use crate::types::MonoTime;

#[test]
fn a_mesh_delivers_everything_everywhere_once() {
    seeds("clean mesh", 6, |seed| {
        let mut world = World::new(WorldConfig::new(seed, 6).topology(Topology::Mesh));
        world.run_for(secs(3));
        let ids: Vec<_> =
            (0..12).map(|n| world.publish_random(n % 6, 100 + n * n * 1000)).collect();
        settle(&mut world, secs(10));
        for node in 0..6 {
            let got: Vec<_> = world.deliveries(node).iter().map(|d| d.id).collect();
            assert_eq!(got.len(), ids.len());
            assert!(ids.iter().all(|id| got.contains(id)));
            assert!(world.deliveries(node).windows(2).all(|w| w[0].cursor < w[1].cursor));
            assert_eq!(world.outbox(node), 0, "two others have confirmed");
        }
        let report = world.report();
        assert_eq!((report.published, report.deliveries), (12, 60));
        assert!(
            report.checks.iter().all(|(name, n)| *n > 0 || name == "requests_once"),
            "{:?}",
            report.checks
        );
    });
}

#[test]
fn one_bootstrap_peer_is_enough_to_form_an_overlay() {
    seeds("one bootstrap", 1, |seed| {
        let mut world = World::new(WorldConfig::new(seed, 24).verification(Verification::Trusted));
        world.run_for(secs(60));
        assert!(world.is_connected());
        let few: Vec<_> = (0..24).filter(|n| world.links(*n) < 8).collect();
        assert!(few.is_empty(), "fewer than 8 links: {few:?}");
        world.publish_random(7, 1000);
        settle(&mut world, secs(10));
    });
}

#[test]
fn three_nodes_come_to_rest() {
    // Bootstrap peers that dialled us were dialled again and again, for ever.
    seeds("three nodes", 6, |seed| {
        let mut world = World::new(WorldConfig::new(seed, 3).topology(Topology::Mesh));
        world.run_for(secs(10));
        assert!((0..3).all(|n| world.links(n) == 2), "{:?}", world.report());
        let before = world.report().counters;
        world.run_for(secs(120));
        let after = world.report().counters;
        assert_eq!(before.dials_started, after.dials_started);
        assert_eq!(after.dials_failed, 0);
    });
}

#[test]
fn recurring_origins_settle_into_trees() {
    seeds("recurring origin", 2, |seed| {
        let config = WorldConfig::new(seed, 12).verification(Verification::Trusted);
        let mut world = overlay(config.latency(Latency::Regions));
        for _ in 0..40 {
            world.publish_random(3, 1024);
            world.run_for(millis(500));
        }
        world.reset_figures();
        for _ in 0..40 {
            world.publish_random(3, 1024);
            world.run_for(millis(500));
        }
        settle(&mut world, secs(10));
        let report = world.report();
        assert!(report.redundancy < 1.2, "{report:?}");
    });
}

#[test]
fn large_payloads_arrive_in_pieces() {
    seeds("large", 2, |seed| {
        let config = WorldConfig::new(seed, 8).uplink(6_000_000);
        let mut world = overlay(config);
        world.publish_random(1, 256 * 1024);
        world.publish_random(2, 256 * 1024 + 1);
        settle(&mut world, secs(60));
        let report = world.report();
        assert!(report.redundancy < 1.1, "{report:?}");
    });
}

#[test]
fn the_largest_payload_arrives() {
    seeds("largest", 1, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 4).uplink(12_000_000));
        world.publish_random(0, 10 << 20);
        settle(&mut world, secs(60));
        assert!(world.report().redundancy < 1.1, "{:?}", world.report());
    });
}

#[test]
fn a_late_joiner_gets_what_was_published_before() {
    seeds("late joiner", 2, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 5));
        for n in 0..200 {
            world.publish_random(n % 5, 300);
        }
        world.publish_random(0, 100_000);
        settle(&mut world, secs(20));
        let late = world.add_node(NodeOptions::default());
        settle(&mut world, secs(20));
        assert_eq!(world.deliveries(late).len(), 201);
    });
}

#[test]
fn nodes_behind_nat_miss_nothing() {
    seeds("nat", 2, |seed| {
        let mut nodes = vec![NodeOptions::default(); 4];
        nodes.extend(vec![NodeOptions::hidden(); 6]);
        let mut world = World::with_nodes(WorldConfig::new(seed, 0), nodes);
        world.run_for(secs(20));
        assert!(world.is_connected());
        for node in 0..10 {
            world.publish_random(node, 1000);
        }
        settle(&mut world, secs(20));
    });
}

#[test]
fn frames_of_one_message_do_as_well() {
    seeds("unbatched", 2, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 6).batching(false));
        for n in 0..60 {
            world.publish_random(n % 6, 2000);
        }
        settle(&mut world, secs(20));
    });
}

#[test]
fn everything_expires_everywhere() {
    let mut config = WorldConfig::new(1, 4);
    config.node.gossip.retention = secs(600);
    let mut world = overlay(config);
    let id = world.publish_random(0, 100);
    settle(&mut world, secs(10));
    assert_eq!(world.holders(&id), 4);
    world.run_for(secs(700));
    assert_eq!(world.holders(&id), 0);
    assert!(world.protocol(1).is_some_and(|p| !p.contains(&id)));
    settle(&mut world, secs(10));
}

#[test]
fn an_idle_node_sleeps() {
    let mut world = overlay(WorldConfig::new(1, 4));
    let before = world.report();
    world.run_for(secs(600));
    let after = world.report();
    let steps = (after.steps - before.steps) / 4 / 600;
    assert!(steps < 20, "{steps} events per node and second while idle");
    assert!(
        world.protocol(0).and_then(crate::protocol::Protocol::poll_timeout) > Some(MonoTime::ZERO)
    );
}
