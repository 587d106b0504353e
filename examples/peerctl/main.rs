//! A node's admin listener from a terminal.
//!
//! ```text
//! $ cargo run --release --example peer -- --admin 127.0.0.1:5090
//! $ cargo run --example peerctl -- --admin http://127.0.0.1:5090 status
//! Degraded: 2 of 5 healthy peers; 2 refused: wrong network
//! …
//! $ cargo run --example peerctl -- --admin http://127.0.0.1:5090 explain c1…
//! $ cargo run --example peerctl -- --admin http://127.0.0.1:5090 watch
//! ```
//!
//! Every answer has three forms: tables on a terminal, `key=value` lines elsewhere (whole ids, raw
//! figures), and with `--json` what the node said. One file for each concern:
//!
//! * `args` is the command line, `commands` does what it asks for, `failure` is how that can end.
//! * `client` speaks HTTP, `answers` is what the node answers.
//! * `tables` says what is shown of an answer; `form`, `table` and `units` write it.
//! * `explain` draws the life of a transaction, `events` reads the stream of events.
//! * `watch` draws figures once a second, `sparkline` their course, `screen` is the terminal for that.

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

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::run(&args::Args::parse()) {
        Ok(status) => status,
        Err(failure) => failure.tell(),
    }
}
