//! A pipe over one gRPC stream, for endpoints at which something stands between: an HTTP/2 proxy, an ingress, a mesh.
//!
//! Contract: each message is a chunk of the pipe, of no meaning in itself and at most
//! [`CHUNK_BYTES`]; the end of a stream is the end of its direction. On a dialler's side the
//! connection is the pipe's own and ends with it; on the listener's, others may share it.

use std::future::{Ready, ready};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::stream::Map;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};

use super::codec::BytesCodec;
use crate::error::TransportError;
use crate::transport::failure;
use crate::transport::metered::Metered;
use crate::transport::pipe::{self, Way};
use crate::transport::port::{Busy, Inlet};
use crate::types::TransportKind;

/// The method whose stream is a pipe.
pub(in crate::transport) const PIPE_PATH: &str = "/sorcha.peer.gossip.v1.PeerGossip/Pipe";
/// Maximum number of bytes in one message.
const CHUNK_BYTES: usize = 64 * 1024;
/// Maximum size of a message: a chunk, its tag, its length.
pub(super) const MAX_MESSAGE_BYTES: usize = CHUNK_BYTES + 8;
/// Number of chunks between the pipe and HTTP/2.
const CHUNKS_IN_FLIGHT: usize = 1;

/// A pipe, which keeps `K` for as long as it lives itself.
pub(super) struct GrpcPipe<K> {
    incoming: Inward,
    chunk: Bytes,
    outgoing: mpsc::Sender<Bytes>,
    _alive: K,
}

/// The direction that is read.
enum Inward {
    Asked(Answer),
    Open(Box<Streaming<Bytes>>),
    Over,
}

/// The answer to a request, which does not leave before this is polled.
pub(super) type Answer = BoxFuture<'static, Result<Streaming<Bytes>, Status>>;

impl<K> GrpcPipe<K> {
    /// A dialler's pipe. The first read sends the request and what was written by then. Written to has to be
    /// without waiting for an answer: nginx holds its beginning back until the peer says more.
    pub(super) fn asked(answer: Answer, outgoing: mpsc::Sender<Bytes>, alive: K) -> Self {
        Self { incoming: Inward::Asked(answer), chunk: Bytes::new(), outgoing, _alive: alive }
    }

    fn accepted(incoming: Streaming<Bytes>, outgoing: mpsc::Sender<Bytes>, alive: K) -> Self {
        Self {
            incoming: Inward::Open(Box::new(incoming)),
            chunk: Bytes::new(),
            outgoing,
            _alive: alive,
        }
    }

    /// The next chunk, none after the last.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, TransportError>> {
        loop {
            match &mut self.incoming {
                Inward::Over => return Poll::Ready(Ok(None)),
                Inward::Asked(answer) => match ready!(answer.as_mut().poll(cx)) {
                    Ok(incoming) => self.incoming = Inward::Open(Box::new(incoming)),
                    Err(status) => {
                        self.incoming = Inward::Over;
                        let error = failure::from_status("the stream was not opened", status);
                        return Poll::Ready(Err(error));
                    }
                },
                Inward::Open(incoming) => {
                    let next = ready!(incoming.poll_next_unpin(cx)).transpose();
                    if !matches!(next, Ok(Some(_))) {
                        self.incoming = Inward::Over;
                    }
                    let next =
                        next.map_err(|status| failure::from_status("the stream broke", status));
                    return Poll::Ready(next);
                }
            }
        }
    }
}

/// Way of chunks from a pipe into a request or a response.
pub(super) fn chunks() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    // The channel has room for one item for each sender on top of what is asked for.
    mpsc::channel(CHUNKS_IN_FLIGHT - 1)
}

/// Answers a request for a pipe, and makes a link of it.
pub(in crate::transport) async fn serve_pipe(
    request: Request<Incoming>,
    inlet: &Inlet,
) -> Response<Body> {
    let service = Service { inlet: inlet.clone(), busy: inlet.begin() };
    let mut grpc = Grpc::new(BytesCodec::Field).max_decoding_message_size(MAX_MESSAGE_BYTES);
    grpc.streaming(service.into_once(), request).await
}

/// Service of one request.
struct Service {
    inlet: Inlet,
    busy: Busy,
}

impl Service {
    fn into_once(self) -> Once {
        Once(Some(self))
    }
}

struct Once(Option<Service>);

type Outgoing = Map<mpsc::Receiver<Bytes>, fn(Bytes) -> Result<Bytes, Status>>;
type OpenResult = Result<tonic::Response<Outgoing>, Status>;

impl StreamingService<Bytes> for Once {
    type Response = Bytes;
    type ResponseStream = Outgoing;
    type Future = Ready<OpenResult>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let Some(Service { inlet, busy }) = self.0.take() else {
            return ready(Err(Status::internal("a request is answered once")));
        };
        let (sender, chunks) = chunks();
        let pipe = GrpcPipe::accepted(request.into_inner(), sender, busy.with_pipe());
        // Others may be on this connection, so the pipe counts its own bytes.
        let (pipe, traffic) = Metered::new(pipe);
        let way = Way { kind: TransportKind::GrpcStream, address: inlet.peer_address(), traffic };
        if !inlet.pipe(pipe, way) {
            return ready(Err(Status::resource_exhausted("too many handshakes are under way")));
        }
        let outgoing: Outgoing = chunks.map(Ok);
        ready(Ok(tonic::Response::new(outgoing)))
    }
}

impl<K: Unpin> AsyncRead for GrpcPipe<K> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() {
            match ready!(self.poll_chunk(cx)).map_err(io::Error::other)? {
                Some(chunk) => self.chunk = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = self.chunk.len().min(buf.remaining());
        buf.put_slice(&self.chunk[..taken]);
        self.chunk.advance(taken);
        Poll::Ready(Ok(()))
    }
}

fn closed(source: mpsc::SendError) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, source)
}

impl<K: Unpin> AsyncWrite for GrpcPipe<K> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.outgoing.poll_ready(cx)).map_err(closed)?;
        let mut chunk = BytesMut::new();
        let size = pipe::gather(&mut chunk, bufs, CHUNK_BYTES);
        if size == 0 {
            return Poll::Ready(Ok(0));
        }
        self.outgoing.start_send(chunk.freeze()).map_err(closed)?;
        Poll::Ready(Ok(size))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is held back here.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close_channel();
        Poll::Ready(Ok(()))
    }
}
