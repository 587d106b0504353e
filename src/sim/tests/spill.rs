//! Partial payloads that make room in memory, by way of the store.

use super::large::{MIB, UPLINK, counter, honest, linked, until_pieces, uplinked};
use super::*;
use crate::config::Config;
use crate::error::StoreErrorKind;
use crate::types::TransactionId;

/// The node that fetches.
const HUB: usize = 8;
/// Pieces of each payload.
const PIECES: u64 = 16;

/// A hub with room for three payloads of 1 MiB and links to eight others, who have none to each
/// other.
fn star(seed: u64, spills: bool) -> World {
    let mut config = Config::lan();
    config.gossip.max_assembly_bytes = Some(3 << 20);
    if !spills {
        config.gossip.max_spill_bytes = 0;
    }
    let links: Vec<_> = (0..HUB).map(|n| (n, HUB)).collect();
    linked(uplinked(seed, 0).node(config), honest(HUB + 1), &links)
}

/// Three sources vanish in the middle; returns what they published.
fn strand_three(world: &mut World) -> Vec<TransactionId> {
    (0..3).for_each(|n| world.throttle(n, Some(UPLINK / 20), None));
    let ids = (0..3).map(|n| world.publish_random(n, MIB)).collect();
    until_pieces(world, HUB, 3 * PIECES * 2 / 3);
    (0..3).for_each(|n| world.vanish(n, Disk::Kept));
    ids
}

/// The sources are there again.
fn return_three(world: &mut World) {
    for n in 0..3 {
        world.throttle(n, Some(UPLINK), None);
        world.start(n);
        world.connect(n, HUB);
    }
}

fn everywhere(world: &World, ids: &[TransactionId], nodes: impl Iterator<Item = usize>) -> bool {
    let mut nodes = nodes.collect::<Vec<_>>().into_iter();
    nodes.all(|node| ids.iter().all(|id| world.holds(node, id)))
}

/// Three payloads lose their source half-way and twenty more want their room; then the sources
/// return. Pieces that the hub received, and when the twenty were there.
fn stranded(seed: u64, spills: bool, restart: bool) -> (u64, Duration) {
    let mut world = star(seed, spills);
    let lost = strand_three(&mut world);
    let from = world.now();
    let others: Vec<_> = (0..20).map(|n| world.publish_random(3 + n % 5, MIB)).collect();
    let there = |w: &World| everywhere(w, &others, HUB..=HUB);
    assert!(world.run_until(there, secs(300)), "{:?}", world.report());
    let took = world.now().saturating_sub(from);
    // Long enough for what is parked to go too.
    world.run_for(secs(100));
    let mut pieces = counter(&world, HUB, "pieces_received");
    if restart {
        world.crash(HUB, Disk::Kept);
        world.start(HUB);
        (3..HUB).for_each(|n| world.connect(n, HUB));
    }
    return_three(&mut world);
    settle(&mut world, secs(120));
    assert!(everywhere(&world, &lost, 0..=HUB));
    let after = counter(&world, HUB, "pieces_received");
    pieces = if restart { pieces + after } else { after };
    assert_eq!(world.partials(HUB), 0, "what is complete is not kept");
    (pieces, took)
}

#[test]
fn what_lost_its_source_makes_room_and_is_fetched_on_later() {
    const NEEDED: u64 = 23 * PIECES;
    seeds("stranded", 2, |seed| {
        for restart in [false, true] {
            let (pieces, took) = stranded(seed, true, restart);
            assert!(pieces <= NEEDED + 6, "{pieces} pieces for {NEEDED}");
            assert!(took < secs(10), "{took:?}");
        }
        let (without, _) = stranded(seed, false, false);
        assert!(without >= NEEDED + 3 * PIECES / 2, "{without} pieces without a store");
    });
}

#[test]
fn who_stalls_makes_room_and_loses_nothing() {
    seeds("stalled", 3, |seed| {
        let mut took = Vec::new();
        for spills in [true, false] {
            let mut world = star(seed, spills);
            (0..3).for_each(|n| world.throttle(n, Some(UPLINK / 20), None));
            let slow: Vec<_> = (0..3).map(|n| world.publish_random(n, MIB)).collect();
            until_pieces(&mut world, HUB, 3 * PIECES / 2);
            (0..3).for_each(|n| world.throttle(n, Some(10), None));
            let from = world.now();
            let others: Vec<_> = (3..8).map(|n| world.publish_random(n, MIB)).collect();
            let there = |w: &World| everywhere(w, &others, HUB..=HUB);
            assert!(world.run_until(there, secs(300)), "{:?}", world.report());
            took.push(world.now().saturating_sub(from));
            (0..3).for_each(|n| world.throttle(n, Some(UPLINK), None));
            settle(&mut world, secs(120));
            assert!(everywhere(&world, &slow, 0..=HUB));
            if spills {
                let pieces = counter(&world, HUB, "pieces_received");
                assert!(pieces <= 8 * PIECES + 8, "{pieces} pieces for {}", 8 * PIECES);
                assert!(counter(&world, HUB, "partials_spilled") > 0);
            }
        }
        assert!(took[0] < secs(8) && took[0] < took[1], "{took:?}");
    });
}

#[test]
fn who_trickles_keeps_nobody_waiting_and_loses_nothing() {
    // A piece every 4 s held its room until the last, for more than a minute.
    seeds("trickled", 3, |seed| {
        let mut world = star(seed, true);
        (0..3).for_each(|n| world.throttle(n, Some(16 * 1024), None));
        let slow: Vec<_> = (0..3).map(|n| world.publish_random(n, MIB)).collect();
        until_pieces(&mut world, HUB, 3);
        let others: Vec<_> = (3..8).map(|n| world.publish_random(n, MIB)).collect();
        let there = |w: &World| everywhere(w, &others, HUB..=HUB);
        assert!(world.run_until(there, secs(15)), "{:?}", world.report());
        assert!(!everywhere(&world, &slow, HUB..=HUB));
        assert!(counter(&world, HUB, "partials_spilled") > 0);
        let all = |w: &World| everywhere(w, &slow, HUB..=HUB);
        assert!(world.run_until(all, secs(180)), "{:?}", world.report());
        let pieces = counter(&world, HUB, "pieces_received");
        assert!(pieces <= 8 * PIECES + 8, "{pieces} pieces for {}", 8 * PIECES);
    });
}

#[test]
fn a_store_that_fails_or_forgets_costs_progress_only() {
    for failing in [true, false] {
        let mut world = star(1, true);
        let lost = strand_three(&mut world);
        if failing {
            // What is accepted meanwhile is not stored either, and fetched again afterwards.
            world.fail_store(HUB, Some(StoreErrorKind::Io));
        }
        (0..5).for_each(|n| _ = world.publish_random(3 + n, MIB));
        let tried = |w: &World| counter(w, HUB, "partials_spilled") > 0;
        assert!(world.run_until(tried, secs(120)), "{:?}", world.report());
        world.run_for(secs(5));
        world.fail_store(HUB, None);
        if !failing {
            world.forget_partials(HUB);
        }
        return_three(&mut world);
        settle(&mut world, secs(15 * 60));
        assert!(everywhere(&world, &lost, 0..=HUB));
    }
}
