//! Pieces of a payload that can be checked one by one.
//!
//! BLAKE3 is a binary tree over chunks of 1 KiB, so the payload hash of a header already commits to
//! every aligned piece of 64 KiB: a piece together with the hashes beside its path to the root (at
//! most 32 bytes for each doubling of the number of pieces) is proven right or wrong by itself. The
//! checks use BLAKE3's own `hazmat` module (chaining values of subtrees). The crate `bao-tree` does
//! the same over streams and stores; here it would be another dependency and more code than this
//! file.

use std::sync::Arc;

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use bytes::{BufMut, Bytes, BytesMut};

use super::PIECE_BYTES;

const HASH: usize = 32;

/// Maximum length of the proof of a piece in bytes: payloads of up to 2^47 bytes, far above what is configurable.
pub const MAX_PROOF_BYTES: usize = 31 * HASH;

/// Number of pieces that a payload of `len` bytes has; an empty one has one empty piece.
pub const fn pieces_of(len: u64) -> u64 {
    let pieces = len.div_ceil(PIECE_BYTES as u64);
    if pieces == 0 { 1 } else { pieces }
}

/// Length of one piece of a payload of `len` bytes; 0 beyond its end.
pub fn piece_len(len: u64, index: u32) -> usize {
    let start = u64::from(index) * PIECE_BYTES as u64;
    usize::try_from(len.saturating_sub(start)).unwrap_or(usize::MAX).min(PIECE_BYTES)
}

/// The hash of a piece that is not the whole payload.
fn leaf(index: u64, bytes: &[u8]) -> ChainingValue {
    Hasher::new().set_input_offset(index * PIECE_BYTES as u64).update(bytes).finalize_non_root()
}

/// Reports whether `bytes` are piece `index` of the payload of `len` bytes that hashes to `root`.
///
/// `proof` holds the hashes beside the path from the piece to the root, lowest first. Anything that
/// is wrong about any argument makes this `false`; nothing panics.
pub fn verify_piece(root: &[u8; 32], len: u64, index: u32, bytes: &[u8], proof: &[u8]) -> bool {
    let count = pieces_of(len);
    let mut at = u64::from(index);
    if at >= count || bytes.len() != piece_len(len, index) {
        return false;
    }
    if count == 1 {
        return proof.is_empty() && blake3::hash(bytes).as_bytes() == root;
    }
    let (siblings, rest) = proof.as_chunks::<HASH>();
    if !rest.is_empty() {
        return false;
    }
    let mut siblings = siblings.iter();
    let mut hash = leaf(at, bytes);
    let mut width = count;
    loop {
        // A subtree without a neighbour moves up a level as it is.
        if (at ^ 1) < width {
            let Some(sibling) = siblings.next() else { return false };
            let (left, right) = if at % 2 == 0 { (&hash, sibling) } else { (sibling, &hash) };
            if width == 2 {
                let found = merge_subtrees_root(left, right, Mode::Hash);
                return siblings.next().is_none() && found.as_bytes() == root;
            }
            hash = merge_subtrees_non_root(left, right, Mode::Hash);
        }
        at /= 2;
        width = width.div_ceil(2);
    }
}

/// Proofs of all pieces of one payload; cloning shares them.
///
/// At 32 bytes for each piece and level this is 1/256 of a payload of 10 MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proofs(Arc<[Bytes]>);

impl Proofs {
    /// Hashes a payload.
    pub fn of(payload: &[u8]) -> Self {
        let len = payload.len() as u64;
        let mut levels: Vec<Vec<ChainingValue>> = Vec::new();
        if pieces_of(len) > 1 {
            let pieces = payload.chunks(PIECE_BYTES);
            levels.push((0..).zip(pieces).map(|(at, bytes)| leaf(at, bytes)).collect());
        }
        while let Some(below) = levels.last()
            && below.len() > 2
        {
            let up = below.chunks(2).map(|pair| match pair {
                [left, right] => merge_subtrees_non_root(left, right, Mode::Hash),
                alone => alone[0],
            });
            let up = up.collect();
            levels.push(up);
        }
        let count = usize::try_from(pieces_of(len)).unwrap_or(usize::MAX);
        // One allocation for all of them.
        let mut all = BytesMut::with_capacity(count * levels.len() * HASH);
        let mut ends = Vec::with_capacity(count);
        for index in 0..count {
            for (height, level) in levels.iter().enumerate() {
                if let Some(sibling) = level.get((index >> height) ^ 1) {
                    all.put_slice(sibling);
                }
            }
            ends.push(all.len());
        }
        let all = all.freeze();
        let starts = std::iter::once(0).chain(ends.iter().copied());
        Self(starts.zip(&ends).map(|(start, end)| all.slice(start..*end)).collect())
    }

    /// Proofs that came with the pieces.
    pub fn collected(proofs: Vec<Bytes>) -> Self {
        Self(proofs.into())
    }

    /// Proof of one piece; empty when there is none.
    pub fn get(&self, index: u32) -> Bytes {
        self.0.get(index as usize).cloned().unwrap_or_default()
    }

    /// Returns the number of pieces.
    pub fn pieces(&self) -> usize {
        self.0.len()
    }

    /// Number of bytes held.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|proof| proof.len() + size_of::<Bytes>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: usize = PIECE_BYTES;

    fn payload(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn pieces(payload: &[u8]) -> Vec<&[u8]> {
        if payload.is_empty() { vec![payload] } else { payload.chunks(P).collect() }
    }

    #[test]
    fn every_piece_of_every_awkward_size_is_proven_against_the_plain_hash() {
        let sizes =
            [0, 1, 1023, 1024, 1025, P - 1, P, P + 1, 2 * P, 2 * P + 1, 3 * P, 3 * P + 1024];
        let more =
            [4 * P, 5 * P - 1, 7 * P + 9, 8 * P + 1, 13 * P + 77, 31 * P, 33 * P + 5, 10 << 20];
        for len in sizes.into_iter().chain(more) {
            let payload = payload(len);
            let root = *blake3::hash(&payload).as_bytes();
            let proofs = Proofs::of(&payload);
            let pieces = pieces(&payload);
            assert_eq!(
                (proofs.pieces(), pieces_of(len as u64)),
                (pieces.len(), pieces.len() as u64)
            );
            for (index, bytes) in (0..).zip(&pieces) {
                let proof = proofs.get(index);
                assert!(verify_piece(&root, len as u64, index, bytes, &proof), "{len} {index}");
                assert!(
                    proof.len() <= 32 * (usize::BITS - (pieces.len() - 1).leading_zeros()) as usize
                );
            }
        }
    }

    #[test]
    fn whatever_is_wrong_is_refused() {
        for len in [1000, 2 * P, 3 * P, 11 * P + 5] {
            let payload = payload(len);
            let (root, proofs) = (*blake3::hash(&payload).as_bytes(), Proofs::of(&payload));
            let size = len as u64;
            for (index, bytes) in (0u32..).zip(pieces(&payload)) {
                let proof = proofs.get(index);
                let good = |root: &[u8; 32], size, index, bytes: &[u8], proof: &[u8]| {
                    verify_piece(root, size, index, bytes, proof)
                };
                assert!(good(&root, size, index, bytes, &proof));
                let mut other = bytes.to_vec();
                other[bytes.len() / 2] ^= 1;
                assert!(!good(&root, size, index, &other, &proof), "a bit is flipped");
                for at in 0..proof.len() {
                    let mut wrong = proof.to_vec();
                    wrong[at] ^= 0x80;
                    assert!(!good(&root, size, index, bytes, &wrong), "wrong proof");
                }
                let long = [&proof[..], &[0; 32]].concat();
                assert!(!good(&root, size, index, bytes, &long), "a proof too long");
                if !proof.is_empty() {
                    assert!(!good(&root, size, index, bytes, &proof[32..]), "too short");
                    assert!(!good(&root, size, index, bytes, &proof[1..]), "no whole hashes");
                }
                for elsewhere in (0..20).chain([u32::MAX]).filter(|other| *other != index) {
                    assert!(!good(&root, size, elsewhere, bytes, &proof), "another place");
                }
                assert!(!good(&root, size, index, &bytes[1..], &proof), "crumbs");
                assert!(!good(&root, size, index, &[], &proof), "nothing");
                let other = *blake3::hash(b"other").as_bytes();
                assert!(!good(&other, size, index, bytes, &proof), "another payload");
            }
            for wrong in [0, size - 1, size + 1, size * 2, u64::MAX] {
                let bytes = pieces(&payload)[pieces(&payload).len() - 1];
                let index = u32::try_from(pieces(&payload).len() - 1).unwrap();
                assert!(!verify_piece(&root, wrong, index, bytes, &proofs.get(index)), "{wrong}");
            }
        }
    }

    #[test]
    fn lengths_of_pieces() {
        let p = P as u64;
        assert_eq!((pieces_of(0), pieces_of(1), pieces_of(p), pieces_of(p + 1)), (1, 1, 1, 2));
        assert_eq!((piece_len(p + 1, 0), piece_len(p + 1, 1), piece_len(p + 1, 2)), (P, 1, 0));
        assert_eq!((piece_len(0, 0), piece_len(u64::MAX, u32::MAX)), (0, P));
    }
}
