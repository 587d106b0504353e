//! A transport of the host's own: length-delimited frames over TCP, and nodes that speak it.
//!
//! It shows all that a [`Transport`] owes the node: identities that are *proven*, frames that
//! arrive whole and in order, back-pressure, bounds on what a stranger may cost, and failures told
//! apart by kind. `main` holds it against the crate's conformance suite, which any transport of
//! yours should pass too, and then lets two nodes deliver a transaction over it. Its status is 0
//! only if both hold:
//!
//! ```text
//! cargo run --example custom_transport
//! ```
//!
//! Each side sends its peer id and a fresh challenge, and then signs both ids and both challenges
//! together with its own role. That proves who is there when the link opens, and nothing beyond:
//! what follows is neither encrypted nor authenticated. Use the like of it where the path itself
//! can be trusted (a Unix socket, a VPN); the crate's own transports do mutual TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, TryStreamExt};
use sorcha_peer::error::{FailureKind, TransportError};
use sorcha_peer::ports::{Accepted, Listener, RawLink, Transport};
use sorcha_peer::testing::{TransportNode, transport};
use sorcha_peer::{Endpoint, Identity, Item, PeerId, PeerNode, StartAt, TransportKind};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

/// Separates these signatures from all others that the same key makes.
const TAG: &[u8] = b"sorcha-peer/example/framed-tcp\x01";
/// Maximum number of bytes of a frame before the other side is known.
const MAX_HELLO: usize = 64;
/// Maximum time for a connection to become a link.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Maximum number of connections of one listener in their handshake; others wait in the backlog.
const MAX_HANDSHAKES: usize = 64;

/// Frames over TCP.
#[derive(Debug, Clone)]
struct FramedTcp {
    identity: Identity,
}

#[async_trait]
impl Transport for FramedTcp {
    fn kind(&self) -> TransportKind {
        TransportKind::Custom
    }

    async fn dial(
        &self,
        endpoint: &Endpoint,
        expected: Option<PeerId>,
    ) -> Result<RawLink, TransportError> {
        let dial = async {
            let stream = TcpStream::connect(endpoint.to_string()).await;
            let stream = stream.map_err(|error| failure(FailureKind::Unreachable, error))?;
            shake_hands(stream, self.identity.clone(), true).await
        };
        let link = in_time(dial).await?;
        match expected {
            Some(expected) if expected != link.remote => {
                let message = format!("expected {expected}, met {}", link.remote);
                Err(TransportError::new(FailureKind::Identity, message))
            }
            _ => Ok(link),
        }
    }

    async fn listen(&self, bind: SocketAddr) -> Result<Box<dyn Listener>, TransportError> {
        let socket = TcpListener::bind(bind).await;
        let socket = socket.map_err(|error| failure(FailureKind::Local, error))?;
        let address = socket.local_addr().map_err(|error| failure(FailureKind::Local, error))?;
        let identity = self.identity.clone();
        Ok(Box::new(FramedListener { socket, address, identity, handshakes: JoinSet::new() }))
    }
}

/// Handshakes run beside each other and end with the listener.
#[derive(Debug)]
struct FramedListener {
    socket: TcpListener,
    address: SocketAddr,
    identity: Identity,
    handshakes: JoinSet<Accepted>,
}

#[async_trait]
impl Listener for FramedListener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&mut self) -> Accepted {
        loop {
            let room = self.handshakes.len() < MAX_HANDSHAKES;
            let socket = tokio::select! {
                Some(Ok(accepted)) = self.handshakes.join_next() => return accepted,
                socket = self.socket.accept(), if room => socket,
            };
            match socket {
                Ok((stream, address)) => {
                    let identity = self.identity.clone();
                    self.handshakes.spawn(answer(stream, address, identity));
                }
                Err(error) => {
                    let error = failure(FailureKind::Local, error);
                    return Accepted::Failed { address: None, error };
                }
            }
        }
    }
}

async fn in_time(
    work: impl Future<Output = Result<RawLink, TransportError>>,
) -> Result<RawLink, TransportError> {
    timeout(HANDSHAKE, work).await.unwrap_or_else(|_| {
        Err(TransportError::new(FailureKind::Timeout, format!("no link within {HANDSHAKE:?}")))
    })
}

async fn answer(stream: TcpStream, address: SocketAddr, identity: Identity) -> Accepted {
    match in_time(shake_hands(stream, identity, false)).await {
        Ok(link) => Accepted::Link(link),
        Err(error) => Accepted::Failed { address: Some(address), error },
    }
}

type Reader = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;
type Writer = FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>;

/// Proves this side, has the other prove itself, and hands over a link.
async fn shake_hands(
    stream: TcpStream,
    identity: Identity,
    dialled: bool,
) -> Result<RawLink, TransportError> {
    stream.set_nodelay(true).map_err(closed)?;
    let address = stream.peer_addr().map_err(closed)?;
    let (read, write) = stream.into_split();
    let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_HELLO).new_codec();
    let mut reader = Reader::new(read, codec.clone());
    let mut writer = Writer::new(write, codec);

    let mut ours = [0; 64];
    ours[..32].copy_from_slice(identity.peer_id().as_bytes());
    getrandom::fill(&mut ours[32..])
        .map_err(|error| TransportError::new(FailureKind::Local, error.to_string()))?;
    writer.send(Bytes::copy_from_slice(&ours)).await.map_err(closed)?;
    let theirs = receive(&mut reader).await?;
    let remote = PeerId::from_bytes(*theirs.first_chunk().unwrap_or(&[0; 32]));

    let proof = identity.sign(&statement(dialled, &ours, &theirs));
    writer.send(Bytes::copy_from_slice(&proof)).await.map_err(closed)?;
    let proof = receive(&mut reader).await?;
    if !remote.verify(&statement(!dialled, &theirs, &ours), &proof) {
        return Err(TransportError::new(FailureKind::Identity, "the peer did not prove its key"));
    }
    reader.decoder_mut().set_max_frame_length(RawLink::MAX_FRAME_BYTES);
    writer.encoder_mut().set_max_frame_length(RawLink::MAX_FRAME_BYTES);
    let sink = Box::pin(SinkExt::<Bytes>::sink_map_err(writer, closed));
    let stream = Box::pin(reader.map_ok(BytesMut::freeze).map_err(closed));
    Ok(RawLink::new(remote, TransportKind::Custom, Some(address), sink, stream))
}

/// Makes what one side signs. The role is part of the statement, so that no proof can be sent back
/// to its maker.
fn statement(dialled: bool, signers: &[u8; 64], others: &[u8; 64]) -> Vec<u8> {
    [TAG, &[u8::from(dialled)], signers, others].concat()
}

async fn receive(reader: &mut Reader) -> Result<[u8; 64], TransportError> {
    let frame = reader.try_next().await.map_err(closed)?.unwrap_or_default();
    let wrong = |_| TransportError::new(FailureKind::Protocol, "not a frame of this handshake");
    <[u8; 64]>::try_from(&*frame).map_err(wrong)
}

fn closed(error: io::Error) -> TransportError {
    failure(FailureKind::Closed, error)
}

/// An I/O error is of the kind `usual`, unless it is the codec that refuses a frame.
fn failure(usual: FailureKind, error: io::Error) -> TransportError {
    let refused = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
    let kind = if refused { FailureKind::Malformed } else { usual };
    TransportError::with_source(kind, error.to_string(), error)
}

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let checks = async {
        conforms().await?;
        println!("the transport passes the conformance suite");
        nodes_deliver().await
    };
    timeout(Duration::from_mins(1), checks).await?
}

/// Panics, and so fails, with what the transport does wrong.
async fn conforms() -> Result<(), Error> {
    let node = || -> Result<TransportNode, Error> {
        let identity = Identity::generate()?;
        Ok(TransportNode::new(identity.peer_id(), FramedTcp { identity }))
    };
    transport(&node()?, &node()?, "127.0.0.1:0".parse()?).await;
    Ok(())
}

async fn start(bootstrap: Option<SocketAddr>) -> Result<PeerNode, Error> {
    let identity = Identity::generate()?;
    let builder = PeerNode::builder()
        .transport(Arc::new(FramedTcp { identity: identity.clone() }))
        .identity(identity)
        .listen("127.0.0.1:0")
        .bootstrap(bootstrap.map(|address| address.to_string()));
    Ok(builder.start().await?)
}

async fn nodes_deliver() -> Result<(), Error> {
    let first = start(None).await?;
    let second = start(first.listen_addr()).await?;
    let mut orders = second.subscribe("orders", StartAt::Earliest).await?;
    second.wait_ready(1, Duration::from_secs(10)).await?;

    let receipt = first.publish("orders", "one widget").await?;
    match orders.next().await {
        Some(Item::Delivery(delivery)) if delivery.transaction.id() == receipt.id() => {}
        other => return Err(format!("not what was published: {other:?}").into()),
    }
    receipt.replicated(1).await?;
    println!("{} went from {} to {}", receipt.id(), first.peer_id(), second.peer_id());
    second.shutdown(Duration::from_secs(5)).await?;
    first.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}
