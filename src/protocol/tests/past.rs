//! What one core believes of the past.

use crate::config::Config;
use crate::protocol::Restored;
use crate::types::{Message, WallTime};

use super::secs;
use super::single_node::{START, SingleNode};

fn at(seconds: u64) -> WallTime {
    WallTime::from_millis(START).plus(secs(seconds))
}

/// A node that was whole until so many seconds before the start.
fn away(seconds: u64) -> SingleNode {
    let until = Some(WallTime::from_millis(START).minus(secs(seconds)));
    let restored = Restored { whole_since: until, whole_until: until, ..Restored::default() };
    SingleNode::restored(1, &Config::lan(), Vec::new(), restored)
}

/// Links the `n`-th peer, which says to be whole since then, and agrees with it on everything.
fn agree(node: &mut SingleNode, now: std::time::Duration, n: u8, since: Option<WallTime>) {
    let link = node.meet_whole(now, n, since);
    let asked = node.said_to(link).into_iter().find_map(|said| match said {
        Message::Ask(ask) => Some(*ask),
        _ => None,
    });
    if let Some(ask) = asked {
        let upper = ask.upper();
        let content = crate::types::RangeContent::Skip;
        let ranges = vec![crate::types::Range { upper, content }];
        let answer = crate::types::Reconcile { session: ask.session, lower: ask.lower, ranges };
        node.hear(now, link, vec![Message::Answer(Box::new(answer))]);
    }
}

/// Lets so many seconds pass; how often something was missed by then.
fn missed(node: &mut SingleNode, from: u64, to: u64) -> u64 {
    for second in from..=to {
        node.wake(secs(second));
    }
    node.protocol.counters().histories_missed
}

#[test]
fn a_liar_raises_no_alarm_beside_an_honest_peer_and_one_where_it_is_alone() {
    for (claims, expected) in [
        (vec![Some(at(1_000_000)), Some(at(0).minus(secs(600)))], 0),
        (vec![Some(at(1_000_000))], 1),
        (vec![Some(WallTime::from_millis(u64::MAX))], 1),
        (vec![None], 0),
        (vec![Some(WallTime::from_millis(1))], 0),
    ] {
        let mut node = away(300);
        for (n, claim) in (3..).zip(&claims) {
            // Of comparisons one runs at a time.
            agree(&mut node, secs(u64::from(n)), n, *claim);
        }
        assert_eq!(missed(&mut node, 5, 300), expected, "{claims:?}");
    }
}

#[test]
fn nobody_can_hide_that_the_own_retention_is_over() {
    let mut node = away(4000);
    agree(&mut node, secs(1), 3, Some(WallTime::from_millis(1)));
    assert_eq!(missed(&mut node, 2, 29), 0, "somebody who knows better may come");
    assert_eq!(missed(&mut node, 30, 60), 1);
    assert_eq!(missed(&mut node, 61, 300), 1, "once");
}

#[test]
fn who_is_away_or_an_edge_says_nothing() {
    let claim = |node: &mut SingleNode, now, n| {
        let link = node.meet(secs(now), n);
        let hello = node.said_to(link).into_iter().find_map(|said| match said {
            Message::Hello(hello) => Some(hello.complete_since),
            _ => None,
        });
        hello.expect("a hello")
    };
    assert_eq!(claim(&mut away(100), 1, 3), None);
    let mut fresh = SingleNode::new(1, &Config::lan(), Vec::new());
    fresh.wake(secs(0));
    assert_eq!(claim(&mut fresh, 1, 3), Some(at(0)), "since its first input");
    // Who becomes whole beside a peer that is whole for longer is so too; the retention is an end.
    let mut node = SingleNode::new(1, &Config::lan(), Vec::new());
    agree(&mut node, secs(1), 3, Some(at(0).minus(secs(500))));
    let _ = missed(&mut node, 2, 30);
    assert_eq!(claim(&mut node, 31, 4), Some(at(0).minus(secs(500))));
    let mut node = SingleNode::new(1, &Config::lan(), Vec::new());
    agree(&mut node, secs(1), 3, Some(WallTime::from_millis(1)));
    let _ = missed(&mut node, 2, 30);
    assert_eq!(claim(&mut node, 31, 4), Some(at(31).minus(secs(3600))));
    let mut config = Config::lan();
    config.gossip.role = crate::config::Role::Edge;
    let mut edge = SingleNode::new(1, &config, Vec::new());
    assert_eq!(claim(&mut edge, 1, 3), None);
}
