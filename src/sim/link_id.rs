//! The numbers of links: each names its pipe and its side, so that neither has to be looked up.

use crate::types::LinkId;

/// The link at one side of a pipe.
pub(super) fn link_of(pipe: u64, side: usize) -> LinkId {
    LinkId(pipe * 2 + side as u64)
}

/// Pipe and side of a link.
pub(super) fn pipe_of(link: LinkId) -> (u64, usize) {
    (link.0 / 2, usize::from(link.0 % 2 == 1))
}
