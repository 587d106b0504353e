//! How links are rated by what goes over them, and what follows from it.

use crate::config::Config;
use crate::types::{LinkId, Message, Transaction};

use super::liars::{LIAR, announce, invented, single_node};
use super::single_node::{SingleNode, transaction};
use super::*;

const HONEST: u8 = 3;

fn score(node: &SingleNode, link: LinkId) -> u8 {
    let links = node.protocol.links();
    links.iter().find(|l| l.link == link).and_then(|l| l.score).expect("a link that is measured")
}

/// Lets time pass; answers to pings come by themselves.
fn pass(node: &mut SingleNode, now: &mut Duration, span: Duration) {
    let end = *now + span;
    while *now < end {
        *now += millis(20);
        node.wake(*now);
    }
}

fn is_asked(node: &mut SingleNode, link: LinkId, of: &Transaction) -> bool {
    let asks = |m: &Message| matches!(m, Message::Want(ids) if ids.contains(&of.id()));
    node.said_to(link).iter().any(asks)
}

#[test]
fn answers_to_pings_alone_rank_below_service_and_broken_promises_below_both() {
    let mut node = single_node();
    let mut now = Duration::ZERO;
    let (pings, honest, liar) = (node.meet(now, 4), node.meet(now, HONEST), node.meet(now, LIAR));
    for n in 0..20 {
        let real = transaction(n, 0);
        node.hear(now, honest, vec![announce(real.id(), 4)]);
        node.hear(now, liar, vec![announce(invented(n), 4)]);
        pass(&mut node, &mut now, millis(100));
        assert!(is_asked(&mut node, honest, &real));
        node.hear(now, honest, vec![Message::Push { transaction: real, hop: 1 }]);
        pass(&mut node, &mut now, secs(10));
    }
    let scores = [honest, pings, liar].map(|link| score(&node, link));
    assert!(scores[0] >= 80 && (60..80).contains(&scores[1]) && scores[2] < 20, "{scores:?}");
    let stats = node.protocol.stats();
    let ratings: Vec<_> = stats.ratings.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(ratings, [("excellent", 1), ("good", 1), ("poor", 1)]);
    // It comes back, and is known; a while later it is given another chance.
    node.feed(now, crate::protocol::Input::LinkClosed { link: liar });
    let again = node.meet_on(now, LIAR, 77, false);
    assert!(score(&node, again) < 20);
    pass(&mut node, &mut now, secs(3000));
    assert!(score(&node, again) >= 60);
}

#[test]
fn who_is_always_late_is_asked_after_others_and_again_when_nobody_else_is_there() {
    let mut node = SingleNode::new(1, &Config::lan(), Vec::new());
    let mut now = Duration::ZERO;
    let (late, quick) = (node.meet(now, 4), node.meet(now, HONEST));
    let mut asked_first = Vec::new();
    for n in 0..12 {
        let t = transaction(n, 0);
        for link in [late, quick] {
            node.hear(now, link, vec![announce(t.id(), 4)]);
        }
        pass(&mut node, &mut now, millis(100));
        let is_first = is_asked(&mut node, late, &t);
        asked_first.push(is_first);
        pass(&mut node, &mut now, millis(500));
        let push = Message::Push { transaction: t, hop: 1 };
        for link in [quick, late] {
            node.hear(now, link, vec![push.clone()]);
        }
        // What it did not serve in time is no longer held against it by then.
        pass(&mut node, &mut now, secs(15));
        node.sent.clear();
    }
    assert!(asked_first[0] && asked_first[1], "the first announcer is asked: {asked_first:?}");
    // Now and then it gets another chance.
    let first = asked_first.iter().filter(|first| **first).count();
    assert!(first <= 6, "a better one is there: {asked_first:?}");
    let t = transaction(99, 0);
    node.hear(now, late, vec![announce(t.id(), 4)]);
    pass(&mut node, &mut now, millis(100));
    assert!(is_asked(&mut node, late, &t), "nobody else has it");
}
