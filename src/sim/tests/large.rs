//! Large payloads: one copy each, cut through, whatever happens to those who send them.

use super::*;
use crate::config::{Config, SignaturePolicy};
use crate::types::{Message, PIECE_BYTES, Piece, TransactionId};

pub(super) const MIB: usize = 1 << 20;
/// 50 Mbit/s.
pub(super) const UPLINK: u64 = 6_250_000;

pub(super) fn uplinked(seed: u64, nodes: usize) -> WorldConfig {
    WorldConfig::new(seed, nodes).uplink(UPLINK).verification(Verification::Real)
}

/// The same, with all of these links up.
pub(super) fn linked(
    config: WorldConfig,
    nodes: Vec<NodeOptions>,
    links: &[(usize, usize)],
) -> World {
    let mut world = allowed(config, nodes, links);
    for (from, to) in links {
        world.connect(*from, *to);
    }
    let all = |w: &World| links.iter().all(|(a, b)| w.linked(*a, *b));
    assert!(world.run_until(all, secs(5)));
    world.run_for(secs(1));
    world
}

pub(super) fn honest(count: usize) -> Vec<NodeOptions> {
    vec![NodeOptions::default(); count]
}

pub(super) fn counter(world: &World, node: usize, name: &str) -> u64 {
    let protocol = world.protocol(node).unwrap();
    let mut all = protocol.counters().iter();
    all.find(|(n, _)| *n == name).map(|(_, count)| count).unwrap()
}

/// Runs until a node has received so many pieces.
pub(super) fn until_pieces(world: &mut World, node: usize, pieces: u64) {
    let there = |w: &World| counter(w, node, "pieces_received") >= pieces;
    assert!(world.run_until(there, secs(60)), "{:?}", world.report());
}

#[test]
fn a_line_is_cut_through() {
    for (bytes, limit) in [(MIB, millis(700)), (10 * MIB, millis(2600))] {
        let links: Vec<_> = (0..4).map(|n| (n, n + 1)).collect();
        let mut world = linked(uplinked(1, 0), honest(5), &links);
        world.publish_random(0, bytes);
        settle(&mut world, secs(30));
        let report = world.report();
        assert!(report.redundancy < 1.001, "{report:?}");
        // Four times the transfer alone would be more, if each waited for all of it.
        assert!(report.latency_max < limit, "{report:?}");
    }
}

#[test]
fn a_hub_serves_a_few_at_a_time_and_everybody_in_the_end() {
    for bytes in [MIB, 10 * MIB] {
        let links: Vec<_> = (1..13).map(|n| (n, 0)).collect();
        let mut world = linked(uplinked(1, 0), honest(13), &links);
        world.publish_random(0, bytes);
        settle(&mut world, secs(60));
        let report = world.report();
        assert!(report.redundancy < 1.001, "{report:?}");
        assert!(counter(&world, 0, "wants_refused") >= 9, "{report:?}");
        // From a leaf, through the hub.
        world.reset_figures();
        world.publish_random(5, bytes);
        settle(&mut world, secs(60));
        assert!(world.report().redundancy < 1.001, "{:?}", world.report());
    }
}

#[test]
fn a_mesh_gets_one_copy_each() {
    seeds("large mesh", 2, |seed| {
        let mut world = overlay(uplinked(seed, 10).latency(Latency::Regions));
        for n in 0..3 {
            world.publish_random(n * 3, MIB + n);
            settle(&mut world, secs(30));
        }
        assert!(world.report().redundancy < 1.03, "{:?}", world.report());
        world.reset_figures();
        world.publish_random(4, 10 * MIB);
        settle(&mut world, secs(60));
        let report = world.report();
        assert!(report.redundancy < 1.03, "{report:?}");
        assert!(report.checks["one_parent"] > 0 && report.checks["reservation_acyclic"] > 0);
    });
}

/// A diamond: 0 publishes, 1 and 2 are between, 3 is behind both and hears from 1 first.
fn diamond(seed: u64, middle: Behaviour) -> World {
    let mut nodes = honest(4);
    nodes[1] = NodeOptions::misbehaving(middle);
    linked(uplinked(seed, 0), nodes, &[(1, 0), (2, 0), (3, 1), (3, 2)])
}

/// Returns which of the two in the middle serves node 3.
fn parent(world: &World) -> usize {
    if counter(world, 1, "pieces_sent") > counter(world, 2, "pieces_sent") { 1 } else { 2 }
}

#[test]
fn a_parent_that_dies_is_replaced_and_nothing_is_fetched_twice() {
    seeds("parent dies", 3, |seed| {
        let mut world = diamond(seed, Behaviour::Honest);
        world.publish_random(0, 10 * MIB);
        until_pieces(&mut world, 3, 40);
        let dead = parent(&world);
        world.crash(dead, Disk::Kept);
        settle(&mut world, secs(30));
        let pieces = counter(&world, 3, "pieces_received");
        assert!(pieces <= 162, "{pieces} pieces for 160");
        world.start(dead);
        settle(&mut world, secs(60));
    });
}

#[test]
fn a_parent_that_stalls_is_replaced_within_a_second() {
    seeds("parent stalls", 3, |seed| {
        let mut world = diamond(seed, Behaviour::Honest);
        let id = world.publish_random(0, 10 * MIB);
        until_pieces(&mut world, 3, 40);
        let stalled = parent(&world);
        world.throttle(stalled, Some(10), None);
        let before = counter(&world, 3, "pieces_received");
        let goes_on = |w: &World| counter(w, 3, "pieces_received") > before + 8;
        assert!(world.run_until(goes_on, secs(2)), "{:?}", world.report());
        assert!(world.run_until(|w| w.holds(3, &id), secs(10)));
        let pieces = counter(&world, 3, "pieces_received");
        assert!(pieces <= 165, "{pieces} pieces for 160");
        world.throttle(stalled, None, None);
        settle(&mut world, secs(60));
    });
}

#[test]
fn a_poisoned_piece_costs_its_sender_the_link_and_nobody_else() {
    seeds("poisoned piece", 4, |seed| {
        let nodes = vec![
            NodeOptions::default(),
            NodeOptions::misbehaving(Behaviour::WrongPayload),
            NodeOptions::default(),
            NodeOptions::default(),
        ];
        let links = [(1, 0), (2, 0), (3, 1), (3, 2)];
        let mut world = allowed(uplinked(seed, 0), nodes, &links);
        world.connect(1, 0);
        world.connect(2, 0);
        world.run_for(secs(1));
        let id = world.publish_random(0, 4 * MIB);
        assert!(world.run_until(|w| w.holders(&id) == 3, secs(20)));
        // Both have all of it: the newcomer is served by both at once.
        world.connect(3, 1);
        world.connect(3, 2);
        assert!(world.run_until(|w| w.holds(3, &id), secs(20)), "{:?}", world.report());
        assert!(!world.linked(3, 1) && world.linked(3, 2));
        assert!(counter(&world, 3, "refused_wrong_hash") >= 1);
        assert!(counter(&world, 2, "pieces_sent") >= 50, "{:?}", world.report());
        world.crash(1, Disk::Kept);
        settle(&mut world, secs(20));
    });
}

#[test]
fn a_false_signature_on_a_header_costs_its_sender_the_link() {
    let mut world = diamond(1, Behaviour::WrongSignature);
    world.publish_random(0, MIB);
    assert!(world.run_until(|w| w.deliveries(3).len() == 1, secs(10)), "{:?}", world.report());
    assert!(!world.linked(3, 1) && world.linked(3, 2));
    assert_eq!(counter(&world, 3, "refused_wrong_signature"), 1);
    world.crash(1, Disk::Kept);
    settle(&mut world, secs(20));
}

#[test]
fn a_late_joiner_is_served_by_several_at_once() {
    seeds("striping", 2, |seed| {
        let links = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)];
        let mut world = allowed(uplinked(seed, 0), honest(4), &links);
        links[..3].iter().for_each(|(a, b)| world.connect(*a, *b));
        world.run_for(secs(1));
        let id = world.publish_random(0, 10 * MIB);
        assert!(world.run_until(|w| w.holders(&id) == 3, secs(30)));
        world.reset_figures();
        let before: Vec<_> = (0..3).map(|n| counter(&world, n, "pieces_sent")).collect();
        for n in 0..3 {
            world.connect(3, n);
        }
        // One uplink alone takes 1.7 s.
        assert!(world.run_until(|w| w.holds(3, &id), millis(1400)), "{:?}", world.report());
        let sent = |n: usize| counter(&world, n, "pieces_sent") - before[n];
        assert!((0..3).all(|n| sent(n) >= 20), "{:?}", (0..3).map(sent).collect::<Vec<_>>());
        assert!(world.report().redundancy < 1.01, "{:?}", world.report());
        settle(&mut world, secs(10));
    });
}

#[test]
fn a_transfer_is_resumed_where_its_link_broke() {
    seeds("resume", 3, |seed| {
        let mut world = World::new(uplinked(seed, 2).topology(Topology::Mesh));
        world.run_for(secs(3));
        world.publish_random(0, 10 * MIB);
        for pieces in [20, 70, 130] {
            until_pieces(&mut world, 1, pieces);
            world.reset_link(0, 1);
        }
        settle(&mut world, secs(60));
        assert!(world.report().faults.links_reset >= 3);
        let pieces = counter(&world, 1, "pieces_received");
        assert!(pieces <= 161, "{pieces} pieces for 160");
    });
}

#[test]
fn a_restart_in_the_middle_starts_anew_and_ends_well() {
    let mut world = diamond(1, Behaviour::Honest);
    world.publish_random(0, 10 * MIB);
    until_pieces(&mut world, 3, 60);
    world.crash(3, Disk::Kept);
    world.run_for(millis(300));
    world.start(3);
    world.connect(3, 1);
    world.connect(3, 2);
    settle(&mut world, secs(30));
    assert_eq!(world.deliveries(3).len(), 1);
}

#[test]
fn many_at_once_stay_within_the_room_for_them() {
    let mut config = Config::lan();
    config.gossip.max_assembly_bytes = Some(2 << 20);
    let mut world = overlay(uplinked(1, 5).node(config));
    for n in 0..24 {
        world.publish_random(n % 5, MIB - n);
    }
    // One alone may be larger than all the room.
    world.publish_random(0, 3 * MIB);
    // The gauges are held against their bounds by a checker.
    settle(&mut world, secs(120));
    assert!((0..5).all(|n| world.deliveries(n).len() == 25));
}

#[test]
fn a_small_memory_is_enough_for_both_ways_at_once() {
    let mut config = Config::lan();
    config.limits.memory = 16 << 20;
    config.gossip.max_transaction_size = 4 << 20;
    config.validate().unwrap();
    let mut world = overlay(uplinked(1, 5).node(config));
    for n in 0..20 {
        world.publish_random(n % 5, 4 * MIB - n);
    }
    // The gauges are held against their bounds by a checker.
    settle(&mut world, secs(300));
    assert!((0..5).all(|n| world.deliveries(n).len() == 20));
}

#[test]
fn a_quarter_of_a_gigabyte_arrives() {
    let mut config = Config::lan();
    config.gossip.max_transaction_size = 256 << 20;
    let mut world = World::new(WorldConfig::new(1, 2).node(config));
    world.run_for(secs(3));
    let mut payload = vec![0; 256 << 20];
    payload.iter_mut().step_by(PIECE_BYTES).zip(0u8..=255).for_each(|(byte, n)| *byte = n);
    let id = world.publish(0, "huge", &payload);
    drop(payload);
    assert!(world.run_until(|w| w.holds(1, &id), secs(120)), "{:?}", world.report());
    let report = world.report();
    assert_eq!(report.counters.pieces_sent, 4096);
    world.assert_clean();
}

#[test]
fn peers_that_announce_and_never_serve_delay_nobody_for_long() {
    seeds("large stallers", 3, |seed| {
        let mut nodes = honest(18);
        nodes.extend(vec![NodeOptions::misbehaving(Behaviour::Stalling); 2]);
        let mut world = World::with_nodes(uplinked(seed, 0).latency(Latency::Regions), nodes);
        world.run_for(secs(30));
        for n in 0..4 {
            let id = world.publish_random(n * 4, MIB);
            let there = |w: &World| (0..18).all(|node| w.holds(node, &id));
            assert!(world.run_until(there, secs(3)), "{:?}", world.report());
        }
        world.run_for(secs(25));
        assert!(world.report().faults.messages_tampered > 0);
        world.assert_clean();
    });
}

#[test]
fn without_signatures_nothing_is_said_ahead() {
    let mut config = Config::lan();
    config.network.signatures = SignaturePolicy::Off;
    let mut world = linked(uplinked(1, 0).node(config), honest(4), &[(1, 0), (2, 1), (3, 2)]);
    world.publish_random(0, MIB);
    settle(&mut world, secs(20));
    let report = world.report();
    assert!(report.redundancy < 1.001, "{report:?}");
    // Each waits for all of it: 170 ms on each of three links at the least.
    assert!(report.latency_max > millis(510), "{report:?}");
}

#[test]
fn pieces_that_nobody_asked_for_or_of_a_wrong_size_change_nothing() {
    let mut world = overlay(uplinked(1, 3));
    let id = world.publish_random(0, 10 * MIB);
    until_pieces(&mut world, 1, 10);
    let piece = |id, index, len| {
        let (bytes, proof) = (vec![7; len].into(), vec![1; 256].into());
        Message::Piece(Piece { id, index, bytes, proof })
    };
    let before = world.report().counters.pieces_unexpected;
    // From who serves it: crumbs, no such piece, an id that nobody heard of.
    world.say(0, 1, piece(id, 159, 1));
    world.say(0, 1, piece(id, u32::MAX, PIECE_BYTES));
    world.say(0, 1, piece(TransactionId::from_bytes([3; 32]), 0, PIECE_BYTES));
    settle(&mut world, secs(30));
    assert!(world.report().counters.pieces_unexpected >= before + 3);
    assert_eq!(world.report().counters.refused_wrong_hash, 0);
}
