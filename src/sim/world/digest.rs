//! One hash over everything that happened: two runs are the same if and only if it is.

use std::fmt::{self, Debug, Write};

/// Digest over the `Debug` form of inputs and outputs. That form holds every field that is compared
/// between runs of one build, addresses of no memory and no unordered map.
#[derive(Debug, Default)]
pub(super) struct Digest(blake3::Hasher);

struct Into<'a>(&'a mut blake3::Hasher);

impl Write for Into<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

impl Digest {
    pub(super) fn take(&mut self, at: u64, node: usize, what: &dyn Debug) {
        // Writing into a hasher cannot fail.
        let _ = writeln!(Into(&mut self.0), "{at} {node} {what:?}");
    }

    pub(super) fn value(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}
