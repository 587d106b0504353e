//! Bad input before and during the hello: each gets a typed refusal, a counter and an event, and
//! the node goes on serving others.
//!
//! Level of these bad peers: a node over real sockets, before and during the hello. Others:
//! `hostile.rs` (after the hello), `src/sim/tests/hostile.rs` (a simulated network),
//! `src/protocol/tests/liars.rs` and `greedy.rs` (one core).

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use sorcha_peer::config::Trust;
use sorcha_peer::error::{ConnectError, FailureKind};
use sorcha_peer::ports::{RawLink, Transport};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::types::unstable::{Hello, Message};
use sorcha_peer::types::{CloseReason, Counters, PeerRecord};
use sorcha_peer::{Config, Endpoint, Event, Events, PeerId, PeerNode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::raw::{RawPeer, hello};
use crate::common::{
    address, assert_serves, assert_spreads, builder, config_with, counters, event,
    handshake_refusal, identity, link_refusal, ready, soon, start, start_alone, start_with, stats,
    stop, until, until_peers,
};

/// Checks what a refused hello comes to: goodbye with the reason, event, counter, and no link.
async fn assert_refused(
    node: &PeerNode,
    mut peer: RawPeer,
    mut events: Events,
    reason: CloseReason,
    counter: impl Fn(&Counters) -> u64,
) {
    assert_eq!(peer.goodbye().await, Some(reason));
    assert_eq!(link_refusal(&mut events, reason).await, peer.id());
    let stats = stats(node).await;
    assert_eq!((stats.links, counter(&stats.counters)), (0, 1));
    assert_serves(node).await;
}

async fn greet(node: &PeerNode, change: impl FnOnce(&mut Hello)) -> RawPeer {
    let mut peer = RawPeer::dial(identity(9), node).await;
    let mut greeting = hello(&peer.identity);
    change(&mut greeting);
    peer.send(&[Message::Hello(Box::new(greeting))]).await;
    peer
}

#[tokio::test(flavor = "multi_thread")]
async fn another_network_is_refused_on_both_sides() {
    let node = start_alone().await;
    let events = node.events();
    let peer = greet(&node, |h| h.network = "other".to_owned()).await;
    let refused = |c: &Counters| c.links_refused_network;
    assert_refused(&node, peer, events, CloseReason::WrongNetwork, refused).await;

    let stranger = start_with(|c| c.network.name = "other".to_owned()).await;
    let error = stranger.connect(&address(&node)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(CloseReason::WrongNetwork)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_from_the_future_is_refused() {
    let node = start_alone().await;
    let events = node.events();
    let peer = greet(&node, |h| (h.version_min, h.version_max) = (7, 9)).await;
    let refused = |c: &Counters| c.links_refused_version;
    assert_refused(&node, peer, events, CloseReason::WrongVersion, refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_range_that_overlaps_is_welcome() {
    let node = start_alone().await;
    let mut greeting = hello(&identity(9));
    (greeting.version_min, greeting.version_max) = (0, 9);
    RawPeer::join_as(identity(9), &node, greeting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_refused_under_an_allow_list() {
    let peers = [identity(1).peer_id(), identity(2).peer_id()].into();
    let trust = Trust::AllowList { peers };
    let node = start_with(|c| c.network.trust = trust).await;
    let mut events = node.events();
    let mut peer = RawPeer::dial(identity(9), &node).await;
    assert_eq!(peer.goodbye().await, Some(CloseReason::NotAllowed));
    let who = link_refusal(&mut events, CloseReason::NotAllowed).await;
    assert_eq!(who, peer.id());
    assert_eq!(counters(&node).await.links_refused_not_allowed, 1);
    RawPeer::join(identity(2), &node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_against_tls_is_a_failed_handshake() {
    let node = start_alone().await;
    let mut events = node.events();
    let options = GrpcOptions::from_config(&config_with(|c| c.network.plaintext = true));
    let plain = GrpcTransport::new(identity(9), options).unwrap();
    let endpoint = Endpoint::from(node.listen_addr().unwrap());
    soon("the dial fails", plain.dial(&endpoint, None)).await.unwrap_err();
    handshake_refusal(&mut events, FailureKind::Protocol).await;
    assert_eq!(counters(&node).await.handshakes_failed, 1);
    assert_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_given_up_and_delays_nobody() {
    let node = start_with(|c| c.connection.handshake_timeout = Duration::from_secs(3)).await;
    let mut events = node.events();
    let mut silent = TcpStream::connect(address(&node)).await.unwrap();
    assert_serves(&node).await;
    handshake_refusal(&mut events, FailureKind::Timeout).await;
    assert_eq!(soon("the end", silent.read(&mut [0; 1])).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_greets_is_given_up() {
    let node = start_with(|c| c.connection.handshake_timeout = Duration::from_secs(3)).await;
    let events = node.events();
    let peer = RawPeer::dial(identity(9), &node).await;
    let timed_out = |c: &Counters| c.links_refused_timeout;
    assert_refused(&node, peer, events, CloseReason::HandshakeTimeout, timed_out).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_handshakes_is_bounded_and_over_with_its_cause() {
    const FLOOD: usize = 50;
    const ROOM: u32 = 4;
    let node = start_with(|c| c.listen.max_handshakes_per_ip = ROOM).await;
    let flood = join_all((0..FLOOD).map(|_| TcpStream::connect(address(&node)))).await;
    until(&node, "all but a few are shed", |s| {
        s.counters.handshakes_shed == FLOOD as u64 - u64::from(ROOM)
    })
    .await;
    drop(flood);
    until(&node, "their places are free", |s| s.counters.handshakes_failed == u64::from(ROOM))
        .await;
    assert_serves(&node).await;
}

#[cfg(all(feature = "rest", feature = "websocket"))]
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_lead_to_no_link_are_answered_told_and_counted() {
    let node = start_with(|c| c.listen.http = Some(([127, 0, 0, 1], 0).into())).await;
    let http = node.http_addr().expect("a port for proxies");
    let mut events = node.events();
    let upgrade = "GET /sorcha/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Protocol: sorcha.gossip.v1\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let call = |path: &str| {
        format!("POST /sorcha/v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    };
    let guessed = "0".repeat(32);
    let refused = [
        (format!("{upgrade}Sec-WebSocket-Version: 13\r\n\r\n"), 400),
        (format!("{upgrade}{key}Sec-WebSocket-Version: 8\r\n\r\n"), 426),
        (format!("{upgrade}{key}Sec-WebSocket-Version: 13\r\nOrigin: https://x\r\n\r\n"), 403),
        (call(&format!("exchange/{guessed}/poll?ack=0")), 404),
        (call(&format!("exchange/{guessed}/send?offset=5&ack=0")), 404),
        (call("elsewhere"), 404),
    ];
    for (number, (request, status)) in (1..).zip(refused) {
        let mut stream = TcpStream::connect(http).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        soon("an answer", stream.read_exact(&mut head)).await.unwrap();
        assert_eq!(head, *format!("HTTP/1.1 {status}").as_bytes(), "{request}");
        // A request that is refused is told besides, at once or when its connection is over.
        event(&mut events, "a connection that failed", |event| match event {
            Event::HandshakeRefused { reason, .. } => {
                (*reason != FailureKind::Refused).then_some(())
            }
            _ => None,
        })
        .await;
        assert_eq!(counters(&node).await.handshakes_failed, number, "{request}");
    }
    assert_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_before_the_hello_is_a_violation() {
    let node = start_alone().await;
    let events = node.events();
    let mut peer = RawPeer::dial(identity(9), &node).await;
    peer.send(&[Message::Ping { nonce: 1 }]).await;
    let refused = |c: &Counters| c.refused_malformed;
    assert_refused(&node, peer, events, CloseReason::Violation, refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_hello_is_a_violation() {
    let node = start_alone().await;
    let mut events = node.events();
    let mut peer = RawPeer::join(identity(9), &node).await;
    let again = hello(&peer.identity);
    peer.send(&[Message::Hello(Box::new(again))]).await;
    assert_eq!(peer.goodbye().await, Some(CloseReason::Violation));
    assert_eq!(down(&mut events, peer.id()).await, CloseReason::Violation);
    let c = counters(&node).await;
    assert_eq!((c.refused_malformed, c.links_closed_violation), (1, 1));
    assert_serves(&node).await;
}

async fn down(events: &mut Events, who: PeerId) -> CloseReason {
    event(events, "the peer is down", |e| match e {
        Event::PeerDown { peer, reason, .. } if *peer == who => Some(*reason),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_somebody_else_in_the_hello_is_refused() {
    let node = start_alone().await;
    let events = node.events();
    let peer = greet(&node, |h| h.record = hello(&identity(8)).record).await;
    let forged = |c: &Counters| c.records_forged;
    assert_refused(&node, peer, events, CloseReason::Violation, forged).await;
}

/// The record with a number that its subject did not sign.
fn forge(record: &PeerRecord) -> PeerRecord {
    let mut bytes = record.to_bytes();
    bytes[48] ^= 1;
    let forged = PeerRecord::from_bytes(&bytes).expect("a record");
    assert_eq!(forged.seq(), record.seq() ^ 1);
    forged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_record_blocks_who_tells_it() {
    type Forge = fn(&Config) -> Message;
    let in_hello: Forge = |_| {
        let mut greeting = hello(&identity(9));
        greeting.record = forge(&greeting.record);
        Message::Hello(Box::new(greeting))
    };
    let in_peers: Forge = |_| {
        let record = forge(&hello(&identity(8)).record);
        Message::Peers { records: vec![record], relays: 0 }
    };
    for (forge, joined) in [(in_hello, false), (in_peers, true)] {
        let node = start_alone().await;
        let mut events = node.events();
        let mut peer = if joined {
            RawPeer::join(identity(9), &node).await
        } else {
            RawPeer::dial(identity(9), &node).await
        };
        peer.send(&[forge(&Config::default())]).await;
        assert_eq!(peer.goodbye().await, Some(CloseReason::Violation));
        let forged = event(&mut events, "a forged record", |event| match event {
            Event::RecordRefused { peer, .. } => Some(*peer),
            _ => None,
        });
        assert_eq!(forged.await, peer.id());
        let seen = stats(&node).await;
        assert_eq!((seen.counters.records_forged, seen.banned_peers), (1, 1));
        let mut again = RawPeer::dial(identity(9), &node).await;
        assert_eq!(again.goodbye().await, Some(CloseReason::Banned));
        assert_serves(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_frames_are_a_violation() {
    let too_many = Message::Ping { nonce: 1 };
    let frames = [
        Bytes::from_static(b"\xff\xff\xff\xff\xff"),
        Bytes::from_static(b"\x0a\x7fshort"),
        Bytes::from(vec![0; 100_000]),
        sorcha_peer::wire::encode_frame(&vec![too_many; 5000]),
    ];
    let node = start_alone().await;
    for (seen, frame) in (1..).zip(frames) {
        let mut events = node.events();
        let mut peer = RawPeer::join(identity(9), &node).await;
        peer.send_bytes(frame).await;
        assert_eq!(peer.goodbye().await, Some(CloseReason::Violation));
        assert_eq!(down(&mut events, peer.id()).await, CloseReason::Violation);
        assert_eq!(counters(&node).await.refused_malformed, seen);
    }
    assert_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversize_frame_is_refused_before_it_is_there() {
    // By hand, since no transport of ours sends such a thing; without TLS, to keep it short.
    let node = start_with(|c| c.network.plaintext = true).await;
    let mut events = node.events();
    let stream = TcpStream::connect(address(&node)).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let who = identity(9).peer_id();
    let request = http::Request::post("http://node/sorcha.peer.gossip.v1.PeerGossip/Link")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-sorcha-peer-id", who.to_string())
        .body(())
        .unwrap();
    let (_response, mut frames) = client.send_request(request, false).unwrap();
    let greeting = [Message::Hello(Box::new(hello(&identity(9))))];
    let greeting = sorcha_peer::wire::encode_frame(&greeting);
    let prefix = |length: usize| {
        let mut prefix = vec![0];
        prefix.extend(u32::try_from(length).unwrap().to_be_bytes());
        Bytes::from(prefix)
    };
    for part in [prefix(greeting.len()), greeting, prefix(RawLink::MAX_FRAME_BYTES + 1)] {
        frames.send_data(part, false).unwrap();
    }
    assert_eq!(down(&mut events, who).await, CloseReason::Violation);
    assert_eq!(counters(&node).await.refused_malformed, 1);
    connection.abort();
    let other = start_with(|c| c.network.plaintext = true).await;
    other.connect(&address(&node)).await.unwrap();
    assert_spreads(&node, &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_connections_of_one_peer_the_newest_wins() {
    let node = start_alone().await;
    let mut older = RawPeer::join(identity(9), &node).await;
    for incarnation in [1, 2] {
        let mut greeting = hello(&identity(9));
        greeting.incarnation = incarnation;
        let newer = RawPeer::join_as(identity(9), &node, greeting).await;
        assert_eq!(older.goodbye().await, Some(CloseReason::Replaced));
        older = newer;
    }
    let seen = stats(&node).await;
    assert_eq!((seen.links, seen.counters.links_replaced), (1, 2));
    assert_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_dial_each_other_at_once_end_with_one_link() {
    for _ in 0..10 {
        let (a, b) = (start_alone().await, start_alone().await);
        let (to_a, to_b) = (address(&a), address(&b));
        let (there, back) = tokio::join!(a.connect(&to_b), b.connect(&to_a));
        assert_eq!((there.unwrap(), back.unwrap()), (b.peer_id(), a.peer_id()));
        for node in [&a, &b] {
            until(node, "one link", |s| (s.links, s.handshakes) == (1, 0)).await;
        }
        let of_a = until_peers(&a, "one link", |peers| peers.len() == 1).await;
        let of_b = until_peers(&b, "the same link", |peers| {
            peers.len() == 1 && peers[0].direction != of_a[0].direction
        });
        of_b.await;
        assert_spreads(&a, &b).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_address_is_refused_and_not_dialled_again() {
    let node = start_alone().await;
    let mut events = node.events();
    let error = node.connect(&address(&node)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(CloseReason::SelfDial)), "{error}");
    let who = link_refusal(&mut events, CloseReason::SelfDial).await;
    assert_eq!(who, node.peer_id());
    let seen = until(&node, "both ends are refused", |s| s.counters.links_refused_self == 2).await;
    assert_eq!((seen.links, seen.known_peers), (0, 0));
    assert_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_its_own_bootstrap_peer_notices_once() {
    // The addresses have to be known before the node is there.
    let (earlier, gone) = (start_alone().await, start_alone().await);
    let contacts = [address(&earlier), address(&gone)];
    stop(&earlier).await;
    stop(&gone).await;
    let node = start(builder().listen(&contacts[0]).bootstrap(&contacts)).await;
    let seen = until(&node, "the other is dialled often", |s| s.counters.dials_failed >= 6).await;
    assert_eq!(seen.counters.links_refused_self, 2, "both ends of one link");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_refused_tries_again() {
    let node = start_alone().await;
    let banned = identity(9);
    node.ban(banned.peer_id(), None, "for a while").await.unwrap();
    let mut events = node.events();
    let peer = start(builder().identity(banned).bootstrap([address(&node)])).await;
    link_refusal(&mut events, CloseReason::Banned).await;
    node.unban(peer.peer_id()).await.unwrap();
    ready(&peer, 1).await;
}
