//! Links are measured, and the best are listed.

use std::time::Duration;

use sorcha_peer::PeerId;
use sorcha_peer::error::TestError;

use super::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_tested_when_the_host_asks() {
    let (a, b) = linked_pair().await;
    let test = soon("a result", a.test_peer(b.peer_id())).await.unwrap();
    assert_eq!((test.peer, test.sent, test.lost), (b.peer_id(), 5, 0));
    assert!(test.rtt_min_us > 0 && test.rtt_min_us <= test.rtt_avg_us);
    assert!(test.rtt_avg_us <= test.rtt_max_us && test.rtt_max_us < 2_000_000, "{test:?}");
    let rates = [test.bytes_per_second, test.incoming_bytes_per_second];
    assert!(rates.iter().all(|rate| *rate > 100_000), "{test:?}");
    let [of_a, of_b] = [counters(&a).await, counters(&b).await];
    assert_eq!((of_b.probes_answered, of_b.probes_refused, of_a.probes_refused), (13, 0, 0));

    let again = soon("a refusal", a.test_peer(b.peer_id())).await;
    assert_eq!(again, Err(TestError::Busy));
    let stranger = PeerId::from_bytes([7; 32]);
    assert_eq!(soon("a refusal", a.test_peer(stranger)).await, Err(TestError::Unknown));
    stop(&b).await;
    until(&a, "the link is gone", |s| s.links == 0).await;
    assert_eq!(soon("a refusal", a.test_peer(b.peer_id())).await, Err(TestError::NotLinked));
    stop(&a).await;
    assert_eq!(a.test_peer(b.peer_id()).await, Err(TestError::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_peers_come_first() {
    let a = start_alone().await;
    let others = [start_beside(&a).await, start_beside(&a).await];
    for node in &others {
        ready(node, 1).await;
        let receipt = node.publish("t", vec![1; 1000]).await.unwrap();
        soon("a copy", receipt.replicated(1)).await.unwrap();
    }
    let rated = |s: &sorcha_peer::Stats| s.ratings.values().sum::<u32>() == 2;
    let stats = until(&a, "both links are rated", rated).await;
    assert!(stats.ratings.keys().all(|rating| rating == "good" || rating == "excellent"));
    let best = a.best_peers(10).await.unwrap();
    assert_eq!(best.len(), 2);
    assert!(best[0].quality >= best[1].quality && best[1].quality >= 60, "{best:?}");
    assert!(best.iter().all(|peer| Duration::from_micros(peer.rtt_us) > Duration::ZERO));
    assert!(best.iter().all(|peer| ["good", "excellent"].contains(&peer.rating())));
    assert_eq!(a.best_peers(1).await.unwrap(), best[..1]);
    assert_eq!(a.best_peers(0).await.unwrap(), []);
}
