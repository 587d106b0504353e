//! Nodes over real sockets on the loopback interface, as a host has them.

mod common;

#[cfg(all(feature = "admin", feature = "compat"))]
mod admin;
mod bad_input;
#[cfg(feature = "metrics")]
mod collector;
#[cfg(feature = "turn")]
#[path = "../../src/nat/turn/tests/coturn_process.rs"]
mod coturn_process;
#[cfg(feature = "rest")]
#[path = "../transport/cutting_path.rs"]
mod cutting_path;
mod explain;
mod forward_proxy;
mod goaway;
mod handover;
#[cfg(feature = "health")]
mod health;
#[path = "../store/hooked_queue.rs"]
mod hooked_queue;
mod hostile;
#[path = "../transport/http_proxy.rs"]
mod http_proxy;
#[cfg(feature = "websocket")]
mod ingress;
mod ipv6;
mod ladder;
mod lifecycle;
mod members;
mod membership;
#[cfg(feature = "sqlite")]
mod memory;
mod messages;
#[cfg(feature = "mdns")]
mod nearby;
mod outbox;
mod past;
mod publish_many;
mod quality;
#[cfg(feature = "sqlite")]
mod quota;
#[cfg(feature = "stun")]
mod reachability;
mod refusals;
#[cfg(feature = "sqlite")]
mod repeat;
#[cfg(feature = "sqlite")]
mod republish;
#[cfg(feature = "rest")]
mod requests;
#[cfg(feature = "compat")]
mod rest;
#[cfg(feature = "sqlite")]
mod spill;
mod spread;
mod start_at_now;
mod statistics;
#[cfg(feature = "stun")]
#[path = "../transport/stun_server.rs"]
mod stun_server;
mod thin;
#[cfg(feature = "sqlite")]
mod topics;
mod traces;
#[cfg(feature = "turn")]
mod turn;
mod validators;
