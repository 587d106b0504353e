//! Ways to learn what lies between this node and its peers.

#[cfg(feature = "mdns")]
mod mdns;
#[cfg(feature = "stun")]
mod stun;
#[cfg(feature = "turn")]
#[allow(dead_code)]
mod turn;

#[cfg(feature = "mdns")]
pub(crate) use mdns::Mdns;
#[cfg(feature = "stun")]
pub use stun::StunProber;
#[cfg(feature = "turn")]
#[allow(unused_imports)]
pub(crate) use turn::relay;
