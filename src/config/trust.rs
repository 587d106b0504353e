//! Who may join a network.
//!
//! Tested by: the tests below, `protocol::tests::members`, `tests/node/members.rs`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::NetworkSecret;
use super::ranges::within;
use super::secret::announcement_key_of_name;
use crate::error::{ConfigError, IdentityError};
use crate::types::{MAX_PROOFS, PeerId};

/// Peers that may have a link with this node, whoever dialled. All nodes of a network should have the
/// same. The guide's page on security compares the four.
///
/// ```toml
/// [network]
/// trust = "open"
/// trust = { secret_file = "data/network.secret" }
/// trust = { secret_files = ["data/new.secret", "data/old.secret"] }
/// trust = { allow = ["5f1c…64 hex digits"] }
/// trust = { ca_file = "ca.pem", certificate_file = "node.pem" }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Trust {
    /// Anybody who proves a key and names the network, which is no secret.
    #[default]
    Open,
    /// Only these peers; others are refused after their handshake, with a reason, and never dialled.
    AllowList {
        /// Ids of the peers.
        peers: BTreeSet<PeerId>,
    },
    /// Only who proves, on each link anew, to know one of these secrets. One or two, counted together:
    /// with two, both are proven and either is accepted, so that a network moves from one to the other
    /// node by node. A stranger who dials is told nothing but that it is no member.
    Secret {
        /// Secrets at hand. They are not serialised.
        secrets: Vec<NetworkSecret>,
        /// Files that hold a secret each, read when the node starts: see [`NetworkSecret::load`].
        files: Vec<PathBuf>,
    },
    /// Only who shows a certificate of this CA for its key, in date, in the TLS handshake.
    Ca {
        /// PEM file with the certificates of the CAs.
        ca_file: PathBuf,
        /// PEM file with the certificate of this node's key, then those between it and the CA, at most
        /// 4 together.
        certificate_file: PathBuf,
    },
}

impl Trust {
    /// Trust in who knows this secret.
    pub fn secret(secret: NetworkSecret) -> Self {
        Self::Secret { secrets: vec![secret], files: Vec::new() }
    }

    /// Trust in who knows the secret in this file, which is read when the node starts.
    pub fn secret_file(path: impl Into<PathBuf>) -> Self {
        Self::Secret { secrets: Vec::new(), files: vec![path.into()] }
    }

    /// Reports whether the key of `peer` alone is no reason to refuse it; what it has to prove beside
    /// that is another matter.
    pub fn allows(&self, peer: &PeerId) -> bool {
        match self {
            Self::AllowList { peers } => peers.contains(peer),
            Self::Open | Self::Secret { .. } | Self::Ca { .. } => true,
        }
    }

    /// Returns the secrets of which one has to be proven, where that is asked for.
    pub(crate) fn secrets(&self) -> Option<&[NetworkSecret]> {
        match self {
            Self::Secret { secrets, .. } => Some(secrets),
            _ => None,
        }
    }

    /// Returns the keys by which the members of a network know each other's announcements.
    #[cfg_attr(not(feature = "mdns"), allow(dead_code))]
    pub(crate) fn announcement_keys(&self, network: &str) -> Vec<[u8; 32]> {
        match self.secrets() {
            Some(secrets) => secrets.iter().map(|s| s.announcement_key(network)).collect(),
            None => vec![announcement_key_of_name(network)],
        }
    }

    /// Adds a secret: to those that are there, or in place of another kind of trust.
    #[cfg_attr(not(any(test, feature = "node")), allow(dead_code))]
    pub(crate) fn add_secret(&mut self, secret: NetworkSecret) {
        match self {
            Self::Secret { secrets, .. } => secrets.push(secret),
            other => *other = Self::secret(secret),
        }
    }

    /// Adds a file with a secret, as [`Trust::add_secret`] does.
    #[cfg_attr(not(any(test, feature = "node")), allow(dead_code))]
    pub(crate) fn add_secret_file(&mut self, path: PathBuf) {
        match self {
            Self::Secret { files, .. } => files.push(path),
            other => *other = Self::secret_file(path),
        }
    }

    /// Reads the files with secrets.
    #[cfg_attr(not(any(test, feature = "node")), allow(dead_code))]
    pub(crate) fn read_files(&mut self) -> Result<(), IdentityError> {
        if let Self::Secret { secrets, files } = self {
            let read = files.iter().map(NetworkSecret::load).collect::<Result<Vec<_>, _>>()?;
            files.clear();
            secrets.splice(..0, read);
        }
        Ok(())
    }

    pub(super) fn validate(&self, plaintext: bool) -> Result<(), ConfigError> {
        if let Self::Secret { secrets, files } = self {
            within("network.trust (secrets)", secrets.len() + files.len(), 1..=MAX_PROOFS)?;
        }
        match self {
            Self::Secret { .. } if plaintext => {
                Err(ConfigError::PlaintextTrust { trust: "a secret" })
            }
            Self::Ca { .. } if plaintext => Err(ConfigError::PlaintextTrust { trust: "a CA" }),
            _ => Ok(()),
        }
    }
}

impl Serialize for Trust {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self == Self::Open {
            return serializer.serialize_str("open");
        }
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Open => {}
            Self::AllowList { peers } => map.serialize_entry("allow", peers)?,
            // Secrets at hand are left out: what is read back without them is refused.
            Self::Secret { files, .. } => map.serialize_entry("secret_files", files)?,
            Self::Ca { ca_file, certificate_file } => {
                map.serialize_entry("ca_file", ca_file)?;
                map.serialize_entry("certificate_file", certificate_file)?;
            }
        }
        map.end()
    }
}

/// Everything that a table may say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    allow: Option<BTreeSet<PeerId>>,
    secret_file: Option<PathBuf>,
    secret_files: Option<Vec<PathBuf>>,
    ca_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    /// The way to write it before there were secrets.
    mode: Option<String>,
    peers: Option<BTreeSet<PeerId>>,
}

/// Ways to write it, for error messages.
const FORMS: &str = "\"open\", { secret_file = … }, { secret_files = [new, old] }, { allow = [ids] } \
                     or { ca_file = …, certificate_file = … }";

impl Table {
    fn trust(self) -> Result<Trust, String> {
        let Self { allow, secret_file, secret_files, ca_file, certificate_file, mode, peers } =
            self;
        let allow = match (mode.as_deref(), allow, peers) {
            (None | Some("allow_list"), Some(peers), None)
            | (Some("allow_list"), None, Some(peers)) => Some(peers),
            (None | Some("open"), None, None) => None,
            (Some("allow_list"), None, None) => return Err("the allow-list has no `peers`".into()),
            (Some(mode), ..) => return Err(format!("`mode` is {mode:?}, expected {FORMS}")),
            (None, ..) => return Err("`peers` is the list of `mode = \"allow_list\"`".into()),
        };
        let files = match (secret_file, secret_files) {
            (Some(_), Some(_)) => return Err("either `secret_file` or `secret_files`".into()),
            (Some(file), None) => Some(vec![file]),
            (None, files) => files,
        };
        match (allow, files, ca_file, certificate_file) {
            (Some(peers), None, None, None) => Ok(Trust::AllowList { peers }),
            (None, Some(files), None, None) => Ok(Trust::Secret { secrets: Vec::new(), files }),
            (None, None, Some(ca_file), Some(certificate_file)) => {
                Ok(Trust::Ca { ca_file, certificate_file })
            }
            (None, None, Some(_), None) => Err("`ca_file` needs a `certificate_file`".into()),
            (None, None, None, Some(_)) => Err("`certificate_file` needs a `ca_file`".into()),
            (None, None, None, None) if mode.is_some() => Ok(Trust::Open),
            (None, None, None, None) => Err(format!("it says nothing, expected {FORMS}")),
            _ => Err(format!("it says more than one thing, expected {FORMS}")),
        }
    }
}

impl<'de> Deserialize<'de> for Trust {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Trust;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "trust: {FORMS}")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Trust, E> {
                match word {
                    "open" => Ok(Trust::Open),
                    // Without the word: who takes this for the place of a secret has written one.
                    _ => Err(E::custom(format!("trust is another word, expected {FORMS}"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Trust, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                table.trust().map_err(|why| A::Error::custom(format!("trust: {why}")))
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<Trust, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    fn files(names: &[&str]) -> Trust {
        Trust::Secret { secrets: Vec::new(), files: names.iter().map(PathBuf::from).collect() }
    }

    #[test]
    fn it_reads_as_a_person_writes_it() {
        let peers: BTreeSet<_> = [PeerId::from_bytes([1; 32])].into();
        let id = "01".repeat(32);
        let allowed = Trust::AllowList { peers };
        let ca = Trust::Ca { ca_file: "ca.pem".into(), certificate_file: "node.pem".into() };
        for (value, wanted) in [
            (json!("open"), Trust::Open),
            (json!({ "mode": "open" }), Trust::Open),
            (json!({ "secret_file": "a" }), files(&["a"])),
            (json!({ "secret_files": ["new", "old"] }), files(&["new", "old"])),
            (json!({ "allow": [id] }), allowed.clone()),
            (json!({ "mode": "allow_list", "peers": [id] }), allowed),
            (json!({ "ca_file": "ca.pem", "certificate_file": "node.pem" }), ca),
        ] {
            let found = read(value.clone()).unwrap();
            assert_eq!(found, wanted, "{value}");
            assert_eq!(read(serde_json::to_value(&found).unwrap()).unwrap(), wanted);
        }
    }

    #[test]
    fn an_error_names_what_is_wrong() {
        for (value, part) in [
            (json!("opne"), "trust is another word"),
            (json!(5), "trust: \"open\""),
            (json!({}), "says nothing"),
            (json!({ "secret": "x" }), "`secret`"),
            (json!({ "secret_file": "a", "secret_files": ["b"] }), "either `secret_file`"),
            (json!({ "secret_file": "a", "allow": [] }), "more than one thing"),
            (json!({ "ca_file": "a" }), "needs a `certificate_file`"),
            (json!({ "certificate_file": "a" }), "needs a `ca_file`"),
            (json!({ "allow": ["zz"] }), "64 hexadecimal digits"),
            (json!({ "mode": "closed" }), "\"closed\""),
            (json!({ "mode": "allow_list" }), "no `peers`"),
            (json!({ "mode": "open", "peers": [] }), "\"open\""),
            (json!({ "peers": [] }), "`mode = \"allow_list\"`"),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(part), "{value}: {error}");
        }
    }

    #[test]
    fn a_secret_is_neither_shown_nor_written() {
        let trust = Trust::secret(NetworkSecret::new("correct horse battery").unwrap());
        assert!(!format!("{trust:?}").contains("horse"));
        let written = serde_json::to_value(&trust).unwrap();
        assert!(!written.to_string().contains("horse"));
        let back = read(written).unwrap();
        let error = back.validate(false).unwrap_err().to_string();
        assert!(error.starts_with("network.trust (secrets) is 0"), "{error}");
    }

    #[test]
    fn files_are_read_and_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let (first, second) =
            (NetworkSecret::generate().unwrap(), NetworkSecret::generate().unwrap());
        first.save(&path).unwrap();
        let mut trust = Trust::secret(second.clone());
        trust.add_secret_file(path.clone());
        trust.read_files().unwrap();
        assert_eq!(trust.secrets(), Some([first, second].as_slice()));
        trust.validate(false).unwrap();
        trust.validate(true).unwrap_err();
        trust.add_secret_file(path);
        trust.validate(false).unwrap_err();
    }
}
