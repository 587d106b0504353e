//! The pipe against itself, and against frames made by hand.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::stream::{LINGER, MessagePipe};
use crate::error::{FailureKind, TransportError};

const MASK: [u8; 4] = [7, 77, 177, 250];
const FINAL: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

fn pipe(stream: DuplexStream, role: Role) -> MessagePipe<DuplexStream> {
    MessagePipe::new(async move { Ok((stream, Vec::new())) }, role)
}

fn pair(capacity: usize) -> (MessagePipe<DuplexStream>, MessagePipe<DuplexStream>) {
    let (a, b) = duplex(capacity);
    (pipe(a, Role::Client), pipe(b, Role::Server))
}

/// A pipe, and a raw end at which frames are made by hand.
fn against(role: Role) -> (MessagePipe<DuplexStream>, DuplexStream) {
    let (a, b) = duplex(1 << 20);
    (pipe(a, role), b)
}

/// A frame as the peer of a pipe with this role makes it.
fn frame(to: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    let masked = to == Role::Server;
    let mut frame = vec![first];
    let mask_bit = if masked { 0x80 } else { 0 };
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(mask_bit | u8::try_from(length).unwrap()),
        Ok(length) => {
            frame.push(mask_bit | 0x7e);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(mask_bit | 0x7f);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    if masked {
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        frame.extend(payload);
    }
    frame
}

/// Reads one frame: its first byte and payload.
async fn read_frame(raw: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let (first, second) = (raw.read_u8().await.unwrap(), raw.read_u8().await.unwrap());
    let length = match second & 0x7f {
        126 => usize::from(raw.read_u16().await.unwrap()),
        127 => usize::try_from(raw.read_u64().await.unwrap()).unwrap(),
        short => usize::from(short),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        raw.read_exact(&mut mask).await.unwrap();
    }
    let mut payload = vec![0; length];
    raw.read_exact(&mut payload).await.unwrap();
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    (first, payload)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| u8::try_from((i * i / 7 + i) % 256).unwrap()).collect()
}

#[tokio::test]
async fn bytes_arrive_in_order_in_both_directions() {
    // Also where hardly anything fits between the two.
    for capacity in [10, 1000, 100_000] {
        let bytes = pattern(if capacity < 100 { 20_000 } else { 700_000 });
        let (a, b) = pair(capacity);
        let one_side = |end: MessagePipe<DuplexStream>, step: usize| {
            let bytes = bytes.clone();
            async move {
                let (mut reader, mut writer) = split(end);
                let write = async {
                    for (i, part) in bytes.chunks(step).enumerate() {
                        writer.write_all(part).await.unwrap();
                        if i % 3 == 0 {
                            writer.flush().await.unwrap();
                        }
                    }
                    writer.flush().await.unwrap();
                };
                let mut got = vec![0; bytes.len()];
                join(write, async { reader.read_exact(&mut got).await.unwrap() }).await;
                assert!(got == bytes, "not what was written");
                reader.unsplit(writer)
            }
        };
        let (mut a, mut b) = join(one_side(a, 777), one_side(b, 100_000)).await;
        a.shutdown().await.unwrap();
        assert_eq!(b.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(a.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(a.write(b"x").await.is_err());
    }
}

#[tokio::test]
async fn small_writes_leave_as_one_message() {
    let (mut pipe, mut raw) = against(Role::Client);
    for _ in 0..100 {
        pipe.write_all(b"0123456789").await.unwrap();
    }
    pipe.flush().await.unwrap();
    let (first, payload) = read_frame(&mut raw).await;
    assert_eq!((first, payload), (FINAL | BINARY, b"0123456789".repeat(100)));
}

#[tokio::test]
async fn what_was_not_flushed_leaves_with_a_dropped_pipe() {
    let (mut pipe, mut raw) = against(Role::Server);
    raw.write_all(&frame(Role::Server, FINAL | BINARY, b"x")).await.unwrap();
    assert_eq!(pipe.read_u8().await.unwrap(), b'x');
    pipe.write_all(b"alert").await.unwrap();
    drop(pipe);
    assert_eq!(read_frame(&mut raw).await, (FINAL | BINARY, b"alert".to_vec()));
    assert_eq!(read_frame(&mut raw).await, (FINAL | CLOSE, 1000_u16.to_be_bytes().to_vec()));
    assert_eq!(raw.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_the_writer_back() {
    let (mut a, mut b) = pair(1000);
    let part = pattern(10_000);
    let mut taken = 0;
    while let Poll::Ready(written) =
        poll_fn(|cx| Poll::Ready(Pin::new(&mut a).poll_write(cx, &part))).await
    {
        taken += written.unwrap();
        // The pipe is being opened at the first flush.
        let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut a).poll_flush(cx))).await;
        assert!(taken < 1 << 20, "{taken} bytes for a peer that reads nothing");
    }
    let mut got = vec![0; taken];
    let (flushed, read) = join(a.flush(), b.read_exact(&mut got)).await;
    flushed.unwrap();
    read.unwrap();
    let expected: Vec<u8> = part.iter().copied().cycle().take(taken).collect();
    // A write that was taken in part goes on with the beginning of the next.
    assert_eq!(got[..10_000], expected[..10_000]);
}

#[tokio::test]
async fn a_read_that_is_dropped_loses_nothing() {
    let (mut pipe, mut raw) = against(Role::Server);
    let bytes = pattern(300);
    let mut sent = frame(Role::Server, FINAL | BINARY, &bytes[..200]);
    sent.extend(frame(Role::Server, BINARY, &bytes[200..250]));
    sent.extend(frame(Role::Server, FINAL | PING, b"between"));
    sent.extend(frame(Role::Server, FINAL | CONTINUATION, &bytes[250..]));
    let mut got = Vec::new();
    for byte in sent {
        raw.write_u8(byte).await.unwrap();
        let mut part = [0; 7];
        let read = {
            let mut read = pin!(pipe.read(&mut part));
            poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await
        };
        if let Poll::Ready(read) = read {
            got.extend(&part[..read.unwrap()]);
        }
    }
    raw.write_all(&frame(Role::Server, FINAL | BINARY, b"")).await.unwrap();
    raw.write_all(&frame(Role::Server, FINAL | CLOSE, b"")).await.unwrap();
    pipe.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn a_ping_is_answered_while_nothing_is_written() {
    for role in [Role::Client, Role::Server] {
        let (mut pipe, mut raw) = against(role);
        raw.write_all(&frame(role, FINAL | PING, b"are you there")).await.unwrap();
        let mut byte = [0];
        let mut read = pin!(pipe.read(&mut byte));
        assert!(poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await.is_pending());
        assert_eq!(read_frame(&mut raw).await, (FINAL | PONG, b"are you there".to_vec()));
        // An answer that nobody asked for means nothing.
        raw.write_all(&frame(role, FINAL | PONG, b"?")).await.unwrap();
        raw.write_all(&frame(role, FINAL | BINARY, b"!")).await.unwrap();
        assert_eq!(read.await.unwrap(), 1);
        assert_eq!(&byte, b"!");
    }
}

#[tokio::test]
async fn pings_without_end_to_a_writer_that_is_held_back_cost_no_data() {
    let (a, raw) = duplex(1000);
    let mut pipe = pipe(a, Role::Server);
    let (mut from_pipe, mut to_pipe) = split(raw);
    pipe.write_all(&vec![4; 70_000]).await.unwrap();
    let ping = frame(Role::Server, FINAL | PING, &[1; 125]);
    for _ in 0..1000 {
        let mut byte = [0];
        let mut poll = async |pipe: &mut MessagePipe<DuplexStream>| {
            let mut pinged = pin!(to_pipe.write_all(&ping));
            poll_fn(|cx| {
                let _ = Pin::new(&mut *pipe).poll_flush(cx);
                let read = pin!(pipe.read(&mut byte)).poll(cx);
                assert!(read.is_pending(), "{read:?}");
                pinged.as_mut().poll(cx)
            })
            .await
        };
        poll(&mut pipe).await.unwrap();
    }
    let (mut reader, mut writer) = split(pipe);
    let write = async {
        writer.write_all(&vec![5; 70_000]).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut data = Vec::new();
    let collect = async {
        loop {
            match read_frame(&mut from_pipe).await {
                (first, payload) if first == FINAL | BINARY => data.extend(payload),
                (first, payload) if first == FINAL | PONG => assert_eq!(payload, [1; 125]),
                (first, _) => break assert_eq!(first, FINAL | CLOSE),
            }
        }
        to_pipe.write_all(&frame(Role::Server, FINAL | CLOSE, b"")).await.unwrap();
    };
    let mut rest = [0];
    let (read, ()) = join(reader.read(&mut rest), join(write, collect).map(|_| ())).await;
    assert_eq!(read.unwrap(), 0);
    assert!(data == [vec![4; 70_000], vec![5; 70_000]].concat(), "{} bytes", data.len());
}

#[tokio::test]
async fn a_close_frame_and_a_cut_connection_are_the_end() {
    for role in [Role::Client, Role::Server] {
        let (mut pipe, mut raw) = against(role);
        raw.write_all(&frame(role, FINAL | BINARY, b"bye")).await.unwrap();
        raw.write_all(&frame(role, FINAL | CLOSE, &1001_u16.to_be_bytes())).await.unwrap();
        let mut got = Vec::new();
        pipe.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye");
        assert_eq!(read_frame(&mut raw).await, (FINAL | CLOSE, 1001_u16.to_be_bytes().to_vec()));
        pipe.write_all(b"too late").await.unwrap();
        assert!(pipe.flush().await.is_err());

        let (mut pipe, mut raw) = against(role);
        let whole = frame(role, FINAL | BINARY, b"cut short");
        raw.write_all(&whole[..whole.len() - 1]).await.unwrap();
        drop(raw);
        let mut got = Vec::new();
        pipe.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"");
    }
}

#[tokio::test]
async fn an_upgrade_that_fails_is_an_error() {
    let failed = async { Err(io::Error::from(io::ErrorKind::ConnectionReset)) };
    let mut pipe = MessagePipe::<DuplexStream>::new(failed, Role::Server);
    pipe.write_all(b"x").await.unwrap();
    assert_eq!(pipe.flush().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(pipe.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

/// What a peer may not send, and the close code that it gets.
fn against_the_rules(role: Role) -> Vec<(&'static str, Vec<u8>, u16)> {
    let other = if role == Role::Server { Role::Client } else { Role::Server };
    let good = |first, payload: &[u8]| frame(role, first, payload);
    let claims = |length: u64| {
        let mut frame = vec![FINAL | BINARY, 127];
        if role == Role::Server {
            frame[1] |= 0x80;
        }
        frame.extend(length.to_be_bytes());
        frame.extend(MASK);
        frame
    };
    vec![
        ("masked the wrong way", frame(other, FINAL | BINARY, b"abc"), 1002),
        ("compressed", good(FINAL | 0x40 | BINARY, b"abc"), 1002),
        ("reserved bits", good(FINAL | 0x30 | BINARY, b"abc"), 1002),
        ("a reserved kind of data", good(FINAL | 3, b"abc"), 1002),
        ("a reserved kind of control", good(FINAL | 0xb, b"abc"), 1002),
        ("a long ping", good(FINAL | PING, &[0; 126]), 1002),
        ("a ping in parts", good(PING, b"abc"), 1002),
        ("a close frame of one byte", good(FINAL | CLOSE, b"a"), 1002),
        ("the middle first", good(FINAL | CONTINUATION, b"abc"), 1002),
        (
            "one message within another",
            [good(BINARY, b"a"), good(FINAL | BINARY, b"b")].concat(),
            1002,
        ),
        ("text", good(FINAL | TEXT, b"hello"), 1003),
        ("text that is none", good(FINAL | TEXT, &[0xff; 3]), 1003),
        (
            "a message without end",
            [good(BINARY, b"a"), good(0, &[1; 100_000]).repeat(3)].concat(),
            1009,
        ),
        ("a long message", claims(200_000), 1009),
        ("a message longer than memory", claims(u64::MAX), 1009),
    ]
}

#[tokio::test]
async fn a_peer_that_breaks_the_rules_is_told_and_is_an_error() {
    for role in [Role::Client, Role::Server] {
        for (what, sent, code) in against_the_rules(role) {
            let (mut pipe, mut raw) = against(role);
            raw.write_all(&frame(role, FINAL | BINARY, b"ok")).await.unwrap();
            raw.write_all(&sent).await.unwrap();
            let peer = async {
                let (first, payload) = read_frame(&mut raw).await;
                assert_eq!(first, FINAL | CLOSE, "{what}");
                let told = u16::from_be_bytes([payload[0], payload[1]]);
                // The standard's limit for what a close frame carries.
                assert!(payload.len() > 2 && payload.len() <= 125, "{what}");
                assert_eq!(raw.read(&mut [0; 8]).await.unwrap(), 0, "{what}");
                drop(raw);
                told
            };
            let mut got = Vec::new();
            let (told, read) = join(peer, pipe.read_to_end(&mut got)).await;
            let error = read.expect_err(what);
            assert_eq!((told, got.as_slice()), (code, &b"ok"[..]), "{what}");
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TransportError>());
            assert_eq!(inner.expect(what).kind, FailureKind::Protocol, "{what}: {error}");
            assert!(pipe.write(b"x").await.is_err(), "{what}");
            assert!(pipe.read(&mut [0]).await.is_err(), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_peer_has_a_moment_to_read_why_and_no_more() {
    const TEXT_FRAME: [u8; 8] = [FINAL | TEXT, 0x82, 0, 0, 0, 0, b'h', b'i'];
    // What it sends after that, and how long it takes for that.
    let silent: (usize, Duration) = (0, LINGER * 10);
    let slow = (50, LINGER / 10);
    let flood = (50_000, Duration::ZERO);
    for ((bytes, pause), least, most) in [
        (silent, LINGER, LINGER * 2),
        (slow, LINGER, LINGER * 2),
        (flood, Duration::ZERO, LINGER / 2),
    ] {
        let (a, mut raw) = duplex(1000);
        let mut pipe = pipe(a, Role::Server);
        let start = Instant::now();
        let peer = async {
            raw.write_all(&TEXT_FRAME).await.unwrap();
            while raw.write_all(&vec![0; bytes]).await.is_ok() && start.elapsed() < LINGER * 10 {
                sleep(pause).await;
            }
        };
        let read = async {
            pipe.read(&mut [0]).await.unwrap_err();
            start.elapsed()
        };
        let ((), took) = join(peer, read).await;
        assert!(took >= least && took <= most, "{took:?} for {bytes} bytes each {pause:?}");
    }
    // One that hangs up is not waited for.
    let (a, mut raw) = duplex(1000);
    let mut pipe = pipe(a, Role::Server);
    raw.write_all(&TEXT_FRAME).await.unwrap();
    drop(raw);
    let start = Instant::now();
    pipe.read(&mut [0]).await.unwrap_err();
    assert!(start.elapsed() < LINGER / 2);
}
