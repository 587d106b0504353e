//! Proofs of origin: one signature each, or one for a whole burst.
//!
//! Under a burst an origin signs the root of a Merkle tree over up to 64 transaction ids once, and
//! every transaction carries that signature with its path to the root. Whoever has checked a root
//! checks the other transactions of the burst by hashing alone.
//!
//! The tree: leaf = BLAKE3(tag, 0, id), inner node = BLAKE3(tag, 1, left, right), padded with
//! zeroed leaves to a power of two. What is signed is tag, 2, root. The tags keep ids, leaves, inner
//! nodes and signed messages apart, so that none can stand for another (as in RFC 6962, 2.1).

use std::fmt;
use std::sync::Arc;

use super::{InvalidTransaction, TransactionId};

/// Maximum number of transactions under one signature.
pub const MAX_BATCH: usize = 64;
/// Levels of the largest tree.
const MAX_DEPTH: usize = MAX_BATCH.ilog2() as usize;
const TAG: &[u8; 16] = b"sorcha-peer/mt\x00\x01";
const LEAF: u8 = 0;
const NODE: u8 = 1;
const ROOT: u8 = 2;

type Hash = [u8; 32];

/// Proof that the origin published a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signature {
    /// None: accepted only where the network's policy has signatures off.
    None,
    /// Ed25519 by the origin over the 32 bytes of the id.
    Ed25519([u8; 64]),
    /// Ed25519 by the origin over the root of a tree in which the id is a leaf.
    Batch(BatchSignature),
}

impl Signature {
    /// The bytes that travel and are stored: none, 64, or up to 257 for one of a batch.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Ed25519(bytes) => bytes,
            Self::Batch(batch) => &batch.0,
        }
    }

    /// Reads what [`Signature::as_bytes`] gave. Whether it is right is for
    /// [`Transaction::verify`](super::Transaction::verify) to say.
    ///
    /// # Errors
    /// [`InvalidTransaction::Signature`] for a length that no signature has, or an index outside
    /// its tree.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidTransaction> {
        match bytes.len() {
            0 => Ok(Self::None),
            64 => bytes.try_into().map(Self::Ed25519).map_err(|_| InvalidTransaction::Signature),
            _ => BatchSignature::from_bytes(bytes).map(Self::Batch),
        }
    }

    /// Returns what was signed and by which signature; `None` where there is none.
    pub(crate) fn signed(&self, id: &TransactionId) -> Option<Signed> {
        match self {
            Self::None => None,
            Self::Ed25519(signature) => {
                Some(Signed { message: Message::Id(*id.as_bytes()), signature: *signature })
            }
            Self::Batch(batch) => {
                let message = Message::Root(root_message(&batch.root(id)));
                Some(Signed { message, signature: batch.signature() })
            }
        }
    }
}

/// Signature over the root of a batch, with the path from one id to that root.
///
/// Bytes: signature (64), index of the leaf (1), siblings from the leaf upwards (32 each, 1 to 6).
#[derive(Clone, PartialEq, Eq)]
pub struct BatchSignature(Arc<[u8]>);

impl BatchSignature {
    /// Bytes before the path.
    const FIXED: usize = 64 + 1;

    fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidTransaction> {
        let bad = InvalidTransaction::Signature;
        let path = bytes.get(Self::FIXED..).ok_or(bad)?;
        let depth = path.len() / 32;
        let whole = path.len().is_multiple_of(32) && (1..=MAX_DEPTH).contains(&depth);
        if whole && usize::from(bytes[64]) < 1 << depth { Ok(Self(bytes.into())) } else { Err(bad) }
    }

    /// The Ed25519 signature over the root; the same for the whole batch.
    pub fn signature(&self) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(&self.0[..64]);
        out
    }

    /// The index of the transaction in its batch.
    pub fn index(&self) -> u8 {
        self.0[64]
    }

    /// The root of the tree that has `id` at this index.
    fn root(&self, id: &TransactionId) -> Hash {
        let mut hash = leaf(id);
        let mut index = self.index();
        for sibling in self.0[Self::FIXED..].chunks_exact(32) {
            hash = if index & 1 == 0 { node(&hash, sibling) } else { node(sibling, &hash) };
            index >>= 1;
        }
        hash
    }
}

impl fmt::Debug for BatchSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depth = (self.0.len() - Self::FIXED) / 32;
        f.debug_struct("BatchSignature")
            .field("index", &self.index())
            .field("depth", &depth)
            .finish_non_exhaustive()
    }
}

/// Bytes that an origin signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed {
    message: Message,
    pub(crate) signature: [u8; 64],
}

#[derive(Debug, Clone, Copy)]
enum Message {
    Id(Hash),
    Root([u8; 49]),
}

impl Signed {
    /// The signed bytes.
    pub(crate) fn message(&self) -> &[u8] {
        match &self.message {
            Message::Id(id) => id,
            Message::Root(root) => root,
        }
    }

    /// Reports whether other transactions carry the same signature, so that remembering it pays.
    #[cfg(feature = "node")]
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.message, Message::Root(_))
    }
}

/// Signs `ids` together: one signature each, in the same order.
///
/// # Panics
/// When there are fewer than 2 ids or more than [`MAX_BATCH`].
pub(crate) fn sign_batch(
    ids: &[TransactionId],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Vec<Signature> {
    assert!((2..=MAX_BATCH).contains(&ids.len()), "a batch of {}", ids.len());
    let width = ids.len().next_power_of_two();
    let mut leaves: Vec<Hash> = ids.iter().map(leaf).collect();
    leaves.resize(width, [0; 32]);
    let mut levels = vec![leaves];
    while let Some(below) = levels.last().filter(|level| level.len() > 1) {
        let above = below.chunks_exact(2).map(|pair| node(&pair[0], &pair[1])).collect();
        levels.push(above);
    }
    let root = levels.pop().unwrap_or_default();
    let signature = sign(&root_message(&root[0]));
    let one = |index: usize| {
        let mut bytes = Vec::with_capacity(BatchSignature::FIXED + 32 * levels.len());
        bytes.extend_from_slice(&signature);
        bytes.push(u8::try_from(index).unwrap_or(u8::MAX));
        for (height, level) in levels.iter().enumerate() {
            bytes.extend_from_slice(&level[(index >> height) ^ 1]);
        }
        Signature::Batch(BatchSignature(bytes.into()))
    };
    (0..ids.len()).map(one).collect()
}

fn root_message(root: &Hash) -> [u8; 49] {
    let mut out = [0; 49];
    out[..16].copy_from_slice(TAG);
    out[16] = ROOT;
    out[17..].copy_from_slice(root);
    out
}

fn leaf(id: &TransactionId) -> Hash {
    let mut bytes = [0; 49];
    bytes[..16].copy_from_slice(TAG);
    bytes[16] = LEAF;
    bytes[17..].copy_from_slice(id.as_bytes());
    *blake3::hash(&bytes).as_bytes()
}

fn node(left: &[u8], right: &[u8]) -> Hash {
    let mut bytes = [0; 81];
    bytes[..16].copy_from_slice(TAG);
    bytes[16] = NODE;
    bytes[17..49].copy_from_slice(left);
    bytes[49..].copy_from_slice(right);
    *blake3::hash(&bytes).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u8) -> Vec<TransactionId> {
        (0..count).map(|n| TransactionId::from_bytes([n; 32])).collect()
    }

    /// Every id's signed message, for a batch of `count`.
    fn messages(count: u8) -> Vec<Vec<u8>> {
        let ids = ids(count);
        let signatures = sign_batch(&ids, |_| [7; 64]);
        let message = |(id, s): (&TransactionId, &Signature)| {
            let read = Signature::from_bytes(s.as_bytes()).unwrap();
            assert_eq!(&read, s);
            read.signed(id).unwrap().message().to_vec()
        };
        ids.iter().zip(&signatures).map(message).collect()
    }

    #[test]
    fn every_path_of_every_size_leads_to_the_signed_root() {
        for count in 2..=64 {
            let mut signed = Vec::new();
            sign_batch(&ids(count), |message| {
                signed = message.to_vec();
                [0; 64]
            });
            assert!(messages(count).iter().all(|m| *m == signed), "{count} ids");
        }
    }

    #[test]
    fn the_tree_is_locked() {
        let digest = blake3::hash(&messages(3)[0]).to_hex();
        assert_eq!(&digest[..16], "117e5df069e6a2e7");
    }

    #[test]
    fn another_id_index_or_sibling_leads_elsewhere() {
        let ids = ids(5);
        let signatures = sign_batch(&ids, |_| [7; 64]);
        let right = signatures[2].signed(&ids[2]).unwrap().message().to_vec();
        assert_ne!(signatures[2].signed(&ids[3]).unwrap().message(), right);
        for at in [64, 65, 96, 97, 160] {
            let mut bytes = signatures[2].as_bytes().to_vec();
            bytes[at] ^= 1;
            let changed = Signature::from_bytes(&bytes).unwrap();
            assert_ne!(changed.signed(&ids[2]).unwrap().message(), right, "byte {at}");
        }
    }

    #[test]
    fn an_inner_node_never_passes_for_a_leaf() {
        // The id that equals the bytes of an inner node, proven by the path of that node.
        let ids = ids(4);
        let signatures = sign_batch(&ids, |_| [7; 64]);
        let inner = TransactionId::from_bytes(node(&leaf(&ids[0]), &leaf(&ids[1])));
        let mut shorter = signatures[0].as_bytes()[..65].to_vec();
        shorter.extend_from_slice(&signatures[0].as_bytes()[97..]);
        let forged = Signature::from_bytes(&shorter).unwrap();
        let right = signatures[0].signed(&ids[0]).unwrap();
        assert_ne!(forged.signed(&inner).unwrap().message(), right.message());
    }

    #[test]
    fn impossible_lengths_and_indexes_are_refused() {
        for length in (1..64).chain(65..97).chain([98, 128, 65 + 32 * 7, 1000]) {
            assert!(Signature::from_bytes(&vec![0; length]).is_err(), "{length} bytes");
        }
        let mut outside = vec![0; 65 + 64];
        outside[64] = 3;
        assert!(Signature::from_bytes(&outside).is_ok());
        outside[64] = 4;
        assert!(Signature::from_bytes(&outside).is_err());
    }
}
