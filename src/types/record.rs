//! Peer record: where a peer can be dialled, signed by that peer.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::{Endpoint, MAX_ENDPOINTS, PeerId, WallTime};

const TAG: &[u8; 16] = b"sorcha-peer/rec\x01";

/// Time for which a record is believed after it was issued, in milliseconds: 24 h.
pub const RECORD_LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;

/// Content of a record before it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordDraft {
    /// The peer whose record it is.
    pub peer: PeerId,
    /// The number that rises with every new record of the peer; a lower number never replaces a higher.
    pub seq: u64,
    /// The time at which it was issued, by the peer's clock.
    pub issued: WallTime,
    /// The addresses at which the peer can be dialled, best first; empty for a peer that only dials out.
    pub endpoints: Vec<Endpoint>,
}

impl RecordDraft {
    /// The bytes that are signed: domain tag, peer, seq, issued, endpoint count, then each
    /// endpoint as text with a 16-bit length. Integers little-endian.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(65 + 32 * self.endpoints.len());
        out.put_slice(TAG);
        out.put_slice(self.peer.as_bytes());
        out.put_u64_le(self.seq);
        out.put_u64_le(self.issued.as_millis());
        out.put_u8(u8::try_from(self.endpoints.len()).unwrap_or(u8::MAX));
        for endpoint in &self.endpoints {
            let text = endpoint.to_string();
            out.put_u16_le(u16::try_from(text.len()).unwrap_or(u16::MAX));
            out.put_slice(text.as_bytes());
        }
        out.freeze()
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        if take(&mut bytes)? != *TAG {
            return None;
        }
        let peer = PeerId::from_bytes(take(&mut bytes)?);
        let seq = u64::from_le_bytes(take(&mut bytes)?);
        let issued = WallTime::from_millis(u64::from_le_bytes(take(&mut bytes)?));
        let [count] = take(&mut bytes)?;
        let mut endpoints = Vec::new();
        for _ in 0..count {
            let length = usize::from(u16::from_le_bytes(take(&mut bytes)?));
            let (text, rest) = bytes.split_at_checked(length)?;
            endpoints.push(Endpoint::parse_signed(std::str::from_utf8(text).ok()?).ok()?);
            bytes = rest;
        }
        bytes.is_empty().then_some(Self { peer, seq, issued, endpoints })
    }

    /// The record that `sign` makes of this by signing [`RecordDraft::to_bytes`].
    pub fn sign_with(self, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> PeerRecord {
        let signature = sign(&self.to_bytes());
        PeerRecord { draft: self, signature }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

/// Peer record: where a peer can be dialled, signed by that peer. Heard from anybody, believed only when
/// [`PeerRecord::verify`] agrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Content of the record.
    pub(crate) draft: RecordDraft,
    /// Ed25519 by the peer itself over [`RecordDraft::to_bytes`].
    pub(crate) signature: [u8; 64],
}

impl PeerRecord {
    /// The peer whose record it is.
    pub fn peer(&self) -> PeerId {
        self.draft.peer
    }

    /// The number that rises with every new record of the peer.
    pub fn seq(&self) -> u64 {
        self.draft.seq
    }

    /// The addresses at which the peer can be dialled, best first.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.draft.endpoints
    }

    /// Where to dial, best first: the addresses in the one spelling that is compared, each once. What is
    /// signed keeps the spelling of its subject.
    pub(crate) fn places(&self) -> Vec<Endpoint> {
        let mut places: Vec<Endpoint> = Vec::with_capacity(self.draft.endpoints.len());
        for endpoint in &self.draft.endpoints {
            let place = endpoint.to_canonical();
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// The bytes in which a peer store may keep it: what is signed, then the signature (64).
    pub fn to_bytes(&self) -> Vec<u8> {
        [&*self.draft.to_bytes(), &self.signature].concat()
    }

    /// Reads what [`PeerRecord::to_bytes`] gave; `None` for any other bytes. Whether the subject has
    /// signed it is for [`PeerRecord::verify`] to say.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (draft, signature) = bytes.split_last_chunk()?;
        Some(Self { draft: RecordDraft::from_bytes(draft)?, signature: *signature })
    }

    /// Reports whether the subject itself signed this record, and the record names no more than 16
    /// addresses.
    pub fn verify(&self) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(self.draft.peer.as_bytes()) else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        self.draft.endpoints.len() <= MAX_ENDPOINTS
            && key.verify_strict(&self.draft.to_bytes(), &signature).is_ok()
    }

    /// Reports whether the record may still be passed on at `now`: not expired, and not issued
    /// further ahead than `skew`.
    pub(crate) fn is_current(&self, now: WallTime, skew: Duration) -> bool {
        let issued = self.draft.issued;
        issued <= now.plus(skew) && now <= issued.plus(Duration::from_millis(RECORD_LIFETIME_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn a_record_is_read_as_it_was_written_and_not_otherwise() {
        for texts in [&[][..], &["peer.example.com:1"], &["[::1]:9", "10.0.0.1:5001"]] {
            let endpoints = texts.iter().map(|text| text.parse().unwrap()).collect();
            let peer = PeerId::from_bytes([7; 32]);
            let draft = RecordDraft { peer, seq: 3, issued: WallTime::from_millis(9), endpoints };
            let record = draft.sign_with(|_| [5; 64]);
            let bytes = record.to_bytes();
            assert_eq!(PeerRecord::from_bytes(&bytes), Some(record));
            for end in 0..bytes.len() {
                assert_eq!(PeerRecord::from_bytes(&bytes[..end]), None, "{end} bytes");
            }
            assert_eq!(PeerRecord::from_bytes(&[&bytes[..], &[0]].concat()), None);
        }
    }

    /// A node of an earlier version may have signed an IPv4-mapped address.
    #[test]
    fn a_mapped_address_is_dialled_as_what_it_is_and_still_signed() {
        let identity = Identity::from_seed([7; 32]);
        let signed = |text| Endpoint::parse_signed(text).unwrap();
        let endpoints = vec![signed("[::ffff:10.0.0.1]:9"), signed("10.0.0.1:9"), signed("h:1")];
        let (peer, issued) = (identity.peer_id(), WallTime::from_millis(9));
        let record = identity.sign_record(RecordDraft { peer, seq: 3, issued, endpoints });
        let record = PeerRecord::from_bytes(&record.to_bytes()).unwrap();
        assert!(record.verify());
        assert_eq!(record.places(), ["10.0.0.1:9".parse().unwrap(), "h:1".parse().unwrap()]);
    }
}
