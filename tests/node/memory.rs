//! A node whose memory is as small as may be: what is published, received and served waits for room,
//! and all of it arrives.

use std::collections::BTreeSet;

use sorcha_peer::{PeerNode, SqliteStorage, StartAt};

use crate::common::{address, builder, config_with, next, ready, soon, start, stats, stop};

const MIB: usize = 1 << 20;
/// Size of the payloads: the memory is four times that.
const SIZE: usize = 10 * MIB;
const COUNT: usize = 5;

async fn start_small(dir: &std::path::Path, contacts: &[String]) -> PeerNode {
    let config = config_with(|c| c.limits.memory = 4 * SIZE as u64);
    let storage = SqliteStorage::open(dir).await.unwrap();
    start(builder().config(config).bootstrap(contacts).storage(storage)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_both_ways_at_once_get_through_the_smallest_memory() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let a = start_small(dirs[0].path(), &[]).await;
    let b = start_small(dirs[1].path(), &[address(&a)]).await;
    ready(&a, 1).await;
    ready(&b, 1).await;
    let mut subscriptions = Vec::new();
    for node in [&a, &b] {
        subscriptions.push(node.subscribe("t", StartAt::Earliest).await.unwrap());
    }
    // All at once: those that find no room wait for it.
    let publish = |node: &PeerNode, mark: usize| {
        let node = node.clone();
        async move {
            let calls = (0..COUNT).map(|n| {
                let mut payload = vec![0; SIZE];
                payload[..2].copy_from_slice(&[mark, n].map(|n| u8::try_from(n).unwrap()));
                node.publish("t", payload)
            });
            let receipts = futures::future::join_all(calls).await;
            receipts.into_iter().map(|receipt| receipt.unwrap().id()).collect::<BTreeSet<_>>()
        }
    };
    let all = async {
        let (mut ids, theirs) = tokio::join!(publish(&a, 0), publish(&b, 1));
        ids.extend(theirs);
        ids
    };
    let ids = soon("all are published", all).await;
    assert_eq!(ids.len(), 2 * COUNT);
    for subscription in &mut subscriptions {
        let mut seen = BTreeSet::new();
        while seen.len() < ids.len() {
            seen.insert(soon("all arrive", next(subscription)).await.transaction.id());
        }
        assert_eq!(seen, ids);
    }
    for node in [a, b] {
        let stats = stats(&node).await;
        assert!(stats.memory.keys().eq(stats.memory_limits.keys()), "{stats:?}");
        let most: u64 =
            stats.memory_limits.iter().filter(|(o, _)| *o != "links").map(|(_, n)| n).sum();
        assert!(most <= 4 * SIZE as u64, "{stats:?}");
        assert_eq!(stats.memory["publishes"], 0);
        stop(&node).await;
    }
}
