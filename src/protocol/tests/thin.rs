//! One link of one core: what it is handed before its peer has confirmed anything, and when a peer
//! that does not answer is given up.

use crate::config::Config;
use crate::types::{LinkId, Message, PIECE_BYTES, Transaction};

use super::liars::{reservation, signed};
use super::single_node::SingleNode;
use super::*;

/// A core with a payload of 64 pieces, and a link to a peer that has asked for all of it. Pings are
/// answered by hand.
fn asked() -> (SingleNode, LinkId) {
    let held = signed(3, 4 << 20, 1);
    let id = held.id();
    let mut node = SingleNode::new(1, &Config::default(), vec![held]);
    let link = node.meet(Duration::ZERO, 2);
    node.mute.insert(link);
    node.hear(Duration::ZERO, link, vec![reservation(id, 0)]);
    (node, link)
}

/// Pieces and nonces of pings that were said since the last look.
fn said(node: &mut SingleNode, link: LinkId) -> (usize, Vec<u64>) {
    let said = node.said_to(link);
    let pieces = said.iter().filter(|m| matches!(m, Message::Piece(_))).count();
    let nonce = |m: &Message| if let Message::Ping { nonce } = m { Some(*nonce) } else { None };
    (pieces, said.iter().filter_map(nonce).collect())
}

fn pong(node: &mut SingleNode, now: Duration, link: LinkId, nonce: u64) {
    node.hear(now, link, vec![Message::Pong { nonce }]);
}

#[test]
fn a_piece_is_handed_out_when_the_one_before_is_confirmed() {
    let (mut node, link) = asked();
    let mut now = Duration::ZERO;
    // 20 kB/s.
    for n in 0..4 {
        let (pieces, pings) = said(&mut node, link);
        assert_eq!(pieces, 1, "piece {n}, though everything leaves for the wire at once");
        let Some(nonce) = pings.last() else { panic!("no mark behind piece {n}") };
        pong(&mut node, now, link, nonce.wrapping_add(1));
        now += millis(3277);
        node.wake(now);
        pong(&mut node, now, link, *nonce);
    }
}

#[test]
fn a_link_that_confirms_quickly_is_handed_as_much_as_it_carries_in_a_second() {
    let (mut node, link) = asked();
    let (_, pings) = said(&mut node, link);
    // 1.6 MB/s at the least: that is 24 pieces in a second.
    pong(&mut node, millis(40), link, *pings.last().unwrap());
    let (pieces, pings) = said(&mut node, link);
    assert!((20..28).contains(&pieces), "{pieces} pieces");
    let view = node.protocol.links().remove(0);
    assert!(view.rate.is_some_and(|rate| (1_600_000..1_700_000).contains(&rate)), "{view:?}");
    assert!(view.under_way_bytes >= (pieces * PIECE_BYTES) as u64, "{view:?}");
    assert_eq!(pings.len(), 1, "one mark is out at a time");
    // It takes long: the link has become thin.
    pong(&mut node, secs(20), link, pings[0]);
    let (pieces, _) = said(&mut node, link);
    assert!(pieces <= 1, "{pieces} pieces on top of what came at 80 kB/s");
}

#[test]
fn what_is_small_does_not_wait_for_a_piece_to_be_confirmed() {
    let (mut node, link) = asked();
    assert_eq!(said(&mut node, link).0, 1);
    let small = signed(4, 500, 1);
    let other = node.meet(Duration::ZERO, 5);
    node.hear(Duration::ZERO, other, vec![push(&small)]);
    let offered = |m: &Message| match m {
        Message::Push { transaction, .. } => transaction.id() == small.id(),
        Message::Announce(list) => list.iter().any(|a| a.id == small.id()),
        _ => false,
    };
    node.wake(millis(10));
    assert!(node.said_to(link).iter().any(offered), "the small one waits");
    node.hear(millis(20), link, vec![Message::Want(vec![small.id()])]);
    let whole = |m: &Message| matches!(m, Message::Push { .. });
    assert!(node.said_to(link).iter().any(whole), "what was asked for waits for bulk");
}

fn push(transaction: &Transaction) -> Message {
    Message::Push { transaction: transaction.clone(), hop: 0 }
}

/// Lets time pass in steps of 100 ms until the link is closed; the time when it was.
fn closed_at(
    node: &mut SingleNode,
    link: LinkId,
    limit: Duration,
    mut step: impl FnMut(&mut SingleNode, Duration),
) -> Option<Duration> {
    let mut now = Duration::ZERO;
    while now < limit {
        now += millis(100);
        step(node, now);
        node.wake(now);
        if node.closed.contains(&link) {
            return Some(now);
        }
    }
    None
}

#[test]
fn a_silent_peer_is_given_up_when_what_stands_before_the_ping_has_had_its_time() {
    let liveness = Config::default().liveness;
    let usual = liveness.interval * 6 / 5 + liveness.timeout * (liveness.max_missed + 1);
    // Without bulk, and with a piece that was never confirmed, for which 4 KiB/s are assumed.
    let mut idle = SingleNode::new(1, &Config::default(), Vec::new());
    let quiet = idle.meet(Duration::ZERO, 2);
    idle.mute.insert(quiet);
    let at = closed_at(&mut idle, quiet, secs(300), |_, _| {}).expect("it is found");
    assert!(at <= usual, "{at:?}");
    let (mut busy, link) = asked();
    let at = closed_at(&mut busy, link, secs(300), |_, _| {}).expect("it is found");
    assert!(at <= usual + secs(17), "{at:?}");
}

#[test]
fn a_link_on_which_bytes_move_is_alive_either_way() {
    let limit = secs(300);
    let reads: fn(&mut SingleNode, Duration) = |node, _| node.traffic.0 += 1;
    let writes: fn(&mut SingleNode, Duration) = |node, _| node.traffic.1 += 300;
    let writes_pings: fn(&mut SingleNode, Duration) = |node, _| node.traffic.1 += 10;
    for (moves, step) in [(true, reads), (true, writes), (false, writes_pings)] {
        let mut node = SingleNode::new(1, &Config::default(), Vec::new());
        let link = node.meet(Duration::ZERO, 2);
        node.mute.insert(link);
        assert_eq!(closed_at(&mut node, link, limit, step).is_none(), moves);
        assert_eq!(node.protocol.counters().pings_missed == 0, moves);
    }
}

#[test]
fn a_peer_that_answers_pings_and_confirms_no_bulk_is_slow() {
    let (mut node, link) = asked();
    let (_, marks) = said(&mut node, link);
    let mark = *marks.last().unwrap();
    // It even says other things; and what it says of marks to come counts for nothing.
    let step = |node: &mut SingleNode, now| {
        pong(node, now, link, mark.wrapping_add(1));
        let _ = said(node, link);
    };
    assert!(closed_at(&mut node, link, secs(300), step).is_some());
    assert_eq!(node.protocol.counters().links_closed_slow, 1);
}
