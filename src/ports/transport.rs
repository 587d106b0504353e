//! Ways to carry frames between two processes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Sink, Stream};

use crate::error::TransportError;
use crate::types::{Endpoint, PeerId, TransportKind};

/// Sending half of a link.
pub(crate) type FrameSink = Pin<Box<dyn Sink<Bytes, Error = TransportError> + Send>>;

/// Receiving half of a link.
pub(crate) type FrameStream = Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>;

/// Open link as a transport hands it over, before the node's own hello.
#[non_exhaustive]
pub struct RawLink {
    /// The peer at the other end, *as proven by the transport*; never what the peer claims.
    pub remote: PeerId,
    /// The kind of transport that carries it.
    pub kind: TransportKind,
    /// The remote socket address, where there is one; `None` where a proxy stands between, whose address
    /// is not the peer's.
    pub address: Option<SocketAddr>,
    /// The frames to the peer. One item is one frame, at most [`RawLink::MAX_FRAME_BYTES`] long; frames
    /// arrive whole, in order, once, or the link ends. `poll_ready` must apply back-pressure: so the node
    /// learns that a peer is slow. Dropping the sink closes this direction.
    pub sink: Pin<Box<dyn Sink<Bytes, Error = TransportError> + Send>>,
    /// The frames from the peer. The stream ends after the peer closed its direction, and yields an
    /// error last when the transport broke. It must refuse a frame above
    /// [`RawLink::MAX_FRAME_BYTES`] *before* buffering it.
    pub stream: Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>,
    /// Count of bytes read from the connection, raised as they come, long before their frame is
    /// complete; `None` where the transport cannot tell. A peer whose large frame takes its time on
    /// a thin link is known to live by it.
    pub received: Option<Arc<AtomicU64>>,
    /// Count of bytes that the operating system took for the connection, raised as it takes them;
    /// `None` where the transport cannot tell.
    pub taken: Option<Arc<AtomicU64>>,
    /// Value that both ends of this link have and no other link ever has, such as keying material
    /// that TLS exports (RFC 9266); `None` where there is none. With
    /// [`Trust::Secret`](crate::config::Trust) a link without one is refused, since a proof could be
    /// taken from one link to another.
    pub binding: Option<[u8; 32]>,
    /// Notice that what carries the link takes nothing new any more and is about to be closed, though the
    /// link goes on until then, as HTTP/2 says by GOAWAY; `None` where the transport cannot tell. The node
    /// that dialled then goes over to another connection, and the end of this one is no failure. It has to
    /// be cheap to poll: that happens with every frame.
    pub leaving: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// True: the remote's key is certified by the CA of [`Trust::Ca`](crate::config::Trust). With
    /// that trust a link without it is refused.
    pub certified: bool,
}

impl RawLink {
    /// Maximum number of bytes in a frame.
    pub const MAX_FRAME_BYTES: usize = crate::types::MAX_FRAME_BYTES;

    /// A link to `remote`, which the transport has proven. It counts no bytes: set
    /// [`RawLink::received`] and [`RawLink::taken`] where that is known.
    pub fn new(
        remote: PeerId,
        kind: TransportKind,
        address: Option<SocketAddr>,
        sink: Pin<Box<dyn Sink<Bytes, Error = TransportError> + Send>>,
        stream: Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>,
    ) -> Self {
        Self {
            remote,
            kind,
            address,
            sink,
            stream,
            binding: None,
            certified: false,
            leaving: None,
            received: None,
            taken: None,
        }
    }

    /// The same link, bound by a value that both of its ends have and no other link ever has.
    #[must_use]
    pub fn with_binding(mut self, binding: [u8; 32]) -> Self {
        self.binding = Some(binding);
        self
    }
}

impl fmt::Debug for RawLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawLink")
            .field("remote", &self.remote)
            .field("kind", &self.kind)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Way to reach peers.
///
/// The node dials up to `discovery.max_concurrent` addresses at once, and beside that those that
/// the host asks for by `PeerNode::connect`. The node gives up, by dropping the future, after
/// `connection.connect_timeout` and `connection.handshake_timeout` together; of several transports
/// each is tried within that time, in the order in which they were given to the builder. Every link
/// is driven by a task of its own.
///
/// Wrong ways to implement it: believing an id that the remote merely states; returning from
/// `dial` before the remote's identity is proven; buffering without bound in the sink.
///
/// `examples/custom_transport.rs` is one over plain TCP. What a node does with a transport, by hand:
///
/// ```
/// use futures::{SinkExt, StreamExt};
/// use sorcha_peer::ports::{Accepted, Transport};
/// use sorcha_peer::transport::MemoryNetwork;
/// use sorcha_peer::{Endpoint, Identity};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = MemoryNetwork::new();
/// let (here, there) = (Identity::generate()?.peer_id(), Identity::generate()?.peer_id());
/// let mut listener = network.transport(there).listen("127.0.0.1:5001".parse()?).await?;
///
/// let endpoint = Endpoint::from(listener.local_addr());
/// let mut ours = network.transport(here).dial(&endpoint, Some(there)).await?;
/// let Accepted::Link(mut theirs) = listener.accept().await else { panic!("no link") };
/// assert_eq!((ours.remote, theirs.remote), (there, here), "both are proven");
/// ours.sink.send("a frame".into()).await?;
/// assert_eq!(theirs.stream.next().await.transpose()?, Some("a frame".into()));
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Kind of the transport, which events and figures show.
    fn kind(&self) -> TransportKind;

    /// Opens a link to `endpoint`, which is an IP address or a DNS name with a port. A DNS name
    /// resolves to all its addresses, anew at every call, and the link is to the first of them at which
    /// a peer has proven its id: one that answers and is no peer, or falls silent, is left for the
    /// next. With `expected`, a remote that proves another id is
    /// [`FailureKind::Identity`](crate::error::FailureKind::Identity).
    ///
    /// Cancel safe: a dropped future leaves no connection behind.
    ///
    /// # Errors
    /// [`TransportError`] with the kind that the protocol decides by.
    async fn dial(
        &self,
        endpoint: &Endpoint,
        expected: Option<PeerId>,
    ) -> Result<RawLink, TransportError>;

    /// Opens a link like [`Transport::dial`], but to none of the addresses in `avoid`: they were reached
    /// lately and are not what is looked for, though the name stands for them too. Default: leaves
    /// nothing out, which is right for a transport that knows no names.
    ///
    /// Cancel safe, as `dial`.
    ///
    /// # Errors
    /// Those of `dial`, and [`FailureKind::NoneLeft`](crate::error::FailureKind::NoneLeft) when the
    /// name stands for no other address.
    async fn dial_avoiding(
        &self,
        endpoint: &Endpoint,
        expected: Option<PeerId>,
        avoid: &[SocketAddr],
    ) -> Result<RawLink, TransportError> {
        let _ = avoid;
        self.dial(endpoint, expected).await
    }

    /// Listens on `bind`; port 0 picks a free one.
    ///
    /// # Errors
    /// [`FailureKind::Local`](crate::error::FailureKind::Local) when the address cannot be used,
    /// [`FailureKind::Unsupported`](crate::error::FailureKind::Unsupported) when this transport
    /// never listens.
    async fn listen(&self, bind: SocketAddr) -> Result<Box<dyn Listener>, TransportError>;

    /// Leaves a host alone that strangers come from: for `time` from now, listeners refuse connections
    /// from there before any handshake, as [`FailureKind::Refused`](crate::error::FailureKind::Refused).
    /// A host is one IPv4 address or one IPv6 /64. What is open stays open. Does not wait.
    ///
    /// By default nothing is done: then the node refuses the links.
    fn shun(&self, address: IpAddr, time: Duration) {
        let _ = (address, time);
    }
}

/// Connection or failure that came in at a [`Listener`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Accepted {
    /// A link whose remote has proven who it is.
    Link(RawLink),
    /// A connection that failed before it was authenticated; the listener goes on.
    Failed {
        /// The remote address, where there is one.
        address: Option<SocketAddr>,
        /// Error of the transport.
        error: TransportError,
    },
    /// The listener is closed; nothing more will come.
    Closed,
}

/// Listening transport. Dropping it stops listening and refuses handshakes under way; links that
/// it handed over live on.
#[async_trait]
pub trait Listener: fmt::Debug + Send {
    /// Address that is bound; its port is the one that was picked where 0 was asked for.
    fn local_addr(&self) -> SocketAddr;

    /// Address that is bound for what a proxy in front passes on, where there is one.
    fn http_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// Next connection. The node calls it from one task, one call at a time. Handshakes run
    /// concurrently, boxed in time and bounded in number inside the listener, so that a stalled or
    /// hostile client never delays another.
    ///
    /// Cancel safe.
    async fn accept(&mut self) -> Accepted;
}
