//! Peers that would have one core do, keep or wait for more than they are worth.
//!
//! Level of these bad peers: one core, what they cost. Others: `src/protocol/tests/liars.rs` (one
//! core, what they say), `src/sim/tests/hostile.rs` (a simulated network), `tests/node/hostile.rs`
//! (a node, after the hello) and `tests/node/bad_input.rs` (a node, before and during the hello).

use crate::config::Config;
use crate::protocol::{Input, Judgement};
use crate::types::{
    Announcement, Bound, Interest, Message, Range, RangeContent, Reconcile, TopicKey, Transaction,
    TransactionId, Verdict, WallTime,
};

use super::liars::{LIAR, gauge, invented, signed, single_node, validating_node};
use super::single_node::{START, SingleNode, transaction};
use super::*;

/// An announcement as its origin makes it.
fn own(ids: &[TransactionId]) -> Message {
    Message::Announce(ids.iter().map(|id| Announcement { id: *id, size: 500, hop: 0 }).collect())
}

fn push(transaction: &Transaction) -> Message {
    Message::Push { transaction: transaction.clone(), hop: 0 }
}

#[test]
fn a_neighbour_cannot_put_what_is_not_its_own_into_its_order() {
    // It kept another origin's transaction for as long as it stayed linked.
    for announced_first in [false, true] {
        let mut node = single_node();
        let now = Duration::ZERO;
        let origin = node.meet_on(now, 3, 3, true);
        let liar = node.meet_on(now, LIAR, 2, true);
        let all: Vec<_> = (0..2).map(|n| signed(3, 500, n)).collect();
        let ids: Vec<_> = all.iter().map(Transaction::id).collect();
        let bait = |n| own(&[invented(n)]);
        if announced_first {
            node.hear(now, liar, vec![bait(0), own(&ids)]);
        }
        node.hear(now, origin, vec![own(&ids)]);
        // The second one comes first, and is held.
        node.hear(now, origin, vec![push(&all[1])]);
        node.hear(now, liar, vec![bait(1), own(&ids)]);
        assert!(!node.protocol.contains(&ids[1]), "out of its turn");
        node.hear(now, origin, vec![push(&all[0])]);
        // The liar breaks off and begins anew, and is never silent for long.
        node.feed(now, Input::LinkClosed { link: liar });
        let liar = node.meet_on(now, LIAR, 22, true);
        for n in 0..60 {
            let now = now + millis(100 * u64::from(n));
            node.hear(now, liar, vec![bait(10 + n)]);
            node.wake(now);
        }
        assert!(ids.iter().all(|id| node.protocol.contains(id)), "{announced_first}");
    }
}

#[test]
fn an_order_is_as_long_as_it_may_be() {
    // Two that announce the same ids in turns made it longer each time.
    let mut node = single_node();
    let now = Duration::ZERO;
    let liars = [2, 3].map(|n| node.meet_on(now, n, u64::from(n), true));
    let ids: Vec<_> = (0..200).map(invented).collect();
    let mut longest = 0;
    for round in 0..200 {
        node.hear(now, liars[round % 2], vec![own(&ids)]);
        longest = longest.max(gauge(&node, "order of a replay"));
    }
    assert!(longest > 1000, "the test does not reach the bound: {longest}");
    assert_eq!(gauge(&node, "order of a replay"), 0, "both were ended");
}

#[test]
fn a_peer_that_changes_its_mind_all_the_time_is_heard_now_and_then() {
    let mut node = single_node();
    let mut now = secs(1);
    let peer = node.meet(now, 3);
    let topic = TopicKey::of(&crate::types::Topic::new("t").unwrap());
    let says = |wants: bool| {
        let topics = wants.then_some(topic).into_iter().collect();
        Message::Interest(Interest { topics: Some(topics), ..Interest::default() })
    };
    node.hear(now, peer, (0..4096).map(|n| says(n % 2 == 0)).chain([says(true)]).collect());
    let refused = node.protocol.counters().refused_rate;
    assert!((3900..4096).contains(&refused), "{refused} of 4097");
    // What it said last counts in the end.
    let publish = |node: &mut SingleNode, now, n| {
        let (call, renews) = (crate::protocol::CallId(1), None);
        node.feed(now, Input::Publish { call, transactions: vec![signed(1, 500, n)], renews });
        let said = node.said_to(peer);
        said.iter().any(|m| matches!(m, Message::Push { .. } | Message::Announce(_)))
    };
    assert!(!publish(&mut node, now, 1), "the last one that was heard wants nothing");
    now += millis(1100);
    node.wake(now);
    assert!(publish(&mut node, now, 2));
}

/// The questions among what was said.
fn asks(said: &[Message]) -> Vec<Reconcile> {
    let ask = |m: &Message| match m {
        Message::Ask(ask) => Some((**ask).clone()),
        _ => None,
    };
    said.iter().filter_map(ask).collect()
}

/// That both hold the same, up to `upper`.
fn equal(ask: &Reconcile, upper: Bound) -> Message {
    let ranges = vec![Range { upper, content: RangeContent::Skip }];
    Message::Answer(Box::new(Reconcile { session: ask.session, lower: ask.lower, ranges }))
}

fn end(ask: &Reconcile) -> Bound {
    ask.ranges.last().unwrap().upper
}

fn yours() -> Message {
    let at = |ms| Bound::at(WallTime::from_millis(ms));
    Message::Yours { lower: at(START - 60_000), upper: at(START + 600_000) }
}

#[test]
fn sessions_for_nothing_keep_their_pause() {
    // Each answer that brought a demand with it was asked again at once.
    let mut node =
        SingleNode::new(1, &Config::lan(), (0..40).map(|n| transaction(n, 1000)).collect());
    let mut now = secs(1);
    let liar = node.meet(now, LIAR);
    let mut questions = 0;
    for _ in 0..1000 {
        now += millis(10);
        for ask in asks(&node.said_to(liar)) {
            questions += 1;
            node.hear(now, liar, vec![equal(&ask, end(&ask)), yours()]);
        }
        node.wake(now);
    }
    assert!((5..=12).contains(&questions), "{questions} in 10 s");
}

#[test]
fn a_session_that_drags_on_keeps_nobody_else_from_being_compared() {
    let mut node =
        SingleNode::new(1, &Config::lan(), (0..40).map(|n| transaction(n, 1000)).collect());
    let mut now = secs(1);
    let (liar, honest) = (node.meet(now, LIAR), node.meet(now, 3));
    let (mut dragged, mut compared, mut answer_at) = (None, Vec::new(), now);
    let begin = now;
    while now < begin + secs(180) {
        now += millis(100);
        for ask in asks(&node.said_to(liar)) {
            (dragged, answer_at) = (Some(ask), now + millis(2900));
        }
        if let Some(ask) = dragged.take_if(|_| now >= answer_at) {
            // A little further each time, and to the end before it is given up.
            let step = WallTime::from_millis(ask.lower.created.as_millis() + 1);
            let last = now.saturating_sub(begin).as_secs() % 60 > 50;
            let upper = if last { end(&ask) } else { end(&ask).min(Bound::at(step)) };
            let more = last.then(yours);
            node.hear(now, liar, std::iter::once(equal(&ask, upper)).chain(more).collect());
        }
        for ask in asks(&node.said_to(honest)) {
            compared.push(now);
            node.hear(now, honest, vec![equal(&ask, end(&ask))]);
        }
        node.wake(now);
    }
    let longest = compared.windows(2).map(|two| two[1].saturating_sub(two[0])).max().unwrap();
    assert!(compared.len() >= 6 && longest < secs(60), "{compared:?}");
}

fn announcing(from: u32, count: u32) -> Vec<Message> {
    let list =
        |n: u32| (n..n + 1024).map(invented).map(|id| Announcement { id, size: 500, hop: 1 });
    (from..from + count).step_by(1024).map(|n| Message::Announce(list(n).collect())).collect()
}

#[test]
fn a_handful_of_peers_cannot_fill_the_fetch_table() {
    let mut node = single_node();
    let mut now = secs(1);
    for n in 10..16u8 {
        let liar = node.meet(now, n);
        node.hear(now, liar, announcing(u32::from(n) << 16, 20_480));
    }
    let honest = node.meet(now, 3);
    let wanted = signed(3, 500, 1);
    node.hear(
        now,
        honest,
        vec![Message::Announce(vec![Announcement { id: wanted.id(), size: 500, hop: 1 }])],
    );
    let mut asked = false;
    for _ in 0..100 {
        now += millis(100);
        node.wake(now);
        let said = node.said_to(honest);
        asked |= said.iter().any(|m| matches!(m, Message::Want(ids) if ids.contains(&wanted.id())));
    }
    assert!(asked, "no place left: {} pending", gauge(&node, "pending"));
}

#[test]
fn a_new_link_brings_no_new_places() {
    let mut node = single_node();
    let now = secs(1);
    let other = node.meet(now, 4);
    for round in 0..4u32 {
        let liar = node.meet_on(now, LIAR, u64::from(100 + round), false);
        node.hear(now, liar, announcing(round << 16, 16_384));
        // Somebody else says the same, so that it stays when the link ends.
        node.hear(now, other, announcing(round << 16, 16_384));
        node.feed(now, Input::LinkClosed { link: liar });
    }
    let pending = gauge(&node, "pending");
    assert!(pending <= 2 * 16_384, "{pending} for two peers");
}

#[test]
fn a_new_link_brings_no_new_answers() {
    let mut node =
        SingleNode::new(1, &Config::lan(), (0..40).map(|n| transaction(n, 1000)).collect());
    let now = secs(1);
    let mut answered = 0;
    for link in 100..200 {
        let liar = node.meet_on(now, LIAR, link, false);
        let content = RangeContent::Print([7; 16]);
        let ranges = vec![Range { upper: Bound::MAX, content }];
        let ask = Reconcile { session: 1, lower: Bound::MIN, ranges };
        node.hear(now, liar, vec![Message::Ask(Box::new(ask))]);
        let said = node.said_to(liar);
        answered +=
            said.iter().filter(|m| matches!(m, Message::Answer(a) if !a.ranges.is_empty())).count();
        node.feed(now, Input::LinkClosed { link: liar });
    }
    assert_eq!(answered, 8, "in a row");
}

#[test]
fn what_was_refused_is_offered_to_nobody() {
    // It made such a comparison useful, and the next one due at once.
    let mut node = validating_node();
    node.verdict = |_| Judgement::Verdict(Verdict::Ignore);
    let now = secs(1);
    let peer = node.meet(now, 3);
    let refused: Vec<_> = (0..100).map(|n| signed(3, 500 + n, 1)).collect();
    for whole in &refused {
        node.hear(now, peer, vec![push(whole)]);
    }
    assert_eq!(node.protocol.counters().refused_ignored, 100);
    let Some(ask) = asks(&node.said_to(peer)).pop() else { panic!("it compares on connect") };
    let content = RangeContent::All(vec![(refused[0].id(), 500)]);
    let ranges = vec![Range { upper: end(&ask), content }];
    let answer = Reconcile { session: ask.session, lower: ask.lower, ranges };
    node.hear(now, peer, vec![Message::Answer(Box::new(answer))]);
    let said = node.said_to(peer);
    assert!(
        !said.iter().any(|m| matches!(m, Message::Yours { .. } | Message::Announce(_))),
        "{said:?}"
    );
}

#[test]
fn what_one_peer_lists_is_not_asked_of_everybody() {
    // Its word was taken for a sign that all of them have it.
    let mut node = single_node();
    let mut now = secs(1);
    let liar = node.meet(now, LIAR);
    let honest: Vec<_> = (10..18).map(|n| node.meet(now, n)).collect();
    let Some(ask) = asks(&node.said_to(liar)).pop() else { panic!("it compares on connect") };
    let sizes = [100 << 10, 2 << 20];
    let list = (0..64).map(|n| (invented(n), sizes[n as usize % 2])).collect();
    let ranges = vec![Range { upper: end(&ask), content: RangeContent::All(list) }];
    let answer = Reconcile { session: ask.session, lower: ask.lower, ranges };
    node.hear(now, liar, vec![Message::Answer(Box::new(answer))]);
    let reserved = |node: &mut SingleNode, link| {
        let said = node.said_to(link);
        said.iter().filter(|m| matches!(m, Message::Reserve(_))).count()
    };
    let (mut of_liar, mut of_others) = (0, 0);
    for _ in 0..100 {
        now += millis(100);
        node.wake(now);
        of_liar += reserved(&mut node, liar);
        of_others += honest.iter().map(|link| reserved(&mut node, *link)).sum::<usize>();
    }
    assert!(of_liar >= 32, "the list was heard: {of_liar}");
    assert_eq!(of_others, 0);
}
