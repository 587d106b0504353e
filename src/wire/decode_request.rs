//! Protobuf to messages of requests, by hand, as in `decode`.

use bytes::Bytes;

use super::WireError;
use super::convert::{TRACE, status_of, trace_of};
use super::decode::{slice, text};
use super::fields::Fields;
use crate::types::{MAX_PROTOCOL_BYTES, MAX_REASON_BYTES, Message, PIECE_BYTES, is_protocol_name};

pub(super) fn request(frame: &Bytes, body: &[u8]) -> Result<Message, WireError> {
    let (mut id, mut protocol, mut size) = (0, &[][..], 0);
    let (mut timeout_ms, mut data, mut trace) = (0, &[][..], None);
    for field in Fields(body) {
        match field? {
            (1, value) => id = value.uint("id")?,
            (2, value) => protocol = value.bytes("protocol")?,
            (3, value) => size = value.uint("size")?,
            (4, value) => timeout_ms = value.uint32("timeout_ms")?,
            (5, value) => data = value.bytes("body")?,
            (TRACE, value) => trace = trace_of(value),
            _ => {}
        }
    }
    WireError::bound("protocol (bytes)", protocol.len(), MAX_PROTOCOL_BYTES)?;
    let protocol = text("protocol", protocol)?;
    if !is_protocol_name(protocol) {
        return Err(WireError::Text { what: "protocol" });
    }
    let body = first_part(frame, data, size)?;
    Ok(Message::Request { id, protocol: protocol.to_owned(), size, timeout_ms, body, trace })
}

pub(super) fn response(frame: &Bytes, body: &[u8]) -> Result<Message, WireError> {
    let (mut id, mut code, mut size) = (0, 0, 0);
    let (mut data, mut reason) = (&[][..], &[][..]);
    for field in Fields(body) {
        match field? {
            (1, value) => id = value.uint("id")?,
            (2, value) => code = value.uint("status")?,
            (3, value) => size = value.uint("size")?,
            (4, value) => data = value.bytes("body")?,
            (5, value) => reason = value.bytes("reason")?,
            _ => {}
        }
    }
    WireError::bound("reason (bytes)", reason.len(), MAX_REASON_BYTES)?;
    let reason = text("reason", reason)?.to_owned();
    let body = first_part(frame, data, size)?;
    Ok(Message::Response { id, status: status_of(code), size, body, reason })
}

pub(super) fn body_part(frame: &Bytes, body: &[u8]) -> Result<Message, WireError> {
    let (mut id, mut of_answer, mut data) = (0, false, &[][..]);
    for field in Fields(body) {
        match field? {
            (1, value) => id = value.uint("id")?,
            (2, value) => of_answer = value.uint("of_answer")? != 0,
            (3, value) => data = value.bytes("part")?,
            _ => {}
        }
    }
    WireError::bound("part (bytes)", data.len(), PIECE_BYTES)?;
    Ok(Message::BodyPart { id, of_answer, data: slice(frame, data) })
}

/// The first bytes of a body whose whole length is told.
fn first_part(frame: &Bytes, data: &[u8], size: u64) -> Result<Bytes, WireError> {
    WireError::bound("part (bytes)", data.len(), PIECE_BYTES)?;
    let actual = data.len() as u64;
    if actual > size {
        return Err(WireError::Limit { what: "part (bytes)", actual, limit: size });
    }
    Ok(slice(frame, data))
}

pub(super) fn cancel_request(body: &[u8]) -> Result<Message, WireError> {
    let mut id = 0;
    for field in Fields(body) {
        if let (1, value) = field? {
            id = value.uint("id")?;
        }
    }
    Ok(Message::CancelRequest { id })
}
