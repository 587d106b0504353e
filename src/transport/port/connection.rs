//! One accepted connection: what is spoken on it, and how long it lives.
//!
//! Contract: a connection that has served its first request lives on while requests are under way
//! on it or pipes run through it, and [`IDLE`] beyond; with requests alone under way, [`STALLED`]
//! without a byte in either direction ends it. Their number is bounded, in all and for each host.
//! When the listener is gone, a connection ends with the last of its pipes.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;

use super::inlet::{Inlet, Port};
use super::slots::Slot;
use super::sniff::{Sniffed, is_http2};
use super::{http1, http2};
use crate::error::{FailureKind, TransportError};
use crate::ports::RawLink;
use crate::transport::metered::Metered;
use crate::transport::shared::{Security, TARGET};
use crate::transport::tls::{ALPN_H2, ALPN_HTTP1, Proven};
use crate::transport::{failure, tcp, tls};

/// Time for which a connection without work is kept, at least; at most twice that.
const IDLE: Duration = Duration::from_secs(10);
/// Time to end for a guest that gives way.
const EVICTED: Duration = Duration::from_secs(1);
/// Number of times [`IDLE`] after which one is closed on which a request is under way and nothing moves.
const STALLED: u32 = 3;
/// Number of times [`IDLE`] for which a connection of guests is kept without a request: longer than common
/// clients keep one.
const GUEST_IDLE: u32 = 7;
/// Number of times [`IDLE`] after which one is closed on which a request is under way and nothing
/// moves. Guests wait for news on open streams.
const GUEST_STALLED: u32 = 60;

/// What a connection says of its dialler.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dialler {
    /// The key that its handshake proved.
    Proven(Proven),
    /// Nothing: only what runs in a pipe can.
    Unknown,
    /// Nothing, and a peer is whoever it claims to be.
    Believed,
}

impl Dialler {
    pub(super) fn proven(self) -> Option<Proven> {
        match self {
            Self::Proven(proven) => Some(proven),
            Self::Unknown | Self::Believed => None,
        }
    }
}

/// Brings a connection to its link or its first request; `None`: it serves requests from now on.
///
/// # Errors
/// Reason for which there is neither.
pub(super) async fn handshake(
    port: Arc<Port>,
    stream: tcp::Stream,
    address: SocketAddr,
    slot: Slot,
) -> Result<Option<RawLink>, TransportError> {
    let (stream, traffic) = Metered::new(stream);
    let shared = Arc::clone(&port.shared);
    let entrance = port.entrance;
    let (inlet, first) = Inlet::new(port, address, traffic, slot);
    let nothing = |e| failure::from_io("the connection ended before it said anything", e);
    match &shared.security {
        Security::Tls(identity) if entrance.is_tls() => {
            let stream = BufReader::with_capacity(tls::READ_BUFFER_BYTES, stream);
            let stream = TlsAcceptor::from(identity.server_config())
                .accept(stream)
                .await
                .map_err(|e| failure::from_accepted_tls("the TLS handshake failed", e))?;
            let connection = stream.get_ref().1;
            let dialler = match connection.peer_certificates() {
                Some(_) => Dialler::Proven(identity.proven(connection)?),
                None => Dialler::Unknown,
            };
            match connection.alpn_protocol() {
                Some(ALPN_H2) => http2::serve(inlet, first, Sniffed::unread(stream), dialler).await,
                Some(ALPN_HTTP1) => {
                    http1::serve(inlet, first, Sniffed::unread(stream), dialler).await
                }
                _ => match is_http2(stream).await.map_err(nothing)? {
                    (true, stream) => http2::serve(inlet, first, stream, dialler).await,
                    (false, stream) => http1::serve(inlet, first, stream, dialler).await,
                },
            }
        }
        security => {
            let dialler = match security {
                Security::Tls(_) => Dialler::Unknown,
                Security::Plaintext => Dialler::Believed,
            };
            match is_http2(stream).await.map_err(nothing)? {
                (true, stream) => http2::serve(inlet, first, stream, dialler).await,
                (false, stream) => http1::serve(inlet, first, stream, dialler).await,
            }
        }
    }
}

/// Lets a connection that has served its first request go on, in a task of its own.
///
/// # Errors
/// `Refused` where there are too many.
pub(super) fn go_on<C>(
    inlet: Inlet,
    connection: C,
    goodbye: impl FnOnce(Pin<&mut C>) + Send + 'static,
) -> Result<(), TransportError>
where
    C: Future<Output = hyper::Result<()>> + Send + 'static,
{
    let settled = inlet.settle().map_err(|full| {
        let message = format!("no room for another connection with requests: {full:?}");
        TransportError::new(FailureKind::Refused, message)
    })?;
    tokio::spawn(async move {
        let _settled = settled;
        let mut connection = Box::pin(connection);
        let end = tokio::select! {
            over = &mut connection => {
                if let Err(error) = over {
                    tracing::debug!(target: TARGET, %error, "a connection broke");
                }
                return;
            }
            end = idle(&inlet) => end,
        };
        goodbye(connection.as_mut());
        // What is left is the goodbye.
        let _ = tokio::time::timeout(end, connection).await;
    });
    Ok(())
}

/// Answers the request that there was no room for, which is the last.
pub(super) async fn turn_away(connection: impl Future) -> TransportError {
    // The caller bounds the time.
    connection.await;
    TransportError::new(FailureKind::Refused, "no room for another guest")
}

/// Waits until the connection has no reason to live, and returns the time that it has to end.
async fn idle(inlet: &Inlet) -> Duration {
    let mut tick = interval(IDLE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    let results = &inlet.port().results;
    let (mut moved, mut begun, mut quiet, mut idle) = (0, 0, 0, 0);
    let mut crowd = inlet.crowd();
    loop {
        tokio::select! {
            () = results.closed(), if !inlet.is_busy() || inlet.is_guest() => return IDLE,
            () = inlet.crowded(&mut crowd) => return EVICTED,
            _ = tick.tick() => {}
        }
        let traffic = inlet.traffic();
        let now = traffic.received.load(Ordering::Relaxed) + traffic.taken.load(Ordering::Relaxed);
        quiet = if now == moved { quiet + 1 } else { 0 };
        let served = inlet.begun();
        idle = if inlet.is_busy() || served != begun { 0 } else { idle + 1 };
        (moved, begun) = (now, served);
        if inlet.is_unread() {
            return EVICTED;
        }
        let is_over = match () {
            () if inlet.has_pipes() => false,
            () if inlet.is_guest() && inlet.is_busy() => quiet >= GUEST_STALLED,
            () if inlet.is_guest() => idle >= GUEST_IDLE || results.is_closed(),
            () if inlet.is_busy() => quiet >= STALLED,
            // Bytes alone are no reason to live: they may be pings.
            () => quiet > 0 && idle > 0 || idle > 1 || results.is_closed(),
        };
        if is_over {
            return IDLE;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::mpsc;
    use tokio::time::{Instant, sleep, timeout};

    use super::super::inlet::Entrance;
    use super::*;
    use crate::identity::Identity;
    use crate::transport::GrpcOptions;
    use crate::transport::metered::Traffic;
    use crate::transport::shared::Shared;

    fn port() -> (Arc<Port>, mpsc::Receiver<super::super::inlet::Handshaken>) {
        let options = GrpcOptions { plaintext: true, ..GrpcOptions::default() };
        let shared = Shared::new(Identity::from_seed([1; 32]), options).unwrap();
        let (results, told) = mpsc::channel(1);
        (Arc::new(Port::new(Arc::new(shared), Entrance::Direct, results)), told)
    }

    fn inlet(port: &Arc<Port>, traffic: Traffic) -> Inlet {
        let address: SocketAddr = "192.0.2.1:7".parse().unwrap();
        let slot = port.handshake_slot(address.ip()).unwrap();
        Inlet::new(Arc::clone(port), address, traffic, slot).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lives_for_its_work_and_a_little_longer() {
        let (port, told) = port();
        let traffic = Traffic::default();
        let inlet = inlet(&port, traffic.clone());
        let spans = async |limit: u32| {
            let start = Instant::now();
            let ended = timeout(IDLE * limit, idle(&inlet)).await;
            ended.ok().map(|_| start.elapsed().as_secs() / IDLE.as_secs())
        };
        assert_eq!(spans(100).await, Some(1), "nothing to do");
        let request = inlet.begin();
        assert_eq!(spans(100).await, Some(u64::from(STALLED)), "a request that does not move");
        let moving = async {
            loop {
                sleep(IDLE).await;
                traffic.received.fetch_add(1, Ordering::Relaxed);
            }
        };
        let moves = async {
            tokio::select! { spans = spans(100) => spans, () = moving => None }
        };
        assert_eq!(moves.await, None, "a request that moves");
        let pipe = request.with_pipe();
        assert_eq!(spans(1000).await, None, "a pipe that is quiet");
        drop(told);
        assert_eq!(spans(100).await, None, "a pipe without a listener");
        drop(pipe);
        assert_eq!(spans(100).await, Some(0), "nothing to do, and no listener");
    }

    #[tokio::test(start_paused = true)]
    async fn pings_keep_no_connection_alive() {
        let (port, _told) = port();
        let traffic = Traffic::default();
        let inlet = inlet(&port, traffic.clone());
        let pings = async {
            loop {
                sleep(IDLE / 2).await;
                traffic.received.fetch_add(17, Ordering::Relaxed);
            }
        };
        tokio::select! {
            _ = idle(&inlet) => {}
            () = pings => {}
            () = sleep(IDLE * 3) => panic!("it lives on"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn served_connections_of_a_host_are_bounded_and_idle_ones_give_way() {
        let (port, _told) = port();
        let go_on = || go_on(inlet(&port, Traffic::default()), pending(), |_| ());
        let mut admitted = 0;
        while go_on().is_ok() {
            admitted += 1;
            assert!(admitted < 1000, "without bound");
        }
        assert_eq!(go_on().unwrap_err().kind, FailureKind::Refused);
        assert!(admitted > 8);
        // The goodbye may take as long as being idle.
        sleep(IDLE * 3).await;
        assert!(go_on().is_ok());
    }
}
