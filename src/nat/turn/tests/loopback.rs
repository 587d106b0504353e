//! The client over sockets of the loopback interface, against a server that does as it should.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, pending};
use stun_codec::MessageClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::client::{Call, Client, Drops, Net, Relayed, dial, read_message};
use super::super::codec::{self, Method};
use super::fake::{Fake, relayed, server};
use crate::error::{FailureKind, TransportError};

/// Ends a test that hangs; no test waits for it. Hours, since some of them skip time.
const HANG: Duration = Duration::from_hours(2);
/// What the peer says as soon as it is connected.
const PEER: &[u8] = b"from the peer";

pub(super) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(HANG, work).await.expect("the test hangs")
}

/// What the server does after an answer.
pub(super) enum Then {
    Go,
    Close,
    /// Neither reads nor writes.
    Hang,
}

/// What becomes of an answer before it is sent: on which connection, to what.
type Twist = dyn Fn(usize, &mut Fake, Method, &mut Vec<u8>) -> Then + Send + Sync;

/// Connections to the server, and what it brings.
#[derive(Debug)]
pub(super) struct Loopback {
    server: SocketAddr,
    accepted: mpsc::Sender<(TcpStream, SocketAddr)>,
}

impl Net for Loopback {
    type Stream = TcpStream;

    fn connect(
        &self,
        to: Option<SocketAddr>,
    ) -> BoxFuture<'_, Result<(TcpStream, SocketAddr), TransportError>> {
        async move {
            let at = to.unwrap_or(self.server);
            let stream = TcpStream::connect(at).await.map_err(|error| {
                TransportError::with_source(FailureKind::Unreachable, "no server", error)
            })?;
            Ok((stream, at))
        }
        .boxed()
    }

    fn accept(&self, stream: TcpStream, peer: SocketAddr) -> bool {
        self.accepted.try_send((stream, peer)).is_ok()
    }
}

/// A client, its server, and all that it is given and gives.
pub(super) struct Bench {
    pub(super) net: Arc<Loopback>,
    pub(super) calls: mpsc::Sender<Call>,
    pub(super) relayed: watch::Receiver<Relayed>,
    pub(super) permitted: watch::Sender<BTreeSet<IpAddr>>,
    pub(super) accepted: mpsc::Receiver<(TcpStream, SocketAddr)>,
    /// Number of connections that were made to the server.
    pub(super) connections: Arc<AtomicUsize>,
    /// Number of those that the client has not ended.
    open: watch::Receiver<usize>,
    pub(super) drops: Drops,
    _server: JoinSet<()>,
    client: JoinSet<()>,
}

impl Bench {
    pub(super) async fn start(
        twist: impl Fn(usize, &mut Fake, Method, &mut Vec<u8>) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (open_sender, open) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::new(twist), Arc::clone(&connections), open_sender));
        let (accepted_sender, accepted) = mpsc::channel(256);
        let net = Arc::new(Loopback { server: address, accepted: accepted_sender });
        let (calls, call_box) = mpsc::channel(16);
        let (relayed_sender, relayed) = watch::channel(None);
        let (permitted, permitted_box) = watch::channel(BTreeSet::new());
        let drops = Drops::default();
        let client = Client {
            server: server(address),
            net: Arc::clone(&net),
            permitted: permitted_box,
            relayed: relayed_sender,
            calls: call_box,
            drops: drops.clone(),
        };
        let mut running = JoinSet::new();
        running.spawn(client.run());
        Self {
            net,
            calls,
            relayed,
            permitted,
            accepted,
            connections,
            open,
            drops,
            client: running,
            _server: tasks,
        }
    }

    pub(super) async fn allocated(&mut self) -> SocketAddr {
        let is_there = |relayed: &Relayed| matches!(relayed, Some(Ok(_)));
        let relayed = in_time(self.relayed.wait_for(is_there)).await.unwrap();
        relayed.as_ref().unwrap().as_ref().copied().unwrap()
    }

    /// The first thing that the client says, which must be a failure.
    pub(super) async fn fails(&mut self) -> (FailureKind, String) {
        let told = in_time(self.relayed.wait_for(Option::is_some)).await.unwrap();
        let error = told.as_ref().unwrap().as_ref().expect_err("no address");
        (error.kind, error.message.clone())
    }

    /// The failure that follows an allocation.
    pub(super) async fn breaks(&mut self) -> FailureKind {
        self.allocated().await;
        let is_over = |relayed: &Relayed| matches!(relayed, Some(Err(_)));
        let told = in_time(self.relayed.wait_for(is_over)).await.unwrap();
        told.as_ref().unwrap().as_ref().unwrap_err().kind
    }
}

async fn serve(
    listener: TcpListener,
    twist: Arc<Twist>,
    connections: Arc<AtomicUsize>,
    open: watch::Sender<usize>,
) {
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let number = connections.fetch_add(1, Ordering::Relaxed);
        let (open, twist) = (open.clone(), Arc::clone(&twist));
        tasks.spawn(async move {
            open.send_modify(|open| *open += 1);
            answer(stream, Fake::new(address), number, twist).await;
            open.send_modify(|open| *open -= 1);
        });
    }
}

/// Serves one connection until the client ends it.
async fn answer(mut stream: TcpStream, mut fake: Fake, number: usize, twist: Arc<Twist>) {
    while let Ok(request) = read_message(&mut stream).await {
        let mut answer = fake.answer(&request);
        let method = codec::decode(&request).unwrap().method.unwrap();
        let then = twist(number, &mut fake, method, &mut answer);
        let is_bound = fake.asked.last().is_some_and(|(asked, _)| *asked == Method::ConnectionBind);
        if is_bound {
            answer.extend(PEER);
        }
        if stream.write_all(&answer).await.is_err() {
            return;
        }
        match then {
            Then::Close => return,
            Then::Hang => return pending().await,
            Then::Go if is_bound => {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                return;
            }
            Then::Go => {}
        }
    }
}

async fn talks(mut stream: TcpStream) {
    let mut said = [0; PEER.len()];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(said, PEER);
    stream.write_all(b"echo").await.unwrap();
    let mut said = [0; 4];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"echo");
}

#[tokio::test]
async fn what_a_relay_brings_begins_with_the_peers_first_byte() {
    for class in [MessageClass::Indication, MessageClass::Request] {
        let peer: SocketAddr = "203.0.113.5:9".parse().unwrap();
        let mut bench = Bench::start(move |_, fake: &mut Fake, method, answer: &mut Vec<u8>| {
            if method == Method::CreatePermission && fake.asked.len() == 2 {
                answer.extend(fake.attempt(class, peer));
            }
            Then::Go
        })
        .await;
        assert_eq!(bench.allocated().await, relayed());
        let (stream, from) = in_time(bench.accepted.recv()).await.unwrap();
        assert_eq!(from, peer);
        in_time(talks(stream)).await;
    }
}

#[tokio::test]
async fn what_a_relay_tells_of_and_does_not_bring_is_counted() {
    let bench = Bench::start(move |_, fake: &mut Fake, method, answer: &mut Vec<u8>| {
        if method == Method::CreatePermission && fake.asked.len() == 2 {
            let peer = "203.0.113.5:9".parse().unwrap();
            answer.extend(fake.attempt(MessageClass::Indication, peer));
        }
        if method == Method::ConnectionBind {
            answer.clear();
            return Then::Close;
        }
        Then::Go
    })
    .await;
    let failed = async {
        while bench.drops.failed.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    in_time(failed).await;
    assert_eq!(bench.drops.refused.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_peer_is_dialled_from_the_relayed_address() {
    let mut bench = Bench::start(|_, _, _, _| Then::Go).await;
    bench.allocated().await;
    let stream = in_time(dial(&*bench.net, &bench.calls, relayed())).await.unwrap();
    in_time(talks(stream)).await;
}

#[tokio::test]
async fn a_dial_that_the_relay_refuses_says_why() {
    let mut bench = Bench::start(|_, fake: &mut Fake, _, _: &mut Vec<u8>| {
        fake.refused = Some((Method::Connect, 403));
        Then::Go
    })
    .await;
    bench.allocated().await;
    let error = in_time(dial(&*bench.net, &bench.calls, relayed())).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Refused);
    assert!(error.to_string().contains("403"), "{error}");
}

#[tokio::test]
async fn addresses_that_the_node_names_get_their_permission() {
    let (told, mut asked) = mpsc::channel(8);
    let mut bench = Bench::start(move |_, fake: &mut Fake, method, _: &mut Vec<u8>| {
        if method == Method::CreatePermission
            && let Some((_, peer)) = fake.asked.last()
        {
            let _ = told.try_send(peer.unwrap().ip());
        }
        Then::Go
    })
    .await;
    bench.allocated().await;
    let wanted: IpAddr = "198.51.100.7".parse().unwrap();
    bench.permitted.send_replace([wanted].into());
    in_time(async { while asked.recv().await.unwrap() != wanted {} }).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_relay_is_dialled_again_and_gives_another_address() {
    let mut bench = Bench::start(|number, fake: &mut Fake, method, _: &mut Vec<u8>| {
        if number == 0 && method == Method::CreatePermission {
            return Then::Close;
        }
        fake.relayed.set_port(50_000 + u16::try_from(number).unwrap());
        Then::Go
    })
    .await;
    assert_eq!(bench.breaks().await, FailureKind::Closed);
    assert_eq!(bench.allocated().await.port(), 50_001);
}

#[tokio::test]
async fn the_end_of_the_client_ends_the_allocation_and_no_connection_that_was_handed_over() {
    let mut bench = Bench::start(|_, _, _, _| Then::Go).await;
    bench.allocated().await;
    let stream = in_time(dial(&*bench.net, &bench.calls, relayed())).await.unwrap();
    in_time(bench.open.wait_for(|open| *open == 2)).await.unwrap();
    bench.client.shutdown().await;
    in_time(bench.open.wait_for(|open| *open == 1)).await.unwrap();
    in_time(talks(stream)).await;
}
