//! A mixed network: native nodes and a client of the original, all on real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tonic::Code;

use super::old_peer::OldPeer;
use super::{SOON, until};
use crate::config::Config;
use crate::identity::Identity;
use crate::transport::{GrpcOptions, GrpcTransport, Http2, Outbound};
use crate::types::TransactionId;
use crate::wire::generated::communication::PeerMessage;
use crate::wire::generated::communication::peer_communication_client::PeerCommunicationClient;
use crate::wire::generated::discovery::peer_discovery_client::PeerDiscoveryClient;
use crate::wire::generated::discovery::{PeerListRequest, PingRequest};
use crate::wire::generated::transaction::transaction_distribution_client::TransactionDistributionClient;
use crate::wire::generated::transaction::{TransactionNotification, TransactionRequest};
use crate::{Item, PeerNode, StartAt, Subscription};

async fn start(serves: bool, bootstrap: &[String]) -> PeerNode {
    let mut config = Config::lan();
    config.compat.enabled = serves;
    config.listen.address = Some(([127, 0, 0, 1], 0).into());
    if serves {
        config.listen.http = Some(([127, 0, 0, 1], 0).into());
    }
    let builder = PeerNode::builder().config(config).bootstrap(bootstrap);
    builder.start().await.expect("a node")
}

/// HTTP/2 with a node, in TLS or in clear text, as somebody who is no peer.
async fn connect(scheme: &str, address: SocketAddr) -> Http2 {
    let identity = Identity::generate().unwrap();
    let transport = GrpcTransport::new(identity, GrpcOptions::default()).unwrap();
    let outbound: Outbound = transport.outbound();
    let endpoint = format!("{scheme}://{address}").parse().unwrap();
    outbound.http2(&endpoint, |_| true).await.unwrap()
}

async fn next(items: &mut Subscription) -> Vec<u8> {
    let item = tokio::time::timeout(SOON, items.next()).await;
    let Ok(Some(Item::Delivery(delivery))) = item else { panic!("{item:?}") };
    delivery.transaction.payload().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_registered_and_two_native_nodes_share_what_is_published() {
    let first = start(true, &[]).await;
    let (tls, clear) = (first.listen_addr().unwrap(), first.http_addr().unwrap());
    let second = start(false, &[tls.to_string()]).await;
    second.wait_ready(1, SOON).await.unwrap();
    let mut at_first = first.subscribe("orders", StartAt::Now).await.unwrap();
    let mut at_second = second.subscribe("orders", StartAt::Now).await.unwrap();

    let http = connect("https", tls).await;
    let mut discovery = PeerDiscoveryClient::with_origin(http.requests(), http.origin());
    let client = OldPeer::start("python-1").await;
    let answer = discovery.register_peer(client.registration()).await.unwrap().into_inner();
    assert!(answer.success, "{answer:?}");
    let mut listed: Vec<String> = Vec::new();
    let waiting = async {
        while !listed.contains(&client.id) {
            let list = discovery.get_peer_list(PeerListRequest::default()).await.unwrap();
            let peers = list.into_inner().peers.into_iter();
            listed = peers.map(|peer| peer.peer_id).collect();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("it is pinged back");
    assert!(listed.contains(&second.peer_id().to_string()), "{listed:?}");

    // Told of by the client, and delivered at both.
    let payload = b"one widget";
    let hash = TransactionId::from_bytes(Sha256::digest(payload).into()).to_string();
    client.state().payloads.insert(hash.clone(), payload.to_vec().into());
    let plain = connect("http", clear).await;
    let mut transactions =
        TransactionDistributionClient::with_origin(plain.requests(), plain.origin());
    let notification = TransactionNotification {
        transaction_hash: hash.clone(),
        sender_peer_id: client.id.clone(),
        transaction_size: 10,
        register_id: "orders".to_owned(),
        timestamp: 0,
    };
    let answer = transactions.notify_transaction(notification).await.unwrap().into_inner();
    assert!(answer.will_request && !answer.already_known);
    assert_eq!(next(&mut at_first).await, payload);
    assert_eq!(next(&mut at_second).await, payload);

    // Messages reach the handlers of requests.
    let handler = |request: crate::Request| async move {
        let caller = format!("{} {:?}", request.caller(), request.peer());
        Ok([caller.as_bytes(), b": ", request.body()].concat().into())
    };
    first.handle_requests("sorcha.message.4", handler).unwrap();
    let mut communication = PeerCommunicationClient::with_origin(plain.requests(), plain.origin());
    let message = |message_type| PeerMessage {
        sender_peer_id: client.id.clone(),
        message_type,
        payload: "well".into(),
        ..PeerMessage::default()
    };
    let update = message(4);
    assert!(communication.send_message(update.clone()).await.unwrap().into_inner().received);
    let ack = communication.send_message(message(0)).await.unwrap().into_inner();
    assert!(!ack.received, "nobody serves it");
    let messages = futures::stream::iter([message(0), update]);
    let mut answers = communication.stream(messages).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().expect("an answer");
    assert_eq!((answer.message_type, &answer.payload[..]), (4, &b"python-1 None: well"[..]));
    assert_eq!(answers.message().await.unwrap(), None);

    // Published at the other node, told to the client, and fetched by it.
    second.publish("orders", "two widgets").await.unwrap();
    let news = TransactionId::from_bytes(Sha256::digest("two widgets").into()).to_string();
    let told = || client.state().told.iter().any(|told| told.transaction_hash == news);
    until("the client is told", told).await;
    let request = |hash: &str| TransactionRequest {
        transaction_hash: hash.to_owned(),
        requesting_peer_id: client.id.clone(),
        register_id: String::new(),
    };
    let answer = transactions.get_transaction(request(&news)).await.unwrap().into_inner();
    assert_eq!((answer.found, &answer.transaction_data[..]), (true, &b"two widgets"[..]));
    let unknown = transactions.get_transaction(request(&"00".repeat(32))).await.unwrap();
    assert!(!unknown.into_inner().found);
    let status = transactions.get_transaction(request("nothing")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    let stats = first.stats().await.unwrap();
    assert_eq!((stats.compat_peers, stats.counters.compat_published), (1, 1));
    assert!(stats.counters.compat_requests > 4 && stats.counters.compat_notifications_sent > 0);
    let pinged = discovery.ping(PingRequest::default()).await.unwrap().into_inner();
    assert_eq!(pinged.peer_id, first.peer_id().to_string());
    // What runs for clients ends with the node.
    tokio::time::timeout(SOON, first.shutdown(Duration::from_secs(5))).await.unwrap().unwrap();
    let pings = client.state().pings;
    assert!(discovery.ping(PingRequest::default()).await.is_err());
    second.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(client.state().pings, pings);
}

#[tokio::test]
async fn a_host_s_own_transports_serve_no_clients() {
    let network = crate::transport::MemoryNetwork::new();
    let identity = Identity::generate().unwrap();
    let mut config = Config::default();
    config.compat.enabled = true;
    let transport = std::sync::Arc::new(network.transport(identity.peer_id()));
    let builder = PeerNode::builder().config(config).transport(transport).identity(identity);
    let error = builder.start().await.unwrap_err();
    assert!(matches!(error, crate::error::StartError::CompatTransport), "{error}");
}

#[tokio::test]
async fn without_being_asked_a_node_serves_no_clients() {
    let mut config = Config::lan();
    config.listen.address = Some(([127, 0, 0, 1], 0).into());
    config.listen.http = Some(([127, 0, 0, 1], 0).into());
    let node = PeerNode::builder().config(config).start().await.unwrap();
    let http = connect("http", node.http_addr().unwrap()).await;
    let mut discovery = PeerDiscoveryClient::with_origin(http.requests(), http.origin());
    let status = discovery.ping(PingRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
}
