//! The face of plain HTTP/1.1 requests.
//!
//! | request | answer |
//! |---|---|
//! | `POST …/open` | 201, the name of the session |
//! | `POST …/{session}/send?offset=N&ack=N[&end=1]` and bytes | 200 |
//! | `POST` or `GET …/{session}/poll?ack=N[&limit=N][&wait=MS]` | 200 and bytes |
//! | `POST …/{session}/close` | 204 |
//!
//! Contract: an answer states `sorcha-ack` and, with bytes, `sorcha-offset`; `sorcha-end` where the stream
//! ends behind them, and `sorcha-gone` where the server reads no more. Refusals are problem documents
//! (RFC 9457), and those that no repeat changes carry `sorcha-refusal`. Nothing may be cached.

mod client;
mod server;

use std::fmt;
use std::str::FromStr;

pub(super) use self::client::RestLane;
pub(in crate::transport) use self::server::{is_for, serve};
use super::SessionId;

/// Path below which all requests lie, whatever a proxy puts before it.
const BASE: &str = "/sorcha/v1/exchange/";
/// Position up to which the server has what the client sent.
const ACK: &str = "sorcha-ack";
/// Position of the first byte of an answer.
const OFFSET: &str = "sorcha-offset";
/// Mark of an answer behind which the stream ends.
const END: &str = "sorcha-end";
/// Mark of a server that reads no more.
const GONE: &str = "sorcha-gone";
/// Name of a refusal that no repeat changes.
const REFUSAL: &str = "sorcha-refusal";

/// For requests alone.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Text that names no session.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoSession;

impl FromStr for SessionId {
    type Err = NoSession;

    fn from_str(text: &str) -> Result<Self, NoSession> {
        let digits = text.len() == 2 * Self::BYTES && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(|number| Self(number.to_be_bytes())).ok_or(NoSession)
    }
}
