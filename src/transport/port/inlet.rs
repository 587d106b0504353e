//! What a connection that serves requests may make of them: links.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::slots::{Full, Most, Slot, Slots};
use crate::error::{FailureKind, TransportError};
use crate::ports::RawLink;
use crate::transport::metered::Traffic;
use crate::transport::pipe::{self, Pipe, Way};
use crate::transport::shared::Shared;
use crate::types::{TransportKind, host_of};

/// Maximum number of connections of a port that serve requests and are no links.
const MAX_SERVED: u32 = 512;
/// Maximum number of those from one host.
const MAX_SERVED_OF_HOST: u32 = 64;
/// Maximum number of calls whose message is being read, each of a quarter MiB at most.
const MAX_READING: u32 = 128;
/// Maximum number of those from one host.
const MAX_READING_OF_HOST: u32 = 16;

/// Maximum number of connections of a port that serve guests alone.
const MAX_GUESTS: u32 = 256;
/// Maximum number of those from one host.
const MAX_GUESTS_OF_HOST: u32 = 64;
/// Maximum number of those that were told to leave and have not yet.
const MAX_GUESTS_LEAVING: u32 = 32;
/// Time for which those at work leave it to idle ones to give way.
const IDLE_FIRST: Duration = Duration::from_millis(50);

/// Address of a handshake inside a pipe, and what came of it.
pub(super) type Handshaken = (Option<SocketAddr>, Result<RawLink, TransportError>);

/// Maximum number of refused requests of a connection that the listener is told of.
const MAX_REFUSALS_TOLD: usize = 16;

/// What connections come in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entrance {
    /// A socket that peers connect to.
    Direct,
    /// A socket that a proxy connects to, in clear text.
    Proxied,
    /// Relays, which bring what peers say to them.
    Relayed,
}

impl Entrance {
    /// Reports whether the address of a connection is that of something between it and the peer.
    pub(super) fn hides_address(self) -> bool {
        self != Self::Direct
    }

    /// Reports whether connections begin with TLS, where the transport has it.
    pub(super) fn is_tls(self) -> bool {
        self != Self::Proxied
    }
}

/// State that all connections of a port share.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) shared: Arc<Shared>,
    pub(super) entrance: Entrance,
    /// Where handshakes in pipes tell what came of them; closed when the listener is gone.
    pub(super) results: mpsc::Sender<Handshaken>,
    handshakes: Arc<Slots>,
    served: Arc<Slots>,
    guests: Arc<Slots>,
    reading: Arc<Slots>,
    /// Guests that are to give way.
    crowd: watch::Sender<Eviction>,
    /// Number of the last call for an idle guest that one took upon itself.
    evicted: AtomicU64,
    /// Number of guests of a host that are to give way, at work or not, and have not heard of it.
    called: Mutex<HashMap<IpAddr, u32>>,
}

impl Port {
    pub(super) fn new(
        shared: Arc<Shared>,
        entrance: Entrance,
        results: mpsc::Sender<Handshaken>,
    ) -> Self {
        let [handshakes, served, guests, reading] = <[Arc<Slots>; 4]>::default();
        Self {
            shared,
            entrance,
            results,
            handshakes,
            served,
            guests,
            reading,
            crowd: watch::Sender::default(),
            evicted: AtomicU64::default(),
            called: Mutex::default(),
        }
    }

    pub(super) fn handshake_slot(&self, ip: IpAddr) -> Result<Slot, Full> {
        let options = &self.shared.options;
        let of_host = (!self.entrance.hides_address()).then_some(options.max_handshakes_per_ip);
        Slots::enter(&self.handshakes, ip, Most { total: options.max_handshakes, of_host })
    }

    /// Room for a connection that serves requests.
    fn served_slot(&self, ip: IpAddr) -> Result<Slot, Full> {
        let of_host = (!self.entrance.hides_address()).then_some(MAX_SERVED_OF_HOST);
        Slots::enter(&self.served, ip, Most { total: MAX_SERVED, of_host })
    }

    /// Room for a connection that serves guests alone. Where all of it is taken, the host that has
    /// most of it loses one to a host that has less; where a host has its share, an idle one of its
    /// own.
    fn guest_slot(&self, ip: IpAddr) -> Result<Slot, Full> {
        let of_host = (!self.entrance.hides_address()).then_some(MAX_GUESTS_OF_HOST);
        let enter = |total| Slots::enter(&self.guests, ip, Most { total, of_host });
        enter(MAX_GUESTS).or_else(|full| match full {
            Full::Total(_) => {
                if let Some(host) = self.guests.fullest(ip) {
                    let slot = enter(MAX_GUESTS + MAX_GUESTS_LEAVING)?;
                    self.call_one(host);
                    return Ok(slot);
                }
                self.call_idle(None);
                Err(full)
            }
            Full::OfHost(_) => {
                self.call_idle(Some(host_of(ip)));
                Err(full)
            }
        })
    }

    /// Calls for an idle guest to give way, if there is one.
    fn call_idle(&self, host: Option<IpAddr>) {
        self.crowd.send_modify(|eviction| {
            *eviction = Eviction { number: eviction.number + 1, host, of_idle: true };
        });
    }

    /// Calls for a guest of a host to give way. Guests that look late see the last call alone, so
    /// these are counted: each is heard by one.
    fn call_one(&self, host: IpAddr) {
        *self.called().entry(host).or_default() += 1;
        self.crowd.send_modify(|eviction| eviction.of_idle = false);
    }

    /// Takes a call for a guest of a host, if there is one.
    fn take_call(&self, host: IpAddr) -> bool {
        let mut called = self.called();
        let Some(count) = called.get_mut(&host) else { return false };
        *count -= 1;
        if *count == 0 {
            called.remove(&host);
        }
        true
    }

    /// Never holds a host with none, and as many as there are places for guests that leave.
    fn called(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Latest call for guests to give way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Eviction {
    /// Number of calls for an idle one.
    number: u64,
    /// Host of that one; `None` for any.
    host: Option<IpAddr>,
    /// False: what is new is in [`Port::called`].
    of_idle: bool,
}

/// What the first request made of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// One that serves requests.
    Served,
    /// One too many: the answer is the last.
    Refused,
}

/// Room of a connection that serves requests.
#[derive(Debug)]
struct Room {
    /// It has served nothing but guests.
    is_guest: bool,
    _slot: Slot,
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
    /// Of the connection from then on.
    room: Mutex<Option<Room>>,
    /// Taken by the first request.
    first: Mutex<Option<oneshot::Sender<First>>>,
    /// Requests that were served.
    begun: AtomicU64,
    /// Requests that were refused.
    refusals: AtomicUsize,
    /// Requests under way.
    requests: AtomicUsize,
    /// Pipes that the connection carries.
    pipes: AtomicUsize,
    /// Times by which frames of answers to guests are to be taken.
    unread: Mutex<BTreeSet<(Instant, u64)>>,
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
    ) -> (Self, oneshot::Receiver<First>) {
        let (first, served) = oneshot::channel();
        let inner = Inner {
            port,
            address,
            traffic,
            slot: Mutex::new(Some(slot)),
            room: Mutex::default(),
            first: Mutex::new(Some(first)),
            begun: AtomicU64::default(),
            refusals: AtomicUsize::default(),
            requests: AtomicUsize::default(),
            pipes: AtomicUsize::default(),
            unread: Mutex::default(),
        };
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
        (!self.0.port.entrance.hides_address()).then_some(self.0.address)
    }

    /// Socket address at the other end of the connection, whoever that is.
    pub(in crate::transport) fn remote(&self) -> SocketAddr {
        self.0.address
    }

    /// Notes a request that this port answers. While what is returned lives, so does the connection.
    pub(in crate::transport) fn begin(&self) -> Busy {
        {
            let mut room = self.room();
            // A proxy may send peers and guests over one connection. Where there is no room for the former it stays
            // one of the latter, and bounded.
            if room.as_ref().is_some_and(|room| room.is_guest)
                && let Ok(slot) = self.port().served_slot(self.ip())
            {
                *room = Some(Room { is_guest: false, _slot: slot });
            }
        }
        self.tell_first(First::Served);
        self.busy()
    }

    /// Notes a request for a guest, likewise; `None`: there is no room, and the connection ends if that was its
    /// first.
    pub(super) fn begin_as_guest(&self) -> Option<Busy> {
        // Whoever has no slot of a handshake any more has been given room, or is a link.
        let is_new = self.0.first.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if is_new {
            let Ok(slot) = self.port().guest_slot(self.ip()) else {
                self.tell_first(First::Refused);
                return None;
            };
            self.room().get_or_insert(Room { is_guest: true, _slot: slot });
        }
        self.tell_first(First::Served);
        Some(self.busy())
    }

    fn busy(&self) -> Busy {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        Busy { inlet: self.clone(), is_pipe: false }
    }

    fn tell_first(&self, what: First) {
        if let Some(first) = self.0.first.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody listens where the connection is over.
            let _ = first.send(what);
        }
    }

    /// Takes room for a connection that goes on after its first request, where it has none, for the slot of its
    /// handshake.
    ///
    /// # Errors
    /// The bound that leaves no room.
    pub(super) fn settle(&self) -> Result<Settled, Full> {
        let mut room = self.room();
        if room.is_none() {
            let slot = self.port().served_slot(self.ip())?;
            *room = Some(Room { is_guest: false, _slot: slot });
        }
        drop(room);
        drop(self.take_slot());
        Ok(Settled(self.clone()))
    }

    /// Reports whether the connection has served nothing but guests.
    pub(super) fn is_guest(&self) -> bool {
        self.room().as_ref().is_some_and(|room| room.is_guest)
    }

    /// Waits until this connection is to make room for another guest.
    pub(super) async fn crowded(&self, crowd: &mut watch::Receiver<Eviction>) {
        let ours = host_of(self.ip());
        while crowd.changed().await.is_ok() {
            let Eviction { number, host, of_idle } = *crowd.borrow_and_update();
            if !self.is_guest() {
                continue;
            }
            let (is_busy, port) = (self.is_busy(), self.port());
            if is_busy && port.called().contains_key(&ours) {
                sleep(IDLE_FIRST).await;
            }
            let of_us = of_idle && !is_busy && host.is_none_or(|host| host == ours);
            if port.take_call(ours)
                || of_us && port.evicted.fetch_max(number, Ordering::Relaxed) < number
            {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// News of guests that are to give way.
    pub(super) fn crowd(&self) -> watch::Receiver<Eviction> {
        self.port().crowd.subscribe()
    }

    /// Watch over one answer to a guest.
    pub(super) fn unread(&self) -> Unread {
        Unread { inlet: self.clone(), number: self.begun(), until: None }
    }

    /// Reports whether a frame of an answer was not taken in its time.
    pub(super) fn is_unread(&self) -> bool {
        let unread = self.0.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.first().is_some_and(|(until, _)| *until < Instant::now())
    }

    /// Number of requests that were served.
    pub(super) fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Relaxed)
    }

    fn room(&self) -> MutexGuard<'_, Option<Room>> {
        self.0.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a link of a pipe, or a failure, in a task of its own and within the bounds of handshakes; the
    /// listener tells of it. `false`: there is no room, and the pipe is dropped.
    pub(in crate::transport) fn pipe(&self, pipe: impl Pipe, way: Way) -> bool {
        if self.peer_address().is_some_and(|from| self.shared().shunned.contains(from.ip())) {
            self.refused("strangers come from this host");
            return false;
        }
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
        let of_host = (!port.entrance.hides_address()).then_some(MAX_READING_OF_HOST);
        Slots::enter(&port.reading, self.ip(), Most { total: MAX_READING, of_host }).ok()
    }

    /// Tells the listener of a request that was refused, as of a connection that was.
    /// Of one connection, so many: a request costs who asks much less than it costs to tell of it.
    pub(in crate::transport) fn refused(&self, why: &'static str) {
        if self.0.refusals.fetch_add(1, Ordering::Relaxed) >= MAX_REFUSALS_TOLD {
            return;
        }
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

/// Watch over one answer: whether the client takes it.
#[derive(Debug)]
pub(super) struct Unread {
    inlet: Inlet,
    /// Tells answers apart that are due at once; two of one number count as one.
    number: u64,
    until: Option<Instant>,
}

impl Unread {
    /// Sets the time for the frame that was handed over; `None`: there is none.
    pub(super) fn until(&mut self, time: Option<Duration>) {
        let mut unread = self.inlet.0.unread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = self.until.take() {
            unread.remove(&(until, self.number));
        }
        self.until = time.map(|time| Instant::now() + time);
        if let Some(until) = self.until {
            unread.insert((until, self.number));
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.until(None);
    }
}

/// Room that a connection has while this lives.
#[derive(Debug)]
pub(super) struct Settled(Inlet);

impl Drop for Settled {
    fn drop(&mut self) {
        // What still holds the inlet may outlive the connection.
        self.0.room().take();
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
