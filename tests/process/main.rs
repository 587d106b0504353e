//! The examples `peer`, `peerctl` and `quickstart` as programs: real processes, real sockets, real files.
#![cfg(unix)]

mod curl_lines;
mod peer;

mod accounts;
mod admin;
mod bootstrap;
mod chat;
mod clients;
#[cfg(target_os = "linux")]
mod clock;
mod compat;
mod crash;
#[cfg(target_os = "linux")]
mod disk;
mod explain;
mod ipv6;
mod logs;
mod members;
#[cfg(target_os = "linux")]
mod memory;
mod messages;
#[cfg(target_os = "linux")]
mod natlab;
#[cfg(all(target_os = "linux", feature = "mdns"))]
mod nearby;
mod page;
mod peer_program;
mod peerctl;
mod quickstart;
mod reachability;
#[path = "../transport/stun_server.rs"]
mod stun_server;
mod swarm;
