//! Reasons why a relay does not do its work.

use std::io;

use crate::error::{FailureKind, ProbeError, TransportError};

/// Reason why a connection to a relay, or one request there, failed.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(super) kind: FailureKind,
    pub(super) why: String,
    /// Only somebody's hand mends it: an account that is not taken, a server that relays no TCP.
    pub(super) is_lasting: bool,
}

impl Fault {
    pub(super) fn new(kind: FailureKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), is_lasting: false }
    }

    pub(super) fn lasting(kind: FailureKind, why: impl Into<String>) -> Self {
        Self { is_lasting: true, ..Self::new(kind, why) }
    }

    /// What the server answered with an error, where that means nothing special.
    pub(super) fn answered(asked: &str, error: Option<&(u16, String)>) -> Self {
        let (code, reason) = match error {
            Some((code, reason)) => (*code, reason.as_str()),
            None => (0, "without a code"),
        };
        // A limit passes; what is forbidden stays so.
        let is_lasting = matches!(code, 403 | 441);
        let space = if reason.is_empty() { "" } else { " " };
        let why = format!("the relay was asked {asked} and says {code}{space}{reason}");
        Self { is_lasting, ..Self::new(FailureKind::Refused, why) }
    }

    /// The error of a dial.
    pub(super) fn into_transport(self) -> TransportError {
        TransportError::new(self.kind, self.why)
    }

    /// The error of the relay of this name.
    pub(super) fn into_probe(self, name: &str) -> ProbeError {
        ProbeError::new(self.kind, format!("{name}: {}", self.why))
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::new(FailureKind::Closed, format!("the connection to the relay broke: {error}"))
    }
}

impl From<TransportError> for Fault {
    fn from(error: TransportError) -> Self {
        Self::new(error.kind, error.to_string())
    }
}
