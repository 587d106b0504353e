//! Refusals of one core's own transactions, told by its peers, and those that it tells.

use crate::config::Config;
use crate::protocol::{CallId, Input, Judgement};
use crate::types::{
    Announcement, Event, LinkId, Message, PublishState, Refusal, TransactionId, Verdict,
};

use super::liars::signed;
use super::single_node::{SingleNode, transaction};
use super::{Duration, secs};

fn publish(node: &mut SingleNode, now: Duration) -> TransactionId {
    let transaction = signed(1, 500, 1);
    let id = transaction.id();
    node.feed(
        now,
        Input::Publish { call: CallId(1), transactions: vec![transaction], renews: None },
    );
    id
}

fn refuse(node: &mut SingleNode, now: Duration, link: LinkId, id: TransactionId, reason: Refusal) {
    node.hear(now, link, vec![Message::Refused { list: vec![(id, reason)], clock: None }]);
}

#[test]
fn what_all_peers_reject_is_given_up_at_once_with_their_reason() {
    let (mut node, now) = (SingleNode::new(1, &Config::lan(), Vec::new()), secs(1));
    let (first, second) = (node.meet(now, 3), node.meet(now, 4));
    let id = publish(&mut node, now);
    for _ in 0..10 {
        refuse(&mut node, now, first, id, Refusal::Rejected);
    }
    let status = node.protocol.publish_status(&id);
    assert_eq!((status.state, status.refused), (PublishState::Waiting, Some(Refusal::Rejected)));
    refuse(&mut node, now, second, id, Refusal::Rejected);
    let status = node.protocol.publish_status(&id);
    let PublishState::DeadLetter { reason } = status.state else { panic!("{status:?}") };
    assert!(reason.contains("validator"), "{reason}");
    assert_eq!(status.refused, Some(Refusal::Rejected));
    let told = |e: &&Event| matches!(e, Event::PublishRefused { .. });
    assert_eq!(node.events.iter().filter(told).count(), 1, "once for a reason");
    // Taken back by the host, it is offered as for the first time.
    node.feed(now, Input::Redeliver(id));
    assert_eq!(node.protocol.publish_status(&id).refused, None);
    node.hear(now, first, vec![Message::Stored(vec![id])]);
    refuse(&mut node, now, second, id, Refusal::Ignored);
    let status = node.protocol.publish_status(&id);
    assert_eq!(
        (status.state, status.copies),
        (PublishState::Confirmed, 1),
        "none is expected of it"
    );
}

#[test]
fn what_is_refused_for_now_waits_however_long() {
    let (mut node, mut now) = (SingleNode::new(1, &Config::lan(), Vec::new()), secs(1));
    let peer = node.meet(now, 3);
    let id = publish(&mut node, now);
    let mut offered = 0;
    while now < secs(3000) {
        now += secs(1);
        node.wake(now);
        for message in node.said_to(peer) {
            if let Message::Announce(list) = message
                && list.iter().any(|a| a.id == id)
            {
                offered += 1;
                refuse(&mut node, now, peer, id, Refusal::OverRate);
            }
        }
    }
    assert_eq!(node.protocol.stats().dead_letters, 0);
    assert!((5..40).contains(&offered), "offered {offered} times in 50 min");
}

#[test]
fn a_publisher_is_told_why_and_a_relay_is_not() {
    let (mut node, now) = (SingleNode::new(1, &Config::lan(), Vec::new()), secs(1));
    node.verdict = |_| Judgement::Verdict(Verdict::Ignore);
    let (origin, relay) = (node.meet(now, 3), node.meet(now, 4));
    let _ = (node.said_to(origin), node.said_to(relay));
    let refused = |node: &mut SingleNode, link| {
        let told = node.said_to(link).into_iter().filter_map(|message| match message {
            Message::Refused { list, clock: Some(_) } => Some(list),
            _ => None,
        });
        told.flatten().collect::<Vec<_>>()
    };
    let (own, foreign) = (transaction(1, 0), transaction(2, 0));
    let ids = (own.id(), foreign.id());
    node.hear(now, origin, vec![Message::Push { transaction: own, hop: 0 }]);
    node.hear(now, relay, vec![Message::Push { transaction: foreign, hop: 1 }]);
    node.feed(now + secs(1), Input::Timeout);
    assert_eq!(refused(&mut node, origin), [(ids.0, Refusal::Ignored)]);
    assert_eq!(refused(&mut node, relay), []);
    // The word was lost with a link, and it is offered again.
    let again = Announcement { id: ids.0, size: 4, hop: 0 };
    node.hear(now + secs(2), origin, vec![Message::Announce(vec![again])]);
    node.feed(now + secs(3), Input::Timeout);
    assert_eq!(refused(&mut node, origin), [(ids.0, Refusal::Ignored)]);
}

#[test]
fn refusals_of_what_is_not_ours_change_nothing() {
    let (mut node, now) = (SingleNode::new(1, &Config::lan(), vec![transaction(7, 0)]), secs(1));
    let peer = node.meet(now, 3);
    for n in 0..2000u32 {
        let id = transaction(n, 0).id();
        refuse(&mut node, now, peer, id, Refusal::Rejected);
    }
    assert_eq!(node.protocol.counters().refusals_received, 0);
    assert_eq!(node.protocol.stats().retained, 1);
}
