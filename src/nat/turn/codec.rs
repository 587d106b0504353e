//! Messages of TURN (RFC 8656) and of its TCP allocations (RFC 6062), as far as a client needs them.
//!
//! Contract: a message has at most [`MAX_MESSAGE_BYTES`]. Attributes that a client does not need are not looked
//! into, whatever they hold; what stands behind the integrity of a message is not read, since nothing proves it.
//!
//! Tested by: `super::tests::codec`.

#![allow(unreachable_pub, reason = "the macro of stun_codec makes what it defines public")]

use std::net::SocketAddr;
use std::time::Duration;

use bytecodec::fixnum::{U32beDecoder, U32beEncoder};
use bytecodec::{
    ByteCount, Decode, DecodeExt, Encode, EncodeExt, Eos, SizedEncode, TryTaggedDecode,
};
use bytes::{Bytes, BytesMut};
use stun_codec::rfc5389::attributes::{ErrorCode, MessageIntegrity, Nonce, Realm, Username};
use stun_codec::rfc5766::attributes::{
    Lifetime, RequestedTransport, XorPeerAddress, XorRelayAddress,
};
use stun_codec::rfc8656::attributes::{AddressFamily, RequestedAddressFamily};
use stun_codec::{
    AttributeType, Message, MessageClass, MessageDecoder, MessageEncoder, TransactionId,
    define_attribute_enums,
};

use super::fault::Fault;
use crate::config::RelayServer;
use crate::error::FailureKind;
use crate::types::canonical;

/// Number of bytes of a message before its attributes.
pub(super) const HEADER_BYTES: usize = 20;
/// Maximum number of bytes of a message. The longest realm, nonce and reason that TURN allows fit.
pub(super) const MAX_MESSAGE_BYTES: usize = 4096;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Number of TCP among the protocols of IP.
const TCP: u8 = 6;
/// Maximum number of characters of a reason that the server gives.
const MAX_REASON_CHARS: usize = 64;

/// Name of a request, which its answer carries.
pub(super) type Id = [u8; 12];

define_attribute_enums!(
    Attribute,
    AttributeDecoder,
    AttributeEncoder,
    [
        ConnectionId,
        ErrorCode,
        Lifetime,
        MessageIntegrity,
        Nonce,
        Realm,
        RequestedAddressFamily,
        RequestedTransport,
        Username,
        XorPeerAddress,
        XorRelayAddress
    ]
);

/// `CONNECTION-ID` (RFC 6062, section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u32);

impl ConnectionId {
    /// Number of the attribute.
    pub const CODEPOINT: u16 = 0x002a;
}

impl stun_codec::Attribute for ConnectionId {
    type Decoder = ConnectionIdDecoder;
    type Encoder = ConnectionIdEncoder;

    fn get_type(&self) -> AttributeType {
        AttributeType::new(Self::CODEPOINT)
    }
}

/// Decoder of a [`ConnectionId`].
#[derive(Debug, Default)]
pub struct ConnectionIdDecoder(U32beDecoder);

impl Decode for ConnectionIdDecoder {
    type Item = ConnectionId;

    fn decode(&mut self, buf: &[u8], eos: Eos) -> bytecodec::Result<usize> {
        self.0.decode(buf, eos)
    }

    fn finish_decoding(&mut self) -> bytecodec::Result<ConnectionId> {
        self.0.finish_decoding().map(ConnectionId)
    }

    fn requiring_bytes(&self) -> ByteCount {
        self.0.requiring_bytes()
    }

    fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}

impl TryTaggedDecode for ConnectionIdDecoder {
    type Tag = AttributeType;

    fn try_start_decoding(&mut self, tag: AttributeType) -> bytecodec::Result<bool> {
        Ok(tag.as_u16() == ConnectionId::CODEPOINT)
    }
}

/// Encoder of a [`ConnectionId`].
#[derive(Debug, Default)]
pub struct ConnectionIdEncoder(U32beEncoder);

impl Encode for ConnectionIdEncoder {
    type Item = ConnectionId;

    fn encode(&mut self, buf: &mut [u8], eos: Eos) -> bytecodec::Result<usize> {
        self.0.encode(buf, eos)
    }

    fn start_encoding(&mut self, item: ConnectionId) -> bytecodec::Result<()> {
        self.0.start_encoding(item.0)
    }

    fn requiring_bytes(&self) -> ByteCount {
        self.0.requiring_bytes()
    }

    fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}

impl SizedEncode for ConnectionIdEncoder {
    fn exact_requiring_bytes(&self) -> u64 {
        self.0.exact_requiring_bytes()
    }
}

/// Methods that a client of TCP allocations speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Binding = 0x001,
    Allocate = 0x003,
    Refresh = 0x004,
    CreatePermission = 0x008,
    Connect = 0x00a,
    ConnectionBind = 0x00b,
    ConnectionAttempt = 0x00c,
}

impl Method {
    fn of(code: u16) -> Option<Self> {
        [
            Self::Binding,
            Self::Allocate,
            Self::Refresh,
            Self::CreatePermission,
            Self::Connect,
            Self::ConnectionBind,
            Self::ConnectionAttempt,
        ]
        .into_iter()
        .find(|method| *method as u16 == code)
    }
}

/// What a server wants to be answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: Realm,
    nonce: Nonce,
}

impl Challenge {
    #[cfg(test)]
    pub(super) fn new(realm: &str, nonce: &str) -> Self {
        let (realm, nonce) = (Realm::new(realm.to_owned()), Nonce::new(nonce.to_owned()));
        Self { realm: realm.unwrap(), nonce: nonce.unwrap() }
    }

    /// What a server refuses with, to be told who asks.
    #[cfg(test)]
    pub(super) fn attributes(&self) -> [Attribute; 2] {
        [self.realm.clone().into(), self.nonce.clone().into()]
    }

    /// Reports whether a message answers this one.
    #[cfg(test)]
    pub(super) fn is_answered(&self, received: &Received) -> bool {
        received.nonce.as_ref() == Some(&self.nonce)
    }

    /// Takes what a server says, realm or nonce or both. `false`: there is nothing to answer with.
    pub(super) fn learn(known: &mut Option<Self>, received: &Received) -> bool {
        let Some(nonce) = received.nonce.clone() else { return false };
        let before = known.take().map(|challenge| challenge.realm);
        *known = received.realm.clone().or(before).map(|realm| Self { realm, nonce });
        known.is_some()
    }

    /// Reports whether a message is for the same realm.
    pub(super) fn is_of(&self, received: &Received) -> bool {
        received.realm.as_ref().is_none_or(|realm| *realm == self.realm)
    }
}

pub(super) fn over_tcp() -> Attribute {
    RequestedTransport::new(TCP).into()
}

pub(super) fn of_ipv6() -> Attribute {
    RequestedAddressFamily::new(AddressFamily::V6).into()
}

pub(super) fn peer(address: SocketAddr) -> Attribute {
    XorPeerAddress::new(address).into()
}

pub(super) fn connection(id: u32) -> Attribute {
    ConnectionId(id).into()
}

/// A request, with the proof of who asks where the server has told how to make it.
///
/// # Errors
/// `Local`: it cannot be said.
pub(super) fn request(
    method: Method,
    id: Id,
    attributes: Vec<Attribute>,
    server: &RelayServer,
    challenge: Option<&Challenge>,
) -> Result<Vec<u8>, Fault> {
    encode(MessageClass::Request, method, id, attributes, server, challenge).map_err(|error| {
        let why = format!("cannot write a request: {:?}", error.kind());
        Fault::new(FailureKind::Local, why)
    })
}

/// A message, proven where there is a challenge.
pub(super) fn encode(
    class: MessageClass,
    method: Method,
    id: Id,
    attributes: Vec<Attribute>,
    server: &RelayServer,
    challenge: Option<&Challenge>,
) -> bytecodec::Result<Vec<u8>> {
    let method = stun_codec::Method::new(method as u16)?;
    let mut message = Message::<Attribute>::new(class, method, TransactionId::new(id));
    for attribute in attributes {
        message.add_attribute(attribute);
    }
    if let Some(Challenge { realm, nonce }) = challenge {
        let user = Username::new(server.user().to_owned())?;
        message.add_attribute(user.clone());
        message.add_attribute(realm.clone());
        message.add_attribute(nonce.clone());
        let password = server.password();
        let integrity =
            MessageIntegrity::new_long_term_credential(&message, &user, realm, password)?;
        message.add_attribute(integrity);
    }
    MessageEncoder::new().encode_into_bytes(message)
}

/// Message of a server.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) class: MessageClass,
    /// `None`: one that means nothing here.
    pub(super) method: Option<Method>,
    pub(super) id: Id,
    /// Code and reason, the latter fit to be shown.
    pub(super) error: Option<(u16, String)>,
    pub(super) lifetime: Option<Duration>,
    pub(super) relayed: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) connection: Option<u32>,
    realm: Option<Realm>,
    nonce: Option<Nonce>,
    integrity: Option<MessageIntegrity>,
}

impl Received {
    /// Reports whether whoever sent it knows the password of the account.
    pub(super) fn is_proven(&self, server: &RelayServer, challenge: &Challenge) -> bool {
        let (Some(integrity), Ok(user)) =
            (&self.integrity, Username::new(server.user().to_owned()))
        else {
            return false;
        };
        let realm = &challenge.realm;
        integrity.check_long_term_credential(&user, realm, server.password()).is_ok()
    }
}

/// Reads a whole message.
///
/// # Errors
/// `Malformed`.
pub(super) fn decode(bytes: &[u8]) -> Result<Received, Fault> {
    let malformed =
        |_| Fault::new(FailureKind::Malformed, "a message of the server does not parse");
    // A new one for each message: it keeps its state after an error.
    let message = MessageDecoder::<Attribute>::new()
        .decode_from_bytes(bytes)
        .map_err(malformed)?
        .map_err(|broken| malformed(broken.into()))?;
    let mut received = Received {
        class: message.class(),
        method: Method::of(message.method().as_u16()),
        id: *message.transaction_id().as_bytes(),
        error: None,
        lifetime: None,
        relayed: None,
        peer: None,
        connection: None,
        realm: None,
        nonce: None,
        integrity: None,
    };
    for attribute in message.attributes() {
        match attribute {
            Attribute::ErrorCode(error) => {
                received.error.get_or_insert_with(|| (error.code(), shown(error.reason_phrase())));
            }
            Attribute::Lifetime(lifetime) => {
                received.lifetime.get_or_insert(lifetime.lifetime());
            }
            Attribute::XorRelayAddress(relayed) => {
                received.relayed.get_or_insert(canonical(relayed.address()));
            }
            Attribute::XorPeerAddress(peer) => {
                received.peer.get_or_insert(canonical(peer.address()));
            }
            Attribute::ConnectionId(ConnectionId(id)) => {
                received.connection.get_or_insert(*id);
            }
            Attribute::Realm(realm) => {
                received.realm.get_or_insert_with(|| realm.clone());
            }
            Attribute::Nonce(nonce) => {
                received.nonce.get_or_insert_with(|| nonce.clone());
            }
            Attribute::MessageIntegrity(integrity) => {
                received.integrity = Some(integrity.clone());
                break;
            }
            Attribute::Username(_)
            | Attribute::RequestedTransport(_)
            | Attribute::RequestedAddressFamily(_) => {}
        }
    }
    Ok(received)
}

fn shown(reason: &str) -> String {
    let printable = reason.chars().filter(|c| matches!(c, ' '..='~'));
    printable.take(MAX_REASON_CHARS).collect::<String>().trim().to_owned()
}

/// Number of bytes of the message that begins so.
///
/// # Errors
/// `Protocol` where it is no message; `Malformed` where it is too long.
pub(super) fn message_bytes(header: &[u8; HEADER_BYTES]) -> Result<usize, Fault> {
    let [kind, _, high, low, c0, c1, c2, c3, ..] = *header;
    if kind & 0xc0 != 0 || low & 3 != 0 || [c0, c1, c2, c3] != MAGIC_COOKIE {
        return Err(Fault::new(FailureKind::Protocol, "what answers speaks no TURN"));
    }
    let bytes = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if bytes > MAX_MESSAGE_BYTES {
        let why = format!("a message of {bytes} bytes, allowed are {MAX_MESSAGE_BYTES}");
        return Err(Fault::new(FailureKind::Malformed, why));
    }
    Ok(bytes)
}

/// Takes the first message of what was read, once it is complete.
///
/// # Errors
/// Those of [`message_bytes`].
pub(super) fn take_message(read: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
    let Some(header) = read.first_chunk() else { return Ok(None) };
    let bytes = message_bytes(header)?;
    Ok((read.len() >= bytes).then(|| read.split_to(bytes).freeze()))
}
