//! From what hyper, h2, tonic, rustls and the operating system say to a [`FailureKind`].

use std::error::Error;
use std::io;

use tonic::{Code, Status};

use crate::error::{FailureKind, TransportError};
use crate::transport::tls;

/// Error of a stream that ended or was not opened.
pub(super) fn from_status(message: &str, status: Status) -> TransportError {
    let kind = match (status.source(), status.code()) {
        // Nothing below failed, so the status is what the remote answered or tonic found.
        (None, code) => kind_of_code(code),
        (Some(source), _) => kind_of(source),
    };
    TransportError::with_source(kind, message, status)
}

/// Error of a connection that ended.
pub(super) fn from_hyper(message: &str, error: hyper::Error) -> TransportError {
    TransportError::with_source(kind_of(&error), message, error)
}

/// Error of a TLS handshake.
pub(super) fn from_tls(message: &str, error: io::Error) -> TransportError {
    TransportError::with_source(tls::failure_kind(&error), message, error)
}

/// The kind that a status code of the remote stands for.
fn kind_of_code(code: Code) -> FailureKind {
    match code {
        Code::Unavailable => FailureKind::Unreachable,
        Code::DeadlineExceeded => FailureKind::Timeout,
        Code::Unauthenticated => FailureKind::Identity,
        Code::InvalidArgument | Code::OutOfRange => FailureKind::Malformed,
        // Unknown is what is local to the remote.
        Code::ResourceExhausted | Code::Unknown => FailureKind::Refused,
        Code::Cancelled => FailureKind::Closed,
        Code::Unimplemented => FailureKind::Unsupported,
        _ => FailureKind::Protocol,
    }
}

/// The kind that the first telling error in the chain has.
fn kind_of(error: &(dyn Error + 'static)) -> FailureKind {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return tls::failure_kind(io);
        }
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2_kind(h2);
        }
        next = error.source();
    }
    FailureKind::Closed
}

fn h2_kind(error: &h2::Error) -> FailureKind {
    use h2::Reason;
    if let Some(io) = error.get_io() {
        return tls::failure_kind(io);
    }
    match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL | Reason::STREAM_CLOSED) | None => {
            FailureKind::Closed
        }
        Some(Reason::REFUSED_STREAM | Reason::ENHANCE_YOUR_CALM) => FailureKind::Refused,
        Some(_) => FailureKind::Protocol,
    }
}
