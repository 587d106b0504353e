//! Transactions spread: to every node, once, as they are, whenever they were published and
//! whoever reads how slowly.

use std::collections::BTreeSet;

use futures::future::join_all;
use sorcha_peer::error::PublishError;
use sorcha_peer::types::Signature;
use sorcha_peer::{Cursor, Mode, PeerNode, Receipt, StartAt, Stats};

use crate::common::{
    address, assert_spreads, builder, config_with, counters, ids, linked_pair, next, noise,
    payloads, ready, rest, soon, start, start_alone, start_beside, start_with, stats, stop, take,
    until,
};

const KIB: usize = 1024;

#[tokio::test(flavor = "multi_thread")]
async fn every_node_gets_everything_exactly_once() {
    const NODES: usize = 8;
    let mut nodes = vec![start_alone().await];
    for _ in 1..NODES {
        let node = start_beside(&nodes[0]).await;
        nodes.push(node);
    }
    join_all(nodes.iter().map(|node| ready(node, 2))).await;

    let subscriptions =
        join_all(nodes.iter().map(|n| n.subscribe("orders", StartAt::Earliest))).await;
    let mut published = BTreeSet::new();
    for (seed, node) in (0..).zip(&nodes) {
        node.publish("orders", noise(seed, 700)).await.unwrap();
        published.insert(noise(seed, 700));
    }
    for node in &nodes {
        until(node, "everything is there", |s| s.retained == NODES as u64).await;
    }
    join_all(nodes.iter().map(stop)).await;
    for subscription in subscriptions {
        let delivered = rest(subscription.unwrap()).await;
        assert_eq!(delivered.len(), NODES, "each exactly once");
        assert_eq!(payloads(&delivered), published);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_of_every_size_arrive_as_they_are() {
    let (a, b) = linked_pair().await;
    let sizes = [0, 1, 16 * KIB, 16 * KIB + 1, 64 * KIB, KIB * KIB, 10 * KIB * KIB];
    let mut arrived = b.subscribe("sizes", StartAt::Now).await.unwrap();
    for (seed, size) in (0..).zip(sizes) {
        let payload = noise(seed, size);
        let receipt = a.publish("sizes", payload.clone()).await.unwrap();
        let delivery = next(&mut arrived).await;
        assert_eq!(delivery.transaction.id(), receipt.id());
        assert!(delivery.transaction.payload() == &payload, "{size} bytes changed on their way");
        assert_eq!((delivery.from, delivery.hops), (Some(a.peer_id()), 1));
        assert_eq!(delivery.transaction.origin(), a.peer_id());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_payload_costs_one_copy_per_node() {
    const NODES: usize = 8;
    const SIZE: usize = 10 * KIB * KIB;
    let mut nodes = vec![start_alone().await];
    for _ in 1..NODES {
        let node = start_beside(&nodes[0]).await;
        nodes.push(node);
    }
    join_all(nodes.iter().map(|node| ready(node, 3))).await;
    for (seed, origin) in [(1, 0), (2, 5)] {
        nodes[origin].publish("large", noise(seed, SIZE)).await.unwrap();
        for node in &nodes {
            until(node, "everything is there", |s| s.retained == seed).await;
        }
    }
    let sent = join_all(nodes.iter().map(counters)).await;
    let sent: u64 = sent.iter().map(|c| c.payload_bytes_sent).sum();
    let copies = sent as f64 / (2 * (NODES - 1) * SIZE) as f64;
    assert!(copies <= 1.05, "{copies} copies per delivery");
    join_all(nodes.iter().map(stop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_with_both_sizes() {
    let node = start_alone().await;
    let limit = 10 * KIB * KIB;
    let error = node.publish("t", vec![0; limit + 1]).await.unwrap_err();
    let PublishError::TooLarge { size, limit: told } = error else { panic!("{error}") };
    assert_eq!((size, told), (limit as u64 + 1, limit as u64));
    let error = node.publish(&"t".repeat(256), "x").await.unwrap_err();
    assert!(matches!(error, PublishError::Topic(_)), "{error}");
    assert_eq!(stats(&node).await.retained, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_twice_are_two_transactions() {
    let (a, b) = linked_pair().await;
    let mut arrived = b.subscribe("t", StartAt::Now).await.unwrap();
    let publishes = join_all((0..20).map(|_| a.publish("t", "again"))).await;
    let published: BTreeSet<_> = publishes.into_iter().map(|r| r.unwrap().id()).collect();
    assert_eq!(published.len(), 20);
    assert_eq!(ids(&take(&mut arrived, 20).await), published);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_signed_together_and_keeps_its_order() {
    const BURST: usize = 300;
    let (a, b) = linked_pair().await;
    let mut accepted = a.subscribe("burst", StartAt::Now).await.unwrap();
    let mut arrived = b.subscribe("burst", StartAt::Now).await.unwrap();
    let one = |n: usize| a.publish("burst", n.to_le_bytes().to_vec());
    let receipts: Vec<_> =
        join_all((0..BURST).map(one)).await.into_iter().collect::<Result<_, _>>().unwrap();
    let mut together = 0;
    let mut left: BTreeSet<_> = receipts.iter().map(Receipt::id).collect();
    for delivery in take(&mut accepted, BURST).await {
        let transaction = next(&mut arrived).await.transaction;
        assert_eq!(transaction.id(), delivery.transaction.id(), "in the order of acceptance");
        assert_eq!(transaction.verify(true), Ok(()));
        assert!(left.remove(&transaction.id()), "each once");
        together += usize::from(matches!(transaction.signature(), Signature::Batch(_)));
    }
    assert!(together > BURST / 2, "{together} of {BURST} signed together");
    let alone = a.publish("burst", "alone").await.unwrap();
    let transaction = next(&mut arrived).await.transaction;
    assert_eq!(transaction.id(), alone.id());
    assert!(matches!(transaction.signature(), Signature::Ed25519(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_kept_apart() {
    let (a, b) = linked_pair().await;
    let mut left = b.subscribe("left", StartAt::Now).await.unwrap();
    let mut all = b.subscribe_all(StartAt::Now).await.unwrap();
    for n in 0..10 {
        let topic = if n % 2 == 0 { "left" } else { "right" };
        a.publish(topic, format!("{topic} {n}")).await.unwrap();
    }
    for delivery in take(&mut left, 5).await {
        assert_eq!(delivery.transaction.topic().as_str(), "left");
    }
    assert_eq!(ids(&take(&mut all, 10).await).len(), 10);
    stop(&b).await;
    assert!(rest(left).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_starts_where_it_is_told() {
    let node = start_alone().await;
    let mut first = node.subscribe("t", StartAt::Earliest).await.unwrap();
    for n in 0..3 {
        node.publish("t", format!("{n}")).await.unwrap();
    }
    let now = node.subscribe("t", StartAt::Now).await.unwrap();
    let earlier = take(&mut first, 3).await;
    let cursors: Vec<Cursor> = earlier.iter().map(|d| d.cursor).collect();
    assert!(cursors.is_sorted_by(|a, b| a < b), "{cursors:?}");
    assert!(earlier.iter().all(|d| (d.from, d.hops) == (None, 0)), "its own");

    let after = node.subscribe("t", StartAt::After(cursors[0])).await.unwrap();
    let earliest = node.subscribe("t", StartAt::Earliest).await.unwrap();
    node.publish("t", "3").await.unwrap();
    stop(&node).await;
    let texts = |deliveries: Vec<sorcha_peer::Delivery>| -> Vec<String> {
        let text = |d: &sorcha_peer::Delivery| {
            String::from_utf8(d.transaction.payload().to_vec()).expect("text")
        };
        deliveries.iter().map(text).collect()
    };
    assert_eq!(texts(rest(now).await), ["3"]);
    assert_eq!(texts(rest(after).await), ["1", "2", "3"]);
    assert_eq!(texts(rest(earliest).await), ["0", "1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_offline_is_delivered_to_who_joins() {
    let lonely = start_alone().await;
    assert_eq!(lonely.mode(), Mode::Offline);
    let small = lonely.publish("t", noise(1, 500)).await.unwrap();
    let large = lonely.publish("t", noise(2, 300 * KIB)).await.unwrap();
    assert_eq!(small.copies(), 0);

    let newcomer = start_beside(&lonely).await;
    let mut arrived = newcomer.subscribe("t", StartAt::Earliest).await.unwrap();
    assert_eq!(ids(&take(&mut arrived, 2).await), BTreeSet::from([small.id(), large.id()]));
    soon("a copy", small.replicated(1)).await.unwrap();
    soon("a copy", large.replicated(1)).await.unwrap();
    until(&lonely, "the outbox is empty", |s| s.outbox == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_gets_what_is_retained_from_others_than_the_origin() {
    let (a, b) = linked_pair().await;
    let receipt = a.publish("t", "kept").await.unwrap();
    soon("a copy", receipt.replicated(1)).await.unwrap();
    stop(&a).await;
    let newcomer = start_beside(&b).await;
    let mut arrived = newcomer.subscribe("t", StartAt::Earliest).await.unwrap();
    let delivery = next(&mut arrived).await;
    assert_eq!(delivery.transaction.id(), receipt.id());
    assert_eq!((delivery.from, delivery.hops), (Some(b.peer_id()), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_read_slows_nobody() {
    const COUNT: usize = 1500;
    let (a, b) = linked_pair().await;
    let asleep = b.subscribe("t", StartAt::Now).await.unwrap();
    let mut awake = b.subscribe("t", StartAt::Now).await.unwrap();
    let publish = async {
        for n in 0..COUNT {
            a.publish("t", n.to_le_bytes().to_vec()).await.unwrap();
        }
    };
    let ((), seen) = tokio::join!(publish, take(&mut awake, COUNT));
    assert_eq!(ids(&seen).len(), COUNT);
    stop(&b).await;
    assert_eq!(ids(&rest(asleep).await), ids(&seen), "it misses nothing either");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_counts_the_nodes_that_stored_it() {
    let a = start_alone().await;
    let (b, c) = (start_beside(&a).await, start_beside(&a).await);
    ready(&a, 2).await;
    let receipt = a.publish("t", "x").await.unwrap();
    soon("two copies", receipt.replicated(2)).await.unwrap();
    assert_eq!(receipt.copies(), 2);
    for node in [&b, &c] {
        assert_eq!(stats(node).await.retained, 1, "confirmed only what is there");
    }
    let more = tokio::spawn({
        let receipt = receipt.clone();
        async move { receipt.replicated(3).await }
    });
    stop(&a).await;
    soon("waiting ends", more).await.unwrap().expect_err("the node is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_process_do_not_know_each_other() {
    let (a, b) = linked_pair().await;
    let other = |c: &mut sorcha_peer::Config| c.network.name = "other".to_owned();
    let c = start_with(other).await;
    let d = start(PeerNode::builder().config(config_with(other)).bootstrap([address(&c)])).await;
    ready(&c, 1).await;
    assert_spreads(&a, &b).await;
    assert_spreads(&c, &d).await;
    for node in [&a, &b, &c, &d] {
        let stats = stats(node).await;
        assert_eq!((stats.retained, stats.links), (2, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_plausible_and_travel_as_json() {
    let a = start_alone().await;
    let b = start(builder().bootstrap([address(&a)])).await;
    ready(&b, 1).await;
    let receipt = a.publish("t", noise(1, 1000)).await.unwrap();
    soon("a copy", receipt.replicated(1)).await.unwrap();
    let seen = until(&b, "a round trip is measured", |s| s.retained == 1).await;
    assert_eq!(seen.peer_id, b.peer_id());
    assert_ne!(seen.mode, Mode::Offline);
    assert_eq!((seen.links, seen.handshakes, seen.known_peers), (1, 0, 1));
    assert_eq!((seen.outbox, seen.fetching, seen.banned_peers), (0, 0, 0));
    let c = &seen.counters;
    assert_eq!((c.transactions_accepted, c.payload_bytes_accepted), (1, 1000));
    assert_eq!((c.links_opened, c.bootstraps_started), (1, 1));
    assert!(c.frames_received > 0 && c.frame_bytes_received > 1000);
    let published = counters(&a).await;
    assert_eq!((published.transactions_published, published.transactions_replicated), (1, 1));

    let json = serde_json::to_string(&seen).unwrap();
    assert_eq!(serde_json::from_str::<Stats>(&json).unwrap(), seen);
    let [peer] = &b.peers().await.unwrap()[..] else { panic!("one peer") };
    assert_eq!(peer.peer, a.peer_id());
    assert_eq!(peer.address.as_deref(), Some(address(&a).as_str()));
    let json = serde_json::to_string(peer).unwrap();
    assert_eq!(&serde_json::from_str::<sorcha_peer::types::LinkStatus>(&json).unwrap(), peer);
}
