//! Two nodes over a thin link: a proxy in the test's process forwards so many bytes per second. What
//! the transport, the kernels and the proxy hold is not the nodes' to see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sorcha_peer::types::unstable::PIECE_BYTES;
use sorcha_peer::{PeerNode, StartAt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::common::{config_with, counters, next, noise, ready, soon, start, stop};

/// Bytes per second that the proxy forwards in each direction: a piece takes 1.6 s.
const RATE: u64 = 40_000;
/// Number of bytes that the proxy forwards at once.
const GULP: usize = 1_000;
/// Size of the proxy's socket buffers.
const BUFFER: u32 = 16 * 1024;

/// Proxy in front of a node; ends when dropped.
struct ThinPipe {
    address: SocketAddr,
    /// Bytes that were forwarded to the dialler.
    back: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl ThinPipe {
    fn before(node: &PeerNode) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(BUFFER).unwrap();
        socket.set_send_buffer_size(BUFFER).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(8).unwrap();
        let address = listener.local_addr().unwrap();
        let (back, target) = (Arc::default(), node.listen_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(serve(listener, target, Arc::clone(&back)));
        Self { address, back, _task: task }
    }

    fn back(&self) -> u64 {
        self.back.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, back: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let back = Arc::clone(&back);
        connections.spawn(async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(BUFFER).unwrap();
            socket.set_send_buffer_size(BUFFER).unwrap();
            let Ok(far) = socket.connect(target).await else { return };
            let ((near_read, near_write), (far_read, far_write)) =
                (near.into_split(), far.into_split());
            let there = forward(near_read, far_write, Arc::default());
            tokio::join!(there, forward(far_read, near_write, back));
        });
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, carried: Arc<AtomicU64>) {
    // What sleeps is the link; no assertion looks at the time.
    let mut pace = tokio::time::interval(Duration::from_millis(GULP as u64 * 1_000 / RATE));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0; GULP];
    loop {
        pace.tick().await;
        let Ok(bytes @ 1..) = from.read(&mut buffer).await else { return };
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
        carried.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Two linked nodes, the second one over the thin pipe. An answer is due within a second, which is
/// less than a piece takes.
async fn thin_pair() -> (PeerNode, PeerNode, ThinPipe) {
    let hasty = || {
        config_with(|config| {
            config.liveness.interval = Duration::from_secs(1);
            config.liveness.timeout = Duration::from_secs(1);
        })
    };
    let near = start(PeerNode::builder().config(hasty())).await;
    let pipe = ThinPipe::before(&near);
    let far = hasty();
    // Not by the record of the other node: there is no way around the pipe.
    let builder = PeerNode::builder().config(far).bootstrap([pipe.address.to_string()]);
    let far = start(builder).await;
    ready(&near, 1).await;
    ready(&far, 1).await;
    (near, far, pipe)
}

#[tokio::test(flavor = "multi_thread")]
async fn small_ones_wait_for_one_piece_of_bulk() {
    let (near, far, pipe) = thin_pair().await;
    let mut bulk = far.subscribe("bulk", StartAt::Now).await.unwrap();
    let mut small = far.subscribe("small", StartAt::Now).await.unwrap();
    let before = pipe.back();
    near.publish("bulk", noise(1, 5 * PIECE_BYTES)).await.unwrap();
    // The buffers between the nodes have what they get.
    soon("bulk flows", async {
        while pipe.back() < before + 16 * 1024 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for n in 0..3 {
        let before = pipe.back();
        let receipt = near.publish("small", noise(n, 200)).await.unwrap();
        assert_eq!(next(&mut small).await.transaction.id(), receipt.id());
        let ahead = pipe.back() - before;
        // With its proof, in HTTP/2 and TLS.
        assert!(ahead < PIECE_BYTES as u64 + 8 * 1024, "{ahead} bytes were before it");
    }
    next(&mut bulk).await;
    for node in [&near, &far] {
        let counters = counters(node).await;
        assert_eq!((counters.links_closed, counters.pings_missed), (0, 0), "{counters:?}");
    }
    assert_eq!(counters(&near).await.pieces_sent, 5, "each piece once");
    stop(&far).await;
    stop(&near).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_full_both_ways_stays_up() {
    let (near, far, _pipe) = thin_pair().await;
    let nodes = [&near, &far];
    let mut bulk = Vec::new();
    for node in nodes {
        bulk.push(node.subscribe("bulk", StartAt::Now).await.unwrap());
    }
    for (n, node) in nodes.into_iter().enumerate() {
        node.publish("bulk", noise(n as u64, 3 * PIECE_BYTES)).await.unwrap();
    }
    for subscription in &mut bulk {
        // The own one and that of the other node.
        next(subscription).await;
        next(subscription).await;
    }
    for node in nodes {
        let counters = counters(node).await;
        assert_eq!((counters.links_closed, counters.pings_missed), (0, 0), "{counters:?}");
        assert_eq!(counters.pieces_sent, 3, "each piece once");
    }
    stop(&far).await;
    stop(&near).await;
}
