//! Stores that are full, or would be if one origin had its way.

use super::*;
use crate::error::StoreErrorKind;
use crate::types::Counters;

fn counters(world: &World, node: usize) -> Counters {
    world.protocol(node).unwrap().counters().clone()
}

fn received(world: &World, node: usize) -> u64 {
    counters(world, node).payload_bytes_received
}

/// A world whose first node may publish what it likes, and whose others have bounded stores.
fn bounded(seed: u64, nodes: usize, store_bytes: u64, retention: Duration) -> World {
    let mut config = WorldConfig::new(seed, nodes);
    config.node.gossip.retention = retention;
    let bounded = NodeOptions { store_bytes: Some(store_bytes), ..NodeOptions::default() };
    let mut all = vec![bounded; nodes];
    all[0].store_bytes = None;
    let mut world = World::with_nodes(config, all);
    assert!(world.run_until(World::is_connected, secs(60)));
    world.run_for(secs(5));
    world
}

#[test]
fn one_origin_cannot_fill_the_stores_of_others() {
    seeds("share", 3, |seed| {
        const STORE: u64 = 1_000_000;
        let mut world = bounded(seed, 4, STORE, Duration::from_hours(1));
        let links: Vec<_> = (0..4).map(|n| world.links(n)).collect();
        // Small ones and some that are said ahead of their payload.
        for n in 0..90 {
            world.publish_random(0, if n % 9 == 8 { 90_000 } else { 5_000 });
            world.run_for(millis(50));
        }
        world.run_for(secs(60));
        for node in 1..4 {
            let kept = world.bytes_of(node, 0);
            assert!(kept <= STORE / 2, "node {node} keeps {kept}");
            assert!(kept > STORE / 3, "node {node} keeps {kept} only");
            assert!(counters(&world, node).refused_over_share > 0);
        }
        let theirs: Vec<_> = (0..40).map(|n| world.publish_random(1 + n % 3, 10_000)).collect();
        let there = |w: &World| theirs.iter().all(|id| w.holders(id) == 4);
        assert!(world.run_until(there, secs(60)), "{:?}", world.report());
        let report = world.report();
        assert_eq!(report.faults.stores_failed, 0, "no store was ever full");
        // Nobody was blamed, and nothing that was turned away is fetched over and over.
        assert_eq!((0..4).map(|n| world.links(n)).collect::<Vec<_>>(), links);
        assert_eq!(report.counters.links_closed_violation, 0);
        // Its origin, whom too few confirm it, pushes it a few times more and gives up.
        world.run_for(secs(10 * 60));
        let before: Vec<_> = (1..4).map(|n| received(&world, n)).collect();
        world.run_for(secs(25 * 60));
        let after: Vec<_> = (1..4).map(|n| received(&world, n)).collect();
        assert_eq!(before, after, "fetched in vain");
        world.assert_clean();
    });
}

#[test]
fn what_was_over_a_share_is_taken_when_there_is_room() {
    seeds("room again", 3, |seed| {
        let mut world = bounded(seed, 3, 400_000, secs(600));
        (0..19).for_each(|_| _ = world.publish_random(0, 10_000));
        world.run_for(secs(300));
        let late: Vec<_> = (0..10).map(|_| world.publish_random(0, 10_000)).collect();
        world.run_for(secs(200));
        assert!(late.iter().all(|id| world.holders(id) == 1), "the share is used up");
        // A restart knows what each origin has.
        world.crash(1, Disk::Kept);
        world.start(1);
        world.run_for(secs(60));
        assert!(world.bytes_of(1, 0) <= 200_000, "{}", world.bytes_of(1, 0));
        assert!(counters(&world, 1).refused_over_share > 0);
        // The first ones expire.
        let there = |w: &World| late.iter().all(|id| w.holders(id) == 3);
        assert!(world.run_until(there, secs(120)), "{:?}", world.report());
        world.assert_clean();
    });
}

#[test]
fn an_origin_above_its_rate_is_taken_up_when_earlier_ones_expire() {
    seeds("rate", 3, |seed| {
        let mut config = WorldConfig::new(seed, 5);
        config.node.gossip.retention = secs(600);
        // 20 within the retention of ten minutes.
        config.node.gossip.max_origin_rate = 2;
        // The origin does not hold itself to what others hold it to.
        let mut free = config.node.clone();
        free.gossip.max_origin_rate = 0;
        let mut nodes = vec![NodeOptions::default(); 5];
        nodes[0] = NodeOptions::with_config(free);
        let mut world = World::with_nodes(config, nodes);
        assert!(world.run_until(World::is_connected, secs(60)));
        world.run_for(secs(5));
        // A burst, small ones and some that are said ahead of their payload; and another origin's.
        let burst: Vec<_> = (0..18)
            .map(|n| world.publish_random(0, if n % 6 == 5 { 90_000 } else { 500 }))
            .collect();
        let other = world.publish_random(1, 500);
        let there = |w: &World| burst.iter().chain([&other]).all(|id| w.holders(id) == 5);
        assert!(world.run_until(there, secs(30)), "a burst is taken: {:?}", world.report());
        world.run_for(secs(300));
        let late: Vec<_> =
            (0..10).map(|n| world.publish_random(0, if n > 6 { 90_000 } else { 500 })).collect();
        world.run_for(secs(200));
        for node in 1..5 {
            assert!(counters(&world, node).refused_over_rate > 0, "node {node}");
            let kept = late.iter().filter(|id| world.holds(node, id)).count();
            assert!(kept <= 2, "node {node} has {kept} of what is above the rate");
        }
        // A late joiner is not held up, and knows what each origin has.
        world.crash(3, Disk::Lost);
        world.start(3);
        world.run_for(secs(30));
        let kept = burst.iter().chain(&late).filter(|id| world.holds(3, id)).count();
        assert_eq!(kept, 20, "node 3");
        // The first ones expire.
        let there = |w: &World| late.iter().all(|id| w.holders(id) == 5);
        assert!(world.run_until(there, secs(120)), "{:?}", world.report());
        assert_eq!(world.report().counters.links_closed_violation, 0);
        world.assert_clean();
    });
}

#[test]
fn own_transactions_are_held_to_the_rate_too() {
    let mut config = WorldConfig::new(1, 2);
    config.node.gossip.retention = secs(600);
    config.node.gossip.max_origin_rate = 1;
    let mut world = World::new(config);
    assert!(world.run_until(World::is_connected, secs(60)));
    // All at once: what is still being stored counts.
    (0..25).for_each(|_| _ = world.publish_random(1, 5_000));
    world.run_for(secs(5));
    assert_eq!(counters(&world, 1).publishes_refused, 15);
    assert_eq!(world.bytes_of(0, 1), 50_000);
    world.assert_clean();
}

#[test]
fn own_transactions_have_a_share_too() {
    let mut world = bounded(1, 2, 100_000, Duration::from_hours(1));
    // All at once: what is still being stored counts.
    (0..20).for_each(|_| _ = world.publish_random(1, 5_000));
    world.run_for(secs(5));
    assert_eq!(world.bytes_of(1, 1), 45_000);
    assert_eq!(counters(&world, 1).publishes_refused, 11);
    assert_eq!(world.bytes_of(0, 1), 45_000);
    world.assert_clean();
}

#[test]
fn a_full_store_asks_ever_less_often() {
    // It made everybody offer everything again every 10 s, and threw it away each time.
    seeds("full store", 3, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 4));
        world.fail_store(3, Some(StoreErrorKind::Full));
        let ids: Vec<_> = (0..20).map(|n| world.publish_random(n % 2, 10_000)).collect();
        world.run_for(secs(3));
        let (first, round) = (received(&world, 3), 20 * 10_000);
        world.run_for(secs(30 * 60));
        let more = received(&world, 3) - first;
        // After 10, 20, 40 s and so on: about eight times in half an hour.
        assert!(more >= 3 * round, "it gave up: {more} bytes");
        assert!(more <= 11 * round, "{more} bytes in vain");
        assert!(ids.iter().all(|id| world.holders(id) == 3));
        world.fail_store(3, None);
        // What works shows that there is room.
        world.publish_random(0, 10_000);
        settle(&mut world, secs(40));
        assert!(ids.iter().all(|id| world.holders(id) == 4));
    });
}

#[test]
fn a_full_store_recovers_by_itself() {
    let mut world = overlay(WorldConfig::new(1, 3));
    world.fail_store(2, Some(StoreErrorKind::Full));
    let id = world.publish_random(0, 1_000);
    world.run_for(secs(20 * 60));
    world.fail_store(2, None);
    assert!(world.run_until(|w| w.holders(&id) == 3, secs(11 * 60)), "{:?}", world.report());
    world.assert_clean();
}
