//! Frames: what [`Message`](crate::types::Message)s look like on the way to a peer. Public with the
//! feature `unstable-core` only, and not covered by semver.
//!
//! `proto/sorcha/peer/gossip.proto` is the definition. Because a node writes and reads well over a
//! hundred thousand transactions a second, the bytes are written and read here by hand; tests hold
//! both directions against the types generated from the proto. What is read is bounded by
//! [`limits`](crate::types) before anything is allocated for it.

mod convert;
mod decode;
mod decode_dial_back;
mod decode_request;
mod encode;
#[cfg(any(test, feature = "node"))]
mod explanation;
mod fields;
mod frame;
pub(crate) mod generated;
#[cfg(test)]
mod tests;

#[cfg(feature = "node")]
pub(crate) use explanation::{decode_explanation, encode_explanation};
pub use frame::{Encoded, FrameEncoder, decode_frame, encode_frame};

use crate::types::InvalidTransaction;

/// Reason why bytes from a peer are not a frame. The whole frame is refused: nothing of it was used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// More of something than the protocol allows.
    #[error("{what}: {actual} is above the limit of {limit}")]
    Limit {
        /// Name of what there is too much of.
        what: &'static str,
        /// Number or size found.
        actual: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// Field of fixed size with another size.
    #[error("{what} has {actual} bytes, expected {expected}")]
    Length {
        /// Name of the field.
        what: &'static str,
        /// Bytes found.
        actual: usize,
        /// Description of what would have been right.
        expected: &'static str,
    },
    /// Lists that belong together differ in length.
    #[error("{what} do not match the {ids} ids one by one")]
    Unequal {
        /// Name of the list.
        what: &'static str,
        /// Ids that it belongs to.
        ids: usize,
    },
    /// Message without a part that must be there.
    #[error("{what} is missing")]
    Missing {
        /// Name of the field.
        what: &'static str,
    },
    /// Things that must stand in order and do not.
    #[error("{what} are out of order")]
    Order {
        /// Name of the field.
        what: &'static str,
    },
    /// A text that is not UTF-8.
    #[error("{what} is not UTF-8")]
    Text {
        /// Name of the text.
        what: &'static str,
    },
    /// A known field holds another type than the proto says.
    #[error("{what} has the wrong type")]
    WireType {
        /// Name of the field.
        what: &'static str,
    },
    /// Bytes that are no protobuf at all.
    #[error("not protobuf: {0}")]
    Protobuf(&'static str),
    /// A transaction whose header or length is wrong.
    #[error(transparent)]
    Transaction(#[from] InvalidTransaction),
}

impl WireError {
    /// Refuses `actual` where it is above `limit`.
    fn bound(what: &'static str, actual: usize, limit: usize) -> Result<(), Self> {
        if actual <= limit {
            return Ok(());
        }
        Err(Self::Limit { what, actual: actual as u64, limit: limit as u64 })
    }
}
