//! Messages as bytes: known ones, and ones that somebody mutated.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use stun_codec::MessageClass;

use super::super::codec::{
    self, Challenge, HEADER_BYTES, MAX_MESSAGE_BYTES, Method, decode, message_bytes, take_message,
};
use super::fake::{Fake, append, error, relayed, server};
use crate::error::FailureKind;

/// Number of mutated messages.
const MUTATIONS: u32 = 100_000;

fn at() -> std::net::SocketAddr {
    "192.0.2.1:3478".parse().unwrap()
}

/// The bytes that coturn 4.6.1 was seen to send.
#[test]
fn a_connection_attempt_is_read_as_coturn_writes_it() {
    let mut message = vec![0, 0x1c, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    message.extend([5; 12]);
    append(&mut message, 0x002a, &[0x12, 0x34, 0x56, 0x78]);
    let address = [0, 1, 0x12 ^ 0x21, 0x34 ^ 0x12, 127 ^ 0x21, 0x12, 0xa4, 1 ^ 0x42];
    append(&mut message, 0x0012, &address);
    append(&mut message, 0x8022, b"Coturn-4.6.1 'Gorst'");
    let received = decode(&message).unwrap();
    assert_eq!(received.class, MessageClass::Indication);
    assert_eq!(received.method, Some(Method::ConnectionAttempt));
    assert_eq!(received.connection, Some(0x1234_5678));
    assert_eq!(received.peer, Some("127.0.0.1:4660".parse().unwrap()));
}

#[test]
fn a_request_carries_what_rfc_6062_says() {
    let account = server(at());
    let attributes = vec![codec::over_tcp()];
    let allocate = codec::request(Method::Allocate, [1; 12], attributes, &account, None).unwrap();
    let mut wanted = vec![0, 3, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    wanted.extend([1; 12]);
    append(&mut wanted, 0x0019, &[6, 0, 0, 0]);
    assert_eq!(allocate, wanted);
    let attributes = vec![codec::connection(7)];
    let bind = codec::request(Method::ConnectionBind, [1; 12], attributes, &account, None).unwrap();
    let mut wanted = vec![0, 0x0b, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    wanted.extend([1; 12]);
    append(&mut wanted, 0x002a, &[0, 0, 0, 7]);
    assert_eq!(bind, wanted);
}

#[test]
fn what_is_behind_the_proof_is_not_read() {
    let fake = Fake::new(at());
    let challenge = fake.challenge.clone();
    let class = MessageClass::SuccessResponse;
    let mut message = fake.encode(class, Method::Connect, [1; 12], Vec::new(), true);
    append(&mut message, 0x002a, &[0, 0, 0, 7]);
    let received = decode(&message).unwrap();
    assert!(received.is_proven(&fake.account, &challenge));
    assert_eq!(received.connection, None);
    assert!(!received.is_proven(&fake.account, &Challenge::new("elsewhere", "nonce")));
}

#[test]
fn messages_are_cut_out_of_what_was_read_and_have_a_limit() {
    let fake = Fake::new(at());
    let one = fake.attempt(MessageClass::Indication, relayed());
    let mut read = bytes::BytesMut::new();
    let mut taken = 0;
    for byte in one.repeat(3) {
        read.extend_from_slice(&[byte]);
        if let Some(message) = take_message(&mut read).unwrap() {
            assert_eq!(message, one);
            taken += 1;
        }
    }
    assert_eq!((taken, read.len()), (3, 0));

    let mut header: [u8; HEADER_BYTES] = one[..HEADER_BYTES].try_into().unwrap();
    let most = u16::try_from(MAX_MESSAGE_BYTES - HEADER_BYTES).unwrap();
    header[2..4].copy_from_slice(&most.to_be_bytes());
    assert_eq!(message_bytes(&header).unwrap(), MAX_MESSAGE_BYTES);
    header[2..4].copy_from_slice(&(most + 4).to_be_bytes());
    assert_eq!(message_bytes(&header).unwrap_err().kind, FailureKind::Malformed);
    header[2..4].copy_from_slice(&[0, 3]);
    assert_eq!(message_bytes(&header).unwrap_err().kind, FailureKind::Protocol);
    let page: &[u8; HEADER_BYTES] = b"HTTP/1.1 400 Bad Req";
    assert_eq!(message_bytes(page).unwrap_err().kind, FailureKind::Protocol);
}

#[test]
fn attributes_that_nobody_needs_may_be_as_long_as_they_like() {
    let fake = Fake::new(at());
    let class = MessageClass::ErrorResponse;
    let mut message = fake.encode(class, Method::Allocate, [1; 12], vec![error(442)], false);
    append(&mut message, 0x8022, &[b'x'; 763]);
    for kind in 0x8100..0x8120 {
        append(&mut message, kind, &[0xff; 61]);
    }
    assert_eq!(decode(&message).unwrap().error, Some((442, "Because".to_owned())));
}

#[test]
fn mutated_messages_harm_nobody_and_prove_nothing_else() {
    let fake = &mut Fake::new(at());
    let challenge = fake.challenge.clone();
    let ask = codec::request(
        Method::Allocate,
        [1; 12],
        vec![codec::over_tcp()],
        &fake.account,
        Some(&challenge),
    );
    let originals = [
        fake.answer(&ask.unwrap()),
        fake.attempt(MessageClass::Indication, relayed()),
        fake.encode(MessageClass::ErrorResponse, Method::Refresh, [1; 12], vec![error(438)], true),
    ];
    let mut rng = ChaCha8Rng::from_seed([19; 32]);
    let (mut read, mut proven) = (0, 0);
    for round in 0..MUTATIONS {
        let mut bytes = originals[round as usize % originals.len()].clone();
        for _ in 0..=rng.next_u32() % 3 {
            let at = rng.next_u32() as usize % bytes.len();
            match rng.next_u32() % 4 {
                0 => bytes[at] ^= 1 << (rng.next_u32() % 8),
                1 => bytes[at] = rng.next_u32().to_le_bytes()[0],
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, 0),
            }
        }
        let Ok(received) = decode(&bytes) else { continue };
        read += 1;
        if received.is_proven(&fake.account, &challenge) {
            proven += 1;
            assert!(received.relayed.is_none_or(|address| address == relayed()), "{bytes:?}");
        }
    }
    assert!(read > MUTATIONS / 20 && proven > 0, "{read} read, {proven} proven");
}
