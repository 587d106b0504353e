//! Links over plain requests, spoken by hand: what hostile or broken clients ask for, and what others hear.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use sorcha_peer::TransportKind;
use sorcha_peer::error::FailureKind;
use sorcha_peer::ports::Accepted;
use sorcha_peer::testing::TransportNode;
use sorcha_peer::transport::GrpcOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::common::{believing, beside, identity, in_time, plaintext, serving};

const BASE: &str = "/sorcha/v1/exchange";

/// An answer as it stands on the wire.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines
            .find_map(|line| line.split_once(": ").filter(|(found, _)| *found == name))
            .map(|l| l.1)
    }

    /// Checks that the answer is a problem document with this status.
    fn assert_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(document["status"], status);
        assert!(document["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
}

/// One connection that speaks HTTP/1.1 by hand.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        self.write(head.as_bytes()).await;
        // Where a request is refused unread, the connection may be over by now.
        let _ = self.0.write_all(body).await;
        self.answer(method).await
    }

    async fn answer(&mut self, method: &str) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(in_time(self.0.read_u8()).await.expect("an answer"));
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        if method != "HEAD" {
            answer.body.resize(length, 0);
            in_time(self.0.read_exact(&mut answer.body)).await.unwrap();
        }
        answer
    }

    /// Opens a session, and gives the path below which its requests lie.
    async fn open(&mut self) -> String {
        let answer = self.request("POST", &format!("{BASE}/open"), b"").await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let session = String::from_utf8(answer.body).unwrap();
        assert!(session.len() == 32 && session.bytes().all(|b| b.is_ascii_hexdigit()), "{session}");
        format!("{BASE}/{session}")
    }
}

#[tokio::test]
async fn a_client_by_hand_has_a_link() {
    let (mut listener, address) = believing().await;
    let mut client = Client::connect(address).await;
    let (session, mut link) = futures::future::join(
        async {
            let session = client.open().await;
            let mut hello = identity(1).peer_id().as_bytes().to_vec();
            hello.extend_from_slice(b"\0\0\0\x03abc");
            // The end of one request is the beginning of another, and both overlap.
            let path = format!("{session}/send?offset=0&ack=0");
            let sent = client.request("POST", &path, &hello[..20]).await;
            assert_eq!(sent.header("sorcha-ack"), Some("20"));
            let path = format!("{session}/send?offset=10&ack=0");
            let sent = client.request("POST", &path, &hello[10..]).await;
            assert_eq!(sent.header("sorcha-ack"), Some("39"));
            session
        },
        TransportNode::accept(&mut listener),
    )
    .await;
    assert_eq!((link.remote, link.kind), (identity(1).peer_id(), TransportKind::Rest));
    assert_eq!(in_time(link.stream.next()).await.unwrap().unwrap(), "abc");
    link.sink.send("answer".into()).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 32 + 4 + 6 {
        let (method, ack) = (if got.is_empty() { "GET" } else { "POST" }, got.len());
        let answer =
            client.request(method, &format!("{session}/poll?ack={ack}&limit=5"), b"").await;
        assert_eq!(answer.header("sorcha-offset"), Some(ack.to_string().as_str()));
        assert!(answer.body.len() <= 5);
        got.extend(answer.body);
    }
    assert_eq!(got[..32], *identity(2).peer_id().as_bytes());
    assert_eq!(&got[32..], b"\0\0\0\x06answer");

    // What is acknowledged is not sent again, and nothing but that is forgotten.
    let again = client.request("POST", &format!("{session}/poll?ack=0&wait=0"), b"").await;
    assert_eq!((again.status, again.body.len() <= 5), (200, true));
    let empty = client.request("POST", &format!("{session}/poll?ack=42&wait=0"), b"").await;
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    let closed = client.request("POST", &format!("{session}/close"), b"").await;
    assert_eq!(closed.status, 204);
    let last = in_time(link.stream.next()).await;
    assert!(last.is_none_or(|last| last.is_err()), "a closed session ends its link");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name_and_changes_nothing() {
    let (mut listener, address) = believing().await;
    let work = async {
        let mut keeper = Client::connect(address).await;
        let session = keeper.open().await;
        let guessed = format!("{BASE}/{}", "0".repeat(32));
        let most = u64::MAX;
        let no_path = ["open/", "opens", "", "close", "send", "00/send", "../../x/send"];
        for path in no_path {
            let mut client = Client::connect(address).await;
            client.request("POST", &format!("{BASE}/{path}"), b"").await.assert_problem(404);
        }
        for action in ["send?offset=0&ack=0", "poll?ack=0", "close", "poll?ack=x", "send"] {
            let mut client = Client::connect(address).await;
            let answer = client.request("POST", &format!("{guessed}/{action}"), b"abc").await;
            answer.assert_problem(404);
            assert_eq!(answer.header("sorcha-refusal"), Some("no-session"));
        }
        let queries = [
            "send",
            "send?offset=0",
            "send?ack=0",
            "send?offset=-1&ack=0",
            "send?offset=0&ack=1e3",
            "send?offset=0x0&ack=0",
            "send?offset=18446744073709551616&ack=0",
            "send?offset=0&offset=0&ack=0",
            "poll",
            "poll?ack=",
            "poll?ack=+1",
            "poll?ack=0&wait=soon",
            "poll?ack=0&limit=-5",
        ];
        for query in queries {
            keeper.request("POST", &format!("{session}/{query}"), b"").await.assert_problem(400);
        }
        let conflicts = [
            (format!("send?offset={most}&ack=0"), "gap"),
            (format!("send?offset={most}&ack=0&end=1"), "gap"),
            ("send?offset=1&ack=0".to_owned(), "gap"),
            (format!("send?offset=0&ack={most}"), "foreign-ack"),
            ("send?offset=0&ack=33".to_owned(), "foreign-ack"),
            (format!("poll?ack={most}"), "foreign-ack"),
        ];
        for (query, name) in conflicts {
            let mut client = Client::connect(address).await;
            let answer = client.request("POST", &format!("{session}/{query}"), b"x").await;
            answer.assert_problem(409);
            assert_eq!(answer.header("sorcha-refusal"), Some(name), "{query}");
        }
        let methods = [
            ("GET", "open", "POST"),
            ("PUT", "open", "POST"),
            ("OPTIONS", "open", "POST"),
            ("HEAD", "open", "POST"),
            ("GET", "send?offset=0&ack=0", "POST"),
            ("DELETE", "poll?ack=0", "GET, POST"),
            ("HEAD", "poll?ack=0", "GET, POST"),
            ("GET", "close", "POST"),
        ];
        for (method, action, allowed) in methods {
            let mut client = Client::connect(address).await;
            let below = if action == "open" { BASE } else { &session };
            let answer = client.request(method, &format!("{below}/{action}"), b"").await;
            assert_eq!(answer.status, 405, "{method} {action}");
            assert_eq!(answer.header("allow"), Some(allowed.to_ascii_lowercase().as_str()));
        }
        // Too much, said at once and found out.
        let send = format!("{session}/send?offset=0&ack=0");
        let mut client = Client::connect(address).await;
        client.request("POST", &send, &vec![0; 256 * 1024 + 1]).await.assert_problem(413);
        let mut client = Client::connect(address).await;
        let head = format!("POST {send} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        client.write(head.as_bytes()).await;
        for _ in 0..5 {
            let _ = client.0.write_all(b"10000\r\n").await;
            let _ = client.0.write_all(&vec![0; 0x10000]).await;
            let _ = client.0.write_all(b"\r\n").await;
        }
        client.answer("POST").await.assert_problem(413);
        // The session is as it was.
        let sent = keeper.request("POST", &send, b"all the same").await;
        assert_eq!((sent.status, sent.header("sorcha-ack")), (200, Some("12")));
    };
    beside(&mut listener, work).await;
}

#[tokio::test]
async fn what_is_framed_in_two_ways_is_one_request_and_the_last() {
    let (mut listener, address) = believing().await;
    let second = format!("POST {BASE}/open HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    let (length, chunked) = ("content-length: 5\r\n", "transfer-encoding: chunked\r\n");
    let work = async {
        for lines in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
            let first = format!("POST {BASE}/open HTTP/1.1\r\nhost: x\r\n{lines}\r\n0\r\n\r\n");
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("{first}{second}").as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // What is left unread may end it with a reset.
            let _ = stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        }
    };
    beside(&mut listener, work).await;
}

#[tokio::test]
async fn a_send_without_end_makes_way_for_the_next() {
    let (mut listener, address) = believing().await;
    let work = async {
        let (mut keeper, mut stuck) =
            (Client::connect(address).await, Client::connect(address).await);
        let session = keeper.open().await;
        let send = format!("{session}/send?offset=0&ack=0");
        let head = format!("POST {send} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        stuck.write(head.as_bytes()).await;
        stuck.write(b"3\r\nabc\r\n").await;
        // Where the stuck one is the newer, as the server sees it, the client repeats.
        let mut ack = None;
        while ack.as_deref() != Some("4") {
            let sent = keeper.request("POST", &send, b"xyzw").await;
            assert_eq!(sent.status, 200);
            ack = sent.header("sorcha-ack").map(str::to_owned);
        }
        stuck.write(b"0\r\n\r\n").await;
        let late = stuck.answer("POST").await;
        assert_eq!(late.status, 200, "{late:?}");
        let again = keeper.request("POST", &send, b"xyzw").await;
        assert_eq!(again.header("sorcha-ack"), Some("4"), "nothing of the stuck one was taken");
    };
    beside(&mut listener, work).await;
}

#[tokio::test]
async fn ten_thousand_sessions_from_one_host_are_few() {
    // None of them gives way before the last has come, however busy the machine is.
    let mut options = plaintext();
    options.handshake_timeout = Duration::from_mins(10);
    let (mut listener, address) = serving(&options).await;
    let work = async {
        let mut client = Client::connect(address).await;
        let mut opened = 0;
        for _ in 0..10_000 {
            let answer = client.request("POST", &format!("{BASE}/open"), b"").await;
            match answer.status {
                201 => opened += 1,
                _ => answer.assert_problem(429),
            }
        }
        assert_eq!(opened, GrpcOptions::default().max_handshakes_per_ip);
    };
    beside(&mut listener, work).await;
}

#[tokio::test]
async fn polls_that_are_never_read_hold_the_writer_back() {
    let (mut listener, address) = believing().await;
    let mut client = Client::connect(address).await;
    let open = async {
        let session = client.open().await;
        let hello = *identity(1).peer_id().as_bytes();
        client.request("POST", &format!("{session}/send?offset=0&ack=0"), &hello).await;
        session
    };
    let (session, mut link) =
        futures::future::join(open, TransportNode::accept(&mut listener)).await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(address).await;
        let head = format!("GET {session}/poll?ack=0 HTTP/1.1\r\nhost: x\r\n\r\n");
        client.write(head.as_bytes()).await;
        deaf.push(client);
    }
    let mut taken = 0;
    let write = async {
        loop {
            link.sink.send(Bytes::from(vec![7; 64 * 1024])).await.unwrap();
            taken += 1;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(2), write).await.is_err());
    assert!((1..=12).contains(&taken), "{taken} frames of 64 KiB are taken");
    // The session goes on with the first who listens.
    let answer = client.request("GET", &format!("{session}/poll?ack=0"), b"").await;
    assert_eq!(answer.body[..32], *identity(2).peer_id().as_bytes());
}

#[tokio::test]
async fn an_independent_client_is_answered_in_words() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no curl");
        return;
    }
    let (mut listener, address) = serving(&GrpcOptions::default()).await;
    let url = format!("https://{address}{BASE}");
    let curl = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("curl");
        command.args(["-sSk", "--http1.1", "--max-time", "60", "-w", "\n%{http_code}"]);
        command.args(arguments);
        async move {
            let output = in_time(command.output()).await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
    };
    let work = async {
        let opened = curl(&["-X", "POST", &format!("{url}/open")]).await;
        let (session, status) = opened.split_once('\n').unwrap();
        assert_eq!(status, "201");
        let send = format!("{url}/{session}/send?offset=0&ack=0");
        assert_eq!(curl(&["--data-binary", "no TLS at all", &send]).await, "\n200");
        // The alert with which the handshake in the pipe ends.
        let polled = curl(&["-X", "POST", &format!("{url}/{session}/poll?ack=0")]).await;
        assert!(polled.starts_with('\u{15}') && polled.ends_with("200"), "{polled:?}");
        let gap =
            curl(&["--data-binary", "x", &format!("{url}/{session}/send?offset=99&ack=0")]).await;
        assert!(gap.contains("still to come") && gap.ends_with("409"), "{gap}");
        let guessed = format!("{url}/{}/poll?ack=0", "7".repeat(32));
        let unknown = curl(&[&guessed]).await;
        assert!(unknown.contains("no such session") && unknown.ends_with("404"), "{unknown}");
        let method = curl(&["-X", "PUT", &format!("{url}/open")]).await;
        assert!(method.ends_with("405"), "{method}");
    };
    let mut failures = BTreeSet::new();
    let accepting = async {
        loop {
            match listener.accept().await {
                Accepted::Failed { error, .. } => failures.insert(error.kind),
                other => panic!("{other:?}"),
            };
        }
    };
    tokio::select! {
        () = work => {}
        () = accepting => unreachable!("it accepts for ever"),
    }
    // What is no TLS in the pipe, and the requests that were refused.
    let told = [FailureKind::Protocol, FailureKind::Refused];
    assert!(told.iter().all(|kind| failures.contains(kind)), "{failures:?}");
}
