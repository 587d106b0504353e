//! Peer record: where a peer can be dialled, signed by that peer.

use std::borrow::Cow;
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
        let texts: Vec<_> = self.endpoints.iter().map(|e| Cow::Owned(e.to_string())).collect();
        self.bytes_with(&texts)
    }

    fn bytes_with(&self, texts: &[Cow<'_, str>]) -> Bytes {
        let mut out = BytesMut::with_capacity(65 + 32 * texts.len());
        out.put_slice(TAG);
        out.put_slice(self.peer.as_bytes());
        out.put_u64_le(self.seq);
        out.put_u64_le(self.issued.as_millis());
        out.put_u8(u8::try_from(texts.len()).unwrap_or(u8::MAX));
        for text in texts {
            out.put_u16_le(u16::try_from(text.len()).unwrap_or(u16::MAX));
            out.put_slice(text.as_bytes());
        }
        out.freeze()
    }

    /// The record that `sign` makes of this by signing [`RecordDraft::to_bytes`].
    pub fn sign_with(self, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> PeerRecord {
        let signature = sign(&self.to_bytes());
        PeerRecord { draft: self, spelled: None, signature }
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
    /// Content of the record, as far as this version reads it.
    pub(crate) draft: RecordDraft,
    /// The endpoints as they are signed, where they are spelled otherwise than here, or some of them are of a
    /// form that this version does not know.
    spelled: Option<Box<[String]>>,
    /// Ed25519 by the peer itself over [`RecordDraft::to_bytes`], with the endpoints as it spelled them.
    pub(crate) signature: [u8; 64],
}

impl PeerRecord {
    /// The record with these endpoints. A text that this version does not know is kept, since it is signed, and
    /// otherwise passed over. `None`: a text holds what no endpoint ever will.
    pub(crate) fn read(
        peer: PeerId,
        seq: u64,
        issued: WallTime,
        texts: &[&str],
        signature: [u8; 64],
    ) -> Option<Self> {
        let fits = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !texts.iter().all(fits) {
            return None;
        }
        let endpoints: Vec<Endpoint> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        let is_as_here = endpoints.len() == texts.len()
            && endpoints.iter().zip(texts).all(|(endpoint, text)| endpoint.to_string() == *text);
        let spelled = (!is_as_here).then(|| texts.iter().map(|&text| text.to_owned()).collect());
        let draft = RecordDraft { peer, seq, issued, endpoints };
        Some(Self { draft, spelled, signature })
    }

    /// The endpoints as they are signed.
    pub(crate) fn texts(&self) -> Vec<Cow<'_, str>> {
        match &self.spelled {
            Some(texts) => texts.iter().map(|text| Cow::Borrowed(text.as_str())).collect(),
            None => self.draft.endpoints.iter().map(|e| Cow::Owned(e.to_string())).collect(),
        }
    }

    fn signed_bytes(&self) -> Bytes {
        self.draft.bytes_with(&self.texts())
    }

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

    /// Where to dial, best first: each address once, and whoever it says must answer there, the subject
    /// must.
    pub(crate) fn places(&self) -> Vec<Endpoint> {
        let mut places: Vec<Endpoint> = Vec::with_capacity(self.draft.endpoints.len());
        for endpoint in &self.draft.endpoints {
            let place = endpoint.with_pin(None);
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// The bytes in which a peer store may keep it: what is signed, then the signature (64).
    pub fn to_bytes(&self) -> Vec<u8> {
        [&*self.signed_bytes(), &self.signature].concat()
    }

    /// Reads what [`PeerRecord::to_bytes`] gave; `None` for any other bytes. Whether the subject has
    /// signed it is for [`PeerRecord::verify`] to say.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (mut bytes, signature) = bytes.split_last_chunk()?;
        if take(&mut bytes)? != *TAG {
            return None;
        }
        let peer = PeerId::from_bytes(take(&mut bytes)?);
        let seq = u64::from_le_bytes(take(&mut bytes)?);
        let issued = WallTime::from_millis(u64::from_le_bytes(take(&mut bytes)?));
        let [count] = take(&mut bytes)?;
        let mut texts = Vec::new();
        for _ in 0..count {
            let length = usize::from(u16::from_le_bytes(take(&mut bytes)?));
            let (text, rest) = bytes.split_at_checked(length)?;
            texts.push(std::str::from_utf8(text).ok()?);
            bytes = rest;
        }
        let record = Self::read(peer, seq, issued, &texts, *signature)?;
        bytes.is_empty().then_some(record)
    }

    /// Reports whether the subject itself signed this record, and the record names no more than 16
    /// addresses.
    pub fn verify(&self) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(self.draft.peer.as_bytes()) else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        self.texts().len() <= MAX_ENDPOINTS
            && key.verify_strict(&self.signed_bytes(), &signature).is_ok()
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

    /// A node of another version may spell an address in another way, or know forms that this one does not.
    #[test]
    fn what_is_not_known_is_passed_over_and_still_signed() {
        let identity = Identity::from_seed([7; 32]);
        let (peer, issued) = (identity.peer_id(), WallTime::from_millis(9));
        let pinned = format!("h:1#{peer}");
        let texts =
            ["[::ffff:10.0.0.1]:9", "quic://h:1", "10.0.0.1:9", "https://h:443/", "h:1", &pinned];
        let signed = RecordDraft { peer, seq: 3, issued, endpoints: Vec::new() }
            .bytes_with(&texts.map(Cow::Borrowed));
        let record = PeerRecord::read(peer, 3, issued, &texts, identity.sign(&signed)).unwrap();
        let again = PeerRecord::from_bytes(&record.to_bytes()).unwrap();
        assert_eq!(again, record);
        assert!(again.verify());
        assert_eq!(again.texts(), texts);
        let places: Vec<_> = again.places().iter().map(ToString::to_string).collect();
        assert_eq!(places, ["10.0.0.1:9", "https://h", "h:1"]);
        let mut other = record;
        other.spelled = None;
        assert!(!other.verify());
        for wrong in ["", " h:1", "h:1\n", "h\u{e9}:1", "h:1\u{7f}"] {
            assert_eq!(PeerRecord::read(peer, 3, issued, &[wrong], [0; 64]), None, "{wrong:?}");
        }
    }
}
