//! Servers that lie, break the protocol or say nothing: never a wrong address, never a hang.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::encoding::{attribute, masked, message, other, refusal, success};
use super::{Server, configured};
use crate::error::{FailureKind, ProbeError};
use crate::nat::outside::Family;
use crate::nat::query::{Failure, Line, Mapped, Question};
use crate::nat::{classify, mapped};
use crate::types::NatDependence;

/// Address that none of the tests' clients has.
const LIE: &str = "198.51.100.66:6666";
/// Address that they have.
const OWN: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));

async fn ask(servers: &[&Server]) -> Mapped {
    let servers = configured(servers.iter().copied());
    let asking = mapped(&servers, Family::V4);
    timeout(Duration::from_mins(1), asking).await.expect("an end")
}

/// What one server's answer comes to. It never becomes the address of this host.
async fn failure(
    answer: impl Fn(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
) -> ProbeError {
    let server = Server::start("127.0.0.1", answer).await;
    let Mapped { agreed, mut answers } = ask(&[&server]).await;
    assert_eq!(agreed, None);
    let (name, answer) = answers.pop().unwrap();
    assert_eq!(name, format!("stun:{}", server.address));
    answer.unwrap_err()
}

async fn seen(
    answer: impl Fn(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
) -> Option<IpAddr> {
    let server = Server::start("127.0.0.1", answer).await;
    ask(&[&server]).await.agreed.map(|seen| seen.ip())
}

fn lie() -> SocketAddr {
    LIE.parse().unwrap()
}

/// The request with another transaction id.
fn misnamed(request: &[u8]) -> Vec<u8> {
    let mut other = request.to_vec();
    other[19] ^= 0xff;
    other
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_a_wrong_transaction_id_is_none() {
    let error = failure(|request, _| vec![success(&misnamed(request), lie())]).await;
    assert_eq!(error.kind, FailureKind::Timeout, "{error}");
}

#[tokio::test]
async fn the_right_answer_counts_after_wrong_ones() {
    let answers = |request: &[u8], from| {
        vec![
            success(&misnamed(request), lie()),
            b"no".to_vec(),
            message(0x0101, request, &[]),
            success(request, from),
            success(request, lie()),
        ]
    };
    assert_eq!(seen(answers).await, OWN);
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_a_wrong_source_is_none() {
    let (told, mut tell) = tokio::sync::mpsc::channel(16);
    let _elsewhere = tokio::spawn(async move {
        let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        while let Some((request, from)) = tell.recv().await {
            let request: Vec<u8> = request;
            let from: SocketAddr = from;
            elsewhere.send_to(&success(&request, lie()), from).await.unwrap();
        }
    });
    let error = failure({
        let told = told.clone();
        move |request, from| {
            told.try_send((request.to_vec(), from)).unwrap();
            Vec::new()
        }
    });
    assert_eq!(error.await.kind, FailureKind::Timeout);
    // The same over a socket that hears everybody.
    let server = Server::start("127.0.0.1", move |request, from| {
        told.try_send((request.to_vec(), from)).unwrap();
        Vec::new()
    });
    let server = server.await;
    let line = Line::open(Family::V4).await.unwrap();
    let outcome = line.ask(&[Question::plain(server.address).unwrap()]).await.pop().unwrap();
    assert!(matches!(outcome, Err(Failure::Silent)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_truncated_answer_is_none() {
    for length in [20, 23, 24, 31] {
        let error = failure(move |request, _| vec![success(request, lie())[..length].to_vec()]);
        assert_eq!(error.await.kind, FailureKind::Malformed, "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_oversize_answer_is_none() {
    for length in [1501, 9000, 60_000] {
        let error = failure(move |request, _| {
            let mut long = success(request, lie());
            long.resize(length, 0);
            vec![long]
        });
        assert_eq!(error.await.kind, FailureKind::Malformed, "{length}");
    }
}

#[tokio::test]
async fn a_chatty_answer_counts() {
    let chatty = |request: &[u8], from| {
        let software = attribute(0x8022, &[b'x'; 700]);
        let realm = attribute(0x0014, &[b'r'; 500]);
        vec![message(0x0101, request, &[software, realm, masked(request, from)])]
    };
    assert_eq!(seen(chatty).await, OWN);
}

#[tokio::test]
async fn an_error_is_told_as_what_it_is() {
    for code in [300, 400, 401, 420, 500] {
        let error = failure(move |request, _| vec![refusal(request, code, "no\u{7}\n")]).await;
        assert_eq!(error.kind, FailureKind::Refused, "{error}");
        assert!(error.message.ends_with(&format!("with error {code} (no)")), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_after_three_tries() {
    let start = Instant::now();
    let error = failure(|_, _| Vec::new()).await;
    assert_eq!(error.kind, FailureKind::Timeout, "{error}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_echo_is_no_answer() {
    let error = failure(|request, _| vec![request.to_vec()]).await;
    assert_eq!(error.kind, FailureKind::Malformed, "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_address_of_the_other_family_is_none() {
    let v6: SocketAddr = "[2001:db8::6]:6".parse().unwrap();
    let error = failure(move |request, _| vec![success(request, v6)]).await;
    assert_eq!(error.kind, FailureKind::Malformed, "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_address_of_nobody_is_none() {
    for nobody in ["0.0.0.0:1", "198.51.100.66:0", "224.0.0.1:1", "255.255.255.255:1"] {
        let nobody: SocketAddr = nobody.parse().unwrap();
        let error = failure(move |request, _| vec![success(request, nobody)]).await;
        assert_eq!(error.kind, FailureKind::Malformed, "{error}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_closed_port_is_unreachable_at_once() {
    let server = Server::honest("127.0.0.1").await;
    let closed = configured([&server]);
    drop(server);
    tokio::task::yield_now().await;
    let start = Instant::now();
    let answer = mapped(&closed, Family::V4).await.answers.pop().unwrap().1;
    assert_eq!(answer.unwrap_err().kind, FailureKind::Unreachable);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn one_liar_among_honest_servers_is_outvoted() {
    let (a, b) = (Server::honest("127.0.0.1").await, Server::honest("127.0.0.2").await);
    let (liar, other) = (Server::liar(LIE).await, Server::liar("198.51.100.67:6667").await);
    for servers in [&[&liar, &a, &b][..], &[&a, &liar, &b], &[&a, &liar, &other, &b]] {
        let Mapped { agreed, answers } = ask(servers).await;
        assert_eq!(agreed.map(|seen| seen.ip()), OWN);
        assert!(answers.iter().all(|(_, answer)| answer.is_ok()), "all are told: {answers:?}");
    }
}

#[tokio::test]
async fn without_two_that_agree_there_is_no_address() {
    let (honest, silent) = (Server::honest("127.0.0.1").await, Server::liar("0.0.0.0:0").await);
    let (liar, second) = (Server::liar(LIE).await, Server::liar(LIE).await);
    let also_honest = Server::honest("127.0.0.1").await;
    for servers in
        [&[&honest, &liar][..], &[&honest, &silent], &[&honest, &liar, &second, &also_honest]]
    {
        assert_eq!(ask(servers).await.agreed, None);
    }
    assert_eq!(ask(&[&honest, &honest]).await.agreed.map(|seen| seen.ip()), OWN, "it is one");
    assert_eq!(ask(&[]).await.agreed, None);
}

/// The behaviour is concluded from those who agree about the address.
#[tokio::test]
async fn a_liar_does_not_make_a_nat() {
    let (a, b) = (Server::honest("127.0.0.1").await, Server::honest("127.0.0.2").await);
    let liar = Server::liar(LIE).await;
    let report = classify(&configured([&liar, &a, &b]), Family::V4).await;
    assert_eq!(report.mapping, NatDependence::NoNat, "{report:?}");
    assert!(report.mapped.iter().all(|seen| seen.starts_with("127.0.0.1:")), "{report:?}");
    assert!(report.confidence < 50, "{report:?}");
    let report = classify(&configured([&liar, &a]), Family::V4).await;
    assert_eq!((report.mapping, report.name()), (NatDependence::NotTested, "unknown"));
    assert_eq!(report.mapped, [""; 0]);
}

/// A server may not choose whom this host asks near by.
#[tokio::test]
async fn another_address_of_another_scope_is_not_asked() {
    for elsewhere in ["10.1.2.3:3479", "198.51.100.1:3479", "[::1]:3479", "0.0.0.0:1"] {
        let elsewhere: SocketAddr = elsewhere.parse().unwrap();
        let server = Server::start("127.0.0.1", move |request, from| {
            let attributes = [masked(request, from), other(elsewhere)];
            vec![message(0x0101, request, &attributes)]
        });
        let server = server.await;
        let start = Instant::now();
        let report = classify(&configured([&server]), Family::V4).await;
        assert_eq!(report.filtering, NatDependence::NotTested, "{report:?}");
        assert!(start.elapsed() < Duration::from_secs(3), "nothing was waited for");
    }
}
