//! Guests on real sockets: whoever reaches the port is answered, whatever HTTP it speaks, and keeps no peer out.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, join, join_all, pending};
use h2::client::SendRequest;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Request, Response};
use hyper::body::Body as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;

use super::{Guest, Visitor};
use crate::error::FailureKind;
use crate::identity::Identity;
use crate::ports::{Accepted, Listener, RawLink, Transport};
use crate::transport::grpc::LINK_PATH;
use crate::transport::metered::Traffic;
use crate::transport::outer::OuterTls;
use crate::transport::shared::Shared;
use crate::transport::tls::TlsIdentity;
use crate::transport::{GrpcOptions, GrpcTransport};
use crate::types::Endpoint;

/// Ends a test that hangs; no test waits for it.
const HANG: Duration = Duration::from_mins(2);
const SOON: Duration = Duration::from_secs(1);

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, work).await.expect("the test hangs")
}

/// Says who asked for what and gives the body back; `/guest/never` has no answer.
#[derive(Debug)]
struct Echo;

impl Guest for Echo {
    fn serves(&self, path: &str) -> bool {
        path.starts_with("/guest/")
    }

    fn call(&self, request: Request<Body>, visitor: Visitor) -> BoxFuture<'static, Response<Body>> {
        async move {
            if request.uri().path() == "/guest/never" {
                return pending().await;
            }
            let (head, mut body) = request.into_parts();
            let mut all = Vec::new();
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                all.extend(frame.unwrap().into_data().unwrap());
            }
            let Visitor { address, is_proxied, is_http2, peer, certified } = visitor;
            assert!(address.ip().is_loopback() && !certified);
            let who = format!("{} {is_proxied} {is_http2} {peer:?} ", head.method);
            Response::new(Body::new(who + &String::from_utf8(all).unwrap()))
        }
        .boxed()
    }
}

struct Server {
    listener: Box<dyn Listener>,
}

impl Server {
    async fn start(options: GrpcOptions) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let options = GrpcOptions { http: Some(any), ..options };
        let transport = GrpcTransport::new(identity(2), options).unwrap();
        transport.set_guest(Arc::new(Echo));
        Self { listener: transport.listen(any).await.unwrap() }
    }

    fn direct(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    fn http(&self) -> SocketAddr {
        self.listener.http_addr().unwrap()
    }

    async fn link(&mut self) -> RawLink {
        loop {
            match in_time(self.listener.accept()).await {
                Accepted::Link(link) => return link,
                Accepted::Failed { error, .. } if error.kind == FailureKind::Timeout => {}
                other => panic!("expected a link, got {other:?}"),
            }
        }
    }

    async fn failure(&mut self) -> FailureKind {
        match in_time(self.listener.accept()).await {
            Accepted::Failed { error, .. } => error.kind,
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    /// Listens while something else is done; nothing but guests comes, and failures of this kind.
    async fn during_failures<T>(
        &mut self,
        kind: Option<FailureKind>,
        work: impl Future<Output = T>,
    ) -> T {
        let failures = async {
            loop {
                match self.listener.accept().await {
                    Accepted::Failed { error, .. } if Some(error.kind) == kind => {}
                    other => panic!("not a guest: {other:?}"),
                }
            }
        };
        tokio::select! {
            () = failures => unreachable!(),
            done = in_time(work) => done,
        }
    }

    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        self.during_failures(None, work).await
    }

    /// A peer gets through.
    async fn serves_peers(&mut self, options: &GrpcOptions) {
        let client = GrpcTransport::new(identity(9), options.clone()).unwrap();
        let endpoint = Endpoint::from(self.direct());
        let dial = client.dial(&endpoint, Some(identity(2).peer_id()));
        let (dialled, accepted) = in_time(join(dial, self.link())).await;
        assert_eq!(accepted.remote, identity(9).peer_id());
        drop((dialled.unwrap(), accepted));
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn tcp(address: SocketAddr) -> Box<dyn Stream> {
    Box::new(TcpStream::connect(address).await.unwrap())
}

/// TLS as others speak it.
async fn tls(address: SocketAddr, alpn: &[u8]) -> Box<dyn Stream> {
    let mut config = ClientConfig::clone(&OuterTls::new().unwrap().h2);
    config.alpn_protocols = (!alpn.is_empty()).then(|| alpn.to_vec()).into_iter().collect();
    connect(address, config).await
}

/// TLS as peers speak it.
async fn peer_tls(address: SocketAddr, alpn: &[u8]) -> Box<dyn Stream> {
    let tls = TlsIdentity::new(&identity(1), None, &GrpcOptions::default()).unwrap();
    let mut config = ClientConfig::clone(&tls.client_config(None));
    config.alpn_protocols = vec![alpn.to_vec()];
    connect(address, config).await
}

async fn connect(address: SocketAddr, config: ClientConfig) -> Box<dyn Stream> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    Box::new(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap())
}

/// HTTP/1.1, byte by byte.
struct Http1(Box<dyn Stream>);

impl Http1 {
    async fn say(&mut self, words: &str) {
        self.0.write_all(words.as_bytes()).await.unwrap();
    }

    /// Head of the next answer, up to the blank line.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(in_time(self.0.read_u8()).await.expect("an answer"));
        }
        String::from_utf8(head).unwrap()
    }

    /// The next answer: its head, and the body that this announces.
    async fn answer(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap_or("0").parse().unwrap()];
        in_time(self.0.read_exact(&mut body)).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    async fn is_over(&mut self) -> bool {
        matches!(in_time(self.0.read(&mut [0])).await, Ok(0) | Err(_))
    }
}

/// HTTP/2 of another library.
async fn http2(stream: Box<dyn Stream>) -> (SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    (requests, tokio::spawn(async move { drop(connection.await) }))
}

async fn ask(requests: SendRequest<Bytes>, path: &str, body: &'static str) -> (u16, String) {
    let request = Request::builder().method(Method::PUT).uri(format!("http://x{path}"));
    let mut requests = requests.ready().await.unwrap();
    let (response, mut out) = requests.send_request(request.body(()).unwrap(), false).unwrap();
    out.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
    let response = in_time(response).await.unwrap();
    let grpc = response.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(bytes) = in_time(body.data()).await {
        all.extend_from_slice(&bytes.unwrap());
    }
    (status, grpc.unwrap_or_else(|| String::from_utf8(all).unwrap()))
}

#[tokio::test]
async fn guests_are_answered_on_every_port_and_in_every_way() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let (direct, http) = (server.direct(), server.http());
    let plain = GrpcOptions { plaintext: true, ..GrpcOptions::default() };
    let mut plain = Server::start(plain).await;
    let plain_direct = plain.direct();
    let known = format!("{:?}", Some(identity(1).peer_id()));
    let by_http1 = async |stream, who: &str| {
        let mut client = Http1(stream);
        for body in ["first", "", "third"] {
            let length = body.len();
            client
                .say(&format!(
                    "PUT /guest/x HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
                ))
                .await;
            let (head, answer) = client.answer().await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert_eq!(answer, format!("PUT {who} {body}"));
        }
    };
    let by_http2 = async |stream, who: &str| {
        let (requests, _connection) = http2(stream).await;
        for body in ["first", "", "third"] {
            let answer = ask(requests.clone(), "/guest/x", body).await;
            assert_eq!(answer, (200, format!("PUT {who} {body}")));
        }
    };
    let work = async {
        by_http1(tls(direct, b"http/1.1").await, "false false None").await;
        by_http1(tls(direct, b"").await, "false false None").await;
        by_http1(peer_tls(direct, b"http/1.1").await, &format!("false false {known}")).await;
        by_http1(tcp(http).await, "true false None").await;
        by_http2(tls(direct, b"h2").await, "false true None").await;
        by_http2(tls(direct, b"").await, "false true None").await;
        by_http2(peer_tls(direct, b"h2").await, &format!("false true {known}")).await;
        by_http2(tcp(http).await, "true true None").await;
    };
    server.during(work).await;
    let work = async {
        by_http1(tcp(plain_direct).await, "false false None").await;
        by_http2(tcp(plain_direct).await, "false true None").await;
    };
    plain.during(work).await;
}

#[tokio::test]
async fn http1_is_whole() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let address = server.direct();
    let work = async {
        let mut client = Http1(tls(address, b"http/1.1").await);
        client.say("HEAD /guest/x HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.contains("content-length: 22"), "{head}");
        // What follows is no body of that.
        client.say("PUT /guest/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 100 "));
        client.say("abc").await;
        assert_eq!(client.answer().await.1, "PUT false false None abc");
        let one = "PUT /guest/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        client.say(&one.repeat(20)).await;
        for _ in 0..20 {
            assert_eq!(client.answer().await.1, "PUT false false None a");
        }
        client.say("GET /guest/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        client.answer().await;
        assert!(client.is_over().await);
        // Nobody serves this, and the connection ends; nothing is told, since guests are no strangers.
        let mut client = Http1(tls(address, b"http/1.1").await);
        client
            .say("GET /guest/x HTTP/1.1\r\nHost: x\r\n\r\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        client.answer().await;
        assert!(client.answer().await.0.starts_with("HTTP/1.1 404 "));
        assert!(client.is_over().await);
    };
    server.during(work).await;
}

#[tokio::test]
async fn http2_carries_many_streams_and_becomes_no_link() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let address = server.direct();
    let work = async {
        let (requests, _connection) = http2(tls(address, b"h2").await).await;
        // With the first answer the client knows how many streams it may have.
        ask(requests.clone(), "/guest/x", "").await;
        let asks = (0..300).map(|_| ask(requests.clone(), "/guest/x", "a"));
        for answer in join_all(asks).await {
            assert_eq!(answer, (200, "PUT false true None a".to_owned()));
        }
        // Of a peer, too.
        let (requests, _connection) = http2(peer_tls(address, b"h2").await).await;
        assert_eq!(ask(requests.clone(), "/guest/x", "").await.0, 200);
        assert_eq!(ask(requests.clone(), LINK_PATH, "").await, (200, "1".to_owned()));
        assert_eq!(ask(requests.clone(), "/elsewhere", "").await, (200, "12".to_owned()));
        assert_eq!(ask(requests, "/guest/x", "").await.0, 200);
    };
    server.during(work).await;
    server.serves_peers(&GrpcOptions::default()).await;
}

/// One host may have few handshakes at once and as many guests as there can be, and its peers still get through.
#[tokio::test]
async fn guests_keep_no_peer_out() {
    let options =
        GrpcOptions { max_handshakes: 2, max_handshakes_per_ip: 2, ..GrpcOptions::default() };
    let mut server = Server::start(options.clone()).await;
    let address = server.direct();
    let fill = async |path: &str| {
        let mut guests = Vec::new();
        loop {
            let mut guest = Http1(tls(address, b"http/1.1").await);
            guest.say("GET /guest/x HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let (head, _) = guest.answer().await;
            if head.starts_with("HTTP/1.1 503 ") {
                assert!(head.contains("retry-after: 1\r\n"), "{head}");
                assert!(guest.is_over().await);
                break guests;
            }
            guest.say(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            guests.push(guest);
            assert!(guests.len() < 1000, "without bound");
        }
    };
    let served = async || {
        loop {
            let mut guest = Http1(tls(address, b"http/1.1").await);
            guest.say("GET /guest/x HTTP/1.1\r\nHost: x\r\n\r\n").await;
            if guest.answer().await.0.starts_with("HTTP/1.1 200 ") {
                break;
            }
        }
    };
    // Those at work stay.
    let (mut busy, refused) = join(fill("/guest/never"), server.failure()).await;
    assert_eq!((busy.len(), refused), (64, FailureKind::Refused));
    server.serves_peers(&options).await;
    let grpc = async {
        let (requests, connection) = http2(tls(address, b"h2").await).await;
        let request = Request::post("http://x/guest/x").header(CONTENT_TYPE, "application/grpc");
        let request = request.header(CONTENT_LENGTH, 0).body(()).unwrap();
        let (response, _) = requests.ready().await.unwrap().send_request(request, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "8");
        connection.await.unwrap();
    };
    assert_eq!(in_time(join(grpc, server.failure())).await.1, FailureKind::Refused);
    // One that leaves makes room for the next.
    drop(busy.pop());
    server.during_failures(Some(FailureKind::Refused), served()).await;
    drop(busy);
    // Idle ones give way, one to each.
    let (idle, _) = join(fill("/guest/x"), server.failure()).await;
    server.during_failures(Some(FailureKind::Refused), served()).await;
    drop(idle);
    server.serves_peers(&options).await;
}

/// Where hosts have taken all room, at work or not, the one with most gives way to a host that has less.
#[tokio::test]
async fn no_few_hosts_keep_all_guests_out() {
    let plain = GrpcOptions { plaintext: true, ..GrpcOptions::default() };
    let mut server = Server::start(plain.clone()).await;
    let address = server.direct();
    let from = async |last: u8| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
        let mut guest = Http1(Box::new(socket.connect(address).await.unwrap()));
        guest.say("GET /guest/x HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, _) = guest.answer().await;
        (guest, head.starts_with("HTTP/1.1 200 "))
    };
    let work = async {
        let mut busy = Vec::new();
        for last in 1..=4 {
            for _ in 0..64 {
                let (mut guest, is_served) = from(last).await;
                assert!(is_served);
                guest.say("GET /guest/never HTTP/1.1\r\nHost: x\r\n\r\n").await;
                busy.push(guest);
            }
        }
        let mut honest = Vec::new();
        for _ in 0..3 {
            let (guest, is_served) = from(5).await;
            assert!(is_served);
            honest.push(guest);
        }
        // Three of the others are over, and nobody else.
        let over = busy.iter_mut().map(|guest| guest.is_over().boxed());
        let mut over: futures::stream::FuturesUnordered<_> = over.collect();
        for _ in 0..3 {
            assert_eq!(over.next().await, Some(true));
        }
        for guest in &mut honest {
            guest.say("GET /guest/x HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert!(guest.answer().await.0.starts_with("HTTP/1.1 200 "));
        }
    };
    server.during(work).await;
    server.serves_peers(&plain).await;
}

/// Whoever does not end its first head is gone in time, and one that has been answered keeps no slot meanwhile.
#[tokio::test]
async fn slow_heads_end() {
    let options =
        GrpcOptions { handshake_timeout: SOON, max_handshakes_per_ip: 4, ..GrpcOptions::default() };
    let mut server = Server::start(options.clone()).await;
    let address = server.direct();
    let mut slow = Vec::new();
    let open = async {
        for _ in 0..4 {
            let mut client = Http1(tls(address, b"http/1.1").await);
            client.say("GET /guest/x HTTP/1.1\r\nHost: x\r\n\r\n").await;
            client.answer().await;
            client.say("GET /guest/x HTTP/1.1\r\nHo").await;
            slow.push(client);
        }
        for _ in 0..3 {
            let mut client = Http1(tls(address, b"http/1.1").await);
            client.say("GET /guest/x HTTP/1.1\r\nHo").await;
            slow.push(client);
        }
    };
    server.during_failures(Some(FailureKind::Timeout), open).await;
    server.serves_peers(&options).await;
    let rest = async {
        for mut client in slow.drain(4..) {
            assert!(client.is_over().await);
        }
        for mut client in slow {
            client.say("st: x\r\n\r\n").await;
            assert!(client.answer().await.0.starts_with("HTTP/1.1 200 "));
        }
    };
    server.during_failures(Some(FailureKind::Timeout), rest).await;
}

/// Two answers of one connection are told apart, and each frame that is taken gives time for the next.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_is_seen() {
    let options = GrpcOptions { plaintext: true, ..GrpcOptions::default() };
    let shared = Arc::new(Shared::new(identity(2), options).unwrap());
    let (results, _told) = tokio::sync::mpsc::channel(1);
    let port = Arc::new(super::inlet::Port::new(shared, super::inlet::Entrance::Direct, results));
    let address: SocketAddr = "192.0.2.1:7".parse().unwrap();
    let slot = port.handshake_slot(address.ip()).unwrap();
    let (inlet, _first) = super::Inlet::new(port, address, Traffic::default(), slot);
    let time = Some(Duration::from_secs(30));
    let _busy = inlet.begin();
    let mut one = inlet.unread();
    let _busy = inlet.begin();
    let mut other = inlet.unread();
    one.until(time);
    other.until(time);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(inlet.is_unread());
    one.until(None);
    assert!(inlet.is_unread());
    other.until(time);
    assert!(!inlet.is_unread());
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(inlet.is_unread());
    drop(other);
    assert!(!inlet.is_unread());
}

#[tokio::test]
async fn guests_end_with_the_listener() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let address = server.direct();
    let client = async {
        let mut client = Http1(tls(address, b"http/1.1").await);
        client.say("GET /guest/x HTTP/1.1\r\nHost: x\r\n\r\n").await;
        client.answer().await;
        client
    };
    let mut client = server.during(client).await;
    drop(server);
    assert!(client.is_over().await);
}
