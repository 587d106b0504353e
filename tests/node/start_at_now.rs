//! What `StartAt::Now` leaves out, and what not.

use std::time::Duration;

use sorcha_peer::config::Role;
use sorcha_peer::types::WallTime;
use sorcha_peer::{Identity, PeerNode, StartAt, Transaction};

use crate::common::raw::{self, RawPeer, push};
use crate::common::{
    address, builder, config_with, identity, next, noise, ready, start, start_alone, start_beside,
    stats, stop, until,
};

async fn publish(node: &PeerNode, count: u64) {
    let payloads = (0..count).map(|n| noise(n, 100));
    let receipts = node.publish_many("t", payloads).await.unwrap();
    // What is created in the same millisecond as a subscription begins is not before it.
    let last = receipts.len();
    assert_eq!(last as u64, count);
    let made = raw::now();
    while raw::now() <= made {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_relay_delivers_nothing_that_others_retain() {
    let (first, second) = crate::common::linked_pair().await;
    publish(&first, 20).await;
    until(&first, "confirmed", |s| s.outbox == 0).await;

    let fresh = start(builder()).await;
    let mut all = fresh.subscribe_all(StartAt::Now).await.unwrap();
    let mut kept = fresh.subscribe_durable("kept", "t", StartAt::Now).await.unwrap();
    fresh.connect(&address(&second)).await.unwrap();
    until(&fresh, "the history", |s| s.retained == 20).await;
    let receipt = first.publish("t", "new").await.unwrap();
    let delivered = next(&mut all).await;
    assert_eq!(delivered.transaction.id(), receipt.id(), "the first that is delivered");
    let mut earliest = fresh.subscribe_all(StartAt::Earliest).await.unwrap();
    assert_eq!(crate::common::take(&mut earliest, 21).await.len(), 21);
    // A durable subscription began at its place in the log.
    for _ in 0..21 {
        kept.next().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_origin_published_before_alone_is_history_too_and_what_it_published_since_is_not() {
    let origin = start_alone().await;
    publish(&origin, 5).await;
    let fresh = start(builder()).await;
    let mut now = fresh.subscribe("t", StartAt::Now).await.unwrap();
    let since = origin.publish("t", "since").await.unwrap();
    fresh.connect(&address(&origin)).await.unwrap();
    // In the order of publishing, so all of it is there when the last one is.
    assert_eq!(next(&mut now).await.transaction.id(), since.id());
    assert_eq!(stats(&fresh).await.retained, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_fetches_the_history_of_a_new_topic_and_does_not_deliver_it() {
    let relay = start_alone().await;
    publish(&relay, 10).await;
    let config = config_with(|config| config.gossip.role = Role::Edge);
    let edge = PeerNode::builder().config(config).bootstrap([address(&relay)]);
    let edge = start(edge).await;
    ready(&edge, 1).await;
    let mut now = edge.subscribe("t", StartAt::Now).await.unwrap();
    until(&edge, "the history", |s| s.retained == 10).await;
    let receipt = relay.publish("t", "new").await.unwrap();
    assert_eq!(next(&mut now).await.transaction.id(), receipt.id());
    stop(&edge).await;
    stop(&relay).await;
}

/// A transaction of an origin whose clock is `behind`.
fn slow(origin: &Identity, behind: Duration, payload: &[u8]) -> Transaction {
    let mut header = raw::header(origin, payload);
    header.created = WallTime::from_millis(raw::now().as_millis()).minus(behind);
    header.expires = header.created.plus(Duration::from_hours(1));
    raw::signed(origin, &header, payload)
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_an_origin_whose_clock_is_slow_is_delivered() {
    let node = start_beside(&start_alone().await).await;
    let mut peer = RawPeer::join(identity(8), &node).await;
    let mut now = node.subscribe_all(StartAt::Now).await.unwrap();
    for (n, behind) in [(1, 1), (2, 100), (3, 1800)] {
        let transaction = slow(&peer.identity, Duration::from_secs(behind), &[n]);
        peer.send(&[push(transaction.clone())]).await;
        assert_eq!(next(&mut now).await.transaction.id(), transaction.id(), "{behind} s");
    }
}
