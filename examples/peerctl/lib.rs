//! Tests of the program's own modules: Cargo builds an example as a program, and does not test it. The
//! program itself is the example `peerctl`.
#![cfg(test)]
#![expect(dead_code, reason = "the program uses all of it")]

mod answers;
mod args;
mod client;
mod commands;
mod events;
mod explain;
mod failure;
mod form;
#[cfg(unix)]
mod screen;
mod sparkline;
mod table;
mod tables;
mod units;
mod watch;
