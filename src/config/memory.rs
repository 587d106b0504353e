//! One number for memory: how it is read, and how it is divided.
//!
//! Each owner of payloads has a share of `limits.memory`. Settings of a single share win over what
//! follows from the number, and the others divide what is left.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serializer};

use crate::error::ConfigError;

use super::root::Config;
use super::sections::{KIB, MIB};

/// Number of payloads of the largest size that have to fit into the memory of a node: one on its way
/// in, one on its way to the store, one on its way out, and one between them.
const LARGEST_PAYLOADS: u64 = 4;
/// Range of `limits.memory`.
const MIN_MEMORY: u64 = 16 * MIB;
const MAX_MEMORY: u64 = 1024 * KIB * MIB;

/// Parts of the memory that the owners have where no setting says otherwise; 64 in all.
const ASSEMBLIES: u64 = 16;
const CHECKS: u64 = 3;
const STORING: u64 = 9;
const CACHE: u64 = 4;
const PROOFS: u64 = 1;
const SERVING: u64 = 5;
const DEFERRED: u64 = 3;
const PUBLISHES: u64 = 8;
const INBOUND: u64 = 2;
const STORES: u64 = 4;
const REQUESTS: u64 = 8;
const TRAILS: u64 = 1;
/// Maximum bytes of trails, however much memory there is.
const MAX_TRAILS: u64 = 4 * MIB;
/// All of these.
const PARTS: u64 = ASSEMBLIES
    + CHECKS
    + STORING
    + CACHE
    + PROOFS
    + SERVING
    + DEFERRED
    + PUBLISHES
    + INBOUND
    + STORES
    + REQUESTS
    + TRAILS;

/// Number of bytes that each owner may hold. An owner of payloads may always hold one, however
/// large.
#[cfg_attr(not(feature = "node"), allow(dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Buffers of large payloads on their way in.
    pub(crate) assemblies: u64,
    /// Payloads and pieces being checked.
    pub(crate) checks: u64,
    /// Transactions on their way to the stores.
    pub(crate) storing: u64,
    /// Recent payloads that may be asked for.
    pub(crate) cache: u64,
    /// Proofs of pieces.
    pub(crate) proofs: u64,
    /// Payloads read from the store for peers.
    pub(crate) serving: u64,
    /// Transactions of replayed outboxes that came before their turn.
    pub(crate) deferred: u64,
    /// Payloads of publishes that are not answered.
    pub(crate) publishes: u64,
    /// Frames that were read and not handled.
    pub(crate) inbound: u64,
    /// Caches of the stores.
    pub(crate) stores: u64,
    /// Bodies of requests and of their answers, own and others' together.
    pub(crate) requests: u64,
    /// What is remembered of transactions, to explain what became of them.
    pub(crate) trails: u64,
}

impl Config {
    /// Divides the memory.
    pub(crate) fn shares(&self) -> Shares {
        let gossip = &self.gossip;
        let given = [(gossip.max_assembly_bytes, ASSEMBLIES), (gossip.cache_bytes, CACHE)];
        let (mut left, mut parts) = (self.limits.memory, PARTS);
        for (bytes, part) in given {
            if let Some(bytes) = bytes {
                left = left.saturating_sub(bytes);
                parts -= part;
            }
        }
        let share = |part: u64| left / parts * part;
        let trails = share(TRAILS).min(MAX_TRAILS);
        Shares {
            assemblies: gossip.max_assembly_bytes.unwrap_or_else(|| share(ASSEMBLIES)),
            checks: share(CHECKS),
            storing: share(STORING),
            cache: gossip.cache_bytes.unwrap_or_else(|| share(CACHE)),
            proofs: share(PROOFS),
            serving: share(SERVING),
            deferred: share(DEFERRED),
            publishes: share(PUBLISHES),
            inbound: share(INBOUND),
            // With what trails do not take.
            stores: share(STORES) + share(TRAILS) - trails,
            requests: share(REQUESTS),
            trails,
        }
    }

    /// Checks the memory, and what settings of single shares leave of it.
    pub(super) fn validate_memory(&self) -> Result<(), ConfigError> {
        let (memory, gossip) = (self.limits.memory, &self.gossip);
        let largest = gossip.max_transaction_size.saturating_mul(LARGEST_PAYLOADS);
        if !(MIN_MEMORY.max(largest)..=MAX_MEMORY).contains(&memory) {
            let min = if largest > MIN_MEMORY {
                format!("{largest} ({LARGEST_PAYLOADS} times gossip.max_transaction_size)")
            } else {
                MIN_MEMORY.to_string()
            };
            let max = MAX_MEMORY.to_string();
            return Err(out_of_range("limits.memory", memory, min, max));
        }
        let half = memory / 2;
        let cache = gossip.cache_bytes.unwrap_or_default();
        let left = (memory - memory / 4).saturating_sub(cache).min(half);
        for (field, bytes, max, whence) in [
            ("gossip.cache_bytes", gossip.cache_bytes, half, "half of limits.memory"),
            (
                "gossip.max_assembly_bytes",
                gossip.max_assembly_bytes,
                left,
                "half of limits.memory, and with gossip.cache_bytes three quarters of it",
            ),
        ] {
            if let Some(bytes) = bytes
                && !(MIB..=max).contains(&bytes)
            {
                return Err(out_of_range(
                    field,
                    bytes,
                    MIB.to_string(),
                    format!("{max} ({whence})"),
                ));
            }
        }
        Ok(())
    }
}

fn out_of_range(field: &'static str, value: u64, min: String, max: String) -> ConfigError {
    ConfigError::OutOfRange { field, value: value.to_string(), min, max }
}

/// Reads a number of bytes: digits, and after them a unit if there is one.
fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => KIB * MIB,
        "TiB" => MIB * MIB,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(format!("{text:?} is no number of bytes such as 67108864 or \"64 MiB\"")),
    };
    let number =
        digits.parse::<u64>().map_err(|e| format!("{text:?} is no number of bytes: {e}"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is more than can be counted"))
}

/// A number of bytes as serde reads it: a number, or text with a unit.
struct Bytes(u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ReadBytes).map(Self)
    }
}

struct ReadBytes;

impl Visitor<'_> for ReadBytes {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, or text such as \"64 MiB\"")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::custom(format!("{bytes} is no number of bytes")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse(text).map_err(E::custom)
    }
}

/// A setting in bytes.
pub(super) mod bytes {
    use super::{Bytes, Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
    pub(in crate::config) fn serialize<S: Serializer>(
        bytes: &u64,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_u64(*bytes)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<u64, D::Error> {
        Bytes::deserialize(from).map(|bytes| bytes.0)
    }
}

/// A setting in bytes that may be left to the node; `None` where it is left out.
pub(super) mod bytes_if_set {
    use super::{Bytes, Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "as serde wants it")]
    pub(in crate::config) fn serialize<S: Serializer>(
        bytes: &Option<u64>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => to.serialize_u64(*bytes),
            None => to.serialize_none(),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<u64>, D::Error> {
        Ok(Option::<Bytes>::deserialize(from)?.map(|bytes| bytes.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: u64 = 256 * MIB;

    fn sum(shares: &Shares) -> u64 {
        let Shares { assemblies, checks, storing, cache, proofs, .. } = *shares;
        let Shares { serving, deferred, publishes, inbound, stores, requests, trails, .. } =
            *shares;
        assemblies
            + checks
            + storing
            + cache
            + proofs
            + serving
            + deferred
            + publishes
            + inbound
            + stores
            + requests
            + trails
    }

    #[test]
    fn shares_make_up_the_memory() {
        let config = Config::default();
        assert_eq!(config.limits.memory, SHARED);
        let shares = config.shares();
        assert_eq!((shares.assemblies, shares.cache), (64 * MIB, 16 * MIB));
        assert_eq!(sum(&shares), SHARED);
        for memory in [40 * MIB, 64 * MIB + 1, 1 << 40] {
            let mut config = Config::default();
            config.limits.memory = memory;
            config.validate().unwrap();
            let sum = sum(&config.shares());
            assert!((memory - PARTS..=memory).contains(&sum), "{sum} of {memory}");
        }
    }

    #[test]
    fn settings_of_single_shares_win() {
        let mut config = Config::default();
        config.gossip.max_assembly_bytes = Some(128 * MIB);
        config.gossip.cache_bytes = Some(MIB);
        config.validate().unwrap();
        let shares = config.shares();
        assert_eq!((shares.assemblies, shares.cache), (128 * MIB, MIB));
        assert!(sum(&shares) <= SHARED && sum(&shares) > SHARED - PARTS);
        assert!(shares.storing < Config::default().shares().storing);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        type Spoil = fn(&mut Config);
        let cases: [(&str, &str, Spoil); 5] = [
            ("limits.memory", "4 times", |c| c.gossip.max_transaction_size = 65 * MIB),
            ("limits.memory", "16777216 to", |c| {
                c.limits.memory = 15 * MIB;
                c.gossip.max_transaction_size = MIB;
            }),
            ("gossip.max_assembly_bytes", "134217728 (half", |c| {
                c.gossip.max_assembly_bytes = Some(129 * MIB);
            }),
            ("gossip.cache_bytes", "half of limits.memory", |c| {
                c.gossip.cache_bytes = Some(129 * MIB);
            }),
            ("gossip.max_assembly_bytes", "three quarters", |c| {
                c.gossip.cache_bytes = Some(100 * MIB);
                c.gossip.max_assembly_bytes = Some(100 * MIB);
            }),
        ];
        for (field, text, spoil) in cases {
            let mut config = Config::default();
            spoil(&mut config);
            let error = config.validate().expect_err(field).to_string();
            assert!(error.starts_with(field) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn bytes_are_read_as_people_write_them() {
        let cases = [
            ("67108864", 64 * MIB),
            ("64 MiB", 64 * MIB),
            (" 64MiB ", 64 * MIB),
            ("2 GiB", 2048 * MIB),
            ("1 TiB", 1 << 40),
            ("500 MB", 500_000_000),
            ("7 B", 7),
            ("3 KiB", 3072),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "64 parsecs", "-1", "1.5 GiB", "64 mib", "99999999999 TiB", "1 2"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_is_set_by_number_or_text() {
        let read = |json| serde_json::from_value::<Config>(json);
        for memory in [serde_json::json!(64 * MIB), serde_json::json!("64 MiB")] {
            let config = read(serde_json::json!({ "limits": { "memory": memory } })).unwrap();
            assert_eq!(config.limits.memory, 64 * MIB);
        }
        let gossip = serde_json::json!({ "gossip": { "cache_bytes": "2 MiB" } });
        let config = read(gossip).unwrap();
        assert_eq!(
            (config.gossip.cache_bytes, config.gossip.max_assembly_bytes),
            (Some(2 * MIB), None)
        );
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
        assert!(read(serde_json::json!({ "limits": { "memory": -1 } })).is_err());
        assert!(read(serde_json::json!({ "limits": { "memory": "much" } })).is_err());
    }
}
