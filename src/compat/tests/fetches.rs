//! Clients that register, notify, and are asked back on real sockets.

use std::sync::atomic::Ordering;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::old_peer::OldPeer;
use super::*;
use crate::compat::{Backend, Refusal};
use crate::types::TransactionId;
use crate::wire::generated::transaction::{NotificationAck, TransactionNotification};

fn hex(payload: &[u8]) -> String {
    TransactionId::from_bytes(Sha256::digest(payload).into()).to_string()
}

async fn register(world: &World, peer: &OldPeer) {
    let visitor = visitor("127.0.0.1");
    let answer = world.ops.register_peer(&visitor, peer.registration()).await.unwrap();
    assert!(answer.success, "{answer:?}");
    let listed = || world.ops.0.registry().answering(&peer.id).is_some();
    until("it is pinged back", listed).await;
}

async fn notify(world: &World, peer: &OldPeer, hash: &str, size: i64) -> NotificationAck {
    notify_from("127.0.0.1", world, peer, hash, size).await
}

async fn notify_from(
    address: &str,
    world: &World,
    peer: &OldPeer,
    hash: &str,
    size: i64,
) -> NotificationAck {
    let notification = TransactionNotification {
        transaction_hash: hash.to_owned(),
        sender_peer_id: peer.id.clone(),
        timestamp: -1,
        transaction_size: size,
        register_id: "orders".to_owned(),
    };
    world.ops.notify(&visitor(address), notification).await.unwrap()
}

async fn arrived(world: &World, hash: &str) -> Bytes {
    until("it is fetched", || world.ops.0.fetches.len() == 0).await;
    let found = world.ops.find(hash, Some("orders")).await.unwrap();
    found.expect("it was published").payload
}

#[tokio::test]
async fn what_a_registered_client_tells_of_is_fetched_and_published_once() {
    let world = World::new(settings()).built().await;
    let peer = OldPeer::start("python-1").await;
    register(&world, &peer).await;
    let payload = Bytes::from_static(b"one widget");
    let hash = hex(&payload);
    peer.state().payloads.insert(hash.clone(), payload.clone());
    for _ in 0..10 {
        let answer = notify(&world, &peer, &hash, 10).await;
        assert!(answer.already_known != answer.will_request);
    }
    assert_eq!(arrived(&world, &hash).await, payload);
    let again = notify(&world, &peer, &hash, 10).await;
    assert_eq!(again, NotificationAck { already_known: true, will_request: false });
    assert_eq!(peer.state().asked[&hash], (1, 0));
    let upper = hash.to_uppercase();
    assert_eq!(world.ops.find(&upper, None).await.unwrap().unwrap().payload, payload);
    assert!(world.ops.find(&hash, Some("other")).await.unwrap().is_none());
    // It has it itself, and is told of nothing but the next.
    world.node.publish("orders", Bytes::from_static(b"another")).await.unwrap();
    until("it is told", || !peer.state().told.is_empty()).await;
    assert_eq!(peer.state().told[0].transaction_hash, hex(b"another"));
}

#[tokio::test]
async fn who_tells_of_much_in_the_name_of_another_has_its_own_share() {
    let world = World::new(settings()).built().await;
    let peer = OldPeer::start("python-1").await;
    register(&world, &peer).await;
    let mut promised = 0;
    for n in 0..70 {
        let hash = hex(format!("nobody has it: {n}").as_bytes());
        promised += u32::from(notify_from("192.0.2.1", &world, &peer, &hash, 1).await.will_request);
    }
    assert_eq!(promised, 64);
    let payload = Bytes::from_static(b"one widget");
    let hash = hex(&payload);
    peer.state().payloads.insert(hash.clone(), payload);
    assert!(notify(&world, &peer, &hash, 10).await.will_request);
    until("it is fetched", || peer.state().asked.contains_key(&hash)).await;
}

#[tokio::test]
async fn a_large_one_comes_in_pieces_and_one_of_no_size_whole() {
    let world = World::new(settings()).built().await;
    let peer = OldPeer::start("python-1").await;
    register(&world, &peer).await;
    let large = Bytes::from(vec![7; (1 << 20) + 1]);
    let name = BASE64_STANDARD.encode(Sha256::digest(&large));
    peer.state().payloads.insert(name.clone(), large.clone());
    notify(&world, &peer, &name, large.len() as i64).await;
    assert_eq!(arrived(&world, &name).await, large);
    assert_eq!(peer.state().asked[&name], (0, 1));
    let empty = Bytes::new();
    let name = hex(&empty);
    peer.state().payloads.insert(name.clone(), empty.clone());
    notify(&world, &peer, &name, 0).await;
    assert_eq!(arrived(&world, &name).await, empty);
    assert_eq!(peer.state().asked[&name], (1, 0));
}

#[tokio::test]
async fn a_fetch_is_tried_again_and_what_is_wrong_is_not_taken() {
    let world = World::new(settings()).built().await;
    let peer = OldPeer::start("python-1").await;
    register(&world, &peer).await;
    let payload = Bytes::from_static(b"one widget");
    let hash = hex(&payload);
    peer.state().failures = 2;
    peer.state().payloads.insert(hash.clone(), payload.clone());
    notify(&world, &peer, &hash, 10).await;
    assert_eq!(arrived(&world, &hash).await, payload);
    assert_eq!(peer.state().asked[&hash], (3, 0));

    for (size, said) in [(11, "another size"), (10, "another payload")] {
        let hash = hex(said.as_bytes());
        let other = Bytes::from_static(b"ten bytes.");
        peer.state().payloads.insert(hash.clone(), other);
        assert!(notify(&world, &peer, &hash, size).await.will_request);
        until("it is given up", || world.ops.0.fetches.len() == 0).await;
        assert!(world.ops.find(&hash, None).await.unwrap().is_none());
        assert_eq!(peer.state().asked[&hash], (1, 0), "whoever lies is not asked again");
    }
    let counters = world.ops.0.counters.lock().unwrap().clone();
    let figures = (counters.compat_fetched_wrong, counters.compat_fetches_failed);
    assert_eq!((figures, counters.compat_published), ((2, 2), 1));
}

#[tokio::test]
async fn who_is_not_registered_or_does_not_have_it_is_promised_nothing_or_in_vain() {
    let world = World::new(settings()).built().await;
    let peer = OldPeer::start("python-1").await;
    let hash = hex(b"nobody has it");
    let nothing = NotificationAck { already_known: false, will_request: false };
    assert_eq!(notify(&world, &peer, &hash, 1).await, nothing);
    register(&world, &peer).await;
    assert_eq!(notify(&world, &peer, &hash, MAX_SIZE as i64 + 1).await, nothing);
    assert_eq!(notify(&world, &peer, &hash, i64::MAX).await, nothing);
    assert!(notify(&world, &peer, &hash, 1).await.will_request);
    until("it is given up", || world.ops.0.fetches.len() == 0).await;
    assert_eq!(peer.state().asked[&hash], (5, 0));
}

#[tokio::test]
async fn registered_clients_are_told_of_what_is_new() {
    let world = World::new(settings());
    let old = world.node.publish("orders", Bytes::from_static(b"history")).await.unwrap();
    let world = world.built().await;
    let peer = OldPeer::start("python-1").await;
    register(&world, &peer).await;
    for n in 0..20u8 {
        world.node.publish("orders", Bytes::from(vec![n; 3])).await.unwrap();
    }
    until("it is told", || peer.state().told.len() == 20).await;
    let told = peer.state().told.clone();
    assert_eq!(told[0].transaction_hash, hex(&[0; 3]));
    let me = world.node.peer_id().to_string();
    assert_eq!((told[0].sender_peer_id.as_str(), told[0].register_id.as_str()), (&*me, "orders"));
    assert_eq!((told[0].transaction_size, told[0].timestamp), (3, 1_700_000_000));
    assert!(told.iter().all(|told| told.transaction_hash != old.to_string()));
}

#[tokio::test]
async fn until_the_index_is_built_nobody_is_told_that_something_is_not_here() {
    let world = World::new(settings());
    world.node.is_broken.store(true, Ordering::Relaxed);
    let refused = world.ops.find(&hex(b"x"), None).await;
    assert!(matches!(refused, Err(Refusal::Unavailable(_))), "{refused:?}");
    let world = World::new(settings());
    let id = world.node.put("t", Bytes::from_static(b"x")).await.unwrap();
    // The runtime has one thread, and the index has had no turn since.
    assert_eq!(world.ops.find(&id.to_string(), None).await.unwrap().unwrap().id, id);

    let world = world.built().await;
    assert_eq!(world.ops.find(&hex(b"x"), None).await.unwrap().unwrap().id, id);
    assert!(world.ops.find(&hex(b"y"), None).await.unwrap().is_none());
}

#[tokio::test]
async fn a_node_that_registers_itself_is_dropped() {
    let world = World::new(settings()).built().await;
    let me = world.node.peer_id().to_string();
    let peer = OldPeer::start(&me).await;
    let mut registration = peer.registration();
    registration.peer_info.as_mut().unwrap().peer_id = "somebody".to_owned();
    let answer = world.ops.register_peer(&visitor("127.0.0.1"), registration).await.unwrap();
    assert!(answer.success);
    until("it is dropped", || !world.ops.0.registry().contains("somebody")).await;
    assert_eq!(world.ops.0.registry().listed(), 0);
}
