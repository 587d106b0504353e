//! What decides whether one core goes on: completions that belong to nothing, and looks at the log
//! in passing.

use crate::config::Config;
use crate::protocol::env::MAX_STORING;
use crate::protocol::{CallId, Input, Ticket};
use crate::types::Message;

use super::liars::signed;
use super::secs;
use super::single_node::SingleNode;

#[test]
fn a_completion_that_belongs_to_nothing_makes_no_room() {
    let mut node = SingleNode::new(1, &Config::lan(), Vec::new());
    node.protocol.env.storing.enter(MAX_STORING);
    assert!(!node.protocol.has_room());
    node.feed(secs(1), Input::Stored { ticket: Ticket(u64::MAX), result: Ok(()) });
    assert!(!node.protocol.has_room(), "nothing that was under way is done");
}

#[test]
fn a_comparison_gives_nothing_of_the_outbox_up() {
    let mut config = Config::lan();
    config.gossip.retention = secs(12);
    config.outbox.min_copies = 2;
    let mut node = SingleNode::new(1, &config, Vec::new());
    let (one, _) = (node.meet(secs(1), 3), node.meet(secs(1), 4));
    let transaction = signed(1, 500, 1);
    let id = transaction.id();
    node.feed(
        secs(1),
        Input::Publish { call: CallId(1), transactions: vec![transaction], renews: None },
    );
    node.hear(secs(1), one, vec![Message::Stored(vec![id])]);
    node.wake(secs(11));
    assert!(node.protocol.contains(&id), "housekeeping has looked, and it was too early");
    let newcomer = node.meet(secs(14), 5);
    let asks = node.said_to(newcomer).iter().any(|m| matches!(m, Message::Ask(_)));
    assert!(asks && !node.protocol.contains(&id), "a comparison has begun, of what is retained");
    assert_eq!(node.protocol.stats().dead_letters, 0, "and the outbox waits for housekeeping");
    node.wake(secs(21));
    assert_eq!(node.protocol.stats().dead_letters, 1);
}
