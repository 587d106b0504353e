//! Topics: an edge gets what it or somebody behind it wants, and nothing else; and whatever relays
//! do, what is wanted arrives.

use std::collections::BTreeSet;

use super::*;
use crate::config::{Config, Role};
use crate::types::{Counters, TransactionId};

/// Payload bytes of one small transaction.
const SIZE: usize = 400;

pub(super) fn edge() -> NodeOptions {
    let mut config = Config::lan();
    config.gossip.role = Role::Edge;
    NodeOptions::with_config(config)
}

fn relays(count: usize) -> Vec<NodeOptions> {
    vec![NodeOptions::default(); count]
}

fn edges(count: usize) -> Vec<NodeOptions> {
    vec![edge(); count]
}

/// A world whose edges subscribe, each to the topics in turn, and that has come together.
fn world(config: WorldConfig, nodes: Vec<NodeOptions>, topics: &[&[&str]]) -> World {
    let first = nodes.iter().position(|n| n.config.is_some()).unwrap_or(nodes.len());
    let mut world = World::with_nodes(config, nodes);
    for node in first..world.len() {
        world.subscribe(node, Some(topics[(node - first) % topics.len()]));
    }
    assert!(world.run_until(World::is_connected, secs(60)), "{:?}", world.report());
    world.run_for(secs(10));
    world
}

/// Nodes that are linked like this and never in another way.
fn linked(seed: u64, nodes: Vec<NodeOptions>, links: &[(usize, usize)]) -> World {
    let mut world = apart(seed, nodes, links);
    for (from, to) in links {
        world.connect(*from, *to);
    }
    let all = |w: &World| links.iter().all(|(a, b)| w.linked(*a, *b));
    assert!(world.run_until(all, secs(5)));
    world
}

/// Nodes that may be linked like this and in no other way, and are not yet.
fn apart(seed: u64, nodes: Vec<NodeOptions>, links: &[(usize, usize)]) -> World {
    allowed(WorldConfig::new(seed, 0), nodes, links)
}

/// Publishes to topics in turn, from nodes in turn.
fn publish(world: &mut World, nodes: &[usize], topics: &[&str], count: usize) -> Vec<Published> {
    let each = |n: usize| {
        // Every node publishes to every topic.
        let (node, topic) = (nodes[n % nodes.len()], topics[n / nodes.len() % topics.len()]);
        let mut payload = vec![0; SIZE];
        payload[..8].copy_from_slice(&(n as u64).to_le_bytes());
        let id = world.publish(node, topic, &payload);
        world.run_for(millis(7));
        Published { id, node, topic: topic.to_owned() }
    };
    (0..count).map(each).collect()
}

struct Published {
    id: TransactionId,
    node: usize,
    topic: String,
}

fn counters(world: &World, node: usize) -> Counters {
    world.protocol(node).expect("a running node").counters().clone()
}

fn stats(world: &World, node: usize) -> crate::types::Stats {
    world.protocol(node).expect("a running node").stats()
}

/// Demands that a node holds what it published and what is of these topics, and nothing else.
#[track_caller]
fn assert_holds(world: &World, node: usize, topics: &[&str], all: &[Published]) {
    for p in all {
        let wanted = topics.contains(&p.topic.as_str()) || p.node == node;
        let holds = world.holds(node, &p.id);
        assert_eq!(holds, wanted, "node {node}, {:?} of {} by {}", p.topic, p.id, p.node);
    }
}

#[test]
fn edges_get_their_topics_and_nothing_else() {
    seeds("relays and edges", 6, |seed| {
        let nodes = [relays(3), edges(6)].concat();
        let topics: [&[&str]; 3] = [&["a"], &["b"], &["a", "c"]];
        let mut world = world(WorldConfig::new(seed, 0), nodes, &topics);
        let everybody: Vec<_> = (0..9).collect();
        let all = publish(&mut world, &everybody, &["a", "b", "c", "d"], 180);
        settle(&mut world, secs(30));
        for node in 3..9 {
            let wanted = topics[(node - 3) % 3];
            assert_holds(&world, node, wanted, &all);
            let c = counters(&world, node);
            assert_eq!(c.refused_unwanted, 0, "nothing else was even sent");
            assert_eq!(stats(&world, node).topics_carried as usize, wanted.len());
        }
    });
}

#[test]
fn many_edges_cost_relays_what_they_want_and_no_more() {
    seeds("many edges", 1, |seed| {
        let nodes = [relays(5), edges(40)].concat();
        let topics: [&[&str]; 4] = [&["a"], &["b"], &["c"], &["d"]];
        let config = WorldConfig::new(seed, 0).verification(Verification::Trusted);
        let mut world = world(config, nodes, &topics);
        let publishers = [0, 1, 5, 6, 7, 8];
        // Links learn where pushing pays.
        publish(&mut world, &publishers, &["a", "b", "c", "d", "e"], 900);
        settle(&mut world, secs(30));
        let before: Vec<_> = (5..45).map(|n| counters(&world, n)).collect();
        let all = publish(&mut world, &publishers, &["a", "b", "c", "d", "e"], 900);
        settle(&mut world, secs(30));
        let (mut received, mut wanted) = (0, 0);
        for node in 5..45 {
            assert_holds(&world, node, topics[(node - 5) % 4], &all);
            let c = counters(&world, node);
            assert_eq!(c.refused_unwanted, 0, "{c:?}");
            let before = &before[node - 5];
            received += c.payload_bytes_received - before.payload_bytes_received;
            wanted += (c.transactions_accepted - before.transactions_accepted) * SIZE as u64;
        }
        println!("seed {seed}: {received} payload bytes for {wanted}");
        assert!(received * 100 <= wanted * 105, "{received} for {wanted}");
        for relay in 0..5 {
            let linked = (0..5).filter(|other| world.linked(relay, *other)).count();
            assert_eq!(linked, 4, "relays keep together");
        }
    });
}

#[test]
fn what_those_behind_want_and_publish_passes_through() {
    seeds("chain", 6, |seed| {
        // 0 is the relay; 4 is a second relay that hears of the chain through it.
        let nodes = [relays(1), edges(3), relays(1)].concat();
        let mut world = linked(seed, nodes, &[(1, 0), (2, 1), (3, 2), (4, 0)]);
        for (node, topics) in [(1, ["one"]), (2, ["two"]), (3, ["three"])] {
            world.subscribe(node, Some(&topics));
        }
        world.run_for(secs(10));
        let depths: Vec<_> = [1, 2, 3].map(|n| stats(&world, n).topics_carried).into();
        assert_eq!(depths, [3, 2, 1], "own topics and those behind");
        let everybody: Vec<_> = (0..5).collect();
        let all = publish(&mut world, &everybody, &["one", "two", "three", "else"], 60);
        settle(&mut world, secs(30));
        for relay in [0, 4] {
            assert!(all.iter().all(|p| world.holds(relay, &p.id)), "{:?}", world.report());
        }
        assert_holds(&world, 3, &["three"], &all);
        // What comes from behind is only passed on.
        let foreign = |p: &&Published| p.topic == "else" && [0, 4].contains(&p.node);
        assert!(all.iter().filter(foreign).all(|p| !world.holds(1, &p.id)));
        assert_eq!(world.report().counters.refused_unwanted, 0);
        // The end of the chain wants something else: so does all of it.
        world.subscribe(3, Some(&["else"]));
        settle(&mut world, secs(30));
        world.run_for(secs(5));
        assert_eq!(stats(&world, 1).topics_carried, 3);
        for p in all.iter().filter(|p| p.topic == "else") {
            assert_eq!(world.holders(&p.id), 5, "{} by {}", p.id, p.node);
        }
    });
}

#[test]
fn edges_alone_are_as_good_as_relays() {
    seeds("edges only", 6, |seed| {
        let topics: [&[&str]; 3] = [&["a"], &["b"], &["c"]];
        let mut world = world(WorldConfig::new(seed, 0), edges(7), &topics);
        let everybody: Vec<_> = (0..7).collect();
        let all = publish(&mut world, &everybody, &["a", "b", "c", "d"], 84);
        settle(&mut world, secs(30));
        let stand_in = |node: &usize| stats(&world, *node).stands_in;
        let (some, rest): (Vec<_>, Vec<_>) = everybody.iter().copied().partition(stand_in);
        assert!(!some.is_empty() && some.len() < 7, "{some:?} stand in");
        for node in some {
            assert!(all.iter().all(|p| world.holds(node, &p.id)));
        }
        println!("seed {seed}: {} of 7 do not stand in", rest.len());
    });
}

#[test]
fn who_stood_in_steps_down_for_a_relay() {
    seeds("stepping down", 4, |seed| {
        let topics: [&[&str]; 2] = [&["a"], &["b"]];
        let mut world = world(WorldConfig::new(seed, 0), edges(4), &topics);
        let all = publish(&mut world, &[0, 1, 2, 3], &["a", "b", "c"], 36);
        settle(&mut world, secs(30));
        let relay = world.add_node(NodeOptions::default());
        settle(&mut world, secs(60));
        world.run_for(secs(5));
        assert!(all.iter().all(|p| world.holds(relay, &p.id)), "{:?}", world.report());
        assert!((0..4).all(|node| !stats(&world, node).stands_in));
        assert!((0..4).all(|node| stats(&world, node).topics_carried <= 2));
    });
}

#[test]
fn a_relay_that_dies_is_replaced_and_nothing_is_missed() {
    seeds("relay crashes", 6, |seed| {
        let nodes = [relays(2), edges(5)].concat();
        let topics: [&[&str]; 2] = [&["a"], &["b"]];
        let mut world = world(WorldConfig::new(seed, 0), nodes, &topics);
        let mut all = publish(&mut world, &[2, 3, 4, 5, 6], &["a", "b", "c"], 30);
        world.vanish(0, Disk::Kept);
        all.extend(publish(&mut world, &[2, 3, 4, 5, 6], &["a", "b", "c"], 30));
        world.run_for(secs(20));
        // And the other one: what is left stands in.
        world.crash(1, Disk::Lost);
        all.extend(publish(&mut world, &[2, 3, 4, 5, 6], &["a", "b", "c"], 30));
        world.run_for(secs(20));
        settle(&mut world, secs(60));
        assert!((2..7).any(|node| stats(&world, node).stands_in));
        world.start(0);
        world.start(1);
        settle(&mut world, secs(90));
        world.run_for(secs(10));
        for relay in [0, 1] {
            assert!(all.iter().all(|p| world.holds(relay, &p.id)), "{:?}", world.report());
        }
        assert!((2..7).all(|node| !stats(&world, node).stands_in), "relays are back");
    });
}

#[test]
fn who_subscribes_late_gets_all_that_is_retained() {
    seeds("late subscription", 6, |seed| {
        let nodes = [relays(2), edges(3)].concat();
        let mut world = world(WorldConfig::new(seed, 0), nodes, &[&["a"]]);
        let all = publish(&mut world, &[0, 1, 2, 3, 4], &["a", "b", "c"], 1200);
        settle(&mut world, secs(30));
        assert_holds(&world, 4, &["a"], &all);
        let before = counters(&world, 4);
        world.subscribe(4, Some(&["a", "b"]));
        settle(&mut world, secs(20));
        assert_holds(&world, 4, &["a", "b"], &all);
        let after = counters(&world, 4);
        let missing = all.iter().filter(|p| p.topic == "b" && p.node != 4).count() * SIZE;
        let bytes = after.payload_bytes_received - before.payload_bytes_received;
        assert_eq!(bytes, missing as u64, "each once");
        // No more of it afterwards.
        world.subscribe(4, Some(&[]));
        world.run_for(secs(5));
        let more = publish(&mut world, &[0, 1, 2, 3], &["a", "b", "c"], 60);
        settle(&mut world, secs(20));
        assert_holds(&world, 4, &[], &more);
        world.subscribe(4, None);
        settle(&mut world, secs(20));
        assert!(all.iter().chain(&more).all(|p| world.holds(4, &p.id)));
    });
}

#[test]
fn an_island_of_edges_gives_what_it_published_when_it_is_no_more() {
    seeds("partition of edges", 4, |seed| {
        let nodes = [relays(3), edges(6)].concat();
        let topics: [&[&str]; 3] = [&["a"], &["b"], &["c"]];
        let mut world = world(WorldConfig::new(seed, 0), nodes, &topics);
        world.partition(&[vec![0, 1, 2, 3, 4, 5], vec![6, 7, 8]]);
        world.run_for(secs(20));
        let everybody: Vec<_> = (0..9).collect();
        let all = publish(&mut world, &everybody, &["a", "b", "c", "d"], 180);
        world.run_for(secs(20));
        world.heal();
        assert!(world.run_until(World::is_connected, secs(60)), "{:?}", world.report());
        settle(&mut world, secs(60));
        for node in 0..3 {
            assert!(all.iter().all(|p| world.holds(node, &p.id)));
        }
    });
}

#[test]
fn a_restarted_edge_knows_the_topics_of_what_it_has() {
    seeds("restarted edge", 4, |seed| {
        let nodes = [relays(2), edges(2)].concat();
        let mut world = world(WorldConfig::new(seed, 0), nodes, &[&["a"], &["b"]]);
        let mut all = publish(&mut world, &[0, 1, 2, 3], &["a", "b", "c"], 300);
        settle(&mut world, secs(20));
        world.crash(2, Disk::Kept);
        let before = all.len();
        all.extend(publish(&mut world, &[0, 1, 3], &["a", "b", "c"], 30));
        let missed = all[before..].iter().filter(|p| p.topic == "a").count();
        world.start(2);
        settle(&mut world, secs(30));
        assert_holds(&world, 2, &["a"], &all);
        let c = counters(&world, 2);
        assert_eq!(c.payload_bytes_received, (missed * SIZE) as u64, "what it missed of its topic");
        assert_eq!(c.reconcile_failed, 0, "{c:?}");
    });
}

#[test]
fn large_payloads_keep_to_their_topics() {
    seeds("large, topics", 3, |seed| {
        let nodes = [relays(2), edges(4)].concat();
        let mut world = world(WorldConfig::new(seed, 0), nodes, &[&["a"], &["b"]]);
        let payload = |n: u8| vec![n; 300_000];
        let mut all = Vec::new();
        for (n, (node, topic)) in [(0, "a"), (2, "b"), (3, "a"), (5, "c")].into_iter().enumerate() {
            let id = world.publish(node, topic, &payload(u8::try_from(n).unwrap()));
            all.push(Published { id, node, topic: topic.to_owned() });
            world.run_for(millis(300));
        }
        settle(&mut world, secs(30));
        for node in 2..6 {
            assert_holds(&world, node, [["a"], ["b"]][node % 2].as_slice(), &all);
            assert_eq!(counters(&world, node).refused_unwanted, 0);
        }
        assert!([0, 1].iter().all(|relay| all.iter().all(|p| world.holds(*relay, &p.id))));
        // A late subscriber of large ones.
        world.subscribe(2, Some(&["a", "b", "c"]));
        settle(&mut world, secs(30));
    });
}

#[test]
fn nothing_wanted_is_missed_under_loss_and_churn() {
    for (name, loss) in [
        ("resets", Loss::resets(3000)),
        ("vanished frames", Loss { drop: 30_000, ..Loss::default() }),
        ("vanished messages", Loss::messages(5)),
    ] {
        seeds(&format!("topics, {name}"), 3, |seed| {
            let nodes = [relays(3), edges(6)].concat();
            let topics: [&[&str]; 3] = [&["a"], &["b"], &["a", "c"]];
            let mut world = world(WorldConfig::new(seed, 0), nodes, &topics);
            world.set_loss(loss);
            let everybody: Vec<_> = (0..9).collect();
            let mut all = publish(&mut world, &everybody, &["a", "b", "c", "d"], 90);
            world.crash(1, Disk::Lost);
            world.vanish(4, Disk::Kept);
            world.subscribe(5, Some(&["b"]));
            all.extend(publish(&mut world, &[0, 2, 3, 5, 6], &["a", "b", "c", "d"], 90));
            world.start(1);
            world.start(4);
            world.run_for(secs(5));
            world.set_loss(Loss::default());
            settle(&mut world, secs(90));
            // What only the lost disk had is gone.
            let kept = || all.iter().filter(|p| world.holders(&p.id) > 0);
            assert!(kept().count() > all.len() - 5);
            for relay in 0..3 {
                assert!(kept().all(|p| world.holds(relay, &p.id)), "{:?}", world.report());
            }
        });
    }
}

#[test]
fn relays_that_only_edges_link_find_each_other() {
    seeds("relays apart", 4, |seed| {
        let nodes = [relays(2), edges(12)].concat();
        let config = WorldConfig::new(seed, 0).topology(Topology::Empty);
        let mut world = World::with_nodes(config, nodes);
        for edge in 2..14 {
            world.subscribe(edge, Some(&["a"]));
            world.connect(edge, edge % 2);
            if edge < 5 {
                world.connect(edge, (edge + 1) % 2);
            }
        }
        let found = |w: &World| w.linked(0, 1);
        assert!(world.run_until(found, secs(60)), "{:?}", world.report());
        let all = publish(&mut world, &[0, 1, 2, 13], &["a", "b"], 40);
        settle(&mut world, secs(60));
        assert!([0, 1].iter().all(|relay| all.iter().all(|p| world.holds(*relay, &p.id))));
    });
}

#[test]
fn more_topics_than_can_be_said_are_everything() {
    let nodes = [relays(1), edges(1)].concat();
    let mut world = world(WorldConfig::new(1, 0), nodes, &[&["a"]]);
    let names: Vec<String> = (0..257).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.subscribe(1, Some(&names[..256]));
    world.run_for(secs(3));
    assert_eq!(stats(&world, 1).topics_carried, 256);
    let id = world.publish(0, "else", b"x");
    world.subscribe(1, Some(&names));
    world.run_for(secs(5));
    assert!(stats(&world, 1).carries_all && !stats(&world, 1).stands_in);
    assert!(world.holds(1, &id));
    world.assert_clean();
}

/// More than may be announced at once, some of it of no topic that the peer wants at first.
#[test]
fn a_replay_takes_in_what_a_peer_comes_to_take_meanwhile() {
    const COUNT: usize = 7200;
    seeds("replay on a new way up", 4, |seed| {
        let nodes = [edges(2), relays(1)].concat();
        let mut world = apart(seed, nodes, &[(0, 1), (1, 2)]);
        world.subscribe(1, Some(&["a"]));
        world.run_for(secs(1));
        let is_wanted = |n: usize| !n.is_multiple_of(6);
        let each = |n| world.publish(0, if is_wanted(n) { "a" } else { "b" }, &n.to_le_bytes());
        let all: Vec<_> = (0..COUNT).map(each).collect();
        world.run_for(secs(12));
        world.connect(0, 1);
        let has = |w: &World, node: usize| all.iter().filter(|id| w.holds(node, id)).count();
        assert!(world.run_until(|w| w.linked(0, 1), secs(5)));
        world.connect(1, 2);
        assert!(world.run_until(|w| w.linked(1, 2), secs(5)));
        assert!(has(&world, 1) < COUNT / 4, "its window has not come to the end");
        // Sooner than anything is offered again.
        world.run_for(millis(4500));
        assert_eq!((has(&world, 1), has(&world, 2)), (COUNT, COUNT));
        settle(&mut world, secs(60));
        let wanted = || all.iter().enumerate().filter(|(n, _)| is_wanted(*n)).map(|(_, id)| id);
        let ids: BTreeSet<_> = wanted().collect();
        let arrived = world.deliveries(1).iter().map(|d| &d.id).filter(|id| ids.contains(id));
        assert!(arrived.eq(wanted()), "in order");
        assert_eq!(counters(&world, 1).payloads_received, COUNT as u64, "each once");
    });
}

#[test]
fn an_edge_that_knows_nobody_publishes_all_the_same() {
    let mut world = World::with_nodes(
        WorldConfig::new(1, 0).topology(Topology::Empty),
        [edges(1), relays(1)].concat(),
    );
    let ids: Vec<_> = (0..20u8).map(|n| world.publish(0, "t", &[n])).collect();
    world.run_for(secs(60));
    assert_eq!((world.outbox(0), stats(&world, 0).dead_letters), (20, 0));
    assert!(!stats(&world, 0).stands_in, "nobody is there to stand in for");
    world.connect(0, 1);
    settle(&mut world, secs(10));
    assert!(ids.iter().all(|id| world.holds(1, id)));
    assert_eq!(world.outbox(0), 0, "one copy is all that can be had");
}
