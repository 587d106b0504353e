//! Nodes whose first contact is a name that stands for several addresses, over real sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::identity::Identity;
use crate::node::PeerNode;
use crate::transport::{GrpcOptions, GrpcTransport};

const HANG: Duration = Duration::from_mins(2);
const NAME: &str = "peers.example.com";

fn at(n: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, n])
}

/// Starts a node on 127.0.0.`n`, whose resolver answers for [`NAME`] with `answer`.
async fn start(n: u8, port: u16, network: &str, answer: &[u8]) -> PeerNode {
    let identity = Identity::from_seed([n; 32]);
    let mut config = Config::default();
    network.clone_into(&mut config.network.name);
    config.listen.address = Some(SocketAddr::new(at(n), port));
    config.overlay.redial_min = Duration::from_millis(20);
    config.overlay.redial_max = Duration::from_millis(500);
    let answer: Vec<_> = answer.iter().copied().map(at).collect();
    let options = GrpcOptions::from_config(&config);
    let transport = GrpcTransport::with_name(identity.clone(), options, NAME, &answer).unwrap();
    let builder = PeerNode::builder().config(config).identity(identity);
    let builder = builder.transport(Arc::new(transport));
    let builder = if port == 0 { builder } else { builder.bootstrap([format!("{NAME}:{port}")]) };
    builder.start().await.unwrap()
}

/// Holds a port on 127.0.0.`n`, which is then most likely free on its neighbours.
async fn first(n: u8, network: &str) -> (PeerNode, u16) {
    let node = start(n, 0, network, &[]).await;
    let port = node.listen_addr().unwrap().port();
    (node, port)
}

async fn linked(node: &PeerNode, to: &PeerNode) {
    let mut events = node.events();
    let there = async {
        loop {
            if node.peers().await.unwrap().iter().any(|peer| peer.peer == to.peer_id()) {
                return;
            }
            events.next().await;
        }
    };
    tokio::time::timeout(HANG, there).await.expect("no link");
}

#[tokio::test]
async fn nodes_that_find_themselves_first_find_the_others_too() {
    let (held, port) = first(41, "n").await;
    held.shutdown(Duration::ZERO).await.unwrap();
    let a = start(41, port, "n", &[41, 42, 43]).await;
    let b = start(42, port, "n", &[42, 43, 41]).await;
    let c = start(43, port, "n", &[43, 41, 42]).await;
    for node in [&a, &b, &c] {
        node.wait_ready(2, HANG).await.unwrap();
    }
}

#[tokio::test]
async fn another_network_behind_the_name_is_left_for_the_next_address() {
    let (foreign, port) = first(51, "other").await;
    let a = start(52, port, "n", &[52]).await;
    let b = start(53, port, "n", &[51, 53, 52]).await;
    linked(&b, &a).await;
    assert!(foreign.peers().await.unwrap().is_empty());
}
