//! Clocks that are wrong, leap, and come right again.

use super::*;
use crate::protocol::Input;
use crate::types::{Message, Refusal};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The cases of the field.
const WRONG: [i64; 5] = [10 * MINUTE, HOUR, 3652 * DAY, -2 * HOUR, -3652 * DAY];

fn stats(world: &World, node: usize) -> crate::types::Stats {
    world.protocol(node).unwrap().stats()
}

fn publish(world: &mut World, node: usize, label: &str) -> Vec<Vec<u8>> {
    let payloads: Vec<_> = (0..5).map(|n| format!("{label} {n} of {node}").into_bytes()).collect();
    for payload in &payloads {
        world.publish(node, "orders", payload);
    }
    payloads
}

/// How many of these payloads a node has got, under whatever id.
fn arrived(world: &World, node: usize, payloads: &[Vec<u8>]) -> usize {
    let got: Vec<_> = world.deliveries(node).iter().map(|d| world.payload(node, &d.id)).collect();
    payloads.iter().filter(|p| got.iter().flatten().any(|got| got[..] == p[..])).count()
}

fn nothing_waits(world: &World, node: usize) -> bool {
    let stats = stats(world, node);
    (stats.outbox, stats.dead_letters) == (0, 0)
}

#[test]
fn what_is_published_by_a_wrong_clock_arrives_all_the_same_where_several_peers_know_better() {
    for skew in WRONG {
        seeds("wrong clock", 2, |seed| {
            let mut nodes = vec![NodeOptions::default(); 5];
            nodes[1] = NodeOptions::skewed(skew);
            let mut world = World::with_nodes(WorldConfig::new(seed, 0), nodes);
            // Some before there is any link, by the wrong time.
            let mut payloads = publish(&mut world, 1, "early");
            world.run_for(secs(20));
            let known: Vec<_> = (0..5).map(|n| stats(&world, n).clock_off).collect();
            assert_eq!(known, [false, true, false, false, false], "{skew}");
            let off = stats(&world, 1).clock_offset_ms;
            assert!(off.abs_diff(-skew) < 1000, "{off} for {skew}");
            payloads.extend(publish(&mut world, 1, "late"));
            let others = publish(&mut world, 2, "other");
            settle(&mut world, secs(60));
            for node in 0..5 {
                assert_eq!(arrived(&world, node, &payloads), 10, "{skew} at {node}");
                assert_eq!(arrived(&world, node, &others), 5, "{skew} at {node}");
            }
            assert!(nothing_waits(&world, 1));
            // It is set right, and nothing comes twice.
            world.set_clock(1, 0);
            world.run_for(secs(30));
            assert!(!stats(&world, 1).clock_off);
            let last = publish(&mut world, 1, "last");
            settle(&mut world, secs(60));
            assert!((0..5).all(|node| arrived(&world, node, &last) == 5));
            assert!(world.deliveries(0).len() <= 20, "{}", world.deliveries(0).len());
        });
    }
}

#[test]
fn what_waits_for_a_clock_of_two_arrives_once_it_is_right() {
    // Whose clock is wrong two alone cannot know: both wait, and nothing is given up.
    for skew in WRONG {
        seeds("one of two clocks", 2, |seed| {
            let nodes = vec![NodeOptions::default(), NodeOptions::skewed(skew)];
            let mut world = World::with_nodes(WorldConfig::new(seed, 0), nodes);
            world.run_for(secs(10));
            let of_wrong = publish(&mut world, 1, "wrong");
            let of_right = publish(&mut world, 0, "right");
            world.run_for(secs(5 * 60));
            assert!(
                (0..2).all(|n| stats(&world, n).dead_letters == 0 && !stats(&world, n).clock_off)
            );
            assert!(stats(&world, 1).counters.refusals_received > 0, "{skew}");
            if seed % 2 == 1 {
                world.crash(1, Disk::Kept);
                world.set_clock(1, 0);
                world.start(1);
            }
            world.set_clock(1, 0);
            world.run_for(secs(60));
            settle(&mut world, secs(120));
            for node in 0..2 {
                assert_eq!(arrived(&world, node, &of_wrong), 5, "{skew} at {node}");
                assert_eq!(arrived(&world, node, &of_right), 5, "{skew} at {node}");
                assert!(nothing_waits(&world, node));
            }
        });
    }
}

#[test]
fn an_origin_learns_why_it_is_refused() {
    let nodes = vec![NodeOptions::default(), NodeOptions::skewed(HOUR)];
    let mut world = World::with_nodes(WorldConfig::new(1, 0), nodes);
    world.run_for(secs(10));
    let id = world.publish(1, "orders", b"one");
    world.run_for(secs(20));
    let status = world.protocol(1).unwrap().publish_status(&id);
    assert_eq!(status.refused, Some(Refusal::Skewed));
    let asked = world.report().counters.refused_skewed;
    world.run_for(secs(60 * 20));
    let more = world.report().counters.refused_skewed - asked;
    assert!(more < 25, "it is offered less and less often: {more} times in 20 min");
}

#[test]
fn a_day_ahead_for_a_while_forgets_and_delivers_nothing_again() {
    for (count, away) in [(2, 150), (4, 150), (4, 1000)] {
        seeds("a day ahead", 2, |seed| {
            let mut world = overlay(WorldConfig::new(seed, count));
            let mut payloads = publish(&mut world, 0, "before");
            payloads.extend(publish(&mut world, 1, "before"));
            settle(&mut world, secs(30));
            for skew in [DAY, -DAY, 0] {
                world.set_clock(1, skew);
                world.run_for(secs(3));
                // What is published meanwhile arrives meanwhile.
                payloads.extend(publish(&mut world, 0, &format!("during {skew}")));
                payloads.extend(publish(&mut world, 1, &format!("during {skew}")));
                world.run_for(secs(away));
                for node in 0..count {
                    assert_eq!(arrived(&world, node, &payloads), payloads.len(), "{skew}");
                }
            }
            settle(&mut world, secs(30));
            for node in 0..count {
                assert_eq!(stats(&world, node).retained, payloads.len() as u64);
                assert_eq!(world.deliveries(node).len(), payloads.len(), "each once");
            }
        });
    }
}

#[test]
fn a_clock_that_is_wrong_at_a_start_forgets_and_delivers_nothing_again() {
    for skew in [DAY, 3652 * DAY, -3652 * DAY] {
        seeds("wrong at a start", 2, |seed| {
            let mut world = overlay(WorldConfig::new(seed, 3));
            let payloads = publish(&mut world, 0, "before");
            settle(&mut world, secs(30));
            world.crash(1, Disk::Kept);
            world.run_for(secs(60));
            world.set_clock(1, skew);
            // Cut off at first, and for longer than expiry takes to be looked for.
            world.partition(&[vec![0, 2], vec![1]]);
            world.start(1);
            world.run_for(secs(45));
            world.set_clock(1, 0);
            world.run_for(secs(15));
            world.heal();
            settle(&mut world, secs(120));
            assert_eq!((arrived(&world, 1, &payloads), world.deliveries(1).len()), (5, 5));
            assert_eq!(stats(&world, 1).retained, 5);
        });
    }
}

#[test]
fn a_node_that_slept_believes_its_clock() {
    // Down for long: what it has is older than the clock says, and peers confirm the clock.
    seeds("long down", 2, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 3));
        publish(&mut world, 0, "before");
        settle(&mut world, secs(30));
        world.crash(1, Disk::Kept);
        world.run_for(secs(5 * 3600));
        world.start(1);
        world.run_for(secs(60));
        assert_eq!(stats(&world, 1).retained, 0, "what expired meanwhile is forgotten");
        publish(&mut world, 1, "after");
        settle(&mut world, secs(30));
    });
}

#[test]
fn a_few_wrong_clocks_change_nothing_for_the_others() {
    seeds("few wrong clocks", 3, |seed| {
        let mut nodes = vec![NodeOptions::default(); 9];
        for (node, skew) in [(2, DAY), (5, DAY), (7, -DAY)] {
            nodes[node] = NodeOptions::skewed(skew);
        }
        let mut world = World::with_nodes(WorldConfig::new(seed, 0), nodes);
        world.run_for(secs(30));
        let mut payloads = Vec::new();
        for node in 0..9 {
            payloads.extend(publish(&mut world, node, "all"));
        }
        settle(&mut world, secs(60));
        for node in 0..9 {
            assert_eq!(stats(&world, node).clock_off, [2, 5, 7].contains(&node), "{node}");
            assert_eq!(arrived(&world, node, &payloads), 45, "{node}");
        }
    });
}

#[test]
fn a_liar_that_refuses_everything_kills_and_renews_nothing() {
    seeds("lying refusals", 3, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 3).topology(Topology::Mesh));
        world.fail_store(2, Some(crate::error::StoreErrorKind::Full));
        for n in 0..20 {
            let payload = format!("payload {n}").into_bytes();
            let id = world.publish(0, "orders", &payload);
            for reason in [Refusal::Rejected, Refusal::Skewed, Refusal::Expired] {
                let list = vec![(id, reason); 50];
                let clock = Some(crate::types::WallTime::from_millis(u64::MAX));
                world.say(1, 0, Message::Refused { list, clock });
            }
            world.run_for(millis(100));
        }
        world.run_for(secs(60));
        let counters = stats(&world, 0).counters;
        assert_eq!((counters.dead_letters, counters.transactions_renewed), (0, 0));
        assert!(!stats(&world, 0).clock_off);
        world.fail_store(2, None);
        world.input(0, Input::Timeout);
        settle(&mut world, secs(11 * 60));
    });
}
