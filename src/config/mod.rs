//! Configuration: one section per concern, every default and range in one place.
//!
//! All sections derive serde; durations are written as `"30s"`, `"15m"` or `"1h 30m"`.
//! [`Config::validate`] is called by the builder; an out-of-range value is an error that names
//! the field, the value and the range, never a silent correction.

mod choice;
mod compat;
mod invite;
#[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(dead_code))]
mod memory;
mod nat;
mod proxy;
mod ranges;
mod relay;
pub(crate) mod root;
#[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(dead_code))]
mod secret;
mod sections;
#[cfg(test)]
mod tests;
mod trust;

pub use choice::{AddressPolicy, Auto, Role, SignaturePolicy};
pub use compat::CompatConfig;
#[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(unused_imports))]
pub(crate) use memory::Shares;
pub use nat::NatConfig;
#[cfg_attr(not(all(feature = "node", feature = "grpc")), allow(unused_imports))]
pub(crate) use proxy::{Proxy, of_environment, without_credentials};
#[cfg_attr(not(feature = "turn"), allow(unused_imports))]
pub(crate) use relay::RelayServer;
#[cfg_attr(not(feature = "node"), allow(unused_imports))]
pub(crate) use root::{Config, Invite, NetworkSecret};
#[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(unused_imports))]
pub(crate) use secret::Claim;
pub use sections::{
    ConnectionConfig, DiscoveryConfig, GossipConfig, LimitsConfig, ListenConfig, LivenessConfig,
    MessagesConfig, NetworkConfig, OutboxConfig, OverlayConfig,
};
pub use trust::Trust;
