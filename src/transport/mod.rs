//! The transports that come with the crate, one adapter each.
//!
//! | transport | feature | identity | carries |
//! |---|---|---|---|
//! | `GrpcTransport` | `grpc` | mutual TLS 1.3, Ed25519 | one gRPC stream per connection; by way of a proxy, a pipe in one, in which the TLS runs |
//! | [`MemoryNetwork::transport`] | – | given by the test | a channel inside this process |
//!
//! Each passes the suite in [`crate::testing::transport()`], as should a transport of your own.

#[cfg(feature = "grpc")]
mod ca;
mod channel;
#[cfg(feature = "grpc")]
mod connect;
#[cfg(feature = "grpc")]
mod exchange;
#[cfg(feature = "grpc")]
mod failure;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "grpc")]
mod guest_certificate;
#[cfg(feature = "health")]
mod health;
mod memory;
#[cfg(feature = "grpc")]
mod metered;
#[cfg(feature = "compat")]
mod outbound;
#[cfg(feature = "grpc")]
mod outer;
#[cfg(feature = "grpc")]
mod pipe;
#[cfg(feature = "grpc")]
mod port;
#[cfg(feature = "grpc")]
mod race;
#[cfg(feature = "turn")]
mod relay_way;
#[cfg(feature = "grpc")]
#[cfg_attr(not(feature = "turn"), allow(dead_code))]
mod relays;
#[cfg(feature = "grpc")]
mod shared;
#[cfg(feature = "grpc")]
mod tcp;
#[cfg(feature = "grpc")]
mod tls;
#[cfg(feature = "websocket")]
mod websocket;

#[cfg(feature = "grpc")]
pub use grpc::{GrpcOptions, GrpcTransport};
pub use memory::MemoryNetwork;
#[cfg(feature = "compat")]
pub(crate) use outbound::{Http2, Outbound};
#[cfg(all(feature = "grpc", feature = "stun"))]
pub(crate) use outer::tls_to_anybody;
#[cfg(feature = "compat")]
pub(crate) use port::{Guest, Visitor};
#[cfg(feature = "turn")]
pub(crate) use relay_way::RelayWay;
#[cfg(feature = "turn")]
pub(crate) use relays::{Relay, Relays};
#[cfg(feature = "turn")]
pub(crate) use tcp::Stream as RelayStream;
