//! Links are rated by what they are like.

use super::large::linked;
use super::*;
use crate::sim::Latency;

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
