//! Figures of a node, as its host asks for them.

use std::sync::Arc;

use sorcha_peer::ports::Transport;
use sorcha_peer::transport::MemoryNetwork;
use sorcha_peer::types::unstable::Message;
use sorcha_peer::{PeerNode, Stats};

use crate::common::raw::{RawPeer, hello};
use crate::common::{address, identity, linked_pair, noise, soon, start, stats, until};

/// Number of frames that fit on the way at once.
const FRAMES: u64 = 12;

/// All tasks share one thread: the reader of the link has passed on what came before the driver runs.
#[tokio::test]
async fn figures_are_answered_before_frames_that_wait() {
    let network = MemoryNetwork::new();
    let transport = |seed| Arc::new(network.transport(identity(seed).peer_id()));
    let builder = PeerNode::builder().identity(identity(1)).transport(transport(1));
    let node = start(builder.listen("192.0.2.1:5001")).await;
    let link = transport(9).dial(&"192.0.2.1:5001".parse().unwrap(), None).await.unwrap();
    let mut peer = RawPeer::on(identity(9), link);
    peer.send(&[Message::Hello(Box::new(hello(&identity(9))))]).await;
    peer.expect("the link is up", |m| matches!(m, Message::PeersRequest { .. })).await;
    let waiting = |stats: &Stats| stats.memory["inbound"];
    let look = async {
        loop {
            let before = until(&node, "nothing waits", |s| waiting(s) == 0).await;
            for nonce in 0..FRAMES {
                peer.send(&[Message::Pong { nonce }]).await;
            }
            let now = stats(&node).await;
            let handled = |s: &Stats| s.since(&before).counters.frames_received;
            let all = until(&node, "all of them", |s| handled(s) >= FRAMES).await;
            // Where something else had woken the driver before, nothing waited yet.
            if waiting(&now) > 0 {
                return (handled(&now), handled(&all));
            }
        }
    };
    let (at_once, in_the_end) = soon("an answer while frames wait", look).await;
    assert!(at_once == 0 && in_the_end >= FRAMES, "{at_once} handled before the answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_tells_how_things_came_and_where_they_are() {
    let (a, b) = linked_pair().await;
    let before = stats(&b).await;
    for n in 0..20 {
        a.publish("t", noise(n, 1000)).await.unwrap();
    }
    let there = until(&b, "all of it", |s| s.retained == 20).await;
    let since = there.since(&before);
    assert_eq!(since.counters.transactions_accepted, 20);
    assert_eq!((since.delivery_hops[1], since.delivery_hops.iter().sum::<u64>()), (20, 20));
    assert_eq!(since.delivery_latency.iter().sum::<u64>(), 20);
    let (half, all) = (since.delivery_latency_at(0.5), since.delivery_latency_at(1.0));
    assert!(half.is_some() && half <= all && all.unwrap().as_secs() < 60, "{half:?} {all:?}");
    assert!(since.copies_per_delivery().is_none_or(|copies| (1.0..2.0).contains(&copies)));
    assert_eq!((there.retained_bytes, there.storage_failing), (20_000, false));
    assert_eq!(there.listen, [address(&b)]);
    assert_eq!(there.links_by_direction.get("outbound"), Some(&1), "{there:?}");
    assert_eq!(there.links_by_transport.values().sum::<u32>(), 1);
    assert_eq!(there.observed, ["127.0.0.1"], "as the peer that was dialled says");

    let done = until(&a, "confirmed", |s| s.outbox == 0).await;
    assert_eq!((done.outbox_oldest_age_ms, done.outbox_attempts), (None, 0));
    assert_eq!(done.delivery_hops.iter().sum::<u64>(), 0, "nobody else published");
    // What the connections carried is the frames, and what is around them.
    for s in [&done, &there] {
        let c = &s.counters;
        assert!(c.link_bytes_sent > c.frame_bytes_sent, "{c:?}");
        assert!(c.link_bytes_received > c.frame_bytes_received, "{c:?}");
    }
    let text = serde_json::to_value(&done).unwrap();
    let again: Stats = serde_json::from_value(text).unwrap();
    assert_eq!(again, done);

    // What a link has carried is not forgotten with it.
    soon("the end of a", a.shutdown(std::time::Duration::ZERO)).await.unwrap();
    let after = until(&b, "no link", |s| s.links == 0).await;
    assert!(after.counters.link_bytes_received >= there.counters.link_bytes_received);
    assert!(after.counters.link_bytes_sent >= there.counters.link_bytes_sent);
}
