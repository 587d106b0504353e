//! Questions to a router in one datagram, and its answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// Time for the first answer; each further one has twice as long (RFC 6886, section 3.1).
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Number of times that a question is sent: no answer comes after 1.75 s.
const TRIES: u32 = 3;
/// Maximum size of a message (RFC 6887, section 7).
const MAX_BYTES: usize = 1100;

/// Reason why a router made no mapping.
#[derive(Debug, thiserror::Error)]
pub(super) enum MapError {
    /// Nobody answered.
    #[error("no answer")]
    Silent,
    /// What answers knows the way of asking in another version, or not at all.
    #[error("the router does not speak it")]
    Unsupported,
    /// The router says no.
    #[error("the router refuses: {0}")]
    Refused(String),
    /// The router says something that cannot be.
    #[error("the router's answer makes no sense: {0}")]
    Nonsense(&'static str),
    /// The way to the router is broken.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Mapping, as a router granted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Granted {
    /// Address outside.
    pub(super) external: SocketAddrV4,
    /// Time after which the router forgets it; `None` where it does not.
    pub(super) lifetime: Option<Duration>,
}

/// Opens a socket that hears one router only, and returns the own address towards it.
///
/// # Errors
/// Those of the operating system.
pub(super) async fn open(router: SocketAddrV4) -> io::Result<(UdpSocket, Ipv4Addr)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(router).await?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(own) => Ok((socket, own)),
        IpAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Asks until an answer comes that `read` takes; what it does not take is passed over, however much of it
/// there is.
///
/// # Errors
/// `Silent`, `Io`, or the refusal that `read` found.
pub(super) async fn ask<T>(
    socket: &UdpSocket,
    question: &[u8],
    mut read: impl FnMut(&[u8]) -> Option<Result<T, MapError>>,
) -> Result<T, MapError> {
    let mut wait = FIRST_WAIT;
    let mut buffer = [0; MAX_BYTES];
    for _ in 0..TRIES {
        socket.send(question).await?;
        let until = Instant::now() + wait;
        // A flood would otherwise keep the time-out from being looked at.
        while Instant::now() < until {
            match timeout_at(until, socket.recv(&mut buffer)).await {
                Err(_) => break,
                Ok(Err(error)) => return Err(error.into()),
                Ok(Ok(length)) => {
                    if let Some(answer) = read(&buffer[..length]) {
                        return answer;
                    }
                }
            }
        }
        wait *= 2;
    }
    Err(MapError::Silent)
}
