//! Honest nodes, bad luck.

use super::*;
use crate::error::StoreErrorKind;

#[test]
fn broken_links_lose_nothing() {
    seeds("link resets", 2, |seed| {
        let config = WorldConfig::new(seed, 6);
        let mut world = overlay(config);
        world.set_loss(Loss::resets(20_000));
        for n in 0..60 {
            world.publish_random(n % 6, 1000);
            world.run_for(millis(100));
        }
        world.set_loss(Loss::default());
        settle(&mut world, secs(60));
        assert!(world.report().faults.links_reset > 10, "{:?}", world.report().faults);
    });
}

#[test]
fn links_that_break_in_their_hello_are_dialled_again() {
    // After such a link nobody looked whether another dial was due.
    seeds("broken hellos", 10, |seed| {
        let mut world = World::new(WorldConfig::new(seed, 2));
        world.set_loss(Loss::resets(500_000));
        world.run_for(secs(20));
        world.set_loss(Loss::default());
        assert!(world.run_until(World::is_connected, secs(30)), "{:?}", world.report());
    });
}

#[test]
fn large_transfers_survive_broken_links() {
    seeds("large and resets", 4, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 5).uplink(4_000_000));
        world.publish_random(0, 2_000_000);
        for _ in 0..6 {
            world.run_for(millis(150));
            world.reset_link(0, 1);
            world.reset_link(0, 2);
        }
        settle(&mut world, secs(60));
    });
}

#[test]
fn two_who_lose_their_source_and_ask_each_other_at_once_do_not_wait_for_each_other() {
    // The checker took what was on its way, and was refused, for waiting.
    seeds("crossed reservations", 4, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 3).uplink(4_000_000));
        world.publish_random(0, 2_000_000);
        let receives = |w: &World, node: usize| {
            w.protocol(node).is_some_and(|p| p.counters().pieces_received > 2)
        };
        assert!(world.run_until(|w| receives(w, 1) && receives(w, 2), secs(5)));
        world.reset_link(0, 1);
        world.reset_link(0, 2);
        settle(&mut world, secs(60));
        assert_eq!(world.report().counters.wants_missed, 1, "the two did not cross");
    });
}

#[test]
fn what_crawls_leaves_at_the_new_pace() {
    // What a throttled node was sending when it got faster arrived hours later all the same.
    let mut world = overlay(WorldConfig::new(1, 2).uplink(6_000_000));
    world.throttle(0, Some(10), None);
    let id = world.publish_random(0, 60_000);
    world.run_for(secs(2));
    assert_eq!(world.holders(&id), 1);
    world.throttle(0, None, None);
    assert!(world.run_until(|w| w.holders(&id) == 2, secs(1)), "{:?}", world.report());
    settle(&mut world, secs(5));
}

#[test]
fn crashed_nodes_come_back_and_catch_up() {
    for disk in [Disk::Kept, Disk::Lost] {
        seeds(&format!("churn, disk {disk:?}"), 1, |seed| {
            let mut world = overlay(WorldConfig::new(seed, 8));
            for n in 0..40 {
                world.publish_random(n % 8, 500);
                if n % 5 == 0 {
                    world.crash(1 + n / 5 % 7, disk);
                }
                world.run_for(millis(150));
                if n % 5 == 3 {
                    world.start(1 + n / 5 % 7);
                }
            }
            (0..8).for_each(|n| world.start(n));
            assert!(world.run_until(World::is_connected, secs(60)));
            settle(&mut world, secs(60));
            let faults = world.report().faults;
            assert!(faults.crashes >= 7 && faults.restarts >= 7, "{faults:?}");
        });
    }
}

#[test]
fn what_was_accepted_just_before_a_crash_is_still_there() {
    seeds("crash after publish", 10, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 3));
        let ids: Vec<_> = (0..5).map(|_| world.publish_random(1, 400)).collect();
        // Stores take 0.5 ms each: some are safe and answered, none has arrived anywhere.
        world.run_for(Duration::from_micros(1700));
        world.crash(1, Disk::Kept);
        let safe: Vec<_> = ids.iter().filter(|id| world.holds(1, id)).collect();
        assert!(!safe.is_empty() && safe.len() < ids.len());
        world.run_for(secs(2));
        world.start(1);
        assert!(world.run_until(World::is_connected, secs(30)));
        settle(&mut world, secs(30));
        assert!(safe.iter().all(|id| world.holders(id) == 3));
        assert_eq!(world.outbox(1), 0, "confirmed after the restart");
    });
}

#[test]
fn a_restarted_outbox_is_confirmed_though_others_announce_first() {
    // What a peer announced it was not offered, and what it was not offered it never confirmed.
    seeds("restarted outbox", 1, |seed| {
        let config = WorldConfig::new(seed, 3).verification(Verification::Trusted);
        let mut world = overlay(config.topology(Topology::Mesh));
        world.crash(1, Disk::Kept);
        world.crash(2, Disk::Kept);
        world.run_for(secs(1));
        // Enough that a link takes several turns to offer them all.
        let ids: Vec<_> = (0..7000).map(|_| world.publish_random(0, 10)).collect();
        world.run_for(secs(5));
        world.start(1);
        world.run_until(|w| ids.iter().all(|id| w.holds(1, id)), secs(30));
        world.crash(0, Disk::Kept);
        world.run_for(secs(1));
        world.start(0);
        world.start(2);
        assert!(world.run_until(World::is_connected, secs(30)));
        settle(&mut world, secs(60));
        assert_eq!(world.outbox(0), 0);
    });
}

#[test]
fn a_node_finds_back_without_bootstrap_peers() {
    seeds("restart from the book", 4, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 6));
        // Node 0 is everybody's bootstrap peer and is gone for good.
        world.crash(0, Disk::Kept);
        world.crash(3, Disk::Kept);
        world.run_for(secs(5));
        let id = world.publish_random(1, 100);
        world.start(3);
        assert!(world.run_until(|w| w.holds(3, &id), secs(60)), "{:?}", world.report());
        settle(&mut world, secs(10));
    });
}

#[test]
fn partitions_heal() {
    for long in [false, true] {
        seeds(&format!("partition, long: {long}"), 2, |seed| {
            let mut world = overlay(WorldConfig::new(seed, 8));
            world.partition(&[vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
            for n in 0..16 {
                world.publish_random(n % 8, 700);
                world.run_for(if long { secs(2) } else { millis(100) });
            }
            let down = world.report().counters.links_closed_unresponsive > 0;
            assert_eq!(down, long, "links are given up in a long partition only");
            world.heal();
            assert!(world.run_until(World::is_connected, secs(60)), "{:?}", world.report());
            settle(&mut world, secs(60));
            let report = world.report();
            assert!(report.faults.frames_held > 0 && report.coverage >= 1.0, "{report:?}");
        });
    }
}

#[test]
fn halves_that_have_links_enough_find_each_other_again() {
    // Both had refilled their links from within, and nobody dialled the other side any more.
    seeds("partition of minutes", 2, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 60));
        world.run_for(secs(60));
        world.partition(&[(0..30).collect(), (30..60).collect()]);
        world.run_for(secs(300));
        let ids = [0, 40].map(|node| world.publish_random(node, 300));
        world.run_for(secs(10));
        assert!(ids.iter().all(|id| world.holders(id) == 30), "they were apart");
        world.heal();
        assert!(world.run_until(World::is_connected, secs(90)), "{:?}", world.report());
        settle(&mut world, secs(60));
    });
}

#[test]
fn a_slow_peer_delays_nobody_and_catches_up() {
    seeds("slow peer", 1, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 6));
        world.throttle(5, Some(20_000), Some(20_000));
        for n in 0..100 {
            world.publish_random(n % 5, 4000);
            world.run_for(millis(10));
        }
        world.run_for(secs(2));
        let late: Vec<_> = (0..5).filter(|n| world.deliveries(*n).len() < 100).collect();
        assert!(late.is_empty(), "slowed down by the slow one: {late:?}");
        world.throttle(5, None, None);
        settle(&mut world, secs(120));
    });
}

#[test]
fn a_slow_link_that_makes_progress_is_not_given_up() {
    // A piece takes 3 s here; each overdue one counted towards giving up, and what had been
    // received was thrown away.
    let mut world = overlay(WorldConfig::new(1, 2));
    world.throttle(0, Some(22_000), None);
    let id = world.publish_random(0, 1_000_000);
    assert!(world.run_until(|w| w.holders(&id) == 2, secs(120)), "{:?}", world.report());
    let report = world.report();
    assert!(report.redundancy < 1.3, "{report:?}");
    world.assert_clean();
}

#[test]
fn a_peer_that_announces_and_never_serves_stops_nobody() {
    seeds("staller", 4, |seed| {
        let mut nodes = vec![NodeOptions::default(); 6];
        nodes.extend(vec![NodeOptions::misbehaving(Behaviour::Stalling); 2]);
        let mut world = World::with_nodes(WorldConfig::new(seed, 0), nodes);
        world.run_for(secs(10));
        for n in 0..30 {
            world.publish_random(n % 6, if n % 7 == 0 { 100_000 } else { 1000 });
            world.run_for(millis(100));
        }
        settle(&mut world, secs(60));
        assert!(world.report().faults.messages_tampered > 0);
    });
}

#[test]
fn what_a_full_disk_refused_is_fetched_again() {
    // The peers that had pushed it held it for known, and nobody offered it again.
    seeds("full disk", 4, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 4));
        world.fail_store(2, Some(StoreErrorKind::Full));
        let ids: Vec<_> = (0..20).map(|n| world.publish_random(n % 2, 600)).collect();
        world.run_for(secs(3));
        assert!(ids.iter().all(|id| !world.holds(2, id)));
        world.fail_store(2, None);
        settle(&mut world, secs(30));
        assert!(world.report().faults.stores_failed >= 20);
    });
}

#[test]
fn a_publish_that_the_store_refuses_is_not_delivered() {
    let mut world = overlay(WorldConfig::new(1, 3));
    world.fail_store(0, Some(StoreErrorKind::Full));
    let id = world.publish_random(0, 100);
    world.run_for(secs(2));
    assert_eq!(world.holders(&id), 0);
    world.assert_clean();
}

#[test]
fn clocks_that_are_off_by_a_minute_do_no_harm() {
    seeds("skew", 3, |seed| {
        let skews = [0, 50_000, -60_000, 10_000, -5_000];
        let nodes = skews.map(NodeOptions::skewed).to_vec();
        let mut world = World::with_nodes(WorldConfig::new(seed, 0), nodes);
        world.run_for(secs(10));
        for node in 0..5 {
            world.publish_random(node, 100);
        }
        settle(&mut world, secs(20));
        assert!((0..5).all(|n| world.deliveries(n).len() == 5));
    });
}

#[test]
fn simultaneous_dials_leave_exactly_one_link() {
    seeds("crossing dials", 15, |seed| {
        let config = WorldConfig::new(seed, 2).topology(Topology::Empty);
        let mut world = World::new(config);
        // Several in both directions, some while others are in their hello.
        for n in 0..4 {
            world.connect(n % 2, 1 - n % 2);
            world.run_for(millis(seed % 50));
        }
        world.run_for(secs(5));
        assert!(world.linked(0, 1), "{:?}", world.report());
        world.publish_random(0, 100);
        settle(&mut world, secs(5));
    });
}

#[test]
fn a_second_connection_does_not_cut_the_first() {
    seeds("same direction", 30, |seed| {
        let mut world = World::new(WorldConfig::new(seed, 2).topology(Topology::Empty));
        world.connect(0, 1);
        world.run_for(Duration::from_micros(seed * 5000));
        world.connect(0, 1);
        world.run_for(secs(2));
        assert!(world.linked(0, 1), "{:?}", world.report());
        world.assert_clean();
    });
}

#[test]
fn a_restarted_peer_is_not_refused_as_its_own_ghost() {
    seeds("ghost", 5, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 3));
        // The others do not see node 1 go: its machine is cut off while it restarts.
        world.partition(&[vec![0, 2], vec![1]]);
        world.crash(1, Disk::Kept);
        world.start(1);
        world.heal();
        assert!(world.run_until(|w| w.linked(0, 1) && w.linked(1, 2), secs(20)));
        settle(&mut world, secs(10));
    });
}

#[test]
fn goodbye_on_shutdown_is_not_held_against_anybody() {
    let mut world = overlay(WorldConfig::new(1, 4));
    world.input(2, crate::protocol::Input::Shutdown);
    world.run_for(secs(1));
    assert_eq!(world.links(2), 0);
    world.crash(2, Disk::Kept);
    world.start(2);
    assert!(world.run_until(World::is_connected, secs(30)));
    world.assert_clean();
}

#[test]
fn a_node_renews_its_record_and_its_peers_hear_of_it() {
    // A record is believed for a day and signed anew every quarter of it.
    let mut config = crate::config::Config::lan();
    config.discovery.refresh_interval = secs(900);
    config.liveness.interval = secs(60);
    let mut world = overlay(WorldConfig::new(1, 3).node(config));
    let seq = |world: &World, node, of| world.record_seq(node, of);
    assert_eq!(seq(&world, 1, 0), Some(1));
    world.run_for(secs(6 * 3600 - 60));
    assert_eq!(seq(&world, 1, 0), Some(1), "not earlier than need be");
    world.run_for(secs(1900));
    for (node, of) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        assert_eq!(seq(&world, node, of), Some(2), "node {node} of node {of}");
    }
    assert!((0..3).all(|n| world.links(n) == 2));
    world.assert_clean();
}

#[test]
fn what_came_from_a_fast_clock_is_taken_once_it_is_admissible() {
    // Refused for its skew, it was known to have been offered and was never offered again.
    seeds("skewed refusal", 3, |seed| {
        // Two only: of three, the one whose clock is ahead would know it.
        let nodes = vec![NodeOptions::default(), NodeOptions::skewed(180_000)];
        let mut world = World::with_nodes(WorldConfig::new(seed, 0), nodes);
        world.run_for(secs(10));
        let ids: Vec<_> = (0..5).map(|_| world.publish_random(1, 300)).collect();
        world.run_for(secs(5));
        assert!(world.report().counters.refused_skewed >= 5, "{:?}", world.report().counters);
        assert!(ids.iter().all(|id| world.holders(id) == 1), "a minute ahead of what is allowed");
        // They are admissible after a minute; after that nothing new has to happen.
        world.run_for(secs(60));
        settle(&mut world, secs(60));
        assert!(ids.iter().all(|id| world.holders(id) == 2));
        assert_eq!(world.outbox(1), 0);
    });
}

#[test]
fn a_node_without_room_takes_commands_and_loses_no_announcement() {
    // More is being stored than may be: frames wait, what the host asks for does not.
    seeds("no room", 2, |seed| {
        let config = WorldConfig::new(seed, 3).verification(Verification::Trusted);
        let mut world = overlay(config.topology(Topology::Mesh).store_delay(millis(2)));
        let full = |w: &World| !w.protocol(1).is_some_and(crate::protocol::Protocol::has_room);
        let mut ids: Vec<_> = (0..9000).map(|_| world.publish_random(1, 10)).collect();
        assert!(full(&world), "{:?}", world.report().counters);
        // Others announce, one leaves and comes back, and the host dials: all while it is full.
        ids.extend((0..50).map(|_| world.publish_random(0, 500)));
        world.run_for(millis(500));
        assert!(full(&world) && world.report().faults.frames_deferred > 0);
        world.input(1, crate::protocol::Input::Disconnect { peer: world.peer_id(2) });
        assert_eq!(world.links(1), 1, "a command does not wait");
        world.connect(1, 2);
        let id = world.publish_random(1, 10);
        assert!(full(&world), "it is still without room");
        settle(&mut world, secs(120));
        assert!(world.linked(1, 2));
        ids.push(id);
        // The outbox holds 10,000.
        assert!(ids.iter().all(|id| world.holders(id) == 3), "{:?}", world.report());
    });
}
