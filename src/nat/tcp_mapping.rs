//! The mapping of the listen port itself: a second socket on that port asks STUN servers over TCP.
//!
//! Contract: the answer is the address under which a NAT shows the port to the servers that were asked.
//! Where the NAT maps alike for all destinations, others may dial it; whether they get through is for a
//! dial-back to say. Ends within 9 s, cancel safe. The listener goes on undisturbed: the socket never listens,
//! and ends by a reset, so that no waiting state keeps the port from the next question.
//!
//! The listener has to let another socket of its user onto the port: see `shares_port` in the options of the
//! transport.
//!
//! Tested by: `src/nat/tests/tcp.rs`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{join_all, select_ok};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::interfaces::towards;
use super::message::{AnswerFrom, HEADER_BYTES, MAX_MESSAGE_BYTES, Reading, Request};
use super::outside::{Family, StunServer, addresses_of, failure, majority, socket_failure};
use super::query::Failure;
use crate::error::{FailureKind, ProbeError};

/// Maximum time for one server, to connect and to answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// Maximum number of messages that are read, the answer included.
const MAX_MESSAGES: usize = 4;

/// Asks servers, all at once, which address of this family the listen port has for them. `None`: there is nobody
/// to ask, since the port is not of this family, or this machine has no way to an address of it that a server has.
///
/// # Errors
/// The first server's, when none answers; `Unsupported` where they name different addresses: the NAT then has
/// a mapping for each destination, or somebody lies.
pub(crate) async fn mapped(
    listen: SocketAddr,
    servers: &[StunServer],
    family: Family,
) -> Option<Result<SocketAddr, ProbeError>> {
    let local = match listen.ip().to_canonical() {
        ip if Family::of(ip) == family => SocketAddr::new(ip, listen.port()),
        ip if ip.is_unspecified() && family == Family::V4 => {
            SocketAddr::new(family.unspecified(), listen.port())
        }
        _ => return None,
    };
    let mut found = addresses_of(servers, family).await;
    for (_, addresses) in &mut found {
        if let Ok(addresses) = addresses {
            addresses.retain(|address| towards(*address).is_some());
        }
    }
    found.retain(|(_, addresses)| !addresses.as_ref().is_ok_and(Vec::is_empty));
    let answers = join_all(found.into_iter().map(|(server, addresses)| async move {
        let asked = addresses?.into_iter().map(|address| Box::pin(ask(server, address, local)));
        select_ok(asked).await.map(|(seen, _)| seen)
    }));
    let (mut said, mut failed) = (Vec::new(), None);
    for answer in answers.await {
        match answer {
            Ok(seen) => said.push(seen),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match said[..] {
        [] => failed.map(Err),
        [only] => Some(Ok(only)),
        [first, second, ..] => Some(majority(&said).ok_or_else(|| {
            let what = format!("servers see the listen port at {first} and at {second}");
            ProbeError::new(FailureKind::Unsupported, what)
        })),
    }
}

/// Reports whether a server answers over TCP, from a port of no matter.
pub(super) async fn answers(server: &StunServer, address: SocketAddr) -> bool {
    let any = SocketAddr::new(Family::of(address.ip()).unspecified(), 0);
    ask(server, address, any).await.is_ok()
}

async fn ask(
    server: &StunServer,
    address: SocketAddr,
    local: SocketAddr,
) -> Result<SocketAddr, ProbeError> {
    let name = server.name();
    let asking = async {
        let request = Request::new(AnswerFrom::Asked)?;
        let mut stream = connect(local, address).await?;
        stream.write_all(request.bytes()).await?;
        receive(&mut stream, &request).await
    };
    match timeout(DEADLINE, asking).await {
        Err(_) => Err(failure(name, FailureKind::Timeout, &"no answer over TCP")),
        Ok(Err(error)) => Err(socket_failure(name, &error)),
        Ok(Ok(Err(failure))) => Err(failure.of(name)),
        Ok(Ok(Ok(seen))) if Family::of(seen.ip()) != Family::of(address.ip()) => {
            Err(failure(name, FailureKind::Malformed, &"an address of the other family"))
        }
        Ok(Ok(Ok(seen))) => Ok(seen),
    }
}

async fn connect(local: SocketAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = if local.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    #[cfg(unix)]
    socket.set_reuseport(true)?;
    // A connection that waits for its end would keep the port from the next question to this server.
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    socket.bind(local)?;
    socket.connect(server).await
}

/// Reads messages until one answers the request.
async fn receive(
    stream: &mut TcpStream,
    request: &Request,
) -> io::Result<Result<SocketAddr, Failure>> {
    let mut message = [0; MAX_MESSAGE_BYTES];
    for _ in 0..MAX_MESSAGES {
        stream.read_exact(&mut message[..HEADER_BYTES]).await?;
        let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
        let Some(rest) = message.get_mut(HEADER_BYTES..HEADER_BYTES + length) else {
            return Ok(Err(Failure::Broken("the answer is too long")));
        };
        stream.read_exact(rest).await?;
        match request.read(&message[..HEADER_BYTES + length]) {
            Reading::Foreign => {}
            Reading::Broken(why) => return Ok(Err(Failure::Broken(why))),
            Reading::Refused(refusal) => return Ok(Err(Failure::Refused(refusal))),
            Reading::Seen(seen) => return Ok(Ok(seen.mapped)),
        }
    }
    Ok(Err(Failure::Broken("none of what came answers the question")))
}
