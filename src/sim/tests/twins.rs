//! Two processes with one identity, and links that end as soon as they are there.

use super::*;
use crate::config::Config;

fn told(recorder: &Recorder, node: usize) -> Vec<crate::types::PeerId> {
    recorder.of_node(node, |event| match event {
        Event::IdentityInUse { peer, .. } => Some(*peer),
        _ => None,
    })
}

#[test]
fn two_with_one_identity_are_told_everywhere_and_settle_into_rare_turns() {
    // They replaced each other's link 1.7 times a second for ever, and nothing said so.
    seeds("twins", 4, |seed| {
        let config = WorldConfig::new(seed, 0).node(Config::default());
        let nodes = vec![NodeOptions::default(), NodeOptions::default(), NodeOptions::twin_of(1)];
        let mut world = World::with_nodes(config, nodes);
        let recorder = Recorder::of(&mut world);
        world.run_for(secs(60));
        let twin = world.peer_id(1);
        for node in 0..3 {
            assert!(told(&recorder, node).contains(&twin), "node {node}: {:?}", world.report());
        }
        world.run_for(secs(300));
        let before = world.report().counters;
        world.run_for(secs(600));
        let after = world.report().counters;
        let replaced = after.links_replaced - before.links_replaced;
        assert!((2..=100).contains(&replaced), "{replaced} in ten minutes");
        for node in 0..3 {
            let told = told(&recorder, node).len();
            assert!(told <= 17, "node {node} in sixteen minutes: {told}");
        }
        // Nothing is lost by it.
        let ids: Vec<_> = (0..3).map(|node| world.publish_random(node, 300)).collect();
        let all = |w: &World| ids.iter().all(|id| (0..3).all(|node| w.holds(node, id)));
        assert!(world.run_until_every(secs(1), all, secs(300)), "{:?}", world.report());
    });
}

#[test]
fn a_restart_is_immediate_and_nobody_is_told_of_twins() {
    seeds("restarts", 4, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 3).node(Config::default()));
        let recorder = Recorder::of(&mut world);
        for restart in 0..20 {
            world.run_for(secs(if restart % 2 == 0 { 60 } else { 3 }));
            world.crash(1, Disk::Kept);
            world.start(1);
            assert!(world.run_until(|w| w.linked(0, 1), secs(1)), "restart {restart}");
        }
        assert!((0..3).all(|node| told(&recorder, node).is_empty()));
        assert_eq!(world.report().counters.identities_in_use, 0);
        settle(&mut world, secs(30));
    });
}

#[test]
fn links_that_end_soon_are_dialled_ever_more_rarely() {
    // A link that came up reset the delay, however short it was.
    seeds("short links", 4, |seed| {
        let mut world = World::new(WorldConfig::new(seed, 2).node(Config::default()));
        let dials = |w: &World| w.report().counters.dials_started;
        let cut = |world: &mut World, span: u64| {
            let before = dials(world);
            for _ in 0..span * 10 {
                world.run_for(millis(100));
                world.reset_link(0, 1);
            }
            dials(world) - before
        };
        let early = cut(&mut world, 60);
        let late = cut(&mut world, 600);
        // What is cut within its hello is dialled again up to three times before it counts as one
        // failure.
        assert!(
            (5..=40).contains(&early) && late <= 90,
            "{early} dials in a minute, {late} in the ten after"
        );
        // A link that lives makes up for them.
        assert!(world.run_until(|w| w.linked(0, 1), secs(80)));
        world.run_for(secs(150));
        world.reset_link(0, 1);
        world.run_for(millis(200));
        assert!(world.run_until(|w| w.linked(0, 1), secs(2)), "{:?}", world.report());
    });
}

#[test]
fn a_peer_that_is_gone_is_dialled_once_at_a_time_and_told_once() {
    // As a bootstrap peer and as a peer of the book, each at its own pace.
    seeds("one dial", 4, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 2));
        let recorder = Recorder::of(&mut world);
        world.crash(0, Disk::Kept);
        let failed = |w: &World| w.protocol(1).unwrap().counters().dials_failed;
        let before = failed(&world);
        world.run_for(secs(60));
        let (mut last, mut at, mut shortest) = (failed(&world), None, secs(60));
        for _ in 0..3000 {
            world.run_for(millis(100));
            if failed(&world) != last {
                assert_eq!(failed(&world), last + 1);
                last += 1;
                let now = world.now();
                if let Some(at) = at.replace(now) {
                    shortest = shortest.min(now.saturating_sub(at));
                }
            }
        }
        // The delay is 1 s at the least by then.
        assert!(shortest >= millis(800), "{shortest:?}");
        let told = recorder.of_node(1, |e| matches!(e, Event::DialFailed { .. }).then_some(()));
        assert_eq!(told.len() as u64, last - before);
    });
}
