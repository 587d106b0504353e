//! Interest of a node in topics, in few bytes.

use serde::{Deserialize, Serialize};

use super::{PeerId, Topic};

/// Maximum number of topics that are told apart in an [`Interest`]; who wants more is taken to want everything.
pub const MAX_INTERESTS: usize = 256;

/// Maximum length of a way to a relay, in links.
pub const MAX_DEPTH: u8 = 8;

/// Depth of a node that knows no way to a relay.
pub const NOWHERE: u8 = MAX_DEPTH + 1;

/// Key that stands for a topic: the first 8 bytes of BLAKE3 over its name.
///
/// Two topics may share one, by chance once in 2^64 pairs. Then who wants one of them is sent both,
/// and nothing else follows from it: what a subscriber gets is decided by the name. The
/// representation, a number of 64 bits, is stable: it travels on the wire and stands in stores.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TopicKey(pub u64);

impl TopicKey {
    /// Key of a topic.
    pub fn of(topic: &Topic) -> Self {
        let hash = blake3::hash(topic.as_str().as_bytes());
        let (first, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
        Self(u64::from_le_bytes(*first))
    }
}

/// Interest of a node: the topics that it wants, and its distance from a relay. The default is that of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interest {
    /// The number of links to the nearest relay: 0 is a relay, [`NOWHERE`] knows none within [`MAX_DEPTH`].
    pub depth: u8,
    /// True: the nearest relay is an edge that stands in for one (`makeshift` on the wire).
    pub makeshift: bool,
    /// [`Interest::short`] of the peer that is next on the way there; 0 where there is none.
    pub via: u64,
    /// The topics wanted, in rising order, at most [`MAX_INTERESTS`]; `None` is everything.
    pub topics: Option<Vec<TopicKey>>,
}

impl Interest {
    /// Name of a peer in `via`.
    pub fn short(peer: &PeerId) -> u64 {
        let (first, _) = peer.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
        u64::from_le_bytes(*first)
    }

    /// Reports whether this is a relay by configuration.
    pub fn is_relay(&self) -> bool {
        self.depth == 0 && !self.makeshift
    }

    /// Reports whether a topic is wanted.
    pub fn wants(&self, topic: TopicKey) -> bool {
        self.topics.as_ref().is_none_or(|topics| topics.binary_search(&topic).is_ok())
    }

    /// Reports whether something is wanted that `other` does not want.
    pub fn exceeds(&self, other: &Self) -> bool {
        match (&self.topics, &other.topics) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(topics), _) => topics.iter().any(|topic| !other.wants(*topic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_the_name_alone_and_is_locked() {
        let key = |name: &str| TopicKey::of(&Topic::new(name).unwrap());
        assert_eq!(key("orders"), key("orders"));
        assert_ne!(key("orders"), key("order"));
        assert_eq!(key("orders"), TopicKey(0x9640_0321_0ac9_6ed8));
    }

    #[test]
    fn more_is_wanted_only_where_the_other_does_not_want_it() {
        let some = |topics: &[u64]| Interest {
            topics: Some(topics.iter().map(|t| TopicKey(*t)).collect()),
            ..Interest::default()
        };
        let all = Interest::default();
        assert!(all.exceeds(&some(&[1])) && !some(&[1]).exceeds(&all) && !all.exceeds(&all));
        assert!(some(&[1, 2]).exceeds(&some(&[1])) && !some(&[2]).exceeds(&some(&[1, 2])));
        assert!(all.wants(TopicKey(9)) && some(&[9]).wants(TopicKey(9)));
        assert!(!some(&[8]).wants(TopicKey(9)));
    }
}
