//! Peers that lie, and networks that do not belong together.
//!
//! Level of these bad peers: a simulated network. Others: `src/protocol/tests/liars.rs` and
//! `greedy.rs` (one core), `tests/node/hostile.rs` (a node, after the hello) and
//! `tests/node/bad_input.rs` (a node, before and during the hello).

use super::*;
use crate::config::Config;
use crate::types::{Announcement, Endpoint, Message, RecordDraft, TransactionId, WallTime};

/// Honest nodes and one that misbehaves, all linked.
fn with_one(seed: u64, behaviour: Behaviour) -> World {
    let mut nodes = vec![NodeOptions::default(); 5];
    nodes.push(NodeOptions::misbehaving(behaviour));
    let config = WorldConfig::new(seed, 0).topology(Topology::OneBootstrap);
    let mut world = World::with_nodes(config, nodes);
    world.run_for(secs(10));
    world
}

fn settle_honest(world: &mut World) {
    world.crash(5, Disk::Kept);
    settle(world, secs(30));
}

#[test]
fn wrong_bytes_are_kept_by_nobody_and_cost_their_sender_the_link() {
    for behaviour in [Behaviour::WrongPayload, Behaviour::WrongSignature] {
        seeds(&format!("{behaviour:?}"), 3, |seed| {
            let mut world = with_one(seed, behaviour);
            // From afar, so that the liar has something to forward: it is the only way.
            for n in 0..20 {
                world.publish_random(n % 5, if n % 4 == 0 { 90_000 } else { 900 });
                world.run_for(millis(50));
            }
            settle_honest(&mut world);
        });
    }
}

#[test]
fn a_liar_between_two_honest_nodes_is_banned() {
    let nodes = vec![
        NodeOptions::default(),
        NodeOptions::misbehaving(Behaviour::WrongPayload),
        NodeOptions::default(),
    ];
    let mut world = World::with_nodes(WorldConfig::new(3, 0).topology(Topology::Empty), nodes);
    world.connect(0, 1);
    world.connect(2, 1);
    world.run_until(|w| w.linked(0, 1) && w.linked(1, 2), secs(5));
    world.publish_random(0, 500);
    world.run_for(millis(500));
    assert_eq!(world.report().counters.refused_wrong_hash, 1);
    assert!(!world.linked(1, 2));
    world.run_for(secs(10));
    settle_without(&mut world, 1);
}

fn settle_without(world: &mut World, node: usize) {
    world.crash(node, Disk::Kept);
    assert!(world.run_until(World::is_connected, secs(60)));
    settle(world, secs(30));
}

#[test]
fn a_poisoned_start_is_not_blamed_on_who_finishes() {
    // The first source sends wrong bytes and falls silent; the second resumes where it stopped.
    seeds("poison", 4, |seed| {
        let nodes = vec![
            NodeOptions::default(),
            NodeOptions::misbehaving(Behaviour::PoisonThenStall),
            NodeOptions::default(),
            NodeOptions::default(),
        ];
        let config = WorldConfig::new(seed, 0).topology(Topology::Empty);
        let mut world = World::with_nodes(config, nodes);
        world.connect(0, 1);
        world.connect(0, 2);
        world.run_for(secs(1));
        world.publish_random(0, 300_000);
        world.run_for(secs(3));
        // Node 3 hears of it from the liar first.
        world.connect(3, 1);
        world.run_for(millis(130));
        world.connect(3, 2);
        world.run_for(secs(20));
        world.assert_clean();
        settle_without(&mut world, 1);
    });
}

#[test]
fn forged_records_are_refused_and_their_teller_is_banned() {
    seeds("forged records", 2, |seed| {
        let mut world = with_one(seed, Behaviour::WrongRecord);
        world.publish_random(0, 100);
        world.run_for(secs(5));
        let report = world.report();
        assert!(report.counters.records_forged > 0, "{report:?}");
        settle_honest(&mut world);
    });
}

#[test]
fn another_network_and_another_version_stay_apart() {
    let mut other = Config::lan();
    "other".clone_into(&mut other.network.name);
    let nodes = vec![
        NodeOptions::default(),
        NodeOptions::default(),
        NodeOptions::with_config(other),
        NodeOptions::misbehaving(Behaviour::WrongVersion),
    ];
    let mut world = World::with_nodes(WorldConfig::new(5, 0), nodes);
    world.run_for(secs(10));
    assert!(world.linked(0, 1));
    assert_eq!((world.links(2), world.links(3)), (0, 0));
    let counters = world.report().counters;
    assert!(counters.links_refused_network > 0 && counters.links_refused_version > 0);
    world.assert_clean();
}

#[test]
fn a_node_that_dials_itself_learns_its_address() {
    let mut world = World::new(WorldConfig::new(1, 2));
    world.run_for(secs(3));
    world.connect(0, 0);
    world.run_for(secs(1));
    assert_eq!(world.links(0), 1);
    assert!(world.report().counters.links_refused_self > 0);
    // It is its own bootstrap peer, by an address that it does not know to be its own.
    let mut config = Config::lan();
    config.discovery.bootstrap.push(world.endpoint(2 - 1));
    let mut config = WorldConfig::new(2, 1).node(config);
    config.nodes = 0;
    let mut lone = World::new(config);
    let own: Endpoint = World::new(WorldConfig::new(0, 1)).endpoint(0);
    let mut itself = Config::lan();
    itself.discovery.bootstrap.push(own);
    lone.add_node(NodeOptions::with_config(itself));
    lone.run_for(secs(60));
    assert!(lone.report().counters.dials_started <= 1, "{:?}", lone.report().counters);
}

#[test]
fn oversize_is_refused_wherever_it_shows() {
    let mut small = Config::lan();
    small.gossip.max_transaction_size = 2048;
    let nodes = vec![NodeOptions::default(), NodeOptions::with_config(small)];
    let mut world = World::with_nodes(WorldConfig::new(1, 0), nodes);
    world.run_for(secs(3));
    let large = world.publish_random(0, 3000);
    let refused = world.publish_random(1, 3000);
    world.run_for(secs(2));
    assert!(world.holds(0, &large) && !world.holds(1, &large), "not even offered");
    assert_eq!(world.report().counters.refused_too_large, 0);
    assert_eq!(world.holders(&refused), 0);
    world.say(0, 1, Message::Announce(vec![Announcement { id: large, size: 3000, hop: 0 }]));
    let wall = WallTime::from_millis(1_700_000_000_000);
    let long = wall.plus(secs(3600));
    let transaction = world.transaction(0, "t", &[0; 4000], wall.plus(secs(5)), long);
    world.say(0, 1, Message::Push { transaction, hop: 0 });
    world.run_for(secs(2));
    assert_eq!(world.report().counters.refused_too_large, 2);
    assert!(world.violations().is_empty());
}

#[test]
fn what_is_expired_or_from_the_future_is_refused() {
    let mut world = overlay(WorldConfig::new(1, 2));
    let wall = WallTime::from_millis(1_700_000_000_000);
    let old = world.transaction(0, "t", b"old", wall.minus(secs(100)), wall.minus(secs(1)));
    let young = world.transaction(0, "t", b"young", wall.plus(secs(600)), wall.plus(secs(900)));
    world.say(0, 1, Message::Push { transaction: old, hop: 0 });
    world.say(0, 1, Message::Push { transaction: young, hop: 0 });
    world.run_for(secs(1));
    let counters = world.report().counters;
    assert_eq!((counters.refused_expired, counters.refused_skewed), (1, 1));
    assert_eq!(counters.transactions_accepted, 0);
}

#[test]
fn promises_of_nothing_are_given_up() {
    let mut world = overlay(WorldConfig::new(1, 3));
    let id = |n: u8| TransactionId::from_bytes([n; 32]);
    let promise = |n| Announcement { id: id(n), size: 1000 * u64::from(n), hop: 1 };
    world.say(0, 1, Message::Announce((0..200).map(promise).collect()));
    world.run_for(secs(30));
    assert_eq!(world.protocol(1).map(|p| p.stats().fetching), Some(0));
    settle(&mut world, secs(5));
}

#[test]
fn a_peer_that_asks_and_never_reads_is_disconnected() {
    // What it made us answer was bounded by nothing.
    let mut world = overlay(WorldConfig::new(1, 2));
    world.throttle(1, None, Some(1000));
    for n in 0..200 {
        let id = TransactionId::from_bytes([n; 32]);
        world.say(1, 0, Message::Want(vec![id; 1024]));
        world.run_for(millis(1));
    }
    world.run_for(secs(1));
    assert!(world.report().counters.links_closed_slow > 0, "{:?}", world.report());
    world.assert_clean();
}

#[test]
fn a_record_with_a_wrong_address_harms_nobody() {
    let mut world = overlay(WorldConfig::new(1, 3));
    let identity = crate::Identity::from_seed([9; 32]);
    let record = identity.sign_record(RecordDraft {
        peer: identity.peer_id(),
        seq: 1,
        issued: WallTime::from_millis(1_700_000_000_000),
        // Somebody else lives there, and nobody there.
        endpoints: vec![world.endpoint(2), "10.9.9.9:1".parse().unwrap()],
    });
    world.say(0, 1, Message::Peers { records: vec![record], relays: 0 });
    world.run_for(secs(120));
    assert!(world.report().faults.dials_failed > 0);
    assert_eq!(world.links(1), 2);
    world.assert_clean();
}
