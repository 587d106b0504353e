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
