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
//! [`Scenario`] names networks that are ready to run; the `sim` example prints their reports. A
//! host builds its own like this:
//!
//! ```
//! use std::time::Duration;
//! use sorcha_peer::sim::{Disk, Latency, Loss, NodeOptions, Topology, World, WorldConfig};
//!
//! let mut nodes = vec![NodeOptions::default(); 8];
//! nodes.push(NodeOptions::hidden()); // behind NAT
//! nodes.push(NodeOptions::skewed(30_000)); // its clock is half a minute fast
//! let config = WorldConfig::new(42, 0)
//!     .topology(Topology::Random(4))
//!     .latency(Latency::Regions)
//!     .uplink(50_000_000 / 8)
//!     .loss(Loss { delay: 10_000, duplicate: 10_000, ..Loss::default() });
//! let mut world = World::with_nodes(config, nodes);
//! world.run_for(Duration::from_secs(10));
//!
//! world.vanish(3, Disk::Lost); // nobody is told
//! let id = world.publish(0, "orders", b"one widget");
//! world.run_for(Duration::from_secs(1));
//! world.start(3);
//! let everywhere = world.run_until(|w| w.holders(&id) == 10, Duration::from_secs(60));
//! assert!(everywhere, "{:?}", world.report());
//! assert!(world.report().faults.frames_delayed > 0, "the fault really struck");
//! world.assert_clean();
//! ```
//!
//! Feature `sim`; not covered by semantic versioning.

pub mod check;
mod config;
mod id_map;
mod link_id;
mod node_set;
mod report;
mod rng;
mod scenario;
mod scenario_run;
#[cfg(test)]
mod tests;
mod world;

pub use config::{
    Behaviour, Filter, Latency, Loss, NodeOptions, Obstacle, Proxies, Rung, Topology, Verification,
    WorldConfig,
};
pub use report::{Faults, Quantiles, Report};
pub use scenario::{Hops, Scenario, ScenarioConfig, ScenarioReport, UnknownScenario};
pub use world::{Delivery, Disk, Handler, World};
