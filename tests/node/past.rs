//! A node that comes back after everybody has forgotten what it missed.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use sorcha_peer::error::SubscribeError;
use sorcha_peer::transport::MemoryNetwork;
use sorcha_peer::types::WallTime;
use sorcha_peer::{Cursor, Event, Item, PeerNode, PeerNodeBuilder, StartAt, Storage};

use crate::common::raw::now;
use crate::common::{counters, event, identity, next, ready, soon, start, stop};

const HOUR: Duration = Duration::from_hours(1);

fn builder(network: &MemoryNetwork, seed: u8) -> PeerNodeBuilder {
    let identity = identity(seed);
    PeerNode::builder()
        .transport(Arc::new(network.transport(identity.peer_id())))
        .identity(identity)
        .listen(&format!("127.0.0.{seed}:5001"))
}

/// Returns what a gap of time says: its cursors and its span.
fn gap(item: Option<Item>) -> (Cursor, Cursor, Range<WallTime>) {
    match item {
        Some(Item::Gap { after, until, span: Some(span), .. }) => (after, until, span),
        other => panic!("no gap of time: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn each_subscription_gets_a_gap_with_the_span_and_so_does_the_next_process() {
    let network = MemoryNetwork::new();
    let begin = now();
    let peer = start(builder(&network, 1)).await;
    // Of an earlier process, which ended three hours ago.
    let log = Storage::memory_transactions(None);
    let away = now().minus(3 * HOUR);
    for name in ["sorcha-peer/whole-since", "sorcha-peer/whole-until"] {
        log.save_cursor(name, Cursor(away.as_millis())).await.unwrap();
    }
    let start_again = || {
        builder(&network, 2).transaction_store(log.clone()).bootstrap(["127.0.0.1:5001"]).start()
    };
    let node = start_again().await.unwrap();
    let own = node.publish("t", "before it was found out").await.unwrap();
    let mut events = node.events();
    let mut waiting = node.subscribe("t", StartAt::Now).await.unwrap();
    let mut durable = node.subscribe_durable("d", "t", StartAt::Earliest).await.unwrap();
    ready(&node, 1).await;

    let told = event(&mut events, "an absence", |e| match e {
        Event::HistoryMissed { from, until, .. } => Some(*from..*until),
        _ => None,
    })
    .await;
    assert_eq!(told.start, away);
    // The peer has nothing that is older than itself.
    assert!((begin..=now()).contains(&told.end), "{told:?} of {begin}");
    let (after, until, span) = gap(soon("a gap", waiting.next()).await);
    assert_eq!((after, span), (until, told.clone()));
    let Some(Item::Delivery(first)) = soon("its own", durable.next()).await else { panic!("none") };
    assert_eq!(first.transaction.id(), own.id());
    let (_, until, span) = gap(soon("a gap", durable.next()).await);
    assert_eq!((until, span), (first.cursor, told.clone()));
    assert_eq!(counters(&node).await.histories_missed, 1);
    let mut later = node.subscribe("t", StartAt::Now).await.unwrap();
    peer.publish("t", "news").await.unwrap();
    assert_eq!(&next(&mut later).await.transaction.payload()[..], b"news", "not told again");
    assert_eq!(&next(&mut waiting).await.transaction.payload()[..], b"news");
    drop((waiting, durable, later));
    stop(&node).await;

    // Nothing was acknowledged.
    let node = start_again().await.unwrap();
    let mut durable = node.subscribe_durable("d", "t", StartAt::Now).await.unwrap();
    assert!(matches!(soon("its own", durable.next()).await, Some(Item::Delivery(_))));
    let mut rest = vec![soon("a gap", durable.next()).await, soon("news", durable.next()).await];
    // The place is before the news, which had come by the time that the gap is told.
    rest.sort_by_key(|item| matches!(item, Some(Item::Delivery(_))));
    let Some(Item::Delivery(last)) = rest.pop().unwrap() else { panic!("no news") };
    assert_eq!(gap(rest.pop().unwrap()).2, told);
    durable.ack(last.cursor).await.unwrap();
    let mut events = node.events();
    ready(&node, 1).await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(counters(&node).await.histories_missed, 0, "it was not away again");
    stop(&node).await;
    while let Some(event) = events.next().await {
        assert!(!matches!(event, Event::HistoryMissed { .. }), "{event:?}");
    }
    stop(&peer).await;
}

#[tokio::test(start_paused = true)]
async fn names_of_the_node_are_no_subscription_s() {
    let network = MemoryNetwork::new();
    let node = start(builder(&network, 1)).await;
    let refused =
        node.subscribe_durable("sorcha-peer/whole-until", "t", StartAt::Now).await.unwrap_err();
    assert!(matches!(refused, SubscribeError::Name { .. }), "{refused}");
}
