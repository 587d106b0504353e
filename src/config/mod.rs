//! Configuration: one section per concern, every default and range in one place.
//!
//! All sections derive serde; durations are written as `"30s"`, `"15m"` or `"1h 30m"`.
//! [`Config::validate`] is called by the builder; an out-of-range value is an error that names
//! the field, the value and the range, never a silent correction.

mod choice;
mod memory;
mod ranges;
pub(crate) mod root;
mod sections;
#[cfg(test)]
mod tests;

pub use choice::{AddressPolicy, Auto, Role, SignaturePolicy, Trust};
pub(crate) use memory::Shares;
#[cfg_attr(not(feature = "node"), allow(unused_imports))]
pub(crate) use root::Config;
pub use sections::{
    ConnectionConfig, DiscoveryConfig, GossipConfig, LimitsConfig, ListenConfig, LivenessConfig,
    NetworkConfig, OutboxConfig, OverlayConfig,
};
