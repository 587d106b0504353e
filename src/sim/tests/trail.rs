//! Explanations in whole networks: every refusal and every copy explains itself.

use super::*;
use crate::types::{Step, Topic, TransactionId, WallTime};

/// A world whose first node publishes what others refuse: more than its share of their stores, and what
/// is older than one of them keeps.
fn refusing(seed: u64) -> (World, Recorder) {
    let mut config = WorldConfig::new(seed, 5);
    config.node.gossip.retention = secs(3600);
    let mut short = config.node.clone();
    short.gossip.retention = secs(300);
    let bounded = NodeOptions { store_bytes: Some(200_000), ..NodeOptions::default() };
    let short = NodeOptions { store_bytes: Some(200_000), ..NodeOptions::with_config(short) };
    let mut nodes = vec![bounded; 5];
    (nodes[0].store_bytes, nodes[1]) = (None, short);
    let mut world = World::with_nodes(config, nodes);
    let recorder = Recorder::of(&mut world);
    (joined(world), recorder)
}

fn refusals(recorder: &Recorder, node: usize) -> Vec<(TransactionId, String)> {
    recorder.of_node(node, |event| match event {
        Event::TransactionRefused { id, reason, .. } => Some((*id, reason.as_str().to_owned())),
        _ => None,
    })
}

#[test]
fn every_refusal_explains_itself() {
    seeds("refusals explain themselves", 6, |seed| {
        let (mut world, recorder) = refusing(seed);
        let wall = WallTime::from_millis(1_700_000_000_000).plus(world.now());
        let old = world.transaction(0, "t", b"old", wall.minus(secs(400)), wall.plus(secs(900)));
        let mut published = vec![old.id()];
        world.publish_transaction(0, old);
        for n in 0..40 {
            published.push(world.publish_random(0, if n % 9 == 8 { 30_000 } else { 3_000 }));
            world.run_for(millis(50));
        }
        world.run_for(secs(20));
        let mut reasons = std::collections::BTreeSet::new();
        for node in 0..5 {
            for (id, reason) in refusals(&recorder, node) {
                let told = world.protocol(node).unwrap().explain(&id);
                let says =
                    |step: &Step| step.what == "refused" && step.reason.as_deref() == Some(&reason);
                assert!(told.steps.iter().any(says), "{node}: {reason}: {told:?}");
                let topic = told.topic.as_ref().map(Topic::as_str);
                assert!(matches!(topic, Some("t" | "random")), "{told:?}");
                reasons.insert(reason);
            }
        }
        assert!(reasons.contains("over_share") && reasons.contains("expired"), "{reasons:?}");
        let publisher = world.protocol(0).unwrap();
        for id in &published {
            let told = publisher.explain(id);
            assert!(told.own && told.steps[0].what == "published", "{told:?}");
            let confirmed = told.steps.iter().filter(|step| step.what == "confirmed").count();
            assert_eq!(confirmed, publisher.publish_status(id).copies as usize, "{told:?}");
            let refused = told.steps.iter().any(|step| step.what == "refused_by");
            assert!(refused || confirmed > 0, "{told:?}");
        }
    });
}

#[test]
fn every_copy_tells_where_it_came_from() {
    seeds("copies explain themselves", 4, |seed| {
        let mut world = overlay(WorldConfig::new(seed, 8));
        let ids: Vec<_> = (0..40).map(|n| world.publish_random(n % 8, 500)).collect();
        settle(&mut world, secs(60));
        let peers: Vec<_> = (0..8).map(|node| world.peer_id(node)).collect();
        for id in &ids {
            let mut sources = 0;
            for node in 0..8 {
                let told = world.protocol(node).unwrap().explain(id);
                if told.own {
                    assert_eq!(told.state, "confirmed", "{told:?}");
                    continue;
                }
                assert_eq!(told.state, "stored", "{told:?}");
                let from = told.steps.iter().find(|step| step.what == "accepted").unwrap();
                let from = from.peer.expect("a peer that is linked");
                assert!(peers.contains(&from) && from != peers[node]);
                // Whoever it came from tells that it went there.
                let source = peers.iter().position(|peer| *peer == from).unwrap();
                let there = world.protocol(source).unwrap().explain(id);
                let went = |step: &Step| {
                    step.peer == Some(peers[node])
                        && (step.what == "pushed" || step.what == "served")
                };
                assert!(there.steps.iter().any(went), "{node} from {source}: {there:?}");
                sources += 1;
            }
            assert_eq!(sources, 7);
        }
    });
}
