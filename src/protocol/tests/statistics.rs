//! Figures of one core: what is counted when, and as of which moment.

use crate::config::Config;
use crate::protocol::{CallId, Input, Judgement};
use crate::types::{
    Header, Message, MonoTime, PeerId, Signature, Topic, Transaction, TransportKind, Verdict,
    WallTime,
};

use super::liars::signed;
use super::single_node::{START, SingleNode, transaction};
use super::{Duration, millis, secs};

/// A transaction of another origin, published this long after the start.
fn published(n: u8, after: Duration) -> Transaction {
    let created = WallTime::from_millis(START).plus(after);
    let (topic, origin) = (Topic::new("t").unwrap(), PeerId::from_bytes([9; 32]));
    let header = Header::new(topic, origin, created, created.plus(secs(86_400)), &[n]);
    Transaction::new(header, Signature::None, vec![n].into()).unwrap()
}

#[test]
fn a_delivery_is_counted_by_its_way_and_by_its_time_if_the_node_was_there() {
    let mut node = SingleNode::new(1, &Config::lan(), Vec::new());
    let link = node.meet(secs(10), 3);
    let mut push = |now, transaction, hop| {
        node.hear(now, link, vec![Message::Push { transaction, hop }]);
        node.protocol.stats_at(MonoTime::from_duration(now))
    };
    let old = push(secs(10), transaction(1, 0), 4);
    assert_eq!((old.counters.transactions_accepted, old.counters.transactions_caught_up), (1, 1));
    assert_eq!((old.delivery_hops[5], old.delivery_latency.iter().sum::<u64>()), (1, 0));

    let quick = push(secs(11), published(2, millis(10_997)), 0);
    assert_eq!((quick.delivery_hops[1], quick.delivery_latency[3]), (1, 1), "up to 4 ms");
    let ahead = push(secs(12), published(3, secs(13)), 0);
    assert_eq!((ahead.delivery_hops[1], ahead.delivery_latency[0]), (2, 1), "its clock is ahead");
    let late = push(secs(95), published(4, secs(20)), 30);
    assert_eq!((late.delivery_hops[15], late.delivery_latency[18]), (1, 1), "beyond a minute");
    assert_eq!(late.delivery_latency_sum_us, 3_000 + 75_000_000);
    let again = push(secs(96), published(4, secs(20)), 30);
    assert_eq!(again.delivery_hops, late.delivery_hops, "a duplicate is no delivery");
    let classes: u64 = again.delivery_latency.iter().sum();
    let counters = &again.counters;
    assert_eq!(again.delivery_hops.iter().sum::<u64>(), counters.transactions_accepted);
    assert_eq!(classes + counters.transactions_caught_up, counters.transactions_accepted);
}

#[test]
fn what_was_refused_is_judged_and_counted_once_whoever_pushes_it_again() {
    let mut node = SingleNode::new(1, &Config::lan(), Vec::new());
    node.verdict = |_| Judgement::Verdict(Verdict::Ignore);
    let (first, second) = (node.meet(secs(1), 3), node.meet(secs(1), 4));
    for (at, link, hop) in [(2, first, 0), (3, second, 1), (4, first, 0)] {
        let transaction = published(1, secs(1));
        node.hear(secs(at), link, vec![Message::Push { transaction, hop }]);
    }
    let counters = node.protocol.counters();
    assert_eq!((node.judged, counters.refused_ignored), (1, 1));
    assert_eq!((counters.payloads_received, counters.duplicates_received), (1, 2));
    let is_told = |message: &Message| matches!(message, Message::Refused { .. });
    assert_eq!(node.said_to(first).iter().filter(|&m| is_told(m)).count(), 2, "its origin");
    assert_eq!(node.said_to(second).iter().filter(|&m| is_told(m)).count(), 0, "who passes it on");
}

#[test]
fn sizes_and_ages_are_as_of_the_moment_that_is_asked_about() {
    let mut node = SingleNode::new(1, &Config::lan(), Vec::new());
    let alone = node.protocol.stats();
    assert_eq!((alone.outbox_oldest_age_ms, alone.outbox_attempts), (None, 0));
    assert!(alone.links_by_transport.is_empty() && alone.links_by_direction.is_empty());
    for n in 0..2 {
        let transactions = vec![signed(1, 100, n)];
        node.feed(secs(2), Input::Publish { call: CallId(0), transactions, renews: None });
    }
    node.meet(secs(3), 3);
    node.link_up(secs(3), crate::types::LinkId(9), false, 4);
    let stats = node.protocol.stats_at(MonoTime::from_duration(secs(7)));
    assert_eq!((stats.uptime_s, stats.at_ms), (7, START + 7000));
    assert_eq!((stats.outbox, stats.retained, stats.retained_bytes), (2, 2, 200));
    assert_eq!(stats.outbox_oldest_age_ms, Some(7000), "they are dated as of the start");
    assert_eq!(stats.outbox_limit, u64::from(Config::lan().outbox.max_entries));
    let memory = TransportKind::Memory.as_str().to_owned();
    assert_eq!(stats.links_by_transport, [(memory, 1)].into(), "a hello is no link yet");
    assert_eq!(stats.links_by_direction, [("outbound".to_owned(), 1)].into());
}
