//! Who may join, over real sockets: members of a network with a secret, and strangers at its door.
//!
//! Level of these strangers: nodes, and frames by hand, over TLS. Others: `src/protocol/tests/members.rs`
//! (one core), `tests/transport/ca.rs` (certificates), `tests/process/members.rs` (programs).

use sorcha_peer::config::Trust;
use sorcha_peer::error::{
    ConfigError, ConnectError, FailureKind, IdentityError, ReadyError, StartError,
};
use sorcha_peer::ports::{Accepted, Transport};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport, MemoryNetwork};
use sorcha_peer::types::CloseReason;
use sorcha_peer::types::unstable::Message;
use sorcha_peer::{Event, Invite, NetworkSecret, PeerNode, PeerNodeBuilder, StartAt};

use crate::common::raw::{RawPeer, hello};
use crate::common::{
    address, assert_spreads, builder, counters, event, identity, link_refusal, ready, soon, start,
    stats, stop, until,
};

fn secret() -> NetworkSecret {
    NetworkSecret::generate().unwrap()
}

fn member(secret: &NetworkSecret) -> PeerNodeBuilder {
    builder().secret(secret.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_share_everything_and_a_stranger_gets_nothing() {
    let secret = secret();
    let first = start(member(&secret)).await;
    let others = [(); 2].map(|()| start(member(&secret).bootstrap([address(&first)])));
    let [second, third] = futures::future::join_all(others).await.try_into().unwrap();
    for node in [&first, &second, &third] {
        ready(node, 2).await;
    }
    assert_spreads(&second, &third).await;

    let (mut at_the_door, others) = (first.events(), secret_less(&first).await);
    let (stranger, mut seen) = others;
    let mut orders = stranger.subscribe_all(StartAt::Earliest).await.unwrap();
    first.publish("orders", "one widget").await.unwrap();
    // Both sides say why.
    assert_eq!(link_refusal(&mut seen, CloseReason::NotMember).await, first.peer_id());
    assert_eq!(link_refusal(&mut at_the_door, CloseReason::NotMember).await, stranger.peer_id());
    let error = stranger.connect(&address(&second)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(CloseReason::NotMember)), "{error}");

    let figures = stats(&stranger).await;
    assert_eq!((figures.links, figures.known_peers, figures.retained), (0, 0, 0));
    assert_eq!(figures.counters.records_received, 0);
    assert!(counters(&first).await.links_refused_not_member > 0);
    stop(&stranger).await;
    assert!(orders.next().await.is_none(), "nothing was delivered to it");
    assert_spreads(&third, &first).await;
}

/// A node that knows the address of another, and no secret.
async fn secret_less(contact: &PeerNode) -> (PeerNode, sorcha_peer::Events) {
    let node = start(builder()).await;
    let events = node.events();
    let dial = node.connect(&address(contact)).await.unwrap_err();
    assert!(matches!(dial, ConnectError::Refused(CloseReason::NotMember)), "{dial}");
    (node, events)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_hears_one_word() {
    let node = start(member(&secret())).await;
    let mut peer = RawPeer::dial(identity(9), &node).await;
    let greeting = hello(&peer.identity);
    peer.send(&[Message::Hello(Box::new(greeting))]).await;
    let first = peer.next().await;
    let goodbye = matches!(first, Some(Message::Goodbye { reason: CloseReason::NotMember, .. }));
    assert!(goodbye, "{first:?}");
    assert!(peer.next().await.is_none());
}

/// A stranger is dialled by one member and shows what it heard there to another.
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_of_no_use_on_another_connection() {
    let secret = secret();
    let thief = identity(9);
    let transport = GrpcTransport::new(thief.clone(), GrpcOptions::default()).unwrap();
    let mut trap = transport.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let trap_address = trap.local_addr().to_string();
    let victim = start(member(&secret).bootstrap([trap_address])).await;
    let Accepted::Link(link) = soon("a link", trap.accept()).await else { panic!("no link") };
    let mut caught = RawPeer::on(thief.clone(), link);
    let Some(Message::Hello(theirs)) = caught.next().await else { panic!("no hello") };
    assert_eq!(theirs.proofs.len(), 1);

    let other = start(member(&secret)).await;
    for target in [&other, &victim] {
        let mut peer = RawPeer::dial(thief.clone(), target).await;
        let mut greeting = hello(&thief);
        greeting.proofs = theirs.proofs.clone();
        peer.send(&[Message::Hello(Box::new(greeting))]).await;
        assert_eq!(peer.goodbye().await, Some(CloseReason::NotMember));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wrong_secrets_are_refused_before_the_handshake() {
    let node = start(member(&secret())).await;
    for _ in 0..40 {
        let Ok(mut peer) = RawPeer::try_dial(identity(9), &node).await else { break };
        let greeting = hello(&peer.identity);
        peer.send(&[Message::Hello(Box::new(greeting))]).await;
        assert_eq!(peer.goodbye().await, Some(CloseReason::NotMember));
    }
    let shunned = RawPeer::try_dial(identity(8), &node).await;
    assert!(shunned.is_err(), "the host is left alone");
    let figures = until(&node, "it is shed before TLS", |s| s.counters.handshakes_shed > 0).await;
    assert_eq!(figures.counters.addresses_shunned, 1);
    assert!(figures.counters.links_refused_not_member <= 33);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_moves_to_a_new_secret_without_a_pause() {
    let (old, new) = (secret(), secret());
    let last = start(member(&old)).await;
    let between = start(member(&new).secret(old).bootstrap([address(&last)])).await;
    let next = start(member(&new).bootstrap([address(&between)])).await;
    ready(&between, 2).await;
    assert_spreads(&last, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_is_all_that_a_newcomer_needs() {
    let first = start(member(&secret()).network("shop")).await;
    let text = first.invite().await.unwrap().to_string();
    let invite: Invite = text.parse().unwrap();
    assert_eq!((invite.network(), invite.has_secret()), ("shop", true));
    let second = start(builder().join(&invite)).await;
    ready(&second, 1).await;
    // And whom it invites in turn.
    let third = start(builder().join(&second.invite().await.unwrap())).await;
    ready(&third, 2).await;
    assert_spreads(&first, &third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_at_an_invites_address_is_told_nothing() {
    let secret = secret();
    let first = start(member(&secret)).await;
    let invite = first.invite().await.unwrap();
    let place = address(&first);
    stop(&first).await;
    drop(first);
    let impostor = start(member(&secret).listen(&place)).await;
    let newcomer = start(builder().join(&invite)).await;
    let mut events = newcomer.events();
    let reason = event(&mut events, "the dial fails", |event| match event {
        Event::DialFailed { address, reason, .. } if *address == place => Some(*reason),
        _ => None,
    })
    .await;
    assert_eq!(reason, FailureKind::Identity);
    let error = newcomer.connect(&place).await.unwrap_err();
    assert!(matches!(error, ConnectError::Dial { kind: FailureKind::Identity, .. }), "{error}");
    assert_eq!(stats(&impostor).await.links, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_nobody_can_dial_does_not_invite() {
    let node = start(builder().dial_only()).await;
    assert_eq!(node.invite().await.unwrap_err(), ReadyError::NoAddress);
    stop(&node).await;
    assert_eq!(node.invite().await.unwrap_err(), ReadyError::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_has_what_is_advertised_in_that_order() {
    let advertised = ["10.0.0.1:7", "peer0.example.com:8"];
    let node = advertised.iter().fold(builder(), |node, address| node.advertise(address));
    let node = start(node).await;
    let invite = node.invite().await.unwrap();
    let named: Vec<_> = invite.contacts().map(|(address, _)| address.to_string()).collect();
    assert_eq!((named, invite.has_secret()), (advertised.map(str::to_owned).to_vec(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_from_every_address_has_one_that_leads_here() {
    let node = start(member(&secret()).listen("0.0.0.0:0")).await;
    let invite = node.invite().await.unwrap();
    assert!(invite.contacts().all(|(_, peer)| peer == Some(node.peer_id())));
    let newcomer = start(builder().join(&invite)).await;
    ready(&newcomer, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_comes_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("network.secret");
    secret().save(&path).unwrap();
    let first = start(builder().secret_file(&path)).await;
    let second = start(builder().secret_file(&path).bootstrap([address(&first)])).await;
    ready(&second, 1).await;
    let missing = builder().secret_file(dir.path().join("none")).start().await;
    let error = missing.unwrap_err();
    assert!(matches!(error, StartError::Identity(IdentityError::SecretFile { .. })), "{error}");
    let many = member(&secret()).secret(secret()).secret(secret()).start().await;
    let error = many.unwrap_err();
    assert!(matches!(error, StartError::Config(ConfigError::OutOfRange { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_inside_a_process_can_prove_a_secret_and_no_certificate() {
    let network = MemoryNetwork::new();
    let node = |seed: u8, trust: Trust| {
        let transport = network.transport(identity(seed).peer_id());
        let port = 7000 + u16::from(seed);
        let node = builder().identity(identity(seed)).transport(std::sync::Arc::new(transport));
        start(node.trust(trust).listen(&format!("127.0.0.1:{port}")))
    };
    let secret = Trust::secret(secret());
    let (a, b) = (node(1, secret.clone()).await, node(2, secret).await);
    assert_eq!(b.connect("127.0.0.1:7001").await.unwrap(), a.peer_id());
    let ca = Trust::Ca { ca_file: "ca.pem".into(), certificate_file: "node.pem".into() };
    let (c, d) = (node(3, ca.clone()).await, node(4, ca).await);
    let error = d.connect("127.0.0.1:7003").await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(CloseReason::NotMember)), "{error}");
    assert_eq!(stats(&c).await.links, 0);
}
