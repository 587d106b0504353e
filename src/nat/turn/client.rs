//! The client of a relay: its control connection, and connections to peers by way of the relay.
//!
//! Contract: [`Client::run`] allocates, keeps the allocation and begins anew when it is lost, with delays of
//! full jitter below 1 s, doubled up to 1 min; below 1 to 10 min where only somebody's hand helps. It ends when
//! it is dropped, and the allocation with it, since that lives as long as its connection. A connection that
//! comes in is bound at once, at most [`MAX_BINDS`] at a time; beyond those the relay drops them; what is dropped is
//! counted. Every wait has its time, and what is read ahead is less than two messages.
//!
//! Tested by: `super::tests`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::BytesMut;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::TARGET;
use super::allocation::{Allocation, Output};
use super::binding::{Binding, Step};
use super::codec::{HEADER_BYTES, MAX_MESSAGE_BYTES, message_bytes, take_message};
use super::fault::Fault;
use crate::config::RelayServer;
use crate::error::{FailureKind, ProbeError, TransportError};

/// Maximum number of connections that are being bound.
const MAX_BINDS: usize = 16;
/// Time for a connection to the relay.
const CONNECT: Duration = Duration::from_secs(10);
/// Time for a write on the control connection.
const WRITE: Duration = Duration::from_secs(10);
/// Time to bind a connection, the connection to the relay included.
const BIND: Duration = Duration::from_secs(10);
/// Upper bounds of the first and of the longest delay before the next connection, and the same where only
/// somebody's hand helps.
const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
const LASTING_DELAYS: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(10));
/// Life of a connection that makes the delays short again.
const SETTLED: Duration = Duration::from_mins(1);
/// Longest sleep: what is not due for ever is looked at again.
const LONG: Duration = Duration::from_hours(1);

/// Connections of a client, outwards and inwards.
pub(crate) trait Net: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Connects to the relay, at this address where one is given, and says at which. Cancel safe.
    fn connect(
        &self,
        to: Option<SocketAddr>,
    ) -> BoxFuture<'_, Result<(Self::Stream, SocketAddr), TransportError>>;

    /// Takes a connection that a peer made to the relayed address. Reports whether there was room for it.
    fn accept(&self, stream: Self::Stream, peer: SocketAddr) -> bool;
}

/// State of a relay: `None` before anything is known, then its relayed address or why there is none.
pub(crate) type Relayed = Option<Result<SocketAddr, ProbeError>>;

/// Wish for a connection to a peer, from the relayed address.
#[derive(Debug)]
pub(crate) struct Call {
    peer: SocketAddr,
    answer: oneshot::Sender<Answer>,
}

/// Connection of the relay with a peer, and the address of the relay at which it is bound.
type Answer = Result<(Binding, SocketAddr), Fault>;

/// Connects to a peer by way of the relay of this client. Cancel safe.
///
/// # Errors
/// Those of the relay; `Refused` where too many dials are under way.
pub(crate) async fn dial<N: Net>(
    net: &N,
    calls: &mpsc::Sender<Call>,
    peer: SocketAddr,
) -> Result<N::Stream, TransportError> {
    let (answer, answered) = oneshot::channel();
    calls.try_send(Call { peer, answer }).map_err(|_| {
        TransportError::new(FailureKind::Refused, "too many dials by way of the relay")
    })?;
    let lost = |_| TransportError::new(FailureKind::Closed, "the relay was lost");
    let (binding, at) = answered.await.map_err(lost)?.map_err(Fault::into_transport)?;
    bind(net, at, binding).await.map_err(Fault::into_transport)
}

/// Client of one relay.
#[derive(Debug)]
pub(crate) struct Client<N: Net> {
    pub(crate) server: RelayServer,
    pub(crate) net: Arc<N>,
    /// Addresses that may connect to the relayed one, beside those at the relay itself.
    pub(crate) permitted: watch::Receiver<BTreeSet<IpAddr>>,
    pub(crate) relayed: watch::Sender<Relayed>,
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) drops: Drops,
}

/// Counts of connections that came in by way of relays and were dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drops {
    /// Those of peers that nobody let in, and those that were too many at once.
    pub(crate) refused: Arc<AtomicU64>,
    /// Those that the relay could not be made to pass on.
    pub(crate) failed: Arc<AtomicU64>,
}

impl<N: Net> Client<N> {
    /// Serves until it is dropped.
    pub(crate) async fn run(mut self) {
        let name = self.server.to_string();
        let mut failures: u32 = 0;
        loop {
            let start = Instant::now();
            let fault = match self.serve().await {
                Ok(never) => match never {},
                Err(fault) => fault,
            };
            if start.elapsed() >= SETTLED {
                failures = 0;
            }
            let (first, last) = if fault.is_lasting { LASTING_DELAYS } else { DELAYS };
            let delay = jitter(first.saturating_mul(1_u32 << failures.min(10)).min(last));
            failures += 1;
            tracing::debug!(target: TARGET, relay = name, reason = %fault.why, ?delay, "no relay");
            self.relayed.send_replace(Some(Err(fault.into_probe(&name))));
            let next = sleep(delay);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    () = &mut next => break,
                    // Whoever calls is told so by what is dropped.
                    Some(_) = self.calls.recv() => {}
                }
            }
        }
    }

    /// One control connection, from its beginning to its end.
    async fn serve(&mut self) -> Result<Infallible, Fault> {
        let connected = timeout(CONNECT, self.net.connect(None)).await;
        let (mut stream, at) = connected.map_err(|_| late("no connection to the relay"))??;
        let mut allocation = Allocation::new(self.server.clone(), at, seed()?)?;
        let mut session =
            Session { start: Instant::now(), at, calls: BTreeMap::new(), last_call: 0 };
        let mut binds = JoinSet::new();
        let mut read = BytesMut::new();
        let mut is_told = true;
        loop {
            while let Some(output) = allocation.next_output() {
                match output {
                    Output::Send(bytes) => send(&mut stream, &bytes).await?,
                    Output::Allocated(relayed) => {
                        tracing::info!(target: TARGET, relay = %self.server, %relayed, "allocated");
                        let permitted = self.permitted.borrow_and_update().clone();
                        allocation.permit(session.now(), &permitted)?;
                        self.relayed.send_replace(Some(Ok(relayed)));
                    }
                    Output::Incoming { peer, binding } => self.take(&mut binds, at, peer, binding),
                    Output::Dialled { call, result } => session.answer(call, result),
                }
            }
            read.reserve(MAX_MESSAGE_BYTES);
            let due = session.start + allocation.next_due().min(session.now() + LONG);
            tokio::select! {
                got = stream.read_buf(&mut read) => {
                    if got? == 0 {
                        return Err(Fault::new(FailureKind::Closed, "the relay ended the connection"));
                    }
                    while let Some(message) = take_message(&mut read)? {
                        let heard = allocation.on_message(session.now(), &message);
                        self.drops.refused.fetch_add(allocation.take_refused(), Relaxed);
                        heard?;
                    }
                }
                () = sleep_until(due) => allocation.on_time(session.now())?,
                changed = self.permitted.changed(), if is_told => {
                    is_told = changed.is_ok();
                    let permitted = self.permitted.borrow_and_update().clone();
                    allocation.permit(session.now(), &permitted)?;
                }
                Some(Call { peer, answer }) = self.calls.recv() => {
                    let call = session.call(answer);
                    allocation.dial(session.now(), call, peer)?;
                }
                Some(_) = binds.join_next() => {}
            }
        }
    }

    /// Binds a connection that came in, in a task of its own.
    fn take(&self, binds: &mut JoinSet<()>, at: SocketAddr, peer: SocketAddr, binding: Binding) {
        if binds.len() >= MAX_BINDS {
            tracing::debug!(target: TARGET, relay = %self.server, %peer, "no room for a connection");
            self.drops.refused.fetch_add(1, Relaxed);
            return;
        }
        let (net, drops) = (Arc::clone(&self.net), self.drops.clone());
        binds.spawn(async move {
            match bind(&*net, at, binding).await {
                Ok(stream) => {
                    let is_taken = net.accept(stream, peer);
                    drops.refused.fetch_add(u64::from(!is_taken), Relaxed);
                }
                Err(fault) => {
                    tracing::debug!(target: TARGET, %peer, reason = %fault.why, "not bound");
                    drops.failed.fetch_add(1, Relaxed);
                }
            }
        });
    }
}

/// State of a control connection beside its allocation.
#[derive(Debug)]
struct Session {
    start: Instant,
    /// Address of the relay.
    at: SocketAddr,
    /// Who waits for a dial; as many as the allocation has under way.
    calls: BTreeMap<u64, oneshot::Sender<Answer>>,
    last_call: u64,
}

impl Session {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn call(&mut self, answer: oneshot::Sender<Answer>) -> u64 {
        self.last_call += 1;
        self.calls.insert(self.last_call, answer);
        self.last_call
    }

    fn answer(&mut self, call: u64, result: Result<Binding, Fault>) {
        if let Some(answer) = self.calls.remove(&call) {
            // Whoever waited may have given up.
            let _ = answer.send(result.map(|binding| (binding, self.at)));
        }
    }
}

/// Makes a new connection to the relay the peer's.
async fn bind<N: Net>(net: &N, at: SocketAddr, mut binding: Binding) -> Result<N::Stream, Fault> {
    let work = async {
        let (mut stream, _) = net.connect(Some(at)).await?;
        let mut request = binding.request()?;
        loop {
            send(&mut stream, &request).await?;
            let answer = read_message(&mut stream).await?;
            match binding.on_message(&answer)? {
                Step::Ask(next) => request = next,
                Step::Bound => return Ok(stream),
            }
        }
    };
    timeout(BIND, work).await.unwrap_or_else(|_| Err(late("no connection by way of the relay")))
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Fault> {
    let write = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout(WRITE, write).await.map_err(|_| late("the relay reads nothing"))?.map_err(Fault::from)
}

/// Reads one message and nothing of what follows it.
pub(super) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Fault> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let mut message = vec![0; message_bytes(&header)?];
    message[..HEADER_BYTES].copy_from_slice(&header);
    stream.read_exact(&mut message[HEADER_BYTES..]).await?;
    Ok(message)
}

fn late(what: &str) -> Fault {
    Fault::new(FailureKind::Timeout, format!("{what} in time"))
}

fn seed() -> Result<[u8; 32], Fault> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Fault::new(FailureKind::Local, format!("no randomness: {error}")))?;
    Ok(seed)
}

/// Full jitter; none where the operating system has no randomness.
fn jitter(bound: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or_default();
    bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
