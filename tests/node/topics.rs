//! Topics over real sockets: an edge gets what it wants and what is asked for behind it, and no
//! payload of another topic travels to it.

use std::collections::BTreeSet;

use sorcha_peer::config::Role;
use sorcha_peer::types::LinkStatus;
use sorcha_peer::{Event, PeerNode, SqliteStorage, StartAt, TransactionId};

use crate::common::{
    address, config_with, counters, event, identity, ids, next, ready, soon, start, start_alone,
    stats, stop, take, until, until_peers,
};

async fn start_edge(relay: &PeerNode, topics: &[&str]) -> PeerNode {
    let config = config_with(|config| {
        config.gossip.role = Role::Edge;
        config.gossip.topics = topics.iter().map(ToString::to_string).collect();
    });
    let edge = start(PeerNode::builder().config(config).bootstrap([address(relay)])).await;
    ready(&edge, 1).await;
    edge
}

/// Publishes `count` payloads of `size` bytes; their ids.
async fn publish(node: &PeerNode, topic: &str, count: u8, size: usize) -> BTreeSet<TransactionId> {
    let mut ids = BTreeSet::new();
    for n in 0..count {
        ids.insert(node.publish(topic, vec![n; size]).await.expect("a running node").id());
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_gets_its_topics_and_no_payload_of_another() {
    const SIZE: usize = 1000;
    let relay = start_alone().await;
    let (red, blue) = (start_edge(&relay, &[]).await, start_edge(&relay, &["blue"]).await);
    let mut reds = red.subscribe("red", StartAt::Now).await.expect("a running node");
    for edge in [&red, &blue] {
        let stats = until(edge, "it wants one topic", |s| s.topics_carried == 1).await;
        assert!(!stats.carries_all && !stats.stands_in);
    }
    let hang_off = |peers: &[LinkStatus]| peers.iter().filter(|p| !p.relay && p.depth == 1).count();
    until_peers(&relay, "both hang off it", |peers| hang_off(peers) == 2).await;

    let wanted = publish(&relay, "red", 20, SIZE).await;
    publish(&relay, "blue", 30, SIZE).await;
    publish(&relay, "green", 40, SIZE).await;
    // What an edge publishes reaches whoever wants it, whether it wants it itself or not.
    let more = publish(&blue, "red", 10, SIZE).await;
    let wanted: BTreeSet<_> = wanted.union(&more).copied().collect();
    assert_eq!(ids(&take(&mut reds, 30).await), wanted);
    until(&blue, "its topic and its own", |s| s.retained == 40 && s.outbox == 0).await;
    until(&relay, "everything", |s| s.retained == 100).await;

    for (edge, of_its_topic) in [(&red, 30), (&blue, 30)] {
        let c = counters(edge).await;
        assert_eq!(c.transactions_accepted, of_its_topic, "{c:?}");
        // A push that was slow to come is asked for elsewhere, and then comes twice.
        let copies = of_its_topic + c.duplicates_received;
        assert_eq!(c.payload_bytes_received, copies * SIZE as u64, "nothing else");
        assert_eq!(c.refused_unwanted, 0);
    }

    // A late subscriber gets what is retained, also of large payloads.
    publish(&relay, "green", 2, 200_000).await;
    let both = red.subscribe_topics(["green", "red"], StartAt::Earliest).await;
    let mut both = both.expect("a running node");
    let all = take(&mut both, 72).await;
    assert_eq!(ids(&all).len(), 72);
    assert!(all.is_sorted_by_key(|delivery| delivery.cursor), "cursors rise over both");
    assert_eq!(stats(&red).await.topics_carried, 2);
    drop(both);
    until(&red, "it has let go", |s| s.topics_carried == 1).await;
    for node in [&red, &blue, &relay] {
        stop(node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_remembers_topics_over_a_restart_and_a_durable_subscription_counts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let relay = start_alone().await;
    let open = || async {
        let storage = SqliteStorage::open(dir.path()).await.expect("storage");
        let config = config_with(|config| config.gossip.role = Role::Edge);
        let builder = PeerNode::builder().config(config).identity(identity(9));
        let node = start(builder.storage(storage.clone()).bootstrap([address(&relay)])).await;
        ready(&node, 1).await;
        (node, storage)
    };
    publish(&relay, "red", 5, 300).await;
    publish(&relay, "blue", 5, 300).await;
    let (edge, storage) = open().await;
    let mut reds =
        edge.subscribe_durable("r", "red", StartAt::Earliest).await.expect("a subscription");
    for _ in 0..5 {
        soon("a delivery", reds.next()).await.expect("an item");
    }
    assert_eq!(stats(&edge).await.retained, 5);
    drop(reds);
    stop(&edge).await;
    storage.close().await;

    publish(&relay, "red", 3, 301).await;
    let (edge, storage) = open().await;
    let mut reds = edge.subscribe("red", StartAt::Earliest).await.expect("a subscription");
    for _ in 0..8 {
        next(&mut reds).await;
    }
    let c = counters(&edge).await;
    assert_eq!((c.payload_bytes_received, stats(&edge).await.retained), (3 * 301, 8), "the rest");
    stop(&edge).await;
    storage.close().await;
    stop(&relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_without_a_relay_carry_everything_between_them() {
    let first = start(PeerNode::builder().config(config_with(|config| {
        config.gossip.role = Role::Edge;
    })))
    .await;
    let mut events = first.events();
    let second = start_edge(&first, &[]).await;
    let mut third_events = second.events();
    // One of the two stands in, whichever looks in vain first.
    let stands_in = |event: &Event| match event {
        Event::StandInChanged { stands_in, .. } => Some(*stands_in),
        _ => None,
    };
    let stood = tokio::select! {
        stood = event(&mut events, "standing in", stands_in) => stood,
        stood = event(&mut third_events, "standing in", stands_in) => stood,
    };
    assert!(stood);
    let id = publish(&first, "red", 1, 100).await;
    let other = publish(&second, "blue", 1, 100).await;
    let mut all = first.subscribe_all(StartAt::Earliest).await.expect("a running node");
    let got = ids(&take(&mut all, 2).await);
    assert_eq!(got, id.union(&other).copied().collect());
    stop(&first).await;
    stop(&second).await;
}
