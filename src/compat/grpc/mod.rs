//! gRPC face: the three services of the original, and reflection.
//!
//! Contract: nothing that a client sends is an internal error. What does not decode is
//! `INVALID_ARGUMENT`; what is larger than its method takes is `RESOURCE_EXHAUSTED`, before it is
//! read; another encoding of messages than none is `UNIMPLEMENTED` with the header that says so,
//! and so is a method that does not exist. A call has [`READ_TIME`] to bring its message, and the
//! time that the client gives it for all. Answers are sent as fast as the client reads and made no
//! faster.
//!
//! Tested by: `compat::tests::grpc`.

mod conversation;
mod incoming;
mod modest;
mod outgoing;
mod reflection;
mod status;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use prost::Message;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::{Code, Status};

use self::conversation::Conversation;
use self::incoming::Incoming;
use self::modest::{is_modest_exchange, is_modest_registration};
use self::outgoing::{Chunks, answer, answer_with, keeping};
use self::reflection::Reflection;
use self::status::status_of;
use super::limits::Permit;
use super::ops::{Ops, Refusal};
use crate::transport::Visitor;
use crate::wire::generated::transaction::TransactionResponse;

/// Time without a message after which a stream ends.
const MAX_IDLE: Duration = Duration::from_mins(10);
/// Time for the one message of a call to come.
const READ_TIME: Duration = Duration::from_secs(30);
/// Maximum number of bytes of a message that carries no transaction.
const MAX_MESSAGE_BYTES: u64 = 2 * 1024 * 1024;
/// Maximum number of bytes around a transaction in a message that carries one.
const MAX_EXTRA_BYTES: u64 = 64 * 1024;

/// Paths of the original's services, and of those that it had and that are not served.
const SERVICES: &str = "/sorcha.peer.";
/// Paths of peers among them.
const GOSSIP: &str = "/sorcha.peer.gossip.";

/// Answers calls.
#[derive(Debug, Clone)]
pub(super) struct GrpcFace {
    ops: Ops,
    reflection: Arc<Reflection>,
}

impl GrpcFace {
    pub(super) fn new(ops: Ops) -> Self {
        Self { ops, reflection: Arc::new(Reflection::new()) }
    }

    /// Reports whether requests for this path are calls for this face.
    pub(super) fn serves(&self, path: &str) -> bool {
        path.starts_with(SERVICES) && !path.starts_with(GOSSIP) || self.reflection.serves(path)
    }

    /// Answers a request.
    pub(super) fn call(
        &self,
        request: Request<Body>,
        visitor: Visitor,
    ) -> BoxFuture<'static, Response<Body>> {
        let this = self.clone();
        async move {
            let begun = match this.begin(&request, visitor) {
                Ok(begun) => begun,
                Err(refused) => return *refused,
            };
            match begun.deadline {
                None => this.route(request, begun).await,
                Some(deadline) => timeout_at(deadline, this.route(request, begun))
                    .await
                    .unwrap_or_else(|_| too_late().into_http()),
            }
        }
        .boxed()
    }

    /// Looks at all of a call but its message.
    fn begin(
        &self,
        request: &Request<Body>,
        visitor: Visitor,
    ) -> Result<Call, Box<Response<Body>>> {
        check_http(request, visitor)?;
        let deadline = deadline(request.headers()).map_err(|e| Box::new(e.into_http()))?;
        check_encoding(request.headers()).map_err(|e| Box::new(e.into_http()))?;
        let permit = self.ops.admit(&visitor, 0);
        let permit = permit.map_err(|e| Box::new(status_of(e).into_http()))?;
        Ok(Call { visitor, deadline, permit })
    }

    /// The table of methods.
    async fn route(self, request: Request<Body>, call: Call) -> Response<Body> {
        let ops = &self.ops;
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let visitor = call.visitor;
        let small = MAX_MESSAGE_BYTES;
        let carrying = ops.max_transaction_size().saturating_add(MAX_EXTRA_BYTES);
        if self.reflection.serves(path) {
            let response = self.reflection.call(Request::from_parts(head, body)).await;
            return keeping(response, call.permit, call.deadline);
        }
        let names = path.strip_prefix(SERVICES).and_then(|names| names.split_once('/'));
        let Some((service, method)) = names else {
            return no_method().into_http();
        };
        match (service, method) {
            ("discovery.PeerDiscovery", "GetPeerList") => {
                call.unary(body, small, async |q| ops.peer_list(&visitor, q).await).await
            }
            ("discovery.PeerDiscovery", "RegisterPeer") => {
                let work = async |q| ops.register_peer(&visitor, q).await;
                call.unary_if(body, small, is_modest_registration, work).await
            }
            ("discovery.PeerDiscovery", "Ping") => {
                call.unary(body, small, async |q| ops.ping(&visitor, q).await).await
            }
            ("discovery.PeerDiscovery", "ExchangePeers") => {
                let work = async |q| ops.exchange_peers(&visitor, q).await;
                call.unary_if(body, small, is_modest_exchange, work).await
            }
            ("communication.PeerCommunication", "SendMessage") => {
                call.unary(body, carrying, async |q| ops.send_message(&visitor, q).await).await
            }
            ("communication.PeerCommunication", "Stream") => {
                let Call { visitor, deadline, permit } = call;
                let incoming = Incoming::new(body, carrying);
                let conversation =
                    Conversation::new(ops.clone(), visitor, incoming, permit, deadline);
                answer_with(conversation)
            }
            ("transaction.TransactionDistribution", "NotifyTransaction") => {
                call.unary(body, small, async |q| ops.notify(&visitor, q).await).await
            }
            ("transaction.TransactionDistribution", "GetTransaction") => {
                call.get_transaction(ops, body).await
            }
            ("transaction.TransactionDistribution", "StreamTransaction") => {
                call.stream_transaction(ops, body).await
            }
            _ => no_method().into_http(),
        }
    }
}

/// A call that was let in.
struct Call {
    visitor: Visitor,
    /// When the time is over that the client gives it.
    deadline: Option<Instant>,
    permit: Permit,
}

impl Call {
    /// A call with one message and one answer.
    async fn unary<Q, A>(
        self,
        body: Body,
        max: u64,
        work: impl AsyncFnOnce(Q) -> Result<A, Refusal>,
    ) -> Response<Body>
    where
        Q: Message + Default,
        A: Message,
    {
        self.unary_if(body, max, |_| true, work).await
    }

    /// The same, where the message is only decoded if this says so of its bytes.
    async fn unary_if<Q, A>(
        mut self,
        body: Body,
        max: u64,
        is_modest: fn(&[u8]) -> bool,
        work: impl AsyncFnOnce(Q) -> Result<A, Refusal>,
    ) -> Response<Body>
    where
        Q: Message + Default,
        A: Message,
    {
        let request = match self.message(body, max, is_modest).await {
            Ok(request) => request,
            Err(status) => return status.into_http(),
        };
        let answered = work(request).await.and_then(|message| {
            self.permit.grow(message.encoded_len() as u64)?;
            Ok(message)
        });
        match answered {
            Ok(message) => answer(&message, self.permit),
            Err(refusal) => status_of(refusal).into_http(),
        }
    }

    async fn get_transaction(self, ops: &Ops, body: Body) -> Response<Body> {
        match self.find(ops, body).await {
            Ok((message, call)) => answer(&message, call.permit),
            Err(status) => status.into_http(),
        }
    }

    async fn stream_transaction(self, ops: &Ops, body: Body) -> Response<Body> {
        match self.find(ops, body).await {
            Ok((TransactionResponse { found: false, .. }, _)) => {
                Status::not_found("no such transaction is here").into_http()
            }
            Ok((message, call)) => {
                let TransactionResponse { transaction_hash, transaction_data, .. } = message;
                let (permit, deadline) = (call.permit, call.deadline);
                answer_with(Chunks::new(transaction_hash, transaction_data, permit, deadline))
            }
            Err(status) => status.into_http(),
        }
    }

    /// What is asked for, counted as sent.
    async fn find(mut self, ops: &Ops, body: Body) -> Result<(TransactionResponse, Self), Status> {
        let request = self.message(body, MAX_MESSAGE_BYTES, |_| true).await?;
        let response = ops.answer(request).await.map_err(status_of)?;
        self.permit.grow(response.transaction_data.len() as u64).map_err(status_of)?;
        Ok((response, self))
    }

    /// The one message of a call, and the end of the request.
    async fn message<Q: Message + Default>(
        &mut self,
        body: Body,
        max: u64,
        is_modest: fn(&[u8]) -> bool,
    ) -> Result<Q, Status> {
        let mut incoming = Incoming::new(body, max);
        let deadline = Instant::now() + READ_TIME;
        let read = async {
            let bytes = incoming.message(&mut self.permit).await?;
            let bytes = bytes.ok_or_else(|| Status::invalid_argument("the call has no message"))?;
            incoming.end().await?;
            Ok(bytes)
        };
        let late = |_| Err(Status::deadline_exceeded("the message did not come in time"));
        let bytes = timeout_at(deadline, read).await.unwrap_or_else(late)?;
        if !is_modest(&bytes) {
            return Err(Status::invalid_argument("the message has too many fields"));
        }
        Q::decode(bytes).map_err(|_| incoming::malformed())
    }
}

fn no_method() -> Status {
    Status::unimplemented("no such method")
}

fn too_quiet() -> Status {
    Status::deadline_exceeded("no message came for ten minutes")
}

fn too_late() -> Status {
    Status::deadline_exceeded("the time that the client gave is over")
}

/// Refuses what is no call at all, in terms of HTTP.
fn check_http(request: &Request<Body>, visitor: Visitor) -> Result<(), Box<Response<Body>>> {
    let refuse = |status| {
        let mut response = Box::new(Response::new(Body::empty()));
        *response.status_mut() = status;
        response
    };
    if !visitor.is_http2 {
        return Err(refuse(StatusCode::HTTP_VERSION_NOT_SUPPORTED));
    }
    if request.method() != Method::POST {
        let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Err(response);
    }
    let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if ![&b"application/grpc"[..], b"application/grpc+proto"].contains(&kind) {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    Ok(())
}

/// Refuses messages in an encoding, and names those that there are.
fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(()),
        Some(_) => {
            let mut status = Status::new(Code::Unimplemented, "messages are taken uncompressed");
            let identity = tonic::metadata::MetadataValue::from_static("identity");
            status.metadata_mut().insert("grpc-accept-encoding", identity);
            Err(status)
        }
    }
}

/// Time that a client gives its call: at most eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let time = time_of(value.as_bytes());
    let time = time.ok_or_else(|| Status::invalid_argument("grpc-timeout is no time"))?;
    // What is too long to be added is no limit.
    Ok(Instant::now().checked_add(time))
}

fn time_of(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}
