//! The mode of nodes in networks of few, and in few of a larger one.

use super::*;
use crate::types::Mode;

fn mode(world: &World, node: usize) -> Mode {
    world.protocol(node).unwrap().stats().mode
}

fn modes(recorder: &Recorder, node: usize) -> Vec<Mode> {
    recorder.of_node(node, |event| match event {
        Event::ModeChanged { mode } => Some(*mode),
        _ => None,
    })
}

#[test]
fn networks_of_two_to_six_come_online_and_stay_so() {
    // They were degraded for ever.
    for count in 2..=6 {
        seeds(&format!("{count} nodes"), 2, |seed| {
            let mut world = World::new(WorldConfig::new(seed, count));
            let recorder = Recorder::of(&mut world);
            world.run_for(secs(20));
            assert!((0..count).all(|node| mode(&world, node) == Mode::Online));
            world.run_for(secs(120));
            for node in 0..count {
                let seen = modes(&recorder, node);
                assert!(
                    seen == [Mode::Degraded, Mode::Online] || seen == [Mode::Online],
                    "node {node} of {count}: {seen:?}"
                );
            }
            world.assert_clean();
        });
    }
}

#[test]
fn one_of_three_that_is_gone_degrades_the_others_for_a_while() {
    seeds("one of three", 2, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 3));
        assert!(world.run_until(|w| (0..3).all(|n| mode(w, n) == Mode::Online), secs(20)));
        world.crash(2, Disk::Kept);
        world.run_for(secs(7));
        assert_eq!([mode(&world, 0), mode(&world, 1)], [Mode::Degraded; 2]);
        world.run_for(secs(500));
        assert_eq!([mode(&world, 0), mode(&world, 1)], [Mode::Degraded; 2]);
        // It is gone for good.
        world.run_for(secs(200));
        assert_eq!([mode(&world, 0), mode(&world, 1)], [Mode::Online; 2]);
        world.crash(1, Disk::Kept);
        world.run_for(secs(1));
        assert_eq!(mode(&world, 0), Mode::Offline);
        // Who comes back is found again, whatever was made of its absence.
        world.start(2);
        assert!(world.run_until(|w| w.linked(0, 2), secs(30)));
    });
}

#[test]
fn few_of_many_are_degraded_and_a_newcomer_is_not_online_too_early() {
    seeds("few of many", 2, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 12));
        let recorder = Recorder::of(&mut world);
        let newcomer = world.add_node(NodeOptions::default());
        let online = |w: &World| mode(w, newcomer) == Mode::Online;
        assert!(world.run_until(online, secs(30)));
        assert!(world.links(newcomer) >= 5, "{}", world.links(newcomer));
        world.run_for(secs(60));
        assert_eq!(modes(&recorder, newcomer).last(), Some(&Mode::Online));
        assert!(modes(&recorder, newcomer).len() <= 2, "{:?}", modes(&recorder, newcomer));
        world.partition(&[vec![0, 1], (2..13).collect()]);
        world.run_for(secs(120));
        assert_eq!(mode(&world, 0), Mode::Degraded);
        world.heal();
        assert!(world.run_until(|w| mode(w, 0) == Mode::Online, secs(60)), "{:?}", world.report());
        settle(&mut world, secs(60));
    });
}
