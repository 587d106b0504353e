//! The range of every setting.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::ConfigError;
use crate::types::{
    AddressScope, Endpoint, MAX_INTERESTS, MAX_NETWORK_BYTES, MAX_TOPIC_BYTES, PIECE_BYTES,
    TransportKind,
};

use super::choice::Auto;
use super::proxy::{Proxy, check_rules};
use super::sections::{
    ConnectionConfig, DiscoveryConfig, GossipConfig, KIB, ListenConfig, LivenessConfig, MIB,
    MINUTE, MessagesConfig, NetworkConfig, OutboxConfig, OverlayConfig,
};

const DAY: Duration = Duration::from_hours(24);

impl NetworkConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("network.name (bytes)", self.name.len(), 1..=MAX_NETWORK_BYTES)?;
        within_span("network.max_clock_skew", self.max_clock_skew, secs(1)..=secs(3600))?;
        self.trust.validate(self.plaintext)
    }
}

impl ListenConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("listen.advertise (entries)", self.advertise.len(), 0..=16)?;
        within("listen.max_handshakes", self.max_handshakes, 1..=65_536)?;
        within("listen.max_handshakes_per_ip", self.max_handshakes_per_ip, 1..=65_536)?;
        let unusable = |e: &&Endpoint| e.port() == 0 || e.scope() == AddressScope::Unusable;
        match self.advertise.iter().find(unusable) {
            Some(endpoint) => Err(ConfigError::Advertise { endpoint: endpoint.to_string() }),
            None => self.validate_admin(),
        }
    }

    fn validate_admin(&self) -> Result<(), ConfigError> {
        within("listen.admin_hosts (entries)", self.admin_hosts.len(), 0..=16)?;
        if let Some(token) = &self.admin_token {
            within("listen.admin_token (characters)", token.chars().count(), 16..=256)?;
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ConfigError::AdminToken);
            }
        }
        if let Some(host) = self.admin_hosts.iter().find(|host| !is_host(host)) {
            return Err(ConfigError::AdminHost { host: host.clone() });
        }
        let Some(address) = self.admin else { return Ok(()) };
        if !cfg!(feature = "admin") {
            return Err(ConfigError::AdminNotBuilt);
        }
        if self.admin_token.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(ConfigError::AdminBeyondLoopback { address });
        }
        Ok(())
    }
}

impl DiscoveryConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within_span("discovery.refresh_interval", self.refresh_interval, MINUTE..=secs(86_400))?;
        within("discovery.max_peers", self.max_peers, 10..=10_000)?;
        within("discovery.min_healthy_peers", self.min_healthy_peers, 1..=100)?;
        within("discovery.unhealthy_after", self.unhealthy_after, 1..=100)?;
        within("discovery.forget_after", self.forget_after, self.unhealthy_after..=100)?;
        within("discovery.max_concurrent", self.max_concurrent, 1..=50)?;
        if self.mdns && !cfg!(feature = "mdns") {
            return Err(ConfigError::MdnsNotBuilt);
        }
        Ok(())
    }
}

impl OverlayConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("overlay.dial_target", self.dial_target, 1..=15)?;
        within("overlay.min_links", self.min_links, self.dial_target..=63)?;
        within("overlay.max_inbound", self.max_inbound, 0..=112)?;
        within_span("overlay.redial_min", self.redial_min, millis(10)..=secs(60))?;
        within_span("overlay.redial_max", self.redial_max, self.redial_min..=secs(3600))
    }
}

impl LivenessConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within_span("liveness.interval", self.interval, millis(50)..=secs(3600))?;
        within_span("liveness.timeout", self.timeout, millis(50)..=secs(120))?;
        within("liveness.max_missed", self.max_missed, 1..=10)?;
        within_span("liveness.slow_after", self.slow_after, secs(1)..=secs(3600))
    }
}

impl ConnectionConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within_span("connection.connect_timeout", self.connect_timeout, secs(5)..=secs(120))?;
        within_span(
            "connection.handshake_timeout",
            self.handshake_timeout,
            millis(100)..=secs(60),
        )?;
        let mut named = BTreeSet::new();
        for kind in &self.transports {
            let (field, value) = ("connection.transports", kind.to_string());
            if matches!(kind, TransportKind::Memory | TransportKind::Custom) {
                let (min, max) = ("grpc-stream".to_owned(), "rest".to_owned());
                return Err(ConfigError::OutOfRange { field, value, min, max });
            }
            if !named.insert(kind) {
                return Err(ConfigError::Repeated { field, value });
            }
        }
        within("connection.max_retries", self.max_retries, 1..=10)?;
        within_span("connection.retry_delay", self.retry_delay, secs(1)..=secs(60))?;
        within("connection.breaker_threshold", self.breaker_threshold, 3..=20)?;
        within_span("connection.breaker_reset", self.breaker_reset, MINUTE..=30 * MINUTE)?;
        within_span("connection.upgrade_interval", self.upgrade_interval, secs(10)..=DAY)?;
        if let Some(age) = self.max_link_age {
            within_span("connection.max_link_age", age, MINUTE..=DAY)?;
        }
        match &self.proxy {
            Some(url) => Proxy::new(url, &self.no_proxy).map(drop),
            None => check_rules(&self.no_proxy),
        }
    }
}

impl GossipConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within_auto("gossip.fanout", self.fanout, 2..=20)?;
        within_auto("gossip.rounds", self.rounds, 1..=10)?;
        within_auto("gossip.ttl", self.ttl, 1..=64)?;
        within_span("gossip.retention", self.retention, secs(300)..=30 * DAY)?;
        within("gossip.max_transaction_size", self.max_transaction_size, KIB..=1024 * MIB)?;
        within("gossip.max_origin_share", self.max_origin_share, 1..=100)?;
        within("gossip.max_origin_rate", self.max_origin_rate, 0..=60_000_000)?;
        within("gossip.eager_limit", self.eager_limit, 0..=PIECE_BYTES as u64)?;
        within("gossip.max_spill_bytes", self.max_spill_bytes, 0..=1024 * KIB * MIB)?;
        within("gossip.topics (entries)", self.topics.len(), 0..=MAX_INTERESTS)?;
        for topic in &self.topics {
            within("gossip.topics (bytes)", topic.len(), 1..=MAX_TOPIC_BYTES)?;
        }
        let (interval, hot) = (self.reconcile_interval, self.reconcile_hot_window);
        within_span("gossip.reconcile_interval", interval, millis(100)..=secs(3600))?;
        within_span("gossip.reconcile_hot_window", hot, secs(10).max(interval)..=secs(3600))?;
        let full = self.reconcile_full_interval;
        within_span("gossip.reconcile_full_interval", full, secs(1)..=secs(86_400))
    }
}

impl OutboxConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("outbox.max_entries", self.max_entries, 100..=100_000)?;
        within("outbox.max_retries", self.max_retries, 1..=10)?;
        within("outbox.min_copies", self.min_copies, 1..=16)
    }
}

impl MessagesConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("messages.max_bytes", self.max_bytes, KIB..=16 * MIB)?;
        within_span("messages.timeout", self.timeout, secs(1)..=10 * MINUTE)?;
        within("messages.max_concurrent", self.max_concurrent, 1..=1024)
    }
}

/// Reports whether a text is a name or an IP address as a URL has it, without a port.
fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_sign = |sign: u8| sign.is_ascii_alphanumeric() || b"-._".contains(&sign);
    let is_name = bare.is_none() && !text.is_empty() && text.bytes().all(is_sign);
    is_name || bare.unwrap_or(text).parse::<IpAddr>().is_ok()
}

#[expect(clippy::needless_pass_by_value, reason = "numbers, at every call")]
pub(super) fn within<T: PartialOrd + Display>(
    field: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    let (min, max) = range.into_inner();
    if min <= value && value <= max {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        field,
        value: value.to_string(),
        min: min.to_string(),
        max: max.to_string(),
    })
}

pub(super) fn within_span(
    field: &'static str,
    value: Duration,
    range: RangeInclusive<Duration>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (min, max) = range.into_inner();
    Err(ConfigError::OutOfRange {
        field,
        value: in_one_unit(value),
        min: in_one_unit(min),
        max: in_one_unit(max),
    })
}

/// Writes a time in the largest unit that divides it, as the configuration reads it: months and years
/// have no length that a reader knows.
fn in_one_unit(time: Duration) -> String {
    const UNITS: [(u128, &str); 6] = [
        (86_400_000_000_000, "days"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1000, "us"),
    ];
    let nanos = time.as_nanos();
    match UNITS.iter().find(|(unit, _)| nanos.is_multiple_of(*unit)) {
        _ if nanos == 0 => "0s".to_owned(),
        Some((unit, "days")) if nanos == *unit => "1day".to_owned(),
        Some((unit, name)) => format!("{}{name}", nanos / unit),
        None => format!("{nanos}ns"),
    }
}

fn within_auto(
    field: &'static str,
    value: Auto,
    range: RangeInclusive<u32>,
) -> Result<(), ConfigError> {
    match value {
        Auto::Auto => Ok(()),
        Auto::Fixed(value) => within(field, value, range),
    }
}

pub(super) const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

pub(super) const fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
