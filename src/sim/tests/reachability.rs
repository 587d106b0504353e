//! Who can be dialled, as nodes find out by asking each other: behind filters of each kind, among liars,
//! while addresses change.

use std::net::IpAddr;

use super::*;
use crate::config::Config;
use crate::types::{Counters, Endpoint, Reachability, TransportKind};

/// The `n`-th address: of public scope, and each in an address group of its own.
fn public(n: u8) -> IpAddr {
    IpAddr::from([50, n, 0, 1])
}

/// A configuration with few enough links for strangers to be found.
fn sparse() -> Config {
    let mut config = Config::lan();
    config.overlay.dial_target = 3;
    config.overlay.min_links = 3;
    config.discovery.min_healthy_peers = 3;
    config.liveness.interval = secs(15);
    config
}

/// Servers that listen on all addresses, and nodes behind filters after them.
fn servers(seed: u64, count: u8, filtered: &[Filter]) -> World {
    let all = vec![Filter::Open; usize::from(count)];
    let nodes = (1..).zip(all.iter().chain(filtered));
    let nodes = nodes.map(|(n, filter)| NodeOptions::learning(public(n), *filter));
    World::with_nodes(WorldConfig::new(seed, 0).node(sparse()), nodes.collect())
}

fn state(world: &World, node: usize) -> Reachability {
    world.protocol(node).expect("it runs").reachability().state
}

fn is_public(world: &World, node: usize) -> bool {
    state(world, node) == Reachability::Public(world.endpoint(node))
}

fn told(world: &World, node: usize) -> Vec<Endpoint> {
    let report = world.protocol(node).expect("it runs").reachability();
    report.advertised.iter().map(|text| text.parse().unwrap()).collect()
}

fn counters(world: &World, node: usize) -> Counters {
    world.protocol(node).expect("it runs").counters().clone()
}

/// States that the host of a node was told.
fn told_states(recorder: &Recorder, node: usize) -> Vec<Reachability> {
    recorder.of_node(node, |event| match event {
        Event::ReachabilityChanged { state } => Some(state.clone()),
        _ => None,
    })
}

/// Servers of a network, but for the first: it is linked with all, and so a stranger to none.
fn provable() -> std::ops::Range<usize> {
    1..20
}

/// Lets time pass until a network of servers knows that all of them can be dialled.
fn prove(world: &mut World) {
    let all = |w: &World| provable().all(|node| is_public(w, node));
    let proven = world.run_until_every(secs(1), all, secs(600));
    let states: Vec<_> = provable().map(|node| state(world, node)).collect();
    assert!(proven, "{states:?} {:?}", world.report().counters);
}

#[test]
fn plain_servers_are_proven_told_and_proven_anew() {
    seeds("plain servers", 4, |seed| {
        let mut world = servers(seed, 20, &[]);
        let recorder = Recorder::of(&mut world);
        prove(&mut world);
        let proven = |w: &World| counters(w, 3).addresses_proven;
        let before = proven(&world);
        world.run_for(secs(2400));
        for node in provable() {
            assert_eq!(told(&world, node), [world.endpoint(node)]);
            let known = provable().filter(|other| *other != node);
            let of = |other| world.record_endpoints(node, other);
            assert!(known.clone().all(|other| of(other) == [world.endpoint(other)]));
            // Where strangers are few, an answer may come late; nobody denies it.
            assert!(!told_states(&recorder, node).contains(&Reachability::Private), "node {node}");
        }
        // Forty minutes hold four times ten.
        assert!((3..=5).contains(&(proven(&world) - before)), "{}", proven(&world) - before);
        settle(&mut world, secs(30));
        // Nobody is asked for more than its pace allows.
        let minutes = world.now().as_secs() / 60 + 1;
        for node in 0..20 {
            let counts = counters(&world, node);
            assert!(counts.dial_backs_asked <= 3 * minutes, "{counts:?}");
            assert!(counts.dial_back_tasks_taken <= 8 * minutes, "{counts:?}");
        }
        let sum = world.report().counters;
        assert!(sum.dial_backs_seen <= sum.dial_back_tasks_taken, "{sum:?}");
        assert_eq!(sum.dial_backs_unasked, 0, "{sum:?}");
    });
}

#[test]
fn whom_only_its_own_peers_can_dial_is_private() {
    seeds("restricted", 6, |seed| {
        let mut world = servers(seed, 20, &[Filter::Restricted, Filter::Closed]);
        let (restricted, closed) = (20, 21);
        prove(&mut world);
        let is_private = |w: &World| {
            [restricted, closed].iter().all(|node| state(w, *node) == Reachability::Private)
        };
        let limit = secs(600);
        assert!(world.run_until_every(secs(1), is_private, limit), "{:?}", world.report());
        let peers: Vec<_> = (0..20).filter(|node| world.linked(*node, restricted)).collect();
        assert!(!peers.is_empty());
        assert!(peers.iter().any(|peer| world.lets_in(restricted, *peer)), "its peers could");
        for _ in 0..40 {
            world.run_for(secs(60));
            for node in [restricted, closed] {
                assert_eq!(told(&world, node), [], "{:?}", state(&world, node));
                assert!(!is_public(&world, node));
            }
        }
        settle(&mut world, secs(30));
    });
}

#[test]
fn liars_change_nothing() {
    // Who says that all were reached makes no filter open, and one who says that none were closes none.
    seeds("says reached", 4, |seed| {
        let mut world = servers(seed, 20, &[Filter::Restricted]);
        (1..20).for_each(|node| world.set_behaviour(node, Behaviour::SaysReached));
        for _ in 0..60 {
            world.run_for(secs(30));
            assert_eq!(told(&world, 20), []);
            assert!(!is_public(&world, 20));
        }
        world.assert_clean();
    });
    seeds("says failed", 4, |seed| {
        let mut world = servers(seed, 20, &[]);
        world.set_behaviour(3, Behaviour::SaysFailed);
        prove(&mut world);
        let recorder = Recorder::of(&mut world);
        world.run_for(secs(2400));
        for node in provable() {
            assert!(!told_states(&recorder, node).contains(&Reachability::Private), "node {node}");
            assert_eq!(told(&world, node), [world.endpoint(node)]);
        }
        world.assert_clean();
    });
}

#[test]
fn what_is_closed_later_is_found_out_and_told() {
    seeds("closed later", 4, |seed| {
        let mut world = servers(seed, 20, &[]);
        prove(&mut world);
        world.set_filter(5, Filter::Closed);
        let is_private = |w: &World| state(w, 5) == Reachability::Private && told(w, 5).is_empty();
        assert!(world.run_until_every(secs(1), is_private, secs(2400)), "{:?}", state(&world, 5));
        world.set_filter(5, Filter::Open);
        let is_back = |w: &World| is_public(w, 5) && told(w, 5) == [w.endpoint(5)];
        assert!(world.run_until_every(secs(1), is_back, secs(1200)), "{:?}", state(&world, 5));
        settle(&mut world, secs(30));
    });
}

#[test]
fn an_address_that_changes_is_asked_about_at_once() {
    seeds("roams", 4, |seed| {
        let mut world = servers(seed, 20, &[]);
        prove(&mut world);
        world.run_for(secs(120));
        world.readdress(5, public(99));
        // Who was linked with it until the move is no stranger for ten minutes, and in a small network that may
        // be all whom others could send; rounds in vain are at last ten minutes apart.
        let moved = |w: &World| is_public(w, 5);
        assert!(world.run_until_every(secs(1), moved, secs(1300)), "{:?}", state(&world, 5));
        let only_there = |w: &World| told(w, 5) == [w.endpoint(5)];
        assert!(world.run_until_every(secs(1), only_there, secs(420)), "{:?}", told(&world, 5));
        settle(&mut world, secs(30));
    });
}

#[test]
fn two_nodes_of_one_site_tell_each_other_where_they_are() {
    seeds("two of a site", 4, |seed| {
        let site = |n: u8| NodeOptions::learning(IpAddr::from([192, 168, 1, n]), Filter::Open);
        let config = WorldConfig::new(seed, 0).node(Config::lan());
        let mut world = World::with_nodes(config, vec![site(1), site(2)]);
        let limit = secs(10);
        let known = |w: &World| w.record_endpoints(0, 1) == [w.endpoint(1)];
        assert!(world.run_until(known, limit), "{:?}", world.report());
        assert_eq!(state(&world, 1), Reachability::Unknown, "nobody else is there");
        // The first one comes back and finds the other by itself.
        world.crash(0, Disk::Kept);
        world.obstruct(Some(1), Some(0), TransportKind::Memory, Some(Obstacle::Refuses));
        world.run_for(secs(1));
        world.start(0);
        assert!(world.run_until(World::is_connected, secs(60)), "{:?}", world.report());
        world.publish_random(0, 100);
        settle(&mut world, secs(30));
    });
}

#[test]
fn a_small_network_that_has_no_strangers_left_keeps_what_was_proven() {
    // Each is linked with each, so nobody is left to dial, and nobody denies what was proven.
    seeds("small network", 2, |seed| {
        let mut world = servers(seed, 4, &[]);
        world.run_for(secs(3600));
        let told = (1..4).filter(|node| told(&world, *node) == [world.endpoint(*node)]).count();
        assert!(told >= 2, "{told}: {:?}", world.report().counters);
        world.assert_clean();
    });
}

#[test]
fn who_cannot_be_dialled_finds_room_among_those_who_can() {
    seeds("room for private nodes", 2, |seed| {
        let mut hub = Config::lan();
        (hub.overlay.max_inbound, hub.overlay.dial_target, hub.overlay.min_links) = (8, 1, 1);
        let mut others = Config::lan();
        (others.overlay.dial_target, others.overlay.min_links) = (1, 1);
        let mut nodes = vec![NodeOptions::with_config(hub)];
        nodes.extend(vec![NodeOptions::with_config(others.clone()); 12]);
        let mut world = World::with_nodes(WorldConfig::new(seed, 0), nodes);
        assert!(world.run_until(|w| w.links(0) >= 8, secs(120)), "{}", world.links(0));
        world.run_for(secs(60));
        let hidden = || NodeOptions { config: Some(others.clone()), ..NodeOptions::hidden() };
        let private: Vec<_> = (0..6).map(|_| world.add_node(hidden())).collect();
        let linked = |w: &World| private.iter().filter(|node| w.linked(0, **node)).count();
        let all_in = |w: &World| linked(w) == 6;
        assert!(world.run_until_every(secs(1), all_in, secs(300)), "{}", linked(&world));
        // And stay, whoever else knocks.
        let (mut seconds, mut least) = (0, 6);
        for _ in 0..300 {
            world.run_for(secs(1));
            seconds += linked(&world);
            least = least.min(linked(&world));
        }
        assert!(seconds >= 300 * 6 * 9 / 10, "{seconds}, at least {least}");
        settle(&mut world, secs(60));
    });
}
