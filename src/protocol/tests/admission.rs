//! Who gets a place on one core, what is told to whom, and what is said of who comes twice.

use crate::config::Config;
use crate::protocol::Input;
use crate::types::{CloseReason, Event, Hello, LinkId, Message, PeerId};

use super::liars::signed;
use super::single_node::{SingleNode, greeting};
use super::*;

fn node() -> SingleNode {
    SingleNode::new(1, &Config::lan(), Vec::new())
}

/// The `n`-th peer dials, and says hello as its process of this incarnation.
fn dialled_by(node: &mut SingleNode, now: Duration, n: u8, link: u64, incarnation: u64) -> LinkId {
    let link = LinkId(link);
    node.link_up(now, link, false, n);
    let hello = Hello { incarnation, ..greeting(n) };
    node.hear(now, link, vec![Message::Hello(Box::new(hello))]);
    link
}

/// Ids that the node said two processes have.
fn twins(node: &SingleNode) -> Vec<PeerId> {
    let twin = |event: &Event| match event {
        Event::IdentityInUse { peer, .. } => Some(*peer),
        _ => None,
    };
    node.events.iter().filter_map(twin).collect()
}

#[test]
fn who_accepts_says_hello_when_it_has_a_place_and_nothing_before() {
    let mut config = Config::lan();
    config.overlay.max_inbound = 1;
    let mut node = SingleNode::new(1, &config, Vec::new());
    node.link_up(Duration::ZERO, LinkId(1), false, 2);
    assert_eq!(node.said_to(LinkId(1)), [], "not before the other side did");
    node.hear(Duration::ZERO, LinkId(1), vec![Message::Hello(Box::new(greeting(2)))]);
    assert!(matches!(node.said_to(LinkId(1))[0], Message::Hello(_)));
    let refused = dialled_by(&mut node, Duration::ZERO, 3, 2, 1);
    let said = node.said_to(refused);
    let [Message::Goodbye { reason: CloseReason::TooManyLinks, retry_after }] = said[..] else {
        panic!("{said:?}")
    };
    assert!(!retry_after.is_zero());
    // The first has had its time.
    let newcomer = dialled_by(&mut node, secs(31), 3, 3, 1);
    assert!(matches!(node.said_to(newcomer)[0], Message::Hello(_)));
    let last = node.said_to(LinkId(1)).pop();
    let Some(Message::Goodbye { reason: CloseReason::TooManyLinks, .. }) = last else {
        panic!("{last:?}")
    };
    let counters = node.protocol.counters();
    assert_eq!((counters.links_evicted, counters.links_refused_full), (1, 1));
}

#[test]
fn names_of_others_are_taken_from_who_has_no_place() {
    // They were dropped, since the link was not up.
    let mut node = node();
    node.link_up(Duration::ZERO, LinkId(1), true, 2);
    let records = vec![greeting(3).record, greeting(4).record];
    let goodbye = Message::Goodbye { reason: CloseReason::TooManyLinks, retry_after: secs(1) };
    node.hear(Duration::ZERO, LinkId(1), vec![Message::Peers { records, relays: 0 }, goodbye]);
    assert_eq!(node.protocol.stats().known_peers, 2);
    assert_eq!(node.closed, [LinkId(1)]);
    let refused = |event: &Event| {
        matches!(event, Event::LinkRefused { reason: CloseReason::TooManyLinks, .. })
    };
    assert!(node.events.iter().any(refused), "{:?}", node.events);
    // Who dials us has nothing to say before its hello.
    node.link_up(Duration::ZERO, LinkId(2), false, 5);
    let records = vec![greeting(6).record];
    node.hear(Duration::ZERO, LinkId(2), vec![Message::Peers { records, relays: 0 }]);
    assert_eq!(node.protocol.stats().known_peers, 2);
    assert_eq!(node.closed, [LinkId(1), LinkId(2)]);
}

#[test]
fn an_incarnation_that_comes_back_is_a_second_process() {
    let mut node = node();
    for (link, incarnation) in [(1, 7), (2, 9), (3, 7)] {
        dialled_by(&mut node, secs(link), 2, link, incarnation);
        assert_eq!(twins(&node), []);
    }
    dialled_by(&mut node, secs(4), 2, 4, 9);
    assert_eq!(twins(&node), [node_id(2)]);
    for link in 5..30 {
        dialled_by(&mut node, secs(link), 2, link, if link % 2 == 0 { 9 } else { 7 });
    }
    assert_eq!(twins(&node).len(), 1, "once a minute");
    assert!(node.protocol.counters().identities_in_use > 20);
}

#[test]
fn links_that_peers_replace_by_none_of_ours_tell_of_a_second_process() {
    let replaced =
        || Message::Goodbye { reason: CloseReason::Replaced, retry_after: Duration::ZERO };
    let mut node = node();
    for n in 1..=3u64 {
        assert_eq!(twins(&node), []);
        let link = node.meet_on(secs(n), 2, n, false);
        node.hear(secs(n), link, vec![replaced()]);
    }
    assert_eq!(twins(&node), [node_id(1)], "of its own");
    // Among others, one peer alone is not believed.
    let mut node = self::node();
    let other = node.meet_on(Duration::ZERO, 3, 100, false);
    for n in 1..=20u64 {
        let link = node.meet_on(secs(n), 2, n, false);
        node.hear(secs(n), link, vec![replaced()]);
    }
    assert_eq!(twins(&node), []);
    assert_eq!(node.protocol.counters().identities_in_use, 0);
    node.hear(secs(21), other, vec![replaced()]);
    assert_eq!(twins(&node), [node_id(1)], "two say so");
    // Of two own links to one peer, one is replaced by the other.
    let mut node = self::node();
    for n in (1..=20u64).step_by(2) {
        let inbound = dialled_by(&mut node, secs(n), 2, n, 1);
        node.link_up(secs(n), LinkId(n + 1), true, 2);
        node.hear(secs(n), inbound, vec![replaced()]);
        node.feed(secs(n), Input::LinkClosed { link: LinkId(n + 1) });
    }
    assert_eq!(twins(&node), []);
}

#[test]
fn a_twin_that_is_met_is_told_at_either_end() {
    // It was taken for the node itself, and nothing was said.
    for dialled in [true, false] {
        let mut node = node();
        let meet = |node: &mut SingleNode, at: u64| {
            let link = LinkId(at);
            node.link_up(secs(at), link, dialled, 1);
            let hello = Hello { incarnation: 2, ..greeting(1) };
            node.hear(secs(at), link, vec![Message::Hello(Box::new(hello))]);
            let said = node.said_to(link);
            let [Message::Hello(_), Message::Goodbye { reason, .. }] = &said[..] else {
                panic!("{said:?}")
            };
            assert_eq!(*reason, CloseReason::IdentityInUse, "the twin learns both");
            assert_eq!(node.closed.last(), Some(&link));
        };
        for at in 1..=61 {
            meet(&mut node, at);
        }
        assert_eq!(twins(&node), [node_id(1); 2], "once a minute");
        let counters = node.protocol.counters();
        assert_eq!((counters.identities_in_use, counters.links_refused_self), (61, 0));
        assert_eq!((counters.links_opened, node.protocol.stats().links), (0, 0));
    }
}

#[test]
fn a_twin_of_a_version_that_does_not_ask_is_one() {
    for dialled in [true, false] {
        let mut node = node();
        node.link_up(Duration::ZERO, LinkId(1), dialled, 1);
        let (reason, retry_after) = (CloseReason::SelfDial, Duration::ZERO);
        node.hear(Duration::ZERO, LinkId(1), vec![Message::Goodbye { reason, retry_after }]);
        assert_eq!(twins(&node), [node_id(1)]);
        assert_eq!(node.closed, [LinkId(1)]);
    }
}

#[test]
fn a_node_that_dials_itself_is_no_twin() {
    let mut node = node();
    let (there, here) = (LinkId(1), LinkId(2));
    node.link_up(Duration::ZERO, there, true, 1);
    node.link_up(Duration::ZERO, here, false, 1);
    assert_eq!(node.said_to(here), [], "not before who dialled");
    for (from, to) in [(there, here), (here, there), (there, here)] {
        let said = node.said_to(from);
        node.hear(Duration::ZERO, to, said);
    }
    assert_eq!(node.closed, [here, there]);
    assert_eq!(twins(&node), []);
    let counters = node.protocol.counters();
    assert_eq!((counters.links_refused_self, counters.identities_in_use), (2, 0));
    // Its own key and no word is no reason to wait for ever.
    node.link_up(secs(1), LinkId(3), true, 1);
    node.wake(secs(60));
    assert_eq!(node.closed, [here, there, LinkId(3)]);
    assert_eq!(twins(&node), []);
}

#[test]
fn copies_are_told_until_there_are_enough_and_counted_afterwards() {
    // Whoever came later confirmed everything that was there, with an event for each.
    let mut node = node();
    let links = [2, 3, 4, 5].map(|n| node.meet(Duration::ZERO, n));
    let transaction = signed(1, 100, 1);
    let id = transaction.id();
    let call = crate::protocol::CallId(1);
    node.feed(secs(1), Input::Publish { call, transactions: vec![transaction], renews: None });
    for link in links {
        node.hear(secs(1), link, vec![Message::Stored(vec![id])]);
    }
    let told = |event: &Event| match event {
        Event::Replicated { peers, .. } => Some(*peers),
        _ => None,
    };
    assert_eq!(node.events.iter().filter_map(told).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(node.copied, [3, 4], "for receipts");
}

fn node_id(n: u8) -> PeerId {
    greeting(n).record.peer()
}
