//! From what hyper, h2, tonic, rustls and the operating system say to a [`FailureKind`].

use std::error::Error;
use std::fmt;
use std::io;

use tonic::{Code, Status};

use super::tls;
use crate::config::Proxy;
use crate::error::{FailureKind, TransportError};

/// Error of a stream that ended or was not opened.
pub(super) fn from_status(message: &str, status: Status) -> TransportError {
    let kind = match (status.source(), status.code()) {
        // Nothing below failed, so the status is what the remote answered or tonic found.
        (None, code) => kind_of_code(code),
        (Some(source), _) => kind_of(source),
    };
    TransportError::with_source(kind, message, Answer(status))
}

/// A status as a cause: what it says, and what lies under it as its source. By itself a status says the
/// latter too, in the words of `Debug`.
#[derive(Debug)]
struct Answer(Status);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.message() {
            "" => f.write_str(self.0.code().description()),
            message => f.write_str(message),
        }
    }
}

impl Error for Answer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Error of a connection that ended.
pub(super) fn from_hyper(message: &str, error: hyper::Error) -> TransportError {
    let kind = match () {
        () if error.is_parse() => FailureKind::Protocol,
        () if error.is_timeout() => FailureKind::Timeout,
        () => kind_of(&error),
    };
    TransportError::with_source(kind, message, error)
}

/// Error of a TLS handshake.
pub(super) fn from_tls(message: &str, error: io::Error) -> TransportError {
    TransportError::with_source(tls::failure_kind(&error), message, error)
}

/// Error of a byte stream.
pub(super) fn from_io(message: &str, error: io::Error) -> TransportError {
    TransportError::with_source(tls::failure_kind(&error), message, error)
}

/// Error of a TLS handshake in a tunnel. What no peer would say or show is said by the proxy itself.
pub(super) fn from_tunnelled_tls(proxy: &Proxy, error: io::Error) -> TransportError {
    let proxy = proxy.endpoint();
    if tls::is_of_another(&error) {
        let message =
            format!("somebody else answers for the peer: the proxy {proxy} may intercept TLS");
        return TransportError::with_source(FailureKind::Identity, message, error);
    }
    from_tls(&format!("the TLS handshake by way of the proxy {proxy} failed"), error)
}

/// Error of a TLS handshake that was accepted. An alert of the dialler is its verdict on us: it proves
/// nothing false of itself, as one that shows no usable key does.
pub(super) fn from_accepted_tls(message: &str, error: io::Error) -> TransportError {
    let kind = if tls::is_alert(&error) { FailureKind::Closed } else { tls::failure_kind(&error) };
    TransportError::with_source(kind, message, error)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_under_a_status_is_said_once() {
        let reset = io::Error::from_raw_os_error(104);
        let words = reset.to_string();
        let mut status = Status::unknown("h2 protocol error");
        status.set_source(std::sync::Arc::new(reset));
        let text = from_status("the stream was not opened", status).to_string();
        assert_eq!(text, format!("the stream was not opened: h2 protocol error: {words}"));
        let text = from_status("the stream was not opened", Status::new(Code::Unavailable, ""));
        let wanted = "the stream was not opened: The service is currently unavailable";
        assert_eq!(text.to_string(), wanted);
    }
}
