//! The numbers of links: each names its pipe and its side, so that neither has to be looked up.

use crate::types::LinkId;

/// The link at one side of a pipe.
pub(super) fn link_of(pipe: u64, side: usize) -> LinkId {
    LinkId(pipe * 2 + side as u64)
}

/// The value that both ends of a pipe have, and no other pipe.
pub(super) fn binding_of(pipe: u64) -> [u8; 32] {
    let mut binding = [0; 32];
    binding[..8].copy_from_slice(&pipe.to_le_bytes());
    binding
}

/// Pipe and side of a link.
pub(super) fn pipe_of(link: LinkId) -> (u64, usize) {
    (link.0 / 2, usize::from(link.0 % 2 == 1))
}
