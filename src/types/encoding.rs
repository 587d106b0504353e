//! A transaction as bytes, for hosts that keep a prepared one.
//!
//! Layout (integers little-endian): 16-byte tag whose last byte is the version, id (32), header length
//! (2), header, signature length (2), signature, payload. The id is there so that a change of the
//! header shows also where there is no signature.

use bytes::{BufMut, Bytes, BytesMut};

use super::{InvalidTransaction, Signature, Transaction};

const TAG: &[u8; 15] = b"sorcha-peer/txb";
const VERSION: u8 = 1;
const ID: usize = 32;

impl Transaction {
    /// The bytes under which a host may keep the transaction, in a file or a table, to publish it
    /// later: `PeerNode::publish_prepared` takes what [`Transaction::from_bytes`] makes of them.
    /// The encoding is at most 700 bytes longer than the payload, and later versions of the crate
    /// read it.
    pub fn to_bytes(&self) -> Bytes {
        let (header, signature) = (self.header_bytes(), self.signature().as_bytes());
        let fixed = TAG.len() + 1 + ID + 4;
        let length = fixed + header.len() + signature.len() + self.payload().len();
        let mut out = BytesMut::with_capacity(length);
        out.put_slice(TAG);
        out.put_u8(VERSION);
        out.put_slice(self.id().as_bytes());
        for part in [header, signature] {
            // Neither is longer than a few hundred bytes.
            debug_assert!(u16::try_from(part.len()).is_ok());
            out.put_u16_le(u16::try_from(part.len()).unwrap_or(u16::MAX));
            out.put_slice(part);
        }
        out.put_slice(self.payload());
        out.freeze()
    }

    /// Reads what [`Transaction::to_bytes`] gave. The id, the hash of the payload and the signature
    /// are checked; only a transaction without a signature is taken as it is, since whether it needs
    /// one is a matter of the network ([`Transaction::verify`]). The payload is not copied.
    ///
    /// Hashes the payload on the calling thread, at 2 to 11 GB a second: call it on a blocking thread
    /// where payloads are large.
    ///
    /// # Errors
    /// [`InvalidTransaction`] naming the first thing that is wrong; no retry helps.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, InvalidTransaction> {
        let mut rest = bytes;
        if *take(&mut rest, TAG.len())? != TAG[..] {
            return Err(InvalidTransaction::Encoding);
        }
        let found = take(&mut rest, 1)?[0];
        if found != VERSION {
            return Err(InvalidTransaction::Version { found });
        }
        let id = take(&mut rest, ID)?;
        let header = take_part(&mut rest)?;
        let signature = Signature::from_bytes(&take_part(&mut rest)?)?;
        let transaction = Self::from_parts(header, signature, rest)?;
        if transaction.id().as_bytes()[..] != *id {
            return Err(InvalidTransaction::Id);
        }
        transaction.verify(false)?;
        Ok(transaction)
    }
}

/// Takes a part that stands behind its length.
fn take_part(rest: &mut Bytes) -> Result<Bytes, InvalidTransaction> {
    let length = take(rest, 2)?;
    take(rest, usize::from(u16::from_le_bytes([length[0], length[1]])))
}

fn take(rest: &mut Bytes, length: usize) -> Result<Bytes, InvalidTransaction> {
    if rest.len() < length {
        return Err(InvalidTransaction::Encoding);
    }
    Ok(rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Header, PeerId, Topic, WallTime, sign_batch};
    use ed25519_dalek::{Signer, SigningKey};

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn part(n: u8) -> (Header, Bytes) {
        let payload = Bytes::from(vec![n; 20 * usize::from(n)]);
        let origin = PeerId::from_bytes(key().verifying_key().to_bytes());
        let (created, expires) = (WallTime::from_millis(5), WallTime::from_millis(9));
        let topic = Topic::new("orders").unwrap();
        (Header::new(topic, origin, created, expires, &payload), payload)
    }

    fn unsigned(n: u8) -> Transaction {
        let (header, payload) = part(n);
        Transaction::new(header, Signature::None, payload).unwrap()
    }

    fn all() -> Vec<Transaction> {
        let sign = |message: &[u8]| key().sign(message).to_bytes();
        let with = |t: &Transaction, signature| {
            Transaction::new(t.header().clone(), signature, t.payload().clone()).unwrap()
        };
        let batch: Vec<_> = (0..3).map(unsigned).collect();
        let ids: Vec<_> = batch.iter().map(Transaction::id).collect();
        let alone = with(&unsigned(1), Signature::Ed25519(sign(unsigned(1).id().as_bytes())));
        let signed = batch.iter().zip(sign_batch(&ids, sign)).map(|(t, s)| with(t, s));
        [unsigned(0), unsigned(2), alone].into_iter().chain(signed).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        for transaction in all() {
            let back = Transaction::from_bytes(transaction.to_bytes()).unwrap();
            assert_eq!((&back, back.header()), (&transaction, transaction.header()));
        }
    }

    #[test]
    fn less_and_more_are_refused() {
        for transaction in all() {
            let bytes = transaction.to_bytes();
            for end in 0..bytes.len() {
                let error = Transaction::from_bytes(bytes.slice(..end)).unwrap_err();
                let expected = matches!(
                    error,
                    InvalidTransaction::Encoding | InvalidTransaction::Length { .. }
                );
                assert!(expected, "{end} bytes: {error}");
            }
            let more = Bytes::from([&bytes[..], &[0]].concat());
            let error = Transaction::from_bytes(more).unwrap_err();
            assert!(matches!(error, InvalidTransaction::Length { .. }), "{error}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for transaction in all() {
            let bytes = transaction.to_bytes();
            for bit in 0..8 * bytes.len() {
                let mut changed = bytes.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(Transaction::from_bytes(changed.into()).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn an_unknown_version_is_named_and_the_layout_is_locked() {
        let bytes = unsigned(1).to_bytes();
        let mut newer = bytes.to_vec();
        newer[15] = 2;
        let error = Transaction::from_bytes(newer.into()).unwrap_err();
        assert_eq!(error, InvalidTransaction::Version { found: 2 });
        assert_eq!(&blake3::hash(&bytes).to_hex()[..16], "44b582039d8ff0a5");
    }
}
