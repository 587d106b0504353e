//! Values that look different on the wire: codes, addresses, names of message kinds.

use std::net::IpAddr;

use super::WireError;
use crate::types::{
    CloseReason, DialBackOutcome, Refusal, ResponseStatus, Signature, TraceContext,
};

use super::fields::Value;

/// Field number of trace contexts, in every message that has one.
pub(super) const TRACE: u32 = 15;

/// Field numbers of the `oneof` in `Message`.
pub(super) mod kind {
    pub(crate) const HELLO: u32 = 1;
    pub(crate) const GOODBYE: u32 = 2;
    pub(crate) const PING: u32 = 3;
    pub(crate) const PONG: u32 = 4;
    pub(crate) const PEERS_REQUEST: u32 = 5;
    pub(crate) const PEERS: u32 = 6;
    pub(crate) const ANNOUNCE: u32 = 7;
    pub(crate) const WANT: u32 = 8;
    pub(crate) const MISSING: u32 = 9;
    pub(crate) const PUSH: u32 = 10;
    pub(crate) const PIECE: u32 = 11;
    pub(crate) const DUPLICATE: u32 = 12;
    pub(crate) const EARLY: u32 = 13;
    pub(crate) const STORED: u32 = 14;
    pub(crate) const ASK: u32 = 16;
    pub(crate) const ANSWER: u32 = 17;
    pub(crate) const YOURS: u32 = 18;
    pub(crate) const OFFER: u32 = 19;
    pub(crate) const RESERVE: u32 = 20;
    pub(crate) const BUSY: u32 = 21;
    pub(crate) const RECEIVING: u32 = 22;
    pub(crate) const INTEREST: u32 = 23;
    pub(crate) const FLUSHED: u32 = 25;
    pub(crate) const REFUSED: u32 = 26;
    pub(crate) const PROBE: u32 = 27;
    pub(crate) const PROBED: u32 = 28;
    pub(crate) const SWITCH: u32 = 29;
    pub(crate) const REQUEST: u32 = 30;
    pub(crate) const RESPONSE: u32 = 31;
    pub(crate) const BODY_PART: u32 = 32;
    pub(crate) const CANCEL_REQUEST: u32 = 33;
    pub(crate) const DIAL_BACK: u32 = 34;
    pub(crate) const DIAL_BACK_TASK: u32 = 35;
    pub(crate) const DIAL_BACK_RESULT: u32 = 36;
    /// The highest that this version knows.
    pub(crate) const LAST: u32 = DIAL_BACK_RESULT;
}

/// The code of each reason, in `Goodbye`. Codes are never reused; 10 is free, since
/// no version has sent it.
pub(super) const REASONS: [(u32, CloseReason); 17] = [
    (0, CloseReason::TransportClosed),
    (1, CloseReason::Shutdown),
    (2, CloseReason::Requested),
    (3, CloseReason::Replaced),
    (4, CloseReason::WrongNetwork),
    (5, CloseReason::WrongVersion),
    (6, CloseReason::NotAllowed),
    (7, CloseReason::Banned),
    (8, CloseReason::SelfDial),
    (9, CloseReason::TooManyLinks),
    (11, CloseReason::HandshakeTimeout),
    (12, CloseReason::Violation),
    (13, CloseReason::Unresponsive),
    (14, CloseReason::SlowPeer),
    (15, CloseReason::NotMember),
    (16, CloseReason::IdentityInUse),
    (17, CloseReason::Moved),
];

/// The code of a reason.
pub(super) fn reason_code(reason: CloseReason) -> u32 {
    REASONS.iter().find(|(_, r)| *r == reason).map_or(0, |(code, _)| *code)
}

/// The reason of a code. A code that a newer version added reads as the peer having closed
/// without a word.
pub(super) fn reason_of(code: u64) -> CloseReason {
    REASONS
        .iter()
        .find(|(c, _)| u64::from(*c) == code)
        .map_or(CloseReason::TransportClosed, |(_, reason)| *reason)
}

/// The code of each reason, in `Refused`. Codes are never reused.
pub(super) const REFUSALS: [(u32, Refusal); 10] = [
    (0, Refusal::Ignored),
    (1, Refusal::Skewed),
    (2, Refusal::Expired),
    (3, Refusal::TooLarge),
    (4, Refusal::OverShare),
    (5, Refusal::OverRate),
    (6, Refusal::Unwanted),
    (7, Refusal::Rejected),
    (8, Refusal::WrongHash),
    (9, Refusal::WrongSignature),
];

/// The code of a refusal.
pub(super) fn refusal_code(refusal: Refusal) -> u32 {
    REFUSALS.iter().find(|(_, r)| *r == refusal).map_or(0, |(code, _)| *code)
}

/// The refusal of a code. One that a newer version added reads as a peer that does not want it.
pub(super) fn refusal_of(code: u64) -> Refusal {
    REFUSALS
        .iter()
        .find(|(c, _)| u64::from(*c) == code)
        .map_or(Refusal::Ignored, |(_, refusal)| *refusal)
}

/// The code of each status, in `Response`. Codes are never reused.
pub(super) const STATUSES: [(u32, ResponseStatus); 6] = [
    (0, ResponseStatus::Done),
    (1, ResponseStatus::NotServed),
    (2, ResponseStatus::Busy),
    (3, ResponseStatus::TooLarge),
    (4, ResponseStatus::Refused),
    (5, ResponseStatus::Failed),
];

/// The code of a status.
pub(super) fn status_code(status: ResponseStatus) -> u32 {
    STATUSES.iter().find(|(_, s)| *s == status).map_or(5, |(code, _)| *code)
}

/// The status of a code. One that a newer version added reads as a failure.
pub(super) fn status_of(code: u64) -> ResponseStatus {
    STATUSES
        .iter()
        .find(|(c, _)| u64::from(*c) == code)
        .map_or(ResponseStatus::Failed, |(_, status)| *status)
}

/// The code of each outcome, in `DialBackResult`. Codes are never reused.
pub(super) const OUTCOMES: [(u32, DialBackOutcome); 3] =
    [(0, DialBackOutcome::Refused), (1, DialBackOutcome::Reached), (2, DialBackOutcome::Failed)];

/// The code of an outcome.
pub(super) fn outcome_code(outcome: DialBackOutcome) -> u32 {
    OUTCOMES.iter().find(|(_, o)| *o == outcome).map_or(0, |(code, _)| *code)
}

/// The outcome of a code. One that a newer version added reads as nothing done.
pub(super) fn outcome_of(code: u64) -> DialBackOutcome {
    OUTCOMES
        .iter()
        .find(|(c, _)| u64::from(*c) == code)
        .map_or(DialBackOutcome::Refused, |(_, outcome)| *outcome)
}

/// Hands the bytes of an address to `to`: 4 or 16, or none.
pub(super) fn with_ip_bytes<T>(ip: Option<IpAddr>, to: impl FnOnce(&[u8]) -> T) -> T {
    match ip {
        None => to(&[]),
        Some(IpAddr::V4(v4)) => to(&v4.octets()),
        Some(IpAddr::V6(v6)) => to(&v6.octets()),
    }
}

/// The address of 4 or 16 bytes, or none.
pub(super) fn ip_of(bytes: &[u8]) -> Result<Option<IpAddr>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(Some(IpAddr::from(v4)));
    }
    <[u8; 16]>::try_from(bytes).map(|v6| Some(IpAddr::from(v6))).map_err(|_| WireError::Length {
        what: "observed address",
        actual: bytes.len(),
        expected: "0, 4 or 16",
    })
}

/// The signature of 64 bytes, of a batch, or none.
pub(super) fn signature_of(bytes: &[u8]) -> Result<Signature, WireError> {
    Signature::from_bytes(bytes).map_err(|_| WireError::Length {
        what: "signature",
        actual: bytes.len(),
        expected: "0, 64 or 65 and up to 6 hashes",
    })
}

/// The trace context of a field that a peer sent. One that is malformed is none, whatever is wrong with
/// it: what it stands beside is worth more.
pub(super) fn trace_of(value: Value<'_>) -> Option<TraceContext> {
    TraceContext::from_bytes(value.bytes("trace").ok()?)
}

/// Exactly `N` bytes.
pub(super) fn exactly<const N: usize>(
    what: &'static str,
    bytes: &[u8],
    expected: &'static str,
) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::Length { what, actual: bytes.len(), expected })
}
