//! The stores of the crate, alone and below a node that meets nobody.

#[cfg(feature = "node")]
mod hooked;
mod hooked_queue;

mod conformance;
#[cfg(feature = "node")]
mod faults;
#[cfg(all(unix, feature = "node", feature = "sqlite"))]
mod files;
#[cfg(feature = "node")]
mod hanging;
#[cfg(all(feature = "node", feature = "sqlite"))]
mod subscriptions;
mod wrong;
