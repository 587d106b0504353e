//! A virtual network for the protocol: many nodes in one thread, simulated time, faults on demand.
//!
//! Every node runs the real [`Protocol`](crate::protocol::Protocol) with a real identity and real
//! signatures; links, disks and clocks are simulated. There is no task, no socket and no clock in
//! here: a run is a pure function of its [`WorldConfig`] and of the calls made on the [`World`], so
//! a failure is reproduced by its seed.
//!
//! Frames travel in order on each direction of a link, share their node's uplink one after the
//! other, and wait when more than 1 MiB is on its way. A partition holds frames back, as TCP does,
//! until it heals or the nodes give the link up. A crash keeps or loses the disk.
//!
//! Everything that nodes are given and do is shown to the [checkers](check), and each fault is
//! counted where it really struck: see [`World::report`].
//!
//! Feature `sim`; not covered by semantic versioning.

mod act;
pub mod check;
mod config;
mod dice;
mod digest;
mod faults;
mod flow;
mod ids;
mod net;
mod node;
mod places;
mod queue;
mod report;
pub mod reservations;
mod scenario;
mod spread;
mod stage;
mod store;
mod tamper;
#[cfg(test)]
mod tests;
mod world;

pub use config::{Behaviour, Latency, Loss, NodeOptions, Topology, Verification, WorldConfig};
pub use faults::Disk;
pub use node::Delivery;
pub use report::{Faults, Quantiles, Report};
pub use scenario::{Hops, Scenario, ScenarioConfig, ScenarioReport, UnknownScenario};
pub use world::World;
