//! The peer record: where a peer can be dialled, signed by that peer.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::{Endpoint, MAX_ENDPOINTS, PeerId, WallTime};

const TAG: &[u8; 16] = b"sorcha-peer/rec\x01";

/// How long a record is believed after it was issued: 24 h.
pub const RECORD_LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;

/// The content of a record before it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordDraft {
    /// Whose record it is.
    pub peer: PeerId,
    /// Rises with every new record of the peer; a lower number never replaces a higher.
    pub seq: u64,
    /// When it was issued, by the peer's clock.
    pub issued: WallTime,
    /// Where the peer can be dialled, best first; empty for a peer that only dials out.
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
}

/// A record with its subject's signature. Heard from anybody, believed only when
/// [`PeerRecord::verify`] agrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// What is said.
    pub draft: RecordDraft,
    /// Ed25519 by the peer itself over [`RecordDraft::to_bytes`].
    pub signature: [u8; 64],
}

impl PeerRecord {
    /// Whose record it is.
    pub fn peer(&self) -> PeerId {
        self.draft.peer
    }

    /// Whether the subject itself signed this, and it names no more than [`MAX_ENDPOINTS`].
    pub fn verify(&self) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(self.draft.peer.as_bytes()) else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        self.draft.endpoints.len() <= MAX_ENDPOINTS
            && key.verify_strict(&self.draft.to_bytes(), &signature).is_ok()
    }

    /// Whether it may still be passed on at `now`: not expired, and not issued further ahead
    /// than `skew`.
    pub fn is_current(&self, now: WallTime, skew: Duration) -> bool {
        let issued = self.draft.issued;
        issued <= now.plus(skew) && now <= issued.plus(Duration::from_millis(RECORD_LIFETIME_MS))
    }
}
