//! The STUN prober against servers on the loopback interface.

use std::net::{IpAddr, SocketAddr};

use sorcha_peer::error::FailureKind;
use sorcha_peer::nat::StunProber;
use sorcha_peer::ports::NatProber;
use sorcha_peer::testing;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::stun_server::{self, response};

/// A server that answers every request with what `answer` makes of it, and a prober that asks it.
async fn serve(
    bind: &str,
    answer: impl Fn(&[u8], SocketAddr) -> Vec<u8> + Send + 'static,
) -> std::io::Result<(StunProber, JoinHandle<()>)> {
    let (address, task) = stun_server::serve(bind, answer).await?;
    Ok((StunProber::new(&address.to_string()).expect("an address"), task))
}

#[tokio::test]
async fn the_prober_conforms() {
    let (prober, server) = serve("127.0.0.1:0", response).await.unwrap();
    testing::nat_prober(&prober).await;
    let seen = prober.probe().await.unwrap();
    assert_eq!(seen.ip(), IpAddr::from([127, 0, 0, 1]));
    server.abort();
}

#[tokio::test]
async fn the_answer_is_what_the_server_sees() {
    let seen: SocketAddr = "203.0.113.9:40000".parse().unwrap();
    let (prober, server) =
        serve("127.0.0.1:0", move |request, _| response(request, seen)).await.unwrap();
    assert_eq!(prober.probe().await.unwrap(), seen);
    server.abort();
}

#[tokio::test]
async fn names_and_ipv6_are_asked_too() {
    let (prober, server) = serve("127.0.0.1:0", response).await.unwrap();
    let port = prober.name().rsplit(':').next().unwrap().to_owned();
    let named = StunProber::new(&format!("localhost:{port}")).unwrap();
    assert!(named.probe().await.unwrap().ip().is_loopback());
    server.abort();
    // Not every machine has IPv6.
    if let Ok((prober, server)) = serve("[::1]:0", response).await {
        assert_eq!(prober.probe().await.unwrap().ip(), "::1".parse::<IpAddr>().unwrap());
        server.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_a_timeout() {
    let (prober, server) = serve("127.0.0.1:0", |_, _| Vec::new()).await.unwrap();
    let start = tokio::time::Instant::now();
    let error = prober.probe().await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Timeout, "{error}");
    assert!(start.elapsed() <= std::time::Duration::from_secs(6));
    server.abort();
}

type Answer = fn(&[u8]) -> Vec<u8>;

#[tokio::test]
async fn a_garbage_answer_is_an_error() {
    let none: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let answers: [Answer; 5] = [
        |_| b"no".to_vec(),
        |_| vec![0xff; 200],
        |request| request.to_vec(),
        |request| response(request, "[::]:0".parse().unwrap())[..30].to_vec(),
        |request| response(request, "1.2.3.4:0".parse().unwrap()),
    ];
    for answer in answers {
        let (prober, server) = serve("127.0.0.1:0", move |r, _| answer(r)).await.unwrap();
        let error = prober.probe().await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Malformed, "{error}");
        server.abort();
    }
    let (prober, server) = serve("127.0.0.1:0", move |r, _| response(r, none)).await.unwrap();
    assert_eq!(prober.probe().await.unwrap_err().kind, FailureKind::Malformed);
    server.abort();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_closed_port_is_unreachable_at_once() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let error = StunProber::new(&address.to_string()).unwrap().probe().await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Unreachable, "{error}");
}

#[tokio::test]
async fn an_unknown_name_is_unreachable() {
    let prober = StunProber::new("does-not-exist.invalid").unwrap();
    let error = prober.probe().await.unwrap_err();
    assert!(matches!(error.kind, FailureKind::Unreachable | FailureKind::Timeout), "{error}");
}
