//! The `peer` example as a program: real processes, real sockets, real files.
#![cfg(unix)]

mod peer;

mod crash;
#[cfg(target_os = "linux")]
mod disk;
mod peer_program;
mod swarm;
