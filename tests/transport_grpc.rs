//! The gRPC transport over real sockets and real TLS: the suite, and everything that hostile or
//! broken clients do. After each of them, the listener must serve the next.
#![cfg(feature = "grpc")]

use std::net::SocketAddr;
use std::time::Duration;

use sorcha_peer::Identity;
use sorcha_peer::testing::transport::{Node, conformance};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};

/// Ends a test that hangs; no test waits for it.
const HANG: Duration = Duration::from_mins(2);

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn node(seed: u8, options: &GrpcOptions) -> Node {
    let identity = identity(seed);
    let id = identity.peer_id();
    let transport = GrpcTransport::new(identity, options.clone()).unwrap();
    Node { transport: Box::new(transport), id }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, work).await.expect("the test hangs")
}

#[tokio::test]
async fn it_conforms() {
    let options = GrpcOptions::default();
    in_time(conformance(&node(1, &options), &node(2, &options), any_port())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms_on_several_threads() {
    let options = GrpcOptions::default();
    in_time(conformance(&node(1, &options), &node(2, &options), any_port())).await;
}
