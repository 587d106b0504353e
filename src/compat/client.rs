//! Calls to clients that registered: what their own node answers.
//!
//! Contract: an endpoint that a client named is reached only at addresses that the client might have
//! named as such, whatever its name resolves to. Nobody is authenticated. Each call has a time, an answer
//! has a size, and at most [`MAX_KEPT`] connections are kept for the next one.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tonic::Code;

use super::registry::News;
use crate::config::AddressPolicy;
use crate::transport::{Http2, Outbound};
use crate::types::{AddressScope, Endpoint};
use crate::wire::generated::discovery::PingRequest;
use crate::wire::generated::discovery::peer_discovery_client::PeerDiscoveryClient;
use crate::wire::generated::transaction::transaction_distribution_client::TransactionDistributionClient;
use crate::wire::generated::transaction::{TransactionNotification, TransactionRequest};

/// Maximum time of a ping by one way; all four together are within 10 s.
const PING_TIMEOUT: Duration = Duration::from_millis(2400);
/// Maximum time for telling of a transaction.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time for fetching a transaction, and for a piece of one, or one that is no larger than that.
const FETCH_TIMEOUT: Duration = Duration::from_mins(1);
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of bytes of an answer that carries no transaction.
const MAX_ANSWER: usize = 64 * 1024;
/// Number of bytes that an answer with a transaction may have beside the payload.
const SPARE: usize = 64 * 1024;
/// Size of a payload above which it is fetched in pieces.
const STREAM_ABOVE: u64 = 1 << 20;
/// Maximum number of connections that are kept, and the time that one is kept unused.
const MAX_KEPT: usize = 64;
const KEPT_FOR: Duration = Duration::from_secs(90);

/// Reason why a call had no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failure(String);

/// Way by which a client answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// gRPC in clear text.
    H2c,
    /// gRPC in TLS.
    H2Tls,
    /// REST in clear text.
    Http1,
    /// REST in TLS.
    Http1Tls,
}

/// Place of a client that registered.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Direct endpoint.
    pub(super) endpoint: Endpoint,
    /// Reach of the address that it was named from.
    pub(super) scope: AddressScope,
    /// Protocols that it says it speaks.
    pub(super) protocols: Vec<String>,
    /// Way by which it answered last.
    pub(super) way: Option<Way>,
}

/// Transaction to be fetched.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Name as the client wrote it.
    pub(super) hash: String,
    /// Topic as the client wrote it.
    pub(super) register: String,
    /// Size that the client said, where it said one.
    pub(super) size: Option<u64>,
}

type Place = (Endpoint, AddressScope);

/// Calls, and the connections that are kept for them.
#[derive(Debug)]
pub(super) struct Client {
    outbound: Outbound,
    policy: AddressPolicy,
    /// By endpoint and the reach of who named it: a name may lead where only some may have it lead.
    kept: Mutex<HashMap<Place, (Arc<Http2>, Instant)>>,
}

impl Way {
    fn is_grpc(self) -> bool {
        matches!(self, Self::H2c | Self::H2Tls)
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::H2c | Self::Http1 => "http",
            Self::H2Tls | Self::Http1Tls => "https",
        }
    }
}

impl Target {
    /// Ways to be tried, the one that worked last first.
    fn ways(&self) -> Vec<Way> {
        let is_rest = |name: &String| name.eq_ignore_ascii_case("rest");
        let says_rest = self.protocols.iter().any(is_rest);
        let speaks_grpc = self.protocols.is_empty() || !self.protocols.iter().all(is_rest);
        let mut ways: Vec<Way> = self.way.into_iter().collect();
        let all = [Way::H2c, Way::H2Tls, Way::Http1, Way::Http1Tls];
        let fits = |way: &Way| if way.is_grpc() { speaks_grpc } else { says_rest };
        ways.extend(all.into_iter().filter(|way| fits(way) && self.way != Some(*way)));
        ways
    }

    /// The endpoint as it is spoken to by a way.
    fn by(&self, way: Way) -> Result<Endpoint, Failure> {
        let (host, port) = (self.endpoint.host(), self.endpoint.port());
        format!("{}://{host}:{port}", way.scheme()).parse().map_err(failure)
    }
}

/// Reports whether an address may be dialled for somebody who named it from an address of this reach.
pub(super) fn may_name(policy: AddressPolicy, from: AddressScope, address: AddressScope) -> bool {
    match policy {
        _ if address == AddressScope::Unusable => false,
        AddressPolicy::Any => true,
        AddressPolicy::Public => address == AddressScope::Public,
        AddressPolicy::Auto => address >= from,
    }
}

impl Client {
    pub(super) fn new(outbound: Outbound, policy: AddressPolicy) -> Self {
        Self { outbound, policy, kept: Mutex::default() }
    }

    /// Closes the connections that are kept.
    pub(super) fn close(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Asks whether somebody is there, by each way in turn. Returns the way and the id that answered.
    pub(super) async fn ping(&self, target: &Target, me: &str) -> Result<(Way, String), Failure> {
        let mut last = Failure("there is no way to ask".to_owned());
        for way in target.ways() {
            let asking = async {
                if way.is_grpc() {
                    self.ping_grpc(target, way, me).await
                } else {
                    self.ping_rest(target, way, me).await
                }
            };
            match within(PING_TIMEOUT, asking).await {
                Ok(id) => return Ok((way, id)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Tells of a transaction.
    pub(super) async fn notify(
        &self,
        target: &Target,
        me: &str,
        news: &News,
        seconds: i64,
    ) -> Result<(), Failure> {
        let way = target.way.unwrap_or(Way::H2c);
        let telling = async {
            if !way.is_grpc() {
                return self.notify_rest(target, way, me, news, seconds).await;
            }
            let notification = TransactionNotification {
                transaction_hash: news.hash.clone(),
                sender_peer_id: me.to_owned(),
                timestamp: seconds,
                transaction_size: i64::try_from(news.size).unwrap_or(i64::MAX),
                register_id: news.topic.clone(),
            };
            let connection = self.connection(target, way).await?;
            let mut client = TransactionDistributionClient::with_origin(
                connection.requests(),
                connection.origin(),
            )
            .max_decoding_message_size(MAX_ANSWER);
            client.notify_transaction(notification).await.map(drop).map_err(failure)
        };
        within(NOTIFY_TIMEOUT, telling).await
    }

    /// Fetches a payload of at most `max` bytes; `None` where the client has it not.
    pub(super) async fn fetch(
        &self,
        target: &Target,
        me: &str,
        wanted: &Wanted,
        max: u64,
    ) -> Result<Option<Bytes>, Failure> {
        let way = target.way.unwrap_or(Way::H2c);
        let max = usize::try_from(wanted.size.unwrap_or(max).min(max)).unwrap_or(usize::MAX);
        let fetching = async {
            if !way.is_grpc() {
                return self.fetch_rest(target, way, wanted, max).await;
            }
            let connection = self.connection(target, way).await?;
            let client = TransactionDistributionClient::with_origin(
                connection.requests(),
                connection.origin(),
            );
            let mut client = client.max_decoding_message_size(max.saturating_add(SPARE));
            let request = TransactionRequest {
                transaction_hash: wanted.hash.clone(),
                requesting_peer_id: me.to_owned(),
                register_id: wanted.register.clone(),
            };
            if wanted.size.is_some_and(|size| size > STREAM_ABOVE) {
                return stream(&mut client, request, max).await;
            }
            let asked = client.get_transaction(request);
            // One of unknown size may be large.
            let time = if wanted.size.is_some() { PIECE_TIMEOUT } else { FETCH_TIMEOUT / 2 };
            let Ok(answer) = timeout(time, asked).await else { return Err(silent()) };
            match answer {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    Ok(answer.found.then_some(answer.transaction_data))
                }
                Err(status) if status.code() == Code::NotFound => Ok(None),
                Err(status) => Err(failure(status)),
            }
        };
        within(FETCH_TIMEOUT, fetching).await
    }

    async fn ping_grpc(&self, target: &Target, way: Way, me: &str) -> Result<String, Failure> {
        let connection = self.connection(target, way).await?;
        let client = PeerDiscoveryClient::with_origin(connection.requests(), connection.origin());
        let mut client = client.max_decoding_message_size(MAX_ANSWER);
        let answer = client.ping(PingRequest { peer_id: me.to_owned() }).await;
        answer.map(|answer| answer.into_inner().peer_id).map_err(failure)
    }

    async fn ping_rest(&self, target: &Target, way: Way, me: &str) -> Result<String, Failure> {
        let query = format!("/api/v1/peers/ping?peerId={me}");
        let mut answer = self.rest(target, way, Method::GET, &query, None, MAX_ANSWER).await?;
        if is_elsewhere(answer.0) {
            let body = json!({ "peerId": me });
            answer = self
                .rest(target, way, Method::POST, "/api/peer/ping", Some(body), MAX_ANSWER)
                .await?;
        }
        succeeded(answer.0)?;
        // A server that answers everything is no peer.
        let answer: Value = serde_json::from_slice(&answer.1).unwrap_or_default();
        match (answer["peerId"].as_str(), answer["alive"].as_bool()) {
            (Some(id), alive) if alive != Some(false) => Ok(id.to_owned()),
            (None, Some(true)) => Ok(String::new()),
            _ => Err(Failure("what answers says nothing of being a peer".to_owned())),
        }
    }

    async fn notify_rest(
        &self,
        target: &Target,
        way: Way,
        me: &str,
        news: &News,
        seconds: i64,
    ) -> Result<(), Failure> {
        let body = json!({ "transactionHash": news.hash, "senderPeerId": me, "timestamp": seconds,
            "transactionSize": news.size, "registerId": news.topic,
            "transactionId": news.hash, "originPeerId": me, "dataSize": news.size,
            "dataHash": news.hash });
        let mut status = StatusCode::NOT_FOUND;
        for path in ["/api/v1/transactions/notify", "/api/transaction/notify"] {
            let body = Some(body.clone());
            (status, _) = self.rest(target, way, Method::POST, path, body, MAX_ANSWER).await?;
            if !is_elsewhere(status) {
                break;
            }
        }
        succeeded(status)
    }

    async fn fetch_rest(
        &self,
        target: &Target,
        way: Way,
        wanted: &Wanted,
        max: usize,
    ) -> Result<Option<Bytes>, Failure> {
        let path = format!("/api/v1/transactions/{}", escaped(&wanted.hash));
        let (status, body) = self.rest(target, way, Method::GET, &path, None, max).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        succeeded(status)?;
        Ok(Some(body))
    }

    async fn rest(
        &self,
        target: &Target,
        way: Way,
        method: Method,
        path: &str,
        body: Option<Value>,
        max: usize,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(failure)?;
        if let Some(body) = body {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
            *request.body_mut() = body.to_string().into();
        }
        let answer = self.outbound.http1(&target.by(way)?, self.may(target), request, max).await;
        let (head, body) = answer.map_err(failure)?.into_parts();
        Ok((head.status, body))
    }

    /// Addresses that may be dialled for a client.
    fn may(&self, target: &Target) -> impl Fn(IpAddr) -> bool + use<> {
        let (policy, scope) = (self.policy, target.scope);
        move |ip| may_name(policy, scope, AddressScope::of(ip))
    }

    async fn connection(&self, target: &Target, way: Way) -> Result<Arc<Http2>, Failure> {
        let endpoint = target.by(way)?;
        let place = (endpoint.clone(), target.scope);
        if let Some(kept) = self.kept(&place) {
            return Ok(kept);
        }
        let opened = self.outbound.http2(&endpoint, self.may(target)).await.map_err(failure)?;
        let opened = Arc::new(opened);
        self.keep(place, Arc::clone(&opened));
        Ok(opened)
    }

    fn kept(&self, place: &Place) -> Option<Arc<Http2>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.retain(|_, (connection, used)| {
            !connection.is_closed() && now.saturating_duration_since(*used) < KEPT_FOR
        });
        let (connection, used) = kept.get_mut(place)?;
        *used = now;
        Some(Arc::clone(connection))
    }

    fn keep(&self, place: Place, connection: Arc<Http2>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            let oldest = kept.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(place, _)| place.clone()) {
                kept.remove(&oldest);
            }
        }
        kept.insert(place, (connection, Instant::now()));
    }
}

/// Fetches a payload in pieces, each of which says its place.
async fn stream<T>(
    client: &mut TransactionDistributionClient<T>,
    request: TransactionRequest,
    max: usize,
) -> Result<Option<Bytes>, Failure>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::Error: Into<tonic::codegen::StdError>,
    T::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    let asked = timeout(PIECE_TIMEOUT, client.stream_transaction(request)).await;
    let Ok(answer) = asked else { return Err(silent()) };
    let mut chunks = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == Code::NotFound => return Ok(None),
        Err(status) => return Err(failure(status)),
    };
    let (mut payload, mut next, mut total) = (Vec::new(), 0, None);
    loop {
        let Ok(chunk) = timeout(PIECE_TIMEOUT, chunks.next()).await else { return Err(silent()) };
        let Some(chunk) = chunk else { break };
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(status) if status.code() == Code::NotFound && next == 0 => return Ok(None),
            Err(status) => return Err(failure(status)),
        };
        let all = *total.get_or_insert(chunk.total_chunks);
        if chunk.chunk_index != next || chunk.total_chunks != all || next >= all.max(1) {
            return Err(Failure("the pieces are out of order".to_owned()));
        }
        next += 1;
        if payload.len() + chunk.chunk_data.len() > max {
            return Err(Failure("there is more than was said".to_owned()));
        }
        payload.extend_from_slice(&chunk.chunk_data);
    }
    match total {
        Some(all) if next >= all => Ok(Some(payload.into())),
        // An empty payload, of the original.
        None => Ok(Some(Bytes::new())),
        Some(_) => Err(Failure("pieces are missing".to_owned())),
    }
}

fn silent() -> Failure {
    Failure(format!("nothing came within {PIECE_TIMEOUT:?}"))
}

/// Reports whether an answer says that the path is none of the server's.
fn is_elsewhere(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
}

fn succeeded(status: StatusCode) -> Result<(), Failure> {
    if status.is_success() { Ok(()) } else { Err(Failure(format!("it answered {status}"))) }
}

/// Text as a segment of a path.
fn escaped(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure(error.to_string())
}

async fn within<T>(
    span: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    // Boxed, since what is under way is large and there may be many.
    let done = timeout(span, Box::pin(work)).await;
    done.unwrap_or_else(|_| Err(Failure(format!("no answer within {span:?}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(protocols: &[&str], way: Option<Way>) -> Vec<Way> {
        let endpoint: Endpoint = "10.0.0.1:1".parse().unwrap();
        let protocols = protocols.iter().map(|name| (*name).to_owned()).collect();
        Target { endpoint, scope: AddressScope::Private, protocols, way }.ways()
    }

    #[test]
    fn rest_is_for_who_says_so_and_what_worked_is_tried_first() {
        use Way::{H2Tls, H2c, Http1, Http1Tls};
        assert_eq!(ways(&[], None), [H2c, H2Tls]);
        assert_eq!(ways(&["GrpcStream", "Grpc"], None), [H2c, H2Tls]);
        assert_eq!(ways(&["grpc", "REST"], None), [H2c, H2Tls, Http1, Http1Tls]);
        assert_eq!(ways(&["Rest"], None), [Http1, Http1Tls]);
        assert_eq!(ways(&["Grpc", "Rest"], Some(Http1)), [Http1, H2c, H2Tls, Http1Tls]);
    }

    #[test]
    fn nobody_can_have_a_node_dial_what_is_nearer_to_it_than_to_them() {
        use AddressPolicy::{Any, Auto, Public};
        use AddressScope as S;
        let may = |policy, from| {
            [S::Loopback, S::Private, S::Public].map(|address| may_name(policy, from, address))
        };
        assert_eq!(may(Auto, S::Loopback), [true, true, true]);
        assert_eq!(may(Auto, S::Private), [false, true, true]);
        assert_eq!(may(Auto, S::Public), [false, false, true]);
        assert_eq!(may(Public, S::Loopback), [false, false, true]);
        assert_eq!(may(Any, S::Public), [true, true, true]);
        for policy in [Any, Auto, Public] {
            assert!(!may_name(policy, S::Loopback, S::Unusable));
        }
    }

    #[test]
    fn a_hash_in_base64_stands_in_one_segment() {
        assert_eq!(escaped("a+/b=é"), "a%2B%2Fb%3D%C3%A9");
    }

    #[test]
    fn both_ends_of_a_way_are_one_place() {
        let target = |text: &str| Target {
            endpoint: text.parse().unwrap(),
            scope: AddressScope::Public,
            protocols: Vec::new(),
            way: None,
        };
        let by = |text: &str, way| target(text).by(way).unwrap().to_string();
        assert_eq!(by("[2001:db8::1]:443", Way::H2Tls), "https://[2001:db8::1]");
        assert_eq!(by("example.com:5001", Way::Http1), "http://example.com:5001");
    }
}
