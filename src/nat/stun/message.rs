//! The one STUN question that is asked, and its answer (RFC 8489, sections 5, 14.1 and 14.2).
//!
//! A message is a header of 20 bytes (kind, length of the rest, magic cookie, transaction id) and
//! attributes: kind, length, value, padding to a multiple of 4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

const HEADER: usize = 20;
const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;
const FAILURE: u16 = 0x0111;
const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const MAPPED_ADDRESS: u16 = 0x0001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// Why an answer says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum BadAnswer {
    #[error("not a STUN message")]
    Malformed,
    #[error("not an answer to a binding request, but of kind {0:#06x}")]
    Kind(u16),
    #[error("the server refuses to answer")]
    Refused,
    #[error("no address in it")]
    NoAddress,
}

/// A binding request: "which address do you see?".
#[derive(Debug, Clone, Copy)]
pub(super) struct Request([u8; HEADER]);

impl Request {
    /// A request whose answers are told from others by `transaction`, which must be random.
    pub(super) fn new(transaction: [u8; 12]) -> Self {
        let mut bytes = [0; HEADER];
        bytes[..2].copy_from_slice(&REQUEST.to_be_bytes());
        bytes[4..8].copy_from_slice(&MAGIC);
        bytes[8..].copy_from_slice(&transaction);
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The address that a datagram names; `None` when it answers another request.
    pub(super) fn read(&self, datagram: &[u8]) -> Result<Option<SocketAddr>, BadAnswer> {
        let (header, rest) = datagram.split_first_chunk::<HEADER>().ok_or(BadAnswer::Malformed)?;
        let body = rest.get(..usize::from(u16_at(header, 2))).ok_or(BadAnswer::Malformed)?;
        if header[4..8] != MAGIC || header[0] & 0xc0 != 0 || body.len() % 4 != 0 {
            return Err(BadAnswer::Malformed);
        }
        if header[8..] != self.0[8..] {
            return Ok(None);
        }
        match u16_at(header, 0) {
            SUCCESS => self.address(body).map(Some),
            FAILURE => Err(BadAnswer::Refused),
            other => Err(BadAnswer::Kind(other)),
        }
    }

    /// The address in the attributes; that which no router on the way rewrote goes first.
    fn address(&self, mut body: &[u8]) -> Result<SocketAddr, BadAnswer> {
        let mut plain = None;
        while let Some((header, rest)) = body.split_first_chunk::<4>() {
            let length = usize::from(u16_at(header, 2));
            let value = rest.get(..length).ok_or(BadAnswer::Malformed)?;
            match u16_at(header, 0) {
                XOR_MAPPED_ADDRESS => return address(value, &self.0[4..]),
                MAPPED_ADDRESS if plain.is_none() => plain = Some(address(value, &[0; 16])?),
                _ => {}
            }
            body = rest.get(length.next_multiple_of(4)..).ok_or(BadAnswer::Malformed)?;
        }
        plain.ok_or(BadAnswer::NoAddress)
    }
}

/// The value of an attribute: zero, family, port, address; the latter two combined with `mask`.
fn address(value: &[u8], mask: &[u8]) -> Result<SocketAddr, BadAnswer> {
    let (header, octets) = value.split_first_chunk::<4>().ok_or(BadAnswer::Malformed)?;
    let port = u16_at(header, 2) ^ u16_at(mask, 0);
    let mut clear = [0; 16];
    for (at, (octet, mask)) in octets.iter().zip(mask).enumerate() {
        clear[at] = octet ^ mask;
    }
    let ip: IpAddr = match (header[1], octets.len()) {
        (1, 4) => Ipv4Addr::new(clear[0], clear[1], clear[2], clear[3]).into(),
        (2, 16) => Ipv6Addr::from(clear).into(),
        _ => return Err(BadAnswer::Malformed),
    };
    Ok(SocketAddr::new(ip, port))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cases::{Random, for_all};

    /// The transaction id of the test vectors of RFC 5769.
    const ID: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn answer(kind: u16, attributes: &[&[u8]]) -> Vec<u8> {
        let body = attributes.concat();
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(MAGIC);
        bytes.extend(ID);
        bytes.extend(body);
        bytes
    }

    /// "test vector", with one space of padding (RFC 5769, section 2.2).
    const SOFTWARE: &[u8] = b"\x80\x22\x00\x0btest vector ";
    const V4: &[u8] = b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43";
    const V6: &[u8] = b"\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9";
    const PLAIN: &[u8] = b"\x00\x01\x00\x08\x00\x01\x00\x09\x01\x02\x03\x04";

    #[test]
    fn the_answers_of_the_rfc_are_read() {
        let request = Request::new(ID);
        let read = |attributes: &[&[u8]]| request.read(&answer(SUCCESS, attributes));
        let address = |text: &str| Ok(Some(text.parse().unwrap()));
        assert_eq!(read(&[SOFTWARE, V4]), address("192.0.2.1:32853"));
        let v6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";
        assert_eq!(read(&[SOFTWARE, V6]), address(v6));
        assert_eq!(read(&[PLAIN, SOFTWARE]), address("1.2.3.4:9"));
        assert_eq!(read(&[PLAIN, SOFTWARE, V4]), address("192.0.2.1:32853"), "the masked one");
    }

    #[test]
    fn other_answers_are_told_apart() {
        let request = Request::new(ID);
        assert_eq!(Request::new([7; 12]).read(&answer(SUCCESS, &[V4])), Ok(None), "another's");
        assert_eq!(request.read(&answer(FAILURE, &[])), Err(BadAnswer::Refused));
        assert_eq!(request.read(&answer(SUCCESS, &[SOFTWARE])), Err(BadAnswer::NoAddress));
        assert_eq!(request.read(request.as_bytes()), Err(BadAnswer::Kind(REQUEST)));
        let whole = answer(SUCCESS, &[SOFTWARE, V4]);
        for end in 0..whole.len() {
            assert_eq!(request.read(&whole[..end]), Err(BadAnswer::Malformed), "{end} bytes");
        }
    }

    #[test]
    fn damaged_answers_never_panic() {
        for_all(2000, |random| {
            let mut bytes = answer(SUCCESS, &[PLAIN, SOFTWARE, V6]);
            for _ in 0..random.within(1..6) {
                let at = random.index(bytes.len());
                bytes[at] = random.u8();
            }
            let _ = Request::new(ID).read(&bytes);
            let mut bytes = answer(SUCCESS, &[&random.list(0..80, Random::u8)]);
            bytes.truncate(random.index(bytes.len() + 1));
            let _ = Request::new(ID).read(&bytes);
        });
    }
}
