//! Calls that take their time: what ends them, and how much they hold meanwhile.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body as _, Frame};
use tonic::Status;

use super::*;

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
    let request = Request::post(whole(path));
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
        for path in [STREAM, REFLECT] {
            assert_eq!(
                silent(&world.ops, path, Some(given), &beat).await,
                late(seconds),
                "{given}"
            );
        }
    }
    // Time of its own has each message that is the only one, and each stream.
    for given in [None, Some("1M"), Some("99999999H")] {
        assert_eq!(silent(&world.ops, PING, given, &cut).await, late(30));
    }
    for path in [STREAM, REFLECT] {
        assert_eq!(silent(&world.ops, path, None, &beat).await, late(600));
    }
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
    let payload = Bytes::from(vec![7; MAX_BYTES]);
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
