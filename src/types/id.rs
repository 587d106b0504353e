//! Ids and names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{MAX_TOPIC_BYTES, hex};

/// Reason why a text is not an id, a name or an invite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// The text is not exactly 64 hexadecimal digits.
    #[error("expected 64 hexadecimal digits, got {length} bytes that are not")]
    NotHex {
        /// Length of the text in bytes.
        length: usize,
    },
    /// The topic name is longer than 255 bytes.
    #[error("topic of {length} bytes is longer than {limit}")]
    TopicTooLong {
        /// Length of the name in bytes.
        length: usize,
        /// The limit it exceeds.
        limit: usize,
    },
    /// The topic name is empty.
    #[error("the topic is empty: give it a name of 1 to 255 bytes")]
    EmptyTopic,
    /// The text is no invite: it does not begin with `sorcha:`.
    #[error("an invite begins with \"sorcha:\"")]
    InvitePrefix,
    /// The invite is longer than any can be.
    #[error("an invite of {length} bytes is longer than {limit}")]
    InviteTooLong {
        /// Length of the text in bytes.
        length: usize,
        /// The limit it exceeds.
        limit: usize,
    },
    /// Characters of the invite are missing, added or changed.
    #[error("the invite is damaged: copy it again, whole")]
    InviteDamaged,
    /// The invite was made by a newer version of this crate, in a way that this one does not know.
    #[error("the invite is of version {version}, known is {known}")]
    InviteVersion {
        /// Version of the invite.
        version: u8,
        /// Newest version that is known.
        known: u8,
    },
    /// A part of the invite is missing, there too often, or not what it should be.
    #[error("the invite has no usable {part}")]
    InvitePart {
        /// Part that is wrong: network, peer, address or secret.
        part: &'static str,
    },
}

macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps 32 raw bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first eight hex digits, for logs read by people.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex::write(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "("))?;
                hex::write(&self.0[..4], f)?;
                f.write_str("…)")
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                hex::parse32(text).map(Self).ok_or(ParseIdError::NotHex { length: text.len() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id32! {
    /// The identity of a peer: its 32-byte Ed25519 public key, shown as 64 hex digits.
    ///
    /// ```
    /// use sorcha_peer::PeerId;
    /// let id: PeerId = "11".repeat(32).parse()?;
    /// assert_eq!(id.as_bytes(), &[0x11; 32]);
    /// assert!("11".parse::<PeerId>().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    PeerId
}

impl PeerId {
    /// Reports whether this peer signed `message`, as `Identity::sign` does: what a transport of
    /// the host's own needs to have a peer prove its id. A key that no peer can have proves
    /// nothing.
    ///
    /// ```
    /// use sorcha_peer::Identity;
    /// let identity = Identity::generate()?;
    /// let signature = identity.sign(b"my-protocol/hello");
    /// assert!(identity.peer_id().verify(b"my-protocol/hello", &signature));
    /// assert!(!identity.peer_id().verify(b"my-protocol/other", &signature));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        // Strict: a key of small order would "sign" anything.
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

id32! {
    /// The identity of a transaction: BLAKE3 of its header bytes, so it commits to topic,
    /// origin, times, length and payload hash. Shown as 64 hex digits.
    TransactionId
}

/// The name of a topic: 1 to 255 bytes of UTF-8.
///
/// Cheap to clone; compares and orders by its text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks the length and makes a topic.
    ///
    /// # Errors
    /// [`ParseIdError::EmptyTopic`] for no byte, [`ParseIdError::TopicTooLong`] above 255.
    pub fn new(name: &str) -> Result<Self, ParseIdError> {
        if name.is_empty() {
            return Err(ParseIdError::EmptyTopic);
        }
        Self::of_header(name)
    }

    /// Makes a topic of what a header says. Without a name too: earlier versions published so.
    pub(crate) fn of_header(name: &str) -> Result<Self, ParseIdError> {
        if name.len() > MAX_TOPIC_BYTES {
            return Err(ParseIdError::TopicTooLong { length: name.len(), limit: MAX_TOPIC_BYTES });
        }
        Ok(Self(Arc::from(name)))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?})", &*self.0)
    }
}

impl FromStr for Topic {
    type Err = ParseIdError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A position in a node's own transaction log. Cursors rise in the order of acceptance; they mean
/// nothing on another node. Continuing *after* a cursor misses nothing and repeats nothing. The
/// representation, a number of 64 bits, is stable: hosts may store it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Cursor(pub u64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_as_hex_in_both_cases() {
        let id = PeerId::from_bytes(std::array::from_fn(|i| u8::try_from(i * 7 % 256).unwrap()));
        assert_eq!(id.to_string().parse::<PeerId>().unwrap(), id);
        assert_eq!(id.to_string().to_uppercase().parse::<PeerId>().unwrap(), id);
        assert_eq!(id.to_string().len(), 64);
        assert_eq!(
            serde_json::from_str::<PeerId>(&serde_json::to_string(&id).unwrap()).unwrap(),
            id
        );
    }

    #[test]
    fn bad_ids_are_refused_without_panic() {
        for text in ["", "zz", &"g".repeat(64), &"é".repeat(32), &"0".repeat(65)] {
            assert!(text.parse::<TransactionId>().is_err(), "{text}");
        }
    }

    #[test]
    fn signatures_prove_an_id_and_weak_keys_prove_nothing() {
        let identity = crate::Identity::from_seed([3; 32]);
        let signature = identity.sign(b"hello");
        assert!(identity.peer_id().verify(b"hello", &signature));
        assert!(!identity.peer_id().verify(b"hullo", &signature));
        assert!(!identity.peer_id().verify(b"hello", &[0; 64]));
        assert!(!crate::Identity::from_seed([4; 32]).peer_id().verify(b"hello", &signature));
        // The neutral element as key and as R, with s = 0, satisfies the equation for any message.
        let mut neutral = [0; 64];
        neutral[0] = 1;
        let weak = PeerId::from_bytes(*neutral.first_chunk().unwrap());
        assert!(!weak.verify(b"anything", &neutral));
    }

    #[test]
    fn topics_are_bounded() {
        assert_eq!(Topic::new(""), Err(ParseIdError::EmptyTopic));
        assert!(Topic::of_header("").is_ok());
        assert!(Topic::new(&"t".repeat(255)).is_ok());
        assert!(Topic::new(&"t".repeat(256)).is_err());
    }
}
