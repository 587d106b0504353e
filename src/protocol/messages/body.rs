//! A body on its way in.
//!
//! Tested by: the tests below.

use bytes::Bytes;

/// Bytes of a body of which the length was told before. Memory is taken as they come.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    size: usize,
}

impl Body {
    pub(super) fn new(size: usize) -> Self {
        Self { bytes: Vec::new(), size }
    }

    /// Reports whether so many more bytes are more than was told.
    pub(super) fn is_exceeded_by(&self, more: usize) -> bool {
        more > self.size - self.bytes.len()
    }

    /// Returns the number of bytes by which the memory grows for so many more.
    pub(super) fn growth(&self, more: usize) -> usize {
        let (needed, capacity) = (self.bytes.len() + more, self.bytes.capacity());
        let doubled = capacity.saturating_mul(2).min(self.size);
        if needed <= capacity { 0 } else { doubled.max(needed) - capacity }
    }

    /// Takes the next bytes, which do not exceed it.
    pub(super) fn push(&mut self, part: &[u8]) {
        let growth = self.growth(part.len());
        if growth > 0 {
            let spare = self.bytes.capacity() - self.bytes.len();
            self.bytes.reserve_exact(spare + growth);
        }
        self.bytes.extend_from_slice(part);
    }

    /// Returns the body, once it is whole.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        (self.bytes.len() == self.size).then(|| std::mem::take(&mut self.bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_what_came_and_never_exceeds_what_was_told() {
        let mut body = Body::new(100_000);
        assert_eq!(body.bytes.capacity(), 0, "nothing for a promise");
        let (mut held, mut taken) = (0, 0);
        while taken < 100_000 {
            let part = vec![7; 999.min(100_000 - taken)];
            assert!(!body.is_exceeded_by(part.len()));
            held += body.growth(part.len());
            body.push(&part);
            taken += part.len();
            assert_eq!(held, body.bytes.capacity());
            assert!(held <= 100_000 && held <= 2 * taken);
        }
        assert!(body.is_exceeded_by(1) && !body.is_exceeded_by(0));
        assert_eq!(body.take_whole().unwrap(), vec![7; 100_000]);
    }

    #[test]
    fn an_empty_body_is_whole_and_a_part_of_one_is_not() {
        assert_eq!(Body::new(0).take_whole(), Some(Bytes::new()));
        let mut body = Body::new(2);
        body.push(&[1]);
        assert_eq!(body.take_whole(), None);
        assert!(body.is_exceeded_by(2));
    }
}
