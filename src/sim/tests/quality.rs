//! Links are rated by what they are like.

use super::large::{counter, honest, linked};
use super::*;
use crate::protocol::{CallId, Input};
use crate::sim::Latency;
use crate::types::PIECE_BYTES;

const NEAR: usize = 1;
const FAR: usize = 2;
const THIN: usize = 3;
const BREAKING: usize = 4;

/// A hub with four leaves, of which one is far away, one has a thin line, and one breaks its link now
/// and then.
fn hub(seed: u64) -> World {
    let rows = vec![vec![millis(5), millis(300)], vec![millis(300), millis(5)]];
    let config = WorldConfig::new(seed, 0).latency(Latency::Matrix(rows));
    let node = |n| NodeOptions { region: Some(usize::from(n == FAR)), ..NodeOptions::default() };
    let links: Vec<_> = (1..5).map(|n| (n, 0)).collect();
    let mut world = linked(config, (0..5).map(node).collect(), &links);
    world.throttle(THIN, Some(8_000), Some(8_000));
    world
}

fn score(world: &World, of: usize) -> u8 {
    let links = world.protocol(0).expect("the hub runs").links();
    let link = links.iter().find(|l| l.peer == world.peer_id(of)).expect("a link");
    link.score.expect("measured")
}

#[test]
fn a_far_a_thin_and_a_breaking_link_rank_below_a_good_one() {
    seeds("ratings", 6, |seed| {
        let mut world = hub(seed);
        world.publish_random(0, 200_000);
        for _ in 0..12 {
            for node in 0..5 {
                world.publish_random(node, 300);
            }
            world.run_for(secs(5));
            world.reset_link(0, BREAKING);
            world.run_for(secs(5));
            let all = |w: &World| (1..5).all(|node| w.linked(0, node));
            assert!(world.run_until(all, secs(120)), "{:?}", world.report());
            // The first ping is answered.
            world.run_for(secs(2));
        }
        let scores = [NEAR, FAR, THIN, BREAKING].map(|of| score(&world, of));
        assert!(scores[1..].iter().all(|score| *score < scores[0]), "{scores:?}");
        settle(&mut world, secs(600));
    });
}

/// Over a thin link the pieces of a test are bulk like any other: the checkers look that no more than
/// one of them waits before anything else.
#[test]
fn a_test_of_a_thin_link_keeps_nothing_waiting_and_ends() {
    seeds("test of a thin link", 4, |seed| {
        for rate in [8_000u32, 100_000, 2_000_000] {
            let config = WorldConfig::new(seed, 0).buffers(512 * 1024);
            let mut world = linked(config, honest(2), &[(1, 0)]);
            world.throttle(0, Some(rate.into()), None);
            let peer = world.peer_id(1);
            world.input(0, Input::TestPeer { call: CallId(1), peer });
            let mut published = Vec::new();
            for _ in 0..5 {
                world.run_for(secs(1));
                published.push((world.publish_random(0, 300), world.now()));
            }
            world.run_for(secs(60));
            for (id, at) in published {
                let arrived =
                    world.deliveries(1).iter().find(|d| d.id == id).expect("it arrived").at;
                let piece = Duration::from_secs(PIECE_BYTES as u64) / rate;
                let limit = piece * 5 / 4 + secs(1);
                let took = arrived.saturating_sub(at);
                assert!(took < limit, "{took:?} at {rate} B/s");
            }
            let answered = counter(&world, 1, "probes_answered");
            assert!(answered >= 10 && counter(&world, 1, "probes_refused") == 0, "{answered}");
            // It is over: another one may begin.
            world.input(0, Input::TestPeer { call: CallId(2), peer });
            world.run_for(secs(60));
            assert!(counter(&world, 1, "probes_answered") >= answered + 10);
            world.assert_clean();
        }
    });
}
