//! Protobuf to messages of dial-backs, by hand, as in `decode`.

use std::net::SocketAddr;

use super::WireError;
use super::convert::{exactly, ip_of, outcome_of};
use super::fields::{Fields, Value};
use crate::types::{Message, PeerId};

pub(super) fn request(body: &[u8]) -> Result<Message, WireError> {
    let (mut nonce, mut port) = (0, 0);
    for field in Fields(body) {
        match field? {
            (1, value) => nonce = value.fixed64("nonce")?,
            (2, value) => port = port_of(value)?,
            _ => {}
        }
    }
    Ok(Message::DialBack { nonce, port })
}

pub(super) fn task(body: &[u8]) -> Result<Message, WireError> {
    let (mut nonce, mut ip, mut port, mut peer) = (0, &[][..], 0, &[][..]);
    for field in Fields(body) {
        match field? {
            (1, value) => nonce = value.fixed64("nonce")?,
            (2, value) => ip = value.bytes("address")?,
            (3, value) => port = port_of(value)?,
            (4, value) => peer = value.bytes("peer")?,
            _ => {}
        }
    }
    let ip = ip_of(ip)?.ok_or(WireError::Missing { what: "address" })?;
    let peer = PeerId::from_bytes(exactly("peer", peer, "32")?);
    Ok(Message::DialBackTask { nonce, address: SocketAddr::new(ip, port), peer })
}

pub(super) fn result(body: &[u8]) -> Result<Message, WireError> {
    let (mut nonce, mut code, mut dialler) = (0, 0, &[][..]);
    for field in Fields(body) {
        match field? {
            (1, value) => nonce = value.fixed64("nonce")?,
            (2, value) => code = value.uint("outcome")?,
            (3, value) => dialler = value.bytes("dialler")?,
            _ => {}
        }
    }
    let dialler = if dialler.is_empty() {
        None
    } else {
        Some(PeerId::from_bytes(exactly("dialler", dialler, "none or 32")?))
    };
    Ok(Message::DialBackResult { nonce, outcome: outcome_of(code), dialler })
}

fn port_of(value: Value<'_>) -> Result<u16, WireError> {
    let port = value.at_most("port", u64::from(u16::MAX))?;
    Ok(u16::try_from(port).unwrap_or(u16::MAX))
}
