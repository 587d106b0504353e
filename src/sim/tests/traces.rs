//! Trace contexts reach every node, whatever way a transaction takes.

use super::large::{MIB, honest, linked, uplinked};
use super::*;
use crate::types::{TraceContext, TransactionId, WallTime};

const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Publishes so many bytes as part of a trace.
fn publish_traced(world: &mut World, node: usize, bytes: usize) -> TransactionId {
    let created = WallTime::from_millis(1_700_000_000_000).plus(world.now());
    let (expires, payload) = (created.plus(secs(3000)), vec![7; bytes]);
    let transaction = world.transaction(node, "traced", &payload, created, expires);
    let transaction = transaction.with_trace(TraceContext::parse(TEXT));
    let id = transaction.id();
    world.publish_transaction(node, transaction);
    id
}

#[track_caller]
fn assert_traced(world: &World, nodes: usize, id: &TransactionId) {
    for node in 0..nodes {
        assert_eq!(world.traceparent(node, id).as_deref(), Some(TEXT), "node {node}");
    }
}

#[test]
fn a_context_goes_as_far_as_the_transaction() {
    seeds("traces, line", 2, |seed| {
        let links: Vec<_> = (0..4).map(|n| (n, n + 1)).collect();
        let mut world = linked(uplinked(seed, 0), honest(5), &links);
        for bytes in [0, 500, 20_000, MIB] {
            let id = publish_traced(&mut world, 0, bytes);
            let plain = world.publish_random(4, bytes + 1);
            settle(&mut world, secs(30));
            assert_traced(&world, 5, &id);
            assert_eq!(world.traceparent(0, &plain), None);
        }
    });
}

#[test]
fn a_context_comes_with_what_is_asked_for_later() {
    seeds("traces, late joiner", 2, |seed| {
        let config = uplinked(seed, 3).topology(Topology::Mesh);
        let mut world = overlay(config);
        let ids = [400, 20_000, MIB].map(|bytes| publish_traced(&mut world, 1, bytes));
        settle(&mut world, secs(30));
        let late = world.add_node(NodeOptions::default());
        settle(&mut world, secs(30));
        for id in ids {
            assert_traced(&world, late + 1, &id);
        }
    });
}
