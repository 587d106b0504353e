//! The gRPC face on a real socket, as a client of another library sees it that also makes mistakes.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as _, Frame};
use prost::Message;
use tokio::net::TcpStream;
use tonic::Status;
use tonic::body::Body;

use super::node::FakeNode;
use super::*;
use crate::compat::grpc::GrpcFace;
use crate::compat::hashes;
use crate::ports::Transport;
use crate::transport::Guest;
use crate::wire::generated::communication::{MessageAck, MessageType, PeerMessage};
use crate::wire::generated::discovery::{
    PeerExchangeRequest, PeerExchangeResponse, PeerInfo, PeerListRequest, PeerListResponse,
    PingRequest, PingResponse, RegisterPeerRequest, RegisterPeerResponse,
};
use crate::wire::generated::transaction::{
    NotificationAck, TransactionChunk, TransactionNotification, TransactionRequest,
    TransactionResponse,
};

const PING: &str = "discovery.PeerDiscovery/Ping";
const SEND: &str = "communication.PeerCommunication/SendMessage";
const STREAM: &str = "communication.PeerCommunication/Stream";
const GET: &str = "transaction.TransactionDistribution/GetTransaction";
const CHUNKS: &str = "transaction.TransactionDistribution/StreamTransaction";

const OK: &str = "0";
const INVALID: &str = "3";
const LATE: &str = "4";
const NOT_FOUND: &str = "5";
const EXHAUSTED: &str = "8";
const UNIMPLEMENTED: &str = "12";

/// The face alone.
#[derive(Debug)]
struct Only(GrpcFace);

impl Guest for Only {
    fn serves(&self, path: &str) -> bool {
        self.0.serves(path)
    }

    fn call(&self, request: Request<Body>, visitor: Visitor) -> BoxFuture<'static, Response<Body>> {
        self.0.call(request, visitor)
    }
}

/// A world behind a socket in clear text.
struct Server {
    world: World,
    address: SocketAddr,
    _accepting: tokio::task::JoinSet<()>,
}

impl Server {
    async fn start(settings: Settings) -> Self {
        let world = World::new(settings).built().await;
        let options = GrpcOptions { plaintext: true, ..GrpcOptions::default() };
        let transport = GrpcTransport::new(Identity::from_seed([9; 32]), options).unwrap();
        transport.set_guest(Arc::new(Only(GrpcFace::new(world.ops.clone()))));
        let mut listener = transport.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr();
        let mut accepting = tokio::task::JoinSet::new();
        accepting.spawn(async move {
            let other = listener.accept().await;
            panic!("not a guest: {other:?}");
        });
        Self { world, address, _accepting: accepting }
    }

    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        // A stream that is not read holds up no other.
        let mut builder = h2::client::Builder::new();
        let builder = builder.initial_connection_window_size(8 << 20);
        let (requests, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Client(requests)
    }
}

#[derive(Clone)]
struct Client(SendRequest<Bytes>);

/// A call whose request goes on.
struct Open {
    out: SendStream<Bytes>,
    head: HeaderMap,
    body: RecvStream,
    read: BytesMut,
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("in time")
}

impl Client {
    /// Begins a call, and waits for the answer's head.
    async fn open(&self, path: &str, headers: &[(&str, &str)], first: Bytes, end: bool) -> Open {
        let path =
            if path.starts_with('/') { path.to_owned() } else { format!("/sorcha.peer.{path}") };
        let mut request = Request::post(format!("http://x{path}"));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = self.0.clone().ready().await.unwrap();
        let (response, mut out) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        out.send_data(first, end).unwrap();
        let (head, body) = in_time(response).await.unwrap().into_parts();
        assert_eq!(head.status, 200, "{path}: {:?}", head.headers);
        assert_eq!(head.headers["content-type"], "application/grpc");
        Open { out, head: head.headers, body, read: BytesMut::new() }
    }

    /// What a call with these bytes is answered with: messages, and status.
    async fn raw(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        bytes: Bytes,
    ) -> (Vec<Bytes>, HeaderMap) {
        let mut open = self.open(path, headers, bytes, true).await;
        let mut messages = Vec::new();
        while let Some(message) = open.next().await {
            messages.push(message);
        }
        (messages, open.end().await)
    }

    async fn code(&self, path: &str, bytes: impl Into<Bytes>) -> String {
        code(&self.raw(path, &[], bytes.into()).await.1)
    }

    async fn call<A: Message + Default>(&self, path: &str, request: impl Message) -> A {
        let (messages, end) = self.raw(path, &[], framed(&request)).await;
        assert_eq!(code(&end), OK, "{path}: {end:?}");
        assert_eq!(messages.len(), 1);
        A::decode(messages[0].clone()).unwrap()
    }
}

impl Open {
    fn send(&mut self, bytes: Bytes, end: bool) {
        self.out.send_data(bytes, end).unwrap();
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.read.len() >= 5 {
                assert_eq!(self.read[0], 0);
                let length = u32::from_be_bytes(self.read[1..5].try_into().unwrap()) as usize;
                if self.read.len() >= 5 + length {
                    self.read.advance(5);
                    return Some(self.read.split_to(length).freeze());
                }
            }
            let Some(data) = in_time(self.body.data()).await else {
                assert!(self.read.is_empty(), "cut");
                return None;
            };
            let data = data.unwrap();
            self.body.flow_control().release_capacity(data.len()).unwrap();
            self.read.extend_from_slice(&data);
        }
    }

    /// What holds the status.
    async fn end(&mut self) -> HeaderMap {
        if self.head.contains_key("grpc-status") {
            return self.head.clone();
        }
        in_time(self.body.trailers()).await.unwrap().expect("trailers")
    }
}

fn code(end: &HeaderMap) -> String {
    end["grpc-status"].to_str().unwrap().to_owned()
}

fn framed(message: &impl Message) -> Bytes {
    prefixed(0, &message.encode_to_vec())
}

fn prefixed(flag: u8, bytes: &[u8]) -> Bytes {
    let mut all = BytesMut::new();
    all.put_u8(flag);
    all.put_u32(u32::try_from(bytes.len()).unwrap());
    all.put_slice(bytes);
    all.freeze()
}

fn ping() -> Bytes {
    framed(&PingRequest { peer_id: "a".to_owned() })
}

#[tokio::test]
async fn every_method_answers() {
    let server = Server::start(settings()).await;
    let client = server.client().await;
    let me = server.world.ops.peer_id().to_string();
    let pong: PingResponse = client.call(PING, PingRequest { peer_id: "a".to_owned() }).await;
    assert_eq!((pong.peer_id, pong.timestamp), (me, 1_700_000_000));
    let list = PeerListRequest { requesting_peer_id: "a".to_owned(), max_peers: 0 };
    let list: PeerListResponse = client.call("discovery.PeerDiscovery/GetPeerList", list).await;
    assert_eq!((list.total_peers, &list.peers[0].peer_id), (1, &FakeNode::peer().to_string()));
    let register = RegisterPeerRequest { peer_info: Some(PeerInfo::default()) };
    let path = "discovery.PeerDiscovery/RegisterPeer";
    let registered: RegisterPeerResponse = client.call(path, register).await;
    assert_eq!((registered.success, &registered.message[..]), (false, "Invalid peer ID"));
    let exchange =
        PeerExchangeRequest { peer_id: "a".to_owned(), ..PeerExchangeRequest::default() };
    let path = "discovery.PeerDiscovery/ExchangePeers";
    let exchanged: PeerExchangeResponse = client.call(path, exchange).await;
    assert!(exchanged.success && exchanged.known_peers.len() == 1);
    let told = TransactionNotification {
        transaction_hash: "ab".repeat(32),
        sender_peer_id: "a".to_owned(),
        transaction_size: 1,
        ..TransactionNotification::default()
    };
    let path = "transaction.TransactionDistribution/NotifyTransaction";
    let told: NotificationAck = client.call(path, told).await;
    assert!(!told.already_known && !told.will_request, "a stranger is not asked");
    let beat = PeerMessage {
        sender_peer_id: "a".to_owned(),
        message_type: MessageType::Heartbeat.into(),
        ..PeerMessage::default()
    };
    let beaten: MessageAck = client.call(SEND, beat).await;
    assert!(beaten.received);
}

#[tokio::test]
async fn transactions_are_got_whole_and_in_chunks() {
    let server = Server::start(settings()).await;
    let client = server.client().await;
    for size in [0, 1, 64 * 1024, 64 * 1024 + 1, MAX_SIZE as usize] {
        let payload = Bytes::from(vec![u8::try_from(size % 251).unwrap(); size]);
        let from = visitor("127.0.0.1");
        let id = server.world.ops.publish(&from, "t", payload.clone()).await.unwrap();
        let request = TransactionRequest {
            transaction_hash: id.to_string().to_uppercase(),
            requesting_peer_id: "a".to_owned(),
            register_id: "t".to_owned(),
        };
        let got: TransactionResponse = client.call(GET, request.clone()).await;
        assert!(got.found && got.transaction_data == payload);
        assert_eq!(got.transaction_hash, request.transaction_hash);
        let (chunks, end) = client.raw(CHUNKS, &[], framed(&request)).await;
        assert_eq!(code(&end), OK);
        let chunks: Vec<_> =
            chunks.into_iter().map(|chunk| TransactionChunk::decode(chunk).unwrap()).collect();
        assert_eq!(chunks.len(), size.div_ceil(64 * 1024).max(1));
        for (n, chunk) in chunks.iter().enumerate() {
            assert_eq!(
                (chunk.chunk_index as usize, chunk.total_chunks as usize),
                (n, chunks.len())
            );
            assert_eq!(chunk.transaction_hash, request.transaction_hash);
        }
        let parts: Vec<_> = chunks.iter().map(|chunk| &chunk.chunk_data[..]).collect();
        assert!(parts.concat() == payload);
    }
    let unknown =
        TransactionRequest { transaction_hash: "0".repeat(64), ..TransactionRequest::default() };
    let got: TransactionResponse = client.call(GET, unknown.clone()).await;
    assert_eq!((got.found, got.transaction_hash), (false, "0".repeat(64)));
    assert_eq!(client.code(CHUNKS, framed(&unknown)).await, NOT_FOUND);
    let nothing = TransactionRequest::default();
    assert_eq!(client.code(CHUNKS, framed(&nothing)).await, INVALID);
}

/// A chunk is made when the one before has been taken.
#[tokio::test]
async fn who_does_not_read_is_not_sent_more_than_fits() {
    let server = Server::start(settings()).await;
    let client = server.client().await;
    let from = visitor("127.0.0.1");
    let payload = Bytes::from(vec![1; MAX_SIZE as usize]);
    let id = server.world.ops.publish(&from, "t", payload).await.unwrap();
    let request =
        TransactionRequest { transaction_hash: id.to_string(), ..TransactionRequest::default() };
    let mut open = client.open(CHUNKS, &[], framed(&request), true).await;
    assert!(open.next().await.is_some());
    // Others are served meanwhile, on the same connection.
    assert_eq!(client.code(PING, ping()).await, OK);
    let mut chunks = 1;
    while open.next().await.is_some() {
        chunks += 1;
    }
    assert_eq!(chunks, MAX_SIZE.div_ceil(64 * 1024));
}

#[tokio::test]
async fn what_does_not_decode_is_invalid_everywhere() {
    let server = Server::start(settings()).await;
    let client = server.client().await;
    let methods = [
        "discovery.PeerDiscovery/GetPeerList",
        "discovery.PeerDiscovery/RegisterPeer",
        PING,
        "discovery.PeerDiscovery/ExchangePeers",
        SEND,
        STREAM,
        "transaction.TransactionDistribution/NotifyTransaction",
        GET,
        CHUNKS,
    ];
    let bad = [
        prefixed(0, b"\x0a\x02\xff\xfe"),
        prefixed(0, b"\x0a\x05ab"),
        prefixed(0, b"\x08\x01"),
        prefixed(0, b"\x0b"),
        prefixed(0, &[0xff; 11]),
        prefixed(1, b""),
        prefixed(7, b""),
        Bytes::from_static(b"\0"),
        Bytes::from_static(b"\0\0\0\0"),
        Bytes::from_static(b"\0\0\0\0\x05abc"),
    ];
    for path in methods {
        for bytes in &bad {
            assert_eq!(client.code(path, bytes.clone()).await, INVALID, "{path} {bytes:?}");
        }
        if path != STREAM {
            assert_eq!(client.code(path, Bytes::new()).await, INVALID, "{path}: no message");
            let twice = Bytes::from_static(&[0; 10]);
            assert_eq!(client.code(path, twice).await, INVALID, "{path}: two messages");
        }
    }
    assert_eq!(client.code(STREAM, Bytes::new()).await, OK, "nothing is said");
    let peers = vec![PeerInfo::default(); 40_000];
    let many = PeerExchangeRequest { known_peers: peers, ..PeerExchangeRequest::default() };
    assert_eq!(client.code("discovery.PeerDiscovery/ExchangePeers", framed(&many)).await, INVALID);
}

#[tokio::test]
async fn what_is_no_call_is_refused_in_terms_of_grpc_or_http() {
    let server = Server::start(settings()).await;
    let client = server.client().await;
    for path in [
        "discovery.PeerDiscovery/Nothing",
        "heartbeat.PeerHeartbeat/SendHeartbeat",
        "x",
        "discovery.PeerDiscovery/Ping/",
        "/grpc.reflection.v1.ServerReflection/Nothing",
    ] {
        assert_eq!(client.code(path, ping()).await, UNIMPLEMENTED, "{path}");
    }
    let (_, end) = client.raw(PING, &[("grpc-encoding", "gzip")], prefixed(1, b"")).await;
    assert_eq!(code(&end), UNIMPLEMENTED);
    assert_eq!(end["grpc-accept-encoding"], "identity");
    let (_, end) = client.raw(PING, &[("grpc-encoding", "identity")], ping()).await;
    assert_eq!(code(&end), OK);
    let good = [("content-type", "application/grpc+proto; charset=utf-8")];
    assert_eq!(code(&client.raw(PING, &good, ping()).await.1), OK);
    let status = async |request: http::request::Builder| {
        let mut requests = client.0.clone().ready().await.unwrap();
        let (response, _) = requests.send_request(request.body(()).unwrap(), true).unwrap();
        in_time(response).await.unwrap().status()
    };
    let uri = format!("http://x/sorcha.peer.{PING}");
    for kind in ["application/grpc-web", "application/json", "application/grpcx"] {
        assert_eq!(status(Request::post(&uri).header("content-type", kind)).await, 415, "{kind}");
    }
    assert_eq!(status(Request::post(&uri)).await, 415);
    assert_eq!(status(Request::get(&uri).header("content-type", "application/grpc")).await, 405);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_comes() {
    let server = Server::start(settings()).await;
    let client = server.client().await;
    let most = u32::try_from(MAX_SIZE).unwrap() + 64 * 1024;
    for (path, limit) in [(PING, 2 << 20), (GET, 2 << 20), (SEND, most), (STREAM, most)] {
        let prefix = |size: u32| [&[0], &size.to_be_bytes()[..]].concat();
        let mut open = client.open(path, &[], prefix(limit + 1).into(), false).await;
        assert!(open.next().await.is_none());
        assert_eq!(code(&open.end().await), EXHAUSTED, "{path}");
        assert_eq!(client.code(path, prefix(limit)).await, INVALID, "{path}: cut, not too large");
    }
    // The largest that is taken.
    let payload = Bytes::from(vec![7; MAX_SIZE as usize]);
    let from = visitor("127.0.0.1");
    server.world.ops.publish(&from, "t", payload.clone()).await.unwrap();
    let sha256 = hashes::sha256(&payload).await;
    let response = TransactionResponse {
        transaction_hash: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        transaction_data: payload,
        found: true,
    };
    let message = PeerMessage {
        sender_peer_id: "a".to_owned(),
        message_type: MessageType::TransactionResponse.into(),
        payload: response.encode_to_vec().into(),
        ..PeerMessage::default()
    };
    assert_eq!(client.code(SEND, framed(&message)).await, OK);
}

/// A request that begins like this and then says nothing.
struct Silent(Option<Bytes>);

impl hyper::body::Body for Silent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.take().map_or(Poll::Pending, |first| Poll::Ready(Some(Ok(Frame::data(first)))))
    }
}

/// The status of a call without a connection, and the number of seconds that it took.
async fn silent(ops: &Ops, path: &str, timeout: Option<&str>, first: &Bytes) -> (String, u64) {
    let start = tokio::time::Instant::now();
    let request = Request::post(format!("/sorcha.peer.{path}"));
    let mut request = request.header("content-type", "application/grpc");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let request = request.body(Body::new(Silent(Some(first.clone())))).unwrap();
    let response = GrpcFace::new(ops.clone()).call(request, visitor("127.0.0.1")).await;
    let (head, mut body) = response.into_parts();
    let mut end = head.headers;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(trailers) = frame.unwrap().into_trailers() {
            end = trailers;
        }
    }
    (code(&end), start.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn time_that_the_client_gives_is_kept_to() {
    let world = World::new(settings());
    let late = |seconds| (LATE.to_owned(), seconds);
    let (ping, cut, beat) = (ping(), Bytes::from_static(b"\0"), Bytes::new());
    for bad in ["", "1", "S", "1s", "-1S", "1.5S", "123456789S", "1 S"] {
        let refused = silent(&world.ops, PING, Some(bad), &ping).await;
        assert_eq!(refused, (INVALID.to_owned(), 0), "{bad:?}");
    }
    for (given, seconds) in [("0n", 0), ("2S", 2), ("3000m", 3), ("4000000u", 4)] {
        assert_eq!(silent(&world.ops, PING, Some(given), &cut).await, late(seconds), "{given}");
        assert_eq!(silent(&world.ops, STREAM, Some(given), &beat).await, late(seconds), "{given}");
    }
    // Time of its own has each message that is the only one, and each stream.
    for given in [None, Some("1M"), Some("99999999H")] {
        assert_eq!(silent(&world.ops, PING, given, &cut).await, late(30));
    }
    assert_eq!(silent(&world.ops, STREAM, None, &beat).await, late(600));
    let first = framed(&message(MessageType::Heartbeat.into(), "1"));
    assert_eq!(silent(&world.ops, STREAM, None, &first).await, late(600));
}

fn message(kind: i32, payload: impl Into<Bytes>) -> PeerMessage {
    PeerMessage {
        sender_peer_id: "a".to_owned(),
        message_type: kind,
        payload: payload.into(),
        ..PeerMessage::default()
    }
}

#[tokio::test]
async fn a_stream_answers_in_order_and_ends_with_the_client() {
    let server = Server::start(settings()).await;
    let client = server.client().await;
    let mut open = client.open(STREAM, &[], Bytes::new(), false).await;
    // More than may be unanswered, in pieces that no message ends with.
    let all: Vec<u8> = (0..500)
        .flat_map(|n| framed(&message(MessageType::Heartbeat.into(), n.to_string())).to_vec())
        .collect();
    for part in all.chunks(1000) {
        open.send(Bytes::copy_from_slice(part), false);
    }
    for n in 0..500 {
        let answer = PeerMessage::decode(open.next().await.expect("an answer")).unwrap();
        assert_eq!(answer.payload, n.to_string());
        assert_eq!(answer.message_type, i32::from(MessageType::Heartbeat));
    }
    // The host's handler answers, and a type that nobody knows is answered by nobody.
    open.send(framed(&message(MessageType::PeerStatusUpdate.into(), "up")), false);
    open.send(framed(&message(77, "what")), false);
    open.send(framed(&message(MessageType::Heartbeat.into(), "last")), true);
    let mut rest = Vec::new();
    while let Some(answer) = open.next().await {
        rest.push(PeerMessage::decode(answer).unwrap().payload);
    }
    assert_eq!(rest, ["up", "last"]);
    assert_eq!(code(&open.end().await), OK);
    assert_eq!(server.world.node.handled.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_stream_ends_with_what_is_refused_after_what_was_answered() {
    let server = Server::start(settings()).await;
    let client = server.client().await;
    let good = framed(&message(MessageType::Heartbeat.into(), "1"));
    let bad = framed(&message(MessageType::TransactionRequest.into(), &b"\xff"[..]));
    let mut open = client.open(STREAM, &[], [good, bad].concat().into(), false).await;
    assert!(open.next().await.is_some());
    assert!(open.next().await.is_none());
    assert_eq!(code(&open.end().await), INVALID);
}

/// Answers that nobody reads are not made by the dozen, and each counts.
#[tokio::test]
async fn answers_that_are_not_read_are_few_and_counted() {
    let mut few = settings();
    few.compat.max_bytes_per_minute = 64 << 20;
    let server = Server::start(few).await;
    let client = server.client().await;
    let from = visitor("192.0.2.1");
    let payload = Bytes::from(vec![7; MAX_SIZE as usize]);
    let id = server.world.ops.publish(&from, "t", payload.clone()).await.unwrap();
    let request =
        TransactionRequest { transaction_hash: id.to_string(), ..TransactionRequest::default() };
    let one = message(MessageType::TransactionRequest.into(), request.encode_to_vec());
    let all = framed(&one).repeat(64);
    let mut open = client.open(STREAM, &[], all.into(), false).await;
    let mut answers = 0;
    while let Some(answer) = open.next().await {
        let answer = PeerMessage::decode(answer).unwrap();
        assert_eq!(answer.message_type, i32::from(MessageType::TransactionResponse));
        let answer = TransactionResponse::decode(answer.payload).unwrap();
        assert!(answer.found && answer.transaction_data == payload);
        answers += 1;
    }
    assert_eq!(code(&open.end().await), EXHAUSTED);
    // The one that overdraws is sent.
    assert!((20..=24).contains(&answers), "{answers}");
}

/// What a message began goes on while the client does not read, so that others get what it holds.
#[tokio::test]
async fn a_message_is_answered_whether_or_not_the_client_reads() {
    let server = Server::start(settings()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let builder = builder.initial_window_size(0);
    let (requests, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let client = Client(requests);
    let update = framed(&message(MessageType::PeerStatusUpdate.into(), vec![1; 1000]));
    let _open = client.open(STREAM, &[], update.repeat(6).into(), false).await;
    // The first waits for the window, and no more than may be at once are begun beside it.
    until("they are handled", || server.world.node.handled.lock().unwrap().len() >= 2).await;
    let mut second = server.client().await.open(STREAM, &[], Bytes::new(), false).await;
    second.send(framed(&message(MessageType::Heartbeat.into(), "1")), true);
    assert!(second.next().await.is_some());
}

#[tokio::test]
async fn an_address_has_its_share() {
    let mut few = settings();
    few.compat.max_requests_per_minute = 3;
    let server = Server::start(few).await;
    let client = server.client().await;
    for _ in 0..3 {
        assert_eq!(client.code(PING, ping()).await, OK);
    }
    let (_, end) = client.raw(PING, &[], ping()).await;
    assert_eq!(code(&end), EXHAUSTED);
    let seconds: u64 = end["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    let few = server.world.ops.admit(&visitor("127.0.0.1"), 0);
    assert!(few.is_err(), "both faces count together");
}

#[tokio::test]
async fn reflection_shows_what_is_served() {
    let server = Server::start(settings()).await;
    let client = server.client().await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        // `list_services`, then `file_containing_symbol`.
        let list = prefixed(0, b"\x3a\x00");
        let symbol = b"sorcha.peer.transaction.TransactionDistribution";
        let length = u8::try_from(symbol.len()).unwrap();
        let file = prefixed(0, &[&[0x22, length], &symbol[..]].concat());
        let (answers, end) = client.raw(&path, &[], [list, file].concat().into()).await;
        assert_eq!((answers.len(), code(&end)), (2, OK.to_owned()));
        let holds = |answer: &[u8], text: &str| {
            answer.windows(text.len()).any(|window| window == text.as_bytes())
        };
        for service in [
            "sorcha.peer.discovery.PeerDiscovery",
            "sorcha.peer.communication.PeerCommunication",
            "sorcha.peer.transaction.TransactionDistribution",
        ] {
            assert!(holds(&answers[0], service), "{service}");
        }
        assert!(!holds(&answers[0], "gossip"));
        assert!(holds(&answers[1], "transaction_hash"));
        for bad in [prefixed(0, b"\xff"), prefixed(1, b""), Bytes::from_static(b"\0\0\0\0\x05a")] {
            let code = client.code(&path, bad).await;
            assert!([OK, INVALID].contains(&&code[..]), "{code}");
        }
    }
}
