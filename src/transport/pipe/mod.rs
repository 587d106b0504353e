//! Links over any byte pipe: what carries the pipe may be anybody's, so both ends prove their keys inside it.
//!
//! Contract: in the pipe runs mutual TLS 1.3 with the certificates and the rules of a direct link, under a
//! protocol name of its own, so that neither can be taken for the other. In it run frames: see
//! [`frames`]. In plaintext mode each side states its peer id first, 32 bytes, and is believed.
//! Callers bound the time of [`dial`] and [`accept`]; dropped, they drop the pipe.

mod frames;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::net::SocketAddr;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::failure;
use super::metered::Traffic;
use super::shared::{Security, Shared, check_claim};
use super::tls::{self, Proven};
use crate::error::{FailureKind, TransportError};
use crate::ports::RawLink;
use crate::types::{PeerId, TransportKind};

/// Bytes both ways, in order, however they travel. `poll_shutdown` says that no more will come from
/// this side; where that cannot be said without closing the other direction too, it closes that.
pub(in crate::transport) trait Pipe:
    AsyncRead + AsyncWrite + Unpin + Send + 'static
{
}

impl<P: AsyncRead + AsyncWrite + Unpin + Send + 'static> Pipe for P {}

/// Appends what is to be written to a message, which has at most `most` bytes then. Returns how many it took.
pub(in crate::transport) fn gather(
    message: &mut BytesMut,
    bufs: &[IoSlice<'_>],
    most: usize,
) -> usize {
    let before = message.len();
    let room = most.saturating_sub(before);
    let offered = bufs.iter().fold(0, |sum: usize, buf| sum.saturating_add(buf.len()));
    message.reserve(offered.min(room));
    for buf in bufs {
        let left = room - (message.len() - before);
        message.extend_from_slice(&buf[..buf.len().min(left)]);
    }
    message.len() - before
}

/// What is known of a pipe.
#[derive(Debug, Clone)]
pub(in crate::transport) struct Way {
    /// Transport that carries it.
    pub(in crate::transport) kind: TransportKind,
    /// Socket address of the peer, where the pipe leads to it directly.
    pub(in crate::transport) address: Option<SocketAddr>,
    /// Bytes that have come and gone for this pipe.
    pub(in crate::transport) traffic: Traffic,
}

/// Makes a link of a pipe that this side opened.
///
/// # Errors
/// `Identity` where another peer than `expected` is at the other end; that of the pipe where it failed.
pub(in crate::transport) async fn dial(
    shared: &Shared,
    mut pipe: impl Pipe,
    way: Way,
    expected: Option<PeerId>,
) -> Result<RawLink, TransportError> {
    match &shared.security {
        Security::Tls(identity) => {
            // Nobody routes by the name of an inner session.
            let name = ServerName::try_from("sorcha-peer").map_err(|source| {
                TransportError::with_source(FailureKind::Local, "no server name", source)
            })?;
            let stream = TlsConnector::from(identity.pipe_client(expected))
                .connect(name, pipe)
                .await
                .map_err(|e| failure::from_tls("no proof from the peer", e))?;
            let proven = proven(identity.proven(stream.get_ref().1)?, stream.get_ref().1)?;
            Ok(link(stream, way, proven.peer, Some(proven)))
        }
        Security::Plaintext => {
            let claim = exchange_claims(shared, &mut pipe).await?;
            let remote = check_claim(Some(claim), expected)?;
            Ok(link(pipe, way, remote, None))
        }
    }
}

/// Makes a link of a pipe that the other side opened.
///
/// # Errors
/// `Identity` where the other side proves no key; that of the pipe where it failed.
pub(in crate::transport) async fn accept(
    shared: &Shared,
    mut pipe: impl Pipe,
    way: Way,
) -> Result<RawLink, TransportError> {
    match &shared.security {
        Security::Tls(identity) => {
            let stream = TlsAcceptor::from(identity.pipe_server())
                .accept(pipe)
                .await
                .map_err(|e| failure::from_accepted_tls("no proof from the peer", e))?;
            let proven = proven(identity.proven(stream.get_ref().1)?, stream.get_ref().1)?;
            Ok(link(stream, way, proven.peer, Some(proven)))
        }
        Security::Plaintext => {
            let claim = exchange_claims(shared, &mut pipe).await?;
            Ok(link(pipe, way, claim, None))
        }
    }
}

/// Lets a session pass that was made for a pipe.
fn proven<D>(
    proven: Proven,
    connection: &rustls::ConnectionCommon<D>,
) -> Result<Proven, TransportError> {
    if connection.alpn_protocol() == Some(tls::ALPN_PIPE) {
        return Ok(proven);
    }
    let message = "the session in the pipe is for something else";
    Err(TransportError::new(FailureKind::Protocol, message))
}

/// States the own peer id and takes the other's.
async fn exchange_claims(shared: &Shared, pipe: &mut impl Pipe) -> Result<PeerId, TransportError> {
    let failed = |error| failure::from_io("no peer id from the remote", error);
    pipe.write_all(shared.identity.peer_id().as_bytes()).await.map_err(failed)?;
    pipe.flush().await.map_err(failed)?;
    let mut claim = [0; 32];
    pipe.read_exact(&mut claim).await.map_err(failed)?;
    Ok(PeerId::from_bytes(claim))
}

fn link(stream: impl Pipe, way: Way, remote: PeerId, proven: Option<Proven>) -> RawLink {
    let Way { kind, address, traffic } = way;
    let (sink, stream) = frames::split(stream);
    let link = RawLink::new(remote, kind, address, Box::pin(sink), Box::pin(stream));
    let certified = proven.is_some_and(|proven| proven.certified);
    let binding = proven.map(|proven| proven.binding);
    let (received, taken) = (Some(traffic.received), Some(traffic.taken));
    RawLink { received, taken, binding, certified, ..link }
}
