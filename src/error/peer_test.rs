//! Errors of a test of a link.

/// Reason why a link could not be measured. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TestError {
    /// No peer of this id is known; a retry is of use once the node has heard of it.
    #[error("no peer of this id is known")]
    Unknown,
    /// There is no link to the peer, or none any more; connect to it first.
    #[error("there is no link to the peer")]
    NotLinked,
    /// The link is being measured, was so within the last 10 seconds, or four others are; try again
    /// later.
    #[error("the link is being measured, or was a moment ago")]
    Busy,
    /// The peer answered none of the pings; a retry may be of use.
    #[error("the peer does not answer")]
    TimedOut,
    /// The node is shut down.
    #[error("the node is shut down")]
    Closed,
}
