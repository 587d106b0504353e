//! STUN messages (RFC 8489) as far as a client needs them: a Binding request, and what answers it.
//!
//! Contract: what strangers send is read without panic, in time and memory that its own length bounds, and
//! at most [`MAX_MESSAGE_BYTES`] of it. Nothing counts but a message that carries the request's transaction
//! id. Of its attributes those that are used are decoded, each by itself: others may be over their limits or
//! broken, as a SOFTWARE of 128 characters is, and spoil nothing.

use std::io;
use std::net::SocketAddr;

use bytecodec::{DecodeExt, EncodeExt};
use stun_codec::net::{SocketAddrDecoder, socket_addr_xor};
use stun_codec::rfc5389::attributes::{
    ErrorCode, ErrorCodeDecoder, MappedAddress, XorMappedAddress, XorMappedAddress2,
};
use stun_codec::rfc5389::methods::BINDING;
use stun_codec::rfc5780;
use stun_codec::rfc5780::attributes::{ChangeRequest, OtherAddress};
use stun_codec::{
    Attribute as _, Message, MessageClass, MessageDecoder, MessageEncoder, RawAttribute,
    TransactionId,
};

use crate::types::{AddressScope, canonical};

/// Maximum number of bytes of a message that is read: no datagram of an ordinary network is longer.
pub(super) const MAX_MESSAGE_BYTES: usize = 1500;
/// Number of bytes in front of the attributes.
pub(super) const HEADER_BYTES: usize = 20;
/// Maximum number of characters of a reason that a server gives.
const MAX_REASON_CHARS: usize = 64;

/// Address from which a server is asked to answer (RFC 5780).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerFrom {
    /// The one that was asked.
    Asked,
    /// Its other port.
    OtherPort,
    /// Its other IP address, and other port.
    OtherAddress,
}

/// Binding request.
#[derive(Debug)]
pub(super) struct Request {
    id: TransactionId,
    bytes: Vec<u8>,
}

/// What an answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Address that the server sees.
    pub(super) mapped: SocketAddr,
    /// Other address and other port of the server, where it has them.
    pub(super) other: Option<SocketAddr>,
}

/// What a message means to who sent a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Nothing: it answers something else, or is no message at all.
    Foreign,
    /// It answers the request, and says nothing that can be used.
    Broken(&'static str),
    /// The server refuses.
    Refused(Refusal),
    /// The answer.
    Seen(Seen),
}

/// Error that a server answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: String,
}

impl Request {
    /// A request with a transaction id of its own, which nobody guesses.
    ///
    /// # Errors
    /// The operating system has no random bytes.
    pub(super) fn new(answer_from: AnswerFrom) -> io::Result<Self> {
        let mut id = [0; 12];
        getrandom::fill(&mut id).map_err(|_| io::Error::other("there are no random bytes"))?;
        let id = TransactionId::new(id);
        let mut message = Message::<rfc5780::Attribute>::new(MessageClass::Request, BINDING, id);
        match answer_from {
            AnswerFrom::Asked => {}
            AnswerFrom::OtherPort => message.add_attribute(ChangeRequest::new(false, true)),
            AnswerFrom::OtherAddress => message.add_attribute(ChangeRequest::new(true, true)),
        }
        let bytes = MessageEncoder::new().encode_into_bytes(message);
        let bytes = bytes.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { id, bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reports whether a datagram carries the transaction id.
    pub(super) fn is_named_by(&self, bytes: &[u8]) -> bool {
        bytes.get(8..HEADER_BYTES) == Some(&self.id.as_bytes()[..])
    }

    /// Reads what came back.
    pub(super) fn read(&self, bytes: &[u8]) -> Reading {
        if !self.is_named_by(bytes) {
            return Reading::Foreign;
        }
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Reading::Broken("the answer is too long");
        }
        // A decoder that failed has state left, so each message has one of its own.
        let message = match MessageDecoder::<RawAttribute>::new().decode_from_bytes(bytes) {
            Ok(Ok(message)) if message.method() == BINDING => message,
            _ => return Reading::Broken("the answer is no STUN message"),
        };
        match message.class() {
            MessageClass::SuccessResponse => self.read_success(&message),
            MessageClass::ErrorResponse => read_error(&message),
            MessageClass::Request | MessageClass::Indication => {
                Reading::Broken("the answer is the request")
            }
        }
    }

    fn read_success(&self, message: &Message<RawAttribute>) -> Reading {
        // The address is masked so that routers on the way, which rewrite addresses, do not know it.
        let masked = [XorMappedAddress::CODEPOINT, XorMappedAddress2::CODEPOINT]
            .into_iter()
            .find_map(|kind| address(message, kind))
            .map(|address| socket_addr_xor(address, self.id));
        let Some(mapped) = masked.or_else(|| address(message, MappedAddress::CODEPOINT)) else {
            return Reading::Broken("the answer has no address");
        };
        let mapped = canonical(mapped);
        if !is_usable(mapped) {
            return Reading::Broken("the answer's address is none");
        }
        let other = address(message, OtherAddress::CODEPOINT).map(canonical);
        Reading::Seen(Seen { mapped, other: other.filter(|other| is_usable(*other)) })
    }
}

fn is_usable(address: SocketAddr) -> bool {
    AddressScope::of(address.ip()) != AddressScope::Unusable && address.port() != 0
}

fn value(message: &Message<RawAttribute>, kind: u16) -> Option<&[u8]> {
    let mut found = message.attributes().filter(|found| found.get_type().as_u16() == kind);
    found.next().map(RawAttribute::value)
}

fn address(message: &Message<RawAttribute>, kind: u16) -> Option<SocketAddr> {
    SocketAddrDecoder::new().decode_from_bytes(value(message, kind)?).ok()
}

fn read_error(message: &Message<RawAttribute>) -> Reading {
    let error = value(message, ErrorCode::CODEPOINT)
        .and_then(|value| ErrorCodeDecoder::new().decode_from_bytes(value).ok());
    let Some(error) = error else {
        return Reading::Broken("the answer is an error without a code");
    };
    let printable = error.reason_phrase().chars().filter(|c| matches!(c, ' '..='~'));
    let reason = printable.take(MAX_REASON_CHARS).collect();
    Reading::Refused(Refusal { code: error.code(), reason })
}

#[cfg(test)]
mod tests {
    use super::super::tests::encoding::{self, attribute, error};
    use super::*;
    use crate::testing::cases::{Random, for_all};

    /// Number of mutated datagrams. Unoptimised, a million would take too long.
    const MUTATIONS: u64 = if cfg!(debug_assertions) { 40_000 } else { 1_000_000 };

    /// The sample responses of RFC 5769, with their transaction id.
    const ID: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn request() -> Request {
        Request { id: TransactionId::new(ID), bytes: Vec::new() }
    }

    /// Message of that type which answers the request.
    fn message(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &ID[..]].concat();
        encoding::message(kind, &header, attributes)
    }

    /// 192.0.2.1:32853 as RFC 5769 shows it.
    fn masked() -> Vec<u8> {
        attribute(0x0020, &[0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43])
    }

    fn other() -> Vec<u8> {
        encoding::other("192.0.2.9:3479".parse().unwrap())
    }

    fn mapped(reading: Reading) -> SocketAddr {
        match reading {
            Reading::Seen(seen) => seen.mapped,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_what_the_rfcs_say() {
        let plain = Request::new(AnswerFrom::Asked).unwrap();
        assert_eq!(plain.bytes()[..8], [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        assert_eq!(plain.bytes().len(), HEADER_BYTES);
        assert!(plain.is_named_by(plain.bytes()));
        for (from, flags) in [(AnswerFrom::OtherPort, 2), (AnswerFrom::OtherAddress, 6)] {
            let request = Request::new(from).unwrap();
            assert_eq!(request.bytes()[HEADER_BYTES..], [0, 3, 0, 4, 0, 0, 0, flags]);
            assert!(!request.is_named_by(plain.bytes()));
        }
    }

    #[test]
    fn answers_are_read() {
        let seen = request().read(&message(0x0101, &[masked(), other()]));
        let wanted = Seen {
            mapped: "192.0.2.1:32853".parse().unwrap(),
            other: Some("192.0.2.9:3479".parse().unwrap()),
        };
        assert_eq!(seen, Reading::Seen(wanted));
        let v6 = [
            0, 2, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4,
            0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
        ];
        let v6 = message(0x0101, &[attribute(0x0020, &v6)]);
        let wanted = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
        assert_eq!(mapped(request().read(&v6)), wanted);
        // Servers from before RFC 5389 do not mask it.
        let old = message(0x0101, &[attribute(0x0001, &[0, 1, 0, 7, 192, 0, 2, 3])]);
        assert_eq!(mapped(request().read(&old)), "192.0.2.3:7".parse().unwrap());
        let refused = request().read(&message(0x0111, &[error(420, "Unknown\r\n Attribute")]));
        let wanted = Refusal { code: 420, reason: "Unknown Attribute".into() };
        assert_eq!(refused, Reading::Refused(wanted));
    }

    /// Attributes over their limits, or broken, beside the one that counts.
    #[test]
    fn a_chatty_answer_is_an_answer() {
        let chatter = [
            attribute(0x8022, &[b'x'; 128]),
            attribute(0x8022, &[b'x'; 763]),
            attribute(0x8022, &[0xff; 9]),
            attribute(0x0014, &[b'r'; 300]),
            attribute(0x0006, &[b'u'; 513]),
            attribute(0x8028, &[0; 4]),
            attribute(0x0008, &[0; 20]),
            attribute(0x802c, &[0, 9, 0, 0]),
            attribute(0x8023, &[]),
            attribute(0x7fff, &[1]),
            attribute(0x0009, &[0, 0, 9, 200]),
        ];
        for chatter in chatter {
            for both in [[masked(), chatter.clone()], [chatter, masked()]] {
                let seen = request().read(&message(0x0101, &both));
                assert_eq!(mapped(seen), "192.0.2.1:32853".parse().unwrap());
            }
        }
    }

    #[test]
    fn what_is_no_answer_gives_no_address() {
        let good = message(0x0101, &[masked()]);
        let mut foreign = good.clone();
        foreign[19] ^= 1;
        assert_eq!(request().read(&foreign), Reading::Foreign);
        assert_eq!(request().read(&good[..19]), Reading::Foreign);
        assert_eq!(request().read(&[]), Reading::Foreign);
        let none = |octets: [u8; 8]| message(0x0101, &[attribute(0x0001, &octets)]);
        for broken in [
            good[..good.len() - 1].to_vec(),
            [&good[..], &[0]].concat(),
            message(0x0001, &[masked()]),
            message(0x0011, &[masked()]),
            message(0x0103, &[masked()]),
            message(0x4101, &[masked()]),
            message(0x0101, &[]),
            message(0x0111, &[masked()]),
            message(0x0101, &[attribute(0x0020, &[0, 1, 0, 7])]),
            message(0x0101, &[attribute(0x0020, &[0, 3, 0, 7, 1, 2, 3, 4])]),
            message(0x0101, &[masked(), attribute(0x8022, &[b'x'; 1500])]),
            none([0, 1, 0, 7, 0, 0, 0, 0]),
            none([0, 1, 0, 0, 192, 0, 2, 1]),
            none([0, 1, 0, 7, 224, 0, 0, 1]),
            none([0, 1, 0, 7, 255, 255, 255, 255]),
        ] {
            assert!(matches!(request().read(&broken), Reading::Broken(_)), "{broken:?}");
        }
    }

    fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
        match random.index(6) {
            0 if !bytes.is_empty() => {
                let at = random.index(bytes.len());
                bytes[at] = random.u8();
            }
            1 if !bytes.is_empty() => {
                let at = random.index(bytes.len());
                bytes[at] ^= 1 << random.index(8);
            }
            2 => bytes.truncate(random.index(bytes.len() + 1)),
            3 => bytes.extend(random.list(0..64, Random::u8)),
            4 if bytes.len() > HEADER_BYTES => {
                let at = HEADER_BYTES + random.index(bytes.len() - HEADER_BYTES);
                let copied = bytes[at..].to_vec();
                bytes.splice(at..at, copied);
            }
            // A length that lies.
            _ if bytes.len() > 24 => {
                let at = random.pick(&[2, 22, bytes.len() - 2]);
                bytes[at..at + 2].copy_from_slice(&random.u16().to_be_bytes());
            }
            _ => {}
        }
    }

    /// Whatever comes, the reader returns, and an address only of a message that has one.
    #[test]
    fn mutated_answers_are_read_without_a_panic() {
        let whole = message(
            0x0101,
            &[attribute(0x8022, b"test vector"), masked(), other(), error(420, "no")],
        );
        let refusal = message(0x0111, &[error(438, "Stale Nonce"), attribute(0x000a, &[0, 3])]);
        for_all(MUTATIONS, |random| {
            let mut bytes = if random.bool() { whole.clone() } else { refusal.clone() };
            for _ in 0..=random.index(4) {
                mutate(random, &mut bytes);
            }
            // Most mutations should get past the first check.
            if bytes.len() >= HEADER_BYTES && !random.one_in(8) {
                bytes[8..HEADER_BYTES].copy_from_slice(&ID);
            }
            if let Reading::Seen(seen) = request().read(&bytes) {
                assert!(is_usable(seen.mapped) && bytes.len() <= MAX_MESSAGE_BYTES);
            }
        });
    }
}
