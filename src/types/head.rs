//! A transaction without its payload: what travels ahead of large ones.

use bytes::Bytes;
use ed25519_dalek::VerifyingKey;

use super::transaction::{check_signature, verify_signed};
use super::{
    Header, InvalidTransaction, Signature, Signed, TraceContext, Transaction, TransactionId,
};

/// Header with the signature of its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    id: TransactionId,
    header: Header,
    bytes: Bytes,
    signature: Signature,
    trace: Option<TraceContext>,
}

impl Head {
    /// The head of a transaction.
    pub fn of(transaction: &Transaction) -> Self {
        Self {
            id: transaction.id(),
            header: transaction.header().clone(),
            bytes: transaction.header_bytes().clone(),
            signature: transaction.signature().clone(),
            trace: transaction.trace(),
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
        Ok(Self { id, header, bytes, signature, trace: None })
    }

    /// The id: BLAKE3 of the header bytes.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header's canonical bytes.
    pub fn header_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the signature.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Trace context that goes with the transaction, outside of what is signed.
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    /// The same with another trace context.
    #[must_use]
    pub fn with_trace(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }

    /// The transaction with its payload, whose hash is left to [`Transaction::verify`].
    ///
    /// # Errors
    /// [`InvalidTransaction::Length`] when the payload has another length than the header says.
    pub fn with_payload(self, payload: Bytes) -> Result<Transaction, InvalidTransaction> {
        let transaction = Transaction::from_parts(self.bytes, self.signature, payload)?;
        Ok(transaction.with_trace(self.trace))
    }

    /// Checks the signature; `require_signature` is the network's policy.
    ///
    /// # Errors
    /// [`InvalidTransaction::Unsigned`] or [`InvalidTransaction::Signature`].
    pub fn verify(&self, require_signature: bool) -> Result<(), InvalidTransaction> {
        self.verify_with(require_signature, |signed| {
            VerifyingKey::from_bytes(self.header.origin.as_bytes())
                .is_ok_and(|key| verify_signed(&key, signed))
        })
    }

    /// [`Head::verify`] with another way to check what is signed.
    pub(crate) fn verify_with(
        &self,
        require_signature: bool,
        check: impl FnOnce(&Signed) -> bool,
    ) -> Result<(), InvalidTransaction> {
        check_signature(&self.id, &self.signature, require_signature, check)
    }
}
