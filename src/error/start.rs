//! Errors of a node that did not start: its configuration, its key, and what it opens.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{EndpointError, StoreError, TransportError, naming, whole};

/// Reason why a configuration cannot be used. Nothing was started; a retry is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value outside its range.
    #[error("{field} is {value}, allowed is {min} to {max}")]
    OutOfRange {
        /// Section and name of the field.
        field: &'static str,
        /// The value found.
        value: String,
        /// Smallest allowed value.
        min: String,
        /// Largest allowed value.
        max: String,
    },
    /// A list that names one thing twice.
    #[error("{field} names {value} more than once")]
    Repeated {
        /// Section and name of the field.
        field: &'static str,
        /// What is named again.
        value: String,
    },
    /// Plaintext on an address that others can reach.
    #[error(
        "plaintext on {address} would let anybody in: listen on loopback, or set \
         network.allow_plaintext_beyond_loopback"
    )]
    PlaintextBeyondLoopback {
        /// Address that was to be listened on.
        address: SocketAddr,
    },
    /// Admin listener that others can reach, and no token that they would have to show.
    #[error(
        "listen.admin on {address} would let anybody act who reaches it: listen on loopback, or set \
         listen.admin_token"
    )]
    AdminBeyondLoopback {
        /// Address that was to be listened on.
        address: SocketAddr,
    },
    /// Admin listener in a build that has none.
    #[error("listen.admin needs a build with the feature `admin`")]
    AdminNotBuilt,
    /// Looking for nodes on the LAN, in a build that cannot.
    #[error("discovery.mdns needs a build with the feature `mdns`")]
    MdnsNotBuilt,
    /// Admin token that cannot stand in a header.
    #[error("listen.admin_token may have visible ASCII characters alone")]
    AdminToken,
    /// Links without TLS, on which nothing that this kind of trust asks for could be proven.
    #[error("network.trust is {trust}, which cannot be proven with network.plaintext")]
    PlaintextTrust {
        /// Kind of trust, in words.
        trust: &'static str,
    },
    /// An advertised address that nobody can dial.
    #[error("listen.advertise has {endpoint}, which nobody can dial")]
    Advertise {
        /// Advertised address, as it was given.
        endpoint: String,
    },
    /// A server of the section `[nat]` that cannot be asked.
    #[error("{field} has {server:?}, which {reason}")]
    NatServer {
        /// Section and name of the field.
        field: &'static str,
        /// The server as it was given, without credentials.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting of the section `[nat]` in a build that cannot do it.
    #[error("{field} needs a build with the feature `{feature}`")]
    NatNotBuilt {
        /// Section and name of the field.
        field: &'static str,
        /// Feature that is missing.
        feature: &'static str,
    },
    /// Clients of the original system, who prove nothing, in a network that not everybody may join.
    #[error(
        "compat.enabled lets anybody who reaches the port publish in this node's name, and \
         network.trust is not open: set compat.allow_anonymous if that is meant"
    )]
    CompatAnonymous,
    /// Clients of the original system, in a build that does not serve them.
    #[error("compat.enabled needs a build with the feature `compat`")]
    CompatNotBuilt,
    /// Certificate for clients of the original system without its key, or the other way round.
    #[error("compat.certificate_file and compat.key_file go together: compat.{missing} is missing")]
    CompatCertificate {
        /// Name of the field that is missing.
        missing: &'static str,
    },
    /// A proxy that cannot be used, or a rule on where it is not.
    #[error("{field} {reason}")]
    Proxy {
        /// Section and name of the field.
        field: &'static str,
        /// What is wrong with it, without credentials.
        reason: String,
    },
}

/// Reason why a key or a secret could not be used. A file that exists is never overwritten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file could not be read, created or protected. A retry helps once that is mended.
    #[error("{}", whole(&format!("key file {}", path.display()), Some(r#source)))]
    Io {
        /// Path of the key file.
        path: PathBuf,
        /// Error of the operating system.
        r#source: std::io::Error,
    },
    /// The file is not a PEM-encoded PKCS#8 Ed25519 private key, and was left as it is.
    #[error("key file {path} is not a PKCS#8 Ed25519 private key in PEM")]
    Format {
        /// Path of the key file.
        path: PathBuf,
    },
    /// The file with a network's secret could not be read or made. A retry helps once that is mended.
    #[error("{}", whole(&format!("network secret {}", path.display()), Some(r#source)))]
    SecretFile {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        r#source: std::io::Error,
    },
    /// A network's secret that is too short to be safe, or too long; no retry helps.
    #[error(
        "a network secret has {min} to {max} bytes, {} has {length}",
        path.as_ref().map_or("this one".into(), |path| path.display().to_string())
    )]
    SecretLength {
        /// File that holds the secret, where one does.
        path: Option<PathBuf>,
        /// Length of the secret in bytes; of a file, as far as it was read.
        length: usize,
        /// Smallest allowed length.
        min: usize,
        /// Largest allowed length.
        max: usize,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
}

/// Reason why a node did not start. Nothing keeps running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is wrong; no retry helps.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address given to the builder does not parse; no retry helps.
    #[error("{}", naming(&format!("address {text:?}"), &format!("{text:?}"), r#source))]
    Address {
        /// Text that was given as an endpoint.
        text: String,
        /// Reason why the text is no endpoint.
        r#source: EndpointError,
    },
    /// Listening failed; a retry helps once the port is free.
    #[error("{}", naming(&format!("cannot listen on {address}"), address, r#source))]
    Listen {
        /// Address that was to be listened on.
        address: SocketAddr,
        /// Error of the transport.
        r#source: TransportError,
    },
    /// The built-in transport could not be made of this identity; no retry helps.
    #[error("cannot set up the transport: {source}")]
    Transport {
        /// Error of the transport.
        r#source: TransportError,
    },
    /// A store could not be read; a retry helps once that is mended.
    #[error("cannot restore: {0}")]
    Store(StoreError),
    /// Clients of the original system are to be served, and the host gave transports of its own, which
    /// cannot: no retry helps.
    #[error("compat.enabled needs the built-in transports, and others were given to the builder")]
    CompatTransport,
    /// Relay servers are to listen for the node, and the host gave transports of its own, which cannot: no
    /// retry helps.
    #[error("nat.relays needs the built-in transports, and others were given to the builder")]
    RelayTransport,
    /// Neither a transport was given nor is one built in; no retry helps.
    #[error("no transport: give one to the builder or build with the feature `grpc`")]
    NoTransport,
    /// No identity was given and none could be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// Called outside a tokio runtime; no retry helps.
    #[error("a node must be started inside a tokio runtime")]
    NoRuntime,
}
