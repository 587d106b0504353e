//! The WebSocket rung over real sockets: clients and servers that do it wrong, by hand and with other
//! people's libraries. After each of them, the listener must serve the next. The suite stands in
//! `rungs`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join;
use sorcha_peer::error::FailureKind;
use sorcha_peer::ports::Transport;
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::{Endpoint, TransportKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::client::TlsStream;

use crate::common::{HANG, Server, any_port, dial, impatient, in_time, rung};
use crate::raw_grpc::{self, Certificate};

/// A request that is upgraded.
const GOOD: &str = "GET /sorcha/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: sorcha.gossip.v1\r\n\r\n";

async fn serve(options: GrpcOptions) -> Server {
    Server::with_rung(options, TransportKind::WebSocket).await
}

fn dialler(options: &GrpcOptions) -> GrpcTransport {
    rung(1, options, TransportKind::WebSocket)
}

/// Sends this as it is and reads the head of the answer.
async fn ask(server: &mut Server, request: &str) -> (TlsStream<TcpStream>, String) {
    let address = server.address;
    let client = async {
        let mut tls = raw_grpc::tls(address, &Certificate::None, b"http/1.1").await.unwrap();
        tls.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut tls).await;
        (tls, head)
    };
    server.beside(client).await
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap()];
    assert!(payload.len() < 126, "tests here have short frames");
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Reads frames until one closes: its code.
async fn close_code(stream: &mut (impl AsyncRead + Unpin)) -> u16 {
    loop {
        let (first, second) = (stream.read_u8().await.unwrap(), stream.read_u8().await.unwrap());
        assert!(second < 126, "a short frame without a mask");
        let mut payload = vec![0; usize::from(second)];
        stream.read_exact(&mut payload).await.unwrap();
        if first == 0x88 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

#[tokio::test]
async fn requests_that_are_no_upgrade_are_refused_for_their_reason() {
    let mut server = serve(GrpcOptions::default()).await;
    let without = |line: &str| {
        let lines = GOOD.split_inclusive("\r\n");
        lines.filter(|given| !given.starts_with(line)).collect::<String>()
    };
    for (request, status) in [
        (GOOD.replace("GET", "POST"), "405"),
        (GOOD.replace("HTTP/1.1", "HTTP/1.0"), "426"),
        (without("Upgrade"), "426"),
        (without("Connection"), "426"),
        (without("Sec-WebSocket-Version"), "426"),
        (GOOD.replace("Version: 13", "Version: 12"), "426"),
        (without("Sec-WebSocket-Key"), "400"),
        (GOOD.replace("dGhl", ""), "400"),
        (without("Sec-WebSocket-Protocol"), "400"),
        (GOOD.replace("gossip.v1", "gossip.v2"), "400"),
        (GOOD.replace("Host: x", "Host: x\r\nOrigin: https://x"), "403"),
        (GOOD.replace("Host: x", "Host: x\r\nContent-Length: 1"), "400"),
        (GOOD.replace("Host: x", "Host: x\r\nTransfer-Encoding: chunked"), "400"),
        (GOOD.replace("/sorcha/v1/ws", "/sorcha/v2/ws"), "404"),
    ] {
        let (_tls, head) = ask(&mut server, &request).await;
        // An answer has the version of its request.
        assert_eq!(head.split(' ').nth(1), Some(status), "{request}{head}");
        let head = head.to_ascii_lowercase();
        assert_eq!(head.contains("sec-websocket-version: 13\r\n"), status == "426", "{head}");
        assert_eq!(head.contains("allow: get\r\n"), status == "405", "{head}");
        assert_eq!(server.failure().await.kind, FailureKind::Protocol, "{request}");
    }
    server.serves().await;
}

#[tokio::test]
async fn what_is_no_frame_or_no_tls_is_refused_with_a_close_frame() {
    let mut server = serve(GrpcOptions::default()).await;
    let unmasked = vec![0x82, 1, b'x'];
    let long = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    for (what, sent, code) in [
        ("no mask", unmasked, 1002),
        ("compressed", frame(0xc2, b"x"), 1002),
        ("a long ping", [&[0x89, 0xfe, 0, 126][..], &[0; 130]].concat(), 1002),
        ("the middle first", frame(0x80, b"x"), 1002),
        ("text", frame(0x81, b"hello"), 1003),
        ("a message longer than memory", long, 1009),
        ("garbage in a proper message", frame(0x82, &[7; 99]), 1000),
    ] {
        let (mut tls, head) = ask(&mut server, GOOD).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        tls.write_all(&sent).await.unwrap();
        let (told, failure) = in_time(join(close_code(&mut tls), server.failure())).await;
        assert_eq!(told, code, "{what}");
        assert_eq!(failure.kind, FailureKind::Protocol, "{what}: {failure}");
    }
    server.serves().await;
}

#[tokio::test]
async fn one_that_upgrades_and_says_nothing_is_dropped_in_time() {
    let mut server = serve(impatient(Duration::from_secs(3))).await;
    let (mut tls, head) = ask(&mut server, GOOD).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (told, failure) = join(close_code(&mut tls), server.failure()).await;
    assert_eq!((told, failure.kind), (1000, FailureKind::Timeout), "{failure}");
}

#[tokio::test]
async fn upgrades_beyond_the_number_of_handshakes_are_refused() {
    let mut options = impatient(HANG);
    options.max_handshakes = 3;
    let mut server = serve(options).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let (tls, head) = ask(&mut server, GOOD).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        silent.push(tls);
    }
    let connected = raw_grpc::tls(server.address, &Certificate::None, b"http/1.1");
    let (refused, failure) = in_time(join(connected, server.failure())).await;
    assert!(refused.is_err());
    assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
    drop(silent);
    for _ in 0..3 {
        assert_eq!(server.failure().await.kind, FailureKind::Closed);
    }
    server.serves().await;
}

/// A server that answers every request with this.
async fn answers(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            read_head(&mut tcp).await;
            let _ = tcp.write_all(answer).await;
            // Until the dialler hangs up.
            let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
        }
    });
    address
}

#[tokio::test]
async fn what_answers_and_is_no_node_is_told_apart() {
    const WRONG: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        Sec-WebSocket-Protocol: sorcha.gossip.v1\r\n\r\n";
    let client = dialler(&GrpcOptions::default());
    for (answer, kind) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"[..], FailureKind::Unsupported),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", FailureKind::Unsupported),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\n\r\n", FailureKind::Unsupported),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", FailureKind::Refused),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", FailureKind::Unreachable),
        (b"HTTP/1.1 504 Gateway Timeout\r\n\r\n", FailureKind::Timeout),
        (WRONG.as_bytes(), FailureKind::Protocol),
        (b"\x16\x03\x01 what is this\r\n\r\n", FailureKind::Protocol),
    ] {
        let endpoint: Endpoint = format!("ws://{}", answers(answer).await).parse().unwrap();
        let error = in_time(client.dial(&endpoint, None)).await.unwrap_err();
        assert_eq!(error.kind, kind, "{}: {error}", String::from_utf8_lossy(answer));
    }
    // A head without end, and one with too many headers.
    let long = [&b"HTTP/1.1 101 "[..], &b"x".repeat(100_000)].concat().leak();
    let many = ["HTTP/1.1 101 X\r\n", &"a: b\r\n".repeat(200), "\r\n"].concat().leak();
    for answer in [&*long, many.as_bytes()] {
        let endpoint: Endpoint = format!("ws://{}", answers(answer).await).parse().unwrap();
        let error = in_time(client.dial(&endpoint, None)).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Protocol, "{error}");
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_rules_of_frames_is_not_blamed_for_it() {
    // A relay that lets a link come about and then puts a frame of its own in.
    let mut server = serve(GrpcOptions::default()).await;
    let relay = TcpListener::bind(any_port()).await.unwrap();
    let (endpoint, target) = (relay.local_addr().unwrap(), server.address);
    let (cut, cutting) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut near, _) = relay.accept().await.unwrap();
        let mut far = raw_grpc::tls(target, &Certificate::None, b"http/1.1").await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = cutting => {
                far.write_all(&frame(0x81, b"proxies say hello")).await.unwrap();
                near.write_all(&[0x81, 2, b'h', b'i']).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        }
    });
    let client = dialler(&server.options);
    let endpoint: Endpoint = format!("ws://{endpoint}").parse().unwrap();
    let (dialled, accepted) = dial(&client, &endpoint, &mut server.listener).await;
    cut.send(()).unwrap();
    for mut link in [dialled, accepted] {
        let error = in_time(link.stream.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind, FailureKind::Protocol, "{error}");
        assert!(in_time(link.stream.next()).await.is_none());
    }
    server.serves().await;
}

/// Runs a client of another library, where that is installed, and compares what it saw.
async fn independent(program: &str, script: &str, library: &str, seen: &[&str]) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transport/clients");
    let installed = std::env::var_os("SORCHA_CLIENTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients"),
        PathBuf::from,
    );
    let command = |argument: &str| {
        let mut command = Command::new(program);
        command.arg(tests.join(script)).arg(argument).kill_on_drop(true);
        command.env("PYTHONPATH", installed.join("python"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("NODE_MODULES", installed.join("node/node_modules"));
        command
    };
    let probe = command("--probe").output().await;
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("SKIPPED: {program} with {library} is not here; `.ci/run` installs it");
        return;
    }
    let mut server = serve(GrpcOptions::default()).await;
    let port = server.address.port().to_string();
    let mut running = command(&port);
    let output = server.beside(running.output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().collect::<Vec<_>>(), seen, "{errors}");
    for client in seen {
        let error = server.failure().await;
        let is_typed = matches!(error.kind, FailureKind::Protocol | FailureKind::Closed);
        assert!(is_typed, "{client}: {error}");
    }
    server.serves().await;
}

/// What each client must see, in this order.
const SEEN: &[&str] = &[
    "no protocol: 400",
    "origin: 403",
    "ping: pong, then close 1000",
    "garbage: close 1000",
    "compression: none, then close 1000",
    "text: close 1003",
    "unmasked: close 1002",
    "reserved bits: close 1002",
    "long message: close 1009",
    "fragments: close 1000",
];

#[tokio::test]
async fn websockets_of_python_see_typed_refusals() {
    independent("python3", "websocket.py", "websockets", SEEN).await;
}

#[tokio::test]
async fn ws_of_node_sees_typed_refusals() {
    independent("node", "websocket.mjs", "ws", SEEN).await;
}
