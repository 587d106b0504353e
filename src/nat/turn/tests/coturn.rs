//! Transports that meet at a real TURN server, where one is installed.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::client::{Drops, Relayed};
use super::super::relay;
use super::coturn_process::Coturn;
use crate::config::RelayServer;
use crate::error::FailureKind;
use crate::identity::Identity;
use crate::ports::{Accepted, Listener, RawLink, Transport};
use crate::transport::{GrpcOptions, GrpcTransport};

/// Ends a test that hangs; no test waits for it.
const HANG: Duration = Duration::from_mins(2);

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(HANG, work).await.expect("the test hangs")
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

/// Transport with a relay, of which nobody knows the listening address.
struct Node {
    transport: GrpcTransport,
    listener: Box<dyn Listener>,
    permitted: watch::Sender<BTreeSet<IpAddr>>,
    relayed: watch::Receiver<Relayed>,
    _relay: JoinSet<()>,
}

impl Node {
    async fn start(seed: u8, server: &str) -> Self {
        let server = RelayServer::new(server).unwrap();
        let transport = GrpcTransport::new(identity(seed), GrpcOptions::default()).unwrap();
        let listener = transport.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (permitted, permitted_box) = watch::channel(BTreeSet::new());
        let (relayed_sender, relayed) = watch::channel(None);
        let mut running = JoinSet::new();
        running.spawn(relay(&transport, server, permitted_box, relayed_sender, Drops::default()));
        Self { transport, listener, permitted, relayed, _relay: running }
    }

    async fn relayed(&mut self) -> SocketAddr {
        let is_there = |relayed: &Relayed| relayed.is_some();
        let told = in_time(self.relayed.wait_for(is_there)).await.unwrap();
        *told.as_ref().unwrap().as_ref().unwrap()
    }
}

/// Frames go both ways.
async fn exchange(one: &mut RawLink, other: &mut RawLink) {
    for size in [1, 1_000, 200_000] {
        let frame = Bytes::from(vec![7; size]);
        let there = async {
            one.sink.send(frame.clone()).await.unwrap();
            assert_eq!(one.stream.next().await.unwrap().unwrap(), frame);
        };
        let back = async {
            let got = other.stream.next().await.unwrap().unwrap();
            other.sink.send(got).await.unwrap();
        };
        in_time(join(there, back)).await;
    }
}

#[tokio::test]
async fn transports_that_only_dial_out_meet_at_a_relay() {
    let Some(server) = Coturn::start(&[]).await else { return };
    for scheme in ["turn", "turns"] {
        let mut a = Node::start(1, &server.account(scheme, "s3cret")).await;
        let mut b = Node::start(2, &server.account(scheme, "s3cret")).await;
        let (to_a, _) = (a.relayed().await, b.relayed().await);
        let endpoint = to_a.into();
        let dial = b.transport.dial(&endpoint, Some(identity(1).peer_id()));
        let (dialled, accepted) = in_time(join(dial, a.listener.accept())).await;
        let mut dialled = dialled.unwrap();
        let Accepted::Link(mut accepted) = accepted else { panic!("no link: {accepted:?}") };
        assert_eq!(accepted.remote, identity(2).peer_id());
        assert_eq!((dialled.address, accepted.address), (None, None), "a relay stands between");
        exchange(&mut dialled, &mut accepted).await;
    }
}

#[tokio::test]
async fn a_stranger_is_let_in_once_its_address_is_permitted() {
    let Some(server) = Coturn::start(&[]).await else { return };
    let mut node = Node::start(1, &server.account("turn", "s3cret")).await;
    let relayed = node.relayed().await;
    let stranger = async || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        // It connects; that it is reset at once may be what is seen of it.
        let Ok(mut stream) = socket.connect(relayed).await else { return };
        // What no peer says. The relay may have closed by then.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let accepted = async {
        tokio::select! {
            accepted = node.listener.accept() => Some(accepted),
            () = stranger() => None,
        }
    };
    let accepted = in_time(accepted).await;
    assert!(accepted.is_none(), "{accepted:?}");
    node.permitted.send_replace(["127.0.0.2".parse().unwrap()].into());
    let knocks = async {
        // The permission takes a moment, of which nothing tells.
        loop {
            stranger().await;
            sleep(Duration::from_millis(20)).await;
        }
    };
    let accepted = async {
        tokio::select! { accepted = node.listener.accept() => accepted, () = knocks => panic!() }
    };
    let accepted = in_time(accepted).await;
    assert!(matches!(accepted, Accepted::Failed { address: None, .. }), "{accepted:?}");
}

#[tokio::test]
async fn an_address_at_the_server_that_is_none_of_the_relay_is_dialled_directly() {
    // It connects nobody to its own address.
    let Some(server) = Coturn::start(&["--denied-peer-ip=127.0.0.1"]).await else { return };
    let mut a = Node::start(1, &server.account("turn", "s3cret")).await;
    let mut b = Node::start(2, &server.account("turn", "s3cret")).await;
    b.relayed().await;
    let endpoint = a.listener.local_addr().into();
    let dial = b.transport.dial(&endpoint, Some(identity(1).peer_id()));
    let (dialled, accepted) = in_time(join(dial, a.listener.accept())).await;
    let Accepted::Link(mut accepted) = accepted else { panic!("no link: {accepted:?}") };
    exchange(&mut dialled.unwrap(), &mut accepted).await;
}

#[tokio::test]
async fn what_the_server_does_not_do_is_said() {
    let Some(server) = Coturn::start(&["--no-tcp-relay"]).await else { return };
    let kind_of = async |password| {
        let mut node = Node::start(1, &server.account("turn", password)).await;
        let told = in_time(node.relayed.wait_for(Option::is_some)).await.unwrap();
        told.as_ref().unwrap().as_ref().unwrap_err().kind
    };
    assert_eq!(kind_of("s3cret").await, FailureKind::Unsupported);
    assert_eq!(kind_of("guess").await, FailureKind::Refused);
}
