//! Messages to protobuf, by hand.
//!
//! Every body is written by one function, run twice: over [`Count`] for its length, then over the
//! buffer. So lengths and bytes cannot disagree, and the buffer is allocated once, at its size.

use std::net::SocketAddr;

use super::convert::{
    TRACE, kind, outcome_code, reason_code, refusal_code, status_code, with_ip_bytes,
};
use crate::types::{
    Announcement, Bound, Hello, Interest, Message, Offer, PeerId, PeerRecord, Piece, Range,
    RangeContent, Reconcile, Refusal, Reservation, TraceContext, Transaction, TransactionId,
    WallTime,
};

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;

/// Takes bytes, or only their number.
pub(super) trait Out {
    fn raw(&mut self, bytes: &[u8]);
    fn varint(&mut self, value: u64);
}

/// The number of bytes that would be written.
pub(super) struct Count(usize);

impl Out for Count {
    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn varint(&mut self, value: u64) {
        self.0 += varint_len(value);
    }
}

impl Out for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.push(value.to_le_bytes()[0]);
    }
}

/// Value that is written as the body of a protobuf message.
pub(super) trait Body {
    fn write(&self, out: &mut impl Out);

    fn len(&self) -> usize {
        let mut count = Count(0);
        self.write(&mut count);
        count.0
    }
}

/// Bytes that a message of this body length takes as a field of number 1 to 15.
pub(super) fn field_len(body: usize) -> usize {
    1 + varint_len(body as u64) + body
}

/// A message of known body length as entry of `Frame.messages`.
pub(super) fn entry(out: &mut Vec<u8>, body_len: usize, message: &Message) {
    tag(out, 1, LENGTH);
    out.varint(body_len as u64);
    message.write(out);
}

fn varint_len(value: u64) -> usize {
    // Seven bits a byte; zero takes one byte as well.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

fn tag(out: &mut impl Out, number: u32, wire_type: u32) {
    out.varint(u64::from(number << 3 | wire_type));
}

fn uint(out: &mut impl Out, number: u32, value: u64) {
    if value != 0 {
        tag(out, number, VARINT);
        out.varint(value);
    }
}

fn fixed64(out: &mut impl Out, number: u32, value: u64) {
    if value != 0 {
        tag(out, number, FIXED64);
        out.raw(&value.to_le_bytes());
    }
}

fn bytes(out: &mut impl Out, number: u32, value: &[u8]) {
    if !value.is_empty() {
        tag(out, number, LENGTH);
        out.varint(value.len() as u64);
        out.raw(value);
    }
}

/// A trace context, where there is one.
fn trace(out: &mut impl Out, context: Option<TraceContext>) {
    if let Some(context) = context {
        bytes(out, TRACE, context.as_bytes());
    }
}

fn nested(out: &mut impl Out, number: u32, body: &(impl Body + ?Sized)) {
    tag(out, number, LENGTH);
    out.varint(body.len() as u64);
    body.write(out);
}

fn packed(out: &mut impl Out, number: u32, values: impl Iterator<Item = u64> + Clone) {
    let length: usize = values.clone().map(varint_len).sum();
    if length != 0 {
        tag(out, number, LENGTH);
        out.varint(length as u64);
        for value in values {
            out.varint(value);
        }
    }
}

fn ids<'a>(
    out: &mut impl Out,
    number: u32,
    values: impl ExactSizeIterator<Item = &'a TransactionId>,
) {
    if values.len() != 0 {
        tag(out, number, LENGTH);
        out.varint(32 * values.len() as u64);
        for id in values {
            out.raw(id.as_bytes());
        }
    }
}

impl Body for Message {
    fn write(&self, out: &mut impl Out) {
        match self {
            Self::Hello(hello) => nested(out, kind::HELLO, &**hello),
            Self::Goodbye { reason, retry_after } => {
                let millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
                let reason = u64::from(reason_code(*reason));
                nested(out, kind::GOODBYE, &Numbers([reason, millis]));
            }
            Self::Ping { nonce } => nested(out, kind::PING, &Nonce(*nonce)),
            Self::Pong { nonce } => nested(out, kind::PONG, &Nonce(*nonce)),
            Self::PeersRequest { max } => {
                nested(out, kind::PEERS_REQUEST, &Numbers([u64::from(*max)]));
            }
            Self::Peers { records, relays } => {
                nested(out, kind::PEERS, &Peers { records, relays: *relays });
            }
            Self::Announce(list) => nested(out, kind::ANNOUNCE, list.as_slice()),
            Self::Want(list) => nested(out, kind::WANT, list.as_slice()),
            Self::Missing(list) => nested(out, kind::MISSING, list.as_slice()),
            Self::Push { transaction, hop } => {
                nested(out, kind::PUSH, &Push { transaction, hop: *hop });
            }
            Self::Piece(piece) => nested(out, kind::PIECE, piece),
            Self::Duplicate(list) => nested(out, kind::DUPLICATE, list.as_slice()),
            Self::Early(list) => nested(out, kind::EARLY, list.as_slice()),
            Self::Stored(list) => nested(out, kind::STORED, list.as_slice()),
            Self::Ask(ranges) => nested(out, kind::ASK, &**ranges),
            Self::Answer(ranges) => nested(out, kind::ANSWER, &**ranges),
            Self::Yours { lower, upper } => nested(out, kind::YOURS, &Yours(*lower, *upper)),
            Self::Offer(offer) => nested(out, kind::OFFER, &**offer),
            Self::Reserve(reservation) => nested(out, kind::RESERVE, reservation),
            Self::Busy(list) => nested(out, kind::BUSY, list.as_slice()),
            Self::Receiving { id, place } => {
                nested(out, kind::RECEIVING, &Receiving(id, *place));
            }
            Self::Interest(interest) => nested(out, kind::INTEREST, interest),
            Self::Flushed => nested(out, kind::FLUSHED, &Numbers([])),
            Self::Refused { list, clock } => {
                nested(out, kind::REFUSED, &Refused { list, clock: *clock });
            }
            Self::Probe { nonce, payload, wants } => {
                nested(out, kind::PROBE, &Probe { nonce: *nonce, payload, wants: *wants });
            }
            Self::Probed { nonce, received, payload } => {
                nested(out, kind::PROBED, &Probed { nonce: *nonce, received: *received, payload });
            }
            Self::Switch { step } => nested(out, kind::SWITCH, &Numbers([u64::from(*step)])),
            Self::Request { id, protocol, size, timeout_ms, body, trace } => {
                let (id, size, timeout_ms, trace) = (*id, *size, *timeout_ms, *trace);
                let request = Request { id, protocol, size, timeout_ms, body, trace };
                nested(out, kind::REQUEST, &request);
            }
            Self::Response { id, status, size, body, reason } => {
                let status = status_code(*status);
                let response = Response { id: *id, status, size: *size, body, reason };
                nested(out, kind::RESPONSE, &response);
            }
            Self::BodyPart { id, of_answer, data } => {
                let part = BodyPart { id: *id, of_answer: *of_answer, data };
                nested(out, kind::BODY_PART, &part);
            }
            Self::CancelRequest { id } => nested(out, kind::CANCEL_REQUEST, &Numbers([*id])),
            Self::DialBack { nonce, port } => {
                nested(out, kind::DIAL_BACK, &Numbered(*nonce, u32::from(*port)));
            }
            Self::DialBackTask { nonce, address, peer } => {
                nested(out, kind::DIAL_BACK_TASK, &DialBackTask(*nonce, *address, peer));
            }
            Self::DialBackResult { nonce, outcome, dialler } => {
                let outcome = outcome_code(*outcome);
                let result = DialBackResult(Numbered(*nonce, outcome), dialler.as_ref());
                nested(out, kind::DIAL_BACK_RESULT, &result);
            }
        }
    }
}

impl Body for Hello {
    fn write(&self, out: &mut impl Out) {
        bytes(out, 1, self.network.as_bytes());
        uint(out, 2, u64::from(self.version_min));
        uint(out, 3, u64::from(self.version_max));
        uint(out, 4, self.features.0);
        uint(out, 5, self.incarnation);
        uint(out, 6, self.max_transaction);
        nested(out, 7, &self.record);
        with_ip_bytes(self.observed, |ip| bytes(out, 8, ip));
        if self.interest != Interest::default() {
            nested(out, 9, &self.interest);
        }
        uint(out, 11, u64::from(self.owes));
        uint(out, 12, self.clock.map_or(0, WallTime::as_millis));
        for proof in &self.proofs {
            bytes(out, 13, proof);
        }
        uint(out, 14, self.complete_since.map_or(0, WallTime::as_millis));
        uint(out, 15, u64::from(self.takes_over));
        fixed64(out, 16, self.dial_back);
    }
}

struct Probe<'a> {
    nonce: u64,
    payload: &'a [u8],
    wants: u32,
}

impl Body for Probe<'_> {
    fn write(&self, out: &mut impl Out) {
        fixed64(out, 1, self.nonce);
        bytes(out, 2, self.payload);
        uint(out, 3, u64::from(self.wants));
    }
}

struct Probed<'a> {
    nonce: u64,
    received: u32,
    payload: &'a [u8],
}

impl Body for Probed<'_> {
    fn write(&self, out: &mut impl Out) {
        fixed64(out, 1, self.nonce);
        uint(out, 2, u64::from(self.received));
        bytes(out, 3, self.payload);
    }
}

struct Request<'a> {
    id: u64,
    protocol: &'a str,
    size: u64,
    timeout_ms: u32,
    body: &'a [u8],
    trace: Option<TraceContext>,
}

impl Body for Request<'_> {
    fn write(&self, out: &mut impl Out) {
        uint(out, 1, self.id);
        bytes(out, 2, self.protocol.as_bytes());
        uint(out, 3, self.size);
        uint(out, 4, u64::from(self.timeout_ms));
        bytes(out, 5, self.body);
        trace(out, self.trace);
    }
}

struct Response<'a> {
    id: u64,
    status: u32,
    size: u64,
    body: &'a [u8],
    reason: &'a str,
}

impl Body for Response<'_> {
    fn write(&self, out: &mut impl Out) {
        uint(out, 1, self.id);
        uint(out, 2, u64::from(self.status));
        uint(out, 3, self.size);
        bytes(out, 4, self.body);
        bytes(out, 5, self.reason.as_bytes());
    }
}

struct BodyPart<'a> {
    id: u64,
    of_answer: bool,
    data: &'a [u8],
}

impl Body for BodyPart<'_> {
    fn write(&self, out: &mut impl Out) {
        uint(out, 1, self.id);
        uint(out, 2, u64::from(self.of_answer));
        bytes(out, 3, self.data);
    }
}

struct Refused<'a> {
    list: &'a [(TransactionId, Refusal)],
    clock: Option<WallTime>,
}

impl Body for Refused<'_> {
    fn write(&self, out: &mut impl Out) {
        ids(out, 1, self.list.iter().map(|(id, _)| id));
        packed(out, 2, self.list.iter().map(|(_, reason)| u64::from(refusal_code(*reason))));
        uint(out, 3, self.clock.map_or(0, WallTime::as_millis));
    }
}

impl Body for PeerRecord {
    fn write(&self, out: &mut impl Out) {
        bytes(out, 1, self.draft.peer.as_bytes());
        uint(out, 2, self.draft.seq);
        uint(out, 3, self.draft.issued.as_millis());
        for text in self.texts() {
            bytes(out, 4, text.as_bytes());
        }
        bytes(out, 5, &self.signature);
    }
}

/// Unsigned numbers as fields 1, 2 and so on.
struct Numbers<const N: usize>([u64; N]);

impl<const N: usize> Body for Numbers<N> {
    fn write(&self, out: &mut impl Out) {
        for (number, value) in (1..).zip(self.0) {
            uint(out, number, value);
        }
    }
}

struct Nonce(u64);

impl Body for Nonce {
    fn write(&self, out: &mut impl Out) {
        fixed64(out, 1, self.0);
    }
}

/// A nonce and a number, as fields 1 and 2.
struct Numbered(u64, u32);

impl Body for Numbered {
    fn write(&self, out: &mut impl Out) {
        fixed64(out, 1, self.0);
        uint(out, 2, u64::from(self.1));
    }
}

struct DialBackTask<'a>(u64, SocketAddr, &'a PeerId);

impl Body for DialBackTask<'_> {
    fn write(&self, out: &mut impl Out) {
        fixed64(out, 1, self.0);
        with_ip_bytes(Some(self.1.ip()), |ip| bytes(out, 2, ip));
        uint(out, 3, u64::from(self.1.port()));
        bytes(out, 4, self.2.as_bytes());
    }
}

struct DialBackResult<'a>(Numbered, Option<&'a PeerId>);

impl Body for DialBackResult<'_> {
    fn write(&self, out: &mut impl Out) {
        self.0.write(out);
        if let Some(dialler) = self.1 {
            bytes(out, 3, dialler.as_bytes());
        }
    }
}

struct Peers<'a> {
    records: &'a [PeerRecord],
    relays: u32,
}

impl Body for Peers<'_> {
    fn write(&self, out: &mut impl Out) {
        for record in self.records {
            nested(out, 1, record);
        }
        uint(out, 2, u64::from(self.relays));
    }
}

impl Body for Interest {
    fn write(&self, out: &mut impl Out) {
        uint(out, 1, u64::from(self.depth));
        uint(out, 2, u64::from(self.makeshift));
        fixed64(out, 3, self.via);
        uint(out, 4, u64::from(self.topics.is_none()));
        let topics = self.topics.as_deref().unwrap_or_default();
        if !topics.is_empty() {
            tag(out, 5, LENGTH);
            out.varint(8 * topics.len() as u64);
            for topic in topics {
                out.raw(&topic.0.to_le_bytes());
            }
        }
    }
}

impl Body for [Announcement] {
    fn write(&self, out: &mut impl Out) {
        ids(out, 1, self.iter().map(|a| &a.id));
        packed(out, 2, self.iter().map(|a| a.size));
        packed(out, 3, self.iter().map(|a| u64::from(a.hop)));
    }
}

impl Body for [TransactionId] {
    fn write(&self, out: &mut impl Out) {
        ids(out, 1, self.iter());
    }
}

struct Push<'a> {
    transaction: &'a Transaction,
    hop: u16,
}

impl Body for Push<'_> {
    fn write(&self, out: &mut impl Out) {
        uint(out, 1, u64::from(self.hop));
        bytes(out, 2, self.transaction.header_bytes());
        bytes(out, 3, self.transaction.signature().as_bytes());
        bytes(out, 4, self.transaction.payload());
        trace(out, self.transaction.trace());
    }
}

impl Body for Piece {
    fn write(&self, out: &mut impl Out) {
        bytes(out, 1, self.id.as_bytes());
        uint(out, 2, u64::from(self.index));
        bytes(out, 3, &self.bytes);
        bytes(out, 4, &self.proof);
    }
}

/// An id without the zeros at its end.
fn prefix(id: &TransactionId) -> &[u8] {
    let zeros = id.as_bytes().iter().rev().take_while(|byte| **byte == 0).count();
    &id.as_bytes()[..32 - zeros]
}

/// A bound that a range begins with.
fn lower(out: &mut impl Out, number: u32, bound: &Bound) {
    uint(out, number, bound.created.as_millis());
    bytes(out, number + 1, prefix(&bound.id));
}

/// A bound that a range ends with.
fn upper(out: &mut impl Out, number: u32, bound: &Bound) {
    uint(out, number, bound.created.as_millis().wrapping_add(1));
    bytes(out, number + 1, prefix(&bound.id));
}

impl Body for Reconcile {
    fn write(&self, out: &mut impl Out) {
        uint(out, 1, u64::from(self.session));
        lower(out, 2, &self.lower);
        for range in &self.ranges {
            nested(out, 4, range);
        }
    }
}

impl Body for Range {
    fn write(&self, out: &mut impl Out) {
        upper(out, 1, &self.upper);
        let (kind, list) = match &self.content {
            RangeContent::Skip => return,
            RangeContent::Print(print) => return bytes(out, 3, print),
            RangeContent::All(list) => (1, list),
            RangeContent::Rest(list) => (2, list),
        };
        uint(out, 4, kind);
        ids(out, 5, list.iter().map(|(id, _)| id));
        packed(out, 6, list.iter().map(|(_, size)| *size));
    }
}

struct Yours(Bound, Bound);

impl Body for Yours {
    fn write(&self, out: &mut impl Out) {
        lower(out, 1, &self.0);
        upper(out, 3, &self.1);
    }
}

impl Body for Offer {
    fn write(&self, out: &mut impl Out) {
        uint(out, 1, u64::from(self.hop));
        bytes(out, 2, self.head.header_bytes());
        bytes(out, 3, self.head.signature().as_bytes());
        uint(out, 4, u64::from(self.complete));
        uint(out, 5, u64::from(self.place));
        trace(out, self.head.trace());
    }
}

struct Receiving<'a>(&'a TransactionId, u32);

impl Body for Receiving<'_> {
    fn write(&self, out: &mut impl Out) {
        bytes(out, 1, self.0.as_bytes());
        uint(out, 2, u64::from(self.1));
    }
}

impl Body for Reservation {
    fn write(&self, out: &mut impl Out) {
        bytes(out, 1, self.id.as_bytes());
        uint(out, 2, u64::from(self.place));
        uint(out, 3, u64::from(self.head));
        uint(out, 4, u64::from(self.force));
        packed(out, 5, self.ranges.iter().flat_map(|r| [r.first, r.count]).map(u64::from));
        uint(out, 6, u64::from(self.narrow));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_lengths_are_right_at_every_step() {
        for bits in 0..64 {
            for value in [1u64 << bits, (1 << bits) - 1, u64::MAX >> bits] {
                let mut out = Vec::new();
                out.varint(value);
                assert_eq!(varint_len(value), out.len(), "{value}");
            }
        }
    }
}
