//! Settings that are one of a few words.

use serde::{Deserialize, Serialize};

/// Setting that is worked out unless it is given. Exhaustive on purpose: there is no third way to
/// set a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "AutoRepr", into = "AutoRepr")]
pub enum Auto {
    /// Worked out by the node. In TOML: `"auto"`.
    #[default]
    Auto,
    /// Fixed to this number.
    Fixed(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum AutoRepr {
    Fixed(u32),
    Word(AutoWord),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AutoWord {
    Auto,
}

impl From<AutoRepr> for Auto {
    fn from(repr: AutoRepr) -> Self {
        match repr {
            AutoRepr::Fixed(value) => Self::Fixed(value),
            AutoRepr::Word(AutoWord::Auto) => Self::Auto,
        }
    }
}

impl From<Auto> for AutoRepr {
    fn from(auto: Auto) -> Self {
        match auto {
            Auto::Fixed(value) => Self::Fixed(value),
            Auto::Auto => Self::Word(AutoWord::Auto),
        }
    }
}

/// Part of a node in carrying topics: whether it stores, offers and passes on all of them or some.
///
/// Reach is kept by relays: they carry everything and keep links with each other, and edges hang off
/// relays, or off other edges that are nearer to one and then carry what those behind them want. What
/// an edge publishes goes to its relay whatever the topic. An edge that finds no way to a relay for 4
/// to 8 s stands in for one and carries everything, until it finds a way again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// A relay carries every topic.
    #[default]
    Relay,
    /// An edge carries the topics that it has live subscriptions for, those in
    /// [`GossipConfig::topics`](super::GossipConfig::topics), and those that peers behind it want.
    /// More than 256 topics are everything.
    Edge,
}

/// Policy on signatures of transactions. All nodes of a network must have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SignaturePolicy {
    /// An unsigned transaction is a violation.
    #[default]
    Required,
    /// Signatures are optional; for a mesh whose members trust each other.
    Off,
}

/// Policy on addresses that others tell: which of them are stored and dialled. What the host configured is
/// always dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AddressPolicy {
    /// Public addresses from anybody; private ones only from peers that are themselves reached at
    /// a private or loopback address; loopback ones only from peers reached over loopback.
    #[default]
    Auto,
    /// Public addresses only.
    Public,
    /// Anything that can be dialled.
    Any,
}
