//! STUN messages as servers write them, by hand: an encoder that shared a fault with the decoder would hide it.

use std::net::{IpAddr, SocketAddr};

pub(in crate::nat) const SUCCESS: u16 = 0x0101;
pub(in crate::nat) const ERROR: u16 = 0x0111;

/// Message of that type, with what `request` carries as cookie and transaction id.
pub(in crate::nat) fn message(kind: u16, request: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = attributes.concat();
    let mut out = kind.to_be_bytes().to_vec();
    out.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    out.extend_from_slice(&request[4..20]);
    out.extend_from_slice(&body);
    out
}

/// Answer that a server gives to a client that it sees there.
pub(in crate::nat) fn success(request: &[u8], seen: SocketAddr) -> Vec<u8> {
    message(SUCCESS, request, &[masked(request, seen)])
}

pub(in crate::nat) fn refusal(request: &[u8], code: u16, reason: &str) -> Vec<u8> {
    message(ERROR, request, &[error(code, reason)])
}

pub(in crate::nat) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// XOR-MAPPED-ADDRESS.
pub(in crate::nat) fn masked(request: &[u8], seen: SocketAddr) -> Vec<u8> {
    let mut value = address(seen);
    let mask = &request[4..20];
    value[2] ^= mask[0];
    value[3] ^= mask[1];
    value[4..].iter_mut().zip(mask).for_each(|(octet, mask)| *octet ^= mask);
    attribute(0x0020, &value)
}

/// OTHER-ADDRESS.
pub(in crate::nat) fn other(at: SocketAddr) -> Vec<u8> {
    attribute(0x802c, &address(at))
}

/// ERROR-CODE.
pub(in crate::nat) fn error(code: u16, reason: &str) -> Vec<u8> {
    let [class, number] = [code / 100, code % 100].map(|part| u8::try_from(part).unwrap());
    attribute(0x0009, &[&[0, 0, class, number][..], reason.as_bytes()].concat())
}

fn address(at: SocketAddr) -> Vec<u8> {
    let (family, octets) = match at.ip() {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    [&[0, family][..], &at.port().to_be_bytes(), &octets].concat()
}
