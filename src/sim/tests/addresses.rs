//! Names that stand for several nodes, addresses that change, and records whose numbers fell back.

use super::*;
use crate::config::Config;
use crate::types::Endpoint;

fn name() -> Endpoint {
    "peers.example.com:5001".parse().unwrap()
}

/// Nodes of which each has the name as its only first contact.
fn by_name(seed: u64, others: &[Config], count: usize) -> World {
    let with_name = |mut config: Config| {
        config.discovery.bootstrap.push(name());
        NodeOptions::with_config(config)
    };
    let foreign = others.iter().cloned().map(with_name);
    let own = (0..count).map(|_| with_name(Config::lan()));
    let nodes = foreign.chain(own).collect();
    World::with_nodes(WorldConfig::new(seed, 0).topology(Topology::Empty), nodes)
}

#[test]
fn nodes_that_share_one_name_come_together() {
    // Every resolver answers with the asker's own address first.
    seeds("one name", 4, |seed| {
        let mut world = by_name(seed, &[], 3);
        world.name(name(), &[0, 1, 2]);
        let limit = secs(5);
        assert!(world.run_until(World::is_connected, limit), "{:?}", world.report());
        world.publish_random(0, 1000);
        settle(&mut world, secs(10));
    });
}

#[test]
fn parts_that_have_only_a_name_in_common_come_together() {
    seeds("two parts", 4, |seed| {
        let mut world = by_name(seed, &[], 4);
        world.name(name(), &[0, 1]);
        world.crash(2, Disk::Kept);
        world.crash(3, Disk::Kept);
        assert!(world.run_until(World::is_connected, secs(5)));
        world.partition(&[vec![0, 1], vec![2, 3]]);
        world.name(name(), &[2, 3, 0, 1]);
        world.start(2);
        world.start(3);
        assert!(world.run_until(|w| w.linked(2, 3), secs(10)));
        world.heal();
        // Everybody has a link by that name, and nobody has a link to the other part.
        assert!(world.run_until(World::is_connected, secs(60)), "{:?}", world.report());
        world.assert_clean();
    });
}

#[test]
fn another_network_first_in_the_answer_keeps_nobody_out() {
    seeds("foreign first", 4, |seed| {
        let mut foreign = Config::lan();
        "other".clone_into(&mut foreign.network.name);
        let mut world = by_name(seed, &[foreign.clone(), foreign], 2);
        world.name(name(), &[0, 1, 2, 3]);
        assert!(world.run_until(|w| w.linked(2, 3), secs(5)), "{:?}", world.report());
        world.assert_clean();
    });
}

#[test]
fn a_bootstrap_address_that_was_our_own_is_dialled_again() {
    // The data directory was copied behind the address, and got a key of its own later.
    let mut config = Config::lan();
    let elsewhere = World::new(WorldConfig::new(0, 1)).endpoint(0);
    config.discovery.bootstrap.push(elsewhere);
    let nodes = vec![NodeOptions::default(), NodeOptions::with_config(config)];
    let config = WorldConfig::new(1, 0).topology(Topology::Empty);
    let mut world = World::with_nodes(config, nodes);
    world.crash(0, Disk::Lost);
    let vacant = world.endpoint(0);
    world.name(vacant.clone(), &[1]);
    world.run_for(secs(30));
    assert!(world.report().counters.links_refused_self > 0, "{:?}", world.report());
    world.name(vacant, &[0]);
    world.start(0);
    assert!(world.run_until(World::is_connected, secs(130)), "{:?}", world.report());
    world.assert_clean();
}

#[test]
fn a_node_whose_numbers_fell_back_is_found_where_it_is() {
    // Its clock was ahead when it first ran and its disk was lost, or it never had one.
    seeds("lower numbers", 4, |seed| {
        let mut config = Config::lan();
        config.overlay.dial_target = 1;
        config.overlay.min_links = 1;
        let mut world = overlay(WorldConfig::new(seed, 4).node(config));
        world.set_record_seq(1, 1_000_000);
        world.crash(1, Disk::Kept);
        world.start(1);
        let known = |w: &World, seq: u64| [0, 2, 3].iter().all(|n| w.record_seq(*n, 1) > Some(seq));
        assert!(world.run_until(|w| known(w, 999_999), secs(120)), "{:?}", world.report());
        world.crash(1, Disk::Lost);
        world.run_for(secs(5));
        world.relocate(1);
        world.set_record_seq(1, 10);
        world.start(1);
        let found = |w: &World| known(w, 1_000_001);
        let place = [world.endpoint(1)];
        assert!(world.run_until(found, secs(180)), "{:?}", world.report());
        for node in [0, 2, 3] {
            assert_eq!(world.record_endpoints(node, 1), place, "node {node}");
        }
        world.assert_clean();
    });
}
