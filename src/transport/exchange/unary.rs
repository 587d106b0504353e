//! The face of gRPC calls: the method `Exchange`, at both ends.
//!
//! Contract: both lanes of a client share one HTTP/2 connection. One that ends, with a goodbye or
//! without, is followed by the next at once: servers and proxies say goodbye after so many requests.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::client::{Failure, Lane, POLL_WAIT};
use super::session::{Chunk, MAX_CHUNK_BYTES, Refusal};
use super::sessions::Kind;
use super::{Answer, Ask, NO_PART, NO_ROOM, NO_SESSION, Request, Route, SessionId};
use crate::error::{FailureKind, TransportError};
use crate::transport::outer::Alpn;
use crate::transport::port::{Inlet, Slot};
use crate::transport::{failure, grpc, tcp};
use crate::types::TransportKind;
use crate::wire::generated::gossip::{
    ExchangeChunk, ExchangeClose, ExchangePoll, ExchangeRequest, ExchangeResponse,
    exchange_request as request,
};

/// The method.
pub(in crate::transport) const EXCHANGE_PATH: &str = "/sorcha.peer.gossip.v1.PeerGossip/Exchange";
/// Maximum number of bytes of a message: a chunk, and what belongs to it.
const MAX_MESSAGE_BYTES: usize = MAX_CHUNK_BYTES + 1024;
/// Time for a call, together with the bytes that come with it.
const CALL_TIME: Duration = Duration::from_secs(30);

/// Serves a call.
pub(in crate::transport) async fn serve(
    request: http::Request<Incoming>,
    inlet: &Inlet,
) -> http::Response<Body> {
    let Some(reading) = inlet.reading() else {
        inlet.refused(NO_ROOM);
        return Status::resource_exhausted(NO_ROOM).into_http();
    };
    let mut grpc = tonic::server::Grpc::new(ProstCodec::default())
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let call = grpc.unary(Call { inlet: inlet.clone(), reading: Some(reading) }, request);
    let late = |_| Status::deadline_exceeded("the call took too long").into_http();
    timeout(CALL_TIME, call).await.unwrap_or_else(late)
}

/// One call that is served.
struct Call {
    inlet: Inlet,
    /// Held until the message is complete.
    reading: Option<Slot>,
}

impl tonic::server::UnaryService<ExchangeRequest> for Call {
    type Response = ExchangeResponse;
    type Future = BoxFuture<'static, Result<tonic::Response<ExchangeResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<ExchangeRequest>) -> Self::Future {
        drop(self.reading.take());
        let inlet = self.inlet.clone();
        async move {
            let answer = answer(&inlet, request.into_inner()).await;
            answer.map(tonic::Response::new).map_err(|Refused(why, status)| {
                inlet.refused(why);
                status
            })
        }
        .boxed()
    }
}

/// Reason for the local node, and what the client is told.
struct Refused(&'static str, Status);

async fn answer(inlet: &Inlet, request: ExchangeRequest) -> Result<ExchangeResponse, Refused> {
    let ExchangeRequest { session, ack, ask } = request;
    if session.is_empty() && ask.is_none() {
        let opened = super::open(inlet, TransportKind::GrpcUnary);
        let session =
            opened.ok_or_else(|| Refused(NO_ROOM, Status::resource_exhausted(NO_ROOM)))?;
        let session = Bytes::copy_from_slice(&session.0);
        return Ok(ExchangeResponse { session, ..ExchangeResponse::default() });
    }
    let invalid = |why| Refused(why, Status::invalid_argument(why));
    let session = session.as_ref().try_into().map(SessionId);
    let session = session.map_err(|_| invalid("the name of a session has 16 bytes"))?;
    let visit = inlet.shared().sessions.visit(session);
    let visit = visit.ok_or_else(|| Refused(NO_SESSION, Status::not_found(NO_SESSION)))?;
    let answer = match ask {
        Some(request::Ask::Send(ExchangeChunk { offset, data, end })) => {
            visit.hold(Kind::Send, inlet.begin());
            let chunk = async { Ok::<_, Refusal>(Chunk { offset, bytes: data, end }) };
            visit.send(ack, chunk).await
        }
        Some(request::Ask::Poll(ExchangePoll { limit, wait_ms })) => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            visit.hold(Kind::Poll, inlet.begin());
            visit.poll(ack, limit, Duration::from_millis(wait_ms.into())).await
        }
        Some(request::Ask::Close(ExchangeClose {})) => {
            visit.close();
            return Ok(ExchangeResponse { ack, gone: true, ..ExchangeResponse::default() });
        }
        None => return Err(invalid("nothing is asked of the session")),
    };
    let Answer { chunk: Chunk { offset, bytes, end }, ack, gone } = answer
        .map_err(|no: Refusal| Refused(NO_PART, Status::failed_precondition(no.to_string())))?;
    let chunk = ExchangeChunk { offset, data: bytes, end };
    Ok(ExchangeResponse { session: Bytes::new(), ack, chunk: Some(chunk), gone })
}

/// Calls over one connection after the other to one server.
#[derive(Debug, Clone)]
pub(super) struct UnaryLane {
    route: Route,
    kept: Arc<Mutex<Kept>>,
}

/// The connection of both lanes.
#[derive(Debug)]
struct Kept {
    /// Time of the dial that the first connection is for.
    first: Option<tcp::Limit>,
    /// Number of the connection, so that one that is over is given up once.
    number: u64,
    open: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    requests: http2::SendRequest<Body>,
    /// The task that drives it, which ends with it.
    _task: JoinSet<()>,
}

impl UnaryLane {
    pub(super) fn new(route: Route, first: tcp::Limit) -> Self {
        let kept = Kept { first: Some(first), number: 0, open: None };
        Self { route, kept: Arc::new(Mutex::new(kept)) }
    }

    /// The connection, its number, and whether it was made for this call.
    async fn connection(&self) -> Result<(http2::SendRequest<Body>, u64, bool), TransportError> {
        let mut kept = self.kept.lock().await;
        if let Some(open) = &kept.open
            && !open.requests.is_closed()
        {
            return Ok((open.requests.clone(), kept.number, false));
        }
        let stream = self.route.connect(kept.first.take(), Alpn::H2).await?;
        let (requests, driver) = grpc::handshake(stream).await?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Whoever made the call is told.
            let _ = driver.await;
        });
        kept.number += 1;
        kept.open = Some(Connection { requests: requests.clone(), _task: task });
        Ok((requests, kept.number, true))
    }

    async fn carry(&self, message: ExchangeRequest) -> Result<ExchangeResponse, Failure> {
        loop {
            let (requests, number, is_new) = self.connection().await.map_err(Failure::Passing)?;
            let endpoint = &self.route.endpoint;
            let origin = grpc::origin(endpoint).map_err(Failure::Final)?;
            let path = format!("{}{EXCHANGE_PATH}", endpoint.path());
            let path = grpc::path_and_query(endpoint, path).map_err(Failure::Final)?;
            let answer = tonic::client::Grpc::with_origin(grpc::Requests(requests), origin)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .unary(tonic::Request::new(message.clone()), path, ProstCodec::default())
                .await;
            let status = match answer {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let is_broken = status.source().is_some();
            if is_broken {
                let mut kept = self.kept.lock().await;
                if kept.number == number {
                    kept.open = None;
                }
            }
            if !is_broken || is_new {
                return Err(refused(status));
            }
        }
    }
}

/// Failure that a status stands for. Those of the first kind come from the server of a session alone.
fn refused(status: Status) -> Failure {
    let is_final = status.source().is_none()
        && matches!(
            status.code(),
            Code::NotFound | Code::FailedPrecondition | Code::InvalidArgument
        );
    let error = failure::from_status("the call failed", status);
    if is_final { Failure::Final(error) } else { Failure::Passing(error) }
}

impl Lane for UnaryLane {
    async fn open(&mut self) -> Result<SessionId, Failure> {
        let response = self.carry(ExchangeRequest::default()).await?;
        response.session.as_ref().try_into().map(SessionId).map_err(|_| {
            let message = "what answers opens no session";
            Failure::Final(TransportError::new(FailureKind::Unsupported, message))
        })
    }

    async fn call(&mut self, request: Request) -> Result<Answer, Failure> {
        let Request { session, ack, ask } = request;
        let ask = match ask {
            Ask::Send(Chunk { offset, bytes, end }) => {
                request::Ask::Send(ExchangeChunk { offset, data: bytes, end })
            }
            Ask::Poll { limit, wait } => {
                let limit = u32::try_from(limit).unwrap_or(u32::MAX);
                let wait_ms = u32::try_from(wait.min(POLL_WAIT).as_millis()).unwrap_or(u32::MAX);
                request::Ask::Poll(ExchangePoll { limit, wait_ms })
            }
            Ask::Close => request::Ask::Close(ExchangeClose {}),
        };
        let session = Bytes::copy_from_slice(&session.0);
        let response = self.carry(ExchangeRequest { session, ack, ask: Some(ask) }).await?;
        let ExchangeResponse { ack, chunk, gone, .. } = response;
        let ExchangeChunk { offset, data, end } = chunk.unwrap_or_default();
        Ok(Answer { chunk: Chunk { offset, bytes: data, end }, ack, gone })
    }
}
