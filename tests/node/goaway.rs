//! Links whose connection is about to be closed, as an HTTP/2 proxy in front of a node says.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::join;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use sorcha_peer::{Endpoint, Event, PeerNode, TransportKind};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use crate::common::{builder, config_with, counters, event, ready, soon, start, stats};
use crate::handover::talk;

/// What lets a connection be told goodbye, and what ends it.
type Connection = (oneshot::Sender<()>, AbortHandle);

/// An HTTP/2 proxy that passes streams on as they come; ends when dropped.
struct Proxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Connection>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<Mutex<Vec<_>>>::default();
        let all = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (goodbye, told) = oneshot::channel();
                let serving = serving.spawn(serve(near, target, told));
                all.lock().unwrap().push((goodbye, serving));
            }
        });
        Self { address, connections, _tasks: tasks }
    }

    /// Says goodbye to the connections that there are, and gives what ends them.
    fn goodbye(&self) -> Vec<AbortHandle> {
        let all = std::mem::take(&mut *self.connections.lock().unwrap());
        let told = |(goodbye, serving): Connection| {
            let _ = goodbye.send(());
            serving
        };
        all.into_iter().map(told).collect()
    }
}

async fn serve(near: TcpStream, target: SocketAddr, mut told: oneshot::Receiver<()>) {
    let far = TcpStream::connect(target).await.unwrap();
    let (requests, far) = h2::client::handshake(far).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(far.await) });
    let Ok(mut near) = h2::server::handshake(near).await else { return };
    let mut is_told = false;
    loop {
        tokio::select! {
            request = near.accept() => {
                let Some(Ok((request, answer))) = request else { return };
                tasks.spawn(pass_on(requests.clone(), request, answer));
            }
            _ = &mut told, if !is_told => {
                is_told = true;
                near.graceful_shutdown();
            }
        }
    }
}

async fn pass_on(
    mut far: SendRequest<Bytes>,
    request: Request<RecvStream>,
    mut answer: SendResponse<Bytes>,
) {
    let (head, up) = request.into_parts();
    let Ok((response, to)) = far.send_request(Request::from_parts(head, ()), false) else { return };
    let down = async {
        let Ok(response) = response.await else { return };
        let (head, down) = response.into_parts();
        let Ok(to) = answer.send_response(Response::from_parts(head, ()), false) else { return };
        carry(down, to).await;
    };
    join(carry(up, to), down).await;
}

async fn carry(mut from: RecvStream, mut to: SendStream<Bytes>) {
    while let Some(Ok(mut bytes)) = from.data().await {
        let _ = from.flow_control().release_capacity(bytes.len());
        while !bytes.is_empty() {
            to.reserve_capacity(bytes.len());
            let Some(Ok(room)) = poll_fn(|cx| to.poll_capacity(cx)).await else { return };
            let _ = to.send_data(bytes.split_to(room.min(bytes.len())), false);
        }
    }
    let _ = match from.trailers().await {
        Ok(Some(trailers)) => to.send_trailers(trailers),
        _ => to.send_data(Bytes::new(), true),
    };
}

/// A node behind a proxy, and one that reaches it by a gRPC stream through that alone.
async fn pair() -> (PeerNode, Proxy, PeerNode) {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = port.local_addr().unwrap();
    drop(port);
    let proxy = Proxy::before(http).await;
    let endpoint = format!("http://{}/some/where", proxy.address);
    let behind = config_with(|config| {
        config.listen.http = Some(http);
        config.listen.advertise = vec![endpoint.parse::<Endpoint>().unwrap()];
    });
    let behind = start(PeerNode::builder().config(behind)).await;
    let front = builder().dial_only().transports([TransportKind::GrpcStream]);
    let front = start(front.bootstrap([endpoint])).await;
    ready(&front, 1).await;
    ready(&behind, 1).await;
    (behind, proxy, front)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_goes_over_before_its_connection_is_closed() {
    let (behind, proxy, front) = pair().await;
    let (mut events, mut theirs) = (front.events(), behind.events());
    let mut told = Vec::new();
    let over = async || {
        if told.is_empty() {
            told = proxy.goodbye();
        }
        counters(&front).await.handovers > 0
    };
    soon("a handover", talk([&behind, &front], over)).await;
    let change = |event: &Event| match event {
        Event::TransportChanged { from, to, reason, .. } => Some((*from, *to, reason.clone())),
        Event::PeerUp { .. } | Event::PeerDown { .. } => panic!("the link was not kept: {event:?}"),
        _ => None,
    };
    let kind = TransportKind::GrpcStream;
    let ours = event(&mut events, "a change", change).await;
    assert_eq!(ours, (kind, kind, "closing".to_owned()));
    assert_eq!(event(&mut theirs, "a change", change).await, (kind, kind, "peer".to_owned()));
    // What is left behind may end as it likes.
    assert_eq!(told.len(), 1);
    told.iter().for_each(AbortHandle::abort);
    let mut looks = 0;
    let a_while = async || {
        looks += 1;
        looks > 10
    };
    soon("more", talk([&behind, &front], a_while)).await;
    for node in [&behind, &front] {
        let counted = counters(node).await;
        assert_eq!((counted.handovers, counted.links_opened, counted.links_closed), (1, 1, 0));
    }
    assert_eq!(counters(&front).await.connections_leaving, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_with_its_goodbye_is_followed_by_the_next() {
    let (behind, proxy, front) = pair().await;
    let mut told = false;
    let back = async || {
        if !told {
            told = true;
            let ending = proxy.goodbye();
            // As soon as it has been heard.
            while counters(&front).await.connections_leaving == 0 {
                tokio::task::yield_now().await;
            }
            ending.iter().for_each(AbortHandle::abort);
        }
        let counted = counters(&front).await;
        counted.handovers > 0 || counted.links_opened > 1
    };
    soon("the next connection", talk([&behind, &front], back)).await;
    let now = stats(&front).await;
    let counted = now.counters;
    assert_eq!((now.open_breakers, counted.breakers_opened, counted.walks_failed), (0, 0, 0));
    assert_eq!(counted.link_limits_found, 0);
}
