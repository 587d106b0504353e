//! The memory transport against the suite, and what is its own.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use sorcha_peer::PeerId;
use sorcha_peer::error::FailureKind;
use sorcha_peer::ports::Transport;
use sorcha_peer::testing::{self, TransportNode};
use sorcha_peer::transport::MemoryNetwork;

const A: PeerId = PeerId::from_bytes([1; 32]);
const B: PeerId = PeerId::from_bytes([2; 32]);

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn it_conforms() {
    let network = MemoryNetwork::new();
    let node = |id| TransportNode::new(id, network.transport(id));
    block_on(testing::transport(&node(A), &node(B), any_port()));
}

#[test]
fn a_listener_on_all_addresses_is_found_and_keeps_the_port() {
    block_on(async {
        let network = MemoryNetwork::new();
        let (a, b) = (network.transport(A), network.transport(B));
        let mut listener = b.listen("0.0.0.0:7".parse().unwrap()).await.unwrap();
        let dialled = a.dial(&"10.1.2.3:7".parse().unwrap(), Some(B)).await.unwrap();
        TransportNode::assert_open(dialled, TransportNode::accept(&mut listener).await).await;
        let taken = a.listen("10.1.2.3:7".parse().unwrap()).await.unwrap_err();
        assert_eq!(taken.kind, FailureKind::Local);
        let name = a.dial(&"somewhere:7".parse().unwrap(), None).await.unwrap_err();
        assert_eq!(name.kind, FailureKind::Unreachable);
    });
}

#[test]
fn a_full_backlog_refuses() {
    block_on(async {
        let network = MemoryNetwork::new();
        let listener = network.transport(B).listen(any_port()).await.unwrap();
        let endpoint = listener.local_addr().into();
        let mut kept = Vec::new();
        let error = loop {
            match network.transport(A).dial(&endpoint, None).await {
                Ok(link) => kept.push(link),
                Err(error) => break error,
            }
            assert!(kept.len() < 10_000, "the backlog has no bound");
        };
        assert_eq!(error.kind, FailureKind::Refused);
    });
}

#[test]
fn cut_links_end_and_restored_pairs_meet_again() {
    block_on(async {
        let network = MemoryNetwork::new();
        let (a, b) = (network.transport(A), network.transport(B));
        let mut listener = b.listen(any_port()).await.unwrap();
        let endpoint = listener.local_addr().into();
        let mut here = a.dial(&endpoint, None).await.unwrap();
        let mut there = TransportNode::accept(&mut listener).await;
        here.sink.send(Bytes::from_static(b"lost")).await.unwrap();

        network.cut(B, A);
        assert!(there.stream.next().await.is_none());
        assert!(here.stream.next().await.is_none());
        let error = here.sink.send(Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Closed);
        assert_eq!(a.dial(&endpoint, None).await.unwrap_err().kind, FailureKind::Unreachable);

        network.restore(A, B);
        let again = a.dial(&endpoint, None).await.unwrap();
        TransportNode::assert_open(again, TransportNode::accept(&mut listener).await).await;
    });
}
