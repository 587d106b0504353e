//! The transaction: an opaque payload under a header that its id commits to.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ed25519_dalek::{Verifier, VerifyingKey};

use super::{
    MAX_TOPIC_BYTES, PeerId, Signature, Signed, Topic, TraceContext, TransactionId, WallTime,
};

/// Separates header bytes from everything else that is ever hashed or signed; the last byte is
/// the layout's version.
const TAG: &[u8; 16] = b"sorcha-peer/tx\x00\x01";
const FIXED: usize = 16 + 32 + 8 + 8 + 8 + 32 + 1;

/// Maximum length of a header in bytes.
pub const MAX_HEADER_BYTES: usize = FIXED + MAX_TOPIC_BYTES;

/// Header of a transaction: what its id and its signature commit to.
///
/// Its byte layout is fixed (integers little-endian): 16-byte domain tag, origin (32), created
/// (8), expires (8), payload length (8), BLAKE3 of the payload (32), topic length (1), topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// The topic that it belongs to.
    pub topic: Topic,
    /// The node that published it.
    pub origin: PeerId,
    /// The time of publishing, by the origin's clock.
    pub created: WallTime,
    /// The time from which every node may forget it.
    pub expires: WallTime,
    /// Length of the payload in bytes.
    pub payload_len: u64,
    /// BLAKE3 of the payload.
    pub payload_hash: [u8; 32],
}

impl Header {
    /// The header of `payload`.
    pub fn new(
        topic: Topic,
        origin: PeerId,
        created: WallTime,
        expires: WallTime,
        payload: &[u8],
    ) -> Self {
        let payload_hash = *blake3::hash(payload).as_bytes();
        Self { topic, origin, created, expires, payload_len: payload.len() as u64, payload_hash }
    }

    /// The canonical bytes; their BLAKE3 is the transaction id.
    pub fn to_bytes(&self) -> Bytes {
        let topic = self.topic.as_str().as_bytes();
        let mut out = BytesMut::with_capacity(FIXED + topic.len());
        out.put_slice(TAG);
        out.put_slice(self.origin.as_bytes());
        out.put_u64_le(self.created.as_millis());
        out.put_u64_le(self.expires.as_millis());
        out.put_u64_le(self.payload_len);
        out.put_slice(&self.payload_hash);
        // `Topic` is at most 255 bytes by construction.
        debug_assert!(u8::try_from(topic.len()).is_ok());
        out.put_u8(u8::try_from(topic.len()).unwrap_or(u8::MAX));
        out.put_slice(topic);
        out.freeze()
    }

    /// Reads canonical bytes. Exactly one header has any given encoding.
    ///
    /// # Errors
    /// [`InvalidTransaction::Header`] for any other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidTransaction> {
        let bad = InvalidTransaction::Header;
        let (fixed, topic) = bytes.split_first_chunk::<FIXED>().ok_or(bad)?;
        let mut at = Fields(fixed);
        if at.take::<16>() != *TAG {
            return Err(bad);
        }
        let origin = PeerId::from_bytes(at.take());
        let created = WallTime::from_millis(u64::from_le_bytes(at.take()));
        let expires = WallTime::from_millis(u64::from_le_bytes(at.take()));
        let payload_len = u64::from_le_bytes(at.take());
        let payload_hash = at.take();
        if usize::from(at.take::<1>()[0]) != topic.len() {
            return Err(bad);
        }
        let topic = std::str::from_utf8(topic).map_err(|_| bad)?;
        let topic = Topic::of_header(topic).map_err(|_| bad)?;
        Ok(Self { topic, origin, created, expires, payload_len, payload_hash })
    }
}

/// Hands out the fields of a fixed-size array one after another.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let (head, rest) = self.0.split_at(N.min(self.0.len()));
        out[..head.len()].copy_from_slice(head);
        self.0 = rest;
        out
    }
}

/// Reason why a transaction is not acceptable, whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTransaction {
    /// The header bytes are not in canonical form.
    #[error("the header is malformed")]
    Header,
    /// The bytes are not what [`Transaction::to_bytes`] gives: another layout, or cut short.
    #[error("these are not the bytes of a transaction")]
    Encoding,
    /// The bytes are of a version of that layout that this version of the crate does not know.
    #[error("the bytes of the transaction have the unknown version {found}")]
    Version {
        /// The version that they name.
        found: u8,
    },
    /// The header is not the one that the id was made of.
    #[error("the header does not match the id")]
    Id,
    /// The payload has another length than the header says.
    #[error("the payload has {actual} bytes, its header says {expected}")]
    Length {
        /// Bytes in the payload.
        actual: u64,
        /// Bytes promised by the header.
        expected: u64,
    },
    /// The payload does not hash to what the header says.
    #[error("the payload does not match its hash")]
    PayloadHash,
    /// No signature on a network that requires one.
    #[error("the signature is missing")]
    Unsigned,
    /// The signature is not the origin's over this id.
    #[error("the signature is wrong")]
    Signature,
}

#[derive(Clone)]
struct Inner {
    id: TransactionId,
    header: Header,
    header_bytes: Bytes,
    signature: Signature,
    payload: Bytes,
    trace: Option<TraceContext>,
}

/// Transaction: a payload under a header that its id commits to. Immutable; cloning shares the
/// bytes.
///
/// The header's canonical bytes and the payload are kept as they travel, so that a transaction is
/// encoded once however many links it leaves on.
#[derive(Clone)]
pub struct Transaction(Arc<Inner>);

impl Transaction {
    /// Puts a transaction together from a header and its payload, as its origin does.
    /// Use `Identity::sign_transaction` for a signed one.
    ///
    /// # Errors
    /// [`InvalidTransaction::Length`] when the header is of another payload.
    pub fn new(
        header: Header,
        signature: Signature,
        payload: Bytes,
    ) -> Result<Self, InvalidTransaction> {
        check_length(&header, &payload)?;
        let header_bytes = header.to_bytes();
        let id = TransactionId::from_bytes(*blake3::hash(&header_bytes).as_bytes());
        Ok(Self(Arc::new(Inner { id, header, header_bytes, signature, payload, trace: None })))
    }

    /// Puts a transaction together from bytes off the wire or off a disk. The id is computed,
    /// never believed; payload hash and signature are left to [`Transaction::verify`].
    ///
    /// # Errors
    /// [`InvalidTransaction`] when the header is malformed or the length is wrong.
    pub fn from_parts(
        header_bytes: Bytes,
        signature: Signature,
        payload: Bytes,
    ) -> Result<Self, InvalidTransaction> {
        let header = Header::from_bytes(&header_bytes)?;
        check_length(&header, &payload)?;
        let id = TransactionId::from_bytes(*blake3::hash(&header_bytes).as_bytes());
        Ok(Self(Arc::new(Inner { id, header, header_bytes, signature, payload, trace: None })))
    }

    /// The id: BLAKE3 of the header bytes.
    pub fn id(&self) -> TransactionId {
        self.0.id
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// The header's canonical bytes.
    pub fn header_bytes(&self) -> &Bytes {
        &self.0.header_bytes
    }

    /// Returns the signature.
    pub fn signature(&self) -> &Signature {
        &self.0.signature
    }

    /// Returns the payload.
    pub fn payload(&self) -> &Bytes {
        &self.0.payload
    }

    /// Returns the topic.
    pub fn topic(&self) -> &Topic {
        &self.0.header.topic
    }

    /// Returns the peer that published the transaction.
    pub fn origin(&self) -> PeerId {
        self.0.header.origin
    }

    /// W3C trace context that was published with the transaction, as the text of a `traceparent`; `None`
    /// where none was, where its trace is not recorded, or where it got lost on the way.
    ///
    /// It stands beside what is signed and proves nothing. It travels with the transaction over nodes
    /// that know of it, is kept in memory for a while and stored nowhere: see the guide's page on
    /// operating. Two transactions that differ in it alone are equal.
    pub fn traceparent(&self) -> Option<String> {
        self.0.trace.map(|trace| trace.to_string())
    }

    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.0.trace
    }

    /// The same transaction with another trace context.
    #[must_use]
    pub(crate) fn with_trace(mut self, trace: Option<TraceContext>) -> Self {
        if self.0.trace == trace {
            return self;
        }
        match Arc::get_mut(&mut self.0) {
            Some(inner) => inner.trace = trace,
            None => self.0 = Arc::new(Inner { trace, ..Inner::clone(&self.0) }),
        }
        self
    }

    /// Checks that the payload is what the header promised.
    ///
    /// # Errors
    /// [`InvalidTransaction::PayloadHash`] when it is not.
    pub fn verify_payload(&self) -> Result<(), InvalidTransaction> {
        if *blake3::hash(&self.0.payload).as_bytes() == self.0.header.payload_hash {
            Ok(())
        } else {
            Err(InvalidTransaction::PayloadHash)
        }
    }

    /// Checks payload hash and signature. `require_signature` is the network's policy; a
    /// signature that is there must be right under either policy.
    ///
    /// # Errors
    /// [`InvalidTransaction`] naming the first thing that is wrong.
    pub fn verify(&self, require_signature: bool) -> Result<(), InvalidTransaction> {
        self.verify_with(require_signature, |signed| {
            VerifyingKey::from_bytes(self.origin().as_bytes())
                .is_ok_and(|key| verify_signed(&key, signed))
        })
    }

    /// [`Transaction::verify`] with another way to come to the answer of [`verify_signed`].
    pub(crate) fn verify_with(
        &self,
        require_signature: bool,
        check: impl FnOnce(&Signed) -> bool,
    ) -> Result<(), InvalidTransaction> {
        self.verify_payload()?;
        check_signature(&self.0.id, &self.0.signature, require_signature, check)
    }

    /// A copy that shares no memory with the buffer it was received in, so that keeping a small
    /// transaction does not pin a whole frame.
    #[must_use]
    pub fn detached(&self) -> Self {
        let split = self.0.header_bytes.len();
        let mut all = BytesMut::with_capacity(split + self.0.payload.len());
        all.put_slice(&self.0.header_bytes);
        all.put_slice(&self.0.payload);
        let mut header_bytes = all.freeze();
        let payload = header_bytes.split_off(split);
        Self(Arc::new(Inner {
            id: self.0.id,
            header: self.0.header.clone(),
            header_bytes,
            signature: self.0.signature.clone(),
            payload,
            trace: self.0.trace,
        }))
    }
}

/// Checks that an id is signed; a signature that is there must be right whether or not it has to be.
pub(super) fn check_signature(
    id: &TransactionId,
    signature: &Signature,
    require_signature: bool,
    check: impl FnOnce(&Signed) -> bool,
) -> Result<(), InvalidTransaction> {
    match signature.signed(id) {
        Some(signed) if check(&signed) => Ok(()),
        Some(_) => Err(InvalidTransaction::Signature),
        None if require_signature => Err(InvalidTransaction::Unsigned),
        None => Ok(()),
    }
}

/// Reports whether `key` signed this.
///
/// One predicate on every node: a signature that some accept and others do not (as batch and strict
/// verification differ on crafted ones) would get honest relays blocked.
pub(crate) fn verify_signed(key: &VerifyingKey, signed: &Signed) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signed.signature);
    key.verify(signed.message(), &signature).is_ok()
}

fn check_length(header: &Header, payload: &Bytes) -> Result<(), InvalidTransaction> {
    let actual = payload.len() as u64;
    if actual == header.payload_len {
        Ok(())
    } else {
        Err(InvalidTransaction::Length { actual, expected: header.payload_len })
    }
}

impl PartialEq for Transaction {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
            && self.0.signature == other.0.signature
            && self.0.payload == other.0.payload
    }
}

impl Eq for Transaction {}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("id", &self.0.id)
            .field("topic", &self.0.header.topic)
            .field("origin", &self.0.header.origin)
            .field("bytes", &self.0.payload.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Head;

    fn header(payload: &[u8]) -> Header {
        Header::new(
            Topic::new("orders").unwrap(),
            PeerId::from_bytes([7; 32]),
            WallTime::from_millis(1_000),
            WallTime::from_millis(2_000),
            payload,
        )
    }

    #[test]
    fn the_header_layout_is_locked() {
        let id =
            Transaction::new(header(b"x"), Signature::None, Bytes::from_static(b"x")).unwrap().id();
        assert_eq!(header(b"x").to_bytes().len(), FIXED + 6);
        assert_eq!(id.to_string(), blake3::hash(&header(b"x").to_bytes()).to_hex().as_str(),);
        assert_eq!(Header::from_bytes(&header(b"x").to_bytes()).unwrap(), header(b"x"));
    }

    #[test]
    fn only_canonical_headers_parse() {
        let good = header(b"x").to_bytes();
        for cut in 0..good.len() {
            assert!(Header::from_bytes(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = good.to_vec();
        longer.push(0);
        assert!(Header::from_bytes(&longer).is_err());
        let mut tag = good.to_vec();
        tag[0] ^= 1;
        assert!(Header::from_bytes(&tag).is_err());
    }

    #[test]
    fn a_trace_context_is_beside_the_transaction() {
        let payload = Bytes::from_static(b"x");
        let plain = Transaction::new(header(b"x"), Signature::None, payload).unwrap();
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceContext::parse(text);
        // Shared with `plain`, and then not.
        let traced = plain.clone().with_trace(trace);
        assert_eq!((plain.traceparent(), traced.traceparent().as_deref()), (None, Some(text)));
        assert_eq!(
            (&traced, traced.id(), traced.to_bytes()),
            (&plain, plain.id(), plain.to_bytes())
        );
        assert_eq!(traced.detached().traceparent().as_deref(), Some(text));
        let head = Head::of(&traced).with_payload(traced.payload().clone()).unwrap();
        assert_eq!(head.traceparent().as_deref(), Some(text));
        assert_eq!(traced.with_trace(None).traceparent(), None);
    }

    #[test]
    fn a_wrong_payload_or_policy_is_named() {
        let bytes = header(b"x").to_bytes();
        let other =
            Transaction::from_parts(bytes.clone(), Signature::None, Bytes::from_static(b"y"))
                .unwrap();
        assert_eq!(other.verify(false), Err(InvalidTransaction::PayloadHash));
        assert_eq!(
            Transaction::from_parts(bytes.clone(), Signature::None, Bytes::from_static(b"xx"))
                .unwrap_err(),
            InvalidTransaction::Length { actual: 2, expected: 1 }
        );
        let right =
            Transaction::from_parts(bytes, Signature::None, Bytes::from_static(b"x")).unwrap();
        assert_eq!(right.verify(false), Ok(()));
        assert_eq!(right.verify(true), Err(InvalidTransaction::Unsigned));
        assert_eq!(right.detached(), right);
    }
}
