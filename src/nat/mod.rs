//! Ways to learn what lies between this node and its peers.

#[cfg(feature = "stun")]
mod stun;

#[cfg(feature = "stun")]
pub use stun::StunProber;
