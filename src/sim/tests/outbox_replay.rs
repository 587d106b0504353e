//! An origin that was alone comes back: everything arrives in the order of publishing.

use super::*;
use crate::types::TransactionId;

/// Way in which an origin comes back.
#[derive(Debug, Clone, Copy)]
struct Return {
    peers: usize,
    /// True: the process ended, and payloads are in the store only.
    crashed: bool,
    /// Long enough for its transactions to count as late.
    away: Duration,
}

/// Latency with which all links of an origin come up before its first neighbour passes anything on.
/// What is had of neighbours before has no order where large ones or pushes are among it.
const SAME: Latency = Latency::Fixed(millis(20));

/// Node 0 publishes while it is alone, bursts within a millisecond; the others are linked with each
/// other, apart from it, at different distances.
fn alone(
    seed: u64,
    back: Return,
    latency: Latency,
    sizes: impl Iterator<Item = usize>,
) -> (World, Vec<TransactionId>) {
    alone_as(NodeOptions::default(), seed, back, latency, sizes)
}

/// The same, with a node 0 of some kind.
fn alone_as(
    origin: NodeOptions,
    seed: u64,
    back: Return,
    latency: Latency,
    sizes: impl Iterator<Item = usize>,
) -> (World, Vec<TransactionId>) {
    let config = WorldConfig::new(seed, 0).topology(Topology::Empty).latency(latency);
    let nodes = [vec![origin], vec![NodeOptions::default(); back.peers]].concat();
    let mut world = World::with_nodes(config, nodes);
    for (a, b) in (1..=back.peers).flat_map(|a| (1..a).map(move |b| (a, b))) {
        world.connect(a, b);
    }
    world.run_for(secs(3));
    let mut published = Vec::new();
    for (n, size) in sizes.enumerate() {
        published.push(world.publish_random(0, size));
        if n % 40 == 39 {
            world.run_for(millis(3));
        }
    }
    // Stored one after the other.
    world.run_for(millis(published.len() as u64) + back.away);
    if back.crashed {
        world.crash(0, Disk::Kept);
        world.start(0);
    }
    (world, published)
}

/// Links it with everybody, dialling and dialled.
fn meet(world: &mut World, peers: usize) {
    for peer in 1..=peers {
        let (from, to) = if peer % 2 == 0 { (peer, 0) } else { (0, peer) };
        world.connect(from, to);
        world.run_for(millis(2));
    }
}

/// Everybody has what node 0 accepted, in the same order.
fn assert_ordered(world: &World, least: usize) {
    let of = |n| world.deliveries(n).iter().map(|delivery| delivery.id).collect::<Vec<_>>();
    let accepted = of(0);
    assert!(accepted.len() >= least, "{} of {least} accepted", accepted.len());
    for peer in 1..world.len() {
        let arrived = of(peer);
        let wrong = arrived.iter().zip(&accepted).position(|(a, b)| a != b);
        assert_eq!((arrived.len(), wrong), (accepted.len(), None), "at node {peer}");
    }
}

fn every_return(scenario: &str, count: u64, run: impl Fn(u64, Return)) {
    seeds(scenario, count, |seed| {
        for (peers, crashed) in [(2, true), (2, false), (5, true)] {
            for away in [millis(10), secs(5)] {
                run(seed, Return { peers, crashed, away });
            }
        }
    });
}

/// Found by the `offline` example: what one of the peers has is fetched from it by the other one,
/// and overtakes what its origin is about to send.
#[test]
fn a_replay_arrives_in_order_at_every_peer_of_its_origin() {
    every_return("replay", 3, |seed, back| {
        let (mut world, published) = alone(seed, back, Latency::Regions, (0..400).map(|n| 200 + n));
        meet(&mut world, back.peers);
        settle(&mut world, secs(60));
        assert_ordered(&world, published.len());
        assert_eq!(world.outbox(0), 0);
        let received: u64 = (1..world.len())
            .map(|n| world.protocol(n).unwrap().counters().payload_bytes_received)
            .sum();
        let once: u64 = (0..400u64).map(|n| 200 + n).sum::<u64>() * back.peers as u64;
        assert!(received <= once * 115 / 100, "{received} bytes for {once}, {back:?}");
    });
}

/// An edge does not want what it publishes, which goes up to relays for that alone.
#[test]
fn the_replay_of_an_edge_arrives_in_order_at_relays() {
    every_return("replay of an edge", 2, |seed, back| {
        let sizes = (0..400).map(|n| 200 + n);
        let (mut world, published) =
            alone_as(super::topics::edge(), seed, back, Latency::Regions, sizes);
        meet(&mut world, back.peers);
        settle(&mut world, secs(60));
        assert_ordered(&world, published.len());
        assert_eq!(world.outbox(0), 0);
        let c = world.protocol(0).unwrap().counters();
        let once = 400 * c.links_opened;
        assert!(c.announcements_sent <= once, "{} for {once}, {back:?}", c.announcements_sent);
    });
}

#[test]
fn a_large_one_keeps_its_place_in_a_replay() {
    every_return("replay with a large one", 2, |seed, back| {
        let sizes = (0..200).map(|n| if n == 50 || n == 120 { 400_000 } else { 300 });
        let (mut world, published) = alone(seed, back, SAME, sizes);
        meet(&mut world, back.peers);
        settle(&mut world, secs(60));
        assert_ordered(&world, published.len());
    });
}

#[test]
fn what_is_published_during_a_replay_comes_after_it() {
    every_return("replay and publish", 2, |seed, back| {
        let (mut world, mut published) = alone(seed, back, SAME, (0..300).map(|_| 500));
        meet(&mut world, back.peers);
        for _ in 0..100 {
            published.push(world.publish_random(0, 500));
            world.run_for(millis(5));
        }
        settle(&mut world, secs(60));
        assert_ordered(&world, published.len());
    });
}

#[test]
fn a_replay_goes_on_in_order_after_its_link_broke() {
    every_return("broken replay", 2, |seed, back| {
        let (mut world, published) = alone(seed, back, SAME, (0..400).map(|_| 500));
        for _ in 0..3 {
            meet(&mut world, back.peers);
            world.run_for(millis(250));
            for peer in 1..=back.peers {
                world.reset_link(0, peer);
            }
            world.run_for(millis(200));
        }
        meet(&mut world, back.peers);
        settle(&mut world, secs(60));
        assert_ordered(&world, published.len());
    });
}

/// More than may be announced at once.
#[test]
fn a_replay_longer_than_its_window_arrives_in_order() {
    seeds("long replay", 1, |seed| {
        let back = Return { peers: 2, crashed: true, away: secs(5) };
        let (mut world, published) = alone(seed, back, Latency::Regions, (0..10_000).map(|_| 40));
        meet(&mut world, back.peers);
        settle(&mut world, secs(60));
        assert_ordered(&world, published.len());
    });
}

/// Nobody hears that its links are gone: what others have of its replay waits for a while only.
#[test]
fn an_origin_that_stalls_in_its_replay_keeps_nothing_back_for_long() {
    seeds("stalled replay", 3, |seed| {
        let back = Return { peers: 3, crashed: true, away: secs(5) };
        let (mut world, published) = alone(seed, back, Latency::Regions, (0..300).map(|_| 500));
        meet(&mut world, 3);
        let holders = |w: &World, n: usize| published.iter().filter(|id| w.holds(n, id)).count();
        assert!(world.run_until(|w| (1..4).any(|n| holders(w, n) > 50), secs(5)));
        world.vanish(0, Disk::Kept);
        let early = published.iter().filter(|id| (1..4).any(|n| world.holds(n, id))).count();
        assert!(early < 300, "it was too quick");
        world.run_for(secs(10));
        let here = [1, 2, 3].map(|n| holders(&world, n));
        assert!(here[0] >= early && here == [here[0]; 3], "{here:?} of {early}");
    });
}

/// A large one is the first and never completes.
#[test]
fn what_waits_for_its_turn_is_taken_when_its_origin_does_not_come_back() {
    seeds("origin lost in its replay", 4, |seed| {
        let back = Return { peers: 2, crashed: true, away: secs(5) };
        let sizes = (0..100).map(|n| if n == 0 { 4_000_000 } else { 300 });
        let (mut world, published) = alone(seed, back, SAME, sizes);
        world.throttle(0, Some(1_000_000), None);
        meet(&mut world, 2);
        world.run_for(secs(2));
        let of = |w: &World, n: usize| published[1..].iter().filter(|id| w.holds(n, id)).count();
        let held = [1, 2].map(|n| world.protocol(n).unwrap().counters().replay_deferred);
        assert!(held.iter().any(|held| *held > 50), "{held:?}");
        assert_eq!([1, 2].map(|n| of(&world, n)), [0, 0], "they wait");
        world.crash(0, Disk::Kept);
        world.run_for(secs(10));
        assert_eq!([1, 2].map(|n| of(&world, n)), [99, 99]);
        world.assert_clean();
    });
}

#[test]
fn what_is_published_while_a_link_comes_up_keeps_its_order() {
    // What came between the two hellos was announced, and overtaken by what was pushed after it.
    seeds("replay while a link comes up", 2, |seed| {
        for begin in (0..160).step_by(4) {
            let config = WorldConfig::new(seed, 2).topology(Topology::Empty).latency(SAME);
            let mut world = World::new(config);
            let (from, to) = if begin % 8 == 0 { (0, 1) } else { (1, 0) };
            world.connect(from, to);
            world.run_for(millis(begin));
            for _ in 0..200 {
                world.publish_random(0, 200);
                world.run_for(millis(1));
            }
            world.run_for(secs(5));
            assert_ordered(&world, 200);
        }
    });
}
