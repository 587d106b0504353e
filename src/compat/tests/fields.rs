//! Every field of every message: missing, empty, huge, negative, odd.

use bytes::Bytes;
use prost::Message;

use super::node::{FakeNode, NOW};
use super::*;
use crate::compat::ops::discovery::{
    ID_IN_USE, INVALID_ADDRESS, INVALID_ID, INVALID_PORT, INVALID_PROTOCOLS, LIST_FULL, REGISTERED,
};
use crate::compat::{Backend, Refusal};
use crate::types::TransactionId;
use crate::wire::generated::communication::PeerMessage;
use crate::wire::generated::discovery::{
    PeerExchangeRequest, PeerInfo, PeerListRequest, PeerRegisterAdvertisement, PeerStatus,
    PingRequest, RegisterPeerRequest,
};
use crate::wire::generated::transaction::{
    TransactionNotification, TransactionRequest, TransactionResponse,
};

const SECONDS: i64 = 1_700_000_000;

/// Ids that no client may have.
fn bad_ids() -> [String; 7] {
    let own = Identity::from_seed([1; 32]).peer_id().to_string();
    let [control, long] = ["a\nb".to_owned(), "é".repeat(65)];
    let huge = "x".repeat(1 << 20);
    let (peer, unknown) = (FakeNode::peer().to_string().to_uppercase(), "0".repeat(64));
    [String::new(), control, long, huge, own, peer, unknown]
}

fn info() -> PeerInfo {
    PeerInfo {
        peer_id: "python-1".to_owned(),
        address: "127.0.0.1".to_owned(),
        port: 9,
        ..PeerInfo::default()
    }
}

async fn said(world: &World, from: &str, info: PeerInfo) -> String {
    let request = RegisterPeerRequest { peer_info: Some(info) };
    let answer = world.ops.register_peer(&visitor(from), request).await.unwrap();
    assert_eq!(answer.success, answer.message == REGISTERED);
    answer.message
}

fn is_invalid<T: std::fmt::Debug>(result: Result<T, Refusal>) {
    let Err(Refusal::Invalid(text)) = result else { panic!("{result:?}") };
    assert!(text.is_ascii() && text.len() <= 256, "{text}");
}

#[tokio::test]
async fn registrations() {
    let world = World::new(settings());
    let missing = RegisterPeerRequest { peer_info: None };
    is_invalid(world.ops.register_peer(&visitor("127.0.0.1"), missing).await);
    for peer_id in bad_ids() {
        assert_eq!(said(&world, "127.0.0.1", PeerInfo { peer_id, ..info() }).await, INVALID_ID);
    }
    let long = "x".repeat(300);
    let bad_addresses = [
        "",
        " ",
        "http://127.0.0.1",
        "127.0.0.1:80",
        "::1]",
        "[::1",
        "[127.0.0.1]",
        "300.1.1.1",
        "a b",
        "a\0b",
        "-a.example",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "169.254.1.1",
        &long,
    ];
    for address in bad_addresses {
        let info = PeerInfo { address: address.to_owned(), ..info() };
        assert_eq!(said(&world, "127.0.0.1", info).await, INVALID_ADDRESS, "{address:?}");
    }
    for port in [0, -1, 65_536, i32::MAX, i32::MIN] {
        assert_eq!(said(&world, "127.0.0.1", PeerInfo { port, ..info() }).await, INVALID_PORT);
    }
    let name = "é".repeat(65);
    for supported_protocols in [vec![String::new(); 65], vec![name], vec!["a\tb".to_owned()]] {
        let info = PeerInfo { supported_protocols, ..info() };
        assert_eq!(said(&world, "127.0.0.1", info).await, INVALID_PROTOCOLS);
    }
    for registers in [
        vec![PeerRegisterAdvertisement::default(); 65],
        vec![PeerRegisterAdvertisement { register_id: "r".repeat(256), ..Default::default() }],
    ] {
        let info = PeerInfo { advertised_registers: registers, ..info() };
        assert_eq!(said(&world, "127.0.0.1", info).await, INVALID_PROTOCOLS);
    }
    let own = FakeNode::own_address();
    let own = PeerInfo { address: "203.0.113.1".to_owned(), port: own.port().into(), ..info() };
    assert_eq!(said(&world, "127.0.0.1", own).await, INVALID_ADDRESS);
    let odd = PeerInfo { last_seen: i64::MIN, is_seed_node: true, ..info() };
    assert_eq!(said(&world, "127.0.0.1", odd).await, REGISTERED, "what means nothing is ignored");
    assert_eq!(world.ops.0.registry().listed(), 0, "nobody answers there");
}

#[tokio::test]
async fn nobody_names_an_address_that_is_nearer_to_the_node_than_to_them() {
    let world = World::new(settings());
    let cases = [
        ("127.0.0.1", "127.0.0.1", true),
        ("10.0.0.1", "localhost", false),
        ("10.0.0.1", "10.0.0.2", true),
        ("10.0.0.1", "127.0.0.1", false),
        ("203.0.113.9", "10.0.0.2", false),
        ("203.0.113.9", "[::ffff:10.0.0.2]", false),
        ("203.0.113.9", "203.0.113.8", true),
        ("203.0.113.9", "peer.example.com", true),
    ];
    for (n, (from, address, fits)) in cases.into_iter().enumerate() {
        let info = PeerInfo { peer_id: n.to_string(), address: address.to_owned(), ..info() };
        let wanted = if fits { REGISTERED } else { INVALID_ADDRESS };
        assert_eq!(said(&world, from, info).await, wanted, "{from} names {address}");
    }
    let proxied = Visitor { is_proxied: true, ..visitor("127.0.0.1") };
    let request = RegisterPeerRequest { peer_info: Some(info()) };
    let answer = world.ops.register_peer(&proxied, request).await.unwrap();
    assert_eq!(answer.message, INVALID_ADDRESS, "a proxy hides who calls");
}

#[tokio::test]
async fn a_list_is_full_and_an_id_is_its_owner_s() {
    let world = World::new(settings());
    let peer = old_peer::OldPeer::start("taken").await;
    assert_eq!(said(&world, "127.0.0.1", peer.info()).await, REGISTERED);
    until("it is pinged", || world.ops.0.registry().listed() == 1).await;
    let other = PeerInfo { peer_id: "taken".to_owned(), ..info() };
    assert_eq!(said(&world, "127.0.0.2", other).await, ID_IN_USE);
    for n in 0..9 {
        let info = PeerInfo { peer_id: format!("client {n}"), ..info() };
        assert_eq!(said(&world, "127.0.0.1", info).await, REGISTERED);
    }
    assert_eq!(said(&world, "127.0.0.1", info()).await, LIST_FULL);
    assert_eq!(said(&world, "127.0.0.1", peer.info()).await, REGISTERED, "again");
}

#[tokio::test]
async fn lists() {
    let world = World::new(settings());
    let peer = old_peer::OldPeer::start("python-1").await;
    said(&world, "127.0.0.1", peer.info()).await;
    until("it is pinged", || world.ops.0.registry().listed() == 1).await;
    let list = async |id: &str, max_peers| {
        let request = PeerListRequest { requesting_peer_id: id.to_owned(), max_peers };
        let answer = world.ops.peer_list(&visitor("127.0.0.1"), request).await.unwrap();
        let ids: Vec<_> = answer.peers.iter().map(|peer| peer.peer_id.clone()).collect();
        (ids, answer.total_peers, answer.peers)
    };
    let native = FakeNode::peer().to_string();
    for max in [0, -1, i32::MIN, 2, i32::MAX] {
        let (ids, total, _) = list("", max).await;
        assert_eq!((ids, total), (vec![native.clone(), "python-1".to_owned()], 2));
    }
    let (ids, total, _) = list("", 1).await;
    assert_eq!((ids, total), (vec![native.clone()], 2));
    let (ids, total, peers) = list("python-1", 10).await;
    assert_eq!((ids, total), (vec![native.clone()], 1));
    assert_eq!((peers[0].address.as_str(), peers[0].port), ("2001:db8::7", 5001));
    assert_eq!((peers[0].last_seen, peers[0].is_seed_node), (SECONDS, true));
    assert_eq!(peers[0].supported_protocols, ["GrpcStream", "Grpc", "Rest"]);
    assert_eq!(list(&native, 10).await.0, ["python-1"]);
    for id in ["a\nb".to_owned(), "x".repeat(65)] {
        let request = PeerListRequest { requesting_peer_id: id, max_peers: 1 };
        is_invalid(world.ops.peer_list(&visitor("127.0.0.1"), request).await);
    }
}

#[tokio::test]
async fn pings() {
    let world = World::new(settings());
    for id in ["", "who knows", &"é".repeat(64)] {
        let request = PingRequest { peer_id: id.to_owned() };
        let answer = world.ops.ping(&visitor("127.0.0.1"), request).await.unwrap();
        assert_eq!(answer.peer_id, world.node.peer_id().to_string());
        assert_eq!((answer.timestamp, answer.status()), (SECONDS, PeerStatus::Online));
    }
    for id in ["a\u{7f}b".to_owned(), "x".repeat(65)] {
        is_invalid(world.ops.ping(&visitor("127.0.0.1"), PingRequest { peer_id: id }).await);
    }
}

#[tokio::test]
async fn exchanges() {
    let world = World::new(settings());
    let peer = old_peer::OldPeer::start("python-2").await;
    let exchange = async |peer_id: &str, known_peers, max_peers| {
        let request = PeerExchangeRequest { peer_id: peer_id.to_owned(), known_peers, max_peers };
        world.ops.exchange_peers(&visitor("127.0.0.1"), request).await
    };
    let answer = exchange("", Vec::new(), 1).await.unwrap();
    assert_eq!((answer.success, answer.message.as_str()), (false, INVALID_ID));
    is_invalid(exchange("a", vec![info(); 1001], 1).await);
    let odd = PeerInfo { port: -1, ..info() };
    let known = vec![PeerInfo::default(), odd, PeerInfo { peer_id: "a".to_owned(), ..info() }];
    let answer = exchange("a", known, i32::MIN).await.unwrap();
    assert!(answer.success && answer.known_peers.len() == 1);
    assert!(!world.ops.0.registry().contains("a"), "nobody registers so");
    exchange("a", vec![peer.info()], 1).await.unwrap();
    until("what was named is pinged", || world.ops.0.registry().listed() == 1).await;
    assert_eq!(exchange("a", Vec::new(), 10).await.unwrap().known_peers.len(), 2);
}

fn notification() -> TransactionNotification {
    TransactionNotification {
        transaction_hash: "ab".repeat(32),
        sender_peer_id: "python-1".to_owned(),
        timestamp: SECONDS,
        transaction_size: 1,
        register_id: String::new(),
    }
}

#[tokio::test]
async fn notifications() {
    let world = World::new(settings()).built().await;
    let notify = async |notification| world.ops.notify(&visitor("127.0.0.1"), notification).await;
    for transaction_hash in ["", "ab", &"g".repeat(64), &"x".repeat(1 << 20), "é"] {
        let transaction_hash = transaction_hash.to_owned();
        is_invalid(notify(TransactionNotification { transaction_hash, ..notification() }).await);
    }
    for sender_peer_id in [String::new(), "a\0".to_owned(), "x".repeat(65)] {
        is_invalid(notify(TransactionNotification { sender_peer_id, ..notification() }).await);
    }
    for transaction_size in [-1, i64::MIN] {
        is_invalid(notify(TransactionNotification { transaction_size, ..notification() }).await);
    }
    let register_id = "r".repeat(256);
    is_invalid(notify(TransactionNotification { register_id, ..notification() }).await);
    for timestamp in [0, -1, i64::MIN, i64::MAX, 1_700_000_000_000] {
        let answer = notify(TransactionNotification { timestamp, ..notification() }).await.unwrap();
        assert!(!answer.already_known && !answer.will_request);
    }
    let id = world.node.publish("t", Bytes::from_static(b"x")).await.unwrap();
    let known = TransactionNotification { transaction_hash: id.to_string(), ..notification() };
    assert!(notify(known).await.unwrap().already_known);
}

#[tokio::test]
async fn lookups_and_publishes() {
    let world = World::new(settings()).built().await;
    let visitor = visitor("127.0.0.1");
    let publish = async |topic: &str, payload: Vec<u8>| {
        world.ops.publish(&visitor, topic, payload.into()).await
    };
    is_invalid(publish(&"t".repeat(256), Vec::new()).await);
    let limit = MAX_SIZE;
    let refused = publish("t", vec![0; MAX_SIZE as usize + 1]).await;
    assert_eq!(refused, Err(Refusal::TooLarge { size: MAX_SIZE + 1, limit }));
    let empty = publish("", Vec::new()).await.unwrap();
    let found = world.ops.find(&empty.to_string(), None).await.unwrap().unwrap();
    assert_eq!((found.id, found.payload.len()), (empty, 0));
    assert!((NOW.as_millis()..NOW.as_millis() + 9).contains(&found.created.as_millis()));
    let second = publish("t", Vec::new()).await.unwrap();
    let sha = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";
    let by = async |topic| world.ops.find(sha, topic).await.unwrap().map(|found| found.id);
    until("both are in the index", || world.ops.0.hashes().len() == 2).await;
    assert_eq!(by(Some("default")).await, Some(empty), "of the same bytes, that of the topic");
    assert_eq!((by(Some("t")).await, by(Some("")).await), (Some(second), Some(second)));
    assert_eq!(by(Some("other")).await, None);
    is_invalid(world.ops.find(sha, Some(&"t".repeat(256))).await);
    is_invalid(world.ops.find("", None).await);
    world.node.is_broken.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(publish("t", Vec::new()).await, Err(Refusal::Unavailable(_))));
    assert!(matches!(world.ops.find(sha, None).await, Err(Refusal::Unavailable(_))));
}

#[tokio::test]
async fn an_address_publishes_so_much_in_a_minute() {
    let mut settings = settings();
    settings.compat.max_transactions_per_minute = 3;
    let world = World::new(settings);
    for _ in 0..3 {
        world.ops.publish(&visitor("127.0.0.1"), "t", Bytes::new()).await.unwrap();
    }
    let refused = world.ops.publish(&visitor("127.0.0.1"), "t", Bytes::new()).await;
    assert_eq!(refused, Err(Refusal::Busy { retry_after: Duration::from_secs(20) }));
    world.ops.publish(&visitor("127.0.0.2"), "t", Bytes::new()).await.unwrap();
}

fn message(message_type: i32, payload: impl Into<Bytes>) -> PeerMessage {
    PeerMessage {
        sender_peer_id: "python-1".to_owned(),
        recipient_peer_id: String::new(),
        message_type,
        payload: payload.into(),
        timestamp: i64::MIN,
    }
}

async fn received(world: &World, message: PeerMessage) -> Result<bool, Refusal> {
    let answer = world.ops.send_message(&visitor("127.0.0.1"), message).await?;
    assert_eq!(answer.timestamp, SECONDS);
    Ok(answer.received)
}

#[tokio::test]
async fn messages_by_who_they_are_from_and_for() {
    let world = World::new(settings());
    let heartbeat = || message(5, "");
    let peers = [FakeNode::peer().to_string(), "AB".repeat(32)];
    for sender_peer_id in [String::new(), "a\n".to_owned(), "x".repeat(65)].into_iter().chain(peers)
    {
        is_invalid(received(&world, PeerMessage { sender_peer_id, ..heartbeat() }).await);
    }
    let to =
        |recipient: &str| PeerMessage { recipient_peer_id: recipient.to_owned(), ..heartbeat() };
    assert_eq!(received(&world, to("")).await, Ok(true));
    assert_eq!(received(&world, to(&world.node.peer_id().to_string())).await, Ok(true));
    is_invalid(received(&world, to(&"x".repeat(65))).await);
    let unknown = received(&world, to("nobody")).await;
    assert!(matches!(unknown, Err(Refusal::NotFound(_))), "{unknown:?}");
    said(&world, "127.0.0.1", PeerInfo { peer_id: "somebody".to_owned(), ..info() }).await;
    for known in ["somebody".to_owned(), FakeNode::peer().to_string()] {
        let refused = received(&world, to(&known)).await;
        assert_eq!(refused, Err(Refusal::Precondition("this node does not relay".to_owned())));
    }
}

#[tokio::test]
async fn messages_of_every_type() {
    let world = World::new(settings()).built().await;
    assert_eq!(received(&world, message(1, notification().encode_to_vec())).await, Ok(true));
    for number in [1, 2, 3] {
        is_invalid(received(&world, message(number, vec![0xff; 9])).await);
        is_invalid(received(&world, message(number, vec![0x0a, 2, 0xff, 0xfe])).await);
    }
    is_invalid(received(&world, message(1, "")).await);
    is_invalid(received(&world, message(2, "")).await);
    assert_eq!(received(&world, message(3, "")).await, Ok(true), "nothing was found");
    let pushed = |hash: &str, data: &'static [u8]| {
        let transaction_data = Bytes::from_static(data);
        let response = TransactionResponse {
            transaction_hash: hash.to_owned(),
            transaction_data,
            found: true,
        };
        message(3, response.encode_to_vec())
    };
    let hash = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"; // of "x"
    is_invalid(received(&world, pushed(hash, b"y")).await);
    assert_eq!(received(&world, pushed(hash, b"x")).await, Ok(true));
    assert_eq!(received(&world, pushed(hash, b"x")).await, Ok(true));
    until("it is in the index", || world.ops.0.hashes().len() == 1).await;

    assert_eq!(received(&world, message(4, "status")).await, Ok(true));
    let handled = world.node.handled.lock().unwrap().clone();
    assert_eq!(handled, [("python-1".to_owned(), Bytes::from_static(b"status"))]);
    for number in [0, 6, 7, -1, i32::MAX, i32::MIN] {
        assert_eq!(received(&world, message(number, "x")).await, Ok(false), "{number}");
    }
    assert_eq!(received(&world, message(0, "fail")).await, Ok(false));
    let large = Refusal::TooLarge { size: 5, limit: 4 };
    assert_eq!(received(&world, message(0, "large")).await, Err(large));
    let closed = received(&world, message(0, "closed")).await;
    assert!(matches!(closed, Err(Refusal::Unavailable(_))), "{closed:?}");
}

#[tokio::test]
async fn streams_are_answered_by_what_was_asked() {
    let world = World::new(settings()).built().await;
    let id = world.node.publish("t", Bytes::from_static(b"x")).await.unwrap();
    let answer = async |message| world.ops.on_stream_message(&visitor("127.0.0.1"), message).await;
    let request = |hash: &str| {
        let request =
            TransactionRequest { transaction_hash: hash.to_owned(), ..Default::default() };
        message(2, request.encode_to_vec())
    };
    let found = answer(request(&id.to_string())).await.unwrap().unwrap();
    assert_eq!((found.message_type, found.timestamp), (3, SECONDS));
    assert_eq!(found.sender_peer_id, world.node.peer_id().to_string());
    assert_eq!(found.recipient_peer_id, "python-1");
    let response = TransactionResponse::decode(found.payload).unwrap();
    assert_eq!((response.found, &response.transaction_data[..]), (true, &b"x"[..]));
    let unknown = TransactionId::from_bytes([7; 32]).to_string();
    let missing = answer(request(&unknown)).await.unwrap().unwrap();
    let response = TransactionResponse::decode(missing.payload).unwrap();
    assert_eq!((response.found, response.transaction_hash), (false, unknown));
    assert_eq!(answer(message(1, notification().encode_to_vec())).await.unwrap(), None);
    let echo = answer(message(5, "beat")).await.unwrap().unwrap();
    assert_eq!((echo.message_type, &echo.payload[..]), (5, &b"beat"[..]));
    let handled = answer(message(4, "status")).await.unwrap().unwrap();
    assert_eq!((handled.message_type, &handled.payload[..]), (4, &b"status"[..]));
    assert_eq!(answer(message(9, "nobody")).await.unwrap(), None);
    is_invalid(answer(PeerMessage::default()).await);
}
