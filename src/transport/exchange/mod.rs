//! A byte pipe over requests, each of which a proxy understands, may cut and may see repeated.
//!
//! The client opens a *session* at the server and from then on has two requests under way: one that sends
//! and one that polls, which the server holds for a while where there is nothing to say. Each states how
//! much has arrived, so that what is lost is repeated and what is repeated is taken once. The client is
//! [`client`], the server [`sessions`]; what a request looks like is for the two faces, gRPC calls
//! ([`unary`]) and plain HTTP requests ([`rest`]). Neither face proves anything: that is done by the TLS
//! inside of the pipe.

mod client;
mod end;
#[cfg(feature = "rest")]
mod message;
#[cfg(feature = "rest")]
mod rest;
mod session;
mod sessions;
#[cfg(test)]
mod tests;
mod unary;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "compat")]
pub(super) use self::message::{Unread, Whole, read as read_body};
#[cfg(feature = "rest")]
pub(super) use self::rest::{is_for as is_rest, serve as serve_rest};
use self::session::Chunk;
use self::sessions::Kind;
pub(super) use self::sessions::Sessions;
pub(super) use self::unary::{EXCHANGE_PATH, serve as serve_unary};
use super::outer::{self, Alpn, OuterStream};
use super::pipe::{self, Way};
use super::port::Inlet;
use super::shared::{Shared, TARGET};
use super::tcp;
use crate::error::TransportError;
use crate::ports::RawLink;
use crate::types::{Endpoint, PeerId, TransportKind};

/// Why requests are refused, whatever their face.
const NO_ROOM: &str = "there is no room for a session";
const NO_SESSION: &str = "no such session, or no longer";
const NO_PART: &str = "a request is no part of its session";

/// Look of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    /// gRPC calls over HTTP/2.
    Unary,
    /// Plain requests over HTTP/1.1.
    #[cfg(feature = "rest")]
    Rest,
}

/// Opens a link to one address of an endpoint, or by way of what answers there. The caller bounds the
/// time of what follows TCP.
///
/// Cancel safe: a dropped dial ends its session.
///
/// # Errors
/// `Unsupported` where what answers knows no exchange; otherwise those of the connection and of the pipe.
pub(super) async fn dial(
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    address: SocketAddr,
    expected: Option<PeerId>,
    limit: &tcp::Limit,
    face: Face,
) -> Result<RawLink, TransportError> {
    let (shared, endpoint) = (Arc::clone(shared), Arc::new(endpoint.clone()));
    let route = Route { shared, endpoint, address };
    let (kind, opened) = match face {
        Face::Unary => {
            let lane = unary::UnaryLane::new(route.clone(), limit.clone());
            (TransportKind::GrpcUnary, client::open(lane.clone(), lane).await)
        }
        #[cfg(feature = "rest")]
        Face::Rest => {
            let sender = rest::RestLane::new(route.clone(), Some(limit.clone()));
            let poller = rest::RestLane::new(route.clone(), None);
            (TransportKind::Rest, client::open(sender, poller).await)
        }
    };
    let (pipe, traffic) = opened?;
    let address = route.shared.routes.remote(&route.endpoint, address);
    pipe::dial(&route.shared, pipe, Way { kind, address, traffic }, expected).await
}

/// Opens a session for a request; `None` where there is no room.
fn open(inlet: &Inlet, kind: TransportKind) -> Option<SessionId> {
    let sessions = &inlet.shared().sessions;
    let (session, pipe, traffic) = sessions.open(inlet.remote().ip())?;
    let way = Way { kind, address: inlet.peer_address(), traffic };
    if !inlet.pipe(pipe, way) {
        sessions.refuse(session);
        return None;
    }
    sessions.visit(session)?.hold(Kind::Send, inlet.begin());
    Some(session)
}

/// Way to the server of a session, which connections take one after the other.
#[derive(Debug, Clone)]
struct Route {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    address: SocketAddr,
}

impl Route {
    /// A fresh connection; `limit` is that of a dial, where this is one.
    async fn connect(
        &self,
        limit: Option<tcp::Limit>,
        alpn: Alpn,
    ) -> Result<OuterStream, TransportError> {
        let time = self.shared.options.connect_timeout;
        let limit = limit.unwrap_or_else(|| tcp::Limit::from_now(time));
        let connected =
            outer::connect(&self.shared, &self.endpoint, self.address, &limit, alpn).await?;
        Ok(connected.0)
    }
}

/// Name of a session, which only its two ends know.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct SessionId([u8; Self::BYTES]);

impl SessionId {
    const BYTES: usize = 16;

    /// A fresh one; `None` where the operating system has no randomness.
    fn random() -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        getrandom::fill(&mut bytes).ok()?;
        Some(Self(bytes))
    }
}

/// Whoever knows the whole name can take the session.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

/// One request of a session.
#[derive(Debug)]
struct Request {
    session: SessionId,
    /// Position up to which the client has what the server sent.
    ack: u64,
    ask: Ask,
}

#[derive(Debug)]
enum Ask {
    /// Take these bytes.
    Send(Chunk),
    /// Give at most so many bytes, and hold the request for so long while there are none.
    Poll { limit: usize, wait: Duration },
    /// End the session.
    Close,
}

/// Answer to a request of a session.
#[derive(Debug)]
struct Answer {
    /// Bytes for the client.
    chunk: Chunk,
    /// Position up to which the server has what the client sent.
    ack: u64,
    /// True: the server reads no more of it.
    gone: bool,
}
