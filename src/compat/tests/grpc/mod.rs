//! The gRPC face on a real socket, as a client of another library sees it that also makes mistakes.

mod streams;

use std::net::SocketAddr;

use base64::Engine as _;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use prost::Message;
use tokio::net::TcpStream;
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
const REFLECT: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// [`MAX_SIZE`], as the size of a buffer.
const MAX_BYTES: usize = 3 << 20;

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

/// Path of a method, which for those of the three services begins with the name of the service.
fn whole(method: &str) -> String {
    if method.starts_with('/') { method.to_owned() } else { format!("/sorcha.peer.{method}") }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("in time")
}

impl Client {
    /// Begins a call, and waits for the answer's head.
    async fn open(&self, path: &str, headers: &[(&str, &str)], first: Bytes, end: bool) -> Open {
        let path = whole(path);
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
    for size in [0, 1, 64 * 1024, 64 * 1024 + 1, MAX_BYTES] {
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
            let numbers = [chunk.chunk_index, chunk.total_chunks].map(usize::try_from);
            assert_eq!(numbers, [Ok(n), Ok(chunks.len())]);
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
    let payload = Bytes::from(vec![1; MAX_BYTES]);
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
    let payload = Bytes::from(vec![7; MAX_BYTES]);
    let from = visitor("127.0.0.1");
    server.world.ops.publish(&from, "t", payload.clone()).await.unwrap();
    let sha256 = hashes::sha256(&payload).await;
    let response = TransactionResponse {
        transaction_hash: base64::engine::general_purpose::STANDARD.encode(sha256),
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
