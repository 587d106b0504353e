//! Servers that are wrong or hostile, over sockets of the loopback interface: none of them makes the client
//! believe an address, hang, or work without bound.

use std::sync::atomic::Ordering;

use stun_codec::MessageClass;
use stun_codec::rfc5766::attributes::{Lifetime, XorRelayAddress};

use super::super::codec::{Challenge, Method};
use super::fake::{Fake, append, relayed};
use super::loopback::{Bench, Then};
use crate::error::FailureKind;

fn is_success(answer: &[u8]) -> bool {
    answer[0] == 1 && answer[1] & 0x10 == 0
}

#[tokio::test(start_paused = true)]
async fn wrong_transaction_id() {
    let mut bench = Bench::start(|_, _: &mut Fake, _, answer: &mut Vec<u8>| {
        answer[8] ^= 1;
        Then::Go
    })
    .await;
    assert_eq!(bench.fails().await.0, FailureKind::Timeout);
}

#[tokio::test]
async fn truncated() {
    let mut bench = Bench::start(|_, _: &mut Fake, _, answer: &mut Vec<u8>| {
        answer.truncate(answer.len() / 2);
        Then::Close
    })
    .await;
    assert_eq!(bench.fails().await.0, FailureKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn truncated_and_then_silent() {
    let mut bench = Bench::start(|_, _: &mut Fake, _, answer: &mut Vec<u8>| {
        answer.truncate(answer.len() / 2);
        Then::Hang
    })
    .await;
    assert_eq!(bench.fails().await.0, FailureKind::Timeout);
}

#[tokio::test]
async fn truncated_attributes() {
    let mut bench = Bench::start(|_, _: &mut Fake, _, answer: &mut Vec<u8>| {
        // The last attribute says that it is longer than the message.
        append(answer, 0x0014, b"realm");
        let at = answer.len() - 9;
        answer[at] = 200;
        Then::Go
    })
    .await;
    assert_eq!(bench.fails().await.0, FailureKind::Malformed);
}

#[tokio::test]
async fn oversize() {
    let mut bench = Bench::start(|_, _: &mut Fake, _, answer: &mut Vec<u8>| {
        answer[2] = 0xf0;
        answer.resize(0xf000 + 20, 0);
        Then::Go
    })
    .await;
    let (kind, why) = bench.fails().await;
    assert_eq!(kind, FailureKind::Malformed);
    assert!(why.contains("allowed are 4096"), "{why}");
}

#[tokio::test]
async fn no_turn_at_all() {
    let mut bench = Bench::start(|_, _: &mut Fake, _, answer: &mut Vec<u8>| {
        *answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec();
        Then::Close
    })
    .await;
    assert_eq!(bench.fails().await.0, FailureKind::Protocol);
}

#[tokio::test]
async fn chatty_attributes() {
    let mut bench = Bench::start(|_, _: &mut Fake, _, answer: &mut Vec<u8>| {
        append(answer, 0x8022, &[b'x'; 763]);
        for kind in 0x8100..0x8110 {
            append(answer, kind, &[0xff; 99]);
        }
        Then::Go
    })
    .await;
    assert_eq!(bench.allocated().await, relayed());
}

#[tokio::test]
async fn chatty_messages() {
    let mut bench = Bench::start(|_, fake: &mut Fake, method, answer: &mut Vec<u8>| {
        if method == Method::CreatePermission {
            let class = MessageClass::Indication;
            let noise = fake.encode(class, Method::Binding, [1; 12], Vec::new(), false);
            answer.extend(noise.repeat(5_000));
        }
        Then::Go
    })
    .await;
    assert_eq!(bench.breaks().await, FailureKind::Protocol);
}

#[tokio::test]
async fn errors() {
    for (code, kind, words) in [
        (300, FailureKind::Unsupported, "(300)"),
        (403, FailureKind::Refused, "403 Because"),
        (437, FailureKind::Refused, "(437)"),
        (442, FailureKind::Unsupported, "RFC 6062"),
        (486, FailureKind::Refused, "486 Because"),
        (508, FailureKind::Refused, "508 Because"),
    ] {
        let mut bench = Bench::start(move |_, fake: &mut Fake, _, _: &mut Vec<u8>| {
            fake.refused = Some((Method::Allocate, code));
            Then::Go
        })
        .await;
        let (found, why) = bench.fails().await;
        assert_eq!(found, kind, "{code}");
        assert!(why.contains(words) && why.starts_with("turn:127.0.0.1:"), "{why}");
        assert!(!why.contains("s3cret") && !why.contains("alice"), "{why}");
    }
}

#[tokio::test]
async fn a_wrong_password() {
    let mut bench = Bench::start(|_, fake: &mut Fake, _, _: &mut Vec<u8>| {
        fake.account = crate::config::RelayServer::new("turn:alice:other@h").unwrap();
        Then::Go
    })
    .await;
    let (kind, why) = bench.fails().await;
    assert_eq!(kind, FailureKind::Refused);
    assert!(why.contains("(401)"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn silence() {
    let mut bench = Bench::start(|_, _: &mut Fake, _, answer: &mut Vec<u8>| {
        answer.clear();
        Then::Hang
    })
    .await;
    assert_eq!(bench.fails().await.0, FailureKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn silence_after_a_while() {
    let mut bench = Bench::start(|_, _: &mut Fake, method, answer: &mut Vec<u8>| {
        if method != Method::Binding {
            return Then::Go;
        }
        answer.clear();
        Then::Hang
    })
    .await;
    assert_eq!(bench.breaks().await, FailureKind::Timeout);
}

#[tokio::test]
async fn bad_integrity() {
    let mut bench = Bench::start(|_, _: &mut Fake, _, answer: &mut Vec<u8>| {
        if is_success(answer)
            && let Some(last) = answer.last_mut()
        {
            *last ^= 1;
        }
        Then::Go
    })
    .await;
    assert_eq!(bench.fails().await.0, FailureKind::Identity);
}

#[tokio::test]
async fn no_integrity() {
    let mut bench = Bench::start(|_, fake: &mut Fake, method, answer: &mut Vec<u8>| {
        if is_success(answer) {
            let id = answer[8..20].try_into().unwrap();
            let address =
                vec![XorRelayAddress::new(relayed()).into(), Lifetime::from_u32(600).into()];
            *answer = fake.encode(MessageClass::SuccessResponse, method, id, address, false);
        }
        Then::Go
    })
    .await;
    assert_eq!(bench.fails().await.0, FailureKind::Identity);
}

#[tokio::test]
async fn no_question_for_the_account() {
    let mut bench = Bench::start(|_, fake: &mut Fake, method, answer: &mut Vec<u8>| {
        let id = answer[8..20].try_into().unwrap();
        let address = vec![XorRelayAddress::new(relayed()).into(), Lifetime::from_u32(600).into()];
        *answer = fake.encode(MessageClass::SuccessResponse, method, id, address, false);
        Then::Go
    })
    .await;
    assert_eq!(bench.fails().await.0, FailureKind::Identity);
}

#[tokio::test]
async fn addresses_that_are_none() {
    for address in ["0.0.0.0:5", "1.2.3.4:0", "[::]:5", "224.0.0.1:5"] {
        let address = address.parse().unwrap();
        let mut bench = Bench::start(move |_, fake: &mut Fake, _, _: &mut Vec<u8>| {
            fake.relayed = address;
            Then::Go
        })
        .await;
        assert_eq!(bench.fails().await.0, FailureKind::Malformed, "{address}");
    }
}

#[tokio::test]
async fn lifetimes_that_are_none() {
    let mut bench = Bench::start(|_, fake: &mut Fake, _, _: &mut Vec<u8>| {
        fake.lifetime = 1;
        Then::Go
    })
    .await;
    assert_eq!(bench.fails().await.0, FailureKind::Malformed);
}

#[tokio::test]
async fn ever_new_nonces() {
    let mut bench = Bench::start(|_, fake: &mut Fake, _, _: &mut Vec<u8>| {
        fake.challenge = Challenge::new("example.org", &format!("nonce {}", fake.asked.len()));
        fake.asked.push((Method::Binding, None));
        Then::Go
    })
    .await;
    let (kind, why) = bench.fails().await;
    assert_eq!(kind, FailureKind::Protocol);
    assert!(why.contains("nonces"), "{why}");
}

#[tokio::test]
async fn endless_connection_attempts() {
    let mut bench = Bench::start(|number, fake: &mut Fake, method, answer: &mut Vec<u8>| {
        if number == 0 && method == Method::CreatePermission {
            let peer = "203.0.113.5:9".parse().unwrap();
            answer.extend(fake.attempt(MessageClass::Indication, peer).repeat(2_000));
        }
        Then::Go
    })
    .await;
    assert_eq!(bench.breaks().await, FailureKind::Protocol);
    let made = bench.connections.load(Ordering::Relaxed);
    assert!(made <= 1 + 64, "{made} connections at the server's bidding");
    let refused = bench.drops.refused.load(Ordering::Relaxed);
    assert!(refused > 900, "{refused} counted");
}
