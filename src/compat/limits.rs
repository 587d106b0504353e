//! What one address may have of the node, and all of them together.

use super::ops::{Ops, Refusal};
use crate::transport::Visitor;

/// Place of a request among those that are answered at a time; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(());

impl Permit {
    /// Counts more bytes of the same request, sent or received.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        todo!()
    }
}

impl Ops {
    /// Lets a request in, of this many bytes as far as known, or says when to come again. Each face calls
    /// it before anything else, and keeps the permit until the answer is sent; for a stream, once
    /// for the stream and once for each message, with its bytes.
    pub(crate) fn admit(&self, visitor: &Visitor, bytes: u64) -> Result<Permit, Refusal> {
        todo!()
    }
}
