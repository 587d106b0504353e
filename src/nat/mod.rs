//! Ways to learn what lies between this node and its peers.

#[cfg(feature = "stun")]
mod stun;
#[cfg(feature = "turn")]
mod turn;

#[cfg(feature = "stun")]
pub use stun::StunProber;
#[cfg(feature = "turn")]
pub(crate) use turn::relay;
