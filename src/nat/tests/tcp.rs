//! The mapping of the listen port, asked over TCP beside the listener.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::encoding::{masked, message, refusal, success};
use crate::error::{FailureKind, ProbeError};
use crate::identity::Identity;
use crate::nat::outside::{Family, StunServer};
use crate::nat::tcp_mapped;
use crate::ports::{Listener, Transport};
use crate::transport::{GrpcOptions, GrpcTransport};

const LIE: &str = "198.51.100.66:6666";

/// Server that sends what `answer` makes of a request, and then keeps the connection.
async fn serve(
    answer: impl Fn(&[u8], SocketAddr) -> Vec<u8> + Send + 'static,
) -> (StunServer, JoinSet<()>) {
    serve_at("127.0.0.1:0", answer).await
}

async fn serve_at(
    at: &str,
    answer: impl Fn(&[u8], SocketAddr) -> Vec<u8> + Send + 'static,
) -> (StunServer, JoinSet<()>) {
    let listener = TcpListener::bind(at).await.unwrap();
    let at = listener.local_addr().unwrap().to_string().parse().unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, from) = listener.accept().await.unwrap();
            let mut request = [0; 20];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(&answer(&request, from)).await.unwrap();
            open.push(stream);
        }
    });
    (at, task)
}

async fn listen(shares_port: bool, at: &str) -> Result<Box<dyn Listener>, FailureKind> {
    let options = GrpcOptions { shares_port, ..GrpcOptions::default() };
    let transport = GrpcTransport::new(Identity::generate().unwrap(), options).unwrap();
    transport.listen(at.parse().unwrap()).await.map_err(|error| error.kind)
}

async fn ask(
    listener: &dyn Listener,
    servers: &[(StunServer, JoinSet<()>)],
) -> Result<SocketAddr, ProbeError> {
    ask_about(Family::V4, listener, servers).await.expect("somebody to ask")
}

async fn ask_about(
    family: Family,
    listener: &dyn Listener,
    servers: &[(StunServer, JoinSet<()>)],
) -> Option<Result<SocketAddr, ProbeError>> {
    let servers: Vec<_> = servers.iter().map(|(at, _)| at.clone()).collect();
    let asking = tcp_mapped(listener.local_addr(), &servers, family);
    timeout(Duration::from_secs(30), asking).await.expect("an end")
}

/// What one server's answer comes to.
async fn failure(answer: impl Fn(&[u8], SocketAddr) -> Vec<u8> + Send + 'static) -> FailureKind {
    let listener = listen(true, "127.0.0.1:0").await.unwrap();
    ask(&*listener, &[serve(answer).await]).await.unwrap_err().kind
}

#[cfg(unix)]
#[tokio::test]
async fn the_mapping_is_that_of_the_listen_port() {
    for at in ["127.0.0.1:0", "0.0.0.0:0"] {
        let mut listener = listen(true, at).await.unwrap();
        let port = listener.local_addr().port();
        let servers = [serve(success).await, serve(success).await];
        // Again at once: nothing of the question before is left on the port.
        for _ in 0..3 {
            assert_eq!(ask(&*listener, &servers).await.unwrap(), ([127, 0, 0, 1], port).into());
        }
        // The listener is still there, and nobody else may listen.
        let dialled = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        drop(dialled);
        timeout(Duration::from_secs(30), listener.accept()).await.expect("the connection is heard");
        assert_eq!(
            listen(true, &format!("127.0.0.1:{port}")).await.err(),
            Some(FailureKind::Local)
        );
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_port_that_is_not_shared_is_not_asked_from() {
    let listener = listen(false, "127.0.0.1:0").await.unwrap();
    let error = ask(&*listener, &[serve(success).await]).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Local, "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_liar_is_outvoted_and_contradiction_is_no_address() {
    let lie = |request: &[u8], _| success(request, LIE.parse().unwrap());
    let listener = listen(true, "127.0.0.1:0").await.unwrap();
    let servers = [serve(lie).await, serve(success).await, serve(success).await];
    assert_eq!(ask(&*listener, &servers).await.unwrap(), listener.local_addr());
    let error = ask(&*listener, &servers[..2]).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Unsupported, "{error}");
    assert!(ask_about(Family::V4, &*listener, &[]).await.is_none(), "nobody to ask");
}

#[cfg(unix)]
#[tokio::test]
async fn a_listener_for_both_families_is_asked_about_in_each() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("SKIPPED: this machine has no IPv6");
        return;
    }
    let listener = listen(true, "[::]:0").await.unwrap();
    let port = listener.local_addr().port();
    let servers = [serve(success).await, serve_at("[::1]:0", success).await];
    for (family, ip) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
        let seen = ask_about(family, &*listener, &servers).await;
        let wanted = SocketAddr::new(ip.parse().unwrap(), port);
        assert_eq!(seen.expect("somebody to ask").unwrap(), wanted);
    }
}

#[tokio::test]
async fn a_listener_of_one_family_is_not_asked_about_for_the_other() {
    let servers = ["127.0.0.1:1", "[::1]:1"].map(|at| at.parse::<StunServer>().unwrap());
    for (listening, family) in
        [("0.0.0.0:1", Family::V6), ("127.0.0.1:1", Family::V6), ("[::1]:1", Family::V4)]
    {
        let asked = tcp_mapped(listening.parse().unwrap(), &servers, family).await;
        assert!(asked.is_none(), "{asked:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn silence_over_tcp_ends() {
    let start = Instant::now();
    assert_eq!(failure(|_, _| Vec::new()).await, FailureKind::Timeout);
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[cfg(unix)]
#[tokio::test]
async fn broken_answers_over_tcp_are_none() {
    let other = |request: &[u8]| {
        let mut other = request.to_vec();
        other[19] ^= 1;
        success(&other, LIE.parse().unwrap())
    };
    let long = |request: &[u8], from| {
        let mut long = success(request, from);
        long[2..4].copy_from_slice(&[0xff, 0xfc]);
        long
    };
    // Those after the answer of somebody else are read, some.
    assert_eq!(failure(move |request, _| other(request).repeat(9)).await, FailureKind::Malformed);
    assert_eq!(failure(long).await, FailureKind::Malformed);
    assert_eq!(failure(|r, _| refusal(r, 401, "who")).await, FailureKind::Refused);
    assert_eq!(failure(|r, _| message(0x0101, r, &[])).await, FailureKind::Malformed);
    let v6 = |request: &[u8], _| {
        let seen = masked(request, "[2001:db8::1]:7".parse().unwrap());
        message(0x0101, request, &[seen])
    };
    assert_eq!(failure(v6).await, FailureKind::Malformed);
    let half = |request: &[u8], from| success(request, from)[..25].to_vec();
    assert_eq!(failure(half).await, FailureKind::Timeout);
}
