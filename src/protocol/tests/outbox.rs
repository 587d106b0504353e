//! The outbox of one core.

use crate::config::Config;
use crate::protocol::{CallId, Input, Queued, Restored};
use crate::types::Message;

use super::liars::{invented, signed};
use super::single_node::SingleNode;
use super::{millis, secs};

#[test]
fn what_is_too_large_to_be_published_anew_is_a_dead_letter() {
    // It was tried again for ever, before those that would have been taken.
    let mut config = Config::lan();
    config.gossip.max_transaction_size = 1024;
    let queued = |n| Queued { id: invented(n), attempts: 0, dead: None, unlogged: false };
    let restored = Restored { outbox: vec![queued(0), queued(1)], ..Restored::default() };
    let mut node = SingleNode::restored(1, &config, Vec::new(), restored);
    let now = secs(1);
    let _ = node.meet(now, 3);
    for (n, bytes) in [(0, 2000), (1, 500)] {
        let (call, renews) = (CallId(1), Some(invented(n)));
        let transaction = signed(1, bytes, 1);
        node.feed(now, Input::Publish { call, transaction, renews });
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
        node.feed(now, Input::Publish { call: CallId(n), transaction, renews: None });
        node.hear(now, good, vec![Message::Stored(vec![id])]);
        node.wake(now);
        most = most.max(node.protocol.stats().outbox);
    }
    assert!(most < 3000 && node.protocol.stats().outbox < 10, "{most} waited at a time");
    assert!(!node.closed.contains(&stuck), "it is linked all the time");
}
