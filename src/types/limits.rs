//! Hard limits of the wire. A peer that exceeds one is refused with a counted reason; none of
//! them depends on configuration, so two nodes always agree on what is well formed.

/// Maximum length of a frame in bytes. One frame carries at most one piece of bulk (64 KiB) or a
/// batch of small transactions; 1 MiB leaves room for both.
pub(crate) const MAX_FRAME_BYTES: usize = 1 << 20;

/// Maximum number of messages in one frame.
pub const MAX_MESSAGES_PER_FRAME: usize = 4096;

/// Maximum number of ids in one announcement, want, feedback or acknowledgement message.
pub const MAX_IDS_PER_MESSAGE: usize = 1024;

/// Maximum number of peer records in one peer-exchange answer.
pub const MAX_RECORDS_PER_MESSAGE: usize = 32;

/// Maximum number of endpoints in one peer record.
pub const MAX_ENDPOINTS: usize = 16;

/// Maximum length of a topic name, in bytes of UTF-8.
pub const MAX_TOPIC_BYTES: usize = 255;

/// Maximum length of a network name, in bytes of UTF-8.
pub const MAX_NETWORK_BYTES: usize = 64;

/// Maximum number of proofs of membership in one hello: a secret that is in use, and the one that
/// takes its place.
pub const MAX_PROOFS: usize = 2;

/// Size of one piece of a large payload, in bytes: the most that control ever waits behind.
pub const PIECE_BYTES: usize = 64 * 1024;

/// Maximum length of the name of a protocol that requests are for, in bytes.
pub const MAX_PROTOCOL_BYTES: usize = 128;

/// Maximum length of the reason in the answer to a request, in bytes of UTF-8.
pub const MAX_REASON_BYTES: usize = 256;

/// Maximum length of what a peer tells of one transaction, in bytes.
#[cfg_attr(not(any(test, feature = "node")), allow(dead_code))]
pub(crate) const MAX_EXPLANATION_BYTES: usize = 96 * 1024;

/// Maximum number of steps in that: those of both trails of an id, and one for each link.
#[cfg_attr(not(any(test, feature = "node")), allow(dead_code))]
pub(crate) const MAX_EXPLANATION_STEPS: usize = 256;

/// Maximum length of a word that the protocol lists, such as the kind of a step, in bytes.
#[cfg_attr(not(any(test, feature = "node")), allow(dead_code))]
pub(crate) const MAX_WORD_BYTES: usize = 32;
