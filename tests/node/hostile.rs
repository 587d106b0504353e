//! A peer that passed its hello and then misbehaves: what it gets for it, what it costs, and that
//! nobody else notices.
//!
//! Level of these bad peers: a node over real sockets, after the hello. Others: `bad_input.rs`
//! (before and during the hello), `src/sim/tests/hostile.rs` (a simulated network),
//! `src/protocol/tests/liars.rs` and `greedy.rs` (one core).

use std::time::Duration;

use bytes::Bytes;
use sorcha_peer::types::unstable::{Announcement, Message};
use sorcha_peer::types::{CloseReason, Counters, Header, Refusal, Signature};
use sorcha_peer::wire::encode_frame;
use sorcha_peer::{
    Config, Event, Events, PeerId, PeerNode, StartAt, Stats, Transaction, TransactionId,
};

use crate::common::raw::{RawPeer, header, now, push, signed};
use crate::common::{
    assert_serves, assert_spreads, counters, event, identity, linked_pair, next, noise, ready,
    refusal, start_alone, start_beside, start_with, stats, until, until_peers,
};

const KIB: usize = 1024;
/// The most that may wait for a peer that does not read.
const MAX_QUEUED: u64 = 2 << 20;

async fn down(events: &mut Events, who: PeerId) -> CloseReason {
    event(events, "the peer is down", |e| match e {
        Event::PeerDown { peer, reason, .. } if *peer == who => Some(*reason),
        _ => None,
    })
    .await
}

fn id(n: u64) -> TransactionId {
    let mut id = [0xee; 32];
    id[..8].copy_from_slice(&n.to_le_bytes());
    TransactionId::from_bytes(id)
}

fn announce(ids: std::ops::Range<u64>, size: u64) -> Message {
    Message::Announce(ids.map(|n| Announcement { id: id(n), size, hop: 0 }).collect())
}

/// A transaction whose origin is the raw peer, spoiled.
fn spoiled(change: impl FnOnce(&mut Header)) -> Transaction {
    let mut header = header(&identity(9), b"payload");
    change(&mut header);
    signed(&identity(9), &header, b"payload")
}

/// Pushes `transaction`; it must be refused with `reason`, counted, and neither kept nor passed on.
async fn assert_refused(
    transaction: Transaction,
    config: impl FnOnce(&mut Config),
    reason: Refusal,
    counter: impl Fn(&Counters) -> u64,
) -> (PeerNode, RawPeer) {
    let node = start_with(config).await;
    let friend = start_beside(&node).await;
    ready(&friend, 1).await;
    let mut events = node.events();
    let mut peer = RawPeer::join(identity(9), &node).await;
    let refused = transaction.id();
    peer.send(&[push(transaction)]).await;
    assert_eq!(refusal(&mut events, reason).await, (Some(peer.id()), refused));
    let seen = stats(&node).await;
    assert_eq!((counter(&seen.counters), seen.retained, seen.fetching), (1, 0, 0));
    assert_spreads(&node, &friend).await;
    assert_eq!(stats(&friend).await.retained, 2, "what both published, and nothing else");
    (node, peer)
}

/// Proof of misbehaviour: the link is closed and the peer blocked.
async fn assert_blocked(node: &PeerNode, mut peer: RawPeer) {
    assert_eq!(peer.goodbye().await, Some(CloseReason::Violation));
    assert_eq!(stats(node).await.banned_peers, 1);
    let mut again = RawPeer::dial(identity(9), node).await;
    assert_eq!(again.goodbye().await, Some(CloseReason::Banned));
}

/// Nothing to blame the peer for.
async fn assert_still_linked(node: &PeerNode, mut peer: RawPeer) {
    peer.send(&[Message::Ping { nonce: 77 }]).await;
    peer.expect("an answer", |m| *m == Message::Pong { nonce: 77 }).await;
    assert_eq!(stats(node).await.banned_peers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_does_not_match_its_hash_blocks_its_sender() {
    let good = spoiled(|_| {});
    let payload = Bytes::from_static(b"another");
    let bad =
        Transaction::from_parts(good.header_bytes().clone(), good.signature().clone(), payload);
    let wrong = |c: &Counters| c.refused_wrong_hash;
    let (node, peer) = assert_refused(bad.unwrap(), |_| {}, Refusal::WrongHash, wrong).await;
    assert_blocked(&node, peer).await;
    // The id itself is not tainted: the right bytes are welcome from somebody else.
    let mut honest = RawPeer::join(identity(8), &node).await;
    let mut arrived = node.subscribe("raw", StartAt::Now).await.unwrap();
    honest.send(&[push(good.clone())]).await;
    assert_eq!(next(&mut arrived).await.transaction, good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_of_somebody_else_blocks_its_sender() {
    let bad = signed(&identity(8), &header(&identity(9), b"payload"), b"payload");
    let wrong = |c: &Counters| c.refused_wrong_signature;
    let (node, peer) = assert_refused(bad, |_| {}, Refusal::WrongSignature, wrong).await;
    assert_blocked(&node, peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_transaction_on_a_signing_network_blocks_its_sender() {
    let header = header(&identity(9), b"payload");
    let payload = Bytes::from_static(b"payload");
    let bad = Transaction::new(header, Signature::None, payload).unwrap();
    let wrong = |c: &Counters| c.refused_wrong_signature;
    let (node, peer) = assert_refused(bad, |_| {}, Refusal::WrongSignature, wrong).await;
    assert_blocked(&node, peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_pushed_or_announced() {
    let payload = noise(1, 2 * KIB);
    let large = signed(&identity(9), &header(&identity(9), &payload), &payload);
    let small = |c: &mut Config| c.gossip.max_transaction_size = KIB as u64;
    let refused = |c: &Counters| c.refused_too_large;
    let (node, mut peer) = assert_refused(large, small, Refusal::TooLarge, refused).await;
    let mut events = node.events();
    peer.send(&[announce(1..2, KIB as u64 + 1)]).await;
    assert_eq!(refusal(&mut events, Refusal::TooLarge).await, (Some(peer.id()), id(1)));
    assert_eq!(counters(&node).await.wants_sent, 0);
    assert_still_linked(&node, peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_created_in_the_future_is_refused() {
    let future = spoiled(|h| h.created = now().plus(Duration::from_mins(5)));
    let refused = |c: &Counters| c.refused_skewed;
    let (node, peer) = assert_refused(future, |_| {}, Refusal::Skewed, refused).await;
    assert_still_linked(&node, peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_refused() {
    let expired = spoiled(|h| h.expires = now().minus(Duration::from_secs(1)));
    let refused = |c: &Counters| c.refused_expired;
    let (node, peer) = assert_refused(expired, |_| {}, Refusal::Expired, refused).await;
    assert_still_linked(&node, peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_everybody_has_forgotten_by_now_is_refused_whatever_it_says() {
    let old = spoiled(|h| {
        h.created = now().minus(Duration::from_hours(2));
        h.expires = now().plus(Duration::from_hours(2));
    });
    let refused = |c: &Counters| c.refused_expired;
    let (node, peer) = assert_refused(old, |_| {}, Refusal::Expired, refused).await;
    assert_still_linked(&node, peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_answers_pings_is_suspected_and_then_down() {
    let node = start_with(|c| {
        c.liveness.interval = Duration::from_millis(200);
        c.liveness.timeout = Duration::from_secs(1);
    })
    .await;
    let mut events = node.events();
    let mut peer = RawPeer::join(identity(9), &node).await;
    let suspected = event(&mut events, "suspected", |e| match e {
        Event::PeerSuspected { peer, .. } => Some(*peer),
        _ => None,
    });
    assert_eq!(suspected.await, peer.id());
    assert_eq!(down(&mut events, peer.id()).await, CloseReason::Unresponsive);
    assert_eq!(peer.goodbye().await, Some(CloseReason::Unresponsive));
    let c = counters(&node).await;
    assert_eq!((c.pings_missed, c.links_closed_unresponsive), (2, 1));
    assert_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_reads_costs_little_slows_nobody_and_is_cut_off() {
    const COUNT: usize = 400;
    let node = start_with(|c| {
        c.liveness.interval = Duration::from_millis(500);
        c.liveness.timeout = Duration::from_millis(500);
        c.liveness.max_missed = 10;
        c.liveness.slow_after = Duration::from_secs(1);
        c.discovery.min_healthy_peers = 1;
    })
    .await;
    let friend = start_beside(&node).await;
    ready(&friend, 1).await;
    let mut events = node.events();
    let mut peer = RawPeer::join(identity(9), &node).await;
    let who = peer.id();
    let mut arrived = friend.subscribe("t", StartAt::Now).await.unwrap();
    // It talks, so that nobody takes it for dead, but never reads.
    let talk = async {
        let mut nonce = 0;
        while peer.try_send(encode_frame(&[Message::Pong { nonce }])).await.is_ok() {
            nonce += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let publish = async {
        for seed in 0..COUNT as u64 {
            node.publish("t", noise(seed, 15 * KIB)).await.unwrap();
            next(&mut arrived).await;
        }
        let queued = |peers: &[sorcha_peer::types::LinkStatus]| {
            peers.iter().find(|p| p.peer == who).map_or(0, |p| p.queued_bytes)
        };
        assert!(queued(&node.peers().await.unwrap()) <= MAX_QUEUED);
        assert_eq!(down(&mut events, who).await, CloseReason::SlowPeer);
    };
    tokio::join!(talk, publish);
    assert_eq!(counters(&node).await.links_closed_slow, 1);
    assert_spreads(&node, &friend).await;
}

/// Sends the same frame until the node closes the link, and never reads.
async fn flood_until_cut_off(node: &PeerNode, frame: Bytes) -> Stats {
    let mut events = node.events();
    let mut peer = RawPeer::join(identity(9), node).await;
    let who = peer.id();
    let flood = async {
        loop {
            if peer.try_send(frame.clone()).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let watch = async {
        loop {
            let peers = node.peers().await.unwrap();
            let queued = peers.iter().find(|p| p.peer == who).map_or(0, |p| p.queued_bytes);
            assert!(queued <= MAX_QUEUED, "{queued} bytes wait for a peer that does not read");
            tokio::task::yield_now().await;
        }
    };
    let reason = tokio::select! {
        reason = down(&mut events, who) => reason,
        () = flood => unreachable!("it goes on"),
        () = watch => unreachable!("it goes on"),
    };
    assert_eq!(reason, CloseReason::SlowPeer);
    stats(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_whose_answers_nobody_reads_ends_the_link() {
    let (node, friend) = linked_pair().await;
    let frame = encode_frame(&vec![Message::Ping { nonce: 1 }; 4096]);
    let seen = flood_until_cut_off(&node, frame).await;
    assert_eq!(seen.counters.links_closed_slow, 1);
    assert_spreads(&node, &friend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_wants_whose_answers_nobody_reads_ends_the_link() {
    let (node, friend) = linked_pair().await;
    let wants = (0..1024).map(id).collect();
    let frame = encode_frame(&vec![Message::Want(wants); 16]);
    let seen = flood_until_cut_off(&node, frame).await;
    assert!(seen.counters.wants_missed > 0);
    assert_spreads(&node, &friend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wants_for_what_is_not_there_are_answered_so() {
    let node = start_alone().await;
    let mut peer = RawPeer::join(identity(9), &node).await;
    let wants = (0..1000).map(id).collect();
    peer.send(&[Message::Want(wants)]).await;
    let missing = peer.expect("an answer", |m| matches!(m, Message::Missing(_))).await;
    let Message::Missing(ids) = missing else { unreachable!("just matched") };
    assert_eq!(ids, (0..1000).map(id).collect::<Vec<_>>());
    let c = counters(&node).await;
    assert_eq!((c.wants_received, c.wants_missed), (1000, 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_announcements_leaves_room_for_those_of_others() {
    let (node, friend) = linked_pair().await;
    let mut peer = RawPeer::join(identity(9), &node).await;
    let flood = async {
        // Enough to fill the table, then as much as keeps it full: this is about places, not about
        // who gets the processor.
        for n in (0..).step_by(1024) {
            peer.send(&[announce(n..n + 1024, 500)]).await;
            if n > 100_000 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let serve = async {
        let shed = |s: &Stats| s.counters.fetches_shed > 70_000;
        let seen = until(&node, "most are shed", shed).await;
        assert!(seen.fetching <= 65_536, "{}", seen.fetching);
        // A large payload is announced and not pushed, so it needs a place among those.
        let mut arrived = node.subscribe("t", StartAt::Now).await.unwrap();
        for seed in 0..5 {
            let receipt = friend.publish("t", noise(seed, 100 * KIB)).await.unwrap();
            assert_eq!(next(&mut arrived).await.transaction.id(), receipt.id());
        }
        assert_spreads(&node, &friend).await;
    };
    tokio::select! {
        () = flood => unreachable!("it goes on"),
        () = serve => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_and_never_served_is_fetched_elsewhere() {
    let (node, friend) = linked_pair().await;
    let payload = noise(7, 200 * KIB);
    let transaction = signed(&identity(7), &header(&identity(7), &payload), &payload);
    let offer = Announcement { id: transaction.id(), size: payload.len() as u64, hop: 1 };
    let mut liar = RawPeer::join(identity(9), &node).await;
    liar.send(&[Message::Announce(vec![offer])]).await;
    liar.expect("it is asked first", |m| matches!(m, Message::Reserve(_))).await;

    let mut arrived = node.subscribe("raw", StartAt::Now).await.unwrap();
    let mut origin = RawPeer::join(identity(7), &friend).await;
    origin.send(&[push(transaction.clone())]).await;
    assert_eq!(next(&mut arrived).await.transaction, transaction);
    let c = counters(&node).await;
    assert!(c.wants_timed_out >= 1, "{c:?}");
    assert_still_linked(&node, liar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_serves_is_given_up() {
    let node = start_alone().await;
    let mut liar = RawPeer::join(identity(9), &node).await;
    liar.send(&[announce(0..10, 500)]).await;
    until(&node, "they are wanted", |s| s.counters.wants_sent >= 10).await;
    until(&node, "they are given up", |s| s.fetching == 0).await;
    assert_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_that_nobody_asked_for_are_counted_and_dropped() {
    let node = start_alone().await;
    let mut peer = RawPeer::join(identity(9), &node).await;
    let piece = |n| sorcha_peer::ports::Piece::new(id(n), 0, noise(n, 1000).into(), Bytes::new());
    peer.send(&[Message::Piece(piece(1)), Message::Piece(piece(2))]).await;
    let seen = until(&node, "they are counted", |s| s.counters.pieces_received == 2).await;
    assert_eq!((seen.counters.pieces_unexpected, seen.fetching, seen.retained), (2, 0, 0));
    assert_still_linked(&node, peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_comes_and_goes_leaves_nothing_behind() {
    let node = start_alone().await;
    for n in 0..20 {
        let mut peer = RawPeer::join(identity(9), &node).await;
        peer.send(&[announce(n * 100..n * 100 + 50, 500)]).await;
    }
    until_peers(&node, "all are gone", <[_]>::is_empty).await;
    let seen = until(&node, "nothing is wanted", |s| s.fetching == 0).await;
    assert_eq!((seen.links, seen.handshakes, seen.known_peers), (0, 0, 1));
}
