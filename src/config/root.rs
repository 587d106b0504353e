//! The whole configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

use super::sections::{
    ConnectionConfig, DiscoveryConfig, GossipConfig, ListenConfig, LivenessConfig, MINUTE,
    NetworkConfig, OutboxConfig, OverlayConfig,
};

/// The whole configuration of a node.
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
    /// Which network, and who may join.
    pub network: NetworkConfig,
    /// Where the node listens and what it advertises.
    pub listen: ListenConfig,
    /// How peers are found.
    pub discovery: DiscoveryConfig,
    /// How many links are kept.
    pub overlay: OverlayConfig,
    /// How dead peers are noticed.
    pub liveness: LivenessConfig,
    /// How peers are dialled.
    pub connection: ConnectionConfig,
    /// How transactions spread.
    pub gossip: GossipConfig,
    /// How own transactions are kept until others have them.
    pub outbox: OutboxConfig,
}

impl Config {
    /// For one site with quick, reliable links: dead peers are noticed within 6 s instead of 65 s
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
        match self.listen.address {
            Some(addr)
                if self.network.plaintext
                    && !addr.ip().is_loopback()
                    && !self.network.allow_plaintext_beyond_loopback =>
            {
                Err(ConfigError::PlaintextBeyondLoopback { address: addr })
            }
            _ => Ok(()),
        }
    }
}
