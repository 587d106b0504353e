//! Tests of a link, and peers that have too much tested.

use bytes::Bytes;

use crate::config::Config;
use crate::error::TestError;
use crate::protocol::{CallId, Input, Output};
use crate::types::{LinkId, Message, PIECE_BYTES, PeerId, PeerTest};

use super::liars::{LIAR, single_node};
use super::single_node::SingleNode;
use super::*;

fn begin(node: &mut SingleNode, now: Duration, peer: PeerId) {
    node.feed(now, Input::TestPeer { call: CallId(7), peer });
}

fn results(node: &mut SingleNode) -> Vec<Result<PeerTest, TestError>> {
    let tested = |output: &Output| match output {
        Output::Tested { result, .. } => Some(result.clone()),
        _ => None,
    };
    node.outside.drain(..).filter_map(|output| tested(&output)).collect()
}

fn probes(node: &mut SingleNode, link: LinkId) -> Vec<(u64, Bytes, u32)> {
    let probe = |message| match message {
        Message::Probe { nonce, payload, wants } => Some((nonce, payload, wants)),
        _ => None,
    };
    node.said_to(link).into_iter().filter_map(probe).collect()
}

fn peer(node: &SingleNode, link: LinkId) -> PeerId {
    node.protocol.links().iter().find(|l| l.link == link).unwrap().peer
}

/// Answers every probe `after` it was sent, until there are none; returns the time then.
fn answer_all(node: &mut SingleNode, link: LinkId, mut now: Duration, after: Duration) -> Duration {
    loop {
        let probes = probes(node, link);
        if probes.is_empty() {
            return now;
        }
        now += after;
        for (nonce, payload, wants) in probes {
            assert!(payload.len() <= PIECE_BYTES && wants as usize <= PIECE_BYTES);
            let received = u32::try_from(payload.len()).unwrap();
            let payload = vec![0; wants as usize].into();
            node.hear(now, link, vec![Message::Probed { nonce, received, payload }]);
        }
    }
}

#[test]
fn a_link_is_measured_once_in_a_while() {
    let mut node = single_node();
    let link = node.meet(Duration::ZERO, 3);
    let id = peer(&node, link);
    begin(&mut node, Duration::ZERO, id);
    begin(&mut node, Duration::ZERO, id);
    assert_eq!(results(&mut node), [Err(TestError::Busy)]);
    let now = answer_all(&mut node, link, Duration::ZERO, millis(40));
    let results_now = results(&mut node);
    let [Ok(found)] = &results_now[..] else { panic!("{results_now:?}") };
    assert_eq!((found.peer, found.sent, found.lost), (id, 5, 0));
    assert_eq!((found.rtt_min_us, found.rtt_max_us, found.jitter_us), (40_000, 40_000, 0));
    assert!(found.bytes_per_second > 0 && found.incoming_bytes_per_second > 0, "{found:?}");
    begin(&mut node, now, id);
    assert_eq!(results(&mut node), [Err(TestError::Busy)], "a moment ago");
    begin(&mut node, secs(11), id);
    assert_eq!(probes(&mut node, link).len(), 1);
}

#[test]
fn a_test_fails_with_the_reason() {
    let mut node = single_node();
    let mut now = Duration::ZERO;
    begin(&mut node, now, PeerId::from_bytes([99; 32]));
    assert_eq!(results(&mut node), [Err(TestError::Unknown)]);
    let (silent, going) = (node.meet(now, LIAR), node.meet(now, 3));
    let (silent, id) = (peer(&node, silent), peer(&node, going));
    begin(&mut node, now, silent);
    begin(&mut node, now, id);
    node.feed(now, Input::LinkClosed { link: going });
    assert_eq!(results(&mut node), [Err(TestError::NotLinked)]);
    begin(&mut node, now, id);
    assert_eq!(results(&mut node), [Err(TestError::NotLinked)]);
    while now < secs(10) {
        now += millis(100);
        node.wake(now);
    }
    assert_eq!(results(&mut node), [Err(TestError::TimedOut)]);
}

#[test]
fn who_answers_what_was_not_asked_or_wrongly_gains_nothing() {
    let mut node = single_node();
    let link = node.meet(Duration::ZERO, LIAR);
    let id = peer(&node, link);
    let stray = |nonce| Message::Probed { nonce, received: 0, payload: Bytes::new() };
    node.hear(Duration::ZERO, link, vec![stray(1), stray(2)]);
    begin(&mut node, Duration::ZERO, id);
    let [(nonce, ..)] = probes(&mut node, link)[..] else { panic!("one ping") };
    node.hear(millis(10), link, vec![stray(nonce ^ 1), stray(nonce), stray(nonce)]);
    assert_eq!(node.protocol.counters().probes_refused, 4);
    assert_eq!(probes(&mut node, link).len(), 1, "the next");
}

#[test]
fn a_flood_of_probes_is_left_alone_and_counted() {
    let mut node = SingleNode::new(1, &Config::lan(), Vec::new());
    let (liar, honest) = (node.meet(Duration::ZERO, LIAR), node.meet(Duration::ZERO, 3));
    let large = |nonce| Message::Probe { nonce, payload: Bytes::new(), wants: 65_536 };
    let answered = |node: &mut SingleNode, link| {
        let bytes = |m: &Message| match m {
            Message::Probed { payload, .. } => Some(payload.len()),
            _ => None,
        };
        node.said_to(link).iter().filter_map(bytes).collect::<Vec<_>>()
    };
    for n in 0..1000 {
        node.hear(Duration::ZERO, liar, vec![large(n)]);
    }
    let bytes: usize = answered(&mut node, liar).iter().sum();
    assert!((600_000..1_300_000).contains(&bytes), "{bytes}");
    let counters = node.protocol.counters();
    assert_eq!(counters.probes_answered + counters.probes_refused, 1000);
    assert!(counters.probes_refused > 950);
    // Others do not suffer, and a reader that takes nothing is owed little.
    node.hear(
        Duration::ZERO,
        honest,
        vec![Message::Probe { nonce: 5, payload: vec![0; 100].into(), wants: 0 }],
    );
    assert_eq!(answered(&mut node, honest), [0]);
    node.stuck.insert(honest);
    for n in 0..100 {
        node.hear(secs(60), honest, vec![large(n)]);
    }
    assert_eq!(answered(&mut node, honest), [65_536], "one piece, and the rest waits");
}
