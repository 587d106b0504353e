//! What one peer lacks and another has: found, fetched once, and paid for once.

use super::*;
use crate::config::Config;
use crate::types::{Bound, Message, Range, RangeContent, Reconcile, TransactionId, WallTime};

/// A payload of 1 KiB as it travels: with header, signature and framing.
const WHOLE: u64 = 1024 + 240;

fn counters(world: &World, node: usize) -> crate::types::Counters {
    world.protocol(node).expect("a running node").counters().clone()
}

/// Publishes at `count` moments, from nodes in turn.
fn publish(world: &mut World, nodes: usize, count: usize, size: usize) -> Vec<TransactionId> {
    let each = |n| {
        let id = world.publish_random(n % nodes, size);
        world.run_for(millis(5));
        id
    };
    (0..count).map(each).collect()
}

#[test]
fn a_late_joiner_is_told_each_id_once_however_many_neighbours_it_has() {
    seeds("late joiner, bytes", 1, |seed| {
        let config = WorldConfig::new(seed, 9).verification(Verification::Trusted);
        let mut world = overlay(config.topology(Topology::Mesh));
        let count = 1500;
        publish(&mut world, 9, count, 1024);
        settle(&mut world, secs(20));
        let late = world.add_node(NodeOptions::default());
        settle(&mut world, secs(30));
        assert!(world.links(late) >= 8, "{} links", world.links(late));
        assert_eq!(world.deliveries(late).len(), count);
        let c = counters(&world, late);
        let missing = count as u64;
        assert_eq!(c.payload_bytes_received, missing * 1024, "each payload once");
        assert!(c.reconcile_bytes_received < missing * 45, "{}", c.reconcile_bytes_received);
        let received = c.frame_bytes_received;
        assert!(received * 10 < missing * WHOLE * 11, "{received} for {}", missing * WHOLE);
    });
}

#[test]
fn a_late_joiner_whose_first_neighbour_never_serves_turns_to_the_next() {
    seeds("late joiner, staller", 3, |seed| {
        let mut nodes = vec![NodeOptions::default(); 3];
        nodes.push(NodeOptions::misbehaving(Behaviour::Stalling));
        let config = WorldConfig::new(seed, 0).topology(Topology::Empty);
        let mut world = World::with_nodes(config, nodes);
        for (a, b) in [(0, 1), (1, 2), (0, 2), (3, 0), (3, 1)] {
            world.connect(a, b);
        }
        world.run_for(secs(2));
        publish(&mut world, 3, 100, 400);
        world.run_for(secs(5));
        let late = world.add_node(NodeOptions::default());
        world.connect(late, 3);
        world.run_for(secs(1));
        world.connect(late, 0);
        world.run_for(secs(20));
        assert_eq!(world.deliveries(late).len(), 100, "{:?}", world.report());
        world.assert_clean();
    });
}

/// Bytes of a list of 400 ids.
const LISTED: u64 = 400 * 36;

#[test]
fn halves_that_were_apart_exchange_what_each_missed_and_no_more() {
    seeds("partition, bytes", 2, |seed| {
        let config = WorldConfig::new(seed, 8).verification(Verification::Trusted);
        let mut world = overlay(config.topology(Topology::Mesh));
        world.partition(&[vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
        // Until links across are given up.
        world.run_for(secs(20));
        publish(&mut world, 8, 800, 1024);
        world.run_for(secs(10));
        let before: Vec<_> = (0..8).map(|n| counters(&world, n)).collect();
        world.heal();
        assert!(world.run_until(World::is_connected, secs(60)), "{:?}", world.report());
        settle(&mut world, secs(30));
        let mut all = 0;
        for node in 0..8 {
            let (before, after) = (&before[node], counters(&world, node));
            let payload = after.payload_bytes_received - before.payload_bytes_received;
            assert!(payload <= 410 * 1024, "node {node}: {payload} bytes for 400 KiB");
            let frames = after.frame_bytes_received - before.frame_bytes_received;
            let found = after.reconcile_bytes_received - before.reconcile_bytes_received;
            println!("seed {seed} node {node}: {frames} bytes, {found} of them to find 400 ids");
            // Seed 33: two of the other half ask the same node while it asks a third, and each
            // sends its list.
            assert!(found < 4 * LISTED, "node {node}: {found} bytes to find 400 ids");
            all += found;
        }
        // What one node has fetched its neighbours hear of by announcements.
        assert!(all < 8 * LISTED * 3 / 2, "{all} bytes at all nodes to find 400 ids each");
    });
}

#[test]
fn a_restarted_node_fetches_what_its_disk_lacks() {
    for disk in [Disk::Kept, Disk::Lost] {
        seeds(&format!("restart, disk {disk:?}"), 2, |seed| {
            let config = WorldConfig::new(seed, 6).verification(Verification::Trusted);
            let mut world = overlay(config.topology(Topology::Mesh));
            publish(&mut world, 5, 1000, 1024);
            settle(&mut world, secs(10));
            world.crash(5, disk);
            world.run_for(secs(3));
            publish(&mut world, 5, 100, 1024);
            world.start(5);
            settle(&mut world, secs(30));
            let c = counters(&world, 5);
            let missing: u64 = if disk == Disk::Kept { 100 } else { 1100 };
            assert_eq!(c.payload_bytes_received, missing * 1024);
            // Seed 82: the link that had just listed all gave way to one dialled from the other
            // side.
            let lists = 1 + c.reconcile_broken_off;
            assert!(lists <= 2, "{c:?}");
            assert!(c.reconcile_bytes_received < 8000 + missing * 45 * lists, "{c:?}");
        });
    }
}

#[test]
fn a_slow_peer_is_skipped_and_repaid_and_others_are_not_slowed() {
    seeds("debt", 1, |seed| {
        let run = |slow: bool| {
            let mut node = Config::lan();
            // Slow, and not taken for dead.
            (node.liveness.interval, node.liveness.timeout) = (secs(30), secs(60));
            let config = WorldConfig::new(seed, 6).verification(Verification::Trusted).node(node);
            let mut world = overlay(config.topology(Topology::Mesh));
            if slow {
                world.throttle(5, Some(40_000), Some(40_000));
            }
            publish(&mut world, 5, 1200, 2048);
            world.run_for(millis(200));
            let late = (0..5).filter(|n| world.deliveries(*n).len() < 1200).count();
            assert_eq!(late, 0, "slowed down by the slow one");
            world
        };
        let p95 = run(false).report().latency_p95;
        let mut world = run(true);
        assert!(world.deliveries(5).len() < 300);
        let report = world.report();
        assert!(report.counters.debts_opened >= 3, "{:?}", report.counters);
        let skipped = |w: &World| {
            let links = w.protocol(0).expect("running").links();
            links.iter().any(|l| l.in_debt && l.peer == w.peer_id(5))
        };
        assert!(skipped(&world), "debt is shown");
        assert!(report.latency_p95 <= p95 * 11 / 10 || report.latency_p95 < p95 + millis(20));
        world.throttle(5, None, None);
        // What is on its way already travels at the old speed.
        settle(&mut world, secs(200));
        assert!(world.report().counters.debts_repaid >= 3, "{:?}", world.report().counters);
        assert_eq!(world.deliveries(5).len(), 1200);
    });
}

#[test]
fn a_peer_that_takes_nothing_is_disconnected_and_gets_everything_when_it_returns() {
    let config = WorldConfig::new(3, 4).verification(Verification::Trusted);
    let mut world = overlay(config.topology(Topology::Mesh));
    world.throttle(3, Some(10), Some(10));
    publish(&mut world, 3, 600, 2048);
    world.run_for(secs(120));
    let c = world.report().counters;
    assert!(c.links_closed_slow + c.links_closed_unresponsive > 0, "{c:?}");
    world.throttle(3, None, None);
    assert!(world.run_until(World::is_connected, secs(300)), "{:?}", world.report());
    settle(&mut world, secs(120));
    assert_eq!(world.deliveries(3).len(), 600);
}

#[test]
fn clocks_that_differ_agree_on_what_is_compared() {
    seeds("skewed repair", 2, |seed| {
        let skews = [0, 60_000, -60_000, 20_000, -20_000];
        let nodes = skews.map(NodeOptions::skewed).to_vec();
        let mut node = Config::lan();
        node.gossip.retention = secs(600);
        let config = WorldConfig::new(seed, 0).verification(Verification::Trusted).node(node);
        let mut world = World::with_nodes(config, nodes);
        world.run_for(secs(10));
        publish(&mut world, 5, 500, 300);
        settle(&mut world, secs(20));
        world.add_node(NodeOptions::skewed(50_000));
        let late = world.add_node(NodeOptions::skewed(-50_000));
        settle(&mut world, secs(30));
        assert_eq!(world.deliveries(late).len(), 500);
        // Nothing goes to and fro afterwards, also when all of it expires here and not yet there.
        world.run_for(secs(130));
        let wants = world.report().counters.wants_sent;
        world.run_for(secs(500));
        assert_eq!(world.report().counters.wants_sent, wants);
        world.run_for(secs(300));
        assert_eq!(world.report().counters.wants_sent, wants);
        assert_eq!(world.protocol(0).map(|p| p.stats().retained), Some(0));
        world.assert_clean();
    });
}

#[test]
fn retentions_that_differ_do_not_refetch_what_is_gone() {
    let mut short = Config::lan();
    short.gossip.retention = secs(300);
    short.gossip.reconcile_full_interval = secs(20);
    let mut long = Config::lan();
    long.gossip.reconcile_full_interval = secs(20);
    let nodes = vec![NodeOptions::with_config(long), NodeOptions::with_config(short)];
    let mut world = World::with_nodes(WorldConfig::new(1, 0), nodes);
    world.run_for(secs(3));
    publish(&mut world, 2, 100, 200);
    world.run_for(secs(320));
    publish(&mut world, 2, 50, 200);
    world.run_for(secs(5));
    assert_eq!(world.protocol(1).map(|p| p.stats().retained), Some(50));
    let wants = world.report().counters.wants_sent;
    world.run_for(secs(200));
    let c = world.report().counters;
    assert_eq!((c.wants_sent, c.refused_expired), (wants, 0));
    assert_eq!(world.protocol(0).map(|p| p.stats().retained), Some(150));
    assert!(c.reconcile_finished > 10, "{c:?}");
}

#[test]
fn equal_sets_cost_one_small_question() {
    let config = WorldConfig::new(1, 2).verification(Verification::Trusted);
    let mut world = overlay(config);
    publish(&mut world, 2, 2000, 100);
    settle(&mut world, secs(10));
    world.run_for(secs(3));
    world.crash(1, Disk::Kept);
    world.run_for(secs(1));
    world.start(1);
    world.run_until(|w| w.linked(0, 1), secs(10));
    world.run_for(secs(2));
    let (a, b) = (counters(&world, 0), counters(&world, 1));
    assert_eq!(b.reconcile_rounds, 1, "{b:?}");
    assert_eq!((b.wants_sent, a.wants_sent, b.announcements_received), (0, 0, 0));
    let bytes = b.reconcile_bytes_sent + b.reconcile_bytes_received;
    assert!(bytes <= 110, "{bytes} bytes for 2000 equal entries");
    // The other side need not ask any more.
    let before = counters(&world, 0).reconcile_opened;
    world.run_for(secs(5));
    assert!(counters(&world, 0).reconcile_opened <= before + 1, "routine at most");
}

#[test]
fn what_is_younger_than_two_seconds_is_compared_on_connect() {
    seeds("fresh on connect", 4, |seed| {
        let mut world = World::new(WorldConfig::new(seed, 2).topology(Topology::Empty));
        let (a, b) = (world.publish_random(0, 100), world.publish_random(1, 100));
        world.run_for(millis(1));
        world.connect(0, 1);
        let both = |w: &World| w.holders(&a) == 2 && w.holders(&b) == 2;
        assert!(world.run_until(both, secs(2)), "{:?}", world.report());
    });
}

#[test]
fn frames_that_vanished_are_made_up_for() {
    seeds("vanished frames", 3, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 5));
        world.set_loss(Loss { drop: 100_000, ..Loss::default() });
        publish(&mut world, 5, 200, 500);
        world.set_loss(Loss::default());
        settle(&mut world, secs(60));
        assert!(world.report().faults.frames_dropped > 50);
    });
}

#[test]
fn what_comes_from_the_future_is_taken_when_its_time_has_come() {
    // It was asked for again in every round, or only minutes after it had become admissible.
    // Two only: of three, the one whose clock is ahead would know it.
    let nodes = [80_000, -70_000].map(NodeOptions::skewed).to_vec();
    let mut world = World::with_nodes(WorldConfig::new(1, 0), nodes);
    world.run_for(secs(5));
    let id = world.publish_random(0, 300);
    world.run_for(secs(25));
    assert_eq!(world.holders(&id), 1);
    let refused = world.report().counters.refused_skewed;
    // The origin offers it again, too, less and less often.
    assert!((2..=14).contains(&refused), "{refused} times in 25 s");
    assert!(world.run_until(|w| w.holders(&id) == 2, secs(12)), "{:?}", world.report());
}

/// Two linked nodes of which the second is only the mouth of this test.
fn hostile() -> (World, WallTime) {
    let config = WorldConfig::new(1, 2).verification(Verification::Trusted);
    let mut world = overlay(config);
    publish(&mut world, 1, 300, 200);
    settle(&mut world, secs(10));
    (world, WallTime::from_millis(1_700_000_000_000))
}

fn ask(session: u32, ranges: Vec<Range>) -> Message {
    // Nothing was created before the world began.
    let lower = Bound::at(WallTime::from_millis(1_700_000_000_000));
    Message::Ask(Box::new(Reconcile { session, lower, ranges }))
}

#[test]
fn who_compares_as_often_as_it_may_is_not_refused() {
    // Equal peers refused each other, and then hardly compared at all.
    let mut node = crate::config::Config::lan();
    node.gossip.reconcile_interval = millis(100);
    let mut world = overlay(WorldConfig::new(1, 2).node(node));
    publish(&mut world, 1, 300, 20);
    world.run_for(secs(180));
    for n in 0..2 {
        let c = counters(&world, n);
        assert_eq!((c.reconcile_refused, c.reconcile_failed), (0, 0), "{c:?}");
        assert!((25..60).contains(&c.reconcile_finished), "{c:?}");
    }
    settle(&mut world, secs(10));
}

#[test]
fn who_opens_sessions_all_the_time_is_refused() {
    let (mut world, _) = hostile();
    let whole = || vec![Range { upper: Bound::MAX, content: RangeContent::Print([1; 16]) }];
    for n in 0..1000 {
        world.say(1, 0, ask(n + 1000, whole()));
        world.run_for(millis(1));
    }
    let c = counters(&world, 0);
    assert!(c.reconcile_answered < 20 && c.reconcile_refused > 900, "{c:?}");
    assert!(c.reconcile_bytes_sent < 50_000, "{}", c.reconcile_bytes_sent);
    // One that waits between them is served.
    world.run_for(secs(30));
    let before = counters(&world, 0).reconcile_answered;
    world.say(1, 0, ask(5000, whole()));
    world.run_for(millis(500));
    assert_eq!(counters(&world, 0).reconcile_answered, before + 1);
    world.assert_clean();
}

#[test]
fn who_has_everything_listed_again_and_again_is_refused() {
    let (mut world, _) = hostile();
    let all = || vec![Range { upper: Bound::MAX, content: RangeContent::All(Vec::new()) }];
    let before = counters(&world, 0).reconcile_bytes_sent;
    for _ in 0..2000 {
        world.say(1, 0, ask(7777, all()));
        world.run_for(millis(10));
    }
    let c = counters(&world, 0);
    let sent = c.reconcile_bytes_sent - before;
    assert!(sent < 3 << 20, "{sent} bytes in 20 s");
    assert!(c.reconcile_refused > 1000, "{c:?}");
}

#[test]
fn nonsense_costs_the_link() {
    let skip = |upper| Range { upper, content: RangeContent::Skip };
    let many =
        (1..200).map(|n| skip(Bound::at(WallTime::from_millis(1_700_000_000_000 + n)))).collect();
    let rest = vec![Range { upper: Bound::MAX, content: RangeContent::Rest(Vec::new()) }];
    for ranges in [Vec::new(), many, rest] {
        let (mut world, _) = hostile();
        world.say(1, 0, ask(9, ranges));
        world.run_for(millis(100));
        let c = counters(&world, 0);
        assert_eq!((c.links_closed_violation, c.reconcile_refused), (1, 1));
    }
    // An answer that nobody asked for is ignored; a window that ends before it begins as well.
    let (mut world, wall) = hostile();
    let whole = vec![Range { upper: Bound::MAX, content: RangeContent::Print([0; 16]) }];
    let answer = Reconcile { session: 1, lower: Bound::MIN, ranges: whole };
    world.say(1, 0, Message::Answer(Box::new(answer)));
    world.say(1, 0, Message::Yours { lower: Bound::MAX, upper: Bound::at(wall) });
    world.run_for(secs(2));
    assert!(world.linked(0, 1));
    world.assert_clean();
}
