//! Tests of what cannot be reached from outside: queues that overrun, and names that stand for several
//! addresses.

#[cfg(feature = "grpc")]
mod addresses;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::hashing::MAX_INLINE_BYTES;
use super::messages::Command;
use super::start::Capacities;
use super::{Item, PeerNode, PeerNodeBuilder, StartAt};
use crate::identity::Identity;
use crate::transport::MemoryNetwork;
use crate::types::TransactionId;

fn builder(network: &MemoryNetwork, seed: u8) -> PeerNodeBuilder {
    let identity = Identity::from_seed([seed; 32]);
    PeerNode::builder()
        .transport(Arc::new(network.transport(identity.peer_id())))
        .identity(identity)
        .seed([seed; 32])
        .listen(&format!("127.0.0.{seed}:5001"))
}

/// Starts a node whose channels hold so little, linked to a new one. Returns both, the first one
/// first.
async fn narrow_and_wide(capacities: Capacities) -> (PeerNode, PeerNode) {
    let network = MemoryNetwork::new();
    let wide = builder(&network, 1).start().await.unwrap();
    let mut parts = builder(&network, 2).bootstrap(["127.0.0.1:5001"]).parts().unwrap();
    parts.capacities = capacities;
    let narrow = parts.start().await.unwrap();
    narrow.wait_ready(1, Duration::from_mins(1)).await.unwrap();
    (narrow, wide)
}

async fn publish_at_once(node: &PeerNode, payloads: Vec<Bytes>) {
    let publishes = payloads.into_iter().map(|payload| node.publish("t", payload));
    for result in futures::future::join_all(publishes).await {
        result.unwrap();
    }
}

/// Waits until so many transactions are delivered.
async fn delivered(node: &PeerNode, count: usize) {
    let mut items = node.subscribe("t", StartAt::Earliest).await.unwrap();
    for at in 0..count {
        let item = tokio::time::timeout(Duration::from_mins(30), items.next()).await;
        assert!(matches!(item, Ok(Some(Item::Delivery(_)))), "{at}: {item:?}");
    }
}

#[tokio::test]
async fn a_large_payload_is_not_hashed_on_the_caller_s_task() {
    let network = MemoryNetwork::new();
    let node = builder(&network, 1).start().await.unwrap();
    // Polled first, and not ready to be signed before the task is free again.
    let large = node.publish("t", vec![1; MAX_INLINE_BYTES + 1]);
    let small = node.publish("t", vec![2; MAX_INLINE_BYTES]);
    let (large, small) = futures::future::join(large, small).await;
    large.unwrap();
    small.unwrap();
    let mut items = node.subscribe("t", StartAt::Earliest).await.unwrap();
    let mut sizes = Vec::new();
    while sizes.len() < 2 {
        let Some(Item::Delivery(delivery)) = items.next().await else { panic!("nothing came") };
        sizes.push(delivery.transaction.payload().len());
    }
    assert_eq!(sizes, [MAX_INLINE_BYTES, MAX_INLINE_BYTES + 1]);
}

#[test]
fn a_large_payload_is_published_from_outside_of_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let network = MemoryNetwork::new();
    let node = runtime.block_on(builder(&network, 1).start()).unwrap();
    let published = futures::executor::block_on(node.publish("t", vec![1; MAX_INLINE_BYTES + 1]));
    published.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_check_that_no_verifier_takes_costs_time_and_no_transaction() {
    let capacities = Capacities { checks: 2, ..Capacities::default() };
    let (narrow, wide) = narrow_and_wide(capacities).await;
    publish_at_once(&wide, (0..60).map(|n| Bytes::from(vec![n; 1000])).collect()).await;
    delivered(&narrow, 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_no_verifier_takes_costs_time_and_no_transaction() {
    let capacities = Capacities { checks: 2, ..Capacities::default() };
    let (narrow, wide) = narrow_and_wide(capacities).await;
    publish_at_once(&wide, (0..4).map(|n| Bytes::from(vec![n; 1 << 20])).collect()).await;
    delivered(&narrow, 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_the_store_writer_does_not_take_at_once_is_done_before_the_end() {
    let network = MemoryNetwork::new();
    let mut parts = builder(&network, 1).parts().unwrap();
    parts.capacities = Capacities { store_ops: 1, ..Capacities::default() };
    let node = parts.start().await.unwrap();
    // All on one thread: the writer runs when the driver has taken every command.
    let mut answers = Vec::new();
    for n in 0..5 {
        let (reply, answer) = oneshot::channel();
        let id = TransactionId::from_bytes([n; 32]);
        node.command(Command::DropDeadLetter { id, reply }).await.unwrap();
        answers.push(answer);
    }
    node.shutdown(Duration::ZERO).await.unwrap();
    for answer in answers {
        answer.await.expect("done").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_store_writer_does_not_take_is_refused_or_fetched_again() {
    let capacities = Capacities { store_ops: 2, ..Capacities::default() };
    let (narrow, wide) = narrow_and_wide(capacities).await;
    publish_at_once(&wide, (0..60).map(|n| Bytes::from(vec![n; 1000])).collect()).await;
    delivered(&narrow, 60).await;
}
