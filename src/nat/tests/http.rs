//! Lookups at HTTP servers, most of them no good.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::error::{FailureKind, ProbeError};
use crate::nat::HttpProber;
use crate::ports::NatProber;
use crate::testing;

/// Bytes that a server sends, and whether it goes on with the last of them for ever.
#[derive(Clone)]
struct Answer {
    bytes: Vec<u8>,
    repeats: Vec<u8>,
    /// The connection stays open.
    lingers: bool,
}

fn answer(head: &str, body: &str) -> Answer {
    let bytes = format!("{head}\r\n\r\n{body}").into_bytes();
    Answer { bytes, repeats: Vec::new(), lingers: false }
}

fn ok(body: &str) -> Answer {
    answer("HTTP/1.1 200 OK\r\nconnection: close", body)
}

/// Server of one answer, by its URL.
async fn serve(answer: Answer, tls: Option<TlsAcceptor>) -> (HttpProber, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}/ip", listener.local_addr().unwrap());
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answer, tls) = (answer.clone(), tls.clone());
            open.spawn(async move {
                match tls {
                    None => converse(stream, answer).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            converse(stream, answer).await;
                        }
                    }
                }
            });
        }
    });
    (HttpProber::new(&url).unwrap(), task)
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Answer) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read_exact(&mut byte).await.is_err() {
            return;
        }
        request.extend(byte);
    }
    let request = String::from_utf8(request).unwrap();
    assert!(request.starts_with("GET /ip HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("host: 127.0.0.1:"), "{request}");
    let mut sent = stream.write_all(&answer.bytes).await;
    while sent.is_ok() && !answer.repeats.is_empty() {
        sent = stream.write_all(&answer.repeats).await;
    }
    if answer.lingers {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}

async fn probe(answer: Answer) -> Result<IpAddr, ProbeError> {
    let (prober, _server) = serve(answer, None).await;
    let start = Instant::now();
    let seen = prober.probe().await;
    assert!(start.elapsed() < Duration::from_secs(20), "an end");
    seen.map(|seen| seen.ip())
}

async fn kind(answer: Answer) -> FailureKind {
    probe(answer).await.unwrap_err().kind
}

fn seen() -> IpAddr {
    Ipv4Addr::new(203, 0, 113, 9).into()
}

#[tokio::test]
async fn the_prober_conforms() {
    let (prober, _server) = serve(ok("203.0.113.9\n"), None).await;
    testing::nat_prober(&prober).await;
}

#[tokio::test]
async fn the_first_address_in_the_body_is_the_answer() {
    let chunked = answer(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked",
        "6\r\n203.0.\r\n5\r\n113.9\r\n0\r\n\r\n",
    );
    let sized = answer("HTTP/1.1 200 OK\r\ncontent-length: 11", "203.0.113.9");
    let old = answer("HTTP/1.0 200 OK\r\ncontent-type: text/html", "<b>203.0.113.9</b>");
    for answer in [ok("{\"ip\":\"203.0.113.9\"}"), chunked, Answer { lingers: true, ..sized }, old]
    {
        assert_eq!(probe(answer).await.unwrap(), seen());
    }
}

#[tokio::test]
async fn an_endless_body_is_no_answer() {
    let endless = Answer { repeats: vec![b' '; 1000], ..ok("203.0.113.9\n") };
    assert_eq!(kind(endless).await, FailureKind::Malformed);
}

#[tokio::test]
async fn an_endless_head_is_no_answer() {
    let bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
    let endless = Answer { bytes, repeats: b"x-filler: 203.0.113.9\r\n".to_vec(), lingers: false };
    assert_eq!(kind(endless).await, FailureKind::Malformed);
}

#[tokio::test]
async fn a_slow_body_is_not_waited_for() {
    let slow = answer("HTTP/1.1 200 OK\r\ncontent-length: 100", "203.0.113.9\n");
    assert_eq!(kind(Answer { lingers: true, ..slow }).await, FailureKind::Timeout);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in ["301 Moved", "302 Found", "307 Temporary Redirect"] {
        let head =
            format!("HTTP/1.1 {status}\r\nlocation: http://203.0.113.9/\r\nconnection: close");
        assert_eq!(kind(answer(&head, "203.0.113.9")).await, FailureKind::Refused, "{status}");
    }
}

#[tokio::test]
async fn a_failure_is_no_answer() {
    for status in ["204 No Content", "403 Forbidden", "404 Not Found", "503 Busy"] {
        let head = format!("HTTP/1.1 {status}\r\nconnection: close");
        assert_eq!(kind(answer(&head, "203.0.113.9")).await, FailureKind::Refused, "{status}");
    }
}

#[tokio::test]
async fn a_body_without_an_address_of_the_family_is_no_answer() {
    for body in
        ["", "your address is secret", "2001:db8::7", "0.0.0.0", "1.2.3", "\u{0}\u{1}\u{fffd}"]
    {
        assert_eq!(kind(ok(body)).await, FailureKind::Malformed, "{body}");
    }
}

#[tokio::test]
async fn what_speaks_something_else_is_no_answer() {
    for bytes in [&b"SSH-2.0-OpenSSH_9.9\r\n\r\n"[..], &[0x15, 3, 3, 0, 2, 2, 40], b""] {
        let other = Answer { bytes: bytes.to_vec(), repeats: Vec::new(), lingers: false };
        assert_eq!(kind(other).await, FailureKind::Malformed);
    }
}

fn acceptor() -> TlsAcceptor {
    let certified = rcgen::generate_simple_self_signed(["somebody.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let certificate: CertificateDer<'static> = certified.cert.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn servers_in_tls_are_asked_whatever_they_show() {
    let (prober, _server) = serve(ok("203.0.113.9"), Some(acceptor())).await;
    assert_eq!(prober.probe().await.unwrap().ip(), seen());
    // One that speaks no TLS.
    let (plain, _server) = serve(ok("203.0.113.9"), None).await;
    let url = plain.name().replace("http:", "https:");
    let error = HttpProber::new(&url).unwrap().probe().await.unwrap_err();
    assert_ne!(error.kind, FailureKind::Local, "{error}");
}
