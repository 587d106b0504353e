//! The transports and the STUN prober, without a node above them.

#[cfg(feature = "grpc")]
mod ca;
#[cfg(feature = "grpc")]
mod certificates;
#[cfg(feature = "grpc")]
mod common;
#[cfg(feature = "grpc")]
mod connect;
#[cfg(feature = "rest")]
mod cutting_path;
#[cfg(feature = "rest")]
mod exchange;
#[cfg(feature = "rest")]
mod exchange_by_hand;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "grpc")]
mod http_proxy;
#[cfg(feature = "grpc")]
mod ipv6;
mod memory;
#[cfg(feature = "grpc")]
mod port;
#[cfg(feature = "grpc")]
mod raw_grpc;
#[cfg(feature = "grpc")]
mod rungs;
#[cfg(feature = "stun")]
mod stun;
#[cfg(feature = "stun")]
mod stun_server;
#[cfg(feature = "websocket")]
mod websocket;
mod wrong;
