//! Service for clients of the original system.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ranges::within;
use super::sections::{KIB, MIB};
use super::{NetworkConfig, Trust};
use crate::error::ConfigError;
use crate::types::MAX_TOPIC_BYTES;

/// Section `[compat]`: service for clients of the original system, on the port that peers use, in a build
/// with the feature `compat`.
///
/// Such a client proves no key, so whoever reaches the port may list peers, read what is retained and
/// publish in this node's name, within the limits below. The guide's page on compatibility says what is
/// served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CompatConfig {
    /// True: such clients are served. Default false.
    pub enabled: bool,
    /// Topic that an empty `register_id` stands for where something is published. Default `"default"`, 1 to
    /// 255 bytes.
    pub default_topic: String,
    /// True: such clients are served also where [`NetworkConfig::trust`] is not open, although they prove
    /// nothing. Default false: then the node does not start.
    pub allow_anonymous: bool,
    /// Maximum number of clients that are registered as peers. Default 1000, range 10 to 10000.
    pub max_peers: u32,
    /// Number of requests that one address may make in a minute. Default 1000, range 1 to 1,000,000.
    pub max_requests_per_minute: u32,
    /// Number of bytes that one address may send and be sent in a minute. Default 100 MiB, range 1 MiB to 1 TiB.
    pub max_bytes_per_minute: u64,
    /// Number of transactions that one address may publish, or have fetched, in a minute. Default 100, range 1
    /// to 1,000,000.
    pub max_transactions_per_minute: u32,
    /// PEM file with the certificate that such clients are shown, then those between it and its CA. Default none:
    /// a self-made one. Peers never accept it.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the key of that certificate. Default none.
    pub key_file: Option<PathBuf>,
    /// True: registered clients are told of new transactions. Default true.
    pub notify: bool,
}

impl Default for CompatConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            default_topic: "default".to_owned(),
            allow_anonymous: false,
            max_peers: 1000,
            max_requests_per_minute: 1000,
            max_bytes_per_minute: 100 * MIB,
            max_transactions_per_minute: 100,
            certificate_file: None,
            key_file: None,
            notify: true,
        }
    }
}

impl CompatConfig {
    pub(super) fn validate(&self, network: &NetworkConfig) -> Result<(), ConfigError> {
        let topic = self.default_topic.len();
        within("compat.default_topic (bytes)", topic, 1..=MAX_TOPIC_BYTES)?;
        within("compat.max_peers", self.max_peers, 10..=10_000)?;
        let (requests, transactions) =
            (self.max_requests_per_minute, self.max_transactions_per_minute);
        within("compat.max_requests_per_minute", requests, 1..=1_000_000)?;
        let bytes = self.max_bytes_per_minute;
        within("compat.max_bytes_per_minute", bytes, MIB..=1024 * KIB * MIB)?;
        within("compat.max_transactions_per_minute", transactions, 1..=1_000_000)?;
        match (&self.certificate_file, &self.key_file) {
            (Some(_), None) => return Err(ConfigError::CompatCertificate { missing: "key_file" }),
            (None, Some(_)) => {
                return Err(ConfigError::CompatCertificate { missing: "certificate_file" });
            }
            _ => {}
        }
        if !self.enabled {
            return Ok(());
        }
        if !cfg!(feature = "compat") {
            return Err(ConfigError::CompatNotBuilt);
        }
        match network.trust {
            Trust::Open => Ok(()),
            _ if self.allow_anonymous => Ok(()),
            _ => Err(ConfigError::CompatAnonymous),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    #[cfg(feature = "compat")]
    use super::Trust;

    fn error_of(spoil: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        config.compat.enabled = true;
        spoil(&mut config);
        config.validate().map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    #[cfg(feature = "compat")]
    fn anonymous_clients_of_a_closed_network_are_asked_for() {
        let closed = || Trust::secret_file("network.secret");
        assert_eq!(error_of(|_| {}), "");
        let error = error_of(|c| c.network.trust = closed());
        assert!(error.contains("compat.allow_anonymous"), "{error}");
        let allowed = error_of(|c| {
            c.network.trust = closed();
            c.compat.allow_anonymous = true;
        });
        assert_eq!(allowed, "");
    }

    #[test]
    #[cfg(not(feature = "compat"))]
    fn a_build_without_the_feature_says_so() {
        let error = error_of(|_| {});
        assert!(error.contains("feature `compat`"), "{error}");
    }

    #[test]
    fn a_certificate_comes_with_its_key() {
        let error = error_of(|c| c.compat.certificate_file = Some("a.pem".into()));
        assert!(error.contains("compat.key_file"), "{error}");
        let error = error_of(|c| c.compat.key_file = Some("a.pem".into()));
        assert!(error.contains("compat.certificate_file"), "{error}");
    }
}
