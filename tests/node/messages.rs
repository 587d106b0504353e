//! Requests to one peer and handlers of those of peers, over real sockets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use sorcha_peer::config::Role;
use sorcha_peer::error::{FailureKind, RequestError};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::types::CloseReason;
use sorcha_peer::types::unstable::{Features, Message};
use sorcha_peer::{
    Config, Event, PeerId, PeerNode, PeerNodeBuilder, Request, StartAt, TransportKind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;

use crate::common::raw::{RawPeer, hello};
use crate::common::{
    address, builder, config, config_with, event, identity, linked_pair, next, noise, ready, soon,
    start, start_alone, start_beside, start_with, stats, stop, until, until_peers,
};

const MIB: usize = 1 << 20;
const RUNGS: [TransportKind; 4] = [
    TransportKind::GrpcStream,
    TransportKind::WebSocket,
    TransportKind::GrpcUnary,
    TransportKind::Rest,
];

/// Answers with the body of the request.
fn echo(node: &PeerNode) {
    node.handle_requests("echo", async |request: Request| Ok(request.body().clone())).unwrap();
}

/// What becomes of a call of a handler that does not answer.
#[derive(Debug, PartialEq)]
enum Fate {
    Started,
    Dropped,
}

struct Guard(mpsc::Sender<Fate>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.try_send(Fate::Dropped);
    }
}

/// Takes requests and answers none of them.
fn hold(node: &PeerNode) -> mpsc::Receiver<Fate> {
    let (told, fates) = mpsc::channel(64);
    hold_for(node, told);
    fates
}

fn hold_for(node: &PeerNode, told: mpsc::Sender<Fate>) {
    node.handle_requests("hold", move |_| {
        let told = told.clone();
        async move {
            let _ = told.try_send(Fate::Started);
            let _guard = Guard(told);
            std::future::pending().await
        }
    })
    .unwrap();
}

async fn expect(fates: &mut mpsc::Receiver<Fate>, fate: Fate) {
    assert_eq!(soon("the handler's fate", fates.recv()).await, Some(fate));
}

async fn ask(node: &PeerNode, peer: &PeerNode, body: Vec<u8>) -> Result<Bytes, RequestError> {
    soon("an answer", node.request(peer.peer_id(), "echo", body)).await
}

/// Each asks the other; the answer is right.
async fn assert_asks(asker: &PeerNode, peer: &PeerNode, size: usize) {
    let body = noise(size as u64, size);
    let answer = ask(asker, peer, body.clone()).await.unwrap();
    assert!(answer == body, "{} bytes of {size} came back", answer.len());
}

/// Has a request handled that is not answered; returns it, still under way.
async fn asked_in_vain(
    asker: &PeerNode,
    peer: &PeerNode,
    fates: &mut mpsc::Receiver<Fate>,
) -> tokio::task::JoinHandle<Result<Bytes, RequestError>> {
    let (asker, peer) = (asker.clone(), peer.peer_id());
    let asked = tokio::spawn(async move { asker.request(peer, "hold", "").await });
    expect(fates, Fate::Started).await;
    asked
}

async fn ended(
    asked: tokio::task::JoinHandle<Result<Bytes, RequestError>>,
) -> Result<Bytes, RequestError> {
    soon("an end", asked).await.unwrap()
}

/// A node that only dials, by this rung.
async fn start_dialler(rung: TransportKind, contact: &PeerNode, role: Role) -> PeerNode {
    let identity = identity(77);
    let transport = GrpcTransport::new(identity.clone(), GrpcOptions::from_config(&config()));
    let transport = transport.unwrap().rung(rung).unwrap();
    let config = config_with(|config| {
        config.listen.address = None;
        config.gossip.role = role;
    });
    let builder = builder().config(config).identity(identity).transport(Arc::new(transport));
    let node = start(builder.bootstrap([address(contact)])).await;
    ready(&node, 1).await;
    ready(contact, 1).await;
    node
}

fn is_built_in(rung: TransportKind) -> bool {
    let transport = GrpcTransport::new(identity(1), GrpcOptions::default()).unwrap();
    !matches!(transport.rung(rung), Err(error) if error.kind == FailureKind::Unsupported)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dialled_and_who_was_dialled_ask_each_other_over_each_rung() {
    for rung in RUNGS.into_iter().filter(|rung| is_built_in(*rung)) {
        let server = start_alone().await;
        // As behind NAT: nobody can dial it, and it carries nothing for others.
        let edge = start_dialler(rung, &server, Role::Edge).await;
        let peers = until_peers(&server, "a link", |peers| !peers.is_empty()).await;
        assert_eq!(peers[0].transport, rung);
        for (asker, peer) in [(&edge, &server), (&server, &edge)] {
            echo(peer);
            for size in [0, 1, 1024, 64 * 1024, 64 * 1024 + 1, 300_000] {
                assert_asks(asker, peer, size).await;
            }
        }
        tokio::join!(stop(&server), stop(&edge));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_told_who_asks_for_what() {
    let (a, b) = linked_pair().await;
    let seen = |request: Request| {
        let told = (request.protocol().to_owned(), request.peer(), request.caller().to_owned());
        let shown = format!("{request:?}");
        async move { Ok(format!("{told:?} {} {shown}", request.within().as_secs() < 30).into()) }
    };
    a.handle_requests("who/is-it.1", seen).unwrap();
    let answer = b.request(a.peer_id(), "who/is-it.1", "secret").await.unwrap();
    let (answer, b) = (String::from_utf8(answer.to_vec()).unwrap(), b.peer_id());
    let told = ("who/is-it.1".to_owned(), Some(b), b.to_string());
    assert!(answer.starts_with(&format!("{told:?} ")), "{answer}");
    assert!(!answer.contains("secret"), "bodies do not get into logs: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_peer_can_answer_is_refused_at_once() {
    let (a, b) = linked_pair().await;
    let stranger = identity(200).peer_id();
    assert_eq!(a.request(stranger, "echo", "").await, Err(RequestError::UnknownPeer));
    assert_eq!(a.request(a.peer_id(), "echo", "").await, Err(RequestError::ToSelf));
    let unserved = |protocol: &str| RequestError::NotServed { protocol: protocol.to_owned() };
    assert_eq!(a.request(b.peer_id(), "echo", "").await, Err(unserved("echo")));
    for name in ["", "two words", "ümlaut", "line\n", &"n".repeat(129)] {
        assert_eq!(a.request(b.peer_id(), name, "").await, Err(RequestError::InvalidProtocol));
        let handled = b.handle_requests(name, async |_| Ok(Bytes::new()));
        assert_eq!(handled, Err(RequestError::InvalidProtocol));
    }
    let longest = "n".repeat(128);
    b.handle_requests(&longest, async |_| Ok("long".into())).unwrap();
    assert_eq!(a.request(b.peer_id(), &longest, "").await.unwrap(), "long");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_has_one_handler_at_a_time() {
    let (a, b) = linked_pair().await;
    let ask = async || a.request(b.peer_id(), "p", "").await;
    for n in ["1", "2"] {
        b.handle_requests("p", async move |_| Ok(n.into())).unwrap();
        let taken = RequestError::ProtocolTaken { protocol: "p".to_owned() };
        assert_eq!(b.handle_requests("p", async |_| Ok(Bytes::new())), Err(taken));
        // What is asked after `handle_requests` has returned is handled.
        assert_eq!(ask().await.unwrap(), n);
        assert!(b.stop_handling("p"));
        assert!(!b.stop_handling("p"));
        assert_eq!(ask().await, Err(RequestError::NotServed { protocol: "p".to_owned() }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_runs_is_answered_after_its_handler_was_taken_away() {
    let (a, b) = linked_pair().await;
    let (started, gate) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let barriers = (Arc::clone(&started), Arc::clone(&gate));
    b.handle_requests("p", move |_| {
        let (started, gate) = barriers.clone();
        async move {
            started.wait().await;
            gate.wait().await;
            Ok("done".into())
        }
    })
    .unwrap();
    let meanwhile = async {
        started.wait().await;
        assert!(b.stop_handling("p"));
        gate.wait().await;
    };
    let (answer, ()) = tokio::join!(a.request(b.peer_id(), "p", ""), meanwhile);
    assert_eq!(answer.unwrap(), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_refuses_or_panics_is_told_and_harms_nothing() {
    let (a, b) = linked_pair().await;
    let refuse = async |request: Request| match &request.body()[..] {
        b"panic" => panic!("as the test wants"),
        body => Err(String::from_utf8(body.to_vec()).unwrap()),
    };
    b.handle_requests("p", refuse).unwrap();
    // One that panics before it has made a future.
    b.handle_requests("at once", |_| -> std::future::Ready<Result<Bytes, String>> {
        panic!("as the test wants")
    })
    .unwrap_err();
    b.handle_requests("at-once", |_| -> std::future::Ready<Result<Bytes, String>> {
        panic!("as the test wants")
    })
    .unwrap();
    let ask = async |protocol, body: &str| {
        a.request(b.peer_id(), protocol, body.to_owned()).await.unwrap_err()
    };
    assert_eq!(ask("p", "no").await, RequestError::Refused { reason: "no".to_owned() });
    assert_eq!(ask("p", "panic").await, RequestError::Failed);
    assert_eq!(ask("at-once", "").await, RequestError::Failed);
    // Cut between characters.
    let RequestError::Refused { reason } = ask("p", &"äö".repeat(100)).await else { panic!() };
    assert_eq!(reason, "äö".repeat(64));
    let RequestError::Refused { reason } = ask("p", &format!("x{}", "ä".repeat(200))).await else {
        panic!()
    };
    assert_eq!(reason, format!("x{}", "ä".repeat(127)));
    echo(&b);
    assert_asks(&a, &b, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded_by_either_end() {
    let large = start_with(|c| c.messages.max_bytes = 8 << 10).await;
    let small = start(
        PeerNode::builder()
            .config(config_with(|c| c.messages.max_bytes = 4 << 10))
            .bootstrap([address(&large)]),
    )
    .await;
    ready(&large, 1).await;
    ready(&small, 1).await;
    echo(&large);
    echo(&small);
    let too_large = |size, limit| Err(RequestError::TooLarge { size, limit });
    // The asker's own maximum, which needs no peer.
    assert_eq!(ask(&large, &small, noise(1, 8193)).await, too_large(8193, 8192));
    // The peer's.
    assert_eq!(ask(&large, &small, noise(1, 4097)).await, too_large(4097, 4096));
    assert_asks(&large, &small, 4096).await;
    // The asker's, of an answer.
    let grow = async |request: Request| Ok(vec![7; request.body().len() + 1].into());
    large.handle_requests("grow", grow).unwrap();
    let answer = small.request(large.peer_id(), "grow", noise(1, 4096)).await;
    assert_eq!(answer, too_large(4097, 4096));
    // What the handler's own node does not send.
    small.handle_requests("grow", grow).unwrap();
    let answer = large.request(small.peer_id(), "grow", noise(1, 4096)).await;
    assert!(
        matches!(answer, Err(RequestError::TooLarge { .. } | RequestError::Failed)),
        "{answer:?}"
    );
    assert_asks(&small, &large, 4096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_16_mib_pass_both_ways_at_once() {
    let change = |c: &mut Config| c.messages.max_bytes = 16 << 20;
    let a = start_with(change).await;
    let b = start(PeerNode::builder().config(config_with(change)).bootstrap([address(&a)])).await;
    ready(&a, 1).await;
    ready(&b, 1).await;
    echo(&a);
    echo(&b);
    tokio::join!(assert_asks(&a, &b, 16 * MIB), assert_asks(&b, &a, 16 * MIB));
    assert_eq!(
        ask(&a, &b, vec![0; 16 * MIB + 1]).await,
        Err(RequestError::TooLarge { size: 16 * MIB as u64 + 1, limit: 16 * MIB as u64 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_are_handled_at_once_and_more_are_refused() {
    const AT_ONCE: usize = 64;
    let a = start_with(|c| c.messages.max_concurrent = 64).await;
    let b = start_beside(&a).await;
    ready(&b, 1).await;
    // Nobody is answered before all are there.
    let (all, gate) = (Arc::new(Barrier::new(AT_ONCE + 1)), Arc::new(Barrier::new(AT_ONCE + 1)));
    let barriers = (Arc::clone(&all), Arc::clone(&gate));
    a.handle_requests("meet", move |request: Request| {
        let (all, gate) = barriers.clone();
        async move {
            all.wait().await;
            gate.wait().await;
            Ok(request.body().clone())
        }
    })
    .unwrap();
    echo(&a);
    let asked = (0..AT_ONCE).map(|n| b.request(a.peer_id(), "meet", n.to_string()));
    let meanwhile = async {
        all.wait().await;
        let refused = b.request(a.peer_id(), "echo", "one more").await;
        gate.wait().await;
        refused
    };
    let (answers, refused) =
        soon("all meet", async { tokio::join!(join_all(asked), meanwhile) }).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), n.to_string());
    }
    assert_eq!(refused, Err(RequestError::Busy));
    assert_asks(&b, &a, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handler_holds_up_nothing() {
    let (a, b) = linked_pair().await;
    let mut fates = hold(&a);
    echo(&a);
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(asked_in_vain(&b, &a, &mut fates).await);
    }
    for n in 0..50 {
        assert_asks(&b, &a, n).await;
    }
    let mut heard = a.subscribe("t", StartAt::Now).await.unwrap();
    let receipt = b.publish("t", "meanwhile").await.unwrap();
    assert_eq!(next(&mut heard).await.transaction.id(), receipt.id());
    assert!(slow.iter().all(|asked| !asked.is_finished()));
    slow.iter().for_each(tokio::task::JoinHandle::abort);
    for _ in slow {
        expect(&mut fates, Fate::Dropped).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_waiting_reaches_the_handler() {
    let (a, b) = linked_pair().await;
    let mut fates = hold(&a);
    // The caller's future is dropped.
    let asked = asked_in_vain(&b, &a, &mut fates).await;
    asked.abort();
    expect(&mut fates, Fate::Dropped).await;
    // The caller's time is over.
    let time = Duration::from_millis(100);
    let answer = soon("an answer", b.request_within(a.peer_id(), "hold", "", time)).await;
    assert_eq!(answer, Err(RequestError::TimedOut { after: time }));
    expect(&mut fates, Fate::Started).await;
    expect(&mut fates, Fate::Dropped).await;
    // The link ends: on either side.
    for ender in [&a, &b] {
        let asked = asked_in_vain(&b, &a, &mut fates).await;
        let other = if ender.peer_id() == a.peer_id() { &b } else { &a };
        ender.disconnect(other.peer_id()).await.unwrap();
        assert_eq!(ended(asked).await, Err(RequestError::LinkLost { sent: true }));
        expect(&mut fates, Fate::Dropped).await;
        ready(&b, 1).await;
        ready(&a, 1).await;
    }
    // The handler's node stops: nothing of the handler is left then.
    let asked = asked_in_vain(&b, &a, &mut fates).await;
    stop(&a).await;
    assert_eq!(fates.try_recv(), Ok(Fate::Dropped));
    assert_eq!(ended(asked).await, Err(RequestError::LinkLost { sent: true }));
    assert_eq!(fates.recv().await, None, "the handler itself is gone too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_answers_all_its_callers() {
    let (a, b) = linked_pair().await;
    let mut fates = hold(&a);
    let asked = asked_in_vain(&b, &a, &mut fates).await;
    let report = stop(&b).await;
    assert!(report.unconfirmed.is_empty());
    assert_eq!(ended(asked).await, Err(RequestError::Closed));
    expect(&mut fates, Fate::Dropped).await;
    assert_eq!(b.request(a.peer_id(), "hold", "").await, Err(RequestError::Closed));
    let handled = b.handle_requests("p", async |_| Ok(Bytes::new()));
    assert_eq!(handled, Err(RequestError::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_holds_a_weak_handle_lets_its_node_end() {
    let (a, b) = linked_pair().await;
    let weak = a.downgrade();
    a.handle_requests("links", move |_| {
        let weak = weak.clone();
        async move {
            let node = weak.upgrade().ok_or("stopping")?;
            let peers = node.peers().await.map_err(|error| error.to_string())?;
            Ok(peers.len().to_string().into())
        }
    })
    .unwrap();
    let answer = b.request(a.peer_id(), "links", "").await.unwrap();
    assert_eq!(answer, "1");
    let (mut events, gone) = (b.events(), a.peer_id());
    drop(a);
    event(&mut events, "a goodbye", |event| match event {
        Event::PeerDown { peer, reason: CloseReason::Shutdown, .. } if *peer == gone => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_requests_are_bounded_in_number() {
    const MOST: usize = 1024;
    let a = start_with(|c| c.messages.max_concurrent = 1024).await;
    let b = start_beside(&a).await;
    ready(&b, 1).await;
    let (told, mut fates) = mpsc::channel(3 * MOST);
    hold_for(&a, told);
    let mut asked = JoinSet::new();
    for _ in 0..MOST {
        let (b, a) = (b.clone(), a.peer_id());
        asked.spawn(async move { b.request(a, "hold", "").await });
    }
    for _ in 0..MOST {
        expect(&mut fates, Fate::Started).await;
    }
    assert_eq!(b.request(a.peer_id(), "hold", "").await, Err(RequestError::Busy));
    // All at once, more than the way to the node's driver has room for.
    drop(asked);
    for _ in 0..MOST {
        expect(&mut fates, Fate::Dropped).await;
    }
    echo(&a);
    assert_asks(&b, &a, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_dialled_is_told_at_once() {
    let server = start_alone().await;
    let edge = start_dialler(TransportKind::GrpcStream, &server, Role::Edge).await;
    let edge_id = edge.peer_id();
    stop(&edge).await;
    until_peers(&server, "the link ends", <[_]>::is_empty).await;
    let answer = server.request(edge_id, "echo", "").await;
    assert!(matches!(answer, Err(RequestError::NoWay { .. })), "{answer:?}");
}

/// A node with few links that knows more peers than it is linked with.
fn frugal(contact: &PeerNode) -> PeerNodeBuilder {
    let config = config_with(|config| {
        config.overlay.dial_target = 1;
        config.overlay.min_links = 1;
    });
    PeerNode::builder().config(config).bootstrap([address(contact)])
}

fn linked_with(peers: &[sorcha_peer::types::LinkStatus], peer: PeerId) -> bool {
    peers.iter().any(|link| link.peer == peer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_peer_without_a_link_is_dialled() {
    let hub = start_alone().await;
    let far = start(frugal(&hub)).await;
    ready(&far, 1).await;
    let near = start(frugal(&hub)).await;
    ready(&near, 1).await;
    until(&near, "it hears of the other", |stats| stats.known_peers >= 2).await;
    assert!(!linked_with(&near.peers().await.unwrap(), far.peer_id()));
    echo(&far);
    assert_asks(&near, &far, 100_000).await;
    // Gone, and still known.
    let far_id = far.peer_id();
    stop(&far).await;
    until_peers(&near, "the link ends", |peers| !linked_with(peers, far_id)).await;
    let answer = soon("an answer", near.request(far_id, "echo", "")).await;
    assert!(matches!(answer, Err(RequestError::NoWay { .. })), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_ask_each_other_at_once_and_handlers_ask_back() {
    let (a, b) = linked_pair().await;
    for node in [&a, &b] {
        echo(node);
        let weak = node.downgrade();
        node.handle_requests("back", move |request: Request| {
            let weak = weak.clone();
            async move {
                let node = weak.upgrade().ok_or("stopping")?;
                let (peer, body) = (request.peer().ok_or("a peer")?, request.body().clone());
                node.request(peer, "echo", body).await.map_err(|error| error.to_string())
            }
        })
        .unwrap();
    }
    let ask = |asker: &PeerNode, peer: PeerId, n: u64| {
        let (asker, size) = (asker.clone(), usize::try_from(n).unwrap() * 9000);
        async move {
            let body = noise(n, size);
            assert!(asker.request(peer, "back", body.clone()).await.unwrap() == body);
        }
    };
    let (to_b, to_a) = (b.peer_id(), a.peer_id());
    let both = (0..16).flat_map(|n| [ask(&a, to_b, n), ask(&b, to_a, n)]);
    soon("all answers", join_all(both)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_in_the_middle_of_a_body_is_told() {
    const PASSES: u64 = 3 << 20;
    let change = |c: &mut Config| c.messages.max_bytes = 16 << 20;
    let server = start_with(change).await;
    echo(&server);
    // Passes a part of the body on, and then ends every connection.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (way, target) = (listener.local_addr().unwrap(), server.listen_addr().unwrap());
    let mut path = JoinSet::new();
    path.spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(target).await.unwrap();
            let ((from, mut to), (mut back, mut on)) = (client.split(), server.split());
            let mut from = from.take(PASSES);
            tokio::select! {
                _ = copy(&mut from, &mut on) => {}
                _ = copy(&mut back, &mut to) => {}
            }
            let _ = (client.shutdown().await, server.shutdown().await);
        }
    });
    let config = config_with(|config| {
        change(config);
        config.listen.address = None;
    });
    let client = start(PeerNode::builder().config(config).bootstrap([way.to_string()])).await;
    ready(&client, 1).await;
    let answer = ask(&client, &server, noise(1, 16 * MIB)).await;
    assert_eq!(answer, Err(RequestError::LinkLost { sent: true }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_an_older_version_serves_nothing_and_is_left_in_peace() {
    let node = start_alone().await;
    let old = identity(9);
    let mut greeting = hello(&old);
    greeting.features = Features(0);
    let mut peer = RawPeer::join_as(old, &node, greeting).await;
    ready(&node, 1).await;
    let answer = soon("an answer", node.request(peer.id(), "echo", "")).await;
    assert_eq!(answer, Err(RequestError::NotServed { protocol: "echo".to_owned() }));
    stop(&node).await;
    while let Some(message) = peer.next().await {
        assert!(!matches!(message, Message::Request { .. }), "it does not know that message");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_leave_nothing_behind() {
    let (a, b) = linked_pair().await;
    echo(&a);
    let before = stats(&b).await.memory;
    let mut answered = BTreeSet::new();
    for round in 0..20_u64 {
        let asked = (0..16).map(|n| ask(&b, &a, noise(round * 16 + n, 70_000)));
        for answer in join_all(asked).await {
            answered.insert(answer.unwrap());
        }
        // Given up at whatever point.
        let _ = b.request(a.peer_id(), "echo", noise(round, 900_000)).now_or_never();
    }
    assert_eq!(answered.len(), 320);
    for node in [&a, &b] {
        let ended = |stats: &sorcha_peer::Stats| stats.memory["requests"] == 0;
        until(node, "no body is held", ended).await;
    }
    assert_eq!(stats(&b).await.memory.len(), before.len());
}
