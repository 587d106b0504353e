//! Ways to learn what lies between this node and its peers.

// Without a node nobody asks.
#![cfg_attr(not(feature = "node"), allow(dead_code, unused_imports))]

#[cfg(feature = "stun")]
mod behaviour;
#[cfg(all(feature = "stun", feature = "grpc"))]
mod http_lookup;
#[cfg(feature = "stun")]
mod interfaces;
#[cfg(feature = "mdns")]
mod mdns;
#[cfg(feature = "stun")]
mod message;
#[cfg(feature = "stun")]
mod outside;
#[cfg(feature = "port-mapping")]
mod port_mapping;
#[cfg(feature = "stun")]
mod query;
#[cfg(feature = "stun")]
mod stun;
#[cfg(feature = "stun")]
mod tcp_mapping;
#[cfg(all(test, feature = "stun"))]
mod tests;
#[cfg(feature = "turn")]
mod turn;

#[cfg(feature = "stun")]
pub(crate) use behaviour::classify;
#[cfg(all(feature = "stun", feature = "grpc"))]
pub use http_lookup::HttpProber;
#[cfg(feature = "stun")]
pub(crate) use interfaces::addresses;
#[cfg(feature = "mdns")]
pub(crate) use mdns::Mdns;
#[cfg(feature = "stun")]
pub(crate) use outside::{Family, StunServer};
#[cfg(feature = "port-mapping")]
pub(crate) use port_mapping::{Mappings, PortMapper};
#[cfg(feature = "stun")]
pub(crate) use query::mapped;
#[cfg(feature = "stun")]
pub use stun::StunProber;
#[cfg(feature = "stun")]
pub(crate) use tcp_mapping::mapped as tcp_mapped;
#[cfg(feature = "turn")]
pub(crate) use turn::{Drops, relay};
