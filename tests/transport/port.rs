//! What strangers say to the port of a node and to the one for proxies: each gets its refusal, nobody waits for
//! it, and the listener serves the next.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join;
use sorcha_peer::Endpoint;
use sorcha_peer::error::FailureKind;
use sorcha_peer::ports::{Accepted, Listener, Transport};
use sorcha_peer::testing::TransportNode;
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{HANG, any_port, identity, in_time};
use crate::raw_grpc::{self, Certificate, LINK_PATH, Peer};

/// Time for tests in which a time-out is what is waited for.
const SOON: Duration = Duration::from_millis(300);

struct Server {
    listener: Box<dyn Listener>,
    options: GrpcOptions,
}

impl Server {
    async fn start(mut options: GrpcOptions) -> Self {
        options.http = Some(any_port());
        let transport = GrpcTransport::new(identity(2), options.clone()).unwrap();
        Self { listener: transport.listen(any_port()).await.unwrap(), options }
    }

    fn http(&self) -> SocketAddr {
        self.listener.http_addr().unwrap()
    }

    async fn failure(&mut self) -> (FailureKind, Option<SocketAddr>) {
        match in_time(self.listener.accept()).await {
            Accepted::Failed { error, address } => (error.kind, address),
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    /// A well-behaved peer gets through on both ports.
    async fn serves(&mut self) {
        let client = GrpcTransport::new(identity(9), GrpcOptions::default()).unwrap();
        let direct = Endpoint::from(self.listener.local_addr());
        let proxied: Endpoint = format!("http://{}", self.http()).parse().unwrap();
        for endpoint in [direct, proxied] {
            let dial = client.dial(&endpoint, Some(identity(2).peer_id()));
            let (dialled, accepted) =
                in_time(join(dial, TransportNode::accept(&mut self.listener))).await;
            in_time(TransportNode::assert_open(dialled.unwrap(), accepted)).await;
        }
    }
}

/// Says this and nothing more, and returns all that is answered.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: &[u8]) -> String {
    let mut answer = Vec::new();
    // Whoever refuses may close while there is more to say.
    let _ = stream.write_all(words).await;
    let _ = in_time(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(lines: &str) -> Vec<u8> {
    format!("POST /elsewhere HTTP/1.1\r\nHost: x\r\n{lines}\r\n").into_bytes()
}

/// Requests, and the status of the one answer that each gets.
fn requests() -> Vec<(Vec<u8>, u16)> {
    let many = (0..100).fold(String::new(), |many, n| many + &format!("h{n}: 1\r\n"));
    let long = format!("h: {}\r\n", "a".repeat(9000));
    let second = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n".as_slice();
    let smuggled = |lines: &str, body: &[u8]| [&head(lines), body, second].concat();
    vec![
        (head(""), 404),
        (head("Content-Length: 5\r\nContent-Length: 6\r\n"), 400),
        (head("Content-Length: +5\r\n"), 400),
        (head("Content-Length: 5, 5\r\n"), 400),
        (head("Transfer-Encoding: chunked, gzip\r\n"), 400),
        (head("Transfer-Encoding: xchunked\r\n"), 400),
        (head("Transfer-Encoding : chunked\r\n"), 400),
        (head("a: 1\r\n folded: 2\r\n"), 400),
        (head("a: 1\0\r\n"), 400),
        (head(&many), 431),
        (head(&long), 431),
        (b"POST /elsewhere HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), 400),
        (b"PRI * HTTP/2.0\r\n\r\nNO\r\n\r\n".to_vec(), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no TLS here\r\n\r\n".to_vec(), 400),
        // Whichever way it is read, what follows is no second request.
        (smuggled("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 404),
        (smuggled("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"), 404),
        (smuggled("Content-Length: 3\r\n", b"abc"), 404),
        (b"POST /elsewhere HTTP/1.1\nHost: x\n\nGET /second HTTP/1.1\nHost: x\n\n".to_vec(), 404),
    ]
}

#[tokio::test]
async fn a_request_for_nothing_gets_one_answer_and_the_end() {
    let mut server = Server::start(GrpcOptions::default()).await;
    for (request, status) in requests() {
        let words = String::from_utf8_lossy(&request).into_owned();
        let address = server.http();
        let client = async { say(TcpStream::connect(address).await.unwrap(), &request).await };
        let (answer, (kind, from)) = join(client, server.failure()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{words:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{words:?}: {answer:?}");
        assert_eq!((kind, from), (FailureKind::Protocol, None), "{words:?}");
    }
    server.serves().await;
}

#[tokio::test]
async fn http_in_tls_is_http_whether_it_was_negotiated_or_not() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let address = server.listener.local_addr();
    for alpn in [&b"http/1.1"[..], b""] {
        for certificate in [Certificate::None, Certificate::Of(identity(1))] {
            let client = async {
                let tls = raw_grpc::tls(address, &certificate, alpn).await.unwrap();
                say(tls, &head("")).await
            };
            let (answer, (kind, from)) = join(client, server.failure()).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer:?}");
            assert_eq!(
                (kind, from.map(|from| from.ip())),
                (FailureKind::Protocol, Some(address.ip()))
            );
        }
    }
    // HTTP/2 too: what is said first tells.
    let client = async {
        let mut peer = Peer::connect_by(address, &Certificate::Of(identity(1)), b"").await;
        let stream = peer.open(LINK_PATH).await;
        (peer, stream)
    };
    let (_peer, link) = in_time(join(client, TransportNode::accept(&mut server.listener))).await;
    assert_eq!(link.remote, identity(1).peer_id());
    server.serves().await;
}

#[tokio::test]
async fn a_link_of_no_pipe_is_refused_on_the_port_for_proxies() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let address = server.http();
    let client = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut peer = Peer::over(tcp).await;
        assert_eq!(peer.status(LINK_PATH).await, "16");
    };
    let ((), failure) = in_time(join(client, server.failure())).await;
    assert_eq!(failure, (FailureKind::Identity, None));
    server.serves().await;
}

#[tokio::test]
async fn who_is_slow_or_silent_is_dropped_in_time() {
    let mut options = GrpcOptions::default();
    options.handshake_timeout = SOON;
    let mut server = Server::start(options).await;
    let (direct, http) = (server.listener.local_addr(), server.http());
    let drip = async {
        let mut stream = TcpStream::connect(http).await.unwrap();
        for byte in head("a: b\r\n").iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (_, (kind, _)) = join(tokio::time::timeout(HANG, drip), server.failure()).await;
    assert!(matches!(kind, FailureKind::Timeout | FailureKind::Protocol), "{kind:?}");
    for words in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n", b"GET / HTTP/1.1\r\n"] {
        let mut stream = TcpStream::connect(http).await.unwrap();
        stream.write_all(words).await.unwrap();
        assert_eq!(server.failure().await.0, FailureKind::Timeout, "{words:?}");
        assert_eq!(in_time(stream.read(&mut [0])).await.unwrap_or(0), 0, "{words:?}");
    }
    for alpn in [&b"http/1.1"[..], b"h2", b""] {
        let client = raw_grpc::tls(direct, &Certificate::None, alpn);
        let (_tls, (kind, _)) = join(client, server.failure()).await;
        assert_eq!(kind, FailureKind::Timeout);
    }
}

/// All come from the proxy, so nobody is told apart by address; together they are bounded.
#[tokio::test]
async fn behind_a_proxy_only_the_bound_for_all_holds() {
    let mut options = GrpcOptions::default();
    options.handshake_timeout = HANG;
    options.max_handshakes = 8;
    options.max_handshakes_per_ip = 2;
    let mut server = Server::start(options).await;
    let address = server.http();
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    silent.push(TcpStream::connect(address).await.unwrap());
    assert_eq!(server.failure().await, (FailureKind::Refused, None));
    // The node's own port has its own bound.
    assert_eq!(server.options.max_handshakes, 8);
    let client = GrpcTransport::new(identity(9), GrpcOptions::default()).unwrap();
    let endpoint = Endpoint::from(server.listener.local_addr());
    let dial = client.dial(&endpoint, None);
    let (dialled, accepted) =
        in_time(join(dial, TransportNode::accept(&mut server.listener))).await;
    in_time(TransportNode::assert_open(dialled.unwrap(), accepted)).await;
    drop(silent);
    for _ in 0..8 {
        assert_eq!(server.failure().await, (FailureKind::Closed, None));
    }
    server.serves().await;
}

/// Some versions of h2 take many small frames for an attack when a reader pauses.
#[tokio::test]
async fn ten_thousand_small_frames_may_wait() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let address = server.listener.local_addr();
    let client = async {
        let mut peer = Peer::connect(address, &identity(1)).await;
        let stream = peer.open(LINK_PATH).await;
        (peer, stream)
    };
    let ((_peer, mut raw), mut link) =
        in_time(join(client, TransportNode::accept(&mut server.listener))).await;
    for _ in 0..10_000 {
        raw.send(Bytes::from_static(b"\0\0\0\0\x01x"), false);
    }
    // They are there, and nobody looks.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for n in 0..10_000 {
        let frame = in_time(link.stream.next()).await.expect("an open link");
        assert_eq!(frame.unwrap_or_else(|error| panic!("frame {n}: {error}")), "x");
    }
}
