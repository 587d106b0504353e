//! Suite for every [`Transport`].
//!
//! ```
//! # use sorcha_peer::PeerId;
//! # use sorcha_peer::transport::MemoryNetwork;
//! use sorcha_peer::testing::{TransportNode, transport};
//! let network = MemoryNetwork::new();
//! let node = |id| TransportNode::new(id, network.transport(id));
//! let (a, b) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
//! futures::executor::block_on(transport(&node(a), &node(b), "127.0.0.1:0".parse().unwrap()));
//! ```
//!
//! The suite knows no runtime: it is a future that panics with what is wrong. It has no time-outs
//! either, so put one around it; a transport that hangs hangs it. Where the transport is over TCP, the
//! suite also plays a stranger who says nothing, and one who plays back what another said: neither may
//! be taken for a peer, nor delay one. What the suite cannot see from outside is that a stream refuses a
//! frame above the maximum *before* buffering it: a sink of the same transport sends none.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures::future::{join, join_all, select};
use futures::{FutureExt, SinkExt, StreamExt};

use crate::error::{FailureKind, TransportError};
use crate::ports::{Accepted, FrameSink, Listener, RawLink, Transport};
use crate::types::{Endpoint, MAX_FRAME_BYTES, PeerId};

use super::strangers;

/// A transport under test and the id that it proves to others.
#[derive(Debug)]
#[non_exhaustive]
pub struct TransportNode {
    /// The transport.
    pub transport: Box<dyn Transport>,
    /// The id that peers must see.
    pub id: PeerId,
    /// False: the transport states ids and proves none, and says so to its users.
    pub proves_ids: bool,
}

impl TransportNode {
    /// A transport that proves `id` to others.
    pub fn new(id: PeerId, transport: impl Transport) -> Self {
        Self { transport: Box::new(transport), id, proves_ids: true }
    }

    /// Makes a node of a transport that is meant to prove nothing, as one for tests, or for paths that
    /// something else protects. What the suite asks of proofs is left out.
    pub fn unproven(id: PeerId, transport: impl Transport) -> Self {
        Self { proves_ids: false, ..Self::new(id, transport) }
    }

    /// The next link that comes in; connections that fail meanwhile are skipped.
    ///
    /// # Panics
    /// When the listener closes, or after many failures.
    pub async fn accept(listener: &mut Box<dyn Listener>) -> RawLink {
        for _ in 0..MAX_FAILURES {
            match listener.accept().await {
                Accepted::Link(link) => return link,
                Accepted::Failed { .. } => {}
                Accepted::Closed => panic!("the listener closed by itself"),
            }
        }
        panic!("{MAX_FAILURES} connections failed in a row");
    }

    /// Frames pass both ways.
    ///
    /// # Panics
    /// When they do not.
    pub async fn assert_open(mut a: RawLink, mut b: RawLink) {
        for i in 0..2 {
            let frame = pattern(i, 3000);
            let (sent, got) = join(a.sink.send(frame.clone()), b.stream.next()).await;
            sent.expect("an open link takes a frame");
            assert!(got.expect("an open link").expect("a frame") == frame, "frame {i} changed");
            std::mem::swap(&mut a, &mut b);
        }
    }
}

/// Most bytes that a transport may take for a peer that reads nothing: its own buffers, the
/// kernel's on both sides, and the peer's. Above, it has no bound.
const MAX_BYTES_IN_FLIGHT: usize = 32 * MAX_FRAME_BYTES;

/// Polls without progress after which a sink counts as stuck.
const PATIENCE: u32 = 2_000;
/// Connections that may fail to come in before a link that was dialled does.
const MAX_FAILURES: usize = 64;

/// Runs the whole suite: `dialler` dials, `listener` listens on `bind`, whose port must be 0.
///
/// # Panics
/// When the transport does not do what the port demands; the message says what.
pub async fn transport(dialler: &TransportNode, listener: &TransportNode, bind: SocketAddr) {
    frames_arrive_whole_and_in_order(dialler, listener, bind).await;
    strangers::conformance(dialler, listener, bind).await;
    largest_frame_passes_and_larger_is_refused(dialler, listener, bind).await;
    slow_reader_holds_the_writer_back(dialler, listener, bind).await;
    for dialler_drops in [true, false] {
        let fresh = async || {
            let (a, b, socket) = open(dialler, listener, bind).await;
            if dialler_drops { (a, b, socket) } else { (b, a, socket) }
        };
        let (dropper, other, _socket) = fresh().await;
        dropped_sink_ends_one_direction(dropper, other).await;
        let (dropper, other, _socket) = fresh().await;
        dropped_link_ends_both_directions(dropper, other).await;
    }
    unexpected_identity_is_refused(dialler, listener, bind).await;
    closed_port_is_unreachable(dialler, listener, bind).await;
    taken_address_is_a_local_failure(listener, bind).await;
    cancelled_dial_leaves_nothing(dialler, listener, bind).await;
    dropped_accept_loses_nothing(dialler, listener, bind).await;
    many_links_at_once(dialler, listener, bind).await;
    links_outlive_their_listener(dialler, listener, bind).await;
}

/// Both sides see whom they talk to, and frames of all sizes, empty ones too, arrive once, whole
/// and in order, in both directions.
///
/// # Panics
/// When they do not.
async fn frames_arrive_whole_and_in_order(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) {
    let (a, b, _listener) = open(dialler, listener, bind).await;
    let frames: Vec<Bytes> =
        (0..200_usize).map(|i| pattern(i, [0, 1, 5, 1000, 16_384, 70_000][i % 6])).collect();
    let (mut a_sink, mut a_stream) = (a.sink, a.stream);
    let (mut b_sink, mut b_stream) = (b.sink, b.stream);
    let send = async {
        for frame in &frames {
            a_sink.send(frame.clone()).await.expect("a sink takes a frame");
        }
    };
    let echo = async {
        for _ in &frames {
            let frame = b_stream.next().await.expect("a frame, not the end").expect("a frame");
            b_sink.send(frame).await.expect("a sink takes a frame");
        }
    };
    let check = async {
        for (i, sent) in frames.iter().enumerate() {
            let back = a_stream.next().await.expect("a frame, not the end").expect("a frame");
            assert!(back == *sent, "frame {i} came back as {} bytes", back.len());
        }
    };
    join(join(send, echo), check).await;
}

/// A frame of exactly [`MAX_FRAME_BYTES`] passes; one byte more is refused as malformed.
///
/// # Panics
/// When it is not so.
async fn largest_frame_passes_and_larger_is_refused(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) {
    let (mut a, mut b, _listener) = open(dialler, listener, bind).await;
    let largest = pattern(1, MAX_FRAME_BYTES);
    let (sent, got) = join(a.sink.send(largest.clone()), b.stream.next()).await;
    sent.expect("the largest frame is sent");
    let got = got.expect("the largest frame, not the end").expect("the largest frame");
    assert!(got == largest, "the largest frame changed on its way");
    let refused = a.sink.send(pattern(1, MAX_FRAME_BYTES + 1)).await;
    assert_eq!(kind_of(refused), Some(FailureKind::Malformed), "an oversize frame");
}

/// The sink of a peer that does not read stops being ready within [`MAX_BYTES_IN_FLIGHT`], and is
/// ready again once the peer reads.
///
/// # Panics
/// When the sink takes more.
async fn slow_reader_holds_the_writer_back(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) {
    let (mut a, mut b, _listener) = open(dialler, listener, bind).await;
    let frame = pattern(7, 64 * 1024);
    let mut sent = 0;
    let mut idle = 0;
    while idle < PATIENCE {
        let ready = poll_fn(|cx| Poll::Ready(a.sink.as_mut().poll_ready(cx))).await;
        match ready {
            Poll::Ready(ready) => {
                ready.expect("the link is open");
                a.sink.as_mut().start_send(frame.clone()).expect("a ready sink takes a frame");
                sent += 1;
                idle = 0;
                assert!(
                    sent * frame.len() <= MAX_BYTES_IN_FLIGHT,
                    "{sent} frames of 64 KiB taken for a peer that reads nothing"
                );
            }
            Poll::Pending => idle += 1,
        }
        yield_now().await;
    }
    let drain = async {
        for _ in 0..sent {
            let got = b.stream.next().await.expect("a frame, not the end").expect("a frame");
            assert!(got == frame, "a frame changed on its way");
        }
    };
    let flush = async { a.sink.flush().await.expect("the link is open") };
    join(flush, drain).await;
    let (sent, got) = join(a.sink.send(frame.clone()), b.stream.next()).await;
    sent.expect("the sink is ready again");
    assert!(got.expect("a frame, not the end").expect("a frame") == frame);
}

/// A dropped sink ends the peer's stream after what was sent; the other direction goes on.
///
/// # Panics
/// When it does not.
async fn dropped_sink_ends_one_direction(mut dropper: RawLink, mut other: RawLink) {
    for i in 0..3 {
        dropper.sink.send(pattern(i, 1000)).await.expect("a sink takes a frame");
    }
    drop(dropper.sink);
    for i in 0..3 {
        let got = other.stream.next().await.expect("what was sent before").expect("a frame");
        assert!(got == pattern(i, 1000), "frame {i} changed on its way");
    }
    assert_ended(other.stream.next().await);
    for i in 0..3 {
        let frame = pattern(i, 1000);
        let (sent, got) = join(other.sink.send(frame.clone()), dropper.stream.next()).await;
        sent.expect("the other direction is open");
        let got = got.expect("the other direction is open").expect("a frame");
        assert!(got == frame, "frame {i} changed on its way");
    }
}

/// A link that one side dropped, both halves, is closed for the other side too; what was sent
/// before still arrives.
///
/// # Panics
/// When it stays open.
async fn dropped_link_ends_both_directions(mut dropper: RawLink, mut other: RawLink) {
    dropper.sink.send(pattern(9, 5000)).await.expect("a sink takes a frame");
    drop(dropper);
    let got = other.stream.next().await.expect("what was sent before").expect("a frame");
    assert!(got == pattern(9, 5000), "the frame changed on its way");
    assert_ended(other.stream.next().await);
    assert!(other.stream.next().await.is_none(), "a stream goes on after its end");
    assert_closes(&mut other.sink).await;
}

/// A dial that expects somebody else fails with `Identity`.
///
/// # Panics
/// When it does not.
async fn unexpected_identity_is_refused(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) {
    let mut socket = listen(listener, bind).await;
    let endpoint = Endpoint::from(socket.local_addr());
    let dial = dialler.transport.dial(&endpoint, Some(dialler.id));
    let error = while_accepting(&mut socket, dial).await.expect_err("somebody else was expected");
    assert_eq!(error.kind, FailureKind::Identity, "{error}");
    // The listener is none the worse for it.
    let (a, b) = connect(dialler, listener, &mut socket).await;
    TransportNode::assert_open(a, b).await;
}

/// Nobody listens: `Unreachable`.
///
/// # Panics
/// When the dial ends otherwise.
async fn closed_port_is_unreachable(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) {
    let socket = listen(listener, bind).await;
    let endpoint = Endpoint::from(socket.local_addr());
    drop(socket);
    let error = dialler.transport.dial(&endpoint, None).await.expect_err("nobody listens");
    assert_eq!(error.kind, FailureKind::Unreachable, "{error}");
}

/// An address that is in use cannot be listened on.
///
/// # Panics
/// When it can.
async fn taken_address_is_a_local_failure(listener: &TransportNode, bind: SocketAddr) {
    let socket = listen(listener, bind).await;
    let again = listener.transport.listen(socket.local_addr()).await;
    let error = again.expect_err("the address is taken");
    assert_eq!(error.kind, FailureKind::Local, "{error}");
}

/// A dial that is dropped, at whatever point, leaves nothing that looks like an open link, and a
/// listener that serves others.
///
/// # Panics
/// When it does.
async fn cancelled_dial_leaves_nothing(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) {
    let mut socket = listen(listener, bind).await;
    let endpoint = Endpoint::from(socket.local_addr());
    for polls in [1, 2, 3, 10] {
        {
            let mut dial = pin!(dialler.transport.dial(&endpoint, None));
            for _ in 0..polls {
                if poll_fn(|cx| Poll::Ready(dial.as_mut().poll(cx))).await.is_ready() {
                    break;
                }
                yield_now().await;
            }
        }
        let mut kept = Vec::new();
        let (a, b) = connect_among(dialler, listener, &mut socket, &mut kept).await;
        TransportNode::assert_open(a, b).await;
        for mut stray in kept {
            assert_ended(stray.stream.next().await);
        }
    }
}

/// A call of `accept` that is dropped, at whatever point, takes no connection with it.
///
/// # Panics
/// When it does.
async fn dropped_accept_loses_nothing(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) {
    const LOST: &str = "a call of `accept` that was dropped took a connection with it";
    let mut socket = listen(listener, bind).await;
    let endpoint = Endpoint::from(socket.local_addr());
    let mut dial = pin!(dialler.transport.dial(&endpoint, Some(listener.id)));
    let (mut ours, mut theirs) = (None, None);
    while ours.is_none() || theirs.is_none() {
        if ours.is_none()
            && let Poll::Ready(link) = poll_fn(|cx| Poll::Ready(dial.as_mut().poll(cx))).await
        {
            ours = Some(link.unwrap_or_else(|error| panic!("{LOST}: {error}")));
        }
        if theirs.is_none() {
            // Polled once, and dropped.
            let mut accept = pin!(socket.accept());
            match poll_fn(|cx| Poll::Ready(accept.as_mut().poll(cx))).await {
                Poll::Ready(Accepted::Link(link)) => theirs = Some(link),
                Poll::Ready(Accepted::Failed { error, .. }) => panic!("{LOST}: {error}"),
                Poll::Ready(Accepted::Closed) => panic!("the listener closed by itself"),
                Poll::Pending => {}
            }
        }
        yield_now().await;
    }
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
        TransportNode::assert_open(ours, theirs).await;
    }
}

/// Several links between the same two nodes are independent: each has its own frames and, where the
/// transport gives one, its own binding, which both ends see.
///
/// # Panics
/// When they are not.
async fn many_links_at_once(dialler: &TransportNode, listener: &TransportNode, bind: SocketAddr) {
    const LINKS: usize = 8;
    let mut socket = listen(listener, bind).await;
    let endpoint = Endpoint::from(socket.local_addr());
    let dials = join_all((0..LINKS).map(|i| {
        let endpoint = &endpoint;
        async move {
            let mut link = dialler.transport.dial(endpoint, Some(listener.id)).await?;
            link.sink.send(pattern(i, 10_000)).await?;
            Ok::<_, TransportError>(link)
        }
    }));
    let accepts = async {
        let mut links = Vec::new();
        while links.len() < LINKS {
            links.push(TransportNode::accept(&mut socket).await);
        }
        links
    };
    let (dialled, mut accepted) = join(dials, accepts).await;
    let dialled: Vec<_> = dialled.into_iter().map(|link| link.expect("a link")).collect();
    let (mut seen, mut bindings) = (BTreeSet::new(), BTreeSet::new());
    for link in &mut accepted {
        let got = link.stream.next().await.expect("a frame, not the end").expect("a frame");
        let which = (0..LINKS).find(|&i| got == pattern(i, 10_000)).expect("a frame of ours");
        assert!(seen.insert(which), "frame {which} came twice");
        assert_eq!(dialled[which].remote, listener.id);
        assert_eq!(dialled[which].binding, link.binding, "both ends have the same binding");
        if let Some(binding) = link.binding {
            assert!(bindings.insert(binding), "two links have the same binding");
        }
    }
}

/// A dropped listener closes none of the links it handed over.
///
/// # Panics
/// When it does.
async fn links_outlive_their_listener(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) {
    let (a, b, socket) = open(dialler, listener, bind).await;
    drop(socket);
    TransportNode::assert_open(a, b).await;
}

pub(super) async fn listen(node: &TransportNode, bind: SocketAddr) -> Box<dyn Listener> {
    let listener = node.transport.listen(bind).await.expect("a free port");
    assert_ne!(listener.local_addr().port(), 0, "the address must be the one really bound");
    listener
}

/// A fresh listener and a link to it: the dialler's end first.
async fn open(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) -> (RawLink, RawLink, Box<dyn Listener>) {
    let mut socket = listen(listener, bind).await;
    let (a, b) = connect(dialler, listener, &mut socket).await;
    (a, b, socket)
}

async fn connect(
    dialler: &TransportNode,
    listener: &TransportNode,
    socket: &mut Box<dyn Listener>,
) -> (RawLink, RawLink) {
    connect_among(dialler, listener, socket, &mut Vec::new()).await
}

/// A link, where links of dials that were cancelled may come in first and go to `strays`.
pub(super) async fn connect_among(
    dialler: &TransportNode,
    listener: &TransportNode,
    socket: &mut Box<dyn Listener>,
    strays: &mut Vec<RawLink>,
) -> (RawLink, RawLink) {
    const GREETING: &[u8] = b"the link that is meant";
    let endpoint = Endpoint::from(socket.local_addr());
    let dial = async {
        let dialled = dialler.transport.dial(&endpoint, Some(listener.id)).await;
        let mut dialled = dialled.unwrap_or_else(|e| panic!("a dial failed: {e} ({e:?})"));
        dialled.sink.send(Bytes::from_static(GREETING)).await.expect("an open link");
        dialled
    };
    let find = async {
        loop {
            let mut link = TransportNode::accept(socket).await;
            match link.stream.next().await {
                Some(Ok(greeting)) if greeting == GREETING => return link,
                _ => strays.push(link),
            }
        }
    };
    let (a, b) = join(dial, find).await;
    assert_eq!(a.remote, listener.id, "whom the dialler sees");
    assert_eq!(b.remote, dialler.id, "whom the listener sees");
    assert_eq!(a.kind, dialler.transport.kind());
    assert_eq!(b.kind, listener.transport.kind());
    (a, b)
}

/// Drives a listener for as long as `work` takes.
async fn while_accepting<T>(
    listener: &mut Box<dyn Listener>,
    work: impl Future<Output = T> + Unpin,
) -> T {
    let serve = async {
        loop {
            let _ = listener.accept().await;
        }
    };
    match select(work, serve.boxed()).await {
        futures::future::Either::Left((done, _)) => done,
        futures::future::Either::Right((never, _)) => never,
    }
}

fn kind_of<T>(result: Result<T, TransportError>) -> Option<FailureKind> {
    result.err().map(|error| error.kind)
}

/// The end of a stream: nothing more, or an error that says that the link is closed.
fn assert_ended(item: Option<Result<Bytes, TransportError>>) {
    match item {
        None => {}
        Some(Err(error)) => assert_eq!(error.kind, FailureKind::Closed, "{error}"),
        Some(Ok(frame)) => panic!("{} bytes after the end", frame.len()),
    }
}

/// A sink whose peer is gone says so before it took much more.
async fn assert_closes(sink: &mut FrameSink) {
    let frame = pattern(3, 64 * 1024);
    for _ in 0..MAX_BYTES_IN_FLIGHT / frame.len() {
        if let Err(error) = sink.send(frame.clone()).await {
            assert_eq!(error.kind, FailureKind::Closed, "{error}");
            return;
        }
        yield_now().await;
    }
    panic!("the sink takes frames for a peer that is gone");
}

/// Lets others run, whatever the runtime.
pub(super) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// `length` bytes that differ from those of another `seed`.
fn pattern(seed: usize, length: usize) -> Bytes {
    let byte = |i: usize| u8::try_from((seed * 31 + i * 7 + i / 251) % 256).unwrap_or_default();
    (0..length).map(byte).collect()
}
