//! Memory of one core: what is held stays within its share, what waits for room gets some, and what
//! is counted is what is held.

use crate::config::Config;
use crate::protocol::{CallId, Input, Restored};
use crate::types::{Head, LinkId, Message, Offer, PIECE_BYTES, Piece, Proofs, Transaction};

use super::liars::{gauge, reservation, signed};
use super::single_node::SingleNode;
use super::*;

const MIB: usize = 1 << 20;

/// A node with 16 MiB: one and a half of them for what peers read, four for what is put together,
/// three for what is being stored.
fn config(largest: u64) -> Config {
    let mut config = Config::lan();
    config.limits.memory = 16 << 20;
    config.gossip.max_transaction_size = largest;
    config.validate().unwrap();
    config
}

/// A node with payloads of 1 MiB in its store, and none of them in memory.
fn server(count: u8) -> (SingleNode, Vec<Transaction>) {
    let held: Vec<_> = (0..count).map(|n| signed(9, MIB, n)).collect();
    (SingleNode::new(1, &config(2 << 20), held.clone()), held)
}

fn is_piece_of(message: &Message, transaction: &Transaction) -> bool {
    matches!(message, Message::Piece(piece) if piece.id == transaction.id())
}

/// Compares what is counted with what is held.
fn check_sums(node: &SingleNode) {
    let held = &node.protocol.serving.held;
    assert_eq!(held.bytes(), held.sum());
    assert_eq!(node.protocol.stats().memory["serving"], held.sum());
}

#[test]
fn peers_that_take_nothing_hold_no_memory_that_others_need() {
    let (mut node, payloads) = server(6);
    let mut now = secs(1);
    // Each is sent one piece and takes no more: a payload for each would be five times the share.
    let slow: Vec<LinkId> = (0..5).map(|n| node.meet(now, 20 + n)).collect();
    node.stuck.extend(&slow);
    for (link, payload) in slow.iter().zip(&payloads) {
        node.hear(now, *link, vec![reservation(payload.id(), 9)]);
        check_sums(&node);
    }
    let quick = node.meet(now, 40);
    node.hear(now, quick, vec![reservation(payloads[5].id(), 9)]);
    assert!(gauge(&node, "bytes held for peers") == MIB, "the first one's");
    let mut said = node.said_to(quick);
    // A second for each in line before it.
    for _ in 0..8 {
        now += secs(1);
        node.wake(now);
        check_sums(&node);
        said.extend(node.said_to(quick));
    }
    let pieces = said.iter().filter(|message| is_piece_of(message, &payloads[5])).count();
    assert_eq!(pieces, 16, "all of it");
    // Who takes again gets the rest, read once more.
    node.stuck.clear();
    for link in &slow {
        let queued = node.protocol.links.all[link].queued_bytes;
        node.feed(now, Input::Sent { link: *link, weight: queued, bytes: queued });
    }
    for _ in 0..8 {
        now += secs(1);
        node.wake(now);
    }
    for (link, payload) in slow.iter().zip(&payloads) {
        let said = node.said_to(*link);
        let pieces = said.iter().filter(|message| is_piece_of(message, payload)).count();
        assert_eq!(pieces, 16, "{link:?}");
    }
    check_sums(&node);
    assert_eq!(gauge(&node, "bytes held for peers"), 0, "nobody waits");
}

#[test]
fn a_payload_that_many_ask_for_is_held_once_until_all_have_it() {
    let (mut node, payloads) = server(1);
    let now = secs(1);
    let links: Vec<LinkId> = (0..3).map(|n| node.meet(now, 20 + n)).collect();
    node.stuck.extend(&links);
    for link in &links {
        node.hear(now, *link, vec![reservation(payloads[0].id(), 9)]);
    }
    assert_eq!(gauge(&node, "bytes held for peers"), MIB);
    node.feed(now, Input::LinkClosed { link: links[0] });
    node.feed(now, Input::LinkClosed { link: links[1] });
    assert_eq!(gauge(&node, "bytes held for peers"), MIB, "for the third");
    node.feed(now, Input::LinkClosed { link: links[2] });
    assert_eq!(gauge(&node, "bytes held for peers"), 0);
    check_sums(&node);
}

fn publish(node: &mut SingleNode, n: u8, size: usize) {
    let transaction = signed(1, size, n);
    let call = CallId(u64::from(n) + 1);
    node.feed(secs(1), Input::Publish { call, transactions: vec![transaction], renews: None });
}

#[test]
fn what_is_being_stored_closes_the_door_and_opens_it() {
    let mut node = SingleNode::new(1, &config(2 << 20), Vec::new());
    node.unstored = Some(Vec::new());
    for n in 0..6 {
        publish(&mut node, n, MIB);
        assert!(node.protocol.has_room());
    }
    publish(&mut node, 6, MIB);
    assert!(!node.protocol.has_room(), "as much as may be stored and put together");
    assert_eq!(node.protocol.stats().memory["storing"], 7 << 20);
    let tickets = node.unstored.take().unwrap();
    for ticket in tickets {
        node.feed(secs(1), Input::Stored { ticket, result: Ok(()) });
        assert!(node.protocol.has_room());
    }
    assert_eq!(node.protocol.stats().memory["storing"], 0);
}

#[test]
fn one_payload_alone_closes_no_door() {
    let largest = 4 << 20;
    let mut config = config(largest);
    config.gossip.max_assembly_bytes = Some(1 << 20);
    let mut node = SingleNode::new(1, &config, Vec::new());
    let limits = node.protocol.stats().memory_limits;
    node.unstored = Some(Vec::new());
    publish(&mut node, 0, 4 * MIB);
    assert!(node.protocol.has_room(), "{limits:?}");
    publish(&mut node, 1, MIB);
    assert!(!node.protocol.has_room(), "{limits:?}");
}

fn offer(transaction: &Transaction) -> Message {
    let head = Head::of(transaction);
    Message::Offer(Box::new(Offer { head, hop: 0, place: 0, complete: true }))
}

fn is_reserved(said: &[Message], transaction: &Transaction) -> bool {
    said.iter().any(
        |m| matches!(m, Message::Reserve(r) if r.id == transaction.id() && !r.ranges.is_empty()),
    )
}

fn send_all(node: &mut SingleNode, link: LinkId, transaction: &Transaction) {
    let proofs = Proofs::of(transaction.payload());
    for (index, bytes) in (0..).zip(transaction.payload().chunks(PIECE_BYTES)) {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        let piece = Piece { id: transaction.id(), index, bytes, proof: proofs.get(index) };
        node.hear(secs(1), link, vec![Message::Piece(piece)]);
    }
}

#[test]
fn large_payloads_wait_for_a_slow_store_and_nothing_else_does() {
    let mut node = SingleNode::new(1, &config(2 << 20), Vec::new());
    node.unstored = Some(Vec::new());
    let link = node.meet(secs(1), 9);
    // Four MiB may be put together, and three be stored: the sixth would be more than half of those.
    let all: Vec<_> = (0..7).map(|n| signed(9, MIB, n)).collect();
    let mut taken = 0;
    for payload in &all {
        node.hear(secs(1), link, vec![offer(payload)]);
        node.check_heads(secs(1));
        if !is_reserved(&node.said_to(link), payload) {
            break;
        }
        send_all(&mut node, link, payload);
        taken += 1;
    }
    assert_eq!(taken, 5);
    assert!(node.protocol.has_room(), "peers are heard");
    assert_eq!(node.protocol.stats().memory["storing"], 5 << 20);
    let ticket = node.unstored.as_mut().unwrap().remove(0);
    node.feed(secs(1), Input::Stored { ticket, result: Ok(()) });
    assert!(is_reserved(&node.said_to(link), &all[5]), "there is room again");
}

#[test]
fn payloads_that_do_not_come_make_way_for_one_that_does_where_the_store_is_empty() {
    let restored = Restored { partials: Some(Vec::new()), ..Restored::default() };
    let mut node = SingleNode::restored(1, &config(4 << 20), Vec::new(), restored);
    let (stalling, honest) = (node.meet(secs(1), 9), node.meet(secs(1), 8));
    // Each takes all that may be put together, and two are more than may be together with a store.
    let stalled = [signed(9, 4 * MIB, 0), signed(9, 4 * MIB, 1)];
    let payload = signed(8, MIB, 2);
    node.hear(secs(1), stalling, stalled.iter().map(offer).collect());
    node.check_heads(secs(1));
    assert!(is_reserved(&node.said_to(stalling), &stalled[0]));
    node.hear(secs(1), honest, vec![offer(&payload)]);
    node.check_heads(secs(1));
    assert!(!is_reserved(&node.said_to(honest), &payload), "waits for room");
    let mut said = Vec::new();
    // Five seconds without a piece for each of the two.
    for now in 2..=12 {
        node.hear(secs(now), stalling, vec![Message::Ping { nonce: now }]);
        node.wake(secs(now));
        said.extend(node.said_to(honest));
    }
    assert!(is_reserved(&said, &payload), "{:?}", node.protocol.stats().memory);
}

#[test]
fn every_owner_is_told_with_its_bound() {
    let stats = SingleNode::new(1, &Config::lan(), Vec::new()).protocol.stats();
    assert!(stats.memory.keys().eq(stats.memory_limits.keys()));
    assert!(stats.memory.values().all(|held| *held == 0), "{:?}", stats.memory);
}
