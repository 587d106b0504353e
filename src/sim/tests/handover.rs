//! Links that go over to other connections while they are in use, and proxies that cut.

use super::check::InOrder;
use super::large::MIB;
use super::*;
use crate::config::Config;

/// A world whose links are checked for order, which has come together.
fn ordered(config: WorldConfig) -> World {
    in_order(World::new(config))
}

fn in_order(mut world: World) -> World {
    world.add_checker(Box::new(InOrder::default()));
    assert!(world.run_until(World::is_connected, secs(60)), "{:?}", world.report());
    world.run_for(secs(5));
    world
}

/// A node that looks for nothing missing by itself: what is lost stays lost.
fn trusting() -> Config {
    let mut node = Config::lan();
    node.gossip.retention = secs(7200);
    node.gossip.reconcile_hot_window = secs(3600);
    (node.gossip.reconcile_interval, node.gossip.reconcile_full_interval) =
        (secs(3600), secs(3600));
    node
}

/// Every node publishes small ones, and now and then a large one, for so many seconds.
fn talk(world: &mut World, seconds: u64) {
    for second in 0..seconds {
        for node in 0..world.len() {
            world.publish_random(node, 700);
        }
        if second % 10 == 3 {
            world.publish_random(0, MIB / 2);
        }
        world.run_for(millis(1000 + second % 7));
    }
}

/// Every node publishes 60 KB a second.
fn burst(world: &mut World, times: usize) {
    for _ in 0..times {
        for at in 0..40 * world.len() {
            world.publish_random(at % world.len(), 3000);
        }
        world.run_for(secs(2));
    }
}

#[test]
fn rotated_links_lose_double_and_reorder_nothing() {
    seeds("rotation", 4, |seed| {
        let mut node = trusting();
        node.connection.max_link_age = Some(secs(60));
        let mut world = ordered(WorldConfig::new(seed, 6).node(node).uplink(2_000_000));
        let closed = world.report().counters.links_closed;
        talk(&mut world, 120);
        world.run_for(secs(20));
        let counters = world.report().counters;
        assert!(counters.handovers > 10, "{counters:?}");
        assert_eq!(counters.links_closed, closed, "no link has ended: {counters:?}");
        assert_eq!((counters.handovers_failed, counters.refused_malformed), (0, 0));
        assert_eq!(world.missing(), 0, "nothing was looked for, and nothing is lost");
        world.assert_clean();
    });
}

#[test]
fn links_go_over_before_a_proxy_cuts_them_for_their_age() {
    seeds("cut by age", 2, |seed| {
        let proxies = Proxies::by_age(secs(5));
        let mut world = ordered(WorldConfig::new(seed, 4).proxies(proxies));
        talk(&mut world, 60);
        let before = world.report().counters;
        talk(&mut world, 30);
        let after = world.report().counters;
        let cut = after.links_closed - before.links_closed;
        let moved = after.handovers - before.handovers;
        assert!(after.link_limits_found > 0, "{after:?}");
        assert!(moved > 10 * cut, "{moved} went over, {cut} were cut: {after:?}");
        settle(&mut world, secs(120));
    });
}

#[test]
fn links_go_over_before_a_proxy_cuts_them_for_their_bytes() {
    seeds("cut by bytes", 2, |seed| {
        let proxies = Proxies::by_bytes(MIB as u64);
        let mut world = ordered(WorldConfig::new(seed, 3).proxies(proxies));
        burst(&mut world, 30);
        let before = world.report().counters;
        burst(&mut world, 30);
        let after = world.report().counters;
        let cut = after.links_closed - before.links_closed;
        let moved = after.handovers - before.handovers;
        assert!(after.link_limits_found > 0, "{after:?}");
        assert!(moved > 4 * cut, "{moved} went over, {cut} were cut: {after:?}");
        settle(&mut world, secs(120));
    });
}

#[test]
fn a_flood_waits_for_the_next_connection() {
    seeds("flood through a proxy that cuts by bytes", 2, |seed| {
        let proxies = Proxies::by_bytes(MIB as u64);
        // The second dials each time, so that what one link shows is known for the next.
        let nodes = vec![NodeOptions::default(), NodeOptions::hidden()];
        let config = WorldConfig::new(seed, 2).proxies(proxies);
        let mut world = in_order(World::with_nodes(config, nodes));
        burst(&mut world, 30);
        let flood = |world: &mut World| {
            // Both, since only what goes to the proxy counts.
            for at in 0..2000 {
                world.publish_random(at % 2, 3000);
            }
            world.run_for(secs(10));
        };
        // What the even flow made a bound in time of, two cuts put right.
        (0..2).for_each(|_| flood(&mut world));
        let before = world.report().counters;
        (0..4).for_each(|_| flood(&mut world));
        let after = world.report().counters;
        let cut = after.links_closed - before.links_closed;
        let moved = after.handovers - before.handovers;
        assert!(moved >= 12 && moved > 8 * cut, "{moved} went over, {cut} were cut: {after:?}");
        settle(&mut world, secs(120));
    });
}
