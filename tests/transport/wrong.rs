//! Transports that each do one thing wrong, and what the suite says to them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, TryStreamExt};
use sorcha_peer::error::{FailureKind, TransportError};
use sorcha_peer::ports::{Accepted, Listener, RawLink, Transport};
use sorcha_peer::testing::{self, TransportNode};
use sorcha_peer::{Endpoint, Identity, PeerId, TransportKind};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// The listener takes the dialler's word for its id.
    BelievesDialler,
    /// The dialler takes the listener's word for its id.
    BelievesListener,
    /// `dial` returns before the listener has said anything.
    Early,
    /// A handshake ends before the next begins.
    OneByOne,
    /// As `OneByOne`, and failures are not told.
    OneByOneSilently,
    /// A handshake ends with the call of `accept` in which it was.
    DropsWithAccept,
    /// `expected` is not looked at.
    MeetsAnybody,
    /// All links have one binding.
    OneBinding,
    /// The ends of a link have bindings of their own.
    TwoBindings,
    /// The sink takes whatever comes.
    Unbounded,
    /// Whatever fails is closed.
    OneKind,
}

/// Frames over TCP behind a handshake in which each side signs the challenge of the other.
#[derive(Debug, Clone)]
struct Framed {
    identity: Identity,
    flaw: Flaw,
}

impl Framed {
    async fn shake_hands(
        self,
        stream: TcpStream,
        dials: bool,
        expected: Option<PeerId>,
    ) -> Result<RawLink, TransportError> {
        let flaw = self.flaw;
        let address = stream.peer_addr().map_err(closed)?;
        let (read, write) = stream.into_split();
        let codec =
            LengthDelimitedCodec::builder().max_frame_length(RawLink::MAX_FRAME_BYTES).new_codec();
        let mut reader = FramedRead::new(read, codec.clone());
        let mut writer = FramedWrite::new(write, codec);
        let mut ours = [0; 64];
        ours[..32].copy_from_slice(self.identity.peer_id().as_bytes());
        getrandom::fill(&mut ours[32..]).unwrap();
        if dials || flaw != Flaw::Early {
            writer.send(Bytes::copy_from_slice(&ours)).await.map_err(closed)?;
        }
        let (remote, binding) = if flaw == Flaw::Early && dials {
            (expected.unwrap_or(self.identity.peer_id()), [0; 32])
        } else {
            let theirs = receive(&mut reader).await?;
            let remote = PeerId::from_bytes(*theirs.first_chunk().unwrap());
            if flaw != Flaw::Early {
                let proof = self.identity.sign(&statement(dials, &ours, &theirs));
                writer.send(Bytes::copy_from_slice(&proof)).await.map_err(closed)?;
                let proof = receive(&mut reader).await?;
                let believes = flaw == Flaw::BelievesDialler && !dials
                    || flaw == Flaw::BelievesListener && dials;
                if !believes && !remote.verify(&statement(!dials, &theirs, &ours), &proof) {
                    return Err(TransportError::new(FailureKind::Identity, "no proof"));
                }
            }
            let [first, second] = if dials { [ours, theirs] } else { [theirs, ours] };
            let binding = match flaw {
                Flaw::OneBinding => [7; 32],
                Flaw::TwoBindings => *ours.last_chunk().unwrap(),
                _ => digest(&[first, second].concat()),
            };
            (remote, binding)
        };
        if flaw != Flaw::MeetsAnybody && expected.is_some_and(|expected| expected != remote) {
            return Err(TransportError::new(FailureKind::Identity, "somebody else"));
        }
        let reader =
            reader.map_ok(BytesMut::freeze).map_err(move |e| failure(flaw, FailureKind::Closed, e));
        let sink =
            SinkExt::<Bytes>::sink_map_err(writer, move |e| failure(flaw, FailureKind::Closed, e));
        let kind = TransportKind::Custom;
        let link = if flaw == Flaw::Unbounded {
            #[expect(clippy::disallowed_methods, reason = "this is what is wrong")]
            let (sender, frames) = futures::channel::mpsc::unbounded::<Bytes>();
            tokio::spawn(frames.map(Ok).forward(sink));
            let sink = sender
                .sink_map_err(|e| TransportError::new(FailureKind::Closed, e.to_string()))
                .with(|frame: Bytes| async move {
                    let fits = frame.len() <= RawLink::MAX_FRAME_BYTES;
                    let error = || TransportError::new(FailureKind::Malformed, "oversize");
                    fits.then_some(frame).ok_or_else(error)
                });
            RawLink::new(remote, kind, Some(address), Box::pin(sink), Box::pin(reader))
        } else {
            RawLink::new(remote, kind, Some(address), Box::pin(sink), Box::pin(reader))
        };
        Ok(link.with_binding(binding))
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

fn statement(dialled: bool, signers: &[u8; 64], others: &[u8; 64]) -> Vec<u8> {
    [b"wrong transports", &[u8::from(dialled)][..], signers, others].concat()
}

async fn receive(
    reader: &mut FramedRead<tokio::net::tcp::OwnedReadHalf, LengthDelimitedCodec>,
) -> Result<[u8; 64], TransportError> {
    let frame = reader.try_next().await.map_err(closed)?.unwrap_or_default();
    let wrong = |_| TransportError::new(FailureKind::Protocol, "not of this handshake");
    <[u8; 64]>::try_from(&*frame).map_err(wrong)
}

fn closed(error: io::Error) -> TransportError {
    failure(Flaw::None, FailureKind::Closed, error)
}

fn failure(flaw: Flaw, usual: FailureKind, error: io::Error) -> TransportError {
    let refused = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
    let kind = match flaw {
        Flaw::OneKind => FailureKind::Closed,
        _ if refused => FailureKind::Malformed,
        _ => usual,
    };
    TransportError::with_source(kind, error.to_string(), error)
}

#[async_trait]
impl Transport for Framed {
    fn kind(&self) -> TransportKind {
        TransportKind::Custom
    }

    async fn dial(
        &self,
        endpoint: &Endpoint,
        expected: Option<PeerId>,
    ) -> Result<RawLink, TransportError> {
        let stream = TcpStream::connect(endpoint.to_string()).await;
        let stream = stream.map_err(|e| failure(self.flaw, FailureKind::Unreachable, e))?;
        self.clone().shake_hands(stream, true, expected).await
    }

    async fn listen(&self, bind: SocketAddr) -> Result<Box<dyn Listener>, TransportError> {
        let socket = TcpListener::bind(bind).await;
        let socket = socket.map_err(|e| failure(self.flaw, FailureKind::Local, e))?;
        Ok(Box::new(Listening { socket, framed: self.clone(), handshakes: JoinSet::new() }))
    }
}

#[derive(Debug)]
struct Listening {
    socket: TcpListener,
    framed: Framed,
    handshakes: JoinSet<Accepted>,
}

/// Time of a handshake: many times what one takes, and soon over where it is waited for.
const HANDSHAKE: Duration = Duration::from_secs(2);

async fn answer(framed: Framed, stream: TcpStream, address: SocketAddr) -> Accepted {
    let shaken = tokio::time::timeout(HANDSHAKE, framed.shake_hands(stream, false, None)).await;
    let late = |_| TransportError::new(FailureKind::Timeout, "no link in time");
    match shaken.map_err(late).and_then(|shaken| shaken) {
        Ok(link) => Accepted::Link(link),
        Err(error) => Accepted::Failed { address: Some(address), error },
    }
}

#[async_trait]
impl Listener for Listening {
    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    async fn accept(&mut self) -> Accepted {
        let Self { socket, framed, handshakes } = self;
        let flaw = framed.flaw;
        let mut under_way = UnderWay { handshakes, is_lost: flaw == Flaw::DropsWithAccept };
        loop {
            let one_by_one = matches!(flaw, Flaw::OneByOne | Flaw::OneByOneSilently);
            let room = !one_by_one || under_way.handshakes.is_empty();
            let (stream, address) = tokio::select! {
                Some(Ok(accepted)) = under_way.handshakes.join_next() => match accepted {
                    Accepted::Failed { .. } if flaw == Flaw::OneByOneSilently => continue,
                    accepted => {
                        under_way.is_lost = false;
                        return accepted;
                    }
                },
                socket = socket.accept(), if room => socket.unwrap(),
            };
            under_way.handshakes.spawn(answer(framed.clone(), stream, address));
        }
    }
}

/// Handshakes, lost where the call that waits for them is.
struct UnderWay<'a> {
    handshakes: &'a mut JoinSet<Accepted>,
    is_lost: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.is_lost {
            self.handshakes.abort_all();
        }
    }
}

/// Returns what the suite says, if it says anything.
async fn verdict(flaw: Flaw) -> Option<String> {
    let node = || {
        let identity = Identity::generate().unwrap();
        TransportNode::new(identity.peer_id(), Framed { identity, flaw })
    };
    let (dialler, listener) = (node(), node());
    let suite = tokio::spawn(async move {
        testing::transport(&dialler, &listener, "127.0.0.1:0".parse().unwrap()).await;
    });
    let Ok(suite) = tokio::time::timeout(Duration::from_mins(1), suite).await else {
        return Some("it hangs".to_owned());
    };
    let panicked = suite.err()?.into_panic();
    let text = panicked.downcast_ref::<String>().cloned();
    Some(
        text.or_else(|| panicked.downcast_ref::<&str>().map(|&t| t.to_owned())).unwrap_or_default(),
    )
}

#[tokio::test]
async fn what_is_right_passes() {
    assert_eq!(verdict(Flaw::None).await, None);
}

#[tokio::test]
async fn each_wrong_way_is_found() {
    let wrong = [
        (Flaw::BelievesDialler, "an id that is stated was believed"),
        (Flaw::BelievesListener, "plays back what another said: the remote's id was not proven"),
        (Flaw::Early, "that says nothing: the remote's id was not proven"),
        (Flaw::OneByOne, "waited for before another was served"),
        (Flaw::OneByOneSilently, "waited for before another was served"),
        (Flaw::DropsWithAccept, "a call of `accept` that was dropped"),
        (Flaw::MeetsAnybody, "somebody else was expected"),
        (Flaw::OneBinding, "binding"),
        (Flaw::TwoBindings, "binding"),
        (Flaw::Unbounded, "for a peer that reads nothing"),
        (Flaw::OneKind, "an oversize frame"),
    ];
    let verdicts = wrong.map(|(flaw, words)| async move {
        let said = verdict(flaw).await;
        assert!(said.as_ref().is_some_and(|said| said.contains(words)), "{flaw:?}: {said:?}");
    });
    futures::future::join_all(verdicts).await;
}
