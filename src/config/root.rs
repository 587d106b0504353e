//! The whole configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

use super::Trust;
use super::compat::CompatConfig;
pub use super::invite::Invite;
use super::nat::NatConfig;
pub use super::secret::NetworkSecret;
use super::sections::{
    ConnectionConfig, DiscoveryConfig, GossipConfig, LimitsConfig, ListenConfig, LivenessConfig,
    MINUTE, MessagesConfig, NetworkConfig, OutboxConfig, OverlayConfig,
};

/// Configuration of a node: one section per concern. It is read once, when the node starts.
///
/// In TOML each field is a table: `[gossip]`, `[outbox]`, …; what is left out has its default, and an
/// unknown name is an error:
///
/// ```toml
/// [network]
/// name = "orders-prod"
///
/// [listen]
/// address = "0.0.0.0:5001"
/// advertise = ["peer1.example.com:5001"]
///
/// [discovery]
/// bootstrap = ["peer0.example.com:5001"] # port 5001 where none is given
///
/// [gossip]
/// retention = "6h" # default 1h
/// ```
///
/// The crate `toml` reads that (`toml::from_str`), serde everything alike. Whatever it comes from, it is
/// checked when the node starts:
///
/// ```
/// use sorcha_peer::Config;
/// let mut config = Config::default();
/// assert!(config.validate().is_ok());
/// config.discovery.max_peers = 3;
/// let error = config.validate().unwrap_err().to_string();
/// assert_eq!(error, "discovery.max_peers is 3, allowed is 10 to 10000");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The network, and who may join.
    pub network: NetworkConfig,
    /// The address of the node, and what it tells others of it.
    pub listen: ListenConfig,
    /// Finding peers.
    pub discovery: DiscoveryConfig,
    /// The number of links, and how soon a lost one is replaced.
    pub overlay: OverlayConfig,
    /// Noticing peers that are dead or take nothing.
    pub liveness: LivenessConfig,
    /// Dialling peers.
    pub connection: ConnectionConfig,
    /// Topics that are carried, and how transactions spread.
    pub gossip: GossipConfig,
    /// Own transactions until others have them.
    pub outbox: OutboxConfig,
    /// Requests to single peers, and those of peers.
    pub messages: MessagesConfig,
    /// Memory of the node.
    pub limits: LimitsConfig,
    /// Learning where this node can be reached, and having others do something for that.
    pub nat: NatConfig,
    /// Service for clients of the original system.
    pub compat: CompatConfig,
}

impl Config {
    /// Preset for one site with quick, reliable links: dead peers are noticed within 6 s instead of 46 s
    /// and peers are asked for peers every minute.
    pub fn lan() -> Self {
        let mut config = Self::default();
        config.liveness.interval = Duration::from_secs(2);
        config.liveness.timeout = Duration::from_secs(2);
        config.discovery.refresh_interval = MINUTE;
        config.overlay.redial_min = Duration::from_millis(200);
        config.overlay.redial_max = Duration::from_secs(10);
        config
    }

    /// Reports whether linked peers are told what became of transactions here.
    #[cfg_attr(not(feature = "node"), allow(dead_code))]
    pub(crate) fn explains(&self) -> bool {
        self.messages.explain.unwrap_or(self.network.trust != Trust::Open)
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`ConfigError`] for the first field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.network.validate()?;
        self.listen.validate()?;
        self.discovery.validate()?;
        self.overlay.validate()?;
        self.liveness.validate()?;
        self.connection.validate()?;
        self.gossip.validate()?;
        self.outbox.validate()?;
        self.messages.validate()?;
        self.nat.validate()?;
        self.validate_memory()?;
        self.compat.validate(&self.network)?;
        let may = !self.network.plaintext || self.network.allow_plaintext_beyond_loopback;
        let mut listening = [self.listen.address, self.listen.http].into_iter().flatten();
        match listening.find(|address| !may && !address.ip().is_loopback()) {
            Some(address) => Err(ConfigError::PlaintextBeyondLoopback { address }),
            None => Ok(()),
        }
    }
}
