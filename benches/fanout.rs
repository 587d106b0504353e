//! One transaction to 1, 4, 8 and 16 linked peers, beside the floor under it.
//!
//! `cargo bench --bench fanout` (`-- --quick` for a short run, a word to pick rows)
//!
//! A hub publishes; each peer is linked to the hub only. One iteration publishes a burst and ends
//! when a subscriber at every peer has all of it, so a row is deliveries per second (and bytes per
//! second) through signing, checking, framing, transport, log and subscription:
//!
//! - `memory` and `grpc`: nodes over the memory transport, and over gRPC with mutual TLS;
//! - `raw-channel` and `raw-stream`: the same bytes as frames over bare links of the same
//!   transports: no signature, no hash, no log. These are the floor.
//!
//! After each pair of rows a line gives the CPU time of the whole process per delivery for both, and
//! for nodes with signatures off, and their ratios to the floor, taken within seconds of each other:
//! the machine may be noisy, ratios are less so. It also says what each costs as part of a trace.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use futures::future::join_all;
use futures::{Sink, SinkExt, Stream, StreamExt};
use sorcha_peer::config::SignaturePolicy;
use sorcha_peer::error::{PublishError, TransportError};
use sorcha_peer::ports::{Accepted, Transport};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport, MemoryNetwork};
use sorcha_peer::{
    Config, Endpoint, Identity, Item, PeerNode, Receipt, StartAt, Storage, Subscription,
};
use sorcha_peer_benches::{cpu_seconds, is_smoke};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const SIZES: [(usize, &str); 4] =
    [(256, "256B"), (1024, "1KiB"), (16 * 1024, "16KiB"), (256 * 1024, "256KiB")];
const PEERS: [usize; 4] = [1, 4, 8, 16];
const TOPIC: &str = "bench";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Halves of a link, as transports hand them over.
type FrameSink = Pin<Box<dyn Sink<Bytes, Error = TransportError> + Send>>;
type FrameStream = Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>;

/// Transactions in one burst: about 2 MiB, so that the largest fan-out stays in memory.
fn burst(size: usize) -> usize {
    ((2 << 20) / size).clamp(8, 256)
}

#[derive(Debug, Clone, Copy)]
enum Carrier {
    Memory,
    Grpc,
}

impl Carrier {
    /// Names of the node's row and of the floor's.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Memory => ("memory", "raw-channel"),
            Self::Grpc => ("grpc", "raw-stream"),
        }
    }

    fn transports(self, identities: &[Identity]) -> Vec<Arc<dyn Transport>> {
        let network = MemoryNetwork::new();
        let make = |identity: &Identity| -> Arc<dyn Transport> {
            match self {
                Self::Memory => Arc::new(network.transport(identity.peer_id())),
                Self::Grpc => {
                    let options = GrpcOptions::from_config(&Config::default());
                    Arc::new(GrpcTransport::new(identity.clone(), options).expect("a transport"))
                }
            }
        };
        identities.iter().map(make).collect()
    }
}

fn identities(count: usize) -> Vec<Identity> {
    (0..count).map(|_| Identity::generate().expect("random bytes")).collect()
}

/// A hub and its peers, a subscription at every peer.
struct Star {
    hub: PeerNode,
    _peers: Vec<PeerNode>,
    inboxes: Vec<Subscription>,
    /// True: everything is part of a trace.
    traces: bool,
}

impl Star {
    async fn new(carrier: Carrier, peers: usize, signatures: SignaturePolicy) -> Self {
        let identities = identities(peers + 1);
        let mut config = Config::default();
        config.network.signatures = signatures;
        config.outbox.max_entries = 100_000;
        let mut nodes: Vec<PeerNode> = Vec::new();
        for (identity, transport) in identities.iter().zip(carrier.transports(&identities)) {
            let builder = PeerNode::builder()
                .config(config.clone())
                .identity(identity.clone())
                .transaction_store(Storage::memory_transactions(Some(8 << 30)))
                .transport(transport);
            // Peers that do not listen cannot link among themselves: a star.
            let hub = nodes.first().and_then(PeerNode::listen_addr);
            let builder = match hub {
                None => builder.listen("127.0.0.1:0"),
                Some(hub) => builder.dial_only().bootstrap([hub.to_string()]),
            };
            nodes.push(builder.start().await.expect("a node"));
        }
        let hub = nodes.remove(0);
        let links = u32::try_from(peers).expect("few");
        hub.wait_ready(links, Duration::from_mins(1)).await.expect("links");
        let subscribe = nodes.iter().map(|node| node.subscribe(TOPIC, StartAt::Now));
        let inboxes = join_all(subscribe).await.into_iter().map(|s| s.expect("a subscription"));
        Self { hub, inboxes: inboxes.collect(), _peers: nodes, traces: false }
    }

    /// Publishes `count` payloads and waits until every peer has delivered them.
    async fn spread(&mut self, payload: &Bytes, count: usize) {
        let publish = futures::stream::iter(0..count)
            .map(|_| publish(&self.hub, payload.clone(), self.traces))
            .buffered(64)
            .for_each(|receipt| async move {
                receipt.expect("accepted");
            });
        let receive = join_all(self.inboxes.iter_mut().map(|inbox| async move {
            for _ in 0..count {
                let item = inbox.next().await.expect("a running node");
                assert!(matches!(item, Item::Delivery(_)), "{item:?}");
            }
        }));
        futures::join!(publish, receive);
    }
}

async fn publish(hub: &PeerNode, payload: Bytes, traces: bool) -> Result<Receipt, PublishError> {
    if traces {
        hub.publish_traced(TOPIC, payload, TRACEPARENT).await
    } else {
        hub.publish(TOPIC, payload).await
    }
}

/// Bare links from a hub to its peers.
struct RawStar {
    out: Vec<FrameSink>,
    back: Vec<FrameStream>,
    /// Halves that nothing travels on; dropped, they would close the link.
    idle: Vec<(FrameSink, FrameStream)>,
}

impl RawStar {
    async fn new(carrier: Carrier, peers: usize) -> Self {
        let transports = carrier.transports(&identities(2));
        let bind = "127.0.0.1:0".parse().expect("an address");
        let mut listener = transports[0].listen(bind).await.expect("a listener");
        let endpoint = Endpoint::from(listener.local_addr());
        let mut star = Self { out: Vec::new(), back: Vec::new(), idle: Vec::new() };
        for _ in 0..peers {
            let dial = transports[1].dial(&endpoint, None);
            let (accepted, dialled) = futures::join!(listener.accept(), dial);
            let Accepted::Link(hub) = accepted else { panic!("{accepted:?}") };
            let peer = dialled.expect("a link");
            star.out.push(hub.sink);
            star.back.push(peer.stream);
            star.idle.push((peer.sink, hub.stream));
        }
        star
    }

    /// Sends `count` payloads to every peer, as many to a frame as a node puts there.
    async fn spread(&mut self, payload: &Bytes, count: usize) {
        let per_frame = (64 * 1024 / payload.len()).clamp(1, count);
        let frames = count.div_ceil(per_frame);
        let frame = Bytes::from(payload.repeat(per_frame));
        let send = join_all(self.out.iter_mut().map(|sink| {
            let frame = frame.clone();
            async move {
                for _ in 0..frames {
                    sink.send(frame.clone()).await.expect("sent");
                }
            }
        }));
        let receive = join_all(self.back.iter_mut().map(|stream| async move {
            for _ in 0..frames {
                stream.next().await.expect("a frame").expect("a frame");
            }
        }));
        futures::join!(send, receive);
    }
}

/// CPU microseconds per delivery, over about a second of bursts.
fn cpu_per_delivery(deliveries: usize, burst: &mut dyn FnMut()) -> f64 {
    burst();
    let (cpu, start) = (cpu_seconds("self"), Instant::now());
    let mut bursts = 0;
    while start.elapsed() < Duration::from_secs(1) {
        burst();
        bursts += 1;
    }
    (cpu_seconds("self") - cpu) * 1e6 / (bursts * deliveries) as f64
}

fn pair(
    criterion: &mut Criterion,
    runtime: &Runtime,
    carrier: Carrier,
    size: (usize, &str),
    peers: usize,
) {
    let (bytes, label) = size;
    let count = burst(bytes);
    let payload = Bytes::from(vec![7; bytes]);
    let (name, floor_name) = carrier.names();
    let mut star = runtime.block_on(Star::new(carrier, peers, SignaturePolicy::Required));
    let mut raw = runtime.block_on(RawStar::new(carrier, peers));
    let mut node = || runtime.block_on(star.spread(&payload, count));
    let mut floor = || runtime.block_on(raw.spread(&payload, count));
    let deliveries = count * peers;
    for (name, burst) in [(name, &mut node as &mut dyn FnMut()), (floor_name, &mut floor)] {
        let mut group = criterion.benchmark_group(name);
        let (elements, bytes) = (deliveries as u64, (deliveries * bytes) as u64);
        group.sample_size(10).throughput(Throughput::ElementsAndBytes { elements, bytes });
        group.bench_function(BenchmarkId::new(label, peers), |b| b.iter(&mut *burst));
        group.finish();
    }
    let ours = cpu_per_delivery(deliveries, &mut node);
    let least = cpu_per_delivery(deliveries, &mut floor);
    star.traces = true;
    let traced =
        cpu_per_delivery(deliveries, &mut || runtime.block_on(star.spread(&payload, count)));
    let mut star = runtime.block_on(Star::new(carrier, peers, SignaturePolicy::Off));
    let unsigned =
        cpu_per_delivery(deliveries, &mut || runtime.block_on(star.spread(&payload, count)));
    println!(
        "cpu per delivery {name}/{label}/{peers}: {ours:.2} us, traced {traced:.2} us, signatures off \
         {unsigned:.2} us, {floor_name} {least:.2} us; ratios {:.1} and {:.1}",
        ours / least,
        unsigned / least,
    );
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Runtime::new().expect("a runtime");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let picked = |carrier: Carrier, label: &str, peers: usize| {
        let (name, floor) = carrier.names();
        let ids = [format!("{name}/{label}/{peers}"), format!("{floor}/{label}/{peers}")];
        filter.as_ref().is_none_or(|filter| ids.iter().any(|id| id.contains(filter)))
    };
    for carrier in [Carrier::Memory, Carrier::Grpc] {
        for size in SIZES {
            for peers in PEERS.into_iter().take(if is_smoke() { 1 } else { PEERS.len() }) {
                if picked(carrier, size.1, peers) {
                    pair(&mut criterion, &runtime, carrier, size, peers);
                }
            }
        }
    }
    criterion.final_summary();
}
