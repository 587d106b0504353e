//! Links inside one process: for tests, and for a host that runs several nodes at once.
//!
//! Contract: a [`MemoryNetwork`] is a table from bound addresses to listeners and a set of cut
//! pairs. A dial looks the address up, checks that the pair is not cut and that the listener is
//! who is expected, and only then hands one end to the listener's queue and the other to the
//! caller. A link is two bounded channels; either half that is dropped ends its direction.
//! Cutting a pair ends its links, with what is in flight lost, and refuses its dials.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::channel::mpsc;
use futures::stream::{AbortHandle, Abortable};
use futures::{Stream, StreamExt};

use super::channel::{channel, check_size};
use crate::error::{FailureKind, TransportError};
use crate::ports::{Accepted, FrameSink, FrameStream, Listener, RawLink, Transport};
use crate::types::{Endpoint, PeerId, TransportKind};

/// Number of frames that one direction of a link holds before its sink is no longer ready.
const FRAMES_IN_FLIGHT: usize = 16;
/// Number of links that wait for a listener's `accept` before dials are refused.
const BACKLOG: usize = 128;
/// The first port that is tried for a bind to port 0.
const FIRST_FREE_PORT: u16 = 49152;

/// A network inside this process. Clones are handles to the same network.
///
/// ```
/// use sorcha_peer::PeerId;
/// use sorcha_peer::ports::{Accepted, Transport};
/// use sorcha_peer::transport::MemoryNetwork;
/// # futures::executor::block_on(async {
/// let network = MemoryNetwork::new();
/// let (a, b) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
/// let mut listener = network.transport(b).listen("127.0.0.1:0".parse()?).await?;
/// let dialled = network.transport(a).dial(&listener.local_addr().into(), Some(b)).await?;
/// let Accepted::Link(accepted) = listener.accept().await else { panic!("no link") };
/// assert_eq!((dialled.remote, accepted.remote), (b, a));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    hub: Arc<Mutex<Hub>>,
}

/// One node's access to a [`MemoryNetwork`].
#[derive(Debug, Clone)]
struct MemoryTransport {
    network: MemoryNetwork,
    peer_id: PeerId,
}

impl MemoryNetwork {
    /// Makes an empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// Access for the node `peer_id`. A node may have several. The peer id is taken on trust: this
    /// transport is for one process, where there is nobody to prove anything to.
    pub fn transport(&self, peer_id: PeerId) -> impl Transport + Clone + use<> {
        MemoryTransport { network: self.clone(), peer_id }
    }

    /// Ends all links between two nodes and refuses new ones until [`restore`](Self::restore).
    /// Frames in flight are lost, as on a real network.
    pub fn cut(&self, a: PeerId, b: PeerId) {
        let mut hub = self.lock();
        let pair = ordered(a, b);
        hub.cut.insert(pair);
        hub.cables.retain(|cable| {
            if cable.pair == pair {
                cable.directions.iter().for_each(AbortHandle::abort);
            }
            cable.pair != pair
        });
    }

    /// Lets two nodes dial each other again.
    pub fn restore(&self, a: PeerId, b: PeerId) {
        self.lock().cut.remove(&ordered(a, b));
    }

    fn lock(&self) -> MutexGuard<'_, Hub> {
        // No code that can panic runs under the lock, and each change is a single step.
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hub = self.lock();
        f.debug_struct("MemoryNetwork")
            .field("listeners", &hub.bound.len())
            .field("cut", &hub.cut.len())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Hub {
    bound: BTreeMap<SocketAddr, BoundListener>,
    cut: BTreeSet<(PeerId, PeerId)>,
    /// Links that may still be open, so that they can be cut.
    cables: Vec<Cable>,
}

struct BoundListener {
    owner: PeerId,
    queue: mpsc::Sender<RawLink>,
}

struct Cable {
    pair: (PeerId, PeerId),
    directions: [AbortHandle; 2],
    /// Dead once all four halves are dropped.
    alive: Weak<()>,
}

impl Hub {
    /// Listener at an address, an unspecified address standing for every address of its family.
    fn listener(&mut self, target: SocketAddr) -> Option<&mut BoundListener> {
        let any: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let any = SocketAddr::new(any, target.port());
        let key = if self.bound.contains_key(&target) { target } else { any };
        self.bound.get_mut(&key)
    }

    fn is_bound(&self, bind: SocketAddr) -> bool {
        self.bound.keys().any(|have| {
            let overlap =
                have.ip() == bind.ip() || have.ip().is_unspecified() || bind.ip().is_unspecified();
            have.port() == bind.port() && have.is_ipv4() == bind.is_ipv4() && overlap
        })
    }

    fn free_address(&self, bind: SocketAddr) -> Option<SocketAddr> {
        let mut candidates: Box<dyn Iterator<Item = u16>> = match bind.port() {
            0 => Box::new((FIRST_FREE_PORT..=u16::MAX).chain(1..FIRST_FREE_PORT)),
            port => Box::new(std::iter::once(port)),
        };
        candidates.find_map(|port| {
            let address = SocketAddr::new(bind.ip(), port);
            (!self.is_bound(address)).then_some(address)
        })
    }
}

fn ordered(a: PeerId, b: PeerId) -> (PeerId, PeerId) {
    if a <= b { (a, b) } else { (b, a) }
}

#[async_trait]
impl Transport for MemoryTransport {
    fn kind(&self) -> TransportKind {
        TransportKind::Memory
    }

    async fn dial(
        &self,
        endpoint: &Endpoint,
        expected: Option<PeerId>,
    ) -> Result<RawLink, TransportError> {
        let unreachable = |why| TransportError::new(FailureKind::Unreachable, why);
        let target = endpoint
            .socket_addr()
            .ok_or_else(|| unreachable(format!("{endpoint}: this network has no names")))?;
        let mut guard = self.network.lock();
        let hub = &mut *guard;
        let owner = hub.listener(target).map(|bound| bound.owner);
        let owner = owner.ok_or_else(|| unreachable(format!("nothing listens on {target}")))?;
        let pair = ordered(self.peer_id, owner);
        if hub.cut.contains(&pair) {
            return Err(unreachable(format!("the way to {target} is cut")));
        }
        if expected.is_some_and(|expected| expected != owner) {
            let message = format!("{target} is {owner}");
            return Err(TransportError::new(FailureKind::Identity, message));
        }
        let (cable, ours, theirs) = link(pair, self.peer_id, owner, target);
        // The sender is not cloned: every clone would add room to the queue.
        let send = |bound: &mut BoundListener| {
            bound.queue.try_send(theirs).map_err(mpsc::TrySendError::into_send_error)
        };
        let sent = hub.listener(target).map(send);
        if let Some(Err(error)) = sent {
            let message = format!("the backlog of {target} is full");
            return Err(TransportError::with_source(FailureKind::Refused, message, error));
        }
        hub.cables.retain(|cable| cable.alive.strong_count() > 0);
        hub.cables.push(cable);
        Ok(ours)
    }

    async fn listen(&self, bind: SocketAddr) -> Result<Box<dyn Listener>, TransportError> {
        let (queue, links) = mpsc::channel(BACKLOG);
        let mut hub = self.network.lock();
        let address = hub.free_address(bind).ok_or_else(|| {
            TransportError::new(FailureKind::Local, format!("address {bind} is in use"))
        })?;
        hub.bound.insert(address, BoundListener { owner: self.peer_id, queue });
        Ok(Box::new(MemoryListener { network: self.network.clone(), address, links }))
    }
}

/// Both ends of a new link: the dialler's first, then the listener's.
fn link(
    pair: (PeerId, PeerId),
    dialler: PeerId,
    owner: PeerId,
    target: SocketAddr,
) -> (Cable, RawLink, RawLink) {
    let alive = Arc::new(());
    let (to_owner, at_owner, there) = direction(&alive);
    let (to_dialler, at_dialler, back) = direction(&alive);
    let mut random = [0; 32];
    // Without random bytes nobody can prove anything on this link, and it is refused by who asks.
    let binding = getrandom::fill(&mut random).ok().map(|()| random);
    let cable = Cable { pair, directions: [there, back], alive: Arc::downgrade(&alive) };
    let end = |remote, address, sink, stream| {
        let link = RawLink::new(remote, TransportKind::Memory, address, sink, stream);
        RawLink { binding, ..link }
    };
    let ours = end(owner, Some(target), to_owner, at_dialler);
    // The dialler has no address of its own.
    let theirs = end(dialler, None, to_dialler, at_owner);
    (cable, ours, theirs)
}

fn direction(alive: &Arc<()>) -> (FrameSink, FrameStream, AbortHandle) {
    let (sink, frames) = channel(FRAMES_IN_FLIGHT, Arc::clone(alive));
    let (cut, registration) = AbortHandle::new_pair();
    let frames = Some(Abortable::new(frames, registration));
    let stream = MemoryStream { frames, _alive: Arc::clone(alive) };
    (Box::pin(sink), Box::pin(stream), cut)
}

struct MemoryStream {
    /// `None` once it ended, so that the sending half learns of a cut.
    frames: Option<Abortable<mpsc::Receiver<Bytes>>>,
    _alive: Arc<()>,
}

impl Stream for MemoryStream {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(None) };
        let Some(frame) = std::task::ready!(frames.poll_next_unpin(cx)) else {
            self.frames = None;
            return Poll::Ready(None);
        };
        let checked = check_size(frame.len()).map(|()| frame);
        if checked.is_err() {
            self.frames = None;
        }
        Poll::Ready(Some(checked))
    }
}

struct MemoryListener {
    network: MemoryNetwork,
    address: SocketAddr,
    links: mpsc::Receiver<RawLink>,
}

#[async_trait]
impl Listener for MemoryListener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&mut self) -> Accepted {
        self.links.next().await.map_or(Accepted::Closed, Accepted::Link)
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.network.lock().bound.remove(&self.address);
    }
}

impl fmt::Debug for MemoryListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryListener").field("address", &self.address).finish_non_exhaustive()
    }
}
