//! How a command can end otherwise than well. Each text says in one line what to do.

use std::io;
use std::process::ExitCode;

use crate::units::clean;

/// Failure of a command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The node did not do it.
    Refused(String),
    /// The command line does not say what to do.
    Usage(String),
    /// No node answers there, or not as one.
    Unreachable(String),
    /// The node does not do it for this caller.
    Unauthorised(String),
    /// Nobody reads what is written.
    Unread,
}

impl Failure {
    /// The text; empty where there is nobody to read it.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Refused(text)
            | Self::Usage(text)
            | Self::Unreachable(text)
            | Self::Unauthorised(text) => text,
            Self::Unread => "",
        }
    }

    /// The exit status, as `--help` lists it.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Unread => 0,
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Unauthorised(_) => 4,
        }
    }

    /// Says it on stderr.
    pub(crate) fn tell(&self) -> ExitCode {
        if !matches!(self, Self::Unread) {
            eprintln!("peerctl: {}", clean(self.text()));
        }
        self.status().into()
    }
}

/// A failure to write: who has read enough, as `head` has, is no error.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Refused(format!("cannot write: {error}")),
        }
    }
}
