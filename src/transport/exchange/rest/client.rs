//! Plain requests over one kept connection at a time.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use http::{Request as Http, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::{ACK, BASE, END, GONE, OFFSET, REFUSAL};
use crate::error::{FailureKind, TransportError};
use crate::transport::exchange::client::{Failure, Lane};
use crate::transport::exchange::message::{self, Unread, Whole};
use crate::transport::exchange::session::{Chunk, MAX_CHUNK_BYTES};
use crate::transport::exchange::{Answer, Ask, Request, Route, SessionId};
use crate::transport::outer::Alpn;
use crate::transport::{failure, grpc, tcp};

/// Maximum number of headers of an answer.
const MAX_HEADERS: usize = 64;
/// Maximum number of bytes of an answer's head, and of what is buffered in each direction.
const BUFFER_BYTES: usize = 64 * 1024;

/// One connection after the other to one server, for one request after the other.
#[derive(Debug)]
pub(in crate::transport::exchange) struct RestLane {
    route: Route,
    /// Time of the dial that the first connection is for.
    first: Option<tcp::Limit>,
    /// Connection that served a request and may serve another.
    kept: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    requests: http1::SendRequest<Whole>,
    /// The task that drives it, which ends with it.
    _task: JoinSet<()>,
}

impl RestLane {
    pub(in crate::transport::exchange) fn new(route: Route, first: Option<tcp::Limit>) -> Self {
        Self { route, first, kept: None }
    }

    async fn connect(&mut self) -> Result<Connection, TransportError> {
        let stream = self.route.connect(self.first.take(), Alpn::Http1).await?;
        let (requests, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(BUFFER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failure::from_hyper("no HTTP/1.1", e))?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Whoever made the request is told.
            let _ = connection.await;
        });
        Ok(Connection { requests, _task: task })
    }

    /// Carries a request whose answer has at most `max` bytes. Where a kept connection turns out to be
    /// over, the next one is tried at once: servers and proxies close idle ones, and after so many requests.
    async fn carry(
        &mut self,
        path: &str,
        body: Bytes,
        max: usize,
    ) -> Result<(StatusCode, HeaderMap, Bytes), TransportError> {
        if let Some(connection) = self.kept.take()
            && !connection.requests.is_closed()
            && let Ok(answer) = self.try_on(connection, path, body.clone(), max).await
        {
            return Ok(answer);
        }
        let connection = self.connect().await?;
        self.try_on(connection, path, body, max).await
    }

    async fn try_on(
        &mut self,
        mut connection: Connection,
        path: &str,
        body: Bytes,
        max: usize,
    ) -> Result<(StatusCode, HeaderMap, Bytes), TransportError> {
        let broke = |error| failure::from_hyper("the request failed", error);
        connection.requests.ready().await.map_err(broke)?;
        let request = self.request(path, body)?;
        let response = connection.requests.send_request(request).await.map_err(broke)?;
        let (status, headers, bytes) = collect(response, max).await?;
        self.kept = Some(connection);
        Ok((status, headers, bytes))
    }

    fn request(&self, path: &str, body: Bytes) -> Result<Http<Whole>, TransportError> {
        let route = &self.route;
        let origin = grpc::origin(&route.endpoint)?;
        let authority = origin.authority().map_or("", |authority| authority.as_str());
        Http::post(format!("{}{BASE}{path}", route.endpoint.path()))
            .header(HOST, authority)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .body(Whole::from(body))
            .map_err(|source| {
                let message = format!("{} cannot stand in a request", route.endpoint);
                TransportError::with_source(FailureKind::Unsupported, message, source)
            })
    }
}

async fn collect(
    response: Response<Incoming>,
    max: usize,
) -> Result<(StatusCode, HeaderMap, Bytes), TransportError> {
    let (head, body) = response.into_parts();
    let bytes = message::read(body, max).await.map_err(|unread| match unread {
        Unread::TooLarge => TransportError::new(
            FailureKind::Protocol,
            "an answer is larger than what was asked for",
        ),
        Unread::Broken(error) => failure::from_hyper("an answer broke off", error),
    })?;
    Ok((head.status, head.headers, bytes))
}

impl Lane for RestLane {
    async fn open(&mut self) -> Result<SessionId, Failure> {
        let opened = self.carry("open", Bytes::new(), MAX_CHUNK_BYTES).await;
        let (status, headers, bytes) = opened.map_err(Failure::Passing)?;
        if status != StatusCode::CREATED {
            return Err(refused(status, &headers));
        }
        let text = std::str::from_utf8(&bytes).ok();
        text.and_then(|text| text.trim_ascii().parse().ok()).ok_or_else(|| {
            let message = "what answers opens no session";
            Failure::Final(TransportError::new(FailureKind::Unsupported, message))
        })
    }

    async fn call(&mut self, request: Request) -> Result<Answer, Failure> {
        let Request { session, ack, ask } = request;
        let (path, body, max) = match ask {
            Ask::Send(Chunk { offset, bytes, end }) => {
                let end = if end { "&end=1" } else { "" };
                (format!("{session}/send?offset={offset}&ack={ack}{end}"), bytes, 0)
            }
            Ask::Poll { limit, wait } => {
                let wait = wait.as_millis();
                let path = format!("{session}/poll?ack={ack}&limit={limit}&wait={wait}");
                (path, Bytes::new(), limit)
            }
            Ask::Close => (format!("{session}/close"), Bytes::new(), 0),
        };
        // A refusal has a text, which is read so that the connection can be kept.
        let max = max.max(4096);
        let answer = self.carry(&path, body, max).await.map_err(Failure::Passing)?;
        let (status, headers, bytes) = answer;
        match status {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT => {
                return Ok(Answer { chunk: Chunk::default(), ack, gone: true });
            }
            _ => return Err(refused(status, &headers)),
        }
        let number = |name| headers.get(name)?.to_str().ok()?.parse().ok();
        let Some(server_ack) = number(ACK) else {
            // Something on the way answered in the server's place.
            let message = "an answer without what belongs into it";
            return Err(Failure::Passing(TransportError::new(FailureKind::Protocol, message)));
        };
        let end = headers.contains_key(END);
        let offset = number(OFFSET).unwrap_or(ack);
        let chunk = Chunk { offset, bytes, end };
        Ok(Answer { chunk, ack: server_ack, gone: headers.contains_key(GONE) })
    }
}

/// Failure that a status stands for. Only the server of the session has the last word; what stands before
/// it may change its mind.
fn refused(status: StatusCode, headers: &HeaderMap) -> Failure {
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
            FailureKind::Refused
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => FailureKind::Timeout,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => FailureKind::Unreachable,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => FailureKind::Unsupported,
        // Something else altogether is served there.
        _ if status.is_success() => FailureKind::Unsupported,
        _ => FailureKind::Protocol,
    };
    let error = TransportError::new(kind, format!("the request was answered with {status}"));
    if headers.contains_key(REFUSAL) { Failure::Final(error) } else { Failure::Passing(error) }
}
