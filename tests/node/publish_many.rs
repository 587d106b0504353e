//! Publishing many at once, and what the node's own validator says of own publishes.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use sorcha_peer::error::{PublishError, StoreErrorKind};
use sorcha_peer::types::Refusal;
use sorcha_peer::{
    Outcome, PeerId, PeerNode, Receipt, StartAt, Storage, Transaction, TransactionId, Validator,
    Verdict,
};

use crate::common::{
    builder, counters, linked_pair, noise, soon, start, start_with, stats, stop, take, until,
};

fn payloads(from: u64, count: u64) -> Vec<Vec<u8>> {
    (from..from + count).map(|n| noise(n, 100)).collect()
}

fn ids(receipts: &[Receipt]) -> Vec<TransactionId> {
    receipts.iter().map(Receipt::id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_arrive_in_order_with_a_receipt_each() {
    let (a, b) = linked_pair().await;
    let mut own = a.subscribe("t", StartAt::Now).await.unwrap();
    let mut arrived = b.subscribe("t", StartAt::Now).await.unwrap();
    // More than are signed together, and equal ones among them.
    let mut many = payloads(0, 200);
    many.extend(payloads(0, 100));
    let receipts = a.publish_many("t", many.clone()).await.unwrap();
    let published = ids(&receipts);
    assert_eq!(published.iter().collect::<BTreeSet<_>>().len(), 300);
    for receipt in &receipts {
        assert_eq!(receipt.outcome(), Outcome::Published);
        soon("a copy", receipt.replicated(1)).await.unwrap();
    }
    for subscription in [&mut own, &mut arrived] {
        let delivered = take(subscription, 300).await;
        let order: Vec<_> = delivered.iter().map(|d| d.transaction.id()).collect();
        assert_eq!(order, published);
        assert!(delivered.iter().zip(&many).all(|(d, sent)| d.transaction.payload() == sent));
    }
    assert_eq!(a.publish_many("t", Vec::<Vec<u8>>::new()).await.unwrap().len(), 0);
    assert_eq!(counters(&a).await.transactions_published, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_whole_is_not_published_in_part() {
    let node = start_with(|config| config.outbox.max_entries = 100).await;
    node.publish_many("t", payloads(0, 60)).await.unwrap();
    let error = node.publish_many("t", payloads(60, 41)).await.unwrap_err();
    assert!(matches!(error, PublishError::QueueFull { limit: 100 }), "{error}");
    let seen = stats(&node).await;
    assert_eq!((seen.outbox, seen.retained), (60, 60));
    // Each for itself, as many as fit are taken: the first.
    let results = node.publish_each("t", payloads(60, 41)).await;
    let taken: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(taken, [vec![true; 40], vec![false]].concat());
    assert!(matches!(results[40], Err(PublishError::QueueFull { limit: 100 })));
    assert_eq!(stats(&node).await.outbox, 100);
    assert_eq!(counters(&node).await.publishes_refused, 42);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_one_call_are_told_and_nothing_is_done() {
    let node = start_with(|config| config.gossip.max_transaction_size = 40 << 20).await;
    for many in [vec![Vec::new(); 4097], vec![vec![0; 16 << 20], vec![0; (16 << 20) + 1]]] {
        let error = node.publish_many("t", many).await.unwrap_err();
        let PublishError::TooMany { max_count, max_bytes } = error else { panic!("{error}") };
        assert_eq!((max_count, max_bytes), (4096, 32 << 20));
    }
    let large = [vec![0; 10], vec![0; (40 << 20) + 1]];
    for result in [
        node.publish_many("t", [large[1].clone()]).await.map(drop),
        node.publish_each("t", large).await.remove(1).map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, PublishError::TooLarge { limit: 41_943_040, .. }), "{error}");
    }
    let long = "t".repeat(256);
    assert!(matches!(node.publish_many(&long, ["x"]).await, Err(PublishError::Topic(_))));
    assert_eq!(stats(&node).await.outbox, 1, "the small one, by itself");
    // One alone may be larger than many together.
    assert_eq!(node.publish_many("t", [vec![0; 33 << 20]]).await.unwrap().len(), 1);
    stop(&node).await;
    assert!(matches!(node.publish_many("t", ["x"]).await, Err(PublishError::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_room_for_all_takes_none_and_its_neighbours_are_taken() {
    // Room for about 20 entries.
    let log = Storage::memory_transactions(Some(6000));
    let node = start(builder().transaction_store(log)).await;
    let (many, few) = (payloads(0, 40), payloads(100, 10));
    let (many, few) =
        futures::future::join(node.publish_many("t", many), node.publish_many("t", few)).await;
    let error = many.unwrap_err();
    assert!(
        matches!(&error, PublishError::Store(e) if e.kind == StoreErrorKind::Full)
            || matches!(error, PublishError::OverShare { .. }),
        "{error}"
    );
    assert_eq!(few.unwrap().len(), 10);
    let seen = stats(&node).await;
    assert_eq!((seen.outbox, seen.retained), (10, 10), "nothing of the forty is anywhere");
}

/// Judges by the first byte: `r` is rejected, `i` ignored, `p` panics, `n` never answers.
#[derive(Debug)]
struct ByByte {
    judges_large: bool,
}

#[async_trait]
impl Validator for ByByte {
    async fn validate(&self, transaction: &Transaction, from: &PeerId) -> Verdict {
        assert_eq!(*from, transaction.origin(), "its own, in these tests");
        assert_eq!(transaction.verify(true), Ok(()), "as others will see it");
        match transaction.payload().first() {
            Some(b'r') => Verdict::Reject,
            Some(b'i') => Verdict::Ignore,
            Some(b'p') => panic!("on purpose"),
            Some(b'n') => std::future::pending().await,
            _ => Verdict::Accept,
        }
    }

    fn judges_large(&self) -> bool {
        self.judges_large
    }
}

async fn judged(judges_large: bool) -> PeerNode {
    start(builder().validator(Arc::new(ByByte { judges_large }))).await
}

fn reason<T: std::fmt::Debug>(result: Result<T, PublishError>) -> Refusal {
    match result.unwrap_err() {
        PublishError::NotValid { reason } => reason,
        error => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_publishes_are_judged_before_they_are_taken() {
    let node = judged(true).await;
    // Not judged within 10 s; meanwhile everything else goes on, in order.
    let never = tokio::spawn({
        let node = node.clone();
        async move { node.publish("t", "never").await }
    });
    let cases =
        [("reject", Refusal::Rejected), ("ignore", Refusal::Ignored), ("panic", Refusal::Ignored)];
    for (word, expected) in cases {
        let refused = node.publish("t", word).await;
        assert_eq!(
            refused.as_ref().unwrap_err().to_string().contains("rejected"),
            word == "reject"
        );
        assert_eq!(reason(refused), expected);
        let prepared = node.prepare("t", word).unwrap();
        assert_eq!(reason(node.publish_prepared(prepared).await), expected);
        assert_eq!(reason(node.publish_many("t", ["good", word, "good"]).await), expected);
    }
    let large = [b"r".repeat(20_000), b"good".to_vec()];
    let results = node.publish_each("t", large).await;
    assert!(matches!(results[..], [Err(PublishError::NotValid { .. }), Ok(_)]), "{results:?}");
    let receipts = node.publish_many("t", (0..100).map(|n| format!("good {n}"))).await.unwrap();
    let mut all = node.subscribe("t", StartAt::Earliest).await.unwrap();
    let delivered: Vec<_> = take(&mut all, 101).await.iter().map(|d| d.transaction.id()).collect();
    assert_eq!(delivered[1..], ids(&receipts));
    assert_eq!(reason(soon("a time-out", never).await.unwrap()), Refusal::Ignored);
    let seen = stats(&node).await;
    assert_eq!((seen.retained, seen.outbox, seen.counters.publishes_refused), (101, 101, 17));
    stop(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_judge_large_payloads_does_not_judge_its_own() {
    let node = judged(false).await;
    node.publish("t", b"r".repeat(20_000)).await.unwrap();
    assert_eq!(reason(node.publish("t", "r").await), Refusal::Rejected);
    until(&node, "it is there", |s| s.retained == 1).await;
}
