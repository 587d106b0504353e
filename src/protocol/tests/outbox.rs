//! The outbox of one core.

use crate::config::Config;
use crate::error::StoreErrorKind;
use crate::protocol::{CallId, Input, PublishRefusal, Queued, Restored};
use crate::types::{Message, WallTime};

use super::liars::{invented, signed};
use super::single_node::SingleNode;
use super::{millis, secs};

#[test]
fn what_is_too_large_to_be_published_anew_is_a_dead_letter() {
    // It was tried again for ever, before those that would have been taken.
    let mut config = Config::lan();
    config.gossip.max_transaction_size = 1024;
    let created = WallTime::default();
    let queued = |n| Queued { id: invented(n), created, attempts: 0, dead: None, unlogged: false };
    let restored = Restored { outbox: vec![queued(0), queued(1)], ..Restored::default() };
    let mut node = SingleNode::restored(1, &config, Vec::new(), restored);
    let now = secs(1);
    let _ = node.meet(now, 3);
    for (n, bytes) in [(0, 2000), (1, 500)] {
        let (call, renews) = (CallId(1), Some(invented(n)));
        let transaction = signed(1, bytes, 1);
        node.feed(now, Input::Publish { call, transactions: vec![transaction], renews });
    }
    let counters = node.protocol.counters();
    assert_eq!((counters.dead_letters, counters.transactions_renewed), (1, 1));
    assert_eq!(node.protocol.stats().dead_letters, 1);
}

#[test]
fn a_peer_that_takes_nothing_does_not_fill_the_outbox() {
    // Each entry waited for its copy too, until it was given up after a minute.
    let mut node = SingleNode::new(1, &Config::lan(), Vec::new());
    let mut now = secs(1);
    let (good, stuck) = (node.meet(now, 3), node.meet(now, 4));
    node.stuck.insert(stuck);
    let mut most = 0;
    for n in 0..6000u64 {
        now += millis(5);
        let transaction = signed(1, 500 + (n / 200) as usize, (n % 200) as u8);
        let id = transaction.id();
        node.feed(
            now,
            Input::Publish { call: CallId(n), transactions: vec![transaction], renews: None },
        );
        node.hear(now, good, vec![Message::Stored(vec![id])]);
        node.wake(now);
        most = most.max(node.protocol.stats().outbox);
    }
    assert!(most < 3000 && node.protocol.stats().outbox < 10, "{most} waited at a time");
    assert!(!node.closed.contains(&stuck), "it is linked all the time");
}

#[test]
fn many_are_taken_whole_or_not_at_all() {
    let mut config = Config::lan();
    config.outbox.max_entries = 100;
    let mut node = SingleNode::new(1, &config, Vec::new());
    let now = secs(1);
    let peer = node.meet(now, 3);
    let batch = |from: u8, count: u8| (from..from + count).map(|n| signed(1, 500, n)).collect();
    let publish = |node: &mut SingleNode, transactions: Vec<_>| {
        let (call, renews) = (CallId(1), None);
        node.feed(now, Input::Publish { call, transactions, renews });
        assert_eq!(node.published.len(), 1, "one answer");
        (node.published.remove(0), node.protocol.stats().outbox, node.protocol.stats().retained)
    };
    assert_eq!(publish(&mut node, batch(0, 60)), (Ok(true), 60, 60));
    let full = Err(PublishRefusal::QueueFull { limit: 100 });
    assert_eq!(publish(&mut node, batch(100, 41)), (full, 60, 60));
    // One that was published before keeps the others from being published.
    assert_eq!(publish(&mut node, batch(59, 10)), (Ok(false), 60, 60));
    let too_large = [batch(100, 2), vec![signed(1, 11 << 20, 7)]].concat();
    assert!(matches!(
        publish(&mut node, too_large),
        (Err(PublishRefusal::TooLarge { .. }), 60, 60)
    ));
    node.store_own = Err(StoreErrorKind::Io);
    let failed = Err(PublishRefusal::Store(StoreErrorKind::Io));
    assert_eq!(publish(&mut node, batch(100, 40)), (failed, 60, 60));
    node.store_own = Ok(());
    assert_eq!(publish(&mut node, batch(100, 40)), (Ok(true), 100, 100));
    let counters = node.protocol.counters();
    assert_eq!((counters.transactions_published, counters.publishes_refused), (100, 41 + 3 + 40));
    assert!(!node.closed.contains(&peer));
}

#[test]
fn a_share_is_kept_by_many_together() {
    let restored = Restored { max_bytes: Some(20_000), ..Restored::default() };
    let mut node = SingleNode::restored(1, &Config::lan(), Vec::new(), restored);
    for (from, count, taken) in [(0, 16, false), (0, 15, true), (20, 1, false)] {
        let transactions = (from..from + count).map(|n| signed(1, 500, n)).collect();
        node.feed(secs(1), Input::Publish { call: CallId(1), transactions, renews: None });
        let result = node.published.remove(0);
        assert_eq!(result.is_ok(), taken, "{count}: {result:?}");
    }
    assert_eq!(node.protocol.stats().retained, 15);
}
