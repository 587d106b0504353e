//! What a connection that serves requests may make of them: links.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::slots::{Full, Most, Slot, Slots};
use crate::error::{FailureKind, TransportError};
use crate::ports::RawLink;
use crate::transport::metered::Traffic;
use crate::transport::pipe::{self, Pipe, Way};
use crate::transport::shared::Shared;
use crate::types::TransportKind;

/// Maximum number of connections of a port that serve requests and are no links.
const MAX_SERVED: u32 = 512;
/// Maximum number of those from one host.
const MAX_SERVED_OF_HOST: u32 = 64;
/// Maximum number of calls whose message is being read, each of a quarter MiB at most.
const MAX_READING: u32 = 128;
/// Maximum number of those from one host.
const MAX_READING_OF_HOST: u32 = 16;

/// Address of a handshake inside a pipe, and what came of it.
pub(super) type Handshaken = (Option<SocketAddr>, Result<RawLink, TransportError>);

/// State that all connections of a port share.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) shared: Arc<Shared>,
    /// True: a proxy stands before it, and the address of a connection is the proxy's.
    pub(super) is_proxied: bool,
    /// Where handshakes in pipes tell what came of them; closed when the listener is gone.
    pub(super) results: mpsc::Sender<Handshaken>,
    handshakes: Arc<Slots>,
    served: Arc<Slots>,
    reading: Arc<Slots>,
}

impl Port {
    pub(super) fn new(
        shared: Arc<Shared>,
        is_proxied: bool,
        results: mpsc::Sender<Handshaken>,
    ) -> Self {
        let (handshakes, served, reading) = (Arc::default(), Arc::default(), Arc::default());
        Self { shared, is_proxied, results, handshakes, served, reading }
    }

    pub(super) fn handshake_slot(&self, ip: IpAddr) -> Result<Slot, Full> {
        let options = &self.shared.options;
        let of_host = (!self.is_proxied).then_some(options.max_handshakes_per_ip);
        Slots::enter(&self.handshakes, ip, Most { total: options.max_handshakes, of_host })
    }

    /// Room for a connection that serves requests.
    pub(super) fn served_slot(&self, ip: IpAddr) -> Result<Slot, Full> {
        let of_host = (!self.is_proxied).then_some(MAX_SERVED_OF_HOST);
        Slots::enter(&self.served, ip, Most { total: MAX_SERVED, of_host })
    }
}

/// Way from a served request to a link, for one connection.
#[derive(Debug, Clone)]
pub(in crate::transport) struct Inlet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    port: Arc<Port>,
    address: SocketAddr,
    traffic: Traffic,
    /// Of the connection's handshake, until the first request was answered.
    slot: Mutex<Option<Slot>>,
    /// Taken by the first request.
    first: Mutex<Option<oneshot::Sender<()>>>,
    /// Requests under way.
    requests: AtomicUsize,
    /// Pipes that the connection carries.
    pipes: AtomicUsize,
}

/// Reason for a connection to live: a request under way, or a pipe.
#[derive(Debug)]
pub(in crate::transport) struct Busy {
    inlet: Inlet,
    is_pipe: bool,
}

impl Busy {
    /// The request is a pipe, which may be as quiet as it likes.
    pub(in crate::transport) fn with_pipe(mut self) -> Self {
        if !self.is_pipe {
            self.inlet.0.pipes.fetch_add(1, Ordering::Relaxed);
            self.is_pipe = true;
        }
        self
    }
}

impl Inlet {
    /// The inlet of a connection, and what tells of its first request.
    pub(super) fn new(
        port: Arc<Port>,
        address: SocketAddr,
        traffic: Traffic,
        slot: Slot,
    ) -> (Self, oneshot::Receiver<()>) {
        let (first, served) = oneshot::channel();
        let (slot, first) = (Mutex::new(Some(slot)), Mutex::new(Some(first)));
        let (requests, pipes) = <(AtomicUsize, AtomicUsize)>::default();
        let inner = Inner { port, address, traffic, slot, first, requests, pipes };
        (Self(Arc::new(inner)), served)
    }

    /// State of the transport.
    pub(in crate::transport) fn shared(&self) -> &Arc<Shared> {
        &self.0.port.shared
    }

    /// What is known of a pipe that has this connection for itself.
    pub(in crate::transport) fn way(&self, kind: TransportKind) -> Way {
        Way { kind, address: self.peer_address(), traffic: self.0.traffic.clone() }
    }

    /// Socket address of the dialler, as far as is known: a proxy hides it.
    pub(in crate::transport) fn peer_address(&self) -> Option<SocketAddr> {
        (!self.0.port.is_proxied).then_some(self.0.address)
    }

    /// Socket address at the other end of the connection, whoever that is.
    pub(in crate::transport) fn remote(&self) -> SocketAddr {
        self.0.address
    }

    /// Notes a request that this port answers. While what is returned lives, so does the connection.
    pub(in crate::transport) fn begin(&self) -> Busy {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(first) = self.0.first.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody listens where the connection is over.
            let _ = first.send(());
        }
        Busy { inlet: self.clone(), is_pipe: false }
    }

    /// Makes a link of a pipe, or a failure, in a task of its own and within the bounds of handshakes; the
    /// listener tells of it. `false`: there is no room, and the pipe is dropped.
    pub(in crate::transport) fn pipe(&self, pipe: impl Pipe, way: Way) -> bool {
        let slot = self.take_slot();
        let slot = match slot.map_or_else(|| self.port().handshake_slot(self.ip()), Ok) {
            Ok(slot) => slot,
            Err(full) => {
                tracing::debug!(target: crate::transport::shared::TARGET, ?full, "no room");
                return false;
            }
        };
        let port = Arc::clone(self.port());
        let address = self.peer_address();
        tokio::spawn(async move {
            let _slot = slot;
            let limit = port.shared.options.handshake_timeout;
            let handshake = timeout(limit, pipe::accept(&port.shared, pipe, way));
            let result = tokio::select! {
                biased;
                () = port.results.closed() => return,
                result = handshake => result.unwrap_or_else(|elapsed| {
                    let message = format!("no proof from the peer within {limit:?}");
                    Err(TransportError::with_source(FailureKind::Timeout, message, elapsed))
                }),
            };
            // An error means that the listener is gone, and what it would have got.
            let _ = port.results.send((address, result)).await;
        });
        true
    }

    /// Room for the message of a call, until that is complete: whoever calls may be a stranger. `None`: there
    /// is none.
    pub(in crate::transport) fn reading(&self) -> Option<Slot> {
        let port = self.port();
        let of_host = (!port.is_proxied).then_some(MAX_READING_OF_HOST);
        Slots::enter(&port.reading, self.ip(), Most { total: MAX_READING, of_host }).ok()
    }

    /// Tells the listener of a request that was refused, as of a connection that was.
    pub(in crate::transport) fn refused(&self, why: &'static str) {
        let error = TransportError::new(FailureKind::Refused, why);
        // What a listener that is behind has to tell already is enough of a flood.
        let _ = self.port().results.try_send((self.peer_address(), Err(error)));
    }

    pub(super) fn port(&self) -> &Arc<Port> {
        &self.0.port
    }

    pub(super) fn ip(&self) -> IpAddr {
        self.0.address.ip()
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.0.traffic
    }

    pub(super) fn is_busy(&self) -> bool {
        self.0.requests.load(Ordering::Relaxed) > 0
    }

    pub(super) fn has_pipes(&self) -> bool {
        self.0.pipes.load(Ordering::Relaxed) > 0
    }

    /// The slot of the connection's handshake, if it still has it.
    pub(super) fn take_slot(&self) -> Option<Slot> {
        self.0.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.is_pipe {
            self.inlet.0.pipes.fetch_sub(1, Ordering::Relaxed);
        }
        self.inlet.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}
