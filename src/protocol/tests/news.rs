//! Telling news from history, in one core.

use crate::config::Config;
use crate::types::{
    Announcement, Bound, Message, Range, RangeContent, Reconcile, Transaction, TransactionId,
};

use super::liars::announce;
use super::secs;
use super::single_node::{SingleNode, transaction};

fn push(transaction: &Transaction) -> Message {
    Message::Push { transaction: transaction.clone(), hop: 1 }
}

fn unsigned() -> SingleNode {
    let mut config = Config::lan();
    config.network.signatures = crate::config::SignaturePolicy::Off;
    SingleNode::new(1, &config, Vec::new())
}

/// Whether each was stored as news, in the order of storing.
fn stored(node: &mut SingleNode) -> Vec<(TransactionId, bool)> {
    std::mem::take(&mut node.stored)
}

#[test]
fn what_is_pushed_is_news_and_what_is_announced_if_it_is_young() {
    let mut node = unsigned();
    let now = secs(1);
    let peer = node.meet(now, 3);
    let [old, young, pushed] =
        [(1, 130_000), (2, 60_000), (3, 1_000_000)].map(|(n, age)| transaction(n, age));
    node.hear(now, peer, vec![push(&pushed)]);
    assert_eq!(stored(&mut node), [(pushed.id(), true)]);
    for (transaction, is_news) in [(&old, false), (&young, true)] {
        node.hear(now, peer, vec![announce(transaction.id(), 4)]);
        node.wake(now + secs(1));
        node.hear(now + secs(1), peer, vec![push(transaction)]);
        assert_eq!(stored(&mut node), [(transaction.id(), is_news)]);
    }
}

#[test]
fn what_a_comparison_finds_or_a_replay_brings_is_history() {
    let mut node = unsigned();
    let now = secs(1);
    let peer = node.meet(now, 3);
    let found = transaction(1, 60_000);
    let asked = node.said_to(peer).into_iter().find_map(|said| match said {
        Message::Ask(ask) => Some(ask),
        _ => None,
    });
    let asked = asked.expect("a comparison begins with the link");
    let list = Range { upper: asked.upper(), content: RangeContent::Rest(vec![(found.id(), 4)]) };
    let answer = Reconcile { session: asked.session, lower: asked.lower, ranges: vec![list] };
    assert!(asked.upper() == Bound::MAX);
    node.hear(now, peer, vec![Message::Answer(Box::new(answer))]);
    let now = secs(2);
    node.wake(now);
    node.hear(now, peer, vec![push(&found)]);
    assert_eq!(stored(&mut node), [(found.id(), false)]);

    let origin = node.meet_on(now, 9, 9, true);
    let replayed = super::liars::signed(9, 4, 1);
    let own = Announcement { id: replayed.id(), size: 4, hop: 0 };
    node.hear(now, origin, vec![Message::Announce(vec![own])]);
    node.hear(now, origin, vec![Message::Push { transaction: replayed.clone(), hop: 0 }]);
    assert_eq!(stored(&mut node), [(replayed.id(), false)]);
}
