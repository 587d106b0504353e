//! The ladder of a node over real sockets: rungs that fail in each way, and peers that are gone.
//!
//! Rungs are the real ones behind a gate, which closes as a test wants. What takes minutes is simulated
//! (`src/sim/tests/ladder.rs`), what takes exact times is said to one core
//! (`src/protocol/tests/ladder.rs`).

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use sorcha_peer::error::{ConnectError, FailureKind, TransportError};
use sorcha_peer::ports::{Listener, RawLink, Transport};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::{Config, Endpoint, Event, PeerId, PeerNode, TransportKind};
use tokio::time::Instant;

use crate::common::{
    address, assert_spreads, config, config_with, event, identity, ready, start, start_alone,
    stats, stop, until_peers,
};

const LADDER: [TransportKind; 4] = [
    TransportKind::GrpcStream,
    TransportKind::WebSocket,
    TransportKind::GrpcUnary,
    TransportKind::Rest,
];

/// What becomes of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// Nothing answers.
    BlackHole,
    /// Something answers that it does not do that.
    Refuses,
    /// The connection comes about, and nothing passes.
    Silent,
}

/// A rung whose dials pass a gate.
#[derive(Debug)]
struct Gated {
    inner: GrpcTransport,
    kind: TransportKind,
    gate: Arc<AtomicU8>,
    dials: Arc<Mutex<Vec<(TransportKind, Instant)>>>,
}

#[async_trait]
impl Transport for Gated {
    fn kind(&self) -> TransportKind {
        self.kind
    }

    async fn dial(&self, at: &Endpoint, peer: Option<PeerId>) -> Result<RawLink, TransportError> {
        self.dials.lock().unwrap().push((self.kind, Instant::now()));
        let gate = self.gate.load(Ordering::SeqCst);
        match [Gate::Open, Gate::BlackHole, Gate::Refuses, Gate::Silent][usize::from(gate)] {
            Gate::BlackHole => std::future::pending().await,
            Gate::Refuses => Err(TransportError::new(FailureKind::Protocol, "not here")),
            Gate::Open => self.inner.dial(at, peer).await,
            Gate::Silent => {
                let raw = self.inner.dial(at, peer).await?;
                let address = raw.address;
                // What holds the connection open goes with the link.
                let held = raw.stream;
                let drain = futures::sink::drain().sink_map_err(|never| match never {});
                let silence = futures::stream::pending().chain(held);
                let (sink, stream) = (Box::pin(drain), Box::pin(silence));
                Ok(RawLink::new(raw.remote, self.kind, address, sink, stream))
            }
        }
    }

    async fn listen(&self, bind: SocketAddr) -> Result<Box<dyn Listener>, TransportError> {
        if self.kind == TransportKind::GrpcStream {
            self.inner.listen(bind).await
        } else {
            Err(TransportError::new(FailureKind::Unsupported, "one port is enough"))
        }
    }

    fn shun(&self, address: IpAddr, time: Duration) {
        self.inner.shun(address, time);
    }
}

/// A node with a gate before each of its rungs.
struct Climber {
    node: PeerNode,
    gates: Vec<Arc<AtomicU8>>,
    dials: Arc<Mutex<Vec<(TransportKind, Instant)>>>,
}

impl Climber {
    async fn start(config: Config, gates: [Gate; 4]) -> Self {
        let identity = identity(7);
        let dials = Arc::default();
        let mut builder = PeerNode::builder().identity(identity.clone());
        let options = GrpcOptions::from_config(&config);
        let inner = GrpcTransport::new(identity, options).expect("a transport");
        let gates: Vec<_> =
            gates.map(|gate| Arc::new(AtomicU8::new(gate as u8))).into_iter().collect();
        for (kind, gate) in LADDER.into_iter().zip(&gates) {
            let (gate, dials) = (Arc::clone(gate), Arc::clone(&dials));
            let inner = inner.rung(kind).expect("a rung that is built in");
            builder = builder.transport(Arc::new(Gated { inner, kind, gate, dials }));
        }
        Self { node: start(builder.config(config)).await, gates, dials }
    }

    fn set(&self, kind: TransportKind, gate: Gate) {
        let at = LADDER.iter().position(|rung| *rung == kind).expect("a rung");
        self.gates[at].store(gate as u8, Ordering::SeqCst);
    }

    /// The transport of the link with a peer.
    async fn rung_to(&self, peer: PeerId) -> TransportKind {
        let is_there =
            |peers: &[sorcha_peer::types::LinkStatus]| peers.iter().any(|p| p.peer == peer);
        let peers = until_peers(&self.node, "a link", is_there).await;
        peers.iter().find(|p| p.peer == peer).expect("a link").transport
    }

    /// How long the latest walk took, from its first dial to now.
    fn since_first_dial(&self) -> Duration {
        self.dials.lock().unwrap().first().expect("a dial").1.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_rung_the_next_is_found_soon() {
    let peer = start_alone().await;
    for closed in [Gate::BlackHole, Gate::Refuses, Gate::Silent] {
        for at in 0..3 {
            let mut gates = [Gate::Open; 4];
            gates[..at].fill(Gate::Refuses);
            gates[at] = closed;
            let c = Climber::start(config(), gates).await;
            let found = c.node.connect(&address(&peer)).await.expect("a way");
            // The time is that of the ladder: half a second, or a second for a silent peer.
            let took = c.since_first_dial();
            assert_eq!(found, peer.peer_id());
            assert_eq!(c.rung_to(found).await, LADDER[at + 1], "{closed:?}");
            assert!(took < Duration::from_secs(3), "{closed:?} at {:?}: {took:?}", LADDER[at]);
            let counters = stats(&c.node).await.counters;
            assert_eq!((counters.walks_fallback, counters.walks_failed), (1, 0));
            assert_spreads(&c.node, &peer).await;
            stop(&c.node).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_worked_is_dialled_first_when_the_link_is_gone() {
    let peer = start_alone().await;
    let c = Climber::start(
        config_with(|c| {
            // Else the peer dials back, by the way that it knows.
            c.listen.address = None;
            c.discovery.bootstrap = vec![address(&peer).parse().unwrap()];
        }),
        [Gate::BlackHole, Gate::Refuses, Gate::Open, Gate::Open],
    )
    .await;
    assert_eq!(c.rung_to(peer.peer_id()).await, TransportKind::GrpcUnary);
    let mut events = c.node.events();
    c.dials.lock().unwrap().clear();
    c.set(TransportKind::Rest, Gate::BlackHole);
    peer.disconnect(c.node.peer_id()).await.unwrap();
    let rung = event(&mut events, "the link is back", |event| match event {
        Event::PeerUp { transport, .. } => Some(*transport),
        _ => None,
    })
    .await;
    assert_eq!(rung, TransportKind::GrpcUnary);
    let dials: Vec<_> = c.dials.lock().unwrap().iter().map(|(kind, _)| *kind).collect();
    assert_eq!(dials[0], TransportKind::GrpcUnary, "{dials:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_costs_no_more_than_the_next_rung_takes() {
    let peer = start_alone().await;
    let gates = [Gate::BlackHole, Gate::Open, Gate::Open, Gate::Open];
    let c = Climber::start(config(), gates).await;
    c.node.connect(&address(&peer)).await.expect("a way");
    let dials: Vec<_> = c.dials.lock().unwrap().clone();
    assert_eq!(dials[1].0, TransportKind::WebSocket);
    let between = dials[1].1 - dials[0].1;
    assert!(between >= Duration::from_millis(490), "staggered: {between:?}");
    let counters = stats(&c.node).await.counters;
    assert!(counters.dials_cancelled >= 1, "the black hole is given up, and no failure");
    assert_eq!(counters.dials_failed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_dead_peer_cost_what_its_breaker_lets_through() {
    let witness = start_alone().await;
    let gone = start_alone().await;
    let place = address(&gone);
    let peer = gone.peer_id();
    stop(&gone).await;
    let c = Climber::start(
        config_with(|c| {
            c.discovery.min_healthy_peers = 1;
            c.discovery.bootstrap = vec![address(&witness).parse().unwrap()];
        }),
        [Gate::Open; 4],
    )
    .await;
    ready(&c.node, 1).await;
    let mut events = c.node.events();
    c.dials.lock().unwrap().clear();
    let mut refused = 0;
    for _ in 0..1000 {
        match c.node.connect(&place).await.expect_err("nobody is there") {
            ConnectError::Dial { kind: FailureKind::Unreachable, .. } => {}
            ConnectError::BreakerOpen { retry_in, .. } => {
                assert!(retry_in <= Duration::from_mins(5), "{retry_in:?}");
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    // Nothing listens there, which is so for all rungs.
    assert_eq!((refused, c.dials.lock().unwrap().len()), (995, 5));
    let failures = event(&mut events, "the breaker opened", |event| match event {
        Event::BreakerOpened { address, failures, .. } if address.as_ref() == Some(&place) => {
            Some(*failures)
        }
        _ => None,
    })
    .await;
    let after = stats(&c.node).await;
    assert_eq!((failures, after.open_breakers), (5, 1));
    assert_eq!((after.counters.connects_refused_breaker, after.counters.breakers_opened), (995, 1));
    // Of a peer that nobody knows a breaker cannot be closed; the address is its own.
    c.node.reset_breaker(peer).await.unwrap();
    assert!(matches!(c.node.connect(&place).await, Err(ConnectError::BreakerOpen { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_closes_when_the_peer_is_back_and_dials() {
    let mut earlier = config();
    let peer = start(PeerNode::builder().config(earlier.clone()).identity(identity(9))).await;
    earlier.listen.address = peer.listen_addr();
    let place = address(&peer);
    let c = Climber::start(
        config_with(|c| {
            c.discovery.bootstrap = vec![place.parse().unwrap()];
            // Without links it probes as soon as the back-off ends, which is to take long here.
            c.overlay.redial_max = Duration::from_hours(1);
            c.overlay.redial_min = Duration::from_mins(1);
        }),
        [Gate::Open; 4],
    )
    .await;
    ready(&c.node, 1).await;
    let mut events = c.node.events();
    stop(&peer).await;
    event(&mut events, "the peer is down", |e| matches!(e, Event::PeerDown { .. }).then_some(()))
        .await;
    for _ in 0..5 {
        c.node.connect(&place).await.expect_err("nobody is there");
    }
    assert!(matches!(c.node.connect(&place).await, Err(ConnectError::BreakerOpen { .. })));
    assert_eq!(stats(&c.node).await.open_breakers, 1);
    earlier.discovery.bootstrap = vec![address(&c.node).parse().unwrap()];
    let again = start(PeerNode::builder().config(earlier).identity(identity(9))).await;
    event(&mut events, "the breaker closed", |event| match event {
        Event::BreakerClosed { address, .. } if address.as_ref() == Some(&place) => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(stats(&c.node).await.open_breakers, 0);
    assert_spreads(&c.node, &again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_calls_at_once_for_one_address_are_one_dial() {
    let peer = start_alone().await;
    let gates = [Gate::BlackHole, Gate::Open, Gate::Open, Gate::Open];
    let c = Climber::start(config_with(|c| c.overlay.dial_target = 1), gates).await;
    let place = address(&peer);
    let calls = (0..2000).map(|_| c.node.connect(&place));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(id) if *id == peer.peer_id())));
    // The first come in one walk; whoever calls after its end begins another.
    let walks = stats(&c.node).await.counters.walks_started;
    assert!(walks <= 3, "{walks}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rung_alone_carries_a_node() {
    for kind in LADDER {
        let peer = start_alone().await;
        let only = PeerNode::builder().config(config()).transports([kind]).dial_only();
        let node = start(only.bootstrap([address(&peer)])).await;
        ready(&node, 1).await;
        let seen = node.peers().await.unwrap();
        assert_eq!((seen.len(), seen[0].transport), (1, kind));
        let shown = peer.peers().await.unwrap();
        assert_eq!(shown[0].transport, kind, "both ends say so");
        assert_spreads(&node, &peer).await;
        stop(&node).await;
        stop(&peer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_is_named_and_not_there_ends_the_start() {
    let error = PeerNode::builder().config(config()).transports([TransportKind::Custom]);
    let error = error.start().await.unwrap_err().to_string();
    assert!(error.starts_with("connection.transports is custom"), "{error}");
}
