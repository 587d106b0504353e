//! The STUN prober against servers on the loopback interface.

use std::net::{IpAddr, SocketAddr};

use sorcha_peer::error::FailureKind;
use sorcha_peer::nat::StunProber;
use sorcha_peer::ports::NatProber;
use sorcha_peer::testing;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// A success response that says "I see you at `seen`" in XOR-MAPPED-ADDRESS.
fn response(request: &[u8], seen: SocketAddr) -> Vec<u8> {
    assert!(request.len() >= 20 && request[..2] == [0, 1], "a binding request");
    assert_eq!(request[4..8], MAGIC);
    let mask = &request[4..20];
    let [p0, p1] = seen.port().to_be_bytes();
    let (family, octets) = match seen.ip() {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    let length = u8::try_from(4 + octets.len()).unwrap();
    let mut out = vec![1, 1, 0, 4 + length];
    out.extend_from_slice(mask);
    out.extend_from_slice(&[0, 0x20, 0, length, 0, family, p0 ^ mask[0], p1 ^ mask[1]]);
    out.extend(octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
    out
}

/// Answers every request with what `answer` makes of it; nothing where that is empty.
async fn serve(
    bind: &str,
    answer: impl Fn(&[u8], SocketAddr) -> Vec<u8> + Send + 'static,
) -> std::io::Result<(StunProber, JoinHandle<()>)> {
    let socket = UdpSocket::bind(bind).await?;
    let address = socket.local_addr()?;
    let task = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = answer(&buffer[..length], from);
            if !answer.is_empty() {
                socket.send_to(&answer, from).await.expect("loopback takes it");
            }
        }
    });
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
