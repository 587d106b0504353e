//! Bytes as the messages of a gRPC stream, which are read without being copied.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Codec of messages that are bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum BytesCodec {
    /// The message is the bytes as they are.
    Bare,
    /// The message has the bytes as its one field, of number 1. Of other fields nothing is kept.
    Field,
}

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, bytes: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match self {
            Self::Bare => out.put(bytes),
            Self::Field => bytes.encode(out).map_err(|e| Status::internal(e.to_string()))?,
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        // Shares the receive buffer.
        let message = message.copy_to_bytes(message.remaining());
        match self {
            Self::Bare => Ok(Some(message)),
            Self::Field => field(message).map(Some),
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

/// Bytes that a message has as its field, none where it has no field.
fn field(message: Bytes) -> Result<Bytes, Status> {
    Bytes::decode(message).map_err(|_| Status::invalid_argument("not a message of bytes"))
}

/// Small first buffers: most links are quiet most of the time.
fn buffer_settings() -> BufferSettings {
    BufferSettings::new(4 * 1024, 64 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_messages_of_one_field() {
        let read = |bytes: &[u8]| field(Bytes::copy_from_slice(bytes));
        assert_eq!(read(b"").unwrap(), "");
        assert_eq!(read(b"\x0a\x03abc").unwrap(), "abc");
        assert_eq!(read(b"\x0a\x83\x00abc").unwrap(), "abc");
        assert_eq!(read(b"\x10\x07\x0a\x01a\x1a\x02xx").unwrap(), "a");
        for wrong in [&b"\x0a\x04abc"[..], b"\x0a", b"\x0a\xff", b"\x0b", b"\x00", b"\x10"] {
            assert_eq!(read(wrong).unwrap_err().code(), tonic::Code::InvalidArgument, "{wrong:?}");
        }
    }

    #[test]
    fn a_field_shares_the_memory_of_its_message() {
        let message = Bytes::from_static(b"\x0a\x03abc");
        let inside = message.as_ptr().wrapping_add(2);
        assert_eq!(field(message).unwrap().as_ptr(), inside);
    }
}
