//! Links that go over to other connections while they are in use, over real sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sorcha_peer::error::{FailureKind, RequestError, TransportError};
use sorcha_peer::ports::{Listener, RawLink, Transport};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};

use sorcha_peer::{
    Endpoint, Event, PeerId, PeerNode, Request, StartAt, Subscription, TransportKind,
};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::{JoinHandle, JoinSet};

use crate::common::{
    builder, config_with, counters, event, identity, ids, noise, ready, soon, start, start_alone,
    take,
};

/// Age at which the proxy cuts a connection.
const LIFE: Duration = Duration::from_secs(3);

/// Proxy in front of a node that cuts every connection at the same age; ends when dropped.
struct CuttingProxy {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl CuttingProxy {
    async fn before(node: &PeerNode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, target) = (listener.local_addr().unwrap(), node.listen_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    let carried = copy_bidirectional(&mut near, &mut far);
                    let _ = tokio::time::timeout(LIFE, carried).await;
                });
            }
        });
        Self { address, _task: task }
    }
}

/// Publishes on both until `enough` says so; all of it arrives at both, once.
pub(crate) async fn talk(nodes: [&PeerNode; 2], mut enough: impl AsyncFnMut() -> bool) {
    let mut arriving: Vec<Subscription> = Vec::new();
    for node in nodes {
        arriving.push(node.subscribe("t", StartAt::Now).await.unwrap());
    }
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let mut published = 0;
    while !enough().await {
        pace.tick().await;
        for node in nodes {
            published += 1;
            node.publish("t", noise(published, 600)).await.unwrap();
        }
    }
    for arriving in &mut arriving {
        let all = take(arriving, usize::try_from(published).unwrap()).await;
        assert_eq!(ids(&all).len(), all.len(), "each once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_cuts_every_connection_costs_nothing() {
    let server = start_alone().await;
    let proxy = CuttingProxy::before(&server).await;
    let client = start(builder().dial_only().bootstrap([proxy.address.to_string()])).await;
    ready(&client, 1).await;
    let mut events = client.events();
    // Two are cut, which shows the bound; from then on others take over before that.
    let enough = async || counters(&client).await.handovers >= 3;
    soon("handovers", talk([&server, &client], enough)).await;
    let reason = event(&mut events, "another connection", |event| match event {
        Event::TransportChanged { reason, from, to, .. } if from == to => Some(reason.clone()),
        _ => None,
    })
    .await;
    assert_eq!(reason, "proxy time limit");
    let counted = counters(&client).await;
    assert!(counted.link_limits_found >= 1, "{counted:?}");
}

/// The gRPC stream, behind something that lets it through when the test says so.
#[derive(Debug)]
struct Blocked {
    inner: GrpcTransport,
    open: AtomicBool,
}

#[async_trait]
impl Transport for Blocked {
    fn kind(&self) -> TransportKind {
        self.inner.kind()
    }

    async fn dial(
        &self,
        endpoint: &Endpoint,
        expected: Option<PeerId>,
    ) -> Result<RawLink, TransportError> {
        if self.open.load(Ordering::SeqCst) {
            self.inner.dial(endpoint, expected).await
        } else {
            Err(TransportError::new(FailureKind::Closed, "cut on the way"))
        }
    }

    async fn listen(&self, bind: SocketAddr) -> Result<Box<dyn Listener>, TransportError> {
        self.inner.listen(bind).await
    }

    fn shun(&self, address: IpAddr, time: Duration) {
        self.inner.shun(address, time);
    }
}

/// Asks for what is answered once somebody else waits at the gate.
fn ask_and_wait(
    asker: &PeerNode,
    peer: &PeerNode,
    gate: &Arc<Barrier>,
) -> JoinHandle<Result<Bytes, RequestError>> {
    let gate = Arc::clone(gate);
    peer.handle_requests("wait", move |request: Request| {
        let gate = Arc::clone(&gate);
        async move {
            gate.wait().await;
            Ok(request.body().clone())
        }
    })
    .unwrap();
    let (asker, peer) = (asker.clone(), peer.peer_id());
    tokio::spawn(async move { asker.request(peer, "wait", noise(3, 300_000)).await })
}

/// Requests one after the other, of several asked at once.
struct Asking {
    enough: Arc<AtomicBool>,
    tasks: JoinSet<u64>,
}

impl Asking {
    fn start(asker: &PeerNode, peer: &PeerNode) -> Self {
        peer.handle_requests("echo", async |request: Request| Ok(request.body().clone())).unwrap();
        let (enough, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for size in [100, 70_000, 200_000] {
            let (asker, peer) = (asker.clone(), peer.peer_id());
            let enough = Arc::clone(&enough);
            tasks.spawn(async move {
                let mut asked = 0;
                while !enough.load(Ordering::SeqCst) {
                    asked += 1;
                    let body = noise(asked, size);
                    let answer = asker.request(peer, "echo", body.clone()).await.unwrap();
                    assert!(answer == body, "the answer to another request");
                }
                asked
            });
        }
        Self { enough, tasks }
    }

    /// Checks that every request was answered.
    async fn finish(self) {
        self.enough.store(true, Ordering::SeqCst);
        let asked = soon("answers", self.tasks.join_all()).await;
        assert!(asked.iter().all(|asked| *asked > 1), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_goes_back_to_the_better_transport_when_that_works() {
    let server = start_alone().await;
    let who = identity(77);
    let grpc = GrpcTransport::new(who.clone(), GrpcOptions::default()).unwrap();
    let unary = grpc.rung(TransportKind::GrpcUnary).unwrap();
    let blocked = Arc::new(Blocked { inner: grpc, open: AtomicBool::new(false) });
    let config = config_with(|c| c.connection.upgrade_interval = Duration::from_secs(10));
    let client = PeerNode::builder()
        .config(config)
        .identity(who)
        .dial_only()
        .transport(Arc::<Blocked>::clone(&blocked))
        .transport(Arc::new(unary))
        .bootstrap([server.listen_addr().unwrap().to_string()]);
    let client = start(client).await;
    ready(&client, 1).await;
    assert_eq!(client.peers().await.unwrap()[0].transport, TransportKind::GrpcUnary);
    let (mut events, mut theirs) = (client.events(), server.events());
    let gate = Arc::new(Barrier::new(2));
    let (held, asking) = (ask_and_wait(&client, &server, &gate), Asking::start(&client, &server));
    blocked.open.store(true, Ordering::SeqCst);
    let enough = async || counters(&client).await.handovers > 0;
    soon("a handover", talk([&server, &client], enough)).await;
    let change = |event: &Event| match event {
        Event::TransportChanged { from, to, reason, .. } => Some((*from, *to, reason.clone())),
        Event::PeerUp { .. } | Event::PeerDown { .. } => panic!("the link was not kept: {event:?}"),
        _ => None,
    };
    let (from, to) = (TransportKind::GrpcUnary, TransportKind::GrpcStream);
    let ours = event(&mut events, "a change", change).await;
    assert_eq!(ours, (from, to, "upgrade".to_owned()));
    assert_eq!(event(&mut theirs, "a change", change).await, (from, to, "peer".to_owned()));
    for node in [&client, &server] {
        let peers = soon("an answer", node.peers()).await.unwrap();
        assert_eq!((peers.len(), peers[0].transport), (1, to));
    }
    // What was asked before is answered after it, and what was asked meanwhile was answered.
    gate.wait().await;
    assert!(soon("an answer", held).await.unwrap().unwrap() == noise(3, 300_000));
    asking.finish().await;
}
