//! Single cores: each test says, message by message, what the peers of one core say. Whole networks
//! are tested by the simulator (`src/sim/tests`).

mod addresses;
mod admission;
mod budget;
mod clocks;
mod gates;
mod greedy;
mod handover;
mod ladder;
mod liars;
mod members;
mod messages;
mod nearby;
mod news;
mod outbox;
mod pair;
mod past;
mod probes;
mod property;
mod quality;
mod reachability;
mod refusals;
mod single_node;
mod statistics;
mod thin;
mod trail;

use std::time::Duration;

const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

const fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
