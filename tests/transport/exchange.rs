//! Links over requests, gRPC calls and plain ones: paths that cut every connection, and calls that make no sense.
//! That they pass the suite, `rungs` shows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use sorcha_peer::error::FailureKind;
use sorcha_peer::ports::{Listener, RawLink, Transport};
use sorcha_peer::transport::GrpcOptions;
use sorcha_peer::{Endpoint, TransportKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::common::{any_port, believing, beside, dial, in_time, plaintext, rung, serving};
use crate::cutting_path::{Cut, cutting_path};
use crate::raw_grpc::Peer;

const RUNGS: [TransportKind; 2] = [TransportKind::GrpcUnary, TransportKind::Rest];

/// A link by this rung.
async fn link(
    kind: TransportKind,
    listener: &mut Box<dyn Listener>,
    address: SocketAddr,
) -> (RawLink, RawLink) {
    dial(&rung(1, &GrpcOptions::default(), kind), &Endpoint::from(address), listener).await
}

fn frame(seed: usize, bytes: usize) -> Bytes {
    (0..bytes).map(|at| (seed.wrapping_mul(31) ^ at ^ (at >> 8)).to_le_bytes()[0]).collect()
}

/// Sends frames of many sizes both ways, each of which must arrive once and in order.
async fn talk(links: (RawLink, RawLink), rounds: usize) {
    let sizes = [0, 1, 100, 5_000, 64 * 1024];
    let mut tasks = JoinSet::new();
    let (a, b) = links;
    for (mut sink, mut stream, seed) in [(a.sink, b.stream, 1), (b.sink, a.stream, 2)] {
        tasks.spawn(async move {
            let send = async {
                for round in 0..rounds {
                    sink.send(frame(seed + round, sizes[round % sizes.len()])).await.unwrap();
                }
            };
            let receive = async {
                for round in 0..rounds {
                    let got = stream.next().await.expect("no end yet").unwrap();
                    let wanted = frame(seed + round, sizes[round % sizes.len()]);
                    assert!(got == wanted, "frame {round} of {seed}");
                }
            };
            futures::future::join(send, receive).await;
        });
    }
    in_time(tasks.join_all()).await;
}

#[tokio::test]
async fn paths_that_cut_every_connection_lose_and_double_nothing() {
    // Each is enough for a handshake, and for a few requests.
    let cuts = [Cut::Bytes(300_000), Cut::Bytes(20_000), Cut::Time(Duration::from_secs(2))];
    for rung in RUNGS {
        for cut in cuts {
            let mut tasks = JoinSet::new();
            let (mut listener, address) = serving(&GrpcOptions::default()).await;
            let path = cutting_path(address, cut, &mut tasks).await;
            let links = link(rung, &mut listener, path).await;
            beside(&mut listener, talk(links, 100)).await;
        }
    }
}

/// A proxy for calls, which says goodbye to each connection after `most` of them, as nginx does after 1000,
/// and counts the connections.
async fn polite_proxy(
    server: SocketAddr,
    most: usize,
    tasks: &mut JoinSet<()>,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = TcpListener::bind(any_port()).await.unwrap();
    let address = socket.local_addr().unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connections);
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((near, _)) = socket.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let far = TcpStream::connect(server).await.unwrap();
            serving.spawn(async move {
                let (requests, far) = h2::client::handshake(far).await.unwrap();
                let mut calls = JoinSet::new();
                calls.spawn(async move { drop(far.await) });
                let mut near = h2::server::handshake(near).await.unwrap();
                for number in 1.. {
                    let Some(Ok((request, answer))) = near.accept().await else { break };
                    calls.spawn(pass_on(requests.clone(), request, answer));
                    if number == most {
                        near.graceful_shutdown();
                    }
                }
            });
        }
    });
    (address, connections)
}

/// Passes one call on, whole.
async fn pass_on(
    mut far: h2::client::SendRequest<Bytes>,
    request: http::Request<h2::RecvStream>,
    mut answer: h2::server::SendResponse<Bytes>,
) {
    let (head, mut body) = request.into_parts();
    let bytes = whole(&mut body).await;
    let request = http::Request::from_parts(head, ());
    let (response, mut send) = far.send_request(request, false).unwrap();
    let _ = send.send_data(bytes, true);
    // A client that is gone takes its calls along.
    let Ok(response) = response.await else { return };
    let (head, mut body) = response.into_parts();
    let bytes = whole(&mut body).await;
    let trailers = body.trailers().await.ok().flatten();
    let Ok(mut send) = answer.send_response(http::Response::from_parts(head, ()), false) else {
        return;
    };
    let _ = send.send_data(bytes, trailers.is_none());
    if let Some(trailers) = trailers {
        let _ = send.send_trailers(trailers);
    }
}

async fn whole(body: &mut h2::RecvStream) -> Bytes {
    let mut bytes = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    bytes.into()
}

#[tokio::test]
async fn a_goodbye_of_a_proxy_is_followed_by_the_next_connection() {
    let mut tasks = JoinSet::new();
    let (mut listener, address) = believing().await;
    let (proxy, connections) = polite_proxy(address, 7, &mut tasks).await;
    let dialler = rung(1, &plaintext(), TransportKind::GrpcUnary);
    let links = dial(&dialler, &Endpoint::from(proxy), &mut listener).await;
    beside(&mut listener, talk(links, 200)).await;
    assert!(connections.load(Ordering::Relaxed) > 3, "{connections:?}");
}

/// One call by hand, and its status, with what the answer holds.
async fn call(calls: &mut h2::client::SendRequest<Bytes>, message: &[u8]) -> (String, Vec<u8>) {
    let request = http::Request::post("http://x/a/sorcha.peer.gossip.v1.PeerGossip/Exchange")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut body) = calls.send_request(request, false).unwrap();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let _ = body.send_data([&[0], &length[..], message].concat().into(), true);
    let response = in_time(response).await.unwrap();
    let status = response.headers().get("grpc-status").cloned();
    let mut body = response.into_body();
    let bytes = whole(&mut body).await.to_vec();
    let status = match status {
        Some(status) => status,
        None => body.trailers().await.unwrap().unwrap()["grpc-status"].clone(),
    };
    (status.to_str().unwrap().to_owned(), bytes.get(5..).unwrap_or_default().to_vec())
}

#[tokio::test]
async fn calls_that_make_no_sense_are_refused_by_code() {
    let (mut listener, address) = believing().await;
    let work = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut calls, connection) = h2::client::handshake(stream).await.unwrap();
        let _connection = tokio::spawn(async move { drop(connection.await) });
        let (status, answer) = call(&mut calls, b"").await;
        assert_eq!((status.as_str(), &answer[..2]), ("0", &b"\x0a\x10"[..]));
        let of_session = |rest: &[u8]| [&answer[..18], rest].concat();
        let most = b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        let (poll, close) = (b"\x22\x00", b"\x2a\x00");
        let cases = [
            ("a guess", [&b"\x0a\x10"[..], &[7; 16], poll].concat(), "5"),
            ("a short name", [&b"\x0a\x03abc"[..], poll].concat(), "3"),
            ("no name", poll.to_vec(), "3"),
            ("nothing asked", of_session(b""), "3"),
            ("a gap", of_session(b"\x1a\x05\x08\x05\x12\x01x"), "9"),
            ("a foreign acknowledgement", of_session(&[&most[..], poll].concat()), "9"),
            ("no message", vec![0xff; 20], "13"),
            ("too much", vec![0; 300_000], "11"),
            ("a send", of_session(b"\x1a\x03\x12\x01x"), "0"),
            ("the end", of_session(close), "0"),
            ("what is behind it", of_session(poll), "5"),
        ];
        for (name, message, wanted) in cases {
            let mut status = call(&mut calls, &message).await.0;
            // The session is forgotten soon after its end, and nothing is said of it until then.
            while name == "what is behind it" && status == "0" {
                status = call(&mut calls, &message).await.0;
            }
            assert_eq!(status, wanted, "{name}");
        }
    };
    beside(&mut listener, work).await;
}

#[tokio::test]
async fn calls_whose_message_never_ends_are_few() {
    const EXCHANGE: &str = "/sorcha.peer.gossip.v1.PeerGossip/Exchange";
    let (mut listener, address) = believing().await;
    let work = async {
        let mut client = Peer::over(TcpStream::connect(address).await.unwrap()).await;
        let begun: Vec<_> = (0..16)
            .map(|_| {
                let mut call = client.begin(EXCHANGE);
                call.1.send(Bytes::from_static(&[0, 0, 3, 0, 0, 7]), false);
                call
            })
            .collect();
        assert_eq!(client.status(EXCHANGE).await, "8", "one more is refused at once");
        // An empty message opens a session as soon as others have ended.
        drop(begun);
        loop {
            let (response, mut call) = client.begin(EXCHANGE);
            call.send(Bytes::from_static(&[0; 5]), true);
            let response = response.await.unwrap();
            match response.headers().get("grpc-status") {
                None => break,
                Some(status) => assert_eq!(status, "8"),
            }
        }
    };
    beside(&mut listener, work).await;
}

#[tokio::test]
async fn a_dial_of_what_knows_no_exchange_is_unsupported_or_refused() {
    let mut tasks = JoinSet::new();
    let answers: [(&'static [u8], FailureKind); 4] = [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", FailureKind::Unsupported),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", FailureKind::Unsupported),
        (b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", FailureKind::Refused),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", FailureKind::Unreachable),
    ];
    for (answer, kind) in answers {
        let socket = TcpListener::bind(any_port()).await.unwrap();
        let endpoint = Endpoint::from(socket.local_addr().unwrap());
        tasks.spawn(async move {
            let (mut stream, _) = socket.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer).await;
            let _ = stream.read(&mut [0; 1024]).await;
        });
        let dial = rung(1, &plaintext(), TransportKind::Rest).dial(&endpoint, None).await;
        assert_eq!(dial.unwrap_err().kind, kind);
    }
}

#[tokio::test]
async fn a_dropped_link_ends_its_session_soon() {
    for rung in RUNGS {
        let (mut listener, address) = serving(&GrpcOptions::default()).await;
        let (dialled, mut accepted) = link(rung, &mut listener, address).await;
        let dropped = Instant::now();
        drop(dialled);
        let last = in_time(accepted.stream.next()).await;
        assert!(last.is_none_or(|last| last.is_err()));
        assert!(dropped.elapsed() < Duration::from_secs(5), "{rung}: {:?}", dropped.elapsed());
    }
}
