//! A transaction without its payload: what travels ahead of large ones.

use bytes::Bytes;
use ed25519_dalek::VerifyingKey;

use super::transaction::check_signature;
use super::{Header, InvalidTransaction, PeerId, Signature, Transaction, TransactionId};

/// A header with the signature of its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    id: TransactionId,
    header: Header,
    bytes: Bytes,
    signature: Signature,
}

impl Head {
    /// The head of a transaction.
    pub fn of(transaction: &Transaction) -> Self {
        Self {
            id: transaction.id(),
            header: transaction.header().clone(),
            bytes: transaction.header_bytes().clone(),
            signature: transaction.signature(),
        }
    }

    /// Reads the canonical bytes of a header. The id is computed, never believed; the signature is
    /// left to [`Head::verify`].
    ///
    /// # Errors
    /// [`InvalidTransaction::Header`] when the header is malformed.
    pub fn from_parts(bytes: Bytes, signature: Signature) -> Result<Self, InvalidTransaction> {
        let header = Header::from_bytes(&bytes)?;
        let id = TransactionId::from_bytes(*blake3::hash(&bytes).as_bytes());
        Ok(Self { id, header, bytes, signature })
    }

    /// The id: BLAKE3 of the header bytes.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header's canonical bytes.
    pub fn header_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The signature.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The transaction with its payload, whose hash is left to [`Transaction::verify`].
    ///
    /// # Errors
    /// [`InvalidTransaction::Length`] when the payload has another length than the header says.
    pub fn with_payload(self, payload: Bytes) -> Result<Transaction, InvalidTransaction> {
        Transaction::from_parts(self.bytes, self.signature, payload)
    }

    /// Checks the signature; `require_signature` is the network's policy.
    ///
    /// # Errors
    /// [`InvalidTransaction::Unsigned`] or [`InvalidTransaction::Signature`].
    pub fn verify(&self, require_signature: bool) -> Result<(), InvalidTransaction> {
        self.verify_with(require_signature, |origin| {
            VerifyingKey::from_bytes(origin.as_bytes()).ok()
        })
    }

    /// [`Head::verify`] with a cache of parsed keys.
    pub(crate) fn verify_with(
        &self,
        require_signature: bool,
        key_of: impl FnOnce(PeerId) -> Option<VerifyingKey>,
    ) -> Result<(), InvalidTransaction> {
        check_signature(&self.id, self.header.origin, &self.signature, require_signature, key_of)
    }
}
