//! More nodes that nobody can dial than the hub has places for.

use super::*;
use crate::config::Config;
use crate::types::CloseReason;

const LEAVES: [usize; 6] = [1, 2, 3, 4, 5, 6];

/// A hub with four places, and six leaves behind NAT that know it and nobody else.
fn hub_and_leaves(seed: u64) -> World {
    let mut config = Config::lan();
    config.overlay.max_inbound = 4;
    let mut nodes = vec![NodeOptions::with_config(config)];
    nodes.extend(LEAVES.map(|_| NodeOptions::hidden()));
    World::with_nodes(WorldConfig::new(seed, 0), nodes)
}

#[test]
fn each_leaf_gets_a_turn_and_everything() {
    // The last two were offline for ever.
    seeds("full hub", 4, |seed| {
        let mut world = hub_and_leaves(seed);
        let recorder = Recorder::of(&mut world);
        let (mut ids, mut online, mut offline) = (Vec::new(), [0u32; 7], [0u32; 7]);
        let mut longest = [0u32; 7];
        for second in 0..900 {
            if second % 5 == 0 && second < 600 {
                ids.extend(LEAVES.map(|leaf| world.publish_random(leaf, 200)));
            }
            world.run_for(secs(1));
            for leaf in LEAVES {
                let is_linked = world.linked(0, leaf);
                online[leaf] += u32::from(is_linked);
                offline[leaf] = if is_linked { 0 } else { offline[leaf] + 1 };
                longest[leaf] = longest[leaf].max(offline[leaf]);
            }
        }
        assert!(
            LEAVES.iter().all(|leaf| online[*leaf] > 900 / 4),
            "seconds with a link: {online:?}"
        );
        assert!(LEAVES.iter().all(|leaf| longest[*leaf] < 120), "seconds without one: {longest:?}");
        let all = |w: &World| ids.iter().all(|id| w.holders(id) == 7);
        assert!(world.run_until_every(secs(1), all, secs(300)), "{:?}", world.report());
        assert!(LEAVES.iter().all(|leaf| world.outbox(*leaf) == 0));
        world.assert_clean();

        let counters = world.report().counters;
        assert!((10..450).contains(&counters.links_evicted), "{}", counters.links_evicted);
        for leaf in LEAVES {
            let ends = recorder.of_node(leaf, |event| match event {
                Event::PeerDown { reason, .. } => Some(*reason),
                _ => None,
            });
            assert!(ends.iter().all(|reason| *reason == CloseReason::TooManyLinks), "{ends:?}");
        }
        let refused = |leaf| {
            !recorder
                .of_node(leaf, |event| match event {
                    Event::LinkRefused { reason: CloseReason::TooManyLinks, .. } => Some(()),
                    _ => None,
                })
                .is_empty()
        };
        assert!(LEAVES.into_iter().any(refused), "who has no place is told");
    });
}

#[test]
fn a_crowd_of_newcomers_takes_no_more_than_its_share_of_time() {
    // Three have found the hub, and a hundred knock.
    seeds("crowded hub", 2, |seed| {
        let mut world = hub_and_leaves(seed);
        world.run_for(secs(60));
        let before = world.report().counters.links_evicted;
        for _ in 0..100 {
            world.add_node(NodeOptions::hidden());
        }
        world.run_for(secs(60));
        let evicted = world.report().counters.links_evicted - before;
        // Three places rotate, and each link has half a minute.
        assert!((3..=9).contains(&evicted), "{evicted}");
        assert!(world.links(0) <= 4);
        world.assert_clean();
    });
}

#[test]
fn a_hub_may_have_more_than_a_hundred_places() {
    let mut config = Config::lan();
    config.overlay.max_inbound = 112;
    let mut nodes = vec![NodeOptions::with_config(config)];
    nodes.extend((0..112).map(|_| NodeOptions::hidden()));
    let config = WorldConfig::new(1, 0).verification(Verification::Trusted);
    let mut world = World::with_nodes(config, nodes);
    assert!(world.run_until(|w| w.links(0) == 112, secs(30)), "{}", world.links(0));
    let ids: Vec<_> = [1, 112].map(|leaf| world.publish_random(leaf, 500)).into();
    assert!(world.run_until(|w| ids.iter().all(|id| w.holders(id) == 113), secs(5)));
    // What each is known to have is told apart, also beyond the 64th.
    world.run_for(secs(60));
    assert_eq!(world.report().counters.links_evicted, 0);
    let redundancy = world.report().redundancy;
    assert!(redundancy < 1.5, "{redundancy}");
    world.assert_clean();
}

#[test]
fn what_we_dialled_never_gives_way() {
    let mut config = Config::lan();
    config.overlay.max_inbound = 1;
    let mut nodes = vec![NodeOptions::with_config(config)];
    nodes.extend([NodeOptions::default(), NodeOptions::hidden(), NodeOptions::hidden()]);
    let mut world = World::with_nodes(WorldConfig::new(1, 0).topology(Topology::Empty), nodes);
    world.connect(0, 1);
    world.run_for(secs(1));
    let recorder = Recorder::of(&mut world);
    for turn in 0..20 {
        world.connect(2 + turn % 2, 0);
        world.run_for(secs(10));
        assert!(world.linked(0, 1) && world.links(0) == 2);
        assert!(world.linked(0, 2 + turn % 2), "the other one had its turn: {turn}");
        world.run_for(secs(21));
    }
    let down = recorder.of_node(1, |event| matches!(event, Event::PeerDown { .. }).then_some(()));
    assert!(down.is_empty());
    world.assert_clean();
}
