//! What one core makes of the clocks that its peers tell.

use crate::config::Config;
use crate::protocol::Input;
use crate::types::{Event, Message, WallTime};

use super::single_node::{START, SingleNode, transaction};
use super::{Duration, millis, secs};

fn node() -> SingleNode {
    SingleNode::new(1, &Config::lan(), Vec::new())
}

/// A node that meets peers whose clocks are ahead of its own by so many seconds.
fn meet(node: &mut SingleNode, now: Duration, ahead: &[u64]) {
    for (n, ahead) in (3..).zip(ahead) {
        node.peer_clock = Some(WallTime::from_millis(START).plus(now + secs(*ahead)));
        node.meet(now, n);
    }
}

fn told_clock(node: &mut SingleNode) -> usize {
    let sent = std::mem::take(&mut node.sent);
    let is_notice = |m: &Message| matches!(m, Message::Refused { list, clock } if list.is_empty() && clock.is_some());
    sent.iter().filter(|(_, message)| is_notice(message)).count()
}

#[test]
fn the_host_is_told_when_the_clock_is_off_and_when_it_is_right_again() {
    let (mut node, now) = (node(), secs(1));
    meet(&mut node, now, &[7200, 7201, 7199]);
    let off = |e: &&Event| matches!(e, Event::ClockOff { peers: 2, offset_ms: 7_200_000.., .. });
    assert_eq!(node.events.iter().filter(off).count(), 1, "once, by the second");
    let stats = node.protocol.stats();
    assert_eq!((stats.clock_off, stats.clock_votes), (true, 3));
    assert!((7_199_000..=7_201_000).contains(&stats.clock_offset_ms));
    node.feed_at(now, now + secs(7200), Input::Timeout);
    assert!(node.events.contains(&Event::ClockRight));
    assert!(!node.protocol.stats().clock_off);
}

#[test]
fn a_clock_that_leaps_asks_peers_that_tell_theirs_and_no_others_and_answers_at_a_pace() {
    let (mut node, mut now) = (node(), secs(1));
    node.meet(now, 9);
    meet(&mut node, now, &[0, 0]);
    told_clock(&mut node);
    now += secs(20);
    node.feed_at(now, now + secs(86_400), Input::Timeout);
    assert_eq!(told_clock(&mut node), 2, "the third is of an older version");
    let peer = crate::types::LinkId(3);
    for _ in 0..100 {
        let clock = Some(WallTime::from_millis(START).plus(now));
        node.feed_at(
            now,
            now + secs(86_400),
            Input::Received {
                link: peer,
                messages: vec![Message::Refused { list: vec![], clock }],
                bytes: 20,
            },
        );
        now += millis(100);
    }
    assert!(told_clock(&mut node) <= 2, "however often it is asked");
}

#[test]
fn clocks_at_the_ends_of_their_type_are_taken_for_what_they_are() {
    let ends = [1, i64::MAX as u64, u64::MAX - 1, u64::MAX];
    for first in ends {
        let (mut node, mut now) = (node(), secs(1));
        for (n, said) in (3..).zip(ends.into_iter().chain([first; 5])) {
            node.peer_clock = Some(WallTime::from_millis(said));
            node.meet(now, n);
        }
        // Five of nine agree on nonsense: the node goes by it, and nothing overflows.
        assert!(node.protocol.stats().clock_off);
        let pushed = Message::Push { transaction: transaction(1, 0), hop: 0 };
        node.hear(now, crate::types::LinkId(3), vec![pushed]);
        for _ in 0..20 {
            now += secs(10);
            node.wake(now);
        }
        for millis in [0, u64::MAX] {
            let clock = Some(WallTime::from_millis(millis));
            let notice = Message::Refused { list: Vec::new(), clock };
            node.hear(now, crate::types::LinkId(3), vec![notice]);
        }
        node.feed_at(now, Duration::from_millis(u64::MAX), Input::Timeout);
        node.feed_at(now + secs(1), Duration::ZERO, Input::Timeout);
    }
}
